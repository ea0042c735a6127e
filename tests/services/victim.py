"""Processes with a whole house and no pages, made to be killed: each sends one message and tells what happened, line by line.

    python tests/services/victim.py
    FOLDER UPSTREAM_ADDRESS TEXT POINT  (a line of its input, parted by tabs: one victim; POINT is where it ends itself, or nothing)

A victim prints its process id, `ready`, `accepted ANSWER_ID`, and `settled` when the answer has ended; then it waits to be
killed, and `gone` is printed. They are forks of a process that has imported everything and opened nothing, since a start
from nothing costs more than all that a victim lives through.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chatpro import bootstrap, tokens
from chatpro.config import Settings
from chatpro.services.answering import Sent


def main() -> None:
    import openai  # noqa: F401 — with the next two lines, what a house would import and read when it opens

    import chatpro.models.openai  # noqa: F401

    tokens.count("word", "cl100k_base")
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            live(*line.rstrip("\n").split("\t"))
        os.waitpid(pid, 0)
        print("gone", flush=True)


def live(folder: str, upstream: str, text: str, point: str) -> None:
    os.environ["CHATPRO_TEST_FAULTS"] = point
    print(os.getpid(), flush=True)
    settings = Settings(
        demo_dir=Path(folder),
        data_dir=Path(folder),
        openai_api_key="made-up",
        openai_base_url=upstream,
        sample_accounts=1,
        sample_freelancers=0,
        save_seconds=SAVE_SECONDS,
    )
    house = bootstrap.build(settings)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(bootstrap.start(house), loop).result(60)
    account = house.accounts.sample("bench-1")
    assert account is not None
    print("ready", flush=True)
    sent = house.answering.send(account, house.answering.new_chat_id(), text, None)
    assert isinstance(sent, Sent)
    print(f"accepted {sent.answer_id}", flush=True)
    while house.answering.watch(account.id, sent.answer_id) is not None:
        time.sleep(0.001)
    print("settled", flush=True)
    time.sleep(600)


SAVE_SECONDS = 0.2

if __name__ == "__main__":
    main()
