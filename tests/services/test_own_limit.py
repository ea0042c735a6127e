"""The own limit: a person's own, lower than the allowance, for one cycle. It refuses, and does nothing else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from chatpro.bootstrap import House
from chatpro.domain.accounts import Account
from chatpro.errors import NotAllowed
from chatpro.models.scripted import Ended, Hold, Spent, scripted, words
from chatpro.services.accounts import LimitNotLower, Meter
from chatpro.services.answering import NotSent, Outcome, Sent
from tests.cast import person, spend
from tests.running import assert_books_agree, ended, running, send


def meter_of(house: House, account: Account) -> Meter:
    meter = house.accounts.meter(account, house.answering.sizes())
    assert meter is not None
    return meter


def try_to_send(house: House, account: Account, text: str = "Next") -> tuple[str, Outcome]:
    chat = house.answering.new_chat_id()
    return chat, house.answering.send(account, chat, text, None)


def test_beyond_the_own_limit_nothing_is_sent_and_nothing_else_happens(tmp_path: Path) -> None:
    """The refusal is on record, the draft is kept; no warning, nothing reserved, the cycle stays open, and lifting it is all it takes."""
    with running(tmp_path, scripted()) as house:
        mara = person(house, "mara")
        spend(house, mara, 49_000)
        house.accounts.set_own_limit(mara, 50_000)
        chat, refused = try_to_send(house, mara, "One too many")

        assert isinstance(refused, NotSent) and refused.reason == "own_limit"
        cycle = meter_of(house, mara).cycle
        assert cycle is not None and refused.renews_at == cycle.ends_at
        assert house.history.draft(mara, chat) == "One too many"
        assert [reason for reason, *_ in house.store.read(lambda rows: rows.refusals(mara.id))] == ["own_limit"]
        assert house.accounts.warnings(mara) == [] and not meter_of(house, mara).closed
        assert (meter_of(house, mara).own_limit, meter_of(house, mara).own_limit_met, meter_of(house, mara).reserved) == (50_000, True, 0)

        house.accounts.lift_own_limit(mara)

        assert meter_of(house, mara).own_limit is None and not meter_of(house, mara).own_limit_met
        ended(house, mara, send(house, mara, "One too many", chat))
        assert_books_agree(house, mara)


def test_what_fits_below_the_own_limit_goes_and_its_figures_say_how_much_that_is(tmp_path: Path) -> None:
    """A draft as long as the refusal said fits, and one token more does not."""
    with running(tmp_path, scripted(), allowance_tokens=200_000) as house:
        mara = person(house, "mara")
        spend(house, mara, 10_000)
        house.accounts.set_own_limit(mara, 10_000 + 3_000)
        _, refused = try_to_send(house, mara, "word " * 3_000)
        assert isinstance(refused, NotSent) and refused.reason == "own_limit"
        assert refused.draft_tokens > refused.fits_now > 500 and refused.fits_after > 5_000
        overhead = refused.draft_tokens - 3_001
        _, longer = try_to_send(house, mara, "word " * (refused.fits_now - overhead))
        assert isinstance(longer, NotSent) and longer.draft_tokens == refused.fits_now + 1

        _, fits = try_to_send(house, mara, "word " * (refused.fits_now - overhead - 1))

        assert isinstance(fits, Sent) and fits.left_out == 0 and not fits.shortened


def test_what_is_pending_counts_below_the_own_limit(tmp_path: Path) -> None:
    """Two tabs at once get no further than one after the other."""
    gate = threading.Event()
    with running(tmp_path, scripted(("x", Hold(gate), Spent(400, 10), Ended("stop")))) as house:
        mara = person(house, "mara")
        house.accounts.set_own_limit(mara, 3_000)
        first = send(house, mara, "One")
        _, refused = try_to_send(house, mara, "Two")
        gate.set()
        ended(house, mara, first)

        assert isinstance(refused, NotSent) and refused.reason == "own_limit"
        ended(house, mara, send(house, mara, "Two"))


def test_near_the_end_the_own_limit_speaks_before_anybody_is_asked_for_a_last_message(tmp_path: Path) -> None:
    """A last message takes all that is left, so it goes beyond any own limit: the person is not asked for a yes that would be refused."""
    with running(tmp_path, scripted()) as house:
        tomas = person(house, "tomas")
        spend(house, tomas, 4_500)
        house.accounts.set_own_limit(tomas, 199_000)

        _, refused = try_to_send(house, tomas)

        assert isinstance(refused, NotSent) and refused.reason == "own_limit"
        assert "last_message" not in {w.kind for w in house.accounts.warnings(tomas)}


def test_it_holds_for_its_cycle_alone(tmp_path: Path) -> None:
    """With the renewal it is gone; the rows stay."""
    with running(tmp_path, scripted(words("One."), words("Two."))) as house:
        mara = person(house, "mara")
        spend(house, mara, 40_000)
        house.accounts.set_own_limit(mara, 40_000)
        cycle = meter_of(house, mara).cycle
        assert cycle is not None
        house.now.at = cycle.ends_at  # type: ignore[attr-defined]

        assert meter_of(house, mara).own_limit is None
        ended(house, mara, send(house, mara, "A new month"))
        assert [row.tokens for row in house.store.read(lambda rows: rows.person(mara.id)).own_limits] == [40_000]


def test_one_that_is_set_before_the_first_message_holds_in_the_first_cycle(tmp_path: Path) -> None:
    """And not in the second."""
    with running(tmp_path, scripted(words("One.", usage=(900, 900)), words("Two."))) as house:
        mara = person(house, "mara")
        house.accounts.set_own_limit(mara, 2_500)
        assert meter_of(house, mara).own_limit == 2_500 and meter_of(house, mara).cycle is None
        ended(house, mara, send(house, mara, "First"))
        _, refused = try_to_send(house, mara)
        assert isinstance(refused, NotSent) and refused.reason == "own_limit" and meter_of(house, mara).own_limit == 2_500
        cycle = meter_of(house, mara).cycle
        assert cycle is not None
        house.now.at = cycle.ends_at  # type: ignore[attr-defined]

        assert meter_of(house, mara).own_limit is None


@pytest.mark.parametrize("tokens", [-1, 200_000, 10**9])
def test_a_limit_that_would_limit_nothing_is_told_so(tmp_path: Path, tokens: int) -> None:
    with running(tmp_path) as house:
        mara = person(house, "mara")
        with pytest.raises(LimitNotLower, match="200,000"):
            house.accounts.set_own_limit(mara, tokens)
        assert meter_of(house, mara).own_limit is None


def test_without_a_plan_there_is_nothing_to_limit(tmp_path: Path) -> None:
    with running(tmp_path) as house:
        for name in ("nia", "hal"):
            with pytest.raises(NotAllowed):
                house.accounts.set_own_limit(person(house, name), 100)


def test_open_pages_are_told_and_lifting_what_is_not_there_tells_nobody(tmp_path: Path) -> None:
    """After the commit, so that who looks at once sees it."""
    with running(tmp_path) as house:
        mara, seen = person(house, "mara"), list[tuple[str, int | None]]()
        house.accounts.on_allowance.append(lambda account_id: seen.append((account_id, meter_of(house, mara).own_limit)))

        house.accounts.lift_own_limit(mara)
        house.accounts.set_own_limit(mara, 5)
        house.accounts.lift_own_limit(mara)
        house.accounts.lift_own_limit(mara)

        assert seen == [(mara.id, 5), (mara.id, None)]
        assert [row.tokens for row in house.store.read(lambda rows: rows.person(mara.id)).own_limits] == [5, None]
