"""A server with the side panel's list and nothing else, driven over HTTP by test_panel.py. Run: streamlit run app.py"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[1])]

import streamlit as st  # noqa: E402
from panel_harness import engine  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from chatpro.config import Settings  # noqa: E402
from chatpro.web import panel  # noqa: E402
from chatpro.web.headers import Headers  # noqa: E402


async def control(request: Request) -> JSONResponse:
    """`{"reset": true}`, `{"groups": {heading: [chat]}}`, `{"set": [id, {field: value}]}`, and fields of engine.state; answers with what was done."""
    told = await request.json()
    if "reset" in told:
        engine.reset()
    if "groups" in told:
        engine.groups.clear()
        engine.groups.update(told["groups"])
    if "set" in told:
        chat_id, fields = told["set"]
        engine.find(chat_id)[2].update(fields)
    engine.state.update({name: told[name] for name in ("more", "slow", "refuse") if name in told})
    return JSONResponse({**engine.state, "chats": {heading: [chat["id"] for chat in chats] for heading, chats in engine.groups.items()}})


app = st.App(
    str(Path(__file__).with_name("page.py")),
    routes=[panel.route, Route("/control", control, methods=["POST"])],
    middleware=[Middleware(Headers, settings=Settings(), preload=panel.MODULES)],
)
