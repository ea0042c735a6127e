"""The ledger under races, clocks and sweepers: each reservation is resolved once, by whoever comes first, and charged to its own cycle."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chatpro.domain.chats import AnswerState
from chatpro.models.scripted import Ended, Hold, ScriptedModel, ScriptedSource, Spent, scripted, words
from chatpro.services.answering import AskLast, InLine, NotSent, Sent
from tests.cast import PLAN, person, spend
from tests.conftest import trials
from tests.running import assert_books_agree, ended, running, send, until

LONG = "word " * 1_400


@pytest.mark.fault(27, 46)
@pytest.mark.trials
def test_three_tabs_near_the_end_get_one_last_message_between_them(tmp_path: Path) -> None:
    """All at once, each in a chat of its own, where one ordinary message and then the last are left: nobody is refused, the answers that
    are written settle first, and of those that are asked whether theirs is to be the last, one says yes."""
    for round_ in range(trials(2, 20)):
        gate = threading.Event()
        model = ScriptedModel(otherwise=(LONG, Hold(gate), Ended("stop")))
        with running(tmp_path / str(round_), ScriptedSource(model)) as house:
            mara, barrier = person(house, "mara"), threading.Barrier(3)
            spend(house, mara, 200_000 - 4_300)
            chats = [house.answering.new_chat_id() for _ in range(3)]

            def tab(number: int, house: Any = house, mara: Any = mara, barrier: Any = barrier, chats: Any = chats) -> Any:
                barrier.wait()
                return house.answering.send(mara, chats[number], f"Tab {number}", None)

            with ThreadPoolExecutor(3) as pool:
                outcomes = list(pool.map(tab, range(3)))
            assert sum(isinstance(o, Sent) for o in outcomes) == 1 and all(isinstance(o, Sent | InLine) for o in outcomes)
            gate.set()
            until(lambda house=house, mara=mara: not house.answering.running_chats(mara), 10)  # type: ignore[misc]

            asked = [(number, house.answering.unsent(mara, chat)) for number, chat in enumerate(chats)]
            asks = [(number, unsent.why) for number, unsent in asked if unsent is not None]
            assert len(asks) == 2 and all(isinstance(why, AskLast) for _, why in asks)
            yes = [house.answering.send(mara, chats[number], f"Tab {number}", None, why.yes) for number, why in asks]  # type: ignore[union-attr]
            assert isinstance(yes[0], Sent) and isinstance(yes[1], InLine | NotSent)
            until(lambda house=house, mara=mara: not house.answering.running_chats(mara), 10)  # type: ignore[misc]

            kinds = [w.kind for w in house.accounts.warnings(mara)]
            assert kinds.count("last_message") == 1 and len(model.prompts) == 2
            reasons = [reason for reason, *_ in house.store.read(lambda rows, mara=mara: rows.refusals(mara.id))]
            assert reasons == ["no_tokens"]
            assert_books_agree(house, mara)


@pytest.mark.fault(41)
def test_a_settlement_days_after_its_reservations_expiry_is_charged_once_whoever_sweeps(tmp_path: Path) -> None:
    """A suspended process: the clock is far ahead, sweepers come at every moment, and the answer that ends late is charged like any other."""
    gate, over = threading.Event(), threading.Event()
    with running(tmp_path, scripted(("Late", Hold(gate), " but whole", Ended("stop")))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]
        house.now.forward(days=3)  # type: ignore[attr-defined]
        assert house.housekeeping.report(person(house, "ada")).pending_past_expiry == 1
        assert house.housekeeping.expire() == 0, "somebody here is writing it"

        def sweep() -> None:
            while not over.is_set():
                house.housekeeping.expire()

        sweepers = [threading.Thread(target=sweep) for _ in range(3)]
        for sweeper in sweepers:
            sweeper.start()
        gate.set()
        message = ended(house, mara, sent)
        over.set()
        for sweeper in sweepers:
            sweeper.join()

        assert message.text == "Late but whole" and message.answer is not None and message.answer.state is AnswerState.FINISHED
        (entry,) = house.accounts.receipts(mara)
        assert entry.receipt.total > 0
        assert_books_agree(house, mara)


@pytest.mark.fault(41)
def test_what_nobody_here_is_writing_is_expired_once_by_however_many_sweepers(tmp_path: Path) -> None:
    """Left by a dead process: before its expiry nobody touches it, after it what was saved is settled, once."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Saved words", Hold(gate), Ended("stop"))), save_seconds=0.02) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        until(lambda: house.store.read(lambda rows: rows.parts(sent.answer_id)))
        live = house.answering._live.pop(sent.answer_id)
        assert house.housekeeping.expire() == 0
        house.now.forward(seconds=331)  # type: ignore[attr-defined]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: house.housekeeping.expire(), range(4)))

        (entry,) = house.accounts.receipts(mara)
        assert entry.outcome == "interrupted" and entry.receipt.total > 0 and entry.receipt.counted == "estimated"
        gate.set()  # the settlement that comes later changes nothing
        until(lambda: live.done)
        assert house.accounts.receipts(mara) == [entry]
        assert_books_agree(house, mara)


@pytest.mark.fault(42)
def test_a_clock_that_jumps_changes_no_duration_and_repeats_no_warning(tmp_path: Path) -> None:
    """Forty days ahead in the middle of an answer and back again: it took as long as it took, and 75 % is said once."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Some", Hold(gate), " words", Spent(900, 900), Ended("stop")), words("More."))) as house:
        mara = person(house, "mara")
        spend(house, mara, 149_000)
        sent = send(house, mara, "Go")
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]
        house.now.forward(days=40)  # type: ignore[attr-defined]
        gate.set()
        ended(house, mara, sent)
        house.now.forward(days=-40)  # type: ignore[attr-defined]
        ended(house, mara, send(house, mara, "On"))

        for entry in house.accounts.receipts(mara)[:2]:
            assert entry.whole_ms < 60_000 and (entry.first_token_ms or 0) < 60_000
        assert [w.kind for w in house.accounts.warnings(mara)] == ["75"]
        sequences = [entry.sequence for entry in house.accounts.receipts(mara)]
        assert sequences == sorted(sequences, reverse=True), "in the order of the ledger, whatever the clock said"
        assert_books_agree(house, mara)


@pytest.mark.fault(43)
def test_travelling_moves_no_cycle(tmp_path: Path) -> None:
    """The zone for display is another setting than the zone of the first message, which is kept with its day."""
    with running(tmp_path, scripted(words("One."), words("Two."))) as house:
        mara = person(house, "mara")
        ended(house, mara, send(house, mara, "First"))
        before = house.accounts.meter(mara, house.answering.sizes())
        house.accounts.set_zone(mara, "Pacific/Kiritimati")
        mara = person(house, "mara")
        ended(house, mara, send(house, mara, "Elsewhere"))
        after = house.accounts.meter(mara, house.answering.sizes())

        assert mara.zone == "Pacific/Kiritimati"
        assert before is not None and after is not None and after.cycle == before.cycle and after.used > before.used
        anchor = house.store.read(lambda rows: rows.person(mara.id)).anchor
        assert anchor is not None and anchor.zone == "Europe/Stockholm"


@pytest.mark.fault(43)
def test_a_cycle_in_use_outlives_other_rules_of_its_zone(tmp_path: Path) -> None:
    """A country that changes its clocks in the middle of a month gives nobody a second allowance, and takes nobody's usage away."""
    with running(tmp_path, scripted(words("One."), words("Two."))) as house:
        mara = person(house, "mara")
        ended(house, mara, send(house, mara, "First"))
        before = house.accounts.meter(mara, house.answering.sizes())
        house.store.write(lambda unit: unit._all("UPDATE anchors SET zone = 'Asia/Kathmandu' WHERE account_id = ?", mara.id))
        ended(house, mara, send(house, mara, "Second"))
        after = house.accounts.meter(mara, house.answering.sizes())

        assert before is not None and after is not None and before.cycle is not None and after.cycle is not None
        assert after.cycle.starts_at == before.cycle.starts_at and after.used > before.used
        assert house.store.read(lambda rows: rows._all("SELECT count(*) FROM cycles WHERE account_id = ?", mara.id)) == [(1,)]
        assert_books_agree(house, mara)


@pytest.mark.fault(47)
def test_another_model_in_mid_cycle_changes_no_past_row(tmp_path: Path) -> None:
    """Receipts keep the model that answered; the meter goes on."""
    source = scripted(words("By the first."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        first = send(house, mara, "Go")
        ended(house, mara, first)
        before = house.accounts.receipts(mara)
        source.model = ScriptedModel(words("By the second."), name="another", card=source.model.card)
        message = ended(house, mara, send(house, mara, "On", first.chat_id, first.answer_id))

        assert message.answer is not None and message.answer.model == "another"
        entries = house.accounts.receipts(mara)
        assert entries[1:] == before and [e.model for e in entries] == ["another", "scripted"]
        assert_books_agree(house, mara)


@pytest.mark.fault(39)
def test_a_hundred_tabs_that_close_in_mid_answer_leave_one_answer_and_nothing_else(tmp_path: Path) -> None:
    """Watchers come and go; the answer is the server's, is written to its end and charged once."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Half ", Hold(gate), "and whole", Ended("stop")))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        live = until(lambda: house.answering.watch(mara.id, sent.answer_id))
        until(lambda: live.text)

        async def open_and_close() -> None:
            tabs = [asyncio.ensure_future(live.more(len(live.text))) for _ in range(100)]
            await asyncio.sleep(0)
            for tab in tabs:
                tab.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tabs)

        asyncio.run_coroutine_threadsafe(open_and_close(), house.answering._loop).result(10)  # type: ignore[arg-type]
        gate.set()
        message = ended(house, mara, sent)

        assert message.text == "Half and whole" and message.answer is not None and message.answer.state is AnswerState.FINISHED
        assert len(house.accounts.receipts(mara)) == 1
        assert live._waiters == [] and not house.answering._held
        assert_books_agree(house, mara)


@pytest.mark.fault(45)
def test_three_answers_that_cross_a_threshold_at_once_give_its_warning_once(tmp_path: Path) -> None:
    """They end in the same moment; the next ones give none again."""
    gate = threading.Event()
    model = ScriptedModel(otherwise=(LONG, Hold(gate), Ended("stop")))
    with running(tmp_path, ScriptedSource(model)) as house:
        mara = person(house, "mara")
        spend(house, mara, 149_000)
        sent = [send(house, mara, f"Tab {number}") for number in range(3)]
        gate.set()
        for one in sent:
            ended(house, mara, one)
        ended(house, mara, send(house, mara, "And on"))

        assert [w.kind for w in house.accounts.warnings(mara)] == ["75"]
        assert_books_agree(house, mara)


@pytest.mark.fault(45)
def test_one_message_may_be_all_three_warnings(tmp_path: Path) -> None:
    """A small allowance: the last message crosses 75 and 95 per cent too. Its own row comes before it is sent, theirs with what it cost."""
    gate = threading.Event()
    with running(tmp_path, scripted((LONG, Hold(gate), Ended("stop")))) as house:
        mara, chat = person(house, "mara"), house.answering.new_chat_id()
        house.accounts.entitle(person(house, "ada"), mara.id, PLAN, 7_600)
        spend(house, mara, 5_300)
        ask = house.answering.send(mara, chat, "Long " * 700, None)
        assert isinstance(ask, AskLast) and house.accounts.warnings(mara) == []
        sent = house.answering.send(mara, chat, "Long " * 700, None, ask.yes)
        assert isinstance(sent, Sent) and [w.kind for w in house.accounts.warnings(mara)] == ["last_message"]
        gate.set()
        ended(house, mara, sent)

        assert [w.kind for w in house.accounts.warnings(mara)] == ["last_message", "75", "95"]
        assert {w.allowance for w in house.accounts.warnings(mara)} == {7_600}
        assert_books_agree(house, mara)
