"""The gate with real sign-in: what a provider's claims open, and what they don't. No demo names work here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.config import ROOT
from chatpro.domain.accounts import Role
from tests.cast import ISSUER, build_house, person, write_chat
from tests.pages.conftest import NOT_FOUND, title_of, words

AUTH = {"redirect_uri": "https://chat.example/oauth2callback", "cookie_secret": "made up, " * 8, "client_id": "chat"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house with sign-in; the cast comes from the provider."""
    built = build_house(
        tmp_path, auth=AUTH, terms_url="https://example.com/terms", privacy_url="https://example.com/privacy", plan_url="https://example.com/plus"
    )
    bootstrap.install(built)
    yield built
    bootstrap.install(None)
    built.store.close()
    built.analytics.close()


def arrive(page: str, subject: str | None, query: dict[str, str] | None = None, **claims: Any) -> AppTest:
    """A page's own file, as a browser with this provider's cookie (None: without one)."""
    test = AppTest.from_file(str(ROOT / "pages" / f"{page}.py"), default_timeout=30)
    test.user = (
        {"is_logged_in": False} if subject is None else {"is_logged_in": True, "iss": ISSUER, "sub": subject, "aud": "chat", "name": subject.title(), **claims}
    )
    for key, value in (query or {}).items():
        test.query_params[key] = value
    return test.run()


@pytest.mark.fault(1)
def test_without_a_cookie_there_is_one_button_and_no_name(house: House) -> None:
    """No sample accounts, no hint who else is here, and a demo address opens nothing."""
    for query in ({}, {"as": "mara"}, {"as": person(house, "mara").id}):
        test = arrive("history", None, query)

        assert (title_of(test), [b.label for b in test.button]) == ("Sign in", ["Sign in"])
        assert "Mara" not in words(test)


def test_a_known_subject_finds_their_own_things(house: House) -> None:
    """Whatever the address says."""
    write_chat(house, person(house, "mara"), ("Deposit", "Before."))

    test = arrive("history", "mara", {"as": "tomas", "account": person(house, "tomas").id})

    assert title_of(test) == "History" and "Deposit" in words(test) and "Sample account" not in words(test)


@pytest.mark.fault(4)
def test_a_new_subject_is_a_freelancer_without_a_plan(house: House) -> None:
    """The account is made at the first visit, with nothing in it, and with the browser's zone."""
    assert title_of(arrive("operations", "eve", roles=["admin"], role="admin")) == NOT_FOUND

    assert person(house, "eve").roles == {Role.FREELANCER}
    assert title_of(arrive("chat", "eve")) == "Chat is part of Freelancer Plus"


@pytest.mark.fault(3)
@pytest.mark.parametrize("claims", [{"iss": None}, {"aud": None}, {"sub": ""}, {"email_verified": False}], ids=str)
def test_claims_that_name_nobody_get_a_sentence(house: House, claims: dict[str, Any]) -> None:
    """And no account."""
    before = len(house.store.read(lambda rows: rows._all("SELECT id FROM accounts")))

    test = arrive("account", "eve", **claims)

    assert (title_of(test), [e.message for e in test.exception]) == ("You are not signed in", [])
    assert len(house.store.read(lambda rows: rows._all("SELECT id FROM accounts"))) == before


@pytest.mark.fault(5)
def test_a_closed_account_gets_a_sentence_and_nothing_else(house: House) -> None:
    """Its cookie may live on for weeks."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Zanzibarmarker", "Yes."))
    house.store.write(lambda unit: unit.change_account(mara.id, "closed", "yes", house.now()))

    test = arrive("history", "mara")

    assert title_of(test) == "You are not signed in" and "This account was closed." in words(test)
    assert "Zanzibarmarker" not in words(test)


@pytest.mark.fault(5, 113)
def test_an_old_cookie_gets_a_sentence_and_a_new_sign_in_an_empty_account(house: House) -> None:
    """After closing: the cookie of before opens and makes nothing; whoever signs in anew finds nothing of before but what was used this month."""
    mara, said = person(house, "mara"), int(house.now().timestamp())
    write_chat(house, mara, ("Zanzibarmarker", "Yes."), tokens=(700, 300))
    house.accounts.close(mara)

    test = arrive("account", "mara", iat=said - 60)
    assert title_of(test) == "You are not signed in" and "Sign in anew to begin another one, with nothing in it." in words(test)
    assert [b.label for b in test.button] == ["Sign in with another account"]

    assert title_of(arrive("account", "mara", iat=said + 1)) == "Account"
    house.accounts.entitle(person(house, "ada"), person(house, "mara").id, "Freelancer Plus", 200_000)
    test = arrive("account", "mara", iat=said + 1)
    assert "0 answers, 0 tokens and 1,000 that you used before under an account that you closed: what the meter shows." in words(test)
    assert "1,000 of 200,000 tokens" in words(test) and "You were not asked yet." in words(test)
    assert "Zanzibarmarker" not in words(arrive("history", "mara", iat=said + 1))


@pytest.mark.fault(6)
def test_a_session_from_before_signing_out_everywhere_shows_nothing(house: House) -> None:
    """Signed out from another browser: the next click here draws no page."""
    mara = person(house, "mara")
    write_chat(house, mara, ("Zanzibarmarker", "Yes."))
    test = arrive("history", "mara")
    assert "Zanzibarmarker" in words(test)

    house.accounts.sign_out_everywhere(mara)
    test.run()

    assert "Zanzibarmarker" not in words(test) and title_of(test) != "History"
