"""Parts drawn on several pages: the meter, receipts, notices, cards, the side panel's frame, and how days and figures are written.

Everything that a person wrote or is called goes through `escape` or `label` here. Without one place for that, a chat named
`<img onerror=…>` or `:red[Paid]` does on one page what it was stopped from doing on another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from html import escape
from math import ceil
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from chatpro.bootstrap import house
from chatpro.domain.accounts import Account, PlanState, Role
from chatpro.domain.allowance import Cycle
from chatpro.domain.chats import clean_title
from chatpro.services.accounts import Meter
from chatpro.web import places

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!~|<>:$&])")
_SIGN = re.compile(r"\\:(?=\w)")
_JOINER = "\u2060"

TOKEN = "A token is a piece of a word, about four letters. What you send, what goes along of the chat so far, and what is written for you all count."
TOKENS = f'<details class="tokens"><summary>tokens</summary><p>{escape(TOKEN)}</p></details>'
"""The word, explained where it appears first."""
RECEIPTS = '<button type="button" class="quiet" data-act="receipts">Receipts<span class="wide"> of this month</span></button>'


# --- Words and figures ------------------------------------------------------------------------------------------------


def name_of(account: Account) -> str:
    """What to call somebody: one visible line, whatever the provider sent."""
    return clean_title(account.name) or "Somebody"


def label(text: str) -> str:
    """Text of a person as a Streamlit label, which is markdown: every sign is shown as it is. The joiner keeps `:smile:` and `:material/…:` words."""
    return _SIGN.sub(rf"\\:{_JOINER}", _MARKDOWN.sub(r"\\\1", clean_title(text)))


def count_of(number: int, word: str) -> str:
    """1 message, 2,306 tokens."""
    return f"{number:,d} {word}{'' if number == 1 else 's'}"


def part_of(tokens: int, allowance: int) -> str:
    """1.2 %: what part of an allowance this is."""
    percent = tokens * 100 / allowance if allowance else 0.0
    return "0 %" if not tokens else "under 0.1 %" if percent < 0.1 else f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def zone_of(account: Account) -> tzinfo:
    """The zone this person reads dates in; UTC where the zone is not known on this machine."""
    try:
        return ZoneInfo(account.zone)
    except (KeyError, ValueError, OSError):
        return UTC


def day(at: datetime, account: Account) -> str:
    """22 February 2027"""
    local = at.astimezone(zone_of(account))
    return f"{local.day} {local:%B %Y}"


def short_day(at: datetime, account: Account) -> str:
    """22 Feb, with the year where it is another one."""
    local, today = at.astimezone(zone_of(account)), house().now().astimezone(zone_of(account))
    return f"{local.day} {local:%b}" + ("" if abs((local.date() - today.date()).days) < 180 else f" {local:%Y}")


def short_moment(at: datetime, account: Account) -> str:
    """14 Dec, 09:41"""
    return f"{short_day(at, account)}, {at.astimezone(zone_of(account)):%H:%M}"


def moment(at: datetime, account: Account) -> str:
    """14 December 2026, 09:41"""
    return f"{day(at, account)}, {at.astimezone(zone_of(account)):%H:%M}"


def opens_at(at: datetime, account: Account) -> str:
    """Mon 14 December at 00:00"""
    local = at.astimezone(zone_of(account))
    return f"{local:%a} {local.day} {local:%B} at {local:%H:%M}"


def day_of(at: datetime, account: Account) -> str:
    """14 December, with the hour where the day does not begin there."""
    local = at.astimezone(zone_of(account))
    return f"{local.day} {local:%B}" + ("" if (local.hour, local.minute) == (0, 0) else f" at {local:%H:%M}")


def until(at: datetime) -> tuple[int, str]:
    """How long until then: whole days, on the last day hours, in the last hour minutes; never less than it is. live.js counts on in the same words."""
    left = (at - house().now()).total_seconds()
    size, unit = next(((s, u) for s, u in ((86_400, "day"), (3_600, "hour")) if left > s), (60, "minute"))
    number = max(1, ceil(left / size))
    return number, unit if number == 1 else f"{unit}s"


def due_html(at: datetime) -> str:
    """In 21 days: kept true by the page's program (live.js)."""
    number, unit = until(at)
    return f'<span data-due="{milliseconds(at):d}">in {number:d} {escape(unit)}</span>'


def milliseconds(at: datetime) -> int:
    """An instant as browsers count: since 1970."""
    return int(at.timestamp() * 1000)


def when(at: datetime, account: Account) -> str:
    """Today, 09:41; Sat, 17:20; 4 Sep: as exact as somebody remembers it."""
    local, today = at.astimezone(zone_of(account)), house().now().astimezone(zone_of(account))
    days = (today.date() - local.date()).days
    if days == 0:
        return f"Today, {local:%H:%M}"
    if days == 1:
        return f"Yesterday, {local:%H:%M}"
    return f"{local:%a}, {local:%H:%M}" if 1 < days < 7 else short_day(at, account)


def stamp(at: datetime, account: Account) -> str:
    """09:41 today, 4 Sep, 09:41 on other days."""
    local, today = at.astimezone(zone_of(account)), house().now().astimezone(zone_of(account))
    return f"{local:%H:%M}" if local.date() == today.date() else f"{short_day(at, account)}, {local:%H:%M}"


def kept_there() -> str:
    """How long the provider keeps what it is sent."""
    days = house().settings.provider_keeps_days
    return "Whoever runs it decides" if days is None else f"At most {count_of(days, 'day')}" if days else "Not at all"


def model_title() -> str:
    """The model that answers now, by its name; none may be known."""
    model = house().model.model
    return (model.card.title or model.name) if model else "the model"


# --- Text -------------------------------------------------------------------------------------------------------------


def head(title: str, text: str = "") -> None:
    """A page's title with a line under it. Both are words of this repository or of the settings."""
    with st.container(gap=None):
        st.title(label(title), anchor=False)
        if text:
            note(text)


def note(text: str) -> None:
    """Small text. Not st.caption: that is drawn at 60 % opacity, 4.35:1 with our text colour."""
    st.html(f'<p class="note">{escape(text)}</p>')


def looks() -> None:
    """Light, dark, or as the system says: kept in the browser, by the page's program (live.js), which knows what is chosen."""
    choices = (("System", "As the system"), ("Light", "Light"), ("Dark", "Dark"))
    buttons = "".join(f'<button type="button" data-look="{escape(value)}" aria-pressed="false">{escape(label)}</button>' for value, label in choices)
    st.html(f'<div class="looks"><span id="looks">Looks</span><div role="group" aria-labelledby="looks">{buttons}</div></div>')
    note("In this browser, on all pages.")


def notice(
    kind: str,
    icon: str,
    fact: str,
    text: str,
    dismiss: str | None = None,
    *,
    more: str = "",
    on_click: Callable[..., None] | None = None,
    args: tuple[Any, ...] = (),
) -> bool:
    """One notice: `kind` is plain, 75, 95 or last. `more` is left out on phones. True when its button was pressed in this run."""
    with st.container(key=f"notice_{kind}_{crc32(fact.encode()):08x}", horizontal=True, vertical_alignment="center", wrap=False, gap="small"):
        st.html(
            f'<div class="say-n" role="status"><span class="ic" aria-hidden="true">{escape(icon)}</span>'
            f"<span><b>{escape(fact)}</b> {escape(text)}{_more_html(more)}</span></div>",
            width="stretch",
        )
        return bool(dismiss) and st.button(dismiss or "", key=f"seen_{kind}", type="tertiary", on_click=on_click, args=args)


def _more_html(text: str) -> str:
    return f' <span class="more">{escape(text)}</span>' if text else ""


def card(key: str, icon: str, title: str, text: str, words: str = "", on_click: Callable[[], None] | None = None) -> bool:
    """A card that is one button. True when it was pressed in this run, unless `on_click` takes the click. `words` are what it puts into the
    composer: where something stands there already, the page itself adds them below (live.js)."""
    with st.container(key=f"card_{key}"):
        st.html(
            f'<div class="card" data-words="{escape(words)}"><span class="ic" aria-hidden="true">{escape(icon)}</span>'
            f"<div><b>{escape(clean_title(title))}</b><span>{escape(text)}</span></div></div>"
        )
        return st.button(label(title), key=f"go_{key}", type="tertiary", width="stretch", on_click=on_click)


def link_card(key: str, icon: str, title: str, text: str, address: str) -> None:
    """A wide card that is one link, to an address of this app."""
    with st.container(key=f"card_{key}"):
        st.html(
            f'<a class="card wide" href="{escape(address)}"><span class="ic" aria-hidden="true">{escape(icon)}</span>'
            f"<b>{escape(clean_title(title))}</b><span>{escape(text)}</span></a>"
        )


def facts_html(facts: dict[str, str]) -> str:
    """Words and what they stand for, as a definition list."""
    rows = "".join(f"<div><dt>{escape(word)}</dt><dd>{escape(text)}</dd></div>" for word, text in facts.items())
    return f'<dl class="facts">{rows}</dl>'


# --- The allowance ----------------------------------------------------------------------------------------------------


def meter(stand: Meter, account: Account, opens: bool = True) -> None:
    """Where the allowance stands, as the foot of the side panel and on the account page. `opens`: with a way to this month's receipts."""
    share = _share_html(stand)
    about = left(stand)
    st.html(
        f'<div class="meter {escape(_level(stand))}"><div class="top"><b>{escape(about)}</b><span>{share}</span></div>'
        f'<div class="bar" role="meter" aria-label="Allowance used" aria-valuenow="{_percent(stand):d}"'
        f' aria-valuetext="{share} used{_pending_html(stand)}, {escape(about)}"'
        f' style="--p:{min(stand.share, 1.0):.1%};--r:{_reserved(stand):.1%}"><u></u><i></i>'
        f'<s data-n="75" style="left:75%"></s><s data-n="95" style="left:95%"></s>{_own_mark_html(stand)}</div>'
        f'<div class="sub">{renews_html(stand.cycle, account)}{_own_limit_html(stand)}<br>{stand.used:,d} of {stand.allowance:,d} {TOKENS}</div>'
        f"{RECEIPTS if opens and stand.cycle is not None else ''}</div>"
    )


def meter_line(stand: Meter, account: Account, also: str = "") -> None:
    """The same in one line, under the composer. Where the panel is closed it says all that the panel does; while somebody writes, how to send is
    said instead of `also`."""
    st.html(
        f'<div class="meter line {escape(_level(stand))}"><div class="bar" aria-hidden="true" style="--p:{min(stand.share, 1.0):.1%}"><i></i>'
        f'<s style="left:75%"></s><s style="left:95%"></s>{_own_mark_html(stand)}</div><span class="wide">{_share_html(stand)} used</span>'
        f'<span>{escape(left(stand))}</span><span class="shut">{renews_html(stand.cycle, account)}</span>'
        f'<span class="shut">{RECEIPTS if stand.cycle is not None else ""}</span><span class="opt">{escape(also)}</span>'
        f'<span class="hint">Enter sends, Shift+Enter for a new line</span></div>'
    )


def _own_mark_html(stand: Meter) -> str:
    return "" if stand.own_limit is None else f'<s class="own" style="left:{min(stand.own_limit / max(1, stand.allowance), 1.0):.1%}"></s>'


def _own_limit_html(stand: Meter) -> str:
    return "" if stand.own_limit is None else f"<br>Your own limit: {stand.own_limit:,d} tokens"


def renews_html(cycle: Cycle | None, account: Account) -> str:
    """When the allowance renews, in words."""
    if cycle is None:
        return "Renews each month on the day of your first message"
    return f"Renews {escape(day_of(cycle.ends_at, account))}, {due_html(cycle.ends_at)}"


def _percent(stand: Meter) -> int:
    # Down, never up: 74.6 % is not shown as the 75 that a warning is given at.
    return stand.used * 100 // stand.allowance if stand.allowance else 100


def _share_html(stand: Meter) -> str:
    return f"{_percent(stand):d}%"


def _reserved(stand: Meter) -> float:
    """What is set aside, as a part of the allowance: drawn lighter, and without a line of its own that would come and go."""
    return min(stand.reserved / stand.allowance, max(0.0, 1 - stand.share)) if stand.allowance else 0.0


def _pending_html(stand: Meter) -> str:
    return f", {stand.reserved:,d} set aside" if stand.reserved else ""


def _level(stand: Meter) -> str:
    if stand.closed or stand.used >= stand.allowance:
        return "lstop"
    return "l95" if stand.used * 100 >= stand.allowance * 95 else "l75" if stand.used * 100 >= stand.allowance * 75 else ""


def left(stand: Meter) -> str:
    """About how many messages are left, in words."""
    low, high = stand.left_range
    if stand.closed or stand.used >= stand.allowance:
        return "No message left"
    if stand.own_limit_met:
        return "Your own limit is reached"
    if stand.next_is_last:
        return "1 message left"
    if high <= 3:  # an estimate: to be certain of one message is D4's to say, not the mean's
        return "A few messages left"
    if low > 999:
        return "More than 999 messages left"
    return f"About {low:,d} to {high:,d} messages left" if low < high else f"About {low:,d} messages left"


# --- The side panel ---------------------------------------------------------------------------------------------------


@contextmanager
def panel(account: Account, stand: Meter | None = None, opens: bool = False) -> Iterator[None]:
    """The side panel: New chat above what the page puts into it, the meter at its foot (`stand`, where the page has read it already; `opens`:
    the page hears who wants to see the receipts)."""
    with st.sidebar:
        if may_write(account) and st.button("New chat", icon=":material/edit_square:", width="stretch", key="new_chat"):
            places.go("chat")
        yield
        place = panel_foot(account)
        if account.has(Role.FREELANCER):
            with place:
                standing(account, stand or house().accounts.meter(account, house().answering.sizes()), opens)


def may_write(account: Account) -> bool:
    """Whether a new chat is of use to them."""
    return account.has(Role.FREELANCER) and house().accounts.grant(account).state is PlanState.HAS


def panel_foot(account: Account, more: Callable[[], None] | None = None) -> DeltaGenerator:
    """What stays in sight while the panel scrolls. Returns the place for how the allowance stands."""
    with st.container(key="panel_foot"):
        place = st.container(key="standing")
        if more is not None:
            more()
        if account.sample:
            note(f"Sample account: {name_of(account)}")
    return place


def standing(account: Account, stand: Meter | None, opens: bool = True) -> None:
    """The meter, or why there is none."""
    if stand is not None:
        meter(stand, account, opens)
    elif house().accounts.grant(account).state is PlanState.HAD:
        note(f"{house().settings.plan_name} has ended. Your chats stay here to read.")
    else:
        note(f"{house().settings.plan_name} is not part of this account yet.")
