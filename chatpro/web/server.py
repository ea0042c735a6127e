"""What lives as long as the server: its start and end, its health, its routes, and what a visitor sees when a page fails.

The start refuses, with one sentence and exit code 2, whatever would open the door to strangers or lose what is stored; a
process that started halfway would be worse than one that did not.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from chatpro import bootstrap, config
from chatpro.errors import ChatProError, ConfigError, ReadTooLong, StoreUnavailable
from chatpro.web import exporting, live, panel, places, table
from chatpro.web.demo import RememberSample
from chatpro.web.headers import Headers
from chatpro.web.sockets import Sockets

ROUTER = Path(__file__).with_name("router.py")
log = logging.getLogger("chatpro")
_ready = False


@cache
def settings() -> config.Settings:
    """The settings of this process; a wrong one ends it here."""
    try:
        return config.load(secrets=config.read_secrets())
    except ConfigError as error:
        refuse(error)


def refuse(error: ChatProError) -> NoReturn:
    """End the start with the error's sentence. At once: uvicorn would print a traceback over it, and nothing is open yet."""
    print(f"Chat Pro did not start. {error}", file=sys.stderr, flush=True)
    os._exit(2)


def check_streamlit(s: config.Settings) -> None:
    """Refuse options of Streamlit that would undo a promise. Raises ConfigError naming the option."""
    address = st.get_option("server.address")
    if s.demo and address not in config.LOOPBACK and not (s.demo_open and s.demo_open_confirmed):
        raise ConfigError(
            f"server.address is {address or 'not set, which means every address'}, but this is demo mode, where nobody is asked for a password. "
            "Start it with `make run`, or say twice that strangers may come in: CHATPRO_DEMO_OPEN=yes and CHATPRO_DEMO_OPEN_CONFIRMED=yes."
        )
    if (st.get_option("server.enableAgentApi") or st.get_option("server.trustedUserHeaders")) and not s.agent_api_allowed:
        raise ConfigError(
            "server.enableAgentApi and server.trustedUserHeaders let others drive pages or name themselves. "
            "Switch them off, or set CHATPRO_AGENT_API_ALLOWED=yes."
        )
    if st.get_option("client.showErrorDetails") not in ("none", False):
        raise ConfigError('client.showErrorDetails must be "none": anything else shows visitors the inside of this program.')


@cache
def sockets() -> Sockets:
    """The pages' sockets, one for each open page."""

    def allowed(account_id: str, epoch: int) -> bool:
        accounts = bootstrap.house().accounts
        account = accounts.find(account_id)
        return account is not None and account.epoch == epoch  # which answers it may watch, `find` decides by their account

    def stop(account_id: str, answer_id: str) -> None:
        bootstrap.house().answering.stop_running(account_id, answer_id)

    return Sockets(
        find=lambda account_id, answer_id: bootstrap.house().answering.watch(account_id, answer_id),
        stop=stop,
        allowed=allowed,
    )


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
    """Everything is open and settled before the first visitor, and closed in order after the last."""
    global _ready
    try:
        check_streamlit(settings())
        house = bootstrap.build(settings())
    except ChatProError as error:
        refuse(error)
    bootstrap.install(house)
    house.accounts.on_stopped.append(sockets().close_account)
    house.accounts.on_signed_out.append(sockets().close_account)
    house.answering.watched = sockets().watched
    house.answering.on_changed.append(sockets().tell)
    house.answering.on_allowance.append(sockets().news)
    house.accounts.on_allowance.append(sockets().news)
    await bootstrap.start(house)
    _ready = True
    host, port = st.get_option("server.address") or "127.0.0.1", st.get_option("server.port")
    print(f"{house.settings.product_name} is at http://{host}:{port}", flush=True)
    if house.model.trouble:
        print(f"Attention: {house.model.trouble}", flush=True)
    try:
        yield {}
    finally:
        _ready = False
        await bootstrap.stop(house)


def routes() -> list[BaseRoute]:
    """Our own routes beside Streamlit's."""
    return [Route("/livez", livez), Route("/readyz", readyz), sockets().route, live.route, panel.route, table.module.route, *exporting.routes]


def middleware() -> list[Middleware]:
    """Headers on every response, the demo's refusal of strangers, and its memory."""
    remember = [Middleware(RememberSample)] if settings().demo else []
    return [Middleware(Headers, settings=settings(), preload=(*live.MODULES, *panel.MODULES), first=live.FIRST, pages=places.PLACES), *remember]


async def livez(_: Request) -> JSONResponse:
    """The process runs."""
    return JSONResponse({"live": True})


async def readyz(_: Request) -> JSONResponse:
    """Whether people can be served: the store is open and takes writes, migrations are done, the model is known. No version, no path."""
    try:
        house = bootstrap.house()
        parts = {"store": house.store.problem is None, "model": house.model.model is not None}
    except RuntimeError:
        parts = {"store": False, "model": False}
    ready = _ready and all(parts.values())
    return JSONResponse({"ready": ready, **parts}, status_code=200 if ready else 503)


def on_script_error(error: Exception) -> bool:
    """A page failed: the visitor gets a sentence and a reference, the log the reference and the places in the code, never a value."""
    from chatpro.web import doors

    reference = secrets.token_hex(4)
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("page failed, reference %s: %s at\n%s", reference, type(error).__name__, where)
    # These two are nobody's mistake and have a sentence of their own.
    doors.failed(reference, str(error) if isinstance(error, StoreUnavailable | ReadTooLong) else None)
    return True
