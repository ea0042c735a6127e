"""Small groups: which days may be shown on their own, and which only together with the days after them (DESIGN D13).

A figure behind which two people stand tells each of them what the other did. So figures of use are published in cells: closed
days, merged forward in time until at least 10 people stand in each. The merge begins where the last published cell ended and looks
at closed days only, so a cell never changes once it is there, and any choice of period is a choice of whole cells.
By plan and by model comes with the analytics issue; until then a cell is all plans and all models together.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import date, timedelta

AT_LEAST = 10
"""People behind every published figure."""

TOO_FEW = f"Figures appear once at least {AT_LEAST} people stand behind each of them."

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Cell:
    """One published sum. Both days belong to it; `day` numbers count from 1970-01-01, UTC."""

    first: int
    last: int
    tokens_in: int = 0
    tokens_out: int = 0
    answers: int = 0
    warned_75: int = 0
    warned_95: int = 0
    warned_last: int = 0

    @property
    def days(self) -> int:
        """How many days were merged; 1 for a day that stands on its own."""
        return self.last - self.first + 1

    @property
    def first_day(self) -> date:
        return EPOCH + timedelta(days=self.first)

    @property
    def last_day(self) -> date:
        return EPOCH + timedelta(days=self.last)


def merge(people_by_day: Iterable[tuple[int, Set[str]]], first: int | None = None) -> list[tuple[int, int]]:
    """(first day, last day) of each cell that closed days in order come to. The days at the end that are not enough yet are in none.

    `first` is the day after the last published cell, None before the first. A day's set may stop at AT_LEAST people: more change nothing.
    """
    cells: list[tuple[int, int]] = []
    together: set[str] = set()
    for day, people in people_by_day:
        first = day if first is None else first
        together |= people
        if len(together) >= AT_LEAST:
            cells.append((first, day))
            first, together = day + 1, set()
    return cells
