"""Searching on the history page: what is shown of a hit, where a click leads, and what is said where there is nothing to show."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from chatpro.bootstrap import House
from tests.cast import person, write_chat
from tests.pages.conftest import Table, page, site, words


def looked_for(typed: str, table: Table, who: str = "mara", **more: str) -> dict[str, Any]:
    test = page("history", who, q=typed, **more)
    assert [e.message for e in test.exception] == []
    return table.found


def messages_of(found: dict[str, Any]) -> list[str]:
    """The messages found, their marks in brackets."""
    return ["".join(f"[{text}]" if marked else text for text, marked in m["text"]) for chat in found["chats"] for m in chat["messages"]]


def test_a_hit_says_its_chat_who_wrote_it_when_and_where_it_hits(house: House, table: Table) -> None:
    """By chat, the newest first; in the zone of the person."""
    mara = person(house, "mara")
    write_chat(house, mara, ("How do I word a late fee?", "Name a day."), at=house.now() - timedelta(days=3), title="Invoices")
    write_chat(house, mara, ("Hello", "A Late invoice: add the fée. " + "And so on. " * 40), title="Late fees")

    found = looked_for("late fee", table)

    assert [chat["title"] for chat in found["chats"]] == [[["Late", True], [" ", False], ["fee", True], ["s", False]], [["Invoices", False]]]
    first, second = messages_of(found)
    assert first.startswith("A [Late] invoice: add the [fée]. And") and first.endswith(" …") and second == "How do I word a [late] [fee]?"
    assert [(m["who"], m["when"]) for chat in found["chats"] for m in chat["messages"]] == [("Answer", "Today, 11:15"), ("You wrote", "Fri, 11:15")]
    assert found["said"] == "Found: 2 messages and 1 title in 2 chats." and not found["older"]


def test_signs_of_formatting_are_left_out_of_answers_and_kept_in_ones_own_words(house: House, table: Table) -> None:
    """And wherever they are what was looked for."""
    write_chat(house, person(house, "mara"), ("Is **needle** a `word`?", "## Yes\n\n**needle** is `one`, 2 ** 3 is not."), title="x")

    assert messages_of(looked_for("needle", table)) == ["Yes\n\n[needle] is one, 2 ** 3 is not.", "Is **[needle]** a `word`?"]
    assert messages_of(looked_for("**needle", table))[0].startswith("Yes\n\n[**needle] is")


def test_a_click_opens_the_chat_at_that_message(house: House, table: Table) -> None:
    """Also far above what is drawn at first. A title opens its chat where it ends."""
    chat = write_chat(house, person(house, "mara"), *((f"Question {n}", f"Answer {n}.") for n in range(20)), title="Twenty")
    test = site("history", "mara", q='"question 2"')
    hit = table.found["chats"][0]["messages"][0]

    table.do(test, **{"is": "open", "id": chat, "at": hit["id"]})

    assert (test.query_params["chat"], test.query_params["at"]) == (chat, hit["id"]) and "Question 2" in words(test)
    test = site("history", "mara", q="twenty")
    table.do(test, **{"is": "open", "id": chat})
    assert "at" not in test.query_params and "Question 2" not in words(test)


@pytest.mark.fault(104)
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("e", "One letter is in nearly everything. Type at least two."),
        ("x" * 500, "A search takes at most 200 characters; this has 500."),
        (" ".join(f"w{n}" for n in range(20)), "A search takes at most 12 words; this has 20."),
        ('""', "Type a word to look for."),
        ("<b>nowhere</b>", "Nothing of yours has “<b>nowhere</b>”."),
        ("'; DROP TABLE messages --", "Nothing of yours has “'; DROP TABLE messages --”."),
    ],
)
def test_where_there_is_nothing_to_show_a_sentence_says_why(house: House, table: Table, typed: str, said: str) -> None:
    """And what was typed stays in the field."""
    write_chat(house, person(house, "mara"), ("Hello", "Yes."))

    found = looked_for(typed, table)

    assert found["said"].startswith(said) and found["chats"] == []
    assert table.shown[-1]["looked"]["words"] == typed


def test_blanks_are_no_search(house: House, table: Table) -> None:
    """The table stands there."""
    write_chat(house, person(house, "mara"), ("Hello", "Yes."))
    page("history", "mara", q="   ")
    assert table.titles == ["Hello"] and table.shown[-1]["found"] is None


def test_what_is_further_back_is_one_click_away(house: House, table: Table) -> None:
    """Its place stands in the address, so that a reload shows the same; the last page offers nothing more."""
    mara = person(house, "mara")
    write_chat(house, mara, *((f"needle {n:02d}", "hay") for n in range(25)), title="x")
    test = page("history", "mara", q="needle")
    newest = table.found
    assert len(messages_of(newest)) == 20 and newest["said"] == "Found: 20 messages in one chat, and older ones." and newest["further"] == "Older ones"

    table.do(test, **{"is": "view", "looked": {**table.shown[-1]["looked"], "before": newest["older"]}})
    older = table.found

    assert test.query_params["before"] == newest["older"] and older["said"] == "Further back: 5 messages in one chat." and not older["older"]
    assert messages_of(newest) + messages_of(older) == [f"[needle] {n:02d}" for n in reversed(range(25))]
    table.do(test, **{"is": "view", "looked": {**table.shown[-1]["looked"], "words": "", "before": newest["older"]}})
    assert table.shown[-1]["found"] is None and set(test.query_params) == {"as"}


@pytest.mark.fault(22)
@pytest.mark.parametrize("before", ["x", "1", "1.", ".1", "9" * 30 + ".1", "-1.1", "1.1.1", "٣.٣", "9999999999999999.9999999999999999999", "\0"])
def test_a_place_that_is_none_is_the_newest(house: House, table: Table, before: str) -> None:
    """What stands in the address is a claim."""
    write_chat(house, person(house, "mara"), ("needle", "hay"), title="x")
    found = looked_for("needle", table, before=before)
    assert len(messages_of(found)) == 1 or found["said"] == "There is nothing older that has all of this."


def test_a_search_that_was_ended_early_says_so_and_goes_on(house: House, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote very much is not told that there is nothing."""
    write_chat(house, person(house, "mara"), ("hay", "hay"), ("hay", "hay"), title="x")
    monkeypatch.setattr("chatpro.services.history.SEARCH_SECONDS", -1.0)
    found = looked_for("needle", table)
    assert found["said"] == "The search has not come to its end." and found["older"] and found["further"] == "Search further back"


def test_from_the_panel_the_words_come_along(house: House, table: Table) -> None:
    """As the panel's field leaves them."""
    write_chat(house, person(house, "mara"), ("A needle", "hay"), title="x")
    test = site("chat", "mara")
    test.session_state["go_to"], test.session_state["go_with"] = "history", {"q": "needle"}
    test.run()
    assert messages_of(table.found) == ["A [needle]"] and test.query_params["q"] == "needle"


@pytest.mark.fault(17, 20)
def test_nobody_elses_words_are_shown(house: House, table: Table) -> None:
    """Nor one's own of a deleted chat."""
    mara = person(house, "mara")
    write_chat(house, person(house, "tomas"), ("Timbuktumarker", "Timbuktumarker."))
    house.history.delete(mara, write_chat(house, mara, ("Timbuktumarker", "Yes.")))
    assert looked_for("timbuktumarker", table)["chats"] == []
