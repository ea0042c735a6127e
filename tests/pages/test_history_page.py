"""The history page: rows, pages, the day of deletion, deleting and taking it back."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta

import pytest

from chatpro.bootstrap import House
from tests.cast import person, write_chat
from tests.pages.conftest import html_of, page, site, title_of, words


def titles(test: object) -> list[str]:
    """The chats' titles in the order of the page."""
    return [b.label for b in test.button if b.key and b.key.startswith("open_")]  # type: ignore[attr-defined]


def test_an_empty_history_says_what_will_be_here_and_leads_there(house: House) -> None:
    """One line and one button, which gets to a new chat."""
    test = site("history", "mara")
    assert "Your chats will stand here" in words(test)

    test.button(key="start_chat").click().run()

    assert title_of(test) != "History" and test.query_params.get("chat") is None


def test_a_row_says_when_how_much_and_when_it_goes(house: House) -> None:
    """In the zone of the person: 10:15 in UTC is 11:15 in Stockholm."""
    write_chat(house, person(house, "mara"), ("Deposit", "Before."), ("And then", "After."))

    text = words(page("history", "mara"))

    assert "Today, 11:15" in text and "4 messages" in text and "Kept until 21 Feb" in text


def test_a_chat_that_goes_within_a_week_is_marked(house: House) -> None:
    """Amber is a class on the day of deletion, and only on that row."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Old one", "Yes."), at=house.now() - timedelta(days=85))
    write_chat(house, mara, ("New one", "Yes."))

    assert re.findall(r'<span class="(soon)?">Kept until ([^<]+)<', html_of(page("history", "mara"))) == [("", "21 Feb"), ("soon", "28 Nov")]


def test_a_chat_past_its_days_is_gone_from_the_page(house: House) -> None:
    """At the instant, whether or not anything was cleaned up."""
    write_chat(house, person(house, "mara"), ("Old one", "Yes."), at=house.now() - timedelta(days=90) + timedelta(minutes=1))
    assert titles(page("history", "mara")) == ["Old one"]

    house.now.forward(minutes=2)  # type: ignore[attr-defined]

    assert titles(page("history", "mara")) == []


def test_twenty_chats_a_page_newest_first(house: House) -> None:
    """45 chats: three pages, and the count under them."""
    mara = person(house, "mara")
    for number in range(45):
        write_chat(house, mara, (f"Chat {number}", "Yes."), at=house.now() - timedelta(hours=45 - number))

    test = page("history", "mara")
    assert (titles(test)[0], titles(test)[-1], len(titles(test))) == ("Chat 44", "Chat 25", 20)
    assert "45 chats" in words(test)

    test.session_state["history_page"] = 3
    test.run()

    assert (titles(test)[0], len(titles(test))) == ("Chat 4", 5)


@pytest.mark.fault(22)
def test_a_page_number_that_is_no_page_is_the_nearest_one(house: House) -> None:
    """A widget's value is a claim: a thousand is the last page, and a page emptied by deleting is the one before."""
    write_chat(house, person(house, "mara"), ("Only one", "Yes."))
    test = page("history", "mara")

    for number in (1000, 0, -3):
        test.session_state["history_page"] = number
        test.run()
        assert (titles(test), [e.message for e in test.exception]) == (["Only one"], [])


def test_a_title_opens_its_chat(house: House) -> None:
    """The click leads to the chat page with the chat in the address."""
    chat = write_chat(house, person(house, "mara"), ("Deposit", "Before the work begins."))
    test = site("history", "mara")

    test.button(key=f"open_{chat}").click().run()

    assert "Before the work begins." in words(test)


def test_deleting_asks_first_and_can_be_taken_back(house: House) -> None:
    """Click, question in the row, yes: gone everywhere; and back with everything in it."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Deposit", "Before."))
    test = page("history", "mara")

    test.button(key=f"bin_{chat}").click().run()
    assert 'Delete "Deposit"?' in words(test) and len(house.history.chats(mara)) == 1

    test.button(key="delete_no").click().run()
    assert "delete_yes" not in {b.key for b in test.button} and len(house.history.chats(mara)) == 1

    test.button(key=f"bin_{chat}").click().run()
    test.button(key="delete_yes").click().run()
    assert (titles(test), house.history.chats(mara)) == ([], [])

    test.button(key="seen_plain").click().run()
    assert (titles(test), len(house.history.open(mara, chat).messages)) == (["Deposit"], 2)
    assert "The chat was deleted." not in words(test)


def test_deleting_twice_says_so_and_breaks_nothing(house: House) -> None:
    """The same chat was deleted in another tab meanwhile."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Deposit", "Before."))
    test = page("history", "mara")
    test.button(key=f"bin_{chat}").click().run()

    house.history.delete(mara, chat)
    test.button(key="delete_yes").click().run()

    assert [e.message for e in test.exception] == []
    assert titles(test) == []


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
