"""The history page: rows, pages, the day of deletion, deleting and taking it back."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from streamlit.testing.v1 import AppTest

from chatpro.bootstrap import House
from tests.cast import person, write_chat
from tests.pages.conftest import Table, page, rows_of, site, title_of, words


def titles(test: AppTest) -> list[str]:
    """The chats' titles in the order of the page."""
    return [row["title"] for row in rows_of(test)]


def test_an_empty_history_says_what_will_be_here_and_leads_there(house: House) -> None:
    """One line and one button, which gets to a new chat."""
    test = site("history", "mara")
    assert "Your chats will stand here" in words(test)

    test.button(key="start_chat").click().run()

    assert title_of(test) != "History" and test.query_params.get("chat") is None


def test_a_row_says_when_how_much_and_when_it_goes(house: House) -> None:
    """In the zone of the person: 10:15 in UTC is 11:15 in Stockholm. A chat of several days says when its first words go."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Deposit", "Before."), ("And then", "After."), at=house.now() - timedelta(days=3))
    house.store.write(lambda unit: unit.add_message(mara.id, "e" * 32, chat, None, "freelancer", "New", house.now()))

    row = rows_of(page("history", "mara"))[0]

    wanted = {"title": "Deposit", "messages": "5", "tokens": "1,000", "last": "Today, 11:15", "goes": "21 Feb", "first": "18 Feb", "soon": False}
    assert {name: row[name] for name in wanted} == wanted


def test_a_chat_that_goes_within_a_week_is_marked(house: House) -> None:
    """And only that one."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Old one", "Yes."), at=house.now() - timedelta(days=85))
    write_chat(house, mara, ("New one", "Yes."))

    assert [(row["goes"], row["soon"]) for row in rows_of(page("history", "mara"))] == [("21 Feb", False), ("28 Nov", True)]


def test_a_chat_past_its_days_is_gone_from_the_page(house: House) -> None:
    """At the instant, whether or not anything was cleaned up."""
    write_chat(house, person(house, "mara"), ("Old one", "Yes."), at=house.now() - timedelta(days=90) + timedelta(minutes=1))
    assert titles(page("history", "mara")) == ["Old one"]

    house.now.forward(minutes=2)  # type: ignore[attr-defined]

    assert titles(page("history", "mara")) == []


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "query",
    [{"page": "1000"}, {"page": "0"}, {"page": "-3"}, {"page": "x" * 99}, {"sort": "id; DROP TABLE chats"}, {"order": "\0"}, {"from": "yesterday"},
     {"from": "9999-12-31x"}, {"to": "9999-12-31"}, {"from": "0001-01-01"}, {"q": "%" * 10_000}],
    ids=lambda query: f"{next(iter(query))}={next(iter(query.values()))[:12]!r}",
)  # fmt: skip
def test_an_address_that_says_anything_shows_the_nearest_there_is(house: House, query: dict[str, str]) -> None:
    """What stands in it is a claim: a page that is none, a column that is none, a day that is none."""
    write_chat(house, person(house, "mara"), ("Only one", "Yes."))

    test = page("history", "mara", **query)

    assert [e.message for e in test.exception] == []
    assert titles(test) == ["Only one"] or "q" in query


def test_days_are_the_persons_own(house: House) -> None:
    """A message of 23:30 in UTC belongs to the next day in Stockholm; both bounds are included."""
    write_chat(house, person(house, "mara"), ("Late", "Yes."), at=datetime(2026, 11, 19, 23, 30, tzinfo=UTC))

    found = {day: titles(page("history", "mara", **{"from": day, "to": day})) for day in ("2026-11-19", "2026-11-20", "2026-11-21")}

    assert found == {"2026-11-19": [], "2026-11-20": ["Late"], "2026-11-21": []}


def test_another_view_goes_into_the_address_and_what_is_usual_does_not(house: House, table: Table) -> None:
    """So that a reload and the back button show the same, and a plain address stays plain."""
    for title in ("b", "a"):
        write_chat(house, person(house, "mara"), ("How", "So."), title=title)
    test = page("history", "mara")
    usual = table.shown[-1]["looked"]

    table.do(test, **{"is": "view", "looked": {**usual, "sort": "title", "descending": False}})
    assert table.titles == ["a", "b"] and (test.query_params["sort"], test.query_params["order"]) == ("title", "up")

    table.do(test, **{"is": "view", "looked": usual})
    assert set(test.query_params) == {"as"}


def test_a_title_opens_its_chat(house: House, table: Table) -> None:
    """The click leads to the chat page with the chat in the address."""
    chat = write_chat(house, person(house, "mara"), ("Deposit", "Before the work begins."))
    test = site("history", "mara")

    table.do(test, **{"is": "open", "id": chat})

    assert "Before the work begins." in words(test)


def test_deleting_can_be_taken_back(house: House, table: Table) -> None:
    """One or several: gone everywhere; and back with everything in them."""
    mara = person(house, "mara")
    chats = [write_chat(house, mara, ("Deposit", "Before."), title=title) for title in ("One", "Two", "Three")]
    test = page("history", "mara")

    table.do(test, **{"is": "delete", "ids": chats[:2]})
    assert (table.titles, len(house.history.chats(mara))) == (["Three"], 1) and "2 chats were deleted." in words(test)

    test.button(key="seen_plain").click().run()
    assert len(table.titles) == 3 and len(house.history.open(mara, chats[0]).messages) == 2
    assert "were deleted." not in words(test)


def test_what_another_tab_did_meanwhile_is_no_error(house: House, table: Table) -> None:
    """Deleted there, deleted, renamed or exported here: a sentence at most."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Deposit", "Before."))
    test = page("history", "mara")
    write_chat(house, mara, ("Another", "Yes."))
    house.history.delete(mara, chat)

    for act in ({"is": "delete", "ids": [chat]}, {"is": "rename", "id": chat, "title": "x"}, {"is": "export", "ids": [chat], "form": "json"}):
        table.do(test, **act)
        assert [e.message for e in test.exception] == [] and table.titles == ["Another"]
    assert "That chat is not there any more." in words(test)


@pytest.mark.fault(22)
@pytest.mark.fault(19)
def test_acts_of_any_form_do_no_harm(house: House, table: Table) -> None:
    """A browser may say anything: foreign ids, wrong types, unknown words."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    write_chat(house, mara, ("Mine", "Yes."))
    foreign = write_chat(house, tomas, ("Timbuktumarker", "Yes."))
    test = page("history", "mara")

    for act in (
        {"is": "delete", "ids": [foreign, 1, None]}, {"is": "rename", "id": foreign, "title": "x"}, {"is": "export", "ids": [foreign], "form": "html"},
        {"is": "export", "ids": [], "form": "everything"}, {"is": "delete", "ids": "x"}, {"is": "view", "looked": 7}, {"is": "no such act"}, {"is": []},
    ):  # fmt: skip
        table.do(test, **act)
        assert [e.message for e in test.exception] == []

    assert [chat.title for chat in house.history.chats(tomas)][:1] == ["Timbuktumarker"]
    assert table.titles == ["Mine"] and "marker" not in words(test)
    assert house.export._orders == {}


def test_an_export_is_ordered_by_a_click_and_shown_to_nobody_else(house: House, table: Table) -> None:
    """The page gets an address with a token; the file is whole and one's own."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Deposit", "Before."))
    test = page("history", "mara")

    table.do(test, **{"is": "export", "ids": [chat], "form": "markdown"})
    order = test.session_state["export"]

    assert order.name == "Deposit.md" and b"Before." in b"".join(house.export.collect(order.token).pieces)
    test.button(key="export_all").click().run()
    assert test.session_state["export"].name == "Chat Pro everything 2026-11-23.zip"


def test_somebody_whose_plan_ended_reads_their_chats(house: House) -> None:
    """Hal's history is whole, twelve days after the end."""
    assert titles(page("history", "hal")) == ["How do I word a late fee"]


@pytest.mark.fault(20)
def test_a_foreign_a_made_up_and_a_deleted_chat_look_alike(house: House) -> None:
    """The chat page says the same about Tomás's chat, Mara's deleted one, her one past its days, and nobody's; none of their words is there."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    write_chat(house, mara, ("Mine", "Yes."))
    foreign = write_chat(house, tomas, ("Timbuktumarker", "Timbuktumarker."))
    deleted = write_chat(house, mara, ("Zanzibarmarker", "Zanzibarmarker."))
    house.history.delete(mara, deleted)
    old = write_chat(house, mara, ("Zanzibarmarker", "Zanzibarmarker."), at=house.now() - timedelta(days=91))

    said = {
        words(page("chat", "mara", chat=chat))
        for chat in (foreign, deleted, old, secrets.token_hex(16), "x", "../../etc/passwd", "' OR 1=1 --", "\u202e", "\0")
    }

    assert len(said) == 1
    assert "marker" not in said.pop()


def test_an_address_of_a_message_shows_its_version_and_enough_of_the_chat(house: House) -> None:
    """Far above what is drawn at first, and in a version that an edit has hidden. One that is gone is said to be gone, once."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, *((f"Question {n}", f"Answer {n}.") for n in range(20)))
    third = house.history.open(mara, chat).messages[4]
    house.store.write(lambda unit: unit.add_message(mara.id, "e" * 32, chat, None, "freelancer", "Another beginning", house.now()))
    assert "Question 2" not in words(page("chat", "mara", chat=chat))

    text = words(page("chat", "mara", chat=chat, at=third.id))
    assert "Question 2" in text and "Question 19" in text and "Another beginning" not in text

    test = page("chat", "mara", chat=chat, at="0" * 32)
    assert "That message is not there any more." in words(test) and "Another beginning" in words(test)
    foreign = write_chat(house, person(house, "tomas"), ("Timbuktumarker", "Yes."))
    entry = house.history.open(person(house, "tomas"), foreign).messages[0].id
    assert "marker" not in words(page("chat", "mara", chat=chat, at=entry))
