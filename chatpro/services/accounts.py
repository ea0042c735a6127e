"""Accounts: signing in and out, roles, the plan, the consent, where the allowance stands, and closing one.

Everything is asked of the store each time: a role taken away, a plan that ended or a consent taken back counts at the
next click, whatever a cookie or a session still believes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import available_timezones

from chatpro.config import Settings
from chatpro.domain.accounts import (
    COOKIE_DAYS,
    Account,
    ClosedSignIn,
    Consent,
    Entitlement,
    Grant,
    Identity,
    PlanState,
    Role,
    consents_to,
    grant_at,
    sign_in_digest,
)
from chatpro.domain.allowance import (
    Anchor,
    Cycle,
    OwnLimit,
    Sizes,
    Standing,
    cycle_since,
    is_closed,
    messages_left,
    messages_left_range,
    next_is_last,
    own_limit_in,
    own_limit_met,
    warnings_due,
)
from chatpro.errors import AccountClosed, ChatProError, DuplicateKey, NotAllowed, NotFound
from chatpro.storage import Person, Store, Unit
from chatpro.storage.sql import GivenWarning, UsageEntry

__all__ = ["Accounts", "GivenWarning", "LastAdmin", "LimitNotLower", "Meter", "UsageEntry", "current_cycle", "zones"]

STRONGEST_FIRST = ("last_message", "95", "75")
DISMISSIBLE = ("95", "75")


@dataclass(frozen=True)
class Meter:
    """What the page shows of the allowance, in tokens; `left` is about how many messages that is, `left_range` from how many to how many
    (chatpro/domain/allowance.py says when it holds), (0, 0) when the cycle is closed. `cycle` is None before the first message.
    `own_limit` is what the person set for this cycle, None without one; `own_limit_met`: nothing fits below it any more. `carried` is the part of
    `used` that stands in no receipt of this account: it was used in this cycle under an account that the person closed."""

    allowance: int
    used: int
    reserved: int
    remaining: int
    left: int
    left_range: tuple[int, int]
    cycle: Cycle | None
    next_is_last: bool
    closed: bool
    own_limit: int | None = None
    own_limit_met: bool = False
    carried: int = 0

    @property
    def share(self) -> float:
        """Used part of the allowance, 0 to 1 and beyond where the allowance was lowered."""
        return self.used / self.allowance if self.allowance else 1.0


class LastAdmin(ChatProError):
    """Taking this role away would leave nobody who could give it back."""

    def __init__(self) -> None:
        super().__init__("This is the last admin. Make somebody else admin first.")


class LimitNotLower(ChatProError):
    """An own limit that would limit nothing."""

    def __init__(self, allowance: int) -> None:
        super().__init__(f"Your own limit has to be below your allowance of {allowance:,} tokens, and not below 0.")


class NoAllowance(ChatProError):
    """An entitlement that would grant nothing."""

    def __init__(self) -> None:
        super().__init__("An entitlement needs a plan and an allowance above 0 tokens.")


class Accounts:
    """Who is here and what they may do."""

    def __init__(self, store: Store, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._now = now
        self.on_stopped: list[Callable[[str], None]] = []
        """Called with an account id when its answers must stop and its sockets close (opt-out, closed, signed out, role gone)."""

        self.on_signed_out: list[Callable[[str], None]] = []
        """Called with an account id when its sockets must close though its answers may finish."""

        self.on_closed: list[Callable[[str], None]] = []
        """Called with an account id when it was closed, after `on_stopped`: what is kept of it in memory goes."""

        self.on_allowance: list[Callable[[str], None]] = []
        """Called with an account id when another figure is in force (an entitlement or an own limit was changed) or a warning was put away. Open
        pages show it."""

    def _person(self, account_id: str) -> Person:
        return self._store.read(lambda rows: rows.person(account_id))

    # --- signing in -------------------------------------------------------------------------------------------------

    def sign_in(self, identity: Identity) -> Account:
        """The account of this issuer and subject, made at the first visit. Claimed roles and plan, where configured, replace the stored ones.

        Whoever closed their account has another one at the next sign-in, with nothing in it, which goes on in the cycle where the closed one
        stood. Raises AccountClosed for a sign-in from before the closing: it opens neither the old account nor a newer one.
        """
        closed = self._store.read(lambda rows: self._closed(rows, identity))
        if closed is not None and closed.is_older(identity):
            raise AccountClosed
        found = self._store.read(lambda rows: rows.account_by_subject(identity.issuer, identity.subject))
        if found is None:
            try:
                self._store.write(lambda unit: self._add(unit, identity))
            except DuplicateKey:
                pass  # another tab of the same person was first; its row is as good
        elif identity.roles is not None or identity.plan is not None:
            taken = self._store.read(lambda rows: rows.claims_taken_at(found.id))
            if taken is None or taken < identity.issued_at:
                if self._store.write(lambda unit: self._take_over(unit, found, identity)):
                    self._changed_allowance(found.id)
                if identity.roles is not None and Role.FREELANCER not in identity.roles:
                    self._stopped(found.id)
        account = self._store.read(lambda rows: rows.account_by_subject(identity.issuer, identity.subject))
        if account is None:
            raise AccountClosed  # at this very moment, in another tab
        return account

    def _closed(self, rows: Unit, identity: Identity) -> ClosedSignIn | None:
        return rows.closed_sign_in(sign_in_digest(self._settings.closing_key, identity.issuer, identity.subject), self._now())

    def _add(self, unit: Unit, identity: Identity) -> None:
        now = self._now()
        closed = self._closed(unit, identity)
        if closed is not None and closed.is_older(identity):
            raise AccountClosed
        account = Account(
            id=secrets.token_hex(16),
            issuer=identity.issuer,
            subject=identity.subject,
            name=identity.name,
            email=identity.email,
            zone="UTC",
            sample=False,
            created_at=now,
            roles=frozenset({Role.FREELANCER}) if identity.roles is None else identity.roles,
        )
        unit.add_account(account)
        unit.append_audit(account.id, "account.made", now, subject=account.id)
        if closed is not None and closed.carries(now):
            self._carry_over(unit, account.id, closed, now)
        self._take_over(unit, account, identity)

    def _carry_over(self, unit: Unit, account_id: str, closed: ClosedSignIn, now: datetime) -> None:
        """The cycle of the closed account goes on, so that closing and coming back gives no second allowance."""
        anchor, newest = unit.anchor(closed.account_id), unit.newest_cycle(closed.account_id)
        if anchor is None or newest is None:
            return
        unit.add_anchor(account_id, anchor, now)
        unit.carry_over(account_id, closed.account_id, cycle_since(anchor, newest, now), now)

    def _take_over(self, unit: Unit, account: Account, identity: Identity) -> bool:
        """Claimed roles and plan replace the stored ones, once for each time the provider said them: a cookie repeats them for weeks.
        Returns whether another entitlement is in force."""
        now = self._now()
        there = unit.account(account.id)
        if there is None or there.closed:
            return False  # at this very moment, in another tab
        unit.change_account(account.id, "claims", str(identity.issued_at), now)
        if identity.roles is not None and identity.roles != account.roles:
            unit.set_roles(account.id, identity.roles)
            unit.append_audit("provider", "roles.set", now, subject=account.id, reason=",".join(sorted(identity.roles)))
        if identity.plan is not None:
            grant = grant_at(unit.entitlements(account.id), now)
            held = grant.entitlement if grant.state is PlanState.HAS else None
            if identity.plan and (held is None or held.plan != identity.plan):
                self._entitle(unit, "provider", account.id, identity.plan, self._settings.allowance_tokens)
                return True
            if not identity.plan and held is not None:
                self._end(unit, "provider", held)
                return True
        return False

    def _entitle(self, unit: Unit, by: str, account_id: str, plan: str, allowance: int) -> None:
        """Grant this from now on. The 75 and 95 that usage has reached under the new figure are written with it, so that nobody is past them unwarned."""
        now = self._now()
        unit.add_entitlement(account_id, plan, allowance, now, None, now)
        unit.append_audit(by, "entitlement.set", now, subject=account_id, reason=f"{plan}: {allowance} tokens")
        cycle = current_cycle(unit, account_id, unit.person(account_id).anchor, now)
        if cycle is not None:
            used = unit.standing(account_id, cycle.starts_at, allowance).used
            for kind in warnings_due(allowance, used):
                unit.add_warning(account_id, cycle.starts_at, kind, allowance, plan, now)

    def _end(self, unit: Unit, by: str, held: Entitlement) -> None:
        now = self._now()
        unit.add_entitlement(held.account_id, held.plan, held.allowance, held.starts_at, now, now)
        unit.append_audit(by, "entitlement.ended", now, subject=held.account_id, reason=held.plan)

    def find(self, account_id: str) -> Account | None:
        """The account as it is now, None when there is none or it was closed."""
        account = self._person(account_id).account
        return None if account is None or account.closed else account

    def sample(self, name: str) -> Account | None:
        """Demo mode only: the made-up account whose subject is `name`."""
        if not self._settings.demo:
            return None
        account = self._store.read(lambda rows: rows.account_by_subject("sample", name))
        return account if account is not None and account.sample and not account.closed else None

    def samples(self) -> list[Account]:
        """Demo mode only: everybody that the sign-in page offers."""
        return self._store.read(lambda rows: rows.sample_accounts()) if self._settings.demo else []

    def sign_out_everywhere(self, actor: Account) -> None:
        """All sessions of this account are over at their next click; sockets close at once. Running answers finish on the server."""
        self._store.write(lambda unit: unit.change_account(actor.id, "epoch", "out", self._now()))
        for call in self.on_signed_out:
            call(actor.id)

    def learn_zone(self, actor: Account, zone: str) -> None:
        """Keep the zone that a new person's browser names, for dates on pages and for the day of first use."""
        if actor.zone == "UTC" and zone != "UTC" and zone in zones():
            self._store.write(lambda unit: unit.change_account(actor.id, "zone", zone, self._now()))

    def set_zone(self, actor: Account, zone: str) -> None:
        """Show dates in this zone from now on; the cycle keeps the zone of the first message. Raises NotFound for a zone that is none."""
        if zone not in zones():
            raise NotFound
        # Written out, because a plain UTC is what a new account has until its browser names a zone.
        chosen = "Etc/UTC" if zone == "UTC" else zone
        self._store.write(lambda unit: unit.change_account(actor.id, "zone", chosen, self._now()))

    # --- closing ----------------------------------------------------------------------------------------------------

    def kept_until(self, actor: Account) -> datetime:
        """Until when a keyed hash of the sign-in is kept if the account is closed now: to the end of the cycle, and as long as a cookie from before
        may still be shown."""
        now = self._now()
        return self._store.read(lambda rows: _keep_until(_runs_until(rows, actor.id, now), now))

    def close(self, actor: Account) -> None:
        """Close the actor's own account, for good. Its answers end, its sockets close, nobody can sign in as it; its chats go like deleted ones, and
        no name, mail or sign-in is left. What stays under its random id: ledger, warnings, consents and audit, without text.

        A keyed hash of the sign-in stays for a while (`kept_until`). Raises NotAllowed where it was closed before, LastAdmin.
        """
        now = self._now()

        def work(unit: Unit) -> None:
            account = unit.account(actor.id)
            if account is None or account.closed:
                raise NotAllowed
            if Role.ADMIN in account.roles and unit.admins() == [account.id]:
                raise LastAdmin
            ends_at = _runs_until(unit, account.id, now)
            digest = sign_in_digest(self._settings.closing_key, account.issuer, account.subject)
            unit.add_closed_sign_in(digest, ClosedSignIn(account.id, now, ends_at), _keep_until(ends_at, now))
            chats = unit.delete_chats(account.id, now)
            unit.close_account(account.id, now)
            unit.append_audit(account.id, "account.closed", now, subject=account.id, reason=f"chats {len(chats)}")

        self._store.write(work)
        self._stopped(actor.id)
        for call in self.on_closed:
            call(actor.id)

    # --- roles ------------------------------------------------------------------------------------------------------

    def set_roles(self, actor: Account, account_id: str, roles: frozenset[Role]) -> None:
        """Give an account exactly these roles. Raises LastAdmin rather than leave the service without one, decided inside the unit of work."""
        _need(actor, Role.ADMIN)

        def work(unit: Unit) -> None:
            account = unit.account(account_id)
            if account is None or account.closed:
                raise NotFound
            if Role.ADMIN in account.roles and Role.ADMIN not in roles and unit.admins() == [account_id]:
                raise LastAdmin
            unit.set_roles(account_id, roles)
            unit.append_audit(actor.id, "roles.set", self._now(), subject=account_id, reason=",".join(sorted(roles)))

        self._store.write(work)
        if Role.FREELANCER not in roles:
            self._stopped(account_id)

    # --- plan and consent -------------------------------------------------------------------------------------------

    def entitle(self, actor: Account, account_id: str, plan: str, allowance: int) -> None:
        """Grant an account this plan with this allowance (tokens a cycle) from now on, in the cycle that runs: raised, lowered, resumed or for the
        first time. Running answers finish; what was used stays used. Raises NotFound, NoAllowance."""
        _need(actor, Role.ADMIN)
        if allowance < 1 or not plan.strip():
            raise NoAllowance

        def work(unit: Unit) -> None:
            account = unit.account(account_id)
            if account is None or account.closed:
                raise NotFound
            self._entitle(unit, actor.id, account_id, plan.strip(), allowance)

        self._store.write(work)
        self._changed_allowance(account_id)

    def end_plan(self, actor: Account, account_id: str) -> None:
        """The account's plan ends now: the next send is refused, a running answer finishes (D6b). Without a plan nothing happens."""
        _need(actor, Role.ADMIN)

        def work(unit: Unit) -> bool:
            grant = grant_at(unit.person(account_id).entitlements, self._now())
            if grant.state is PlanState.HAS and grant.entitlement is not None:
                self._end(unit, actor.id, grant.entitlement)
            return grant.state is PlanState.HAS

        if self._store.write(work):
            self._changed_allowance(account_id)

    def grant(self, actor: Account) -> Grant:
        """Which of the three states of the plan holds now."""
        return grant_at(self._person(actor.id).entitlements, self._now())

    def entitlements(self, actor: Account) -> list[Entitlement]:
        return list(self._person(actor.id).entitlements)

    def opted_in(self, actor: Account) -> bool:
        """Whether the newest word of this account is a yes to the consent in force."""
        return consents_to(self._settings.consent_version, self.consents(actor), self._settings.consent_facts)

    def consents(self, actor: Account) -> list[Consent]:
        """Every yes and no, oldest first."""
        return list(self._person(actor.id).consents)

    def opt_in(self, actor: Account) -> None:
        """A dated yes to the consent in force."""
        _need(actor, Role.FREELANCER)
        self._say(actor, True)

    def opt_out(self, actor: Account) -> None:
        """A dated no: running answers are called off at once, what they produced is kept and settled."""
        _need(actor, Role.FREELANCER)
        self._say(actor, False)
        self._stopped(actor.id)

    def _say(self, actor: Account, given: bool) -> None:
        now, version = self._now(), self._settings.consent_version

        def work(unit: Unit) -> None:
            unit.add_consent(actor.id, version, given, now, self._settings.consent_facts)
            unit.append_audit(actor.id, "consent.given" if given else "consent.withdrawn", now, subject=actor.id, reason=f"version {version}")

        self._store.write(work)

    def _stopped(self, account_id: str) -> None:
        for call in self.on_stopped:
            call(account_id)

    # --- allowance --------------------------------------------------------------------------------------------------

    def meter(self, actor: Account, sizes: Sizes) -> Meter | None:
        """Where the allowance stands, None for an account without a plan."""
        now = self._now()

        def work(rows: Unit) -> Meter | None:
            person = rows.person(actor.id)
            grant = grant_at(person.entitlements, now)
            if grant.state is not PlanState.HAS or grant.entitlement is None:
                return None
            allowance = grant.entitlement.allowance
            cycle = current_cycle(rows, actor.id, person.anchor, now)
            standing = rows.standing(actor.id, cycle.starts_at, allowance) if cycle else Standing(allowance, 0, 0)
            carried = rows.carried(actor.id, cycle.starts_at) if cycle else None
            recent = rows.recent_totals(actor.id)
            own_limit = own_limit_in(person.own_limits, cycle)
            room = standing.remaining if own_limit is None else min(standing.remaining, own_limit - standing.used - standing.reserved)
            return Meter(
                allowance=allowance,
                used=standing.used,
                reserved=standing.reserved,
                remaining=max(0, standing.remaining),
                left=messages_left(room, recent),
                left_range=(0, 0) if is_closed(sizes, standing) else messages_left_range(room, recent),
                cycle=cycle,
                next_is_last=next_is_last(sizes, standing),
                closed=is_closed(sizes, standing),
                own_limit=own_limit,
                own_limit_met=own_limit_met(own_limit, sizes, standing),
                carried=carried.tokens if carried else 0,
            )

        return self._store.read(work)

    def set_own_limit(self, actor: Account, tokens: int) -> None:
        """Use no more than this in the cycle that runs now (before the first message: in the first one). One below what is used already is met at
        once. Raises LimitNotLower, and NotAllowed without a plan."""
        _need(actor, Role.FREELANCER)

        def work(unit: Unit) -> None:
            person, now = unit.person(actor.id), self._now()
            grant = grant_at(person.entitlements, now)
            if grant.state is not PlanState.HAS or grant.entitlement is None:
                raise NotAllowed
            if not 0 <= tokens < grant.entitlement.allowance:
                raise LimitNotLower(grant.entitlement.allowance)
            self._limit(unit, actor.id, person.anchor, tokens, now)

        self._store.write(work)
        self._changed_allowance(actor.id)

    def lift_own_limit(self, actor: Account) -> None:
        """The allowance alone limits this cycle again. Without an own limit nothing happens."""
        _need(actor, Role.FREELANCER)

        def work(unit: Unit) -> bool:
            person, now = unit.person(actor.id), self._now()
            held = own_limit_in(person.own_limits, current_cycle(unit, actor.id, person.anchor, now)) is not None
            if held:
                self._limit(unit, actor.id, person.anchor, None, now)
            return held

        if self._store.write(work):
            self._changed_allowance(actor.id)

    def _limit(self, unit: Unit, account_id: str, anchor: Anchor | None, tokens: int | None, now: datetime) -> None:
        cycle = current_cycle(unit, account_id, anchor, now)
        unit.add_own_limit(account_id, OwnLimit(cycle.starts_at if cycle else None, tokens, now))

    def _changed_allowance(self, account_id: str) -> None:
        for call in self.on_allowance:
            call(account_id)

    def receipts(self, actor: Account, cycle_starts_at: datetime | None = None) -> list[UsageEntry]:
        """The account's own ledger rows, of one cycle or of all, newest first: also of deleted chats, and of calls that failed and cost nothing."""
        return self._store.read(lambda rows: rows.usage_entries(actor.id, cycle_starts_at=cycle_starts_at))

    def carried(self, actor: Account, cycle_starts_at: datetime) -> int:
        """Tokens used in this cycle that stand in no receipt of this account: they were used before, under one that the person closed."""
        carried = self._store.read(lambda rows: rows.carried(actor.id, cycle_starts_at))
        return carried.tokens if carried else 0

    def warnings(self, actor: Account) -> list[GivenWarning]:
        """Every warning the account was given, oldest first."""
        return self._store.read(lambda rows: rows.warnings(actor.id))

    def warned(self, actor: Account, meter: Meter) -> GivenWarning | None:
        """The strongest warning of the meter's cycle under its figure, put away or not. A weaker one says nothing beside it."""
        cycle = meter.cycle
        if cycle is None or not (meter.next_is_last or warnings_due(meter.allowance, meter.used)):
            return None  # none can have been given, so nothing is asked: what was used in a cycle does not become less
        given = {w.kind: w for w in self.warnings(actor) if w.cycle_starts_at == cycle.starts_at and w.allowance == meter.allowance}
        return next((given[kind] for kind in STRONGEST_FIRST if kind in given), None)

    def dismiss(self, actor: Account, kind: str, cycle_starts_at: datetime, allowance: int) -> None:
        """Put a warning of 75 or 95 away, in every tab and for good; it stays readable on the account page. Doing it again changes nothing.
        Raises NotFound for a warning that was never given, and for that of the last message, which is no mere notice."""
        _need(actor, Role.FREELANCER)

        def work(unit: Unit) -> None:
            given = {(w.kind, w.cycle_starts_at, w.allowance) for w in unit.warnings(actor.id)}
            if kind not in DISMISSIBLE or (kind, cycle_starts_at, allowance) not in given:
                raise NotFound
            unit.add_dismissal(actor.id, cycle_starts_at, kind, allowance, self._now())

        self._store.write(work)
        self._changed_allowance(actor.id)


@cache
def zones() -> frozenset[str]:
    """Every zone of the IANA database that this machine knows."""
    return frozenset(available_timezones())


def current_cycle(rows: Unit, account_id: str, anchor: Anchor | None, now: datetime) -> Cycle | None:
    """The account's cycle now; never one before the newest that was used, whatever the clock says. None before the first message."""
    if anchor is None:
        return None
    return cycle_since(anchor, rows.newest_cycle(account_id), now)


def _runs_until(rows: Unit, account_id: str, now: datetime) -> datetime | None:
    """When the cycle ends in which something was used, None where none runs."""
    newest = rows.newest_cycle(account_id)
    return newest[1] if newest is not None and now < newest[1] else None


def _keep_until(cycle_ends_at: datetime | None, now: datetime) -> datetime:
    return max(now + timedelta(days=COOKIE_DAYS), cycle_ends_at or now)


def _need(actor: Account, role: Role) -> None:
    if not actor.has(role):
        raise NotAllowed
