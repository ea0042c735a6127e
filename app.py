"""The ASGI entry: Streamlit as one app beside a few routes and headers of our own. Start it with `make run`.

Streamlit looks for the call of `st.App` in this file. What each page run does is chatpro/web/router.py; what lives as long
as the server is chatpro/web/server.py.
"""

import streamlit as st

from chatpro.web import server

app = st.App(
    server.ROUTER,
    lifespan=server.lifespan,
    routes=server.routes(),
    middleware=server.middleware(),
    on_script_error=server.on_script_error,
)
