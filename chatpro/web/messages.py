"""How the entries of a conversation are drawn: a person's own words, an answer, and the quiet row of what can be done with each.

The rows are HTML whose buttons say what they do in `data-act`; one component of the page hears them all (live.py, `hands`). A
widget for each would be half a dozen an answer, made, sent and drawn again on each run, and a long chat would crawl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import streamlit as st

from chatpro.bootstrap import house
from chatpro.domain.accounts import Account, Entitlement, allowance_at
from chatpro.domain.chats import AnswerState, Message, clean_title
from chatpro.errors import PROBLEM_SENTENCES, Problem
from chatpro.services.history import Opened
from chatpro.web import parts
from chatpro.web.markdown import safe_answer, user_text_html


@dataclass(frozen=True)
class Reading:
    """Who reads which chat: `new` are answers that came while they were away, `memory` the entry where the model's memory begins, `more_costs` the
    tokens by which remembering more makes a message dearer. `picked`: entries that are to go along into a new chat, None while nobody picks."""

    account: Account
    opened: Opened
    may_send: bool
    new: frozenset[str] = frozenset()
    memory: str | None = None
    tail: str = ""
    more_costs: int = 0
    grants: Sequence[Entitlement] = ()
    picked: frozenset[str] | None = None


@lru_cache(maxsize=256)
def _drawn(text: str) -> str:
    # A long chat is drawn again with each run; filtering a rich answer takes two milliseconds. Keyed by the words themselves, so
    # nobody gets another's; 256 answers are some 2 MB.
    return safe_answer(text)


def exchanges(path: list[Message]) -> list[list[Message]]:
    """The path in pieces, each an own message and what answers it. What is left of a purged one may stand alone."""
    pieces: list[list[Message]] = []
    for message in path:
        if message.own or not pieces:
            pieces.append([])
        pieces[-1].append(message)
    return pieces


def head(reading: Reading, goes: str) -> None:
    """The chat's title, when its words go, and its menu. One element: as six, with a widget for each line of the menu, it cost a tenth of each run."""
    st.html(
        f'<div class="chat-head"><div><h1>{escape(clean_title(reading.opened.title))}</h1><p class="note">{escape(goes)}</p></div>'
        '<button type="button" popovertarget="chat-menu">Menu</button>'
        f'<div popover id="chat-menu" data-entry="{escape(reading.opened.id)}">{_menu_html(reading)}</div></div>'
    )


def _menu_html(reading: Reading) -> str:
    rows = ""
    if reading.may_send and (reading.more_costs or reading.opened.remembers_more):
        rows += _line_html("less", "Remember less") if reading.opened.remembers_more else _line_html("more", "Remember more")
        rows += "" if reading.opened.remembers_more else f'<p class="note">{escape(price_of_more(reading))}</p>'
    if reading.may_send:
        rows += _line_html("fresh", "Take parts into a new chat")
    return rows + _line_html("renaming", "Rename") + _line_html("deleting", "Delete chat")


def _line_html(act: str, label: str) -> str:
    """A line of the menu, which closes it."""
    return f'<button type="button" data-act="{escape(act)}" popovertarget="chat-menu" popovertargetaction="hide">{escape(label)}</button>'


def own(message: Message, reading: Reading) -> None:
    """What the person wrote, and under it: copy, edit, other versions."""
    buttons = _button_html("copy", "Copy your message")
    if reading.may_send:
        buttons += _button_html("edit", "Edit and send again")
    if reading.picked is not None:
        buttons = _pick_html(message, reading.picked)
    st.html(
        f'<div class="said" data-entry="{escape(message.id)}"><h2 class="vh">You wrote</h2><div class="own">{user_text_html(message.text)}</div>'
        f'<div class="deeds">{_leaf_html(message, reading)}<small>{escape(parts.stamp(message.sent_at, reading.account))}</small>{buttons}</div></div>'
    )


def waiting(text: str) -> None:
    """What is waiting to be sent: not stored as a message yet, so nothing can be done with it."""
    st.html(f'<div class="said"><h2 class="vh">You wrote</h2><div class="own">{user_text_html(text)}</div></div>')


def answer(message: Message, reading: Reading) -> None:
    """An answer that has ended: who wrote it, its words, what a person has to know of it, what it cost and what can be done."""
    facts = message.answer
    assert facts is not None
    model = model_name(facts.model)
    who(model, new=message.id in reading.new)
    if message.text:
        st.markdown(_drawn(message.text), anchors=False)
    for sentence in (_what_happened(message, model), gave_way(message)):
        if sentence:
            parts.note(sentence)
    if message.text or message.id in reading.opened.versions:
        st.html(f'<div class="deeds" data-entry="{escape(message.id)}">{_deeds_html(message, reading)}</div>')


def who(model: str, new: bool = False) -> None:
    """The line above an answer: that the product wrote it, and with which model."""
    mark = '<em class="new">New</em>' if new else ""
    st.html(f'<h2 class="who"><i aria-hidden="true"></i>{escape(house().settings.product_name)} <small>{escape(model)}</small>{mark}</h2>')


def memory_line(reading: Reading) -> None:
    """Above the first entry that goes along with the next message; what it would cost to take more along."""
    st.html(
        '<div class="memory"><span title="To keep within the size of one message, only the newest part of a chat is sent along.">'
        f"The model remembers from here on{_more_html(reading)}</span></div>"
    )


def _more_html(reading: Reading) -> str:
    chat = escape(reading.opened.id)
    if not reading.may_send or not (reading.more_costs or reading.opened.remembers_more):
        return ""
    if reading.opened.remembers_more:
        return f' · <button type="button" class="quiet" data-act="less" data-id="{chat}">Remember less</button>'
    price = escape(price_of_more(reading))
    return f' · <button type="button" class="quiet" data-act="more" data-id="{chat}" title="{price}">Remember more, +{reading.more_costs:,d} tokens</button>'


def price_of_more(reading: Reading) -> str:
    """What remembering more costs, in words."""
    allowance = allowance_at(reading.grants, house().now())
    return f"About {reading.more_costs:,} tokens more with each message, {parts.part_of(reading.more_costs, allowance)} of your allowance."


def model_name(model: str) -> str:
    """A model's name for people."""
    return house().cards.of(model).title or model


# --- the quiet row ----------------------------------------------------------------------------------------------------


def _deeds_html(message: Message, reading: Reading) -> str:
    facts = message.answer
    assert facts is not None
    rows = ""
    if reading.picked is not None:
        return _pick_html(message, reading.picked) if message.text else ""
    if message.text:
        rows += _button_html("copy", "Copy this answer")
        rows += _button_html("up", "Good answer", pressed=facts.thumb == "up")
        rows += _button_html("down", "Poor answer", pressed=facts.thumb == "down")
        if reading.may_send and message.parent_id is not None:
            rows += _button_html("again", "Another answer", message.parent_id)
    return rows + _leaf_html(message, reading) + _receipt_html(message, reading)


def _button_html(act: str, label: str, entry: str = "", pressed: bool | None = None, off: bool = False) -> str:
    """One button, about the entry of its row or about `entry`. Its title is its name as well, and its sign stands in the stylesheet by `act`: both
    would go over the wire with each row again."""
    state = "" if pressed is None else ' aria-pressed="true"' if pressed else ' aria-pressed="false"'
    disabled = ' aria-disabled="true"' if off else ""
    about = f' data-id="{escape(entry)}"' if entry else ""
    return f'<button type="button" data-act="{escape(act)}"{about} title="{escape(label)}"{state}{disabled}></button>'


def _pick_html(message: Message, picked: frozenset[str]) -> str:
    """In place of the other buttons, while somebody picks what goes along into a new chat."""
    there = message.id in picked
    icon = "check_box" if there else "check_box_outline_blank"
    return (
        f'<button type="button" class="pick" data-act="pick" aria-pressed="{"true" if there else "false"}">'
        f'<span class="ic" aria-hidden="true">{escape(icon)}</span> Take along</button>'
    )


def _leaf_html(message: Message, reading: Reading) -> str:
    """‹ 2 of 3 ›, where there are several versions."""
    versions = reading.opened.versions.get(message.id)
    if versions is None:
        return ""
    at = versions.index(message.id)
    before, after = versions[max(0, at - 1)], versions[min(len(versions) - 1, at + 1)]
    return (
        f'<span class="leaf">{_button_html("leaf", "Version before", before, off=at == 0)}'
        f"<small>{at + 1:d} of {len(versions):d}</small>"
        f"{_button_html('leaf', 'Version after', after, off=at == len(versions) - 1)}</span>"
    )


def _receipt_html(message: Message, reading: Reading) -> str:
    """Time and cost in one line, quiet until wanted. The bold figure is the one that adds up to the meter."""
    facts = message.answer
    assert facts is not None
    at = escape(parts.stamp(facts.ended_at or message.sent_at, reading.account))
    cost = facts.receipt
    if cost is None:
        return f"<small>{at}</small>"
    again = f" <span>of it {cost.tokens_resent:,d} earlier conversation, sent again</span>" if cost.tokens_resent else ""
    stopped = "<span>stopped</span>" if facts.state is AnswerState.STOPPED else ""
    share = escape(f"{parts.part_of(cost.total, allowance_at(reading.grants, facts.ended_at or message.sent_at))} of the allowance")
    return (
        f'<details class="receipt"><summary><b>{cost.total:,d} tokens</b> <span>{at}</span></summary>'
        f"<span>{cost.tokens_in:,d} in + {cost.tokens_out:,d} out</span>{again} <span>{escape(cost.counted)}</span> <span>{share}</span> {stopped}</details>"
    )


def mostly_again(message: Message) -> bool:
    """Whether more than half of what an answer cost was earlier conversation, sent again."""
    cost = message.answer.receipt if message.answer is not None else None
    return cost is not None and cost.tokens_resent * 2 > cost.total


# --- what a person has to know ----------------------------------------------------------------------------------------


def gave_way(message: Message) -> str:
    """What had to give way so that the message fitted: said from the moment at which it was sent."""
    facts = message.answer
    if facts is None:
        return ""
    said = []
    if facts.left_out:
        said.append("Older messages of this chat were left out so that this one fitted: the answer does not remember them.")
    if facts.shortened:
        said.append("This answer had less room than usual, so that it fitted into what was left of the month.")
    return " ".join(said)


def _what_happened(message: Message, model: str) -> str:
    """What a person has to know about an answer that is not simply finished."""
    facts = message.answer
    assert facts is not None
    said = PROBLEM_SENTENCES[Problem(facts.problem)].format(model=model) if facts.problem else ""
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
