"""The generator of months, held against an auditor that knows the rules by heart and none of the code that keeps them.

Whatever stands on made-up months (the sample people, the figures of the admin page, "about 100 messages") is worth as much as these
months follow the rules. The auditor below replays an account's rows in the order of their time with arithmetic of its own.
"""

from __future__ import annotations

import calendar
import math
import statistics
from collections import Counter as Count
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro.config import Settings
from chatpro.domain.allowance import Cycle, Sizes, cycle_at, messages_left_range
from chatpro.domain.books import Books, PastCall
from chatpro.domain.chats import AnswerState
from chatpro.domain.months import AROUND, PERSONAS, MadeUp, Scene
from tests.conftest import LARGE, trials

UNTIL = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
DEFAULTS = Settings()
SIZES = Sizes(
    instructions=355,
    note_max=DEFAULTS.note_max_tokens,
    history=DEFAULTS.history_tokens,
    answer=DEFAULTS.answer_tokens,
    answer_min=DEFAULTS.answer_min_tokens,
    prompt=DEFAULTS.prompt_tokens,
    context=8_192,
    output_limit=4_096,
)
"""The defaults, with the instructions of data/prompts as the first model on the list counts them (held by tests/test_sample.py)."""


MORE = DEFAULTS.history_more_tokens


def scene(seed: int, *, days: int = 120, allowance: int = DEFAULTS.allowance_tokens, sizes: Sizes = SIZES) -> Scene:
    return Scene(seed, sizes, allowance, UNTIL, days, history_more=MORE)


def lived(number: int, of: Scene) -> MadeUp:
    """One account of a scene with all its months."""
    made = MadeUp(number, of)
    made.run(of.until)
    return made


# --- The auditor ------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """One cycle as the auditor saw it so far."""

    used: int = 0
    pending: int = 0
    highest: int = 0
    last_rows: set[int] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)


class Auditor:
    """Replays the rows of one account. Everything that the rules promise is asserted on the way."""

    def __init__(self, books: Books, sizes: Sizes) -> None:
        self.books, self.sizes = books, sizes
        self.cycles: dict[datetime, Seen] = {}
        self.due: Count[tuple[datetime, str, int, datetime]] = Count()
        self.figure: int | None = None
        self.figures: list[tuple[datetime, int | None]] = []
        self.yes = False
        self.limits: dict[datetime, int | None] = {}
        """Own limits by the cycle in which they hold."""

    def check(self) -> None:
        for at, _, what, row in sorted(self._events(), key=lambda event: event[:2]):
            getattr(self, f"_{what}")(at, row)
        books = self.books
        assert self.due == Count((w.cycle.starts_at, w.kind, w.allowance, w.at) for w in books.warnings)
        assert not self.due or max(self.due.values()) == 1
        for counter in books.counters:
            seen = self.cycles[counter.cycle.starts_at]
            receipts = sum(c.cost.tokens_in + c.cost.tokens_out for c in books.calls if c.cycle == counter.cycle)
            assert (counter.used, counter.reserved, counter.highest) == (seen.used, 0, seen.highest) == (receipts, seen.pending, seen.highest)
        assert len({c.cycle.starts_at for c in books.counters}) == len(books.counters) == len(self.cycles)
        assert [c.ended_at for c in books.calls] == sorted(c.ended_at for c in books.calls)
        assert list(books.recent) == [c.cost.total for c in reversed(books.calls) if c.cost.total][:20]

    def _events(self) -> Iterator[tuple[datetime, tuple[int, int], str, object]]:
        """(when, what comes first at the same instant, what, row): what ended then is settled before anything else is decided."""
        books = self.books
        for n, call in enumerate(books.calls):
            yield call.ended_at, (0, n), "settled", call
            yield call.asked_at, (2, n), "accepted", call
        for n, row in enumerate(books.entitlements):
            yield row.recorded_at, (1, n), "entitled", row
        for n, consent in enumerate(books.consents):
            yield consent.at, (1, n), "consent", consent
        for n, limit in enumerate(books.own_limits):
            yield limit.at, (1, n), "limited", limit
        for n, refusal in enumerate(books.refusals):
            yield refusal.at, (3, n), "refused", refusal

    def _entitled(self, at: datetime, row) -> None:  # type: ignore[no-untyped-def]
        self.figure = row.allowance if row.ends_at is None else None
        self.figures.append((at, self.figure))
        now = max((start for start in self.cycles if start <= at < self._cycle(at)[1]), default=None)
        if self.figure is not None and now is not None and self._cycle(at)[0] == now:
            self._warn(now, self.figure, at)

    def _consent(self, at: datetime, row) -> None:  # type: ignore[no-untyped-def]
        self.yes = row.given

    def _limited(self, at: datetime, row) -> None:  # type: ignore[no-untyped-def]
        start = self._cycle(self.books.first_sent_at or at)[0] if row.cycle_starts_at is None else self._cycle(at)[0]
        assert row.cycle_starts_at in (None, start)
        self.limits[start] = row.tokens

    def _accepted(self, at: datetime, call: PastCall) -> None:
        books, sizes, figure, got = self.books, self.sizes, self.figure, call.accepted
        assert figure is not None and self.yes and call.allowance == figure
        if not self.cycles:
            assert books.anchor is not None and books.anchor.day == at.astimezone(ZoneInfo(books.zone)).date() and books.first_sent_at == at
        assert (call.cycle.starts_at, call.cycle.ends_at) == self._cycle(at)
        seen = self.cycles.setdefault(call.cycle.starts_at, Seen())
        kept_free = max(math.ceil(figure / 100), sizes.instructions + sizes.note_max + 100 + sizes.answer_min)
        assert figure not in seen.closed
        assert got.prompt_tokens <= min(sizes.prompt, sizes.context - sizes.answer) and got.resent_tokens <= max(sizes.history, MORE)
        assert got.answer_limit >= sizes.answer_min
        if call.last:
            assert seen.pending == 0 and seen.used + got.reserve == figure and got.prompt_tokens + got.answer_limit <= got.reserve
            if figure not in seen.last_rows:
                seen.last_rows.add(figure)
                self.due[call.cycle.starts_at, "last_message", figure, at] += 1
        else:
            assert figure not in seen.last_rows
            assert got.reserve == got.prompt_tokens + got.answer_limit <= figure - kept_free - seen.used - seen.pending
            assert got.answer_limit <= sizes.answer
        limit = self.limits.get(call.cycle.starts_at)
        assert limit is None or seen.used + seen.pending + got.reserve <= limit
        seen.pending += got.reserve
        seen.highest = max(seen.highest, figure)

    def _settled(self, at: datetime, call: PastCall) -> None:
        seen, cost = self.cycles[call.cycle.starts_at], call.cost
        total = cost.tokens_in + cost.tokens_out
        assert 0 <= total <= call.accepted.reserve and cost.tokens_in >= 0 and cost.tokens_out >= 0
        assert (total > 0) == (call.resolution == "settled") and (call.state is not AnswerState.FAILED or total == 0)
        seen.pending -= call.accepted.reserve
        seen.used += total
        if call.last and total:
            seen.closed.add(call.allowance)
        then = [figure for since, figure in self.figures if since < call.cycle.ends_at]  # not what was granted after the cycle's end
        self._warn(call.cycle.starts_at, then[-1] or call.allowance, at)

    def _refused(self, at: datetime, row) -> None:  # type: ignore[no-untyped-def]
        if row.reason in ("plan_ended", "no_consent"):
            assert row.cycle is None and (self.figure is None if row.reason == "plan_ended" else self.figure is not None and not self.yes)
            return
        figure, sizes = self.figure, self.sizes
        assert figure is not None and self.yes and (row.cycle.starts_at, row.cycle.ends_at) == self._cycle(at)
        seen = self.cycles.get(row.cycle.starts_at, Seen())
        base, left = row.wanted - sizes.answer, figure - seen.used - seen.pending
        if row.reason == "no_tokens":
            assert figure in seen.closed or seen.closed
            assert any(kind == "last_message" and start == row.cycle.starts_at and given <= at for start, kind, _, given in self.due)
        elif row.reason == "own_limit":
            limit = self.limits[row.cycle.starts_at]
            assert limit is not None and seen.used + seen.pending + max(row.wanted, left) > limit
        elif row.reason == "allowance_lowered":
            assert figure < seen.highest and base + sizes.answer_min > left
        else:
            assert row.reason == "too_long"
            assert base > min(sizes.prompt, sizes.context - sizes.answer) or base + sizes.answer_min > left

    def _warn(self, start: datetime, figure: int, at: datetime) -> None:
        for percent in (75, 95):
            known = any(s == start and kind == str(percent) and f == figure for s, kind, f, _ in self.due)
            if not known and self.cycles[start].used / figure >= percent / 100:
                self.due[start, str(percent), figure, at] += 1

    def _cycle(self, at: datetime) -> tuple[datetime, datetime]:
        """The month that holds an instant, on the calendar: the first day, or the last one of a shorter month, at local midnight. What is
        refused before anything was sent is decided as if it were the first."""
        zone, begun = ZoneInfo(self.books.zone), self.books.first_sent_at
        first = (begun if begun and begun <= at else at).astimezone(zone).date()
        starts = [_midnight(first, months, zone) for months in range(9)]
        return next((a, b) for a, b in zip(starts, starts[1:], strict=False) if a <= at < b)


def _midnight(first: date, months: int, zone: ZoneInfo) -> datetime:
    year, month = first.year + (first.month - 1 + months) // 12, (first.month - 1 + months) % 12 + 1
    return datetime(year, month, min(first.day, calendar.monthrange(year, month)[1]), tzinfo=zone).astimezone(UTC)


# --- What the months promise ------------------------------------------------------------------------------------------

sizes_of_some_model = st.builds(
    Sizes,
    instructions=st.integers(100, 900),
    note_max=st.sampled_from([0, 0, 400]),
    history=st.sampled_from([0, 1_000, 3_000]),
    answer=st.sampled_from([800, 1_500]),
    answer_min=st.sampled_from([100, 500]),
    prompt=st.sampled_from([2_500, 6_000]),
    context=st.sampled_from([4_096, 8_192]),
    output_limit=st.sampled_from([1_500, 4_096]),
)


@pytest.mark.trials
@pytest.mark.fault(45, 46, 47)
@given(seed=st.integers(0, 10**6), allowance=st.sampled_from([15_000, 60_000, 200_000]), sizes=sizes_of_some_model)
def test_made_up_months_keep_every_rule_of_the_allowance(seed: int, allowance: int, sizes: Sizes) -> None:
    """Used never passes the figure in force when a send was accepted, receipts sum to the counter, each threshold is warned of once and at
    the settlement that passed it, nothing is called last that wasn't, and nobody is refused for want of tokens without having been told."""
    Auditor(lived(0, scene(seed, allowance=allowance, sizes=sizes)).books, sizes).check()


def test_the_auditor_sees_a_broken_rule() -> None:
    """A row lost, a warning twice, one token too many: the proof above can fail."""
    made = next(m for m in scene(3, allowance=30_000).accounts(50) if len(m.books.warnings) > 2 and len(m.books.calls) > 30)
    for spoil in (
        lambda books: books.calls.pop(5),
        lambda books: books.warnings.append(books.warnings[0]),
        lambda books: books.warnings.pop(),
        lambda books: setattr(books.counters[0], "used", books.counters[0].used + 1),
        lambda books: books.calls.insert(0, books.calls[0]._replace(cost=books.calls[0].cost, allowance=1)),
        lambda books: books.consents.clear(),
    ):
        books = lived(made.number, scene(3, allowance=30_000)).books
        Auditor(books, SIZES).check()
        spoil(books)
        with pytest.raises((AssertionError, KeyError)):
            Auditor(books, SIZES).check()


def test_the_same_seed_makes_the_same_months_and_any_account_alone() -> None:
    """Also in another process and another order; another seed makes other ones."""

    def rows(made: MadeUp) -> object:
        books = made.books
        return made.persona.name, books.zone, books.calls, books.warnings, books.refusals, books.entitlements, books.consents

    together = [rows(made) for made in scene(11).accounts(6)]

    assert [rows(lived(number, scene(11))) for number in reversed(range(6))] == together[::-1]
    assert rows(lived(0, scene(12))) != together[0]


def test_asking_what_would_still_be_sent_changes_nothing() -> None:
    """A person is followed to the full allowance on books of their own, and then goes on as if nobody had asked."""
    asked, left_alone = MadeUp(4, scene(2)), lived(4, scene(2))
    for days in range(10, 100, 7):
        at = asked.joined_at + timedelta(days=days)
        asked.run(min(at, UNTIL))
        asked.messages_to_the_full(at)
    asked.run(UNTIL)

    assert (asked.books.calls, asked.books.refusals) == (left_alone.books.calls, left_alone.books.refusals)


@pytest.fixture(scope="module")
def many() -> list[MadeUp]:
    """Three hundred lives, as many as demo mode shows."""
    return list(scene(1).accounts(300))


def test_nothing_lies_beyond_the_end_and_nobody_writes_before_their_yes(many: list[MadeUp]) -> None:
    """Sample data ends before the day it is shown on, and every life begins with the plan and the opt-in."""
    for made in many:
        books = made.books
        assert made.joined_at == books.entitlements[0].starts_at
        assert all(call.ended_at < UNTIL and call.asked_at > books.consents[0].at for call in books.calls)
        assert not books.running and books.allowance == (books.entitlements[-1].allowance if books.entitlements[-1].ends_at is None else None)


def test_there_is_every_kind_of_life(many: list[MadeUp]) -> None:
    """Enough happens that figures and pages have something to show: first days at a month's end, every end of an answer, every refusal."""
    books = [m.books for m in many]

    assert {m.persona.name for m in many} == {p.name for p in PERSONAS}
    assert {b.anchor.day.day for b in books if b.anchor} >= {29, 30, 31}
    assert {c.state for b in books for c in b.calls} == set(AnswerState) - {AnswerState.RUNNING}
    assert {c.resolution for b in books for c in b.calls} == {"settled", "released", "expired"}
    assert {r.reason for b in books for r in b.refusals} >= {"no_tokens", "own_limit", "too_long", "plan_ended", "no_consent"}
    assert {w.kind for b in books for w in b.warnings} == {"75", "95", "last_message"}
    assert any(c.cost.over_reserved for b in books for c in b.calls) and any(c.cost.counted == "estimated" for b in books for c in b.calls)
    assert any(m.remembering for m in many) and any(row.tokens is None for b in books for row in b.own_limits)
    assert any(c.attempt for b in books for c in b.calls) and any(not b.calls for b in books)


def test_people_write_as_it_is_known_of_people(many: list[MadeUp]) -> None:
    """The figures that chatpro/domain/months.py argues with come out of it: how often, how long, how deep in a chat."""
    calls = [c for m in many for c in m.books.calls if c.cost.total]
    drafts = sorted(c.accepted.prompt_tokens - c.accepted.resent_tokens - SIZES.instructions - AROUND for c in calls)
    answers = [c.cost.tokens_out for c in calls if c.state in (AnswerState.FINISHED, AnswerState.LENGTH)]
    chats = Count((m.number, c.chat) for m in many for c in m.books.calls if c.cost.total).values()
    months = sum((UNTIL - m.joined_at) / timedelta(days=30) for m in many)

    assert 40 < statistics.median(drafts) < 60 and 180 < statistics.mean(drafts) < 260
    assert 350 < statistics.mean(answers) < 441
    assert 2.5 < statistics.mean(chats) < 3.6 and 0.025 < sum(n > 10 for n in chats) / len(chats) < 0.05
    assert 30 < len(calls) / months < 53


# --- About 100 --------------------------------------------------------------------------------------------------------

MOMENTS = (0.25, 0.5, 0.75)


@dataclass
class Measured:
    """What `make trials` prints: messages per full allowance, an account each; share of it unused where a cycle was closed; how often the
    range held at each moment of a cycle, and its ends."""

    accounts: int = 0
    messages: list[int] = field(default_factory=list)
    unused: list[float] = field(default_factory=list)
    held: dict[float, list[bool]] = field(default_factory=lambda: {moment: [] for moment in MOMENTS})
    widths: list[float] = field(default_factory=list)

    def report(self) -> str:
        messages, unused = sorted(self.messages), sorted(self.unused)
        lines = [
            f"{self.accounts:,} made-up accounts, {DEFAULTS.allowance_tokens:,} tokens a cycle",
            f"messages per full allowance: median {statistics.median(messages):.0f}, 5 to 95 %: {at(messages, 0.05)} to {at(messages, 0.95)}",
            f"unused at the close of {len(unused):,} closed cycles: median {at(unused, 0.5):.2%}, 95 %: {at(unused, 0.95):.2%} of the allowance",
        ]
        for moment, held in self.held.items():
            lines.append(f"the range of messages left held for {sum(held) / len(held):.1%} of {len(held):,} accounts at {moment:.0%} of a cycle")
        return "\n".join([*lines, f"its high end is {statistics.median(self.widths):.2f} times its low end in the median"])


def at(ordered: list, share: float):  # type: ignore[no-untyped-def,type-arg]
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def measure(accounts: int) -> Measured:
    """Each account in one of its first three cycles, at 25, 50 and 75 % of its time, and then to the end of its months."""
    found, of = Measured(accounts), scene(2026, days=150)
    for number in range(accounts):
        made = MadeUp(number, of)
        cycle = _some_cycle(made, of)
        for moment in MOMENTS if cycle else ():
            _look(made, cycle, moment, found)
        made.run(of.until)
        found.unused += [
            (figure - counter.used) / figure
            for counter in made.books.counters
            for figure in counter.closed_under
            if counter.cycle.ends_at < of.until and len(counter.closed_under) == 1 and counter.highest == figure
        ]
    return found


def _some_cycle(made: MadeUp, of: Scene) -> Cycle:
    """The account's first, second or third cycle, whichever has passed; the first day is found by letting time pass."""
    day = made.joined_at
    while made.books.anchor is None and day < of.until:
        day += timedelta(days=1)
        made.run(day)
    if made.books.anchor is None:
        return None  # type: ignore[return-value]
    cycle = cycle_at(made.books.anchor, day)
    for _ in range(made.number % 3):
        later = cycle_at(made.books.anchor, cycle.ends_at)
        cycle = later if later.ends_at < of.until else cycle
    return cycle


def _look(made: MadeUp, cycle: Cycle, moment: float, found: Measured) -> None:
    """Hold the range against what the account would still send; half-way through, count what its whole allowance comes to."""
    now = cycle.starts_at + (cycle.ends_at - cycle.starts_at) * moment
    made.run(now)
    books, left = made.books, made.messages_to_the_full(now)
    standing = books.standing(now)
    if left is not None and standing is not None and standing.remaining > 0:
        low, high = messages_left_range(standing.remaining, list(books.recent))
        found.held[moment].append(low <= left <= high)
        found.widths.append(high / low)
    if moment == 0.5 and standing is not None and standing.allowance == standing.highest == DEFAULTS.allowance_tokens and (left or standing.last_charged):
        found.messages.append((left or 0) + sum(1 for c in books.calls if c.cycle == cycle and c.cost.total))


@pytest.mark.trials
def test_an_allowance_is_worth_about_100_messages_and_the_range_of_what_is_left_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """With the defaults: 95 to 105 messages for the account in the middle, at most 1.5 % unused where a cycle was closed (95 of 100), and the
    range of messages left right for four of five accounts at each moment. Fewer accounts can be a little off."""
    slack = 0 if LARGE else 3
    found = measure(trials(250, 3_000))
    if LARGE:
        with capsys.disabled():
            print(f"\n\n{found.report()}")

    assert 95 - slack <= statistics.median(found.messages) <= 105 + slack
    assert at(sorted(found.unused), 0.95) <= 0.015
    for held in found.held.values():
        assert sum(held) / len(held) >= 0.80 - slack / 100
