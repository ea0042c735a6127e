"""What a person sees of their allowance beside the meter: the warnings, the last message, the end of it, and how pages stay true.

A warning that stands in one tab only, or comes back after it was put away, is not believed the next time. So what is said here comes
from the store in every run, each open page hears when that changed (sockets.py), and it knows the instant at which it changes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

import streamlit as st

from chatpro.bootstrap import house
from chatpro.domain.accounts import Account, Entitlement, Role, allowance_at
from chatpro.domain.allowance import Cycle
from chatpro.errors import ChatProError
from chatpro.services.accounts import GivenWarning, Meter, UsageEntry
from chatpro.web import gate, live, parts, places, server

USED = {"95": ("warning", "95 % of this month is used."), "75": ("info", "75 % of this month is used.")}
AFTERWARDS = "Afterwards you can still read, search and export your chats."


@dataclass(frozen=True)
class Said:
    """Something the page says once, above the composer: the fact, and what it means. Not any more from `until` on, where that is given."""

    fact: str
    text: str = ""
    kind: str = "plain"
    icon: str = "info"
    until: datetime | None = None
    about: str = ""

    def draw(self) -> None:
        if self.about == "own_limit":
            parts.notice(self.kind, self.icon, self.fact, self.text, "Lift it", on_click=lift)
        else:
            parts.notice(self.kind, self.icon, self.fact, self.text)


# --- Staying true -----------------------------------------------------------------------------------------------------


def listen(account: Account) -> int:
    """Renew this page's channel and say by how many of its news the page is drawn. Before anything of the allowance is read."""
    st.session_state["channel"] = channel = server.sockets().renewed(st.session_state.get("channel"), account.id, account.epoch)
    return server.sockets().news_of(channel)


def standing(account: Account, stand: Meter | None, news: int) -> live.Standing:
    """For the page's program: how new what it shows is, and when that changes by itself."""
    return live.Standing(news, house().now(), _changes_at(account, stand))


def _changes_at(account: Account, stand: Meter | None) -> datetime | None:
    """The next renewal, or the next beginning or end of a grant."""
    grants = house().accounts.entitlements(account)
    instants = [at for row in grants for at in (row.starts_at, row.ends_at) if at is not None]
    if stand is not None and stand.cycle is not None:
        instants.append(stand.cycle.ends_at)
    return min((at for at in instants if at > house().now()), default=None)


def frame(account: Account, whole: bool = False) -> Meter | None:
    """The side panel of a page without a chat, and what has to be said of the allowance wherever its owner comes back to. Returns how it stands.
    `whole`: this is the account page, which says all that the chat says and has the receipts itself. Whoever is signed out elsewhere, or closes
    their account, is so here within seconds, hence the ears for everybody."""
    if not account.has(Role.FREELANCER):
        ears = standing(account, None, listen(account))
        with parts.panel(account):
            pass
        live.ears(channel=st.session_state["channel"], standing=ears, on_act=_hear)
        return None
    if to := st.session_state.pop("go_to", None):
        places.go(to, **st.session_state.pop("go_with", {}))
    news = listen(account)
    stand = house().accounts.meter(account, house().answering.sizes())
    with parts.panel(account, stand, opens=not whole):
        pass
    _at_the_bottom(account, stand, whole)
    live.ears(channel=st.session_state["channel"], standing=standing(account, stand, news), on_act=_hear)
    return stand


def _at_the_bottom(account: Account, stand: Meter | None, whole: bool) -> None:
    """Where a notice comes and goes without moving what is read."""
    said, warned = st.session_state.pop("said", None), house().accounts.warned(account, stand) if stand is not None else None
    if said is not None:
        with st.bottom:
            said.draw()
    elif stand is not None and whole and _has_to_be_said(stand, warned):
        with st.bottom, st.container(key="composing"):
            notice(account, stand)
    elif stand is not None and warned is not None and _is_open(warned):
        with st.bottom:
            _warn(account, stand, warned)


def _has_to_be_said(stand: Meter, warned: GivenWarning | None) -> bool:
    return stand.closed or stand.own_limit_met or stand.next_is_last or (warned is not None and _is_open(warned))


def _hear(acts: Any) -> None:
    """A button of the meter was clicked on a page without a chat."""
    if isinstance(acts, list) and any(isinstance(act, dict) and act.get("act") == "receipts" for act in acts):
        st.session_state["go_to"] = "account"


# --- Notices ----------------------------------------------------------------------------------------------------------


def notice(account: Account, stand: Meter, kept: bool = False) -> None:
    """The weightiest of what has to be said now, and nothing beside it. `kept`: a text was just refused."""
    cycle, warned = stand.cycle, house().accounts.warned(account, stand)
    if cycle is None:
        return
    until = parts.day_of(cycle.ends_at, account)
    if stand.closed:
        _blocked(account, cycle.ends_at, kept)
    elif stand.own_limit_met:
        fact, left = f"Your own limit of {stand.own_limit:,} tokens is reached.", f"It holds until {until}; your allowance has {stand.remaining:,} tokens left."
        parts.notice("plain", "front_hand", fact, "Nothing more is sent unless you lift it.", "Lift it", more=left, on_click=lift)
    elif stand.reserved and warned is not None and warned.kind == "last_message":
        parts.notice("plain", "hourglass_bottom", f"Your last message until {until} is being answered.", "What it leaves expires then.")
    elif stand.next_is_last:
        # While an answer is written, how much the last one can use is not known yet.
        text = "What it leaves expires." if stand.reserved else f"It can use up to {stand.remaining:,} tokens; what it leaves expires."
        parts.notice("last", "hourglass_bottom", f"Your next message is the last one until {until}.", text, more=AFTERWARDS)
    elif warned is not None and _is_open(warned):
        _warn(account, stand, warned)


def _is_open(warned: GivenWarning) -> bool:
    return warned.kind in USED and warned.dismissed_at is None


def _warn(account: Account, stand: Meter, warned: GivenWarning) -> None:
    assert stand.cycle is not None
    icon, fact = USED[warned.kind]
    until = f"until {parts.day_of(stand.cycle.ends_at, account)}."
    parts.notice(warned.kind, icon, fact, parts.left(stand), "OK", more=until, on_click=_dismiss, args=(warned,))


def lift() -> None:
    """Lift the own limit, where it is met or on the account page."""
    account = gate.who()
    try:
        if account is not None:
            house().accounts.lift_own_limit(account)
            st.session_state.pop("said", None)
    except ChatProError as error:
        st.session_state["said"] = Said(str(error), kind="95", icon="warning")


def _dismiss(warned: GivenWarning) -> None:
    account = gate.who()
    try:
        if account is not None:
            house().accounts.dismiss(account, warned.kind, warned.cycle_starts_at, warned.allowance)
    except ChatProError as error:
        st.session_state["said"] = Said(str(error), kind="95", icon="warning")


def _blocked(account: Account, ends_at: datetime, kept: bool) -> None:
    """Sending is over until the renewal: a heading, the instant, and how long that is. No red field: it is nobody's fault."""
    number, unit = parts.until(ends_at)
    when, zone = parts.opens_at(ends_at, account), account.zone.replace("Etc/UTC", "UTC")
    draft = "Nothing was sent; your text is kept here." if kept else "Your chats stay here to read, search and export, and a draft is kept."
    st.html(
        f'<div class="blocked"><div class="say" role="alert"><b>This month\'s allowance is used up.</b>'
        f"<span>You can write again on {escape(when)} ({escape(zone)}). {escape(draft)}</span></div>"
        f'<div class="count" role="timer" data-due="{parts.milliseconds(ends_at):d}"><span><b>{number:d}</b><small>{escape(unit)}</small></span></div></div>'
    )


# --- Receipts ---------------------------------------------------------------------------------------------------------


@st.dialog("Receipts of this month", width="medium")
def receipts(account: Account, cycle: Cycle) -> None:
    """What the meter opens to, over the chat, so that a text in the composer stays where it is."""
    entries, carried = house().accounts.receipts(account, cycle.starts_at), house().accounts.carried(account, cycle.starts_at)
    parts.note(sum_in_words(entries, True, carried))
    st.html(receipts_html(account, entries, carried=carried))
    parts.note(parts.TOKEN)
    if st.button("All months", key="all_receipts", icon=":material/receipt_long:"):
        places.go("account")


@dataclass(frozen=True)
class Month:
    """What one cycle came to. `allowance`: the figure in force at its last answer, in the one that runs the figure now."""

    starts_at: datetime
    used: int
    allowance: int
    answers: int
    warnings: int

    @property
    def share(self) -> float:
        return self.used / self.allowance if self.allowance else 1.0


SHOWN_MONTHS = 12


def by_month(account: Account, entries: Sequence[UsageEntry], stand: Meter | None) -> list[Month]:
    """Every cycle in which something was used, oldest first, with the one that runs."""
    grants, warned = house().accounts.entitlements(account), house().accounts.warnings(account)
    current = stand.cycle.starts_at if stand is not None and stand.cycle is not None else None
    starts = {entry.cycle_starts_at for entry in entries} | ({current} if current is not None else set())
    found = []
    for at in sorted(starts):
        mine = [entry for entry in entries if entry.cycle_starts_at == at]
        used = sum(entry.receipt.total for entry in mine)
        figure = allowance_at(grants, mine[0].at) if mine else 0
        if stand is not None and at == current:
            used, figure = used + stand.carried, stand.allowance
        found.append(Month(at, used, figure, len(mine), sum(row.cycle_starts_at == at for row in warned)))
    return found


def months_html(account: Account, months: Sequence[Month]) -> str:
    """The newest months as bars against the allowance of each, and the same figures as a table."""
    newest = months[-SHOWN_MONTHS:]
    top = max(max(month.used, month.allowance) for month in newest) or 1
    told = "; ".join(f"{parts.day(m.starts_at, account)}: {m.used:,} of {m.allowance:,} tokens" for m in newest)
    bars = "".join(
        f'<div style="--u:{month.used / top:.1%};--a:{month.allowance / top:.1%}"><span><i></i><s></s></span>'
        f"<small>{escape(parts.short_day(month.starts_at, account))}</small></div>"
        for month in newest
    )
    rows = "".join(
        f'<tr><th scope="row">From {escape(parts.day(m.starts_at, account))}</th>'
        f"<td><b>{m.used:,d}</b></td><td>{m.allowance:,d}</td>"
        f"<td>{escape(parts.part_of(m.used, m.allowance))}</td><td>{m.answers:,d}</td><td>{m.warnings:d}</td></tr>"
        for m in reversed(newest)
    )
    return (
        f'<div class="months"><div class="bars" role="img" aria-label="Tokens used each month, of the allowance. {escape(told)}">{bars}</div>'
        "<p>Tokens used in each month, of the allowance (the line).</p></div>"
        '<div class="receipts" tabindex="0" role="region" aria-label="Months"><table><thead><tr><th>Month</th><th>Tokens</th><th>Allowance</th>'
        f"<th>Used</th><th>Answers</th><th>Warnings</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def sum_in_words(entries: Sequence[UsageEntry], current: bool, carried: int = 0) -> str:
    """How many, and what they come to: in the month that runs, what the meter shows. `carried`: tokens that were used before under an account
    that the person closed."""
    total = sum(entry.receipt.total for entry in entries)
    before = f" and {carried:,} that you used before under an account that you closed" if carried else ""
    return f"{parts.count_of(len(entries), 'answer')}, {total:,} tokens{before}" + (": what the meter shows." if current else " together.")


def receipts_html(account: Account, entries: Sequence[UsageEntry], shown: int | None = None, carried: int = 0) -> str:
    """A row for each answer, newest first, with the sum of all of them below; `shown`: no more rows than that. `carried` as in `sum_in_words`."""
    grants = house().accounts.entitlements(account)
    rows = "".join(_row_html(account, entry, grants) for entry in entries[:shown])
    tokens_in, tokens_out = sum(e.receipt.tokens_in for e in entries), sum(e.receipt.tokens_out for e in entries)
    again = sum(e.receipt.tokens_resent for e in entries)
    total = tokens_in + tokens_out + carried
    before = f'<tr><td>Before</td><td><b>{carried:,d}</b></td><td colspan="6">under an account that you closed</td></tr>' if carried else ""
    return (
        '<div class="receipts" tabindex="0" role="region" aria-label="Receipts"><table>'
        "<thead><tr><th>When</th><th>Tokens</th><th>In</th>"
        '<th title="Earlier conversation that was sent again, part of what went in">Of it again</th>'
        "<th>Out</th><th>Of allowance</th><th>Counted</th><th>Model</th></tr></thead>"
        f"<tbody>{rows}{before}</tbody><tfoot><tr><th>Together</th><td><b>{total:,d}</b></td><td>{tokens_in:,d}</td><td>{again:,d}</td><td>{tokens_out:,d}</td>"
        "<td></td><td></td><td></td></tr></tfoot></table></div>"
    )


def _row_html(account: Account, entry: UsageEntry, grants: Sequence[Entitlement]) -> str:
    cost = entry.receipt
    share = parts.part_of(cost.total, allowance_at(grants, entry.at))
    counted = cost.counted if cost.total else f"{entry.outcome}, nothing charged"
    if cost.total and entry.outcome == "stopped":
        counted += ", stopped"
    return (
        f"<tr><td>{escape(parts.short_moment(entry.at, account))}</td><td><b>{cost.total:,d}</b></td><td>{cost.tokens_in:,d}</td>"
        f"<td>{cost.tokens_resent:,d}</td><td>{cost.tokens_out:,d}</td><td>{escape(share)}</td><td>{escape(counted)}</td><td>{escape(entry.model)}</td></tr>"
    )
