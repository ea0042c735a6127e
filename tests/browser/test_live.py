"""The live component in Chromium: what a growing answer looks like, what never leaves the page, and what survives a break."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser import patience
from tests.browser.live_server import LiveServer
from tests.browser.patience import SECONDS, still


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    server = LiveServer()
    yield server
    server.stop()


class Reader:
    """Somebody at the page, and the requests and complaints of their browser."""

    def __init__(self, context: BrowserContext, server: LiveServer) -> None:
        self.server = server
        self.page: Page = context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.sockets: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("websocket", lambda socket: self.sockets.append(socket.url) if "/ws/page/" in socket.url else None)

    def open(self, query: str = "") -> None:
        self.page.goto(self.server.url + query)
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        self.until(lambda: self.server.tell()["open"] >= 1)

    def ask(self, answer_id: str = "a1", query: str = "") -> None:
        """An answer begins and the page shows it."""
        self.server.tell(new=answer_id)
        self.open(query)
        self.page.wait_for_selector(".live:not([hidden])")

    def say(self, *words: str, answer_id: str = "a1", done: bool = False) -> None:
        for word in words:
            self.server.tell(id=answer_id, say=word)
        if done:
            self.server.tell(id=answer_id, say="", done=True)

    def until(self, true: Callable[[], Any]) -> None:
        patience.until(self.page, true)

    def settled(self, check: Callable[[], None]) -> None:
        patience.settled(self.page, check)

    def heard_all(self) -> None:
        """What the page did until now has been heard here too: a request of our own comes behind all earlier ones."""
        self.page.evaluate("() => fetch('/_stcore/health?heard').then(() => console.warn('heard'))")
        self.until(lambda: "heard" in self.complaints and any(url.endswith("?heard") for url in self.requests))
        self.complaints.remove("heard")
        self.requests[:] = [url for url in self.requests if not url.endswith("?heard")]

    @property
    def answer(self) -> Any:
        return self.page.locator(".answer")

    @property
    def finished(self) -> Any:
        return self.page.locator("[class*=st-key-msg_answer_] [data-testid=stMarkdownContainer]")

    def html(self) -> str:
        """What is drawn, without the cursor."""
        html: str = self.answer.inner_html()
        return re.sub(r'<span>([^<\[]?)</span>(?=<span class="cursor")|<span class="cursor" aria-hidden="true"></span>|\sdata-own="1"', r"\1", html)

    def draws(self, html: str) -> None:
        """Words come over a socket, a frame at a time: what is drawn is waited for, and the difference is what a failure tells."""

        def check() -> None:
            assert self.html().replace(" </p>", "</p>") == html

        self.settled(check)

    def foreign(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.server.url, "data:", "blob:"))]


@contextmanager
def reading(browser: Browser, server: LiveServer, **unusual: Any) -> Iterator[Reader]:
    """On a computer of its own, with something unusual about it."""
    server.tell(reset=True)
    with browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **unusual}) as context:
        context.set_default_timeout(SECONDS * 1_000)
        yield Reader(context, server)


@pytest.fixture
def reader(computer: BrowserContext, server: LiveServer) -> Iterator[Reader]:
    server.tell(reset=True)
    reader = Reader(computer, server)
    yield reader
    reader.page.close()
    assert not reader.foreign(), "a request left for somewhere else"


# --- From the first word to the last ------------------------------------------------------------------------------------


def test_it_thinks_then_writes_then_is_finished_in_the_same_place(reader: Reader) -> None:
    reader.ask()
    expect(reader.page.get_by_text("GPT-4 is thinking")).to_be_visible()
    status = reader.page.locator(".live + .vh[role=status]")
    expect(status).to_have_text("Answer started")
    expect(reader.page.locator(".live")).to_have_attribute("aria-busy", "true")
    reader.say("Dear ", "Ines", ", thank **you**.")
    expect(reader.answer).to_have_text("Dear Ines, thank you.")
    expect(reader.page.get_by_text("GPT-4 is writing")).to_be_visible()
    reader.say(done=True)
    expect(reader.finished).to_have_text("Dear Ines, thank you.")
    reader.until(lambda: reader.server.tell()["ended"])
    reader.heard_all()
    told = reader.server.tell()
    assert told["ended"] == ["end"] and told["runs"] == {"full": 1, "fragment": 2}, "one rerun of the fragment, none of the page"
    assert len(reader.sockets) == 1
    assert not reader.complaints


def test_what_waits_says_for_what_and_where_it_stands(reader: Reader) -> None:
    """For the person's own answers, for others in the line, for a place; and no more of it once it is being written."""
    reader.ask()
    for ahead, said in (
        (-1, "Waiting for your other answer: when it has ended, it is known what is left for this one"),
        (2, "Waiting for a place: 2 messages go before yours"),
        (1, "Waiting for a place: 1 message goes before yours"),
        (0, "Waiting for a place: yours is next"),
    ):
        reader.server.tell(id="a1", ahead=ahead)
        expect(reader.page.get_by_text(said, exact=True)).to_be_visible()
    expect(reader.page.get_by_role("button", name="Don't send")).to_be_visible()
    expect(reader.page.locator(".live + .vh[role=status]")).to_have_text("Waiting for your other answer")
    reader.server.tell(id="a1", ahead=None)
    reader.say("Dear ")
    expect(reader.page.get_by_text("GPT-4 is writing")).to_be_visible()


def test_only_start_and_end_are_announced_never_words(reader: Reader) -> None:
    reader.ask()
    # Over everything on the page, at each change: the component may be drawn anew at the end, and a busy machine skips frames.
    reader.page.evaluate(
        """() => { window.said = new Set();
        const watched = new WeakSet();
        const look = () => { for (const host of document.querySelectorAll('[data-testid=stBidiComponentIsolated]')) {
          watch(host.shadowRoot);
          for (const live of host.shadowRoot.querySelectorAll('[aria-live],[role=status],[role=alert],[role=log]')) window.said.add(live.textContent); } };
        const watch = (root) => { if (watched.has(root)) return; watched.add(root);
          new MutationObserver(look).observe(root, { subtree: true, childList: true, characterData: true }) };
        watch(document); look(); }"""
    )
    reader.say(*"one two three four".split(), done=True)
    expect(reader.finished).to_be_visible()
    reader.page.wait_for_function("() => window.said.has('Answer finished')")
    said = set(reader.page.evaluate("[...window.said]")) - {""}
    assert said <= {"Answer started", "Answer finished"} and "Answer finished" in said


@pytest.mark.fault(38)
def test_stop_goes_out_at_once_and_is_said_once(reader: Reader) -> None:
    """Over the page's own socket, before anything is asked of Streamlit: a stop never waits for a run."""
    said: list[Any] = []
    reader.page.on("websocket", lambda socket: socket.on("framesent", lambda data: said.append(json.loads(data) if "/ws/page/" in socket.url else "a run")))
    reader.ask()
    reader.say("I will go on for ever")
    expect(reader.answer).to_have_text("I will go on for ever")
    stop = reader.page.get_by_role("button", name="Stop")
    stop.focus()
    reader.heard_all()
    said.clear()
    reader.page.keyboard.press("Enter")
    reader.page.keyboard.press("Enter")
    reader.until(lambda: reader.server.tell()["stopped"])
    expect(reader.finished).to_have_text("I will go on for ever")
    assert said[0] == {"stop": "a1"} and said.count({"stop": "a1"}) == 1
    assert reader.server.tell()["stopped"] == ["a1"]


def test_a_rerun_of_the_page_in_the_middle_loses_and_doubles_nothing(reader: Reader) -> None:
    reader.ask()
    reader.say("one two ")
    expect(reader.answer).to_have_text("one two ", use_inner_text=True)
    reader.page.get_by_role("button", name="Rerun").click()
    reader.until(lambda: reader.server.tell()["runs"]["full"] == 2)
    reader.say("three")
    expect(reader.answer).to_have_text("one two three")
    assert len(reader.sockets) == 1


def test_the_next_answer_uses_the_same_socket(reader: Reader) -> None:
    reader.ask()
    reader.say("first", done=True)
    expect(reader.finished).to_have_text("first")
    reader.server.tell(new="a2")
    reader.page.get_by_role("button", name="Rerun").click()
    reader.page.wait_for_selector(".live:not([hidden])")
    reader.say("second", answer_id="a2")
    expect(reader.answer).to_have_text("second")
    assert len(reader.sockets) == 1


# --- What is drawn ----------------------------------------------------------------------------------------------------


def test_half_a_code_fence_is_code_already(reader: Reader) -> None:
    reader.ask()
    reader.say("Run:\n\n``", "`py", "thon\nprint('<b>$5</b>", " snake_case \\(x)')\n")
    reader.draws("<p>Run:</p><pre><code>print('&lt;b&gt;$5&lt;/b&gt; snake_case \\(x)')</code></pre>")
    reader.say("``", "`\nDone")
    expect(reader.answer.locator("p").last).to_have_text("Done")
    reader.until(lambda: reader.answer.locator("pre").inner_text().strip() == "print('<b>$5</b> snake_case \\(x)')")


def test_a_table_grows_row_by_row_and_stands_as_its_second_line_says(reader: Reader) -> None:
    reader.ask()
    reader.say("| Step | Price |\n", "|---", "|---:|\n", "| Pl", "an | $5")
    expect(reader.answer.locator("td")).to_have_text(["Plan", "$5"])
    expect(reader.answer.locator("td").nth(1)).to_have_css("text-align", "right")
    expect(reader.answer.locator("th").nth(1)).to_have_css("text-align", "right")
    reader.say("00 |\n| Build | $800 |\n")
    expect(reader.answer.locator("td")).to_have_text(["Plan", "$500", "Build", "$800"])


@pytest.mark.fault(74)
def test_a_link_split_over_two_messages_is_checked_when_it_is_whole(reader: Reader) -> None:
    reader.ask()
    reader.say("See [the do", "cs](https://doc", "s.python.org/3/_x_y) now.")
    link = reader.answer.locator("a")
    expect(reader.answer).to_have_text("See the docs (docs.python.org) now.")
    expect(link).to_have_attribute("href", "https://docs.python.org/3/_x_y")
    expect(link).to_have_attribute("target", "_blank")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(link).to_have_attribute("title", "docs.python.org")


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,<b>x",
        "vbscript:x",
        "/admin",
        "//evil.example",
        "file:///etc/passwd",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
    ],
)
def test_a_link_elsewhere_than_the_web_or_mail_is_text(reader: Reader, target: str) -> None:
    reader.ask()
    reader.say(f"[look]({target}) and")
    expect(reader.answer).to_contain_text("[look](")
    assert reader.answer.locator("a").count() == 0


@pytest.mark.fault(73)
def test_no_picture_is_fetched_while_the_answer_grows_nor_when_it_is_finished(reader: Reader) -> None:
    reader.ask()
    reader.say("![c", "at](https://evil.exam", "ple/p.png?q=secret) [![dog](https://evil.example/d.png)](https://fine.example/)\n\n")
    reader.say(
        "![svg](data:image/svg+xml,<svg/onload=alert(1)>) <img src=https://evil.example/i.png>\n\n![ref][r]\n\n[r]: https://evil.example/r.png\n\n[^1]: ![f](https://evil.example/f.png)\n\n"
    )
    reader.say(f"![own]({reader.server.url}/app/static/mark.svg?leak)\n\n$$\\includegraphics{{https://evil.example/k.png}}$$\n\n:streamlit:")
    expect(reader.answer).to_contain_text("[image not loaded: cat] [image not loaded: dog] (fine.example)")
    assert reader.answer.locator("img").count() == 0
    reader.say(done=True)
    expect(reader.finished).to_contain_text("[image not loaded: cat] [image not loaded: dog] (fine.example)")
    still(reader.page, "document.querySelectorAll('[data-testid=stMain] *').length")
    reader.heard_all()
    assert reader.finished.locator("img, svg image").count() == 0
    assert not reader.foreign() and not [url for url in reader.requests if "leak" in url]
    assert not reader.complaints, "not even tried: the content policy had nothing to stop"


@pytest.mark.fault(75)
def test_a_script_is_text(reader: Reader) -> None:
    reader.ask()
    reader.say("<scr", "ipt>window.hit = 1</script> <img src=x onerror='window.hit=1'> <b>bold</b> <br> &lt;i&gt;\n\n<div onclick=x>**y**</div>")
    expect(reader.answer).to_contain_text("<script>window.hit = 1</script> <img src=x onerror='window.hit=1'> <b>bold</b>")
    reader.say(done=True)
    expect(reader.finished).to_contain_text("<script>window.hit = 1</script> <img src=x onerror='window.hit=1'> <b>bold</b>")
    assert reader.page.evaluate("window.hit") is None
    assert reader.finished.locator("b, script, div[onclick]").count() == 0


@pytest.mark.fault(77)
def test_dollars_are_money_while_it_grows_and_when_it_is_finished(reader: Reader) -> None:
    reader.ask()
    words = "From $500 to $800, then **$5** to $6/h, $USD and $x$, \\$9. :red[no] :material/home: 12:30:45 ~5 or ~6"
    reader.say(*re.findall(r".{1,3}", words))
    shown = words.replace("**", "").replace("\\", "")
    expect(reader.answer).to_have_text(shown)
    reader.say(done=True)
    reader.until(lambda: reader.finished.count() and reader.finished.inner_text().replace("\u2060", "").strip() == shown)
    assert reader.page.locator(".katex").count() == 0
    assert not [url for url in reader.requests if "katex" in url.lower()]


def test_a_formula_between_two_dollars_is_drawn_when_it_is_finished(reader: Reader) -> None:
    reader.ask()
    reader.say("So $$\\frac{a_1}", "{b_1}$$ it **is**")
    expect(reader.answer).to_have_text("So $$\\frac{a_1}{b_1}$$ it is")
    reader.say(done=True)
    expect(reader.finished.locator(".katex")).to_have_count(1)
    assert not reader.complaints


@pytest.mark.parametrize(
    ("said", "drawn"),
    [
        ("Dear [Your Name], snake_case_word and __bold__ _it_", "<p>Dear <span>[Your Name]</span>, snake_case_word and <strong>bold</strong> <em>it</em></p>"),
        ("one\ntwo  \nthree\\\nfour", "<p>one two<br>three<br>four</p>"),
        ("\\(x\\) \\[y\\] \\*z\\* C:\\dir", "<p>(x) [y] *z* C:\\dir</p>"),
        ("1. a\n\n   b\n\n2. c", '<ol class="loose"><li><p>a</p><p>b</p></li><li><p>c</p></li></ol>'),
        ("- a\n  ```\n  x\n\n  y\n  ```\n- b", "<ul><li><p>a</p><pre><code>x\n\ny</code></pre></li><li><p>b</p></li></ul>"),
        ("- a\n  - b\n\n**After** it", "<ul><li><p>a</p><ul><li><p>b</p></li></ul></li></ul><p><strong>After</strong> it</p>"),
        (
            "see https://a.example/x_y.",
            '<p>see <a href="https://a.example/x_y" title="a.example" target="_blank" rel="noopener noreferrer nofollow">https://a.example/x_y</a>.</p>',
        ),
    ],
)
def test_what_smd_reads_otherwise_is_mended(reader: Reader, said: str, drawn: str) -> None:
    reader.ask()
    reader.say(*said, "\n")
    reader.draws(drawn)


@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_however_the_words_are_cut_the_same_is_drawn(reader: Reader, step: int) -> None:
    reader.ask()
    reader.say(*(SAMPLE[at : at + step] for at in range(0, len(SAMPLE), step)))
    expect(reader.answer).to_contain_text("The end of it.")
    reader.draws(_drawn.setdefault("sample", reader.html().replace(" </p>", "</p>")))


_drawn: dict[str, str] = {}
SAMPLE = """Dear **Ines**, from $500 to `$800` \\(net\\).

# One

- a_b_c and [docs](https://docs.python.org/3/)
- [ ] open
  - deep

1. First

   ```py
   x = "$1"

   y
   ```
2. Second

| A | B |
|:--|--:|
| 1 | `x` |

> Quoted
> twice\\
> thrice

---

https://a.example/x_y. 👩‍👩‍👧 The end of it.
"""


# --- Nothing moves ----------------------------------------------------------------------------------------------------

PLACES = """root => { const top = root.getBoundingClientRect().top, out = [], walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) { const words = walk.currentNode.data.trim(); if (words.length < 3) continue;
    const range = document.createRange(); range.selectNodeContents(walk.currentNode); const box = range.getClientRects()[0];
    if (box) out.push([words.replace(/\\s+/g, ' ').slice(0, 30), box.left, box.top - top]); } return out; }"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (320, "dark")])
def test_the_finished_answer_stands_where_the_growing_one_stood(browser: Browser, server: LiveServer, width: int, scheme: str) -> None:
    with reading(browser, server, viewport={"width": width, "height": 800}, color_scheme=scheme) as reader:
        reader.ask()
        reader.say(*re.findall(r"(?s).{1,9}", SAMPLE))
        expect(reader.answer).to_contain_text("The end of it.")
        growing = {words: (left, top) for words, left, top in reader.answer.evaluate(PLACES)}
        reader.say(done=True)
        reader.page.wait_for_selector("[data-testid=stCode] code")

        def nothing_moved() -> None:
            finished = reader.finished.evaluate(PLACES)
            shared = [(words, growing[words], (left, top)) for words, left, top in finished if words in growing]
            assert len(shared) >= 12
            for words, before, after in shared:
                assert abs(before[1] - after[1]) <= 2 and abs(before[0] - after[0]) <= 6, words

        reader.settled(nothing_moved)
        expect(reader.finished.locator("blockquote")).to_have_css("opacity", "1")  # our stylesheet lost to Streamlit's once
        reader.page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_wide_table_scrolls_in_itself_on_a_phone_growing_and_finished(browser: Browser, server: LiveServer) -> None:
    with reading(browser, server, viewport={"width": 320, "height": 700}) as reader:
        reader.ask()
        reader.say(
            "| " + " | ".join(f"Heading{n}" for n in range(9)) + " |\n|" + "---|" * 9 + "\n| " + " | ".join("unbreakable" for _ in range(9)) + " |\n\nAfter"
        )
        expect(reader.answer).to_contain_text("After")
        fits = "e => e.scrollWidth > e.clientWidth && e.getBoundingClientRect().right <= innerWidth - 8"
        reader.until(lambda: reader.answer.locator("table").evaluate(fits))
        reader.say(done=True)
        expect(reader.finished).to_contain_text("After")
        reader.until(lambda: reader.finished.locator("table").evaluate(fits))


def test_whoever_scrolled_up_stays_and_whoever_reads_the_end_follows(reader: Reader) -> None:
    reader.ask(query="/?fill=1")
    scroller = reader.page.locator("[data-testid=stAppScrollToBottomContainer]")
    left = "e => e.scrollHeight - e.scrollTop - e.clientHeight"
    top = "document.querySelector('[data-testid=stAppScrollToBottomContainer]').scrollTop"
    reader.say("First line.\n\n")
    scroller.evaluate("e => e.scrollTo(0, e.scrollHeight)")
    still(reader.page, top)
    reader.say(*(f"Line {n}.\n\n" for n in range(30)))
    expect(reader.answer).to_contain_text("Line 29.")
    reader.until(lambda: scroller.evaluate(left) < 12)
    at_the_end = still(reader.page, top)  # Streamlit takes a scroll that comes with a change of height for its own
    box = reader.page.viewport_size
    assert box
    reader.page.mouse.move(box["width"] / 2, 300)
    reader.page.mouse.wheel(0, -700)
    reader.until(lambda: scroller.evaluate("e => e.scrollTop") < at_the_end - 600)
    before = still(reader.page, top)
    reader.say(*(f"More {n}.\n\n" for n in range(30)))
    expect(reader.answer).to_contain_text("More 29.")
    assert abs(still(reader.page, top) - before) < 2


# --- Much, and broken --------------------------------------------------------------------------------------------------


@contextmanager
def little_work(reader: Reader, seconds: float) -> Iterator[None]:
    """The page's own thread works no longer than this in all: not by the clock, which goes on while a busy machine does something else."""
    session = reader.page.context.new_cdp_session(reader.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked() -> float:
        return next(float(metric["value"]) for metric in session.send("Performance.getMetrics")["metrics"] if metric["name"] == "TaskDuration")

    before = worked()
    yield
    assert worked() - before < seconds
    session.detach()


def test_four_thousand_words_arrive_whole_and_the_tab_stays_awake(reader: Reader) -> None:
    reader.ask()
    words = "".join(f"word{n} " + ("\n\n" if n % 50 == 49 else "") for n in range(4_000))
    with little_work(reader, 1):
        reader.say(*(words[at : at + 200] for at in range(0, len(words), 200)))
        expect(reader.answer.locator("p").last).to_contain_text("word3999")
    assert reader.answer.inner_text().split() == words.split()
    reader.say(done=True)
    expect(reader.finished).to_contain_text("word3999")


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    "bomb",
    [
        "> " * 3_000 + "x\n\n",
        "".join("  " * n + "- x\n" for n in range(200)),
        "[" * 20_000,
        "*a " * 10_000,
        "| a |\n|---|\n" + "| x |\n" * 2_000,  # twice the longest answer; Streamlit takes seconds for more
        "```\n" + "y" * 100_000 + "\n```\n",
        "x" * 200_001,
    ],
    ids=["quotes", "lists", "brackets", "stars", "table", "line", "long"],
)
def test_a_bomb_leaves_the_tab_usable(reader: Reader, bomb: str) -> None:
    reader.ask()
    with little_work(reader, 1):
        reader.say(bomb, "\n\nafter")
        expect(reader.answer).to_contain_text("after")
    reader.say(done=True)
    reader.until(lambda: reader.finished.count() and "after" in reader.finished.inner_text())  # expect would tell all that is on the page
    reader.page.get_by_role("button", name="Rerun").click()


def test_a_break_in_the_middle_goes_on_where_it_stopped(reader: Reader) -> None:
    reader.ask()
    reader.say("👩‍👩‍👧 one ")
    expect(reader.answer).to_contain_text("one")
    reader.server.tell(drop=True)
    reader.say("two ")
    reader.until(lambda: len(reader.sockets) == 2)
    reader.say("three")
    expect(reader.answer).to_have_text("👩‍👩‍👧 one two three")
    reader.server.tell(drop=True)
    reader.say(" four", done=True)
    expect(reader.finished).to_have_text("👩‍👩‍👧 one two three four")


def test_what_comes_twice_is_drawn_once(reader: Reader) -> None:
    reader.ask()
    reader.say("👩‍👩‍👧 one two")
    expect(reader.answer).to_have_text("👩‍👩‍👧 one two")
    for at in (0, 3, 6):
        reader.server.tell(again=at)
    reader.say(" three")
    expect(reader.answer).to_have_text("👩‍👩‍👧 one two three")


def test_stop_in_the_middle_of_a_break_is_said_when_the_socket_is_back(reader: Reader) -> None:
    reader.ask()
    reader.say("one")
    expect(reader.answer).to_have_text("one")
    reader.page.evaluate("0")
    reader.server.tell(drop=True)
    reader.page.get_by_role("button", name="Stop").click()
    reader.until(lambda: reader.server.tell()["stopped"] == ["a1"])


def test_a_channel_the_server_forgot_is_renewed_without_a_storm(reader: Reader) -> None:
    reader.ask()
    reader.say("one ")
    expect(reader.answer).to_contain_text("one")
    reader.server.tell(forget=True)
    reader.server.tell(drop=True)  # its socket is not known any more either: the page's own end notices
    reader.page.evaluate("() => 0")
    runs = reader.server.tell()["runs"]["fragment"]
    reader.say("two")
    reader.page.get_by_role("button", name="Rerun").click()
    expect(reader.answer).to_have_text("one two")
    assert reader.server.tell()["runs"]["fragment"] - runs <= 3


@pytest.mark.fault(40)
def test_a_restart_of_the_server_in_the_middle_of_an_answer(browser: Browser) -> None:
    server = LiveServer()
    try:
        with reading(browser, server) as reader:
            reader.ask()
            reader.say("one two ")
            expect(reader.answer).to_contain_text("two")
            server.restart(HARNESS_ANSWER="one two three")
            expect(reader.answer).to_have_text("one two three")
            runs = server.tell()["runs"]
            assert runs["full"] + runs["fragment"] <= 8, "no storm of reruns"
            server.tell(id="a1", say=" four", done=True)
            expect(reader.finished).to_have_text("one two three four")
    finally:
        server.stop()


# --- The look ---------------------------------------------------------------------------------------------------------


def test_the_cursor_stands_still_for_those_who_asked_for_it(browser: Browser, server: LiveServer) -> None:
    for motion, name in (("reduce", "none"), ("no-preference", "blink")):
        with reading(browser, server, reduced_motion=motion) as reader:
            reader.ask()
            reader.say("words")
            expect(reader.answer).to_have_text("words")
            reader.until(partial(moves, reader, name))


def moves(reader: Reader, name: str) -> bool:
    return bool(reader.page.locator(".answer .cursor").evaluate("e => getComputedStyle(e, '::after').animationName") == name)


def test_the_components_program_is_not_sent_again_with_each_run(reader: Reader) -> None:
    sizes: list[int] = []
    reader.page.on("websocket", lambda socket: socket.on("framereceived", lambda data: sizes.append(len(data))) if "_stcore" in socket.url else None)
    reader.ask()
    sizes.clear()
    reader.page.get_by_role("button", name="Rerun").click()
    reader.until(lambda: reader.server.tell()["runs"]["full"] == 2)
    reader.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    reader.heard_all()
    assert sum(sizes) < 6_000
    assert len([url for url in reader.requests if "/live/" in url and url.endswith("live.js")]) <= 1
