"""What a person waits for on the chat page, in Chromium: another chat after a click, and the last word after Stop.

    .venv/bin/python bench/page.py [--chats 500] [--messages 200] [--clicks 40]

Streamlit sends a page anew with each click. Without this figure nobody would notice when a long list or a long chat makes the page
crawl: the tests only ask whether the right things are drawn. Beside it stands the same click on a page with one short chat.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import sync_playwright  # noqa: E402

from chatpro import bootstrap  # noqa: E402
from chatpro.config import Settings  # noqa: E402
from tests.cast import write_chat  # noqa: E402
from tests.serving import Server  # noqa: E402
from tests.upstream import Upstream, answer  # noqa: E402

DRAWN = """(title) => new Promise((done) => {
  const list = document.querySelector(".st-key-panel_list [data-testid=stBidiComponentIsolated]").shadowRoot;
  const row = [...list.querySelectorAll("nav a")].find((a) => a.textContent.includes(title));
  const began = performance.now();
  row.click();
  const look = () => {
    const there = document.querySelector(".st-key-chat_head h1")?.innerText.includes(title);
    const answers = [...document.querySelectorAll("[class*=st-key-msg_answer_] [data-testid=stMarkdownContainer]")];
    const last = answers.at(-1)?.innerText.includes(`The end of ${title}.`);
    if (there && last) requestAnimationFrame(() => done(performance.now() - began));
    else if (performance.now() - began > 20000) done(NaN);
    else requestAnimationFrame(look);
  };
  look();
})"""
STOPPED = """() => new Promise((done) => {
  const live = document.querySelector(".st-key-msg_answer_live [data-testid=stBidiComponentIsolated]").shadowRoot;
  const began = performance.now();
  let last = began;
  new MutationObserver(() => { last = performance.now(); }).observe(live.querySelector(".answer"), {childList: true, subtree: true, characterData: true});
  live.querySelector(".row button").click();
  setTimeout(() => done(last - began), 1500);
})"""


def fill(folder: Path, chats: int, messages: int) -> None:
    """Two long chats that are clicked in turn, two short ones, and as many others as were asked for."""
    house = bootstrap.build(Settings(demo_dir=folder / "demo", data_dir=folder / "var", models=("gpt-4",), allowance_tokens=20_000_000, sample_freelancers=0))
    mara = house.accounts.sample("mara")
    assert mara is not None
    now = house.now()
    for number in range(chats - 4):
        write_chat(
            house, mara, (f"Question {number}", "An answer."), title=f"Chat number {number}", at=now - timedelta(days=3, minutes=chats - number), tokens=(1, 1)
        )
    words = "It is a matter of **taste**, of time and of what the client has said before.\n\n- one thing\n- and another\n\n"
    for name, pairs in (("Long one", messages // 2), ("Long two", messages // 2), ("Short one", 1), ("Short two", 1)):
        said = [(f"Question {n} about the layout", words + (f"The end of {name}." if n == pairs - 1 else "")) for n in range(pairs)]
        write_chat(house, mara, *said, title=name, at=now - timedelta(minutes=10), tokens=(1, 1))
    house.store.close()
    house.analytics.close()


def clicks(page: Any, names: tuple[str, str], count: int) -> list[float]:
    return [float(page.evaluate(DRAWN, names[n % 2])) for n in range(count)]


def told(what: str, times: list[float]) -> float:
    ordered = sorted(times)
    p95 = ordered[max(0, round(len(ordered) * 0.95) - 1)]
    print(f"{what}: median {statistics.median(ordered):.0f} ms, p95 {p95:.0f} ms, {len(ordered)} times")
    return p95


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--chats", type=int, default=500)
    asked.add_argument("--messages", type=int, default=200)
    asked.add_argument("--clicks", type=int, default=40)
    given = asked.parse_args()
    folder = Path(tempfile.mkdtemp())
    fill(folder, given.chats, given.messages)
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    long_answer = answer(" ".join(f"word{n}" for n in range(3_000)), gap=0.01)
    with Upstream(models=("gpt-4",)) as upstream, Server(folder, upstream.address, CHATPRO_MODELS="gpt-4", CHATPRO_ANSWER_TOKENS="2000") as server:
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]).new_page(
                viewport={"width": 1280, "height": 880}
            )
            page.goto(f"{server.url}/?as=mara")
            page.locator("[data-testid=stChatInput] textarea").wait_for()
            page.get_by_role("link", name="Long one").wait_for()
            clicks(page, ("Long one", "Long two"), 4)
            long = told(f"a click on a chat of {given.messages} messages beside {given.chats} chats", clicks(page, ("Long two", "Long one"), given.clicks))
            short = told("a click on a chat of 2 messages", clicks(page, ("Short one", "Short two"), given.clicks))
            print(f"ratio of the p95: {long / short:.2f}")
            stops = []
            for _ in range(8):
                upstream.queue(long_answer)
                box = page.locator("[data-testid=stChatInput] textarea")
                box.fill("Go on")
                box.press("Enter")
                page.locator(".st-key-msg_answer_live .answer", has_text="word20").wait_for()
                stops.append(float(page.evaluate(STOPPED)))
                page.get_by_text("This answer was stopped.").last.wait_for()
                page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
            told("Stop to the last word drawn", stops)


if __name__ == "__main__":
    main()
