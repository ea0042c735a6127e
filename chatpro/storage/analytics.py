"""The content-free copy: what product managers' figures are counted from, in a database of its own that holds no text at all.

If figures were counted in the store, one careless query, one chart's hover or one error message would show somebody's words, and a
long count would hold up people who chat. This is a second file and a second instance, which can open nothing else; rows come over
in Python, a slice at a time, and only from tables without text. It is a copy: lost, damaged or of an older shape, it is made anew.

The store's own lock keeps other processes away (the store is opened first); inside the process one lock guards the connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from chatpro.domain.cells import AT_LEAST, Cell, merge
from chatpro.errors import ConfigError, StoreInUse, StoreUnavailable
from chatpro.storage import Store
from chatpro.storage.sql import day_number

log = logging.getLogger("chatpro.analytics")

T = TypeVar("T")

SLICE_ROWS = 1_000
"""Rows of one read of the store and of one insert here: some 20 and 40 ms, the second without letting another thread run. A minute's new
rows are fewer; only a copy made anew has many slices (a million rows take half a minute). Arrow would be ten times as fast, and loads pandas."""

SETTLES_IN = timedelta(minutes=15)
"""How long after midnight a day is closed: an entry's time is taken before it is committed, and the longest answer lasts five minutes."""

COLUMNS = {
    "usage_entries": (
        "account_id VARCHAR", "sequence BIGINT", "answer_id VARCHAR", "reservation_id VARCHAR", "cycle_starts_at TIMESTAMP", "plan VARCHAR",
        "tokens_in BIGINT", "tokens_out BIGINT", "tokens_resent BIGINT", "counted VARCHAR", "over_reserved BIGINT", "model VARCHAR",
        "prompt_version VARCHAR", "first_token_ms BIGINT", "whole_ms BIGINT", "outcome VARCHAR", "settled_at TIMESTAMP", "day INTEGER",
    ),
    "warnings": (
        "account_id VARCHAR", "cycle_starts_at TIMESTAMP", "kind VARCHAR", "allowance BIGINT", "sequence BIGINT", "plan VARCHAR",
        "given_at TIMESTAMP", "day INTEGER",
    ),
    "refusals": (
        "account_id VARCHAR", "sequence BIGINT", "cycle_starts_at TIMESTAMP", "reason VARCHAR", "tokens_wanted BIGINT", "draft_id VARCHAR",
        "plan VARCHAR", "refused_at TIMESTAMP", "day INTEGER",
    ),
    "thumbs": (
        "account_id VARCHAR", "sequence BIGINT", "answer_id VARCHAR", "chat_id VARCHAR", "thumb VARCHAR", "model VARCHAR", "prompt_version VARCHAR",
        "given_at TIMESTAMP", "day INTEGER",
    ),
}  # fmt: skip
"""Copied tables, column by column in the order the store hands them over. No column of them takes text that a person wrote."""

TABLES = (
    *(f"CREATE TABLE {table} ({', '.join(columns)})" for table, columns in COLUMNS.items()),
    "CREATE TABLE cells (first INTEGER, last INTEGER, tokens_in BIGINT, tokens_out BIGINT, answers BIGINT, "
    "warned_75 BIGINT, warned_95 BIGINT, warned_last BIGINT)",
    "CREATE TABLE state (shape VARCHAR, complete_to TIMESTAMP)",
)

SHAPE = hashlib.sha256("\n".join(TABLES).encode()).hexdigest()

FIGURES_BROKE = "The figures can't be read at the moment. They are being made anew from the store."


class Copy:
    """The copy, opened. Raises ConfigError when its folder can't be used, StoreInUse when another process holds its file."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path).resolve()
        self._lock = threading.RLock()
        self._con: duckdb.DuckDBPyConnection | None = None
        self._closed = False
        self._failures = 0
        self._open()

    # --- carrying over ----------------------------------------------------------------------------------------------

    def carry_over(self, store: Store, at: datetime | None = None, go_on: Callable[[], bool] = lambda: True) -> int:
        """Take over what the store has that the copy has not, and publish the cells that this closes. Returns the number of rows.

        `at` is when it was begun (the clock by default): everything committed before is in the copy afterwards. Where it stopped, it goes
        on next time, whether `go_on` said no, the disk was full or the process died.
        """
        at = at or datetime.now(UTC)
        if not self._belongs_to(store):
            log.warning("The copy for figures holds rows that the store does not have. It is made anew.")
            self._begin_again()
        carried = 0
        for table in COLUMNS:
            while go_on():
                after = self._use(lambda con, t=table: _last(con, t))  # type: ignore[misc]
                rows = store.read(lambda unit, t=table, a=after: unit.rows_after(t, a, SLICE_ROWS))  # type: ignore[misc]
                if rows:
                    self._use(lambda con, t=table, a=after, r=rows: _add(con, t, a, r))  # type: ignore[misc]
                    carried += len(rows)
                if len(rows) < SLICE_ROWS:
                    break
            else:
                return carried
        self._use(lambda con: _publish(con, at))
        return carried

    def rebuild(self, store: Store, at: datetime | None = None) -> int:
        """Throw the copy away and make it again from the store."""
        self._begin_again()
        return self.carry_over(store, at)

    def _belongs_to(self, store: Store) -> bool:
        """Whether the last row copied of each table stands in the store too: an older backup put in place of the store, say, has other ones."""
        for table in COLUMNS:
            mine = self._use(lambda con, t=table: con.execute(f"SELECT * FROM {t} ORDER BY sequence DESC LIMIT 1").fetchone())  # type: ignore[misc]
            if mine is not None:
                sequence = mine[_place(table, "sequence")]
                theirs = store.read(lambda unit, t=table, s=sequence: unit.rows_after(t, s - 1, 1))  # type: ignore[misc]
                if not theirs or tuple(theirs[0]) != mine:
                    return False
        return True

    # --- figures ----------------------------------------------------------------------------------------------------

    @property
    def as_of(self) -> datetime | None:
        """Everything that was committed before this instant is in the copy; None before the first carrying over."""
        row = self._use(lambda con: con.execute("SELECT complete_to FROM state").fetchone())
        return row[0].replace(tzinfo=UTC) if row and row[0] else None

    def cells(self, first: int, last: int) -> list[Cell]:
        """Every published cell that has a day between these two, oldest first."""
        rows = self._use(lambda con: con.execute("SELECT * FROM cells WHERE last >= ? AND first <= ? ORDER BY first", [first, last]).fetchall())
        return [Cell(*row) for row in rows]

    # --- opening and closing ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Safe to call twice."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _use(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run one piece of work in a transaction of its own. After a failure the file is opened again; after a second one in a row it is made anew,
        because damage inside a file shows only where it is read."""
        with self._lock:
            if self._closed:
                raise StoreUnavailable("The figures are closed.")
            if self._con is None:
                self._open()
            assert self._con is not None
            try:
                self._con.begin()
                result = work(self._con)
                self._con.commit()
                self._failures = 0
                return result
            except duckdb.Error as error:
                self._failures += 1
                log.error(
                    "The copy for figures failed (%s). It is %s.", type(error).__name__, "opened again" if self._failures == 1 else "made anew from the store"
                )
                self._let_go()
                if self._failures > 1:
                    self._delete()
                raise StoreUnavailable(FIGURES_BROKE) from None
            except BaseException:
                with contextlib.suppress(duckdb.Error):
                    self._con.rollback()
                raise

    def _open(self) -> None:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._con = self._connect()
        except duckdb.Error as error:
            if "set lock on file" in str(error):
                # Held, not damaged: deleting it now would take it from under another process.
                raise StoreInUse(str(self._path), None) from None
            log.warning("The copy for figures can't be opened (%s). It is made anew from the store.", type(error).__name__)
            self._delete()
            try:
                self._con = self._connect()
            except duckdb.Error as second:
                raise StoreUnavailable(f"The copy for figures can't be made ({type(second).__name__}). Is the disk full?") from None
        except OSError as error:
            raise ConfigError(f"The folder {folder} can't be used: {os.strerror(error.errno) if error.errno else 'the system refused it'}.") from error

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open, lock down, read the whole shape once; a copy of another shape is dropped."""
        spill = self._path.with_name(self._path.name + ".spill")
        con = duckdb.connect(
            str(self._path),
            config={
                "memory_limit": "256MB",
                "threads": "1",
                "temp_directory": str(spill),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "allow_persistent_secrets": "false",
                "python_enable_replacements": "false",
            },
        )
        try:
            os.chmod(self._path, 0o600)
            # After connecting: with it off, the folder for spilling could not be named any more.
            con.execute("SET enable_external_access = false")
            con.execute("SET lock_configuration = true")
            self._shape(con)
        except BaseException:
            con.close()
            raise
        return con

    def _shape(self, con: duckdb.DuckDBPyConnection) -> None:
        there = {row[0] for row in con.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'").fetchall()}
        if "state" in there and con.execute("SELECT shape FROM state").fetchall() == [(SHAPE,)]:
            for table in COLUMNS:
                _last(con, table)  # a damaged file may open, and break only when it is read
            return
        if there:
            log.warning("The copy for figures has an older shape. It is made anew from the store.")
        con.begin()
        for table in there:
            con.execute(f'DROP TABLE "{table}"')
        for statement in TABLES:
            con.execute(statement)
        con.execute("INSERT INTO state VALUES (?, NULL)", [SHAPE])
        con.commit()

    def _begin_again(self) -> None:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("The figures are closed.")
            self._let_go()
            self._delete()
            self._open()

    def _let_go(self) -> None:
        if self._con is not None:
            with contextlib.suppress(duckdb.Error):
                self._con.close()
            self._con = None

    def _delete(self) -> None:
        for end in ("", ".wal"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        shutil.rmtree(self._path.with_name(self._path.name + ".spill"), ignore_errors=True)


def _place(table: str, column: str) -> int:
    return [c.split()[0] for c in COLUMNS[table]].index(column)


def _last(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT coalesce(max(sequence), 0) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def _add(con: duckdb.DuckDBPyConnection, table: str, after: int, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows read after `after`, unless somebody else added them meanwhile."""
    if _last(con, table) != after:
        return
    columns = ", ".join(f"unnest(CAST(? AS {column.split()[1]}[]))" for column in COLUMNS[table])
    con.execute(f"INSERT INTO {table} SELECT {columns}", [list(column) for column in zip(*rows, strict=True)])


def _publish(con: duckdb.DuckDBPyConnection, at: datetime) -> None:
    """Close the cells that the days before `at` make up, and note how far the copy is complete. What is published stays as it is."""
    published = con.execute("SELECT max(last) FROM cells").fetchone()
    after = published[0] if published and published[0] is not None else None
    closed = day_number(at - SETTLES_IN)
    rows = con.execute(
        "SELECT day, account_id FROM usage_entries WHERE day > ? AND day < ? AND tokens_in + tokens_out > 0 GROUP BY day, account_id "
        "QUALIFY row_number() OVER (PARTITION BY day ORDER BY account_id) <= ? ORDER BY day",
        [-1 if after is None else after, closed, AT_LEAST],
    ).fetchall()
    people: dict[int, set[str]] = {}
    for day, account_id in rows:
        people.setdefault(day, set()).add(account_id)
    for first, last in merge(people.items(), None if after is None else after + 1):
        con.execute(
            """
            INSERT INTO cells SELECT ?, ?, u.tokens_in, u.tokens_out, u.answers, w.w75, w.w95, w.wlast
            FROM (SELECT coalesce(sum(tokens_in), 0) AS tokens_in, coalesce(sum(tokens_out), 0) AS tokens_out,
                         count(*) FILTER (WHERE tokens_in + tokens_out > 0) AS answers
                  FROM usage_entries WHERE day BETWEEN ? AND ?) u,
                 (SELECT count(*) FILTER (WHERE kind = '75') AS w75, count(*) FILTER (WHERE kind = '95') AS w95,
                         count(*) FILTER (WHERE kind = 'last_message') AS wlast
                  FROM warnings WHERE day BETWEEN ? AND ?) w
            """,
            [first, last, first, last, first, last],
        )
    con.execute("UPDATE state SET complete_to = ?", [at.astimezone(UTC).replace(tzinfo=None)])
