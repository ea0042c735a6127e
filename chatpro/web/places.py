"""Which pages there are, where they lead, and how to get from one to another.

Every page has an address of its own and one of them is also `/`. Without the second address of the first page, somebody
who typed /chat, or followed a link to it, is told by Streamlit that there is no such page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import streamlit as st

from chatpro.config import ROOT
from chatpro.domain.accounts import Account


@dataclass(frozen=True)
class Place:
    """A page as the side panel names it."""

    title: str
    icon: str


PLACES: dict[str, Place] = {
    "chat": Place("Chat", "chat_bubble"),
    "history": Place("History", "history"),
    "admin": Place("Usage", "bar_chart"),
    "disputes": Place("Disputes", "gavel"),
    "audit": Place("Audit", "verified_user"),
    "operations": Place("Operations", "build"),
    "account": Place("Account", "person"),
    "help": Place("Help", "help"),
}
"""In the order of the side panel: work first. The first that an account may open is what `/` shows it."""


def file_of(name: str) -> Path:
    return ROOT / "pages" / f"{name}.py"


def first_of(account: Account | None) -> str:
    """The page behind `/`."""
    return next((name for name in PLACES if account is not None and account.may_open(name)), "chat")


def go(name: str, **query: str) -> NoReturn:
    """Leave for another page; `query` is all that its address will hold. Runs nothing after it."""
    st.switch_page(file_of(name), query_params=query)
