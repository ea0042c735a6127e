"""The page's WebSocket on a real server with a real client: who gets in, what is sent again after a break, and who is put out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as sockets_of_python
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from chatpro.web import sockets as room
from chatpro.web.sockets import FORBIDDEN, REPLACED, TOO_LONG, TRY_LATER, UNKNOWN, Sockets


class ScriptedAnswer:
    """An answer that grows when the test says so."""

    def __init__(self, answer_id: str, account_id: str, server: Server) -> None:
        self.id, self.account_id, self._server = answer_id, account_id, server
        self.text, self.done, self.ahead = "", False, None
        self._grew = asyncio.Event()

    async def more(self, seen: int, ahead: int | None = None) -> None:
        while len(self.text) <= seen and not self.done and self.ahead == ahead:
            self._grew.clear()
            await self._grew.wait()

    def stand(self, ahead: int | None) -> None:
        def move() -> None:
            self.ahead = ahead
            self._grew.set()

        self._server.on_loop(move)

    def say(self, words: str, *, done: bool = False) -> None:
        def grow() -> None:
            self.text += words
            self.done = done
            self._grew.set()

        self._server.on_loop(grow)


class Server:
    """uvicorn on a thread with the one route, and what the product would give it."""

    def __init__(self) -> None:
        self.answers: dict[str, ScriptedAnswer] = {}
        self.stopped: list[tuple[str, str]] = []
        self.rights: dict[tuple[str, int], bool | Exception] = {}
        self.clock = 0.0
        self.sockets = Sockets(self._find, lambda account, answer: self.stopped.append((account, answer)), self._allowed, now=lambda: self.clock)
        listener = sockets_of_python.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{listener.getsockname()[1]}"
        self._uvicorn = uvicorn.Server(uvicorn.Config(Starlette(routes=[self.sockets.route]), log_level="error", ws_max_size=10_000_000))
        runner = asyncio.Runner()
        self.loop = runner.get_loop()
        self._thread = threading.Thread(target=lambda: (runner.run(self._uvicorn.serve(sockets=[listener])), runner.close()), daemon=True)
        self._thread.start()
        wait_until(lambda: self._uvicorn.started)

    def _find(self, account: str, answer_id: str) -> ScriptedAnswer | None:
        answer = self.answers.get(answer_id)
        return answer if answer and answer.account_id == account else None

    def _allowed(self, account: str, epoch: int) -> bool:
        right = self.rights.get((account, epoch), True)
        if isinstance(right, Exception):
            raise right
        return right

    def on_loop(self, act: Any) -> None:
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (act(), done.set()))
        assert done.wait(30)

    def answer(self, answer_id: str = "a1", account: str = "mara", text: str = "") -> ScriptedAnswer:
        self.answers[answer_id] = answer = ScriptedAnswer(answer_id, account, self)
        if text:
            answer.say(text)
        return answer

    def page(self, channel: str, *, origin: str | None = "", headers: dict[str, str] | None = None, **options: Any) -> ClientConnection:
        origin = f"http://{self.host}" if origin == "" else origin
        return connect(f"ws://{self.host}/ws/page/{channel}", origin=origin, additional_headers=headers, open_timeout=30, compression=None, **options)  # type: ignore[arg-type]

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(30)


def wait_until(true: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def read(page: ClientConnection, timeout: float = 30.0) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(page.recv(timeout=timeout))
    return said


def say(page: ClientConnection, **words: Any) -> None:
    page.send(json.dumps(words))


def closed_with(page: ClientConnection, seconds: float = 30.0) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            page.recv(timeout=seconds)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def test_words_come_as_they_are_written_and_the_end_once(server: Server) -> None:
    answer = server.answer()
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, id="a1", at=0)
        answer.say("Dear ")
        assert read(page) == {"id": "a1", "at": 0, "add": "Dear "}
        answer.say("Ines", done=True)
        assert read(page) == {"id": "a1", "at": 5, "add": "Ines"}
        assert read(page) == {"id": "a1", "end": True}
        with pytest.raises(TimeoutError):
            page.recv(timeout=0.2)


def test_a_reader_that_only_listens_gets_everything_from_the_beginning(server: Server) -> None:
    server.answer(text="Dear Ines")
    channel = server.sockets.open_channel("mara", 1)
    with server.page(channel) as page:
        server.sockets.watch(channel, "a1")
        assert read(page) == {"id": "a1", "at": 0, "add": "Dear Ines"}


def test_the_next_answer_of_the_page_comes_on_the_same_socket(server: Server) -> None:
    server.answer("a1", text="one").say("", done=True)
    channel = server.sockets.open_channel("mara", 1)
    with server.page(channel) as page:
        say(page, id=None, at=0)
        server.sockets.watch(channel, "a1")
        assert [read(page), read(page)] == [{"id": "a1", "at": 0, "add": "one"}, {"id": "a1", "end": True}]
        server.answer("a2", text="two")
        server.sockets.watch(channel, "a2")
        server.sockets.watch(channel, "a2")  # a rerun says it again
        assert read(page) == {"id": "a2", "at": 0, "add": "two"}
        with pytest.raises(TimeoutError):
            page.recv(timeout=0.2)


def test_who_waits_learns_where_they_stand_and_then_hears_words_on_the_same_socket(server: Server) -> None:
    answer = server.answer()
    answer.stand(2)
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, id=None, at=0)
        assert read(page) == {"id": "a1", "ahead": 2}
        answer.stand(0)
        assert read(page) == {"id": "a1", "ahead": 0}
        answer.stand(None)
        assert read(page) == {"id": "a1", "ahead": None}
        answer.say("Hello", done=True)
        assert [read(page), read(page)] == [{"id": "a1", "at": 0, "add": "Hello"}, {"id": "a1", "end": True}]


@pytest.mark.fault(18)
def test_how_a_chat_stands_is_told_to_its_own_account_only(server: Server) -> None:
    mine, theirs = server.sockets.open_channel("mara", 1), server.sockets.open_channel("tomas", 1)
    with server.page(mine) as page, server.page(theirs) as other:
        wait_until(lambda: server.sockets.open_count == 2)
        server.sockets.tell("mara", "c1", "unread")
        assert read(page) == {"chat": "c1", "is": "unread"}
        with pytest.raises(TimeoutError):
            other.recv(timeout=0.3)


def test_news_of_the_allowance_reach_every_page_of_the_account_but_the_one_that_sees_it_anyway(server: Server) -> None:
    mine, watching, other = (server.sockets.open_channel(account, 1) for account in ("mara", "mara", "ines"))
    server.answer()
    server.sockets.watch(watching, "a1")
    with server.page(mine) as page, server.page(watching) as busy, server.page(other) as stranger:
        for open_page in (page, busy, stranger):
            say(open_page, id=None, at=0)
        wait_until(lambda: server.sockets.open_count == 3)
        server.sockets.news("mara", "a1")
        assert read(page) == {"news": 1}
        server.sockets.news("mara")
        assert (read(page), read(busy)) == ({"news": 2}, {"news": 1})
        server.sockets.tell("ines", "c1", "idle")
        assert read(stranger) == {"chat": "c1", "is": "idle"}  # the first that she hears
    assert [server.sockets.news_of(channel) for channel in (mine, watching, other, "nobody's")] == [2, 1, 0, 0]


def test_news_that_came_while_the_page_was_away_are_there_when_it_is_back(server: Server) -> None:
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.news("mara")
    with server.page(channel) as page:
        assert read(page) == {"news": 1}


def test_an_answer_is_watched_while_an_open_page_shows_it(server: Server) -> None:
    """Not when the page shows something else, and not without a socket: what ends unwatched is marked as new."""
    answer = server.answer(text="one")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    assert not server.sockets.watched("a1")
    with server.page(channel) as page:
        say(page, id=None, at=0)
        assert read(page)["add"] == "one" and server.sockets.watched("a1")
        server.sockets.watch(channel, None)
        assert not server.sockets.watched("a1")
        answer.say(" two", done=True)
        with pytest.raises(TimeoutError):
            page.recv(timeout=0.3)
        server.sockets.watch(channel, "a1")
        assert read(page) == {"id": "a1", "at": 0, "add": "one two"}
    wait_until(lambda: not server.sockets.watched("a1"))


def test_after_a_break_the_rest_comes_from_the_offset_that_the_page_names(server: Server) -> None:
    answer = server.answer(text="Dear Ines, ")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, id="a1", at=0)
        assert read(page)["add"] == "Dear Ines, "
    answer.say("thank you")
    with server.page(channel) as page:
        say(page, id="a1", at=11)
        assert read(page) == {"id": "a1", "at": 11, "add": "thank you"}


def test_offsets_count_code_points_so_no_emoji_is_cut(server: Server) -> None:
    family = "👩‍👩‍👧"  # five code points, eight UTF-16 units
    answer = server.answer(text=f"Hi {family}")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, id="a1", at=3 + 5)
        for at, more in ((8, "!"), (9, family), (14, ".")):
            answer.say(more)
            assert read(page) == {"id": "a1", "at": at, "add": more}


def test_half_a_character_does_not_end_the_socket(server: Server) -> None:
    answer = server.answer(text="a\ud83d")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, id="a1", at=0)
        assert read(page)["add"] == "a?"
        answer.say("b")
        assert read(page) == {"id": "a1", "at": 2, "add": "b"}


def test_an_answer_that_is_over_and_forgotten_ends_at_once(server: Server) -> None:
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "long-gone")
    with server.page(channel) as page:
        say(page, id="long-gone", at=57)
        assert read(page) == {"id": "long-gone", "end": True}


def test_a_slow_reader_gets_few_large_messages_and_nothing_piles_up(server: Server) -> None:
    answer = server.answer()
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel, max_size=None, max_queue=1, ping_interval=None) as page:
        say(page, id="a1", at=0)
        words = "word " * 4_000
        for _ in range(300):
            answer.say(words)
        size, messages = 0, 0
        while size < 300 * len(words):
            said = read(page)
            assert said["at"] == size
            size, messages = size + len(said["add"]), messages + 1
            time.sleep(0.01)
    assert messages < 250, "the words of a slow reader go out together"


@pytest.mark.fault(88)
@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://evil.example",
        "http://{host}.evil.example",
        "http://evil.example/{host}",
        "http://x@{host}",
        "http://evil{host}",
        "{host}",
        "ftp://{host}",
        "http://127.0.0.1",
        "http://localhost:{port}",
        "http://{host}/",
    ],
)
def test_a_foreign_page_gets_no_handshake(server: Server, origin: str | None) -> None:
    channel = server.sockets.open_channel("mara", 1)
    port = server.host.partition(":")[2]
    with pytest.raises(InvalidStatus) as refused:
        server.page(channel, origin=origin and origin.format(host=server.host, port=port))
    assert refused.value.response.status_code == 403
    assert server.sockets.open_count == 0


@pytest.mark.fault(88)
def test_two_origins_are_none(server: Server) -> None:
    channel = server.sockets.open_channel("mara", 1)
    with pytest.raises(InvalidStatus):
        server.page(channel, headers={"Origin": "https://evil.example"})


@pytest.mark.fault(88)
@pytest.mark.parametrize("channel", ["x", "..", "A" * 5_000, "%00"])
def test_a_channel_nobody_opened_is_refused_before_a_word(server: Server, channel: str) -> None:
    with server.page(channel) as page:
        assert closed_with(page) == UNKNOWN


def test_channels_can_not_be_guessed(server: Server) -> None:
    channels = {server.sockets.open_channel("mara", 1) for _ in range(50)}
    assert len(channels) == 50 and min(map(len, channels)) >= 32


@pytest.mark.fault(88)
def test_a_page_sees_only_its_accounts_answers(server: Server) -> None:
    server.answer("a1", account="ines", text="secret")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, id="a1", at=0)
        assert read(page) == {"id": "a1", "end": True}
        say(page, stop="a1")
        say(page, id="a1", at=0)
        read(page)
    assert server.stopped == []


def test_a_page_gets_only_what_its_script_shows(server: Server) -> None:
    server.answer("a1", text="shown")
    server.answer("a2", text="not shown")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, id="a2", at=0)
        assert read(page)["id"] == "a1"


def test_stop_is_passed_on_with_the_account(server: Server) -> None:
    server.answer("a1")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        say(page, stop="a1")
        wait_until(lambda: server.stopped == [("mara", "a1")])


def test_closing_an_account_closes_its_sockets_at_once_and_no_other(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the next asking, which never comes here."""
    monkeypatch.setattr(room, "ASK_SECONDS", 3_600)
    answer = server.answer()
    mine, other = server.sockets.open_channel("mara", 1), server.sockets.open_channel("ines", 1)
    server.sockets.watch(mine, "a1")
    with server.page(mine) as page, server.page(other) as other_page:
        say(page, id="a1", at=0)
        answer.say("x")
        read(page)
        server.sockets.close_account("mara")
        answer.say("not for this page any more")
        assert closed_with(page) == FORBIDDEN
        with pytest.raises(TimeoutError):
            other_page.recv(timeout=0.1)
    with server.page(mine) as again:
        assert closed_with(again) == UNKNOWN


def test_a_right_that_ends_unannounced_ends_the_socket_at_the_next_asking(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ASK_SECONDS", 0.05)
    channel = server.sockets.open_channel("mara", 1)
    with server.page(channel) as page:
        wait_until(lambda: server.sockets.open_count == 1)
        server.rights["mara", 1] = False
        assert closed_with(page) == FORBIDDEN
    with server.page(channel) as page:
        assert closed_with(page) == UNKNOWN


def test_a_session_without_the_right_never_gets_a_word(server: Server) -> None:
    server.rights["mara", 1] = False
    server.answer(text="secret")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        with contextlib.suppress(ConnectionClosed):
            say(page, id="a1", at=0)
        assert closed_with(page) == FORBIDDEN


def test_a_store_that_can_not_be_asked_opens_nothing_and_says_try_later(server: Server) -> None:
    server.rights["mara", 1] = OSError("disk")
    channel = server.sockets.open_channel("mara", 1)
    with server.page(channel) as page:
        assert closed_with(page) == TRY_LATER
    server.rights["mara", 1] = True
    with server.page(channel) as page:
        say(page, id=None, at=0)
        wait_until(lambda: server.sockets.open_count == 1)


def test_the_newest_socket_of_a_channel_takes_over(server: Server) -> None:
    answer = server.answer()
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as first:
        say(first, id="a1", at=0)
        with server.page(channel) as second:
            assert closed_with(first) == REPLACED
            say(second, id="a1", at=0)
            answer.say("x")
            assert read(second)["add"] == "x"


@pytest.mark.parametrize(
    "said",
    ["", "{", "[]", "7", '{"stop": 7}', '{"id": "a1", "at": -1}', '{"id": "a1", "at": true}', '{"id": "a1", "at": 1e99}', '{"id": {}, "at": 0}', "[" * 900],
)
def test_nonsense_from_a_page_is_passed_over(server: Server, said: str) -> None:
    server.answer(text="x")
    channel = server.sockets.open_channel("mara", 1)
    server.sockets.watch(channel, "a1")
    with server.page(channel) as page:
        page.send(said)
        say(page, id="a1", at=0)
        assert read(page)["add"] == "x"


@pytest.mark.fault(91)
def test_a_page_that_sends_much_loses_its_own_socket_only(server: Server) -> None:
    channel, other = server.sockets.open_channel("mara", 1), server.sockets.open_channel("mara", 1)
    with server.page(channel) as page, server.page(other) as calm:
        page.send("x" * 1_000_000)
        assert closed_with(page) == TOO_LONG
        say(calm, id=None, at=0)
        wait_until(lambda: server.sockets.open_count == 1)


def test_a_channel_sleeps_for_hours_and_is_then_forgotten(server: Server) -> None:
    channel = server.sockets.open_channel("mara", 1)
    server.clock += 3_600
    assert server.sockets.renewed(channel, "mara", 1) == channel
    server.clock += room.SLEEPING_SECONDS + 1
    server.sockets.open_channel("ines", 1)
    assert server.sockets.renewed(channel, "mara", 1) != channel


def test_a_channel_is_renewed_for_its_own_session_only(server: Server) -> None:
    channel = server.sockets.open_channel("mara", 1)
    assert server.sockets.renewed(channel, "mara", 2) != channel
    assert server.sockets.renewed(channel, "ines", 1) != channel
    assert server.sockets.renewed(None, "mara", 1) != channel


def test_pages_left_behind_are_bounded_and_one_person_pushes_nobody_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_CHANNELS", 20)
    monkeypatch.setattr(room, "MOST_PER_ACCOUNT", 5)
    mine = server.sockets.open_channel("mara", 1)
    for _ in range(50):
        server.clock += 1
        server.sockets.open_channel("ines", 1)
    assert server.sockets.renewed(mine, "mara", 1) == mine
    assert len(server.sockets._pages) == 6
    for n in range(50):
        server.clock += 1
        server.sockets.open_channel(f"account-{n}", 1)
    assert len(server.sockets._pages) == 20
