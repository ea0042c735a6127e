"""The product as it is, with a clock that a test moves (POST /clock {"forward": seconds}) and an admin at hand for a sample account's grants
(POST /grant {"who", "allowance"}, nothing as allowance ends the plan). Nothing in the product knows of it."""

import asyncio
import functools
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[3]))

from chatpro import bootstrap  # noqa: E402
from chatpro.web import server  # noqa: E402

ahead = timedelta()


def now() -> datetime:
    return datetime.now(UTC) + ahead


async def clock(request: Request) -> JSONResponse:
    global ahead
    ahead += timedelta(seconds=(await request.json())["forward"])
    return JSONResponse({"now": now().isoformat()})


async def grant(request: Request) -> JSONResponse:
    told, accounts = await request.json(), bootstrap.house().accounts
    admin, person = accounts.sample("ada"), accounts.sample(told["who"])
    if told["allowance"] is None:
        await asyncio.to_thread(accounts.end_plan, admin, person.id)
    else:
        await asyncio.to_thread(accounts.entitle, admin, person.id, "Freelancer Plus", told["allowance"])
    return JSONResponse({})


bootstrap.build = functools.partial(bootstrap.build, now=now)
app = st.App(
    server.ROUTER,
    lifespan=server.lifespan,
    routes=[*server.routes(), Route("/clock", clock, methods=["POST"]), Route("/grant", grant, methods=["POST"])],
    middleware=server.middleware(),
    on_script_error=server.on_script_error,
)
