"""A disk that is full, read-only, flips bytes or loses files: the store says so in one sentence, and never begins afresh over what it had.

Each of these looks like an empty or a healthy store if nobody checks, and then charges and answers are gone for good.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from chatpro.domain.disputes import first_broken
from chatpro.errors import ChatProError, ConfigError, StoreDamaged, StoreUnavailable
from chatpro.storage import Head, Store, Unit, witness
from chatpro.storage import duckdb as engine
from chatpro.storage.duckdb import DuckStore
from tests.conftest import IN_CI, trials
from tests.storage.children import NOON, add_role, audited, charged, child, open_store, raw, roles

ENTRIES = 50

LOSE_THE_PROCESS = f"""
    engine.WITNESS_SECONDS = 0.0
    store = open_store(folder)
    for n in range({ENTRIES}):
        store.write(charged)
        store.write(audited)
    while '"audit_count": {ENTRIES}' not in (folder / "store.duckdb.witness").read_text():
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
"""


def until(true: Callable[[], object]) -> None:
    """Wait for something another thread is about to do."""
    for _ in range(3_000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def draft(n: int, size: int) -> Callable[[Unit], None]:
    """A row of `size` characters that don't compress."""
    text = random.Random(n).randbytes(size // 2).hex()
    return lambda unit: raw(unit, "INSERT INTO drafts VALUES ('casey', ?, ?, 'd', ?, ?)", f"chat-{n}", n, text, NOON) and None


def drafts(store: Store) -> set[int]:
    return {row[0] for row in store.read(lambda unit: raw(unit, "SELECT sequence FROM drafts"))}


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A folder with a closed store in it that counts entries."""
    store = open_store(tmp_path)
    for n in range(20):
        store.write(charged)
        store.write(audited)
        store.write(draft(n, 10_000))
    store.close()
    return tmp_path


# --- a damaged or missing file ----------------------------------------------------------------------------------------


def _flip(path: Path, at: int, count: int = 16) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + count] = bytes(b ^ 0xFF for b in data[at : at + count])
    path.write_bytes(data)


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "header flipped": lambda path: _flip(path, 8),
    "both block headers flipped": lambda path: (_flip(path, 4096 + 16), _flip(path, 8192 + 16)),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut to its header": lambda path: os.truncate(path, 4096),
    "empty": lambda path: os.truncate(path, 0),
    "a text": lambda path: path.write_text("Dear client,\n" * 1_000),
    "a folder": _as_directory,
}


@pytest.mark.fault(62)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_store_refuses_the_start_and_stays_as_it_is(filled: Path, damage: Callable[[Path], object]) -> None:
    """One clear sentence, no fresh file in its place, nothing changed that somebody might still rescue; a whole copy put back opens."""
    path = filled / "store.duckdb"
    whole = path.read_bytes()
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="damaged, or no store of this program") as caught:
            open_store(filled)
        assert "\n" not in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {p.name for p in filled.iterdir()} == {"store.duckdb", "store.duckdb.lock", "store.duckdb.witness"}

    if path.is_dir():
        path.rmdir()
    path.write_bytes(whole)
    store = open_store(filled)
    assert (store.gap, drafts(store)) == (None, set(range(20)))
    store.close()


@pytest.mark.fault(62)
@pytest.mark.trials
def test_wherever_sixteen_bytes_are_flipped_the_process_lives_to_say_so(filled: Path) -> None:
    """It opens (the bytes were in free space or are found by the first read of them), or it refuses; it never crashes or begins afresh."""
    said = child(
        f"""
        import random
        from chatpro.storage.duckdb import DuckStore
        path, whole, dice = folder / "store.duckdb", (folder / "store.duckdb").read_bytes(), random.Random({trials(0, 1)})
        for n in range({trials(15, 300)}):
            at = dice.randrange(len(whole) - 16)
            path.write_bytes(whole[:at] + bytes(b ^ 0xFF for b in whole[at:at + 16]) + whole[at + 16:])
            if (pid := os.fork()) == 0:
                try:
                    store = open_store(folder)
                    try:
                        told = f"opened {{len(store.read(lambda unit: raw(unit, 'SELECT * FROM drafts')))}} {{store.gap}}"
                    except StoreUnavailable:
                        told = "opened, then refused to read"
                    store.close()
                except StoreDamaged:
                    told = "refused"
                print(told, flush=True)
                os._exit(0)
            print(os.waitpid(pid, 0)[1], at, flush=True)
        """,
        filled,
    ).splitlines()
    told, ends = said[::2], said[1::2]
    assert [end for end in ends if not end.startswith("0 ")] == []
    assert set(told) <= {"opened 20 None", "opened, then refused to read", "refused"}


@pytest.mark.fault(62)
def test_a_missing_store_beside_a_witness_that_counts_entries_refuses_the_start(filled: Path) -> None:
    """A disk that wasn't mounted or a deleted file must not look like a first start."""
    (filled / "store.duckdb").unlink()
    with pytest.raises(StoreDamaged, match="is missing"):
        open_store(filled)
    assert not (filled / "store.duckdb").exists()


@pytest.mark.fault(62)
def test_a_missing_store_beside_its_log_refuses_the_start(tmp_path: Path) -> None:
    """The log alone holds the newest answers; a fresh file would make it worthless."""
    child(LOSE_THE_PROCESS, tmp_path, expect=-9)
    (tmp_path / "store.duckdb").unlink()
    (tmp_path / "store.duckdb.witness").unlink()
    with pytest.raises(StoreDamaged, match="is missing"):
        open_store(tmp_path)
    assert not (tmp_path / "store.duckdb").exists()


def test_a_first_start_in_an_empty_folder_just_begins(tmp_path: Path) -> None:
    """Also where an earlier first start was refused, or ended before anything was kept."""
    for _ in range(2):
        store = open_store(tmp_path / "var")
        assert (store.gap, store.problem) == (None, None)
        store.close()
        (tmp_path / "var" / "store.duckdb").unlink()


@pytest.mark.fault(64)
@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
def test_a_file_that_is_taken_away_while_running_is_noticed_before_the_next_commit(filled: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written into a file without a name is gone with the process: nothing is acknowledged any more, and health says why."""
    monkeypatch.setattr(engine, "RETRY_SECONDS", 0.05)
    path, elsewhere = filled / "store.duckdb", filled / "elsewhere"
    store = open_store(filled)
    store.write(add_role("casey"))
    before = (filled / "store.duckdb.witness").read_text()
    os.link(path, elsewhere)
    if how == "replaced":
        shutil.copy(path, filled / "copy")
        os.replace(filled / "copy", path)
    else:
        path.unlink()

    with pytest.raises(StoreUnavailable, match="deleted, moved or replaced"):
        store.write(add_role("kim"))
    assert store.problem is not None and "replaced" in store.problem
    assert roles(store) == {"casey"}
    assert (filled / "store.duckdb.witness").read_text() == before

    os.replace(elsewhere, path)
    until(lambda: store.problem is None)
    store.write(add_role("lee"))
    store.close()
    again = open_store(filled)
    assert roles(again) == {"casey", "lee"}
    again.close()


@pytest.mark.fault(64)
def test_a_file_that_goes_in_the_middle_of_a_unit_is_noticed_before_its_commit(filled: Path) -> None:
    """The last moment at which it can be said is just before the caller is told that it is saved."""
    store = open_store(filled)

    def work(unit: Unit) -> None:
        add_role("casey")(unit)
        os.rename(filled / "store.duckdb", filled / "elsewhere")

    with pytest.raises(StoreUnavailable, match="deleted, moved or replaced"):
        store.write(work)
    assert roles(store) == set()
    store.close()


@pytest.mark.fault(64)
def test_a_log_that_is_taken_away_while_running_costs_nothing(tmp_path: Path) -> None:
    """The engine would go on writing to a log without a name, and a crash would take all of it."""
    said = child(
        """
        store = open_store(folder)
        log = folder / "store.duckdb.wal"
        store.write(add_role("casey"))
        for name in ("kim", "lee"):
            log.unlink()
            store.write(add_role(name))
            for _ in range(500):
                if store.submit(lambda unit: None).result() is None and store._log_identity is None:
                    break
                time.sleep(0.01)
            store.write(add_role(name + "-after"))
            print(log.exists())
        os.kill(os.getpid(), 9)
        """,
        tmp_path,
        expect=-9,
    )
    assert said.split() == ["True", "True"]
    store = open_store(tmp_path)
    assert roles(store) == {"casey", "kim", "kim-after", "lee", "lee-after"}
    assert store.gap is None
    store.close()


@pytest.mark.fault(64)
def test_closing_does_not_write_into_a_file_that_somebody_else_put_there(filled: Path) -> None:
    """The copy that was put in place is theirs, with its witness."""
    store = open_store(filled)
    store.write(audited)
    shutil.copy(filled / "store.duckdb", filled / "copy")
    os.replace(filled / "copy", filled / "store.duckdb")
    before = {p.name: p.read_bytes() for p in filled.iterdir() if p.suffix in (".duckdb", ".witness")}
    store.close()
    assert {p.name: p.read_bytes() for p in filled.iterdir() if p.suffix in (".duckdb", ".witness")} == before


# --- the witness ------------------------------------------------------------------------------------------------------


def _gap_is_found_and_told(folder: Path, *, beyond: int) -> DuckStore:
    """The start goes on; gap, audit entry and numbers say what happened. `beyond` is the last number that may be somewhere else."""
    store = open_store(folder)
    assert store.gap is not None
    assert (store.gap.witness.audit_count, store.gap.witness.ledger_count) == (beyond, beyond)
    entries = store.read(lambda unit: unit.audit_entries())
    assert (entries[-1].actor, entries[-1].action) == ("system", "store.behind_witness")
    assert entries[-1].sequence == beyond + 1
    assert entries[-1].reason == f"usage entries: {store.gap.store.ledger_count} of {beyond}; audit entries: {store.gap.store.audit_count} of {beyond}"
    assert store.write(charged) == beyond + 1
    assert store.write(audited) == beyond + 2
    assert first_broken(store.read(lambda unit: unit.audit_entries())) is None
    assert store.problem is None
    return store


@pytest.mark.fault(63)
def test_a_log_with_a_flipped_byte_is_found_out(tmp_path: Path) -> None:
    """DuckDB refuses it, or opens it without a word; either way what stands before the byte is saved, the start goes on and says what is missing.

    The log as it was stays for whoever wants to try more, until the next start.
    """
    child(LOSE_THE_PROCESS, tmp_path, expect=-9)
    log = tmp_path / "store.duckdb.wal"
    _flip(log, log.stat().st_size // 2, count=1)
    damaged = log.read_bytes()
    store = _gap_is_found_and_told(tmp_path, beyond=ENTRIES)
    assert store.gap is not None and 0 < store.gap.store.audit_count < ENTRIES
    store.close()
    assert (tmp_path / "store.duckdb.wal.damaged").read_bytes() == damaged

    again = open_store(tmp_path)
    assert again.gap is None
    again.close()
    assert not (tmp_path / "store.duckdb.wal.damaged").exists()


@pytest.mark.fault(63)
@pytest.mark.trials
def test_no_flipped_byte_of_the_log_goes_unnoticed(tmp_path: Path) -> None:
    """Anywhere: the entries are all there, or the gap is found, or the start is refused."""
    child(LOSE_THE_PROCESS, tmp_path, expect=-9)
    log = tmp_path / "store.duckdb.wal"
    outcomes = []
    for n in range(trials(6, 100)):
        folder = tmp_path / f"{n}"
        folder.mkdir()
        for name in ("store.duckdb", "store.duckdb.wal", "store.duckdb.witness"):
            shutil.copy(tmp_path / name, folder / name)
        _flip(folder / "store.duckdb.wal", random.randrange(log.stat().st_size), count=1)
        try:
            store = open_store(folder)
        except StoreDamaged:
            outcomes.append("refused")
            continue
        kept = [e for e in store.read(lambda unit: unit.audit_entries()) if e.action == "test.done"]
        outcomes.append("gap" if store.gap else "whole" if len(kept) == ENTRIES else "LOST WITHOUT A WORD")
        store.close()
    assert set(outcomes) <= {"refused", "gap", "whole"}


@pytest.mark.fault(63)
def test_a_missing_log_is_found_out(tmp_path: Path) -> None:
    """Copied without its log, the store looks like one of yesterday."""
    child(LOSE_THE_PROCESS, tmp_path, expect=-9)
    (tmp_path / "store.duckdb.wal").unlink()
    _gap_is_found_and_told(tmp_path, beyond=ENTRIES).close()


@pytest.mark.fault(63, 68)
def test_an_older_copy_is_found_out(filled: Path) -> None:
    """After a restore the numbers of what was lost are not given again."""
    shutil.copy(filled / "store.duckdb", filled / "backup")
    store = open_store(filled)
    for _ in range(7):
        store.write(charged)
        store.write(audited)
    store.close()
    os.replace(filled / "backup", filled / "store.duckdb")
    _gap_is_found_and_told(filled, beyond=27).close()


@pytest.mark.fault(102)
@pytest.mark.parametrize(
    "tampering",
    [
        "DELETE FROM audit_entries WHERE sequence = (SELECT max(sequence) FROM audit_entries)",
        "DELETE FROM audit_entries WHERE sequence = 7",
        "UPDATE audit_entries SET hash = 'forged' WHERE sequence = (SELECT max(sequence) FROM audit_entries)",
        "DELETE FROM usage_entries WHERE sequence = 7",
    ],
)
def test_entries_taken_out_or_changed_by_hand_are_found_out(filled: Path, tampering: str) -> None:
    """A chain alone doesn't show that its end was cut off, nor a ledger that a row is missing."""
    with duckdb.connect(str(filled / "store.duckdb")) as connection:
        connection.execute(tampering)
    store = open_store(filled)
    assert store.gap is not None
    store.close()


@pytest.mark.fault(102)
def test_a_witness_that_was_taken_away_is_on_record(filled: Path) -> None:
    """Otherwise whoever cuts the chain's end deletes the witness too."""
    (filled / "store.duckdb.witness").unlink()
    store = open_store(filled)
    assert store.gap is None
    assert store.read(lambda unit: unit.audit_entries())[-1].action == "store.witness_missing"
    store.close()


@pytest.mark.parametrize("words", ["", "{", "[]", "null", '{"ledger_count": 1}', '{"ledger_count": "many"}'])
def test_a_witness_that_says_nothing_refuses_the_start(filled: Path, words: str) -> None:
    """It is replaced in one step, so half of one was never written by us."""
    (filled / "store.duckdb.witness").write_text(words)
    with pytest.raises(StoreDamaged, match="witness"):
        open_store(filled)


def test_the_witness_is_written_at_most_once_a_second_and_at_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand commits don't cost a thousand files; what it says last is what is there."""
    saved: list[Head] = []
    save = witness.save
    monkeypatch.setattr(witness, "save", lambda path, head: (saved.append(head), save(path, head)))
    began = time.monotonic()
    store = open_store(tmp_path)
    for _ in range(60):
        store.write(audited)
    store.close()
    assert len(saved) <= 2 + (time.monotonic() - began) / engine.WITNESS_SECONDS
    assert (saved[0].audit_count, saved[-1].audit_count) == (0, 60)
    assert witness.load(tmp_path / "store.duckdb.witness") == saved[-1]


def test_the_witness_follows_when_nothing_more_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last commit of a quiet evening is witnessed too; what nobody wrote is not."""
    monkeypatch.setattr(engine, "WITNESS_SECONDS", 0.05)
    store = open_store(tmp_path)
    store.write(audited)
    store.write(charged)
    until(lambda: (head := witness.load(tmp_path / "store.duckdb.witness")) and (head.ledger_count, head.audit_count) == (1, 1))
    written = (tmp_path / "store.duckdb.witness").stat().st_mtime_ns
    time.sleep(0.15)
    assert (tmp_path / "store.duckdb.witness").stat().st_mtime_ns == written
    store.close()


def test_the_witness_is_never_ahead_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that counts what a crash then takes would cry for nothing."""
    monkeypatch.setattr(engine, "WITNESS_SECONDS", 0.0)
    ahead: list[tuple[int, int]] = []
    save = witness.save

    def check(path: Path, head: Head) -> None:
        save(path, head)
        if isinstance(threading.current_thread(), threading._MainThread):
            return  # at opening
        there = store._instance.cursor().execute("SELECT count(*) FROM audit_entries").fetchone() if store._instance else (0,)
        if there is None or head.audit_count > there[0]:
            ahead.append((head.audit_count, there[0] if there else -1))

    monkeypatch.setattr(witness, "save", check)
    store = open_store(tmp_path)
    for _ in range(30):
        store.write(audited)
        with pytest.raises(KeyError):
            store.write(lambda unit: audited(unit) and {}["nothing"])
    store.close()
    assert ahead == []


def test_a_witness_that_can_not_be_written_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The store itself is well; it is said once, not each second, and made good when it works again."""
    monkeypatch.setattr(engine, "WITNESS_SECONDS", 0.0)
    store = open_store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(witness, "save", _no_room)
        for _ in range(5):
            store.write(audited)
        until(lambda: "witness" in caplog.text)
    store.write(audited)
    store.close()
    assert caplog.text.count("witness beside the store can't be written") == 1
    head = witness.load(tmp_path / "store.duckdb.witness")
    assert head is not None and head.audit_count == 6


def _no_room(path: Path, head: Head) -> None:
    raise OSError(28, os.strerror(28))


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MB that can really be filled."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(disk)], capture_output=True).returncode:
        if IN_CI:
            pytest.fail("CI must be able to mount a small disk")
        warnings.warn("THE FULL DISK WAS NOT TESTED: mounting a small one is not allowed here (it takes root)", stacklevel=1)
        pytest.skip("mounting is not allowed here, so a full disk is unproven by this run")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk: Path, leave: int) -> Path:
    room = os.statvfs(disk)
    filler = disk / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave)
    return filler


@pytest.mark.fault(60)
@pytest.mark.parametrize("leave", [20_000_000, 1_000_000], ids=["at a checkpoint", "at a commit"])
def test_a_full_disk_loses_nothing_that_was_acknowledged(small_disk: Path, leave: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instance dies with all its cursors and is opened again; who wrote hears that nothing was kept; when there is room all goes on."""
    store = open_store(small_disk)
    filler = _fill(small_disk, leave)
    kept: set[int] = set()
    failed: list[StoreUnavailable] = []
    for n in range(2_000):
        try:
            store.write(draft(n, 100_000 if leave > 5_000_000 else 10_000))
            kept.add(n)
        except StoreUnavailable as error:
            failed.append(error)
            if len(failed) == 3:
                break
    assert len(kept) > 20 and len(failed) == 3
    assert {str(error) for error in failed} == {"Saving is not possible: the disk is full. Nothing was charged; your text is still here."}
    assert store.problem == "Saving is not possible: the disk is full."
    assert drafts(store) == kept

    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    store.write(draft(5_000, 1_000))
    assert store.problem is None
    assert drafts(store) == kept | {5_000}
    store.close()
    again = open_store(small_disk)
    assert (again.gap, drafts(again)) == (None, kept | {5_000})
    again.close()


@pytest.mark.fault(60)
def test_saving_comes_back_by_itself_when_there_is_room_again(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the page says that nothing can be saved, nobody sends: the store has to find out on its own."""
    monkeypatch.setattr(engine, "RETRY_SECONDS", 0.05)
    store = open_store(small_disk)
    filler = _fill(small_disk, 300_000)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        for n in range(200):
            store.write(draft(n, 10_000))
    time.sleep(0.15)
    assert store.problem is not None
    filler.unlink()
    until(lambda: store.problem is None)
    store.close()


@pytest.mark.fault(60)
def test_who_reads_while_the_disk_fills_gets_rows_or_a_sentence(small_disk: Path) -> None:
    """Readers of the dead instance are not left hanging, and see nothing that was not committed."""
    store = open_store(small_disk)
    stop = threading.Event()
    strange: list[object] = []
    reads: list[int] = []

    def reader() -> None:
        while not stop.is_set():
            try:
                reads.append(len(drafts(store)))
            except StoreUnavailable:
                pass
            except BaseException as error:
                strange.append(error)

    readers = [threading.Thread(target=reader) for _ in range(3)]
    for thread in readers:
        thread.start()
    kept = 0
    try:
        with pytest.raises(StoreUnavailable):
            for n in range(1_000):
                store.write(draft(n, 100_000))
                kept += 1
    finally:
        stop.set()
        for thread in readers:
            thread.join(10)
    assert strange == []
    assert max(reads) <= kept
    assert len(drafts(store)) == kept
    store.close()


@pytest.mark.fault(60)
def test_a_start_on_a_full_disk_says_so_or_reads(small_disk: Path) -> None:
    """A first start can't make its file; a store that is there opens and can be read."""
    filler = _fill(small_disk, 0)
    with pytest.raises((StoreUnavailable, ConfigError), match="disk is full|No space left"):
        open_store(small_disk)
    filler.unlink()
    store = open_store(small_disk)
    store.write(add_role("casey"))
    store.close()
    _fill(small_disk, 0)
    again = open_store(small_disk)
    assert roles(again) == {"casey"}
    with pytest.raises(StoreUnavailable, match="disk is full"):
        again.write(add_role("kim"))
    again.close()


def test_the_log_is_folded_into_the_store_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start has to read it again, and it would grow for as long as the program runs."""
    monkeypatch.setattr(engine, "CHECKPOINT_BYTES", 50_000)
    store = open_store(tmp_path)
    sizes = []
    for n in range(30):
        store.write(draft(n, 10_000))
        sizes.append(_log_size(tmp_path))
    until(lambda: _log_size(tmp_path) < 50_000)
    assert max(sizes) < 100_000
    assert drafts(store) == set(range(30))
    store.close()


@pytest.mark.fault(72)
def test_the_log_is_folded_although_somebody_reads_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is refused while a read needs rows that were changed since: beyond a size the writer lets those reads end."""
    monkeypatch.setattr(engine, "CHECKPOINT_BYTES", 20_000)
    monkeypatch.setattr(engine, "CHECKPOINT_WAIT_BYTES", 60_000)
    monkeypatch.setattr(engine, "CHECKPOINT_AGAIN_SECONDS", 0.02)
    store = open_store(tmp_path)
    store.write(add_role("casey"))
    stop = threading.Event()

    def slow(unit: Unit) -> None:
        raw(unit, "SELECT * FROM roles")
        time.sleep(0.1)

    def reader(begin: float) -> None:
        time.sleep(begin)
        while not stop.is_set():
            store.read(slow)

    readers = [threading.Thread(target=reader, args=(0.03 * n,)) for n in range(4)]
    for thread in readers:
        thread.start()
    sizes = []
    for n in range(60):
        store.write(draft(n, 5_000))
        store.write(lambda unit: raw(unit, "UPDATE roles SET role = 'admin' WHERE role = 'freelancer'"))
        store.write(lambda unit: raw(unit, "UPDATE roles SET role = 'freelancer' WHERE role = 'admin'"))
        sizes.append(_log_size(tmp_path))
        time.sleep(0.01)
    stop.set()
    for thread in readers:
        thread.join(10)
    store.close()
    assert max(sizes) < 100_000


def _log_size(folder: Path) -> int:
    try:
        return (folder / "store.duckdb.wal").stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.fault(63)
def test_a_gap_that_can_not_be_put_on_record_yet_is_not_forgotten(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The witness stays as it is until the audit has the entry, or the next start would find nothing missing."""
    monkeypatch.setattr(engine, "WITNESS_SECONDS", 0.05)
    shutil.copy(filled / "store.duckdb", filled / "backup")
    store = open_store(filled)
    store.write(audited)
    store.close()
    os.replace(filled / "backup", filled / "store.duckdb")
    with monkeypatch.context() as patch:
        patch.setattr(Unit, "append_audit", _refuse_all)
        for n in range(2):
            store = open_store(filled)
            assert store.gap is not None
            store.write(add_role(f"{n}"))
            time.sleep(0.1)
            store.close()

    store = open_store(filled)
    assert store.gap is not None
    assert [e.action for e in store.read(lambda unit: unit.audit_entries(1))] == ["store.behind_witness"]
    store.close()
    store = open_store(filled)
    assert store.gap is None
    store.close()


def _refuse_all(*_: object, **__: object) -> None:
    raise StoreUnavailable()


@pytest.mark.fault(64)
def test_a_read_only_disk_refuses_the_start(small_disk: Path) -> None:
    """Nobody should find out at the first send."""
    open_store(small_disk).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ConfigError, match="can't be used: Read-only file system"):
        open_store(small_disk)


def test_a_folder_that_can_not_be_made_refuses_the_start(tmp_path: Path) -> None:
    """A file stands in its place, say."""
    (tmp_path / "var").write_text("")
    with pytest.raises(ConfigError, match="can't be used"):
        open_store(tmp_path / "var")


@pytest.mark.fault(94)
def test_no_word_of_a_text_comes_out_when_the_disk_fails(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log lines of the worst hour are the ones that get sent round."""
    store = open_store(small_disk)
    _fill(small_disk, 300_000)
    text = "kestrel-7f3a9c51e2 " * 500
    with pytest.raises(ChatProError) as caught:
        for n in range(200):
            store.write(lambda unit, n=n: unit.keep_draft("casey", f"chat-{n}", "d", text, NOON))  # type: ignore[misc]
    store.close()
    assert "kestrel" not in caplog.text + str(caught.value) + str(caught.value.__cause__)
    assert "disk is full" in caplog.text
