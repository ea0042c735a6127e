"""History: every chat of a person that can still be read, when it goes, and a way to take it away sooner.

Without it a chat that has left the side panel's first screen is as good as lost, and deleting one means opening it.
"""

from html import escape

import streamlit as st

from chatpro.domain.accounts import Account
from chatpro.domain.chats import Chat, clean_title, deleted_on
from chatpro.errors import ChatProError
from chatpro.web import allowance, gate, parts, places
from chatpro.web.parts import house

account = gate.page("history")

PAGE = 20
SOON_DAYS = 7


def draw() -> None:
    """The rows of one page, newest activity first."""
    days = house().settings.retention_days
    allowance.frame(account)
    parts.head("History", f"Every chat of the last {days} days. After that nobody can read it any more.")
    _say_deleted()
    chats = house().history.chats(account)
    if not chats:
        parts.note("Your chats will stand here, each with the day of its deletion.")
        if st.button("Start a chat", key="start_chat", icon=":material/edit_square:"):
            places.go("chat")
        return
    count = -(-len(chats) // PAGE)
    number = max(1, min(int(st.session_state.get("history_page", 1)), count))
    with st.container(gap=None):
        for position, chat in enumerate(chats[(number - 1) * PAGE : number * PAGE]):
            _row(position, chat, days)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.html(f'<span class="note">{len(chats):,d} {"chat" if len(chats) == 1 else "chats"}</span>', width="content")
        if count > 1:
            st.pagination(count, key="history_page")


def _row(position: int, chat: Chat, days: int) -> None:
    gone = deleted_on(chat.last_at, days)
    soon = (gone - house().now()).days < SOON_DAYS
    with st.container(key=f"hrow_{position}"):
        left, right = st.columns([3, 1.8], vertical_alignment="center")
        with left:
            if st.button(parts.label(chat.title), key=f"open_{chat.id}", type="tertiary"):
                places.go("chat", chat=chat.id)
        size = "An answer is being written" if chat.running else parts.count_of(chat.messages, "message")
        with right, st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            st.html(
                f'<div class="meta"><b>{escape(parts.when(chat.last_at, account))}</b><span>{escape(size)}</span>'
                f'<span class="{"soon" if soon else ""}">Kept until {escape(parts.short_day(gone, account))}</span></div>'
            )
            if st.button(parts.label(f"Delete {chat.title}"), key=f"bin_{chat.id}", icon=":material/delete:", type="tertiary", help="Delete this chat"):
                st.session_state["asked_about"] = chat.id
                st.rerun()
        if st.session_state.get("asked_about") == chat.id:
            _confirm(account, chat)


def _confirm(actor: Account, chat: Chat) -> None:
    """The question stands in the row itself: no dialog covers the chat that it is about."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="confirm"):
        st.html(f'<span class="note">Delete "{escape(clean_title(chat.title))}"? Receipts and the meter stay as they are.</span>', width="content")
        if st.button("Delete", key="delete_yes"):
            st.session_state.pop("asked_about", None)
            _delete(actor, chat)
            st.rerun()
        if st.button("Keep", key="delete_no"):
            st.session_state.pop("asked_about", None)
            st.rerun()


def _delete(actor: Account, chat: Chat) -> None:
    try:
        house().history.delete(actor, chat.id)
        st.session_state["deleted_in_history"] = chat.id
    except ChatProError as error:
        st.session_state["history_trouble"] = str(error)


def _say_deleted() -> None:
    """What the last click did, with a way back from it until another chat is deleted."""
    if trouble := st.session_state.pop("history_trouble", None):
        parts.notice("plain", "info", "Nothing was deleted.", trouble)
    deleted = st.session_state.get("deleted_in_history")
    if deleted and parts.notice("plain", "delete", "The chat was deleted.", "It is out of every list and can't be opened.", "Undo"):
        del st.session_state["deleted_in_history"]
        try:
            house().history.restore(account, deleted)
        except ChatProError as error:
            st.session_state["history_trouble"] = str(error)
        st.rerun()


draw()
