"""Fetching an export: the click, the address that works once, the stream, and how far it is.

Streamlit's own way (a button with the file behind it) holds the whole file in memory, and serves it to whoever knows its address.
Here a click only asks for an export; the page's program then fetches it from a route of ours, as a stream, with a token that the click
was given. The token is bound to the account, the session's epoch and the browser's sign-in (chatpro/services/export.py).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote, urlsplit

import streamlit as st
from starlette.requests import Request, cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from chatpro.bootstrap import house
from chatpro.domain.accounts import Account
from chatpro.domain.files import safe_name
from chatpro.errors import Busy, ChatProError, NotFound
from chatpro.services.export import Form, Order, Parcel
from chatpro.web.live import base_path
from chatpro.web.modules import Module

_SIGNED_IN = "_streamlit_user"
_UNSEEN = {"cache-control": "private, no-store"}
_ORDER = "export"

module = Module("exporting", "exporting.js")
_component = st.components.v2.component("chatpro_export", js=module.js)


# --- On the page ------------------------------------------------------------------------------------------------------


def ask(actor: Account, form: Form, chat_ids: Sequence[str] = ()) -> None:
    """Ask for an export in a callback; `progress` on the same page fetches it. Raises what `Export.order` raises."""
    st.session_state[_ORDER] = house().export.order(actor, form, chat_ids, browser_of(st.context.headers.get("Cookie")))


def progress(key: str = "exporting") -> None:
    """Fetches what was asked for and says how far it is; nothing where nothing was asked for. Once on a page."""
    order: Order | None = st.session_state.get(_ORDER)
    base = f"{base_path()}/export"
    data = {"url": f"{base}/{order.token}", "watch": f"{base}/progress/{order.watch}", "name": order.name} if order else {}
    _component(key=key, data=data)


def browser_of(cookies: str | None) -> str:
    """What tells this browser's sign-in from another's: a digest of the cookies it signed in with. Empty where it has none, as in demo mode."""
    found = sorted((name, value) for name, value in cookie_parser(cookies or "").items() if name.startswith(_SIGNED_IN))
    return hashlib.sha256(repr(found).encode()).hexdigest() if found else ""


# --- The routes -------------------------------------------------------------------------------------------------------


async def _fetch(request: Request) -> Response:
    """The file, once. Every refusal is the same "not found", but for a service that is too busy."""
    if not _from_here(request):
        return _not_found()
    try:
        parcel = await asyncio.to_thread(house().export.collect, request.path_params["token"], browser_of(request.headers.get("cookie")))
    except Busy as error:
        return PlainTextResponse(str(error), 503, headers={**_UNSEEN, "retry-after": "10"})
    except ChatProError:
        return _not_found()
    # Never as what it is: a browser that showed a person's page here would show it as one of ours.
    kind = "application/zip" if parcel.name.endswith(".zip") else "application/octet-stream"
    return StreamingResponse(_stream(parcel), media_type=kind, headers={**_UNSEEN, "content-disposition": _disposition(parcel.name)})


async def _stream(parcel: Parcel) -> AsyncIterator[bytes]:
    """One piece at a time, each made on a thread once the one before is on its way. Left in the middle, it is closed here."""
    try:
        while (piece := await asyncio.to_thread(next, parcel.pieces, None)) is not None:
            if piece:
                yield piece
    finally:
        parcel.close()


async def _how_far(request: Request) -> Response:
    """Counts, by an id that only the page that asked knows."""
    found = house().export.progress(request.path_params["watch"]) if _from_here(request) else None
    if found is None:
        return _not_found()
    return JSONResponse({"state": found.state, "done": found.done, "of": found.of}, headers=_UNSEEN)


routes = [Route(f"{base_path()}/export/progress/{{watch}}", _how_far), Route(f"{base_path()}/export/{{token}}", _fetch, methods=["GET"]), module.route]


def _from_here(request: Request) -> bool:
    """Asked for by a page of ours, as far as the browser says: an address that was copied elsewhere, or stands on a foreign page, says otherwise."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    hosts = request.headers.getlist("host")
    said = [*request.headers.getlist("origin"), *request.headers.getlist("referer")]
    return request.method == "GET" and len(hosts) == 1 and all(urlsplit(address).netloc.lower() == hosts[0].lower() for address in said)


def _not_found() -> Response:
    return PlainTextResponse(str(NotFound()), 404, headers=_UNSEEN)


def _disposition(name: str) -> str:
    """To be saved, under this name; for programs that know only plain letters, under what is left of it."""
    stem, dot, ending = name.rpartition(".")
    plain = safe_name(stem.encode("ascii", "ignore").decode(), "export")
    return f"attachment; filename=\"{plain}{dot}{ending}\"; filename*=UTF-8''{quote(name, safe='')}"
