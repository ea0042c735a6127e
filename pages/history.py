"""History: every chat of a person that can still be read, when it goes, and ways to find it, take it home, or take it away sooner.

Without it a chat that has left the side panel's first screen is as good as lost. How the table is looked at stands in the address, so
that a reload, the back button and a second tab show the same; what stands in it is asked of the store in each run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import streamlit as st

from chatpro.domain.accounts import Account
from chatpro.domain.chats import Column, Listed, clean_title, deleted_on
from chatpro.domain.search import Snippet
from chatpro.errors import ChatProError, NotFound, NotSearchable
from chatpro.services.export import Form
from chatpro.services.history import Found, Hit, Place, View
from chatpro.web import allowance, exporting, gate, live, parts, places
from chatpro.web.parts import house
from chatpro.web.table import FoundChat, FoundMessage, Looked, Pieces, Results, TableRow, chat_table

account = gate.page("history")

SOON = timedelta(days=7)
EPOCH, MOMENT = datetime(1970, 1, 1, tzinfo=parts.UTC), timedelta(microseconds=1)
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
    if looked.words:
        chat_table([], looked=looked, pages=1, chats=0, address=live.base_path() + "/", do=_do, found=_found(looked))
        return
    listing = house().history.listing(account, _view(looked))
    if not listing.chats and not (looked.begin or looked.end):
        parts.note("Your chats will stand here, each with the day of its deletion.")
        if st.button("Start a chat", key="start_chat", icon=":material/edit_square:"):
            places.go("chat")
        return
    shown = replace(looked, page=listing.number)
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
        asked.get("q", "").strip(),
        asked.get("before", ""),
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
        "before": looked.get("before") if looked.get("words") else "",
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


# --- What is searched for ---------------------------------------------------------------------------------------------


def _found(looked: Looked) -> Results:
    """What has these words, by chat; or a sentence that says why nothing has."""
    before = _place(looked.before)
    try:
        found = house().history.search(account, looked.words, before)
    except NotSearchable as error:
        return Results(str(error))
    older = f"{(found.more.at - EPOCH) // MOMENT}.{found.more.sequence}" if found.more else ""
    chats = tuple(_found_chat(hits) for hits in found.by_chat)
    if found.ended_early:
        return Results("The search has not come to its end.", "You wrote so much that it goes on in steps.", chats, older, "Search further back")
    if chats:
        return Results(_count(found, older=before is not None), "", chats, older, "Older ones")
    if before:
        return Results("There is nothing older that has all of this.")
    days = house().settings.retention_days
    return Results(
        f"Nothing of yours has “{looked.words}”.",
        f"All words have to be in one message: with fewer you find more. What is older than {days} days is gone.",
    )


def _count(found: Found, *, older: bool) -> str:
    """How much there is on this page of hits."""
    messages = sum(hit.message_id is not None for hit in found.hits)
    titles = len(found.hits) - messages
    counts = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((messages, "message"), (titles, "title")) if n]
    chats = f"in {len(found.by_chat)} chats" if len(found.by_chat) > 1 else "in one chat"
    if older:
        return f"Further back: {' and '.join(counts)} {chats}."
    return f"Found: {' and '.join(counts)} {chats}{', and older ones' if found.more else ''}."


def _found_chat(hits: list[Hit]) -> FoundChat:
    messages = [
        FoundMessage(hit.message_id, "You wrote" if hit.own else "Answer", parts.when(hit.at, account), _pieces(hit.snippet, markdown=not hit.own))
        for hit in hits
        if hit.message_id
    ]
    title = next((_pieces(hit.snippet) for hit in hits if hit.message_id is None), [(clean_title(hits[0].title), False)])
    return FoundChat(hits[0].chat_id, title, messages)


SIGNS = re.compile(r"(?<!\s)(?:\*\*|`+)|(?:\*\*|`+)(?!\s)|^#{1,6} ", re.MULTILINE)
"""What makes words bold, code or a heading in an answer, and is only noise where it does not."""


def _pieces(snippet: Snippet, *, markdown: bool = False) -> Pieces:
    """The snippet cut where its marks begin and end, with a sign where the text goes on."""
    edges = [0, *(edge for mark in snippet.marks for edge in mark), len(snippet.text)]
    cut = [(snippet.text[a:b], n % 2 == 1) for n, (a, b) in enumerate(pairwise(edges)) if a < b]
    pieces = [(text if marked or not markdown else SIGNS.sub("", text), marked) for text, marked in cut]
    return [*([] if snippet.begins else [("… ", False)]), *pieces, *([] if snippet.ends else [(" …", False)])]


def _place(text: str) -> Place | None:
    """Where the address says that the hits begin; what is none is the newest."""
    at, _, sequence = text.partition(".")
    if not (at.isdecimal() and sequence.isdecimal() and text.isascii() and len(at) < 17 and len(sequence) < 20):
        return None
    return Place(EPOCH + int(at) * MOMENT, min(int(sequence), 2**63 - 1))


# --- What is done -----------------------------------------------------------------------------------------------------


def _do(act: dict[str, Any]) -> None:
    """An act of the table, checked for its form here and by the services for its right."""
    match act:
        case {"is": "open", "id": str(chat), "at": str(message)} if message:
            st.session_state["go_to"], st.session_state["go_with"] = "chat", {"chat": chat, "at": message}
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
