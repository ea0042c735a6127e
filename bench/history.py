"""What the store and the services take for the history page, the side panel's list, and the export of everything.

    .venv/bin/python bench/history.py [--messages 400000] [--folder FOLDER]

A store in which each person has 200 chats of two messages, with their ledger, written anew by the purge so that rows lie as they do after its
first run. Of forty people each: the list of the panel, the first page of the table by each of its columns, and a page from its middle; the first time
after opening and again. Then one person's 20,000 messages as a ZIP of everything, without the pauses that it makes for others: how fast, and how
much memory it took at most (a test holds that to 20 MB). Processor time stands beside what passed: on a busy machine only that says something.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.held import fill  # noqa: E402
from bench.search import account_of, open_store, timed, told  # noqa: E402
from chatpro.config import Settings  # noqa: E402
from chatpro.domain.chats import Column  # noqa: E402
from chatpro.services import export  # noqa: E402
from chatpro.services.export import Form  # noqa: E402
from chatpro.services.history import History, View  # noqa: E402
from tests.cast import build_house, person  # noqa: E402
from tests.services.test_export import many  # noqa: E402

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CHATS = 200
ASKED = 40


def make(folder: Path, messages: int) -> int:
    store, people = open_store(folder), max(ASKED, messages // 2 // CHATS)
    began = time.perf_counter()
    fill(store, people=people, exchanges=messages // 2, chars=294, first=NOW - timedelta(days=89), last=NOW, chats=CHATS)
    store.purge(NOW - timedelta(days=90), NOW, gentle=False)
    print(f"{messages:,} messages of {people:,} people made and sorted in {time.perf_counter() - began:.0f} s", flush=True)
    store.close()
    return people


def pages(folder: Path, people: int) -> None:
    store = open_store(folder)
    history = History(store, Settings(), lambda: NOW)
    accounts = [account_of(store, number * people // ASKED) for number in range(ASKED)]
    asked: dict[str, list[Callable[[History, int], object]]] = {
        "the panel's list": [lambda h, n: h.chats(accounts[n])],
        "a first page of the table": [lambda h, n, c=column: h.listing(accounts[n], View(c)) for column in Column],  # type: ignore[misc]
        "a page of its middle": [lambda h, n: h.listing(accounts[n], View(page=4))],
    }
    for what, works in asked.items():
        for when in ("the first time", "again"):
            told(f"{what}, {when}", [timed(lambda: work(history, n)) for n in range(ASKED) for work in works])  # noqa: B023
    store.close()


def everything(folder: Path) -> None:
    house = build_house(folder)
    mara = person(house, "mara")
    many(house, mara, 20_000, 100, "words " * 60)
    export.GENTLE = 0.0
    order = house.export.order(mara, Form.EVERYTHING)
    passed, worked = timed(lambda: sum(map(len, house.export.collect(order.token).pieces)))
    order = house.export.order(mara, Form.EVERYTHING)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    size = sum(map(len, house.export.collect(order.token).pieces))
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    took = f"{size / 1e6:.1f} MB in {passed / 1000:.1f} s ({worked / 1000:.1f} s of processors)"
    print(f"everything of 20,000 messages in all forms: {took}, at most {peak / 1e6:.1f} MB of memory", flush=True)
    house.store.close()
    house.analytics.close()


def main(messages: int, folder: Path) -> None:
    print(f"load {Path('/proc/loadavg').read_text().split()[0]}", flush=True)
    pages(folder, make(folder, messages))
    everything(folder / "house")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=400_000)
    parser.add_argument("--folder", type=Path, help="where to make the store; beside the system's temporary files by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        main(given.messages, Path(made))
