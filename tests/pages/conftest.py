"""Pages run as Streamlit runs them, in this process, on a house with the cast in it.

Two ways in: a page's own file, as on a fresh server that was asked for it directly, and the main script, which knows all pages
and can lead from one to another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.config import ROOT
from tests.cast import build_house

SIGN_IN = "Choose a sample account"
NOT_FOUND = "Not found"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house of this test's own, installed as the one of the process."""
    with _installed(build_house(tmp_path)) as built:
        yield built
    _close(built)


@pytest.fixture(scope="module")
def _house_of_this_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    built = build_house(tmp_path_factory.mktemp("house"))
    yield built
    _close(built)


@pytest.fixture
def shared_house(_house_of_this_file: House) -> Iterator[House]:
    """One house for all tests of a file that change nothing in it."""
    with _installed(_house_of_this_file) as built:
        yield built


@contextmanager
def _installed(built: House) -> Iterator[House]:
    bootstrap.install(built)
    try:
        yield built
    finally:
        bootstrap.install(None)


def _close(built: House) -> None:
    built.store.close()
    built.analytics.close()


def page(name: str, who: str | None = None, **query: str) -> AppTest:
    """A page's own file, run once, as this person of the cast (None: signed out)."""
    return _run(AppTest.from_file(str(ROOT / "pages" / f"{name}.py"), default_timeout=30), who, query)


def site(name: str | None = None, who: str | None = None, **query: str) -> AppTest:
    """The main script at the address of this page (None: at /), run once."""
    test = AppTest.from_file(str(ROOT / "chatpro" / "web" / "router.py"), default_timeout=30)
    return _run(test, who, query, name)


def go_to(test: AppTest, name: str) -> AppTest:
    """Click the page's name in the side panel."""
    return _run(test, None, {}, name)


def _run(test: AppTest, who: str | None, query: dict[str, str], name: str | None = None) -> AppTest:
    for key, value in {**({"as": who} if who else {}), **query}.items():
        test.query_params[key] = value
    # AppTest has no address bar: a page's hash is what a browser sends in its place, once; later runs stay where the first one led.
    test._page_hash = calc_hash(name) if name else ""
    test.run()
    test._page_hash = ""
    return test


def _blocks(test: AppTest) -> list[Any]:
    """The page, the side panel, and what stands at the bottom, which AppTest has no name for."""
    return [block for place, block in sorted(test._tree.children.items()) if place in (0, 1, 3)]


def words(test: AppTest) -> str:
    """Everything that a person could read on the page, panel included, as one string."""
    parts: list[str] = []
    for block in _blocks(test):
        for element in block:
            parts += [str(getattr(element, name)) for name in ("value", "label", "body", "placeholder") if isinstance(getattr(element, name, None), str)]
            proto = getattr(element, "proto", None)
            parts += [str(getattr(proto, name)) for name in ("body", "label", "help") if isinstance(getattr(proto, name, None), str)]
    parts += [escape(str(value)) for row in rows_of(test) for name, value in row.items() if name != "id"]
    parts += [escape(text) for found in _sent_to_table(test, "found") if found for text in _texts_of(found)]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", " ".join(parts))).split())


def rows_of(test: AppTest) -> list[dict[str, Any]]:
    """What the history page's table was sent, a dictionary a row."""
    return [row for rows in _sent_to_table(test, "rows") for row in rows]


def _sent_to_table(test: AppTest, name: str) -> list[Any]:
    sent = [element.proto for block in _blocks(test) for element in block if element.type == "bidi_component"]
    return [json.loads(proto.json)[name] for proto in sent if proto.component_name == "chatpro_chat_table"]


def _texts_of(found: dict[str, Any]) -> list[str]:
    """Everything that a search's results say."""
    messages = [message for chat in found["chats"] for message in chat["messages"]]
    pieces = [chat["title"] for chat in found["chats"]] + [message["text"] for message in messages]
    return [found["said"], found["hint"], *("".join(text for text, _ in some) for some in pieces), *(f"{m['who']} {m['when']}" for m in messages)]


class Table:
    """The history page's table with hands: AppTest can't click in a component. `acts` are done in the next run, as a browser would tell them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[dict[str, Any]] = []
        self._acts: list[dict[str, Any]] = []
        monkeypatch.setattr("chatpro.web.table._component", self._draw)

    def _draw(self, *, key: str, data: dict[str, Any], on_acts_change: Callable[[], None]) -> None:
        self.shown.append(data)
        if self._acts:
            st.session_state[key], self._acts = {"acts": self._acts}, []
            on_acts_change()
            st.rerun()

    def do(self, test: AppTest, **act: Any) -> None:
        self._acts = [{"n": self.shown[-1]["heard"] + 1, **act}]
        test.run()

    @property
    def titles(self) -> list[str]:
        return [row["title"] for row in self.shown[-1]["rows"]]

    @property
    def found(self) -> dict[str, Any]:
        """What a search found, as the browser is sent it."""
        found: dict[str, Any] = json.loads(json.dumps(self.shown[-1]["found"]))
        return found


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


class Hands:
    """The chat page's hands, which hear the buttons of its HTML: AppTest can't click there either."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._n = 0
        self._acts: list[dict[str, Any]] = []
        monkeypatch.setattr("chatpro.web.live.hands", self._draw)

    def _draw(self, *, on_act: Callable[[Any], None], **_: Any) -> None:
        acts, self._acts = self._acts, []
        if acts:
            on_act(acts)
            st.rerun()

    def do(self, test: AppTest, act: str, entry: str) -> None:
        self._n += 1
        self._acts = [{"n": self._n, "act": act, "id": entry}]
        test.run()


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


def html_of(test: AppTest) -> str:
    """All of our own HTML on the page, as it is sent."""
    return "\n".join(str(element.proto.body) for block in _blocks(test) for element in block if element.type == "html")


def title_of(test: AppTest) -> str:
    """The page's heading, empty where it has none of Streamlit's."""
    return test.title[0].value if test.title else ""


@pytest.fixture
def spy_on_text(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Counts what is read of anybody's text while pages run."""
    from chatpro.storage.sql import Unit

    read: list[str] = []
    for verb in ("chats", "messages", "outline", "written", "title", "draft", "parts", "usage_entries"):
        original = getattr(Unit, verb)

        def noted(self: Unit, *args: object, _verb: str = verb, _original: Callable[..., object] = original, **given: object) -> object:
            read.append(_verb)
            return _original(self, *args, **given)

        monkeypatch.setattr(Unit, verb, noted)
    return lambda: list(read)
