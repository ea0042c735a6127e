"""DuckDB behind the store's interface: one file, one process, one writer.

DuckDB by itself commits nothing without a word after a failed statement, drops its file lock when anybody in the process opens
and closes the file, dies as a whole when the disk is full, opens a log with a flipped byte as if nothing were missing, and lets SQL read
and write other files. Each of these loses answers or charges, or lets text out, and each is closed here:

- a unit of work remembers its first failed statement, whatever became of the exception, and is then rolled back and raised;
- writers run one after the other on one thread, first come, first served, so that there are no conflicts to retry;
- reads have cursors and snapshots of their own, read-only by the engine's own word, and none stays open longer than two seconds;
- a lock file of our own stands beside the database, and nothing in this process ever opens the database file itself;
- an instance that a full disk killed is closed with all its cursors and opened again, without losing what was acknowledged;
- the witness (witness.py) tells at each opening whether the end of the log is missing;
- no file but the store's own can be reached from SQL, and nothing can be installed, loaded or switched on again.

Words of the engine never reach a sentence or a log line: they may carry what a person wrote.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from chatpro.errors import (
    ChatProError,
    ConfigError,
    DuplicateKey,
    PurgeFailed,
    ReadTooLong,
    StatementFailed,
    StoreDamaged,
    StoreInUse,
    StoreUnavailable,
    TextNotStorable,
)
from chatpro.storage import Gap, Head, PurgeRun, Unit, heap, migrate, witness
from chatpro.storage.memory import Changes, Memory
from chatpro.storage.rewrite import ROW_GROUP_ROWS, Purged, Rewrite

log = logging.getLogger("chatpro.storage")

T = TypeVar("T")

READ_SECONDS = 2.0
"""The longest a read may stay open: its snapshot keeps deleted bytes alive and holds up checkpoints."""

WITNESS_SECONDS = 1.0
"""The least time between two writings of the witness. What a crash takes of it is read back from the store itself."""

RETRY_SECONDS = 1.0
"""How long after a failure the disk is left alone, unless room was made meanwhile: opening again costs up to 0.6 s, and a queue waits for it."""

WAITING_UNITS = 10_000
"""Units that may wait for the writer: half a minute of work. Beyond it the disk hangs, and keeping more would only eat the memory too."""

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""The log is folded into the file beyond this size. Each start has to read it again: 16 MB take 0.6 s."""

CHECKPOINT_WAIT_BYTES = 4 * CHECKPOINT_BYTES
"""Beyond this, the writer waits until the reads under way are over: where somebody reads at every moment the log could grow for ever."""

CHECKPOINT_AGAIN_SECONDS = 0.25
CHECKPOINT_FAILED_SECONDS = 30.0
"""When to try again after a reader was in the way, and after the disk had no room for it (each try costs an opening)."""

ROOM_TO_TRY_BYTES = 1024 * 1024
"""Free space below which the store doesn't try a full disk on its own: a tiny row may still fit, and the next answer would not."""

HEADER_BYTES = 3 * 4096
"""What a database file of the engine begins with, before its blocks."""

DAMAGED_LOG_SECONDS = 12 * 3600.0
"""How long a log that was cut is kept beside the store, whole, at least. The next purge or start after that deletes it."""

CHECKPOINT_TRIES = 40
"""At closing, 50 ms apart: a checkpoint is refused while a reader still needs the old rows, and readers are gone after two seconds."""

PARSED, PARSED_CHARS = 500, 2_000
"""Statements kept parsed, some kilobytes each, and the longest: several times as many as there are in sql.py, without the savings of many answers
at once, which differ by their number."""

CATALOG = "chatpro"
USE = f"USE {CATALOG}"

CONTROL = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "CHECKPOINT", "SET", "PRAGMA")

SHARED_NUMBERS = {"answers": "messages"}
"""Tables that take their sequence from another one's numbers: questions and answers of a chat stand in one order."""

DUPLICATE = re.compile(r"(Constraint Error|TransactionContext Error: Failed to commit): (Duplicate key|PRIMARY KEY or UNIQUE)")
"""How the engine begins, at a statement and at a commit. What follows may quote text, which could hold these words as well."""

CLOSED = "The store is closed."
AFTER_FORK = "The store belongs to the process that opened it; a forked child can't use it."
QUEUE_FULL = f"Saving is not possible: {WAITING_UNITS:,} units of work are waiting already. Nothing was charged; your text is still here."
DISK_FULL = "Saving is not possible: the disk is full."
DISK_READ_ONLY = "Saving is not possible: the store's disk can only be read."
DISK_FAILS = "Saving is not possible: the store's disk reports an error."
FILE_GONE = (
    "Saving is not possible: the store's file was deleted, moved or replaced while the program runs. "
    "Put it back under its name, or stop the program and put back a whole copy."
)
READING_FAILS = "Reading is not possible: the store's disk reports an error."
KEPT = " Nothing was charged; your text is still here."
TOO_LONG = f"Reading took longer than {READ_SECONDS:g} seconds and was ended."


def utc_now() -> datetime:
    return datetime.now(UTC)


class DuckStore:
    """The store on DuckDB; see `chatpro.storage.Store` for what its verbs promise.

    Opening raises StoreInUse, StoreDamaged, ConfigError (the folder) or StoreUnavailable (the disk is full); nothing is left open then.
    """

    def __init__(self, path: Path, *, memory: str, threads: int, now: Callable[[], datetime] = utc_now, migrations: Path = migrate.FOLDER) -> None:
        # Resolved, so that two ways to one file meet at one lock.
        self._path = Path(path).resolve()
        self._config = {"memory_limit": memory, "threads": str(threads)}
        self._now = now
        self._pid = os.getpid()
        self._wal, self._witness_path, self._spill = (self._beside(end) for end in (".wal", ".witness", ".spill"))

        self._memory = Memory()
        self._lock = threading.Lock()
        self._work, self._ready, self._watched, self._drained = (threading.Condition(self._lock) for _ in range(4))
        self._queue: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._reads: dict[_Session, None] = {}
        self._closing = self._closed = False
        self._purging = threading.Lock()

        self._instance: _Instance | None = None
        self._dead: _Instance | None = None
        self._identity: tuple[int, int] | None = None
        self._last: dict[str, int] = {}
        self._head = witness.EMPTY
        self._gap: Gap | None = None
        self._to_record: tuple[str, str] | None = None
        self._problem: str | None = None
        self._retry_at = self._reopen_at = 0.0
        self._free_then = 0
        self._dirty = True
        self._witness_at = 0.0
        self._witness_fails = False
        self._log_identity: tuple[int, int] | None = None
        self._log_bytes = 0
        self._checkpoint_at = 0.0

        _own_folder(self._path.parent)
        self._file_lock = _FileLock(self._beside(".lock"), self._path)
        try:
            self._open(migrate.known(migrations))
        except BaseException:
            self._let_go()
            raise
        self._writer = threading.Thread(target=self._run_writer, name="store-writer", daemon=True)
        self._watcher = threading.Thread(target=self._run_watcher, name="store-watcher", daemon=True)
        self._writer.start()
        self._watcher.start()
        _open_stores.add(self)

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)

    # --- the interface ----------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Unit], T]) -> T:
        if threading.current_thread() is self._writer:
            raise RuntimeError("a unit of work waited for another one: it would wait for itself")
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            # Whoever was interrupted while waiting in the queue doesn't want it any more; what has begun ends by itself.
            future.cancel()
            raise

    def submit(self, work: Callable[[Unit], T]) -> Future[T]:
        return self._queued(lambda: self._unit(partial(self._work_on, work)))

    def _queued(self, job: Callable[[], T]) -> Future[T]:
        """To be done by the writer, in its turn."""
        future: Future[T] = Future()
        refusal: str | None = None
        if os.getpid() != self._pid:
            refusal = AFTER_FORK
        else:
            with self._lock:
                if self._closing:
                    refusal = CLOSED
                elif len(self._queue) >= WAITING_UNITS:
                    refusal = QUEUE_FULL
                else:
                    self._queue.append((job, future))
                    self._work.notify()
        if refusal is not None:
            future.set_exception(StoreUnavailable(refusal))
        return future

    def _work_on(self, work: Callable[[Unit], T], session: _Session) -> T:
        unit = Unit(session.run, self._next_sequence, self._memory, lambda: self._memory.version)  # nobody else commits meanwhile
        try:
            return work(unit)
        finally:
            session.changes = unit.changes

    def read(self, work: Callable[[Unit], T]) -> T:
        self._need_usable()
        reading = _Reading(self._enter, lambda: self._memory.version)
        try:
            result = work(Unit(reading.run, _no_numbers, self._memory, lambda: reading.as_of))
            reading.raise_failure()
            return result
        finally:
            if (session := reading.end()) is not None:
                self._leave(session)

    def _need_usable(self) -> None:
        """Also what is remembered belongs to the process that opened the store, and until it closes it."""
        if os.getpid() != self._pid:
            raise StoreUnavailable(AFTER_FORK)
        if self._closing:
            raise StoreUnavailable(CLOSED)

    def purge(
        self, since: datetime, deleted: datetime, *, last: PurgeRun | None = None, go_on: Callable[[], bool] = lambda: True,
        tell: Callable[[str, float], None] = lambda what, share: None, gentle: bool = True,
    ) -> Purged:  # fmt: skip
        if not self._purging.acquire(blocking=False):
            raise PurgeFailed("A purge is running already.")
        try:
            self._drop_damaged_log()
            with heap.handed_back():
                return Rewrite(self, since, deleted, last=last, go_on=go_on, tell=tell, gentle=gentle).run()
        finally:
            self._purging.release()

    def _drop_damaged_log(self) -> None:
        """What was kept of a damaged log holds text as well. Whoever wants to try more with it has had half a day."""
        damaged = self._beside(".wal.damaged")
        with contextlib.suppress(OSError):
            if time.time() - os.stat(damaged).st_ctime > DAMAGED_LOG_SECONDS:
                damaged.unlink()

    def checkpoint(self) -> bool:
        """Fold the log into the file between two units. False when a reader is in the way. Raises StoreUnavailable when the disk fails."""
        return self._queued(self._checkpoint_between).result()

    def free_bytes(self) -> int:
        """Room on the disk."""
        return self._free()

    @property
    def gap(self) -> Gap | None:
        return self._gap

    @property
    def problem(self) -> str | None:
        return self._problem

    def close(self) -> None:
        if os.getpid() != self._pid:
            return
        if threading.current_thread() is self._writer:
            raise RuntimeError("a unit of work can't close the store it runs in")
        with self._lock:
            self._closing = True
            self._work.notify()
            self._ready.notify_all()
        self._writer.join()
        self._watcher.join()
        _open_stores.discard(self)

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open(self, migrations: Sequence[migrate.Migration]) -> None:
        """From whatever lies in the folder to a store that is migrated and checked, or a sentence that says why not."""
        failure: ChatProError | None = None
        try:
            self._clear_spill()
            self._look_at_files()
            os.chmod(self._path, 0o600)
            self._identity = self._identity_now()
            seen = witness.load(self._witness_path)
            self._instance = self._connect()
            self._check_length()
            self._migrate(self._instance.writer, migrations, seen)
            self._count(seen)
            self._tighten()
        except duckdb.Error as error:
            failure = self._why_not_opened(error)
        except OSError as error:
            failure = StoreUnavailable(DISK_FULL) if error.errno in (errno.ENOSPC, errno.EDQUOT) else _folder_refused(self._path.parent, error)
        if failure is not None:
            raise failure
        self._record(seen)
        # Before the first unit, so that from now on a witness can only be missing because somebody took it away.
        self._write_witness()

    def _look_at_files(self) -> None:
        """Decide whether this is a first start. Only then is a file made: an empty one in place of a lost one would look like all is well."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            before = witness.load(self._witness_path)
            if self._wal.exists() or (before is not None and (before.ledger_count or before.audit_count)):
                raise StoreDamaged(
                    f"The store {self._path} is missing, but what lies beside it says that there was one with entries in it. Put the file back, "
                    "or move everything that begins with its name away to begin with an empty store."
                ) from None
            self._make_file()
            return
        if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
            raise self._damaged()

    def _make_file(self) -> None:
        """Made under another name and renamed when whole, so that an empty or half-made file under the real name is never our doing."""
        fresh = self._beside(".new")
        for leftover in (fresh, self._beside(".new.wal")):
            leftover.unlink(missing_ok=True)
        duckdb.connect(str(fresh), config=self._settings()).close()
        migrate.fault_point("store.create")
        os.chmod(fresh, 0o600)
        os.rename(fresh, self._path)
        witness.sync_folder(self._path.parent)

    def _clear_spill(self) -> None:
        """Sorts that don't fit in memory are spilled as plain text, and after a crash they would lie there for ever."""
        shutil.rmtree(self._spill, ignore_errors=True)
        self._spill.mkdir(mode=0o700, exist_ok=True)

    def _settings(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            **self._config,
            # Never within a commit: one whose checkpoint failed would be seen by readers for a moment and then be gone.
            "checkpoint_threshold": "1TB",
            "auto_checkpoint_skip_wal_threshold": str(2**40),
            "temp_directory": str(self._spill),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
        }

    def _connect(self) -> _Instance:
        self._beside(".wal.damaged").unlink(missing_ok=True)
        # Attached to an engine without a file of its own: only so can the size of the row groups be said.
        root = duckdb.connect(":memory:", config=self._settings())
        try:
            self._attach(root)
        except duckdb.Error as error:
            if not self._mend_log(error):
                root.close()
                raise
            self._attach(root)
        # We checkpoint at closing ourselves, where a refusal can be seen; and never into a file that was put there by somebody else.
        root.execute("PRAGMA disable_checkpoint_on_shutdown")
        # Not among the settings above: the folder for spilling can't be named any more once this is off.
        root.execute("SET enable_external_access = false")
        root.execute("SET lock_configuration = true")
        return _Instance(root)

    def _attach(self, root: duckdb.DuckDBPyConnection) -> None:
        quoted = str(self._path).replace("'", "''")
        root.execute(f"ATTACH '{quoted}' AS {CATALOG} (ROW_GROUP_SIZE {ROW_GROUP_ROWS})")
        root.execute(USE)

    def _mend_log(self, error: duckdb.Error) -> bool:
        """Cut a damaged log before its first bad entry, where the engine refuses it. True when that was possible.

        What stood before it is saved so, the rest is lost either way, and the witness says how much. The log as it was stays beside
        the store until the next start, for whoever wants to try more; not longer, for it holds text.
        """
        found = re.search(r"Corrupt WAL file: entry at byte position (\d+)", str(error))
        if found is None:
            return False
        mended = self._beside(".wal.mended")
        mended.unlink(missing_ok=True)
        with open(self._wal, "rb") as damaged, open(mended, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(damaged.read(int(found[1])))
            file.flush()
            os.fsync(file.fileno())
        # Linked and then replaced in one step: at no moment is there a store without a log.
        os.link(self._wal, self._beside(".wal.damaged"))
        os.replace(mended, self._wal)
        witness.sync_folder(self._path.parent)
        log.error("The store's log is damaged: it was cut before the first bad entry. The log as it was lies beside it until the next start.")
        return True

    def _check_length(self) -> None:
        """A file that was cut off opens all the same, and is found out only when somebody reads what is missing.

        Blocks in use only: free ones at the end are counted by the engine and not there. Not while there is a log: what reading it took is in no file.
        """
        size, used = self._raw()("SELECT block_size, used_blocks FROM pragma_database_size() WHERE database_name = current_database()", [])[0]
        if not self._wal.exists() and os.stat(self._path).st_size < HEADER_BYTES + size * used:
            raise self._damaged()

    def _migrate(self, cursor: duckdb.DuckDBPyConnection, migrations: Sequence[migrate.Migration], seen: Head | None) -> None:
        if not cursor.execute("SELECT 1 FROM information_schema.tables WHERE table_name = 'schema_migrations'").fetchall():
            if seen is not None and (seen.ledger_count or seen.audit_count):
                raise self._damaged()
            cursor.execute(migrate.RECORD)
        steps = migrate.pending(migrations, cursor.execute(migrate.APPLIED).fetchall())
        for m in steps:
            step = f"{m.number:04}_{m.name}"
            applied = (m.number, m.name, m.sha256, self._now().astimezone(UTC).replace(tzinfo=None))
            n = 0
            try:
                # The engine's own parser parts the statements: comments and strings may hold what looks like an end.
                run: list[Callable[[], object]] = [partial(cursor.execute, statement) for statement in cursor.extract_statements(m.text)]
                cursor.begin()
                run += [partial(cursor.execute, migrate.APPLY, applied), cursor.commit]
                for n, statement in enumerate(run, 1):
                    migrate.fault_point(f"store.migrate:{m.number:04}:{n}")
                    statement()
            except (duckdb.FatalException, duckdb.IOException):
                raise
            except duckdb.Error as error:
                if _disk_trouble(error):
                    raise
                log.error("step %s failed at statement %d (%s)", step, n, type(error).__name__)
                raise StoreDamaged(f"The store can't be brought up to this version: step {step} fails at its statement {n}. Nothing was changed.") from error
            log.info("step %s applied", step)
        if steps:
            # Into the file itself: a log that is lost later takes entries with it, never the tables.
            cursor.execute("CHECKPOINT")

    def _count(self, seen: Head | None) -> None:
        """Read where the store stands, and hold it against the witness."""
        run = self._raw()
        self._head = witness.head_of(run)
        numbers: dict[str, int] = {}
        for (table,) in run("SELECT table_name FROM information_schema.columns WHERE column_name = 'sequence' AND table_schema = 'main'", []):
            last = run(f'SELECT coalesce(max(sequence), 0) FROM "{table}"', [])[0][0]
            name: str = SHARED_NUMBERS.get(str(table), str(table))
            numbers[name] = max(last, numbers.get(name, 0), self._last.get(name, 0))
        if seen is not None:
            if not witness.agrees(run, seen):
                self._gap = Gap(self._now(), seen, self._head)
            # Numbers of lost entries are never given again: somebody may hold a receipt or an export that names them.
            numbers["usage_entries"] = max(numbers["usage_entries"], seen.ledger_sequence)
            numbers["audit_entries"] = max(numbers["audit_entries"], seen.audit_sequence)
        self._last = numbers

    def _record(self, seen: Head | None) -> None:
        """What the check found is to go into the audit. A disk that takes nothing now doesn't stop the start: reading still helps people."""
        if self._gap is not None:
            log.error("%s", self._gap.sentence)
            there, here = self._gap.witness, self._gap.store
            reason = f"usage entries: {here.ledger_count} of {there.ledger_count}; audit entries: {here.audit_count} of {there.audit_count}"
            self._to_record = ("store.behind_witness", reason)
        elif seen is None and (self._head.ledger_count or self._head.audit_count):
            log.error("The witness beside the store is missing: nobody can say whether the store is whole.")
            self._to_record = ("store.witness_missing", f"usage entries: {self._head.ledger_count}; audit entries: {self._head.audit_count}")

    def _recorded(self) -> bool:
        """Whether the audit has what the check found. Until it has, the witness stays as it is: writing it would make the gap unfindable."""
        if self._to_record is None:
            return True
        action, reason = self._to_record

        def work(session: _Session) -> None:
            Unit(session.run, self._next_sequence).append_audit("system", action, self._now(), reason=reason)

        try:
            self._unit(work)
        except ChatProError as error:
            log.error("%s could not be put in the audit yet (%s)", action, type(error).__name__)
            return False
        self._to_record = None
        return True

    def _why_not_opened(self, error: duckdb.Error) -> ChatProError:
        words = str(error)
        failure: ChatProError
        if "Could not set lock" in words or "Conflicting lock" in words:
            holder = re.search(r"\(PID (\d+)\)", words)
            failure = StoreInUse(str(self._path), int(holder[1]) if holder else None)
        elif "different configuration" in words or "already attached" in words:
            failure = StoreInUse(str(self._path), os.getpid())
        elif (trouble := _disk_trouble(error)) is not None:
            failure = StoreUnavailable(trouble)
        elif "Permission denied" in words:
            failure = ConfigError(f"The store {self._path} can't be opened: this program's user may not read and write it.")
        else:
            failure = self._damaged()
        failure.__cause__ = _scrubbed(error)
        return failure

    def _damaged(self) -> StoreDamaged:
        return StoreDamaged(
            f"The store {self._path} is damaged, or no store of this program. Nothing was changed and no fresh one was put in its place. "
            "Put back a whole copy, or move the file and everything that begins with its name away to begin with an empty store."
        )

    # --- the writer -------------------------------------------------------------------------------------------------

    def _run_writer(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                for work, future in job:
                    _serve(work, future)
                del job  # a result or a traceback kept here would live until the next unit
                self._do_chores()
        finally:
            self._shut()

    def _next_job(self) -> list[tuple[Callable[[], Any], Future[Any]]] | None:
        """The next unit, an empty list when chores are due, None when it is time to close."""
        with self._lock:
            while not self._queue:
                if self._closing:
                    return None
                due = self._chores_due()
                wait = None if due is None else due - time.monotonic()
                if wait is not None and wait <= 0:
                    return []
                self._work.wait(wait)
            return [self._queue.popleft()]

    def _unit(self, work: Callable[[_Session], T]) -> T:
        """One transaction: all of it is there when this returns, none of it when it raises."""
        instance = self._writable()
        session = _Session(instance.writer, instance)
        numbers = dict(self._last)
        kept = False
        try:
            session.begin("BEGIN TRANSACTION")
            result = work(session)
            session.raise_failure()
            self._check_file()
            session.commit()
            kept = True
            if session.changes:
                self._memory.commit(session.changes)
        finally:
            session.end(kept)
            if session.broken:
                self._condemn(instance, session.trouble)
            if not kept:
                # Given back, so that the ledger's numbers have no holes that look like losses.
                self._last = numbers
        self._dirty = True
        self._tighten()
        if self._problem is not None:
            self._problem = None
            log.warning("Saving works again.")
        return result

    def _next_sequence(self, name: str) -> int:
        if name not in self._last:
            raise ValueError(f"no table {name} with a sequence")
        self._last[name] += 1
        return self._last[name]

    def _writable(self) -> _Instance:
        """The instance to write to, opened again if it died. Raises StoreUnavailable while the disk is known to be as it was."""
        if self._problem is not None and time.monotonic() < self._retry_at and self._free() <= self._free_then:
            raise StoreUnavailable(self._problem + KEPT)
        if self._instance is None:
            self._reopen()
        self._check_file()
        assert self._instance is not None
        return self._instance

    def _check_file(self) -> None:
        """Rows written into a file that has no name any more are gone with the process. Asked by name only: opening it would drop the lock."""
        if self._identity_now() != self._identity:
            self._fail(FILE_GONE, "")
            raise StoreUnavailable(FILE_GONE + KEPT)

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _tighten(self) -> None:
        """DuckDB makes its log anew after each checkpoint, readable by everybody. It holds plain text.

        One that was taken away since is folded into the store at once: what goes on being written to it ends with the process.
        """
        before, self._log_identity, self._log_bytes = self._log_identity, None, 0
        with contextlib.suppress(OSError):
            found = os.stat(self._wal)
            self._log_identity, self._log_bytes = (found.st_dev, found.st_ino), found.st_size
            if found.st_mode & 0o077:
                os.chmod(self._wal, 0o600)
        if before is not None and before != self._log_identity:
            log.error("The store's log was deleted, moved or replaced while the program runs. It is folded into the store at once.")
            self._log_identity, self._log_bytes = before, CHECKPOINT_BYTES

    # --- when the disk fails ----------------------------------------------------------------------------------------

    def _fail(self, problem: str, cause: str) -> None:
        if problem != self._problem:
            log.error("%s%s", problem, cause and f" ({cause})")
        self._problem = problem
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._free_then = self._free()

    def _free(self) -> int:
        try:
            room = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return room.f_bavail * room.f_frsize

    def _condemn(self, instance: _Instance, trouble: tuple[str, str] | None) -> None:
        """An instance that reported a fatal error answers nothing any more. Nobody gets it from now on; the writer closes it."""
        with self._lock:
            if self._instance is not instance:
                return
            self._instance = None
            self._dead = instance
            self._reopen_at = 0.0
            if trouble is not None:
                self._fail(*trouble)
            self._work.notify()

    def _reopen(self) -> None:
        """Close everything of the dead instance (one cursor left open would bring it back as dead as it was) and open the file again."""
        failure: ChatProError | None = None
        self._reopen_at = time.monotonic() + RETRY_SECONDS
        try:
            self._check_file()
            if not self._close_instance(self._dead):
                raise StoreUnavailable(DISK_FAILS + KEPT)
            self._dead = None
            fresh = self._connect()
            self._log_identity = None
            with self._lock:
                self._instance = fresh
            self._memory.forget()
            known = self._gap
            self._count(self._head)
            self._tighten()
        except (duckdb.Error, OSError) as error:
            problem = _disk_trouble(error) or DISK_FAILS
            self._dead, self._instance = self._instance or self._dead, None
            self._fail(problem, type(error).__name__)
            failure = StoreUnavailable(problem + KEPT)
            failure.__cause__ = _scrubbed(error)
        if failure is not None:
            raise failure
        log.warning("The store was opened again.")
        with self._lock:
            self._ready.notify_all()
        if self._gap is not known:
            self._record(self._head)

    def _close_instance(self, instance: _Instance | None) -> bool:
        if instance is None:
            return True
        with self._lock:
            reads = [read for read in self._reads if read.instance is instance]
        gone = all(read.stop(StoreUnavailable((self._problem or DISK_FAILS) + KEPT), wait=5.0) for read in reads)
        if gone:
            instance.close([read.cursor for read in reads])
        return gone

    # --- chores of the writer ---------------------------------------------------------------------------------------

    def _chores_due(self) -> float | None:
        due = [self._retry_at] if self._problem is not None else []
        if self._instance is None:
            due.append(self._reopen_at)
            return min(due)
        if self._dirty:
            due.append(self._witness_at)
        if self._log_bytes >= CHECKPOINT_BYTES:
            due.append(self._checkpoint_at)
        return min(due, default=None)

    def _do_chores(self) -> None:
        if self._instance is None and time.monotonic() >= self._reopen_at:
            with contextlib.suppress(StoreUnavailable):  # readers need it, whether or not anything can be saved
                self._reopen()
        if self._problem is not None and time.monotonic() >= self._retry_at:
            self._probe()
        if self._dirty and self._instance is not None and time.monotonic() >= self._witness_at:
            self._write_witness()
        if self._log_bytes >= CHECKPOINT_BYTES and self._instance is not None and time.monotonic() >= self._checkpoint_at:
            self._fold_log(self._instance)

    def _fold_log(self, instance: _Instance) -> None:
        """Checkpoint between two units. Failing costs nobody a unit: what was acknowledged stays in the log."""
        try:
            if self._log_bytes >= CHECKPOINT_WAIT_BYTES:
                with self._lock:
                    before = set(self._reads)  # reads that begin from here on see no older rows than the checkpoint does
                    self._drained.wait_for(lambda: before.isdisjoint(self._reads), READ_SECONDS + 0.5)
            self._check_file()
            instance.writer.execute("CHECKPOINT")
            self._log_identity = None
        except (duckdb.TransactionException, StoreUnavailable):
            self._checkpoint_at = time.monotonic() + CHECKPOINT_AGAIN_SECONDS
            return
        except duckdb.Error as error:
            log.error("The log can't be folded into the store (%s). Saving goes on while the log has room.", type(error).__name__)
            self._checkpoint_at = time.monotonic() + CHECKPOINT_FAILED_SECONDS
            self._condemn(instance, None)
        self._tighten()

    def _checkpoint_between(self) -> bool:
        """As a purge asks for it. Unlike the one above it never waits for readers: it is asked again, and sends go on meanwhile."""
        instance = self._writable()
        failure: ChatProError | None = None
        try:
            instance.writer.execute("CHECKPOINT")
        except duckdb.TransactionException:
            return False
        except duckdb.Error as error:
            trouble = _disk_trouble(error) or DISK_FAILS
            self._condemn(instance, (trouble, type(error).__name__))
            failure = StoreUnavailable(trouble + KEPT)
            failure.__cause__ = _scrubbed(error)
        if failure is not None:
            raise failure
        self._log_identity = None
        self._tighten()
        return True

    def _probe(self) -> None:
        """Find out by a real commit whether saving works again: while the page says that it doesn't, nobody else may try."""
        if self._problem != DISK_FULL or self._free() >= ROOM_TO_TRY_BYTES:
            self._retry_at = 0.0
            with contextlib.suppress(ChatProError):
                self._unit(lambda session: session.run("UPDATE schema_migrations SET name = name WHERE number = 1", []))
        if self._problem is not None:
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def _write_witness(self) -> None:
        self._witness_at = time.monotonic() + WITNESS_SECONDS
        if not self._recorded() or self._instance is None:
            return
        try:
            self._check_file()
            head = witness.head_of(self._raw(), self._head)
            migrate.fault_point("store.witness")
            witness.save(self._witness_path, head)
        except StoreUnavailable:
            return
        except duckdb.Error as error:
            if self._instance is not None:
                self._condemn(self._instance, (_disk_trouble(error) or DISK_FAILS, type(error).__name__))
            return
        except OSError as error:
            # The store itself is well; the witness is only further behind. It stays dirty and is tried again.
            if not self._witness_fails:
                log.error("The witness beside the store can't be written (%s).", type(error).__name__)
            self._witness_fails = True
            return
        self._head, self._dirty, self._witness_fails = head, False, False

    def _raw(self) -> witness.Run:
        assert self._instance is not None
        cursor = self._instance.writer
        return lambda sql, values: cursor.execute(sql, values).fetchall()

    def _shut(self) -> None:
        """The last act of the writer: readers end, the log goes into the file, the witness says where that is."""
        with self._lock:
            self._closing = True
            self._drained.wait_for(lambda: not self._reads, READ_SECONDS + 1.0)
        try:
            if self._instance is not None and self._identity_now() == self._identity:
                self._checkpoint(self._instance)
                if self._instance is not None:
                    self._write_witness()
        finally:
            self._let_go()

    def _checkpoint(self, instance: _Instance) -> None:
        for _ in range(CHECKPOINT_TRIES):
            try:
                instance.writer.execute("CHECKPOINT")
                return
            except duckdb.TransactionException:
                time.sleep(0.05)
            except duckdb.Error as error:
                # All that was acknowledged stands in the log and is read from there at the next start.
                self._condemn(instance, (_disk_trouble(error) or DISK_FAILS, type(error).__name__))
                return
        log.warning("The log was not folded into the store at closing; the next start does it.")

    def _let_go(self) -> None:
        instance = self._instance or self._dead
        with self._lock:
            self._instance = self._dead = None
            self._closing = self._closed = True
            self._ready.notify_all()
            self._watched.notify()
            left = list(self._queue)
            self._queue.clear()
        for _, future in left:  # there are some only if the writer itself died of a mistake of ours: nobody may wait for ever
            if future.set_running_or_notify_cancel():
                future.set_exception(StoreUnavailable(CLOSED))
        self._close_instance(instance)
        shutil.rmtree(self._spill, ignore_errors=True)
        self._file_lock.release()

    # --- readers ----------------------------------------------------------------------------------------------------

    def _enter(self) -> _Session:
        """A cursor of one's own, on the watch list. Waits for a store that is being opened again, but no longer than a read may take."""
        for _ in range(2):
            with self._lock:
                self._ready.wait_for(lambda: self._instance is not None or self._closing, READ_SECONDS)
                if self._closing:
                    raise StoreUnavailable(CLOSED)
                if self._instance is None:
                    raise StoreUnavailable((self._problem or DISK_FAILS) + KEPT)
                instance = self._instance
                try:
                    cursor = instance.idle.pop() if instance.idle else instance.cursor()
                except duckdb.Error as error:  # it died a moment ago and nobody has noticed yet
                    trouble = (_disk_trouble(error) or DISK_FAILS, type(error).__name__)
                else:
                    session = _Session(cursor, instance, time.monotonic() + READ_SECONDS)
                    self._reads[session] = None
                    if len(self._reads) == 1:
                        self._watched.notify()
                    return session
            self._condemn(instance, trouble)
        raise StoreUnavailable(trouble[0] + KEPT)

    def _leave(self, session: _Session) -> None:
        clean = session.end(kept=False)
        if session.broken:
            self._condemn(session.instance, session.trouble)
        with self._lock:
            del self._reads[session]
            if clean and self._instance is session.instance:
                session.instance.idle.append(session.cursor)
            else:
                session.cursor.close()
            self._drained.notify_all()

    def _run_watcher(self) -> None:
        """Ends reads that are over their time. Repeats itself: an interrupt that falls between two statements is lost."""
        with self._lock:
            while not self._closed or self._reads:
                now = time.monotonic()
                for read in self._reads:
                    if read.deadline <= now:
                        read.stop(ReadTooLong(TOO_LONG), wait=0)
                first = next((read.deadline for read in self._reads), None)  # they came in this order
                self._watched.wait(None if first is None else max(first - now, 0.05))


class _Instance:
    """One opened DuckDB. All its cursors are known here, because it comes back to life only after the last of them was closed."""

    def __init__(self, root: duckdb.DuckDBPyConnection) -> None:
        self.root = root
        self.writer = self.cursor()
        self.idle: list[duckdb.DuckDBPyConnection] = []
        self._parsed: dict[str, duckdb.Statement] = {}

    def parsed(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement | str:
        """The statement without its words, which take a fifth of its time to read: all but a few are the same again and again."""
        found = self._parsed.get(sql)
        if found is None:
            if len(sql) > PARSED_CHARS or len(self._parsed) >= PARSED:
                return sql
            statements = cursor.extract_statements(sql)
            if len(statements) != 1:
                return sql
            found = self._parsed[sql] = statements[0]
        return found

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A new one that knows the store's tables: a cursor takes nothing over of what its parent was told."""
        cursor = self.root.cursor()
        cursor.execute(USE)
        return cursor

    def close(self, reading: Sequence[duckdb.DuckDBPyConnection] = ()) -> None:
        for cursor in (*self.idle, *reading, self.writer, self.root):
            with contextlib.suppress(duckdb.Error):
                cursor.close()
        self.idle.clear()
        self._parsed.clear()


class _Session:
    """The statements of one unit or one read on one cursor. The first failure stays, whoever catches its exception on the way."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, instance: _Instance, deadline: float = float("inf")) -> None:
        self.cursor = cursor
        self.instance = instance
        self.deadline = deadline
        self.broken = False
        self.trouble = (DISK_FAILS, "")
        self._failure: ChatProError | None = None
        self._stopped: ChatProError | None = None
        self._over = False
        self._busy = threading.Lock()
        self.changes = Changes()

    def run(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run one statement with its parameters bound. After a failed one every further one raises the same."""
        if self._failure is None:
            self._failure = _refused(sql, values)
        return self._execute(sql, values)

    def begin(self, sql: str) -> None:
        self._execute(sql, [])

    def commit(self) -> None:
        self._execute("COMMIT", [])

    def _execute(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._busy:
            if self._over:
                raise RuntimeError("this unit of work is over; nothing of it may be kept beyond its call")
            if self._failure is None:
                self._failure = self._stopped or (ReadTooLong(TOO_LONG) if time.monotonic() >= self.deadline else None)
            if self._failure is None:
                try:
                    return self.cursor.execute(self.instance.parsed(self.cursor, sql), values).fetchall()
                except Exception as error:
                    self._failure = self._stopped or _translated(error, sql, reading=self.deadline < float("inf"))
                    self.trouble = (_disk_trouble(error) or DISK_FAILS, type(error).__name__)
                    fatal = isinstance(error, duckdb.FatalException | duckdb.InternalException) or "has been invalidated" in str(error)[:80]
                    # After a statement that failed for the disk's sake nobody knows what the engine holds in memory; opening again tells. A block
                    # that it had half written, for one, is in use for nobody then, and what stands in it is never written over.
                    writing = sql == "COMMIT" or (self.deadline == float("inf") and _disk_trouble(error) is not None)
                    self.broken = self._stopped is None and (fatal or (writing and not isinstance(self._failure, StatementFailed)))
        # Raised out here: inside, the engine's own exception would hang on it as its context, with all its words.
        raise self._failure

    def raise_failure(self) -> None:
        """Called when the work is done: a failure that was swallowed comes out here, and so does a read that stayed too long."""
        if self._failure is None:
            self._failure = self._stopped or (ReadTooLong(TOO_LONG) if time.monotonic() >= self.deadline else None)
        if self._failure is not None:
            raise self._failure

    def stop(self, reason: ChatProError, wait: float) -> bool:
        """End it from another thread: interrupt the statement that runs, and give the snapshot up even if none does. True when it is given up."""
        self._stopped = self._stopped or reason
        patience = time.monotonic() + wait
        while True:
            with contextlib.suppress(duckdb.Error):
                self.cursor.interrupt()
            if self._busy.acquire(timeout=0.05) if wait else self._busy.acquire(blocking=False):
                try:
                    self._rollback()
                finally:
                    self._busy.release()
                return True
            if time.monotonic() >= patience:
                return False

    def end(self, kept: bool) -> bool:
        """Nothing runs on it from now on. True when the cursor can be used again."""
        with self._busy:
            self._over = True
            return kept or (self._rollback() and not self.broken)

    def _rollback(self) -> bool:
        try:
            self.cursor.execute("ROLLBACK")
        except duckdb.TransactionException:
            return True  # there was none: it never began, was rolled back before, or a failed commit ended it
        except duckdb.Error:
            return False
        return True


class _Reading:
    """A read that begins with its first statement: one that finds all it asks for in memory needs no snapshot."""

    def __init__(self, enter: Callable[[], _Session], version: Callable[[], int]) -> None:
        self._enter = enter
        self._version = version
        self._session: _Session | None = None
        self._over = False
        self.as_of = -1

    def run(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        if self._over:
            raise RuntimeError("this read is over; nothing of it may be kept beyond its call")
        if self._session is None:
            self.as_of = self._version()  # before the snapshot: what is read is at least as new
            self._session = self._enter()
            self._session.begin("BEGIN TRANSACTION READ ONLY")
        return self._session.run(sql, values)

    def raise_failure(self) -> None:
        if self._session is not None:
            self._session.raise_failure()

    def end(self) -> _Session | None:
        self._over = True
        return self._session


def _serve(work: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # CancelledError and Streamlit's StopException too: they are the caller's, the writer lives on
        future.set_exception(error)
    else:
        future.set_result(result)


def _refused(sql: str, values: Sequence[object]) -> StatementFailed | None:
    """What must not reach any engine, so that all of them keep one contract."""
    if ";" in sql:
        return StatementFailed("One statement at a time: behind a semicolon a COMMIT could hide.")
    if sql.lstrip()[:10].upper().startswith(CONTROL):
        return StatementFailed("A unit of work begins and ends by itself; its statements can't.")
    if not all(_storable(value) for value in values):
        return TextNotStorable("This text holds characters that can't be stored (a NUL, or half of a pair).")
    return None


def _storable(value: object) -> bool:
    if isinstance(value, str):
        if "\0" in value:
            return False
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    elif isinstance(value, list | tuple):
        return all(_storable(part) for part in value)
    return True


def _translated(error: Exception, sql: str, reading: bool) -> ChatProError:
    """The engine's failure in our words. A statement's own fault is a StatementFailed, all else means that the instance can't be trusted."""
    words = str(error)
    failure: ChatProError
    if isinstance(error, duckdb.InterruptException):
        failure = ReadTooLong(TOO_LONG)
    elif DUPLICATE.match(words):
        failure = DuplicateKey("A row with this key is there already.")
    elif (
        isinstance(error, duckdb.FatalException | duckdb.InternalException | duckdb.IOException)
        or type(error) is duckdb.Error  # blocks whose checksum is wrong come without a class of their own
        or _disk_trouble(error)
        or sql == "COMMIT"
    ):
        failure = StoreUnavailable(READING_FAILS if reading else (_disk_trouble(error) or DISK_FAILS) + KEPT)
    else:
        failure = StatementFailed(f"A statement failed ({type(error).__name__}), so nothing of its unit of work was kept.")
    failure.__cause__ = _scrubbed(error)
    return failure


def _disk_trouble(error: Exception) -> str | None:
    """The sentence for a disk that takes nothing, None when the error is about something else."""
    words = str(error)
    for code, sentence in ((errno.ENOSPC, DISK_FULL), (errno.EDQUOT, DISK_FULL), (errno.EROFS, DISK_READ_ONLY), (errno.EIO, DISK_FAILS)):
        if os.strerror(code) in words:
            return sentence
    return None


def _scrubbed(error: Exception) -> Exception:
    """The same exception without its words where they may quote a parameter. Those about the SQL itself stay: it is ours and constant."""
    about_sql = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.SyntaxException)
    if isinstance(error, about_sql):
        return error
    kind = type(error) if isinstance(error, duckdb.Error) else RuntimeError
    return kind(f"{type(error).__name__}: its words are withheld, they may quote what was stored").with_traceback(error.__traceback__)


def _no_numbers(name: str) -> int:
    raise RuntimeError("a read takes no sequence: it writes nothing")


# --- the folder and the lock ------------------------------------------------------------------------------------------


def _own_folder(folder: Path) -> None:
    """A folder that only this user may enter. One that everybody may write to (/tmp) is refused, not closed to the others."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = os.stat(folder).st_mode
        if mode & stat.S_ISVTX:
            raise ConfigError(f"The folder {folder} is shared with other users of this machine. Give the store a folder of its own.")
        if mode & 0o077:
            os.chmod(folder, 0o700)
    except OSError as error:
        raise _folder_refused(folder, error) from error


def _folder_refused(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"The store's folder {folder} can't be used: {os.strerror(error.errno) if error.errno else 'the system refused it'}.")


class _FileLock:
    """Our own lock beside the database. DuckDB's is dropped when anybody in this process opens and closes the file; nobody opens this one.

    The kernel gives it back when the process ends, however it ends. The file stays: deleting it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path, store: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _folder_refused(path.parent, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            written = os.pread(self._fd, 20, 0).strip()
            os.close(self._fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ConfigError(f"The store's folder {path.parent} is on a disk that knows no locks. Use a local disk.") from error
            raise StoreInUse(str(store), int(written) if written.isdigit() else None) from None
        with contextlib.suppress(OSError):  # on a full disk the number is missing, the lock holds all the same
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_open_stores: weakref.WeakSet[DuckStore] = weakref.WeakSet()


def _give_up_locks_of_the_parent() -> None:
    """A forked child shares the parent's lock, and would keep it after the parent's end."""
    for store in list(_open_stores):
        store._file_lock.release()


os.register_at_fork(after_in_child=_give_up_locks_of_the_parent)
