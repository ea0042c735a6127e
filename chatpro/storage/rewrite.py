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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

from chatpro.errors import PurgeFailed
from chatpro.storage.migrate import fault_point
from chatpro.storage.sql import PurgeRun, Unit

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

LOOK_ROWS = 500_000
"""Rows looked through at once to find what has to go: no read of the store may stay open longer than two seconds, on a busy machine either."""

SWEEP_ROWS = 100
"""Rows deleted at once where no text is. Each goes out of up to three keys, and is asked for again first."""

PATIENCE_SECONDS = 60.0
"""How long a checkpoint may be refused. Reads are over after two seconds, so that somebody has to read at every single moment of a minute."""

MOST_PAUSE_SECONDS = 0.1

Place = tuple[str, int | None]
"""A place among the rows of a table in order: an account and the number of a row, or None for all rows of that account."""

Slice = tuple[Place | None, Place]
"""The rows behind one place (None: from the beginning) and up to another."""

DELETED = "SELECT id FROM chats WHERE deleted_at <= ?"
"""Chats whose deletion can't be taken back any more."""

CLOSED = "SELECT account_id FROM account_changes WHERE kind = 'closed'"
"""Accounts that were closed. Nobody will finish their drafts, also those for a chat that hasn't begun."""

CLOCK_SET_BACK = timedelta(hours=1)
"""By so much a clock may have been set back since the last run."""


@dataclass(frozen=True)
class Kept:
    """Rows of this table stay for ever, `because`."""

    because: str


@dataclass(frozen=True)
class Swept:
    """No text in it: rows are deleted where they are. `goes`: with what."""

    goes: str


@dataclass(frozen=True)
class Rewritten:
    """Text in it: written anew with the rows for which `stays` holds. `newest`: of each chat only the newest row is asked, the others go.
    `with_chat`: and only as long as there is a row of its chat. `whole`: in one step, for few rows that change while they are there."""

    stays: str
    needs: tuple[str, ...] = ()
    newest: bool = False
    with_chat: bool = False
    whole: bool = False


FATES: dict[str, Kept | Swept | Rewritten] = {
    "messages": Rewritten(f"sent_at > ? AND chat_id NOT IN ({DELETED})", ("since", "deleted")),
    # What was sent after all, or written over, is nobody's draft any more. One may be kept for a chat that hasn't begun.
    "drafts": Rewritten(f"kept_at > ? AND text <> '' AND chat_id NOT IN ({DELETED}) AND account_id NOT IN ({CLOSED})", ("since", "deleted"), newest=True),
    "answers": Swept("with the message that it is"),
    "unread_answers": Swept("with its answer"),
    "chats": Swept("with its last message"),
    # Which chats take more along may be said before they begin, and some never do.
    "remembering": Swept("with its chat, or after as long where that never began"),
    # One that came from a message goes with that, though its chat goes on.
    "titles": Rewritten("(message_id IS NULL OR given_at > ?)", ("since",), newest=True, with_chat=True),
    "answer_parts": Rewritten("answer_id IN (SELECT id FROM answers WHERE state = 'running')", whole=True),
    # Closing takes name, mail and sign-in out of the row; written anew, they are out of the file too. Only after somebody closed theirs.
    "accounts": Rewritten("TRUE", whole=True),
    "closed_sign_ins": Rewritten("keep_until > ?", ("deleted",), whole=True),
    "carried_usage": Kept("part of the ledger"),
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
"""Table → what becomes of its rows. A table that is missing here turns a test red."""


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

    `last` is the run before, None where there was none. `go_on` is asked before each step; `tell` hears of each one (what is done, and how far
    it is from 0 to 1). `gentle`: leave as much time to others as it takes itself.
    """

    def __init__(
        self, engine: Engine, since: datetime, deleted: datetime, *, last: PurgeRun | None, go_on: Callable[[], bool], tell: Callable[[str, float], None],
        gentle: bool,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._since = since
        self._deleted = deleted
        self._sorted = last.sorted if last else 0
        self._last = last
        self._go_on = go_on
        self._tell = tell
        self._gentle = gentle

    def run(self) -> Purged:
        """Do all of it. Raises PurgeFailed where it can't be done now, StoreUnavailable when the disk fails; nothing is lost either way."""
        self._step(_drop_leftovers)
        self._check_room()
        # A chat goes when nothing is left in it, its titles after it, its drafts before, while its deletion is still known.
        removed = {"messages": self._rewrite("messages"), "drafts": self._rewrite("drafts")}
        removed["answers"] = self._sweep_answers()
        removed["chats"] = self._sweep_chats()
        self._sweep_remembering()
        removed["titles"] = self._rewrite("titles")
        removed["answer_parts"] = self._step(partial(_rewrite_whole, table="answer_parts"))
        removed["closed_sign_ins"] = self._rewrite_few("closed_sign_ins")
        if self._engine.read(partial(_closed_since, last=self._last)):
            self._step(partial(_rewrite_whole, table="accounts"))
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

    def _rewrite(self, name: str) -> int:
        """Copy what stays, sorted by account and time, in slices; then put the copy in the old one's place. Returns how many rows went."""
        fate = FATES[name]
        assert isinstance(fate, Rewritten)
        last, there = self._engine.read(partial(_extent, table=name))
        table = _Table(name, fate, self._values(fate), last)
        staying, slices = (self._by_chat if fate.newest else self._by_row)(table)
        if staying == there and (name != "messages" or there - self._sorted <= TAIL_ROWS):
            return 0
        self._step(lambda unit: _create(unit, name))
        copied = 0
        for after, to in slices:
            self._tell(f"writing {name} anew", copied / staying)
            count = self._step(partial(_copy, table=table, after=after, to=to))
            if not count:
                raise _changed(name)
            copied += count
        gone = there - copied
        while (reached := self._step(partial(_put_in_place, table=name, last=last, copied=copied, there=there))) is not None:
            copied, there, last = copied + reached - last, there + reached - last, reached
        if name == "messages":
            self._sorted = staying
        return gone

    def _rewrite_few(self, name: str) -> int:
        """A table of few rows, where any of them has to go. Returns how many went."""
        fate = FATES[name]
        assert isinstance(fate, Rewritten)
        values = self._values(fate)
        if not self._engine.read(lambda rows: rows._all(f"SELECT 1 FROM {name} WHERE NOT ({fate.stays}) LIMIT 1", *values)):
            return 0
        return self._step(partial(_rewrite_whole, table=name, values=values))

    def _values(self, fate: Rewritten) -> list[datetime]:
        return [self._since if need == "since" else self._deleted for need in fate.needs]

    def _by_row(self, table: _Table) -> tuple[int, Iterator[Slice]]:
        """How many rows stay, and slices of just so many of them as the engine writes together."""
        sums, sum_ = [], 0
        for account_id, count in sorted(self._counts(table, table.fate.stays, table.values).items()):
            sum_ += count
            sums.append((account_id, sum_))

        def slices() -> Iterator[Slice]:
            after: Place | None = None
            at = 0
            for begin in range(0, sum_, SLICE_ROWS):
                while sums[at][1] < min(begin + SLICE_ROWS, sum_):
                    at += 1
                to = self._engine.read(partial(_end_of_slice, table=table, after=after, to=(sums[at][0], None)))
                yield after, to
                after = to

        return sum_, slices()

    def _by_chat(self, table: _Table) -> tuple[int, Iterator[Slice]]:
        """The same where of each chat only the newest row is asked: slices of whole accounts with about so many rows in them."""
        counts = sorted(self._counts(table, "TRUE", []).items())
        slices: list[Slice] = []
        after: Place | None = None
        held = 0
        for n, (account_id, count) in enumerate(counts):
            held += count
            if held >= SLICE_ROWS or n == len(counts) - 1:
                slices.append((after, (account_id, None)))
                after, held = (account_id, None), 0
        staying = [self._engine.read(partial(_count_staying, table=table, after=a, to=b)) for a, b in slices]
        return sum(staying), (some for some, count in zip(slices, staying, strict=True) if count)

    def _counts(self, table: _Table, where: str, values: Sequence[object]) -> Counter[str]:
        """How many rows each account has there."""
        counts: Counter[str] = Counter()
        sql = f"SELECT account_id, count(*) FROM {table.name} WHERE rowid > ? AND rowid <= ? AND {where} GROUP BY account_id"
        for begin in range(-1, table.last, LOOK_ROWS):
            rows = self._engine.read(lambda rows, b=begin: rows._all(sql, b, min(b + LOOK_ROWS, table.last), *values))  # type: ignore[misc]
            counts.update(dict(rows))
        return counts

    # --- tables without -----------------------------------------------------------------------------------------------

    def _sweep_answers(self) -> int:
        """With what is remembered of them as unread."""
        found = self._look("answers", "id", f"state <> 'running' AND (started_at <= ? OR chat_id IN ({DELETED}))", self._since, self._deleted)
        ids = [row[0] for row in found]
        return sum(self._step(partial(_delete_answers, ids=ids[n : n + SWEEP_ROWS])) for n in range(0, len(ids), SWEEP_ROWS))

    def _sweep_chats(self) -> int:
        """Those that were deleted, or begun so long ago that they may be empty, and that nothing is left in."""
        where = "(deleted_at <= ? OR (deleted_at IS NULL AND created_at <= ?))"
        chats = sorted((account_id, chat_id) for chat_id, account_id in self._look("chats", "id, account_id", where, self._deleted, self._since))
        gone = 0
        for n in range(0, len(chats), SWEEP_ROWS):
            some = chats[n : n + SWEEP_ROWS]
            written = self._engine.read(partial(_with_messages, first=some[0][0], last=some[-1][0], chats=[chat_id for _, chat_id in some]))
            if empty := [chat_id for _, chat_id in some if chat_id not in written]:
                gone += self._step(partial(_delete_chats, ids=empty))
        return gone

    def _sweep_remembering(self) -> None:
        """That a chat takes more along may be said before it begins, and some never do."""
        chats = sorted({row[0] for row in self._look("remembering", "chat_id", "said_at <= ?", self._since)})
        for n in range(0, len(chats), SWEEP_ROWS):
            self._step(partial(_delete_remembering, chats=chats[n : n + SWEEP_ROWS]))

    def _look(self, table: str, columns: str, where: str, *values: object) -> Iterator[tuple[str, ...]]:
        """Rows for which this holds, looked for a part of the table at a time."""
        last, _ = self._engine.read(partial(_extent, table=table))
        sql = f"SELECT {columns} FROM {table} WHERE rowid > ? AND rowid <= ? AND {where}"
        for begin in range(-1, last, LOOK_ROWS):
            yield from self._engine.read(lambda rows, b=begin: rows._all(sql, b, b + LOOK_ROWS, *values))  # type: ignore[misc]

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


def _extent(rows: Unit, table: str) -> tuple[int, int]:
    """(the number of the last row, how many rows there are)."""
    return int(rows._all(f"SELECT coalesce(max(rowid), -1) FROM {table}")[0][0]), _count(rows, table)


@dataclass(frozen=True)
class _Table:
    """A table that is written anew: the values that its fate asks for, and the last row that was there when the run began with it."""

    name: str
    fate: Rewritten
    values: list[datetime]
    last: int

    def staying(self, after: Place | None, to: Place | None) -> tuple[str, list[object]]:
        """The rows that stay, behind one place and up to another: what stands behind FROM, and its values."""
        accounts: list[tuple[str, object]] = []
        rows: list[tuple[str, tuple[object, ...]]] = []
        if after is not None:
            accounts.append((">" if after[1] is None else ">=", after[0]))
            rows += [("(account_id > ? OR rowid > ?)", after)] if after[1] is not None else []
        if to is not None:
            accounts.append(("<=", to[0]))
            rows += [("(account_id < ? OR rowid <= ?)", to)] if to[1] is not None else []
        # The bounds of accounts say little where those of rows stand beside them; by them the engine skips what lies outside.
        within = "".join(f" AND account_id {sign} ?" for sign, _ in accounts)
        bounds = [account for _, account in accounts]
        there = f"rowid <= ?{within}" + "".join(f" AND {row}" for row, _ in rows)
        given = [self.last, *bounds, *(value for _, values in rows for value in values)]
        sql, values = f"{self.name} WHERE {there} AND {self.fate.stays}", [*given, *self.values]
        if self.fate.with_chat:
            sql, values = f"{sql} AND chat_id IN (SELECT id FROM chats WHERE TRUE{within})", [*values, *bounds]
        if self.fate.newest:
            # Not as a window over the rows of each chat: with a semi join behind it that kills the engine (2.0.0, "Attempted to access index -1").
            newest = f"SELECT account_id, chat_id, max(sequence) FROM {self.name} WHERE {there} GROUP BY account_id, chat_id"
            sql, values = f"{sql} AND (account_id, chat_id, sequence) IN ({newest})", [*values, *given]
        return sql, values


def _count_staying(rows: Unit, table: _Table, after: Place | None, to: Place) -> int:
    source, given = table.staying(after, to)
    return int(rows._all(f"SELECT count(*) FROM {source}", *given)[0][0])


def _end_of_slice(rows: Unit, table: _Table, after: Place | None, to: Place) -> Place:
    """Where a slice of just so many rows ends. Asked beside the writers."""
    source, given = table.staying(after, to)
    found = rows._all(f"SELECT account_id, rowid FROM {source} ORDER BY account_id, rowid LIMIT 1 OFFSET ?", *given, SLICE_ROWS - 1)
    return (found[0][0], int(found[0][1])) if found else to


def _create(unit: Unit, table: str) -> None:
    """An empty table of the same shape. What the engine says of the old one is asked, so that a later migration is not forgotten here."""
    fault_point(f"purge.create:{table}")
    ((made,),) = unit._all("SELECT sql FROM duckdb_tables() WHERE table_name = ? AND database_name = current_database()", table)
    begin, brace, rest = made.rstrip("; ").partition("(")
    if begin.replace('"', "").split() != ["CREATE", "TABLE", table]:
        raise _changed(table)
    unit._write(f"CREATE TABLE {table}{NEXT} {brace}{rest}")


def _copy(unit: Unit, table: _Table, after: Place | None, to: Place) -> int:
    """The next slice. Returns how many rows it has. In order of arrival within an account, which is that of time."""
    fault_point(f"purge.copy:{table.name}")
    source, given = table.staying(after, to)
    ((count,),) = unit._write(f"INSERT INTO {table.name}{NEXT} SELECT * FROM {source} ORDER BY account_id, rowid", *given)
    fault_point(f"purge.copied:{table.name}")
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


def _closed_since(rows: Unit, last: PurgeRun | None) -> bool:
    """Whether an account was closed that may still be named in the file."""
    if last is None:
        return bool(rows._all(f"{CLOSED} LIMIT 1"))
    return bool(rows._all(f"{CLOSED} AND changed_at > ? LIMIT 1", last.began_at - CLOCK_SET_BACK))


def _rewrite_whole(unit: Unit, table: str, values: Sequence[object] = ()) -> int:
    fate = FATES[table]
    assert isinstance(fate, Rewritten)
    there = _count(unit, table)
    _create(unit, table)
    unit._write(f"INSERT INTO {table}{NEXT} SELECT * FROM {table} WHERE {fate.stays}", *values)
    gone = there - _count(unit, table + NEXT)
    _replace(unit, table)
    return gone


def _delete_answers(unit: Unit, ids: Sequence[str]) -> int:
    fault_point("purge.sweep:answers")
    unit._all("DELETE FROM unread_answers WHERE answer_id IN (SELECT unnest(CAST(? AS VARCHAR[])))", ids)
    return int(unit._all("DELETE FROM answers WHERE id IN (SELECT unnest(CAST(? AS VARCHAR[])))", ids)[0][0])


def _with_messages(rows: Unit, first: str, last: str, chats: Sequence[str]) -> set[str]:
    """Which of these chats, of accounts from the first to the last, hold a message."""
    sql = "SELECT DISTINCT chat_id FROM messages WHERE account_id >= ? AND account_id <= ? AND chat_id IN (SELECT unnest(CAST(? AS VARCHAR[])))"
    return {row[0] for row in rows._all(sql, first, last, chats)}


def _delete_chats(unit: Unit, ids: Sequence[str]) -> int:
    """Those in which nobody has begun an answer meanwhile: whoever sends into an old chat begins one there."""
    fault_point("purge.sweep:chats")
    empty = [chat_id for chat_id in ids if not unit._all("SELECT 1 FROM answers WHERE chat_id = ? LIMIT 1", chat_id)]
    if not empty:
        return 0
    unit._all("DELETE FROM remembering WHERE chat_id IN (SELECT unnest(CAST(? AS VARCHAR[])))", empty)
    return int(unit._all("DELETE FROM chats WHERE id IN (SELECT unnest(CAST(? AS VARCHAR[])))", empty)[0][0])


def _delete_remembering(unit: Unit, chats: Sequence[str]) -> None:
    fault_point("purge.sweep:remembering")
    if without := [chat_id for chat_id in chats if not unit._all("SELECT 1 FROM chats WHERE id = ?", chat_id)]:
        unit._all("DELETE FROM remembering WHERE chat_id IN (SELECT unnest(CAST(? AS VARCHAR[])))", without)


def _changed(table: str) -> PurgeFailed:
    log.error("purge: %s did not hold still while it was written anew; the old one stays", table)
    return PurgeFailed(f"The purge was given up: {table} changed in a way that it must not while it is written anew. Nothing was lost; it is tried again.")
