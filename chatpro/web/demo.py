"""Demo mode remembers who is signed in, as a real sign-in would: in a cookie, set when a page is opened with ?as=NAME.

Without it a reload on a page without that in its address is a sign-out; writing it into every address instead puts a second
entry for the same page into the browser's history, and the back button seems dead.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatpro.bootstrap import house
from chatpro.domain.accounts import Account

COOKIE = "chatpro_sample"


def cookie_of(account: Account) -> str:
    """The account's name and the epoch of its sessions: signing out everywhere ends the cookie too."""
    return f"{account.subject}.{account.epoch}"


def remembered(cookie: object) -> Account | None:
    """Whom the cookie names, if its epoch still holds. Anything but a text names nobody."""
    if not isinstance(cookie, str) or not cookie.isprintable():
        return None
    account = house().accounts.sample(cookie.rpartition(".")[0])
    return account if account is not None and cookie == cookie_of(account) else None


class RememberSample:
    """ASGI middleware of demo mode only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("as") if scope["type"] == "http" else None
        account = await asyncio.to_thread(house().accounts.sample, name[-1]) if name and name[-1].isprintable() else None
        if account is None:
            await self.app(scope, receive, send)
            return
        cookie = f"{COOKIE}={cookie_of(account)}; Path=/; HttpOnly; SameSite=Lax".encode()

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"set-cookie", cookie)]
            await send(message)

        await self.app(scope, receive, with_cookie)
