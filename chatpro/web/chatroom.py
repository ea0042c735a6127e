"""The chat page's parts: side panel, conversation, the answer being written, composer, and what each click does.

Every click is a callback that asks again who is there and acts through a service, so it may safely happen twice: Streamlit
starts a new run while the old one still goes. What must outlive a run is in the store or with the server; session state
holds only what this page last showed, a sentence to say once, and text that could not be sent.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import cache
from html import escape

import streamlit as st

from chatpro.bootstrap import house
from chatpro.config import ROOT
from chatpro.domain.accounts import Account, PlanState
from chatpro.domain.chats import AnswerState, Chat, Message, clean_title
from chatpro.errors import PROBLEM_SENTENCES, Busy, ChatProError, ModelProblem, NotFound, Problem
from chatpro.services.accounts import Meter
from chatpro.services.answering import AskLast, NotSent, Sent
from chatpro.services.history import Opened
from chatpro.web import doors, gate, parts, server
from chatpro.web.live import live_answer
from chatpro.web.markdown import safe_answer, user_text_html

COMPOSER_CHARS = 4_000_000
"""What the composer takes at all. Streamlit drops a longer paste without a word, so this is far above one message's limit: the service says
that with its figures and the text comes back. Beyond four million the browser itself grows slow, and the socket takes 25 MB."""
SHOWN = 40
"""Newest entries drawn at first: a rerun sends all that is drawn again, and forty fill several screens."""

WARNINGS = {
    "95": ("warning", "95 % of this month is used."),
    "75": ("info", "75 % of this month is used."),
}
"""Strongest first."""


@cache
def _starters() -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads((ROOT / "data" / "prompts" / "starters.toml").read_text(encoding="utf-8"))["starter"]
    return found


@dataclass(frozen=True)
class _Said:
    """Something the page says once, above the composer: the fact, and what it means."""

    fact: str
    text: str = ""
    kind: str = "plain"
    icon: str = "info"


def draw(account: Account) -> None:
    """The whole page for a freelancer, or what stands in its place: the offer, the consent."""
    accounts = house().accounts
    grant = accounts.grant(account)
    if grant.state is PlanState.NEVER or (grant.state is PlanState.HAD and not st.query_params.get("chat")):
        doors.offer(account, grant)
        return
    may_send = grant.state is PlanState.HAS
    if may_send and not accounts.opted_in(account) and not (accounts.consents(account) and st.query_params.get("chat")):
        doors.consent(account)
        return
    may_send = may_send and accounts.opted_in(account)
    _arrive(account)
    opened, missing = _open(account)
    may_send = may_send and not missing
    meter = accounts.meter(account, house().answering.sizes())
    _panel(account, opened.id if opened else None)
    with st.container(key="room"):
        if missing:
            days = house().settings.retention_days
            parts.head("Not found", f"There is no such chat here. It may have been deleted, or its {days} days are over.")
        elif opened:
            _head(account, opened)
            _conversation(account, opened, may_send)
        else:
            _empty(account, closed=meter is not None and meter.closed)
    _live(account, opened)
    _foot(account, opened, meter, may_send, missing)


# --- which chat -------------------------------------------------------------------------------------------------------


def _open(account: Account) -> tuple[Opened | None, bool]:
    """The chat that the address names, and whether it names one that isn't there."""
    chat_id = st.query_params.get("chat")
    if not chat_id:
        return None, False
    try:
        return house().history.open(account, chat_id), False
    except NotFound:
        # A chat that was not begun yet has nothing but the draft of its first message.
        return None, house().history.draft(account, chat_id) is None


def _chat_id() -> str:
    """The open chat's id, or the one that a new chat will have: made once for an empty page, so that a double send is one."""
    if chat_id := st.query_params.get("chat"):
        return chat_id
    return st.session_state.setdefault("new_chat_id", house().answering.new_chat_id())


def _arrive(account: Account) -> None:
    """Coming from another page or another chat: forget what was about the last one, and bring this one's kept draft into the composer."""
    at = st.query_params.get("chat")
    if st.session_state.get("at_chat", "nowhere") == at and gate.came_from() == "chat":
        return
    st.session_state["at_chat"] = at
    for key in ("new_chat_id", "ask_last", "shown", "renaming", "deleting", "said"):
        st.session_state.pop(key, None)
    st.session_state["composer"] = (house().history.draft(account, at) if at else None) or ""


def _turn_to(chat_id: str | None) -> None:
    """Put another chat, or an empty page, into the address."""
    if chat_id:
        st.query_params["chat"] = chat_id
    else:
        st.query_params.pop("chat", None)


# --- what clicks do ---------------------------------------------------------------------------------------------------


def _act(work: Callable[[Account], None]) -> None:
    """Do it for whoever is there now. What goes wrong is said in a sentence, which stays until the next thing the person does:
    an answer that ends redraws the page, and must not take away what nobody has read yet."""
    for key in ("said", "deleted"):
        st.session_state.pop(key, None)
    account = gate.who()
    if account is None or not account.may_open("chat"):
        return
    try:
        work(account)
    except ChatProError as error:
        st.session_state["said"] = _Said(str(error), kind="95", icon="warning")


def _submit() -> None:
    text = st.session_state.get("composer") or ""
    chat_id = _chat_id()
    st.session_state.pop("ask_last", None)
    if _kept_for_the_next_sign_in(chat_id, text):
        return

    def send(account: Account) -> None:
        try:
            outcome = house().answering.send(account, chat_id, text, st.session_state.get("tail"))
        except ChatProError as error:
            _put_back(chat_id, text, kept=isinstance(error, Busy | ModelProblem))
            raise
        _after(outcome, chat_id, text)

    _act(send)


def _kept_for_the_next_sign_in(chat_id: str, text: str) -> bool:
    """The person was signed out meanwhile: what they wrote waits for them as this chat's draft."""
    before = gate.account_of_session()
    if gate.who() is not None or before is None:
        return False
    with suppress(ChatProError):
        house().answering.keep(before, chat_id, text)
    return True


def _put_back(chat_id: str, text: str, kept: bool = True) -> None:
    """Not sent: the text is in the composer again. Where it was kept as a draft, the address names its chat, so that a reload brings it back."""
    st.session_state["composer"] = text
    if kept:
        st.query_params["chat"] = st.session_state["at_chat"] = chat_id


def _after(outcome: Sent | NotSent | AskLast, chat_id: str, text: str | None = None, again: str | None = None) -> None:
    """Say what became of a send, and put the page where it belongs. `text` is what came from the composer, None for a button's send;
    `again` is the message that a button had answered again."""
    if isinstance(outcome, Sent):
        st.session_state.pop("new_chat_id", None)
        st.session_state.pop("ask_last", None)
        if st.query_params.get("chat") != outcome.chat_id:
            st.query_params["chat"] = st.session_state["at_chat"] = outcome.chat_id
        return
    if text is not None:
        _put_back(chat_id, text)
    if isinstance(outcome, AskLast):
        st.session_state["ask_last"] = (chat_id, text, st.session_state.get("tail"), again, outcome)
    else:
        st.session_state["said"] = _refusal(outcome)


def _refusal(refused: NotSent) -> _Said:
    """Why nothing was sent, with its figures. The text is back in the composer."""
    kept = "Nothing was sent; your text is still here."
    if refused.reason == "too_long":
        limit = f"{refused.fits_now:,} fit now" if refused.fits_now < refused.fits_after else f"one message takes {refused.fits_after:,}"
        return _Said(f"Your draft has {refused.draft_tokens:,} tokens, {limit}.", f"{kept} Shorten it, or send it in parts.", "95", "block")
    fact = {
        "no_tokens": "This month's allowance is used up.",
        "allowance_lowered": "Your allowance was lowered, and what is left of it is too little for this.",
        "plan_ended": f"Your {house().settings.plan_name} plan has ended.",
        "no_consent": "You have not agreed to the use of AI, or took it back.",
    }[refused.reason]
    return _Said(fact, kept, "95", "block")


def _confirm_last() -> None:
    asked = st.session_state.pop("ask_last", None)
    if asked is None:  # the second of two clicks
        return
    chat_id, text, tail, again, ask = asked

    def send(account: Account) -> None:
        answering = house().answering
        if again is not None:
            outcome = answering.again(account, chat_id, again, ask.yes)
        elif text is not None:
            outcome = answering.send(account, chat_id, text, tail, ask.yes)
        else:
            outcome = answering.go_on(account, chat_id, tail, ask.yes)
        if isinstance(outcome, Sent) and text is not None:
            st.session_state["composer"] = ""
        _after(outcome, chat_id, text, again)

    _act(send)


def _keep_writing() -> None:
    st.session_state.pop("ask_last", None)


def _again(chat_id: str, question_id: str) -> None:
    _act(lambda account: _after(house().answering.again(account, chat_id, question_id), chat_id, again=question_id))


def _continue(chat_id: str, tail: str) -> None:
    _act(lambda account: _after(house().answering.go_on(account, chat_id, tail), chat_id))


def _rename(chat_id: str) -> None:
    def work(account: Account) -> None:
        house().history.rename(account, chat_id, st.session_state.get("new_title") or "")
        st.session_state.pop("renaming", None)

    _act(work)


def _delete(chat_id: str, title: str) -> None:
    def work(account: Account) -> None:
        house().history.delete(account, chat_id)
        _turn_to(None)
        st.session_state["deleted"] = (chat_id, title)

    _act(work)


def _undo_delete() -> None:
    deleted = st.session_state.pop("deleted", None)
    if deleted is None:  # the second of two clicks
        return
    chat_id, _ = deleted

    def work(account: Account) -> None:
        house().history.restore(account, chat_id)
        _turn_to(chat_id)

    _act(work)


def _opt_out() -> None:
    _act(house().accounts.opt_out)


def _set(key: str, value: object) -> None:
    st.session_state[key] = value


def _ended() -> None:
    """The answer that this page watched has ended; the run that follows draws it."""


# --- side panel -------------------------------------------------------------------------------------------------------


def _panel(account: Account, open_id: str | None) -> None:
    with parts.panel(account, _way_out if house().accounts.opted_in(account) else None), st.container(key="panel_list"):
        chats = house().history.chats(account)
        for heading, group in _grouped(chats, house().now(), parts.zone_of(account)):
            st.html(f'<h2 class="panel-h">{escape(heading)}</h2>')
            for chat in group:
                _row(chat, chat.id == open_id)
        if not chats:
            parts.note("Your chats will stand here.")


def _way_out() -> None:
    """One click from any chat, as near as the yes was."""
    st.button("Opt out of AI", type="tertiary", key="opt_out", on_click=_opt_out, help="Takes your consent back at once. Your chats stay here to read.")


def _row(chat: Chat, is_open: bool) -> None:
    with st.container(key=f"row_{'open_' if is_open else ''}{chat.id}", horizontal=True, wrap=False, gap=None, vertical_alignment="center"):
        st.button(
            parts.label(chat.title), key=f"b_{chat.id}", type="tertiary", width="stretch", wrap=False, icon=":material/pending:" if chat.running else None,
            help="An answer is being written here" if chat.running else None, on_click=_turn_to, args=(chat.id,),
        )  # fmt: skip


def _grouped(chats: list[Chat], now: datetime, zone: tzinfo) -> list[tuple[str, list[Chat]]]:
    """Today, the last 7 days, older: by the person's own calendar."""
    today = now.astimezone(zone).date()
    groups: dict[str, list[Chat]] = {"Today": [], "Last 7 days": [], "Older": []}
    for chat in chats:
        day = chat.last_at.astimezone(zone).date()
        groups["Today" if day >= today else "Last 7 days" if day > today - timedelta(days=7) else "Older"].append(chat)
    return [(heading, group) for heading, group in groups.items() if group]


# --- conversation -----------------------------------------------------------------------------------------------------


def _head(account: Account, opened: Opened) -> None:
    asked = opened.id in (st.session_state.get("renaming"), st.session_state.get("deleting"))
    with st.container(key="chat_head", horizontal=True, vertical_alignment="center", wrap=False):
        with st.container(gap=None):
            st.title(parts.label(opened.title), anchor=False)
            parts.note(f"Kept until {parts.day(opened.last_deleted_on, account)}")
        if not asked:  # an open menu would cover the question that stands below
            with st.popover("Menu", type="tertiary"):
                st.button("Rename", type="tertiary", icon=":material/edit:", key="rename", on_click=_set, args=("renaming", opened.id))
                st.button("Delete chat", type="tertiary", icon=":material/delete:", key="delete", on_click=_set, args=("deleting", opened.id))
    if st.session_state.get("renaming") == opened.id:
        with st.form("rename_form", border=True):
            st.text_input("New title", value=opened.title, max_chars=60, key="new_title")
            with st.container(horizontal=True):
                st.form_submit_button("Rename", on_click=_rename, args=(opened.id,))
                st.form_submit_button("Cancel", type="tertiary", on_click=_set, args=("renaming", None))
    if st.session_state.get("deleting") == opened.id:
        with st.container(key="confirm_delete", border=True):
            st.markdown("Delete this chat? It leaves every list at once. What it used stays counted.")
            with st.container(horizontal=True):
                st.button("Delete", key="delete_yes", on_click=_delete, args=(opened.id, opened.title))
                st.button("Keep", key="delete_no", type="tertiary", on_click=_set, args=("deleting", None))


def _conversation(account: Account, opened: Opened, may_send: bool) -> None:
    shown = st.session_state.get("shown", SHOWN)
    with st.container(key="conversation"):
        if len(opened.messages) > shown:
            st.button(f"Show earlier messages ({len(opened.messages) - shown})", type="tertiary", key="earlier", on_click=_set, args=("shown", shown + SHOWN))
        tail = opened.messages[-1]
        for message in opened.messages[-shown:]:
            if message.own:
                with st.container(key=f"msg_user_{message.id}"):
                    st.html('<h2 class="vh">You wrote</h2>' + user_text_html(message.text))
            elif message.answer is not None and message.answer.state is not AnswerState.RUNNING:
                _answer(account, message, message is tail and may_send, opened.id)
        if tail.own and may_send:
            _unanswered(opened.id, tail)


def _answer(account: Account, message: Message, is_tail: bool, chat_id: str) -> None:
    facts = message.answer
    assert facts is not None and message.parent_id is not None
    model = _title(facts.model)
    with st.container(key=f"msg_answer_{message.id}"):
        _who(model)
        if message.text:
            st.markdown(safe_answer(message.text), anchors=False)
        for sentence in (_what_happened(message, model), _gave_way(message)):
            if sentence:
                parts.note(sentence)
        if facts.receipt is not None and message.text:
            parts.receipt(facts.receipt, facts.ended_at or message.sent_at, account, "stopped" if facts.state is AnswerState.STOPPED else "")
        if not is_tail or facts.state is AnswerState.FINISHED:
            return
        with st.container(horizontal=True, gap="small"):
            if message.text:
                st.button("Continue", key=f"continue_{message.id}", icon=":material/play_arrow:", on_click=_continue, args=(chat_id, message.id))
            st.button("Try again", key=f"again_{message.id}", icon=":material/refresh:", on_click=_again, args=(chat_id, message.parent_id))


def _who(model: str) -> None:
    """The line above an answer: that the product wrote it, and with which model."""
    st.html(f'<h2 class="who"><i aria-hidden="true"></i>{escape(house().settings.product_name)} <small>{escape(model)}</small></h2>')


def _unanswered(chat_id: str, message: Message) -> None:
    """A message without an answer: its call was never begun, or its answer is past its 90 days."""
    parts.note("This message has no answer.")
    st.button("Try again", key=f"again_{message.id}", icon=":material/refresh:", on_click=_again, args=(chat_id, message.id))


def _gave_way(message: Message) -> str:
    """What had to give way so that the message fitted."""
    facts = message.answer
    assert facts is not None
    if facts.left_out:
        return "The oldest messages of this chat were left out to fit: this answer does not remember them."
    return "Kept shorter than usual, so that it fits what was left of the month." if facts.shortened else ""


def _what_happened(message: Message, model: str) -> str:
    """What a person has to know about an answer that is not simply finished."""
    facts = message.answer
    assert facts is not None
    said = ""
    if facts.problem:
        said = PROBLEM_SENTENCES[Problem(facts.problem)].format(model=model)
    if facts.state is AnswerState.FAILED:
        return f"{said} Nothing was charged; your message is still here."
    if facts.state is AnswerState.CUT:
        return f"{said} What came is kept, and only that was charged."
    if facts.state is AnswerState.INTERRUPTED:
        kept = "What came until then is kept, and only that was charged." if message.text else "Nothing was charged; your message is still here."
        return f"Interrupted: the service ended while this was being written. {kept}"
    if facts.state is AnswerState.LENGTH:
        return "This answer reached the longest that one message may have."
    if facts.state is AnswerState.STOPPED:
        return "This answer was stopped." if message.text else "This was stopped before it began. Nothing was charged."
    return ""


def _title(model: str) -> str:
    """A model's name for people."""
    return house().cards.of(model).title or model


def _empty(account: Account, closed: bool) -> None:
    if closed:
        parts.head("Chat", "Open one of your chats in the panel to read it.")
        return
    first = parts.name_of(account).split()[0]
    st.html(f'<div class="empty"><h1>What are you working on, {escape(first)}?</h1><p>Start with one of these, or write below.</p></div>')
    starters = _starters()
    for row in (starters[:3], starters[3:]):
        for column, starter in zip(st.columns(3, gap="small"), row, strict=True):
            with column:
                if parts.card(starter["key"], starter["icon"], starter["title"], starter["text"]):
                    st.session_state["composer"] = starter["words"]


# --- the answer being written, and below ------------------------------------------------------------------------------


def _live(account: Account, opened: Opened | None) -> None:
    """The component stays on the page for its whole life: one socket a page, whatever answer it shows.

    Which answer that is, the store says, in the same reading as the conversation above. One that has ended since is ended on
    the socket at once, and the run that follows draws it: nothing can fall between two looks.
    """
    running = next((m for m in opened.messages if m.answer and m.answer.state is AnswerState.RUNNING), None) if opened else None
    st.session_state["channel"] = channel = server.sockets().renewed(st.session_state.get("channel"), account.id, account.epoch)
    with st.container(key="msg_answer_live"):
        above = st.empty()  # its place stays, or the component after it would be made anew
        if running is None or running.answer is None:
            live_answer(channel=channel, answer_id=None, writing="", on_end=_ended)
            return
        with above:
            _who(_title(running.answer.model))
        server.sockets().watch(channel, running.id)
        live_answer(channel=channel, answer_id=running.id, writing=_title(running.answer.model), on_end=_ended)
    live = house().answering.watch(account.id, running.id)
    if live is not None and live.saving_trouble:
        parts.notice("95", "warning", live.saving_trouble, "")


def _foot(account: Account, opened: Opened | None, meter: Meter | None, may_send: bool, missing: bool) -> None:
    st.session_state["tail"] = opened.messages[-1].id if opened else None
    with st.bottom:
        _notices(account, meter)
        if may_send:
            closed = meter is not None and meter.closed
            placeholder = f"Write to {house().settings.product_name}"
            if closed and meter is not None and meter.cycle is not None:
                placeholder = f"Writing opens again on {parts.opens_at(meter.cycle.ends_at, account)}"
            st.chat_input(placeholder, key="composer", max_chars=COMPOSER_CHARS, disabled=closed, on_submit=_submit)
        elif missing:
            st.button("Start a new chat", key="start_new", on_click=_turn_to, args=(None,))
        elif meter is None:
            parts.notice("plain", "lock", f"{house().settings.plan_name} has ended.", "Your chats stay here to read.")
        else:
            parts.notice("plain", "block", "You said no to AI.", "Nothing is sent to a model; your chats stay here to read.")
            st.button("Think again", key="think_again", on_click=_turn_to, args=(None,))
        with st.container(key="foot_line"):
            if meter is not None:
                parts.meter_line(meter, _reminder())


def _reminder() -> str:
    """Who answers, and how far to trust it."""
    if house().model.is_local:
        return "Local demo model, not GPT-4: expect little"
    return f"{parts.model_title()} can be wrong: check what matters"


def _notices(account: Account, meter: Meter | None) -> None:
    """One at a time, the weightiest first; beside it only the way back from a deletion."""
    if deleted := st.session_state.get("deleted"):
        with st.container(horizontal=True, vertical_alignment="center"):
            parts.note(f"“{deleted[1]}” was deleted.")
            st.button("Undo", key="undo_delete", type="tertiary", on_click=_undo_delete)
    if ask := st.session_state.get("ask_last"):
        _ask_last(account, ask[4], ask[1])
    elif said := st.session_state.get("said"):
        parts.notice(said.kind, said.icon, said.fact, said.text)
    elif meter is not None and meter.cycle is not None and meter.closed:
        when = parts.opens_at(meter.cycle.ends_at, account)
        parts.notice(
            "plain", "hourglass_bottom", "This month's allowance is used up.", f"You can write again on {when}. Your chats stay here to read and copy."
        )
    elif meter is not None and meter.cycle is not None and meter.next_is_last:
        until = parts.opens_at(meter.cycle.ends_at, account)
        parts.notice("last", "hourglass_bottom", f"Your next message is the last one until {until}.", f"It can use up to {meter.remaining:,} tokens.")
    elif meter is not None and meter.cycle is not None:
        _warn(account, meter)


def _ask_last(account: Account, ask: AskLast, text: str | None) -> None:
    about = f"“{clean_title(text)}” can" if text else "It can"
    parts.notice(
        "last",
        "hourglass_bottom",
        f"This is your last message until {parts.opens_at(ask.renews_at, account)}.",
        f"{about} use all that is left, {ask.tokens:,} tokens; what it leaves expires. Afterwards you can still read and copy your chats.",
    )
    with st.container(horizontal=True, gap="small"):
        st.button("Send as the last", key="last_yes", on_click=_confirm_last)
        st.button("Keep writing", key="last_no", on_click=_keep_writing)


def _warn(account: Account, meter: Meter) -> None:
    """The strongest warning of this cycle that this session has not put away."""
    assert meter.cycle is not None
    given = {w.kind for w in house().accounts.warnings(account) if w.cycle_starts_at == meter.cycle.starts_at and w.allowance == meter.allowance}
    for kind, (icon, fact) in WARNINGS.items():
        if kind in given:
            seen = f"put_away_{kind}_{meter.cycle.starts_at:%Y%m%d}_{meter.allowance}"
            if seen in st.session_state:
                return
            text = f"{parts.left(meter)} until {parts.opens_at(meter.cycle.ends_at, account)}."
            if parts.notice(kind, icon, fact, text, "OK"):
                st.session_state[seen] = True
                st.rerun()
            return
