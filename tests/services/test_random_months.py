"""Random histories over months, on the real services and a real store: whatever people, providers, clocks and crashes do, the books agree,
every promise about warnings and the last message holds, and nobody gets more than there is.

The model says what the history tells it to, the clock stands until it is moved, and the loop turns only when the test turns it, so a failing
history is shrunk to its shortest and can be read. Allowances are small: a month has some five messages.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.domain.accounts import Account, PlanState, Role
from chatpro.domain.allowance import Cycle, SendKind, cycle_at, own_limit_in
from chatpro.errors import Busy, ModelProblem, Problem
from chatpro.models import Ended, Event, Piece, Prompt, Spent
from chatpro.models.scripted import CARD, ScriptedSource
from chatpro.services.accounts import Meter
from chatpro.services.answering import Answering, AskLast, InLine, NotSent, Outcome, Sent
from tests.cast import PLAN, Clock, build_house, person
from tests.conftest import trials

ALLOWANCES = st.sampled_from([7_000, 9_000, 12_000, 12_001, 20_000])
DRAFTS = st.sampled_from([1, 30, 500, 1_500, 3_000, 7_000])
ZONES = st.sampled_from(["UTC", "Europe/Stockholm", "America/St_Johns", "Pacific/Apia", "Asia/Beirut", "Pacific/Kiritimati"])
SENDS = st.lists(st.tuples(st.sampled_from([1, 500, 1_500]), st.sampled_from([0.02, 0.5, 0.97])), min_size=1, max_size=4)
STARTS = st.integers(0, 700 * 24).map(lambda hours: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours))


class Told:
    """A model that says what the history tells it to, to each open call by the draft that it answers."""

    name, card = "scripted", CARD

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Queue[Event | Exception]] = {}

    async def stream(self, prompt: Prompt) -> AsyncIterator[Event]:
        text = prompt.turns[-1].text
        said = self.open[text] = asyncio.Queue()
        try:
            while True:
                event = await said.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Ended):
                    return
        finally:
            if self.open.get(text) is said:
                del self.open[text]


@dataclass
class Stage:
    """What all histories share: one store, one clock, one loop, and the engine of the present life."""

    house: House
    clock: Clock
    loop: asyncio.AbstractEventLoop
    model: Told
    engine: Answering
    ada: Account

    def turn(self) -> None:
        """Let the loop run until everything that can happen by itself has happened."""
        self.loop.run_until_complete(asyncio.wait_for(self._quiet(), 60))

    async def _quiet(self) -> None:
        await asyncio.sleep(0)
        while self.engine._entering or self.engine._settling or not all(map(self._rests, list(self.engine._live.values()))):  # noqa: ASYNC110
            await asyncio.sleep(0.0005)  # the engine has no reason to tell anybody that it rests

    def _rests(self, live: Any) -> bool:
        return not live.placed or (live.task is not None and live.wish.text in self.model.open and not live.closing and self.model.open[live.wish.text].empty())

    def crash(self) -> None:
        """The process is gone, with all that it only remembered; the next one settles what was saved."""
        dead, self.engine = self.engine, new_engine(self.house, self.loop)

        async def nothing(*given: Any) -> None:
            pass

        dead._settle = nothing  # type: ignore[method-assign]
        for live in dead._live.values():
            if live.task is not None:
                live.task.cancel()
        assert dead._saver is not None
        dead._saver.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.engine.recover()


def new_engine(house: House, loop: asyncio.AbstractEventLoop) -> Answering:
    engine = Answering(house.store, house.settings, house.model, house.now)
    engine.start(loop)
    return engine


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    # In memory where the machine has such a place: what is tried here is no crash of the machine, and half of the time were its flushes.
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    clock, model, loop, patched = Clock(), Told(), asyncio.new_event_loop(), pytest.MonkeyPatch()
    house = build_house(folder, model=ScriptedSource(model), now=clock, save_seconds=3_600.0, running_per_account=3, waiting_seconds=600.0)  # type: ignore[arg-type]
    try:
        made: list[Answering] = []

        async def begin() -> None:
            made.append(new_engine(house, loop))

        loop.run_until_complete(begin())
        patched.setattr("chatpro.storage.duckdb.READ_SECONDS", 60.0)  # a machine that stands still for two seconds is no finding
        yield Stage(house, clock, loop, model, made[0], person(house, "ada"))
    finally:
        loop.run_until_complete(bootstrap.stop(house))
        loop.close()
        patched.undo()
        shutil.rmtree(folder)


class Months(RuleBasedStateMachine):
    """One person, from their first message on."""

    stage: Stage

    @initialize(starts=STARTS, zone=ZONES, allowance=ALLOWANCES)
    def arrive(self, starts: datetime, zone: str, allowance: int) -> None:
        self.number = 0
        self.chats: list[str] = []
        self.tried: dict[str, str] = {}  # the newest text that was sent, or tried to be, in each chat
        self.in_force: dict[datetime, set[int]] = defaultdict(set)  # figures that were in force at any time, by cycle
        self.announced: tuple[datetime, int, int] | None = None  # the last message: cycle, figure, and how many ordinary ones there were
        stage = self.stage
        stage.crash()  # whatever a history that failed has left
        stage.clock.at = starts
        made = Account(secrets.token_hex(16), "random", secrets.token_hex(8), "Somebody", None, zone, False, starts, frozenset({Role.FREELANCER}))

        def work(unit: Any) -> None:
            unit.add_account(made)
            unit.add_consent(made.id, stage.house.settings.consent_version, True, starts)

        stage.house.store.write(work)
        self.account = made
        self.entitle(allowance)

    def teardown(self) -> None:
        if not hasattr(self, "account"):
            return
        while self.stage.model.open:  # what waited comes after what ends
            for text in list(self.stage.model.open):
                self._say(text, ModelProblem(Problem.WRONG_KEY, ""))
            self.stage.turn()
        assert not self.stage.engine._live and not self.stage.engine._held and not len(self.stage.engine._line)
        self.books_agree()
        assert self.meter is None or self.meter.reserved == 0

    # --- what is there ------------------------------------------------------------------------------------------------

    @property
    def meter(self) -> Meter | None:
        return self.stage.house.accounts.meter(self.account, self.stage.engine.sizes())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.stage.house.store.read(lambda rows: rows._all(sql, self.account.id))

    @property
    def cycle(self) -> Cycle | None:
        meter = self.meter
        return meter.cycle if meter else None

    def _say(self, text: str, *events: Event | Exception) -> None:
        for event in events:
            self.stage.model.open[text].put_nowait(event)

    # --- what a person does -------------------------------------------------------------------------------------------

    def _text(self, words: int) -> str:
        self.number += 1
        return f"{self.number} " + "word " * words

    def _send(self, chat: str, text: str, yes: Any = None) -> Outcome | Busy:
        engine = self.stage.engine
        self.tried[chat] = text
        opened = self.stage.house.store.read(lambda rows: rows.outline(self.account.id, chat, self.stage.clock() - timedelta(days=90)))
        try:
            return engine.send(self.account, chat, text, opened[-1].id if opened else None, yes)
        except Busy as busy:
            return busy

    def _place(self, old: bool) -> str:
        if old and self.chats:
            return self.chats[self.number % len(self.chats)]
        self.chats.append(self.stage.engine.new_chat_id())
        return self.chats[-1]

    @rule(words=DRAFTS, old=st.booleans(), yes=st.sampled_from([True, True, False]), twice=st.booleans())
    def send(self, words: int, old: bool, yes: bool, twice: bool) -> None:
        before, warned = self.meter, self.rows("SELECT count(*) FROM warnings WHERE account_id = ?")
        chat, text = self._place(old), self._text(words)
        outcome = self._send(chat, text)
        self._look_at(outcome, before, chat, text)
        if isinstance(outcome, InLine) and outcome.own:
            assert before is None or before.reserved, "nobody waits for what is not there"
        if isinstance(outcome, NotSent | Busy):
            assert self.rows("SELECT count(*) FROM warnings WHERE account_id = ?") == warned, "a refusal warns of nothing"
        if isinstance(outcome, AskLast):
            assert self.rows("SELECT count(*) FROM warnings WHERE account_id = ?") == warned, "asking is not telling: the row comes with the yes"
            if yes:
                outcome = self._send(chat, text, outcome.yes)
                assert isinstance(outcome, Sent) and outcome.kind is SendKind.LAST, outcome
                self._accepted(outcome)
        if twice and isinstance(outcome, Sent):
            self.stage.turn()
            again = self.stage.engine.send(self.account, chat, text, self._follows(outcome))
            assert isinstance(again, Sent) and again.answer_id == outcome.answer_id
        self.stage.turn()

    @rule(sends=SENDS)
    def work_a_while(self, sends: list[tuple[int, float]]) -> None:
        """One message after the other, each answered: how months are spent."""
        for words, share in sends:
            self.send(words, old=False, yes=True, twice=False)
            self.an_answer_ends(0, share, "yes", one=False)

    @rule(words=st.sampled_from([1, 500, 1_500]), share_of_last=st.sampled_from([0.02, 0.97]), more=st.booleans())
    def work_to_the_end(self, words: int, share_of_last: float, more: bool) -> None:
        """Long answers until nothing of this size is sent any more, and perhaps something short after that."""
        for size in [words] * 12 + [1] * (3 if more else 0):
            self.send(size, old=True, yes=True, twice=False)
            while self.stage.model.open:
                meter = self.meter
                nothing_left = meter is not None and meter.remaining == 0
                self.an_answer_ends(0, share_of_last if nothing_left else 0.97, "yes", one=True)
            if self.meter is None or (self.meter.closed and not more):
                break

    def _follows(self, sent: Sent) -> str | None:
        messages = self.stage.house.store.read(lambda rows: rows._all("SELECT question_id FROM answers WHERE id = ?", sent.answer_id))
        row = self.stage.house.store.read(lambda rows: rows._all("SELECT parent_id FROM messages WHERE id = ?", messages[0][0]))
        return row[0][0] if row else None

    @rule(words=st.lists(st.sampled_from([1, 500, 1_500]), min_size=2, max_size=4))
    def send_from_several_tabs_at_once(self, words: list[int]) -> None:
        before, jobs = self.meter, [(self._place(False), self._text(n)) for n in words]
        with ThreadPoolExecutor(len(jobs)) as pool:
            outcomes = list(pool.map(lambda job: self._send(*job), jobs))
        for (chat, text), outcome in zip(jobs, outcomes, strict=True):
            self._look_at(outcome, None, chat, text)
        if before is not None:
            assert sum(isinstance(o, Sent) for o in outcomes) <= 3
        self.stage.turn()

    def _look_at(self, outcome: Outcome | Busy, before: Meter | None, chat: str, text: str) -> None:
        """Each answer to a send is one that may be given here."""
        house = self.stage.house
        if isinstance(outcome, Sent):
            assert outcome.kind is SendKind.ORDINARY, "nobody is sent a last message that they were not asked for"
            assert before is None or not before.next_is_last, "the last message was announced, and then it was an ordinary one"
            self._accepted(outcome)
            return
        assert house.history.draft(self.account, chat) == text, "what was not sent is kept"
        if isinstance(outcome, NotSent):
            self._may_be_refused(outcome)

    def _accepted(self, sent: Sent) -> None:
        meter = self.meter
        assert meter is not None and meter.cycle is not None
        assert meter.used + meter.reserved <= meter.allowance
        assert meter.own_limit is None or meter.used + meter.reserved <= meter.own_limit
        lasts = [
            row for row in self.rows(RESERVATIONS) if row[3] == "last" and (row[0], row[4]) == (meter.cycle.starts_at.replace(tzinfo=None), meter.allowance)
        ]
        assert not any(row[5] for row in lasts), "a message that was called the last is the last"
        told = {(w.cycle_starts_at, w.allowance) for w in self.stage.house.accounts.warnings(self.account) if w.kind == "last_message"}
        assert ((meter.cycle.starts_at, meter.allowance) in told) == bool(lasts), "said with each last message, and with no other"
        if sent.kind is SendKind.ORDINARY:
            smallest = self.stage.engine.sizes().smallest_send(meter.allowance)
            assert meter.allowance - meter.used - meter.reserved >= smallest, "some draft can still be sent"

    def _may_be_refused(self, refused: NotSent) -> None:
        meter, accounts = self.meter, self.stage.house.accounts
        if refused.reason == "plan_ended":
            assert accounts.grant(self.account).state is not PlanState.HAS
            return
        assert meter is not None
        told = self.rows("SELECT cycle_starts_at, allowance FROM warnings WHERE account_id = ? AND kind = 'last_message'")
        starts_at = meter.cycle.starts_at.replace(tzinfo=None) if meter.cycle else None
        if refused.reason == "no_tokens":
            assert starts_at in [row[0] for row in told], "refused for want of tokens, and never told"
            assert meter.closed
        elif refused.reason == "own_limit":
            person = self.stage.house.store.read(lambda rows: rows.person(self.account.id))
            limit = own_limit_in(person.own_limits, meter.cycle)
            assert limit == meter.own_limit is not None
            assert meter.used + meter.reserved + refused.draft_tokens > limit - self.stage.engine.sizes().prompt_cap - 9_000
        elif refused.reason == "allowance_lowered":
            assert meter.cycle is not None and meter.allowance < max(self.in_force[meter.cycle.starts_at])
        else:
            assert refused.reason == "too_long" and refused.draft_tokens > refused.fits_now

    @rule(which=st.integers(0, 9), share=st.sampled_from([0.02, 0.5, 0.97, 1.0, 3.0]), claimed=st.sampled_from(["yes", "no", "absurd"]), one=st.booleans())
    def an_answer_ends(self, which: int, share: float, claimed: str, one: bool) -> None:
        """One that is being written, or all of them and whatever waited for them."""
        while picked := self._pick(which):
            text, live = picked
            out = max(1, int(live.call.answer_limit * share))
            spent = {"yes": [Spent(live.call.prompt_tokens, out)], "absurd": [Spent(-1, 10**12)], "no": []}[claimed]
            words = "Some words. " + ("" if spent else "word " * min(out, 1_500))
            self._say(text, Piece(words), *spent, Ended("stop"))
            self.stage.turn()
            if one:
                break

    @rule(which=st.integers(0, 9), words=st.sampled_from([0, 40]))
    def an_answer_fails(self, which: int, words: int) -> None:
        if picked := self._pick(which):
            self._say(picked[0], *([Piece("word " * words)] if words else []), ModelProblem(Problem.WRONG_KEY, ""))
            self.stage.turn()

    @rule(which=st.integers(0, 9), words=st.sampled_from([0, 300]), saved=st.booleans())
    def an_answer_grows(self, which: int, words: int, saved: bool) -> None:
        picked = self._pick(which)
        if picked and words:
            self._say(picked[0], Piece("word " * words))
            self.stage.turn()
        if saved:
            self.stage.loop.run_until_complete(self.stage.engine._save())

    @rule(which=st.integers(0, 9))
    def a_person_presses_stop(self, which: int) -> None:
        if picked := self._pick(which):
            self.stage.engine.stop(self.account, picked[1].id)
            self.stage.engine.stop(self.account, picked[1].id)
            self.stage.turn()

    def _pick(self, which: int) -> tuple[str, Any] | None:
        """One of the answers that are being written, if there are any."""
        if not self.stage.model.open:
            return None
        text = sorted(self.stage.model.open)[which % len(self.stage.model.open)]
        return text, next(live for live in self.stage.engine._live.values() if live.wish.text == text)

    # --- what else happens --------------------------------------------------------------------------------------------

    @rule(allowance=ALLOWANCES)
    def entitle(self, allowance: int) -> None:
        accounts = self.stage.house.accounts
        accounts.entitle(self.stage.ada, self.account.id, PLAN, allowance)
        self.announced = None
        self.changed_at = self.stage.clock()
        self._note_figure()

    @rule(resumed=st.none() | ALLOWANCES)
    def the_plan_ends(self, resumed: int | None) -> None:
        """And a send is tried; mostly it is resumed before long, in the same cycle."""
        self.stage.house.accounts.end_plan(self.stage.ada, self.account.id)
        self.changed_at = self.stage.clock()
        self.send(1, old=False, yes=True, twice=False)
        if resumed:
            self.stage.clock.forward(hours=5)
            self.entitle(resumed)

    @rule(above=st.sampled_from([-1, 500, 3_000]), lifted=st.sampled_from([True, True, False]))
    def set_own_limit(self, above: int, lifted: bool) -> None:
        """Below or somewhat above what is used; a send is tried, and mostly the limit is lifted before long."""
        meter = self.meter
        if meter is None:
            return
        limit = max(0, min(meter.used + above, meter.allowance - 1))
        self.stage.house.accounts.set_own_limit(self.account, limit)
        self.send(500, old=False, yes=True, twice=False)
        now = self.meter
        assert now is not None and now.own_limit == limit
        if lifted:
            self.lift_own_limit()

    @rule()
    def lift_own_limit(self) -> None:
        self.stage.house.accounts.lift_own_limit(self.account)
        meter = self.meter
        assert meter is None or meter.own_limit is None

    @rule(hours=st.sampled_from([1, 30, 24 * 12]))
    def time_passes(self, hours: int) -> None:
        self.stage.clock.forward(hours=hours)
        self._note_figure()

    @rule(seconds=st.sampled_from([-1, 0, 1, 3_600]))
    def the_cycle_ends(self, seconds: int) -> None:
        if cycle := self.cycle:
            self.stage.clock.at = max(self.stage.clock.at, cycle.ends_at + timedelta(seconds=seconds))
            self._note_figure()

    @rule(hours=st.sampled_from([1, 24 * 10, 24 * 40]))
    def the_clock_is_set_back(self, hours: int) -> None:
        """Not beyond the last change of the plan: a plan that has not begun is a plan that nobody has."""
        before = self.cycle
        self.stage.clock.at = max(self.changed_at, self.stage.clock.at - timedelta(hours=hours))
        after = self.cycle
        used = self.rows("SELECT max(starts_at) FROM cycles WHERE account_id = ?")[0][0]
        if before is not None and used == before.starts_at.replace(tzinfo=None):
            assert after == before, "a cycle that was used is never left backwards"

    @rule()
    def the_process_dies(self) -> None:
        waiting = [live for live in self.stage.engine._live.values() if not live.placed]
        self.stage.crash()
        assert not self.stage.model.open
        assert self.rows("SELECT count(*) FROM reservations WHERE state = 'pending' AND account_id = ?") == [(0,)]
        for live in waiting:
            if self.tried[live.chat_id] == live.wish.text:  # one draft a chat: it is the newest
                assert self.stage.house.history.draft(self.account, live.chat_id) == live.wish.text

    @rule()
    def housekeeping_comes(self) -> None:
        assert self.stage.house.store.read(lambda rows: rows.counters_that_differ()) == []
        self.stage.engine.expire_past()

    def _note_figure(self) -> None:
        meter = self.meter
        if meter is not None and meter.cycle is not None:
            self.in_force[meter.cycle.starts_at].add(meter.allowance)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        """Receipts = ledger = counter = meter; one row for each crossed threshold and figure; cycles tile; nobody got more than there was."""
        if not hasattr(self, "account"):
            return
        self._note_figure()
        sums: dict[datetime, int] = defaultdict(int)
        answers: dict[str, int] = defaultdict(int)
        for starts_at, answer_id, total in self.rows("SELECT cycle_starts_at, answer_id, tokens_in + tokens_out FROM usage_entries WHERE account_id = ?"):
            sums[starts_at] += total
            answers[answer_id] += 1
        assert set(answers.values()) <= {1}
        held: dict[datetime, int] = defaultdict(int)
        most: dict[datetime, int] = defaultdict(int)
        ordinary: dict[datetime, int] = defaultdict(int)
        for starts_at, tokens, state, kind, figure, charged in self.rows(RESERVATIONS):
            most[starts_at] = max(most[starts_at], figure)
            if state == "pending":
                held[starts_at] += tokens
            assert charged is None or charged <= tokens
            ordinary[starts_at] += kind == "ordinary"
        counters = self.rows("SELECT starts_at, ends_at, used, reserved FROM cycles WHERE account_id = ? ORDER BY starts_at")
        for starts_at, _, used, reserved in counters:
            assert (used, reserved) == (sums[starts_at], held[starts_at])
            assert used <= most[starts_at], "more than was in force when it was accepted"
        self._tile(counters)
        self._warned({row[0]: row[2] for row in counters})
        meter = self.meter
        if meter is not None and meter.cycle is not None:
            key = meter.cycle.starts_at.replace(tzinfo=None)
            assert (meter.used, meter.reserved) == (sums[key], held[key])
            self._announced(meter, key, ordinary[key])

    def _announced(self, meter: Meter, starts_at: datetime, ordinary: int) -> None:
        """Once the next message was announced as the last, it is: until the figure is another one, none is ordinary, and nothing is taken back."""
        if self.announced and self.announced[:2] == (starts_at, meter.allowance):
            assert meter.next_is_last or meter.closed, "an announcement that was taken back"
            assert ordinary == self.announced[2], "announced as the last, and then it was an ordinary one"
        self.announced = (starts_at, meter.allowance, ordinary) if meter.next_is_last or meter.closed else None

    def _tile(self, counters: list[tuple[Any, ...]]) -> None:
        anchor = self.stage.house.store.read(lambda rows: rows.person(self.account.id)).anchor
        for starts_at, ends_at, *_ in counters:
            assert anchor is not None
            cycle = cycle_at(anchor, starts_at.replace(tzinfo=UTC))
            assert (cycle.starts_at.replace(tzinfo=None), cycle.ends_at.replace(tzinfo=None)) == (starts_at, ends_at)
        assert all(one[1] <= other[0] for one, other in zip(counters, counters[1:], strict=False))

    def _warned(self, used: dict[datetime, int]) -> None:
        given = self.rows("SELECT cycle_starts_at, kind, allowance FROM warnings WHERE account_id = ?")
        assert len(set(given)) == len(given)
        for starts_at, kind, figure in given:
            assert figure in self.in_force[starts_at.replace(tzinfo=UTC)], "warned under a figure that this cycle never had"
            if kind != "last_message":
                assert used[starts_at] * 100 >= figure * int(kind), "warned too early"
        meter = self.meter
        if meter is None or meter.cycle is None:
            return
        starts_at = meter.cycle.starts_at.replace(tzinfo=None)
        for kind in ("75", "95"):
            crossed = used.get(starts_at, 0) * 100 >= meter.allowance * int(kind)
            assert ((starts_at, kind, meter.allowance) in given) == crossed, "warned exactly where usage has come under the figure in force"


RESERVATIONS = """
SELECT r.cycle_starts_at, r.tokens, r.state, r.kind, r.allowance, u.tokens_in + u.tokens_out
FROM reservations r LEFT JOIN usage_entries u ON u.reservation_id = r.id WHERE r.account_id = ?
"""


@pytest.mark.fault(36, 38, 42, 44, 45, 46, 47, 48)
@pytest.mark.trials
def test_whatever_happens_over_months_the_books_agree_and_the_promises_hold(stage: Stage) -> None:
    """Sends, stops, failures, races, restarts, changed entitlements, own limits, renewals, clocks that jump: in any order."""
    Months.stage = stage
    run_state_machine_as_test(
        Months,
        settings=settings(
            max_examples=trials(100, 3_000), stateful_step_count=trials(15, 25), deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
        ),
    )
