"""The books of one account, kept in memory by the rules that the store is kept by: counters, calls, warnings, refusals.

`services/answering.py` takes these steps on rows, each in a unit of work. Here they are taken without a store, a hundred times as fast, so
that months of thousands of accounts can be made up, shown, measured and checked. What may be sent, what it costs and which warnings are
due is asked of `allowance.py` and `accounts.py`, as there; this room only keeps what they say. That both keep the same is a test
(tests/services/test_months.py): without it, sample data would slowly become the months of another product.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from chatpro.domain.accounts import Consent, Entitlement, Grant, PlanState, consents_to, figure_in_cycle, grant_at
from chatpro.domain.allowance import (
    Accepted,
    Anchor,
    Charge,
    Cycle,
    Decision,
    OwnLimit,
    Refused,
    SendKind,
    Sizes,
    Standing,
    beyond_own_limit,
    charge,
    cycle_at,
    decide,
    is_closed,
    own_limit_in,
    warnings_due,
)
from chatpro.domain.chats import AnswerState

NOTHING = Charge(0, 0, "estimated", 0)
"""What a call without any text is charged (D3)."""

NEVER_ENDS = timedelta(days=36_500)


class Produced(NamedTuple):
    """What becomes of one call: how it ends, tokens of text, what the provider says it used (in, out), and how long it takes."""

    state: AnswerState
    tokens: int
    claimed: tuple[object, object] | None
    first_token_ms: int | None
    seconds: float


class PastCall(NamedTuple):
    """One call of a model with its reservation and its usage entry, ended. Chats and requests are numbered within their account.

    These are made by the hundred thousand, and a named tuple is made in a third of the time that a frozen dataclass takes.
    """

    chat: int
    request: int
    attempt: int
    cycle: Cycle
    plan: str
    allowance: int
    accepted: Accepted
    state: AnswerState
    resolution: str
    cost: Charge
    first_token_ms: int | None
    asked_at: datetime
    ended_at: datetime

    @property
    def last(self) -> bool:
        return self.accepted.kind is SendKind.LAST


class PastWarning(NamedTuple):
    """One warning: of which cycle, kind and figure of the allowance, and when."""

    cycle: Cycle
    kind: str
    allowance: int
    plan: str
    at: datetime


class PastRefusal(NamedTuple):
    """One refusal. `draft` numbers the drafts of an account: repeats of one carry the same."""

    cycle: Cycle | None
    reason: str
    wanted: int
    draft: int
    plan: str | None
    at: datetime


class Running(NamedTuple):
    """A call that is being answered."""

    ends_at: datetime
    counter: Counter
    chat: int
    request: int
    attempt: int
    accepted: Accepted
    plan: str
    allowance: int
    produced: Produced
    asked_at: datetime


class Counter:
    """The counter row of one cycle. `given` are its warnings, as (kind, figure); `closed_under` the figures whose last message was charged."""

    def __init__(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self.used = self.reserved = self.highest = 0
        self.given: set[tuple[str, int]] = set()
        self.closed_under: set[int] = set()

    def standing(self, allowance: int) -> Standing:
        """Where the account stands under the figure in force."""
        return Standing(
            allowance=allowance,
            used=self.used,
            reserved=self.reserved,
            last_warned=("last_message", allowance) in self.given,
            last_charged=allowance in self.closed_under,
            last_charged_before=bool(self.closed_under - {allowance}),
            highest=max(allowance, self.highest),
        )


class Books:
    """What the store would hold of one account. Time only goes forward; the lists are in the order in which rows would be written."""

    def __init__(self, account_id: str, zone: str, sizes: Sizes) -> None:
        self.account_id = account_id
        self.zone = zone
        self.sizes = sizes
        self.entitlements: list[Entitlement] = []
        self.consents: list[Consent] = []
        self.own_limits: list[OwnLimit] = []
        self.anchor: Anchor | None = None
        self.first_sent_at: datetime | None = None
        self.counters: list[Counter] = []
        self.calls: list[PastCall] = []
        self.warnings: list[PastWarning] = []
        self.refusals: list[PastRefusal] = []
        self.running: list[Running] = []
        self.recent: deque[int] = deque(maxlen=20)
        """Tokens of the latest charged messages, newest first."""
        self.grant = Grant(PlanState.NEVER, None)

    # --- what the account is granted and agrees to ------------------------------------------------------------------

    def entitle(self, at: datetime, plan: str, allowance: int) -> None:
        """A new row; warnings that its figure makes due are given with it (DESIGN D2)."""
        self._add(Entitlement(self.account_id, len(self.entitlements) + 1, plan, allowance, at, None, at))
        if self.counters and at < self.counters[-1].cycle.ends_at:
            self._warn(self.counters[-1], allowance, plan, at)

    def end_plan(self, at: datetime) -> None:
        """What is in force ends now."""
        self._add(replace(self.entitlements[-1], sequence=len(self.entitlements) + 1, ends_at=at, recorded_at=at))

    def _add(self, row: Entitlement) -> None:
        self.pass_to(row.recorded_at)
        self.entitlements.append(row)
        self.grant = grant_at(self.entitlements, row.recorded_at)

    def consent(self, at: datetime, version: int, given: bool) -> None:
        """A dated yes or no."""
        self.consents.append(Consent(self.account_id, len(self.consents) + 1, version, given, at))

    def limit(self, at: datetime, tokens: int | None) -> None:
        """The person's own limit for the cycle that runs; None lifts it."""
        starts_at = self.counter_at(at).cycle.starts_at if self.anchor else None
        self.own_limits.append(OwnLimit(starts_at, tokens, at))

    @property
    def allowance(self) -> int | None:
        """The figure in force, None without a plan."""
        return self.grant.entitlement.allowance if self.grant.state is PlanState.HAS and self.grant.entitlement else None

    # --- one send ---------------------------------------------------------------------------------------------------

    def decide(self, at: datetime, draft: int, history: Sequence[int], version: int, sizes: Sizes | None = None) -> Decision:
        """What the service would say to this send now. Nothing is written. `sizes`: those of a chat that is to remember more."""
        self.pass_to(at)
        sizes, allowance = sizes or self.sizes, self.allowance
        if allowance is None or not consents_to(version, self.consents):
            wanted = sizes.instructions + draft + sizes.answer
            return Refused("plan_ended" if allowance is None else "no_consent", wanted, 0, 0)
        counter = self.counter_at(at)
        standing = counter.standing(allowance)
        decision = decide(sizes, standing, draft, history)
        if self.own_limits and isinstance(decision, Accepted):
            limit = own_limit_in(self.own_limits, counter.cycle if self.anchor else None)
            return beyond_own_limit(limit, sizes, standing, draft, decision) or decision
        return decision

    def refuse(self, at: datetime, refused: Refused, draft: int) -> None:
        """Record a refusal of this draft (its number)."""
        cycle = None if refused.reason in ("plan_ended", "no_consent") else self.counter_at(at).cycle
        plan = self.grant.entitlement.plan if self.grant.entitlement else None
        self.refusals.append(PastRefusal(cycle, refused.reason, refused.wanted, draft, plan, at))

    def accept(self, at: datetime, accepted: Accepted, produced: Produced, chat: int, request: int, attempt: int = 0) -> Running:
        """Reserve what was decided; a last message gets its row with that. The day of the first one is kept for good."""
        entitlement = self.grant.entitlement
        assert entitlement is not None
        counter = self.counter_at(at)
        if self.anchor is None:
            self.anchor, self.first_sent_at = self._anchor_at(at), at
        if not self.counters or self.counters[-1] is not counter:
            self.counters.append(counter)
        counter.reserved += accepted.reserve
        counter.highest = max(counter.highest, entitlement.allowance)
        if accepted.kind is SendKind.LAST:
            self._give(counter, "last_message", entitlement.allowance, entitlement.plan, at)
        ends_at = at + timedelta(seconds=produced.seconds)
        running = Running(ends_at, counter, chat, request, attempt, accepted, entitlement.plan, entitlement.allowance, produced, at)
        insort(self.running, running, key=lambda r: r.ends_at)
        return running

    def pass_to(self, at: datetime) -> None:
        """Time goes on: what has ended by then is settled, in that order."""
        while self.running and self.running[0].ends_at <= at:
            self._resolve(self.running.pop(0))

    def _resolve(self, r: Running) -> None:
        """Settle, release or expire: the counter, the usage entry, and the warnings that fell due."""
        text, counter = r.produced.tokens, r.counter
        cost = charge(r.produced.claimed, r.accepted.prompt_tokens, text, r.accepted.reserve) if text else NOTHING
        resolution = "settled" if text else "expired" if r.produced.state is AnswerState.INTERRUPTED else "released"
        counter.reserved -= r.accepted.reserve
        counter.used += cost.total
        if cost.total:
            self.recent.appendleft(cost.total)
            if r.accepted.kind is SendKind.LAST:
                counter.closed_under.add(r.allowance)
        self.calls.append(
            PastCall(
                r.chat,
                r.request,
                r.attempt,
                counter.cycle,
                r.plan,
                r.allowance,
                r.accepted,
                r.produced.state,
                resolution,
                cost,
                r.produced.first_token_ms,
                r.asked_at,
                r.ends_at,
            )  # fmt: skip
        )
        self._warn(counter, figure_in_cycle(self.entitlements, counter.cycle.ends_at, r.ends_at) or r.allowance, r.plan, r.ends_at)

    def _warn(self, counter: Counter, allowance: int, plan: str, at: datetime) -> None:
        for kind in warnings_due(allowance, counter.used):
            self._give(counter, kind, allowance, plan, at)

    def _give(self, counter: Counter, kind: str, allowance: int, plan: str, at: datetime) -> None:
        """One row per cycle, kind and figure."""
        if (kind, allowance) not in counter.given:
            counter.given.add((kind, allowance))
            self.warnings.append(PastWarning(counter.cycle, kind, allowance, plan, at))

    # --- cycles -----------------------------------------------------------------------------------------------------

    def counter_at(self, at: datetime) -> Counter:
        """The counter of the cycle that holds an instant; one of a new cycle is kept only once something is accepted in it."""
        if self.counters and at < self.counters[-1].cycle.ends_at:
            return self.counters[-1]
        return Counter(cycle_at(self.anchor or self._anchor_at(at), at))

    def _anchor_at(self, at: datetime) -> Anchor:
        return Anchor(at.astimezone(ZoneInfo(self.zone)).date(), self.zone)

    def standing(self, at: datetime) -> Standing | None:
        """Where the account stands, None without a plan."""
        return None if self.allowance is None else self.counter_at(at).standing(self.allowance)

    def closed(self, at: datetime) -> bool:
        """Whether the cycle's last message was charged, and no raised allowance opened it again."""
        counter, allowance = self.counter_at(at), self.allowance
        return bool(counter.closed_under) and allowance is not None and is_closed(self.sizes, counter.standing(allowance))

    def without_past(self, at: datetime) -> Books:
        """Books of their own that stand where these do, with nothing before, in a cycle that does not end. These stay as they are."""
        here, other = self.counter_at(at), Books(self.account_id, self.zone, self.sizes)
        counter = Counter(replace(here.cycle, ends_at=here.cycle.ends_at + NEVER_ENDS))
        counter.used, counter.reserved, counter.highest = here.used, 0, here.highest
        counter.given, counter.closed_under = set(here.given), set(here.closed_under)
        other.counters, other.recent = [counter], deque(self.recent, maxlen=20)
        other.entitlements, other.consents, other.grant = list(self.entitlements), list(self.consents), self.grant
        other.anchor = self.anchor or self._anchor_at(at)
        return other
