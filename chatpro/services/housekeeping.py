"""Housekeeping: what has to happen again and again although nobody asks for it.

Counters are held against the ledger, reservations that nobody will settle are given back, and new rows go over into the copy for
figures. Without it a wrong counter locks somebody out for a month, a dead answer keeps tokens for ever, and figures stand still, all of
it unseen. A job that fails is tried again at its next time and says so on the operations page; none ends before the server does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chatpro.domain.accounts import Account, Role
from chatpro.domain.disputes import AuditEntry, first_broken
from chatpro.errors import NotAllowed
from chatpro.storage import Store, Unit
from chatpro.storage.sql import day_number

log = logging.getLogger("chatpro.housekeeping")

RECONCILE_SECONDS = 600.0
"""Ten minutes: a wrong counter is never anybody's normal case, and the comparison reads the whole ledger."""

EXPIRE_SECONDS = 30.0
"""As long as the grace that a reservation has beyond its answer's deadline."""

CARRY_SECONDS = 60.0

NEWEST_ENTRIES = 5_000
"""Audit entries that the operations page checks. All of them would be a longer read than a page may do."""


class Target(Protocol):
    """The copy for figures, as far as this room needs it."""

    def carry_over(self, store: Store, at: datetime | None = None, go_on: Callable[[], bool] = ...) -> int: ...


class Expiring(Protocol):
    """The room that knows which answers somebody here still writes."""

    def expire_past(self) -> int: ...


@dataclass(frozen=True)
class Job:
    """Something done at start and then every so often. `trouble` is what the operations page says while it fails."""

    name: str
    seconds: float
    work: Callable[[], int]
    trouble: str


@dataclass(frozen=True)
class Repair:
    """One counter that was put right: which account, when, and from what to what."""

    account_id: str
    at: datetime
    figures: str


OVER_RESERVED_DAYS = 30
"""How far back the operations page counts what providers claimed beyond reservations: long enough to see a habit."""


@dataclass(frozen=True)
class Report:
    """How the house stands, for the operations page: counts, ids and sentences, no text of anybody and no secrets."""

    gap: str | None
    problem: str | None
    troubles: dict[str, str]
    over_reserved: tuple[int, int]
    pending_past_expiry: int
    counters_that_differ: int
    repairs: list[Repair]
    audit_entries: int
    audit_checked: int
    audit_first_broken: int | None


class Housekeeping:
    """The timers, and the plain verbs they call."""

    def __init__(self, store: Store, copy: Target, answering: Expiring, now: Callable[[], datetime]) -> None:
        self._store = store
        self._copy = copy
        self._answering = answering
        self._now = now
        self._stop = threading.Event()
        self._closing: asyncio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.troubles: dict[str, str] = {}
        """Job → sentence, while its last run failed."""
        self.jobs = (
            Job("reconcile", RECONCILE_SECONDS, self.reconcile, "Counters could not be held against the ledger."),
            Job("expire", EXPIRE_SECONDS, self.expire, "Reservations past their time could not be given back."),
            Job("carry", CARRY_SECONDS, self.carry, "New rows could not be carried over for the figures."),
        )

    # --- the jobs ---------------------------------------------------------------------------------------------------

    def reconcile(self) -> int:
        """Put every counter to what its entries and pending reservations come to, and record each difference. Returns how many there were."""
        if not self._store.read(lambda rows: rows.counters_that_differ()):
            return 0
        repaired = self._store.write(self._repair)
        if repaired:
            log.error("%d counters differed from the ledger and were put right; the audit has them", repaired)
        return repaired

    def _repair(self, unit: Unit) -> int:
        # Asked again inside the unit: a send may have moved the counter since, and that is no difference.
        differing = unit.counters_that_differ()
        for account_id, starts_at, used, reserved, true_used, true_reserved in differing:
            unit.set_counter(account_id, starts_at, true_used, true_reserved)
            figures = f"cycle {starts_at:%Y-%m-%d %H:%M}: used {used} to {true_used}, reserved {reserved} to {true_reserved}"
            unit.append_audit("housekeeping", "counter.repaired", self._now(), subject=account_id, reason=figures)
        return len(differing)

    def expire(self) -> int:
        """Give back reservations past their expiry that nobody here runs. Returns how many."""
        return self._answering.expire_past()

    def carry(self) -> int:
        """Bring the copy for figures up to now. Returns how many rows went over."""
        return self._copy.carry_over(self._store, self._now(), lambda: not self._stop.is_set())

    # --- the timers -------------------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every job now, and then in its time. Call it on that loop."""
        self._closing = asyncio.Event()
        self._tasks = [loop.create_task(self._for_ever(job, self._closing), name=f"housekeeping-{job.name}") for job in self.jobs]

    async def _for_ever(self, job: Job, closing: asyncio.Event) -> None:
        while not closing.is_set():
            await self.run(job)
            try:
                await asyncio.wait_for(closing.wait(), job.seconds)
            except TimeoutError:
                continue

    async def run(self, job: Job) -> None:
        """One run in a thread, so that answers go on meanwhile. What fails is said, never raised: the timer has to live."""
        try:
            await asyncio.to_thread(job.work)
        except Exception as error:
            # The class alone: an exception's words may hold what somebody wrote.
            log.error("housekeeping: %s failed (%s) and is tried again in %g seconds", job.name, type(error).__name__, job.seconds)
            self.troubles[job.name] = job.trouble
        else:
            self.troubles.pop(job.name, None)

    async def close(self) -> None:
        """Let running jobs end (a long carrying over after its slice) and begin no more. Safe to call twice."""
        self._stop.set()
        if self._closing is not None:
            self._closing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    # --- how the house stands ---------------------------------------------------------------------------------------

    def report(self, actor: Account) -> Report:
        """For admins only. Raises NotAllowed."""
        if not actor.has(Role.ADMIN):
            raise NotAllowed
        now = self._now()

        def work(rows: Unit) -> tuple[tuple[int, int], int, int, list[AuditEntry]]:
            over = rows.over_reserved_since(day_number(now) - OVER_RESERVED_DAYS)
            return over, len(rows.pending_past(now)), len(rows.counters_that_differ()), rows.audit_entries(NEWEST_ENTRIES + 1)

        over, pending, differing, entries = self._store.read(work)
        # With older entries left out, the first one read only says which hash the others must follow.
        base, checked = (entries[:1], entries[1:]) if len(entries) > NEWEST_ENTRIES else ([], entries)
        return Report(
            gap=self._store.gap.sentence if self._store.gap else None,
            problem=self._store.problem,
            troubles=dict(self.troubles),
            over_reserved=over,
            pending_past_expiry=pending,
            counters_that_differ=differing,
            repairs=[Repair(e.subject or "", e.at, e.reason or "") for e in reversed(checked) if e.action == "counter.repaired"],
            audit_entries=entries[-1].sequence if entries else 0,
            audit_checked=len(checked),
            audit_first_broken=first_broken(checked, base[0].hash) if base else first_broken(checked),
        )
