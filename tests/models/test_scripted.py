"""The scripted model does what a test says, from whichever thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from chatpro.errors import ModelProblem, Problem
from chatpro.models import Ended, Event, Piece, Prompt, Spent, Turn
from chatpro.models.scripted import Crash, Fail, Hang, Hold, ScriptedModel, scripted, words

PROMPT = Prompt((Turn("user", "Hello"),), answer_limit=50)


async def events_of(model: ScriptedModel) -> list[Event]:
    return [event async for event in model.stream(PROMPT)]


def test_queued_answers_come_in_order_then_the_usual_one() -> None:
    """And what was asked is kept."""
    model = ScriptedModel(words("Dear client", usage=(3, 2)), ["Again", "", Ended("length")])

    first, second, third = (asyncio.run(events_of(model)) for _ in range(3))

    assert first == [Piece("Dear"), Piece(" client"), Spent(3, 2), Ended("stop")]
    assert second == [Piece("Again"), Ended("length")]
    assert third[-1] == Ended("stop")
    assert model.prompts == [PROMPT] * 3 and (model.running, model.closed) == (0, 0)


@pytest.mark.parametrize(
    ("script", "problem"),
    [([Fail(Problem.RATE_LIMITED, 7.0)], Problem.RATE_LIMITED), (["So", Fail(Problem.CUT)], Problem.CUT), (words("So far", end=None), Problem.CUT)],
)
def test_it_fails_where_it_is_told_to(script: Any, problem: Problem) -> None:
    """At once, in the middle, or by having no end."""
    with pytest.raises(ModelProblem) as caught:
        asyncio.run(events_of(ScriptedModel(script)))

    assert caught.value.problem is problem


def test_a_mistake_of_our_own_comes_through_as_it_is() -> None:
    """So that tests can see what answering does with it."""
    with pytest.raises(ZeroDivisionError):
        asyncio.run(events_of(ScriptedModel([Crash(ZeroDivisionError())])))


def test_another_thread_holds_an_answer_in_the_middle() -> None:
    """It is known to be asked and running, and goes on when the event is set."""
    go = threading.Event()
    model = ScriptedModel(["So", Hold(go), " far", Ended("stop")])
    got: list[Event] = []
    thread = threading.Thread(target=lambda: got.extend(asyncio.run(events_of(model))))
    thread.start()

    assert model.wait_for_calls(1) and model.running == 1
    assert not model.wait_for_calls(2, timeout=0.05)
    go.set()
    thread.join(5)
    assert got == [Piece("So"), Piece(" far"), Ended("stop")] and model.running == 0


def test_breaking_off_is_noticed() -> None:
    """A hanging answer that is cancelled counts as closed by the caller."""

    async def impatient(model: ScriptedModel) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await events_of(model)

    model = ScriptedModel([Hang()])
    asyncio.run(impatient(model))

    assert (model.running, model.closed) == (0, 1)


def test_a_source_with_another_card() -> None:
    """Limits are tried with small models."""
    source = scripted(["Hi", Ended("stop")], context=1000)

    assert source.model is not None and source.model.card.context == 1000
    assert (source.trouble, source.is_local) == (None, False)
