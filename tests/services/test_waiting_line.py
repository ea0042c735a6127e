"""The waiting line: sends beyond the bounds wait their turn, fairly, lose nothing, and can be called off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chatpro.bootstrap import House
from chatpro.domain.accounts import Account
from chatpro.errors import Busy
from chatpro.models.scripted import Ended, Hold, ScriptedModel, ScriptedSource
from chatpro.services.answering import AHEAD_OWN, AskLast, InLine, NotSent, Sent, Unsent
from tests.cast import PLAN, build_house, person, spend, write_chat
from tests.conftest import trials
from tests.running import assert_books_agree, ended, running, send, started, until


def in_line(house: House, account: Account, text: str, chat_id: str | None = None) -> InLine:
    outcome = house.answering.send(account, chat_id or house.answering.new_chat_id(), text, None)
    assert isinstance(outcome, InLine), outcome
    return outcome


def stands(house: House, account: Account, waiting: InLine) -> int | None:
    live = house.answering.watch(account.id, waiting.answer_id)
    assert live is not None
    return live.ahead


@contextmanager
def full(tmp_path: Path, places: int = 1, **settings: Any) -> Iterator[tuple[House, threading.Event, ScriptedModel]]:
    """A house whose places are all taken by Tomás, until the gate opens."""
    gate = threading.Event()
    model = ScriptedModel(otherwise=("Done", Hold(gate), Ended("stop")))
    with running(tmp_path, ScriptedSource(model), running_total=places, running_per_account=places, allowance_tokens=2_000_000, **settings) as house:
        for n in range(places):
            send(house, person(house, "tomas"), f"Taken {n}")
        yield house, gate, model
        gate.set()


@pytest.mark.fault(122)
def test_turns_go_round_between_people_and_each_learns_where_they_stand(tmp_path: Path) -> None:
    """Three sends of Mara's, then one of Hal's: his is second, and everybody is told so."""
    with full(tmp_path) as (house, gate, model):
        mara, lea = person(house, "mara"), person(house, "lea")
        house.accounts.opt_in(lea)
        first, second, third = (in_line(house, mara, f"Mara {n}") for n in range(3))
        other = in_line(house, lea, "Lea")
        until(lambda: [stands(house, mara, w) for w in (first, second, third)] == [0, 2, 3] and stands(house, lea, other) == 1)

        gate.set()
        for account, waiting in ((mara, first), (lea, other), (mara, second), (mara, third)):
            until(lambda a=account, w=waiting: house.answering.watch(a.id, w.answer_id) is None)  # type: ignore[misc]
        assert [p.turns[-1].text for p in model.prompts][1:] == ["Mara 0", "Lea", "Mara 1", "Mara 2"]
        for account in (mara, lea):
            assert_books_agree(house, account)


def test_what_waits_is_a_draft_in_the_store_and_nothing_is_reserved(tmp_path: Path) -> None:
    with full(tmp_path) as (house, _, model):
        mara = person(house, "mara")
        waiting = in_line(house, mara, "Keep me")

        assert house.history.draft(mara, waiting.chat_id) == "Keep me"
        meter = house.accounts.meter(mara, house.answering.sizes())
        assert meter is not None and meter.reserved == 0
        assert len(model.prompts) <= 1


def test_a_send_that_waits_can_be_called_off(tmp_path: Path) -> None:
    """By the button and by the socket alike, twice without harm; the text stays a draft, whoever stood behind moves up."""
    with full(tmp_path) as (house, gate, model):
        mara = person(house, "mara")
        first, second = in_line(house, mara, "First"), in_line(house, mara, "Second")
        house.answering.stop(mara, first.answer_id)
        assert not house.answering.stop_running(mara.id, first.answer_id)

        assert house.history.draft(mara, first.chat_id) == "First" and house.answering.unsent(mara, first.chat_id) == Unsent("send", "First", None, None)
        until(lambda: stands(house, mara, second) == 0)
        gate.set()
        until(lambda: house.answering.watch(mara.id, second.answer_id) is None)
        assert "First" not in [p.turns[-1].text for p in model.prompts]


@pytest.mark.fault(32)
def test_the_same_send_twice_waits_once_and_another_into_the_same_chat_is_told_to_wait(tmp_path: Path) -> None:
    with full(tmp_path) as (house, gate, model):
        mara = person(house, "mara")
        first = in_line(house, mara, "Once")
        again = in_line(house, mara, "Once", first.chat_id)
        assert again == first
        with pytest.raises(Busy, match="in this chat"):
            house.answering.send(mara, first.chat_id, "Something else", None)
        gate.set()
        until(lambda: house.answering.watch(mara.id, first.answer_id) is None)
        assert [p.turns[-1].text for p in model.prompts].count("Once") == 1


def test_an_edit_that_waits_and_is_not_sent_is_not_lost(tmp_path: Path) -> None:
    """Its words are a draft while they wait, and what was wanted is there for whichever tab asks."""
    with full(tmp_path, places=1) as (house, _, _model):
        mara = person(house, "mara")
        chat = write_chat(house, mara, ("First words", "An answer."))
        message = house.history.open(mara, chat).messages[0]
        waiting = house.answering.edit(mara, chat, message.id, "Other words")
        assert isinstance(waiting, InLine) and house.history.draft(mara, chat) == "Other words"
        house.answering.stop(mara, waiting.answer_id)
        assert house.answering.unsent(mara, chat) == Unsent("edit", "Other words", message.id, None)


def test_nobody_joins_the_line_of_a_server_that_ends(tmp_path: Path) -> None:
    """Also in the moment between the draft and the line: the draft stays, and it is said."""
    with full(tmp_path) as (house, _, _model):
        mara, engine = person(house, "mara"), house.answering
        keep = engine._keep_draft

        def closing(*given: Any) -> str:
            engine._closing = True
            return keep(*given)

        engine._keep_draft = closing  # type: ignore[method-assign]
        chat = engine.new_chat_id()
        with pytest.raises(Busy, match="restart"):
            engine.send(mara, chat, "Too late", None)
        assert house.history.draft(mara, chat) == "Too late" and not engine.running_chats(mara)
        engine._closing = False


def test_what_is_refused_when_its_turn_comes_is_told_until_a_page_has_said_it(tmp_path: Path) -> None:
    """The plan ended while it waited: the reason is there for the page, the text is a draft."""
    with full(tmp_path) as (house, gate, _):
        mara = person(house, "mara")
        waiting = in_line(house, mara, "Too late")
        now = house.now()
        house.store.write(lambda unit: unit.add_entitlement(mara.id, PLAN, 200_000, now, now, now))
        gate.set()

        unsent = until(lambda: house.answering.unsent(mara, waiting.chat_id))
        assert (unsent.do, unsent.text) == ("send", "Too late")
        assert isinstance(unsent.why, NotSent) and unsent.why.reason == "plan_ended"
        house.answering.put_by(mara, waiting.chat_id)
        assert house.answering.unsent(mara, waiting.chat_id) is None
        assert house.history.draft(mara, waiting.chat_id) == "Too late"
        assert house.answering.watch(mara.id, waiting.answer_id) is None


def test_the_last_message_is_asked_about_when_its_turn_comes(tmp_path: Path) -> None:
    with full(tmp_path) as (house, gate, _):
        mara = person(house, "mara")
        waiting = in_line(house, mara, "The last one")
        sizes = house.answering.sizes()
        spend(house, mara, 2_000_000 - sizes.smallest_send(2_000_000) - 100)
        gate.set()

        assert isinstance(until(lambda: house.answering.unsent(mara, waiting.chat_id)).why, AskLast)


@pytest.mark.fault(111)
def test_opting_out_and_deleting_the_chat_take_a_send_out_of_the_line(tmp_path: Path) -> None:
    with full(tmp_path) as (house, gate, model):
        mara = person(house, "mara")
        in_line(house, mara, "Not any more")
        house.accounts.opt_out(mara)
        assert not house.answering.running_chats(mara)
        gate.set()
        until(lambda: not house.answering.running_chats(person(house, "tomas")))
        assert "Not any more" not in [p.turns[-1].text for p in model.prompts]


def test_nobody_waits_longer_than_the_line_allows(tmp_path: Path) -> None:
    with full(tmp_path, waiting_seconds=0.1) as (house, _, _model):
        mara = person(house, "mara")
        waiting = in_line(house, mara, "Patience")
        unsent = until(lambda: house.answering.unsent(mara, waiting.chat_id))
        assert isinstance(unsent.why, Busy) and "no place came free" in str(unsent.why)
        assert house.history.draft(mara, waiting.chat_id) == "Patience"


def test_the_line_has_bounds_for_a_person_and_for_all(tmp_path: Path) -> None:
    with full(tmp_path, waiting_per_account=2) as (house, _, _model):
        mara = person(house, "mara")
        in_line(house, mara, "One"), in_line(house, mara, "Two")
        with pytest.raises(Busy, match="waiting"):
            house.answering.send(mara, house.answering.new_chat_id(), "Three", None)


@pytest.mark.fault(118)
def test_the_end_of_the_server_tells_who_waits_and_keeps_the_text(tmp_path: Path) -> None:
    gate = threading.Event()
    source = ScriptedSource(ScriptedModel(otherwise=("x", Hold(gate), Ended("stop"))))
    house = build_house(tmp_path, model=source, running_total=1, running_per_account=1, shutdown_seconds=0.1)
    with started(house):
        send(house, person(house, "tomas"), "Taken")
        mara = person(house, "mara")
        waiting = in_line(house, mara, "Keep me")
    unsent = house.answering.unsent(mara, waiting.chat_id)
    assert unsent is not None and isinstance(unsent.why, Busy) and "restart" in str(unsent.why)


class Counting(ScriptedModel):
    """Knows how many calls were going at once."""

    now = most = 0

    async def stream(self, prompt: Any) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            async for event in super().stream(prompt):
                yield event
        finally:
            self.now -= 1


@pytest.mark.fault(122)
@pytest.mark.trials
def test_twenty_sends_of_one_and_one_of_another_lose_no_place(tmp_path: Path) -> None:
    """All are answered, never more at once than there are places, no more of one person than one may have, and every place comes back."""
    for round_ in range(trials(1, 20)):
        twenty_and_one(tmp_path / str(round_))


def twenty_and_one(tmp_path: Path) -> None:
    model = Counting(otherwise=("Done", Ended("stop")))
    with running(tmp_path, ScriptedSource(model), running_total=4, running_per_account=2, allowance_tokens=2_000_000) as house:
        mara, tomas = person(house, "mara"), person(house, "tomas")
        barrier, outcomes = threading.Barrier(21), list[tuple[Account, Any]]()

        def ask(account: Account, text: str) -> None:
            barrier.wait()
            outcomes.append((account, house.answering.send(account, house.answering.new_chat_id(), text, None)))

        threads = [threading.Thread(target=ask, args=(mara, f"Mara {n}")) for n in range(20)] + [threading.Thread(target=ask, args=(tomas, "Tomás"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: not house.answering.running_chats(mara) and not house.answering.running_chats(tomas), 20)
        assert len(outcomes) == 21
        for account, outcome in outcomes:
            assert isinstance(outcome, Sent | InLine)
            assert [m.text for m in house.history.open(account, outcome.chat_id).messages][1:] == ["Done"]
        assert model.most <= 3, "two of Mara's and one of Tomás's"
        assert house.answering._places == 4 and not house.answering._held
        assert_books_agree(house, mara)
        ended(house, tomas, send(house, tomas, "And on"))


# --- until the person's own answers have ended ------------------------------------------------------------------------


@contextmanager
def near_the_end(tmp_path: Path, *scripts: Any, left: int = 6_000, **settings: Any) -> Iterator[tuple[House, Account, ScriptedModel]]:
    """Mara has this much left: one ordinary send, and then nobody knows yet."""
    model = ScriptedModel(*scripts)
    with running(tmp_path, ScriptedSource(model), **settings) as house:
        mara = person(house, "mara")
        spend(house, mara, 200_000 - left)
        yield house, mara, model


def test_what_nobody_can_know_yet_waits_for_the_persons_own_answer_and_is_decided_then(tmp_path: Path) -> None:
    """With one ordinary send pending nothing is left for a second; once the first has cost little, it goes as an ordinary one. Nobody was refused."""
    gate = threading.Event()
    with near_the_end(tmp_path, ("First.", Hold(gate), Ended("stop")), ("Second.", Ended("stop")), left=4_500) as (house, mara, _):
        first = send(house, mara, "One")
        waiting = in_line(house, mara, "Two")
        assert waiting.own and house.history.draft(mara, waiting.chat_id) == "Two"
        until(lambda: stands(house, mara, waiting) == AHEAD_OWN)
        assert in_line(house, mara, "Two", waiting.chat_id) == waiting, "the same send again is the same"
        gate.set()
        ended(house, mara, first)
        until(lambda: house.answering.watch(mara.id, waiting.answer_id) is None)

        assert [m.text for m in house.history.open(mara, waiting.chat_id).messages] == ["Two", "Second."]
        assert house.history.draft(mara, waiting.chat_id) is None
        assert house.store.read(lambda rows: rows.refusals(mara.id)) == []
        assert_books_agree(house, mara)


def test_where_too_little_is_left_after_it_the_person_is_asked_about_the_last_message(tmp_path: Path) -> None:
    """The first answer cost all it might: the one that waited would be the last, and waits for a yes."""
    gate = threading.Event()
    with near_the_end(tmp_path, ("word " * 1_450, Hold(gate), Ended("stop")), left=4_000) as (house, mara, _):
        first = send(house, mara, "One")
        waiting = in_line(house, mara, "Two")
        gate.set()
        ended(house, mara, first)

        unsent = until(lambda: house.answering.unsent(mara, waiting.chat_id))
        assert isinstance(unsent.why, AskLast)
        sent = house.answering.send(mara, waiting.chat_id, "Two", None, unsent.why.yes)
        assert isinstance(sent, Sent)
        ended(house, mara, sent)


def test_one_from_the_line_that_turns_out_to_need_it_goes_back_and_waits_for_the_own_answer(tmp_path: Path) -> None:
    """First for a place, then for the person's other answer; no place is lost on the way."""
    gates = threading.Event(), threading.Event()
    scripts = ("x", Hold(gates[0]), Ended("stop")), ("y", Hold(gates[1]), Ended("stop")), ("Third.", Ended("stop"))
    with near_the_end(tmp_path, *scripts, left=6_500, running_per_account=2) as (house, mara, model):
        first, second = send(house, mara, "One"), send(house, mara, "Two")
        third = in_line(house, mara, "Three")
        assert not third.own
        until(lambda: stands(house, mara, third) == 0)
        spend(house, mara, 2_300)
        gates[0].set()
        ended(house, mara, first)
        until(lambda: stands(house, mara, third) == AHEAD_OWN)
        gates[1].set()
        ended(house, mara, second)
        until(lambda: house.answering.watch(mara.id, third.answer_id) is None)

        assert [m.text for m in house.history.open(mara, third.chat_id).messages] == ["Three", "Third."]
        assert house.answering._places == house.settings.running_total and not house.answering._held
        assert_books_agree(house, mara)


def test_what_is_pending_and_nobodys_here_is_not_waited_for_in_a_circle(tmp_path: Path) -> None:
    """A dead process left it and the store could not be written: the person gets a sentence, once, and the text stays."""
    with near_the_end(tmp_path, ("One.", Ended("stop")), left=4_500) as (house, mara, model):
        ended(house, mara, send(house, mara, "One"))
        starts_at = house.store.read(lambda rows: rows.latest_cycle_starts_at(mara.id))
        assert starts_at is not None
        house.store.write(lambda unit: unit._all("UPDATE cycles SET reserved = 2500 WHERE account_id = ?", mara.id))
        waiting = in_line(house, mara, "Two")

        unsent = until(lambda: house.answering.unsent(mara, waiting.chat_id))
        assert isinstance(unsent.why, Busy) and "Another answer of yours" in str(unsent.why)
        assert house.history.draft(mara, waiting.chat_id) == "Two" and len(model.prompts) == 1


def test_waiting_for_an_own_answer_has_its_bound_and_its_sentence(tmp_path: Path) -> None:
    gate = threading.Event()
    with near_the_end(tmp_path, ("x", Hold(gate), Ended("stop")), left=4_500, waiting_seconds=0.1) as (house, mara, _):
        first = send(house, mara, "One")
        waiting = in_line(house, mara, "Two")
        unsent = until(lambda: house.answering.unsent(mara, waiting.chat_id))
        assert isinstance(unsent.why, Busy) and "Another answer of yours" in str(unsent.why)
        gate.set()
        ended(house, mara, first)
