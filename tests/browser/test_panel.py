"""The panel's list of chats in Chromium: what a click shows before the server answers, and what a run of the script must not take away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from chatpro.web import panel
from chatpro.web.acts import Heard
from tests.browser.live_server import LiveServer
from tests.browser.patience import SECONDS, settled, until


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    server = LiveServer(harness="panel")
    yield server
    server.stop()


class Person:
    """Somebody at the panel, and the requests and complaints of their browser."""

    def __init__(self, context: BrowserContext, server: LiveServer) -> None:
        self.server, self.context = server, context
        self.page: Page = context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context.on("request", self._requested)
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _requested(self, request: Any) -> None:
        self.requests.append(request.url)

    def leave(self) -> None:
        """Close all of this person's pages."""
        self.context.remove_listener("request", self._requested)
        for page in self.context.pages:
            page.close()
        assert not self.foreign(), "a request left for somewhere else"
        assert not self.complaints

    def open(self, chat: str = "", rows: int | None = None) -> None:
        self.page.goto(self.server.url + (f"/?chat={chat}" if chat else ""))
        expect(self.rows).to_have_count(6 if rows is None else rows)

    @property
    def rows(self) -> Locator:
        return self.page.locator("nav[aria-label=Chats] .row")

    def row(self, title: str) -> Locator:
        return self.rows.filter(has_text=title)

    def link(self, title: str) -> Locator:
        return self.row(title).locator("a")

    def menu_of(self, title: str) -> Locator:
        """Its button, which is seen when the pointer is on the row."""
        self.row(title).hover()
        return self.page.get_by_role("button", name=f"Menu for “{title}")

    @property
    def items(self) -> Locator:
        return self.page.get_by_role("menuitem")

    @property
    def field(self) -> Locator:
        return self.page.get_by_role("textbox", name="New title")

    def titles(self, *titles: str) -> None:
        expect(self.rows.locator(".title")).to_have_text(list(titles))

    def did(self, *acts: list[str]) -> None:
        """What the script was told, in order."""
        until(self.page, lambda: self.server.tell()["did"] == list(acts))

    def rerun(self) -> None:
        """The whole page runs, and the focus stays where it is."""
        runs = self.server.tell()["runs"]
        self.page.evaluate("document.querySelector('.st-key-rerun button').click()")
        expect(self.page.get_by_text(f"run {runs + 1}", exact=True)).to_be_visible()

    def say(self, chat: str, mark: str) -> None:
        """What the page tells the list of an answer."""
        self.page.evaluate("([chat, is]) => document.dispatchEvent(new CustomEvent('chatpro:chat', {detail: {chat, is}}))", [chat, mark])

    def foreign(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.server.url, "data:", "blob:"))]


@pytest.fixture
def person(computer: BrowserContext, server: LiveServer) -> Iterator[Person]:
    server.tell(reset=True)
    person = Person(computer, server)
    yield person
    person.leave()


@contextmanager
def elsewhere(browser: Browser, server: LiveServer, **unusual: Any) -> Iterator[Person]:
    """Somebody at a computer of their own, with something unusual about it."""
    with browser.new_context(**{"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **unusual}) as context:
        context.set_default_timeout(SECONDS * 1_000)
        person = Person(context, server)
        yield person
        person.leave()


@pytest.fixture
def phone(browser: Browser, server: LiveServer) -> Iterator[Person]:
    server.tell(reset=True)
    with elsewhere(browser, server, viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True) as person:
        person.open("bake")
        person.page.get_by_test_id("stExpandSidebarButton").tap()
        expect(person.link("Late invoice")).to_be_in_viewport(ratio=1)
        yield person


TITLES = ("Proposal for Bakehouse website relaunch", "Late invoice", "Scope creep", "Case study outline", "Clean the survey export", "Day rate or fixed price?")


# --- Opening ----------------------------------------------------------------------------------------------------------


def test_a_click_opens_a_chat_without_loading_the_page_anew(person: Person) -> None:
    person.open()
    person.page.evaluate("window.same = true")
    person.link("Late invoice").click()
    expect(person.page.get_by_role("heading", name="late", level=1)).to_be_visible()
    expect(person.link("Late invoice")).to_have_attribute("aria-current", "page")
    expect(person.page).to_have_url(re.compile(r"\?chat=late$"))
    assert person.page.evaluate("window.same")
    person.did(["open", "late"])
    person.link("Late invoice").click()
    person.link("Scope creep").click()
    expect(person.page.get_by_role("heading", name="scope", level=1)).to_be_visible()
    person.did(["open", "late"], ["open", "scope"])


def test_words_in_the_search_field_lead_on_once_and_the_list_stays(person: Person) -> None:
    """Enter searches; blanks alone do not, and keys there are not those of the rows."""
    person.open("bake")
    field = person.page.get_by_role("searchbox", name="Search your chats")
    field.fill("   ")
    field.press("Enter")
    field.fill("deposit %_")
    field.press("Delete")
    field.press("Enter")
    person.did(["search", "deposit %_"])
    person.titles(
        "Proposal for Bakehouse website relaunch", "Late invoice", "Scope creep", "Case study outline", "Clean the survey export", "Day rate or fixed price?"
    )


def test_a_chat_in_its_last_days_says_so_in_its_row(person: Person, server: LiveServer) -> None:
    """The others in their menu only."""
    server.tell(set=["bake", {"soon": True}])
    person.open("bake")
    expect(person.row("Proposal for Bakehouse website relaunch").get_by_text("Deleted on 14 March")).to_be_visible()
    expect(person.page.locator("nav[aria-label=Chats] small:not(:empty)")).to_have_count(1)


def test_enter_on_a_row_opens_it(person: Person) -> None:
    person.open("bake")
    person.link("Scope creep").focus()
    person.page.keyboard.press("Enter")
    expect(person.page.get_by_role("heading", name="scope", level=1)).to_be_visible()
    expect(person.link("Scope creep")).to_be_focused()


def test_the_clicked_row_is_the_open_one_before_the_server_answers(person: Person, server: LiveServer) -> None:
    person.open("bake")
    marked = person.link("Late invoice").evaluate("a => { a.click(); return a.getAttribute('aria-current') }")
    assert marked == "page"
    expect(person.page.locator("nav[aria-label=Chats] [aria-current]")).to_have_count(1)
    expect(person.page.get_by_role("heading", name="late", level=1)).to_be_visible()


@pytest.mark.parametrize("how", [{"modifiers": ["ControlOrMeta"]}, {"button": "middle"}], ids=["ctrl", "middle"])
def test_a_chat_can_be_opened_in_another_tab_and_this_page_stays(person: Person, how: dict[str, Any]) -> None:
    person.open("bake")
    with person.context.expect_page() as opened:
        person.link("Late invoice").click(**how)
    expect(opened.value.get_by_role("heading", name="late", level=1)).to_be_visible()
    expect(person.link("Proposal")).to_have_attribute("aria-current", "page")
    assert person.server.tell()["did"] == []


def test_a_chat_opened_elsewhere_on_the_page_is_marked_by_the_next_run(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").click()
    expect(person.page.get_by_role("heading", name="late", level=1)).to_be_visible()
    person.page.get_by_role("button", name="New chat").click()
    expect(person.page.get_by_role("heading", name="No chat", level=1)).to_be_visible()
    expect(person.page.locator("nav[aria-label=Chats] [aria-current]")).to_have_count(0)


def test_all_chats_leads_to_their_page_and_says_how_many(person: Person, server: LiveServer) -> None:
    server.tell(more=1_200)
    person.open("bake")
    everything = person.page.get_by_role("link", name="All 1,206 chats")
    expect(everything).to_have_attribute("href", "/history")
    person.page.evaluate("window.same = true")
    everything.click()
    expect(person.page.get_by_role("heading", name="All of them")).to_be_visible()
    assert person.page.evaluate("window.same")
    person.page.go_back()
    expect(person.rows).to_have_count(6)
    person.link("Late invoice").click()
    expect(person.page.get_by_role("heading", name="late", level=1)).to_be_visible()
    person.did(["all"], ["open", "late"])


# --- Renaming ---------------------------------------------------------------------------------------------------------


def test_renaming_from_the_menu_with_enter(person: Person) -> None:
    person.open("bake")
    person.menu_of("Late invoice").click()
    person.items.filter(has_text="Rename").click()
    expect(person.field).to_be_focused()
    until(person.page, lambda: person.field.evaluate("e => [e.value.slice(e.selectionStart, e.selectionEnd), e.scrollLeft]") == ["Late invoice", 0])
    person.page.keyboard.type("  Second   reminder ")
    person.page.keyboard.press("Enter")
    expect(person.link("Second reminder")).to_be_focused()
    expect(person.field).to_have_count(0)
    person.did(["rename", "late", "Second reminder"])
    person.rerun()
    person.titles(TITLES[0], "Second reminder", *TITLES[2:])


def test_the_new_title_stands_there_before_the_server_answers(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    person.field.fill("Reminder")
    shown = person.field.evaluate(
        """input => { const row = input.parentNode; input.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
        return row.querySelector(".title").textContent; }"""
    )
    assert shown == "Reminder"
    person.did(["rename", "late", "Reminder"])


def test_f2_renames_and_escape_takes_it_back(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    person.page.keyboard.type("Something else")
    person.page.keyboard.press("Escape")
    expect(person.link("Late invoice")).to_be_focused()
    person.rerun()
    person.titles(*TITLES)
    assert person.server.tell()["did"] == []


@pytest.mark.parametrize("title", ["", "   ", "Late invoice"])
def test_no_title_or_the_same_one_is_no_renaming(person: Person, title: str) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    person.field.fill(title)
    person.page.keyboard.press("Enter")
    expect(person.link("Late invoice")).to_be_focused()
    person.rerun()
    assert person.server.tell()["did"] == []


def test_a_click_elsewhere_saves_and_is_a_click(person: Person, server: LiveServer) -> None:
    """The renaming ends as the button goes down, the click comes as it goes up: two runs, and the second stops the first."""
    server.tell(slow=0.3)
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    person.field.fill("Reminder")
    person.link("Scope creep").click()
    expect(person.page.get_by_role("heading", name="scope", level=1)).to_be_visible()
    person.titles(TITLES[0], "Reminder", *TITLES[2:])
    person.did(["rename", "late", "Reminder"], ["open", "scope"])


def test_keys_in_the_field_are_for_its_text_alone(person: Person) -> None:
    """Not for the row, where Delete deletes the chat, nor for Streamlit, where R runs the page and C clears its cache."""
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    runs = person.server.tell()["runs"]
    person.page.keyboard.type("rcRC r c")
    for key in ("Home", "Delete", "F2", "ArrowDown", "ArrowUp", "End"):
        person.page.keyboard.press(key)
    expect(person.field).to_be_focused()
    person.page.keyboard.press("Enter")
    person.did(["rename", "late", "cRC r c"])
    expect(person.page.get_by_text(f"run {runs + 1}", exact=True)).to_be_visible()
    expect(person.page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("moves", ["in place", "taken out and put back"])
def test_a_run_in_the_middle_of_renaming_loses_nothing(person: Person, server: LiveServer, moves: str) -> None:
    if moves != "in place":  # as browsers do that can't move what has the focus
        person.page.add_init_script("delete Element.prototype.moveBefore")
    person.open("bake")
    person.link("Case study").focus()
    person.page.keyboard.press("F2")
    person.page.keyboard.type("Half a t")
    person.page.keyboard.press("ArrowLeft")
    server.tell(
        groups={
            "Today": [{"id": "case", "title": "Case study, second part", "running": True}, {"id": "new", "title": "A new chat"}],
            "Older": [{"id": "rate", "title": "Day rate"}, {"id": "late", "title": "Late invoice"}],
        }
    )
    person.rerun()
    expect(person.rows).to_have_count(4)
    expect(person.field).to_be_focused()
    person.page.keyboard.type("hen")
    expect(person.field).to_have_value("Half a hent")
    assert server.tell()["did"] == []
    person.page.keyboard.press("Enter")
    person.did(["rename", "case", "Half a hent"])
    person.titles("Half a hent", "A new chat", "Day rate", "Late invoice")


def test_a_chat_that_goes_while_it_is_renamed_leaves_the_focus_to_the_next(person: Person, server: LiveServer) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    server.tell(groups={"Today": [{"id": "bake", "title": "Proposal"}], "Older": [{"id": "rate", "title": "Day rate"}]})
    person.rerun()
    expect(person.link("Day rate")).to_be_focused()
    assert server.tell()["did"] == []


def test_another_window_in_front_does_not_end_the_renaming(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    person.page.keyboard.type("Half a t")
    person.field.evaluate("e => e.dispatchEvent(new FocusEvent('blur'))")
    person.page.keyboard.type("itle")
    expect(person.field).to_have_value("Half a title")
    assert person.server.tell()["did"] == []


def test_enter_that_chooses_a_word_of_an_input_method_does_not_save(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    person.field.evaluate("e => e.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))")
    expect(person.field).to_be_focused()


# --- Deleting ---------------------------------------------------------------------------------------------------------


def test_deleting_from_the_menu_takes_the_row_at_once_and_undo_brings_it_back(person: Person) -> None:
    person.open("bake")
    person.menu_of("Late invoice").click()
    gone = person.items.filter(has_text="Delete").evaluate(
        "e => { const root = e.getRootNode(); e.click(); return [...root.querySelectorAll('.title')].every(t => t.textContent !== 'Late invoice') }"
    )
    assert gone
    expect(person.link("Scope creep")).to_be_focused()
    person.did(["delete", "late"])
    person.page.get_by_role("button", name="Undo").click()
    person.titles(*TITLES)


def test_the_delete_key_moves_the_focus_on_and_at_the_end_back(person: Person) -> None:
    person.open("bake")
    person.link("Clean the survey").focus()
    person.page.keyboard.press("Delete")
    expect(person.link("Day rate")).to_be_focused()
    person.page.keyboard.press("Delete")
    expect(person.link("Case study")).to_be_focused()
    person.titles(*TITLES[:4])
    until(person.page, lambda: person.server.tell()["chats"] == {"Today": ["bake", "late"], "Last 7 days": ["scope", "case"], "Older": []})
    expect(person.page.get_by_role("heading", name="Older")).to_have_count(0)


def test_one_held_key_deletes_one_chat(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    for _ in range(3):
        person.page.keyboard.down("Delete")
    person.page.keyboard.up("Delete")
    person.did(["delete", "late"])
    person.titles(TITLES[0], *TITLES[2:])


def test_after_the_last_chat_a_sentence_has_the_focus(person: Person, server: LiveServer) -> None:
    server.tell(groups={"Today": [{"id": "only", "title": "The only one"}]})
    person.open(rows=1)
    expect(person.page.get_by_text("Your chats will stand here.")).to_be_hidden()
    person.link("The only one").focus()
    person.page.keyboard.press("Delete")
    expect(person.page.get_by_text("Your chats will stand here.")).to_be_focused()
    expect(person.rows).to_have_count(0)
    until(person.page, lambda: server.tell()["chats"] == {"Today": []})


def test_chats_deleted_in_a_row_are_all_deleted(person: Person, server: LiveServer) -> None:
    """Each delete stops the run of the one before, which may not have begun, or may be in the middle of its callback."""
    server.tell(slow=0.2)
    person.open("bake")
    person.link("Late invoice").focus()
    for _ in range(4):
        person.page.keyboard.press("Delete")
    person.titles(TITLES[0], TITLES[5])
    person.did(*(["delete", chat] for chat in ("late", "scope", "case", "csv")))
    assert server.tell()["at_once"] == 1
    person.rerun()
    person.titles(TITLES[0], TITLES[5])


def test_what_the_server_refuses_stands_there_again(person: Person, server: LiveServer) -> None:
    """The data are the same as before, and still they are news."""
    server.tell(refuse=True)
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("Delete")
    person.did(["delete", "late"])
    person.titles(*TITLES)
    person.link("Late invoice").focus()
    person.page.keyboard.press("F2")
    person.field.fill("Reminder")
    person.page.keyboard.press("Enter")
    person.did(["delete", "late"], ["rename", "late", "Reminder"])
    person.titles(*TITLES)


def test_what_was_done_is_done_once(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("Delete")
    person.did(["delete", "late"])
    expect(person.page.get_by_text("“late” was deleted.")).to_be_visible()
    person.page.get_by_role("button", name="Undo").click()
    person.titles(*TITLES)
    person.link("Scope creep").click()
    person.did(["delete", "late"], ["open", "scope"])


# --- Marks ------------------------------------------------------------------------------------------------------------


def test_marks_come_with_the_data(person: Person, server: LiveServer) -> None:
    server.tell(set=["late", {"unread": True}])
    server.tell(set=["scope", {"running": True}])
    server.tell(set=["bake", {"unread": True}])
    person.open("bake")
    expect(person.page.get_by_role("link", name="Late invoice new answer", exact=True)).to_be_visible()
    expect(person.page.get_by_role("link", name="Scope creep being written", exact=True)).to_be_visible()
    expect(person.page.get_by_role("link", name=TITLES[0], exact=True)).to_be_visible()
    until(person.page, lambda: person.row("Late invoice").locator("i").evaluate("e => e.getBoundingClientRect().width") > 0)
    for title, weight in (("Proposal", "600"), ("Late invoice", "600"), ("Scope creep", "400")):
        expect(person.row(title).locator(".title")).to_have_css("font-weight", weight)


def test_marks_change_by_the_pages_event_without_a_run(person: Person) -> None:
    person.open("bake")
    runs = person.server.tell()["runs"]
    for mark, name in (("running", "Late invoice being written"), ("unread", "Late invoice new answer"), ("idle", "Late invoice")):
        person.say("late", mark)
        expect(person.page.get_by_role("link", name=name, exact=True)).to_be_visible()
    person.say("late", "nonsense")
    person.say("nobody", "running")
    expect(person.page.get_by_role("link", name="Late invoice", exact=True)).to_be_visible()
    assert person.server.tell()["runs"] == runs


def test_the_open_chat_is_never_unread_and_not_afterwards_either(person: Person) -> None:
    person.open("bake")
    person.say("bake", "unread")
    person.say("late", "unread")
    expect(person.page.get_by_role("link", name=TITLES[0], exact=True)).to_be_visible()
    person.link("Late invoice").click()
    expect(person.page.get_by_role("heading", name="late", level=1)).to_be_visible()
    person.link("Scope creep").click()
    for title in TITLES[:2]:
        expect(person.page.get_by_role("link", name=title, exact=True)).to_be_visible()


def test_the_next_data_win_over_earlier_events(person: Person, server: LiveServer) -> None:
    person.open("bake")
    person.say("late", "running")
    person.say("case", "running")
    expect(person.page.get_by_role("link", name="Late invoice being written")).to_be_visible()
    server.tell(set=["late", {"unread": True}])
    person.rerun()
    expect(person.page.get_by_role("link", name="Late invoice new answer")).to_be_visible()
    expect(person.page.get_by_role("link", name="Case study outline", exact=True)).to_be_visible()


def test_the_dot_stands_still_for_those_who_asked_for_it(browser: Browser, server: LiveServer) -> None:
    server.tell(reset=True)
    server.tell(set=["scope", {"running": True}])
    for motion, name in (("reduce", "none"), ("no-preference", "pulse")):
        with elsewhere(browser, server, reduced_motion=motion) as person:
            person.open("bake")
            expect(person.row("Scope creep").locator("i")).to_have_css("animation-name", name)


# --- The menu ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["Enter", " ", "ArrowDown"])
def test_the_menu_by_keyboard(person: Person, key: str) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    person.page.keyboard.press("Tab")
    more = person.page.get_by_role("button", name="Menu for “Late invoice”")
    expect(more).to_be_focused()
    expect(more).to_have_attribute("aria-expanded", "false")
    expect(more).to_have_attribute("aria-haspopup", "menu")
    person.page.keyboard.press(key)
    expect(more).to_have_attribute("aria-expanded", "true")
    expect(person.items).to_have_text(["editRename", "deleteDelete"])
    expect(person.items.first).to_be_focused()
    person.page.keyboard.press("ArrowDown")
    expect(person.items.last).to_be_focused()
    person.page.keyboard.press("ArrowDown")
    expect(person.items.first).to_be_focused()
    person.page.keyboard.press("ArrowUp")
    expect(person.items.last).to_be_focused()
    person.page.keyboard.press("Escape")
    expect(more).to_be_focused()
    expect(more).to_have_attribute("aria-expanded", "false")
    expect(person.items).to_have_count(0)


def test_tab_or_a_click_elsewhere_closes_the_menu(person: Person) -> None:
    person.open("bake")
    more = person.menu_of("Late invoice")
    more.click()
    expect(person.items.first).to_be_focused()
    person.page.keyboard.press("Tab")
    expect(person.items).to_have_count(0)
    expect(person.link("Scope creep")).to_be_focused()
    person.menu_of("Late invoice").click()
    expect(person.items).to_have_count(2)
    person.page.get_by_role("heading", name="bake").click()
    expect(person.items).to_have_count(0)
    person.menu_of("Late invoice").click()
    expect(person.items).to_have_count(2)
    more.click()
    expect(person.items).to_have_count(0)


def test_a_run_leaves_the_open_menu_open_and_says_what_is_new(person: Person, server: LiveServer) -> None:
    person.open("bake")
    person.menu_of("Late invoice").click()
    person.page.keyboard.press("ArrowDown")
    assert person.page.get_by_text("Deleted on 15 March").count() == 0
    server.tell(
        groups={
            "Today": [{"id": "new", "title": "A new chat"}, {"id": "bake", "title": "Proposal"}],
            "Older": [{"id": "late", "title": "Late", "note": "Deleted on 15 March"}],
        }
    )
    person.rerun()
    expect(person.rows).to_have_count(3)
    expect(person.items.last).to_be_focused()
    expect(person.page.get_by_text("Deleted on 15 March")).to_be_visible()
    expect(person.page.get_by_role("menu", name="Menu for “Late”")).to_be_visible()
    person.page.keyboard.press("Enter")
    person.did(["delete", "late"])


def test_the_button_shows_on_the_open_row_and_where_pointer_or_focus_is(person: Person) -> None:
    person.open("bake")
    person.page.mouse.move(900, 500)
    for title, shows in (("Proposal", "1"), ("Late invoice", "0")):
        expect(person.row(title).locator(".more")).to_have_css("opacity", shows)
    person.row("Late invoice").hover()
    expect(person.row("Late invoice").locator(".more")).to_have_css("opacity", "1")
    person.link("Scope creep").focus()
    expect(person.row("Scope creep").locator(".more")).to_have_css("opacity", "1")


def test_arrows_lead_from_row_to_row(person: Person) -> None:
    person.open("bake")
    person.link("Late invoice").focus()
    for key, title in (("ArrowDown", "Scope creep"), ("ArrowUp", "Late invoice"), ("End", "Day rate"), ("ArrowDown", "Day rate"), ("Home", "Proposal")):
        person.page.keyboard.press(key)
        expect(person.link(title)).to_be_focused()


# --- Strangers' text, much of it, and little room ---------------------------------------------------------------------


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "title", ["<img src=x onerror=window.hit=1><b>bold</b>", "**bold** :red[x] :material/home: $x$ [a](javascript:hit)", "\u202egnp.exe &amp; \u2066x"]
)
def test_a_title_is_text_whatever_it_says(person: Person, server: LiveServer, title: str) -> None:
    server.tell(set=["late", {"title": title, "note": "<i>note</i>"}])
    person.open("bake")
    words = person.rows.nth(1).locator(".title")
    until(person.page, lambda: words.text_content() == title)
    expect(words).to_have_attribute("dir", "auto")
    expect(person.rows.nth(1).locator("button")).to_have_attribute("aria-label", f"Menu for “{title}”")
    person.rows.nth(1).hover()
    person.rows.nth(1).locator("button").click()
    expect(person.page.get_by_text("<i>note</i>")).to_be_visible()
    assert person.page.locator("nav[aria-label=Chats] :is(img, b, script)").count() == 0
    assert person.page.evaluate("window.hit") is None


def test_an_id_stays_in_its_place_in_the_address(person: Person, server: LiveServer) -> None:
    server.tell(groups={"Today": [{"id": "a&b=c/#d", "title": "Odd"}]})
    person.open(rows=1)
    expect(person.link("Odd")).to_have_attribute("href", "/?chat=a%26b%3Dc%2F%23d")


def test_five_hundred_chats_are_drawn_and_changed_one_by_one(person: Person, server: LiveServer) -> None:
    chats = [{"id": f"c{n}", "title": f"Chat number {n}"} for n in range(500)]
    server.tell(groups={"Today": chats[:20], "Older": chats[20:]})
    person.open("c7", rows=500)
    person.page.evaluate(
        """() => { window.changes = 0; const list = document.querySelector('[data-testid=stBidiComponentIsolated]').shadowRoot;
        const all = {subtree: true, childList: true, attributes: true, characterData: true};
        new MutationObserver(seen => { window.changes += seen.length }).observe(list, all); }"""
    )
    server.tell(set=["c300", {"title": "Another title"}])
    person.rerun()
    expect(person.rows.nth(300)).to_contain_text("Another title")
    assert person.page.evaluate("window.changes") <= 4, "only what changed is touched"
    server.tell(groups={"Today": [chats[400], *chats[:20]], "Older": chats[20:400] + chats[401:]})
    person.rerun()
    expect(person.rows.first).to_contain_text("Chat number 400")
    assert person.page.evaluate("window.changes") <= 16
    server.tell(groups={"Today": chats[1:20], "Older": [chats[0], *chats[20:]]})
    person.rerun()
    expect(person.rows.first).to_contain_text("Chat number 1")
    assert person.page.evaluate("window.changes") <= 32
    expect(person.rows).to_have_count(500)
    person.link("Chat number 499").click()
    expect(person.page.get_by_role("heading", name="c499", level=1)).to_be_visible()


def test_a_long_title_ends_in_dots_and_can_be_read_whole(person: Person) -> None:
    person.open("late")
    words = person.row("Proposal").locator(".title")
    until(person.page, lambda: words.evaluate("e => e.scrollWidth > e.clientWidth && getComputedStyle(e).textOverflow") == "ellipsis")
    person.row("Proposal").hover()
    expect(words).to_have_attribute("title", TITLES[0])
    person.row("Scope creep").hover()
    expect(person.row("Scope creep").locator(".title")).not_to_have_attribute("title", re.compile(""))

    def fits() -> None:
        width, over = person.page.get_by_test_id("stSidebarContent").evaluate("e => [e.clientWidth, e.scrollWidth - e.clientWidth]")
        assert width <= 288 and over == 0

    settled(person.page, fits)


def test_on_a_phone_everything_is_as_large_as_a_finger_and_the_menu_is_on_the_screen(phone: Person) -> None:
    for target in (phone.link("Late invoice"), phone.row("Late invoice").locator(".more")):
        expect(target).to_be_in_viewport()
        settled(phone.page, partial(at_least, 44, target))
    for title in ("Proposal", "Day rate"):
        phone.row(title).locator(".more").tap()
        expect(phone.items.last).to_be_in_viewport(ratio=1)
        settled(phone.page, lambda: on_the_screen(phone))
        phone.page.keyboard.press("Escape")
    phone.page.wait_for_function("() => document.documentElement.scrollWidth <= 320")


def at_least(pixels: int, target: Locator) -> None:
    box = target.bounding_box()
    assert box and box["height"] >= pixels and box["width"] >= pixels


def on_the_screen(phone: Person) -> None:
    box = phone.page.locator(".menu").bounding_box()
    assert box and box["x"] >= 8 and box["x"] + box["width"] <= 312 and box["y"] >= 8 and box["y"] + box["height"] <= 632


def test_on_a_phone_the_field_does_not_make_the_page_zoom(phone: Person) -> None:
    phone.row("Late invoice").locator(".more").tap()
    phone.items.first.tap()
    until(phone.page, lambda: phone.field.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 16)


def test_on_a_phone_a_chosen_chat_is_seen_and_not_covered(phone: Person) -> None:
    phone.link("Late invoice").tap()
    expect(phone.page.get_by_role("heading", name="late", level=1)).to_be_visible()
    expect(phone.link("Late invoice")).not_to_be_in_viewport()


def test_with_a_mouse_rows_are_as_high_as_a_pointer_needs(person: Person) -> None:
    person.open("bake")
    for target in (person.link("Late invoice"), person.row("Late invoice").locator(".more")):
        settled(person.page, partial(at_least, 32, target))


# --- The component and its two halves ---------------------------------------------------------------------------------


BARE = """async path => {
  const draw = (await import(path)).default, told = [];
  let host, root, clean;
  const anew = () => { host?.remove(); clean?.(); host = document.body.appendChild(document.createElement("div")); root = host.attachShadow({mode: "open"}); };
  const chat = title => ({id: title, title, note: "", running: false, unread: false});
  const show = (...titles) => clean = draw({
    parentElement: root, setTriggerValue: (name, acts) => told.push(acts.map(act => `${act.is} ${act.id}`)),
    data: {groups: [{heading: "Today", chats: titles.map(chat)}], open: null, more: 0, address: "/", line: "bare", heard: 0}});
  const titles = () => [...root.querySelectorAll(".title")].map(title => title.textContent);
  const key = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  anew();
  STEPS
}"""
"""A second list on the page, without Streamlit between it and the test."""


def bare(person: Person, steps: str) -> Any:
    return person.page.evaluate(BARE.replace("STEPS", steps), panel.MODULES[0])


def test_a_call_that_was_overtaken_does_not_make_a_second_list(person: Person) -> None:
    """Streamlit calls for each data, and cleans up after a call that the next one overtook though the list is still there."""
    person.open("bake")
    assert bare(person, "const first = show('one'); show('two'); first(); show('three'); return titles()") == ["three"]


def test_a_list_that_streamlit_makes_anew_goes_on_with_the_renaming(person: Person) -> None:
    """It does so at times, when an element comes or goes above the list."""
    person.open("bake")
    state = bare(
        person,
        """show("one", "two"); const link = root.querySelectorAll("a")[1]; link.focus(); key(link, "F2");
        const old = root.querySelector("nav input"); old.value = "Half a t"; old.setSelectionRange(5, 6);
        anew(); await new Promise(done => setTimeout(done)); show("one", "two");
        const {value, selectionStart, selectionEnd} = root.activeElement;
        key(root.activeElement, "Enter"); return [value, selectionStart, selectionEnd, titles(), told.flat()]""",
    )
    assert state == ["Half a t", 5, 6, ["one", "Half a t"], ["rename two"]]


def test_what_no_run_answers_is_told_twice_more_and_then_taken_back(browser: Browser, server: LiveServer) -> None:
    server.tell(reset=True)
    with elsewhere(browser, server) as person:
        person.page.clock.install()
        person.open("bake")
        bare(
            person,
            """show("one", "two", "three"); const links = root.querySelectorAll("a"); links[1].click(); key(links[0], "Delete");
            window.look = () => [titles(), told.map(acts => acts.join(", ")), root.querySelectorAll("[aria-current]").length]""",
        )
        told = ["open two", "open two, delete one"]
        assert person.page.evaluate("look()") == [["two", "three"], told, 1]
        person.page.clock.run_for(6_100)
        told.append("delete one")
        assert person.page.evaluate("look()") == [["two", "three"], told, 0], "a chat is not opened late"
        person.page.clock.run_for(12_100)
        told.append("delete one")
        assert person.page.evaluate("look()") == [["two", "three"], told, 0]
        person.page.clock.run_for(60_000)
        assert person.page.evaluate("look()") == [["one", "two", "three"], told, 0]


def test_the_program_is_served_for_ever_under_its_version_and_no_other(server: LiveServer) -> None:
    status, headers, body = server.get(panel.MODULES[0])
    assert status == 200 and "immutable" in headers["cache-control"] and b"setTriggerValue" in body
    assert server.get("/panel/0000/panel.js")[0] == 404
    assert server.get(panel.MODULES[0].replace("panel.js", "panel.py"))[0] == 404


@pytest.mark.parametrize("act", [None, 7, {}, {"n": "1", "is": "delete", "id": "a"}, {"n": 1, "is": "drop"}, {"n": 1, "is": "delete", "id": ["a"]}])
def test_what_no_list_of_ours_would_say_does_nothing(act: Any) -> None:
    def called(*words: str) -> None:
        pytest.fail(f"called with {words}")

    Heard().take([act], partial(panel._do, on_open=called, on_rename=called, on_delete=called, on_all=called, on_search=called))
