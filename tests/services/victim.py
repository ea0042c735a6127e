"""A process with a whole house and no pages, made to be killed: it sends one message and tells what happened, line by line.

    python tests/services/victim.py FOLDER UPSTREAM_ADDRESS TEXT

Prints `ready`, `accepted ANSWER_ID`, and `settled` when the answer has ended; then waits to be killed.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chatpro import bootstrap
from chatpro.config import Settings
from chatpro.services.answering import Sent


def main(folder: str, upstream: str, text: str) -> None:
    settings = Settings(
        demo_dir=Path(folder), data_dir=Path(folder), openai_api_key="made-up", openai_base_url=upstream, sample_accounts=1, save_seconds=SAVE_SECONDS
    )
    house = bootstrap.build(settings)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(bootstrap.start(house), loop).result(20)
    account = house.accounts.sample("bench-1")
    assert account is not None
    print("ready", flush=True)
    sent = house.answering.send(account, house.answering.new_chat_id(), text, None)
    assert isinstance(sent, Sent)
    print(f"accepted {sent.answer_id}", flush=True)
    while house.answering.watch(account.id, sent.answer_id) is not None:
        time.sleep(0.001)
    print("settled", flush=True)
    time.sleep(60)


SAVE_SECONDS = 0.2

if __name__ == "__main__":
    main(*sys.argv[1:4])
