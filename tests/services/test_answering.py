"""The answering engine: an answer belongs to the server, is paid for exactly once, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from chatpro import tokens
from chatpro.domain.chats import AnswerState
from chatpro.errors import Busy, ModelProblem, NotFound, NotSendable, Problem, StoreUnavailable
from chatpro.models import Spent, Turn
from chatpro.models.scripted import Crash, Ended, Fail, Gap, Hang, Hold, ScriptedModel, ScriptedSource, scripted, words
from chatpro.services.answering import AskLast, InLine, NotSent, Sent
from tests.cast import PLAN, build_house, person, spend
from tests.conftest import trials
from tests.running import answer, assert_books_agree, ended, running, send, started, until


def test_a_send_is_answered_stored_and_charged(tmp_path: Path) -> None:
    """The message, the answer, the receipt and the meter are all there when it has ended."""
    with running(tmp_path, scripted(words("Dear Ines, thank you.", usage=(700, 40)))) as house:
        mara = person(house, "mara")
        message = ended(house, mara, send(house, mara, "Write to Ines."))

        assert message.text == "Dear Ines, thank you."
        assert message.answer is not None and message.answer.state is AnswerState.FINISHED and message.answer.model == "scripted"
        assert message.answer.receipt is not None and message.answer.receipt.counted in ("measured", "estimated")
        assert_books_agree(house, mara)


def test_the_model_gets_the_instructions_the_conversation_and_the_draft(tmp_path: Path) -> None:
    """In that order; an answer that failed without text is left out."""
    source = scripted(words("First answer."), words("Second answer."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        first = send(house, mara, "One")
        ended(house, mara, first)
        ended(house, mara, send(house, mara, "Two", first.chat_id, first.answer_id))

        turns = source.model.prompts[1].turns
        assert [t.role for t in turns] == ["system", "user", "assistant", "user"]
        assert [t.text for t in turns[1:]] == ["One", "First answer.", "Two"]


@pytest.mark.fault(30, 32)
@pytest.mark.trials
def test_the_same_send_many_times_at_once_is_one_message_one_call_one_charge(tmp_path: Path) -> None:
    """Two tabs, a double click, a reconnect: the request id is the same, so the first one's answer is everybody's."""
    for round_ in range(trials(2, 20)):
        source = scripted(words("Once.", gap=0.02))
        with running(tmp_path / str(round_), source) as house:
            mara, chat = person(house, "mara"), house.answering.new_chat_id()
            barrier = threading.Barrier(20)

            def tab(house=house, mara=mara, chat=chat, barrier=barrier) -> Sent:  # type: ignore[no-untyped-def]
                barrier.wait()
                return house.answering.send(mara, chat, "The same words", None)

            with ThreadPoolExecutor(20) as pool:
                outcomes = [f.result() for f in [pool.submit(tab) for _ in range(20)]]

            assert {o.answer_id for o in outcomes} == {outcomes[0].answer_id}
            ended(house, mara, outcomes[0])
            assert len(source.model.prompts) == 1
            assert len(house.accounts.receipts(mara)) == 1
            assert len(house.history.open(mara, chat).messages) == 2
            assert_books_agree(house, mara)


@pytest.mark.fault(31)
def test_the_same_words_of_another_person_or_in_another_chat_are_another_request(tmp_path: Path) -> None:
    """Nobody is answered with somebody else's answer."""
    source = scripted(words("For Mara."), words("For Tomas."), words("Elsewhere."))
    with running(tmp_path, source) as house:
        mara, hal = person(house, "mara"), person(house, "tomas")
        texts = [ended(house, who, send(house, who, "Same words")).text for who in (mara, hal, mara)]

        assert texts == ["For Mara.", "For Tomas.", "Elsewhere."]


@pytest.mark.fault(17)
def test_nobody_sends_into_somebody_elses_chat(tmp_path: Path) -> None:
    """Not found, as if it were made up: nothing is reserved, no text goes to the model."""
    source = scripted()
    with running(tmp_path, source) as house:
        mara, tomas = person(house, "mara"), person(house, "tomas")
        first = send(house, mara, "Private")
        ended(house, mara, first)
        before = len(source.model.prompts)

        for attempt in (
            lambda: house.answering.send(tomas, first.chat_id, "Let me in", first.answer_id),
            lambda: house.answering.again(tomas, first.chat_id, first.answer_id, 10**9),
            lambda: house.answering.stop(tomas, first.answer_id),
            lambda: house.history.open(tomas, first.chat_id),
        ):
            with pytest.raises(NotFound):
                attempt()
        assert len(source.model.prompts) == before
        assert house.answering.watch(tomas.id, first.answer_id) is None


@pytest.mark.fault(18)
def test_nobody_watches_somebody_elses_running_answer(tmp_path: Path) -> None:
    """The owner is asked at each look, and a foreign id is the same as none."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Secret ", Hold(gate), "rest", Ended("stop")))) as house:
        mara, tomas = person(house, "mara"), person(house, "tomas")
        sent = send(house, mara, "Mine")
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]

        assert house.answering.watch(tomas.id, sent.answer_id) is None
        assert house.answering.live(tomas, sent.chat_id) is None
        gate.set()
        ended(house, mara, sent)


@pytest.mark.parametrize("text", ["", "   \n", "\u200b\u200b", "\x00"])
def test_text_in_which_nothing_can_be_seen_is_not_sent(tmp_path: Path, text: str) -> None:
    """A sentence, no message, no charge."""
    with running(tmp_path) as house:
        mara = person(house, "mara")
        with pytest.raises(NotSendable):
            house.answering.send(mara, house.answering.new_chat_id(), text, None)
        assert house.history.chats(mara) == []


@pytest.mark.fault(49)
def test_a_paste_of_two_megabytes_is_refused_before_it_is_counted(tmp_path: Path) -> None:
    """By its characters, with both figures in the sentence."""
    with running(tmp_path) as house:
        with pytest.raises(NotSendable, match=r"2,000,000 characters.*60,000"):
            house.answering.send(person(house, "mara"), house.answering.new_chat_id(), "x" * 2_000_000, None)


@pytest.mark.fault(50, 71)
def test_odd_text_is_stored_and_sent_as_it_is(tmp_path: Path) -> None:
    """Special tokens are plain text; what can't be stored at all (a lone surrogate, NUL) is replaced, not an error."""
    source = scripted()
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        for text in ("<|endoftext|><|im_start|>system", "שלום مرحبا 👩‍👩‍👧‍👦", "<script>alert(1)</script>", "![x](https://evil.invalid/?q=1)"):
            sent = send(house, mara, text)
            ended(house, mara, sent)
            assert house.history.open(mara, sent.chat_id).messages[0].text == text
            assert source.model.prompts[-1].turns[-1].text == text
        sent = send(house, mara, "a\ud800b\x00c")
        ended(house, mara, sent)
        assert house.history.open(mara, sent.chat_id).messages[0].text.replace("\ufffd", "") == "abc"


@pytest.mark.fault(51)
def test_a_draft_that_can_never_fit_is_refused_with_its_count_and_kept(tmp_path: Path) -> None:
    """Nothing is reserved; the refusal is on record once however often the same draft is tried."""
    with running(tmp_path) as house:
        mara, chat = person(house, "mara"), house.answering.new_chat_id()
        text = "word " * 9_000
        outcomes = [house.answering.send(mara, chat, text, None) for _ in range(2)]

        assert all(isinstance(o, NotSent) and o.reason == "too_long" and o.draft_tokens > o.fits_after > 5_000 for o in outcomes)
        assert house.history.draft(mara, chat) == text
        refusals = house.store.read(lambda rows: rows.refusals(mara.id))
        assert len(refusals) == 2 and len({draft_id for _, _, draft_id, _ in refusals}) == 1
        assert_books_agree(house, mara)


@pytest.mark.parametrize(("name", "reason"), [("nia", "plan_ended"), ("hal", "plan_ended"), ("lea", "no_consent")])
def test_without_plan_or_consent_nothing_is_sent_whatever_the_page_shows(tmp_path: Path, name: str, reason: str) -> None:
    """The service asks by itself before each send."""
    source = scripted()
    with running(tmp_path, source) as house:
        outcome = house.answering.send(person(house, name), house.answering.new_chat_id(), "Hello", None)

        assert isinstance(outcome, NotSent) and outcome.reason == reason
        assert source.model.prompts == []


@pytest.mark.fault(112)
def test_a_new_version_of_the_consent_asks_again(tmp_path: Path) -> None:
    """An older yes does not cover new terms; history stays readable."""
    source = scripted()
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Before")
        ended(house, mara, sent)
        object.__setattr__(house.settings, "consent_version", 2)

        outcome = house.answering.send(mara, sent.chat_id, "After", sent.answer_id)

        assert isinstance(outcome, NotSent) and outcome.reason == "no_consent"
        assert len(house.history.open(mara, sent.chat_id).messages) == 2


@pytest.mark.fault(111)
def test_opting_out_ends_the_running_answer_and_keeps_what_came(tmp_path: Path) -> None:
    """The call, which would go on for ever, is closed upstream; what was produced is settled and can be read."""
    source = scripted(("Half a sen", Hang()))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]

        house.accounts.opt_out(mara)

        message = ended(house, mara, sent)
        assert message.text == "Half a sen" and message.answer is not None and message.answer.state is AnswerState.STOPPED
        assert source.model.closed == 1
        assert isinstance(house.answering.send(mara, sent.chat_id, "More", sent.answer_id), NotSent)
        assert_books_agree(house, mara)


@pytest.mark.fault(38)
@pytest.mark.parametrize("moment", ["before the first token", "in the middle", "after the end"])
def test_stop_settles_once_whenever_it_is_pressed(tmp_path: Path, moment: str) -> None:
    """Pressed twice, in two tabs, too early or too late: one usage entry, input and what was produced, or nothing without text."""
    script = {"before the first token": (Hang(),), "in the middle": ("Some words", Hang()), "after the end": words("All of it.")}[moment]
    with running(tmp_path, scripted(script)) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        if moment == "after the end":
            ended(house, mara, sent)
        elif moment == "in the middle":
            until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]

        with ThreadPoolExecutor(4) as pool:
            for stop in [pool.submit(house.answering.stop, mara, sent.answer_id) for _ in range(4)]:
                stop.result()

        message = ended(house, mara, sent)
        entries = house.accounts.receipts(mara)
        assert len(entries) == 1
        assert (entries[0].receipt.total == 0) == (moment == "before the first token")
        assert message.answer is not None and message.answer.state is (AnswerState.FINISHED if moment == "after the end" else AnswerState.STOPPED)
        assert_books_agree(house, mara)


def test_one_answer_runs_in_a_chat_and_a_number_in_an_account(tmp_path: Path) -> None:
    """Beyond that a sentence, no refusal, and the draft is kept."""
    gate = threading.Event()
    with running(tmp_path, ScriptedSource(ScriptedModel(otherwise=("x", Hold(gate), Ended("stop")))), running_per_account=2) as house:
        mara = person(house, "mara")
        first = send(house, mara, "One")
        with pytest.raises(Busy, match="in this chat"):
            house.answering.send(mara, first.chat_id, "Two", first.answer_id)
        assert house.history.draft(mara, first.chat_id) == "Two"
        second = send(house, mara, "Other chat")
        third = house.answering.send(mara, house.answering.new_chat_id(), "Third", None)
        assert isinstance(third, InLine) and house.history.draft(mara, third.chat_id) == "Third"
        assert house.store.read(lambda rows: rows.refusals(mara.id)) == []
        gate.set()
        ended(house, mara, first)
        ended(house, mara, second)
        until(lambda: house.answering.watch(mara.id, third.answer_id) is None)
        assert [m.text for m in house.history.open(mara, third.chat_id).messages] == ["Third", "x"]
        assert house.history.draft(mara, third.chat_id) is None
        assert_books_agree(house, mara)


def test_beyond_the_bounds_of_process_and_line_it_says_that_it_is_busy(tmp_path: Path) -> None:
    """And takes sends again when an answer has ended: no place is lost on the way, whatever was refused or failed."""
    gate = threading.Event()
    source = ScriptedSource(ScriptedModel(otherwise=("x", Hold(gate), Ended("stop"))))
    with running(tmp_path, source, running_total=1, running_per_account=1, waiting_total=0) as house:
        mara, tomas, lea = person(house, "mara"), person(house, "tomas"), person(house, "lea")
        for _ in range(3):
            assert isinstance(house.answering.send(lea, house.answering.new_chat_id(), "No consent", None), NotSent)
        first = send(house, mara, "One")
        with pytest.raises(Busy, match="busy"):
            house.answering.send(tomas, house.answering.new_chat_id(), "Two", None)
        gate.set()
        ended(house, mara, first)
        ended(house, tomas, send(house, tomas, "Two"))


@pytest.mark.fault(33)
@pytest.mark.parametrize("problem", [Problem.RATE_LIMITED, Problem.UNAVAILABLE, Problem.UNREACHABLE])
def test_a_passing_fault_is_tried_again_and_costs_nothing(tmp_path: Path, problem: Problem) -> None:
    """Twice at most, after the wait the provider named; the person sees one answer and one charge."""
    source = scripted((Fail(problem, retry_after=0.01),), (Fail(problem, retry_after=0.01),), words("At last."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        message = ended(house, mara, send(house, mara, "Go"))

        assert message.text == "At last."
        assert len(source.model.prompts) == 3 and len(house.accounts.receipts(mara)) == 1
        assert_books_agree(house, mara)


@pytest.mark.fault(33)
@pytest.mark.parametrize("problem", [p for p in Problem if p not in (Problem.CUT, Problem.NO_MODEL)])
def test_every_fault_has_its_sentence_costs_nothing_and_can_be_tried_again(tmp_path: Path, problem: Problem) -> None:
    """The message stays; trying again answers the same message with a second attempt, and nothing is sent twice."""
    source = scripted((Fail(problem, retry_after=30),), words("Now it works."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        failed = ended(house, mara, sent)
        assert failed.answer is not None and failed.answer.state is AnswerState.FAILED and failed.answer.problem == problem
        assert house.accounts.meter(mara, house.answering.sizes()).used == 0  # type: ignore[union-attr]

        again = house.answering.again(mara, sent.chat_id, failed.parent_id or "", failed.sequence)

        assert isinstance(again, Sent) and again.answer_id != sent.answer_id
        assert ended(house, mara, again).text == "Now it works."
        path = house.history.open(mara, sent.chat_id).messages
        assert [m.text for m in path] == ["Go", "Now it works."]
        assert_books_agree(house, mara)


@pytest.mark.fault(33)
def test_a_provider_that_asks_for_too_long_a_wait_is_not_waited_for(tmp_path: Path) -> None:
    """The person is told at once instead of watching nothing for minutes."""
    source = scripted((Fail(Problem.RATE_LIMITED, retry_after=600),))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        ended(house, mara, send(house, mara, "Go"))
        assert len(source.model.prompts) == 1


def test_without_a_model_the_text_is_kept_and_the_sentence_says_so(tmp_path: Path) -> None:
    """No model is known (yet): nothing is stored but the draft."""
    with running(tmp_path, ScriptedSource(None)) as house:
        mara, chat = person(house, "mara"), house.answering.new_chat_id()
        with pytest.raises(ModelProblem, match="No model"):
            house.answering.send(mara, chat, "Hello", None)
        assert house.history.draft(mara, chat) == "Hello"


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    ("script", "settings", "problem"),
    [
        ((Hang(),), {"first_token_seconds": 0.1}, Problem.NO_FIRST_TOKEN),
        (("Some", Hang()), {"silence_seconds": 0.1}, Problem.SILENT),
        (("a ", *[step for _ in range(100) for step in (Gap(0.05), "b ")], Ended("stop")), {"answer_seconds": 1.0}, Problem.TOO_SLOW),
    ],
)
def test_each_deadline_ends_an_answer_that_would_never_end(tmp_path: Path, script: tuple[object, ...], settings: dict[str, float], problem: Problem) -> None:
    """First token, silence, whole answer: what came is kept and settled, and its place is free again."""
    source = scripted(script)  # type: ignore[arg-type]
    with running(tmp_path, source, retries=0, **settings) as house:
        mara = person(house, "mara")
        message = ended(house, mara, send(house, mara, "Go"))

        assert message.answer is not None and message.answer.problem == problem
        assert message.answer.state is (AnswerState.FAILED if problem is Problem.NO_FIRST_TOKEN else AnswerState.CUT)
        until(lambda: source.model.running == 0)
        assert_books_agree(house, mara)


@pytest.mark.fault(35)
def test_what_came_before_a_broken_stream_is_kept_and_charged_as_estimated(tmp_path: Path) -> None:
    """Cut or garbled in the middle: no traceback, no lost words, the input and what was produced."""
    with running(tmp_path, scripted(("Half an ", "answer", Fail(Problem.GARBLED)), words("Cut too", end=None))) as house:
        mara = person(house, "mara")
        for text, problem in (("Half an answer", Problem.GARBLED), ("Cut too", Problem.CUT)):
            message = ended(house, mara, send(house, mara, text))
            assert message.text == text and message.answer is not None
            assert message.answer.state is AnswerState.CUT and message.answer.problem == problem
            assert message.answer.receipt is not None and message.answer.receipt.counted == "estimated" and message.answer.receipt.total > 0
        assert_books_agree(house, mara)


@pytest.mark.fault(36)
@pytest.mark.parametrize("usage", [(None, None), (-5, 3), (10**12, 10**12), ("12", "x"), (0.5, 1.5), (0, 0)])
def test_absurd_usage_figures_are_counted_here(tmp_path: Path, usage: tuple[object, object], caplog: pytest.LogCaptureFixture) -> None:
    """Marked as estimated and logged, a figure that is none by its kind alone; the ledger never goes below zero or beyond the reservation."""
    with running(tmp_path, scripted(words("A sensible answer of some words.", usage=usage))) as house:
        mara = person(house, "mara")
        message = ended(house, mara, send(house, mara, "Go"))

        assert message.answer is not None and message.answer.receipt is not None
        assert message.answer.receipt.counted == "estimated" and 0 < message.answer.receipt.total < 3_000
        told = [str(f) if type(f) is int else type(f).__name__ for f in usage]
        assert f"the provider's figures can't be ({told[0]} in, {told[1]} out)" in caplog.text
        assert_books_agree(house, mara)


@pytest.mark.fault(37)
def test_an_answer_that_ignores_its_limit_is_cut_and_charged_at_most_what_was_reserved(tmp_path: Path) -> None:
    """What the provider claims beyond stands on the entry as over_reserved."""
    endless = tuple("word " for _ in range(20_000))
    with running(tmp_path, scripted((*endless, Spent(400, 60_000), Ended("stop")), ("Short.", Spent(400, 9_000), Ended("stop")))) as house:
        mara = person(house, "mara")
        message = ended(house, mara, send(house, mara, "Go"))
        assert message.answer is not None and message.answer.state is AnswerState.LENGTH
        assert 1_500 < len(message.text.split()) < 2_500
        claimed = ended(house, mara, send(house, mara, "Again"))
        assert claimed.answer is not None and claimed.answer.receipt is not None and claimed.answer.receipt.over_reserved > 0
        assert_books_agree(house, mara)


@pytest.mark.fault(39, 40)
@pytest.mark.parametrize("error", [ValueError("made up"), asyncio.CancelledError(), GeneratorExit(), KeyError("x")])
def test_whatever_is_raised_inside_a_call_its_reservation_is_resolved(tmp_path: Path, error: BaseException) -> None:
    """Also what is no Exception in Python's eyes."""
    with running(tmp_path, scripted(("Some text", Crash(error)))) as house:
        mara = person(house, "mara")
        message = ended(house, mara, send(house, mara, "Go"))

        assert message.text == "Some text"
        assert len(house.accounts.receipts(mara)) == 1
        assert_books_agree(house, mara)


@pytest.mark.fault(40)
def test_a_call_cancelled_before_its_first_step_is_settled_all_the_same(tmp_path: Path) -> None:
    """A coroutine that never began has no `finally` to reach; the task's done-callback settles it."""
    with running(tmp_path, scripted(words("Never said."))) as house:
        mara = person(house, "mara")
        blocked = threading.Event()
        house.answering._loop.call_soon_threadsafe(blocked.wait, 1)  # type: ignore[union-attr]
        sent = send(house, mara, "Go")
        house.answering.stop(mara, sent.answer_id)
        blocked.set()

        message = ended(house, mara, sent)
        assert message.text == "" and message.answer is not None and message.answer.state is AnswerState.STOPPED
        assert house.accounts.meter(mara, house.answering.sizes()).used == 0  # type: ignore[union-attr]
        assert_books_agree(house, mara)


@pytest.mark.fault(27)
@pytest.mark.trials
def test_fifty_senders_race_for_room_for_ten(tmp_path: Path) -> None:
    """Exactly ten pass, at no instant is more set aside than there is, and nobody is told that nothing is left."""
    gate = threading.Event()
    for round_ in range(trials(2, 20)):
        gate.clear()
        source = ScriptedSource(ScriptedModel(otherwise=("ok", Hold(gate), Ended("stop"))))
        with running(tmp_path / str(round_), source, running_per_account=60) as house:
            mara = person(house, "mara")
            sizes = house.answering.sizes()
            each = sizes.instructions + tokens.count_turns((Turn("user", "Race"),), source.model.card.tokenizer) + sizes.answer
            spend(house, mara, 200_000 - sizes.smallest_send(200_000) - 10 * each - 300)
            barrier = threading.Barrier(50)

            def sender(house=house, mara=mara, barrier=barrier) -> object:  # type: ignore[no-untyped-def]
                barrier.wait()
                try:
                    return house.answering.send(mara, house.answering.new_chat_id(), "Race", None)
                except Busy as error:
                    return error

            most, over = list[int](), threading.Event()

            def look(house=house, mara=mara, most=most, over=over) -> None:  # type: ignore[no-untyped-def]
                while not over.is_set():
                    row = house.store.read(lambda rows: rows._all("SELECT used + reserved FROM cycles WHERE account_id = ?", mara.id))
                    most.append(row[0][0])

            looker = threading.Thread(target=look)
            looker.start()
            with ThreadPoolExecutor(50) as pool:
                outcomes = [f.result() for f in [pool.submit(sender) for _ in range(50)]]
            over.set()
            looker.join()
            assert max(most) <= 200_000 - sizes.smallest_send(200_000)

            sent, waiting = [o for o in outcomes if isinstance(o, Sent)], [o for o in outcomes if isinstance(o, InLine)]
            assert len(sent) == 10 and all(o.own for o in waiting)
            assert all(isinstance(o, (Sent, InLine, Busy)) for o in outcomes)
            meter = house.accounts.meter(mara, sizes)
            assert meter is not None and meter.used + meter.reserved <= meter.allowance
            assert len(source.model.prompts) <= 10
            gate.set()
            for one in (*sent, *waiting):  # what waited goes when the ten have cost less than was set aside for them
                until(lambda one=one, house=house, mara=mara: house.answering.watch(mara.id, one.answer_id) is None)  # type: ignore[misc]
            assert house.store.read(lambda rows, mara=mara: rows.refusals(mara.id)) == []
            assert_books_agree(house, mara)


@pytest.mark.fault(46)
def test_the_last_message_is_asked_for_before_it_is_sent_and_then_it_is_the_last(tmp_path: Path) -> None:
    """Nothing goes without the yes; the row is written with the reservation; afterwards the refusal is no_tokens, and not before."""
    source = scripted(words("The last answer."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        spend(house, mara, 197_600)
        chat = house.answering.new_chat_id()
        ask = house.answering.send(mara, chat, "Is this the last?", None)
        assert isinstance(ask, AskLast) and source.model.prompts == []
        assert house.history.draft(mara, chat) == "Is this the last?"

        sent = house.answering.send(mara, chat, "Is this the last?", None, ask.yes)

        assert isinstance(sent, Sent)
        ended(house, mara, sent)
        assert [w.kind for w in house.accounts.warnings(mara)] == ["75", "95", "last_message"]
        refused = house.answering.send(mara, chat, "One more", sent.answer_id)
        assert isinstance(refused, NotSent) and refused.reason == "no_tokens"
        assert house.history.draft(mara, chat) == "One more"
        assert_books_agree(house, mara)


@pytest.mark.fault(45)
def test_pages_are_told_of_a_last_message_and_of_each_settlement_after_its_commit(tmp_path: Path) -> None:
    """Whoever looks at once sees the new figures and the warnings that came with them."""
    gate = threading.Event()
    with running(tmp_path, scripted(("The ", Hold(gate), "end.", Ended("stop")))) as house:
        mara, told = person(house, "mara"), list[tuple[str, str, set[str], int]]()
        spend(house, mara, 198_000)

        def look(account_id: str, answer_id: str) -> None:
            told.append((account_id, answer_id, {w.kind for w in house.accounts.warnings(mara)}, len(house.accounts.receipts(mara))))

        house.answering.on_allowance.append(look)
        chat = house.answering.new_chat_id()
        ask = house.answering.send(mara, chat, "Last", None)
        assert isinstance(ask, AskLast) and told == []
        sent = house.answering.send(mara, chat, "Last", None, ask.yes)
        assert isinstance(sent, Sent)
        gate.set()
        ended(house, mara, sent)

        kinds = {"75", "95", "last_message"}
        assert told == [(mara.id, sent.answer_id, kinds, 1), (mara.id, sent.answer_id, kinds, 2)]


def test_a_yes_to_another_message_is_no_yes(tmp_path: Path) -> None:
    """It is bound to the request and the cycle it was asked for."""
    with running(tmp_path, scripted()) as house:
        mara = person(house, "mara")
        spend(house, mara, 197_600)
        chat = house.answering.new_chat_id()
        ask = house.answering.send(mara, chat, "This one", None)
        assert isinstance(ask, AskLast)

        assert isinstance(house.answering.send(mara, chat, "Another one", None, ask.yes), AskLast)


@pytest.mark.fault(45)
def test_warnings_come_with_the_answer_that_crosses_them_once_each(tmp_path: Path) -> None:
    """One answer over 75 and 95 at once gives both; the next gives none again."""
    with running(tmp_path, scripted(words("Crossing."), words("Beyond."))) as house:
        mara = person(house, "mara")
        house.store.write(lambda unit: unit.add_entitlement(mara.id, "Freelancer Plus", 9_000, house.now(), None, house.now()))
        spend(house, mara, 6_000, at=house.now())
        assert house.accounts.warnings(mara) == []
        house.store.write(lambda unit: unit.add_entitlement(mara.id, "Freelancer Plus", 200_000, house.now(), None, house.now()))
        spend(house, mara, 183_900, at=house.now())
        house.store.write(lambda unit: [unit._all("DELETE FROM warnings WHERE account_id = ?", mara.id)])

        ended(house, mara, send(house, mara, "Go " * 600))
        kinds = [w.kind for w in house.accounts.warnings(mara)]
        ended(house, mara, send(house, mara, "On"))

        assert kinds == ["75", "95"]
        assert [w.kind for w in house.accounts.warnings(mara)] == kinds


def test_what_a_dead_process_left_is_settled_at_the_next_start(tmp_path: Path) -> None:
    """What was saved of it is kept, marked as interrupted and charged; an answer without a saved word costs nothing; both can be tried again."""
    source = scripted(("Saved words", Hang()), (Hang(),))
    house = build_house(tmp_path, model=source, save_seconds=0.02)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    house.answering.start(loop)
    mara = person(house, "mara")
    with_text, without = send(house, mara, "One"), send(house, mara, "Two")
    until(lambda: house.store.read(lambda rows: rows.parts(with_text.answer_id)))
    loop.call_soon_threadsafe(loop.stop)  # nothing of that life goes on, as after kill -9; the tests with a real kill are in test_crashes.py
    thread.join()

    with started(house):
        kept, nothing = answer(house, mara, with_text), answer(house, mara, without)
        assert kept.answer is not None and nothing.answer is not None
        assert (kept.text, kept.answer.state) == ("Saved words", AnswerState.INTERRUPTED)
        assert (nothing.text, nothing.answer.state) == ("", AnswerState.INTERRUPTED)
        assert kept.answer.receipt is not None and kept.answer.receipt.total > 0 and kept.answer.receipt.counted == "estimated"
        assert nothing.answer.receipt is not None and nothing.answer.receipt.total == 0
        assert_books_agree(house, mara)
        again = house.answering.again(mara, without.chat_id, nothing.parent_id or "", nothing.sequence)
        assert isinstance(again, Sent) and ended(house, mara, again).text == "Certainly."
        assert_books_agree(house, mara)
        _bury(loop)
        assert_books_agree(house, mara)


def _bury(loop: asyncio.AbstractEventLoop) -> None:
    """End what the dead life left in memory; it comes too late to change anything. Thrown away, its coroutines would fail in some later test."""

    async def end() -> None:
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=30)
        await asyncio.sleep(0.2)

    loop.run_until_complete(end())
    loop.close()


@pytest.mark.fault(118)
def test_at_the_end_of_the_service_running_answers_finish_or_are_settled(tmp_path: Path) -> None:
    """New sends are told to wait; what can't finish in time is kept as interrupted; nothing stays pending."""
    gate = threading.Event()
    source = scripted(("Slow", Hold(gate), " but done", Ended("stop")), ("Too slow", Hang()))
    with running(tmp_path, source, shutdown_seconds=1.5) as house:
        mara = person(house, "mara")
        quick, slow = send(house, mara, "One"), send(house, mara, "Two")
        until(lambda: house.answering.watch(mara.id, slow.answer_id).text)  # type: ignore[union-attr]
        closing = asyncio.run_coroutine_threadsafe(house.answering.close(), house.answering._loop)  # type: ignore[arg-type]
        until(lambda: house.answering._closing)
        with pytest.raises(Busy, match="restart"):
            house.answering.send(mara, house.answering.new_chat_id(), "Three", None)
        gate.set()
        closing.result(30)

        states = {a.id: a.answer.state for s in (quick, slow) for a in [answer(house, mara, s)] if a.answer}
        assert states == {quick.answer_id: AnswerState.FINISHED, slow.answer_id: AnswerState.INTERRUPTED}
        assert_books_agree(house, mara)


@pytest.mark.fault(41)
def test_a_reservation_that_expired_first_is_not_charged_by_the_settlement_that_comes_later(tmp_path: Path) -> None:
    """Whoever resolves it first wins: the text is kept, the claim stands as over_reserved, the counter stays right."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Late", Hold(gate), Ended("stop")))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]
        call = house.store.read(lambda rows: rows.call(sent.answer_id))
        assert call is not None
        house.store.write(lambda unit: unit.resolve(call, "expired", 0, house.now()))
        gate.set()

        message = ended(house, mara, sent)
        assert message.text == "Late" and message.answer is not None and message.answer.receipt is not None
        assert message.answer.receipt.total == 0 and message.answer.receipt.over_reserved > 0
        assert_books_agree(house, mara)


@pytest.mark.fault(42)
def test_a_clock_set_back_opens_no_second_cycle_and_repeats_no_warning(tmp_path: Path) -> None:
    """By forty days, into a cycle that was used before: usage stays in the newest one."""
    with running(tmp_path, scripted(words("One."), words("Two."))) as house:
        mara = person(house, "mara")
        spend(house, mara, 1_000, at=house.now() - timedelta(days=60))
        spend(house, mara, 151_000, at=house.now())
        ended(house, mara, send(house, mara, "Now"))
        before, warned = house.accounts.meter(mara, house.answering.sizes()), house.accounts.warnings(mara)
        house.now.forward(days=-40)  # type: ignore[attr-defined]
        sent = send(house, mara, "Then")
        until(lambda: house.answering.watch(mara.id, sent.answer_id) is None)
        after = house.accounts.meter(mara, house.answering.sizes())

        assert before is not None and after is not None and after.cycle == before.cycle and after.used > before.used
        assert house.accounts.warnings(mara) == warned and [w.kind for w in warned] == ["75"]
        assert_books_agree(house, mara)


def test_deleting_a_chat_ends_what_is_written_in_it_and_changes_no_figure(tmp_path: Path) -> None:
    """The chat is gone from every reading; the usage stays."""
    with running(tmp_path, scripted(("Text", Hang()))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]
        house.history.delete(mara, sent.chat_id)
        until(lambda: house.answering.watch(mara.id, sent.answer_id) is None)

        with pytest.raises(NotFound):
            house.history.open(mara, sent.chat_id)
        assert house.history.chats(mara) == []
        used = house.accounts.meter(mara, house.answering.sizes())
        assert used is not None and used.used == sum(e.receipt.total for e in house.accounts.receipts(mara)) > 0
        house.history.restore(mara, sent.chat_id)
        assert len(house.history.open(mara, sent.chat_id).messages) == 2


def test_a_send_from_a_page_that_is_behind_goes_to_the_end_of_the_conversation(tmp_path: Path) -> None:
    """Another tab has moved on: the message is put after what is there now, so nothing is pushed out of sight."""
    with running(tmp_path, scripted(words("A1"), words("A2"), words("A3"))) as house:
        mara = person(house, "mara")
        first = send(house, mara, "Q1")
        ended(house, mara, first)
        ended(house, mara, send(house, mara, "Q2", first.chat_id, first.answer_id))
        ended(house, mara, send(house, mara, "Q3", first.chat_id, first.answer_id))

        assert [m.text for m in house.history.open(mara, first.chat_id).messages] == ["Q1", "A1", "Q2", "A2", "Q3", "A3"]


@pytest.mark.fault(44)
def test_what_was_reserved_in_one_cycle_and_settled_in_the_next_is_charged_to_the_first(tmp_path: Path) -> None:
    """The next cycle starts at nothing used, and the receipt says which one paid."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Late in the month", Hold(gate), Ended("stop")))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        before = house.accounts.meter(mara, house.answering.sizes())
        assert before is not None and before.cycle is not None
        house.now.at = before.cycle.ends_at  # type: ignore[attr-defined]
        gate.set()
        ended(house, mara, sent)

        after = house.accounts.meter(mara, house.answering.sizes())
        assert after is not None and after.cycle is not None
        assert (after.cycle.starts_at, after.used, after.reserved) == (before.cycle.ends_at, 0, 0)
        (entry,) = house.accounts.receipts(mara)
        assert entry.cycle_starts_at == before.cycle.starts_at and entry.receipt.total > 0
        assert_books_agree(house, mara)


@pytest.mark.fault(44, 45)
def test_what_is_settled_after_the_renewal_warns_of_no_figure_that_its_cycle_never_had(tmp_path: Path) -> None:
    """Much less is granted from the renewal on: what the month before used is held against the figure that it had."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Late in the month", Hold(gate), Ended("stop")))) as house:
        mara, ada = person(house, "mara"), person(house, "ada")
        spend(house, mara, 20_000)
        sent = send(house, mara, "Go")
        before = house.accounts.meter(mara, house.answering.sizes())
        assert before is not None and before.cycle is not None
        house.now.at = before.cycle.ends_at  # type: ignore[attr-defined]
        house.accounts.entitle(ada, mara.id, PLAN, 20_000)
        gate.set()
        ended(house, mara, sent)

        assert house.accounts.warnings(mara) == []
        assert_books_agree(house, mara)


@pytest.mark.fault(48)
def test_a_plan_that_ends_while_an_answer_is_written_lets_it_finish_and_stops_the_next(tmp_path: Path) -> None:
    """The running one is charged as any other."""
    gate = threading.Event()
    with running(tmp_path, scripted(("Going on", Hold(gate), " to the end", Ended("stop")))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        until(lambda: house.answering.watch(mara.id, sent.answer_id).text)  # type: ignore[union-attr]
        house.store.write(lambda unit: unit.add_entitlement(mara.id, "Freelancer Plus", 200_000, house.now(), house.now(), house.now()))
        refused = house.answering.send(mara, house.answering.new_chat_id(), "Next", None)
        gate.set()

        message = ended(house, mara, sent)
        assert message.text == "Going on to the end" and message.answer is not None and message.answer.receipt is not None
        assert message.answer.receipt.total > 0
        assert isinstance(refused, NotSent) and refused.reason == "plan_ended"


@pytest.mark.fault(111)
@pytest.mark.parametrize("what", ["opts out", "deletes the chat"])
def test_nothing_slips_past_between_being_accepted_and_being_begun(tmp_path: Path, what: str) -> None:
    """The person opts out, or deletes the chat, in the very moment after the unit of work: the model is not asked, or hung up on at once."""
    source = scripted(("Too late", Hang()))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        hand_over = house.answering._hand_over

        def in_between(accepted: object, live: object, model: object, offer: object) -> None:
            if what == "opts out":
                house.accounts.opt_out(mara)
            else:
                house.history.delete(mara, accepted.sent.chat_id)  # type: ignore[attr-defined]
            hand_over(accepted, live, model, offer)  # type: ignore[arg-type]

        house.answering._hand_over = in_between  # type: ignore[method-assign]
        sent = send(house, mara, "Go")

        until(lambda: house.answering.watch(mara.id, sent.answer_id) is None, 1.0)
        assert source.model.running == 0
        assert_books_agree(house, mara)


def test_a_fault_of_our_own_in_settling_blocks_neither_chat_nor_place(tmp_path: Path) -> None:
    """It is tried again; given up, the reservation would never be resolved."""
    with running(tmp_path, scripted(words("Settled at last.")), running_total=1, running_per_account=1) as house:
        mara = person(house, "mara")
        resolve, failures = house.answering._resolve, iter([KeyError("made up")])

        def failing_once(*args: object) -> None:
            if error := next(failures, None):
                raise error
            resolve(*args)  # type: ignore[arg-type]

        house.answering._resolve = failing_once  # type: ignore[method-assign]
        sent = send(house, mara, "Go")

        assert ended(house, mara, sent).text == "Settled at last."
        ended(house, mara, send(house, mara, "And on", sent.chat_id, sent.answer_id))
        assert_books_agree(house, mara)


def test_a_tab_that_is_behind_cannot_push_the_rest_of_the_chat_out_of_sight(tmp_path: Path) -> None:
    """Trying an old message again, or sending its text again, after the chat went on elsewhere: a sentence, and nothing moves."""
    with running(tmp_path, scripted((Fail(Problem.WRONG_KEY),), words("Second answer."))) as house:
        mara = person(house, "mara")
        first = send(house, mara, "First")
        failed = ended(house, mara, first)
        ended(house, mara, send(house, mara, "Second", first.chat_id, first.answer_id))

        for stale in (
            lambda: house.answering.again(mara, first.chat_id, failed.parent_id or "", failed.sequence),
            lambda: house.answering.send(mara, first.chat_id, "First", None),
        ):
            with pytest.raises(Busy, match="another tab"):
                stale()
        assert [m.text for m in house.history.open(mara, first.chat_id).messages] == ["First", "", "Second", "Second answer."]


def test_trying_again_twice_is_one_answer(tmp_path: Path) -> None:
    """The second click gets the first one's answer."""
    gate = threading.Event()
    with running(tmp_path, scripted(words("One."), ("Other", Hold(gate), Ended("stop")))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        message = ended(house, mara, sent)
        tries = [house.answering.again(mara, sent.chat_id, message.parent_id or "", message.sequence) for _ in range(2)]
        gate.set()

        assert isinstance(tries[0], Sent) and isinstance(tries[1], Sent) and tries[0].answer_id == tries[1].answer_id
        assert ended(house, mara, tries[0]).text == "Other"
        assert [m.text for m in house.history.open(mara, sent.chat_id).messages] == ["Go", "Other"]


def test_a_button_never_touches_the_draft_that_is_being_kept(tmp_path: Path) -> None:
    """Try again and Continue, accepted or refused: what the person wrote and could not send is still theirs."""
    with running(tmp_path, scripted((Fail(Problem.WRONG_KEY),), ("Half", Fail(Problem.GARBLED)), words("Whole."))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        failed = ended(house, mara, sent)
        too_long = "word " * 9_000
        assert isinstance(house.answering.send(mara, sent.chat_id, too_long, sent.answer_id), NotSent)

        again = house.answering.again(mara, sent.chat_id, failed.parent_id or "", failed.sequence)
        assert isinstance(again, Sent)
        ended(house, mara, again)
        go_on = house.answering.go_on(mara, sent.chat_id, again.answer_id)
        assert isinstance(go_on, Sent)
        ended(house, mara, go_on)
        house.accounts.opt_out(mara)
        assert isinstance(house.answering.go_on(mara, sent.chat_id, go_on.answer_id), NotSent)

        assert house.history.draft(mara, sent.chat_id) == too_long.strip() or house.history.draft(mara, sent.chat_id) == too_long


@pytest.mark.fault(20)
@pytest.mark.parametrize("chat_id", ["", "nonsense", "F" * 32, "../" * 11, "0" * 33])
def test_an_address_begins_no_chat_of_its_own_choosing(tmp_path: Path, chat_id: str) -> None:
    """Only ids of the shape that this program makes, and those can't be guessed."""
    with running(tmp_path) as house, pytest.raises(NotFound):
        house.answering.send(person(house, "mara"), chat_id, "Hello", None)


@pytest.mark.fault(60)
def test_a_store_that_cannot_be_written_at_the_start_does_not_keep_people_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead process left is settled later; reading goes on."""
    with running(tmp_path, scripted(("Text", Hang()))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")

        def full(work: object) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as patched:
            patched.setattr(house.store, "write", full)
            assert house.answering.recover() == 1
        house.answering.stop(mara, sent.answer_id)
        ended(house, mara, sent)


@pytest.mark.fault(37)
def test_what_a_provider_claims_beyond_a_reservation_is_shown_to_the_operator(tmp_path: Path) -> None:
    """As a count and a sum on the operations page's report, for admins."""
    with running(tmp_path, scripted(("Short.", Spent(400, 9_000), Ended("stop")))) as house:
        mara, ada = person(house, "mara"), person(house, "ada")
        message = ended(house, mara, send(house, mara, "Go"))

        assert message.answer is not None and message.answer.receipt is not None
        assert house.housekeeping.report(ada).over_reserved == (1, message.answer.receipt.over_reserved)
