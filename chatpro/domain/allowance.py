"""The allowance: cycles, what one send may use, what it costs, and which warnings fall due. All figures are tokens.

This is what people pay for. Every rule here is a pure function so that it can be tried against thousands of made-up
months; the store only keeps what these functions decide. Sources: DESIGN D1 (cycle), D3 (charge), D4 (last message).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

WARNING_PERCENTS = (75, 95)
DRAFT_AT_LEAST = 100
"""A draft counts as at least this many tokens when the smallest useful send is reckoned with (D4), so that one always fits."""


# --- The cycle -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Anchor:
    """The local date of the first accepted message and the zone it was local to. Stored once, never changed."""

    day: date
    zone: str


@dataclass(frozen=True)
class Cycle:
    """The month an allowance covers: `starts_at` included, `ends_at` excluded, UTC instants."""

    number: int
    starts_at: datetime
    ends_at: datetime


def zone_named(name: str) -> tzinfo:
    """The zone of this name, or UTC for one that the world has given up since: hours too early or late are better than nobody let in."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def cycle_at(anchor: Anchor, now: datetime) -> Cycle:
    """The cycle that holds `now`. A clock set back to before the anchor stays in the first cycle: there is none before."""
    zone = zone_named(anchor.zone)
    local = now.astimezone(zone)
    number = max(0, (local.year - anchor.day.year) * 12 + local.month - anchor.day.month)
    while number > 0 and _starts_at(anchor, zone, number) > now:
        number -= 1
    while _starts_at(anchor, zone, number + 1) <= now:
        number += 1
    return Cycle(number, _starts_at(anchor, zone, number), _starts_at(anchor, zone, number + 1))


def cycle_since(anchor: Anchor, newest: tuple[datetime, datetime] | None, now: datetime) -> Cycle:
    """The cycle that holds `now`, never one before `newest`: start and end of the newest that was used.

    A cycle that was used keeps the start under which it was: the rules of its zone may be others by now, and its usage must not be lost with
    them. It is known again by its middle, which no change of rules moves into another month. Its end is by the rules of today.
    """
    found = cycle_at(anchor, now)
    if newest is None:
        return found
    used = cycle_at(anchor, newest[0] + (newest[1] - newest[0]) / 2)
    return found if found.number > used.number else Cycle(used.number, newest[0], used.ends_at)


def _starts_at(anchor: Anchor, zone: tzinfo, number: int) -> datetime:
    return first_instant(months_later(anchor.day, number), zone)


def months_later(day: date, months: int) -> date:
    """The same day of the month, `months` later, or that month's last day (31 January → 28 February → 31 March)."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    last = (date(year + (month == 11), (month + 1) % 12 + 1, 1) - timedelta(days=1)).day
    return date(year, month + 1, min(day.day, last))


def first_instant(day: date, zone: tzinfo) -> datetime:
    """The first UTC instant at which clocks in the zone show this day, or a later one where the zone skipped it."""
    midnight = datetime.combine(day, time())
    instant = midnight.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == midnight:
        return instant
    before, after = instant - timedelta(hours=26), instant + timedelta(hours=26)  # a zone has moved its clocks by a whole day at most
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(zone).replace(tzinfo=None) >= midnight:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)


# --- One send --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """What one send may use. `instructions` is the system prompt with its overhead; `note_max` the longest project note."""

    instructions: int
    note_max: int
    history: int
    answer: int
    answer_min: int
    prompt: int
    context: int
    output_limit: int

    @property
    def longest_draft(self) -> int:
        """Tokens that a draft may have where nothing else is in the way."""
        return max(0, self.prompt_cap - self.instructions)

    @property
    def prompt_cap(self) -> int:
        """The whole prompt at most: what configuration says, or what the model's context leaves beside the answer."""
        return min(self.prompt, self.context - self.answer)

    def smallest_send(self, allowance: int) -> int:
        """S of D4: kept free by every ordinary send, so that some draft can always be sent, as the last if not otherwise."""
        return max(-(-allowance // 100), self.instructions + self.note_max + DRAFT_AT_LEAST + self.answer_min)


@dataclass(frozen=True)
class Standing:
    """Where an account stands in its cycle. `last_warned`: a `last_message` row exists under the figure in force;
    `last_charged`: and something was charged for a last message under it; `last_charged_before`: under another figure of this cycle;
    `highest`: the largest figure that was in force in this cycle, to tell a lowered allowance."""

    allowance: int
    used: int
    reserved: int
    last_warned: bool = False
    last_charged: bool = False
    last_charged_before: bool = False
    highest: int = 0

    @property
    def remaining(self) -> int:
        """R: what can still be reserved. Never shown below 0, though a lowered allowance may put it there."""
        return self.allowance - self.used - self.reserved


class SendKind(StrEnum):
    ORDINARY = "ordinary"
    LAST = "last"


@dataclass(frozen=True)
class Accepted:
    """Send it: how many of the offered history turns (newest first) go along, and what is reserved for prompt and answer. `left_out`: how many
    fewer go along than with a short message; what is beyond the model's memory anyway gave way to nothing."""

    kind: SendKind
    history_kept: int
    prompt_tokens: int
    resent_tokens: int
    answer_limit: int
    reserve: int
    left_out: int
    shortened: bool


@dataclass(frozen=True)
class Wait:
    """Something of the account is still pending; what is left is known when it has ended. Not a refusal."""


@dataclass(frozen=True)
class Refused:
    """Not sent. `fits_now` and `fits_after` are the tokens a draft may have now and after renewal."""

    reason: str
    wanted: int
    fits_now: int
    fits_after: int


Decision = Accepted | Wait | Refused


def decide(sizes: Sizes, standing: Standing, draft: int, history: Sequence[int]) -> Decision:
    """D4, in its order. `draft` and `history` (newest first) are the tokens of the draft and of earlier turns, overhead included."""
    s = sizes.smallest_send(standing.allowance)
    r = standing.remaining
    base = sizes.instructions + draft
    ordinary = r - s - sizes.instructions - max(draft, DRAFT_AT_LEAST)  # what an ordinary send may use beside that
    fits_after = sizes.longest_draft
    fits_now = 0 if is_closed(sizes, standing) else max(0, min(r - sizes.answer_min - sizes.instructions, fits_after))

    def refused(reason: str) -> Refused:
        return Refused(reason, base + sizes.answer, fits_now, fits_after)

    if base > sizes.prompt_cap:
        return refused("too_long")
    if is_closed(sizes, standing):
        return refused("no_tokens")

    offered, usual = _fitting(history, min(sizes.history, sizes.prompt_cap - base)), remembered(sizes, history)
    if not standing.last_warned:
        for kept in range(offered, -1, -1):
            resent = sum(history[:kept])
            if resent + sizes.answer <= ordinary:
                return _accepted(SendKind.ORDINARY, kept, resent, base, sizes.answer, usual, sizes)
        if ordinary >= sizes.answer_min:
            return _accepted(SendKind.ORDINARY, 0, 0, base, ordinary, usual, sizes)
    if standing.reserved > 0:
        return Wait()
    if base + sizes.answer_min <= r:
        kept = _fitting(history, min(sizes.history, sizes.prompt_cap - base, r - sizes.answer_min - base))
        resent = sum(history[:kept])
        limit = min(r - base - resent, sizes.output_limit, sizes.context - base - resent)
        accepted = _accepted(SendKind.LAST, kept, resent, base, limit, usual, sizes)
        return Accepted(**{**accepted.__dict__, "reserve": r})
    if standing.allowance < standing.highest:
        return refused("allowance_lowered")
    return refused("too_long")


def remembered(sizes: Sizes, history: Sequence[int]) -> int:
    """How many earlier turns (newest first, in tokens) a short next message takes along: where the model's memory begins."""
    return _fitting(history, min(sizes.history, sizes.prompt_cap - sizes.instructions - DRAFT_AT_LEAST))


def _fitting(history: Sequence[int], budget: int) -> int:
    """How many turns, newest first, stay within the budget. A gap is never left: the first that does not fit ends it."""
    kept = total = 0
    for tokens in history:
        total += tokens
        if total > budget:
            break
        kept += 1
    return kept


def _accepted(kind: SendKind, kept: int, resent: int, base: int, answer: int, usual: int, sizes: Sizes) -> Accepted:
    return Accepted(
        kind=kind,
        history_kept=kept,
        prompt_tokens=base + resent,
        resent_tokens=resent,
        answer_limit=answer,
        reserve=base + resent + answer,
        left_out=max(0, usual - kept),
        shortened=answer < sizes.answer,
    )


def is_closed(sizes: Sizes, standing: Standing) -> bool:
    """Whether a last message was charged: under the figure in force, or under an earlier one that was not raised by enough to reopen the cycle (D2).
    What is pending does not close it: it may be given back."""
    reopened = standing.allowance - standing.used >= sizes.smallest_send(standing.allowance)
    return standing.last_charged or (standing.last_charged_before and not reopened)


def next_is_last(sizes: Sizes, standing: Standing) -> bool:
    """Whether the page should say beforehand that the next message will be the last of the cycle: whatever is written, and however what is pending
    ends. False where nothing can be sent at all."""
    smallest = sizes.instructions + sizes.note_max + DRAFT_AT_LEAST + sizes.answer_min
    most = standing.allowance - standing.used
    last = standing.last_warned or most - smallest < sizes.smallest_send(standing.allowance)
    return last and most >= sizes.instructions + sizes.answer_min and not is_closed(sizes, standing)


# --- The own limit ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnLimit:
    """A lower limit that a person set for one cycle; `tokens` None: they lifted it. `cycle_starts_at` None: set before the first message."""

    cycle_starts_at: datetime | None
    tokens: int | None
    at: datetime


def own_limit_in(rows: Sequence[OwnLimit], cycle: Cycle | None) -> int | None:
    """The limit that holds in this cycle, None when there is none. `rows` oldest first; `cycle` None before the first message."""
    starts_at = cycle.starts_at if cycle else None
    first = cycle is None or cycle.number == 0
    held = [row.tokens for row in rows if row.cycle_starts_at == starts_at or (first and row.cycle_starts_at is None)]
    return held[-1] if held else None


def beyond_own_limit(limit: int | None, sizes: Sizes, standing: Standing, draft: int, accepted: Accepted) -> Refused | None:
    """Asked after `decide`, of what it accepted: whether that goes beyond the person's own limit. Nothing is left out or shortened for its sake (D2)."""
    if limit is None:
        return None
    over = standing.used + standing.reserved + accepted.reserve - limit
    if over <= 0:
        return None
    wanted = accepted.prompt_tokens + min(accepted.answer_limit, sizes.answer)
    return Refused("own_limit", wanted, max(0, draft - over), sizes.longest_draft)


def own_limit_met(limit: int | None, sizes: Sizes, standing: Standing) -> bool:
    """Whether not even a short message in a new chat fits below the own limit any more."""
    least = sizes.instructions + DRAFT_AT_LEAST + sizes.answer
    return limit is not None and standing.used + standing.reserved + least > limit


# --- What it cost ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Charge:
    """What one answer is charged. `over_reserved` is what was claimed beyond the reservation: recorded, not charged."""

    tokens_in: int
    tokens_out: int
    counted: str
    over_reserved: int

    @property
    def total(self) -> int:
        return self.tokens_in + self.tokens_out


def charge(claimed: tuple[object, object] | None, counted_in: int, counted_out: int, reserved: int) -> Charge:
    """D3: the provider's figures where they are plausible (`measured`), else ours (`estimated`); never more than was reserved."""
    if claimed is not None and _plausible(claimed[0], counted_in, reserved) and _plausible(claimed[1], counted_out, reserved):
        tokens_in, tokens_out, how = int(str(claimed[0])), int(str(claimed[1])), "measured"
    else:
        tokens_in, tokens_out, how = counted_in, counted_out, "estimated"
    over = max(0, tokens_in + tokens_out - reserved)
    tokens_out, rest = max(0, tokens_out - over), max(0, over - tokens_out)
    return Charge(tokens_in - rest, tokens_out, how, over)


def _plausible(claimed: object, counted: int, reserved: int) -> bool:
    """A whole number, not far below the text that is there (tokenizers differ by less than half), not absurdly above what could be used."""
    if not isinstance(claimed, int) or isinstance(claimed, bool):
        return False
    return counted // 2 <= claimed <= 10 * max(reserved, counted)


def warnings_due(allowance: int, used: int) -> tuple[str, ...]:
    """The kinds that usage has reached under this figure, weakest first. Which of them are new is the store's unique key to say."""
    return tuple(str(percent) for percent in WARNING_PERCENTS if used * 100 >= allowance * percent)


TYPICAL_MESSAGE = 2_000
"""Tokens of one message until an account has sent five: the mean of made-up months is 2,040, and 200,000 tokens are 100 of these."""


def messages_left(remaining: int, recent: Sequence[int]) -> int:
    """About how many more messages fit, by the mean of the person's own latest (at most 20), or TYPICAL_MESSAGE before there are five."""
    mean = sum(recent) / len(recent) if len(recent) >= 5 else TYPICAL_MESSAGE
    return max(0, int(remaining / max(1.0, mean)))


TYPICAL_SPREAD = 0.55
"""How much messages of one person differ, as standard deviation over mean. While fewer than twenty are there it counts beside their own."""

PEOPLE_DIFFER = 0.3
"""How much people's means differ (standard deviation of the logarithm): two of three are within a quarter of the typical message or a third above."""

SAY_THE_SAME = 2.75
"""Messages of one chat are alike, so twenty of them say as much as seven that have nothing to do with each other."""

MOST_VARIANCE = 0.8
"""Relative variance of single messages that is believed at most: beyond it the high end would go up as the allowance goes down."""

FOUR_OF_FIVE = 1.28
"""Standard errors either way that hold for 80 % of a normal distribution."""


def messages_left_range(remaining: int, recent: Sequence[int]) -> tuple[int, int]:
    """From how many to how many more messages fit, by the person's own latest charged ones (tokens each, at most 20), rounded for humans.

    It holds if the number of charged messages that the account would still send in this cycle, were it to go on in its own way until the
    allowance is full, the last message included, lies within. It has to hold for 80 % of accounts at 25, 50 and 75 % of a cycle;
    `make trials` counts that over made-up months (months.py). An open cycle has room for one message (D4), so the low end is 1 while
    anything is left; (0, 0) says that nothing is.

    Two things are unknown. How long this person's messages are: the mean of their latest is weighed with TYPICAL_MESSAGE, each by how sure
    it is, so that one pasted book does not halve the figure and somebody who always writes alike is taken at their word. And how the
    messages to come fall around that mean, which matters less the more of them there are. Both are factors rather than differences
    (twice as long is as likely as half as long), hence the logarithms. The four figures above were set by made-up months whose people
    differ less than PEOPLE_DIFFER says, so that there is something to spare for real ones.
    """
    if remaining <= 0:
        return 0, 0
    log_mean, unsure, varies = _size_of_a_message(recent)
    expected = max(1.0, remaining / math.exp(log_mean))
    factor = math.exp(FOUR_OF_FIVE * math.sqrt(unsure + SAY_THE_SAME * varies / expected))
    return max(1, _rounded(expected / factor, math.floor)), max(1, _rounded(expected * factor, math.ceil))


def _size_of_a_message(recent: Sequence[int]) -> tuple[float, float, float]:
    """The logarithm of the expected size, the variance with which it is known, and the relative variance of single messages."""
    typical, differ, count = math.log(TYPICAL_MESSAGE), PEOPLE_DIFFER**2, len(recent)
    if count < 5:
        return typical, differ, TYPICAL_SPREAD**2
    mean = max(1.0, sum(recent) / count)
    own = sum((tokens / mean - 1) ** 2 for tokens in recent) / (count - 1)
    varies = min(MOST_VARIANCE, own * count / 20 + TYPICAL_SPREAD**2 * (1 - count / 20))
    known = SAY_THE_SAME * varies / count
    weight = differ / (differ + known)
    return weight * math.log(mean) + (1 - weight) * typical, weight * known, varies


def _rounded(count: float, towards: Callable[[float], int]) -> int:
    """To steps in which people think: ones below ten, fives below fifty, tens below two hundred, then 25, 50 and 100."""
    step = next(step for below, step in ((10, 1), (50, 5), (200, 10), (500, 25), (1_000, 50), (math.inf, 100)) if count < below)
    return towards(round(count / step, 9)) * step  # what is twenty but for a rounding error is twenty
