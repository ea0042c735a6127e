"""A provider that misbehaves on demand: an OpenAI-compatible server on loopback, in a thread, that does what a test queued.

    with Upstream() as upstream:
        upstream.queue(answer("Dear client"), status(429, headers={"Retry-After": "7"}))
        … point OPENAI_BASE_URL at upstream.address …
        upstream.requests[0].json["model"], upstream.requests[0].headers["authorization"]

`queue` takes replies for chat completions, played in order; then `otherwise` (an ordinary answer) is played for ever.
`models` is what GET /models offers (a list of ids or of dicts), or a Reply. `running` counts the replies being played,
`broken_off` those that the client ended. A Reply is status, headers and steps: bytes are sent, a number is a pause in seconds,
a threading.Event says nothing until the test sets it, HANG until the client leaves, CUT drops the connection, a function is
called. Written on bare sockets, since a web framework would not send half a gzip stream or drop a connection in the middle
of a chunk.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HANG = "hang"
CUT = "cut"
Step = bytes | float | str | threading.Event | Callable[[], object]


@dataclass(frozen=True)
class Reply:
    """What is sent for one request."""

    steps: Sequence[Step] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})


@dataclass(frozen=True)
class Request:
    """What a client sent. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def event(message: object) -> bytes:
    """One line of the stream."""
    return b"data: " + (message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n\n"


def said(text: object, finish: str | None = None) -> bytes:
    """One more piece of text."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def ended(finish: str = "stop") -> bytes:
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})


def used(tokens_in: object, tokens_out: object) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}})


DONE = event(b"[DONE]")


def answer(text: str = "Dear client, thank you.", *, gap: float = 0.0, usage: tuple[object, object] | None = (20, 5), finish: str = "stop") -> Reply:
    """An ordinary answer, word by word."""
    steps: list[Step] = [said("")]
    for number, word in enumerate(text.split(" ")):
        steps += [gap, said(word if number == 0 else f" {word}")]
    return Reply([*steps, ended(finish), *([used(*usage)] if usage else []), DONE])


def in_two_parts(first: str, then: threading.Event, rest: str) -> Reply:
    """An answer that stands still between its parts until the test has seen what it wants to see."""
    return Reply([said(first), then, said(f" {rest}"), ended(), used(20, 5), DONE])


def stream(*steps: Step) -> Reply:
    """Whatever a test spells out."""
    return Reply(steps)


def status(code: int, error: Mapping[str, object] | None = None, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Reply:
    """An error, in OpenAI's shape unless a body is given."""
    sent = json.dumps({"error": dict(error or {"message": "no", "type": "test", "code": None})}).encode() if body is None else body
    return Reply([sent], code, {"Content-Type": "application/json", **(headers or {})})


class Upstream:
    """The server; a context manager."""

    def __init__(self, *, models: Iterable[object] | Reply = ("gpt-4.1",), otherwise: Reply | None = None) -> None:
        self.models = models
        self.otherwise = otherwise or answer()
        self.requests: list[Request] = []
        self.running = 0
        self.broken_off = 0
        self._queue: list[Reply] = []
        self._playing: set[asyncio.StreamWriter] = set()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def asked(self) -> list[Request]:
        """The requests for an answer alone."""
        return [request for request in self.requests if request.method == "POST"]

    def forget(self) -> None:
        """Nothing is queued, nothing was asked and nothing hangs: as new, for the next test that shares it."""
        with self._lock:
            self._queue.clear()
            self.requests.clear()
        self._loop.call_soon_threadsafe(lambda: [writer.close() for writer in self._playing])

    def queue(self, *replies: Reply) -> None:
        with self._lock:
            self._queue += replies

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await self._read(reader):
                with self._lock:
                    self.requests.append(request)
                    reply = self._listing() if request.method == "GET" else self._queue.pop(0) if self._queue else self.otherwise
                if not await self._play(reply, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _listing(self) -> Reply:
        if isinstance(self.models, Reply):
            return self.models
        data = [model if isinstance(model, dict) else {"id": model, "object": "model"} for model in self.models]
        return Reply([json.dumps({"object": "list", "data": data}).encode()], headers={"Content-Type": "application/json"})

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split(" ")
        return Request(method, path, headers, body)

    async def _play(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Play a reply; True when the connection can be used again."""
        headers = {**reply.headers, "Transfer-Encoding": "chunked"}
        writer.write(f"HTTP/1.1 {reply.status} Test\r\n{''.join(f'{name}: {value}' + chr(13) + chr(10) for name, value in headers.items())}\r\n".encode())
        self.running += 1
        self._playing.add(writer)
        try:
            for step in reply.steps:
                if step == CUT:
                    await writer.drain()
                    return False
                if callable(step):
                    step()
                elif isinstance(step, bytes):
                    if not step:
                        continue  # an empty chunk would be the end
                    writer.write(b"%x\r\n%b\r\n" % (len(step), step))
                    await writer.drain()
                else:
                    # An end of the stream while nothing was asked for is the client leaving.
                    gone = asyncio.ensure_future(reader.read(1))
                    if isinstance(step, threading.Event):
                        while not (step.is_set() or gone.done()):
                            await asyncio.wait([gone], timeout=0.01)
                    else:
                        await asyncio.wait([gone], timeout=3600 if step == HANG else float(step))
                    if gone.done():
                        self.broken_off += 1
                        return False
                    gone.cancel()
                    await asyncio.wait([gone])
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        except ConnectionError:
            self.broken_off += 1
            return False
        finally:
            self.running -= 1
            self._playing.discard(writer)
