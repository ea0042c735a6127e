"""How long one person's search takes in a store with ten million messages of 50,000 people. The promise: p95 at most 50 ms in the store.

    .venv/bin/python bench/search.py [--messages 10000000] [--folder FOLDER] [--keep]

The store is made in the order in which the purge leaves it (tests hold that it does), with a day's messages behind it in order of arrival. People have
200 messages each, forty others have 2,000. Each search is for a word that half of one's messages have, for two words that many have, for a phrase, and
for nothing there is (so that all of them are looked through). Cold: the first search of each person after opening, with the machine's file
cache emptied where that is allowed; warm: again. Beside it an empty read of the store. Making it takes 3 GB and some minutes; with fewer messages, less.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.held import fill, fill_sorted, person  # noqa: E402
from chatpro.config import Settings  # noqa: E402
from chatpro.domain.accounts import Account, Role  # noqa: E402
from chatpro.services.history import LATEST, SEARCHED, History  # noqa: E402
from chatpro.storage.duckdb import DuckStore  # noqa: E402

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CHARS = 294
WRITERS = 40
QUERIES = ("naive", "bade rari", '"ba be"', "zebra crossing")


def open_store(folder: Path) -> DuckStore:
    return DuckStore(folder / "chatpro.duckdb", memory="1GB", threads=2)


def make(folder: Path, messages: int) -> None:
    store, people = open_store(folder), max(50, messages // 200)
    began, day = time.perf_counter(), NOW - timedelta(days=1)
    counts = {**dict.fromkeys(range(people), 200), **dict.fromkeys(range(people, people + WRITERS), 2_000)}
    fill_sorted(store, counts, chars=CHARS, first=NOW - timedelta(days=89), last=day)
    fill(store, people=people + WRITERS, exchanges=messages // 180, chars=CHARS, first=day, last=NOW, ledger=False, begin=messages)
    ((held,),) = store.read(lambda rows: rows._all("SELECT count(*) FROM messages"))
    print(f"{held:,} messages of {people + WRITERS:,} people made in {time.perf_counter() - began:.0f} s", flush=True)
    store.close()


def forget_files() -> bool:
    """Empty the machine's file cache, where this user may."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    return False


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that passed, and those of processors: on a busy machine only the second say something."""
    began, worked = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - began) * 1000, (time.process_time() - worked) * 1000


def told(what: str, both: list[tuple[float, float]]) -> None:
    figures = []
    for took in (sorted(passed for passed, _ in both), sorted(worked for _, worked in both)):
        p = [took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.95)]
        figures.append(f"median {p[0]:.1f}, p95 {p[1]:.1f}, longest {took[-1]:.1f} ms")
    print(f"{what} ({len(both)}): {figures[0]}; of processors {figures[1]}", flush=True)


def measure(folder: Path, messages: int) -> None:
    people, dice = max(50, messages // 200), random.Random(3)
    emptied = forget_files()
    store = open_store(folder)
    history = History(store, Settings(), lambda: NOW)
    since = NOW - timedelta(days=90)
    size = (folder / "chatpro.duckdb").stat().st_size / 1e9
    print(f"load {Path('/proc/loadavg').read_text().split()[0]}; {size:.1f} GB; file cache {'emptied' if emptied else 'as it was'}")
    for kind, numbers in (("200 messages", dice.sample(range(people), WRITERS)), ("2,000 messages", list(range(people, people + WRITERS)))):
        accounts = [account_of(store, number) for number in numbers]
        for temperature in ("cold", "warm"):
            read: list[tuple[float, float]] = []
            whole: list[tuple[float, float]] = []
            for account in accounts:
                for query in QUERIES[:1] if temperature == "cold" else QUERIES:
                    whole.append(timed(lambda: history.search(account, query)))  # noqa: B023
                    if temperature == "warm":
                        read.append(timed(lambda: store.read(lambda rows: rows.written(account.id, since, (LATEST.at, LATEST.sequence), SEARCHED))))  # noqa: B023
            told(f"{kind}, {temperature}, the whole search", whole)
            if read:
                told(f"{kind}, {temperature}, of it reading", read)
    told("an empty read", [timed(lambda: store.read(lambda rows: rows._all("SELECT 1"))) for _ in range(200)])
    store.close()


def account_of(store: DuckStore, number: int) -> Account:
    ((account_id,),) = store.read(lambda rows: rows._all(f"SELECT {person(number)}"))
    return Account(account_id, "bench", str(number), "Bench", None, "UTC", True, NOW, frozenset({Role.FREELANCER}))


def main(messages: int, folder: Path) -> None:
    if not (folder / "chatpro.duckdb").exists():
        make(folder, messages)
    measure(folder, messages)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where to make the store (6 GB for a while); beside the system's temporary files by default")
    parser.add_argument("--keep", action="store_true", help="leave the store in that folder, and use the one that is there")
    given = parser.parse_args()
    if given.keep and given.folder:
        main(given.messages, given.folder)
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as made:
            main(given.messages, Path(made))
