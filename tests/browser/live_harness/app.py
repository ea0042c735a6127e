"""A server with the live component and nothing else, driven over HTTP by test_live.py. Run: streamlit run app.py"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[1])]

import streamlit as st  # noqa: E402
from live_harness import engine  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from chatpro.config import Settings  # noqa: E402
from chatpro.web import live  # noqa: E402
from chatpro.web.headers import Headers  # noqa: E402


async def control(request: Request) -> JSONResponse:
    """`{"new": id}`, `{"say": words, "id": id, "done": bool}`, `{"ahead": number, "id": id}`, `{"drop": true}`; answers with what happened so far."""
    told = await request.json()
    if "new" in told:
        engine.answers[told["new"]] = engine.Answer(told["new"])
        engine.order.append(told["new"])
    if "say" in told:
        engine.answers[told["id"]].grow(told["say"], told.get("done", False))
    if "ahead" in told:
        engine.answers[told["id"]].ahead = told["ahead"]
        engine.answers[told["id"]].grow()
    if "drop" in told:
        for page in list(engine.sockets._pages.values()):
            if page.socket is not None:
                await page.socket.close(1012)
    if "again" in told:  # what a network does that delivers twice
        for page in engine.sockets._pages.values():
            engine.sockets._feed(page, told["again"])
    if "forget" in told:
        engine.sockets._pages.clear()
    if "reset" in told:
        for held in (engine.answers, engine.order, engine.stopped, engine.ended):
            held.clear()
        engine.runs.update(full=0, fragment=0)
    return JSONResponse({"stopped": engine.stopped, "ended": engine.ended, "runs": engine.runs, "open": engine.sockets.open_count})


app = st.App(
    str(Path(__file__).with_name("page.py")),
    routes=[engine.sockets.route, live.route, Route("/control", control, methods=["POST"])],
    middleware=[Middleware(Headers, settings=Settings(), preload=live.MODULES)],
)
