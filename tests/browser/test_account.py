"""The account page in a real browser: what it looks like, and how an account is closed while others of its tabs are open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.axe import faults_of
from tests.browser.patience import settled, until
from tests.serving import Server
from tests.upstream import Reply, Upstream, said

SIGN_IN = "Choose a sample account"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(models=("gpt-4",)) as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, upstream.address, CHATPRO_MODELS="gpt-4", CHATPRO_SHUTDOWN_SECONDS="0.5") as started:
        yield started
        assert "page failed" not in started.log.read_text()


def close(page: Any, typed: str) -> None:
    page.get_by_text("What closing does, and how").click()
    page.get_by_label(re.compile("to confirm")).fill(typed)
    page.get_by_role("button", name="Close my account for good").click()


@pytest.mark.fault(5, 113)
def test_closing_signs_out_every_open_tab_and_stops_what_is_written(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """A chat in which an answer is being written, the history, the help, on computers of their own: all show the sign-in page, without a click."""
    never = Event()
    upstream.queue(Reply((said("Half a sentence "), never)))
    chat, history, help_, account = tabs = [new_page() for _ in range(4)]
    chat.goto(f"{server.url}/?as=mara")
    chat.get_by_role("textbox", name=re.compile("Message|Write", re.I)).first.fill("Zanzibarmarker, go on")
    chat.keyboard.press("Enter")
    expect(chat.get_by_text("Half a sentence")).to_be_visible()
    for page, name in ((history, "history"), (help_, "help"), (account, "account")):
        page.goto(f"{server.url}/{name}?as=mara")
    expect(history.get_by_text("Zanzibarmarker").first).to_be_visible()
    expect(help_.get_by_role("heading", name="How long it is kept")).to_be_visible()

    close(account, "close my account")

    expect(account.get_by_role("heading", name="Your account is closed")).to_be_visible()
    for page in tabs[:3]:
        expect(page.get_by_role("heading", name=SIGN_IN)).to_be_visible()
        settled(page, lambda page=page: _nothing_of_mara(page))  # type: ignore[misc]
    until(chat, lambda: upstream.running == 0)
    account.get_by_role("button", name="Go to sign-in").click()
    expect(account.get_by_role("heading", name=SIGN_IN)).to_be_visible()
    account.goto(f"{server.url}/account?as=mara")
    expect(account.get_by_role("heading", name=SIGN_IN)).to_be_visible()
    assert account.get_by_text("Mara").count() == 0
    never.set()


def _nothing_of_mara(page: Any) -> None:
    assert page.get_by_text("Zanzibarmarker").count() == 0 and page.get_by_text("Half a sentence").count() == 0
    assert page.get_by_text("Sample account: Mara").count() == 0


@pytest.mark.fault(5, 6)
@pytest.mark.parametrize(("who", "name", "heading"), [("jude", "disputes", "Disputes"), ("lea", "chat", "Before your words go to an AI model")])
def test_pages_without_a_chat_hear_of_it_too(server: Server, new_page: Callable[..., Any], who: str, name: str, heading: str) -> None:
    """Staff, and somebody who was not asked for a yes yet."""
    tab, account = new_page(), new_page()
    tab.goto(f"{server.url}/{name}?as={who}")
    expect(tab.get_by_role("heading", name=heading)).to_be_visible()
    account.goto(f"{server.url}/account?as={who}")

    close(account, "Close my account")

    expect(account.get_by_role("heading", name="Your account is closed")).to_be_visible()
    expect(tab.get_by_role("heading", name=SIGN_IN)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_fault_on_a_phone_and_fits_it(server: Server, new_page: Callable[..., Any], scheme: str) -> None:
    """With everything unfolded, 320 pixels wide, and on the page after closing."""
    who = {"light": "ines", "dark": "bruno"}[scheme]
    page = new_page(viewport={"width": 320, "height": 900}, color_scheme=scheme, reduced_motion="reduce", has_touch=True)
    page.goto(f"{server.url}/account?as={who}")
    expect(page.get_by_role("img", name=re.compile("Tokens used each month"))).to_be_visible()
    for summary in page.locator('[data-testid="stExpander"] summary').all():
        summary.click()
    expect(page.get_by_role("button", name="Close my account for good")).to_be_visible()

    assert faults_of(page) == []
    assert page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth") == 320
    menu = page.get_by_test_id("stMainMenu").bounding_box()
    assert menu is not None and menu["x"] + menu["width"] <= 320, "light or dark is chosen there"
    name = "() => getComputedStyle(document.querySelector('[data-testid=stHeader] :has(>.stLogo)'), '::after').content"
    assert page.evaluate(name) == '"Chat Pro"', "beside the mark on every page, not on the first one alone"
    page.get_by_label(re.compile("to confirm")).fill("close my account")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Your account is closed")).to_be_visible()
    assert faults_of(page) == []


def test_a_browser_that_keeps_nothing_says_so_and_goes_on(server: Server, new_page: Callable[..., Any]) -> None:
    """Storage forbidden for the site: nothing else on the page may fail for it."""
    page = new_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })")
    page.goto(f"{server.url}/account?as=otto")
    expect(page.get_by_role("button", name="As the system", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Dark", exact=True).click()
    until(page, lambda: "keeps no choice" in page.evaluate("() => getComputedStyle(document.querySelector('.looks'), '::after').content"))


def test_light_or_dark_is_chosen_once_for_all_pages_also_in_streamlits_own_menu(server: Server, new_page: Callable[..., Any]) -> None:
    """Streamlit keeps it for the one address at which it was loaded; here the newest choice holds everywhere, after a reload at the latest."""
    page = new_page()

    def shown() -> Any:
        return page.evaluate("() => { const app = document.querySelector('[data-testid=stApp]'); return app && getComputedStyle(app).colorScheme; }")

    def chosen(name: str) -> None:
        expect(page.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")

    page.goto(f"{server.url}/account?as=otto")
    chosen("As the system")
    page.get_by_role("button", name="Dark", exact=True).click()
    until(page, lambda: shown() == "dark")
    chosen("Dark")
    page.goto(f"{server.url}/history")
    until(page, lambda: shown() == "dark")

    page.evaluate("""() => localStorage.setItem("stActiveTheme-/history-v2", '"Light"')""")  # as its menu does
    page.goto(f"{server.url}/account")
    chosen("Light")
    until(page, lambda: shown() == "light")
    page.get_by_role("button", name="As the system", exact=True).click()
    chosen("As the system")
