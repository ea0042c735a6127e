"""The content-free copy: complete, rebuilt without fuss, closed to everything but itself, and without a word of anybody's."""

from __future__ import annotations

import contextlib
import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from chatpro.domain.allowance import Charge
from chatpro.domain.chats import AnswerState
from chatpro.errors import StoreInUse, StoreUnavailable
from chatpro.storage import Unit, analytics
from chatpro.storage.analytics import Copy
from chatpro.storage.duckdb import DuckStore
from chatpro.storage.sql import Call, day_number

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
TODAY = day_number(NOW)
M = "q7Zr2vK9wXb4TnLh8sYc"  # high entropy: compression can't hide it by chance, and nothing else spells it


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    opened = DuckStore(tmp_path / "chatpro.duckdb", memory="256MB", threads=1)
    yield opened
    opened.close()


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    opened = Copy(tmp_path / "analytics.duckdb")
    yield opened
    opened.close()


def used(unit: Unit, who: str, at: datetime, tokens_in: int = 900, tokens_out: int = 100) -> None:
    """A ledger row as settling writes it."""
    call = Call(who, f"a{who}", "c", "q", "r", 1, AnswerState.FINISHED, "gpt-4", "1", f"r{who}", "settled", at, 200_000, 2_000, 500, 0, 1_500, at, at, 1)
    unit.add_usage_entry(call, "Freelancer Plus", Charge(tokens_in, tokens_out, "measured", 0), 0, 300, 2_000, "finished", at)


def people_use(store: DuckStore, people: int, *days_ago: int) -> None:
    def work(unit: Unit) -> None:
        for ago in days_ago:
            for n in range(people):
                used(unit, f"p{n}", NOW - timedelta(days=ago))

    store.write(work)


def rows_of(copy: Copy, table: str = "usage_entries") -> int:
    return copy._use(lambda con: len(con.execute(f"SELECT sequence FROM {table}").fetchall()))


def test_every_row_goes_over_once(store: DuckStore, copy: Copy) -> None:
    """Ledger, warnings and refusals; a second carrying over finds nothing to do, a later row goes alone."""
    people_use(store, 3, 2, 1)
    store.write(lambda unit: unit.add_warning("p1", NOW, "75", 200_000, "Freelancer Plus", NOW))
    store.write(lambda unit: unit.add_refusal("p1", NOW, "too_long", 9_000, "d1", "Freelancer Plus", NOW))

    assert copy.carry_over(store, NOW) == 8
    assert copy.carry_over(store, NOW) == 0
    people_use(store, 1, 0)
    assert copy.carry_over(store, NOW) == 1
    assert [rows_of(copy, table) for table in ("usage_entries", "warnings", "refusals")] == [7, 1, 1]


def test_slices_make_no_difference(store: DuckStore, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows a read takes, all of them arrive, also when the last slice is exactly full."""
    monkeypatch.setattr(analytics, "SLICE_ROWS", 5)
    people_use(store, 5, 3, 2, 1)

    assert copy.carry_over(store, NOW) == 15
    assert copy._use(lambda con: con.execute("SELECT list(sequence ORDER BY sequence) FROM usage_entries").fetchall()) == [(list(range(1, 16)),)]


def test_what_was_broken_off_goes_on_where_it_stopped(store: DuckStore, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends in the middle of a long carrying over: no row twice, and the copy doesn't claim to be complete before it is."""
    monkeypatch.setattr(analytics, "SLICE_ROWS", 4)
    people_use(store, 5, 2, 1)
    answers = iter([True, True, False])

    assert copy.carry_over(store, NOW, lambda: next(answers)) == 8
    assert copy.as_of is None
    assert copy.carry_over(store, NOW) == 2
    assert (rows_of(copy), copy.as_of) == (10, NOW)


def test_the_copy_outlives_a_restart(store: DuckStore, copy: Copy, tmp_path: Path) -> None:
    """What was carried over needs no second time, and the file is for its owner's eyes only."""
    people_use(store, 2, 1)
    copy.carry_over(store, NOW)
    copy.close()

    again = Copy(tmp_path / "analytics.duckdb")
    assert (again.carry_over(store, NOW), rows_of(again), again.as_of) == (0, 2, NOW)
    again.close()
    assert stat.S_IMODE((tmp_path / "analytics.duckdb").stat().st_mode) == 0o600


@pytest.mark.parametrize("harm", ["deleted", "emptied", "overwritten", "cut in half", "scratched", "scratched where only reading finds it"])
def test_a_lost_or_damaged_copy_is_made_again(store: DuckStore, copy: Copy, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is a copy: the start goes on, everything is carried over anew, and a log line says so without the file's words."""
    people_use(store, 12, *range(1, 40))
    copy.carry_over(store, NOW)
    before = copy.cells(0, TODAY)
    copy.close()
    path = tmp_path / "analytics.duckdb"
    whole, late = path.read_bytes(), 50 * 16_384
    harmed = {
        "deleted": None,
        "emptied": b"",
        "overwritten": M.encode() * 5_000,
        "cut in half": whole[: len(whole) // 2],
        "scratched": whole[:12_288] + M.encode() * 10 + whole[12_288 + 200 :],
        "scratched where only reading finds it": whole[:late] + M.encode() * 10 + whole[late + 200 :],
    }[harm]
    path.unlink() if harmed is None else path.write_bytes(harmed)

    with caplog.at_level(logging.WARNING, "chatpro.analytics"):
        again = Copy(path)
        for _ in range(3):  # housekeeping comes again each minute
            with contextlib.suppress(StoreUnavailable):
                again.carry_over(store, NOW)

    assert rows_of(again) == 12 * 39
    assert again.cells(0, TODAY) == before
    assert ("made anew" in caplog.text) == (harm != "deleted")
    assert M not in caplog.text
    again.close()


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_a_copy_of_another_store_is_made_again(store: DuckStore, copy: Copy, tmp_path: Path, rows: int) -> None:
    """An older backup put in place of the store has other rows under the same numbers, fewer or more: none of the old ones stays in the figures."""
    people_use(store, 4, 1)
    copy.carry_over(store, NOW)
    other = DuckStore(tmp_path / "other" / "chatpro.duckdb", memory="256MB", threads=1)
    other.write(lambda unit: [used(unit, "somebody", NOW) for _ in range(rows)])

    copy.carry_over(other, NOW)

    assert copy._use(lambda con: con.execute("SELECT DISTINCT account_id FROM usage_entries").fetchall()) == [("somebody",)]
    other.close()


def test_a_copy_of_an_older_shape_is_made_again(store: DuckStore, copy: Copy, tmp_path: Path) -> None:
    """A later version may copy more columns; the old copy is dropped rather than migrated."""
    people_use(store, 2, 1)
    copy.carry_over(store, NOW)
    copy._use(lambda con: con.execute("UPDATE state SET shape = 'of last year'"))
    copy.close()

    again = Copy(tmp_path / "analytics.duckdb")

    assert (again.as_of, again.carry_over(store, NOW)) == (None, 2)
    again.close()


def test_rebuild_comes_to_the_same(store: DuckStore, copy: Copy) -> None:
    """Thrown away and made again, every published cell is what it was."""
    people_use(store, 11, 5, 4, 3, 1)
    copy.carry_over(store, NOW)
    before = copy.cells(0, TODAY)

    assert copy.rebuild(store, NOW) == 44
    assert copy.cells(0, TODAY) == before != []


def test_a_file_that_another_process_holds_is_left_alone(copy: Copy, tmp_path: Path) -> None:
    """Held is not damaged: deleting it would take it from under the other one."""
    copy.close()
    path = tmp_path / "analytics.duckdb"
    code = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        inode = path.stat().st_ino

        with pytest.raises(StoreInUse):
            Copy(path)

        assert path.stat().st_ino == inode
        holder.communicate()


# --- no text, no way out ----------------------------------------------------------------------------------------------


@pytest.mark.fault(109)
def test_no_word_of_anybody_is_in_the_copy(store: DuckStore, copy: Copy, tmp_path: Path) -> None:
    """A marker in message, answer, title and draft is in the store's files and not in the copy's, where an id beside it is found by the same search."""

    def work(unit: Unit) -> None:
        unit.add_chat("p1", "c1", NOW)
        unit.add_message("p1", "m1", "c1", None, "freelancer", f"{M} in a message", NOW)
        unit.add_message("p1", "m2", "c1", "m1", "answer", f"{M} in an answer", NOW)
        unit.add_title("p1", "c1", f"{M} in a title", NOW, "m1")
        unit.keep_draft("p1", "c1", "control-id-of-a-draft", f"{M} in a draft", NOW)
        used(unit, "p1", NOW)
        unit.add_refusal("p1", NOW, "too_long", 9_000, "control-id-of-a-draft", "Freelancer Plus", NOW)

    store.write(work)
    copy.carry_over(store, NOW)

    # By another process: opening a database's file here would drop its lock.
    assert found(M, tmp_path, "chatpro.duckdb*") and found("control-id-of-a-draft", tmp_path, "analytics.duckdb*")
    assert not found(M, tmp_path, "analytics.duckdb*")
    copy.close()
    assert not found(M, tmp_path, "analytics.duckdb*")


def found(text: str, folder: Path, pattern: str) -> bool:
    files = [str(path) for path in folder.glob(pattern) if path.is_file()]
    return subprocess.run(["grep", "-aqF", text, *files]).returncode == 0


@pytest.mark.fault(109)
@pytest.mark.parametrize(
    "attack",
    [
        "ATTACH '{folder}/chatpro.duckdb' AS stolen",
        "ATTACH '{folder}/chatpro.duckdb' AS stolen (READ_ONLY)",
        "SELECT * FROM '{folder}/chatpro.duckdb'",
        "SELECT * FROM read_text('{folder}/secret.txt')",
        "SELECT * FROM read_blob('{folder}/chatpro.duckdb')",
        "SELECT * FROM read_csv('{folder}/secret.txt')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM '{folder}/secret.txt'",
        "COPY state TO '{folder}/out.csv'",
        "COPY state FROM '{folder}/secret.txt'",
        "EXPORT DATABASE '{folder}/out'",
        "IMPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{folder}/secret.txt'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "RESET enable_external_access",
        "SET GLOBAL allowed_directories = ['{folder}']",
        "PRAGMA enable_logging",
        "CREATE PERSISTENT SECRET s (TYPE s3)",
    ],
)
def test_the_connection_of_the_figures_can_open_nothing_else(store: DuckStore, copy: Copy, tmp_path: Path, attack: str) -> None:
    """Whoever got SQL into it reaches neither the store nor any file, on a cursor as little as on the connection."""
    (tmp_path / "secret.txt").write_text(M)
    assert copy._con is not None

    for connection in (copy._con, copy._con.cursor()):
        with pytest.raises(duckdb.Error) as refused:
            connection.execute(attack.format(folder=tmp_path)).fetchall()
        assert M not in str(refused.value)
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "out").exists()


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(110)
def test_fewer_than_ten_people_publish_nothing(store: DuckStore, copy: Copy) -> None:
    """Nine people, every day for two months."""
    people_use(store, 9, *range(60))
    copy.carry_over(store, NOW)

    assert copy.cells(0, TODAY) == []


@pytest.mark.fault(110)
def test_ten_calls_of_one_person_are_not_ten_people(store: DuckStore, copy: Copy) -> None:
    """People are counted, not rows; and an account whose calls all failed stands behind no figure."""
    people_use(store, 9, *[1] * 10)
    store.write(lambda unit: used(unit, "failed", NOW - timedelta(days=1), 0, 0))
    copy.carry_over(store, NOW)

    assert copy.cells(0, TODAY) == []


@pytest.mark.fault(110)
def test_today_is_published_when_it_has_ended(store: DuckStore, copy: Copy) -> None:
    """A day still running would let two looks at it differ by one person; the first quarter of an hour after it is for answers that end late."""
    people_use(store, 12, 0)
    tomorrow = NOW.replace(hour=0, minute=0) + timedelta(days=1)

    copy.carry_over(store, tomorrow + timedelta(minutes=14))
    assert copy.cells(0, TODAY + 1) == []
    copy.carry_over(store, tomorrow + timedelta(minutes=16))
    assert [(c.first, c.last) for c in copy.cells(0, TODAY + 1)] == [(TODAY, TODAY)]


@pytest.mark.fault(110)
def test_a_published_cell_stays_as_it_was(store: DuckStore, copy: Copy) -> None:
    """A row that turns up late with an old day changes no figure that somebody has seen."""
    people_use(store, 12, 3, 2)
    copy.carry_over(store, NOW)
    before = copy.cells(0, TODAY)

    store.write(lambda unit: used(unit, "late", NOW - timedelta(days=3)))
    copy.carry_over(store, NOW + timedelta(minutes=1))

    assert copy.cells(0, TODAY) == before


def test_sums_of_cells_are_sums_of_the_ledger(store: DuckStore, copy: Copy) -> None:
    """Days with too few people are in the cell that ends the waiting, with all their tokens and warnings."""
    people_use(store, 12, 6)
    people_use(store, 3, 5)
    people_use(store, 11, 3)
    store.write(lambda unit: unit.add_warning("p1", NOW, "95", 200_000, "Freelancer Plus", NOW - timedelta(days=5)))
    copy.carry_over(store, NOW)

    first, second = copy.cells(0, TODAY)

    assert (first.days, first.tokens_in, first.tokens_out, first.answers, first.warned_95) == (1, 12 * 900, 12 * 100, 12, 0)
    assert (second.first, second.days, second.tokens_in, second.tokens_out, second.answers, second.warned_95) == (TODAY - 5, 3, 14 * 900, 14 * 100, 14, 1)


def test_a_closed_copy_says_so(copy: Copy) -> None:
    """A question that comes during the server's end gets a sentence, not the driver's words."""
    copy.close()
    copy.close()

    with pytest.raises(StoreUnavailable):
        copy.cells(0, TODAY)
