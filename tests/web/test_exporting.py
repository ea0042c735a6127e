"""The address of an export, asked as browsers and others ask it: who gets the file, under which headers, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.domain.accounts import Account
from chatpro.services.export import Form, Order
from chatpro.web import exporting
from chatpro.web.headers import Headers
from tests.cast import build_house, person, write_chat

COOKIE = "_streamlit_user_0=first; _streamlit_user_1=second"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = build_house(tmp_path, auth={"redirect_uri": "x"})
    bootstrap.install(built)
    yield built
    bootstrap.install(None)
    built.store.close()
    built.analytics.close()


def ask(house: House, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request through the headers' middleware and the routes."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(60)

    given = {"host": "chat.example", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "https", "query_string": b"",
        "client": ("203.0.113.9", 1), "server": ("chat.example", 443), "http_version": "1.1",
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items()],
    }  # fmt: skip
    asyncio.run(Headers(Starlette(routes=exporting.routes), house.settings, base_path="")(scope, receive, send))  # type: ignore[arg-type]
    return sent[0]["status"], {k.decode(): v.decode("latin-1") for k, v in sent[0]["headers"]}, b"".join(m.get("body", b"") for m in sent[1:])


def order(house: House, actor: Account, title: str = "Deposit", cookie: str | None = None, form: Form = Form.HTML) -> Order:
    chat = write_chat(house, actor, ("Zanzibarmarker", "Yes."), title=title)
    return house.export.order(actor, form, [chat], exporting.browser_of(cookie))


@pytest.mark.fault(23)
def test_the_file_comes_once_to_be_saved_and_is_kept_nowhere(house: House) -> None:
    """As an attachment that no browser shows as a page of ours; the second time it is not there."""
    token = order(house, person(house, "mara")).token

    status, headers, body = ask(house, f"/export/{token}", sec_fetch_site="same-origin")

    assert status == 200 and b"Zanzibarmarker" in body
    assert headers["cache-control"] == "private, no-store" and headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == "attachment; filename=\"Deposit.html\"; filename*=UTF-8''Deposit.html"
    assert headers["x-content-type-options"] == "nosniff"
    assert ask(house, f"/export/{token}")[0] == 404


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"referer": "https://evil.example/chat.example"},
        {"cookie": "_streamlit_user_0=another"},
        {"cookie": ""},
    ],
    ids=str,
)
def test_an_address_that_was_carried_elsewhere_leads_nowhere(house: House, headers: dict[str, str]) -> None:
    """From a foreign page, pasted, in another browser, without a sign-in: not found, nothing of the chat, and its owner can still fetch it."""
    token = order(house, person(house, "mara"), cookie=COOKIE).token

    status, sent, body = ask(house, f"/export/{token}", **{"cookie": COOKIE, **headers})

    assert (status, body, sent["cache-control"]) == (404, b"Not found.", "private, no-store")
    assert ask(house, f"/export/{token}", cookie=COOKIE)[0] == 200


def test_only_getting_it_gets_it(house: House) -> None:
    """A program that looks ahead does not use the address up."""
    token = order(house, person(house, "mara")).token

    assert ask(house, f"/export/{token}", "HEAD")[0] == 404
    assert ask(house, f"/export/{token}", "POST")[0] == 405
    assert ask(house, f"/export/{token}")[0] == 200


@pytest.mark.fault(83)
@pytest.mark.fault(92)
@pytest.mark.parametrize("title", ['a"; filename="x.exe', "a\r\nset-cookie: x=1", "пример", "\u202etxt.exe", "😀", "../../x"])
def test_a_title_can_not_break_out_of_the_header(house: House, title: str) -> None:
    """One line, one name in plain letters and the same in full, ending as it should."""
    status, headers, _ = ask(house, f"/export/{order(house, person(house, 'mara'), title).token}")

    assert status == 200 and "set-cookie" not in headers
    first, name, full = headers["content-disposition"].split("; ")
    assert first == "attachment" and name.isascii() and name.count('"') == 2 and name.endswith('.html"') and full.startswith("filename*=UTF-8''")


def test_progress_is_for_our_pages_only_and_counts_only(house: House) -> None:
    """By the id that the order gave, not by the token."""
    ordered = order(house, person(house, "mara"))

    status, headers, body = ask(house, f"/export/progress/{ordered.watch}")

    assert (status, json.loads(body), headers["cache-control"]) == (200, {"state": "waiting", "done": 0, "of": 2}, "private, no-store")
    for path in (f"/export/progress/{ordered.token}", "/export/progress/x"):
        assert ask(house, path)[0] == 404
    assert ask(house, f"/export/progress/{ordered.watch}", sec_fetch_site="cross-site")[0] == 404


def test_a_reader_that_goes_away_frees_its_place(house: House) -> None:
    """The stream is closed where it was, and says so."""
    mara = person(house, "mara")
    ordered = order(house, mara)

    async def go_away() -> None:
        stream = exporting._stream(house.export.collect(ordered.token))
        await stream.__anext__()
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(go_away())

    found = house.export.progress(ordered.watch)
    assert found is not None and found.state == "failed"
    assert not house.export._running


def test_no_page_hands_out_a_file_through_streamlit() -> None:
    """Its addresses ask for no sign-in, so a person's text never stands behind one; figures without anybody's words may."""
    root = Path(__file__).parents[2]
    files = [*(root / "chatpro").rglob("*.py"), *(root / "pages").glob("*.py")]

    using = [path.name for path in files if "download_button" in path.read_text(encoding="utf-8")]

    assert using == ["admin.py"]
