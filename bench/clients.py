"""Sessions of a load test: each speaks to one front end as that front end's own page does, and notes when which word came.

A test tool that only counted requests would see none of what people wait for: words come over sockets, are drawn again and
again, and an answer is over only when the page has come to rest. Three pages are spoken here, and the provider itself: what
is in the way between the two is what a front end costs.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

STAMP = re.compile(rb"@(\d{19}) ")
ENDED = {ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY, ForwardMsg.FINISHED_WITH_COMPILE_ERROR}


class ChatFailed(Exception):
    """The front end showed an error, or its connection broke."""


class Chat:
    """One session. After `say`: `words` holds (sent, received) of each word in nanoseconds, `asked_at` when the question left, `wire` the bytes that came."""

    def __init__(self, address: str, number: int) -> None:
        self.address, self.number = address, number
        self.words: list[tuple[int, int]] = []
        self.asked_at = self.wire = 0
        self.trouble = ""
        self._newest = b""
        self._changed = asyncio.Event()
        self._lines: list[aiohttp.ClientWebSocketResponse] = []
        self._readers: list[asyncio.Task[None]] = []

    async def open(self, http: aiohttp.ClientSession) -> None:
        """Load the page and wait until it could be written to."""
        self._http = http

    async def say(self, text: str, count: int) -> None:
        """Ask, and return when all words of the answer are here and the page has come to rest."""
        self.words = []
        before, self.asked_at = self._received(), time.time_ns()
        await self._send(text)
        await self._until(lambda: len(self.words) >= count and self._at_rest())
        self.wire = self._received() - before

    async def close(self) -> None:
        """Close its sockets, as a tab that is closed does."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, *(line.close() for line in self._lines), return_exceptions=True)

    async def _send(self, text: str) -> None:
        raise NotImplementedError

    def _received(self) -> int:
        """Bytes that came over this session's sockets so far, after compression: the kernel's own count."""
        wires = [line.get_extra_info("socket") for line in self._lines]
        return sum(struct.unpack_from("Q", wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 128)[0] for wire in wires if wire is not None)

    async def _connect(self, path: str, **how: Any) -> aiohttp.ClientWebSocketResponse:
        line = await self._http.ws_connect(self.address + path, compress=15, max_msg_size=0, **how)  # compression is offered, as browsers do
        self._lines.append(line)
        return line

    def _at_rest(self) -> bool:
        return True

    async def _until(self, true: Callable[[], object]) -> None:
        while not true():
            if self.trouble:
                raise ChatFailed(self.trouble)
            self._changed.clear()
            await self._changed.wait()

    def _take(self, data: bytes) -> None:
        """Note the words that are seen for the first time. Stamps only ever grow, and a page may be sent the same text many times."""
        now = time.time_ns()
        known = data.rfind(self._newest) if self._newest else -1
        for stamp in STAMP.findall(data, max(0, known)):
            if stamp > self._newest:
                self._newest = stamp
                self.words.append((int(stamp), now))

    def _follow(self, reading: Coroutine[Any, Any, None]) -> None:
        """Read a socket until it closes. Whoever waits learns of the end."""

        async def guarded() -> None:
            try:
                await reading
                self.trouble = self.trouble or "the connection was closed"
            except Exception as error:
                self.trouble = self.trouble or f"{type(error).__name__}: {error}"
            finally:
                self._changed.set()

        self._readers.append(asyncio.create_task(guarded()))


class Bare(Chat):
    """Straight at the provider: the floor below which no front end comes."""

    _payload = 0

    async def _send(self, text: str) -> None:
        asked = {"model": "gpt-4", "stream": True, "messages": [{"role": "user", "content": text}]}
        async with self._http.post(self.address + "/v1/chat/completions", json=asked) as response:
            async for data in response.content.iter_any():
                self._take(data)
                self._payload += len(data)

    def _received(self) -> int:
        return self._payload


class Page(Chat):
    """A Streamlit page with one chat input, whatever draws its answer.

    Where the answer is the app's own component, this does what the component does: it opens the page's socket, greets it, asks
    for the rest of an answer that it has not heard of, and has its fragment run once when the answer has ended.
    """

    def __init__(self, address: str, number: int, query: str = "") -> None:
        super().__init__(address, number)
        self._query = query
        self._script = self._input = ""
        self._held: set[str] = set()
        self._asked = self._running = False
        self._component = self._fragment = self._line_path = ""
        self._line: aiohttp.ClientWebSocketResponse | None = None
        self._hearing: tuple[str | None, int] = (None, 0)  # the answer that comes over the page's socket, and how much of it is here
        self._waits_for_end = False

    async def open(self, http: aiohttp.ClientSession) -> None:
        await super().open(http)
        cookies: dict[str, str] = {}
        for path in (f"/?{self._query}", "/_stcore/health"):
            async with http.get(self.address + path) as response:
                cookies |= {name: morsel.value for name, morsel in response.cookies.items()}
        self._headers = {"Origin": self.address, "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        protocols = ("streamlit", cookies.get("_streamlit_xsrf", "PLACEHOLDER_AUTH_TOKEN"))
        self._main = await self._connect("/_stcore/stream", protocols=protocols, headers=self._headers)
        self._follow(self._read())
        await self._rerun()
        await self._until(lambda: self._at_rest() and (self._line or not self._line_path))
        if not self._input:
            raise ChatFailed("the page has nothing to write in")

    async def _send(self, text: str) -> None:
        self._waits_for_end = self._line is not None
        question = WidgetState(id=self._input)
        question.chat_input_value.data = text
        await self._rerun(question)

    def _at_rest(self) -> bool:
        return not (self._asked or self._running or self._waits_for_end)

    async def _rerun(self, widget: WidgetState | None = None, fragment: str = "") -> None:
        message = BackMsg()
        state = message.rerun_script
        state.query_string, state.page_script_hash, state.fragment_id = self._query, self._script, fragment
        state.cached_message_hashes.extend(self._held)
        state.context_info.timezone, state.context_info.locale, state.context_info.url = "UTC", "en-US", f"{self.address}/?{self._query}"
        if widget is not None:
            state.widget_states.widgets.append(widget)
        self._asked = True
        await self._main.send_bytes(message.SerializeToString())

    async def _read(self) -> None:
        async for message in self._main:
            if message.type is aiohttp.WSMsgType.BINARY:
                if b"@" in message.data:
                    self._take(message.data)
                await self._hear(ForwardMsg.FromString(message.data))
                self._changed.set()

    async def _hear(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if message.metadata.cacheable:
            self._held.add(message.hash)
        if kind == "new_session":
            self._asked, self._running, self._script = False, True, message.new_session.page_script_hash
        elif kind == "script_finished" and message.script_finished in ENDED and not self._asked:
            self._running = False
        elif kind == "page_info_changed":
            self._query = message.page_info_changed.query_string
        elif kind == "delta":
            await self._draw(message.delta)

    async def _draw(self, delta: Delta) -> None:
        element = delta.new_element
        kind = element.WhichOneof("type")
        if kind == "chat_input":
            self._input = element.chat_input.id
        elif kind == "exception":
            self.trouble = f"the page shows an exception: {element.exception.message}"
        elif kind == "bidi_component" and '"stream_url"' in element.bidi_component.json:
            self._component, self._fragment = element.bidi_component.id, delta.fragment_id
            data = json.loads(element.bidi_component.json)
            if data["stream_url"] != self._line_path:
                self._line_path = data["stream_url"]
                self._follow(self._read_line(self._line_path))
            elif self._line is not None and data.get("id") and data["id"] != self._hearing[0]:
                await self._greet(self._line, data["id"])

    async def _read_line(self, path: str) -> None:
        line = await self._connect(path, headers=self._headers)
        await self._greet(line, None)
        self._line = line
        self._changed.set()
        async for message in line:
            if message.type is aiohttp.WSMsgType.TEXT:
                await self._hear_line(message.data)
                self._changed.set()

    async def _greet(self, line: aiohttp.ClientWebSocketResponse, answer: str | None) -> None:
        await line.send_str(json.dumps({"id": answer, "at": self._hearing[1] if answer == self._hearing[0] else 0}))

    async def _hear_line(self, raw: str) -> None:
        said = json.loads(raw)
        if "id" not in said:  # news of other chats
            return
        if said["id"] != self._hearing[0]:
            self._hearing = (said["id"], 0)
        if "add" in said:
            self._take(raw.encode())
            self._hearing = (said["id"], said["at"] + len(said["add"]))
        elif said.get("end"):
            self._waits_for_end = False
            trigger = WidgetState(id=f"$$STREAMLIT_INTERNAL_KEY_{self._component}__events")
            trigger.json_trigger_value = json.dumps([{"event": "end", "value": said["id"]}])
            await self._rerun(trigger, self._fragment)


class Chainlit(Chat):
    """Chainlit's page: socket.io over one websocket, spoken by hand, since only five kinds of its packets are needed."""

    async def open(self, http: aiohttp.ClientSession) -> None:
        await super().open(http)
        self._busy = self._ready = False
        self._main = await self._connect("/ws/socket.io/?EIO=4&transport=websocket")
        await self._main.receive()
        me = {"clientType": "webapp", "sessionId": str(uuid.uuid4()), "threadId": "", "userEnv": "{}", "chatProfile": ""}
        await self._main.send_str("40" + json.dumps(me))
        while not (await self._main.receive_str()).startswith("40"):
            pass
        self._follow(self._read())
        await self._emit("connection_successful")
        await self._until(lambda: self._ready)

    async def _send(self, text: str) -> None:
        self._busy = True
        message = {"id": str(uuid.uuid4()), "threadId": "", "name": "User", "type": "user_message", "output": text, "metadata": {}}
        message["createdAt"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        await self._emit("client_message", {"message": message, "fileReferences": []})

    def _at_rest(self) -> bool:
        return not self._busy

    async def _emit(self, *event: object) -> None:
        await self._main.send_str("42" + json.dumps(event))

    async def _read(self) -> None:
        async for message in self._main:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            if message.data == "2":  # a ping
                await self._main.send_str("3")
            elif message.data.startswith(('42["stream_token"', '42["stream_start"')):
                self._take(message.data.encode())
            elif message.data.startswith('42["task_end"'):
                self._busy = False
            elif message.data.startswith('42["clear_call_fn"'):
                self._ready = True
            self._changed.set()
