"""Account: who a person is here, what they are granted and agreed to, and what every answer cost them.

Without it nobody can check the meter against the receipts, take back a yes, take home or away what is theirs, or end a session left open
elsewhere.
"""

from collections.abc import Callable
from datetime import datetime
from html import escape

import streamlit as st

from chatpro.domain.accounts import Account, Consent, Entitlement, PlanState, Role
from chatpro.errors import ChatProError
from chatpro.services.accounts import GivenWarning, Meter, UsageEntry, zones
from chatpro.services.export import Form
from chatpro.web import allowance, doors, exporting, gate, parts
from chatpro.web.parts import house

account = gate.page("account")

PAGE = 50
WARNED = {"75": "75 % of {} tokens were used", "95": "95 % of {} tokens were used", "last_message": "The last message of a month with {} tokens was sent"}
ROLES = {role: word for role, (_, word) in doors.SEES.items()}


def draw() -> None:
    """The sections, the freelancer's own ones only for freelancers."""
    stand = allowance.frame(account, whole=True)
    parts.head("Account", "A sample account of demo mode, made up." if account.sample else "")
    st.html(
        parts.facts_html(
            {
                "Name": parts.name_of(account),
                "Mail": account.email or "None given",
                "Role": ", ".join(ROLES[role] for role in Role if role in account.roles) or "None",
                "Here since": parts.day(account.created_at, account),
            }
        )
    )
    _zone()
    if account.has(Role.FREELANCER):
        _plan(stand)
        _consent()
        _warnings(house().accounts.warnings(account))
        _receipts(house().accounts.receipts(account), stand)
        _looks()
        _own_data()
    _signing_out()
    _closing()


def _zone() -> None:
    names = sorted(name for name in zones() if "/" in name and not name.startswith(("Etc/", "posix/", "right/")) or name == "UTC")
    now = account.zone if account.zone in names else "UTC"

    def keep() -> None:
        chosen = st.session_state.get("zone")
        if isinstance(chosen, str) and chosen != account.zone:
            try:
                house().accounts.set_zone(account, chosen)
            except ChatProError:
                st.session_state["zone"] = now  # a value that no list offered: nothing to tell anybody

    st.selectbox("Time zone for dates", names, index=names.index(now), key="zone", on_change=keep, width=340)
    if account.has(Role.FREELANCER):
        parts.note("Dates on all pages are written in this zone. The day on which the allowance renews stays as it is.")
    parts.looks()


# --- Plan and allowance -----------------------------------------------------------------------------------------------


def _plan(stand: Meter | None) -> None:
    st.header("Plan", anchor=False)
    grant = house().accounts.grant(account)
    if grant.state is PlanState.NEVER or grant.entitlement is None:
        parts.note(f"{house().settings.plan_name} is not part of this account yet. The chat page says what it is and how to get it.")
        return
    row = grant.entitlement
    facts = {"Plan": row.plan, "Allowance": f"{row.allowance:,} tokens a month", "Since": parts.day(row.starts_at, account)}
    if row.ends_at is not None:
        facts["Ended" if grant.state is PlanState.HAD else "Ends"] = parts.day(row.ends_at, account)
    st.html(parts.facts_html(facts))
    if stand is not None:
        with st.container(key="account_meter"):
            parts.meter(stand, account, opens=False)
        _own_limit(stand)
    earlier = [e for e in house().accounts.entitlements(account) if e != row]
    if earlier:
        with st.expander("Earlier and later grants"):
            st.html(f"<ul>{''.join(_grant_html(e) for e in earlier)}</ul>")


def _own_limit(stand: Meter) -> None:
    """A lower limit for this month, set and lifted here; where it is met the chat lifts it with one click too."""
    until = f" until {parts.day_of(stand.cycle.ends_at, account)}" if stand.cycle is not None else " in your first month"
    only = f"for this month only,{until}" if stand.cycle is not None else "for your first month only"
    if stand.own_limit is not None:
        parts.note(f"You limited yourself to {stand.own_limit:,} tokens{until}. Beyond that nothing is sent unless you lift it.")
    with st.expander("Limit yourself this month" if stand.own_limit is None else "Change or lift your own limit"):
        parts.note(f"A lower limit than your allowance, {only}. It takes nothing away: lift it whenever you want.")
        half = stand.allowance // 2 // 1_000 * 1_000 or stand.allowance // 2
        st.number_input("Tokens", 0, stand.allowance - 1, stand.own_limit if stand.own_limit is not None else half, 1_000, key="own_limit", width=220)
        with st.container(horizontal=True, gap="small"):
            st.button("Set own limit", key="set_own_limit", on_click=_set_own_limit)
            if stand.own_limit is not None:
                st.button("Lift it", key="lift_own_limit", type="tertiary", on_click=allowance.lift)


def _set_own_limit() -> None:
    try:
        house().accounts.set_own_limit(account, int(st.session_state.get("own_limit") or 0))
    except ChatProError as error:
        st.session_state["said"] = allowance.Said(str(error), kind="95", icon="warning")


def _grant_html(row: Entitlement) -> str:
    until = f" until {parts.day(row.ends_at, account)}" if row.ends_at else ""
    return f"<li>{escape(row.plan)}, {row.allowance:,d} tokens a month, from {escape(parts.day(row.starts_at, account))}{escape(until)}</li>"


def _warnings(given: list[GivenWarning]) -> None:
    st.header("Warnings", anchor=False)
    if given:
        st.html(f"<ul>{''.join(_warning_html(w) for w in reversed(given))}</ul>")
    else:
        parts.note("None was given. There is one at 75 %, one at 95 %, and one before the last message of a month.")


def _warning_html(row: GivenWarning) -> str:
    fact = WARNED.get(row.kind, row.kind).format(f"{row.allowance:,}")
    return f"<li>{escape(fact)} <small>{escape(parts.moment(row.at, account))}</small></li>"


# --- Consent ----------------------------------------------------------------------------------------------------------


def _consent() -> None:
    st.header("Consent to AI", anchor=False)
    accounts, said = house().accounts, house().accounts.consents(account)
    opted_in = accounts.opted_in(account)
    if opted_in:
        parts.note(f"You said yes on {parts.moment(said[-1].at, account)}, to version {said[-1].version}. What you send goes to {parts.model_title()}.")
    elif said and said[-1].given:
        parts.note(f"You said yes to version {said[-1].version}. The text has changed since, and nothing is sent until you say yes to version {_version()}.")
    else:
        parts.note(
            f"You said no on {parts.moment(said[-1].at, account)}. Nothing is sent to a model."
            if said
            else "You were not asked yet. Nothing is sent to a model."
        )
    with st.expander(f"What a yes means, version {_version()}"):
        doors.consent_text()
    if st.button("Opt out of AI" if opted_in else "Opt in to AI", key="opt"):
        (accounts.opt_out if opted_in else accounts.opt_in)(account)
        st.rerun()
    if said:
        with st.expander("What you said, and when"):
            st.html(f"<ul>{''.join(_said_html(c) for c in reversed(said))}</ul>")


def _version() -> int:
    return house().settings.consent_version


def _said_html(row: Consent) -> str:
    return f"<li>{'Yes' if row.given else 'No'} to version {row.version:d} <small>{escape(parts.moment(row.at, account))}</small></li>"


# --- Receipts ---------------------------------------------------------------------------------------------------------


def _receipts(entries: list[UsageEntry], stand: Meter | None) -> None:
    """All months beside each other, then every answer of one of them: also of deleted chats."""
    st.header("Receipts", anchor=False)
    current = stand.cycle.starts_at if stand is not None and stand.cycle is not None else None
    carried = stand.carried if stand is not None else 0
    if not entries and not carried:
        parts.note("Each answer leaves a receipt here: when, how many tokens in and out, and which model wrote it.")
        return
    months = allowance.by_month(account, entries, stand)
    if len(months) > 1:
        st.html(allowance.months_html(account, months))
    starts = [month.starts_at for month in reversed(months)]
    chosen = st.selectbox("Month", starts, format_func=lambda at: _month(at, current), key="receipts_of", width=340)
    of_month, before = [e for e in entries if e.cycle_starts_at == chosen], carried if chosen == current else 0
    shown = int(st.session_state.get("receipts_shown", PAGE))
    parts.note(f"{allowance.sum_in_words(of_month, chosen == current, before)} Also of chats that you deleted. {parts.TOKEN}")
    st.html(allowance.receipts_html(account, of_month, shown, before))
    if len(of_month) > shown and st.button(f"Show {min(PAGE, len(of_month) - shown)} more", key="more_receipts"):
        st.session_state["receipts_shown"] = shown + PAGE
        st.rerun()


def _month(starts_at: datetime, current: datetime | None) -> str:
    return f"This month, since {parts.short_day(starts_at, account)}" if starts_at == current else f"From {parts.day(starts_at, account)}"


# --- What is one's own ------------------------------------------------------------------------------------------------


def _looks() -> None:
    st.header("Who looked at your chats", anchor=False)
    parts.note(
        "Nobody. Only support staff can, inside a dispute that a second person confirmed. Each look will stand here: the day, their role, the dispute, "
        "and what they searched or opened; where a look is sealed, at the latest 30 days after it."
    )


def _own_data() -> None:
    """Take it home, or take it away."""
    st.header("Your data", anchor=False)
    parts.note("Everything that is yours: all chats to read and for programs, consents, grants, warnings, refusals and receipts, as one ZIP.")
    with st.container(horizontal=True, gap="small"):
        st.button("Export everything", key="export_all", icon=":material/download:", on_click=_act, args=(_export, Form.EVERYTHING))
        st.button("Receipts as CSV", key="export_receipts", icon=":material/receipt_long:", on_click=_act, args=(_export, Form.RECEIPTS))
    exporting.progress()
    if said := st.session_state.get("data_said"):
        parts.notice("plain", "info", said, "")
    _delete_all(len(house().history.chats(account)))


def _delete_all(chats: int) -> None:
    """Asked before, because it is everything; and there is a way back."""
    if gone := st.session_state.get("deleted_all"):
        text = "They can be brought back for ten minutes. Then the text is taken out of all files. Receipts and the meter stay as they are."
        parts.notice("plain", "delete", f"{parts.count_of(len(gone), 'chat')} deleted.", text, "Undo", on_click=_act, args=(_bring_all_back,))
    if not chats:
        return
    if not st.session_state.get("asked_delete_all"):
        st.button("Delete all my chats", key="delete_all", icon=":material/delete:", on_click=_ask_delete_all, args=(True,))
        return
    with st.container(key="confirm_delete_all", border=True):
        parts.note(
            f"Delete {'your only chat' if chats == 1 else f'all {chats:,} chats'}? They leave every list at once, and answers that are being written are "
            "stopped. Receipts, which hold no text, stay: they are what the meter counts."
        )
        with st.container(horizontal=True, gap="small"):
            st.button("Delete all", key="delete_all_yes", on_click=_act, args=(_delete_them,))
            st.button("Keep them", key="delete_all_no", type="tertiary", on_click=_ask_delete_all, args=(False,))


def _act(work: Callable[..., None], *given: object) -> None:
    """Do it for whoever is there now; what goes wrong is said in a sentence."""
    st.session_state.pop("data_said", None)
    who = gate.who()
    if who is None:
        return
    try:
        work(who, *given)
    except ChatProError as error:
        st.session_state["data_said"] = str(error)


def _export(who: Account, form: Form) -> None:
    exporting.ask(who, form)


def _ask_delete_all(asked: bool) -> None:
    st.session_state["asked_delete_all"] = asked


def _delete_them(who: Account) -> None:
    _ask_delete_all(False)
    st.session_state["deleted_all"] = house().history.delete_all(who)


def _bring_all_back(who: Account) -> None:
    for chat in st.session_state.pop("deleted_all", []):
        house().history.restore(who, chat)


# --- Leaving ----------------------------------------------------------------------------------------------------------

WORDS = "close my account"


def _signing_out() -> None:
    st.header("Sign out", anchor=False)
    parts.note("Ends every session of this account, in every browser. An answer that is being written is finished and kept.")
    if st.button("Sign out everywhere", key="sign_out", icon=":material/logout:"):
        gate.sign_out()


def _closing() -> None:
    """For good, so it is typed and not only clicked; what goes and what stays stands before it."""
    st.header("Close my account", anchor=False)
    with st.expander("What closing does, and how", expanded="not_closed" in st.session_state):
        st.html(_goes_html() + _stays_html())
        if account.has(Role.FREELANCER):
            _before_closing()
        with st.form("close_account", border=False):
            st.text_input(f'Type "{WORDS}" to confirm', key="closing_words", autocomplete="off", width=340)
            st.form_submit_button("Close my account for good", key="close_account_yes", on_click=_close)
    if said := st.session_state.pop("not_closed", None):
        parts.notice("95", "warning", "Your account is not closed.", said)


def _goes_html() -> str:
    chats = "All your chats, with titles and drafts, also deleted ones: nobody can bring them back. " if account.has(Role.FREELANCER) else ""
    return (
        "<h3>What goes</h3><ul><li>At once: every session of this account in every browser, and answers that are being written (charged for what was written)."
        f"</li><li>Within 24 hours, out of all files of this service: {chats}Your name, your mail and your sign-in.</li>"
        "<li>Copies for emergencies, made by whoever runs this service, are deleted in their own time.</li></ul>"
    )


def _stays_html() -> str:
    keeps = escape(parts.day(house().accounts.kept_until(account), account))
    ledger = "How many tokens were charged when, warnings, and what you agreed to: they prove what was charged and allowed. "
    own = ledger if account.has(Role.FREELANCER) else ""
    return (
        f"<h3>What stays, and why</h3><ul><li>Under a random number, without any text or name: {own}The record of what was done under this account.</li>"
        f"<li>Until {keeps}: a keyed hash of your sign-in, from which nobody can tell who you are. It keeps an old cookie from opening a new account, "
        "and coming back from giving a second allowance for the same month.</li>"
        "<li>Whoever signs in again begins with an empty account. In the same month, what was used stays used.</li></ul>"
    )


def _before_closing() -> None:
    parts.note("If you want to keep anything, export everything first. Closing does not cancel what you pay elsewhere: do that where you subscribed.")


def _close() -> None:
    typed, who = " ".join(str(st.session_state.get("closing_words") or "").split()).casefold(), gate.who()
    if who is None:
        return
    if typed.strip("\"'.") != WORDS:
        st.session_state["not_closed"] = f'Nothing was changed. To close it, type the words "{WORDS}".'
        return
    try:
        gate.close_account(who)
    except ChatProError as error:
        st.session_state["not_closed"] = str(error)


draw()
