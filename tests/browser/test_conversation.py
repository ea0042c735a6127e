"""A working day on the chat page, in a real browser: what people do with messages and answers, and what stays where it is.

The pages' own tests (AppTest) know neither the component that draws a growing answer nor the buttons under messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from chatpro import bootstrap
from chatpro.config import Settings
from tests.browser.axe import faults_of
from tests.browser.patience import still, until
from tests.cast import write_chat
from tests.serving import Server
from tests.upstream import HANG, Reply, Upstream, answer, in_two_parts, said

WORDS = [f"word{number}" for number in range(400)]
OPENAI = {"CHATPRO_MODELS": "gpt-4"}
RICH = """Here is a **plan** for $500 to $800:

1. First step
2. Second step
   - nested

| Step | Price |
|---|---:|
| Plan | $500 |

```python
print("hello")
```

See [the docs](https://docs.python.org/3/)."""
AS_TEXT = """Here is a plan for $500 to $800:

1. First step
2. Second step
   - nested

Step\tPrice
Plan\t$500

print("hello")

See the docs (https://docs.python.org/3/)."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(models=("gpt-4",)) as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Server]:
    """One server for all of these, with a long chat in Mara's history and hundreds of others."""
    folder = tmp_path_factory.mktemp("server")
    fill(folder)
    with Server(folder, upstream.address, CHATPRO_SHUTDOWN_SECONDS="0.5", CHATPRO_ALLOWANCE_TOKENS="2000000", **OPENAI) as started:
        yield started
        assert "page failed" not in started.log.read_text()


def fill(folder: Path) -> None:
    house = bootstrap.build(Settings(demo_dir=folder / "demo", data_dir=folder / "var", models=("gpt-4",), allowance_tokens=2_000_000, sample_freelancers=0))
    mara = house.accounts.sample("mara")
    assert mara is not None
    now = house.now()
    for n in range(150):
        write_chat(house, mara, (f"Old question {n}", f"Old answer {n}."), at=now.replace(hour=0, minute=n % 60, second=n // 60), tokens=(1, 1))
    long = [(f"Question {n} about the layout", f"Answer {n}. " + "It is a matter of taste. " * 60) for n in range(100)]
    write_chat(house, mara, *long, title="The long one", at=now, tokens=(1, 1))
    house.store.close()
    house.analytics.close()


class Person:
    """Somebody at the chat page."""

    def __init__(self, page: Any, server: Server, name: str = "mara") -> None:
        self.page, self.server, self.name = page, server, name
        self.runs: list[list[str]] = []
        page.on("websocket", self._listen)
        page.goto(f"{server.url}/?as={name}")
        self.box.wait_for()

    def _listen(self, socket: Any) -> None:
        def heard(frame: Any) -> None:
            if isinstance(frame, bytes):
                message = ForwardMsg.FromString(frame)
                if message.WhichOneof("type") == "new_session":
                    self.runs.append(list(message.metadata.run.fragment_ids))

        if "/_stcore/stream" in socket.url:
            socket.on("framereceived", heard)

    @property
    def box(self) -> Any:
        return self.page.locator("[data-testid=stChatInput] textarea")

    def new_chat(self) -> None:
        self.page.get_by_role("button", name="New chat").click()
        self.page.get_by_role("heading", name=re.compile("What are you working on")).wait_for()

    def write(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def ask(self, text: str = "Go", answers: int = 1) -> None:
        """Write, and wait until this many answers of the chat have ended."""
        self.write(text)
        expect(self.page.locator(".receipt")).to_have_count(answers)
        self.rest()

    def rest(self) -> None:
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")

    def button(self, label: str) -> Any:
        """Under the newest message or answer that has it."""
        return self.page.get_by_role("button", name=label, exact=True).last

    def open(self, title: str) -> None:
        self.page.get_by_role("link", name=re.compile(re.escape(title))).first.click()
        expect(self.page.get_by_role("heading", level=1, name=title)).to_be_visible()

    def given(self, words: str) -> Any:
        """Words of an answer that has ended. The growing one may stand beside it for a moment, folded away."""
        return self.page.locator("[class*=st-key-msg_answer_]:not(.st-key-msg_answer_live)").get_by_text(words)

    def shadow(self, selector: str) -> Any:
        return self.page.locator(f".st-key-msg_answer_live {selector}")


@pytest.fixture
def mara(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> Person:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    person = Person(page, server)
    person.new_chat()
    return person


# --- Messages and answers ---------------------------------------------------------------------------------------------


def test_an_answer_is_copied_as_it_reads_and_with_its_formatting(mara: Person, upstream: Upstream) -> None:
    """Plain words keep list marks and columns, for message boxes; editors that know formatting get it; code blocks copy by themselves."""
    upstream.queue(answer(RICH))
    mara.ask("Make a plan")
    mara.button("Copy this answer").click()
    expect(mara.page.get_by_text("Copied", exact=True)).to_be_attached()
    mara.page.wait_for_function("async (words) => (await navigator.clipboard.readText()) === words", arg=AS_TEXT)
    html = mara.page.evaluate("(async () => (await (await navigator.clipboard.read())[0].getType('text/html')).text())()")
    assert "<strong>plan</strong>" in html and "<li>First step</li>" in html and "class=" not in html

    mara.button("Copy your message").click()
    mara.page.wait_for_function("async () => (await navigator.clipboard.readText()) === 'Make a plan'")
    mara.page.locator("[data-testid=stCode]").hover()
    mara.page.get_by_role("button", name="Copy to clipboard").click()
    mara.page.wait_for_function("async () => (await navigator.clipboard.readText()).trim() === 'print(\"hello\")'")


def test_an_edit_and_another_answer_are_versions_that_can_be_leafed_through(mara: Person, upstream: Upstream) -> None:
    """By mouse and by keyboard; the focus stays on the button that was pressed, and a reload shows what was written last."""
    upstream.queue(answer("First answer."), answer("Second answer."), answer("Answer to the edit."))
    page = mara.page
    mara.ask("First words")
    mara.button("Another answer").click()
    expect(page.get_by_text("2 of 2")).to_be_visible()
    expect(mara.given("Second answer.")).to_be_visible()
    mara.button("Version before").focus()
    page.keyboard.press("Enter")
    expect(mara.given("First answer.")).to_be_visible()
    expect(page.get_by_text("1 of 2")).to_be_visible()
    page.wait_for_function("() => document.activeElement.title === 'Version before'")

    mara.button("Edit and send again").click()
    editor = page.get_by_role("textbox", name="Your message in other words")
    expect(editor).to_be_focused()
    expect(editor).to_have_value("First words")
    editor.fill("Other words")
    page.keyboard.press("Control+Enter")
    expect(mara.given("Answer to the edit.")).to_be_visible()
    expect(page.locator(".said").last).to_contain_text("Other words")
    expect(page.locator(".said").last).to_contain_text("2 of 2")
    mara.rest()
    page.reload()
    expect(mara.given("Answer to the edit.")).to_be_visible()
    mara.button("Version before").click()
    expect(mara.given("Second answer.")).to_be_visible()


def test_an_edit_can_be_left_without_a_trace(mara: Person) -> None:
    mara.ask("Stay as you are")
    mara.button("Edit and send again").click()
    mara.page.get_by_role("textbox", name="Your message in other words").fill("Something else")
    mara.page.get_by_role("button", name="Cancel").click()
    expect(mara.page.locator(".said").last).to_contain_text("Stay as you are")
    expect(mara.page.locator(".leaf")).to_have_count(0)


def test_a_thumb_is_ones_own_and_still_there_after_a_reload(mara: Person) -> None:
    mara.ask()
    mara.button("Good answer").click()
    expect(mara.button("Good answer")).to_have_attribute("aria-pressed", "true")
    mara.rest()
    mara.page.reload()
    expect(mara.button("Good answer")).to_have_attribute("aria-pressed", "true")
    mara.button("Poor answer").click()
    expect(mara.button("Good answer")).to_have_attribute("aria-pressed", "false")
    expect(mara.button("Poor answer")).to_have_attribute("aria-pressed", "true")
    mara.button("Poor answer").click()
    expect(mara.button("Poor answer")).to_have_attribute("aria-pressed", "false")


def test_the_receipt_is_quiet_until_wanted(mara: Person, upstream: Upstream) -> None:
    """Its figures add up; the parts are behind a click or a key."""
    upstream.queue(answer(usage=(1_858, 448)))
    mara.ask()
    parts = mara.page.get_by_text(re.compile(r"\d+ in \+ \d+ out"))
    expect(parts).to_be_hidden()
    summary = mara.page.locator(".receipt summary")
    summary.press("Enter")
    expect(parts).to_be_visible()
    total, tokens_in, tokens_out = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= tokens| in| out)", mara.page.locator(".receipt").inner_text()))
    assert total == tokens_in + tokens_out


@pytest.mark.fault(38)
def test_stop_keeps_what_came_and_the_answer_can_go_on(mara: Person, upstream: Upstream) -> None:
    upstream.queue(Reply([said("As far as "), HANG]), answer("and on to the end."))
    mara.write("Go")
    expect(mara.shadow(".answer")).to_contain_text("As far as")
    mara.page.get_by_role("button", name="Stop").click()
    expect(mara.page.get_by_text("This answer was stopped.")).to_be_visible()
    mara.page.get_by_role("button", name="Continue").click()
    expect(mara.given("and on to the end.")).to_be_visible()


@pytest.mark.fault(40)
def test_the_end_of_an_answer_redraws_its_fragment_not_the_page(mara: Person, upstream: Upstream) -> None:
    """One run of the page for the send; the end is a run of one fragment, which also brings the meter and the list up to date."""
    page = mara.page
    mara.ask("Before")
    used = page.locator(".meter .sub").inner_text()
    mara.runs.clear()
    page.evaluate("document.querySelector('[data-testid=stChatInput] textarea').dataset.same = 'yes'")
    upstream.queue(answer("After that, and after all of this.", gap=0.2))
    mara.ask("And now", answers=2)

    expect(page.locator(".meter .sub")).not_to_have_text(used)
    until(page, lambda: len(mara.runs) >= 2)
    assert [bool(fragments) for fragments in mara.runs] == [False, True]
    assert page.evaluate("document.querySelector('[data-testid=stChatInput] textarea').dataset.same") == "yes"


def test_sending_while_an_answer_runs_is_not_possible_and_says_why(mara: Person, upstream: Upstream) -> None:
    """By Enter and by the button; what was typed stays typed, and goes when the answer has ended."""
    upstream.queue(Reply([said("Half of "), HANG]), answer("Second."))
    mara.write("First")
    expect(mara.shadow(".answer")).to_contain_text("Half of")
    mara.write("Second")
    expect(mara.page.locator(".why")).to_have_text("An answer is being written. Stop it, or send this when it has ended.")
    mara.page.get_by_test_id("stChatInputSubmitButton").click()
    expect(mara.box).to_have_value("Second")
    mara.page.get_by_role("button", name="Stop").click()
    expect(mara.page.get_by_text("This answer was stopped.")).to_be_visible()
    expect(mara.page.locator(".why")).to_have_text("")
    expect(mara.box).to_have_value("Second")
    mara.box.press("Enter")
    expect(mara.given("Second.")).to_be_visible()


def test_shift_enter_breaks_the_line_and_the_composer_grows(mara: Person) -> None:
    mara.rest()
    height = mara.box.bounding_box()["height"]
    mara.box.fill("One")
    for _ in range(4):
        mara.box.press("Shift+Enter")
        mara.page.keyboard.type("more")
    expect(mara.box).to_have_value("One\nmore\nmore\nmore\nmore")
    until(mara.page, lambda: mara.box.bounding_box()["height"] > height + 40)
    expect(mara.page.get_by_text("Shift+Enter for a new line")).to_be_visible()


def test_a_starter_is_added_to_what_stands_in_the_composer(mara: Person) -> None:
    mara.box.fill("My own beginning")
    mara.page.get_by_role("button", name="Write a proposal").click()
    expect(mara.box).to_have_value(re.compile(r"^My own beginning\n\n.*one-page proposal", re.S))
    expect(mara.box).to_be_focused()


# --- Coming and going -------------------------------------------------------------------------------------------------


@pytest.mark.fault(39)
def test_an_answer_that_ended_while_away_is_marked_and_there(mara: Person, upstream: Upstream) -> None:
    """In the list while it runs and when it has ended, without a click; in the chat as new; and the mark goes once it was seen."""
    away = Event()
    upstream.queue(in_two_parts(" ".join(WORDS[:30]), away, " ".join(WORDS[30:60])))
    page = mara.page
    mara.write("Go on without me")
    expect(mara.shadow(".answer")).to_contain_text("word3")
    row = page.get_by_role("link", name=re.compile("Go on without me"))
    expect(row).to_contain_text("being written")
    mara.open("The long one")
    mara.rest()
    away.set()
    expect(row).to_contain_text("new answer")
    row.click()
    expect(mara.given("word59")).to_be_visible()
    expect(page.locator(".new")).to_have_text("New")
    expect(row).not_to_contain_text("new answer")
    page.reload()
    expect(mara.given("word59")).to_be_visible()
    expect(page.locator(".new")).to_have_count(0)


def test_back_and_forward_lead_through_the_chats(mara: Person) -> None:
    mara.ask("In the first chat")
    first = mara.page.url
    mara.open("The long one")
    mara.page.go_back()
    expect(mara.page.locator(".said").last).to_contain_text("In the first chat")
    expect(mara.page).to_have_url(first)
    mara.page.go_forward()
    expect(mara.page.get_by_role("heading", level=1, name="The long one")).to_be_visible()


PLACE = """() => { const page = document.querySelector('[data-testid=stAppScrollToBottomContainer]') || document.querySelector('[data-testid=stMain]');
  return {top: page.scrollTop, left: page.scrollHeight - page.scrollTop - page.clientHeight}; }"""


TOP = f"({PLACE})().top"
STAYED = """([words, y]) => { const found = [...document.querySelectorAll('.said')].find(e => e.innerText.includes(words));
  return found && Math.abs(found.getBoundingClientRect().y - y) < 4; }"""


def test_a_long_chat_opens_at_its_newest_words_and_older_ones_come_above_what_is_read(mara: Person) -> None:
    page = mara.page
    mara.open("The long one")
    expect(mara.given("Answer 99.")).to_be_in_viewport()
    mara.rest()
    assert page.locator(".said").count() < 40
    expect(page.get_by_text("The model remembers from here on")).to_have_count(1)
    earlier = page.get_by_role("button", name=re.compile("Show earlier messages"))
    page.mouse.move(700, 300)
    page.mouse.wheel(0, -50_000)
    expect(earlier).to_be_in_viewport()
    page.wait_for_function(f"() => ({PLACE})().top === 0")
    still(page, TOP)
    topmost = page.locator(".said").first
    words, before = topmost.inner_text().split("\n")[1], topmost.bounding_box()["y"]
    earlier.click()
    expect(page.get_by_text("Question 75 about")).to_be_attached()
    mara.rest()
    page.wait_for_function(STAYED, arg=[words, before])
    page.get_by_role("button", name="Jump to newest").click()
    expect(mara.given("Answer 99.")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Jump to newest")).to_be_hidden()


def test_the_view_stays_where_somebody_reads_while_an_answer_grows_and_ends(mara: Person, upstream: Upstream) -> None:
    reading = Event()
    upstream.queue(answer("\n\n".join(" ".join(WORDS[n : n + 10]) for n in range(0, 400, 10))))
    upstream.queue(in_two_parts("\n\n".join(WORDS[:10]), reading, " \n\n".join(WORDS[10:200])))
    page = mara.page
    mara.ask("Something long")
    mara.write("And again")
    expect(mara.shadow(".answer")).to_contain_text("word2")
    page.mouse.move(700, 300)
    page.mouse.wheel(0, -900)
    before = still(page, TOP)  # the wheel has come to rest
    reading.set()
    expect(page.locator(".receipt")).to_have_count(2)
    mara.rest()
    page.wait_for_function(f"() => ({PLACE})().left > 240")
    assert abs(still(page, TOP) - before) < 3
    expect(page.get_by_role("button", name="Jump to newest")).to_be_visible()


@pytest.mark.fault(32)
def test_a_text_that_was_sent_in_a_hurry_is_never_lost(mara: Person, upstream: Upstream) -> None:
    """Enter, and another chat in the same breath, again and again: each text is a message in a chat, or is back in the composer."""
    page = mara.page
    for n in range(4):
        text = f"In a hurry {n}"
        mara.new_chat()
        mara.box.fill(text)
        page.evaluate("(wait) => new Promise((done) => setTimeout(done, wait))", n * 20)
        page.evaluate(HURRY)
        page.wait_for_timeout(300)  # more than it takes to begin to look whether it was heard
        mara.rest()
        found = page.get_by_role("link", name=re.compile(text)).or_(page.locator(".said", has_text=text))
        expect(found.first.or_(page.locator("textarea", has_text=text))).to_be_attached()
        mara.box.fill("")


HURRY = """() => {
  const box = document.querySelector("[data-testid=stChatInput] textarea");
  box.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true}));
  const rows = document.querySelector(".st-key-panel_list [data-testid=stBidiComponentIsolated]").shadowRoot.querySelectorAll("nav a");
  rows[3].click();
}"""


@pytest.mark.fault(93)
def test_what_is_written_for_a_chat_that_was_deleted_elsewhere_is_not_lost(mara: Person, server: Server, new_page: Callable[..., Any]) -> None:
    mara.ask("To be deleted")
    elsewhere = Person(new_page(), server)
    row = elsewhere.page.get_by_role("link", name=re.compile("To be deleted"))
    row.focus()
    elsewhere.page.keyboard.press("Delete")
    expect(elsewhere.page.get_by_text("“To be deleted” was deleted.")).to_be_visible()

    mara.write("And one more thing")
    expect(mara.page.get_by_text("That chat is not there any more.")).to_be_visible()
    expect(mara.box).to_have_value("And one more thing")
    mara.page.reload()
    expect(mara.box).to_have_value("And one more thing")


def test_a_page_whose_program_comes_late_has_hands_all_the_same(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """On a slow line the first click on a chat comes before the component's program: what was overtaken must not take its place away.

    Nor may a button of a row be offered before anybody hears it.
    """
    page = new_page()
    late: list[Any] = []
    in_time: list[Any] = []
    page.route("**/live.js", lambda route: route.continue_() if in_time else late.append(route))
    mara = Person(page, server)
    mara.open("The long one")
    mara.rest()
    until(page, lambda: late)
    expect(page.locator("[data-act=up]").last).to_be_hidden()
    in_time.append(True)
    for route in late:
        route.continue_()
    good = mara.button("Good answer")
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    seen = Event()
    upstream.queue(in_two_parts("word5", seen, "word29"))
    mara.write("Are you there")
    expect(mara.shadow(".answer")).to_contain_text("word5")
    seen.set()
    expect(mara.given("word29")).to_be_visible()


# --- The waiting line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Server]:
    """A server with place for one answer at a time."""
    folder = tmp_path_factory.mktemp("narrow")
    with Server(folder, upstream.address, CHATPRO_RUNNING_TOTAL="1", CHATPRO_RUNNING_PER_ACCOUNT="1", CHATPRO_SHUTDOWN_SECONDS="0.5", **OPENAI) as started:
        yield started
        assert "page failed" not in started.log.read_text()


@pytest.fixture
def place_taken(narrow: Server, upstream: Upstream, new_page: Callable[..., Any]) -> Iterator[Person]:
    """Somebody whose answer has the only place until they stop it."""
    first = Person(new_page(), narrow)
    first.new_chat()
    upstream.queue(Reply([said("I take the only place "), HANG]))
    first.write("Go")
    expect(first.shadow(".answer")).to_contain_text("only place")
    yield first
    if (stop := first.page.get_by_role("button", name="Stop")).is_visible():
        stop.click()
        expect(first.page.get_by_text("This answer was stopped.")).to_be_visible()


@pytest.mark.fault(122)
def test_a_send_beyond_the_bound_waits_says_where_it_stands_and_can_be_called_off(
    narrow: Server, place_taken: Person, upstream: Upstream, new_page: Callable[..., Any]
) -> None:
    """The words are back in the composer then; sent again, they go when the place is free, without a click."""
    second = Person(new_page(), narrow)
    second.new_chat()
    second.write("Me too")
    page = second.page
    expect(page.get_by_text("Waiting for a place: yours is next")).to_be_visible()
    expect(page.locator(".said")).to_contain_text("Me too")
    page.get_by_role("button", name="Don't send").click()
    expect(second.box).to_have_value("Me too")
    expect(page.get_by_text("Waiting for a place")).to_be_hidden()

    second.box.press("Enter")
    expect(page.get_by_text("Waiting for a place: yours is next")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Waiting for a place: yours is next")).to_be_visible()
    upstream.queue(answer("Now it is my turn."))
    place_taken.page.get_by_role("button", name="Stop").click()
    expect(second.given("Now it is my turn.")).to_be_visible()
    expect(page.locator(".receipt")).to_have_count(1)
    expect(second.box).to_have_value("")


@pytest.mark.fault(122)
def test_an_edit_that_is_called_off_in_the_line_is_still_there_to_be_edited(narrow: Server, place_taken: Person, new_page: Callable[..., Any]) -> None:
    mine = Person(new_page(), narrow)
    mine.open("Newsletter list: duplicates")
    mine.button("Edit and send again").click()
    editor = mine.page.get_by_role("textbox", name="Your message in other words")
    editor.fill("Other words")
    mine.page.get_by_role("button", name="Send", exact=True).click()
    expect(mine.page.get_by_text("Waiting for a place: yours is next")).to_be_visible()
    mine.box.fill("Typed meanwhile")
    mine.page.get_by_role("button", name="Don't send").click()
    expect(editor).to_have_value("Other words")
    expect(mine.box).to_have_value("Typed meanwhile")


# --- Side panel -------------------------------------------------------------------------------------------------------


def test_a_chat_is_renamed_in_place_and_a_deleted_one_comes_back(mara: Person) -> None:
    page = mara.page
    mara.ask("Rename me please")
    row = page.get_by_role("link", name=re.compile("Rename me please"))
    row.focus()
    page.keyboard.press("F2")
    field = page.get_by_role("textbox", name="New title")
    field.fill("A better name")
    field.press("Enter")
    expect(page.get_by_role("heading", level=1, name="A better name")).to_be_visible()
    page.get_by_role("link", name=re.compile("A better name")).focus()
    page.keyboard.press("Delete")
    expect(page.get_by_text("“A better name” was deleted.")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("A better name"))).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", level=1, name="A better name")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("A better name"))).to_be_visible()


def test_the_panel_lists_the_newest_and_leads_to_all_of_them(mara: Person) -> None:
    links = mara.page.get_by_role("navigation", name="Chats").get_by_role("link")
    until(mara.page, lambda: 40 <= links.count() <= 70)
    mara.page.get_by_text(re.compile(r"All \d+ chats")).click()
    expect(mara.page.get_by_role("heading", level=1, name="History")).to_be_visible()


# --- For everyone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state_of_the_page(server: Server, upstream: Upstream, new_page: Callable[..., Any], scheme: str) -> None:
    """Empty, writing, finished, stopped, editing, several versions, the menu open, a long chat, a refusal."""
    upstream.queue(answer(RICH), answer("Another."), Reply([said("Half of "), HANG]))
    mara = Person(new_page(color_scheme=scheme, reduced_motion="reduce"), server)
    page = mara.page
    mara.new_chat()
    mara.rest()
    found = {"empty": faults_of(page)}
    mara.ask("Make a plan")
    found["finished"] = faults_of(page)
    mara.button("Another answer").click()
    expect(page.get_by_text("2 of 2")).to_be_visible()
    mara.rest()
    page.locator(".receipt summary").last.click()
    found["versions"] = faults_of(page)
    mara.write("And on")
    expect(mara.shadow(".answer")).to_contain_text("Half of")
    mara.write("More")
    expect(page.locator(".why")).not_to_be_empty()
    found["writing"] = faults_of(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("This answer was stopped.")).to_be_visible()
    mara.rest()
    found["stopped"] = faults_of(page)
    mara.button("Edit and send again").click()
    expect(page.get_by_role("textbox", name="Your message in other words")).to_be_visible()
    mara.rest()
    found["editing"] = faults_of(page)
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("button", name="Rename").last.wait_for()
    found["menu"] = faults_of(page)
    page.keyboard.press("Escape")
    mara.open("The long one")
    mara.rest()
    found["long"] = faults_of(page)
    mara.write("x" * 70_000)
    expect(page.get_by_text("characters; one message takes")).to_be_visible()
    mara.rest()
    found["refused"] = faults_of(page)
    assert {state: faults for state, faults in found.items() if faults} == {}


def test_the_whole_conversation_by_keyboard(mara: Person, upstream: Upstream) -> None:
    """From the composer: send, stop, back in the composer; and backwards to every button of the answer."""
    upstream.queue(Reply([said("Half of "), HANG]))
    page = mara.page
    mara.box.focus()
    page.keyboard.type("By hand")
    page.keyboard.press("Enter")
    expect(mara.shadow(".answer")).to_contain_text("Half of")
    expect(mara.box).to_be_focused()
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Space")
    expect(page.get_by_text("This answer was stopped.")).to_be_visible()
    expect(mara.box).to_be_focused()
    mara.rest()
    expect(mara.button("Copy this answer")).to_be_visible()
    reached = set()
    for _ in range(14):
        page.keyboard.press("Shift+Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.title || document.activeElement.innerText"))
    assert {"Copy this answer", "Good answer", "Poor answer", "Another answer", "Edit and send again", "Copy your message"} <= reached


@pytest.mark.parametrize(("width", "height"), [(320, 640), (640, 400), (1280, 880)])
def test_nothing_is_cut_off_on_a_phone_at_200_percent_or_above_a_keyboard(
    server: Server, upstream: Upstream, new_page: Callable[..., Any], width: int, height: int
) -> None:
    """640 by 400 is 1280 by 800 at 200 %. A phone's keyboard takes half of the height: the composer is still whole and in sight."""
    upstream.queue(answer(RICH + "\n\n" + "unbreakable" * 30))
    mara = Person(new_page(viewport={"width": width, "height": height}), server)
    page = mara.page
    mara.ask(f"Narrow {width}")
    page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
    if width < 600:
        page.set_viewport_size({"width": width, "height": 320})
        mara.box.focus()
        expect(mara.box).to_be_in_viewport(ratio=1)
        expect(page.locator("meta[name=viewport]")).to_have_attribute("content", re.compile("interactive-widget=resizes-content"))
    boxes = still(page, "[...document.querySelectorAll('.deeds button')].map((b) => b.getBoundingClientRect()).filter((b) => b.width)")
    assert boxes and all(box["width"] >= 24 and box["height"] >= 24 for box in boxes)


def test_on_a_phone_the_panel_closes_when_a_chat_was_chosen(server: Server, new_page: Callable[..., Any]) -> None:
    mara = Person(new_page(viewport={"width": 360, "height": 700}, has_touch=True), server)
    page = mara.page
    page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name=re.compile("The long one")).click()
    expect(page.get_by_role("heading", level=1, name="The long one")).to_be_attached()
    expect(page.get_by_role("link", name=re.compile("The long one"))).not_to_be_in_viewport()
