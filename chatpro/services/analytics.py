"""Analytics: how tokens are used and how many warnings were given, for product managers, never a word of anybody's text.

It reads the content-free copy and nothing else, and only published cells of it, so there is no question to it whose answer is about
one person. Every verb asks for the role analyst first: a page's gate alone would be one forgotten line away from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol

from chatpro.domain.accounts import Account, Role
from chatpro.domain.cells import EPOCH, Cell
from chatpro.errors import NotAllowed


class Figures(Protocol):
    """What this room needs of the copy."""

    @property
    def as_of(self) -> datetime | None: ...

    def cells(self, first: int, last: int) -> list[Cell]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TokensOfDays:
    """Tokens of one cell: both days belong to it, and the sums are those of all its days together."""

    first_day: date
    last_day: date
    tokens_in: int
    tokens_out: int
    answers: int

    @property
    def days(self) -> int:
        return (self.last_day - self.first_day).days + 1


@dataclass(frozen=True)
class WarningsOfDays:
    """Warnings of one cell, by kind."""

    first_day: date
    last_day: date
    at_75: int
    at_95: int
    last_message: int

    @property
    def days(self) -> int:
        return (self.last_day - self.first_day).days + 1


@dataclass(frozen=True)
class Totals:
    """Sums of whole cells, from the first day of the first to the last day of the last."""

    first_day: date
    last_day: date
    tokens_in: int
    tokens_out: int
    answers: int
    at_75: int
    at_95: int
    last_message: int

    @property
    def days(self) -> int:
        return (self.last_day - self.first_day).days + 1

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out

    @property
    def warnings(self) -> int:
        return self.at_75 + self.at_95 + self.last_message


class Analytics:
    """Published figures. A period of n days is snapped to whole cells: those that reach into the n days before today."""

    def __init__(self, copy: Figures, now: Callable[[], datetime]) -> None:
        self._copy = copy
        self._now = now

    def tokens_by_day(self, actor: Account, days: int) -> list[TokensOfDays]:
        """Tokens in and out, a cell each, oldest first. Empty while too few people stand behind any figure."""
        return [TokensOfDays(c.first_day, c.last_day, c.tokens_in, c.tokens_out, c.answers) for c in self._cells(actor, days)]

    def warnings_by_day(self, actor: Account, days: int) -> list[WarningsOfDays]:
        """Warnings given, by kind, a cell each, oldest first."""
        return [WarningsOfDays(c.first_day, c.last_day, c.warned_75, c.warned_95, c.warned_last) for c in self._cells(actor, days)]

    def totals(self, actor: Account, days: int) -> Totals | None:
        """The sums of the same cells; None where nothing is published."""
        cells = self._cells(actor, days)
        if not cells:
            return None
        return Totals(
            first_day=cells[0].first_day,
            last_day=cells[-1].last_day,
            tokens_in=sum(c.tokens_in for c in cells),
            tokens_out=sum(c.tokens_out for c in cells),
            answers=sum(c.answers for c in cells),
            at_75=sum(c.warned_75 for c in cells),
            at_95=sum(c.warned_95 for c in cells),
            last_message=sum(c.warned_last for c in cells),
        )

    def as_of(self, actor: Account) -> datetime | None:
        """Everything committed before this instant is counted, as far as its day is published; None before the first carrying over."""
        _need_analyst(actor)
        return self._copy.as_of

    def close(self) -> None:
        """Close the copy. Safe to call twice."""
        self._copy.close()

    def _cells(self, actor: Account, days: int) -> Sequence[Cell]:
        _need_analyst(actor)
        today = (self._now().astimezone(UTC).date() - EPOCH).days
        return self._copy.cells(today - days, today - 1)


def _need_analyst(actor: Account) -> None:
    if not actor.has(Role.ANALYST):
        raise NotAllowed
