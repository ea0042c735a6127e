"""OpenAI and every server that speaks its protocol: which model answers, and one answer's words as they come.

Here the provider's faults become this product's problems. Whatever a server sends (nothing, garbage, half an answer, a redirect
to somewhere else), callers see pieces of text and at most one ModelProblem, and the key goes to the configured address only.
The client's own typed stream costs four times the CPU of reading the lines here, so only its connection is used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from chatpro.config import Settings
from chatpro.errors import PROBLEM_SENTENCES, ModelProblem, Problem
from chatpro.models import Ended, Event, ModelCard, Piece, Prompt, Spent
from chatpro.models.cards import Cards

log = logging.getLogger(__name__)

OPENAI_ADDRESS = "https://api.openai.com/v1"
TEMPERATURE = 0.5  # letters to clients: some life, few inventions
LINE_BYTES = 1_000_000  # one event is some 200 bytes; a server that never ends its line may not fill the memory
TAIL_SECONDS = 5.0  # usage comes within a moment of the last word; the person waits for the end of the answer, not for a figure
DRAIN_SECONDS = 0.2  # what a connection's reuse is worth
KEEPALIVE_SECONDS = 30.0  # a conversation's next message mostly comes within it and saves the TLS handshake
ASK_AGAIN_SECONDS = 30.0
ASK_DAILY_SECONDS = 86_400.0
GONE_SECONDS = 3_600.0  # a model that is listed but refuses to answer is passed over for so long
SHUTDOWN_NOTICE_DAYS = 60
NAMES_SHOWN = 20
NOT_FOR_CHAT = ("embed", "rerank", "whisper", "tts", "moderation", "dall-e")


# --- one model ----------------------------------------------------------------------------------------------------------


class WireModel:
    """A ChatModel on the chat completions endpoint. `local.py` changes how a call is opened and where its text stands."""

    def __init__(self, name: str, card: ModelCard, client: Any = None, *, at_openai: bool = False, told: Callable[[Problem | None], None] | None = None):
        self.name = name
        self.card = card
        self._client = client
        self._at_openai = at_openai
        self._told = told or (lambda problem: None)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """See ChatModel.stream. Deadlines are the caller's, except for connecting."""
        problem: ModelProblem | None = None
        begun = False
        try:
            async with aclosing(self._events(prompt)) as events:
                async for event in events:
                    begun = True
                    yield event
        except ModelProblem as own:
            problem = own
        except Exception as error:
            problem = translate(error, self.card.title or self.name, begun=begun)
        self._told(problem.problem if problem else None)
        if problem is not None:
            # Not chained, and raised out here: a provider's message may quote what the person wrote, and logs print chains.
            raise problem

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """What is asked. Compatible servers refuse what they don't know, so each parameter beyond the oldest ones needs a reason to be sent."""
        asked: dict[str, Any] = {
            "model": self.card.id,
            "messages": [{"role": turn.role, "content": turn.text} for turn in prompt.turns],
            "stream": True,
            "stream_options": {"include_usage": True},
            self.card.limit_parameter: min(prompt.answer_limit, self.card.output_limit),
        }
        if self.card.takes_temperature:
            asked["temperature"] = TEMPERATURE
        if self.card.reasoning_effort is not None:
            asked["reasoning_effort"] = self.card.reasoning_effort
        if self._at_openai:
            asked["store"] = False
        return asked

    async def open(self, prompt: Prompt) -> AbstractAsyncContextManager[Any]:
        """Begin the call; entering the result connects."""
        body = self.body(prompt)
        # What is said goes past the client's conversion of each message, which costs more than the rest of the call.
        said = {"messages": body.pop("messages")}
        opened: AbstractAsyncContextManager[Any] = self._client.chat.completions.with_streaming_response.create(messages=[], extra_body=said, **body)
        return opened

    def text_of(self, choice: dict[str, Any]) -> object:
        """The new text in one event's first choice. A refusal is the model's answer too."""
        delta = choice.get("delta") or {}
        return delta.get("content") or delta.get("refusal")

    async def _events(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """Once per piece of the wire, not per line: what came together is passed on together."""
        heard, lines, begun = _Heard(), _Lines(), False
        async with await self.open(prompt) as response, aclosing(_wire(response)) as wire:
            while not heard.done:
                data = await (anext(wire, None) if heard.ended is None else self._tail(wire, lines))
                problem = self._hear(heard, lines.of(data) if data is not None else lines.rest())
                if text := heard.text if begun else heard.text.lstrip():
                    begun, heard.text = True, ""
                    yield Piece(text)
                if problem is not None:
                    raise problem
                if data is None:
                    break
            if not heard.done and heard.ended is None:
                raise self._fault(Problem.CUT)
            if heard.spent is not None:
                yield heard.spent
            yield heard.ended or Ended("stop")
            if heard.done:
                # A connection read to its end is used again, which saves the next message a handshake.
                with suppress(*_network_errors()):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        async for _ in wire:
                            pass

    async def _tail(self, wire: AsyncIterator[bytes], lines: _Lines) -> bytes | None:
        """After the last word, a server that breaks off or keeps silent has lost only its figures, also in the middle of a line."""
        try:
            async with asyncio.timeout(TAIL_SECONDS):
                return await anext(wire, None)
        except _network_errors():
            lines.rest()
            return None

    def _hear(self, heard: _Heard, lines: Iterable[bytes]) -> ModelProblem | None:
        """Take in what these lines say, up to the last one of the answer or to the first that can't be. That one's problem is for after the text before."""
        try:
            for line in lines:
                self._read(line, heard)
                if heard.done:
                    break
        except ModelProblem as problem:
            return problem
        return None

    def _read(self, line: bytes, heard: _Heard) -> None:
        if not line.startswith(b"data:"):
            if line == b"" or line.startswith((b":", b"event:", b"id:", b"retry:")):
                return
            raise self._fault(Problem.GARBLED)
        data = line[5:].strip()
        if data == b"[DONE]":
            heard.done = True
            return
        try:
            message = _DECODE(data.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise self._fault(Problem.GARBLED)
        if message.get("error"):
            raise self._fault(classify(None, message))
        usage = message.get("usage")
        if usage is not None:  # some servers send it with each event: the last is the whole
            heard.spent = Spent(usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else Spent(usage, usage)
        choices = message.get("choices", [] if usage is not None else None)
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise self._fault(Problem.GARBLED)
        if choices:
            self._choose(choices[0], heard)

    def _choose(self, choice: dict[str, Any], heard: _Heard) -> None:
        if not isinstance(choice.get("delta") or {}, dict):
            raise self._fault(Problem.GARBLED)
        text = self.text_of(choice)
        if text is not None and not isinstance(text, str):
            raise self._fault(Problem.GARBLED)
        if text:
            heard.text += _clean(text)
        if reason := choice.get("finish_reason"):
            heard.ended = Ended("length" if reason == "length" else "declined" if reason == "content_filter" else "stop")

    def _fault(self, problem: Problem) -> ModelProblem:
        return ModelProblem(problem, self.card.title or self.name)


_DECODE = json.JSONDecoder().decode


@dataclass
class _Heard:
    """What the lines of an answer have said so far; `text` is what nobody has been told yet."""

    text: str = ""
    spent: Spent | None = None
    ended: Ended | None = None
    done: bool = False


class _Lines:
    """Lines as the event stream means them: by newlines only, since answers may hold other characters that Python takes for line ends."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> list[bytes]:
        """The lines that are whole with this."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            return [*lines, b"(a line without an end)"]  # read as garbage, which it is
        return [line.removesuffix(b"\r") for line in lines]

    def rest(self) -> list[bytes]:
        """A last event without a line end is whole or half; half of one means that the stream was cut, not that it is garbage."""
        rest, self._rest = self._rest, b""
        return [rest.removesuffix(b"\r")] if rest and (not rest.startswith(b"data:") or rest.rstrip().endswith((b"}", b"]"))) else []


def _wire(response: Any) -> AsyncGenerator[bytes, None]:
    """The answer's bytes as they come. The client's own reader takes each word through three more loops, so it is used only where a server
    compresses although it was asked not to."""
    packed = response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
    wire: AsyncGenerator[bytes, None] = aiter(response.iter_bytes() if packed else response.http_response.stream)
    return wire


def _clean(text: str) -> str:
    """Without what no store takes: NUL, and halves of characters that JSON can spell but text can't hold."""
    if text.isascii():
        return text.replace("\0", "")
    return text.replace("\0", "").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


# --- faults -------------------------------------------------------------------------------------------------------------


def _network_errors() -> tuple[type[Exception], ...]:
    import httpx2

    return (TimeoutError, httpx2.TransportError, httpx2.DecodingError, httpx2.StreamError)


def translate(error: Exception, model: str, *, begun: bool = False) -> ModelProblem:
    """Any failure of a call, as the problem it is for us. Logged by kind, never by message: it may quote the person's text."""
    import aiohttp
    import httpx2
    import openai

    retry_after = None
    if isinstance(error, openai.APIStatusError):
        problem = classify(error.status_code, error.body)
        retry_after = retry_after_seconds(error.response.headers) if problem in ModelProblem.RETRYABLE else None
        log.warning("the provider answered %d: %s", error.status_code, problem)
    elif isinstance(error, openai.APIConnectionError | OSError):
        problem = Problem.UNREACHABLE
    elif isinstance(error, httpx2.DecodingError | aiohttp.ClientError):
        # Half a compressed stream, or what is no HTTP at all: the transport passes the latter on in its own words.
        problem = Problem.CUT if begun else Problem.GARBLED
    elif isinstance(error, httpx2.TransportError | httpx2.StreamError):
        problem = Problem.CUT
    else:
        problem = Problem.INTERNAL
        log.error("a model call failed inside this service: %s", type(error).__name__)
    return ModelProblem(problem, model, retry_after=retry_after)


def classify(status: int | None, body: object) -> Problem:
    """The problem that a status and an error body mean. `status` is None for an error in the middle of an answer."""
    error = body.get("error", body) if isinstance(body, dict) else {}
    detail = error if isinstance(error, dict) else {"message": error}
    said = " ".join(str(detail.get(key, "")) for key in ("code", "type")).lower()
    message = str(detail.get("message", "")).lower()[:2_000]
    if "insufficient_quota" in said or "billing" in said or status == 402:
        return Problem.NO_CREDIT
    if "context_length" in said or "exceed_context" in said or "maximum context length" in message or status == 413:
        return Problem.CONTEXT_FULL
    if "content_policy" in said or "content_filter" in said or "moderation" in said:
        return Problem.DECLINED
    if "model_not_found" in said or status in (404, 410):
        return Problem.MODEL_GONE
    if "invalid_api_key" in said or status in (401, 403):
        return Problem.WRONG_KEY
    if status == 429 or "rate_limit" in said:
        return Problem.RATE_LIMITED
    if status is None or status >= 500 or status in (408, 409, 425):
        return Problem.UNAVAILABLE
    # A redirect is no answer. What is left of the 400s is about how we asked.
    return Problem.GARBLED if status < 400 else Problem.INTERNAL


def retry_after_seconds(headers: Any) -> float | None:
    """When the provider wants to be asked again, in whichever of three ways it says so; None where it says nothing sensible."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        raw = headers.get(name)
        if raw is None:
            continue
        try:
            seconds = float(raw) * unit
        except ValueError:
            try:
                seconds = max(0.0, (parsedate_to_datetime(raw) - datetime.now(UTC)).total_seconds())
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


# --- where the model comes from -----------------------------------------------------------------------------------------


def make_client(address: str, key: str, connect_seconds: float, *, here: bool = False) -> Any:
    """The one client of the process. Importing it takes half a second, so it happens at start and not with a visitor waiting.

    *here* is for a server on this machine: reached past any proxy, and with a connection for each call, since llama.cpp drops used ones.
    """
    import httpx2
    from openai import AsyncOpenAI, DefaultAioHttpClient

    for name in ("openai", "httpx2", "httpcore2", "httpx", "httpcore", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)  # at DEBUG they write what people say into the log
    # `pool` is what this transport gives the whole of connecting, name lookup included. A limit of 0 is none: None would mean aiohttp's own 100.
    timeout = httpx2.Timeout(None, connect=connect_seconds, pool=connect_seconds)
    limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEPALIVE_SECONDS)
    transport = DefaultAioHttpClient(follow_redirects=False, timeout=timeout, limits=limits, trust_env=not here)
    headers = {"Accept-Encoding": "identity"}  # compression would hold words back, and cost CPU at both ends
    if here:
        headers["Connection"] = "close"
    return AsyncOpenAI(api_key=key, base_url=address, http_client=transport, timeout=timeout, max_retries=0, default_headers=headers)


class OpenAISource:
    """The first model of the preference list that the provider offers, asked at start, daily, and every 30 seconds while none is known."""

    is_local = False

    def __init__(self, settings: Settings, cards: Cards | None = None) -> None:
        self._settings = settings
        self._cards = cards or Cards()
        self._address = settings.openai_base_url or OPENAI_ADDRESS
        self._host = urlsplit(self._address).hostname or self._address
        self._client: Any = None
        self._model: WireModel | None = None
        self._list_trouble: str | None = None
        self._answer_trouble: str | None = None
        self._shutdown: date | None = None
        self._unlisted = False
        self._gone: dict[str, float] = {}
        self._watching: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def model(self) -> WireModel | None:
        return self._model

    @property
    def trouble(self) -> str | None:
        return self._list_trouble or self._answer_trouble or self._shutdown_notice()

    async def start(self) -> None:
        key = self._settings.openai_api_key or "none"  # compatible servers mostly need no key, but the client insists on one
        if not (key.isascii() and key.isprintable() and " " not in key):
            self._list_trouble = "OPENAI_API_KEY holds characters that no key has. Copy it again."
            return
        self._client = await asyncio.to_thread(make_client, self._address, key, self._settings.connect_seconds)
        await self._ask()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        if self._client is not None:
            await self._client.close()

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_SECONDS if self._list_trouble and not self._unlisted else ASK_DAILY_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self._ask()

    async def _ask(self) -> None:
        """Ask what is offered and choose. A list that can't be had leaves a known model in place: answers may still work."""
        self._unlisted = False
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                response = await self._client.models.with_raw_response.list()
            offered = _offered(json.loads(response.http_response.content))
        except Exception as error:
            self._list_trouble = self._why_no_list(error)
            return
        if offered is None:
            self._list_trouble = f"What {self._host} sends as its list of models is not one. Is OPENAI_BASE_URL right?"
            return
        self._choose(offered)

    def _choose(self, offered: dict[str, date | None]) -> None:
        now = time.monotonic()
        usable = [name for name in offered if now - self._gone.get(name, -math.inf) > GONE_SECONDS]
        chosen = next((name for name in self._settings.models if name in usable), None)
        if chosen is None and self._takes_any():
            chosen = next((name for name in usable if not any(word in name.lower() for word in NOT_FOR_CHAT)), None)
        if chosen is None:
            self._model = None
            names = ", ".join(list(offered)[:NAMES_SHOWN]) + (" and more" if len(offered) > NAMES_SHOWN else "")
            self._list_trouble = f"None of CHATPRO_MODELS ({', '.join(self._settings.models)}) is offered by {self._host}. It offers: {names or 'nothing'}."
            return
        self._use(chosen)
        self._list_trouble = None
        # The dates on the cards are OpenAI's; another server that runs a model of the same name has its own plans.
        self._shutdown = offered[chosen] or (None if self._settings.openai_base_url else self._cards.of(chosen).shutdown_date)

    def _takes_any(self) -> bool:
        """Somebody who points at a server of their own (Ollama, vLLM, llama.cpp) and names no model means the one that runs there.

        At OpenAI itself nothing outside the preference list is ever taken: it would spend the operator's money on a model nobody chose.
        """
        default = next(field.default for field in fields(Settings) if field.name == "models")
        return self._settings.openai_base_url is not None and self._settings.models == default

    def _use(self, name: str) -> None:
        if self._model is None or self._model.card.id != name:
            card = self._cards.of(name)
            self._model = WireModel(name, card, self._client, at_openai=self._settings.openai_base_url is None, told=self._hear_of(name))

    def _hear_of(self, name: str) -> Callable[[Problem | None], None]:
        """Answers tell what the list doesn't: a key without credit, a model that is listed but not for this account."""

        def hear(problem: Problem | None) -> None:
            if problem is None:
                self._answer_trouble = None
            elif problem in (Problem.WRONG_KEY, Problem.NO_CREDIT, Problem.MODEL_GONE):
                self._answer_trouble = PROBLEM_SENTENCES[problem].format(model=name)
            if problem is Problem.MODEL_GONE:
                self._gone[name] = time.monotonic()
                self._wake.set()

        return hear

    def _why_no_list(self, error: Exception) -> str:
        import openai

        if not isinstance(error, openai.APIStatusError):
            if isinstance(error, ValueError | RecursionError):
                return f"What {self._host} sends as its list of models is not one. Is OPENAI_BASE_URL right?"
            return f"{self._host} can't be reached. It is asked again every {ASK_AGAIN_SECONDS:.0f} seconds."
        if error.status_code in (401, 403):
            return f"{self._host} refuses the key in OPENAI_API_KEY ({error.status_code})."
        if 300 <= error.status_code < 400:
            return f"{self._host} redirects to another address, where the key is not sent. Put the final address into OPENAI_BASE_URL."
        if error.status_code in (404, 405, 501) and self._settings.openai_base_url is not None:
            self._unlisted = True
            if self._model is None:
                self._use(self._settings.models[0])
            return f"{self._host} has no list of models ({error.status_code}), so {self._settings.models[0]} is used unchecked. Is OPENAI_BASE_URL right?"
        return f"{self._host} answers {error.status_code} when asked for its models. It is asked again every {ASK_AGAIN_SECONDS:.0f} seconds."

    def _shutdown_notice(self) -> str | None:
        if self._model is None or self._shutdown is None or (self._shutdown - datetime.now(UTC).date()).days > SHUTDOWN_NOTICE_DAYS:
            return None
        after = self._settings.models[self._settings.models.index(self._model.card.id) + 1 :] if self._model.card.id in self._settings.models else ()
        then = f"{after[0]} is next in CHATPRO_MODELS" if after else "put its successor into CHATPRO_MODELS"
        return f"The provider shuts {self._model.card.id} down on {self._shutdown.isoformat()}; {then}."


def _offered(body: object) -> dict[str, date | None] | None:
    """Model id → the provider's own shutdown date, in the provider's order; None when this is no list of models."""
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        return None
    named = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return {entry["id"]: _date(entry.get("shutdown_date")) for entry in named if entry["id"].isprintable() and 0 < len(entry["id"]) <= 200}


def _date(raw: object) -> date | None:
    with suppress(ValueError, OverflowError, OSError):
        if isinstance(raw, str):
            return date.fromisoformat(raw[:10])
        if isinstance(raw, int | float):
            return datetime.fromtimestamp(raw, UTC).date()
    return None
