"""Entitlements that change in the middle of a cycle: raised, lowered, ended, resumed. What was used stays used, and nobody is past a warning unwarned."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from chatpro.bootstrap import House
from chatpro.domain.accounts import Account, Identity, PlanState
from chatpro.errors import NotFound
from chatpro.models.scripted import Ended, Hold, scripted, words
from chatpro.services.accounts import Meter, NoAllowance
from chatpro.services.answering import AskLast, NotSent, Outcome, Sent
from tests.cast import PLAN, person, spend
from tests.running import assert_books_agree, ended, running, send, until


def meter_of(house: House, account: Account) -> Meter:
    meter = house.accounts.meter(account, house.answering.sizes())
    assert meter is not None
    return meter


def kinds(house: House, account: Account) -> list[tuple[str, int]]:
    return [(w.kind, w.allowance) for w in house.accounts.warnings(account)]


def try_to_send(house: House, account: Account, text: str = "Next") -> Outcome:
    return house.answering.send(account, house.answering.new_chat_id(), text, None)


def send_the_last(house: House, account: Account, text: str = "The last") -> None:
    chat = house.answering.new_chat_id()
    ask = house.answering.send(account, chat, text, None)
    assert isinstance(ask, AskLast), ask
    sent = house.answering.send(account, chat, text, None, ask.yes)
    assert isinstance(sent, Sent)
    ended(house, account, sent)


@pytest.mark.fault(47)
def test_a_lowered_allowance_warns_in_the_same_moment_and_serves_nothing_beyond_it(tmp_path: Path) -> None:
    """Both rows stand with the change; the next send is refused as allowance_lowered; what was used and every earlier row stay as they were."""
    with running(tmp_path, scripted()) as house:
        mara, ada = person(house, "mara"), person(house, "ada")
        spend(house, mara, 160_000)
        before, entries = kinds(house, mara), house.accounts.receipts(mara)
        assert before == [("75", 200_000)]

        house.accounts.entitle(ada, mara.id, PLAN, 150_000)

        assert kinds(house, mara) == [*before, ("75", 150_000), ("95", 150_000)]
        meter = meter_of(house, mara)
        assert (meter.allowance, meter.used, meter.remaining, meter.next_is_last) == (150_000, 160_000, 0, False)
        refused = try_to_send(house, mara)
        assert isinstance(refused, NotSent) and (refused.reason, refused.fits_now) == ("allowance_lowered", 0)
        assert house.accounts.receipts(mara) == entries
        house.accounts.entitle(ada, mara.id, PLAN, 150_000)
        assert len(kinds(house, mara)) == 3, "the same figure again repeats nothing"
        assert_books_agree(house, mara)


@pytest.mark.fault(47)
def test_under_a_lowered_allowance_what_still_fits_may_go_as_the_last(tmp_path: Path) -> None:
    """Asked for and confirmed as any last message is; after it the cycle is closed."""
    with running(tmp_path, scripted()) as house:
        mara, ada = person(house, "mara"), person(house, "ada")
        spend(house, mara, 148_500)
        house.accounts.entitle(ada, mara.id, PLAN, 150_000)
        assert meter_of(house, mara).next_is_last

        send_the_last(house, mara)

        assert ("last_message", 150_000) in kinds(house, mara) and meter_of(house, mara).closed
        refused = try_to_send(house, mara)
        assert isinstance(refused, NotSent) and refused.reason == "no_tokens"


@pytest.mark.fault(47)
def test_a_raised_allowance_reopens_a_closed_cycle_where_a_message_fits(tmp_path: Path) -> None:
    """By too little it stays closed; by enough, messages go again and the warnings of the new figure come in their own time."""
    with running(tmp_path, scripted()) as house:
        mara, ada = person(house, "mara"), person(house, "ada")
        spend(house, mara, 198_000)
        send_the_last(house, mara)
        closed = kinds(house, mara)
        assert {kind for kind, _ in closed} == {"75", "95", "last_message"} and meter_of(house, mara).closed

        house.accounts.entitle(ada, mara.id, PLAN, 200_100)
        refused = try_to_send(house, mara)
        assert isinstance(refused, NotSent) and refused.reason == "no_tokens" and meter_of(house, mara).closed

        house.accounts.entitle(ada, mara.id, PLAN, 250_000)
        assert not meter_of(house, mara).closed
        ended(house, mara, send(house, mara, "On"))
        assert kinds(house, mara) == [*closed, ("75", 200_100), ("95", 200_100), ("75", 250_000)]

        house.accounts.entitle(ada, mara.id, PLAN, 200_000)
        refused = try_to_send(house, mara)
        assert isinstance(refused, NotSent) and refused.reason == "no_tokens", "back under the figure that it was closed under"
        assert_books_agree(house, mara)


@pytest.mark.fault(47, 48)
def test_a_plan_that_is_lowered_or_ends_during_an_answer_lets_it_finish_and_be_charged(tmp_path: Path) -> None:
    """Its warnings are those of the figure in force when it is settled; resumed, the same cycle goes on with what was used."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Some words", Hold(gate), " more", Ended("stop")), words("Again."))) as house:
        mara, ada = person(house, "mara"), person(house, "ada")
        spend(house, mara, 74_900)
        sent = send(house, mara, "Go " * 400)
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]
        house.accounts.entitle(ada, mara.id, PLAN, 100_000)
        house.accounts.end_plan(ada, mara.id)
        refused = try_to_send(house, mara)
        gate.set()
        message = ended(house, mara, sent)

        assert message.text == "Some words more" and message.answer is not None and message.answer.receipt is not None
        assert isinstance(refused, NotSent) and refused.reason == "plan_ended"
        assert house.accounts.grant(mara).state is PlanState.HAD
        house.accounts.entitle(ada, mara.id, PLAN, 100_000)
        meter = meter_of(house, mara)
        assert meter.used == 74_900 + message.answer.receipt.total > 75_000 and meter.cycle is not None
        assert kinds(house, mara) == [("75", 100_000)]
        ended(house, mara, send(house, mara, "Again"))
        assert meter_of(house, mara).cycle == meter.cycle
        assert_books_agree(house, mara)


@pytest.mark.fault(47)
def test_an_answer_that_is_settled_under_another_figure_warns_by_that_figure(tmp_path: Path) -> None:
    """Reserved under 200,000 and settled under 100,000: it crosses 75 % of what is in force now, and of nothing else."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Some words", Hold(gate), Ended("stop")))) as house:
        mara, ada = person(house, "mara"), person(house, "ada")
        spend(house, mara, 74_900)
        sent = send(house, mara, "Go " * 400)
        house.accounts.entitle(ada, mara.id, PLAN, 100_000)
        assert kinds(house, mara) == []
        gate.set()
        ended(house, mara, sent)

        assert kinds(house, mara) == [("75", 100_000)]


def test_what_a_provider_claims_at_sign_in_changes_a_cycle_as_an_admin_does(tmp_path: Path) -> None:
    """Ended and resumed with another plan: the warnings due under its figure are written with it, and open pages are told."""
    with running(tmp_path, scripted(), allowance_tokens=200_000) as house:
        mara, told = person(house, "mara"), list[str]()
        spend(house, mara, 120_000)
        house.accounts.on_allowance.append(told.append)

        def sign_in(plan: str, at: int) -> None:
            house.accounts.sign_in(Identity(mara.issuer, "mara", "Mara", None, None, plan, at))

        sign_in(PLAN, 1)
        assert told == []
        sign_in("", 2)
        assert told == [mara.id] and house.accounts.grant(mara).state is PlanState.HAD
        object.__setattr__(house.settings, "allowance_tokens", 150_000)
        sign_in("Another plan", 3)

        assert told == [mara.id] * 2 and kinds(house, mara) == [("75", 150_000)]
        assert meter_of(house, mara).used == 120_000
        actions = [(e.action, e.reason) for e in house.store.read(lambda rows: rows.audit_entries()) if e.action.startswith("entitlement.")]
        assert actions == [("entitlement.ended", PLAN), ("entitlement.set", "Another plan: 150000 tokens")]


def test_open_pages_are_told_of_each_change_after_its_commit(tmp_path: Path) -> None:
    """Who looks at once sees the new figure. Ending what is not there tells nobody."""
    with running(tmp_path) as house:
        nia, ada, seen = person(house, "nia"), person(house, "ada"), list[tuple[str, PlanState]]()
        house.accounts.on_allowance.append(lambda account_id: seen.append((account_id, house.accounts.grant(nia).state)))

        house.accounts.end_plan(ada, nia.id)
        house.accounts.entitle(ada, nia.id, PLAN, 1_000)
        house.accounts.end_plan(ada, nia.id)

        assert seen == [(nia.id, PlanState.HAS), (nia.id, PlanState.HAD)]


@pytest.mark.parametrize(("plan", "allowance"), [(PLAN, 0), (PLAN, -5), ("", 100), ("  ", 100)])
def test_an_entitlement_that_grants_nothing_is_refused(tmp_path: Path, plan: str, allowance: int) -> None:
    with running(tmp_path) as house:
        nia, ada = person(house, "nia"), person(house, "ada")
        with pytest.raises(NoAllowance):
            house.accounts.entitle(ada, nia.id, plan, allowance)
        with pytest.raises(NotFound):
            house.accounts.entitle(ada, "nobody", PLAN, 100)
        assert house.accounts.entitlements(nia) == []
