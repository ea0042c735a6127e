"""A person's first visit, in Chromium, on the real server: sign in, consent, a starter prompt, an answer that is watched, left, met again and stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.patience import settled, still, until
from tests.serving import Server
from tests.upstream import HANG, Reply, Upstream, answer, ended, in_two_parts, said

WORDS = [f"word{n}" for n in range(400)]
LONG = " ".join(WORDS)


OPENAI = {"CHATPRO_PROVIDER_NAME": "OpenAI", "CHATPRO_PROVIDER_COUNTRY": "the United States", "CHATPRO_PROVIDER_KEEPS_DAYS": "30"}


@pytest.fixture(scope="module")
def _upstream() -> Iterator[Upstream]:
    with Upstream(models=("gpt-4",)) as started:
        yield started


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    """The provider, with nothing queued or remembered of the tests before."""
    _upstream.forget()
    return _upstream


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory, _upstream: Upstream) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), _upstream.address, CHATPRO_SHUTDOWN_SECONDS="0.5", CHATPRO_ALLOWANCE_TOKENS="2000000", **OPENAI) as started:
        yield started


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    """One server for all of these; whichever test ends it, the next one finds it running. No page may fail in any of them."""
    if not _server.get("/readyz")[0]:
        _server.start()
    before = len(_server.log.read_text())
    yield _server
    assert "page failed" not in _server.log.read_text()[before:]


def rest(page: Any) -> None:
    """Wait until Streamlit has drawn everything."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def composer(page: Any) -> Any:
    return page.locator("[data-testid=stChatInput] textarea")


def open_new_chat(page: Any, server: Server, name: str = "mara") -> None:
    page.goto(f"{server.url}/?as={name}")
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("heading", name=re.compile("What are you working on")).wait_for()


def write(page: Any, text: str) -> None:
    box = composer(page)
    box.wait_for()
    box.fill(text)
    box.press("Enter")


DEEP = """() => {
  const read = node => {
    if (node.nodeType === 3) return node.data;
    if (["STYLE", "SCRIPT"].includes(node.nodeName)) return "";
    const inside = [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].map(read).join("");
    return ["SPAN", "EM", "STRONG"].includes(node.nodeName) ? inside : ` ${inside} `;
  };
  return new Set(read(document.querySelector('[data-testid=stMain]')).match(/\\bword\\d+\\b/g)).size;
}"""
"""Counts the words of the test's answers that are on the page, also inside the component that draws them while they come."""


def words_seen(page: Any) -> int:
    return int(page.evaluate(DEEP))


def wait_for_words(page: Any, number: int) -> None:
    page.wait_for_function(f"n => ({DEEP})() >= n", arg=number)


def paced(words: Sequence[str], fast: int) -> Reply:
    """The first words quickly, the rest twenty a second, and no end: however slow the machine, there is time to act in the middle."""
    steps: list[bytes | float | str] = [said("")]
    for number, word in enumerate(words):
        steps += [0.005 if number < fast else 0.05, said(word if number == 0 else f" {word}")]
    return Reply([*steps, HANG])


def finished_answers(page: Any) -> Any:
    return page.locator("[class*=st-key-msg_answer_] .receipt")


@pytest.mark.fault(32, 39, 114)
def test_the_whole_first_visit_of_a_new_person(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """Every step a newcomer takes, in order; nothing is asked of another host on the way."""
    page = new_page()
    foreign: list[str] = []
    page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((server.url, "blob:", "data:", server.url.replace("http", "ws"))) else None)

    # Signing in: one card a person; Lea has the plan and was not asked yet.
    page.goto(server.url)
    page.get_by_role("link", name=re.compile("Lea")).click()

    # Consent: two equal buttons, nothing ticked; nothing can be written before the yes.
    yes, no = page.get_by_role("button", name="Yes, use AI for my chats"), page.get_by_role("button", name="No, not now")
    yes.wait_for()
    no.wait_for()
    rest(page)
    assert page.locator("input[type=checkbox]:checked").count() == 0 and composer(page).count() == 0

    def equal() -> None:
        left, right = yes.bounding_box(), no.bounding_box()
        assert left and right and left["height"] == right["height"] and abs(left["width"] - right["width"]) < 1

    settled(page, equal)
    expect(page.locator("[data-testid=stMain]")).to_contain_text("OpenAI")
    expect(page.locator("[data-testid=stMain]")).to_contain_text("United States")
    yes.click()

    # A starter prompt fills the composer and sends nothing.
    page.get_by_role("button", name="Write a proposal").click()
    page.wait_for_function("() => document.querySelector('[data-testid=stChatInput] textarea')?.value.includes('one-page proposal')")
    assert upstream.asked == []

    # An answer that is read while it is written.
    upstream.queue(paced(WORDS, fast=10))
    composer(page).press("Enter")
    wait_for_words(page, 5)
    assert finished_answers(page).count() == 0

    # A reload in the middle: it goes on, and what was there is there.
    before = words_seen(page)
    page.reload()
    wait_for_words(page, before + 10)

    # Another page and back.
    page.get_by_role("link", name="Help").click()
    page.get_by_role("heading", name="Help", level=1).wait_for()
    page.go_back()
    page.locator(".chat-head").wait_for()
    wait_for_words(page, before + 20)

    # Stop: what came stays, with its receipt.
    page.get_by_role("button", name="Stop", exact=True).click()
    finished_answers(page).first.wait_for()
    wait_for_words(page, before + 20)
    expect(finished_answers(page).first).to_contain_text("stopped")
    until(page, lambda: upstream.running == 0)
    assert len(upstream.asked) == 1

    # Rename, delete, undo.
    title = page.locator(".chat-head h1")
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("New title").fill("Bakery <b>site</b> :red[x] $5")
    page.locator("[data-testid=stForm]").get_by_role("button", name="Rename").click()
    until(page, lambda: title.inner_text() == "Bakery <b>site</b> :red[x] $5")
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("button", name="Delete chat").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Undo").wait_for()
    rows = page.get_by_role("navigation", name="Chats").get_by_role("link")
    expect(rows).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(rows).to_have_count(1)
    title.wait_for()

    # Opting out: one click, history readable, no composer.
    page.get_by_role("button", name="Opt out of AI").click()
    page.get_by_role("button", name="Think again").wait_for()
    expect(composer(page)).to_have_count(0)
    wait_for_words(page, 20)

    assert foreign == []


@pytest.mark.fault(28, 39)
def test_a_server_that_dies_in_mid_answer_gives_back_what_was_seen(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """kill -9 and a new start: the page comes back by itself, the partial answer is there, marked, and can be continued and tried again."""
    upstream.queue(paced(WORDS, fast=100))
    page = new_page()
    open_new_chat(page, server)
    write(page, "Tell me everything")
    wait_for_words(page, 140)
    seen = words_seen(page)

    server.kill9()
    server.start()

    page.get_by_text("Interrupted: the service ended").wait_for(timeout=60_000)
    # Twenty words a second: what came in the last second before the kill, and a second and a half until a busy saver has its turn.
    wait_for_words(page, seen - 50)
    upstream.queue(answer("And on it goes.", usage=None))
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("And on it goes.").first.wait_for()
    finished_answers(page).nth(1).wait_for()


def test_an_answer_goes_on_without_its_page_and_shows_in_two(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """A closed tab stops nothing; a second tab of the same chat reads along; one call, one answer."""
    closed = Event()
    upstream.queue(in_two_parts(" ".join(WORDS[:60]), closed, " ".join(WORDS[60:150])))
    first = new_page()
    open_new_chat(first, server)
    write(first, "Go on without me")
    wait_for_words(first, 10)
    address = first.url
    second = new_page()
    second.goto(address)
    wait_for_words(second, 20)
    first.close()
    closed.set()

    finished_answers(second).first.wait_for()
    until(second, lambda: words_seen(second) == 150)
    assert len(upstream.asked) == 1


@pytest.mark.fault(32)
def test_enter_twice_sends_once_and_a_send_beside_a_running_answer_says_why_not(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """The text that could not be sent is back in the composer."""
    upstream.queue(Reply([said("Thinking about it "), HANG]))
    page = new_page()
    open_new_chat(page, server)
    write(page, "Only once")
    page.get_by_text("Thinking about it").first.wait_for()
    write(page, "And another thing")
    page.get_by_text("An answer is being written. Stop it, or send this when it has ended.").wait_for()
    page.wait_for_function("() => document.querySelector('[data-testid=stChatInput] textarea')?.value === 'And another thing'")
    assert len(upstream.asked) == 1
    page.get_by_role("button", name="Stop", exact=True).click()
    finished_answers(page).first.wait_for()


@pytest.mark.fault(49)
def test_a_paste_of_two_megabytes_is_told_its_size_and_comes_back(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """Nothing is sent, nothing is lost, and the page stays usable."""
    page = new_page()
    open_new_chat(page, server)
    box = composer(page)
    box.fill("x" * 2_000_000)
    box.press("Enter")
    page.get_by_text("Your draft has 2,000,000 characters; one message takes 60,000 at most.").wait_for()
    page.wait_for_function("() => document.querySelector('[data-testid=stChatInput] textarea')?.value.length === 2000000")
    assert upstream.asked == []

    upstream.queue(answer("Shorter is better.", usage=None))
    write(page, "A short one")
    finished_answers(page).first.wait_for()


@pytest.mark.fault(51)
def test_a_refused_text_comes_back_after_a_reload_and_from_another_page(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """Also in a chat that was never begun; what fits is then sent, and the draft is gone."""
    page = new_page()
    open_new_chat(page, server)
    text = "word " * 9_000
    write(page, text)
    page.get_by_text(re.compile(r"Your draft has 9,\d\d\d tokens, one message takes")).wait_for()
    back = f"() => (document.querySelector('[data-testid=stChatInput] textarea') || {{}}).value?.length >= {len(text) - 1}"
    page.wait_for_function(back)

    page.reload()
    page.wait_for_function(back)
    page.get_by_role("link", name="Account").click()
    page.get_by_role("heading", name="Account", level=1).wait_for()
    page.go_back()
    page.wait_for_function(back)

    upstream.queue(answer("Short it is.", usage=None))
    write(page, "Shorter")
    finished_answers(page).first.wait_for()


@pytest.mark.fault(93)
def test_deleting_and_undoing_on_either_page_with_hasty_fingers_never_fails_a_page(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """Two clicks where one was meant; a chat deleted in History and then the chat page opened. (The fixture looks for failed pages in the log.)"""
    page = new_page()
    page.goto(f"{server.url}/history?as=mara")
    page.get_by_role("button", name=re.compile("^Delete “")).first.click()
    page.get_by_text("The chat was deleted.").wait_for()
    page.get_by_role("link", name="Chat", exact=True).click()
    composer(page).wait_for()
    rest(page)
    assert page.get_by_role("button", name="Undo").count() == 0

    rows = page.get_by_role("navigation", name="Chats").get_by_role("link")
    rows.first.wait_for()
    still(page, "[...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')].map((e) => e.shadowRoot?.querySelectorAll('nav a').length)")
    before = rows.count()
    rows.first.click()
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("button", name="Delete chat").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Undo").dblclick(delay=30)
    page.locator(".chat-head").wait_for()
    expect(rows).to_have_count(before)
    assert page.get_by_text("This page failed").count() == 0


@pytest.mark.fault(33, 93)
def test_a_provider_that_fails_is_named_and_tried_again_with_one_click(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """One message in the chat whatever happened in between; nothing was charged for the failure."""
    upstream.queue(Reply([b"{}"], status=401, headers={"Content-Type": "application/json"}))
    upstream.queue(answer("Now it works.", usage=None))
    page = new_page()
    open_new_chat(page, server)
    write(page, "Please answer")
    page.get_by_text("Nothing was charged; your message is still here.").wait_for()
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("Now it works.").first.wait_for()
    finished_answers(page).first.wait_for()
    expect(page.locator(".said")).to_have_count(1)


@pytest.mark.fault(73, 74, 75, 77)
def test_what_a_model_writes_can_neither_load_nor_run_anything(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """Images, scripts, javascript: links, directives and dollars, while it is written and when it has ended; the same in one's own words."""
    evil = "![x](https://evil.invalid/?q=1) <img src=https://evil.invalid/2> <script>window.hacked=1</script> [click](javascript:window.hacked=2) "
    evil += "$500 to $800 :red[no]"
    upstream.queue(Reply([said(evil[:20]), 0.3, said(evil[20:] + " end"), 0.3, ended()]))
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if "evil" in r.url else None)
    open_new_chat(page, server)
    write(page, f"Mine: {evil}")
    finished_answers(page).first.wait_for()

    main = page.locator("[data-testid=stMain]")
    until(page, lambda: main.inner_text().replace("\u2060", "").count("$500 to $800 :red[no]") == 2)
    assert main.locator("img").count() == 0 and main.locator("a[href^='javascript']").count() == 0 and main.locator(".katex").count() == 0
    assert page.evaluate("window.hacked") is None and asked == []


@pytest.mark.fault(17, 20)
def test_somebody_elses_chat_and_one_that_never_was_look_the_same(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """By its address, which a colleague might have sent."""
    upstream.queue(answer("Private words.", usage=None))
    mine = new_page()
    open_new_chat(mine, server)
    write(mine, "My secret")
    finished_answers(mine).first.wait_for()
    chat = mine.url.split("chat=")[1].split("&")[0]

    texts = []
    for chat_id in (chat, "0" * 32):
        page = new_page()
        page.goto(f"{server.url}/?as=tomas&chat={chat_id}")
        page.get_by_role("button", name="Start a new chat").wait_for()
        rest(page)
        assert composer(page).count() == 0
        texts.append(still(page, "document.querySelector('[data-testid=stMain]').innerText"))
    assert texts[0] == texts[1] and "secret" not in texts[0]


@pytest.mark.fault(94)
def test_the_log_holds_nobodys_words_and_no_key(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    """Not what was written, not what was answered, not in a failure, not the key and not the socket's channel, also at the chattiest level."""
    marker = "Kx7Qz9Lm"
    with Upstream(models=("gpt-4",)) as upstream, Server(tmp_path, upstream.address, STREAMLIT_LOGGER_LEVEL="debug", OPENAI_LOG="debug") as server:
        upstream.queue(answer(f"{marker} answered", usage=None), Reply([said(f"{marker} half"), b"data: {broken\n\n"]), Reply([marker.encode()], status=500))
        page = new_page()
        page.goto(f"{server.url}/?as=mara")
        write(page, f"{marker} asked")
        finished_answers(page).first.wait_for()
        write(page, f"{marker} again")
        finished_answers(page).nth(1).wait_for()
        log = server.log.read_text()

    assert "Chat Pro is at" in log
    assert marker not in log and "made-up" not in log


@pytest.mark.fault(118)
def test_sigterm_in_mid_answer_settles_it_and_the_page_has_it_after_the_restart(server: Server, upstream: Upstream, new_page: Callable[..., Any]) -> None:
    """An orderly end with code 0; what was written is kept without waiting for the next start's recovery."""
    upstream.queue(Reply([said("word1 word2 word3 "), HANG]))
    page = new_page()
    open_new_chat(page, server)
    write(page, "Do not lose this")
    wait_for_words(page, 3)

    assert server.terminate() == 0
    server.start()

    page.get_by_text("Interrupted: the service ended").wait_for(timeout=60_000)
    until(page, lambda: words_seen(page) == 3)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.fault(6, 39)
def test_signing_out_elsewhere_closes_the_page_that_reads_along_and_the_answer_goes_on(
    server: Server, upstream: Upstream, new_page: Callable[..., Any]
) -> None:
    """Within seconds, without a click; the answer is finished on the server and there after signing in again."""
    signed_out = Event()
    upstream.queue(in_two_parts(" ".join(WORDS[:100]), signed_out, " ".join(WORDS[100:300])))
    reading = new_page()
    open_new_chat(reading, server)
    write(reading, "Go on without me")
    wait_for_words(reading, 10)
    address = reading.url
    elsewhere = new_page()
    elsewhere.goto(f"{server.url}/account?as=mara")
    elsewhere.get_by_role("button", name=re.compile("Sign out")).click()

    reading.get_by_role("heading", name="Choose a sample account").wait_for(timeout=10_000)
    reading.wait_for_function(f"() => ({DEEP})() === 0")

    signed_out.set()
    reading.goto(address)
    finished_answers(reading).first.wait_for()
    until(reading, lambda: words_seen(reading) == 300)
