"""The side panel's list of chats: one component, however many chats there are.

As Streamlit's own elements, each row is a container and a button, and each click sends, compares and draws all of them again:
with some hundreds the panel takes a second to answer. This list is drawn once in the browser and changed where it changed;
what a click does is shown at once there, and the run that follows says whether it came about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatpro.web.acts import Heard
from chatpro.web.headers import FOREVER
from chatpro.web.live import base_path

_HERE = Path(__file__).parent
_FILES = {
    "panel.js": "text/javascript; charset=utf-8",
    "acts.js": "text/javascript; charset=utf-8",
    "panel.css": "text/css; charset=utf-8",
}
_BODIES = {name: (_HERE / name).read_bytes() for name in _FILES}
_VERSION = hashlib.sha256(b"\0".join(_BODIES.values())).hexdigest()[:16]


async def _serve(request: Request) -> Response:
    name = request.path_params["name"]
    if request.path_params["version"] != _VERSION or name not in _FILES:
        return Response("Not found.", 404, media_type="text/plain")
    return Response(_BODIES[name], headers={"content-type": _FILES[name], "cache-control": FOREVER})


MODULES = tuple(f"{base_path()}/panel/{_VERSION}/{name}" for name in _FILES if name.endswith(".js"))
"""For `Headers(preload=…)`, as live.MODULES."""
route = Route(f"{base_path()}/panel/{{version}}/{{name:path}}", _serve)

_component = st.components.v2.component(
    "chatpro_chat_list",
    # The line break tells Streamlit that this is code and not a file's name.
    js=f'const panel = await import(new URL("{MODULES[0]}", location.origin));\nexport default panel.default;',
)


@dataclass(frozen=True)
class Row:
    """One chat of the list. `note`: one more line about it, shown in its menu ("Deleted on 14 March"), and in the row itself when that is `soon`."""

    id: str
    title: str
    note: str
    running: bool
    unread: bool
    soon: bool = False


def chat_list(
    groups: list[tuple[str, list[Row]]],
    *,
    open_id: str | None,
    more: int,
    address: str,
    on_open: Callable[[str], None],
    on_rename: Callable[[str, str], None],
    on_delete: Callable[[str], None],
    on_all: Callable[[], None],
    on_search: Callable[[str], None],
    key: str = "chats",
) -> None:
    """Draw the list. `more`: how many older chats are not in it. `address`: where the app hangs, "/" or "/folder/".

    `on_open`, `on_rename` and `on_delete` may be called again for the same act when a run was broken off in the middle of it: what
    is deleted already is no fault. `on_all` and `on_search` may lead to another page.
    """
    heard: Heard = st.session_state.setdefault(f"{key}_heard", Heard())

    do = partial(_do, on_open=on_open, on_rename=on_rename, on_delete=on_delete, on_all=on_all, on_search=on_search)
    _component(
        key=key,
        data={
            "groups": [{"heading": heading, "chats": [vars(row) for row in rows]} for heading, rows in groups],
            "open": open_id,
            "more": more,
            "address": address,
            **heard.data,
        },
        on_acts_change=lambda: heard.take((st.session_state.get(key) or {}).get("acts"), do),
    )


def _do(
    act: dict[str, Any],
    *,
    on_open: Callable[[str], None],
    on_rename: Callable[[str, str], None],
    on_delete: Callable[[str], None],
    on_all: Callable[[], None],
    on_search: Callable[[str], None],
) -> None:
    """Call what an act is for; nothing for what no list of ours would say."""
    match act:
        case {"is": "open", "id": str(chat)}:
            on_open(chat)
        case {"is": "rename", "id": str(chat), "title": str(title)}:
            on_rename(chat, title)
        case {"is": "delete", "id": str(chat)}:
            on_delete(chat)
        case {"is": "all"}:
            on_all()
        case {"is": "search", "words": str(words)}:
            on_search(words)
