"""The allowance's rules, tried against made-up months: cycles that tile, a gate that keeps the last message true, charges that never exceed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from chatpro.domain.allowance import (
    Accepted,
    Anchor,
    OwnLimit,
    Refused,
    SendKind,
    Sizes,
    Standing,
    Wait,
    beyond_own_limit,
    charge,
    cycle_at,
    cycle_since,
    decide,
    first_instant,
    is_closed,
    messages_left,
    messages_left_range,
    months_later,
    next_is_last,
    own_limit_in,
    own_limit_met,
    remembered,
    warnings_due,
)
from tests.conftest import trials

ZONES = [
    "UTC", "Europe/Stockholm", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Beirut", "Australia/Lord_Howe", "Pacific/Apia",
    "Pacific/Kiritimati", "Etc/GMT+12", "Africa/Casablanca", "Asia/Tehran", "America/St_Johns", "Antarctica/Troll",
]  # fmt: skip
SIZES = Sizes(instructions=300, note_max=0, history=2_000, answer=1_500, answer_min=500, prompt=6_000, context=8_192, output_limit=4_096)


@pytest.mark.fault(43)
@pytest.mark.trials
@pytest.mark.parametrize("zone", ZONES)
def test_24_months_tile_without_gap_or_overlap_in_every_zone_from_every_day(zone: str) -> None:
    """Whatever the day of first use, each cycle ends where the next begins and holds every instant in between."""
    starts = [date(2026, 1, 31), date(2028, 2, 29), date(2011, 11, 30), date(2026, 10, 25), date(2026, 3, 29)]
    starts += [date(2026, 1, 1) + timedelta(days=d) for d in range(0, trials(30, 366), 3)]
    for day in starts:
        anchor = Anchor(day, zone)
        cycle = cycle_at(anchor, first_instant(day, ZoneInfo(zone)))
        assert cycle.number == 0
        for number in range(24):
            assert cycle.number == number
            assert timedelta(days=27) < cycle.ends_at - cycle.starts_at < timedelta(days=32)
            assert cycle_at(anchor, cycle.ends_at - timedelta(microseconds=1)) == cycle
            following = cycle_at(anchor, cycle.ends_at)
            assert following.starts_at == cycle.ends_at
            cycle = following


@pytest.mark.fault(43)
@given(day=st.dates(date(2000, 1, 1), date(2060, 1, 1)), zone=st.sampled_from(ZONES), offset=st.integers(0, 3_000 * 86_400))
def test_every_instant_has_one_cycle_and_it_holds_that_instant(day: date, zone: str, offset: int) -> None:
    """The cycle found for an instant contains it and begins on the anchor's day of the month, or on the month's last day."""
    now = first_instant(day, ZoneInfo(zone)) + timedelta(seconds=offset)

    cycle = cycle_at(Anchor(day, zone), now)

    assert cycle.starts_at <= now < cycle.ends_at
    assert first_instant(months_later(day, cycle.number), ZoneInfo(zone)) == cycle.starts_at


@pytest.mark.fault(43)
def test_a_day_that_a_zone_skipped_begins_with_the_day_after() -> None:
    """Samoa had no 30 December 2011; a midnight that the clocks jump over is the instant of the jump."""
    apia = ZoneInfo("Pacific/Apia")
    beirut = ZoneInfo("Asia/Beirut")

    assert first_instant(date(2011, 12, 30), apia) == first_instant(date(2011, 12, 31), apia)
    assert first_instant(date(2022, 3, 27), beirut).astimezone(beirut).hour == 1


@pytest.mark.fault(43)
@pytest.mark.trials
def test_24_months_tile_in_every_zone_there_is() -> None:
    """All names of the time zone database, some of which skipped a day, repeat an hour at midnight, or lie half an hour beside the others."""
    days = [date(2011, 1, 30), *(date(2026, 1, 1) + timedelta(days=d) for d in range(0, trials(0, 366), 15))]
    for name in sorted(available_timezones()):
        for day in days:
            anchor = Anchor(day, name)
            cycle = cycle_at(anchor, first_instant(day, ZoneInfo(name)))
            for number in range(24):
                assert (cycle.number, cycle_at(anchor, cycle.ends_at - timedelta(microseconds=1))) == (number, cycle)
                assert timedelta(days=27) < cycle.ends_at - cycle.starts_at < timedelta(days=32)
                assert first_instant(months_later(day, number), ZoneInfo(name)) == cycle.starts_at
                following = cycle_at(anchor, cycle.ends_at)
                assert following.starts_at == cycle.ends_at
                cycle = following


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Stockholm", date(2026, 3, 29), 23),
        ("Europe/Stockholm", date(2026, 10, 25), 25),
        ("Asia/Beirut", date(2022, 3, 27), 23),
        ("UTC", date(2026, 3, 29), 24),
    ],
)
def test_a_cycle_that_begins_on_a_day_of_23_or_25_hours_begins_with_that_day(zone: str, day: date, hours: int) -> None:
    """The clocks change on it; it is the first instant of that day, and the day is as long as it is there."""
    begins, ends = (first_instant(d, ZoneInfo(zone)) for d in (day, day + timedelta(days=1)))

    cycle = cycle_at(Anchor(months_later(day, -2), zone), begins)

    assert cycle.starts_at == begins and ends - begins == timedelta(hours=hours)
    assert begins.astimezone(ZoneInfo(zone)).date() == day != (begins - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date()


@pytest.mark.fault(42, 43)
@given(day=st.dates(date(2020, 1, 1), date(2040, 1, 1)), zones=st.tuples(st.sampled_from(ZONES), st.sampled_from(ZONES)), days=st.integers(-70, 70))
def test_a_cycle_that_was_used_stays_what_it_was_when_the_rules_of_its_zone_change(day: date, zones: tuple[str, str], days: int) -> None:
    """As if the zone had other rules since: what was used is found again under its start, at no time is there a second cycle of the same month,
    and the clock can't lead back before it."""
    used = cycle_at(Anchor(day, zones[0]), first_instant(day, ZoneInfo(zones[0])) + timedelta(days=400))
    now = used.starts_at + timedelta(days=14, hours=days * 5)

    cycle = cycle_since(Anchor(day, zones[1]), (used.starts_at, used.ends_at), now)

    assert cycle.number >= used.number and cycle.ends_at > cycle.starts_at
    if cycle.number == used.number:
        assert cycle.starts_at == used.starts_at and now < cycle.ends_at
    else:
        assert cycle.starts_at <= now < cycle.ends_at
        before = cycle_since(Anchor(day, zones[1]), (used.starts_at, used.ends_at), cycle.starts_at - timedelta(microseconds=1))
        assert before.ends_at == cycle.starts_at, "no gap and no overlap with the one before"


@pytest.mark.fault(43)
def test_a_zone_that_the_world_has_given_up_locks_nobody_out() -> None:
    """Its cycles go on by UTC, and the one that runs stays the one that runs."""
    gone = Anchor(date(2026, 1, 31), "Mars/Olympus")
    used = cycle_at(Anchor(date(2026, 1, 31), "Pacific/Kiritimati"), datetime(2026, 3, 10, tzinfo=UTC))

    cycle = cycle_since(gone, (used.starts_at, used.ends_at), datetime(2026, 3, 10, tzinfo=UTC))

    assert (cycle.number, cycle.starts_at) == (used.number, used.starts_at)
    assert cycle_at(gone, cycle.ends_at).starts_at == cycle.ends_at == datetime(2026, 3, 31, tzinfo=UTC)


@pytest.mark.fault(42)
def test_a_clock_set_back_before_first_use_stays_in_the_first_cycle() -> None:
    """There is no cycle before the first, so nobody is given a second allowance by a wrong clock."""
    anchor = Anchor(date(2026, 5, 10), "UTC")

    assert cycle_at(anchor, datetime(2026, 5, 1, tzinfo=UTC)).number == 0


def test_the_31st_comes_back_after_a_short_month() -> None:
    """Clamped to February's last day, then the 31st again: the anchor does not drift."""
    assert [months_later(date(2027, 1, 31), n).isoformat() for n in (1, 2, 3, 12, 13)] == ["2027-02-28", "2027-03-31", "2027-04-30", "2028-01-31", "2028-02-29"]


def standings_with(left: st.SearchStrategy[int]) -> st.SearchStrategy[Standing]:
    """Standings with so much not used, of which something may be pending."""
    return st.builds(
        lambda allowance, left, reserved, warned: Standing(allowance, max(0, allowance - left), reserved, last_warned=warned),
        allowance=st.integers(1_000, 300_000),
        left=left,
        reserved=st.sampled_from([0, 3_000]),
        warned=st.sampled_from([False, False, True]),
    )


standings = standings_with(st.integers(-2_000, 8_000) | st.integers(0, 300_000))
"""Half of them near the end, where everything is decided."""


@given(standing=standings, draft=st.integers(1, 8_000), history=st.lists(st.integers(1, 900), max_size=12))
def test_an_ordinary_send_leaves_the_smallest_send_free_and_a_last_one_takes_all(standing: Standing, draft: int, history: list[int]) -> None:
    """The promise behind the last message: while a cycle is open some draft can still be sent."""
    decision = decide(SIZES, standing, draft, history)

    if isinstance(decision, Accepted):
        assert decision.prompt_tokens == SIZES.instructions + draft + sum(history[: decision.history_kept])
        assert decision.prompt_tokens <= SIZES.prompt_cap
        assert decision.answer_limit >= SIZES.answer_min
        assert decision.left_out == max(0, remembered(SIZES, history) - decision.history_kept)
        if decision.kind is SendKind.ORDINARY:
            assert standing.remaining - decision.reserve >= SIZES.smallest_send(standing.allowance)
            assert decision.reserve == decision.prompt_tokens + decision.answer_limit
            assert not standing.last_warned
        else:
            assert decision.reserve == standing.remaining >= decision.prompt_tokens + decision.answer_limit
            assert standing.reserved == 0
    elif isinstance(decision, Wait):
        assert standing.reserved > 0
    else:
        assert decision.reason in ("too_long", "allowance_lowered")


@pytest.mark.fault(46)
@given(used=st.integers(0, 200_000), draft=st.integers(1, 100))
def test_a_short_draft_is_never_refused_while_the_smallest_send_is_free(used: int, draft: int) -> None:
    """With S free, a draft of a hundred tokens goes, as the last one if not otherwise: nobody is blocked without having been told."""
    standing = Standing(200_000, used, 0)
    assume(standing.remaining >= SIZES.smallest_send(200_000))

    assert isinstance(decide(SIZES, standing, draft, []), Accepted)


@pytest.mark.fault(46)
@given(standing=standings, draft=st.integers(1, 8_000))
def test_no_tokens_is_said_only_after_a_last_message_was_charged(standing: Standing, draft: int) -> None:
    """A person who was never told of a last message is never told that nothing is left."""
    decision = decide(SIZES, standing, draft, [])

    assert not (isinstance(decision, Refused) and decision.reason == "no_tokens")


def test_after_a_charged_last_message_the_cycle_is_closed_until_the_allowance_is_raised() -> None:
    """Closed under the figure in force; a raised one with room for a smallest send opens it again."""
    closed = Standing(200_000, 199_000, 0, last_warned=True, last_charged=True, highest=200_000)
    raised = Standing(250_000, 199_000, 0, last_charged_before=True, highest=250_000)
    raised_too_little = Standing(200_500, 199_000, 0, last_charged_before=True, highest=200_500)

    assert isinstance(decide(SIZES, closed, 100, []), Refused) and decide(SIZES, closed, 100, []).reason == "no_tokens"  # type: ignore[union-attr]
    assert decide(SIZES, closed, 7_000, []) == Refused("too_long", 7_000 + 300 + 1_500, 0, SIZES.longest_draft), "shortened it would not go either"
    assert isinstance(decide(SIZES, raised, 100, []), Accepted)
    assert isinstance(decide(SIZES, raised_too_little, 100, []), Refused)


@pytest.mark.fault(47)
def test_under_a_lowered_allowance_what_does_not_fit_is_called_lowered() -> None:
    """The person did nothing wrong: the refusal says that the allowance was lowered, and what is left is never below zero on the page."""
    decision = decide(SIZES, Standing(100_000, 150_000, 0, highest=200_000), 100, [])

    assert isinstance(decision, Refused) and decision.reason == "allowance_lowered" and decision.fits_now == 0


@pytest.mark.fault(51)
def test_the_prompt_may_be_exactly_the_cap_and_not_one_token_more() -> None:
    """The boundary is exact, and a draft that is too long says how long one may be."""
    fits = SIZES.prompt_cap - SIZES.instructions
    plenty = Standing(200_000, 0, 0)

    assert isinstance(decide(SIZES, plenty, fits, []), Accepted)
    refused = decide(SIZES, plenty, fits + 1, [])
    assert isinstance(refused, Refused) and refused.reason == "too_long" and refused.fits_after == fits


def test_what_no_message_would_take_along_was_not_left_out() -> None:
    """In a long chat the memory begins somewhere: the page shows where. Only what gave way to this message is said of this message."""
    plenty = Standing(200_000, 0, 0)
    long_chat = [400] * 12
    ordinary, long_draft = decide(SIZES, plenty, 200, long_chat), decide(SIZES, plenty, SIZES.longest_draft - 900, long_chat)
    assert isinstance(ordinary, Accepted) and (ordinary.history_kept, ordinary.left_out) == (5, 0)
    assert isinstance(long_draft, Accepted) and (long_draft.history_kept, long_draft.left_out) == (2, 3)


def test_history_gives_way_before_the_answer_does() -> None:
    """Near the end the oldest turns are left out first; the answer is shortened only when none are left."""
    s = SIZES.smallest_send(200_000)
    room_for_two = Standing(200_000, 200_000 - (300 + 200 + 2 * 400 + 1_500 + s), 0)
    room_for_none = Standing(200_000, 200_000 - (300 + 200 + 900 + s), 0)

    two = decide(SIZES, room_for_two, 200, [400, 400, 400])
    none = decide(SIZES, room_for_none, 200, [400, 400, 400])

    assert isinstance(two, Accepted) and (two.history_kept, two.left_out, two.shortened, two.answer_limit) == (2, 1, False, 1_500)
    assert isinstance(none, Accepted) and (none.history_kept, none.shortened, none.answer_limit) == (0, True, 900)


@given(
    standing=standings_with(st.integers(8_000, 300_000)) | standings,
    draft=st.integers(1, 2_000),
    history=st.lists(st.integers(1, 900), max_size=8),
    limit=st.none() | st.integers(0, 300_000),
)
def test_the_own_limit_refuses_exactly_what_goes_beyond_it_and_says_by_how_much(standing: Standing, draft: int, history: list[int], limit: int | None) -> None:
    """Usage, pending and what this send reserves; a draft shorter by the difference would be just below it, where history stays what it is."""
    accepted = decide(SIZES, standing, draft, history)
    assume(isinstance(accepted, Accepted))
    assert isinstance(accepted, Accepted)

    refused = beyond_own_limit(limit, SIZES, standing, draft, accepted)

    total = standing.used + standing.reserved + accepted.reserve
    assert (refused is not None) == (limit is not None and total > limit)
    if refused is not None and limit is not None:
        assert refused.reason == "own_limit" and refused.fits_now == max(0, draft - (total - limit)) < draft <= refused.fits_after
    if own_limit_met(limit, SIZES, standing):
        assert refused is not None or draft < 100 or accepted.shortened


def test_the_newest_own_limit_of_a_cycle_holds_and_of_no_other() -> None:
    """One set before the first message belongs to the first cycle; a lifted one is none."""
    anchor, day = Anchor(date(2026, 5, 10), "UTC"), timedelta(days=1)
    first = cycle_at(anchor, datetime(2026, 5, 10, 12, tzinfo=UTC))
    second = cycle_at(anchor, first.ends_at)
    at = first.starts_at
    rows = [OwnLimit(None, 900, at - day), OwnLimit(first.starts_at, 500, at), OwnLimit(second.starts_at, 700, at), OwnLimit(second.starts_at, None, at)]

    assert [own_limit_in(rows[:n], None) for n in (0, 1, 2)] == [None, 900, 900]
    assert [own_limit_in(rows[:n], first) for n in range(5)] == [None, 900, 500, 500, 500]
    assert [own_limit_in(rows[:n], second) for n in range(5)] == [None, None, None, 700, None]


@pytest.mark.fault(36, 37)
@given(
    claimed=st.none() | st.tuples(*[st.one_of(st.none(), st.booleans(), st.integers(-(10**13), 10**13), st.floats(), st.text(max_size=5))] * 2),
    counted_in=st.integers(1, 10_000),
    counted_out=st.integers(0, 10_000),
    reserved=st.integers(1, 12_000),
)
def test_whatever_a_provider_claims_nobody_is_charged_more_than_was_reserved(
    claimed: tuple[object, object] | None, counted_in: int, counted_out: int, reserved: int
) -> None:
    """Absurd figures are counted here; what is claimed beyond the reservation is recorded and not charged; nothing is negative."""
    cost = charge(claimed, counted_in, counted_out, reserved)

    assert 0 <= cost.tokens_in and 0 <= cost.tokens_out and cost.total <= reserved
    if cost.counted == "estimated":
        assert cost.total + cost.over_reserved == counted_in + counted_out
    else:
        assert claimed is not None and cost.total + cost.over_reserved == claimed[0] + claimed[1]  # type: ignore[operator]


@pytest.mark.parametrize("claimed", [(True, 10), (None, None), (-1, 10), (10**12, 10), ("100", 10), (100.0, 10), (100, 0), (1, 50)])
@pytest.mark.fault(36)
def test_figures_that_cannot_be_are_counted_here(claimed: tuple[object, object]) -> None:
    """Missing, negative, absurd, of the wrong kind, or far below the text that is there."""
    assert charge(claimed, 100, 50, 2_000).counted == "estimated"


def test_warnings_fall_due_exactly_at_their_percent() -> None:
    """75 of 100 is 75 percent; one token less is not."""
    assert [warnings_due(1_000, used) for used in (749, 750, 949, 950)] == [(), ("75",), ("75",), ("75", "95")]


def test_the_page_announces_the_last_message_before_it_comes() -> None:
    """Said as soon as the smallest message would leave less than the smallest send, and no longer once the cycle is closed."""
    s = SIZES.smallest_send(200_000)

    assert not next_is_last(SIZES, Standing(200_000, 200_000 - 2 * s, 0))
    assert next_is_last(SIZES, Standing(200_000, 200_000 - 900 - s + 1, 0))
    assert not next_is_last(SIZES, Standing(200_000, 199_500, 0, last_charged=True))


@pytest.mark.fault(46)
@pytest.mark.trials
@settings(max_examples=trials(500, 5_000))
@given(standing=standings, draft=st.integers(1, 100) | st.integers(1, 6_000), history=st.lists(st.integers(1, 900), max_size=4), given_back=st.floats(0, 1))
@example(standing=Standing(200_000, 195_000, 3_000), draft=100, history=[], given_back=1.0)
def test_nothing_is_announced_as_the_last_that_might_still_be_an_ordinary_one(standing: Standing, draft: int, history: list[int], given_back: float) -> None:
    """However short the next draft is, and whatever comes back of what is pending. And where it is not announced, a short draft is ordinary."""
    charged = standing.used + standing.reserved - round(standing.reserved * given_back)
    settled = replace(standing, used=charged, reserved=0)
    decision = decide(SIZES, settled, draft, history)

    if next_is_last(SIZES, standing):
        assert not (isinstance(decision, Accepted) and decision.kind is SendKind.ORDINARY)
    elif settled == standing and standing.remaining >= SIZES.instructions + SIZES.answer_min:
        short = decide(SIZES, standing, 100, [])
        assert isinstance(short, Accepted) and short.kind is SendKind.ORDINARY


def test_after_a_last_message_that_came_to_nothing_the_next_is_announced_as_the_last() -> None:
    """However much room there is again: it was called the last, and from then on each further one is."""
    assert next_is_last(SIZES, Standing(200_000, 190_000, 0, last_warned=True))
    assert not next_is_last(SIZES, Standing(200_000, 190_000, 0, last_warned=True, last_charged=True))


@pytest.mark.fault(47)
def test_where_nothing_can_be_sent_nothing_is_announced() -> None:
    """A lowered allowance has no last message of its own where not even that fits."""
    assert not next_is_last(SIZES, Standing(100_000, 150_000, 0, highest=200_000))
    assert next_is_last(SIZES, Standing(100_000, 98_800, 0, highest=200_000))


@pytest.mark.fault(46)
def test_a_pending_last_message_closes_nothing_under_a_raised_allowance() -> None:
    """It may come to nothing, so whoever sends meanwhile waits; refused would be wrong."""
    pending = Standing(205_000, 199_000, 6_000, last_warned=True, last_charged_before=True, highest=205_000)

    assert isinstance(decide(SIZES, pending, 100, []), Wait) and not is_closed(SIZES, pending)


def test_how_many_messages_are_left_goes_by_the_persons_own_mean_once_there_are_five() -> None:
    """Before that the typical message stands in for it."""
    assert messages_left(100_000, [500] * 4) == 50
    assert messages_left(100_000, [500] * 5) == 200
    assert messages_left(-5, []) == 0


recent_messages = st.lists(st.integers(1, 10_000), max_size=20)


@given(remaining=st.integers(-5_000, 400_000), recent=recent_messages)
def test_the_range_is_in_order_and_an_open_cycle_has_room_for_one(remaining: int, recent: list[int]) -> None:
    """Nothing is left exactly where nothing remains."""
    low, high = messages_left_range(remaining, recent)

    assert (low, high) == (0, 0) if remaining <= 0 else 1 <= low <= high


@given(remaining=st.integers(1, 400_000), size=st.integers(100, 7_500))
def test_whoever_always_writes_alike_is_taken_at_their_word(remaining: int, size: int) -> None:
    """Twenty equal messages leave no doubt: the range is the single figure, rounded, however untypical they are."""
    low, high = messages_left_range(remaining, [size] * 20)

    assert low <= max(1, remaining // size) and remaining / size <= max(1, high)
    assert high - low <= max(5, remaining // size // 5 + 1)


@given(remaining=st.integers(1, 200_000), more=st.integers(0, 100_000), recent=recent_messages)
def test_more_tokens_are_never_fewer_messages(remaining: int, more: int, recent: list[int]) -> None:
    """Neither end of the range goes down when the allowance is raised."""
    low, high = messages_left_range(remaining, recent)
    later_low, later_high = messages_left_range(remaining + more, recent)

    assert low <= later_low and high <= later_high


def test_who_writes_alike_gets_a_narrow_range_and_whoever_is_new_a_wide_one() -> None:
    """Twenty equal messages say almost everything, five that differ say little; figures are rounded to steps in which people think."""
    alike = messages_left_range(40_000, [2_000] * 20)
    mixed = messages_left_range(40_000, [500, 3_500] * 10)
    new = messages_left_range(40_000, [])

    assert alike == (20, 20)
    assert new[0] <= mixed[0] < 20 < mixed[1] <= new[1]
    assert all(end % 5 == 0 for end in (*mixed, *new) if end > 10)
