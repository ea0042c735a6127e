"""The store: what services may ask of it, whatever engine is behind.

A service hands over a function; the store runs it as one unit of work, alone among writers, and commits when it returns.
If it raises, or if any statement in it failed (caught or not), nothing of it is kept. Without that rule DuckDB's commit
returns without a word and stores nothing, and an answer or a charge is lost.

All SQL stands in `sql.py`, in the dialect that DuckDB and PostgreSQL share; an engine only runs it.
Instants go in and out as aware UTC datetimes; the tables hold UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from chatpro.storage.rewrite import Purged
from chatpro.storage.sql import Person, PurgeRun, Unit

__all__ = ["Gap", "Head", "Person", "PurgeRun", "Purged", "Store", "Unit"]

T = TypeVar("T")


@dataclass(frozen=True)
class Head:
    """Where the ledger and the audit end, as the witness file beside the store has it."""

    ledger_count: int
    ledger_sequence: int
    audit_count: int
    audit_sequence: int
    audit_hash: str


@dataclass(frozen=True)
class Gap:
    """The store is behind its witness: entries that were committed once are not there any more."""

    found_at: datetime
    witness: Head
    store: Head

    @property
    def sentence(self) -> str:
        """For the operations page and the log: counts only."""
        ledger = self.witness.ledger_count - self.store.ledger_count
        audit = self.witness.audit_count - self.store.audit_count
        if ledger <= 0 and audit <= 0:
            return "The store differs from its witness: entries that were there before have been changed. Was another copy restored?"
        return (
            f"The store is behind its witness: {max(0, ledger)} usage entries and {max(0, audit)} audit entries that were there before are missing. "
            "Was an older copy restored?"
        )


class Store(Protocol):
    """One store, opened: migrated, locked against other processes, checked against its witness."""

    def write(self, work: Callable[[Unit], T]) -> T:
        """Run one unit of work in the writers' queue (first come, first served) and wait for its commit.

        Raises whatever `work` raised (rolled back), StatementFailed if a statement failed and was swallowed, DuplicateKey,
        TextNotStorable, StoreUnavailable. Calling it from inside a unit of work raises RuntimeError: it would wait for itself.
        """
        ...

    def submit(self, work: Callable[[Unit], T]) -> Future[T]:
        """The same without waiting, for callers on an event loop."""
        ...

    def read(self, work: Callable[[Unit], T]) -> T:
        """Run reads on a snapshot of their own, beside writers; nothing is ever committed. Raises ReadTooLong after 2 seconds.

        What the store remembers (chatpro/storage/memory.py) is as of the last commit, and so may be newer than the rest."""
        ...

    def purge(
        self, since: datetime, deleted: datetime, *, last: PurgeRun | None = None, go_on: Callable[[], bool] = lambda: True,
        tell: Callable[[str, float], None] = lambda what, share: None, gentle: bool = True,
    ) -> Purged:  # fmt: skip
        """Take out of every file of the store what was sent at `since` or before, and chats deleted at `deleted` or before, while others write.

        Names of accounts that were closed go with it. `last` is the run before, None where there was none. `go_on` is asked before each step;
        `tell` hears what is being done and how far it is (0 to 1); `gentle` leaves others as much time as it takes. May be cut off anywhere, and run
        again. Raises PurgeFailed where it can't be done now (no room, a run under way, told to stop), StoreUnavailable when the disk fails; then
        everything is as it was.
        """
        ...

    @property
    def gap(self) -> Gap | None:
        """What the check against the witness found at open, None when all is there."""
        ...

    @property
    def problem(self) -> str | None:
        """Why nothing can be saved right now (a sentence), or None when the store is well."""
        ...

    def close(self) -> None:
        """Let running units end, checkpoint, write the witness, give the lock back. Safe to call twice."""
        ...
