"""Warnings of 75 and 95 %: which one is shown, putting one away, and who hears of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chatpro.bootstrap import House
from chatpro.errors import NotFound
from chatpro.services.accounts import GivenWarning
from tests.cast import PLAN, build_house, person, spend


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = build_house(tmp_path)
    yield built
    built.store.close()
    built.analytics.close()


def warned(house: House, name: str = "mara") -> GivenWarning | None:
    account = person(house, name)
    meter = house.accounts.meter(account, house.answering.sizes())
    assert meter is not None
    return house.accounts.warned(account, meter)


def dismiss(house: House, warning: GivenWarning, name: str = "mara") -> None:
    house.accounts.dismiss(person(house, name), warning.kind, warning.cycle_starts_at, warning.allowance)


@pytest.mark.fault(45)
def test_of_several_warnings_the_strongest_counts(house: House) -> None:
    """One answer that crosses both: one thing to say. Below 75 % there is nothing."""
    mara = person(house, "mara")
    spend(house, mara, 140_000)
    assert warned(house) is None
    spend(house, mara, 11_000)
    first = warned(house)
    assert first is not None and (first.kind, first.dismissed_at) == ("75", None)
    spend(house, mara, 40_000)
    assert (found := warned(house)) is not None and found.kind == "95"


@pytest.mark.fault(45)
def test_a_warning_that_was_put_away_stays_away_and_stays_readable(house: House) -> None:
    """For good, in every tab, with the moment; a stronger one that comes later is shown all the same, and the weaker one never again beside it."""
    mara = person(house, "mara")
    spend(house, mara, 151_000)
    first = warned(house)
    assert first is not None
    dismiss(house, first)
    dismiss(house, first)  # a second click, or another tab
    assert (again := warned(house)) is not None and again.dismissed_at == house.now()
    assert [w.kind for w in house.accounts.warnings(mara)] == ["75"]

    spend(house, mara, 40_000)
    stronger = warned(house)
    assert stronger is not None and (stronger.kind, stronger.dismissed_at) == ("95", None)
    dismiss(house, stronger)
    assert [(w.kind, w.dismissed_at is not None) for w in house.accounts.warnings(mara)] == [("75", True), ("95", True)]


@pytest.mark.fault(47)
def test_under_another_figure_a_warning_is_another_one(house: House) -> None:
    """Put away under 200,000, it says nothing about 210,000; and of the month before nothing is shown."""
    mara = person(house, "mara")
    spend(house, mara, 151_000)
    first = warned(house)
    assert first is not None
    dismiss(house, first)
    house.store.write(lambda unit: unit.add_entitlement(mara.id, PLAN, 210_000, house.now(), None, house.now()))
    assert warned(house) is None
    spend(house, mara, 10_000, at=house.now())
    assert (found := warned(house)) is not None and (found.allowance, found.dismissed_at) == (210_000, None)

    house.now.forward(days=40)  # type: ignore[attr-defined]
    assert warned(house) is None


def test_only_a_warning_that_was_given_can_be_put_away(house: House) -> None:
    """Not one of another kind, cycle or figure, not the one of the last message, and not somebody else's."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    spend(house, mara, 151_000)
    first = warned(house)
    assert first is not None
    house.store.write(lambda unit: unit.add_warning(mara.id, first.cycle_starts_at, "last_message", 200_000, PLAN, house.now()))
    for actor, kind, starts_at, allowance in (
        (mara, "95", first.cycle_starts_at, 200_000),
        (mara, "75", first.cycle_starts_at - timedelta(days=30), 200_000),
        (mara, "75", first.cycle_starts_at, 100_000),
        (mara, "last_message", first.cycle_starts_at, 200_000),
        (tomas, "75", first.cycle_starts_at - timedelta(days=1), 200_000),
    ):
        with pytest.raises(NotFound):
            house.accounts.dismiss(actor, kind, starts_at, allowance)
    assert all(w.dismissed_at is None for w in house.accounts.warnings(mara))


def test_putting_one_away_in_many_tabs_at_once_is_one_row_and_told(house: House) -> None:
    told: list[str] = []
    house.accounts.on_allowance.append(told.append)
    mara = person(house, "mara")
    spend(house, mara, 151_000)
    first = warned(house)
    assert first is not None
    threads = [threading.Thread(target=dismiss, args=(house, first)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(house.store.read(lambda rows: rows._all("SELECT 1 FROM dismissals"))) == 1
    assert set(told) == {mara.id}
