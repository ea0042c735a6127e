"""The answer being written, on the page: a component that reads the page's socket and draws the words as they come.

Streamlit would redraw the page for each word. This component is drawn once, hears from the server itself (`sockets`), and
asks for one rerun of its fragment when the answer has ended; then the page draws the finished answer in the same place.

Its program is served by a route of ours and only named in the page: Streamlit sends a component's inline code again with
each run, and that would be the larger part of what an answer costs on the wire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import streamlit as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from streamlit import config

from chatpro.web.headers import FOREVER

_HERE = Path(__file__).parent
_FILES = {
    "live.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "live.css": "text/css; charset=utf-8",
    "vendor/streaming-markdown/smd.js": "text/javascript; charset=utf-8",
}
_BODIES = {name: (_HERE / name).read_bytes() for name in _FILES}
_VERSION = hashlib.sha256(b"\0".join(_BODIES.values())).hexdigest()[:16]


def base_path() -> str:
    """Where the app hangs behind a proxy that gives it a folder (`server.baseUrlPath`): nothing, or /folder."""
    path = (config.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""


async def _serve(request: Request) -> Response:
    name = request.path_params["name"]
    if request.path_params["version"] != _VERSION or name not in _FILES:
        return Response("Not found.", 404, media_type="text/plain")
    return Response(_BODIES[name], headers={"content-type": _FILES[name], "cache-control": FOREVER})


MODULES = tuple(f"{base_path()}/live/{_VERSION}/{name}" for name in _FILES if name.endswith(".js") and name != "theme.js")
"""For `Headers(preload=…)`: the browser fetches them while Streamlit starts, so that the first word need not wait."""
FIRST = (f"{base_path()}/live/{_VERSION}/theme.js",)
"""For `Headers(first=…)`: it knows whether the page is to be light or dark before Streamlit asks."""
route = Route(f"{base_path()}/live/{{version}}/{{name:path}}", _serve)

_component = st.components.v2.component(
    "chatpro_live_answer",
    # The line break tells Streamlit that this is code and not a file's name.
    js=f'const live = await import(new URL("{MODULES[0]}", location.origin));\nexport default live.default;',
)


@dataclass(frozen=True)
class Standing:
    """What the page says of the allowance, by how many news of its channel (`Sockets.news_of`), at what instant; `due` is when that changes by itself."""

    news: int
    now: datetime
    due: datetime | None

    def data(self) -> dict[str, Any]:
        """For the browser, which counts by the difference of the two instants: its own clock may say anything."""
        return {"news": self.news, "now": self.now.timestamp() * 1000 // 1, "due": self.due and self.due.timestamp() * 1000 // 1}


class Outbox(Protocol):
    """What the page's session knows of its sends."""

    name: str
    count: int
    acted: int
    back: list[str]


def hands(*, channel: str, chat: str | None, outbox: Outbox, on_act: Callable[[Any], None], at: str | None = None, key: str = "hands") -> None:
    """Draw nothing, but hear the buttons of the messages' rows (`data-act`), bring an opened chat to its newest words, or to the message `at`
    where one was searched for, and have the whole page run again when its channel was lost. Call it once a run, outside of every fragment.

    `on_act` gets what was clicked and not yet heard: [{"n", "act", "id"}], from a browser, so of any form. `chat` is the open one.
    `outbox` counts the sends that were heard: a text that left the composer and is not among them comes back into it, and so does what
    the page wants `back`.

    After a restart of the server Streamlit connects again and runs nothing, and the new process knows none of the old
    fragments: a rerun that `live_answer` asks for fails there. Only what stands outside of fragments can start the page anew.
    """
    _component(
        key=key,
        data={
            "page_url": f"{base_path()}/ws/page/{channel}",
            "chat": chat,
            "at": at,
            "session": outbox.name,
            "heard": outbox.count,
            "acted": outbox.acted,
            "back": outbox.back[-1:],
            "backs": len(outbox.back),
        },
        on_act_change=lambda: on_act(st.session_state[key].get("act")),
        on_lost_change=_nothing,
    )


def ears(*, channel: str, standing: Standing, on_act: Callable[[Any], None], key: str = "hands") -> None:
    """For pages without a chat: the page runs again when what it says of the allowance is no longer so. `on_act` as for `hands`."""
    _component(
        key=key,
        data={
            "page_url": f"{base_path()}/ws/page/{channel}",
            "chat": None,
            "session": channel,
            "heard": 0,
            "acted": 0,
            "back": [],
            "backs": 0,
            **standing.data(),
        },
        on_act_change=lambda: on_act(st.session_state[key].get("act")),
        on_lost_change=_nothing,
        on_news_change=_nothing,
    )


def live_answer(*, channel: str, answer_id: str | None, writing: str, on_end: Callable[[], None], standing: Standing | None = None, key: str = "live") -> None:
    """Draw the answer that this page's channel watches, or nothing but the open socket when there is none.

    Call it in a fragment, on every run of the page, also while nothing is written: the socket must be there before the first
    word. `writing` is the model's title. `on_end` is called once when the answer has ended; the fragment runs after it. So it does when
    `standing` is no longer so.
    When the channel is unknown or was closed, the page runs again if `hands` is on it, otherwise the fragment: renew the
    channel (`Sockets.renewed`) at the beginning of either.
    """
    _component(
        key=key,
        data={"stream_url": f"{base_path()}/ws/page/{channel}", "keep": True, "id": answer_id, "writing": writing, **(standing.data() if standing else {})},
        on_end_change=on_end,
        on_lost_change=_nothing,
        on_news_change=_nothing,
    )


def _nothing() -> None:
    """The rerun is all that is wanted."""
