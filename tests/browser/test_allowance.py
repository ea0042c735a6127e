"""The whole month of one person, in two tabs, with a clock that the test moves: from the first message to the confirmed last, the end and the renewal.

Set CHATPRO_TEST_SHOTS to a folder to have a picture of each warning put there.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.axe import faults_of
from tests.browser.patience import until
from tests.serving import Server
from tests.upstream import HANG, Reply, Upstream, answer, said

APP = Path(__file__).with_name("clock_harness") / "app.py"
LONG = "The offer stands until Friday. " * 180  # some 1,100 tokens
UNUSED = re.compile(r"(?<![\d,])0 of 12,000 tokens")
SHOTS = os.environ.get("CHATPRO_TEST_SHOTS")


NEWEST_SAID = ".st-key-conversation>:last-child .said"


class Clocked(Server):
    """The real server with a clock that can be moved."""

    def __init__(self, folder: Path, upstream: str, **settings: str) -> None:
        super().__init__(folder, upstream, app=APP, CHATPRO_MODELS="gpt-4", CHATPRO_SHUTDOWN_SECONDS="0.5", **settings)

    def now(self) -> datetime:
        return self.forward()

    def forward(self, **delta: float) -> datetime:
        return datetime.fromisoformat(self._tell("clock", forward=timedelta(**delta).total_seconds())["now"])

    def grant(self, who: str, allowance: int | None) -> None:
        """An admin grants this figure from now on; None ends the plan."""
        self._tell("grant", who=who, allowance=allowance)

    def _tell(self, what: str, **words: Any) -> Any:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{what}", data=json.dumps(words).encode())) as response:
            return json.load(response)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(models=("gpt-4",), otherwise=answer(LONG, usage=None)) as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Clocked]:
    """Small months, so that one is over after a dozen messages."""
    with Clocked(tmp_path_factory.mktemp("server"), upstream.address, CHATPRO_ALLOWANCE_TOKENS="12000") as started:
        yield started
        assert "page failed" not in started.log.read_text()


class Tab:
    """One tab of one person."""

    def __init__(self, page: Any, server: Server, name: str, at: str = "") -> None:
        self.page, self.server = page, server
        page.goto(f"{server.url}/{at}?as={name}")

    @property
    def box(self) -> Any:
        return self.page.locator("[data-testid=stChatInput] textarea")

    def write(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def ask(self, text: str) -> None:
        """Write, and wait for the answer's receipt."""
        before = self.newest
        self.write(text)
        expect(self.page.locator(NEWEST_SAID)).to_contain_text(text)
        until(self.page, lambda: self.newest not in (None, before))
        self.rest()

    @property
    def newest(self) -> Any:
        """The newest answer that has ended and has its receipt."""
        return self.page.evaluate("() => document.querySelector('.st-key-newest .deeds:has(.receipt)')?.dataset.entry ?? null")

    def new_chat(self) -> None:
        self.page.get_by_role("button", name="New chat").click()
        self.page.get_by_role("heading", name=re.compile("What are you working on")).wait_for()

    def rest(self) -> None:
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")

    def awake(self) -> None:
        """Wait until the page's own program counts the time: until then what is read is what the server wrote."""
        self.page.locator("html[data-hands]").wait_for(state="attached")
        self.rest()

    def notice(self, kind: str) -> Any:
        return self.page.locator(f"[class*=st-key-notice_{kind}_]")

    @property
    def used(self) -> int:
        """What the meter shows, in tokens."""
        return number(self.page.locator(".meter .sub").first.inner_text().split("\n")[-1])

    @property
    def share(self) -> int:
        return int(self.page.locator(".meter .top span").first.inner_text().rstrip("%"))

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.wait_for_timeout(400)
            self.page.screenshot(path=f"{SHOTS}/{name}.png")


def number(text: str) -> int:
    found = re.search(r"[\d,]+", text)
    assert found is not None
    return int(found[0].replace(",", ""))


@pytest.mark.fault(47)
def test_a_changed_entitlement_reaches_the_open_page_and_a_needless_yes_is_told(server: Clocked, new_page: Callable[..., Any]) -> None:
    """Lowered, raised, ended, resumed, without a click; and what was called the last and is not any more is sent as an ordinary message, and said."""
    tab = Tab(new_page(), server, "tomas")
    page = tab.page
    tab.box.wait_for()
    tab.rest()
    used = tab.used
    server.grant("tomas", used + 1_700)
    expect(tab.notice("last")).to_contain_text("Your next message is the last one until")
    expect(tab.notice("last")).to_contain_text("It can use up to 1,700 tokens")

    tab.write("Is this really the last")
    expect(page.get_by_role("button", name="Send as the last")).to_be_visible()
    server.grant("tomas", used + 50_000)
    expect(page.locator(".meter .sub").first).to_contain_text(f"of {used + 50_000:,} tokens")
    page.get_by_role("button", name="Send as the last").click()
    expect(page.get_by_text("This was not your last message after all.")).to_be_visible()
    expect(page.locator(".st-key-newest .receipt")).to_be_attached()

    server.grant("tomas", None)
    expect(page.get_by_text("Freelancer Plus has ended.").first).to_be_visible()
    expect(tab.box).to_have_count(0)
    server.grant("tomas", used + 50_000)
    expect(tab.box).to_be_visible()


def test_an_answer_that_has_less_room_says_so_while_it_is_written(server: Clocked, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    tab = Tab(new_page(), server, "bruno")
    tab.box.wait_for()
    tab.rest()
    server.grant("bruno", tab.used + 2_300)
    upstream.queue(Reply([said("Half of "), HANG]))
    tab.write("Word the handover")
    less = tab.page.get_by_text("This answer had less room than usual, so that it fitted into what was left of the month.")
    expect(tab.page.locator(".st-key-msg_answer_live .answer")).to_contain_text("Half of")
    expect(less).to_be_visible()
    tab.page.get_by_role("button", name="Stop").click()
    expect(tab.page.get_by_text("This answer was stopped.")).to_be_visible()
    expect(less).to_have_count(1)


def test_a_fresh_chat_takes_along_what_was_picked_and_sends_nothing(server: Clocked, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """By mouse and keyboard; the draft is there after a reload, and going back leads to where it was picked."""
    tab = Tab(new_page(), server, "mara")
    page = tab.page
    server.grant("mara", 500_000)
    tab.box.wait_for()
    tab.ask("Tell me all about it")
    upstream.queue(answer("In short: yes.", usage=None))
    tab.ask("And in short")
    expect(
        page.get_by_text(re.compile(r"More than half of this was earlier conversation, sent again. A fresh chat saves about 1,\d\d\d tokens."))
    ).to_be_visible()
    page.get_by_role("button", name="Start one").click()
    before = len(upstream.asked)
    picks = page.get_by_role("button", name="Take along")
    expect(picks).to_have_count(4)
    picks.last.click()
    expect(page.get_by_text("1 message picked, about")).to_be_visible()
    picks.nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 messages picked, about")).to_be_visible()
    page.get_by_role("button", name="Start the new chat").click()
    draft = re.compile(r"^From an earlier chat\.\n\nI wrote:\n> And in short\n\nYou answered:\n> In short: yes\.\n\n")
    expect(tab.box).to_have_value(draft)
    page.reload()
    expect(tab.box).to_have_value(draft)
    page.go_back()
    expect(page.locator(NEWEST_SAID)).to_contain_text("And in short")
    expect(page.get_by_role("button", name="Take along")).to_have_count(0)
    assert len(upstream.asked) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state_of_the_allowance(server: Clocked, upstream: Upstream, new_page: Callable[..., Any], scheme: str) -> None:
    """75 %, 95 %, picking for a fresh chat, the next one is the last, asked before it, used up, its receipts."""
    who = {"light": "mara", "dark": "tomas"}[scheme]  # each uses up a month
    tab = Tab(new_page(color_scheme=scheme, reduced_motion="reduce"), server, who)
    page = tab.page
    tab.box.wait_for()
    tab.rest()
    server.grant(who, tab.used + 50_000)
    used, found = tab.used, {}
    server.grant(who, used * 100 // 76)
    expect(tab.notice("75")).to_be_visible()
    found["75"] = faults_of(page)
    server.grant(who, used * 100 // 96)
    expect(tab.notice("95")).to_contain_text("95 % of this month is used. About")
    found["95"] = faults_of(page)
    tab.shot(f"95-{scheme}")
    server.grant(who, used + 30_000)
    page.locator("nav[aria-label=Chats] a").first.click()
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("button", name="Take parts into a new chat").click()
    page.get_by_role("button", name="Take along").last.click()
    expect(page.get_by_text("1 message picked")).to_be_visible()
    found["picking"] = faults_of(page)
    page.get_by_role("button", name="Cancel").click()
    server.grant(who, used + 1_700)
    expect(tab.notice("last")).to_be_visible()
    found["last"] = faults_of(page)
    tab.write("And the last one")
    expect(page.get_by_role("button", name="Send as the last")).to_be_visible()
    found["asked"] = faults_of(page)
    upstream.queue(answer("It was.", usage=None))
    page.get_by_role("button", name="Send as the last").click()
    expect(page.locator(".blocked")).to_be_visible()
    tab.rest()
    found["used up"] = faults_of(page)
    page.locator("[data-act=receipts]").first.click()
    page.get_by_role("dialog").wait_for()
    found["receipts"] = faults_of(page)
    assert {state: faults for state, faults in found.items() if faults} == {}


# The last one here: it moves the clock by a month for everybody on this server.


@pytest.mark.fault(45, 46)
def test_the_month_of_one_person_in_two_tabs(server: Clocked, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """Each warning once, in both tabs without a click; the last message told, confirmed, and the last; nothing lost at the end; and a renewal that
    opens the composer by itself."""
    page = new_page(timezone_id="Europe/Paris")
    first = Tab(page, server, "lea")
    page.get_by_role("button", name="Yes, use AI").click()
    first.box.wait_for()
    expect(page.locator(".meter .sub").first).to_contain_text("Renews each month on the day of your first message")
    second = Tab(page.context.new_page(), server, "lea", "history")
    second.page.get_by_role("heading", name="History", level=1).wait_for()

    # To 75 %: said in both tabs, put away in the second, gone from both, there after no reload.
    sent = 0
    while first.share < 75:
        before = first.used
        if first.share > 50:  # a fresh chat and a short answer: no step over all that is to be seen
            first.new_chat()
            upstream.queue(answer("Yes.", usage=None))
        first.ask(f"Message {sent} about the offer")
        until(page, lambda before=before: first.used > before)  # type: ignore[misc]
        sent += 1
    expect(first.notice("75")).to_contain_text("75 % of this month is used. About")
    expect(second.notice("75")).to_contain_text("75 % of this month is used.")
    expect(second.page.locator(".meter .top").first).to_contain_text(f"{first.share}%")
    first.shot("1-at-75")
    second.page.get_by_role("button", name="OK", exact=True).click()
    expect(second.notice("75")).to_have_count(0)
    expect(first.notice("75")).to_have_count(0)
    page.reload()
    first.box.wait_for()
    first.rest()
    expect(first.notice("75")).to_have_count(0)

    # To the last message: 95 % and "the next is the last" may fall due at once, and the strongest is what is shown.
    while not first.notice("last").count() and not page.get_by_role("button", name="Send as the last").count():
        before, newest = first.used, first.newest
        first.write(f"Message {sent} about the offer")
        until(page, lambda newest=newest: page.locator(".st-key-last_yes").count() or first.newest not in (None, newest))  # type: ignore[misc]
        first.rest()
        until(page, lambda before=before: first.used > before or first.notice("last").count())  # type: ignore[misc]
        sent += 1
    first.shot("2-the-next-is-the-last")

    # Asked for, kept writing, asked again, confirmed: it is answered, and it was the last.
    first.write("How do I word the handover")
    ask = first.notice("last")
    expect(ask).to_contain_text("This is your last message until")
    expect(ask).to_contain_text("can use all that is left")
    expect(ask).to_contain_text("what it leaves expires. Afterwards you can still read, search and export your chats.")
    expect(first.box).to_have_value("How do I word the handover")
    first.shot("3-asked-before-the-last")
    page.get_by_role("button", name="Keep writing").click()
    expect(page.get_by_role("button", name="Send as the last")).to_have_count(0)
    asked = len(upstream.asked)
    first.write("How do I word the handover")
    page.get_by_role("button", name="Send as the last").dblclick()
    blocked = page.locator(".blocked")
    expect(blocked).to_contain_text("This month's allowance is used up.")
    assert len(upstream.asked) == asked + 1
    first.shot("4-used-up")
    second.page.get_by_role("link", name="Account", exact=True).click()
    expect(second.page.get_by_text("The last message of a month with 12,000 tokens was sent")).to_be_visible()
    for warning in ("75 % of 12,000 tokens were used", "95 % of 12,000 tokens were used"):
        expect(second.page.get_by_text(warning)).to_be_visible()

    # Only sending is off: the chat is read, a refused draft stays over a reload, receipts add up to the meter.
    first.write("What I think of now")
    expect(blocked).to_contain_text("Nothing was sent; your text is kept here.")
    expect(first.box).to_have_value("What I think of now")
    page.reload()
    expect(first.box).to_have_value("What I think of now")
    expect(page.get_by_text("The offer stands until Friday.").first).to_be_attached()
    page.locator("[data-act=receipts]").first.click()
    dialog = page.get_by_role("dialog")
    rows = dialog.locator("tbody tr td:nth-child(2)")
    rows.first.wait_for()
    until(page, lambda: sum(map(number, rows.all_inner_texts())) == number(dialog.locator("tfoot td").first.inner_text()) == first.used)
    page.keyboard.press("Escape")
    second.page.reload()
    table = second.page.locator(".receipts tbody tr td:nth-child(2)")
    table.first.wait_for()
    until(page, lambda: sum(map(number, table.all_inner_texts())) == second.used == first.used)

    expect(page.locator(".count")).to_have_text(re.compile(r"(29|30|31)days"))
    # The countdown goes on by itself, calmly, and is spoken at five minutes and at one.
    ends_at = int(page.locator(".count").get_attribute("data-due")) / 1000
    page.context.clock.install()

    def a_minute_later() -> None:
        server.forward(seconds=60)
        page.context.clock.fast_forward(60_000)

    server.forward(seconds=ends_at - server.now().timestamp() - 345)
    page.reload()
    expect(page.locator(".count")).to_have_text("6minutes")
    first.awake()
    a_minute_later()
    expect(page.locator(".count")).to_have_text("5minutes")
    expect(page.get_by_text("You can write again in 5 minutes", exact=True)).to_be_attached()
    expect(page.locator(".meter .sub [data-due]").first).to_have_text("in 5 minutes")

    # Less than a minute before the renewal; then both tabs open by themselves, and the draft goes as the first message of the new month.
    server.forward(seconds=ends_at - server.now().timestamp() - 50)
    for tab in (first, second):
        tab.page.reload()
    expect(blocked).to_contain_text("You can write again on")
    expect(page.locator(".count")).to_contain_text("1minute")
    for tab in (first, second):
        tab.awake()
        expect(tab.page.locator(".meter .sub").first).not_to_contain_text(UNUSED)
    a_minute_later()
    expect(blocked).to_have_count(0)
    expect(page.locator(".meter .sub").first).to_contain_text(UNUSED)
    expect(second.page.locator(".meter .sub").first).to_contain_text(UNUSED)
    expect(first.box).to_have_value("What I think of now")
    first.shot("5-renewed")
    first.box.press("Enter")
    expect(page.locator(NEWEST_SAID)).to_contain_text("What I think of now")
    expect(page.locator(".st-key-newest .receipt")).to_be_attached()
    until(page, lambda: first.used == number(page.locator(".st-key-newest .receipt").inner_text()))
