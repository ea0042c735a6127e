"""The ChatModel port: what answering needs of any model, and nothing of how a provider speaks.

Three plugs: `openai.py` (OpenAI and every compatible server), `local.py` (llama.cpp in a process of its own, reached
through the same client) and `scripted.py` (tests). Without the port, retries, deadlines and charging would be written once per provider.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol


@dataclass(frozen=True)
class ModelCard:
    """What one model needs, from data/models.toml. `context` and `output_limit` are tokens."""

    id: str
    title: str
    context: int
    output_limit: int
    tokenizer: str
    limit_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    takes_temperature: bool = True
    reasoning_effort: str | None = None
    calls_tools: bool = False
    shutdown_date: date | None = None


@dataclass(frozen=True)
class Turn:
    """One entry of what a model is sent."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True)
class Prompt:
    """A whole call: the turns in order, and the most tokens the answer may have."""

    turns: tuple[Turn, ...]
    answer_limit: int


@dataclass(frozen=True)
class Piece:
    """Some more of the answer's text, never empty."""

    text: str


@dataclass(frozen=True)
class Spent:
    """The provider's usage figures as they came, unchecked: `allowance.charge` decides whether they are plausible."""

    tokens_in: object
    tokens_out: object


@dataclass(frozen=True)
class Ended:
    """The provider said that the answer is whole (`stop`), or that it hit the limit (`length`), or declined (`declined`)."""

    reason: Literal["stop", "length", "declined"]


Event = Piece | Spent | Ended


class ChatModel(Protocol):
    """One model that answers. Its name is shown on the page and recorded with each answer."""

    @property
    def name(self) -> str: ...

    @property
    def card(self) -> ModelCard: ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """Yield the answer as it comes. Closing the generator ends the call upstream.

        Raises ModelProblem for every failure; the stream ending without `Ended` is `Problem.CUT`. Never retries: answering does, within its deadline.
        """
        ...


class ModelSource(Protocol):
    """Where the model comes from: it may be unknown at first (provider unreachable) and change when the list is asked again."""

    async def start(self) -> None:
        """Ask what is offered, or start the local server. Never raises for a provider's fault: `trouble` says it then."""
        ...

    async def close(self) -> None: ...

    @property
    def model(self) -> ChatModel | None:
        """The model that answers now, None while none is known."""
        ...

    @property
    def trouble(self) -> str | None:
        """One sentence for the operator when something about the model needs attention, else None."""
        ...

    @property
    def is_local(self) -> bool:
        """True for the demo model, which the page must not call GPT-4."""
        ...
