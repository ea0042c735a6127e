"""Own chats: found by their owner, by nobody else, and by nobody after their 90 days."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chatpro.bootstrap import House
from chatpro.domain.chats import Column
from chatpro.errors import NotFound, NotSendable
from chatpro.models.scripted import ScriptedSource, scripted, words
from chatpro.services.export import Form
from chatpro.services.history import LISTED, View
from chatpro.storage import duckdb as engine
from tests.cast import build_house, person, write_chat
from tests.running import ended, running, send


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = build_house(tmp_path)
    yield built
    built.store.close()
    built.analytics.close()


@pytest.mark.fault(59)
def test_what_is_past_its_days_can_be_read_nowhere_whether_or_not_a_purge_has_run(tmp_path: Path) -> None:
    """Chat, title, draft and message, in lists, search and export: every read filters by age, and it can't be renamed or deleted either."""
    house = build_house(tmp_path)
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("An old question", "An old answer"))
    house.store.write(lambda unit: unit.keep_draft(mara.id, chat, "d", "An old draft", house.now()))
    assert len(house.history.open(mara, chat).messages) == 2 and house.history.draft(mara, chat) == "An old draft"

    house.now.forward(days=90)  # type: ignore[attr-defined]

    with pytest.raises(NotFound):
        house.history.open(mara, chat)
    assert house.history.chats(mara) == [] and house.history.draft(mara, chat) is None
    assert house.history.listing(mara, View()).rows == [] and house.history.search(mara, "old").hits == []
    for act in (lambda: house.history.rename(mara, chat, "Mine"), lambda: house.history.delete(mara, chat)):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(NotFound):
        house.export.order(mara, Form.MARKDOWN, (chat,))
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


# --- The table --------------------------------------------------------------------------------------------------------


def listed(house: House, name: str = "mara", **view: Any) -> list[str]:
    return [row.title for row in house.history.listing(person(house, name), View(**view)).rows]


def test_the_table_is_sorted_by_any_column_both_ways(house: House) -> None:
    """Titles without regard to capitals; the same as sorting in Python would give."""
    mara = person(house, "mara")
    write_chat(house, mara, ("b", "B."), ("b", "B."), title="banana", at=house.now() - timedelta(days=3), tokens=(10, 5))
    write_chat(house, mara, ("a", "A."), title="Apple", at=house.now() - timedelta(days=2), tokens=(500, 5))
    write_chat(house, mara, ("c", "C."), title="cherry", at=house.now() - timedelta(days=1), tokens=(1, 1))

    assert listed(house) == ["cherry", "Apple", "banana"]
    assert listed(house, column=Column.TITLE, descending=False) == ["Apple", "banana", "cherry"]
    assert listed(house, column=Column.MESSAGES) == ["banana", "cherry", "Apple"]
    assert listed(house, column=Column.TOKENS) == ["Apple", "banana", "cherry"]
    assert listed(house, column=Column.GOES, descending=False) == ["banana", "Apple", "cherry"]
    row = house.history.listing(mara, View(column=Column.TITLE)).rows[1]
    assert (row.title, row.messages, row.tokens, row.last_at) == ("banana", 4, 30, house.now() - timedelta(days=3, seconds=-1))


def test_the_table_holds_what_the_panel_holds(house: House) -> None:
    """No foreign, deleted or too old chat; a title that came from a message goes with it; the newest title counts."""
    mara = person(house, "mara")
    write_chat(house, person(house, "tomas"), ("Foreign", "Yes."))
    write_chat(house, mara, ("Too old", "Yes."), at=house.now() - timedelta(days=90))
    house.history.delete(mara, write_chat(house, mara, ("Deleted", "Yes.")))
    renamed = write_chat(house, mara, ("Renamed", "Yes."))
    house.history.rename(mara, renamed, "Another name")
    half_old = write_chat(house, mara, ("Half of it too old", "Yes."), at=house.now() - timedelta(days=90))
    house.store.write(lambda unit: unit.add_message(mara.id, "e" * 32, half_old, None, "freelancer", "New words", house.now()))

    assert sorted(listed(house)) == ["Another name", "Chat"] == sorted(chat.title for chat in house.history.chats(mara))


def test_bounds_of_the_table_are_instants(house: House) -> None:
    """The first is included, the second not."""
    mara, at = person(house, "mara"), house.now() - timedelta(days=10)
    write_chat(house, mara, ("Then", "Yes."), at=at)

    assert listed(house, begin=at) == ["Then"] and listed(house, begin=at + timedelta(microseconds=1)) == []
    assert listed(house, end=at) == [] and listed(house, end=at + timedelta(microseconds=1)) == ["Then"]


@pytest.mark.fault(22)
def test_pages_meet_and_a_page_that_is_none_is_the_nearest(house: House) -> None:
    """Chats of one instant too: each stands on exactly one page."""
    mara = person(house, "mara")
    for n in range(LISTED * 2 + 3):
        write_chat(house, mara, (f"Chat {n}", "Yes."), at=house.now() - timedelta(days=1))

    pages = [house.history.listing(mara, View(page=n)) for n in (1, 2, 3)]

    assert [len(page.rows) for page in pages] == [LISTED, LISTED, 3] and {(page.pages, page.chats) for page in pages} == {(3, LISTED * 2 + 3)}
    assert len({row.id for page in pages for row in page.rows}) == LISTED * 2 + 3
    assert [house.history.listing(mara, View(page=n)).number for n in (0, -5, 4, 10**30)] == [1, 1, 3, 3]
    assert house.history.listing(person(house, "lea"), View(page=7)).pages == 1


def test_an_answer_that_is_written_now_marks_its_row(house: House) -> None:
    """As in the panel."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Go", "Yes."))
    house.history.answered = lambda actor: frozenset({chat})

    assert [row.running for row in house.history.listing(mara, View()).rows] == [True]


@pytest.mark.fault(17, 18, 19, 20)
@pytest.mark.parametrize(
    "verb",
    [
        "history.open", "history.rename", "history.delete", "history.restore", "answering.again", "answering.edit", "answering.go_on", "answering.stop",
        "answering.thumb", "answering.send",
    ],
)  # fmt: skip
def test_foreign_unknown_malformed_and_purged_ids_are_one_not_found_at_one_price(tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words for all of them and the same statements of the store, so that neither the answer nor its time tells which it was."""
    house = build_house(tmp_path, model=ScriptedSource(scripted().model))
    mara, tomas = person(house, "mara"), person(house, "tomas")
    foreign = write_chat(house, tomas, ("Theirs", "Theirs"))
    purged = write_chat(house, mara, ("Gone", "Gone"))
    things = {
        name: (chat, *(m.id for m in house.history.open(who, chat).messages)) for name, chat, who in (("foreign", foreign, tomas), ("purged", purged, mara))
    }
    house.now.at = house.history.delete(mara, purged)  # type: ignore[attr-defined]
    house.housekeeping.purge()
    things |= {"unknown": ("0" * 32, "1" * 40, "2" * 22), "malformed": ("' OR 1=1 --", "%", "\\")}
    run, statements = engine._Session.run, []
    monkeypatch.setattr(engine._Session, "run", lambda self, sql, values: statements.append(sql) or run(self, sql, values))

    said = {}
    for name, (chat, question, given) in things.items():
        arguments = {
            "history.rename": (chat, "Mine"), "answering.again": (chat, question, 10**9), "answering.edit": (chat, question, "Other words"),
            "answering.go_on": (chat, given), "answering.stop": (given,), "answering.thumb": (given, "up"), "answering.send": (chat, "Hello", given),
        }.get(verb, (chat,))  # fmt: skip
        for _ in range(2):  # the second time, what is remembered of the asker is there for each of them
            statements.clear()
            with pytest.raises(NotFound) as caught:
                getattr(getattr(house, verb.split(".")[0]), verb.split(".")[1])(mara, *arguments)
        said[name] = (str(caught.value), list(statements))
    house.store.close()

    malformed = said.pop("malformed")
    assert malformed[0] == "Not found." and len(malformed[1]) <= len(said["unknown"][1])
    assert said["foreign"] == said["unknown"] == said["purged"]
