"""The gate: the first line of every page. Who is there, may they open this page, and if not, what do they see instead.

A page file can be asked for directly on a fresh server, so hiding it is not access control. Everything is asked of the store
on each run; session state holds only which account this session signed in as, and under which epoch.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

import streamlit as st

from chatpro.bootstrap import house
from chatpro.domain.accounts import Account, ClaimsRefused, identity_from
from chatpro.domain.chats import GONE_WITHIN, clean_text
from chatpro.errors import AccountClosed, StoreUnavailable
from chatpro.web import demo, doors, parts, places

_SESSION = "signed_in_as"
_ON, _CAME_FROM = "on_page", "came_from"
_CLOSED = "closed_here"


def page(name: str) -> Account:
    """The account that opens this page. Draws something else and ends the run for everybody who may not."""
    if not _is_served():
        doors.not_started()
        _end()
    account = who()
    if account is None:
        if (closed := st.session_state.get(_CLOSED)) is not None:
            gone_by, kept_until = closed
            doors.closed(gone_by, kept_until, _leave)
        else:
            doors.sign_in(name)
        _end()
    if not account.may_open(name):
        doors.not_found(account)
        _end()
    st.session_state[_CAME_FROM] = st.session_state.get(_ON)
    st.session_state[_ON] = name
    return account


def came_from() -> str | None:
    """The page that this session drew before this run: the same one on a rerun, None at the beginning."""
    found: str | None = st.session_state.get(_CAME_FROM)
    return found


def account_of_session() -> Account | None:
    """Whom this session signed in as, though it may be over by now. For keeping what that person wrote, for nothing else."""
    return house().accounts.find(st.session_state[_SESSION][0]) if _SESSION in st.session_state else None


def who() -> Account | None:
    """Who is signed in, as the store has them now: closed accounts and sessions of an older epoch are signed out."""
    _clean_address()
    if _CLOSED in st.session_state:
        return None
    return _sample() if house().settings.demo else _provided()


def sign_out() -> NoReturn:
    """Everywhere: other tabs of this account are signed out at their next click. Nothing of the person stays in this session."""
    account = who()
    try:
        if account is not None:
            house().accounts.sign_out_everywhere(account)
    finally:  # also when saving is not possible: this browser at least is signed out
        st.session_state.clear()
        if not house().settings.demo:
            st.query_params.clear()
            st.logout()
    places.go(places.first_of(account))


def close_account(account: Account) -> None:
    """Close it, in a callback. This session then says what becomes of it; all others are signed out. Raises what `Accounts.close` raises."""
    accounts = house().accounts
    said = (parts.moment(house().now() + GONE_WITHIN, account), parts.day(accounts.kept_until(account), account))
    accounts.close(account)
    st.session_state.clear()
    st.session_state[_CLOSED] = said


def _leave() -> None:
    """The last click after closing: away with the cookie too."""
    st.session_state.clear()
    if not house().settings.demo:
        st.logout()


def _begin(account: Account) -> None:
    """A session of this account and of nobody else. The browser's zone is learned now: the first message may be minutes away."""
    st.session_state.clear()
    st.session_state[_SESSION] = (account.id, account.epoch)
    with suppress(StoreUnavailable):  # a full disk stops saving, not reading
        house().accounts.learn_zone(account, st.context.timezone or "UTC")


def _sample() -> Account | None:
    """Demo mode: whom the address names, else whom this session or this browser was last."""
    accounts = house().accounts
    wanted = st.query_params.get("as")
    if _SESSION in st.session_state:
        account_id, epoch = st.session_state[_SESSION]
        account = accounts.find(account_id)
        if account is None or account.epoch != epoch:
            st.session_state.clear()
            st.query_params.clear()
            return None
        if wanted in (None, account.subject):
            return account
        st.session_state.clear()
    account = accounts.sample(wanted) if wanted else demo.remembered(st.context.cookies.get(demo.COOKIE))
    if account is None:
        return None
    _begin(account)
    return accounts.find(account.id)


def _provided() -> Account | None:
    if not st.user.is_logged_in:
        return None
    settings, accounts = house().settings, house().accounts
    if _SESSION in st.session_state:
        account_id, epoch = st.session_state[_SESSION]
        account = accounts.find(account_id)
        if account is None or account.epoch != epoch:
            st.session_state.clear()
            st.logout()
            _end()
        return account
    try:
        identity = identity_from(st.user.to_dict(), roles_claim=settings.roles_claim, plan_claim=settings.plan_claim)
    except ClaimsRefused as error:
        doors.refused(str(error))
        _end()
    try:
        account = accounts.find(accounts.sign_in(identity).id)
    except AccountClosed as error:
        doors.refused(str(error))
        _end()
    if account is None:  # closed a moment ago, in another tab
        doors.refused(str(AccountClosed()))
        _end()
    _begin(account)
    return accounts.find(account.id)


def _clean_address() -> None:
    """What no store can hold (a NUL, half a character) names nobody and nothing: from here on it is a name like any other of that kind."""
    for name in ("as", "chat"):
        value = st.query_params.get(name)
        if value is not None and clean_text(value) != value:
            st.query_params[name] = "-"


def _is_served() -> bool:
    """False when a page file was started on its own: then there is no store, no headers, nobody who could be signed in."""
    try:
        house()
    except RuntimeError:
        return False
    return True


def _end() -> NoReturn:
    st.stop()
    raise AssertionError("st.stop returned")
