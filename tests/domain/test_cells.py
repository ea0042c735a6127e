"""Small groups: no published figure is about fewer than ten people, none ever changes, and none can be taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro.domain.cells import AT_LEAST, Cell, merge

PEOPLE = [f"p{n}" for n in range(25)]
days = st.lists(st.frozensets(st.sampled_from(PEOPLE)), max_size=40).map(lambda sets: list(enumerate(sets, 20_000)))


def behind(people: list[tuple[int, frozenset[str]]], first: int, last: int) -> set[str]:
    return set().union(*(p for day, p in people if first <= day <= last))


@pytest.mark.fault(110)
@given(people=days)
def test_at_least_ten_people_stand_in_every_cell(people: list[tuple[int, frozenset[str]]]) -> None:
    """Whatever days look like, also days with nobody or with the same nine every day."""
    for first, last in merge(people):
        assert len(behind(people, first, last)) >= AT_LEAST


@pytest.mark.fault(110)
@given(people=days, cut=st.integers(0, 40))
def test_a_published_cell_never_changes(people: list[tuple[int, frozenset[str]]], cut: int) -> None:
    """Cells published after some days are the first cells of all days, whether one goes on from there or begins again."""
    before, all_cells = merge(people[:cut]), merge(people)

    assert all_cells[: len(before)] == before
    if before:
        last = before[-1][1]
        assert before + merge([(d, p) for d, p in people if d > last], last + 1) == all_cells


@given(people=days)
def test_cells_follow_each_other_without_a_gap(people: list[tuple[int, frozenset[str]]]) -> None:
    """Every day up to the last cell is in exactly one, so sums over cells are sums over days."""
    cells = merge(people)
    inside = [day for first, last in cells for day in range(first, last + 1)]

    assert inside == list(range(20_000, 20_000 + len(inside)))


def test_nine_people_are_never_enough() -> None:
    """A year of nine people stays unpublished."""
    assert merge((day, set(PEOPLE[:9])) for day in range(365)) == []


def test_a_cell_counts_both_its_days() -> None:
    """From the first to the last, as dates too."""
    cell = Cell(20_780, 20_782)

    assert (cell.days, str(cell.first_day), str(cell.last_day)) == (3, "2026-11-23", "2026-11-25")
