"""History: every chat of a person that can still be read, when it goes, and ways to find it, take it home, or take it away sooner.

Without it a chat that has left the side panel's first screen is as good as lost. How the table is looked at stands in the address, so
that a reload, the back button and a second tab show the same; what stands in it is asked of the store in each run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from typing import Any

import streamlit as st

from chatpro.domain.accounts import Account
from chatpro.domain.chats import Column, Listed, clean_title, deleted_on
from chatpro.errors import ChatProError, NotFound
from chatpro.services.export import Form
from chatpro.services.history import View
from chatpro.web import allowance, exporting, gate, live, parts, places
from chatpro.web.parts import house
from chatpro.web.table import Looked, TableRow, chat_table

account = gate.page("history")

SOON = timedelta(days=7)
UNDO = "can be brought back for ten minutes. Then the text is taken out of all files."
FORMS = {"markdown": Form.MARKDOWN, "html": Form.HTML, "json": Form.JSON}


def draw() -> None:
    """The table, or what will stand there."""
    days = house().settings.retention_days
    allowance.frame(account)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom", key="history_head"):
        parts.head("History", f"Every chat of the last {days} days. After that nobody can read it any more.")
        st.button("Export everything", key="export_all", icon=":material/download:", on_click=_act, args=(lambda who: exporting.ask(who, Form.EVERYTHING),))
    _say()
    exporting.progress()
    looked = _looked()
    listing = house().history.listing(account, _view(looked))
    if not listing.chats and not (looked.begin or looked.end or looked.words):
        parts.note("Your chats will stand here, each with the day of its deletion.")
        if st.button("Start a chat", key="start_chat", icon=":material/edit_square:"):
            places.go("chat")
        return
    shown = Looked(looked.sort, looked.descending, looked.begin, looked.end, listing.number, looked.words)
    rows = [_row(row, days) for row in listing.rows]
    chat_table(rows, looked=shown, pages=listing.pages, chats=listing.chats, address=live.base_path() + "/", do=_do)


def _row(row: Listed, days: int) -> TableRow:
    first, last = deleted_on(row.first_at, days), deleted_on(row.last_at, days)
    goes, first_goes = parts.short_day(last, account), parts.short_day(first, account)
    soon = last - house().now() < SOON
    title, when = clean_title(row.title), parts.when(row.last_at, account)
    return TableRow(row.id, title, f"{row.messages:,}", f"{row.tokens:,}", when, goes, "" if first_goes == goes else first_goes, soon, row.running)


# --- How it is looked at ----------------------------------------------------------------------------------------------


def _looked() -> Looked:
    """As the address says; what it can't say is the default."""
    asked = st.query_params
    sort, page = asked.get("sort", ""), asked.get("page", "")
    return Looked(
        sort if sort in list(Column) else Column.LAST,
        asked.get("order", "down") != "up",
        _day_or_nothing(asked.get("from", "")),
        _day_or_nothing(asked.get("to", "")),
        int(page) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
        asked.get("q", "")[:200],
    )


def _look(looked: Any) -> None:
    """Put another view into the address. What the browser says is checked when it is read from there."""
    if not isinstance(looked, dict):
        return
    wanted = {
        "sort": looked.get("sort"),
        "order": "down" if looked.get("descending") is True else "up",
        "from": looked.get("begin"),
        "to": looked.get("end"),
        "page": str(looked.get("page")),
        "q": looked.get("words"),
    }
    usual = {"sort": Column.LAST.value, "order": "down", "page": "1"}
    kept = {name: value for name, value in wanted.items() if isinstance(value, str) and value and value != usual.get(name)}
    if wanted["sort"] != Column.LAST.value:
        kept["order"] = str(wanted["order"])
    for name in wanted:
        st.query_params.pop(name, None)
    for name, value in kept.items():
        st.query_params[name] = value


def _view(looked: Looked) -> View:
    return View(Column(looked.sort), looked.descending, _midnight(looked.begin), _midnight(looked.end, after=1), looked.page)


def _day_or_nothing(text: str) -> str:
    with suppress(ValueError):
        return date.fromisoformat(text).isoformat() if len(text) == 10 else ""
    return ""


def _midnight(day: str, after: int = 0) -> datetime | None:
    """When that day of the person's begins, or the one so many days later."""
    if not day:
        return None
    try:
        return datetime.combine(date.fromisoformat(day) + timedelta(days=after), time(), parts.zone_of(account)).astimezone(parts.UTC)
    except OverflowError:  # the calendar's first or last day
        return None


# --- What is done -----------------------------------------------------------------------------------------------------


def _do(act: dict[str, Any]) -> None:
    """An act of the table, checked for its form here and by the services for its right."""
    match act:
        case {"is": "open", "id": str(chat)}:
            st.session_state["go_to"], st.session_state["go_with"] = "chat", {"chat": chat}
        case {"is": "rename", "id": str(chat), "title": str(title)}:
            _act(lambda who: house().history.rename(who, chat, title))
        case {"is": "delete", "ids": list(chats)}:
            _act(lambda who: _delete(who, _ids(chats)))
        case {"is": "export", "ids": list(chats), "form": str(form)} if form in FORMS:
            _act(lambda who: exporting.ask(who, FORMS[form], _ids(chats)))
        case {"is": "view", "looked": looked}:
            _look(looked)


def _ids(chats: list[Any]) -> list[str]:
    return [chat for chat in chats if isinstance(chat, str)]


def _act(work: Callable[[Account], None]) -> None:
    """Do it for whoever is there now; what goes wrong is said in a sentence."""
    st.session_state.pop("history_said", None)
    who = gate.who()
    if who is None or not who.may_open("history"):
        return
    try:
        work(who)
    except NotFound:
        st.session_state["history_said"] = ("That chat is not there any more.", "It was deleted in another tab, or its days are over.")
    except ChatProError as error:
        st.session_state["history_said"] = (str(error), "")


def _delete(who: Account, chats: list[str]) -> None:
    """What another tab has deleted meanwhile is no fault."""
    gone = st.session_state["deleted_in_history"] = []
    for chat in chats:
        with suppress(NotFound):
            house().history.delete(who, chat)
            gone.append(chat)


def _bring_back() -> None:
    gone: list[str] = st.session_state.pop("deleted_in_history", [])

    def work(who: Account) -> None:
        for chat in gone:
            house().history.restore(who, chat)

    _act(work)


def _say() -> None:
    """What the last click did, with a way back from it until another chat is deleted."""
    if said := st.session_state.get("history_said"):
        parts.notice("plain", "info", *said)
    if gone := st.session_state.get("deleted_in_history"):
        fact = "The chat was deleted." if len(gone) == 1 else f"{len(gone):,} chats were deleted."
        parts.notice("plain", "delete", fact, f"{'It' if len(gone) == 1 else 'They'} {UNDO}", "Undo", on_click=_bring_back)


draw()
