"""kill -9 at each step of a send, in a process of its own, against an upstream on the wire; then the books and the text are looked at."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.config import Settings
from chatpro.domain.chats import AnswerState
from chatpro.models.scripted import ScriptedModel, ScriptedSource
from tests.conftest import trials
from tests.running import assert_books_agree
from tests.services.victim import SAVE_SECONDS
from tests.upstream import HANG, Reply, Upstream, answer, said

VICTIM = Path(__file__).with_name("victim.py")
WORDS = " ".join(f"word{n}" for n in range(60))
GAP = 0.02
STEPS = ("before the call", "when the call is made", "in the middle", "after the last word", "after the settlement")
FAR_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)
SLACK = 0.35
"""Seconds beside the saving interval: two shared cores may keep the saver from its turn."""


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill_at(step: str, folder: Path, upstream: Upstream, chance: random.Random) -> str:
    """Run a victim and kill it at this step. Returns the id of the answer it was giving, or nothing if none was accepted."""
    upstream.queue(Reply([HANG]) if step == "when the call is made" else answer(WORDS, gap=GAP, usage=None))
    calls = sum(r.path.endswith("completions") for r in upstream.requests)
    with subprocess.Popen([sys.executable, str(VICTIM), str(folder), upstream.address, "Go"], stdout=subprocess.PIPE, text=True) as victim:
        try:
            assert line(victim) == "ready"
            if step == "before the call":
                time.sleep(chance.uniform(0, 0.02))
                os.kill(victim.pid, signal.SIGKILL)
            said_last = line(victim)
            if step != "before the call":
                assert said_last.startswith("accepted")
                while sum(r.path.endswith("completions") for r in upstream.requests) == calls:
                    time.sleep(0.002)
                whole = len(WORDS.split()) * GAP
                if step == "in the middle":
                    time.sleep(chance.uniform(0, whole * 0.9))
                elif step == "after the last word":
                    time.sleep(whole + chance.uniform(0, 0.06))
                elif step == "after the settlement":
                    assert line(victim) == "settled"
        finally:
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
    return said_last.removeprefix("accepted ") if said_last.startswith("accepted") else ""


def reopened(folder: Path) -> House:
    settings = Settings(demo_dir=folder, data_dir=folder, openai_api_key="made-up", openai_base_url="http://127.0.0.1:9/v1", sample_accounts=1)
    house = bootstrap.build(settings, ScriptedSource(ScriptedModel()))
    house.answering.recover()
    return house


@pytest.mark.fault(28, 39)
@pytest.mark.trials
def test_killed_at_each_step_of_a_send_nothing_is_pending_and_nothing_is_charged_twice(tmp_path: Path) -> None:
    """After the restart: one usage entry for each answer, receipts = ledger = counter, text saved up to the last second, and a second start changes nothing."""
    chance = random.Random(11)
    counts = dict.fromkeys(AnswerState, 0)
    for trial in range(trials(20, 200)):
        step, folder = STEPS[trial % len(STEPS)], tmp_path / str(trial)
        with Upstream() as upstream:
            began = time.monotonic()
            answer_id = kill_at(step, folder, upstream, chance)
            lived = time.monotonic() - began
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
                    assert given.answer.state in (AnswerState.INTERRUPTED, AnswerState.FINISHED), lived
                if step == "after the settlement":
                    assert given.text == WORDS and given.answer.state is AnswerState.FINISHED
            assert house.answering.recover() == 0
        finally:
            asyncio.run(bootstrap.stop(house))
    assert counts[AnswerState.INTERRUPTED] >= trials(6, 60) and counts[AnswerState.FINISHED] >= trials(4, 40)


@pytest.mark.fault(28)
@pytest.mark.trials
def test_what_was_on_the_screen_a_moment_before_the_kill_is_still_there(tmp_path: Path) -> None:
    """All that came before the last save is kept: no more than one saving interval of words is lost."""
    for trial in range(trials(2, 20)):
        with Upstream() as upstream:
            steps: list[bytes | float | str] = [said("")]
            for word in WORDS.split():
                steps += [GAP, said(f"{word} ")]
            upstream.queue(Reply([*steps, HANG]))
            folder = tmp_path / str(trial)
            with subprocess.Popen([sys.executable, str(VICTIM), str(folder), upstream.address, "Go"], stdout=subprocess.PIPE, text=True) as victim:
                assert line(victim) == "ready"
                assert line(victim).startswith("accepted")
                began = time.monotonic()
                time.sleep(1.0)
                lived = time.monotonic() - began
                os.kill(victim.pid, signal.SIGKILL)
        house = reopened(folder)
        try:
            account = house.accounts.sample("bench-1")
            assert account is not None
            given = house.history.open(account, house.history.chats(account)[0].id).messages[1]
            due = int((lived - SAVE_SECONDS - SLACK) / (GAP * 1.5))
            assert len(given.text.split()) >= due > 5
        finally:
            asyncio.run(bootstrap.stop(house))
