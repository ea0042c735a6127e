"""DuckDB through the contract, and what is true of DuckDB alone: its lock, its lock-down, its late duplicate keys, its files."""

from __future__ import annotations

import os
import re
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from chatpro.errors import ConfigError, DuplicateKey, StatementFailed, StoreInUse
from chatpro.storage import Unit
from chatpro.storage import duckdb as engine
from chatpro.storage.duckdb import DuckStore
from tests.storage.children import add_role, audited, child, open_store, raw, roles
from tests.storage.contract import StoreContract


class TestDuckDB(StoreContract):
    """The default engine."""

    def open_store(self, folder: Path) -> DuckStore:
        return open_store(folder)

    def shorten_reads(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        monkeypatch.setattr(engine, "READ_SECONDS", seconds)

    def shorten_queue(self, monkeypatch: pytest.MonkeyPatch, units: int) -> None:
        monkeypatch.setattr(engine, "WAITING_UNITS", units)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    store = open_store(tmp_path)
    yield store
    store.close()


# --- the engine's own ways --------------------------------------------------------------------------------------------


@pytest.mark.fault(30)
def test_a_duplicate_key_that_shows_only_at_commit_is_the_same_failure(store: DuckStore) -> None:
    """DuckDB lets both inserts of one key pass and refuses the second commit, with another exception than at the statement."""
    assert store._instance is not None
    rival = store._instance.cursor()

    def work(unit: Unit) -> None:
        add_role("casey")(unit)
        rival.execute("INSERT INTO roles VALUES ('casey', 'freelancer')")

    with pytest.raises(DuplicateKey):
        store.write(work)
    rival.close()
    store.write(add_role("kim"))
    assert roles(store) == {"casey", "kim"}
    assert store.problem is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '/etc/passwd'",
        "COPY roles TO '/tmp/out.csv'",
        "COPY roles FROM '/etc/passwd'",
        "EXPORT DATABASE '/tmp/out'",
        "ATTACH '/tmp/other.duckdb' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "RESET enable_external_access",
        "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "SELECT * FROM folder",
    ],
)
def test_no_statement_reaches_beyond_the_store(store: DuckStore, tmp_path: Path, sql: str) -> None:
    """Files, other databases, extensions and settings are shut for units and for reads, whoever got a statement in."""
    folder = [1, 2, 3]  # a Python variable of this name must not be readable as a table
    assert folder
    with pytest.raises(StatementFailed):
        store.write(lambda unit: raw(unit, sql))
    with pytest.raises(StatementFailed):
        store.read(lambda unit: raw(unit, sql))
    store.write(add_role("casey"))
    assert roles(store) == {"casey"}


def test_settings_can_not_be_changed_once_open(store: DuckStore) -> None:
    """Past the unit's own check too: the engine itself refuses."""
    assert store._instance is not None
    for statement in ("SET memory_limit = '100GB'", "SET lock_configuration = false", "SET enable_external_access = true", "SET threads = 64"):
        with pytest.raises(duckdb.Error, match="locked"):
            store._instance.cursor().execute(statement)


def test_the_engine_takes_the_memory_and_threads_it_is_given(tmp_path: Path) -> None:
    """DuckDB takes what it is given, which by default is most of the machine."""
    store = DuckStore(tmp_path / "store.duckdb", memory="200MB", threads=1)
    wanted = "SELECT name, value FROM duckdb_settings() WHERE name IN ('memory_limit', 'threads', 'temp_directory') ORDER BY name"
    found = dict(store.read(lambda unit: raw(unit, wanted)))
    store.close()
    assert found == {"memory_limit": "190.7 MiB", "threads": "1", "temp_directory": str(tmp_path / "store.duckdb.spill")}


def test_writers_never_meet_so_nothing_has_to_be_retried(store: DuckStore) -> None:
    """Sixteen threads on one row: with transactions beside each other nine of ten would conflict."""
    store.write(lambda unit: raw(unit, "CREATE TABLE counter (n INTEGER)"))
    store.write(lambda unit: raw(unit, "INSERT INTO counter VALUES (0)"))

    def add() -> None:
        for _ in range(5):
            store.write(lambda unit: raw(unit, "UPDATE counter SET n = n + 1"))

    threads = [threading.Thread(target=add) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(lambda unit: raw(unit, "SELECT n FROM counter")) == [(80,)]


# --- one process ------------------------------------------------------------------------------------------------------

TRY_TO_OPEN = """
    try:
        open_store(folder).close()
        print("opened")
    except StoreInUse as error:
        print(error.pid, str(error))
"""


@pytest.mark.fault(65)
def test_a_second_process_is_refused_with_the_holders_number(store: DuckStore, tmp_path: Path) -> None:
    """Whoever starts a second server reads which process to stop."""
    said = child(TRY_TO_OPEN, tmp_path)
    assert said.startswith(f"{os.getpid()} ")
    assert f"in use by process {os.getpid()}" in said


@pytest.mark.fault(65)
def test_a_second_store_in_the_same_process_is_refused_too(store: DuckStore, tmp_path: Path) -> None:
    """Two writers' queues on one file would be two histories; nor does the attempt take the first one's lock away."""
    with pytest.raises(StoreInUse) as caught:
        open_store(tmp_path)
    assert caught.value.pid == os.getpid()
    assert child(TRY_TO_OPEN, tmp_path).startswith(f"{os.getpid()} ")


@pytest.mark.fault(65)
def test_a_link_to_the_folder_leads_to_the_same_lock(store: DuckStore, tmp_path: Path) -> None:
    """Another name for the same place is no way round."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StoreInUse):
        open_store(tmp_path / "link")


@pytest.mark.fault(66)
def test_opening_and_closing_the_file_does_not_let_a_second_process_in(store: DuckStore, tmp_path: Path) -> None:
    """Any open() and close() of the file drops DuckDB's own lock (60,000 rows were lost so); ours holds."""
    store.write(add_role("casey"))
    with open(tmp_path / "store.duckdb", "rb") as file:
        file.read(10)
    assert child(TRY_TO_OPEN, tmp_path).startswith(f"{os.getpid()} ")


@pytest.mark.fault(65)
def test_a_notebook_that_holds_the_file_is_named(tmp_path: Path) -> None:
    """It knows nothing of our lock; DuckDB's own message has its number."""
    open_store(tmp_path).close()
    hold = """
        import duckdb
        held = duckdb.connect(str(folder / "store.duckdb"))
        print(os.getpid(), flush=True)
        sys.stdin.read()
    """
    with child.running(hold, tmp_path) as notebook:
        assert notebook.stdout is not None
        pid = int(notebook.stdout.readline())
        with pytest.raises(StoreInUse) as caught:
            open_store(tmp_path)
        assert caught.value.pid == pid
    open_store(tmp_path).close()


@pytest.mark.fault(65)
def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """The kernel gives it back, however the holder ended; nobody has to delete a file first."""
    child("open_store(folder); os.kill(os.getpid(), 9)", tmp_path, expect=-9)
    assert (tmp_path / "store.duckdb.lock").read_text().strip().isdigit()
    open_store(tmp_path).close()


def test_a_forked_child_can_not_use_the_store_and_keeps_no_lock(tmp_path: Path) -> None:
    """A worker that somebody forks would hang on locks of threads it doesn't have, and hold the file after its parent's end."""
    code = """
        import signal
        store = open_store(folder)
        if os.fork() == 0:
            for use in (lambda: store.write(lambda unit: None), lambda: store.read(lambda unit: None)):
                try:
                    use()
                except StoreUnavailable as error:
                    print(error, flush=True)
            store.close()
            print("child lives", flush=True)
            sys.stdin.read()
            os._exit(0)
        signal.pause()
    """
    with child.running(code, tmp_path) as parent:
        lines = [parent.stdout.readline() for _ in range(3)] if parent.stdout else []
        assert "forked child" in lines[0] and "forked child" in lines[1]
        assert lines[2] == "child lives\n"
        with pytest.raises(StoreInUse):
            open_store(tmp_path)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
        open_store(tmp_path).close()


# --- files ------------------------------------------------------------------------------------------------------------


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.fault(64)
def test_only_this_user_may_enter_the_folder_and_read_the_files(tmp_path: Path) -> None:
    """The log and the lock too: the log is plain text."""
    folder = tmp_path / "var" / "store"
    store = open_store(folder)
    store.write(add_role("casey"))
    files = {path.name: _mode(path) for path in folder.iterdir() if path.is_file()}
    store.close()
    assert _mode(folder) == 0o700
    assert set(files) >= {"store.duckdb", "store.duckdb.wal", "store.duckdb.lock", "store.duckdb.witness"}
    assert set(files.values()) == {0o600}


@pytest.mark.fault(64)
def test_a_folder_and_file_that_others_may_read_are_closed_to_them(tmp_path: Path) -> None:
    """Unpacked from a backup they stand as the unpacker made them."""
    open_store(tmp_path).close()
    os.chmod(tmp_path, 0o755)
    os.chmod(tmp_path / "store.duckdb", 0o644)
    open_store(tmp_path).close()
    assert (_mode(tmp_path), _mode(tmp_path / "store.duckdb")) == (0o700, 0o600)


def test_a_folder_shared_by_all_users_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Closing /tmp to everybody else would take the machine down."""
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o1777)
    with pytest.raises(ConfigError, match="folder of its own"):
        open_store(shared)
    assert _mode(shared) == 0o1777
    assert list(shared.iterdir()) == []


@pytest.mark.fault(55)
def test_spilled_text_of_an_earlier_crash_is_gone_after_the_start(tmp_path: Path) -> None:
    """Sorts spill plain text; DuckDB leaves it there after a crash and after the next start too."""
    open_store(tmp_path).close()
    spill = tmp_path / "store.duckdb.spill"
    spill.mkdir()
    (spill / "duckdb_temp_storage_DEFAULT-0.tmp").write_text("what somebody wrote")
    store = open_store(tmp_path)
    assert list(spill.iterdir()) == []
    assert _mode(spill) == 0o700
    store.close()


def test_nothing_is_left_behind_by_a_close(tmp_path: Path) -> None:
    """No log, no spill folder, no half-made file: what remains is the store, its lock and its witness."""
    store = open_store(tmp_path)
    store.write(audited)
    store.close()
    assert {path.name for path in tmp_path.iterdir()} == {"store.duckdb", "store.duckdb.lock", "store.duckdb.witness"}


def test_a_close_beside_a_read_that_needs_the_old_rows_still_folds_the_log(tmp_path: Path) -> None:
    """A checkpoint is refused then; it is tried again when the read is over."""
    store = open_store(tmp_path)
    store.write(add_role("casey"))
    reading, go_on = threading.Event(), threading.Event()

    def work(unit: Unit) -> None:
        raw(unit, "SELECT * FROM roles")
        reading.set()
        go_on.wait(10)

    reader = threading.Thread(target=lambda: store.read(work))
    reader.start()
    reading.wait(10)
    store.write(lambda unit: raw(unit, "UPDATE roles SET role = 'admin'"))
    closer = threading.Thread(target=store.close)
    closer.start()
    go_on.set()
    reader.join(10)
    closer.join(10)
    assert not (tmp_path / "store.duckdb.wal").exists()


# --- the words of the house -------------------------------------------------------------------------------------------


def test_the_engine_is_named_in_no_sentence(tmp_path: Path) -> None:
    """People read these; the name of a library and its classes help nobody."""
    sentences = [value for name, value in vars(engine).items() if name.isupper() and isinstance(value, str)]
    assert len(sentences) > 5
    assert not [s for s in sentences if re.search("duckdb|exception|cursor", s, re.IGNORECASE)]


def test_a_store_that_was_never_opened_leaves_no_thread(tmp_path: Path) -> None:
    """A refused start ends at once and holds nothing."""
    (tmp_path / "store.duckdb").write_text("no database")
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(Exception, match="damaged"):
            open_store(tmp_path)
    assert threading.active_count() == before
