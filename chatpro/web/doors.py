"""Everything a person meets before a page: signing in, being refused, the consent, and what the plan is.

These stand in for a page and read no text of anybody. Without one place for them each page invents its own refusal, and two
refusals that differ tell a stranger what exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from urllib.parse import urlencode

import streamlit as st

from chatpro.bootstrap import house
from chatpro.config import LOOPBACK
from chatpro.domain.accounts import Account, Consent, Grant, PlanState, Role
from chatpro.domain.allowance import TYPICAL_MESSAGE
from chatpro.web import parts, places

SEES: dict[Role, tuple[str, str]] = {
    Role.FREELANCER: ("draw", "freelancer"),
    Role.ANALYST: ("bar_chart", "product manager"),
    Role.SUPPORT: ("gavel", "support"),
    Role.APPROVER: ("task_alt", "approver"),
    Role.AUDITOR: ("verified_user", "auditor"),
    Role.ADMIN: ("build", "admin"),
}
TICKS = '<ul style="padding:0">'
"""Streamlit indents every list; these have their own signs instead."""
OFFERED = ("mara", "tomas", "lea", "hal", "nia", "priya", "jude", "ana", "otto", "ada")
"""One for each state of the plan, then one for each role. The others are company, so that figures about people can be shown."""
STAFF_SEES: dict[Role, str] = {
    Role.ANALYST: "Sees counts and warnings, never anybody's words",
    Role.SUPPORT: "Handles disputes; opens no other chat",
    Role.APPROVER: "Confirms disputes that support staff open",
    Role.AUDITOR: "Sees who did what and when, never anybody's words",
    Role.ADMIN: "Runs the service, never sees anybody's words",
}


# --- Signing in -------------------------------------------------------------------------------------------------------


def sign_in(name: str) -> None:
    """The page of somebody who is not signed in and asked for the page `name`."""
    with _middle():
        _brand()
        if house().settings.demo:
            _choose_sample(name)
            return
        st.title("Sign in", anchor=False)
        st.html(f'<p class="note">{escape(house().settings.product_name)} opens after you signed in. What you write stays between you and the model.</p>')
        if st.button("Sign in", key="do_sign_in", type="primary", width="stretch"):
            st.login(_provider())
        links()


def _choose_sample(name: str) -> None:
    st.title("Choose a sample account", anchor=False)
    here = house().settings.host in LOOPBACK
    parts.notice(
        "plain",
        "science",
        "Demo mode.",
        "No password is asked, so this page answers only on this computer." if here else "No password is asked: whoever reaches this page can come in.",
    )
    people = {account.subject: account for account in house().accounts.samples()}
    for account in (people[name] for name in OFFERED if name in people):
        icon, title, text = _card_of(account)
        parts.link_card(account.subject, icon, title, text, _way_in(account, name))
    others = [name for name in people if name not in OFFERED]
    if others:
        parts.note(f"{len(others)} more freelancers fill the figures of the service. To be one of them, put a name into the address: /?as={others[0]}")
    parts.note("To sign people in for real, set up a sign-in provider: see the README, under Configuration.")


def _way_in(account: Account, name: str) -> str:
    """The address that signs in: the one that was asked for where this account may open it, else its first page."""
    kept = {key: st.query_params[key] for key in st.query_params if account.may_open(name)}
    return ("" if account.may_open(name) else "./") + "?" + urlencode({**kept, "as": account.subject})


def _card_of(account: Account) -> tuple[str, str, str]:
    role = next((role for role in SEES if role in account.roles), None)
    if role is None:
        return "person", parts.name_of(account), "Has no role, so it opens no page of its own"
    icon, word = SEES[role]
    first_name = parts.name_of(account).split()[0]
    text = _plan_in_words(account) if role is Role.FREELANCER else STAFF_SEES[role]
    return icon, f"{first_name}, {word}", text


def _plan_in_words(account: Account) -> str:
    accounts, plan = house().accounts, house().settings.plan_name
    grant = accounts.grant(account)
    if grant.state is PlanState.NEVER:
        return f"Never had {plan}"
    if grant.state is PlanState.HAD:
        return f"Had {plan}: reads what was written, sends nothing"
    if not accounts.opted_in(account):
        return f"{plan}, not asked for a consent yet"
    stand = accounts.meter(account, house().answering.sizes())
    if stand is None or stand.used == 0:
        return f"{plan}, nothing of the month used"
    if stand.closed:
        return f"{plan}, the month's allowance is used up"
    return f"{plan}, {stand.used * 100 // stand.allowance} % of the month used" + (", one message left" if stand.next_is_last else "")


def _provider() -> str | None:
    """The name of the one provider that has a table of its own under [auth]; None for the unnamed one."""
    auth = house().settings.auth or {}
    return next((name for name, value in auth.items() if isinstance(value, dict) or hasattr(value, "keys")), None)


# --- Refused, not found, failed ----------------------------------------------------------------------------------------


def refused(sentence: str) -> None:
    """Somebody whom the sign-in provider knows, and who can't be let in."""
    with _middle():
        _brand()
        st.title("You are not signed in", anchor=False)
        st.html(f"<p>{escape(sentence)} No account was opened, and none was made.</p>")
        if st.button("Sign in with another account", key="sign_in_again", width="stretch"):
            st.logout()


def closed(gone_by: str, kept_until: str, on_leave: Callable[[], None]) -> None:
    """After somebody closed their account: what becomes of it, once, before the sign-in page."""
    st.query_params.clear()
    with _middle():
        _brand()
        st.title("Your account is closed", anchor=False)
        st.html(
            f'<p role="status">Your chats are out of every list. Their text, your name, your mail and your sign-in are out of all files of this service '
            f"by {escape(gone_by)}.</p><p>What stays holds no text and no name: what was charged, warned of and agreed to, under a random number. "
            f"Until {escape(kept_until)} a keyed hash of your sign-in is kept, so that a new account of yours goes on in the same month.</p>"
        )
        st.button("Go to sign-in", key="left_for_good", width="stretch", on_click=on_leave)


def not_found(account: Account) -> None:
    """For a page, a chat or anything else that this account can't open: the same words, whether it exists or not."""
    parts.head("Not found", "There is nothing at this address that your account can open.")
    first = places.first_of(account)
    if account.may_open(first) and st.button(f"Go to {places.PLACES[first].title}", key="go_home"):
        places.go(first)


def failed(reference: str, sentence: str | None = None) -> None:
    """An exception that the page did not expect. With a sentence it is said; the log has the rest under the reference."""
    with _middle():
        st.title("This page failed", anchor=False)
        st.html(
            f'<p role="alert">{escape(sentence or "Something went wrong inside this service.")} What was saved is safe. '
            f"Load the page again; if it happens again, tell whoever runs this service the number <b>{escape(reference)}</b>.</p>"
        )


def not_started() -> None:
    """The page file was started on its own, past the server that watches over it."""
    st.title("This page can't be opened on its own", anchor=False)
    parts.note("It is part of a service that was not started. Start that with: make run")


# --- The plan ---------------------------------------------------------------------------------------------------------


def offer(account: Account, grant: Grant) -> None:
    """For people who never had the plan, or no longer have it: what it is and how to get it."""
    settings = house().settings
    with st.container(key="gate_wide"):
        if grant.state is PlanState.HAD and grant.entitlement is not None and grant.entitlement.ends_at is not None:
            st.title(parts.label(f"{settings.plan_name} has ended"), anchor=False)
            st.html(
                f"<p>It ended on {escape(parts.day(grant.entitlement.ends_at, account))}. You can read your chats, delete them, and see your receipts. "
                "Sending messages needs the plan.</p>"
            )
            if st.button("Read my chats", key="read_chats", icon=":material/history:"):
                places.go("history")
        else:
            st.title(parts.label(f"Chat is part of {settings.plan_name}"), anchor=False)
        _what_the_plan_is()
        if settings.plan_url:
            st.link_button(parts.label(f"Get {settings.plan_name}"), settings.plan_url, icon=":material/open_in_new:")
        else:
            parts.note("This is demo mode: nothing is sold here. Whoever runs a real service sets the address where the plan can be had.")


def _what_the_plan_is() -> None:
    s = house().settings
    about = s.allowance_tokens // TYPICAL_MESSAGE
    st.html(
        f"<p>{escape(s.plan_name)} lets you write with an AI model for your client work: proposals, messages, text, data, and order in it all.</p>"
        f'<div class="does"><div class="yes"><h2>What it gives</h2>{TICKS}'
        f"<li>{s.allowance_tokens:,d} tokens a month, about {about:,d} messages</li><li>Renewed each month on the day of your first message</li>"
        f"<li>A word before a message is the last of the month</li></ul></div>"
        f'<div class="no"><h2>What it does not do</h2>{TICKS}<li>Send a word before you said yes</li><li>Use your words to train a model</li>'
        f"<li>Show anybody messages older than {s.retention_days:d} days</li></ul></div></div>"
    )


# --- The consent ------------------------------------------------------------------------------------------------------


def consent(account: Account) -> None:
    """Asks for the yes without which nothing is sent. Both answers weigh the same, and nothing is ticked beforehand."""
    accounts, settings = house().accounts, house().settings
    said = accounts.consents(account)
    no_now = bool(said) and not said[-1].given
    with st.container(key="gate_wide"):
        st.title("Before your words go to an AI model", anchor=False)
        _what_was_said(account, said)
        consent_text()
        with st.container(horizontal=True, gap="small"):
            if st.button("Yes, use AI for my chats", key="consent_yes", width=230):
                accounts.opt_in(account)
                st.rerun()
            if no_now and st.button("Read my history", key="consent_history", width=230):
                places.go("history")
            if not no_now and st.button("No, not now", key="consent_no", width=230):
                accounts.opt_out(account)
                st.rerun()
        parts.note(
            f"Consent version {settings.consent_version}. Without a yes nothing is sent; you can still read your history, your account page and the help. "
            f"Signed in as {parts.name_of(account)}."
        )


def consent_text() -> None:
    """What a yes means: who gets what, where, for how long. Also on the account page, beside the switch."""
    settings, local = house().settings, house().model.is_local
    product, model = settings.product_name, parts.model_title()
    if local:
        st.html(
            f"<p>{escape(product)} hands what you write to {escape(model)}, which runs on this computer, and shows you its answer. "
            "Nothing leaves this computer. That needs your yes. You can take it back at any time, with effect at once.</p>"
        )
    else:
        st.html(
            f"<p>{escape(product)} sends what you write to {escape(model)}, run by {escape(settings.provider_name)}, and shows you its answer. "
            "That needs your yes. You can take it back at any time, with effect at once.</p>"
        )
        st.html(
            parts.facts_html(
                {
                    "Sent to": settings.provider_name,
                    "Country": settings.provider_country[:1].upper() + settings.provider_country[1:],
                    "Kept there": parts.kept_there(),
                    "Used for training": "No",
                }
            )
        )
    st.html(
        f'<div class="does"><div class="yes"><h2>What is used</h2>{TICKS}<li>What you type</li><li>The chat so far, so that the answer fits</li>'
        f"<li>How many tokens each answer took</li></ul></div>"
        f'<div class="no"><h2>What is not</h2>{TICKS}<li>Your profile, jobs, contracts and clients</li><li>Your words, to train a model</li>'
        f"<li>Messages older than {settings.retention_days:d} days: nobody can read them any more</li></ul></div></div>"
    )
    links()


def _what_was_said(account: Account, said: list[Consent]) -> None:
    """Why this is asked again: the text changed since an earlier yes, or the newest word is a no."""
    if not said:
        return
    newest, version = said[-1], house().settings.consent_version
    if not newest.given:
        parts.notice("plain", "block", f"You said no on {parts.moment(newest.at, account)}.", "Since then nothing is sent to a model.")
    elif newest.version != version:
        parts.notice(
            "plain",
            "history_edu",
            "This text has changed.",
            f"You said yes to version {newest.version} on {parts.day(newest.at, account)}. Now it is version {version}: nothing is sent before a yes to that.",
        )
    elif newest.facts not in ("", house().settings.consent_facts):
        parts.notice(
            "plain",
            "history_edu",
            "Your words would go somewhere else now.",
            f"You said yes on {parts.day(newest.at, account)}, before that changed: nothing is sent before a yes to what stands here.",
        )


def links() -> None:
    """Terms and privacy policy, apart from the yes: neither is agreed to by it."""
    s = house().settings
    links = [(s.terms_url, f"Terms, version {s.terms_version}"), (s.privacy_url, "Privacy policy")]
    if any(url for url, _ in links):
        st.html(f'<p class="note">{" · ".join(_link_html(url, words) for url, words in links if url)}</p>')
    elif s.demo:
        parts.note("Terms and privacy policy: none in demo mode, where everybody is made up. A real service does not start without their addresses.")


def _link_html(url: str, words: str) -> str:
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(words)}</a>'


@contextmanager
def _middle() -> Iterator[None]:
    """A narrow column in the middle of the page, for those who have no side panel."""
    with st.container(horizontal_alignment="center"), st.container(key="gate", width=480):
        yield


def _brand() -> None:
    st.html(f'<div class="brand"><i aria-hidden="true"></i>{escape(house().settings.product_name)}</div>')
