"""Deleting for good: every table that holds text is written anew without what must go, and the space it leaves is overwritten.

DuckDB keeps deleted bytes: DELETE, CHECKPOINT, VACUUM and opening again leave every word of them in the file (docs/decisions.md, "The store").
What takes them out is a fresh table of what stays in place of the old one, a checkpoint, and all free blocks filled with noise.
That is done here in many small steps between the units of work of people who chat meanwhile. Every step is a transaction, the old
table stays what everybody reads until one of them puts the new one in its place, and a run that was cut off anywhere is begun
again from nothing: half-made tables are the first thing it drops.

This is one engine's way and stands beside it; another engine deletes in its own. What has to go is said once, in `FATES`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from chatpro.errors import PurgeFailed
from chatpro.storage.migrate import fault_point
from chatpro.storage.sql import Unit

log = logging.getLogger("chatpro.storage")

T = TypeVar("T")

ROW_GROUP_ROWS = 4_096
"""Rows that the engine writes, skips and merges together; its own figure is 122,880. With that, a checkpoint packed up to 60 MB of text
again while every writer waited (0.2 to 2 s, bench/README.md), and finding one person's rows meant going through 122,880."""

SLICE_ROWS = ROW_GROUP_ROWS
"""Messages copied in one step: just one group, which the engine then writes where it stays instead of into the log first. 25 ms."""

NEXT = "_next"
"""The end of the name of a table that is being written anew."""

FILLER = "purge_filler"

FILL_ROWS = 491_520
"""Rows of noise written at once: 3.75 MB, some 15 ms. Numbers, because noise in letters is packed to half its size and fills half of the space."""

CATCH_UP_ROWS = 1_000
"""Rows that came meanwhile and are taken over in the one step that puts the new table in place; more are taken over before it."""

TAIL_ROWS = 16_384
"""Messages behind the sorted ones from which on they are sorted in although nothing has to go. That many cost a search 2 ms."""

SWEEP_ROWS = 250
"""Rows deleted at once where no text is. Each goes out of up to three keys."""

PATIENCE_SECONDS = 60.0
"""How long a checkpoint may be refused. Reads are over after two seconds, so that somebody has to read at every single moment of a minute."""

MOST_PAUSE_SECONDS = 0.1

Place = tuple[str, int | None]
"""A place among the rows of a table in order: an account and the number of a row, or None for all rows of that account."""

DELETED = "SELECT id FROM chats WHERE deleted_at <= ?"
"""Chats whose deletion can't be taken back any more."""


@dataclass(frozen=True)
class Kept:
    """Rows of this table stay for ever, `because`."""

    because: str


@dataclass(frozen=True)
class Swept:
    """No text in it: rows for which `goes` holds are deleted in place, found by `key`. `goes` is asked beside the writers and may take its time;
    `still` is asked again in the unit that deletes, where something may have come meanwhile."""

    key: str
    goes: str
    needs: tuple[str, ...] = ()
    still: str = "TRUE"


@dataclass(frozen=True)
class Rewritten:
    """Text in it: written anew with the rows `t` for which `stays` holds. `newest`: of each chat only the newest row is asked, the others go.
    `whole`: in one step, for few rows that change while they are there."""

    stays: str
    needs: tuple[str, ...] = ()
    newest: bool = False
    whole: bool = False


FATES: dict[str, Kept | Swept | Rewritten] = {
    "messages": Rewritten(f"t.sent_at > ? AND t.chat_id NOT IN ({DELETED})", ("since", "deleted")),
    # What was sent after all, or written over, is nobody's draft any more.
    "drafts": Rewritten(f"t.kept_at > ? AND t.text <> '' AND t.chat_id NOT IN ({DELETED})", ("since", "deleted"), newest=True),
    "answers": Swept("id", f"state <> 'running' AND (started_at <= ? OR chat_id IN ({DELETED}))", ("since", "deleted")),
    # A chat goes with its last message. Whoever sends into an old one meanwhile has an answer there.
    "chats": Swept(
        "id",
        "(deleted_at <= ? OR (deleted_at IS NULL AND created_at <= ?)) AND id NOT IN (SELECT chat_id FROM answers) "
        "AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.account_id = chats.account_id AND m.chat_id = chats.id)",
        ("deleted", "since"),
        still="id NOT IN (SELECT chat_id FROM answers)",
    ),
    # With their chat; one that came from a message goes with that.
    "titles": Rewritten("t.chat_id IN (SELECT id FROM chats) AND (t.message_id IS NULL OR t.given_at > ?)", ("since",), newest=True),
    "answer_parts": Rewritten("t.answer_id IN (SELECT id FROM answers WHERE state = 'running')", whole=True),
    # Which chats take more along may be said before they begin.
    "remembering": Swept("sequence", "said_at <= ? AND chat_id NOT IN (SELECT id FROM chats)", ("since",)),
    "unread_answers": Swept("answer_id", "answer_id NOT IN (SELECT id FROM answers)"),
    "accounts": Kept("who may come in; no text"),
    "account_changes": Kept("zone, sign-outs, closing; no text"),
    "roles": Kept("who may do what"),
    "entitlements": Kept("what was granted, dated"),
    "consents": Kept("every yes and no, dated: proof of what was allowed when"),
    "anchors": Kept("from which day cycles are counted"),
    "cycles": Kept("the ledger's counters"),
    "reservations": Kept("part of the ledger"),
    "usage_entries": Kept("the ledger"),
    "warnings": Kept("part of the ledger"),
    "refusals": Kept("part of the ledger; a random id stands for the draft"),
    "own_limits": Kept("what somebody decided about their allowance; figures"),
    "dismissals": Kept("which warnings were put away"),
    "thumbs": Kept("counted by model and prompt version; ids only"),
    "audit_entries": Kept("append-only; ids and figures"),
    "purges": Kept("when it ran and how many rows went"),
    "schema_migrations": Kept("which shape the store has"),
}
"""Table → what becomes of its rows, in the order in which it is done. A table that is missing here turns a test red."""


@dataclass(frozen=True)
class Purged:
    """What one run took out, by table, and how many messages it left sorted by account and time."""

    removed: dict[str, int] = field(default_factory=dict)
    sorted: int = 0


class Engine(Protocol):
    """What the rewrite needs of the store it belongs to."""

    def write(self, work: Callable[[Unit], T]) -> T: ...

    def read(self, work: Callable[[Unit], T]) -> T: ...

    def checkpoint(self) -> bool:
        """Fold the log into the file between two units. False when a reader is in the way."""
        ...

    def free_bytes(self) -> int:
        """Room on the disk."""
        ...


class Rewrite:
    """One run. `since`: what was sent then or before goes; `deleted`: so do chats that were deleted then or before.

    `sorted_before` is what the last run left sorted. `go_on` is asked before each step; `tell` hears of each one (what is done, and how far
    it is from 0 to 1). `gentle`: leave as much time to others as it takes itself.
    """

    def __init__(
        self, engine: Engine, since: datetime, deleted: datetime, *, sorted_before: int, go_on: Callable[[], bool], tell: Callable[[str, float], None],
        gentle: bool,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._given = {"since": since, "deleted": deleted}
        self._sorted = sorted_before
        self._go_on = go_on
        self._tell = tell
        self._gentle = gentle

    def run(self) -> Purged:
        """Do all of it. Raises PurgeFailed where it can't be done now, StoreUnavailable when the disk fails; nothing is lost either way."""
        self._step(_drop_leftovers)
        self._check_room()
        removed = {}
        for table, fate in FATES.items():
            if isinstance(fate, Swept):
                removed[table] = self._sweep(table, fate)
            elif isinstance(fate, Rewritten):
                removed[table] = self._rewrite_whole(table, fate) if fate.whole else self._rewrite(table, fate)
        self._fold()
        self._fill()
        return Purged(removed, self._sorted)

    def _step(self, work: Callable[[Unit], T]) -> T:
        """One unit of work among those of everybody else, and then their turn."""
        if not self._go_on():
            raise PurgeFailed("The purge was ended with the service, and begins again with it.")
        began = time.monotonic()
        result = self._engine.write(work)
        if self._gentle:
            time.sleep(min(time.monotonic() - began, MOST_PAUSE_SECONDS))
        return result

    def _check_room(self) -> None:
        """The copy stands beside the old one for a while: as much room again as the store takes has to be there, in it or beside it."""
        block, used, free = self._engine.read(_blocks)
        needed, there = block * used, block * free + self._engine.free_bytes()
        if there < needed:
            raise PurgeFailed(
                f"Old text could not be taken out of the store's files: that needs {needed / 1e6:,.0f} MB of free disk, and there are {there / 1e6:,.0f}. "
                "Nobody can read that text. Make room; it is tried again every ten minutes."
            )

    # --- tables with text -------------------------------------------------------------------------------------------

    def _rewrite(self, table: str, fate: Rewritten) -> int:
        """Copy what stays, sorted by account and time, in slices; then put the copy in the old one's place. Returns how many rows went."""
        values = self._values(fate.needs)
        last, groups, there = self._engine.read(lambda rows: _plan(rows, table, fate, values))
        staying = groups[-1][1] if groups else 0
        if staying == there and (table != "messages" or there - self._sorted <= TAIL_ROWS):
            return 0
        self._step(lambda unit: _create(unit, table))
        copied, place = 0, 0
        after: Place | None = None
        while copied < staying:
            self._tell(f"writing {table} anew", copied / staying)
            while place < len(groups) - 1 and groups[place][1] < copied + SLICE_ROWS:
                place += 1
            to: Place = (groups[place][0], None)
            if not fate.newest:
                to = self._engine.read(partial(_end_of_slice, table=table, fate=fate, values=values, last=last, after=after, to=to))
            count = self._step(partial(_copy, table=table, fate=fate, values=values, last=last, after=after, to=to))
            if not count:
                raise _changed(table)
            copied, after = copied + count, to
        while (reached := self._step(partial(_put_in_place, table=table, last=last, copied=copied, there=there))) is not None:
            copied, there, last = copied + reached - last, there + reached - last, reached
        if table == "messages":
            self._sorted = staying
        return there - copied

    def _rewrite_whole(self, table: str, fate: Rewritten) -> int:
        def work(unit: Unit) -> int:
            there = _count(unit, table)
            _create(unit, table)
            unit._write(f"INSERT INTO {table}{NEXT} SELECT t.* FROM {table} t WHERE {fate.stays}", *self._values(fate.needs))
            gone = there - _count(unit, table + NEXT)
            _replace(unit, table)
            return gone

        return self._step(work)

    def _values(self, needs: Sequence[str]) -> list[datetime]:
        return [self._given[name] for name in needs]

    # --- tables without -----------------------------------------------------------------------------------------------

    def _sweep(self, table: str, fate: Swept) -> int:
        """Find them beside the writers, delete them some at a time."""
        find = f"SELECT CAST({fate.key} AS VARCHAR) FROM {table} WHERE {fate.goes} LIMIT {40 * SWEEP_ROWS}"
        delete = f"DELETE FROM {table} WHERE CAST({fate.key} AS VARCHAR) IN (SELECT unnest(CAST(? AS VARCHAR[]))) AND {fate.still}"
        gone = 0
        while keys := [row[0] for row in self._engine.read(lambda rows: rows._all(find, *self._values(fate.needs)))]:
            before = gone
            for n in range(0, len(keys), SWEEP_ROWS):
                fault_point(f"purge.sweep:{table}")
                gone += self._step(partial(_delete, sql=delete, keys=keys[n : n + SWEEP_ROWS]))
            if gone == before:  # somebody writes there: they stay
                break
        return gone

    # --- the space they leave -------------------------------------------------------------------------------------------

    def _fold(self) -> None:
        """Fold the log into the file. Readers that still need the old rows are waited for, while others write."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        fault_point("purge.fold")
        while not self._engine.checkpoint():
            if time.monotonic() >= give_up:
                raise PurgeFailed("The purge could not finish, because somebody was reading at every moment of a minute. It is tried again in ten minutes.")
            time.sleep(0.05)

    def _fill(self) -> None:
        """Overwrite what the old tables left in free blocks. What is freed meanwhile is overwritten too; it ends when none is free at one moment."""
        _, _, first = self._engine.read(_blocks)
        self._step(lambda unit: unit._write(f"CREATE TABLE {FILLER} (noise UBIGINT)"))
        for n in range(10_000_000):
            _, _, free = self._engine.read(_blocks)
            if free == 0:
                break
            self._tell("overwriting the space it left", max(0.0, 1 - free / max(first, free)))
            fault_point(f"purge.fill:{n}")
            self._step(partial(_fill_some, n=n))
        fault_point("purge.filled")
        self._step(lambda unit: unit._write(f"DROP TABLE {FILLER}"))
        self._fold()


# --- what one unit or one read does -------------------------------------------------------------------------------------


def _drop_leftovers(unit: Unit) -> None:
    """What a run that was cut off has left half made."""
    fault_point("purge.begin")
    for (table,) in unit._all("SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"):
        if table == FILLER or (table.endswith(NEXT) and table.removesuffix(NEXT) in FATES):
            unit._write(f"DROP TABLE {table}")


def _blocks(rows: Unit) -> tuple[int, int, int]:
    """(bytes of a block, blocks in use, free blocks) of the file."""
    (found,) = rows._all("SELECT block_size, used_blocks, free_blocks FROM pragma_database_size() WHERE database_name = current_database()")
    return found[0], found[1], found[2]


def _count(rows: Unit, table: str) -> int:
    return int(rows._all(f"SELECT count(*) FROM {table}")[0][0])


def _source(table: str, fate: Rewritten, values: Sequence[object], last: int, after: Place | None = None, to: Place | None = None) -> tuple[str, list[object]]:
    """The rows that stay, behind one place and up to another: what stands behind FROM, and its values."""
    within = ["rowid <= ?"]
    given: list[object] = [last]
    for place, account, row in ((after, ">", ">"), (to, "<", "<=")):
        if place is not None and place[1] is None:
            within, given = [*within, f"account_id {account}{'=' if account == '<' else ''} ?"], [*given, place[0]]
        elif place is not None:
            # Said in two parts: by the first the engine skips what lies outside.
            within, given = [*within, f"account_id {account}= ?", f"(account_id {account} ? OR rowid {row} ?)"], [*given, place[0], place[0], place[1]]
    there = " AND ".join(within)
    rows = f"(SELECT *, rowid FROM {table} WHERE {there}) t WHERE {fate.stays}"
    if not fate.newest:
        return rows, [*given, *values]
    # Not as a window over the rows of each chat: with a semi join behind it that kills the engine (2.0.0, "Attempted to access index -1").
    newest = f"SELECT account_id, chat_id, max(sequence) FROM {table} WHERE {there} GROUP BY account_id, chat_id"
    return f"{rows} AND (t.account_id, t.chat_id, t.sequence) IN ({newest})", [*given, *values, *given]


def _plan(rows: Unit, table: str, fate: Rewritten, values: Sequence[object]) -> tuple[int, list[tuple[str, int]], int]:
    """(the last row that is there, accounts in order with how many rows stay up to and with each, how many rows are there)."""
    last = int(rows._all(f"SELECT coalesce(max(rowid), -1) FROM {table}")[0][0])
    source, given = _source(table, fate, values, last)
    counts = rows._all(f"SELECT t.account_id, count(*) FROM {source} GROUP BY t.account_id ORDER BY t.account_id", *given)
    sums, groups = 0, []
    for account_id, count in counts:
        sums += count
        groups.append((account_id, sums))
    return last, groups, _count(rows, table)


def _create(unit: Unit, table: str) -> None:
    """An empty table of the same shape. What the engine says of the old one is asked, so that a later migration is not forgotten here."""
    fault_point(f"purge.create:{table}")
    ((made,),) = unit._all("SELECT sql FROM duckdb_tables() WHERE table_name = ? AND database_name = current_database()", table)
    begin, brace, rest = made.rstrip("; ").partition("(")
    if begin.replace('"', "").split() != ["CREATE", "TABLE", table]:
        raise _changed(table)
    unit._write(f"CREATE TABLE {table}{NEXT} {brace}{rest}")


def _end_of_slice(rows: Unit, table: str, fate: Rewritten, values: Sequence[object], last: int, after: Place | None, to: Place) -> Place:
    """Where a slice of just so many rows ends. Asked beside the writers."""
    source, given = _source(table, fate, values, last, after, to)
    found = rows._all(f"SELECT t.account_id, t.rowid FROM {source} ORDER BY t.account_id, t.rowid LIMIT 1 OFFSET {SLICE_ROWS - 1}", *given)
    return (found[0][0], int(found[0][1])) if found else to


def _copy(unit: Unit, table: str, fate: Rewritten, values: Sequence[object], last: int, after: Place | None, to: Place) -> int:
    """The next slice. Returns how many rows it has. In order of arrival within an account, which is that of time."""
    fault_point(f"purge.copy:{table}")
    source, given = _source(table, fate, values, last, after, to)
    ((count,),) = unit._write(f"INSERT INTO {table}{NEXT} SELECT t.* EXCLUDE (rowid) FROM {source} ORDER BY t.account_id, t.rowid", *given)
    fault_point(f"purge.copied:{table}")
    return int(count)


def _put_in_place(unit: Unit, table: str, last: int, copied: int, there: int) -> int | None:
    """Take over what came since, and let the new table be the table. Where too much came for one step: take some, and return the last row taken."""
    fault_point(f"purge.catch_up:{table}")
    reached = int(unit._all(f"SELECT coalesce(max(rowid), -1) FROM {table}")[0][0])
    until = min(reached, last + CATCH_UP_ROWS)
    unit._write(f"INSERT INTO {table}{NEXT} SELECT t.* FROM {table} t WHERE t.rowid > ? AND t.rowid <= ? ORDER BY t.rowid", last, until)
    if until < reached:
        return until
    came = reached - last
    if (_count(unit, table), _count(unit, table + NEXT)) != (there + came, copied + came):
        raise _changed(table)
    _replace(unit, table)
    return None


def _replace(unit: Unit, table: str) -> None:
    """Drop the old table, rename the new one, make its indexes: in this order, because a table that has one can't be renamed."""
    indexes = unit._all("SELECT sql FROM duckdb_indexes() WHERE table_name = ? AND database_name = current_database()", table)
    for n, statement in enumerate((f"DROP TABLE {table}", f"ALTER TABLE {table}{NEXT} RENAME TO {table}", *(sql.rstrip("; ") for (sql,) in indexes))):
        fault_point(f"purge.replace:{table}:{n}")
        unit._write(statement)
    unit.changes.everything = True  # nothing that is remembered may outlive the rows
    fault_point(f"purge.replaced:{table}")


def _fill_some(unit: Unit, n: int) -> None:
    unit._write(f"INSERT INTO {FILLER} SELECT hash(i) FROM range(?, ?) r(i)", n * FILL_ROWS, (n + 1) * FILL_ROWS)


def _delete(unit: Unit, sql: str, keys: Sequence[str]) -> int:
    ((gone,),) = unit._all(sql, keys)
    return int(gone)


def _changed(table: str) -> PurgeFailed:
    log.error("purge: %s did not hold still while it was written anew; the old one stays", table)
    return PurgeFailed(f"The purge was given up: {table} changed in a way that it must not while it is written anew. Nothing was lost; it is tried again.")
