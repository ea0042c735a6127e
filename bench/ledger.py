"""What the ledger takes: reservations and settlements a second, and what they add to a send while a hundred answers are being saved.

    .venv/bin/python bench/ledger.py [--seconds 6] [--rounds 3]

A pair is the one unit of work before a call of the model (person, plan, consent, decision, reservation, message, answer) and the one
after it (text, settlement, usage entry, warnings), with everything they check. Senders are threads that do one pair after the other, as
script runs do: on accounts of their own, and sixteen on one account, where a guarded row with retries once made fifty-six pairs a
second and let somebody wait for 1.3 s. The last part runs the whole engine: a hundred people read answers that grow by thirty words a
second and are saved each second, and twenty others a second send something short. At the end the books are held against each other.

Nothing here speaks to a network or a page: the model is the scripted one, so that what is measured is the store and what leads to it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chatpro import bootstrap, tokens  # noqa: E402
from chatpro.bootstrap import House  # noqa: E402
from chatpro.config import Settings  # noqa: E402
from chatpro.domain.accounts import Account  # noqa: E402
from chatpro.domain.chats import AnswerState, request_id  # noqa: E402
from chatpro.models import Ended, Event, Piece, Prompt, Turn  # noqa: E402
from chatpro.models.scripted import CARD, ScriptedSource  # noqa: E402
from chatpro.services.answering import InLine, LiveAnswer, NotSent, Sent, _HandOver, _Offer, _Wish  # noqa: E402
from tests.running import started  # noqa: E402

ANSWER = "A short answer of some thirty words, as freelancers get them when they ask how to word a sentence, and then they ask again. " * 2
PEOPLE = 200
SAVED, PER_SECOND = 100, 20
WORDS_A_SECOND = 30


class Talker:
    """A model that answers at once, or talks for long where it is asked to."""

    name, card = "scripted", CARD

    def __init__(self) -> None:
        self.stop = False

    async def stream(self, prompt: Prompt) -> AsyncIterator[Event]:
        if prompt.turns[-1].text.startswith("Long"):
            while not self.stop:
                yield Piece("word ")
                await asyncio.sleep(1 / WORDS_A_SECOND)
        else:
            yield Piece(ANSWER)
        yield Ended("stop")


class Timed:
    """The store, with a clock on each unit of work: from the asking to the commit, the wait in the queue included."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.times: dict[str, list[float]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, work: Callable[[Any], Any]) -> Any:
        began = time.perf_counter()
        try:
            return self._store.write(work)
        finally:
            self.times["reservation"].append(time.perf_counter() - began)

    def submit(self, work: Callable[[Any], Any]) -> Any:
        began = time.perf_counter()
        what = "settlement" if "settlement" in getattr(getattr(work, "func", None), "__name__", "") else "saving"
        future = self._store.submit(work)
        future.add_done_callback(lambda _: self.times[what].append(time.perf_counter() - began))
        return future


def house_in(folder: Path, **more: Any) -> House:
    settings = Settings(
        demo_dir=folder, data_dir=folder, sample_accounts=PEOPLE, running_total=1_000, running_per_account=100, answer_tokens=1_500, save_seconds=1.0, **more
    )
    return bootstrap.build(settings, ScriptedSource(Talker()))  # type: ignore[arg-type]


def person(house: House, number: int) -> Account:
    account = house.accounts.sample(f"bench-{number}")
    assert account is not None
    return account


# --- pairs ------------------------------------------------------------------------------------------------------------


def pairs(house: House, senders: int, accounts: int, seconds: float) -> tuple[float, list[list[float]]]:
    """So many threads for so long. Returns pairs a second and each sender's times of one pair, in milliseconds."""
    people = [person(house, n % accounts + 1) for n in range(senders)]
    gate, times = threading.Barrier(senders + 1), [list[float]() for _ in people]
    ends = [0.0]

    def sender(number: int) -> None:
        gate.wait()
        while time.perf_counter() < ends[0]:
            times[number].append(pair(house, people[number]))

    threads = [threading.Thread(target=sender, args=(n,)) for n in range(senders)]
    for thread in threads:
        thread.start()
    ends[0] = time.perf_counter() + seconds
    began = time.perf_counter()
    gate.wait()
    for thread in threads:
        thread.join()
    return sum(map(len, times)) / (time.perf_counter() - began), times


def pair(house: House, account: Account) -> float:
    """One reservation and one settlement of a message in a new chat, in milliseconds. What is gathered before them is not counted."""
    engine, chat = house.answering, house.answering.new_chat_id()
    text = f"How do I word this? {secrets.token_hex(4)}"
    live = LiveAnswer(_Wish(account, chat, text, request_id(account.id, chat, None, text), None, keep=True))
    draft = tokens.count_turns((Turn("user", text),), CARD.tokenizer)
    offer = _Offer("scripted", text, None, None, [], [], draft, engine.sizes(), True)
    began = time.perf_counter()
    outcome = house.store.write(lambda unit: engine._accept(unit, live, offer))
    assert isinstance(outcome, _HandOver), outcome
    live.text = ANSWER
    house.store.write(lambda unit: engine._write_settlement(unit, live, AnswerState.FINISHED, None, 900, unread=True))
    took = time.perf_counter() - began
    engine._live.pop(live.id)
    return took * 1_000


# --- what it adds to a send -------------------------------------------------------------------------------------------


def beside_saving(folder: Path, seconds: float) -> dict[str, list[float]]:
    """Sends at a steady rate beside answers that are being saved: milliseconds of each reservation, settlement, saving, and whole send."""
    house = house_in(folder)
    timed = Timed(house.store)
    with started(house):
        engine = house.answering
        engine._store = timed  # type: ignore[assignment]
        for number in range(SAVED):
            engine.send(person(house, number + 1), engine.new_chat_id(), f"Long {number}", None)
        time.sleep(2.5)
        timed.times.clear()
        whole: list[float] = []

        def send(number: int) -> None:
            began = time.perf_counter()
            outcome = engine.send(people[number % len(people)], engine.new_chat_id(), f"Short {secrets.token_hex(4)}", None)
            whole.append(time.perf_counter() - began)
            assert isinstance(outcome, Sent), outcome

        people = [person(house, number + 1) for number in range(SAVED, PEOPLE)]
        began = time.perf_counter()
        with ThreadPoolExecutor(32) as pool:
            for number in range(int(seconds * PER_SECOND)):
                time.sleep(max(0.0, began + number / PER_SECOND - time.perf_counter()))
                pool.submit(send, number)
        time.sleep(1.0)
        times = {what: [t * 1_000 for t in took] for what, took in timed.times.items()}
        house.model.model.stop = True  # type: ignore[union-attr]
        time.sleep(2.0)
        engine._store = house.store
        assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    return times | {"whole send": [t * 1_000 for t in whole]}


# --- nobody gets more than there is -----------------------------------------------------------------------------------


def race_to_the_end(folder: Path) -> tuple[int, int]:
    """Sixteen senders on one account until nothing more is sent. Returns the allowance, and the most that was ever used and set aside."""
    house = house_in(folder, allowance_tokens=30_000)
    tomas = house.accounts.sample("ines")
    assert tomas is not None
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.is_set():
            meter = house.accounts.meter(tomas, house.answering.sizes())
            assert meter is not None
            most[0] = max(most[0], meter.used + meter.reserved)

    def sender() -> None:
        while True:
            outcome: Any = InLine("", "")
            try:
                outcome = house.answering.send(tomas, house.answering.new_chat_id(), f"Race {secrets.token_hex(4)}", None)
            except Exception:  # the line is full
                time.sleep(0.01)
            if isinstance(outcome, NotSent) or not isinstance(outcome, Sent | InLine):
                return
            time.sleep(0.001)

    with started(house):
        looker = threading.Thread(target=look)
        looker.start()
        threads = [threading.Thread(target=sender) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        looker.join()
        assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    return 30_000, most[0]


# --- telling ----------------------------------------------------------------------------------------------------------


def at(share: float, times: list[float]) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def said(what: str, times: list[float]) -> str:
    return f"| {what} | {len(times):,} | {statistics.median(times):.1f} | {at(0.95, times):.1f} | {max(times):.0f} |"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seconds", type=float, default=6.0)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    print(f"{datetime.now(UTC).date().isoformat()}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n")
    rates: dict[str, list[float]] = defaultdict(list)
    starved: dict[str, float] = defaultdict(float)
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        for senders, accounts in ((1, 1), (8, 8), (32, 32), (16, 16), (16, 1)):
            name = f"{senders} on {'one account' if accounts < senders else 'accounts of their own'}"
            with tempfile.TemporaryDirectory() as folder:
                house = house_in(Path(folder))
                rate, times = pairs(house, senders, accounts, given.seconds)
                bootstrap_stop(house)
            rates[name].append(rate)
            every = [t for own in times for t in own]
            taken[name] += every
            starved[name] = max(starved[name], max(every) / statistics.median(every))
    print("| senders | pairs a second (best, of rounds) | ms a pair: p50 | p95 | max | max / p50 |\n|---|---|---|---|---|---|")
    for name, found in rates.items():
        every = taken[name]
        spread = ", ".join(f"{r:.0f}" for r in found)
        print(f"| {name} | {max(found):.0f} ({spread}) | {statistics.median(every):.1f} | {at(0.95, every):.1f} | {max(every):.0f} | {starved[name]:.1f} |")
    own, one = rates["16 on accounts of their own"], rates["16 on one account"]
    print(f"\n16 on one account against 16 on their own: {max(one) / max(own):.2f} (to reach: 0.67 to 1.5)")
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found_times = beside_saving(Path(folder), 3 * given.seconds)
        print(f"\nload {os.getloadavg()[0]:.1f}; {SAVED} answers being saved, {PER_SECOND} sends a second\n")
        print("| in ms | count | p50 | p95 | max |\n|---|---|---|---|---|")
        for what, times_of in sorted(found_times.items()):
            print(said(what, times_of))
        print(f"added to a send, p95: {at(0.95, found_times['reservation']):.1f} ms (to reach: 30)")
    with tempfile.TemporaryDirectory() as folder:
        allowance, most = race_to_the_end(Path(folder))
    print(f"\n16 senders race to the end of one allowance of {allowance:,}: at most {most:,} used and set aside; overspent: {max(0, most - allowance)}")


def bootstrap_stop(house: House) -> None:
    assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    house.store.close()
    house.analytics.close()


if __name__ == "__main__":
    main()
