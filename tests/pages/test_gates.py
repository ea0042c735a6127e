"""Who gets through which door: every page, every role, signed out, by direct address, and with things slipped into the address.

One forgotten gate shows somebody's chats to whoever guesses an address; here that gate has a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.config import ROOT
from chatpro.domain.accounts import PAGE_ROLES, Role
from chatpro.web import parts, places
from tests.cast import person, write_chat
from tests.pages.conftest import NOT_FOUND, SIGN_IN, html_of, page, site, title_of, words

PAGES = sorted(PAGE_ROLES)
ONE_OF_EACH = {
    Role.FREELANCER: "mara",
    Role.ANALYST: "priya",
    Role.SUPPORT: "jude",
    Role.APPROVER: "ana",
    Role.AUDITOR: "otto",
    Role.ADMIN: "ada",
}


def table_in_the_docs() -> dict[str, frozenset[Role]]:
    """Page → roles, as docs/security.md tells everybody."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    section = text.split("## Who may open what")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ([a-z, ]+) \|$", section, re.MULTILINE)
    return {name: frozenset(Role) if roles == "everybody signed in" else frozenset(map(Role, roles.split(", "))) for name, roles in rows if name != "page"}


@pytest.mark.fault(15)
def test_the_table_in_the_docs_is_the_one_in_the_code() -> None:
    """One table, told and kept; every page of it is there, and no other page is."""
    assert table_in_the_docs() == PAGE_ROLES
    assert {file.stem for file in (ROOT / "pages").glob("*.py")} == set(PAGE_ROLES)
    assert set(places.PLACES) == set(PAGE_ROLES)


@pytest.mark.fault(1)
@pytest.mark.parametrize("name", PAGES)
def test_signed_out_every_page_of_its_own_is_the_sign_in_page_and_reads_no_text(shared_house: House, spy_on_text: Callable[[], list[str]], name: str) -> None:
    """As on a fresh server whose main script has not run: sign-in only, and nobody's text was read for it."""
    test = page(name)

    assert (title_of(test), [e.message for e in test.exception]) == (SIGN_IN, [])
    assert spy_on_text() == []


@pytest.mark.fault(1)
@pytest.mark.parametrize("name", PAGES)
def test_signed_out_every_address_leads_to_sign_in(shared_house: House, spy_on_text: Callable[[], list[str]], name: str) -> None:
    """Through the main script too, whichever address was typed; and choosing an account there leads on, not to a dead end."""
    test = site(name)
    assert (title_of(test), spy_on_text()) == (SIGN_IN, [])

    way_in = re.search(r'href="([^"]*)as=jude"', html_of(test))
    assert way_in is not None
    led_on = site(name if way_in[1] == "?" else None, "jude")

    assert title_of(led_on) == ({"account": "Account", "help": "Help"}.get(name, "Disputes"))


@pytest.mark.fault(15)
@pytest.mark.fault(25)
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("role", list(Role), ids=str)
def test_a_page_opens_for_its_roles_and_for_nobody_else(shared_house: House, spy_on_text: Callable[[], list[str]], role: Role, name: str) -> None:
    """Every role on every page: the table, nothing else. Whoever is turned away causes no reading of text either."""
    test = page(name, ONE_OF_EACH[role])

    assert [e.message for e in test.exception] == []
    if role in table_in_the_docs()[name]:
        assert title_of(test) not in (NOT_FOUND, SIGN_IN)
    else:
        assert (title_of(test), spy_on_text()) == (NOT_FOUND, [])


@pytest.mark.fault(15)
def test_two_roles_open_the_pages_of_both(house: House) -> None:
    """Somebody who is support and freelancer chats and handles disputes, and opens no third thing."""
    jude = person(house, "jude")
    house.accounts.set_roles(person(house, "ada"), jude.id, frozenset({Role.SUPPORT, Role.FREELANCER}))

    opened = [name for name in PAGES if title_of(page(name, "jude")) != NOT_FOUND]

    assert opened == ["account", "chat", "disputes", "help", "history"]


@pytest.mark.fault(15)
def test_an_account_without_any_role_opens_nothing(house: House) -> None:
    """Also the pages for everybody signed in are for one of the roles."""
    jude = person(house, "jude")
    house.accounts.set_roles(person(house, "ada"), jude.id, frozenset())

    assert {title_of(page(name, "jude")) for name in PAGES} == {NOT_FOUND}


@pytest.mark.fault(25)
@pytest.mark.parametrize("who", ["priya", "jude", "ana", "otto", "ada"])
def test_staff_see_no_words_of_a_freelancer_on_any_page(house: House, who: str) -> None:
    """A marker in Mara's chat, title and name of a client: no page of theirs holds it, whatever the address says."""
    chat = write_chat(house, person(house, "mara"), ("Zanzibarmarker, the client's name", "Zanzibarmarker it is."))

    for name in PAGES:
        assert "Zanzibarmarker" not in words(page(name, who, chat=chat, account=person(house, "mara").id))


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "query", [{"role": "admin"}, {"roles": "analyst"}, {"account": "ada"}, {"epoch": "0"}, {"model": "gpt-6-luna"}, {"signed_in_as": "ada"}]
)
def test_what_is_slipped_into_the_address_changes_nothing(shared_house: House, query: dict[str, str]) -> None:
    """Roles come from the store and the model from the settings, never from an address."""
    assert title_of(page("operations", "mara", **query)) == NOT_FOUND
    assert title_of(page("admin", "mara", **query)) == NOT_FOUND
    assert words(page("help", "mara", **query)) == words(page("help", "mara"))


@pytest.mark.fault(22)
def test_session_state_cannot_name_somebody_else_under_a_made_up_epoch(shared_house: House) -> None:
    """What the session believes is checked against the store on each run."""
    test = AppTest.from_file(str(ROOT / "pages" / "operations.py"), default_timeout=30)
    test.session_state["signed_in_as"] = (person(shared_house, "ada").id, 7)

    assert title_of(test.run()) == SIGN_IN


@pytest.mark.fault(22)
def test_a_name_that_is_no_sample_account_is_signed_out(shared_house: House) -> None:
    """Neither an account id, nor nothing, nor a made-up name opens anything."""
    for name in (person(shared_house, "mara").id, "", "nobody", "MARA", "mara ", "\0", "mara\0", "' OR 1=1 --"):
        assert title_of(page("history", name)) == SIGN_IN


@pytest.mark.fault(98)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_started_without_its_server_refuses(name: str) -> None:
    """`streamlit run pages/…` has no store, no headers and nobody who could be signed in: a sentence, and nothing else."""
    bootstrap.install(None)

    test = page(name, "mara")

    assert [e.message for e in test.exception] == []
    assert title_of(test) == "This page can't be opened on its own"
    assert "make run" in words(test)


@pytest.fixture
def navigation(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[st.Page]]]:
    """What st.navigation was told in each run: where the menu stands, and the pages."""
    told: list[tuple[str, list[st.Page]]] = []
    original = st.navigation

    def noted(pages: list[st.Page], *, position: Any) -> st.Page:
        told.append((position, pages))
        return original(pages, position=position)

    monkeypatch.setattr(st, "navigation", noted)
    return told


@pytest.mark.fault(1)
def test_the_side_panel_names_only_what_an_account_may_open(shared_house: House, navigation: list[tuple[str, list[st.Page]]]) -> None:
    """Which pages are shown depends on who is there."""
    for who in (None, "mara", "ada", "jude"):
        site(None, who)

    assert [(position, [p.title for p in pages if p.visibility == "visible"]) for position, pages in navigation] == [
        ("hidden", []),
        ("sidebar", ["Chat", "History", "Account", "Help"]),
        ("sidebar", ["Operations", "Account", "Help"]),
        ("sidebar", ["Disputes", "Account", "Help"]),
    ]


@pytest.mark.fault(1)
@pytest.mark.parametrize("who", [None, "mara", "jude", "otto"])
def test_every_page_keeps_its_own_address_beside_the_short_one(
    shared_house: House, navigation: list[tuple[str, list[st.Page]]], monkeypatch: pytest.MonkeyPatch, who: str | None
) -> None:
    """/disputes and / are the same page for Jude; Streamlit alone would tell whoever types /disputes that it does not exist."""
    roles = person(shared_house, who).roles if who else frozenset(Role)
    own = {"", *(name for name in PAGES if roles & PAGE_ROLES[name])} if who else {"", *PAGES}
    for at in ("", *PAGES):
        monkeypatch.setattr(type(st.context), "url", f"https://chat.example/folder/{at}")
        site(None, who)
        assert {p.url_path for p in navigation[-1][1]} == own | {at}


INSIDE = "SELECT secret FROM /var/lib/chatpro where key = 'sk-1234'"
TOLD = re.compile("ZeroDivision|Traceback|SELECT|sk-1234|/var/lib")


@pytest.mark.fault(93)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_fails_tells_nothing_of_the_inside(shared_house: House, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An exception nobody named, on each page: neither its kind nor its words, no traceback, no path reach the screen."""

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError(INSIDE)

    for function in ("panel", "panel_foot", "head"):
        monkeypatch.setattr(parts, function, fails)
    test = page(name, next(ONE_OF_EACH[role] for role in Role if role in PAGE_ROLES[name]))

    assert test.exception, f"{name} draws neither a panel nor a head: nothing failed here"
    assert not TOLD.search(words(test) + " ".join(e.message for e in test.exception))


@pytest.mark.fault(93)
def test_what_stands_in_the_failed_pages_place_is_a_sentence_and_a_number() -> None:
    """What to do, whom to tell, and under which number the log has the rest."""
    test = AppTest.from_function(_failing_page, default_timeout=30).run()

    assert [e.message for e in test.exception] == []
    assert title_of(test) == "This page failed"
    assert re.search(r"tell whoever runs this service the number [0-9a-f]{8}\b", words(test))
    assert not TOLD.search(words(test))


def _failing_page() -> None:
    from chatpro.web import server

    try:
        raise ZeroDivisionError("SELECT secret FROM /var/lib/chatpro where key = 'sk-1234'")
    except ZeroDivisionError as error:
        assert server.on_script_error(error)


@pytest.mark.fault(93)
def test_visitors_are_shown_no_details_by_configuration() -> None:
    """The shipped configuration switches Streamlit's own details off; the server checks it again at its start."""
    config = (ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8")

    assert re.search(r'^showErrorDetails = "none"', config, re.MULTILINE)


def test_every_page_has_its_file() -> None:
    """What the panel leads to exists."""
    assert [name for name in places.PLACES if not Path(places.file_of(name)).is_file()] == []
