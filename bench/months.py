"""How fast months are made up: sends a second of processor time, beside the bare decision on a send in the same run.

    .venv/bin/python bench/months.py [ACCOUNTS]

The months are those of demo mode (chatpro/domain/months.py, 120 days), with the default sizes. The rest of a made-up send is a person's habits,
the counter, the charge and the warnings.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chatpro.config import Settings  # noqa: E402
from chatpro.domain.allowance import Standing, decide  # noqa: E402
from chatpro.sample import scene  # noqa: E402


def main(accounts: int) -> None:
    shown = scene(Settings(), datetime(2026, 11, 23, tzinfo=UTC))
    began = time.process_time()
    sends = sum(len(made.books.calls) for made in shown.accounts(accounts))
    taken = time.process_time() - began

    standing, history = Standing(shown.allowance, 50_000, 0), [400, 60, 350, 80, 500]
    began = time.process_time()
    for _ in range(100_000):
        decide(shown.sizes, standing, 120, history)
    decision = (time.process_time() - began) / 100_000

    each = taken / sends
    print(f"{accounts:,} accounts, {sends:,} sends in {taken:.1f} s of one core: {each * 1e6:.0f} µs a send, {each / decision:.1f} bare decisions")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3_000)
