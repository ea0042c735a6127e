"""Changing one's mind: edits, other answers, thumbs, what is new, and where the model's memory begins."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from chatpro.domain.chats import AnswerState, Message
from chatpro.errors import Busy, NotFound, Problem
from chatpro.models.scripted import Ended, Fail, Hold, ScriptedModel, ScriptedSource, scripted, words
from chatpro.services.answering import NotSent, Sent
from chatpro.services.history import Opened
from tests.cast import person
from tests.running import assert_books_agree, ended, running, send, until


def texts(opened: Opened) -> list[str]:
    return [m.text for m in opened.messages]


def number(opened: Opened, place: int) -> str:
    """As the page says it."""
    entry = opened.messages[place].id
    all_of_them = opened.versions.get(entry, [entry])
    return f"{all_of_them.index(entry) + 1} of {len(all_of_them)}"


def test_an_edited_message_is_a_version_and_the_old_one_can_be_leafed_to(tmp_path: Path) -> None:
    """With everything that came after it. What is sent along is what stands above the edited message, and nothing of the old version."""
    source = scripted(words("Hello."), words("Formal."), words("Later."), words("Casual."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        first = send(house, mara, "Hi")
        ended(house, mara, first)
        second = send(house, mara, "Make it formal", first.chat_id, first.answer_id)
        ended(house, mara, second)
        third = send(house, mara, "And then", first.chat_id, second.answer_id)
        ended(house, mara, third)
        message = house.history.open(mara, first.chat_id).messages[2]

        edited = house.answering.edit(mara, first.chat_id, message.id, "Make it casual")
        assert isinstance(edited, Sent)
        ended(house, mara, edited)

        now = house.history.open(mara, first.chat_id)
        assert texts(now) == ["Hi", "Hello.", "Make it casual", "Casual."] and number(now, 2) == "2 of 2" and number(now, 1) == "1 of 1"
        assert [t.text for t in source.model.prompts[-1].turns[1:]] == ["Hi", "Hello.", "Make it casual"]
        before = house.history.open(mara, first.chat_id, now.versions[now.messages[2].id][0])
        assert texts(before) == ["Hi", "Hello.", "Make it formal", "Formal.", "And then", "Later."] and number(before, 2) == "1 of 2"
        assert_books_agree(house, mara)


def test_an_edit_to_words_that_are_there_already_sends_nothing(tmp_path: Path) -> None:
    """Unchanged, or back to an earlier version: that version is the answer, whatever was clicked twice."""
    source = scripted(words("One."), words("Two."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        first = send(house, mara, "A")
        ended(house, mara, first)
        message = house.history.open(mara, first.chat_id).messages[0]
        edits = [house.answering.edit(mara, first.chat_id, message.id, "B") for _ in range(2)]
        assert isinstance(edits[0], Sent) and isinstance(edits[1], Sent) and edits[0].answer_id == edits[1].answer_id
        ended(house, mara, edits[0])

        for entry in (message.id, house.history.open(mara, first.chat_id).messages[0].id):
            back = house.answering.edit(mara, first.chat_id, entry, "A")
            assert isinstance(back, Sent) and back.answer_id == first.answer_id
        assert len(source.model.prompts) == 2 and len(house.accounts.receipts(mara)) == 2


def test_another_answer_in_mid_chat_leaves_what_followed_within_reach(tmp_path: Path) -> None:
    """The chat goes on from the new answer; the old one keeps what was written under it."""
    with running(tmp_path, scripted(words("Old."), words("More."), words("New."))) as house:
        mara = person(house, "mara")
        first = send(house, mara, "Go")
        ended(house, mara, first)
        ended(house, mara, send(house, mara, "On", first.chat_id, first.answer_id))
        opened = house.history.open(mara, first.chat_id)

        again = house.answering.again(mara, first.chat_id, opened.messages[0].id, opened.newest)
        assert isinstance(again, Sent)
        ended(house, mara, again)

        now = house.history.open(mara, first.chat_id)
        assert texts(now) == ["Go", "New."] and number(now, 1) == "2 of 2"
        assert texts(house.history.open(mara, first.chat_id, first.answer_id)) == ["Go", "Old.", "On", "More."]


def test_what_is_sent_under_an_older_version_goes_there_and_stays_in_sight(tmp_path: Path) -> None:
    """The model hears that version and not the newer one, and a reload shows what was written."""
    source = scripted(words("Old."), words("New."), words("Under the old one."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        first = send(house, mara, "Go")
        ended(house, mara, first)
        opened = house.history.open(mara, first.chat_id)
        again = house.answering.again(mara, first.chat_id, opened.messages[0].id, opened.newest)
        assert isinstance(again, Sent)
        ended(house, mara, again)

        ended(house, mara, send(house, mara, "Go on with this", first.chat_id, first.answer_id))

        assert [t.text for t in source.model.prompts[-1].turns[1:]] == ["Go", "Old.", "Go on with this"]
        assert texts(house.history.open(mara, first.chat_id)) == ["Go", "Old.", "Go on with this", "Under the old one."]


@pytest.mark.fault(32)
def test_a_page_that_is_behind_gets_no_other_answer(tmp_path: Path) -> None:
    """Another tab had it answered again and finished: a second click there would be paid for and push the first away."""
    with running(tmp_path, scripted(words("One."), words("Two."))) as house:
        mara = person(house, "mara")
        first = send(house, mara, "Go")
        ended(house, mara, first)
        behind = house.history.open(mara, first.chat_id)
        again = house.answering.again(mara, first.chat_id, behind.messages[0].id, behind.newest)
        assert isinstance(again, Sent)
        ended(house, mara, again)

        with pytest.raises(Busy, match="another tab"):
            house.answering.again(mara, first.chat_id, behind.messages[0].id, behind.newest)
        assert len(house.accounts.receipts(mara)) == 2


def test_a_failed_edit_stays_and_can_be_tried_again(tmp_path: Path) -> None:
    """Nothing is charged, the words are there, and the same edit again is the same message."""
    with running(tmp_path, scripted(words("One."), (Fail(Problem.WRONG_KEY),), words("Two."))) as house:
        mara = person(house, "mara")
        first = send(house, mara, "A")
        ended(house, mara, first)
        message = house.history.open(mara, first.chat_id).messages[0]
        failed = house.answering.edit(mara, first.chat_id, message.id, "B")
        assert isinstance(failed, Sent)
        ended(house, mara, failed)
        again = house.answering.edit(mara, first.chat_id, message.id, "B")
        assert isinstance(again, Sent) and ended(house, mara, again).text == "Two."

        now = house.history.open(mara, first.chat_id)
        assert texts(now) == ["B", "Two."] and number(now, 0) == "2 of 2" and number(now, 1) == "1 of 1"
        assert_books_agree(house, mara)


def test_new_words_that_were_refused_are_kept_and_count_as_one_draft(tmp_path: Path) -> None:
    """Over a reload too, like any refused draft; sent at last, they are no draft any more."""
    with running(tmp_path, scripted(words("One."), words("Two."))) as house:
        mara = person(house, "mara")
        first = send(house, mara, "A")
        ended(house, mara, first)
        message = house.history.open(mara, first.chat_id).messages[0]
        house.accounts.set_own_limit(mara, 0)
        outcomes = [house.answering.edit(mara, first.chat_id, message.id, "A in other words") for _ in range(2)]

        assert all(isinstance(o, NotSent) and o.reason == "own_limit" for o in outcomes)
        assert house.history.draft(mara, first.chat_id) == "A in other words"
        refusals = house.store.read(lambda rows: rows.refusals(mara.id))
        assert len(refusals) == 2 and len({draft_id for _, _, draft_id, _ in refusals}) == 1
        house.accounts.lift_own_limit(mara)
        edited = house.answering.edit(mara, first.chat_id, message.id, "A in other words")
        assert isinstance(edited, Sent) and ended(house, mara, edited).text == "Two."
        assert house.history.draft(mara, first.chat_id) is None


def test_the_running_answer_is_known_also_while_another_version_is_read(tmp_path: Path) -> None:
    gate = threading.Event()
    with running(tmp_path, scripted(words("One."), ("Two", Hold(gate), Ended("stop")))) as house:
        mara = person(house, "mara")
        first = send(house, mara, "Go")
        ended(house, mara, first)
        opened = house.history.open(mara, first.chat_id)
        again = house.answering.again(mara, first.chat_id, opened.messages[0].id, opened.newest)
        assert isinstance(again, Sent)

        reading = house.history.open(mara, first.chat_id, first.answer_id)
        assert texts(reading) == ["Go", "One."] and reading.running is not None and reading.running.id == again.answer_id
        gate.set()
        ended(house, mara, again)


# --- thumbs -----------------------------------------------------------------------------------------------------------


def test_a_thumb_is_shown_as_ones_own_can_be_changed_and_taken_back(tmp_path: Path) -> None:
    with running(tmp_path, scripted(words("One."))) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        ended(house, mara, sent)

        seen = []
        for thumb in ("up", "down", "none", "sideways"):
            house.answering.thumb(mara, sent.answer_id, thumb)
            facts = house.history.open(mara, sent.chat_id).messages[-1].answer
            assert facts is not None
            seen.append(facts.thumb)
        assert seen == ["up", "down", "", ""]


@pytest.mark.fault(19)
def test_a_thumb_is_for_ones_own_answers(tmp_path: Path) -> None:
    """Not for somebody else's, for a deleted chat's, or for one past its 90 days."""
    with running(tmp_path, scripted(words("One."), words("Two."))) as house:
        mara, tomas = person(house, "mara"), person(house, "tomas")
        sent = send(house, mara, "Go")
        ended(house, mara, sent)
        with pytest.raises(NotFound):
            house.answering.thumb(tomas, sent.answer_id, "up")
        house.history.delete(mara, sent.chat_id)
        with pytest.raises(NotFound):
            house.answering.thumb(mara, sent.answer_id, "up")
        house.history.restore(mara, sent.chat_id)
        house.now.forward(days=90)  # type: ignore[attr-defined]
        with pytest.raises(NotFound):
            house.answering.thumb(mara, sent.answer_id, "up")


# --- what is new ------------------------------------------------------------------------------------------------------


def test_an_answer_that_nobody_watched_is_new_until_its_chat_is_opened(tmp_path: Path) -> None:
    """Finished or failed while away; one that a page showed, or that its reader stopped, is not."""
    gate = threading.Event()
    source = scripted(words("Watched."), words("Alone."), (Fail(Problem.WRONG_KEY),), ("x", Hold(gate)))
    with running(tmp_path, source) as house:
        mara, watched = person(house, "mara"), set[str]()
        house.answering.watched = lambda answer_id: not watched or answer_id in watched
        one = send(house, mara, "One")
        ended(house, mara, one)
        watched.add("another one")
        two = send(house, mara, "Two")
        ended(house, mara, two)
        three = send(house, mara, "Three")
        ended(house, mara, three)
        four = send(house, mara, "Four")
        house.answering.stop(mara, four.answer_id)
        ended(house, mara, four)

        assert {c.id for c in house.history.chats(mara) if c.unread} == {two.chat_id, three.chat_id}
        assert house.history.open(mara, two.chat_id).unread == {two.answer_id}
        house.history.seen(person(house, "tomas"), two.chat_id)
        house.history.seen(mara, two.chat_id)
        assert {c.id for c in house.history.chats(mara) if c.unread} == {three.chat_id}
        assert house.history.open(mara, two.chat_id).unread == frozenset()


def test_who_listens_is_told_when_an_answer_begins_and_how_it_ended(tmp_path: Path) -> None:
    with running(tmp_path, scripted(words("One."))) as house:
        mara, told = person(house, "mara"), list[tuple[str, str, str]]()
        house.answering.on_changed.append(lambda account, chat, what: told.append((account, chat, what)))
        sent = send(house, mara, "Go")
        ended(house, mara, sent)
        until(lambda: len(told) == 2)
        assert told == [(mara.id, sent.chat_id, "running"), (mara.id, sent.chat_id, "unread")]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_line_of_memory_stands_where_the_next_prompt_begins(tmp_path: Path) -> None:
    """Said before: the first entry that is sent along with a short next message, exactly."""
    source = ScriptedSource(ScriptedModel(otherwise=words("word " * 60)))
    with running(tmp_path, source, history_tokens=500) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Beginning")
        ended(house, mara, sent)
        begun = house.history.open(mara, sent.chat_id).messages
        assert house.answering.remembers_from(begun) is None
        for n in range(8):
            sent = send(house, mara, f"Message {n}", sent.chat_id, sent.answer_id)
            ended(house, mara, sent)
        path = house.history.open(mara, sent.chat_id).messages
        line = house.answering.remembers_from(path)

        ended(house, mara, send(house, mara, "Next", sent.chat_id, sent.answer_id))
        first = source.model.prompts[-1].turns[1]
        at = next(n for n, m in enumerate(path) if m.id == line)
        assert 0 < at < len(path) - 2
        assert first.text == path[at].text and len(source.model.prompts[-1].turns) - 2 == len(path) - at


def test_a_chat_without_words_has_no_line_of_memory(tmp_path: Path) -> None:
    with running(tmp_path, scripted(words("x"))) as house:
        assert house.answering.remembers_from([]) is None
        empty: list[Message] = []
        assert house.answering.remembers_from(empty) is None


def test_stopped_before_the_first_word_is_a_state_of_its_own(tmp_path: Path) -> None:
    """It leaves a message that can be answered again under the same number."""
    gate = threading.Event()
    source = scripted((Hold(gate),), words("Now."))
    with running(tmp_path, source) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        until(lambda: source.model.prompts)
        house.answering.stop(mara, sent.answer_id)
        stopped = ended(house, mara, sent)
        assert stopped.answer is not None and stopped.answer.state is AnswerState.STOPPED
        opened = house.history.open(mara, sent.chat_id)
        again = house.answering.again(mara, sent.chat_id, opened.messages[0].id, opened.newest)
        assert isinstance(again, Sent) and ended(house, mara, again).text == "Now."
        assert number(house.history.open(mara, sent.chat_id), 1) == "1 of 1"


def test_a_chat_that_is_to_remember_more_takes_more_along_and_its_price_was_said(tmp_path: Path) -> None:
    """From the next message on, in that chat alone, until it is taken back; the price is what the next prompt is larger."""
    source = ScriptedSource(ScriptedModel(otherwise=words("word " * 60)))
    with running(tmp_path, source, history_tokens=300, history_more_tokens=700) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Beginning")
        for n in range(10):
            ended(house, mara, sent)
            sent = send(house, mara, f"Message {n}", sent.chat_id, sent.answer_id)
        ended(house, mara, sent)
        opened = house.history.open(mara, sent.chat_id)
        price = house.answering.more_costs(opened.messages)
        assert not opened.remembers_more and 300 < price <= 500
        usual = house.answering.remembers_from(opened.messages)

        house.answering.remember_more(mara, sent.chat_id, True)
        house.answering.remember_more(mara, sent.chat_id, True)

        opened = house.history.open(mara, sent.chat_id)
        line = house.answering.remembers_from(opened.messages, opened.remembers_more)
        assert opened.remembers_more and line != usual
        following = send(house, mara, "Next", sent.chat_id, sent.answer_id)
        ended(house, mara, following)
        turns = source.model.prompts[-1].turns[1:-1]
        at = next(n for n, m in enumerate(opened.messages) if m.id == line)
        assert [t.text for t in turns] == [m.text for m in opened.messages[at:]]
        kept = next(n for n, m in enumerate(opened.messages) if m.id == usual)
        assert sum(house.answering._cost(m, source.model.card.tokenizer) for m in opened.messages[at:kept]) == price
        elsewhere = send(house, mara, "Elsewhere")
        assert not house.history.open(mara, elsewhere.chat_id).remembers_more

        house.answering.remember_more(mara, sent.chat_id, False)

        assert not house.history.open(mara, sent.chat_id).remembers_more
        assert len(house.store.read(lambda rows: rows._all("SELECT * FROM remembering"))) == 2


def test_where_there_is_nothing_more_to_remember_it_costs_nothing(tmp_path: Path) -> None:
    """A short chat is remembered whole, and a setting below the usual one takes nothing away."""
    with running(tmp_path, scripted(words("x"), words("y " * 400), words("z")), history_tokens=300, history_more_tokens=100) as house:
        mara = person(house, "mara")
        sent = send(house, mara, "Go")
        ended(house, mara, sent)
        assert house.answering.more_costs(house.history.open(mara, sent.chat_id).messages) == 0
        sent = send(house, mara, "On", sent.chat_id, sent.answer_id)
        ended(house, mara, sent)
        house.answering.remember_more(mara, sent.chat_id, True)
        messages = house.history.open(mara, sent.chat_id).messages
        assert house.answering.more_costs(messages) == 0
        assert house.answering.remembers_from(messages, True) == house.answering.remembers_from(messages)


def test_nobody_sets_the_memory_of_a_chat_that_is_not_theirs(tmp_path: Path) -> None:
    with running(tmp_path, scripted()) as house:
        mara, tomas = person(house, "mara"), person(house, "tomas")
        sent = send(house, mara, "Go")
        ended(house, mara, sent)
        for chat_id in (sent.chat_id, house.answering.new_chat_id()):
            with pytest.raises(NotFound):
                house.answering.remember_more(tomas, chat_id, True)
        assert not house.history.open(mara, sent.chat_id).remembers_more
