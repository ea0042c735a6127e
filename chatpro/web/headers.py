"""What every response carries, and which requests are not answered at all.

Streamlit sends no content policy, lets anyone frame its pages, leaves cookies without Secure, names itself in the page's
head, and answers `/_stcore/metrics` to strangers. Without this room a picture in an answer could carry words away, a
foreign page could lay itself over "I agree", and demo mode, where nobody is asked for a password, would serve whoever a
proxy lets through.

It wraps everything: `st.App(..., middleware=[Middleware(Headers, settings=settings)])`. An app started without that entry has
none of it; docs/operations.md names the one documented start.
"""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import re
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatpro.config import Settings

PROXY_HEADERS = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"via", b"x-real-ip"})
HSTS_SECONDS = 365 * 86_400
"""A year, as browsers' own preload list asks for at least. Subdomains are the host's to decide, so they are not included."""
FOREVER = "public, max-age=31536000, immutable"

_DEMO = "This is demo mode, where nobody is asked for a password"
_UNLESS = "unless whoever runs it says twice that strangers may come in."
DEMO_PROXIED = f"{_DEMO}, and this request came through a proxy. Demo mode answers this machine only, {_UNLESS}"
DEMO_FOREIGN_HOST = f"{_DEMO}. It answers to the names 127.0.0.1, localhost and ::1 only, {_UNLESS}"
_DEVICES = ("accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "magnetometer", "microphone", "midi", "payment", "usb")

_CLOSED = re.compile(r"/_stcore/+(agent|metrics)(/|$)", re.IGNORECASE)
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_TITLE = re.compile(rb"<title>[^<]*</title>")
_NOT_OURS = re.compile(rb'<link\s+(?:rel="shortcut icon"|rel="service-desc"|rel="preload"[^>]*as="font")[^>]*>', re.DOTALL)
"""Streamlit's own icon, the address of its agent API, and the preloaded font that our theme does not use."""
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_STATIC = Path(__file__).parent / "static"


class Headers:
    """ASGI middleware around the whole app.

    `frame_ancestors`: origins whose pages may frame this one (none by default). `preload`: modules that the page will need;
    `first`: programs that run before anything else does.
    `pages`: the names that addresses of pages have; another one is told so, in our words and with the status it should have.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        frame_ancestors: Iterable[str] = (),
        preload: Iterable[str] = (),
        first: Iterable[str] = (),
        pages: Iterable[str] = (),
        base_path: str | None = None,
    ) -> None:
        self.app, self.settings = app, settings
        self.pages = frozenset(pages)
        self.frame_ancestors = tuple(frame_ancestors)
        self.preload, self.first = tuple(preload), tuple(first)
        self._demo_closed = settings.demo and not (settings.demo_open and settings.demo_open_confirmed)
        self._base_path = base_path
        self._script_hashes = " ".join(f"'sha256-{digest}'" for digest in inline_script_hashes())
        self._looks_version = hashlib.sha256((_STATIC / "looks.css").read_bytes()).hexdigest()[:12]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._demo_refusal(scope)
        if scope["type"] == "websocket":
            if refusal:
                await send({"type": "websocket.close", "code": 1008})  # before accept: answered with 403
            else:
                await self.app(scope, receive, send)
            return
        response = _Response(self, scope, send)
        if refusal:
            await _plain(response.send, 403, refusal)
        elif self._closed_to_strangers(scope):
            await _plain(response.send, 404, "Not found.")
        else:
            await self._answer(scope, receive, response)

    async def _answer(self, scope: Scope, receive: Receive, response: _Response) -> None:
        try:
            await self.app(_without_encodings(scope) if response.may_be_index else scope, receive, response.send)
        except Exception:
            # Starlette's own answer to a failure is made outside of this middleware and would go without any header.
            if not response.started:
                await _plain(response.send, 500, "Something went wrong inside this service.")
            raise

    def _demo_refusal(self, scope: Scope) -> str | None:
        if not self._demo_closed:
            return None
        if any(name.lower() in PROXY_HEADERS for name, _ in scope["headers"]):
            return DEMO_PROXIED
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        # A foreign name that resolves to this machine (DNS rebinding) arrives from this machine, but with its own name.
        return None if len(hosts) == 1 and _is_loopback(hosts[0].decode("latin-1")) else DEMO_FOREIGN_HOST

    def _closed_to_strangers(self, scope: Scope) -> bool:
        found = _CLOSED.search(unquote(scope["path"]).replace("\\", "/"))
        if found is None:
            return False
        if found[1].lower() == "agent":
            return not self.settings.agent_api_allowed
        # Figures about the process are for whoever sits at the machine, not for whom a proxy on it lets through.
        peer = scope.get("client")
        return not (peer and _is_loopback(peer[0])) or any(name.lower() in PROXY_HEADERS for name, _ in scope["headers"])

    def base_path(self) -> str:
        """Where Streamlit hangs its routes. Asked when a request comes: the option is not read yet when the app is built."""
        if self._base_path is None:
            from streamlit import config

            path = (config.get_option("server.baseUrlPath") or "").strip("/")
            self._base_path = f"/{path}" if path else ""
        return self._base_path

    def knows(self, path: str) -> bool:
        """Whether a page has this address."""
        base = self.base_path()
        name = path.removeprefix(base).strip("/") if path.startswith(base) else path
        return not self.pages or not name or name in self.pages

    def no_such_page(self) -> bytes:
        """In place of Streamlit's dialog, which speaks of folders and files, over a page that nobody asked for."""
        name = html.escape(self.settings.product_name)
        return (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>Not found · {name}</title>{self.head().decode()}</head><body class="lost"><main>'
            f"<h1>There is no page at this address</h1><p>It may have been mistyped, or the link is an old one. Your chats are where they were.</p>"
            f'<p><a href="{self.base_path()}/">Go to {name}</a></p></main></body></html>'
        ).encode()

    def policy(self, host: str) -> str:
        """The content policy. `host` is the name that was asked: some browsers don't count ws: under 'self'."""
        sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
        return "; ".join(
            (
                "default-src 'self'",
                f"script-src 'self' blob: {self._script_hashes}",
                "style-src 'self' 'unsafe-inline'",  # Streamlit writes its styles into the page
                "img-src 'self' data: blob:",
                "font-src 'self' data:",
                "media-src 'self' data: blob:",
                "worker-src 'self' blob:",
                f"connect-src 'self'{sockets}",
                "object-src 'none'",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors " + (" ".join(self.frame_ancestors) or "'none'"),
            )
        )

    def head(self) -> bytes:
        """What our page has in its head besides Streamlit's: there before the first word is drawn, and not sent again with each run."""
        base = self.base_path()
        links = [
            f'<link rel="stylesheet" href="{base}/app/static/looks.css?v={self._looks_version}">',
            *(f'<script src="{html.escape(path)}"></script>' for path in self.first),
            f"<style>:root{{--cp-name:{_css_string(self.settings.product_name)}}}</style>",
            f'<link rel="shortcut icon" href="{base}/app/static/mark.svg">',
            f'<link rel="preload" href="{base}/app/static/inter-latin-wght-normal.woff2" as="font" type="font/woff2" crossorigin>',
            *(f'<link rel="modulepreload" href="{html.escape(path)}">' for path in self.preload),
        ]
        return "".join(links).encode()


def _css_string(words: str) -> str:
    """A name as a string of a stylesheet that stands in HTML: everything but letters and digits by its number."""
    return '"' + "".join(sign if sign.isalnum() or sign == " " else f"\\{ord(sign):x} " for sign in words) + '"'


class _Response:
    """One response on its way out: headers on its start, and the index page rewritten when it is one."""

    def __init__(self, headers: Headers, scope: Scope, send: Send) -> None:
        self._headers, self._scope, self._send = headers, scope, send
        self.started = False
        self._index: Message | None = None
        self._body: list[bytes] = []
        self.may_be_index = scope["method"] in ("GET", "HEAD") and not re.search(r"/(media|_stcore|static|component)/", scope["path"])

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": self._headed(message["headers"])}
            if self.may_be_index and _has(message, b"content-type", b"text/html") and not _has(message, b"content-encoding"):
                dropped = (b"content-length", b"etag", b"last-modified", b"accept-ranges")
                self._index = {**message, "headers": [(k, v) for k, v in message["headers"] if k.lower() not in dropped]}
                return
        elif self._index is not None and message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._send_index(self._index)
            return
        await self._send(message)

    async def _send_index(self, start: Message) -> None:
        page = b"".join(self._body)
        if not self._headers.knows(self._scope["path"]):
            page = self._headers.no_such_page() if page else b""
            start = {**start, "status": 404, "headers": [*start["headers"], (b"content-length", str(len(page)).encode())]}
        elif page:  # HEAD has none
            title = f"<title>{html.escape(self._headers.settings.product_name)}</title>".encode()
            page = _NOT_OURS.sub(b"", page)
            page = _TITLE.sub(lambda _: title, page, count=1)
            # A phone's keyboard makes the page smaller, instead of lying over the composer.
            page = page.replace(b"shrink-to-fit=no", b"interactive-widget=resizes-content", 1)
            page = page.replace(b"</head>", self._headers.head() + b"</head>", 1)
            start["headers"].append((b"content-length", str(len(page)).encode()))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": page})

    def _headed(self, sent: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        secure = _over_tls(self._scope)
        host = next((v.decode("latin-1") for k, v in self._scope["headers"] if k.lower() == b"host"), "")
        ours: MutableMapping[str, str] = {
            "content-security-policy": self._headers.policy(host),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "permissions-policy": ", ".join(f"{device}=()" for device in _DEVICES),
            "cross-origin-resource-policy": "same-origin",
        }
        if not self._headers.frame_ancestors:
            ours["x-frame-options"] = "DENY"
            ours["cross-origin-opener-policy"] = "same-origin"
        if secure:
            ours["strict-transport-security"] = f"max-age={HSTS_SECONDS}"
        if "/media/" in self._scope["path"]:
            ours["cache-control"] = "private, no-store"  # a person's own exports and files: not for a shared machine's cache
        elif b"v=" in self._scope.get("query_string", b"") and "/app/static/" in self._scope["path"]:
            ours["cache-control"] = FOREVER
        names = {name.encode() for name in ours}
        kept = [(k, _cookie(v, secure) if k.lower() == b"set-cookie" else v) for k, v in sent if k.lower() not in names]
        return kept + [(k.encode(), v.encode("latin-1", "replace")) for k, v in ours.items()]


def inline_script_hashes(index: Path | None = None) -> list[str]:
    """Of the scripts written into Streamlit's own index page, from the installed file: an upgrade changes them."""
    if index is None:
        from streamlit import file_util

        index = Path(file_util.get_static_dir()) / "index.html"
    return [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(index.read_bytes())]


def _over_tls(scope: Scope) -> bool:
    """Ours, or that of the proxy in front. A client that makes the header up adds flags to its own cookies and nothing else."""
    return scope.get("scheme") == "https" or any(k.lower() == b"x-forwarded-proto" and v.split(b",")[0].strip() == b"https" for k, v in scope["headers"])


def _cookie(value: bytes, secure: bool) -> bytes:
    """Secure over TLS, and Lax where nothing is said. HttpOnly is left as it is: the page must read its XSRF cookie."""
    flags = {part.split(b"=")[0].strip().lower() for part in value.split(b";")[1:]}
    if secure and b"secure" not in flags:
        value += b"; Secure"
    return value if b"samesite" in flags else value + b"; SameSite=Lax"


def _is_loopback(host: str) -> bool:
    """127.0.0.1, localhost or ::1, with or without a port."""
    name = re.sub(r":\d+\Z", "", host) if host.count(":") == 1 or host.startswith("[") else host
    name = name.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _without_encodings(scope: Scope) -> Scope:
    """The index page must come whole and readable to be rewritten: not compressed, not "unchanged", not in part."""
    asked = (b"accept-encoding", b"if-none-match", b"if-modified-since", b"range")
    return {**scope, "headers": [(k, v) for k, v in scope["headers"] if k.lower() not in asked]}


def _has(message: Message, name: bytes, beginning: bytes = b"") -> bool:
    return any(k.lower() == name and v.lower().startswith(beginning) for k, v in message["headers"])


async def _plain(send: Any, status: int, sentence: str) -> None:
    body = sentence.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
