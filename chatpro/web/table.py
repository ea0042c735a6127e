"""The history page's table of chats, and what a search found: one component, a real table, drawn in the browser and changed where it changed.

Not st.dataframe: that is a canvas, which a screen reader reads poorly, a keyboard hardly reaches, and a phone shows a corner of. Not
Streamlit's own elements, because each row would be half a dozen of them. The store sorts, bounds and pages; the browser holds one page
of rows, and what is ticked. What was done is told by number (acts.py), so that a click is neither lost nor done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from chatpro.web.acts import Heard
from chatpro.web.modules import Module

module = Module("table", "table.js", "found.js", "acts.js", "table.css")
_component = st.components.v2.component("chatpro_chat_table", js=module.js)


@dataclass(frozen=True)
class TableRow:
    """One chat, in words. `goes` is the day on which all of it is deleted, `first` the day for its first words where that is another one;
    `soon`: within its last days."""

    id: str
    title: str
    messages: str
    tokens: str
    last: str
    goes: str
    first: str
    soon: bool
    running: bool


@dataclass(frozen=True)
class Looked:
    """How the table is looked at, in words of the address: column, direction, days (YYYY-MM-DD or empty), page, words searched for, and where among
    what was found (empty: at the newest)."""

    sort: str
    descending: bool
    begin: str
    end: str
    page: int
    words: str = ""
    before: str = ""


Pieces = list[tuple[str, bool]]
"""Text in pieces, of which some are marked."""


@dataclass(frozen=True)
class FoundMessage:
    """One message that was found: who wrote it and when, in words."""

    id: str
    who: str
    when: str
    text: Pieces


@dataclass(frozen=True)
class FoundChat:
    """A chat in which something was found. Without messages it is only its title that was."""

    id: str
    title: Pieces
    messages: list[FoundMessage]


@dataclass(frozen=True)
class Results:
    """What a search found: a sentence that says how much, another one about what can be done, and `older`, to be put in the address for what
    comes further back (empty where that is all). `further`: what the button to it says."""

    said: str
    hint: str = ""
    chats: tuple[FoundChat, ...] = ()
    older: str = ""
    further: str = ""


def chat_table(
    rows: list[TableRow], *, looked: Looked, pages: int, chats: int, address: str, do: Callable[[dict[str, Any]], None], found: Results | None = None,
    key: str = "table",
) -> None:  # fmt: skip
    """Draw the table, or in its place what was found. `do` gets each act once (or again where its run was broken off), in a callback, from a browser,
    so of any form: {"is": "open", "id", "at": message or nothing}, {"is": "rename", "id", "title"}, {"is": "delete", "ids"},
    {"is": "export", "ids", "form"}, {"is": "view", …Looked}."""
    heard: Heard = st.session_state.setdefault(f"{key}_heard", Heard())
    _component(
        key=key,
        data={
            "rows": [asdict(row) for row in rows],
            "found": asdict(found) if found else None,
            "looked": asdict(looked),
            "pages": pages,
            "chats": chats,
            "address": address,
            **heard.data,
        },
        on_acts_change=lambda: heard.take((st.session_state.get(key) or {}).get("acts"), do),
    )
