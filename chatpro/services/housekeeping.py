"""Housekeeping: what has to happen again and again although nobody asks for it.

Counters are held against the ledger, reservations that nobody will settle are given back, new rows go over into the copy for
figures, and text past its days is taken out of the store's files. Without it a wrong counter locks somebody out for a month, a dead
answer keeps tokens for ever, figures stand still, and words that people were told are gone lie in the file, all of it unseen. A job that
fails is tried again at its next time and says so on the operations page; none ends before the server does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from chatpro.config import Settings
from chatpro.domain.accounts import Account, Role
from chatpro.domain.allowance import Anchor, Cycle, cycle_at
from chatpro.domain.chats import GONE_WITHIN, UNDO, readable_since
from chatpro.domain.disputes import AuditEntry, first_broken
from chatpro.errors import Busy, ChatProError, NotAllowed, PurgeFailed
from chatpro.storage import Purged, Store, Unit
from chatpro.storage.sql import PurgeRun, day_number

log = logging.getLogger("chatpro.housekeeping")

RECONCILE_SECONDS = 600.0
"""Ten minutes: a wrong counter is never anybody's normal case, and the comparison reads the whole ledger."""

EXPIRE_SECONDS = 30.0
"""As long as the grace that a reservation has beyond its answer's deadline."""

CARRY_SECONDS = 60.0

PURGE_SECONDS = 12 * 3600.0
"""Twice within the day in which text has to be gone from the files."""

PURGE_FIRST_SECONDS = 20.0
"""After the start, when everybody's page comes back at once. What is late by more than a day doesn't wait that long: see `purge_late`."""

PURGE_AGAIN_SECONDS = 600.0
"""After one that failed: a full disk or a stubborn reader must not cost half a day of the promise."""

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
    """Something done at start (or `first` seconds after it) and then every so often, or after `again` seconds where it failed. `trouble` is what
    the operations page says while it fails."""

    name: str
    seconds: float
    work: Callable[[], int]
    trouble: str
    first: float = 0.0
    again: float | None = None


@dataclass(frozen=True)
class Repair:
    """One counter that was put right: which account, when, and from what to what."""

    account_id: str
    at: datetime
    figures: str


@dataclass(frozen=True)
class Progress:
    """A purge that runs: since when, what it does at this moment, and how far that is, 0 to 1."""

    began_at: datetime
    doing: str
    share: float


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
    purging: Progress | None
    last_purge: PurgeRun | None
    late_messages: int
    late_chats: int


PURGE_TROUBLE = "Text past its days could not be taken out of the store's files. Nobody can read it; it is tried again."


class Housekeeping:
    """The timers, and the plain verbs they call."""

    def __init__(self, store: Store, copy: Target, answering: Expiring, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store = store
        self._copy = copy
        self._answering = answering
        self._settings = settings
        self._now = now
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._purging = threading.Lock()
        self._progress: Progress | None = None
        self.troubles: dict[str, str] = {}
        """Job → sentence, while its last run failed."""
        self.jobs = (
            Job("reconcile", RECONCILE_SECONDS, self.reconcile, "Counters could not be held against the ledger."),
            Job("expire", EXPIRE_SECONDS, self.expire, "Reservations past their time could not be given back."),
            Job("carry", CARRY_SECONDS, self.carry, "New rows could not be carried over for the figures."),
            Job("purge", PURGE_SECONDS, self.purge, PURGE_TROUBLE, first=PURGE_FIRST_SECONDS, again=PURGE_AGAIN_SECONDS),
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
            unit.open_cycle(account_id, _cycle_from(unit, account_id, starts_at))  # where it is gone; without it all would be there to use again
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

    # --- the purge --------------------------------------------------------------------------------------------------

    def purge(self, asked_by: str | None = None, gentle: bool = True) -> int:
        """Take what is past its days, and chats whose deletion can't be taken back any more, out of every file of the store. Returns how many
        messages went; 0 where one runs already. Raises PurgeFailed, StoreUnavailable: everything is then as it was, and readable by nobody."""
        if not self._purging.acquire(blocking=False):
            return 0
        began = self._now()
        self._progress = Progress(began, "looking what has to go", 0.0)
        try:
            last = self._store.read(lambda rows: rows.last_purge())
            done = self._store.purge(
                readable_since(began, self._settings.retention_days), began - UNDO, last=last,
                go_on=lambda: not self._stop.is_set(), tell=lambda doing, share: setattr(self, "_progress", Progress(began, doing, share)), gentle=gentle,
            )  # fmt: skip
            self._store.write(partial(self._note_purge, began=began, done=done, asked_by=asked_by))
        except ChatProError:
            if self._stop.is_set():
                return 0  # the next start begins it again
            raise
        finally:
            self._progress = None
            self._purging.release()
        return done.removed["messages"]

    def _note_purge(self, unit: Unit, began: datetime, done: Purged, asked_by: str | None) -> None:
        gone = {table: done.removed[table] for table in ("messages", "titles", "drafts", "chats")}
        unit.add_purge(PurgeRun(began, self._now(), asked_by, sorted=done.sorted, **gone))
        if asked_by or any(gone.values()):
            unit.append_audit("housekeeping", "purge.done", self._now(), reason=", ".join(f"{table} {count}" for table, count in gone.items()))

    def purge_late(self) -> int:
        """Before the first page is served: text that should have been gone for more than a day is taken out first. It is there when a copy was
        restored, the server was off for long, or the days were made fewer. A failure is said, and stops nobody from reading what is theirs."""
        if self._late() == (0, 0):
            return 0
        try:
            return self.purge(gentle=False)
        except ChatProError as error:
            log.error("what is late could not be purged before the start (%s); it is tried again soon", type(error).__name__)
            return 0

    def _late(self) -> tuple[int, int]:
        """Messages and deleted chats that are in the files longer than promised."""
        now = self._now()
        since = readable_since(now, self._settings.retention_days)
        return self._store.read(lambda rows: rows.past_their_day(since - GONE_WITHIN, now - UNDO - GONE_WITHIN))

    def purge_now(self, actor: Account) -> None:
        """On request of an admin, who finds its progress in the report. Raises NotAllowed, and Busy where one runs already."""
        if not actor.has(Role.ADMIN):
            raise NotAllowed
        if self._progress is not None:
            raise Busy("A purge is running already.")
        self._store.write(lambda unit: unit.append_audit(actor.id, "purge.asked", self._now()))
        job = Job("purge", 0.0, partial(self.purge, actor.id), PURGE_TROUBLE)
        if self._loop is None:
            job.work()
        else:
            self._loop.call_soon_threadsafe(self._begin, job)

    def _begin(self, job: Job) -> None:
        assert self._loop is not None
        self._tasks = [task for task in self._tasks if not task.done()] + [self._loop.create_task(self.run(job), name=f"housekeeping-{job.name}-asked")]

    # --- the timers -------------------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every job now, and then in its time. Call it on that loop."""
        self._loop = loop
        self._closing = asyncio.Event()
        self._tasks = [loop.create_task(self._for_ever(job, self._closing), name=f"housekeeping-{job.name}") for job in self.jobs]

    async def _for_ever(self, job: Job, closing: asyncio.Event) -> None:
        wait = job.first
        while True:
            try:
                await asyncio.wait_for(closing.wait(), wait)
                return
            except TimeoutError:
                await self.run(job)
                wait = job.again if job.again is not None and job.name in self.troubles else job.seconds

    async def run(self, job: Job) -> None:
        """One run in a thread, so that answers go on meanwhile. What fails is said, never raised: the timer has to live."""
        try:
            await asyncio.to_thread(job.work)
        except Exception as error:
            # The class alone: an exception's words may hold what somebody wrote.
            log.error("housekeeping: %s failed (%s) and is tried again in %g seconds", job.name, type(error).__name__, job.again or job.seconds)
            self.troubles[job.name] = str(error) if isinstance(error, PurgeFailed) else job.trouble
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

        def work(rows: Unit) -> tuple[tuple[int, int], int, int, list[AuditEntry], PurgeRun | None]:
            over = rows.over_reserved_since(day_number(now) - OVER_RESERVED_DAYS)
            return over, len(rows.pending_past(now)), len(rows.counters_that_differ()), rows.audit_entries(NEWEST_ENTRIES + 1), rows.last_purge()

        over, pending, differing, entries, last_purge = self._store.read(work)
        late_messages, late_chats = self._late()
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
            purging=self._progress,
            last_purge=last_purge,
            late_messages=late_messages,
            late_chats=late_chats,
        )


def _cycle_from(unit: Unit, account_id: str, starts_at: datetime) -> Cycle:
    """The cycle that began then. By its middle, since the rules of its zone may have changed since."""
    anchor = unit.anchor(account_id) or Anchor(starts_at.date(), "UTC")
    return replace(cycle_at(anchor, starts_at + timedelta(days=14)), starts_at=starts_at)
