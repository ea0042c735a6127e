"""kill -9 at each step of a send, in a process of its own, against an upstream on the wire; then the books and the text are looked at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.config import Settings
from chatpro.domain.chats import AnswerState
from chatpro.models.scripted import ScriptedModel, ScriptedSource
from tests.conftest import trials
from tests.running import assert_books_agree, until
from tests.services.victim import SAVE_SECONDS
from tests.upstream import HANG, Reply, Step, Upstream, answer, said

VICTIM = Path(__file__).with_name("victim.py")
WORDS = " ".join(f"word{n}" for n in range(60))
GAP = 0.02
STEPS = ("before the call", "when the call is made", "in the middle", "after the last word", "after the settlement", "reserved", "ended", "settled")
POINTS = {"reserved": "answering.reserved", "ended": "answering.ended", "settled": "answering.settled"}
"""Steps at which the process ends itself, exactly there; at the others it is killed from outside, about there."""
FAR_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)
SLACK = 0.8
"""Seconds beside the saving interval: a busy machine may keep the saver from its turn."""


class Victim:
    """One that has been born; what it tells comes line by line. At the end of the `with` it is dead, whatever happened."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path, upstream: Upstream, point: str = "") -> None:
        assert nursery.stdin is not None
        self._nursery = nursery
        nursery.stdin.write(f"{folder}\t{upstream.address}\tGo\t{point}\n")
        nursery.stdin.flush()
        self._pid = int(self.line())
        self.last = ""

    def line(self) -> str:
        assert self._nursery.stdout is not None
        self.last = self._nursery.stdout.readline().strip()
        return self.last

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    @property
    def accepted(self) -> str:
        """The id of the answer it is giving, or nothing if the last that it said was something else."""
        return self.last.removeprefix("accepted ") if self.last.startswith("accepted") else ""

    def __enter__(self) -> Victim:
        assert self.line() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        while self.last != "gone":
            self.line()


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, str(VICTIM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and its people, to be copied: making them takes longer than a victim lives."""
    folder = tmp_path_factory.mktemp("fresh")
    asyncio.run(bootstrap.stop(reopened(folder)))
    return folder


def kill_at(step: str, nursery: subprocess.Popen[str], folder: Path, upstream: Upstream, chance: random.Random) -> str:
    """Let a victim live until this step. Returns the id of the answer it was giving, or nothing if none was accepted."""
    upstream.queue(Reply([HANG]) if step == "when the call is made" else answer(WORDS, gap=GAP, usage=None))
    with Victim(nursery, folder, upstream, POINTS.get(step, "")) as victim:
        if step == "before the call":
            time.sleep(chance.uniform(0, 0.02))
            victim.kill()
            victim.line()
            return victim.accepted
        victim.line()
        if step == "reserved":
            assert victim.last == "gone"
            return ""
        answer_id = victim.accepted
        assert answer_id
        if step in POINTS:
            assert victim.line() == "gone"
            return answer_id
        until(lambda: upstream.asked)
        whole = len(WORDS.split()) * GAP
        if step == "in the middle":
            time.sleep(chance.uniform(0, whole * 0.9))
        elif step == "after the last word":
            until(lambda: not upstream.running)
            time.sleep(chance.uniform(0, 0.06))
        elif step == "after the settlement":
            assert victim.line() == "settled"
        return answer_id


def reopened(folder: Path) -> House:
    settings = Settings(
        demo_dir=folder, data_dir=folder, openai_api_key="made-up", openai_base_url="http://127.0.0.1:9/v1", sample_accounts=1, sample_freelancers=0
    )
    house = bootstrap.build(settings, ScriptedSource(ScriptedModel()))
    house.answering.recover()
    return house


@pytest.mark.fault(28, 39)
@pytest.mark.trials
def test_killed_at_each_step_of_a_send_nothing_is_pending_and_nothing_is_charged_twice(tmp_path: Path, nursery: subprocess.Popen[str], fresh: Path) -> None:
    """After the restart: one usage entry for each answer, receipts = ledger = counter, text saved up to the last second, and a second start changes nothing."""
    chance = random.Random(11)
    counts = dict.fromkeys(AnswerState, 0)
    for trial in range(trials(20, 200)):  # each step twice and more
        step, folder = STEPS[trial % len(STEPS)], shutil.copytree(fresh, tmp_path / str(trial))
        with Upstream() as upstream:
            answer_id = kill_at(step, nursery, folder, upstream, chance)
        house = reopened(folder)
        try:
            account = house.accounts.sample("bench-1")
            assert account is not None
            assert house.store.read(lambda rows: rows.running_calls()) == []
            assert house.store.read(lambda rows: rows.pending_past(FAR_AHEAD)) == []
            assert_books_agree(house, account)
            entries = house.accounts.receipts(account)
            assert len({e.answer_id for e in entries}) == len(entries) <= 1
            if answer_id:
                (chat,) = house.history.chats(account)
                question, given = house.history.open(account, chat.id).messages
                assert question.text == "Go" and given.id == answer_id and given.answer is not None
                counts[given.answer.state] += 1
                assert WORDS.startswith(given.text)
                assert (entries[0].receipt.total > 0) == bool(given.text)
                if step in ("in the middle", "after the last word"):
                    assert given.answer.state in (AnswerState.INTERRUPTED, AnswerState.FINISHED)
                if step in ("after the settlement", "settled"):
                    assert given.text == WORDS and given.answer.state is AnswerState.FINISHED
                if step == "ended":
                    assert given.answer.state is AnswerState.INTERRUPTED
            elif step == "reserved":
                (chat,) = house.history.chats(account)
                question, given = house.history.open(account, chat.id).messages
                assert question.text == "Go" and given.answer is not None and given.answer.state is AnswerState.INTERRUPTED and entries[0].receipt.total == 0
            assert house.answering.recover() == 0
        finally:
            asyncio.run(bootstrap.stop(house))
    assert counts[AnswerState.INTERRUPTED] >= trials(6, 60) and counts[AnswerState.FINISHED] >= trials(4, 40)


def read_along(nursery: subprocess.Popen[str], folder: Path) -> tuple[list[float], float]:
    """Kill a victim in the middle of its answer. Returns when each word was sent to it, and when it was killed."""
    sent_at: list[float] = []
    steps: list[Step] = [said("")]
    for word in WORDS.split():
        steps += [GAP * 2, said(f"{word} "), lambda: sent_at.append(time.monotonic())]
    with Upstream(otherwise=Reply([*steps, HANG])) as upstream, Victim(nursery, folder, upstream) as victim:
        victim.line()
        assert victim.accepted
        until(lambda: len(sent_at) > 45)
        killed_at = time.monotonic()
        victim.kill()
    return sent_at, killed_at


@pytest.mark.fault(28)
@pytest.mark.trials
def test_what_was_on_the_screen_a_moment_before_the_kill_is_still_there(tmp_path: Path, nursery: subprocess.Popen[str], fresh: Path) -> None:
    """All that came before the last save is kept: no more than one saving interval of words is lost."""
    for trial in range(trials(2, 20)):
        folder = shutil.copytree(fresh, tmp_path / str(trial))
        sent_at, killed_at = read_along(nursery, folder)
        house = reopened(folder)
        try:
            account = house.accounts.sample("bench-1")
            assert account is not None
            given = house.history.open(account, house.history.chats(account)[0].id).messages[1]
            due = sum(at < killed_at - SAVE_SECONDS - SLACK for at in sent_at)
            assert len(given.text.split()) >= due > 5
        finally:
            asyncio.run(bootstrap.stop(house))
