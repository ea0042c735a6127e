"""What any engine behind the store must keep. A new engine subclasses StoreContract, says how to open itself, and is held to all of it.

Without one suite for all of them, a rule that one engine keeps by luck is missing in the next one, and answers or charges go with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatpro.domain.accounts import Account, Role
from chatpro.domain.allowance import Accepted, Anchor, Cycle, SendKind
from chatpro.domain.disputes import first_broken
from chatpro.errors import DuplicateKey, ReadTooLong, StatementFailed, StoreUnavailable, TextNotStorable
from chatpro.storage import Person, Store, Unit
from tests.conftest import trials
from tests.storage.children import NOON, add_role, audited, raw, roles

MARKER = "kestrel-7f3a9c51e2"
"""Stands for text somebody wrote: it may come out of the store where it is asked for, and nowhere else."""

BAD_COLUMN = "SELECT nothing FROM accounts"


class Stopped(BaseException):
    """What Streamlit throws into a script that is ended: no Exception, so `except Exception` doesn't see it."""


class StoreContract:
    """Subclass it and say how to open the engine."""

    def open_store(self, folder: Path) -> Store:
        raise NotImplementedError

    def shorten_reads(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        """Let reads be too long after `seconds`, so that a test needn't wait for the two of the product."""
        raise NotImplementedError

    def shorten_queue(self, monkeypatch: pytest.MonkeyPatch, units: int) -> None:
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = self.open_store(tmp_path)
        yield store
        store.close()

    # --- units of work ----------------------------------------------------------------------------------------------

    def test_what_a_unit_wrote_is_there_after_it_and_after_opening_again(self, tmp_path: Path) -> None:
        """The plainest promise."""
        store = self.open_store(tmp_path)
        store.write(add_role("casey"))
        assert roles(store) == {"casey"}
        store.close()

        again = self.open_store(tmp_path)
        assert roles(again) == {"casey"}
        again.close()

    def test_a_unit_that_raises_leaves_nothing(self, store: Store) -> None:
        """Doing nothing about a failure rolls back."""

        def work(unit: Unit) -> None:
            add_role("casey")(unit)
            raise KeyError("ours")

        with pytest.raises(KeyError, match="ours"):
            store.write(work)
        assert roles(store) == set()

    @pytest.mark.fault(29)
    @pytest.mark.parametrize("bad", [BAD_COLUMN, "INSERT INTO roles VALUES ('sam', 'emperor')", "INSERT INTO roles VALUES ('casey', 'freelancer')"])
    def test_a_statement_that_failed_and_was_swallowed_fails_the_whole_unit(self, store: Store, bad: str) -> None:
        """DuckDB's commit would return without a word and store nothing; the caller would believe that it is saved."""
        store.write(add_role("casey"))

        def work(unit: Unit) -> str:
            add_role("kim")(unit)
            try:
                raw(unit, bad)
            except StatementFailed:
                pass
            return "saved"

        with pytest.raises(StatementFailed):
            store.write(work)
        assert roles(store) == {"casey"}
        store.write(add_role("lee"))
        assert roles(store) == {"casey", "lee"}

    @pytest.mark.fault(29)
    def test_after_a_failed_statement_no_further_one_of_its_unit_runs(self, store: Store) -> None:
        """A unit that goes on after a swallowed failure can't believe that the rest of it works."""
        outcomes: list[str] = []

        def work(unit: Unit) -> None:
            for sql in (BAD_COLUMN, "SELECT 1"):
                try:
                    raw(unit, sql)
                    outcomes.append("ran")
                except StatementFailed:
                    outcomes.append("failed")

        with pytest.raises(StatementFailed):
            store.write(work)
        assert outcomes == ["failed", "failed"]

    @pytest.mark.fault(40)
    @pytest.mark.parametrize("thrown", [Stopped(), asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
    def test_what_is_no_exception_rolls_back_too_and_the_writer_lives_on(self, store: Store, thrown: BaseException) -> None:
        """Streamlit and asyncio end work with BaseExceptions, which `except Exception` doesn't see."""

        def work(unit: Unit) -> None:
            add_role("casey")(unit)
            raise thrown

        with pytest.raises(type(thrown)):
            store.write(work)
        store.write(add_role("kim"))
        assert roles(store) == {"kim"}

    def test_a_unit_that_waits_for_another_one_is_told_so(self, store: Store) -> None:
        """It would wait for itself, and everybody else behind it, for ever."""

        def work(unit: Unit) -> None:
            add_role("casey")(unit)
            store.write(add_role("kim"))

        with pytest.raises(RuntimeError, match="itself"):
            store.write(work)
        assert roles(store) == set()

    def test_a_unit_may_hand_in_a_later_one_without_waiting(self, store: Store) -> None:
        """It runs after the commit, as one of its own."""
        later: list[Future[None]] = []
        store.write(lambda unit: later.append(store.submit(add_role("kim"))))
        later[0].result(10)
        assert roles(store) == {"kim"}

    def test_a_unit_kept_beyond_its_call_runs_nothing(self, store: Store) -> None:
        """Its statements would land in somebody else's transaction."""
        kept = [store.write(lambda unit: unit), store.read(lambda unit: unit)]
        for unit in kept:
            with pytest.raises(RuntimeError, match="over"):
                add_role("casey")(unit)
        assert roles(store) == set()

    @pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK", "  begin transaction", "SELECT 1; COMMIT", "CHECKPOINT"])
    def test_a_unit_can_not_end_its_own_transaction(self, store: Store, sql: str) -> None:
        """Half of a unit would be kept, or a read would write."""

        def work(unit: Unit) -> None:
            add_role("casey")(unit)
            raw(unit, sql)

        with pytest.raises(StatementFailed):
            store.write(work)
        with pytest.raises(StatementFailed):
            store.read(lambda unit: raw(unit, sql))
        assert roles(store) == set()

    # --- keys -------------------------------------------------------------------------------------------------------

    @pytest.mark.fault(30)
    def test_a_key_that_is_there_already_is_a_duplicate_key(self, store: Store) -> None:
        """Callers read the first one then; any other failure must not look like it."""
        store.write(add_role("casey"))
        with pytest.raises(DuplicateKey):
            store.write(add_role("casey"))
        with pytest.raises(StatementFailed) as other:
            store.write(lambda unit: raw(unit, "INSERT INTO roles VALUES ('kim', 'emperor')"))
        assert not isinstance(other.value, DuplicateKey)

    @pytest.mark.fault(30)
    def test_of_two_tabs_with_one_request_one_wins_and_the_other_hears_of_it(self, store: Store) -> None:
        """One answer, one charge."""
        barrier = threading.Barrier(8)
        outcomes: list[str] = []

        def tab() -> None:
            barrier.wait()
            try:
                store.write(add_role("one-request"))
                outcomes.append("won")
            except DuplicateKey:
                outcomes.append("duplicate")

        _together(8, tab)
        assert sorted(outcomes) == ["duplicate"] * 7 + ["won"]

    # --- the queue --------------------------------------------------------------------------------------------------

    def test_units_run_in_the_order_in_which_they_came(self, store: Store) -> None:
        """First come, first served: nobody waits behind somebody who came later."""
        ran: list[int] = []
        gate = threading.Event()
        store.submit(lambda unit: gate.wait(10))
        futures = [store.submit(lambda unit, n=n: ran.append(n)) for n in range(200)]  # type: ignore[misc]
        gate.set()
        wait(futures, 10)
        assert ran == list(range(200))

    def test_one_busy_caller_does_not_starve_the_others(self, store: Store) -> None:
        """A unit that comes while fifty of one caller wait runs as the fifty-first, whatever that caller goes on to hand in."""
        ran: list[str] = []
        gate = threading.Event()
        store.submit(lambda unit: gate.wait(10))

        def greedy(unit: Unit) -> None:
            ran.append("greedy")
            if len(ran) < 300:
                store.submit(greedy)

        for _ in range(50):
            store.submit(greedy)
        mine = store.submit(lambda unit: ran.append("mine"))
        gate.set()
        mine.result(10)
        assert ran.index("mine") == 50

    def test_a_cancelled_unit_never_begins(self, store: Store) -> None:
        """Whoever was stopped while waiting in the queue doesn't want it any more."""
        gate = threading.Event()
        store.submit(lambda unit: gate.wait(10))
        dropped = store.submit(add_role("casey"))
        assert dropped.cancel()
        gate.set()
        store.write(add_role("kim"))
        assert roles(store) == {"kim"}

    def test_a_queue_that_only_grows_is_refused_instead_of_eating_the_memory(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that hangs must not take the process with it; what was accepted is still done."""
        self.shorten_queue(monkeypatch, 5)
        gate, began = threading.Event(), threading.Event()
        blocker = store.submit(lambda unit: began.set() or gate.wait(10))
        began.wait(10)
        accepted = [store.submit(add_role(f"a{n}")) for n in range(5)]
        with pytest.raises(StoreUnavailable, match="waiting"):
            store.write(add_role("one too many"))
        gate.set()
        wait([blocker, *accepted], 10)
        assert roles(store) == {f"a{n}" for n in range(5)}

    @pytest.mark.fault(27)
    @pytest.mark.trials
    def test_exactly_as_many_pass_the_guarded_counter_as_fit(self, store: Store) -> None:
        """Room for 10, eight threads and far more tries: 10 pass, and the counter says so at every instant."""
        cycle = Cycle(0, NOON, NOON + timedelta(days=30))
        allowance, tokens = 1_000, 90
        accepted = Accepted(SendKind.ORDINARY, 0, 40, 0, 50, 90, 0, False)
        passed, seen, names = [], [], itertools.count()  # a thread's number may be another's that has ended already

        for turn in range(trials(2, 20)):
            account = f"casey-{turn}"
            store.write(lambda unit, account=account: unit.open_cycle(account, cycle))  # type: ignore[misc]

            def send(account: str = account) -> None:
                for _ in range(6):
                    name = f"{account}-{next(names)}"
                    fits = store.write(
                        lambda unit, name=name: unit.reserve(account, name, name, cycle, allowance, 100, accepted, NOON, NOON + timedelta(minutes=5))  # type: ignore[misc]
                    )
                    passed.append((account, fits))
                    seen.append(store.read(lambda unit: unit.standing(account, NOON, allowance).reserved))

            _together(8, send)
            rows = store.read(lambda unit, account=account: raw(unit, "SELECT count(*), sum(tokens) FROM reservations WHERE account_id = ?", account))  # type: ignore[misc]
            assert [fits for who, fits in passed if who == account].count(True) == 10
            assert [(int(n), int(total)) for n, total in rows] == [(10, 10 * tokens)]
        assert max(seen) == 10 * tokens

    # --- sequences --------------------------------------------------------------------------------------------------

    def test_sequences_go_on_after_opening_again_without_twins_or_holes(self, tmp_path: Path) -> None:
        """A number given twice breaks the ledger's key; a hole looks like an entry that was taken out."""
        store = self.open_store(tmp_path)
        assert [store.write(audited) for _ in range(3)] == [1, 2, 3]

        def rolled_back(unit: Unit) -> None:
            audited(unit)
            raise KeyError

        with pytest.raises(KeyError):
            store.write(rolled_back)
        assert store.write(audited) == 4
        store.close()

        again = self.open_store(tmp_path)
        assert again.gap is None
        assert again.write(audited) == 5
        again.close()

    def test_questions_and_answers_share_one_order_across_openings(self, tmp_path: Path) -> None:
        """An answer is numbered among the messages of its chat; a start that forgets it would put the next question before it."""
        store = self.open_store(tmp_path)
        accepted = Accepted(SendKind.ORDINARY, 0, 40, 0, 50, 90, 0, False)

        def ask(unit: Unit) -> None:
            unit.add_message("casey", "q1", "chat", None, "freelancer", "?", NOON)
            unit.add_answer("casey", "a1", "chat", "q1", "r1", 1, "res1", "gpt-4", "1", accepted, NOON)

        store.write(ask)
        store.close()
        again = self.open_store(tmp_path)
        again.write(lambda unit: unit.add_message("casey", "q2", "chat", "a1", "freelancer", "?", NOON))
        order = again.read(lambda unit: raw(unit, "SELECT id, sequence FROM messages UNION ALL SELECT id, sequence FROM answers ORDER BY 2"))
        again.close()
        assert order == [("q1", 1), ("a1", 2), ("q2", 3)]

    @pytest.mark.fault(103)
    def test_many_audit_writers_make_one_chain(self, store: Store) -> None:
        """Two entries that follow the same one would be two histories."""
        _together(16, lambda: [store.write(audited) for _ in range(5)])
        entries = store.read(lambda unit: unit.audit_entries())
        assert [e.sequence for e in entries] == list(range(1, 81))
        assert first_broken(entries) is None

    # --- reads ------------------------------------------------------------------------------------------------------

    def test_a_read_sees_nothing_uncommitted_and_waits_for_nobody(self, store: Store) -> None:
        """Pages open while a unit is under way."""
        wrote, go_on = threading.Event(), threading.Event()

        def work(unit: Unit) -> None:
            add_role("casey")(unit)
            wrote.set()
            assert go_on.wait(10)

        future = store.submit(work)
        assert wrote.wait(10)
        assert roles(store) == set()
        go_on.set()
        future.result(10)
        assert roles(store) == {"casey"}

    def test_a_read_stays_on_one_snapshot(self, store: Store) -> None:
        """Two statements of one read tell one story, whatever is committed between them."""

        def work(unit: Unit) -> tuple[int, int]:
            count = "SELECT count(*) FROM roles"
            before = raw(unit, count)[0][0]
            threading.Thread(target=lambda: store.write(add_role("casey"))).start()
            for _ in range(100):
                if roles(store):
                    break
                time.sleep(0.01)
            return before, raw(unit, count)[0][0]

        assert store.read(work) == (0, 0)
        assert roles(store) == {"casey"}

    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO roles VALUES ('casey', 'freelancer')",
            "UPDATE roles SET role = 'admin'",
            "DELETE FROM roles",
            "UPDATE roles SET role = 'admin' RETURNING role",
            "CREATE TABLE more (a INTEGER)",
            "DROP TABLE roles",
        ],
    )
    def test_a_read_writes_nothing(self, store: Store, sql: str) -> None:
        """Even swallowed: nothing of a read is ever committed, and the caller hears of it."""
        store.write(add_role("kim"))
        with pytest.raises(StatementFailed):
            store.read(lambda unit: raw(unit, sql))
        assert store.read(lambda unit: raw(unit, "SELECT * FROM roles")) == [("kim", "freelancer")]

    def test_a_read_takes_no_number(self, store: Store) -> None:
        """A verb that writes fails in a read before it has used anything up."""
        with pytest.raises((RuntimeError, StatementFailed)):
            store.read(audited)
        assert store.write(audited) == 1

    def test_a_read_that_runs_too_long_is_ended(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """It would keep deleted text alive and hold up checkpoints."""
        self.shorten_reads(monkeypatch, 0.15)
        endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
        with pytest.raises(ReadTooLong):
            store.read(lambda unit: raw(unit, endless))
        self.shorten_reads(monkeypatch, 30)
        assert roles(store) == set()

    def test_a_read_that_dawdles_between_statements_is_too_long_as_well(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """The snapshot is as open while Python thinks; swallowing the failure doesn't help."""
        self.shorten_reads(monkeypatch, 0.1)

        def dawdle(unit: Unit) -> str:
            roles_then = raw(unit, "SELECT * FROM roles")
            time.sleep(0.18)
            try:
                raw(unit, "SELECT * FROM roles")
            except ReadTooLong:
                return "swallowed"
            return f"read {roles_then}"

        with pytest.raises(ReadTooLong):
            store.read(dawdle)
        with pytest.raises(ReadTooLong):
            store.read(lambda unit: (raw(unit, "SELECT * FROM roles"), time.sleep(0.18)))
        self.shorten_reads(monkeypatch, 30)
        assert roles(store) == set()

    def test_many_readers_and_writers_beside_each_other(self, store: Store) -> None:
        """Nobody is refused for being at the same time as somebody else."""
        done: list[int] = []
        names = itertools.count()  # a thread's number may be another's that has ended already

        def visitor() -> None:
            for _ in range(10):
                store.write(add_role(str(next(names))))
                done.append(len(roles(store)))

        _together(8, visitor)
        assert len(done) == 80
        assert len(roles(store)) == 80

    # --- text and instants ------------------------------------------------------------------------------------------

    @pytest.mark.fault(71)
    @pytest.mark.parametrize("bad", ["\0", "a\0b", "\ud800", "tail \udfff", "\ud83d alone", "\udc00\ud800"])
    def test_a_nul_and_half_a_pair_are_refused_alike(self, store: Store, bad: str) -> None:
        """DuckDB keeps NULs and refuses halves, PostgreSQL the other way round: one contract for both."""
        with pytest.raises(TextNotStorable):
            store.write(lambda unit: unit.keep_draft("casey", "chat", "d", bad, NOON))
        with pytest.raises(TextNotStorable):
            store.read(lambda unit: raw(unit, "SELECT text FROM drafts WHERE text = ?", bad))
        assert store.read(lambda unit: unit.draft("casey", "chat", NOON - timedelta(days=90))) is None

    @pytest.mark.fault(71)
    @pytest.mark.parametrize(
        "text",
        [
            "שלום עולם \u202eabc\u202c",
            "مرحبا",
            "👩‍👩‍👧‍👦🏳️‍🌈 🇫🇷",
            "e\u0301 é ﷽",
            "\u200b\u200d\ufeff",
            "<|endoftext|>",
            "tab\t cr\r\n lf\n",
            "'; DROP TABLE drafts; --",
            " \x01\x7f\x85",
        ],
    )
    def test_text_comes_back_exactly_as_it_was(self, store: Store, text: str) -> None:
        """Right-to-left, joined emoji, marks, control characters and quotes are somebody's words."""
        store.write(lambda unit: unit.keep_draft("casey", "chat", "d", text, NOON))
        assert store.read(lambda unit: unit.draft("casey", "chat", NOON - timedelta(days=90))) == ("d", text)

    @pytest.mark.fault(71)
    @pytest.mark.trials
    def test_any_text_comes_back_or_is_refused(self, store: Store) -> None:
        """Whatever can be typed: exactly itself, or TextNotStorable; nothing between."""

        @settings(max_examples=trials(60, 1_000), suppress_health_check=list(HealthCheck), deadline=None)
        @given(st.text(st.characters(exclude_categories=()), min_size=1))
        def check(text: str) -> None:
            try:
                store.write(lambda unit: unit.keep_draft("casey", "chat", "d", text, NOON))
            except TextNotStorable:
                assert "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)
            else:
                assert store.read(lambda unit: unit.draft("casey", "chat", NOON - timedelta(days=90))) == ("d", text)

        check()

    @pytest.mark.fault(71)
    def test_a_text_of_20_megabytes_is_kept(self, store: Store) -> None:
        """Longer than anything the page lets through, so that no shorter one can fail here."""
        text = "Żółć 😀 " * 2_000_000
        store.write(lambda unit: unit.keep_draft("casey", "chat", "d", text, NOON))
        kept = store.read(lambda unit: unit.draft("casey", "chat", NOON - timedelta(days=90)))
        assert kept is not None and kept[1] == text

    @pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
    def test_an_instant_is_the_same_instant_wherever_the_machine_stands(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
        """A shifted instant moves a cycle's start, a purge and a receipt."""
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            store = self.open_store(tmp_path)
            at = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
            store.write(lambda unit: unit.add_consent("casey", 1, True, at))
            assert [c.at for c in store.read(lambda unit: unit.consents("casey"))] == [at]
            assert store.read(lambda unit: raw(unit, "SELECT * FROM consents"))[0][-1] == datetime(2026, 3, 28, 20, 45, 0, 123456)  # noqa: DTZ001
            store.close()
        finally:
            monkeypatch.undo()
            time.tzset()

    # --- what comes out ---------------------------------------------------------------------------------------------

    @pytest.mark.fault(94)
    @pytest.mark.parametrize(
        "sql",
        [
            "INSERT INTO roles VALUES (?, 'freelancer')",
            "SELECT CAST(? AS INTEGER)",
            "INSERT INTO roles VALUES ('kim', ?)",
            "SELECT CAST(? AS TIMESTAMP)",
        ],
    )
    def test_no_failure_carries_what_somebody_wrote(self, store: Store, sql: str, caplog: pytest.LogCaptureFixture) -> None:
        """The engine quotes parameters in its errors; whoever logs the exception would log the text."""
        caplog.set_level(logging.DEBUG)
        store.write(add_role(MARKER))
        with pytest.raises(StatementFailed) as caught:
            store.write(lambda unit: raw(unit, sql, MARKER))
        assert MARKER not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        assert caught.value.__cause__ is not None
        logging.getLogger("elsewhere").error("failed", exc_info=caught.value)
        assert MARKER not in caplog.text

    # --- closing ----------------------------------------------------------------------------------------------------

    def test_closing_finishes_what_was_accepted_and_refuses_what_comes_after(self, tmp_path: Path) -> None:
        """SIGTERM between a send and its commit loses nothing."""
        store = self.open_store(tmp_path)
        gate = threading.Event()
        store.submit(lambda unit: gate.wait(10))
        accepted = [store.submit(add_role(f"a{n}")) for n in range(50)]
        closer = threading.Thread(target=store.close)
        closer.start()
        gate.set()
        closer.join(10)
        assert [f.exception(0) for f in accepted] == [None] * 50
        with pytest.raises(StoreUnavailable, match="closed"):
            store.write(add_role("late"))
        with pytest.raises(StoreUnavailable, match="closed"):
            store.read(lambda unit: None)
        store.close()

        again = self.open_store(tmp_path)
        assert roles(again) == {f"a{n}" for n in range(50)}
        again.close()

    def test_closing_lets_a_read_end(self, tmp_path: Path) -> None:
        """A page that is being drawn gets its rows."""
        store = self.open_store(tmp_path)
        store.write(add_role("casey"))
        reading, go_on = threading.Event(), threading.Event()
        got: list[Any] = []

        def work(unit: Unit) -> Any:
            raw(unit, "SELECT 1")
            reading.set()
            assert go_on.wait(10)
            return raw(unit, "SELECT account_id FROM roles")

        reader = threading.Thread(target=lambda: got.extend(store.read(work)))
        reader.start()
        assert reading.wait(10)
        closer = threading.Thread(target=store.close)
        closer.start()
        time.sleep(0.05)
        go_on.set()
        reader.join(10)
        closer.join(10)
        assert got == [("casey",)]

    def test_opening_a_second_time_migrates_nothing_twice(self, tmp_path: Path) -> None:
        """The record of what was applied is what makes it so."""
        for _ in range(3):
            store = self.open_store(tmp_path)
            applied = store.read(lambda unit: raw(unit, "SELECT number, name FROM schema_migrations ORDER BY number"))
            store.close()
            assert applied[0] == (1, "foundation")
            assert len({number for number, _ in applied}) == len(applied)

    # --- people -----------------------------------------------------------------------------------------------------

    @pytest.mark.fault(5, 8)
    def test_a_person_is_known_as_of_the_last_commit(self, store: Store) -> None:
        """Whatever the engine keeps in memory: roles, plan, consent and sessions that were ended count with the commit, for everybody at once."""
        store.write(lambda unit: unit.add_account(somebody()))
        assert casey_in(store).consents == () and casey_in(store).entitlements == ()
        changes: list[Callable[[Unit], object]] = [
            lambda unit: unit.add_consent("casey", 1, True, NOON),
            lambda unit: unit.add_entitlement("casey", "Plus", 1_000, NOON, None, NOON),
            lambda unit: unit.change_account("casey", "epoch", "out", NOON),
            lambda unit: unit.set_roles("casey", {Role.SUPPORT}),
            lambda unit: unit.add_anchor("casey", Anchor(NOON.date(), "UTC"), NOON),
            lambda unit: unit.change_account("casey", "closed", "yes", NOON),
        ]
        for change in changes:
            before = casey_in(store)
            store.write(change)
            assert casey_in(store) != before
            assert store.read(lambda rows: rows.person("casey")) == casey_in(store)
        known = casey_in(store)
        assert known.account is not None and known.account.closed and known.account.epoch == 1 and known.account.roles == {Role.SUPPORT}
        assert len(known.consents) == len(known.entitlements) == 1 and known.anchor is not None

    def test_what_was_rolled_back_is_not_known_of_anybody(self, store: Store) -> None:
        """Nor what a unit sees of its own changes before they are committed."""
        store.write(lambda unit: unit.add_account(somebody()))
        seen = []

        def work(unit: Unit) -> None:
            unit.add_consent("casey", 1, True, NOON)
            seen.append(unit.person("casey").consents)
            raise Stopped

        with pytest.raises(Stopped):
            store.write(work)
        assert len(seen[0]) == 1 and casey_in(store).consents == ()

    def test_a_read_that_began_before_a_commit_leaves_nothing_old_behind(self, store: Store) -> None:
        """It may see the person as they were; nobody after it does."""
        store.write(lambda unit: unit.add_account(somebody()))

        def work(rows: Unit) -> int:
            rows.consents("casey")  # from here on it reads this moment
            store.write(lambda unit: unit.add_consent("casey", 1, True, NOON))
            return len(rows.person("casey").consents)

        assert store.read(work) in (0, 1)
        assert len(casey_in(store).consents) == 1

    def test_somebody_unknown_is_nobody_and_may_come_later(self, store: Store) -> None:
        assert casey_in(store).account is None
        store.write(lambda unit: unit.add_account(somebody()))
        assert casey_in(store).account is not None


def _together(count: int, work: Callable[[], object]) -> None:
    """Run it on several threads at once; the first failure among them is the test's."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def casey_in(store: Store) -> Person:
    return store.read(lambda rows: rows.person("casey"))


def somebody() -> Account:
    return Account("casey", "https://id.example", "casey", "Casey", None, "UTC", False, NOON, frozenset({Role.FREELANCER}))
