"""Deleting for good: what is past its days is in no file, what is not is all there, and whoever is cut off in the middle loses nothing.

A search for a marker proves nothing by itself: packed text is not found while it is still there. So each search here has its control,
a marker that must be found, before the purge and after it; and files are searched by another process, because this one would lose
the database's lock by closing the file again.
"""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chatpro.domain.accounts import Account
from chatpro.domain.allowance import Accepted, SendKind
from chatpro.errors import PurgeFailed, StoreUnavailable
from chatpro.storage import Unit, heap, rewrite
from chatpro.storage import duckdb as engine
from chatpro.storage.duckdb import DuckStore
from chatpro.storage.rewrite import FATES, Kept, Rewritten, Swept
from chatpro.storage.sql import PurgeRun
from tests.conftest import trials
from tests.storage.children import NOON, audited, child, open_store, raw
from tests.storage.test_disk import small_disk  # noqa: F401 (a fixture)

SINCE = NOON - timedelta(days=90)
DELETED = NOON - timedelta(minutes=10)
OLD, YOUNG = SINCE, SINCE + timedelta(seconds=1)
GONE, STAYS = "k3strel7f3a9c", "w4gtail5b1d0e"
"""Markers: of what has to go, and of what has to stay."""

LOOK = """
import sys, pathlib
for word in sys.argv[2:]:
    print(sum(path.read_bytes().count(word.encode()) for path in pathlib.Path(sys.argv[1]).rglob("*") if path.is_file()))
"""


def hits(folder: Path, *words: str) -> list[int]:
    """How often each word stands in the files of a folder, counted by another process."""
    return [int(n) for n in subprocess.run([sys.executable, "-c", LOOK, str(folder), *words], capture_output=True, text=True, check=True).stdout.split()]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store packs no text, so that it can be found where it is."""
    settings = DuckStore._settings
    monkeypatch.setattr(DuckStore, "_settings", lambda self: {**settings(self), "force_compression": "uncompressed"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckStore]:
    store = open_store(tmp_path)
    yield store
    store.close()


def purge(store: DuckStore, **given: Any) -> dict[str, int]:
    return store.purge(SINCE, DELETED, **{"gentle": False, **given}).removed


def words(dice: random.Random, mark: str, kind: str) -> str:
    """Text of a few hundred letters that holds a marker and can't be packed away."""
    return f"{dice.randbytes(dice.randrange(20, 200)).hex()} {mark}-{kind} {dice.randbytes(30).hex()}"


def write_chats(unit: Unit, people: int = 7, chats: int = 4, messages: int = 8, seed: int = 1) -> None:
    """People with chats of which half is past its days, mixed in the order of arrival. What has to go is marked so, what stays too."""
    dice = random.Random(seed)
    for number in range(people * chats):
        account, chat = f"p{number % people}", f"c{seed}-{number}"
        deleted = number % 7 == 3
        unit.add_chat(account, chat, OLD - timedelta(days=1))
        unit.add_title(account, chat, words(dice, GONE, "title"), OLD, f"m{chat}-0")
        if not deleted and number % 2:
            unit.add_title(account, chat, words(dice, STAYS, "title"), OLD)
        unit.keep_draft(account, chat, "d", words(dice, GONE, "draft"), YOUNG)
        unit.keep_draft(account, chat, "d", "" if deleted or number % 3 else words(dice, STAYS, "draft"), YOUNG)
    for number in sorted(range(people * chats * messages), key=lambda n: dice.random()):
        of = number % (people * chats)
        account, chat, goes = f"p{of % people}", f"c{seed}-{of}", number // (people * chats) < messages // 2
        mark = GONE if goes or of % 7 == 3 else STAYS
        unit.add_message(account, f"m{chat}-{number}", chat, None, "freelancer", words(dice, mark, "message"), OLD if goes else YOUNG)
    for of in range(3, people * chats, 7):
        unit.delete_chat(f"p{of % people}", f"c{seed}-{of}", DELETED)


def staying(store: DuckStore) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that have to stay, as they stand in the store."""
    return {
        table: store.read(lambda unit, t=table: sorted(raw(unit, f"SELECT * FROM {t} WHERE text LIKE '%{STAYS}%'"), key=repr))  # type: ignore[misc]
        for table in ("messages", "titles", "drafts")
    }


def marked(store: DuckStore) -> int:
    """How many messages that have to go are still there."""
    return int(store.read(lambda unit: raw(unit, f"SELECT count(*) FROM messages WHERE text LIKE '%{GONE}%'"))[0][0])


# --- what becomes of each table -----------------------------------------------------------------------------------------

TEXT = {"messages", "titles", "drafts", "answer_parts"}
NAMES = {"accounts", "closed_sign_ins"}
GO_WITH_IT = {"chats", "answers", "unread_answers", "remembering"}
KEPT = {
    "account_changes", "carried_usage", "roles", "entitlements", "consents", "anchors", "cycles", "reservations", "usage_entries", "warnings", "refusals",
    "own_limits", "dismissals", "thumbs", "audit_entries", "purges", "schema_migrations",
}  # fmt: skip


def test_every_table_has_its_fate(store: DuckStore) -> None:
    """By name. A new table turns this red until somebody has decided what becomes of it."""
    there = {row[0] for row in store.read(lambda unit: raw(unit, "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"))}

    assert there == TEXT | NAMES | GO_WITH_IT | KEPT == set(FATES)
    assert {table for table, fate in FATES.items() if isinstance(fate, Rewritten)} == TEXT | NAMES
    assert {table for table, fate in FATES.items() if isinstance(fate, Swept)} == GO_WITH_IT
    assert all(fate.because for fate in FATES.values() if isinstance(fate, Kept))


def test_no_table_that_is_kept_has_a_column_for_what_people_write(store: DuckStore) -> None:
    """A column named text stands in tables that are written anew, and nowhere else."""
    columns = store.read(lambda unit: raw(unit, "SELECT table_name FROM duckdb_columns() WHERE column_name = 'text' AND database_name = current_database()"))

    assert {row[0] for row in columns} == TEXT


# --- in no file -----------------------------------------------------------------------------------------------------------

KINDS = ("message", "title", "draft", "part")
ACCEPTED = Accepted(SendKind.ORDINARY, 0, 40, 0, 50, 90, 0, False)


def _with_parts(store: DuckStore) -> None:
    """An answer that was written down in parts, and another one that still is."""
    dice = random.Random(3)
    for answer, mark in (("ended", GONE), ("running", STAYS)):
        store.write(lambda unit, a=answer: unit.add_answer("p0", a, "c1-0", "q", f"r{a}", 0, "res", "gpt-4", "1", ACCEPTED, YOUNG))  # type: ignore[misc]
        for n in range(40):
            store.write(lambda unit, a=answer, n=n, m=mark: unit.save_parts([("p0", a, n, words(dice, m, "part"))], YOUNG))  # type: ignore[misc]
    while not store.checkpoint():
        time.sleep(0.01)
    store.write(lambda unit: raw(unit, "DELETE FROM answer_parts WHERE answer_id = 'ended'"))
    store.write(lambda unit: raw(unit, "UPDATE answers SET state = 'finished' WHERE id = 'ended'"))


@pytest.mark.fault(54, 55)
@pytest.mark.trials
def test_what_has_to_go_is_in_no_file_and_what_stays_is_all_there(tmp_path: Path, plain: None) -> None:
    """Messages, titles, drafts and parts of answers; in the database, its log, its free blocks, its temporary files."""
    for n in range(trials(1, 15)):
        folder = tmp_path / str(n)
        store = open_store(folder)
        store.write(lambda unit, n=n: write_chats(unit, people=15 + 5 * n, chats=5, messages=12, seed=1))  # type: ignore[misc]
        _with_parts(store)
        assert min(hits(folder, *(f"{GONE}-{kind}" for kind in KINDS))) > 20, "the control: before the purge it is found"
        before, stays = staying(store), hits(folder, *(f"{STAYS}-{kind}" for kind in KINDS))
        assert min(stays) > 20

        removed = purge(store)

        assert hits(folder, *(f"{GONE}-{kind}" for kind in KINDS)) == [0, 0, 0, 0]
        assert staying(store) == before
        assert min(hits(folder, *(f"{STAYS}-{kind}" for kind in KINDS))) > 0, "the control: after it, what stays is found"
        assert removed["messages"] > 400 and removed["answer_parts"] == 0
        store.close()
        assert hits(folder, GONE) == [0]
        store = open_store(folder)
        assert staying(store) == before
        store.close()


@pytest.mark.fault(54)
def test_plain_deleting_would_leave_it_all(tmp_path: Path, plain: None) -> None:
    """Why this is so much work: the same markers after DELETE, CHECKPOINT and VACUUM."""
    store = open_store(tmp_path)
    store.write(write_chats)
    store.checkpoint()
    store.write(lambda unit: raw(unit, f"DELETE FROM messages WHERE text LIKE '%{GONE}%'"))
    store.checkpoint()
    store.write(lambda unit: raw(unit, "VACUUM"))
    store.close()

    assert hits(tmp_path, f"{GONE}-message")[0] > 100


@pytest.mark.fault(58)
def test_the_last_second_decides(store: DuckStore) -> None:
    """Sent at the bound or before: gone. A moment later: there."""
    for n, at in enumerate((SINCE - timedelta(microseconds=1), SINCE, SINCE + timedelta(microseconds=1))):
        store.write(lambda unit, n=n, at=at: unit.add_message("p", f"m{n}", "c", None, "freelancer", "?", at))  # type: ignore[misc]

    assert purge(store)["messages"] == 2
    assert store.read(lambda unit: raw(unit, "SELECT id FROM messages")) == [("m2",)]


def test_a_chat_goes_with_its_last_message_and_takes_its_titles_along(store: DuckStore) -> None:
    """One that was deleted a moment ago stays, for it may be taken back."""

    def write(unit: Unit) -> None:
        for chat, sent, deleted in (("old", OLD, None), ("young", YOUNG, None), ("deleted", YOUNG, DELETED), ("fresh", YOUNG, DELETED + timedelta(seconds=1))):
            unit.add_chat("p", chat, OLD)
            unit.add_title("p", chat, f"Title of {chat}", OLD)
            unit.add_message("p", f"m-{chat}", chat, None, "freelancer", "?", sent)
            if deleted is not None:
                unit.delete_chat("p", chat, deleted)

    store.write(write)
    assert purge(store) == {"messages": 2, "drafts": 0, "answers": 0, "chats": 2, "titles": 2, "answer_parts": 0, "closed_sign_ins": 0}
    for table, column in (("chats", "id"), ("titles", "chat_id"), ("messages", "chat_id")):
        assert sorted(store.read(lambda unit, t=table, c=column: raw(unit, f"SELECT {c} FROM {t}"))) == [("fresh",), ("young",)]  # type: ignore[misc]


def test_the_tables_keep_their_shape(store: DuckStore) -> None:
    """Columns, checks and keys are those of before, also an index that a later migration adds."""
    store.write(lambda unit: raw(unit, "CREATE INDEX drafts_by_kept ON drafts (kept_at)"))
    shape = "SELECT sql FROM duckdb_tables() UNION ALL SELECT sql FROM duckdb_indexes() ORDER BY 1"
    before = store.read(lambda unit: raw(unit, shape))
    store.write(write_chats)

    purge(store)

    assert store.read(lambda unit: raw(unit, shape)) == before


def test_a_second_run_finds_nothing_to_do(store: DuckStore) -> None:
    """Running twice is harmless, and the second writes no table anew."""
    store.write(write_chats)
    first = store.purge(SINCE, DELETED, gentle=False)
    before = staying(store)
    told: list[str] = []

    last = PurgeRun(NOON, NOON, None, 1, 1, 1, 1, first.sorted)
    second = store.purge(SINCE, DELETED, last=last, tell=lambda what, share: told.append(what), gentle=False)

    assert (set(second.removed.values()), second.sorted) == ({0}, first.sorted)
    assert [what for what in told if what.startswith("writing")] == []
    assert staying(store) == before


def test_what_came_since_is_sorted_in_when_it_is_much(store: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search is fast because a person's messages lie together."""
    monkeypatch.setattr(rewrite, "TAIL_ROWS", 50)
    for n in range(60):
        store.write(lambda unit, n=n: unit.add_message(f"p{n % 3}", f"m{n}", "c", None, "freelancer", "?", YOUNG))  # type: ignore[misc]

    assert store.purge(SINCE, DELETED, gentle=False).sorted == 60
    order = [row[0] for row in store.read(lambda unit: raw(unit, "SELECT account_id FROM messages ORDER BY rowid"))]
    assert order == sorted(order)


@pytest.mark.trials
def test_however_the_steps_are_cut_just_what_stays_is_copied_once_and_in_order(store: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices that end within an account, between two, or hold several of them; looks that see a few rows each."""
    dice = random.Random(11)
    monkeypatch.setattr(rewrite, "TAIL_ROWS", 0)
    for n in range(trials(4, 60)):
        for name in ("SLICE_ROWS", "LOOK_ROWS", "SWEEP_ROWS", "CATCH_UP_ROWS"):
            monkeypatch.setattr(rewrite, name, dice.choice((1, 2, 3, 7, 20)))
        people, chats = dice.choice((1, 2, 5)), dice.randint(1, 5)
        store.write(lambda unit, n=n, p=people, c=chats: write_chats(unit, p, c, dice.randint(1, 6), seed=n + 1))  # type: ignore[misc]
        store.write(lambda unit, n=n: unit.add_chat("p0", f"empty-{n}", OLD))  # type: ignore[misc]
        before = staying(store)

        purge(store)

        assert staying(store) == before and marked(store) == 0
        look_whole(store)
        order = [tuple(row) for row in store.read(lambda unit: raw(unit, "SELECT account_id, sequence FROM messages ORDER BY rowid"))]
        assert order == sorted(order), "in order of arrival within an account"


def test_what_was_said_of_a_chat_goes_with_it_and_with_one_that_never_began(store: DuckStore) -> None:
    """Whether it takes more along: kept while the chat is there, or may still begin."""
    store.write(lambda unit: unit.add_chat("p", "lives", OLD))
    store.write(lambda unit: unit.add_message("p", "m", "lives", None, "freelancer", "?", YOUNG))
    store.write(lambda unit: unit.add_chat("p", "ends", OLD))
    for chat, at in (("lives", OLD), ("ends", YOUNG), ("never", OLD), ("may", YOUNG)):
        store.write(lambda unit, c=chat, at=at: unit.set_remembering("p", c, True, at))  # type: ignore[misc]

    purge(store)
    assert store.read(lambda unit: unit.remembering("p")) == {"lives", "may"}


def test_only_one_runs_at_a_time(store: DuckStore) -> None:
    """The second is told so."""
    store.write(write_chats)
    said: list[str] = []

    def again() -> bool:
        if not said:
            with pytest.raises(PurgeFailed) as caught:
                purge(store)
            said.append(str(caught.value))
        return True

    purge(store, go_on=again)
    assert said == ["A purge is running already."]


def test_what_is_remembered_of_rows_does_not_outlive_them(store: DuckStore) -> None:
    """Entries, titles, drafts and chats that were asked for before are as they are stored afterwards; slices alone make nobody forget."""
    store.write(write_chats)
    chats = [(f"p{n % 7}", f"c1-{n}") for n in range(28)]
    long_ago = SINCE - timedelta(days=1_000)

    def all_of(rows: Unit) -> object:
        return [(rows._entries(a, c), rows._titles(a, long_ago), rows.draft(a, c, long_ago), rows.owns_chat(a, c)) for a, c in chats]

    before = store.read(all_of)
    purge(store)
    after = store.read(all_of)

    assert after != before and GONE not in repr(after) and STAYS in repr(after)
    assert after == store.read(lambda rows: all_of(Unit(rows._run, rows._next)))


# --- cut off ----------------------------------------------------------------------------------------------------------------

FEW = ("copied:messages", "replace:messages:1", "replaced:messages", "replaced:drafts", "sweep:chats", "fold", "fill:0", "filled")
ALL = FEW + (
    "begin", "create:messages", "copy:messages", "catch_up:messages", "replace:messages:0", "create:drafts", "copied:drafts", "replace:drafts:0",
    "replace:drafts:1", "create:titles", "copied:titles", "catch_up:titles", "replaced:titles", "create:answer_parts", "replaced:answer_parts",
    "create:accounts", "replace:accounts:1", "replaced:accounts",
)  # fmt: skip

KILLED = """
    import random, shutil, threading
    from tests.storage import test_purge as here
    settings = engine.DuckStore._settings
    engine.DuckStore._settings = lambda self: {**settings(self), "force_compression": "uncompressed"}
    here.rewrite.SLICE_ROWS = 500

    def ended(work):
        if (pid := os.fork()) == 0:
            work()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def make():
        store = open_store(folder / "template")
        store.write(lambda unit: here.write_chats(unit, people=14))
        here._with_parts(store)
        store.write(here.close_somebody)
        (folder / "stays").write_text(repr(here.staying(store)))
        store.close()

    def killed(place, point):
        if isinstance(point, float):
            threading.Timer(point, lambda: os.kill(os.getpid(), 9)).start()
        else:
            os.environ["CHATPRO_TEST_FAULTS"] = "purge." + point
        store = open_store(place)
        here.purge(store)
        time.sleep(5)

    def made_good(place):
        store = open_store(place)
        assert repr(here.staying(store)) == (folder / "stays").read_text()
        here.purge(store)
        here.look_whole(store)
        assert repr(here.staying(store)) == (folder / "stays").read_text()
        store.close()

    assert ended(make) == 0
    assert here.hits(folder / "template", here.GONE)[0] > 200
    for n, point in enumerate(%r):
        place = folder / str(n)
        shutil.copytree(folder / "template", place)
        print(point, ended(lambda: killed(place, point)), ended(lambda: made_good(place)), *here.hits(place, here.GONE), flush=True)
        shutil.rmtree(place)
"""


def close_somebody(unit: Unit) -> None:
    """Two accounts, of which one was closed: its name goes, the other one's stays."""
    for mark in (GONE, STAYS):
        unit.add_account(Account(mark[:4], "https://id.example", f"{mark}-subject", f"{mark}-name", f"{mark}@example.com", "UTC", False, OLD, frozenset()))
    unit.close_account(GONE[:4], YOUNG)


def look_whole(store: DuckStore) -> None:
    """No half-made table, no message twice, no chat without a message, nothing without its chat."""
    there = {row[0] for row in store.read(lambda unit: raw(unit, "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"))}
    assert there == set(FATES)
    wrong = {
        "twice": "SELECT id FROM messages GROUP BY id HAVING count(*) > 1",
        "empty": "SELECT id FROM chats WHERE id NOT IN (SELECT chat_id FROM messages) AND id NOT IN (SELECT chat_id FROM answers)",
        "orphans": "SELECT chat_id FROM messages WHERE chat_id NOT IN (SELECT id FROM chats)",
        "untitled": "SELECT chat_id FROM titles WHERE chat_id NOT IN (SELECT id FROM chats)",
    }
    assert {name: store.read(lambda unit, q=query: raw(unit, q)) for name, query in wrong.items()} == dict.fromkeys(wrong, [])  # type: ignore[misc]


@pytest.mark.fault(53)
@pytest.mark.trials
def test_killed_at_any_step_the_next_run_makes_it_good(tmp_path: Path) -> None:
    """No message lost, none twice, none back to life, no half-made table, and the text in no file. At each step and at random moments."""
    dice = random.Random(7)
    points = [*FEW, dice.uniform(0.05, 0.5)] if trials(0, 1) == 0 else [*ALL, *(dice.uniform(0.02, 0.7) for _ in range(30))]

    said = [line.split() for line in child(KILLED % points, tmp_path).splitlines()]

    assert len(said) == len(points)
    assert [line for line in said if line[1:] != ["-9", "0", "0"]] == []


def test_what_was_half_made_is_dropped_before_anything_else(store: DuckStore) -> None:
    """Also where the run then ends at once, for want of room say: half a copy would keep words that have to go."""
    store.write(lambda unit: raw(unit, "CREATE TABLE messages_next AS SELECT * FROM messages"))
    store.write(lambda unit: raw(unit, f"CREATE TABLE {rewrite.FILLER} (noise UBIGINT)"))
    store.free_bytes = lambda: -(10**12)  # type: ignore[method-assign]

    with pytest.raises(PurgeFailed, match="free disk"):
        purge(store)
    look_whole(store)


def test_told_to_stop_it_ends_between_two_steps(store: DuckStore) -> None:
    """The server that ends waits for one step, not for the run; nothing is lost."""
    store.write(write_chats)
    before = staying(store)
    for most in range(6):
        steps = iter(range(most))
        with pytest.raises(PurgeFailed, match="ended with the service"):
            purge(store, go_on=lambda steps=steps: next(steps, None) is not None)
        assert staying(store) == before

    purge(store)
    look_whole(store)
    assert staying(store) == before and marked(store) == 0


# --- while others write and read ----------------------------------------------------------------------------------------------


@pytest.mark.fault(53, 56)
@pytest.mark.trials
def test_while_others_write_and_read_nothing_is_lost_and_the_text_is_gone(tmp_path: Path, plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """New messages, answers that take their number long before they are written, drafts, renames, parts; readers with old snapshots open."""
    monkeypatch.setattr(rewrite, "SLICE_ROWS", 20)
    monkeypatch.setattr(rewrite, "CATCH_UP_ROWS", 10)
    for n in range(trials(1, 10)):
        store = open_store(tmp_path / str(n))
        store.write(write_chats)
        assert hits(tmp_path / str(n), f"{GONE}-message")[0] > 100
        before, written = staying(store), []

        with going_on(partial(_exchange, store, written), partial(_exchange, store, written), *[partial(store.read, _slow_read)] * 2):
            removed = purge(store)

        assert removed["messages"] > 100 and len(written) > 10
        kept = [row[0] for row in store.read(lambda unit: raw(unit, "SELECT id FROM messages WHERE id LIKE 'new-%'"))]
        assert sorted(kept) == sorted(written)
        after = set(staying(store)["messages"])
        assert after >= set(before["messages"])
        assert hits(tmp_path / str(n), f"{GONE}-message", f"{GONE}-title", f"{GONE}-draft") == [0, 0, 0]
        look_whole(store)
        store.close()


@contextmanager
def going_on(*works: Callable[[], object]) -> Iterator[None]:
    """Each of these over and over in a thread of its own, meanwhile."""
    stop, strange = threading.Event(), []

    def run(work: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            strange.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert strange == []


def _slow_read(unit: Unit) -> None:
    raw(unit, "SELECT count(*), max(text) FROM messages")
    time.sleep(0.15)
    raw(unit, "SELECT count(*), max(text) FROM titles")


def _exchange(store: DuckStore, written: list[str]) -> None:
    """A question and its answer, which takes its number with the question and its place in the table after another one's."""
    dice = random.Random()
    name = f"new-{dice.randbytes(8).hex()}"

    def ask(unit: Unit) -> int:
        unit.add_message("p3", f"{name}-q", "c1-23", None, "freelancer", words(dice, STAYS, "message"), NOON)
        unit.add_title("p3", "c1-23", words(dice, STAYS, "title"), NOON)
        unit.keep_draft("p3", "c1-23", "d", words(dice, STAYS, "draft"), NOON)
        unit.save_parts([("p3", name, 0, words(dice, STAYS, "part"))], NOON)
        return unit._next("messages")

    number = store.write(ask)
    written.append(f"{name}-q")
    time.sleep(0.01)

    def answer(unit: Unit) -> None:
        raw(unit, "DELETE FROM answer_parts WHERE answer_id = ?", name)
        raw(unit, "INSERT INTO messages VALUES ('p3', ?, 'c1-23', ?, ?, 'answer', ?, ?)", f"{name}-a", f"{name}-q", number, words(dice, STAYS, "message"), NOON)

    store.write(answer)
    written.append(f"{name}-a")


def test_a_chat_that_somebody_writes_into_meanwhile_survives(store: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last message was past its days when the run looked; then an answer was begun there."""
    store.write(lambda unit: unit.add_chat("p", "c", OLD))
    store.write(lambda unit: unit.add_message("p", "m", "c", None, "freelancer", "?", OLD))
    delete = rewrite._delete_chats

    def come_between(unit: Unit, ids: list[str]) -> int:
        assert ids == ["c"]
        unit.add_answer("p", "a", "c", "m2", "r", 0, "res", "gpt-4", "1", ACCEPTED, NOON)
        return delete(unit, ids)

    monkeypatch.setattr(rewrite, "_delete_chats", come_between)
    assert purge(store) == {"messages": 1, "drafts": 0, "answers": 0, "chats": 0, "titles": 0, "answer_parts": 0, "closed_sign_ins": 0}
    assert store.read(lambda unit: unit.owns_chat("p", "c"))


def test_a_table_that_does_not_hold_still_is_left_as_it_was(store: DuckStore) -> None:
    """Whatever the reason: where the counts differ, the old table stays and the run says so."""
    store.write(write_chats)
    before = staying(store)
    steps: list[str] = []

    def disturb(what: str, share: float) -> None:
        if what == "writing messages anew" and not steps:
            steps.append(what)
            store.write(lambda unit: raw(unit, f"DELETE FROM messages WHERE id = (SELECT min(id) FROM messages WHERE text LIKE '%{GONE}%')"))

    with pytest.raises(PurgeFailed, match="Nothing was lost"):
        purge(store, tell=disturb)
    assert staying(store) == before
    assert purge(store)["messages"] > 0
    look_whole(store)


# --- no room --------------------------------------------------------------------------------------------------------------------


def _fill_up(disk: Path, leave: int) -> Path:
    room = os.statvfs(disk)
    with open(disk / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - leave)
    return disk / "filler"


@pytest.fixture
def tight(small_disk: Path, plain: None) -> Iterator[DuckStore]:  # noqa: F811
    """A store with some megabytes in it on a disk of 24."""
    store = open_store(small_disk)
    for seed in range(1, 9):
        store.write(lambda unit, seed=seed: write_chats(unit, chats=3, messages=6, seed=seed))  # type: ignore[misc]
    store.write(
        lambda unit: raw(
            unit, "INSERT INTO messages SELECT account_id, id || n, chat_id, NULL, sequence, author, text || n, sent_at FROM messages, range(12) r(n)"
        )
    )
    store.checkpoint()
    yield store
    store.close()


@pytest.mark.fault(61)
def test_without_room_for_a_copy_it_does_not_begin(small_disk: Path, tight: DuckStore) -> None:  # noqa: F811
    """It says how much is needed; when there is room it does its work."""
    before = staying(tight)
    filler = _fill_up(small_disk, 1_500_000)
    with pytest.raises(PurgeFailed, match=r"needs \d+ MB of free disk, and there are \d+"):
        purge(tight)
    assert staying(tight) == before and tight.problem is None
    tight.write(audited)

    filler.unlink()
    assert purge(tight)["messages"] > 0
    assert staying(tight) == before
    assert hits(small_disk, GONE) == [0]


@pytest.mark.fault(61)
@pytest.mark.trials
@pytest.mark.parametrize("leave", [*[400_000] * trials(2, 30), 1_500_000, 3_000_000])
def test_a_disk_that_fills_up_in_the_middle_costs_nothing_and_leaves_no_byte(
    small_disk: Path,  # noqa: F811
    tight: DuckStore,
    leave: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old table is kept, the store comes back, and the next run takes out what is due, also from blocks that the disk refused."""
    monkeypatch.setattr(rewrite.Rewrite, "_check_room", lambda self: None)
    before = staying(tight)
    filler = _fill_up(small_disk, leave)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        purge(tight)
    assert staying(tight) == before and hits(small_disk, GONE)[0] > 0

    filler.unlink()
    purge(tight)
    assert staying(tight) == before and marked(tight) == 0
    look_whole(tight)
    assert hits(small_disk, GONE) == [0]


@pytest.mark.fault(61)
def test_a_block_that_the_disk_refused_is_in_use_for_nobody(small_disk: Path, tight: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A statement that failed for want of room, rolled back: were the engine used on, it would count the half-written block as used for ever."""

    def used() -> int:
        while not tight.checkpoint():
            pass
        return int(tight.read(lambda rows: raw(rows, "SELECT used_blocks FROM pragma_database_size() WHERE database_name = current_database()"))[0][0])

    monkeypatch.setattr("chatpro.storage.duckdb.RETRY_SECONDS", 0.0)
    for _ in range(6):
        tight.write(audited)  # rows that are really written need room too
    before = used()
    for leave in range(200_000, 500_000, 50_000):
        filler = _fill_up(small_disk, leave)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            tight.write(lambda unit: raw(unit, "INSERT INTO messages SELECT * FROM messages"))
        filler.unlink()
        tight.write(audited)
    assert used() <= before + 1


# --- readers that never end -------------------------------------------------------------------------------------------------------


@pytest.mark.fault(55)
def test_memory_that_held_old_text_is_not_used_again_as_it_is(store: DuckStore) -> None:
    """Blocks are not filled to the last byte. While a purge runs freed memory goes back to the system; before and after it, it stays at hand."""
    call = heap._control()
    if call is None:
        pytest.skip("this engine's allocator can't be told")
    kept = ctypes.c_ssize_t(-1)

    def now(*told: object) -> int:
        size = ctypes.c_size_t(ctypes.sizeof(kept))
        assert call(b"arena.0.dirty_decay_ms", ctypes.byref(kept), ctypes.byref(size), None, 0) == 0
        return kept.value

    store.write(write_chats)
    during: list[int] = []
    before = now()
    purge(store, tell=lambda *told: during.append(now()))
    assert (before, set(during), now()) == (before, {0}, before) and before > 0

    with pytest.raises(PurgeFailed):
        purge(store, go_on=lambda: False)
    assert now() == before


def test_a_log_that_was_cut_is_kept_for_half_a_day_and_goes_with_a_purge(tmp_path: Path, store: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds text as well, and nobody might start the server again for months."""
    cut = tmp_path / "store.duckdb.wal.damaged"
    cut.write_text(GONE)
    purge(store)
    assert cut.exists()

    monkeypatch.setattr(engine, "DAMAGED_LOG_SECONDS", -1.0)
    purge(store)
    assert not cut.exists()


def test_readers_at_every_moment_are_told_of(store: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up after a while, says why, and the text is taken out the next time."""
    store.write(write_chats)
    monkeypatch.setattr(rewrite, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(store, "checkpoint", lambda: False)
    with pytest.raises(PurgeFailed, match="somebody was reading"):
        purge(store)
