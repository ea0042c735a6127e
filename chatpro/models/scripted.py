"""A model that says what a test told it to, and fails where a test wants a failure.

With it the answering engine is tested on the same port as in production, without a network and without chance. Nothing of the
product uses it. Tests live in other threads than the answers, so everything here may be called from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, replace

from chatpro.errors import ModelProblem, Problem
from chatpro.models import Ended, Event, ModelCard, Piece, Prompt, Spent

CARD = ModelCard(id="scripted", title="Scripted", context=8192, output_limit=4096, tokenizer="o200k_base")


@dataclass(frozen=True)
class Gap:
    """Say nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Say nothing until the test sets the event, from whichever thread."""

    event: threading.Event


@dataclass(frozen=True)
class Hang:
    """Say nothing ever again."""


@dataclass(frozen=True)
class Fail:
    """Fail here: as the first step before any text, later in the middle of it."""

    problem: Problem
    retry_after: float | None = None


@dataclass(frozen=True)
class Crash:
    """Raise something that is no ModelProblem: a mistake of our own."""

    error: BaseException


Step = str | Gap | Hold | Hang | Fail | Crash | Spent | Ended
"""A text is said as one piece. `Spent` and `Ended` are passed on; a script without `Ended` ends as `Problem.CUT`."""

Script = Iterable[Step]


def words(text: str, *, gap: float = 0.0, usage: tuple[object, object] | None = None, end: str | None = "stop") -> tuple[Step, ...]:
    """An answer word by word, *gap* seconds apart, with usage figures if any. `end=None` breaks off without an end."""
    steps: list[Step] = []
    for number, word in enumerate(text.split(" ")):
        steps += [Gap(gap)] if gap and number else []
        steps.append(word if number == 0 else f" {word}")
    if usage is not None:
        steps.append(Spent(*usage))
    if end is not None:
        steps.append(Ended(end))  # type: ignore[arg-type]
    return tuple(steps)


OTHERWISE: Script = ("Certainly.", Ended("stop"))


class ScriptedModel:
    """Gives the queued answers in order, then *otherwise* for ever. It keeps no answer limit: whoever calls it has to.

    `prompts` holds what it was sent, `running` how many answers are being given, `closed` how many were broken off by the caller.
    """

    def __init__(self, *answers: Script, otherwise: Script = OTHERWISE, card: ModelCard = CARD, name: str = "scripted") -> None:
        self.name = name
        self.card = card
        self._lock = threading.Lock()
        self._answers = [tuple(answer) for answer in answers]
        self._otherwise = tuple(otherwise)
        self._called = threading.Condition(self._lock)
        self.prompts: list[Prompt] = []
        self.running = 0
        self.closed = 0

    def queue(self, *answers: Script) -> None:
        """Give these answers next, after those that wait already."""
        with self._lock:
            self._answers += [tuple(answer) for answer in answers]

    def wait_for_calls(self, number: int, timeout: float = 5.0) -> bool:
        """Wait in a test's thread until the model was called so often. False when it wasn't in time."""
        with self._called:
            return self._called.wait_for(lambda: len(self.prompts) >= number, timeout)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        with self._lock:
            self.prompts.append(prompt)
            script = self._answers.pop(0) if self._answers else self._otherwise
            self.running += 1
            self._called.notify_all()
        whole = False
        try:
            ended = False
            for step in script:
                if event := await self._do(step):
                    ended = ended or isinstance(event, Ended)
                    yield event
            if not ended:
                raise ModelProblem(Problem.CUT, self.card.title)
            whole = True
        except Exception:
            whole = True  # it failed by itself; what remains is a caller who broke it off
            raise
        finally:
            with self._lock:
                self.running -= 1
                self.closed += not whole

    async def _do(self, step: Step) -> Event | None:
        match step:
            case str():
                return Piece(step) if step else None
            case Spent() | Ended():
                return step
            case Gap():
                await asyncio.sleep(step.seconds)
            case Hold():
                while not step.event.is_set():  # noqa: ASYNC110 - a thread's event has no other way to be waited for without holding a thread
                    await asyncio.sleep(0.005)
            case Hang():
                await asyncio.Event().wait()
            case Fail():
                raise ModelProblem(step.problem, self.card.title, retry_after=step.retry_after)
            case Crash():
                raise step.error
        return None


class ScriptedSource:
    """A ModelSource that holds what the test puts there: any model, none, a trouble."""

    def __init__(self, model: ScriptedModel | None = None, *, trouble: str | None = None, is_local: bool = False) -> None:
        self.model = model
        self.trouble = trouble
        self.is_local = is_local
        self.started = False
        self.closed = False

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.closed = True


def scripted(*answers: Script, **card: object) -> ScriptedSource:
    """A source whose model gives these answers; keywords change its card, such as `context=1000`."""
    return ScriptedSource(ScriptedModel(*answers, card=replace(CARD, **card)))  # type: ignore[arg-type]
