"""The chat page's parts: side panel, conversation, the answer being written, composer, and what each click does.

Every click is a callback that asks again who is there and acts through a service, so it may safely happen twice: Streamlit
starts a new run while the old one still goes. It also breaks a callback off at any touch of session state when the next click
comes, so what became of a send is noted in a plain object at once, and the next run that gets so far acts on it (`_Outbox`).
What must outlive a run is in the store or with the server; session state holds only what this page last showed, a sentence to
say once, and text that could not be sent.

The page is drawn in two parts. What stands still is drawn once a run. What the end of an answer changes (the newest answer,
notices, meter) is one fragment, `_moving`, which fills places that the page has left for it: the end of an
answer redraws these, and not a long conversation.
"""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import cache, partial
from html import escape
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from chatpro.bootstrap import house
from chatpro.config import ROOT
from chatpro.domain.accounts import Account, PlanState
from chatpro.domain.allowance import SendKind
from chatpro.domain.chats import AnswerState, Chat, Message, clean_title, deleted_on, quoted
from chatpro.errors import Busy, ChatProError, ModelProblem, NotFound
from chatpro.services.accounts import Meter
from chatpro.services.answering import AskLast, InLine, LastYes, LiveAnswer, NotSent, Outcome, Sent
from chatpro.services.history import Opened
from chatpro.web import allowance, doors, gate, live, messages, parts, places, server
from chatpro.web.allowance import Said
from chatpro.web.messages import Reading
from chatpro.web.panel import Row, chat_list

COMPOSER_CHARS = 4_000_000
"""What the composer takes at all. Streamlit drops a longer paste without a word, so this is far above one message's limit: the service says
that with its figures and the text comes back. Beyond four million the browser itself grows slow, and the socket takes 25 MB."""
SHOWN = 16
"""Newest entries drawn at first: a run sends all that is drawn again. Sixteen fill several screens, and a click on another chat is drawn in about
150 ms with them (bench/page.py); with forty it took 184."""
EARLIER = 40
"""More of them with each click on "earlier"."""
LISTED = 60
"""Newest chats in the side panel; the history page has all of them. Sixty are more than anybody scrolls through."""
NOT_THE_LAST = Said("This was not your last message after all.", "Room came back meanwhile, so it was sent as an ordinary one.", icon="check")

SOON_DAYS = 7
"""A chat's row says when it is deleted in its last days only."""


@cache
def _starters() -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads((ROOT / "data" / "prompts" / "starters.toml").read_text(encoding="utf-8"))["starter"]
    return found


@dataclass(frozen=True)
class _Wanted:
    """A send as the page asked for it, so that a yes to the last message can ask for the same again."""

    do: str
    chat_id: str
    text: str | None = None
    entry: str | None = None
    seen: int = 0


@dataclass(frozen=True)
class _Done:
    """A send and what became of it. `at` is where the page was when it asked; `as_last`: with the person's yes to the last message."""

    wanted: _Wanted
    outcome: Outcome | ChatProError
    at: str | None
    as_last: bool


class _Outbox:
    """What this session's page asked to be sent, and what became of it, until a run has shown it. `count` tells the browser which of the
    composer's texts were heard at all: one that was not comes back into the composer (live.js). `back`: texts that the browser is to put
    back, because only it knows what has been typed since."""

    def __init__(self) -> None:
        self.name = secrets.token_urlsafe(6)
        self.count = self.acted = 0
        self.done: list[_Done] = []
        self.back: list[str] = []


@dataclass(frozen=True)
class _Stand:
    """Everything the moving part shows, read once."""

    account: Account
    reading: Reading | None
    line: LiveAnswer | None
    meter: Meter | None
    may_send: bool
    news: int

    @property
    def opened(self) -> Opened | None:
        return self.reading.opened if self.reading else None

    @property
    def frame(self) -> tuple[bool, bool, bool, int | None]:
        """What stands outside of the moving part depends on: when it changed, the whole page is drawn anew."""
        picking = self.reading is not None and self.reading.picked is not None
        if self.meter is None or self.meter.cycle is None:
            return self.may_send, picking, False, None
        return self.may_send, picking, self.meter.closed, self.meter.cycle.number


@dataclass(frozen=True)
class _Places:
    """What the page leaves free for the moving part. `above`: the entries that are drawn already, None while there is no chat yet;
    `frame`: what the rest was drawn for. `stand` holds what the page has just read, for the first run of the moving part; its later runs read anew."""

    standing: DeltaGenerator
    notices: DeltaGenerator
    foot: DeltaGenerator
    frame: tuple[bool, bool, bool, int | None]
    above: tuple[str, ...] | None
    stand: list[_Stand]


def draw(account: Account) -> None:
    """The whole page for a freelancer, or what stands in its place: the offer, the consent."""
    accounts, news = house().accounts, allowance.listen(account)
    grant = accounts.grant(account)
    if grant.state is PlanState.NEVER or (grant.state is PlanState.HAD and not st.query_params.get("chat")):
        doors.offer(account, grant)
        _listen_only(account, news)
        return
    may_send = grant.state is PlanState.HAS
    opted_in = accounts.opted_in(account)
    if may_send and not opted_in and not (accounts.consents(account) and st.query_params.get("chat")):
        doors.consent(account)
        _listen_only(account, news)
        return
    if to := st.session_state.pop("go_to", None):
        places.go(to, **st.session_state.pop("go_with", {}))
    _take_outbox()
    _arrive(account)
    opened, missing = _open(account)
    _land(opened)
    _tell_of_a_late_yes(opened)
    line = _in_line(account, whole=True)
    may_send = may_send and opted_in and not missing
    meter = accounts.meter(account, house().answering.sizes())
    standing = _panel(account, opted_in)
    notices, foot = _foot(account, meter, opened, may_send, missing)
    _keep_page()
    room = _reading(account, opened, may_send)
    stand = _Stand(account, room, line, meter, may_send, news)
    with st.container(key="room"):
        above: tuple[str, ...] | None = None
        if missing:
            days = house().settings.retention_days
            parts.head("Not found", f"There is no such chat here. It may have been deleted, or its {days} days are over.")
        elif room is not None and opened is not None:
            _head(room)
            above = _above(room, whole=line is not None)
        elif line is None:
            _empty(account, closed=meter is not None and meter.closed)
        _moving(_Places(standing, notices, foot, stand.frame, above, [stand]))
    if st.session_state.pop("show_receipts", False) and meter is not None and meter.cycle is not None:
        allowance.receipts(account, meter.cycle)


# --- which chat -------------------------------------------------------------------------------------------------------


def _open(account: Account) -> tuple[Opened | None, bool]:
    """The chat that the address names, along the version that was leafed to; and whether it names one that isn't there."""
    chat_id = st.query_params.get("chat")
    opened, missing = None, False
    if chat_id:
        try:
            opened = house().history.open(account, chat_id, st.session_state.get("through"))
        except NotFound:
            # A chat that was not begun yet has nothing but the draft of its first message.
            missing = house().history.draft(account, chat_id) is None and house().answering.live(account, chat_id) is None
    st.session_state["tail"] = opened.messages[-1].id if opened else None
    st.session_state["newest"] = opened.newest if opened else 0
    if opened:
        # What came while the person was elsewhere is marked for as long as they stay; what ends before their eyes is not.
        st.session_state.setdefault("new", opened.unread)
        if opened.unread:
            house().history.seen(account, opened.id)
    return opened, missing


def _land(opened: Opened | None) -> None:
    """A message was searched for: enough is drawn that it is there. One that has gone meanwhile is said to be gone."""
    found = st.session_state.get("found")
    if not st.session_state.get("landing") or opened is None:
        return
    pieces = messages.exchanges(opened.messages)
    at = next((n for n, piece in enumerate(pieces) if any(message.id == found for message in piece)), None)
    if at is None:
        del st.session_state["found"]
        st.session_state["said"] = Said("That message is not there any more.", "It was deleted, or its days are over. This is the rest of the chat.")
    else:
        needed = sum(map(len, pieces[max(0, at - 1) :]))
        st.session_state["shown"] = max(st.session_state.get("shown", SHOWN), needed)
    st.session_state["landing"] = False  # last: a run that is broken off before leaves it to the next


def _in_line(account: Account, whole: bool) -> LiveAnswer | None:
    """The send of this chat that waits in the line. One that waited and was not sent is told here, its words back in the composer:
    by a run of the whole page, because Streamlit forgets what a composer was given in a run that did not draw it."""
    chat_id = st.query_params.get("chat")
    if not chat_id:
        return None
    found = house().answering.live(account, chat_id)
    if found is not None:
        return None if found.accepted else found
    unsent = house().answering.unsent(account, chat_id)
    if unsent is None:
        return None
    if not whole:
        st.rerun(scope="app")
    wanted = _Wanted(unsent.do, chat_id, unsent.text, unsent.entry, st.session_state.get("newest", 0))
    if unsent.why is not None:
        _tell(unsent.why, wanted)
    if unsent.do == "send":
        st.session_state["outbox"].back.append(unsent.text)
    elif unsent.do == "edit" and unsent.entry:
        st.session_state["editing"], st.session_state[f"edit_{unsent.entry}"] = unsent.entry, unsent.text
    house().answering.put_by(account, chat_id)
    return None


def _reading(account: Account, opened: Opened | None, may_send: bool) -> Reading | None:
    """The open chat with what is new in it, and where the model's memory begins."""
    if opened is None:
        return None
    answering, path, picked = house().answering, opened.messages, st.session_state.get("picked")
    return Reading(
        account, opened, may_send, st.session_state.get("new", frozenset()), answering.remembers_from(path, opened.remembers_more), path[-1].id,
        answering.more_costs(path), house().accounts.entitlements(account), frozenset(picked) if picked is not None else None,
    )  # fmt: skip


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
    for key in ("new_chat_id", "ask_last", "shown", "renaming", "deleting", "said", "through", "new", "editing", "picked", "yes_waits", "found"):
        st.session_state.pop(key, None)
    if message := st.query_params.get("at"):
        # Found by a search: its version, and its place in it.
        st.session_state["through"], st.session_state["found"], st.session_state["landing"] = message, message, True
    draft = (house().history.draft(account, at) if at else None) or ""
    live = house().answering.live(account, at) if at and draft else None
    st.session_state["composer"] = "" if live is not None and live.wish.text == draft else draft  # what waits in the line is on its way


def _turn_to(chat_id: str | None) -> None:
    """Put another chat, or an empty page, into the address."""
    st.query_params.pop("at", None)
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
        st.session_state["said"] = Said(str(error), kind="95", icon="warning")


def _submit() -> None:
    text = st.session_state.get("composer") or ""
    chat_id = _chat_id()
    st.session_state.pop("ask_last", None)
    if _kept_for_the_next_sign_in(chat_id, text):
        return
    _go(_Wanted("send", chat_id, text, st.session_state.get("tail")))


def _go(wanted: _Wanted, yes: LastYes | None = None) -> None:
    """Ask for a send. From the asking to the note of what became of it nothing may touch session state (see above)."""
    outbox: _Outbox = st.session_state.setdefault("outbox", _Outbox())

    def send(account: Account) -> None:
        try:
            outcome: Outcome | ChatProError = _ask(account, wanted, yes)
        except ChatProError as error:
            outcome = error
        outbox.done.append(_Done(wanted, outcome, at, yes is not None))
        outbox.count += wanted.do == "send" and yes is None

    at = st.query_params.get("chat")
    _act(send)


def _take_outbox() -> None:
    outbox: _Outbox = st.session_state.setdefault("outbox", _Outbox())
    while outbox.done:
        _after(outbox.done[0], here=st.query_params.get("chat") == outbox.done[0].at)
        outbox.done.pop(0)  # only now: a run that is broken off in between leaves it to the next


def _ask(account: Account, wanted: _Wanted, yes: LastYes | None = None) -> Outcome:
    """Ask for it, the first time or with the yes to the last message."""
    answering, entry = house().answering, wanted.entry or ""
    if wanted.do == "again":
        return answering.again(account, wanted.chat_id, entry, wanted.seen, yes)
    if wanted.do == "edit":
        return answering.edit(account, wanted.chat_id, entry, wanted.text or "", yes)
    if wanted.do == "go on":
        return answering.go_on(account, wanted.chat_id, entry, yes)
    return answering.send(account, wanted.chat_id, wanted.text or "", wanted.entry, yes)


def _kept_for_the_next_sign_in(chat_id: str, text: str) -> bool:
    """The person was signed out meanwhile: what they wrote waits for them as this chat's draft."""
    before = gate.account_of_session()
    if gate.who() is not None or before is None:
        return False
    with suppress(ChatProError):
        house().answering.keep(before, chat_id, text)
    st.query_params["chat"] = chat_id  # signing in again leads to where it waits
    return True


def _put_back(chat_id: str, text: str, kept: bool = True) -> None:
    """Not sent: the text is in the composer again. Where it was kept as a draft, the address names its chat, so that a reload brings it back."""
    st.session_state["composer"] = text
    if kept:
        st.query_params["chat"] = st.session_state["at_chat"] = chat_id


def _after(done: _Done, here: bool) -> None:
    """Say what became of a send, and put the page where it belongs, unless the person has gone elsewhere since (`here` is False)."""
    outcome, wanted = done.outcome, done.wanted
    if isinstance(outcome, Sent | InLine):
        if not here:
            return
        if done.as_last:
            _after_a_yes(outcome)
        for key in ("new_chat_id", "ask_last", "editing", "through", "found"):
            st.session_state.pop(key, None)
        if wanted.do == "edit":  # to words that a version has already: to that version
            st.session_state["through"] = outcome.answer_id
        if st.query_params.get("chat") != outcome.chat_id:
            st.query_params["chat"] = st.session_state["at_chat"] = outcome.chat_id
        return
    if wanted.do == "send" and wanted.text is not None and here:
        if isinstance(outcome, NotFound):
            _into_a_new_chat(wanted.text)
            return
        _put_back(wanted.chat_id, wanted.text, kept=not isinstance(outcome, ChatProError) or isinstance(outcome, Busy | ModelProblem))
    _tell(outcome, wanted)


def _after_a_yes(outcome: Sent | InLine) -> None:
    """What was sent as the last message may have become an ordinary one: that is said too."""
    if isinstance(outcome, InLine):
        st.session_state["yes_waits"] = outcome.answer_id
    elif outcome.kind is not SendKind.LAST and not _was_last():
        st.session_state["said"] = NOT_THE_LAST


def _tell_of_a_late_yes(opened: Opened | None) -> None:
    """A yes to the last message that had to wait in the line: what it was is known once it is in the chat."""
    answer_id = st.session_state.get("yes_waits")
    if answer_id is None or opened is None or answer_id not in {m.id for m in opened.messages}:
        return
    del st.session_state["yes_waits"]
    if not _was_last():
        st.session_state["said"] = NOT_THE_LAST


def _was_last() -> bool:
    """Whether a last message was accepted in this cycle: the same send once more, from another tab, is answered without saying which kind it was."""
    account = gate.who()
    meter = house().accounts.meter(account, house().answering.sizes()) if account is not None else None
    warned = house().accounts.warned(account, meter) if account is not None and meter is not None else None
    return warned is not None and warned.kind == "last_message"


def _into_a_new_chat(text: str) -> None:
    """Its chat is gone, deleted in another tab or past its days: what was written for it is not."""
    _turn_to(None)
    st.session_state.pop("new_chat_id", None)
    chat_id, account = _chat_id(), gate.who()
    if account is not None:
        with suppress(ChatProError):
            house().answering.keep(account, chat_id, text)
    _put_back(chat_id, text)
    st.session_state["said"] = Said("That chat is not there any more.", "It was deleted, or its days are over. Your text is here, in a new one.", "95", "info")


def _tell(outcome: NotSent | AskLast | ChatProError, wanted: _Wanted) -> None:
    if isinstance(outcome, AskLast):
        st.session_state["ask_last"] = (wanted, outcome)
    elif isinstance(outcome, NotSent):
        st.session_state["said"] = _refusal(outcome)
    else:
        st.session_state["said"] = Said(str(outcome), kind="95", icon="warning")


def _refusal(refused: NotSent) -> Said:
    """Why nothing was sent, with its figures. The text is back in the composer."""
    kept = "Nothing was sent; your text is still here."
    if refused.reason == "too_long":
        return _too_long(refused, kept)
    if refused.reason == "own_limit":
        room = f"Below it {refused.fits_now:,} of its {refused.draft_tokens:,} tokens fit" if refused.fits_now else "Nothing fits below it any more"
        fact = "This message would go beyond the limit that you set yourself."
        return Said(fact, f"{kept} {room}: lift the limit and send it.", "plain", "front_hand", refused.renews_at, "own_limit")
    fact = {
        "no_tokens": "This month's allowance is used up.",
        "allowance_lowered": "Your allowance was lowered, and what is left of it is too little for this.",
        "plan_ended": f"Your {house().settings.plan_name} plan has ended.",
        "no_consent": "You have not agreed to the use of AI, or took it back.",
    }[refused.reason]
    return Said(fact, kept, "95", "block", refused.renews_at, refused.reason)


def _too_long(refused: NotSent, kept: str) -> Said:
    """How many tokens it has, how many fit now and after the renewal, and what to do."""
    account, until = gate.who(), refused.renews_at
    if refused.fits_now >= refused.fits_after or until is None or account is None:
        fact = f"Your draft has {refused.draft_tokens:,} tokens, one message takes {refused.fits_after:,}."
        return Said(fact, f"{kept} Shorten it, or send it in parts.", "95", "block")
    fact = f"Your draft has {refused.draft_tokens:,} tokens, {refused.fits_now:,} fit now."
    if refused.draft_tokens > refused.fits_after:
        then = f"After the renewal on {parts.day_of(until, account)} one message takes {refused.fits_after:,} again. Shorten it, or send it in parts then."
    else:
        then = f"After the renewal on {parts.day_of(until, account)} {refused.fits_after:,} fit, so it can go as it is. Until then, shorten it."
    return Said(fact, f"{kept} {then}", "95", "block", until)


def _confirm_last() -> None:
    asked = st.session_state.pop("ask_last", None)
    if asked is None:  # the second of two clicks
        return
    wanted, ask = asked
    if wanted.do == "send":
        st.session_state["composer"] = ""  # comes back if it is not sent after all
    _go(wanted, ask.yes)


def _keep_writing() -> None:
    st.session_state.pop("ask_last", None)


def _again(chat_id: str, question_id: str) -> None:
    _go(_Wanted("again", chat_id, entry=question_id, seen=st.session_state.get("newest", 0)))


def _edit(chat_id: str, message_id: str) -> None:
    _go(_Wanted("edit", chat_id, st.session_state.get(f"edit_{message_id}") or "", message_id))


def _hand(acts: Any) -> None:
    """Buttons of messages' rows, each once. What the browser says is checked here for its form, and by the service for its right."""
    outbox: _Outbox = st.session_state.setdefault("outbox", _Outbox())
    for act in acts if isinstance(acts, list) else []:
        number = act.get("n") if isinstance(act, dict) else None
        if isinstance(number, int) and number > outbox.acted:
            _do(act.get("act"), act.get("id"))
            outbox.acted = number


def _do(name: object, entry: object) -> None:
    chat_id = st.query_params.get("chat")
    if name == "receipts":
        st.session_state["show_receipts"] = True
    if not chat_id or not isinstance(entry, str):
        return
    if name == "edit":
        st.session_state["editing"] = entry
    elif name == "leaf":
        st.session_state["through"] = entry
    elif name == "again":
        _again(chat_id, entry)
    elif name in ("up", "down", "none"):
        _act(lambda account: house().answering.thumb(account, entry, name))
    elif name in ("more", "less"):
        _act(lambda account: house().answering.remember_more(account, chat_id, name == "more"))
    elif name in ("renaming", "deleting") and entry == chat_id:
        st.session_state[name] = chat_id
    elif name == "fresh":
        _pick()
    elif name == "pick" and (picked := st.session_state.get("picked")) is not None:
        picked.symmetric_difference_update({entry})


def _pick() -> None:
    """Begin to pick what goes along into a new chat."""
    st.session_state["picked"] = set()


def _picked(opened: Opened) -> str:
    """What was picked, as the beginning of a message."""
    return quoted([m for m in opened.messages if m.text and m.id in st.session_state.get("picked", ())])


def _start_fresh(chat_id: str) -> None:
    """A new chat with what was picked in its composer, kept as its draft; nothing is sent."""

    def work(account: Account) -> None:
        text = _picked(house().history.open(account, chat_id, st.session_state.get("through")))
        st.session_state.pop("picked", None)
        fresh = house().answering.new_chat_id() if text else None
        if fresh is not None:
            house().answering.keep(account, fresh, text)
        _turn_to(fresh)

    _act(work)


def _rename(chat_id: str, title: str | None = None) -> None:
    def work(account: Account) -> None:
        house().history.rename(account, chat_id, (st.session_state.get("new_title") or "") if title is None else title)
        st.session_state.pop("renaming", None)

    _act(work)


def _delete(chat_id: str, title: str | None = None) -> None:
    def work(account: Account) -> None:
        called = title or next((c.title for c in house().history.chats(account) if c.id == chat_id), None)
        if called is None:
            return  # the second of two clicks, or the same one told again: it is gone already
        st.session_state["deleted"] = (chat_id, called)
        if st.query_params.get("chat") == chat_id:
            _turn_to(None)
        house().history.delete(account, chat_id)

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


def _panel(account: Account, opted_in: bool) -> DeltaGenerator:
    """The panel; the place for the meter is filled by the moving part. The list's marks move by themselves: the page's socket brings them."""
    with st.sidebar:
        if parts.may_write(account):
            st.button("New chat", icon=":material/edit_square:", width="stretch", key="new_chat", on_click=_turn_to, args=(None,))
        _list(account)
        return parts.panel_foot(account, _way_out if opted_in else None)


def _list(account: Account) -> None:
    chats = house().history.chats(account)
    groups = [(heading, [_row(account, chat) for chat in group]) for heading, group in _grouped(chats[:LISTED], house().now(), parts.zone_of(account))]
    with st.container(key="panel_list"):
        chat_list(
            groups, open_id=st.query_params.get("chat"), more=max(0, len(chats) - LISTED), address=live.base_path() + "/",
            on_open=_turn_to, on_rename=_rename, on_delete=_delete, on_all=lambda: st.session_state.update(go_to="history"),
            on_search=lambda words: st.session_state.update(go_to="history", go_with={"q": words}),
        )  # fmt: skip


def _row(account: Account, chat: Chat) -> Row:
    gone = deleted_on(chat.last_at, house().settings.retention_days)
    soon = gone - house().now() < timedelta(days=SOON_DAYS)
    return Row(chat.id, chat.title, f"Deleted on {parts.short_day(gone, account)}", chat.running, chat.unread, soon)


def _way_out() -> None:
    """One click from any chat, as near as the yes was."""
    st.button("Opt out of AI", type="tertiary", key="opt_out", on_click=_opt_out, help="Takes your consent back at once. Your chats stay here to read.")


def _grouped(chats: list[Chat], now: datetime, zone: tzinfo) -> list[tuple[str, list[Chat]]]:
    """Today, the last 7 days, older: by the person's own calendar."""
    today = now.astimezone(zone).date()
    groups: dict[str, list[Chat]] = {"Today": [], "Last 7 days": [], "Older": []}
    for chat in chats:
        day = chat.last_at.astimezone(zone).date()
        groups["Today" if day >= today else "Last 7 days" if day > today - timedelta(days=7) else "Older"].append(chat)
    return [(heading, group) for heading, group in groups.items() if group]


# --- conversation -----------------------------------------------------------------------------------------------------


def _head(reading: Reading) -> None:
    opened = reading.opened
    messages.head(reading, _goes(reading.account, opened))
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


def _goes(account: Account, opened: Opened) -> str:
    """When the chat is deleted: each message has a day of its own."""
    first, last = parts.day(opened.first_deleted_on, account), parts.day(opened.last_deleted_on, account)
    return f"Deleted on {last}" if first == last else f"First words go on {first}, all of it on {last}"


def _above(reading: Reading, whole: bool) -> tuple[str, ...]:
    """The conversation without its newest answer, which moves; the whole of it while something waits to be sent. Returns what is drawn."""
    pieces = messages.exchanges(reading.opened.messages)
    still = _still(pieces, whole)
    shown = st.session_state.get("shown", SHOWN)
    hidden = sum(map(len, pieces)) - shown
    with st.container(key="conversation"):
        if hidden > 0:
            st.button(f"Show earlier messages ({hidden})", type="tertiary", key="earlier", on_click=_set, args=("shown", shown + EARLIER))
        drawn = 0
        for piece in still:
            drawn += len(piece)
            if drawn > hidden:
                with st.container():  # the moving part stands in one as well: an answer stays where it is when the next message comes
                    _exchange(reading, piece)
    return tuple(m.id for piece in still for m in piece)


def _still(pieces: list[list[Message]], whole: bool) -> list[list[Message]]:
    """What stands still of the conversation's exchanges: all of it, or all but the answers of the newest one."""
    if whole or not pieces:
        return pieces
    asked = [message for message in pieces[-1] if message.own]
    return [*pieces[:-1], asked] if asked else pieces[:-1]


def _exchange(reading: Reading, piece: list[Message]) -> None:
    for message in piece:
        if message.id == reading.memory:
            messages.memory_line(reading)
        if message.own and st.session_state.get("editing") == message.id and reading.may_send:
            _editor(reading.opened.id, message)
        elif message.own:
            messages.own(message, reading)
        else:
            with st.container(key=f"msg_answer_{message.id}"):
                messages.answer(message, reading)
                _what_next(reading, message)
                _fresh(reading, message)


def _editor(chat_id: str, message: Message) -> None:
    with st.form(f"edit_form_{message.id}", border=False), st.container(key="editor"):
        st.text_area("Your message in other words", value=message.text, key=f"edit_{message.id}", height="content")
        parts.note("This makes a second version. The first one stays, with everything that came after it.")
        with st.container(horizontal=True, gap="small"):
            st.form_submit_button("Send", key="do_edit", type="primary", on_click=_edit, args=(chat_id, message.id))
            st.form_submit_button("Cancel", type="tertiary", on_click=_set, args=("editing", None))


def _what_next(reading: Reading, message: Message) -> None:
    """Under the newest answer, where it is not simply finished."""
    facts = message.answer
    if facts is None or not reading.may_send or message.id != reading.tail or facts.state in (AnswerState.FINISHED, AnswerState.RUNNING):
        return
    with st.container(horizontal=True, gap="small"):
        if message.text:
            st.button(
                "Continue",
                key=f"continue_{message.id}",
                icon=":material/play_arrow:",
                on_click=_go,
                args=(_Wanted("go on", reading.opened.id, entry=message.id),),
            )
        if message.parent_id is not None:
            st.button("Try again", key=f"again_{message.id}", icon=":material/refresh:", on_click=_again, args=(reading.opened.id, message.parent_id))


def _fresh(reading: Reading, message: Message) -> None:
    """Quietly, under the newest answer: most of it was paid for words that were sent before."""
    if message.id != reading.tail or not reading.may_send or reading.picked is not None or not messages.mostly_again(message):
        return
    assert message.answer is not None and message.answer.receipt is not None
    with st.container(key="fresh", horizontal=True, vertical_alignment="center", gap="small"):
        parts.note(f"More than half of this was earlier conversation, sent again. A fresh chat saves about {message.answer.receipt.tokens_resent:,} tokens.")
        st.button("Start one", key="fresh_pick", type="tertiary", on_click=_pick)


def _picking(opened: Opened) -> None:
    """What a new chat begins with, while it is picked."""
    count, text = len(st.session_state["picked"]), _picked(opened)
    what = f"{parts.count_of(count, 'message')} picked, about {house().answering.tokens_of(text):,} tokens." if count else "Nothing picked yet."
    parts.notice("plain", "edit_square", "Pick what goes along into a new chat.", f"{what} It is put into the composer there; nothing is sent.")
    with st.container(horizontal=True, gap="small"):
        st.button("Start the new chat", key="pick_done", on_click=_start_fresh, args=(opened.id,))
        st.button("Cancel", key="pick_cancel", type="tertiary", on_click=_set, args=("picked", None))


def _unanswered(chat_id: str, message: Message) -> None:
    """A message without an answer: its call was never begun, or its answer is past its 90 days."""
    parts.note("This message has no answer.")
    st.button("Try again", key=f"again_{message.id}", icon=":material/refresh:", on_click=_again, args=(chat_id, message.id))


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
                parts.card(starter["key"], starter["icon"], starter["title"], starter["text"], starter["words"], partial(_set, "composer", starter["words"]))


# --- the moving part: the newest answer, notices, meter ---------------------------------------------------------------


def _keep_page() -> None:
    """The ears and hands that stand outside of every fragment: what they ask for is the whole page."""
    live.hands(
        channel=st.session_state["channel"], chat=st.query_params.get("chat"), outbox=st.session_state["outbox"], on_act=_hand, at=st.session_state.get("found")
    )


def _listen_only(account: Account, news: int) -> None:
    """Behind the offer and the consent: the plan may begin again, or the session end, while they are looked at."""
    live.ears(channel=st.session_state["channel"], standing=allowance.standing(account, None, news), on_act=lambda acts: None)


@st.fragment
def _moving(left: _Places) -> None:
    """Everything that the end of an answer changes. Runs with the page, and by itself when the component says that an answer has ended."""
    now = left.stand.pop() if left.stand else _look()
    account, opened, line, meter = now.account, now.opened, now.line, now.meter
    pieces = messages.exchanges(opened.messages) if opened else []
    above = tuple(m.id for piece in _still(pieces, whole=line is not None) for m in piece) if opened else None
    if st.session_state["outbox"].done or above != left.above or now.frame != left.frame:
        st.rerun(scope="app")  # something changed that stands outside of the moving part: a send from within, another tab, the allowance closed
    running = opened.running if opened else None
    _newest(now, pieces[-1] if pieces and not line else [])
    with left.standing:
        parts.standing(account, meter)
    with left.notices, st.container():  # always something: Streamlit keeps a place only where the last run of the page wrote
        _notices(account, meter, running)
    with left.foot:
        if meter is not None:
            parts.meter_line(meter, account, _reminder())
        elif now.may_send:
            parts.note(_reminder())


def _look() -> _Stand:
    account = gate.who()
    if account is None:
        st.rerun(scope="app")
    news, accounts = allowance.listen(account), house().accounts
    opened, missing = _open(account)
    line = _in_line(account, whole=False)
    may_send = accounts.grant(account).state is PlanState.HAS and accounts.opted_in(account) and not missing
    return _Stand(account, _reading(account, opened, may_send), line, accounts.meter(account, house().answering.sizes()), may_send, news)


def _newest(now: _Stand, piece: list[Message]) -> None:
    """The newest answer, finished or growing.

    The component stands in the same place in every run and outlives the answer: one socket a page, whatever it shows. Which answer
    that is, the store says, in the same reading as the words above it; one that has ended since is ended on the socket at once, and
    the run that follows draws it: nothing can fall between two looks.
    """
    reading, line, tail = now.reading, now.line, piece[-1] if piece else None
    growing = tail if tail is not None and tail.answer is not None and tail.answer.state is AnswerState.RUNNING else None
    with st.container(key="newest"):
        if reading is not None:
            _exchange(reading, [m for m in piece if not m.own and m is not growing])
        if line is not None:
            messages.waiting(line.wish.text)
        model = messages.model_name(growing.answer.model) if growing is not None and growing.answer is not None else parts.model_title()
        answer_id = growing.id if growing is not None else line.id if line is not None else None
        if answer_id is None and tail is not None and tail.own and reading is not None and reading.may_send and reading.opened.running is None:
            _unanswered(reading.opened.id, tail)
    channel = st.session_state["channel"]
    server.sockets().watch(channel, answer_id)
    with st.container(key="msg_answer_live"):
        with st.empty():  # its place stays, or the component after it would be made anew
            if answer_id is not None:
                messages.who(model)
        standing = allowance.standing(now.account, now.meter, now.news)
        live.live_answer(channel=channel, answer_id=answer_id, writing=model if answer_id else "", on_end=_ended, standing=standing)
        with st.empty():
            if growing is not None and (sentence := messages.gave_way(growing)):
                parts.note(sentence)


def _foot(account: Account, meter: Meter | None, opened: Opened | None, may_send: bool, missing: bool) -> tuple[DeltaGenerator, DeltaGenerator]:
    """The composer, or why there is none. What stands above and below it is filled by the moving part."""
    with st.bottom:
        with st.container(key="composing"):
            _asked(account, meter, opened)
            notices = st.container(key="notices")
            if may_send:
                # Open also when the allowance is used up: what is written then is refused, recorded and kept as a draft.
                st.chat_input(_placeholder(account, meter), key="composer", max_chars=COMPOSER_CHARS, on_submit=_submit)
        if missing:
            st.button("Start a new chat", key="start_new", on_click=_turn_to, args=(None,))
        elif meter is None:
            parts.notice("plain", "lock", f"{house().settings.plan_name} has ended.", "Your chats stay here to read.")
        elif not may_send:
            parts.notice("plain", "block", "You said no to AI.", "Nothing is sent to a model; your chats stay here to read.")
            st.button("Think again", key="think_again", on_click=_turn_to, args=(None,))
        foot = st.container(key="foot_line")
        st.html('<div class="why" role="status"></div>')  # live.js says there what can't be done just now
        return notices, foot


def _placeholder(account: Account, meter: Meter | None) -> str:
    if meter is not None and meter.closed and meter.cycle is not None:
        return f"Sending opens again on {parts.day_of(meter.cycle.ends_at, account)}"
    return f"Write to {house().settings.product_name}"


def _reminder() -> str:
    """Who answers, and how far to trust it."""
    if house().model.is_local:
        return "Local demo model, not GPT-4: expect little"
    return f"{parts.model_title()} can be wrong: check what matters"


def _asked(account: Account, meter: Meter | None, opened: Opened | None) -> None:
    """What the last click left to say or to ask; beside it the way back from a deletion."""
    if deleted := st.session_state.get("deleted"):
        with st.container(key="undo_line", horizontal=True, vertical_alignment="center"):
            parts.note(f"“{clean_title(deleted[1])}” was deleted.")
            st.button("Undo", key="undo_delete", type="tertiary", on_click=_undo_delete)
    _forget_what_is_over()
    if ask := st.session_state.get("ask_last"):
        _ask_last(account, ask[1], ask[0].text)
    elif opened is not None and st.session_state.get("picked") is not None:
        _picking(opened)
    elif (said := st.session_state.get("said")) and not _in_the_card(said, meter):
        said.draw()


def _in_the_card(said: Said | None, meter: Meter | None) -> bool:
    """At the end of the allowance the card above the composer says why nothing was sent."""
    return said is not None and said.about == "no_tokens" and meter is not None and meter.closed


def _forget_what_is_over() -> None:
    """After the renewal nothing is the last message, and nothing is used up."""
    ask, said = st.session_state.get("ask_last"), st.session_state.get("said")
    if ask and ask[1].renews_at <= house().now():
        del st.session_state["ask_last"]
    if said and said.until is not None and said.until <= house().now():
        del st.session_state["said"]


def _notices(account: Account, meter: Meter | None, running: Message | None) -> None:
    """One at a time, the weightiest first, and none beside what the last click left to say."""
    live_here = house().answering.watch(account.id, running.id) if running is not None else None
    if live_here is not None and live_here.saving_trouble:
        parts.notice("95", "warning", live_here.saving_trouble, "")
    elif (
        "ask_last" in st.session_state
        or st.session_state.get("picked") is not None
        or ("said" in st.session_state and not _in_the_card(st.session_state["said"], meter))
    ):
        pass
    elif running is not None and st.session_state.get("tail") != running.id:
        parts.notice("plain", "edit_note", "An answer is being written in another version of this chat.", "")
        st.button("Show it", key="show_running", type="tertiary", on_click=_set, args=("through", running.id))
    elif meter is not None:
        allowance.notice(account, meter, kept="said" in st.session_state)


def _ask_last(account: Account, ask: AskLast, text: str | None) -> None:
    about = f"“{clean_title(text)}” can" if text else "It can"
    parts.notice(
        "last",
        "hourglass_bottom",
        f"This is your last message until {parts.day_of(ask.renews_at, account)}.",
        f"{about} use all that is left, {ask.tokens:,} tokens; what it leaves expires. {allowance.AFTERWARDS}",
    )
    with st.container(horizontal=True, gap="small"):
        st.button("Send as the last", key="last_yes", on_click=_confirm_last)
        st.button("Keep writing", key="last_no", on_click=_keep_writing)
