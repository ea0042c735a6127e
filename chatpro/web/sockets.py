"""The one WebSocket of an open page: words go out as they come, Stop comes in.

The words of an answer never touch a script thread: the script says which answer its page shows, the server's loop sends it.
Without this room each new word would redraw the page (docs/decisions.md has the figures), a reload would lose the rest,
and a foreign page could read along with its visitor's cookie.

A channel is the key: unguessable, made by the script for its own page, bound to one account and its session epoch, asked
again every few seconds, and dead with them. Offsets count code points, as Python does; the page counts the same way.

What goes over it, as JSON: out `{"id", "at", "add"}` and `{"id", "end": true}`, before the first word `{"id", "ahead"}` (how many go
before it in the waiting line, -1 for the person's own other answers, null when it has its place), of the account's other chats
`{"chat", "is"}` (running, unread, idle), and `{"news": n}` (what the page says of the allowance is out of date; `n` counts up, and a
page that was drawn at that number is not); in `{"id", "at"}` (send the rest from there) and `{"stop": id}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

log = logging.getLogger(__name__)

ASK_SECONDS = 3.0
"""How often a right is asked for again. D6b wants a second for what the service itself announces (`close_account`); this is for what nobody announced.
The store answers it from memory (chatpro/storage/memory.py)."""
SLEEPING_SECONDS = 2 * 3600.0
"""How long a channel lives without a socket. A laptop closed over lunch comes back to the same page."""
MOST_CHANNELS = 20_000
"""Beyond it the one unused for longest goes. This is for pages left behind, some 300 bytes each; open ones are bounded by file descriptors."""
MOST_PER_ACCOUNT = 100
"""Nobody reads a hundred tabs; a script that opens pages must not push other people's out."""
GREETING_SECONDS = 0.25
"""How long a new socket may take to say what it has already. Pages say it at once; whoever says nothing has nothing."""
LONGEST_MESSAGE = 1_000
"""Characters from the page. The longest it sends is an id and a number."""

REPLACED = 4409
UNKNOWN = 4404
FORBIDDEN = 4403
"""Close codes that the page tells apart: another socket took over (be silent); ask the script for a new channel; the right has ended."""
TRY_LATER = 1013
TOO_LONG = 1009
FOREIGN = 1008


class LiveAnswer(Protocol):
    """An answer being written or waited for, as far as a page may know it."""

    id: str
    account_id: str
    ahead: int | None

    @property
    def text(self) -> str:
        """All text so far; may be read from any thread."""

    @property
    def done(self) -> bool:
        """No more text will come, and it is settled and saved."""

    async def more(self, seen: int, ahead: int | None = None) -> None:
        """On the server's loop: returns once `len(text) > seen`, `ahead` is another, or when done."""


@dataclass(eq=False)
class _Page:
    """One open page: which account's, what it shows, and the socket that it has at the moment."""

    account_id: str
    session_epoch: int
    used_at: float
    watching: str | None = None
    socket: WebSocket | None = None
    feeder: asyncio.Task[None] | None = None
    greeted: bool = False  # the page has said what it has, so sending from the start would not double anything
    fed: str | None = None  # the answer that the feeder sends or has sent
    news: int = 0  # how often what it says of the allowance has changed
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sockets:
    """All open pages of this process.

    `find(account_id, answer_id)` gives the running answer if that account owns it. `stop(account_id, answer_id)` asks for its
    end. Both are called on the server's loop and must return at once. `allowed(account_id, session_epoch)` says whether that
    session may still watch; it may read the store, so it is called on a thread.
    """

    def __init__(
        self,
        find: Callable[[str, str], LiveAnswer | None],
        stop: Callable[[str, str], None],
        allowed: Callable[[str, int], bool],
        *,
        base_path: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._stop, self._allowed, self._now = find, stop, allowed, now
        self._pages: dict[str, _Page] = {}
        self._lock = threading.Lock()  # scripts and the loop both come in; held for dictionary work only
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asker: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self.route = WebSocketRoute(f"{base_path}/ws/page/{{channel}}", self._serve)

    # From script threads.

    def open_channel(self, account_id: str, session_epoch: int) -> str:
        """A new channel for one page of this account. Keep it in the page's session state: it is a key."""
        channel = secrets.token_urlsafe(24)
        with self._lock:
            self._make_room(account_id)
            self._pages[channel] = _Page(account_id, session_epoch, self._now())
        return channel

    def renewed(self, channel: str | None, account_id: str, session_epoch: int) -> str:
        """The same channel while it is this session's and alive, otherwise a new one. For each run of the page."""
        with self._lock:
            page = self._pages.get(channel or "")
            if page and (page.account_id, page.session_epoch) == (account_id, session_epoch):
                page.used_at = self._now()
                return channel or ""
        return self.open_channel(account_id, session_epoch)

    def watch(self, channel: str, answer_id: str | None) -> None:
        """This page now shows that answer (None: no running one), instead of what it showed. Saying it again changes nothing."""
        with self._lock:
            page = self._pages.get(channel)
            if page is None or page.watching == answer_id:
                return
            page.watching, page.used_at = answer_id, self._now()
        self._on_loop(lambda: self._turn(page))

    def watched(self, answer_id: str) -> bool:
        """Whether any open page shows this answer."""
        with self._lock:
            return any(page.watching == answer_id and page.socket is not None for page in self._pages.values())

    def tell(self, account_id: str, chat_id: str, what: str) -> None:
        """All open pages of this account learn how one of its chats stands: running, unread or idle."""
        words = json.dumps({"chat": chat_id, "is": what}, separators=(",", ":"))

        def send() -> None:
            with self._lock:
                pages = [page for page in self._pages.values() if page.account_id == account_id and page.socket is not None]
            for page in pages:
                self._spawn(_send_quietly(page.socket, words))

        self._on_loop(send)

    def news(self, account_id: str, but: str | None = None) -> None:
        """What this account's open pages say of the allowance is out of date. Pages that watch the answer `but` see it at its end anyway."""
        with self._lock:
            pages = [page for page in self._pages.values() if page.account_id == account_id and (but is None or page.watching != but)]
            for page in pages:
                page.news += 1

        def send() -> None:
            for page in pages:
                if page.socket is not None:
                    self._spawn(_send_quietly(page.socket, _news(page)))

        self._on_loop(send)

    def news_of(self, channel: str) -> int:
        """How many news this page's channel has had. Ask before the page reads what it draws."""
        with self._lock:
            page = self._pages.get(channel)
            return page.news if page is not None else 0

    def close_account(self, account_id: str) -> None:
        """Opted out, closed, signed out: this account's channels are dead at once, and their sockets close."""
        with self._lock:
            gone = {channel: page for channel, page in self._pages.items() if page.account_id == account_id}
            for channel in gone:
                del self._pages[channel]
        self._on_loop(lambda: self._close_all(list(gone.values()), FORBIDDEN))

    @property
    def open_count(self) -> int:
        """Pages with a socket at this moment: for the operations page and the tests."""
        with self._lock:
            return sum(page.socket is not None for page in self._pages.values())

    def _make_room(self, account_id: str) -> None:
        now = self._now()
        asleep = sorted((c for c, p in self._pages.items() if p.socket is None), key=lambda c: self._pages[c].used_at)
        for channel in asleep:
            if now - self._pages[channel].used_at > SLEEPING_SECONDS:
                del self._pages[channel]
        asleep = [c for c in asleep if c in self._pages]
        own = [c for c in asleep if self._pages[c].account_id == account_id]
        if sum(p.account_id == account_id for p in self._pages.values()) >= MOST_PER_ACCOUNT and own:
            del self._pages[own[0]]
        elif len(self._pages) >= MOST_CHANNELS and asleep:
            del self._pages[asleep[0]]

    def _on_loop(self, act: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act)

    # On the server's loop.

    async def _serve(self, socket: WebSocket) -> None:
        self._loop = asyncio.get_running_loop()
        if not same_origin(socket):
            await socket.close(FOREIGN)  # before accept: the handshake is answered with 403
            return
        channel = socket.path_params["channel"]
        with self._lock:
            page = self._pages.get(channel)
        # Accepted before it is refused: only so can the page tell "ask for a new channel" from a server that is not there.
        await socket.accept()
        if page is None:
            await socket.close(UNKNOWN)
            return
        verdict = await asyncio.to_thread(self._verdict, page.account_id, page.session_epoch)
        with self._lock:
            known = self._pages.get(channel) is page
        if verdict is not None or not known:
            await socket.close(verdict or FORBIDDEN)
            return
        before, page.socket, page.greeted, page.fed = page.socket, socket, False, None
        await self._end_feeder(page)
        if before is not None:
            await _close(before, REPLACED)
        if self._asker is None or self._asker.done():
            self._asker = asyncio.create_task(self._keep_asking())
        if page.news:
            await _send_quietly(socket, _news(page))  # what came while it was away
        silent = asyncio.get_running_loop().call_later(GREETING_SECONDS, self._not_greeted, page, socket)
        try:
            await self._listen(page, socket)
        except (WebSocketDisconnect, RuntimeError):
            pass  # RuntimeError is what starlette says when the socket was closed from another task
        finally:
            silent.cancel()
            if page.socket is socket:
                page.socket, page.greeted, page.used_at = None, False, self._now()
                await self._end_feeder(page)

    async def _listen(self, page: _Page, socket: WebSocket) -> None:
        while True:
            raw = await socket.receive_text()
            if page.socket is not socket:
                return
            if len(raw) > LONGEST_MESSAGE:
                await _close(socket, TOO_LONG)
                return
            try:
                said = json.loads(raw)
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            if isinstance(stop := said.get("stop"), str):
                if self._find(page.account_id, stop) is not None:
                    self._stop(page.account_id, stop)
            elif "at" in said:
                page.greeted = True
                at = said["at"]
                if said.get("id") == page.watching and type(at) is int and at >= 0:
                    self._feed(page, at)
                elif page.watching is not None and page.fed != page.watching:
                    self._feed(page, 0)  # it was told of another answer while it was away

    def _not_greeted(self, page: _Page, socket: WebSocket) -> None:
        """A reader that only listens (a load client, a script) gets everything from the beginning."""
        if page.socket is socket and not page.greeted:
            page.greeted = True
            if page.fed != page.watching:
                self._feed(page, 0)

    def _turn(self, page: _Page) -> None:
        """The page shows something else than before."""
        if page.watching is None:
            before, page.feeder, page.fed = page.feeder, None, None
            if before is not None:
                before.cancel()
        elif page.greeted:
            self._feed(page, 0)

    def _feed(self, page: _Page, at: int) -> None:
        """Send the answer that the page watches, from `at` on, in place of what is being sent."""
        if page.socket is None or page.watching is None:
            return
        before, page.fed = page.feeder, page.watching
        page.feeder = asyncio.create_task(self._send_answer(page, page.socket, page.watching, at, before))

    async def _send_answer(self, page: _Page, socket: WebSocket, answer_id: str, at: int, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            before.cancel()
            await asyncio.wait([before])
        try:
            answer = self._find(page.account_id, answer_id)
            ahead: int | None = None
            begin = f'{{"id":{_json(answer_id)},"at":'
            # One message in flight: while a slow reader holds it up, what comes waits in the answer and goes out as one.
            while answer is not None:
                done, text = answer.done, answer.text
                if len(text) > at:
                    add = text[at:].encode("utf-8", "replace").decode()  # half a character becomes one "?": the offsets stay
                    await socket.send_text(f'{begin}{at},"add":{_json(add)}}}')
                    at = len(text)
                elif done:
                    break
                elif answer.ahead != ahead:
                    ahead = answer.ahead
                    await socket.send_text(json.dumps({"id": answer_id, "ahead": ahead}, separators=(",", ":")))
                else:
                    await answer.more(at, ahead)
            await socket.send_text(json.dumps({"id": answer_id, "end": True}))
        except (WebSocketDisconnect, RuntimeError):
            pass  # gone while it was sent to; `_serve` tidies up

    async def _end_feeder(self, page: _Page) -> None:
        feeder, page.feeder = page.feeder, None
        if feeder is not None and not feeder.done():
            feeder.cancel()
            await asyncio.wait([feeder])

    async def _keep_asking(self) -> None:
        """Ask again for every open page's right, one thread for all of them."""
        while True:
            await asyncio.sleep(ASK_SECONDS)
            with self._lock:
                pages = [page for page in self._pages.values() if page.socket is not None]
            if not pages:
                self._asker = None
                return
            sessions = {(page.account_id, page.session_epoch) for page in pages}
            verdicts = await asyncio.to_thread(self._verdicts, sessions)
            for code in (FORBIDDEN, TRY_LATER):
                ended = [page for page in pages if verdicts[page.account_id, page.session_epoch] == code]
                if code == FORBIDDEN:
                    with self._lock:
                        self._pages = {channel: page for channel, page in self._pages.items() if page not in ended}
                self._close_all(ended, code)

    def _verdicts(self, sessions: set[tuple[str, int]]) -> dict[tuple[str, int], int | None]:
        return {session: self._verdict(*session) for session in sessions}

    def _verdict(self, account_id: str, session_epoch: int) -> int | None:
        """The code to close with, or None. A store that can't be asked opens nothing, but ends nothing for good either."""
        try:
            return None if self._allowed(account_id, session_epoch) else FORBIDDEN
        except Exception:
            log.exception("Whether a session may still watch could not be asked.")
            return TRY_LATER

    def _close_all(self, pages: list[_Page], code: int) -> None:
        for page in pages:
            if page.socket is not None:
                self._spawn(self._close_page(page, page.socket, code))

    async def _close_page(self, page: _Page, socket: WebSocket, code: int) -> None:
        await self._end_feeder(page)  # not one word more, even to a reader that does not take the close
        await _close(socket, code)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


_json = json.JSONEncoder(ensure_ascii=False).encode
"""Of one string. Made once: making it costs more than the string does, with each word."""


def same_origin(socket: WebSocket) -> bool:
    """Exactly one Origin, http or https, whose host and port are those that were asked. No suffixes, no missing one, no "null"."""
    origins, hosts = socket.headers.getlist("origin"), socket.headers.getlist("host")
    if len(origins) != 1 or len(hosts) != 1 or not hosts[0]:
        return False
    scheme, _, rest = origins[0].lower().partition("://")
    return scheme in ("http", "https") and rest == hosts[0].lower()


async def _close(socket: WebSocket, code: int) -> None:
    if socket.application_state is not WebSocketState.DISCONNECTED and socket.client_state is not WebSocketState.DISCONNECTED:
        try:
            await socket.close(code)
        except RuntimeError:
            pass  # closed by the other side at this very moment


def _news(page: _Page) -> str:
    return json.dumps({"news": page.news}, separators=(",", ":"))


async def _send_quietly(socket: WebSocket | None, words: str) -> None:
    """News that the next run of the page has anyway: a socket that is just going may miss them."""
    if socket is not None:
        try:
            await socket.send_text(words)
        except (WebSocketDisconnect, RuntimeError):
            pass
