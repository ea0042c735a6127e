"""How long a send waits because of the rewrite that deletes for good, and how many messages it writes anew a second.

    .venv/bin/python bench/purge.py [--messages 1000000] [--senders 4] [--folder FOLDER]

A house with that many messages, a hundredth of which is past its days, and people who send in chats of their own all the time: first
for a while without the rewrite, then while it runs. A send is the whole verb, from the call to the accepted reservation. How long each step of
the rewrite held the writer stands beside it: that is what a send may have to wait for, on top of what it takes itself. Beside each
stands what the same machine takes for a commit with nothing in it, because machines and minutes differ. Sends during which the whole process
stood still (a machine that was put to sleep) are left out and counted.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.held import fill  # noqa: E402
from chatpro import bootstrap  # noqa: E402
from chatpro.bootstrap import House  # noqa: E402
from chatpro.config import Settings  # noqa: E402
from chatpro.domain.chats import readable_since  # noqa: E402
from chatpro.services.answering import Sent  # noqa: E402
from chatpro.storage.duckdb import DuckStore  # noqa: E402
from tests.cast import Echo, Source  # noqa: E402
from tests.running import started  # noqa: E402

WARM_SECONDS = 15.0

T = TypeVar("T")


class Senders:
    """People who send, each in a new chat, and note how long each send took and when."""

    def __init__(self, house: House, count: int, pause: float) -> None:
        self.took: list[tuple[float, float]] = []
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._still: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._send, args=(house, n, pause)) for n in range(1, count + 1)]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    def _send(self, house: House, number: int, pause: float) -> None:
        account = house.accounts.sample(f"bench-{number}")
        assert account is not None
        n = 0
        while not self._stop.is_set():
            n += 1
            began = time.perf_counter()
            outcome = house.answering.send(account, house.answering.new_chat_id(), f"Question {n} of {number}", None)
            self.took.append((began, time.perf_counter()))
            if not isinstance(outcome, Sent):
                self.failed.append(type(outcome).__name__)
            self._stop.wait(pause)

    def _watch(self) -> None:
        """Note when nothing ran here at all for longer than two seconds."""
        at, worked = time.perf_counter(), time.process_time()
        while not self._stop.wait(0.1):
            now, more = time.perf_counter(), time.process_time()
            if now - at > 2 and more - worked < 0.2:
                self._still.append((at, now))
            at, worked = now, more

    def heard(self) -> list[float]:
        took, self.took = self.took, []
        awake = [end - begin for begin, end in took if not any(begin < until and end > since for since, until in self._still)]
        if len(awake) < len(took):
            print(f"left out: {len(took) - len(awake)} sends during which the process stood still", flush=True)
        return awake

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def empty_commits(house: House, count: int = 200) -> float:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        house.store.write(lambda unit: unit._all("SELECT 1"))
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def told(what: str, took: list[float]) -> None:
    took = sorted(took)
    p = [took[min(len(took) - 1, int(len(took) * share))] * 1000 for share in (0.5, 0.95, 0.99)]
    print(f"{what}: {len(took)}, median {p[0]:.0f}, p95 {p[1]:.0f}, p99 {p[2]:.0f}, longest {took[-1] * 1000:.0f} ms", flush=True)


class Steps:
    """How long the writer was held by each thing that was asked of it from this thread."""

    def __init__(self, store: DuckStore) -> None:
        self.took: list[float] = []
        self.worked: list[float] = []
        self._asker = threading.current_thread()
        self._queued = store._queued
        store._queued = self._timed  # type: ignore[method-assign]

    def _timed(self, job: Callable[[], T]) -> Future[T]:
        if threading.current_thread() is not self._asker:
            return self._queued(job)

        def timed() -> T:
            began, worked = time.perf_counter(), time.process_time()
            try:
                return job()
            finally:
                self.took.append(time.perf_counter() - began)
                self.worked.append(time.process_time() - worked)

        return self._queued(timed)


def main(messages: int, senders: int, folder: Path) -> None:
    logging.disable(logging.WARNING)  # the model here counts otherwise than we do, and each answer would say so
    now = datetime.now(UTC)
    print(f"load {Path('/proc/loadavg').read_text().split()[0]}", flush=True)
    began = time.perf_counter()
    last = now - timedelta(minutes=5)
    store = DuckStore(folder / "demo" / "chatpro.duckdb", memory="1GB", threads=2)
    fill(store, people=max(50, messages // 200), exchanges=messages // 2, chars=490, first=last - timedelta(days=90.9), last=last)
    store.close()
    house = bootstrap.build(Settings(demo_dir=folder / "demo", data_dir=folder / "var", models=("gpt-4",), sample_accounts=senders), Source(Echo()))
    size = sum(f.stat().st_size for f in (folder / "demo").iterdir() if f.is_file()) / 1e6
    print(
        f"{messages:,} messages made in {time.perf_counter() - began:.0f} s, {size:,.0f} MB; an empty commit takes {empty_commits(house) * 1000:.1f} ms",
        flush=True,
    )
    house.housekeeping.jobs = ()
    with started(house):
        sending = Senders(house, senders, 0.05)
        time.sleep(WARM_SECONDS)
        told("without the rewrite", sending.heard())
        steps: dict[str, float] = {}
        mark = time.perf_counter()

        def tell(what: str, share: float) -> None:
            nonlocal mark
            at = time.perf_counter()
            steps[what], mark = steps.get(what, 0.0) + at - mark, at

        assert isinstance(house.store, DuckStore)
        held = Steps(house.store)
        began = time.perf_counter()
        done = house.store.purge(readable_since(now, 90), now, tell=tell)
        whole = time.perf_counter() - began
        told("while it runs", sending.heard())
        told("steps of the rewrite", held.took)
        told("processor time of these, with whatever else ran then", held.worked)
        time.sleep(WARM_SECONDS / 2)
        told("afterwards", sending.heard())
        sending.end()
        print(f"rewrite: {whole:.1f} s, {messages / whole:,.0f} messages a second; { ({k: round(v, 1) for k, v in steps.items()}) }; removed {done.removed}")
        print(f"an empty commit takes {empty_commits(house) * 1000:.1f} ms; failed sends: {sending.failed}")
    size = sum(f.stat().st_size for f in (folder / "demo").iterdir() if f.is_file()) / 1e6
    print(f"{size:,.0f} MB afterwards")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        main(given.messages, given.senders, Path(made))
