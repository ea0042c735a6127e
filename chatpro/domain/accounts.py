"""Who somebody is, what they are granted, what they agreed to, and which pages that opens.

Closed by default: an unknown claim grants nothing, an account without a row has no plan, and a missing consent is a no.
Without one place for these, a page decides for itself and one of them decides wrongly.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What an account may do. Several may meet in one account; admin and auditor give no reading of chats."""

    FREELANCER = "freelancer"
    ANALYST = "analyst"
    SUPPORT = "support"
    APPROVER = "approver"
    AUDITOR = "auditor"
    ADMIN = "admin"


PAGE_ROLES: Mapping[str, frozenset[Role]] = {
    "chat": frozenset({Role.FREELANCER}),
    "history": frozenset({Role.FREELANCER}),
    "account": frozenset(Role),
    "help": frozenset(Role),
    "admin": frozenset({Role.ANALYST}),
    "disputes": frozenset({Role.SUPPORT, Role.APPROVER}),
    "audit": frozenset({Role.AUDITOR}),
    "operations": frozenset({Role.ADMIN}),
}
"""Page → roles that may open it. The same table stands in docs/security.md; a test holds the two together."""


@dataclass(frozen=True)
class Account:
    """One person. `id` is random (122 bits); (issuer, subject) is the key at sign-in; name and mail are labels.

    `epoch` counts how often all sessions were signed out; a session made under an older one is over.
    `zone` is the IANA name used for display and for the first cycle.
    """

    id: str
    issuer: str
    subject: str
    name: str
    email: str | None
    zone: str
    sample: bool
    created_at: datetime
    roles: frozenset[Role] = field(default_factory=frozenset)
    epoch: int = 0
    closed: bool = False

    def may_open(self, page: str) -> bool:
        """Whether the page is for one of this account's roles. An unknown page is for nobody."""
        return not self.closed and bool(PAGE_ROLES.get(page, frozenset()) & self.roles)

    def has(self, role: Role) -> bool:
        """Whether the account has the role and is open."""
        return not self.closed and role in self.roles


@dataclass(frozen=True)
class Entitlement:
    """What an account is granted from `starts_at` until `ends_at` (None: open end). Allowance in tokens a cycle."""

    account_id: str
    sequence: int
    plan: str
    allowance: int
    starts_at: datetime
    ends_at: datetime | None
    recorded_at: datetime

    def holds(self, now: datetime) -> bool:
        """Whether it grants anything at this instant."""
        return self.starts_at <= now and (self.ends_at is None or now < self.ends_at)


class PlanState(StrEnum):
    """The three states of promise 1."""

    NEVER = "never"
    HAS = "has"
    HAD = "had"


@dataclass(frozen=True)
class Grant:
    """What the dated rows come to at one instant: the state, and the entitlement in force (HAS) or the one that ended last (HAD)."""

    state: PlanState
    entitlement: Entitlement | None


def grant_at(rows: Sequence[Entitlement], now: datetime) -> Grant:
    """The newest row (by sequence) that has begun decides; earlier rows are history, rows yet to begin grant nothing."""
    begun = [row for row in rows if row.starts_at <= now]
    if not begun:
        return Grant(PlanState.NEVER, None)
    newest = max(begun, key=lambda row: row.sequence)
    return Grant(PlanState.HAS if newest.holds(now) else PlanState.HAD, newest)


def allowance_at(rows: Sequence[Entitlement], at: datetime) -> int:
    """The figure that was in force then, as it was known then; 0 where nothing was granted. For saying what part of it something was."""
    grant = grant_at([row for row in rows if row.recorded_at <= at], at)
    return grant.entitlement.allowance if grant.entitlement else 0


def figure_in_cycle(rows: Sequence[Entitlement], ends_at: datetime, now: datetime) -> int | None:
    """The figure in force now or, in a cycle that ended before, at its last instant; None without a plan. An answer that is settled after the renewal
    must not warn of a figure that its own cycle never had."""
    grant = grant_at(rows, min(now, ends_at - timedelta(microseconds=1)))
    return grant.entitlement.allowance if grant.state is PlanState.HAS and grant.entitlement else None


@dataclass(frozen=True)
class Consent:
    """A dated, versioned yes or no to AI. `facts` is a digest of who was to get the words, empty where nobody was asked."""

    account_id: str
    sequence: int
    version: int
    given: bool
    at: datetime
    facts: str = ""


def consents_to(version: int, rows: Sequence[Consent], facts: str = "") -> bool:
    """Whether the newest word is a yes to exactly this version and these facts: an older yes covers neither new terms nor another recipient."""
    if not rows:
        return False
    newest = max(rows, key=lambda row: row.sequence)
    return newest.given and newest.version == version and newest.facts in ("", facts)


@dataclass(frozen=True)
class Identity:
    """Who a provider says is there: issuer and subject, with labels.

    `roles` and `plan` are None where no claim is configured; a plan that is configured and absent is "". `issued_at` is when the
    provider said all this, in seconds: a cookie repeats old claims for weeks, and what the store decided since must hold.
    """

    issuer: str
    subject: str
    name: str
    email: str | None
    roles: frozenset[Role] | None
    plan: str | None
    issued_at: int = 0


COOKIE_DAYS = 31
"""How long a cookie from before a closing may still be shown: Streamlit's live for 30 days."""


@dataclass(frozen=True)
class ClosedSignIn:
    """What is known of a sign-in whose account was closed: that account, when, and when the cycle ends that it was in (None: it never sent anything)."""

    account_id: str
    closed_at: datetime
    cycle_ends_at: datetime | None

    def is_older(self, identity: Identity) -> bool:
        """Whether the provider said who is there before the account was closed: a cookie of then, on another device say."""
        return identity.issued_at <= self.closed_at.timestamp()

    def carries(self, now: datetime) -> bool:
        """Whether the cycle still runs, so that what was used in it counts for whoever comes back."""
        return self.cycle_ends_at is not None and now < self.cycle_ends_at


def sign_in_digest(key: bytes, issuer: str, subject: str) -> str:
    """A keyed hash of a sign-in. Each part is hashed with its length, so that no other pair has the same."""
    told = hmac.new(key, digestmod=hashlib.sha256)
    for part in (issuer.encode("utf-8", "surrogatepass"), subject.encode("utf-8", "surrogatepass")):
        told.update(len(part).to_bytes(8, "big") + part)
    return told.hexdigest()


class ClaimsRefused(ValueError):
    """The provider's claims don't name a person we can let in; the message says what is missing."""


def identity_from(claims: Mapping[str, Any], *, roles_claim: str | None, plan_claim: str | None) -> Identity:
    """Read a provider's claims. Roles and plan count only where their path is configured; unknown values grant nothing.

    Raises ClaimsRefused without issuer, subject or audience, and when the provider says that the mail is not verified.
    """
    for name in ("iss", "sub", "aud"):
        if not claims.get(name) or (name != "aud" and not isinstance(claims[name], str)):
            raise ClaimsRefused(f"The sign-in provider sent no {name}.")
    if claims.get("email_verified") is False:
        raise ClaimsRefused("The sign-in provider has not verified this mail address.")
    email = claims.get("email") if isinstance(claims.get("email"), str) else None
    name = next((claims[key] for key in ("name", "preferred_username") if isinstance(claims.get(key), str) and claims[key].strip()), email or "Freelancer")
    plan = _at(claims, plan_claim) if plan_claim else None
    return Identity(
        issuer=claims["iss"],
        subject=claims["sub"],
        name=str(name).strip()[:200],
        email=email,
        roles=_roles(_at(claims, roles_claim)) if roles_claim else None,
        plan=None if not plan_claim else plan if isinstance(plan, str) else "",
        issued_at=claims["iat"] if type(claims.get("iat")) is int else 0,
    )


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or at the path taken whole (claim names may hold dots and slashes)."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _roles(value: Any) -> frozenset[Role]:
    """Roles named exactly, as a list of strings or one string. Anything else, or a near miss, grants nothing."""
    names: Iterable[Any] = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return frozenset(Role(name) for name in names if isinstance(name, str) and name in set(Role))
