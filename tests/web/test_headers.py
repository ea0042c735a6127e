"""What each response carries and which requests get none, asked of a real server and, for what it can't show, of the middleware alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from chatpro.config import Settings
from chatpro.web.headers import Headers, inline_script_hashes
from tests.browser.live_server import LiveServer

SIGNED_IN = Settings(auth={"redirect_uri": "x"})
DEMO = Settings()
OPENED = replace(DEMO, demo_open=True, demo_open_confirmed=True)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    server = LiveServer()
    yield server
    server.stop()


def ask(
    settings: Settings,
    path: str = "/",
    *,
    headers: dict[str, str] | None = None,
    scheme: str = "http",
    client: str = "203.0.113.9",
    inner: Any = None,
    **options: Any,
) -> tuple[int, list[tuple[str, str]], bytes]:
    """One request through the middleware alone."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"inside"})

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "chat.example", **(headers or {})}
    scope = {
        "type": "http", "method": "GET", "path": path, "scheme": scheme, "query_string": b"", "client": (client, 1),
        "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
    }  # fmt: skip
    asyncio.run(Headers(inner or app, settings, base_path="", **options)(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], [(k.decode(), v.decode()) for k, v in sent[0]["headers"]], b"".join(m.get("body", b"") for m in sent[1:])


def header(headers: list[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name), None)


# --- On every response ------------------------------------------------------------------------------------------------

PATHS = [
    "/",
    "/history",
    "/chat?x=1",
    "/no/such/page",
    "/app/static/looks.css",
    "/app/static/none.css",
    "/media/none",
    "/_stcore/health",
    "/_stcore/host-config",
    "/_stcore/none",
    "/static/none.js",
    "/component/none",
    "/live/none/live.js",
    "/ws/page/none",
    "//evil",
    "/app/static/../../config.py",
]


@pytest.mark.fault(87)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_response_carries_the_headers(server: LiveServer, path: str, method: str) -> None:
    status, headers, _ = server.get(path, method=method, body=b"" if method == "POST" else None)
    policy = headers["content-security-policy"]
    for part in ("default-src 'self'", "img-src 'self' data: blob:", "object-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"):
        assert part in policy.split("; "), (path, status)
    assert f"connect-src 'self' ws://127.0.0.1:{server.port} wss://127.0.0.1:{server.port}" in policy
    assert "unsafe-eval" not in policy and "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "camera=()" in headers["permissions-policy"]
    assert "strict-transport-security" not in headers


@pytest.mark.fault(87)
def test_the_policys_hash_is_that_of_the_script_in_the_page_that_is_served(server: LiveServer) -> None:
    _, headers, page = server.get("/")
    (script,) = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"'sha256-{digest}'" in headers["content-security-policy"]
    assert inline_script_hashes() == [digest]


def test_a_failure_inside_goes_out_with_the_headers_and_without_its_words() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret detail")

    with pytest.raises(RuntimeError):
        ask(SIGNED_IN, inner=broken)
    sent: list[Any] = []

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "query_string": b"", "headers": [(b"host", b"x")]}
        with pytest.raises(RuntimeError):
            await Headers(broken, SIGNED_IN, base_path="")(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    assert sent[0]["status"] == 500 and header([(k.decode(), v.decode()) for k, v in sent[0]["headers"]], "x-frame-options") == "DENY"
    assert b"secret" not in sent[1]["body"]


def test_a_host_that_is_no_name_does_not_get_into_the_policy() -> None:
    _, headers, _ = ask(SIGNED_IN, headers={"host": "x; script-src *"})
    assert "connect-src 'self';" in (header(headers, "content-security-policy") or "")


@pytest.mark.fault(89)
def test_only_the_sites_named_may_frame() -> None:
    _, headers, _ = ask(SIGNED_IN, frame_ancestors=["https://host.example"])
    assert "frame-ancestors https://host.example" in (header(headers, "content-security-policy") or "")
    assert header(headers, "x-frame-options") is None


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(13)
@pytest.mark.parametrize("over", [{"scheme": "https"}, {"headers": {"x-forwarded-proto": "https"}}])
def test_over_tls_cookies_are_secure_and_the_browser_is_told_to_stay(over: dict[str, Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        cookies = [b"_streamlit_user=1; HttpOnly; SameSite=Lax", b"_streamlit_xsrf=2", b"a=3; secure; SameSite=None"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", c) for c in cookies]})
        await send({"type": "http.response.body"})

    _, headers, _ = ask(SIGNED_IN, inner=app, **over)
    assert header(headers, "strict-transport-security") == "max-age=31536000"
    assert [v for k, v in headers if k == "set-cookie"] == [
        "_streamlit_user=1; HttpOnly; SameSite=Lax; Secure",
        "_streamlit_xsrf=2; Secure; SameSite=Lax",
        "a=3; secure; SameSite=None",
    ]
    _, plain, _ = ask(SIGNED_IN, inner=app)
    assert [v for k, v in plain if k == "set-cookie"][0] == "_streamlit_user=1; HttpOnly; SameSite=Lax"


# --- The page's head --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/history", "/no/such/page", "/page.html", "/?x=1"])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_the_page_has_our_name_and_stylesheet_and_nothing_of_streamlits(server: LiveServer, path: str, encoding: str) -> None:
    status, headers, page = server.get(path, headers={"accept-encoding": encoding, "if-none-match": "*", "range": "bytes=0-10"})
    assert status == 200 and int(headers["content-length"]) == len(page)
    assert b"<title>Chat Pro</title>" in page and b"<title>Streamlit</title>" not in page
    looks = re.search(rb'<link rel="stylesheet" href="(/app/static/looks.css\?v=[0-9a-f]+)"></?', page)
    assert looks and b"favicon.png" not in page and b"service-desc" not in page and b"SourceSans" not in page.partition(b"</title>")[0]
    status, headers, css = server.get(looks[1].decode())
    assert status == 200 and b".st-key-" in css and "immutable" in headers["cache-control"]
    for module in re.findall(rb'rel="modulepreload" href="(/live/[^"]+)"', page):
        status, headers, _ = server.get(module.decode())
        assert status == 200 and headers["content-type"].startswith("text/javascript") and "immutable" in headers["cache-control"]


def test_a_product_name_is_text_in_the_title() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<head><title>Streamlit</title>", "more_body": True})
        await send({"type": "http.response.body", "body": b"</head>"})

    _, _, page = ask(replace(SIGNED_IN, product_name=r"Talk & \1 Co"), inner=app)
    assert rb"<title>Talk &amp; \1 Co</title>" in page


@pytest.mark.fault(87)
@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/chat", 200), ("/chat/", 200), ("/no/such/page", 404), ("/chat/more", 404), ("/index.html", 404)])
def test_an_address_that_leads_nowhere_says_so_in_our_words(path: str, status: int) -> None:
    """Streamlit answers 200 to everything, and tells people of folders and files."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html"), (b"content-length", b"40")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"<head><title>Streamlit</title></head>Inside"})

    found, headers, page = ask(replace(SIGNED_IN, product_name="Talk & Co"), path, inner=app, pages=("chat",))
    assert found == status and (b"There is no page at this address" in page) == (status == 404) and (b"Inside" in page) == (status == 200)
    assert header(headers, "content-length") == str(len(page)) and header(headers, "content-security-policy")
    assert b"Talk &amp; Co" in page and b"Streamlit" not in page


# --- What is closed ---------------------------------------------------------------------------------------------------


@pytest.mark.fault(97)
@pytest.mark.parametrize(
    "path",
    [
        "/_stcore/agent",
        "/_stcore/agent/openapi.json",
        "/_stcore/agent/interact",
        "/_STCORE/agent/mcp",
        "/x/_stcore/agent/mcp",
        "/_stcore//agent/x",
        "/_stcore/%61gent/x",
    ],
)
def test_the_agent_api_is_not_there_unless_allowed(server: LiveServer, path: str) -> None:
    assert server.get(path)[0] == 404
    assert server.get(path, method="POST", body=b"{}")[0] == 404
    assert ask(replace(SIGNED_IN, agent_api_allowed=True), "/_stcore/agent/mcp")[0] == 200


@pytest.mark.fault(97)
def test_metrics_are_for_whoever_sits_at_the_machine() -> None:
    assert ask(SIGNED_IN, "/_stcore/metrics")[0] == 404
    assert ask(SIGNED_IN, "/_stcore/metrics", client="127.0.0.1")[0] == 200
    assert ask(SIGNED_IN, "/_stcore/metrics", client="127.0.0.1", headers={"x-forwarded-for": "127.0.0.1"})[0] == 404


@pytest.mark.fault(96)
@pytest.mark.parametrize("up", ["..", "%2e%2e", "%252e%252e", "..%2f..", "..%5c..", "....//", ".%2e", "%c0%ae%c0%ae", "..;"])
@pytest.mark.parametrize("base", ["/app/static", "/static", "/media", "/component/x", "/live/x"])
def test_nothing_outside_of_the_public_folders_is_served(server: LiveServer, base: str, up: str) -> None:
    for target in ("config.py", "web/headers.py", "../data/models.toml", "../../etc/passwd"):
        for depth in (1, 3, 6):
            status, _, body = server.get(f"{base}/{'/'.join([up] * depth)}/{target}")
            assert b"import" not in body[:2_000] or b"<!DOCTYPE html>" in body
            assert b"root:" not in body and b"[models" not in body
            if base == "/app/static":
                assert status in (400, 404)


# --- Demo mode --------------------------------------------------------------------------------------------------------


@pytest.mark.fault(9)
@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"])
def test_demo_mode_refuses_what_came_through_a_proxy(server: LiveServer, name: str) -> None:
    status, headers, body = server.get("/", headers={name: "127.0.0.1"})
    assert status == 403 and b"demo mode" in body and headers["x-frame-options"] == "DENY"
    for path in ("/ws/page/x", "/_stcore/stream"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{server.port}{path}", origin=server.url, additional_headers={name: "x"})  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403


@pytest.mark.fault(9)
@pytest.mark.parametrize("host", ["chat.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]:80", "0.0.0.0", "", "127.0.0.1:80@evil.example"])
def test_demo_mode_answers_to_this_machines_names_only(host: str) -> None:
    assert ask(DEMO, headers={"host": host})[0] == 403
    assert ask(OPENED, headers={"host": host})[0] == 200
    assert ask(replace(DEMO, demo_open=True), headers={"host": host})[0] == 403, "told once is not told twice"
    assert ask(SIGNED_IN, headers={"host": host, "x-forwarded-for": "203.0.113.7"})[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8501", "localhost:8501", "LOCALHOST", "[::1]:8501", "[::1]", "127.9.9.9"])
def test_demo_mode_answers_this_machine(host: str) -> None:
    assert ask(DEMO, headers={"host": host})[0] == 200


def test_a_server_behind_a_folder_says_so_in_its_head() -> None:
    """`server.baseUrlPath`: everything of ours hangs where Streamlit's own routes hang."""
    server = LiveServer("--server.baseUrlPath", "tools/chat", env={**os.environ, "STREAMLIT_SERVER_BASE_URL_PATH": "tools/chat"})
    try:
        _, _, page = server.get("/tools/chat/history")
        assert b'href="/tools/chat/app/static/looks.css' in page
        modules = re.findall(rb'rel="modulepreload" href="(/tools/chat/live/[^"]+)"', page)
        assert modules and server.get(modules[0].decode())[0] == 200
    finally:
        server.stop()
