"""What the store remembers is what is stored, whatever happened in between, and never anything of anybody else."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chatpro.domain.accounts import Account, Role
from chatpro.domain.allowance import Accepted, Anchor, Charge, SendKind, cycle_at
from chatpro.domain.chats import AnswerState, Message
from chatpro.storage import memory as memory_of_store
from chatpro.storage.duckdb import DuckStore
from chatpro.storage.memory import ENTRIES, UNKNOWN, Changes, Memory
from chatpro.storage.sql import Call, Unit
from tests.conftest import trials
from tests.storage.children import open_store

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SINCE = NOON - timedelta(days=90)
CYCLE = cycle_at(Anchor(NOON.date(), "UTC"), NOON)
PEOPLE, CHATS = ("ada", "ben"), ("one", "two")

Step = tuple[str, str, str, int]
steps = st.tuples(
    st.sampled_from(
        [
            "send",
            "settle",
            "settle unread",
            "release",
            "read",
            "thumb",
            "title",
            "delete",
            "restore",
            "draft",
            "warn",
            "look",
            "older",
            "roll back",
            "raw",
            "close",
            "carry",
        ]
    ),
    st.sampled_from(PEOPLE),
    st.sampled_from(CHATS),
    st.integers(0, 3),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckStore]:
    opened = open_store(tmp_path_factory.mktemp("memory"))
    yield opened
    opened.close()


def facts(rows: Unit, account_id: str, chats: list[str], since: datetime) -> dict[str, Any]:
    """Everything that may come from memory."""
    return {
        "person": rows.person(account_id),
        "chats": rows.chats(account_id, since),
        "entries": {chat: rows.messages(account_id, chat, since) for chat in chats},
        "outline": {chat: rows.outline(account_id, chat, since) for chat in chats},
        "titles": {chat: rows.title(account_id, chat, since) for chat in chats},
        "unread": {chat: rows.unread(account_id, chat) for chat in chats},
        "drafts": {chat: rows.draft(account_id, chat, since) for chat in chats},
        "carried": rows.carried(account_id, CYCLE.starts_at),
        "standing": rows.standing(account_id, CYCLE.starts_at, 1_000_000),
        "latest": rows.newest_cycle(account_id),
        "totals": rows.recent_totals(account_id),
        "warnings": rows.warnings(account_id),
        "answering": {chat: rows.is_answering(account_id, chat) for chat in chats},
    }


class Life:
    """Two people who do things; ids of their own for each example, so that one store serves all of them."""

    def __init__(self, store: DuckStore) -> None:
        self.store = store
        self.prefix = secrets.token_hex(4)
        self.running: dict[tuple[str, str], Call] = {}
        self.ended: dict[tuple[str, str], Call] = {}
        self.since = SINCE
        self.minute = 0
        for name in PEOPLE:
            account = Account(self.id(name), "made up", self.id(name), name, None, "UTC", False, NOON, frozenset({Role.FREELANCER}))
            store.write(lambda unit, account=account: unit.add_account(account))  # type: ignore[misc]

    def id(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def do(self, step: Step) -> None:
        kind, name, chat, number = step
        account, key = self.id(name), (name, chat)
        self.minute += 1
        # "older" is about as old as text may become: looking a few hours later, it is too old.
        at = (SINCE + timedelta(hours=number) if kind == "older" else NOON) + timedelta(minutes=self.minute)
        if kind == "look":
            self.since += timedelta(hours=number)
        elif kind in ("send", "older") and key not in self.running:
            self.store.write(lambda unit: self.send(unit, key, account, f"{chat}-{account}", at))
        elif kind in ("settle", "settle unread", "release") and key in self.running:
            call = self.running.pop(key)
            self.store.write(lambda unit: self.settle(unit, call, "" if kind == "release" else "An answer", kind == "settle unread", at))
            self.ended[key] = call
        elif kind == "roll back":
            with pytest.raises(ZeroDivisionError):
                self.store.write(lambda unit: (self.send(unit, key, account, f"{chat}-{account}", at, note=False), 1 / 0))
        else:
            self.store.write(lambda unit: self.small(unit, kind, key, account, f"{chat}-{account}", number, at))

    def send(self, unit: Unit, key: tuple[str, str], account: str, chat: str, at: datetime, note: bool = True) -> None:
        if unit.may_begin_chat(account, chat):
            unit.add_chat(account, chat, at)
        question, answer, reservation = (secrets.token_hex(8) for _ in range(3))
        accepted = Accepted(SendKind.ORDINARY, 0, 30, 0, 70, 100, 0, False)
        unit.open_cycle(account, CYCLE)
        assert unit.reserve(account, reservation, question, CYCLE, 1_000_000, 0, accepted, at, at)
        unit.add_message(account, question, chat, None, "freelancer", "A question", at)
        unit.add_answer(account, answer, chat, question, question, 0, reservation, "gpt-4", "1", accepted, at)
        call = unit.call(answer)
        assert call is not None
        if note:
            self.running[key] = call

    def settle(self, unit: Unit, call: Call, text: str, unread: bool, at: datetime) -> None:
        assert unit.end_answer(call, AnswerState.FINISHED if text else AnswerState.FAILED, None if text else "silent", at)
        if unread:
            unit.mark_unread(call)
        unit.fold_parts(call, text)
        unit.resolve(call, "settled" if text else "released", 50 if text else 0, at)
        unit.add_usage_entry(call, "Plus", Charge(30, 20, "measured", 0) if text else Charge(0, 0, "estimated", 0), 5, 10, 20, "finished", at)

    def small(self, unit: Unit, kind: str, key: tuple[str, str], account: str, chat: str, number: int, at: datetime) -> None:
        if kind == "read":
            unit.mark_read(account, chat)
        elif kind == "thumb" and key in self.ended:
            unit.add_thumb(self.ended[key], ("up", "down", "none", "up")[number], at)
        elif kind == "title":
            unit.add_title(account, chat, f"Title {number}", at, "from a message" if number % 2 else None)
        elif kind == "delete":
            unit.delete_chat(account, chat, at)
        elif kind == "restore":
            unit.restore_chat(account, chat)
        elif kind == "draft":
            unit.keep_draft(account, chat, secrets.token_hex(4), "Words" * number, at)
        elif kind == "warn":
            unit.add_warning(account, CYCLE.starts_at, ("75", "95", "last_message", "75")[number], 1_000_000, "Plus", at)
        elif kind == "close":
            unit.delete_chats(account, at)
            unit.close_account(account, at)
        elif kind == "carry" and unit.newest_cycle(account) is None:
            unit.carry_over(account, self.id(PEOPLE[1 - PEOPLE.index(key[0])]), CYCLE, at)
        elif kind == "raw":
            unit._all("UPDATE cycles SET used = used + 1 WHERE account_id = ?", account)


def forgetful(store: DuckStore) -> Callable[[Callable[[Unit], Any]], Any]:
    """Reads that remember nothing."""
    return lambda work: store.read(lambda rows: work(Unit(rows._run, rows._next)))


@settings(max_examples=trials(8, 400), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(steps, min_size=6, max_size=20))
@example(
    history=[("send", "ada", "one", 0), ("raw", "ada", "one", 0), ("settle unread", "ada", "one", 0), ("read", "ada", "one", 0), ("thumb", "ada", "one", 1)]
)
@example(history=[("send", "ada", "one", 0), ("settle", "ada", "one", 0), ("close", "ada", "one", 0), ("carry", "ben", "one", 0), ("send", "ben", "one", 0)])
@example(history=[("older", "ben", "two", 2), ("settle", "ben", "two", 0), ("title", "ben", "two", 1), ("look", "ben", "two", 3), ("delete", "ben", "two", 0)])
@pytest.mark.trials
def test_what_is_remembered_is_what_is_stored(store: DuckStore, history: list[Step]) -> None:
    """After each step, whatever was read before it: own changes, other people's, rolled back ones, and such that no verb made."""
    life = Life(store)
    for step in history:
        life.do(step)
        for account_id in map(life.id, PEOPLE):
            look = partial(facts, account_id=account_id, chats=[f"{chat}-{account_id}" for chat in CHATS], since=life.since)
            assert store.read(look) == forgetful(store)(look)


def test_a_read_that_finds_all_in_memory_needs_no_snapshot(store: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(store)
    look = partial(facts, account_id=life.id("ada"), chats=["none"], since=SINCE)
    first = store.read(look)
    monkeypatch.setattr(store, "_enter", lambda: pytest.fail("a statement was run"))
    assert store.read(look) == first


def test_what_was_read_before_a_commit_is_not_kept_after_it() -> None:
    """The reader's snapshot is older than the commit, however late it hands over what it read."""
    memory = Memory()
    as_of = memory.version
    changes = Changes()
    changes.add("ada", ("totals",))
    memory.commit(changes)
    memory.keep("ada", ("totals",), (1,), as_of)
    assert memory.recall("ada", ("totals",)) is UNKNOWN
    memory.keep("ben", ("totals",), (1,), as_of)
    assert memory.recall("ben", ("totals",)) == (1,)
    memory.keep("ada", ("totals",), (2,), memory.version)
    assert memory.recall("ada", ("totals",)) == (2,) and memory.recall("ada", ("warnings",)) is UNKNOWN


def test_a_statement_that_nobody_explained_empties_the_memory() -> None:
    memory = Memory()
    memory.keep("ada", ("totals",), (1,), memory.version)
    before = memory.version
    changes = Changes()
    changes.everything = True
    memory.commit(changes)
    memory.keep("ben", ("totals",), (1,), before)
    assert memory.recall("ada", ("totals",)) is UNKNOWN and memory.recall("ben", ("totals",)) is UNKNOWN


def test_a_fact_that_can_not_follow_a_commit_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    memory.keep("ada", ("totals",), (1,), memory.version)
    changes = Changes()
    changes.add("ada", ("totals",), lambda totals: 1 / 0)
    memory.commit(changes)
    assert memory.recall("ada", ("totals",)) is UNKNOWN and "ZeroDivisionError" in caplog.text


def test_memory_has_bounds_for_accounts_chats_and_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked least lately is forgotten first."""
    monkeypatch.setattr(memory_of_store, "MOST_ACCOUNTS", 3)
    monkeypatch.setattr(memory_of_store, "MOST_CHARACTERS", 100)
    memory = Memory()
    entry = Message("m", "c", None, 1, "x" * 30, NOON)
    for name in ("ada", "ben", "cid", "dan"):
        memory.keep(name, ("totals",), (1,), memory.version)
    assert [memory.recall(name, ("totals",)) is UNKNOWN for name in ("ada", "ben", "cid", "dan")] == [True, False, False, False]
    for chat in "pqrs":
        memory.keep("dan", (ENTRIES, chat), (entry,), memory.version)
    assert [memory.recall("dan", (ENTRIES, chat)) is UNKNOWN for chat in "pqrs"] == [True, False, False, False]
    memory.keep("ben", (ENTRIES, "t"), (entry,), memory.version)
    assert memory.recall("ben", (ENTRIES, "t")) == (entry,) and memory.recall("dan", (ENTRIES, "s")) is UNKNOWN
    changes = Changes()
    changes.everything = True
    memory.commit(changes)
    for chat in "pqr":
        memory.keep("ben", (ENTRIES, chat), (entry,), memory.version)
    assert all(memory.recall("ben", (ENTRIES, chat)) == (entry,) for chat in "pqr")


def test_opening_anew_remembers_nothing(tmp_path: Path) -> None:
    """What the file holds after trouble is for reading to tell."""
    store = open_store(tmp_path)
    life = Life(store)
    look = partial(facts, account_id=life.id("ada"), chats=["none"], since=SINCE)
    store.read(look)
    memory = store._memory
    assert memory.recall(life.id("ada"), ("person",)) is not UNKNOWN
    assert store._instance is not None
    store._condemn(store._instance, None)
    store.write(lambda unit: None)
    assert memory.recall(life.id("ada"), ("person",)) is UNKNOWN
    assert store.read(look)["person"].account is not None
    store.close()
