"""Own chats: found by their owner, by nobody else, and by nobody after their 90 days."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from chatpro.errors import NotFound, NotSendable
from chatpro.models.scripted import ScriptedSource, scripted, words
from tests.cast import build_house, person, write_chat
from tests.running import ended, running, send


@pytest.mark.fault(59)
def test_what_is_past_its_days_can_be_read_nowhere_whether_or_not_a_purge_has_run(tmp_path: Path) -> None:
    """Chat, title, draft and message: every read filters by age."""
    house = build_house(tmp_path)
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("An old question", "An old answer"))
    house.store.write(lambda unit: unit.keep_draft(mara.id, chat, "d", "An old draft", house.now()))
    assert len(house.history.open(mara, chat).messages) == 2 and house.history.draft(mara, chat) == "An old draft"

    house.now.forward(days=90)  # type: ignore[attr-defined]

    with pytest.raises(NotFound):
        house.history.open(mara, chat)
    assert house.history.chats(mara) == [] and house.history.draft(mara, chat) is None
    house.store.close()


@pytest.mark.fault(58)
def test_the_day_that_is_shown_is_the_day_from_which_it_cannot_be_read(tmp_path: Path) -> None:
    """One second before it can, at that instant it can't."""
    house = build_house(tmp_path)
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Question", "Answer"))
    opened = house.history.open(mara, chat)

    house.now.at = opened.first_deleted_on - timedelta(microseconds=1)  # type: ignore[attr-defined]
    assert len(house.history.open(mara, chat).messages) == 2
    house.now.at = opened.last_deleted_on  # type: ignore[attr-defined]
    with pytest.raises(NotFound):
        house.history.open(mara, chat)
    house.store.close()


@pytest.mark.fault(19, 20)
def test_own_and_foreign_ids_mixed_find_nothing(tmp_path: Path) -> None:
    """An own chat with somebody else's message, a foreign chat with an own one, made-up ids: the same words for all of them."""
    with running(tmp_path, scripted(words("For Mara."), words("For Tomás."))) as house:
        mara, tomas = person(house, "mara"), person(house, "tomas")
        mine, theirs = send(house, mara, "Mine"), send(house, tomas, "Theirs")
        ended(house, mara, mine)
        ended(house, tomas, theirs)
        my_question = house.history.open(mara, mine.chat_id).messages[0].id
        their_question = house.history.open(tomas, theirs.chat_id).messages[0].id
        sentences = set()
        for attempt in (
            lambda: house.answering.again(mara, mine.chat_id, their_question, 10**9),
            lambda: house.answering.again(mara, theirs.chat_id, my_question, 10**9),
            lambda: house.answering.again(mara, mine.chat_id, mine.answer_id, 10**9),
            lambda: house.answering.stop(mara, theirs.answer_id),
            lambda: house.answering.stop(mara, "0" * 32),
            lambda: house.history.rename(mara, theirs.chat_id, "Stolen"),
            lambda: house.history.delete(mara, theirs.chat_id),
            lambda: house.history.restore(mara, theirs.chat_id),
            lambda: house.history.open(mara, theirs.chat_id),
            lambda: house.history.open(mara, "0" * 32),
        ):
            with pytest.raises(NotFound) as caught:
                attempt()
            sentences.add(str(caught.value))
        assert sentences == {"Not found."}
        assert house.history.draft(mara, theirs.chat_id) is None
        assert [c.id for c in house.history.chats(tomas)][0] == theirs.chat_id


@pytest.mark.fault(21)
def test_ids_cannot_be_guessed(tmp_path: Path) -> None:
    """Chats and answers are random, 128 bits; a message's id is a digest over such a chat id."""
    with running(tmp_path, ScriptedSource(None)) as house:
        ids = {house.answering.new_chat_id() for _ in range(1_000)}

    assert len(ids) == 1_000 and all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


def test_a_title_can_be_changed_to_anything_that_can_be_seen(tmp_path: Path) -> None:
    """The newest one holds; blank ones are refused with a sentence."""
    house = build_house(tmp_path)
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("How much should I ask", "It depends."))

    house.history.rename(mara, chat, "  Prices \u202e and\n<b>terms</b> ")

    assert house.history.open(mara, chat).title == "Prices and <b>terms</b>" == house.history.chats(mara)[0].title
    with pytest.raises(NotSendable):
        house.history.rename(mara, chat, " \u200b ")
    house.store.close()


def test_a_deleted_chat_is_gone_from_every_reading_until_it_is_taken_back(tmp_path: Path) -> None:
    """Both are on record in the audit, by id."""
    house = build_house(tmp_path)
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Question", "Answer"))

    house.history.delete(mara, chat)

    assert house.history.chats(mara) == []
    for attempt in (lambda: house.history.open(mara, chat), lambda: house.history.delete(mara, chat), lambda: house.history.rename(mara, chat, "x")):
        with pytest.raises(NotFound):
            attempt()
    house.history.restore(mara, chat)
    assert [c.id for c in house.history.chats(mara)] == [chat]
    actions = house.store.read(lambda rows: [(e.action, e.subject) for e in rows.audit_entries()])
    assert actions[-2:] == [("chat.deleted", chat), ("chat.restored", chat)]
    house.store.close()
