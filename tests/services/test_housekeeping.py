"""Housekeeping: wrong counters are found, mended and recorded, and no job dies of a bad minute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chatpro.bootstrap import House
from chatpro.config import Settings
from chatpro.domain.disputes import first_broken
from chatpro.errors import NotAllowed, StoreUnavailable
from chatpro.services.housekeeping import Housekeeping, Job
from chatpro.storage import Purged
from tests.cast import build_house, person, spend


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = build_house(tmp_path)
    yield built
    built.analytics.close()
    built.store.close()


def cycle_of(house: House, name: str) -> datetime:
    starts_at = house.store.read(lambda rows: rows.latest_cycle_starts_at(person(house, name).id))
    assert starts_at is not None
    return starts_at


def spoil(house: House, name: str, used: int, reserved: int) -> None:
    """Put a wrong counter where the right one was, as a bug of ours or a hand in the database would."""
    house.store.write(lambda unit: unit.set_counter(person(house, name).id, cycle_of(house, name), used, reserved))


@pytest.mark.fault(52)
def test_a_wrong_counter_is_put_right_and_recorded(house: House) -> None:
    """From the entries, with who and from what to what in the audit, whose chain goes on; a second look finds nothing."""
    tomas, before = person(house, "tomas"), len(house.store.read(lambda rows: rows.audit_entries()))
    spoil(house, "tomas", 12, 7)

    assert house.housekeeping.reconcile() == 1
    assert house.housekeeping.reconcile() == 0

    entries = house.store.read(lambda rows: rows.audit_entries())
    assert len(entries) == before + 1
    assert (entries[-1].actor, entries[-1].action, entries[-1].subject) == ("housekeeping", "counter.repaired", tomas.id)
    assert "used 12 to 193640, reserved 7 to 0" in (entries[-1].reason or "")
    assert first_broken(entries) is None
    meter = house.accounts.meter(tomas, house.answering.sizes())
    assert meter is not None and (meter.used, meter.reserved) == (193_640, 0)


@pytest.mark.fault(52)
def test_a_counter_that_is_gone_is_made_anew_from_the_ledger(house: House) -> None:
    """With its month and the largest figure it had: nobody gets a second allowance because a row was lost."""
    tomas = person(house, "tomas")
    before = house.store.read(lambda rows: rows._all("SELECT * FROM cycles WHERE account_id = ?", tomas.id))
    house.store.write(lambda unit: unit._all("DELETE FROM cycles WHERE account_id = ?", tomas.id))
    assert house.housekeeping.report(person(house, "ada")).counters_that_differ == 1

    assert house.housekeeping.reconcile() == 1
    assert house.housekeeping.reconcile() == 0

    assert house.store.read(lambda rows: rows._all("SELECT * FROM cycles WHERE account_id = ?", tomas.id)) == before
    assert "used 0 to 193640" in (house.store.read(lambda rows: rows.audit_entries())[-1].reason or "")
    meter = house.accounts.meter(tomas, house.answering.sizes())
    assert meter is not None and meter.used == 193_640


@pytest.mark.fault(52)
def test_a_repair_stands_on_the_operations_report(house: House) -> None:
    """First as a counter out of step, then as one that was put right, with its figures."""
    ada = person(house, "ada")
    spoil(house, "tomas", 1, 0)

    assert house.housekeeping.report(ada).counters_that_differ == 1
    house.housekeeping.reconcile()
    report = house.housekeeping.report(ada)

    assert report.counters_that_differ == 0
    assert [(r.account_id, "used 1 to 193640" in r.figures) for r in report.repairs] == [(person(house, "tomas").id, True)]


def test_counters_that_are_right_are_left_alone(house: House) -> None:
    """No write, no entry: a reconcile every ten minutes must not fill the audit."""
    before = house.store.read(lambda rows: rows.audit_entries())

    assert house.housekeeping.reconcile() == 0
    assert house.store.read(lambda rows: rows.audit_entries()) == before


def test_carrying_over_brings_the_copy_up_to_now(house: House) -> None:
    """What was used a moment ago is in the copy after one run, and its as-of is the clock's."""
    house.housekeeping.carry()
    spend(house, person(house, "mara"), 900)

    assert house.housekeeping.carry() == 1
    assert house.analytics.as_of(person(house, "priya")) == house.now()


def test_the_report_says_when_the_chain_is_broken(house: House) -> None:
    """An entry changed behind the program's back is named by its number."""
    ada = person(house, "ada")
    for n in range(4):
        house.store.write(lambda unit, n=n: unit.append_audit(ada.id, "roles.set", house.now(), subject=f"s{n}"))  # type: ignore[misc]
    assert house.housekeeping.report(ada).audit_first_broken is None

    entries = house.store.read(lambda rows: rows.audit_entries())
    house.store.write(lambda unit: unit._all("UPDATE audit_entries SET subject = 'x' WHERE sequence = ?", entries[-2].sequence))

    assert house.housekeeping.report(ada).audit_first_broken == entries[-2].sequence


def test_a_long_audit_is_checked_at_its_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest entries are held against the hash before them, so that the page needs no read of years."""
    monkeypatch.setattr("chatpro.services.housekeeping.NEWEST_ENTRIES", 3)
    for n in range(8):
        house.store.write(lambda unit, n=n: unit.append_audit("ada", "roles.set", house.now(), subject=f"s{n}"))  # type: ignore[misc]

    report = house.housekeeping.report(person(house, "ada"))

    assert (report.audit_checked, report.audit_first_broken) == (3, None)


@pytest.mark.fault(16)
@pytest.mark.parametrize("name", ["mara", "priya", "jude", "ana", "otto"])
def test_only_admins_read_the_report(house: House, name: str) -> None:
    """Every other role is refused by the service itself."""
    with pytest.raises(NotAllowed):
        house.housekeeping.report(person(house, name))


# --- the timers -------------------------------------------------------------------------------------------------------


class Part:
    """A store, a copy and an engine in one, that counts what it is asked and fails when told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failing: set[str] = set()

    def _do(self, name: str) -> None:
        self.asked.append(name)
        if name in self.failing:
            raise StoreUnavailable("Saving is not possible: M4rk3r is in these words.")

    def read(self, work: Any) -> list[object]:
        if "counters" in repr(work.__code__.co_names):
            self._do("reconcile")
        return []

    def write(self, work: Any) -> None:
        pass

    def purge(self, *bounds: object, **given: object) -> Purged:
        self._do("purge")
        return Purged(dict.fromkeys(("messages", "titles", "drafts", "chats"), 0))

    def expire_past(self) -> int:
        self._do("expire")
        return 0

    def carry_over(self, store: object, at: object = None, go_on: object = None) -> int:
        self._do("carry")
        return 0


def quick(part: Part, seconds: float = 0.01) -> Housekeeping:
    """Housekeeping on that part, with a hundredth of a second instead of minutes."""
    keeping = Housekeeping(part, part, part, Settings(), lambda: datetime.now().astimezone())  # type: ignore[arg-type]
    keeping.jobs = tuple(Job(job.name, seconds, job.work, job.trouble) for job in keeping.jobs)
    return keeping


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to pass in twenty seconds")


def test_every_job_runs_at_the_start_and_again_in_its_time() -> None:
    """All of them, each several times; after closing none runs any more, and closing twice is no fault."""
    part = Part()

    async def work() -> int:
        keeping = quick(part)
        keeping.start(asyncio.get_running_loop())
        await until(lambda: min(part.asked.count(name) for name in ("reconcile", "expire", "carry", "purge")) >= 3)
        await keeping.close()
        await keeping.close()
        asked = len(part.asked)
        await asyncio.sleep(0.05)
        return asked

    assert asyncio.run(work()) == len(part.asked)


def test_a_job_that_fails_says_so_and_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    """The others go on; the sentence goes away when it works again. The log names the class of the fault, never its words."""
    part = Part()
    part.failing.add("carry")

    async def work() -> dict[str, str]:
        keeping = quick(part)
        keeping.start(asyncio.get_running_loop())
        await until(lambda: part.asked.count("carry") >= 3 and part.asked.count("expire") >= 3)
        during = dict(keeping.troubles)
        part.failing.clear()
        await until(lambda: not keeping.troubles)
        await keeping.close()
        return during

    with caplog.at_level(logging.DEBUG):
        assert asyncio.run(work()) == {"carry": "New rows could not be carried over for the figures."}
    assert "StoreUnavailable" in caplog.text
    assert "M4rk3r" not in caplog.text


def test_the_times_are_those_that_were_decided(house: House) -> None:
    """Ten minutes, half a minute, a minute; twice within the day that the promise gives."""
    assert {job.name: timedelta(seconds=job.seconds) for job in house.housekeeping.jobs} == {
        "reconcile": timedelta(minutes=10),
        "expire": timedelta(seconds=30),
        "carry": timedelta(minutes=1),
        "purge": timedelta(hours=12),
    }
