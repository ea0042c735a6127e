"""Signing in by a provider's claims, roles and their last admin, and what a person says to AI."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chatpro.bootstrap import House
from chatpro.domain.accounts import ClaimsRefused, PlanState, Role, identity_from
from chatpro.errors import ChatProError
from chatpro.services.accounts import LastAdmin
from tests.cast import build_house, person, spend

AUTH = {"redirect_uri": "https://chat.example/oauth2callback", "cookie_secret": "made up, " * 8}
CLAIMS: dict[str, Any] = {"iss": "https://one.example", "sub": "17", "aud": "chat", "name": "Mara", "email": "mara@example.com", "email_verified": True}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house with sign-in: no sample accounts, the cast comes from a provider."""
    built = build_house(tmp_path, auth=AUTH)
    yield built
    built.store.close()
    built.analytics.close()


MOMENTS = itertools.count(1_800_000_000)


def sign_in(house: House, roles_claim: str | None = None, plan_claim: str | None = None, **claims: Any):  # type: ignore[no-untyped-def]
    """Somebody arrives with these claims beside the usual ones, said by the provider just now unless `iat` says otherwise."""
    claims.setdefault("iat", next(MOMENTS))
    return house.accounts.sign_in(identity_from({**CLAIMS, **claims}, roles_claim=roles_claim, plan_claim=plan_claim))


def count(house: House) -> int:
    return len(house.store.read(lambda rows: rows._all("SELECT id FROM accounts")))


# --- Who it is --------------------------------------------------------------------------------------------------------


@pytest.mark.fault(2)
def test_issuer_and_subject_are_who_somebody_is_and_a_mail_is_a_label(house: House) -> None:
    """The same mail from another provider, or under another subject, is another account with nothing in it; another mail is still the same person."""
    first = sign_in(house)
    house.accounts.opt_in(first)

    assert sign_in(house, email="new@example.com", name="Mara L").id == first.id
    for other in (sign_in(house, sub="18"), sign_in(house, iss="https://two.example"), sign_in(house, iss="https://one.example/")):
        assert other.id != first.id
        assert (house.accounts.consents(other), house.accounts.grant(other).state) == ([], PlanState.NEVER)


@pytest.mark.fault(2)
def test_two_tabs_at_the_first_visit_make_one_account(house: House) -> None:
    """Whoever is second finds the first one's row."""
    before, made, start = count(house), [], threading.Barrier(8)

    def arrive() -> None:
        start.wait()
        made.append(sign_in(house).id)

    threads = [threading.Thread(target=arrive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(made), len(set(made)), count(house) - before) == (8, 1, 1)


@pytest.mark.fault(3)
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"iss": None}, "sent no iss"),
        ({"iss": ""}, "sent no iss"),
        ({"iss": 5}, "sent no iss"),
        ({"sub": None}, "sent no sub"),
        ({"sub": ""}, "sent no sub"),
        ({"sub": ["17"]}, "sent no sub"),
        ({"aud": None}, "sent no aud"),
        ({"aud": []}, "sent no aud"),
        ({"email_verified": False}, "not verified"),
    ],
    ids=str,
)
def test_claims_that_name_nobody_are_refused_and_make_nothing(house: House, wrong: dict[str, Any], said: str) -> None:
    """Missing, empty or misshapen identity, and a mail that the provider itself does not vouch for."""
    before = count(house)

    with pytest.raises(ClaimsRefused, match=said):
        sign_in(house, **wrong)

    assert count(house) == before


@pytest.mark.fault(3)
@pytest.mark.parametrize("fine", [{"email": None}, {"email_verified": True}, {"email": 5, "name": None}, {"name": ""}, {"aud": ["chat", "other"]}], ids=str)
def test_claims_without_a_mail_or_a_name_still_name_somebody(house: House, fine: dict[str, Any]) -> None:
    """Labels may be missing: then there is a plain word in their place."""
    account = sign_in(house, **fine)

    assert account.name and account.roles == {Role.FREELANCER}


# --- What a claim grants ----------------------------------------------------------------------------------------------


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    ("path", "claims", "roles"),
    [
        (None, {"roles": ["admin"]}, ["freelancer"]),
        (None, {"role": "admin", "groups": ["admin"], "https://x/roles": ["admin"]}, ["freelancer"]),
        ("roles", {"roles": ["analyst", "support"]}, ["analyst", "support"]),
        ("roles", {"roles": "auditor"}, ["auditor"]),
        ("roles", {"roles": "admin,x"}, []),
        ("roles", {"roles": ["Admin", "ADMIN", " admin", "admin "]}, []),
        ("roles", {"roles": ["root", "admin\u200b", 7, None, ["admin"], {"admin": True}]}, []),
        ("roles", {"roles": {"admin": True}}, []),
        ("roles", {"roles": None}, []),
        ("roles", {"roles": True}, []),
        ("roles", {}, []),
        ("roles", {"realm_access": {"roles": ["admin"]}}, []),
        ("realm_access.roles", {"realm_access": {"roles": ["approver"]}}, ["approver"]),
        ("realm_access.roles", {"realm_access": ["approver"]}, []),
        ("https://chat.example/roles", {"https://chat.example/roles": ["freelancer"]}, ["freelancer"]),
    ],
    ids=str,
)
def test_roles_come_from_the_configured_claim_and_from_known_words_only(house: House, path: str | None, claims: dict[str, Any], roles: list[str]) -> None:
    """Where no claim is configured everybody is a freelancer without a plan; where one is, a near miss grants nothing at all."""
    account = sign_in(house, roles_claim=path, **claims)

    assert sorted(role.value for role in account.roles) == roles
    assert house.accounts.grant(account).state is PlanState.NEVER


@pytest.mark.fault(4)
def test_a_change_at_the_provider_counts_at_the_next_sign_in(house: House) -> None:
    """Roles are replaced, not added to, and the change is in the audit."""
    sign_in(house, roles_claim="roles", roles=["admin", "support"])

    account = sign_in(house, roles_claim="roles", roles=["freelancer"])

    assert account.roles == {Role.FREELANCER}
    actions = [(e.action, e.reason) for e in house.store.read(lambda rows: rows.audit_entries()) if e.subject == account.id]
    assert ("roles.set", "freelancer") in actions


@pytest.mark.fault(4)
@pytest.mark.parametrize("value", [None, "", [], ["Plus"], 5, {"plan": "Plus"}], ids=str)
def test_a_plan_that_is_no_word_grants_none(house: House, value: object) -> None:
    """Only a text at the configured place is a plan."""
    assert house.accounts.grant(sign_in(house, plan_claim="plan", plan=value)).state is PlanState.NEVER


def test_a_plan_at_the_configured_claim_grants_it_once(house: House) -> None:
    """Signing in again adds no second row."""
    sign_in(house, plan_claim="plan", plan="Plus")
    account = sign_in(house, plan_claim="plan", plan="Plus")

    assert [(e.plan, e.allowance) for e in house.accounts.entitlements(account)] == [("Plus", house.settings.allowance_tokens)]


# --- Roles ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(26)
def test_the_last_admin_stays(house: House) -> None:
    """Ada can't take her own role away while she is the only one; with a second one she can."""
    ada, jude = person(house, "ada"), person(house, "jude")
    with pytest.raises(LastAdmin):
        house.accounts.set_roles(ada, ada.id, frozenset())

    house.accounts.set_roles(ada, jude.id, frozenset({Role.ADMIN}))
    house.accounts.set_roles(ada, ada.id, frozenset())

    assert house.store.read(lambda rows: rows.admins()) == [jude.id]


@pytest.mark.fault(26)
def test_two_admins_who_demote_each_other_at_once_leave_one(house: House) -> None:
    """The store decides, one unit after the other."""
    ada, jude = person(house, "ada"), person(house, "jude")
    house.accounts.set_roles(ada, jude.id, frozenset({Role.ADMIN}))
    jude, start, refused = person(house, "jude"), threading.Barrier(2), []

    def demote(actor: Any, other: str) -> None:
        start.wait()
        try:
            house.accounts.set_roles(actor, other, frozenset())
        except ChatProError as error:
            refused.append(type(error))

    threads = [threading.Thread(target=demote, args=(ada, jude.id)), threading.Thread(target=demote, args=(jude, ada.id))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert refused == [LastAdmin]
    assert len(house.store.read(lambda rows: rows.admins())) == 1


@pytest.mark.fault(5)
def test_losing_the_freelancer_role_and_opting_out_stop_answers_at_once(house: House) -> None:
    """Whoever writes answers is told, once for each; a role that has nothing to do with it tells nobody."""
    mara, ada, stopped = person(house, "mara"), person(house, "ada"), []
    house.accounts.on_stopped.append(stopped.append)

    house.accounts.set_roles(ada, mara.id, frozenset({Role.FREELANCER, Role.ANALYST}))
    assert stopped == []
    house.accounts.opt_out(mara)
    house.accounts.set_roles(ada, mara.id, frozenset({Role.ANALYST}))

    assert stopped == [mara.id, mara.id]


# --- What a person says to AI -----------------------------------------------------------------------------------------


@pytest.mark.fault(112)
def test_only_the_newest_word_to_the_version_in_force_is_a_yes(house: House) -> None:
    """Yes, no, yes again: each is kept with its date, and the last one holds."""
    lea, clock = person(house, "lea"), house.now
    said = []
    for say in (house.accounts.opt_in, house.accounts.opt_out, house.accounts.opt_in):
        clock.forward(minutes=1)  # type: ignore[attr-defined]
        say(lea)
        said.append(house.accounts.opted_in(lea))

    assert said == [True, False, True]
    times = [c.at for c in house.accounts.consents(lea)]
    assert [b - a for a, b in zip(times, times[1:], strict=False)] == [timedelta(minutes=1)] * 2
    actions = [e.action for e in house.store.read(lambda rows: rows.audit_entries()) if e.actor == lea.id]
    assert actions == ["consent.given", "consent.withdrawn", "consent.given"]


def test_demo_people_exist_in_demo_mode_only(house: House) -> None:
    """With sign-in configured no name opens an account, and nobody is offered."""
    assert (house.accounts.sample("mara"), house.accounts.samples()) == (None, [])


@pytest.mark.fault(5)
def test_an_old_cookie_does_not_bring_back_what_the_store_took_away(house: House) -> None:
    """The provider's claims count once for each time they were said; a cookie repeats them for weeks, on every reload."""
    first = sign_in(house, roles_claim="roles", plan_claim="plan", roles=["freelancer", "support"], plan="Plus", iat=100)
    house.store.write(lambda unit: unit.set_roles(first.id, frozenset({Role.FREELANCER})))
    house.store.write(lambda unit: unit.add_entitlement(first.id, "Plus", 1_000, house.now(), house.now(), house.now()))

    again = sign_in(house, roles_claim="roles", plan_claim="plan", roles=["freelancer", "support"], plan="Plus", iat=100)

    assert again.roles == {Role.FREELANCER} and house.accounts.grant(again).state is PlanState.HAD
    later = sign_in(house, roles_claim="roles", plan_claim="plan", roles=["freelancer", "support"], plan="Plus", iat=101)
    assert Role.SUPPORT in later.roles and house.accounts.grant(later).state is PlanState.HAS


def test_a_plan_that_the_provider_no_longer_names_has_ended(house: House) -> None:
    """Where a plan claim is configured, its absence is an end; where none is, it says nothing."""
    account = sign_in(house, plan_claim="plan", plan="Plus")

    assert house.accounts.grant(sign_in(house)).state is PlanState.HAS
    assert house.accounts.grant(sign_in(house, plan_claim="plan")).state is PlanState.HAD
    assert house.accounts.entitlements(account)[-1].ends_at == house.now()


@pytest.mark.fault(112)
def test_a_yes_to_one_recipient_does_not_cover_another(house: House) -> None:
    """The operator turned from the local model to a provider's: the same version, and asked again all the same."""
    mara = person(house, "mara")
    house.accounts.opt_in(mara)
    assert house.accounts.opted_in(mara)

    object.__setattr__(house.settings, "provider_country", "Iceland")
    object.__setattr__(house.settings, "openai_api_key", "made-up")

    assert not house.accounts.opted_in(mara)


# --- How much is left -------------------------------------------------------------------------------------------------


def test_the_meter_gives_a_range_of_messages_that_goes_by_the_persons_own(house: House) -> None:
    """A wide one while nothing was sent, around the own mean afterwards: twenty short messages leave room for many more."""
    mara, sizes = person(house, "mara"), house.answering.sizes()
    new = house.accounts.meter(mara, sizes)
    for _ in range(20):
        spend(house, mara, 500)
    short = house.accounts.meter(mara, sizes)

    assert new is not None and new.left_range[0] < 100 < new.left_range[1]
    assert short is not None and short.left_range[0] > new.left_range[1]
    assert short.left_range[0] <= short.left <= short.left_range[1]
