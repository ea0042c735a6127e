"""The history page in a real browser: 512 chats in a table, ticked, named, deleted, brought back, and taken home."""

from __future__ import annotations

import io
import json
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from chatpro import bootstrap
from chatpro.config import Settings
from chatpro.storage import Unit
from tests.browser.axe import faults_of
from tests.browser.patience import settled
from tests.serving import Server
from tests.upstream import Upstream

CHATS = 512
FACADE = "fa" * 16
"""The id of the message that people look for."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    fill(folder)
    with (
        Upstream(models=("gpt-4",)) as upstream,
        Server(folder, upstream.address, CHATPRO_MODELS="gpt-4", CHATPRO_SHUTDOWN_SECONDS="0.5", CHATPRO_SAMPLE_ACCOUNTS="1") as started,
    ):
        yield started
        assert "page failed" not in started.log.read_text()


def fill(folder: Path) -> None:
    """Somebody without a history gets hundreds of chats, the first of them long and nearly over. Written as columns: by the verbs it takes half a minute."""
    house = bootstrap.build(Settings(demo_dir=folder / "demo", data_dir=folder / "var", models=("gpt-4",), sample_accounts=1))
    person = house.accounts.sample("bench-1")
    assert person is not None
    now = house.now()
    talk = [(f"Question {n} about the layout", f"Answer {n}. " + "It is a matter of taste. " * 30) for n in range(60)]
    talk[3] = ("What about the façade at Zwölferhof?", "The façade needs **two** coats.")
    house.store.write(lambda unit: _chats(unit, person.id, [("The long one", now - timedelta(days=85), talk)]))
    others = [(f"Chat {n:03d}", now - timedelta(hours=CHATS - n), [(f"Question {n}", f"Answer {n}.")]) for n in range(1, CHATS)]
    house.store.write(lambda unit: _chats(unit, person.id, others))
    house.store.close()
    house.analytics.close()


def _chats(unit: Unit, account: str, chats: list[tuple[str, datetime, list[tuple[str, str]]]]) -> None:
    """Titles, times and what was said; the n-th chat's answers cost n tokens each."""
    tables: dict[str, list[tuple[object, ...]]] = {name: [] for name in ("chats", "titles", "messages", "answers", "usage_entries")}
    for n, (title, at, talk) in enumerate(chats):
        chat, parent = secrets.token_hex(16), None
        tables["chats"].append((account, chat, at, None))
        tables["titles"].append((account, chat, unit._next("titles"), None, title, at))
        for m, (question, answer) in enumerate(talk):
            asked, told, sent = FACADE if "façade" in question else secrets.token_hex(16), secrets.token_hex(16), at + timedelta(seconds=m)
            first, second = unit._next("messages"), unit._next("messages")
            tables["messages"].append((account, asked, chat, parent, first, "freelancer", question, sent))
            tables["messages"].append((account, told, chat, asked, second, "answer", answer, sent))
            tables["answers"].append((account, told, chat, asked, told, 1, told, second, "finished", None, "gpt-4", "1", 0, False, sent, sent))
            entry = (unit._next("usage_entries"), told, told, at, "Freelancer Plus", n + 1, 0, 0, "measured", 0, "gpt-4", "1", 9, 9, "finished", sent, 1)
            tables["usage_entries"].append((account, *entry))
            parent = told
    for name, rows in tables.items():
        line = f"({', '.join('?' * len(rows[0]))})"
        unit._all(f"INSERT INTO {name} VALUES {', '.join([line] * len(rows))}", *(value for row in rows for value in row))


@pytest.fixture
def page(server: Server, new_page: Callable[..., Any]) -> Any:
    opened = new_page(accept_downloads=True)
    opened.goto(f"{server.url}/history?as=bench-1")
    expect(opened.get_by_role("table")).to_be_visible()
    return opened


def titles(page: Any) -> list[str]:
    return page.locator("tbody th a").all_inner_texts()  # type: ignore[no-any-return]


def shows(page: Any, *wanted: str) -> None:
    settled(page, lambda: _equal(titles(page)[: len(wanted)], list(wanted)))


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_hundreds_of_chats_are_a_table_that_sorts_bounds_and_pages_in_the_store(page: Any) -> None:
    """By keyboard too; how it is looked at stands in the address and survives a reload."""
    shows(page, "Chat 511", "Chat 510")
    expect(page.get_by_text(re.compile(r"Page 1 of 21, 512 chats"))).to_be_visible()
    expect(page.get_by_role("columnheader", name="Last message")).to_have_attribute("aria-sort", "descending")

    page.get_by_role("button", name="Tokens", exact=True).focus()
    page.keyboard.press("Enter")
    shows(page, "Chat 511")
    expect(page.get_by_role("columnheader", name="Tokens")).to_have_attribute("aria-sort", "descending")
    page.keyboard.press("Enter")
    shows(page, "Chat 001", "Chat 002")
    expect(page).to_have_url(re.compile("sort=tokens.*order=up|order=up.*sort=tokens"))
    page.get_by_role("button", name="Next page").click()
    shows(page, "Chat 026")
    page.reload()
    shows(page, "Chat 026")

    page.goto(f"{page.url.split('?')[0]}?sort=title&order=up&page=99")
    shows(page, "Chat 501")
    expect(page.get_by_role("button", name="Next page")).to_have_attribute("aria-disabled", "true")


def test_what_goes_soon_comes_first_and_says_so(page: Any) -> None:
    """One click on the day of deletion."""
    page.get_by_role("button", name="Deleted on").click()

    shows(page, "The long one")
    expect(page.get_by_role("row", name=re.compile("The long one")).locator(".goes.soon")).to_have_count(1)


def test_a_title_is_changed_in_its_place_and_a_chat_deleted_and_brought_back(page: Any, server: Server) -> None:
    """In the other tab it shows with the next click, without an error."""
    other = page.context.new_page()
    other.goto(f"{server.url}/history")
    shows(other, "Chat 511")

    page.get_by_role("button", name="Rename “Chat 511”").click()
    expect(page.get_by_role("textbox", name="New title")).to_be_focused()
    page.keyboard.type("Façade")
    page.keyboard.press("Enter")
    shows(page, "Façade", "Chat 510")
    page.get_by_role("button", name="Delete “Façade”").click()
    shows(page, "Chat 510")
    expect(page.get_by_text("The chat was deleted.")).to_be_visible()

    other.get_by_role("button", name="Delete “Chat 511”").click()  # gone already
    shows(other, "Chat 510")
    expect(other.locator("[data-testid=stException]")).to_have_count(0)

    page.get_by_role("button", name="Undo").click()
    shows(page, "Façade", "Chat 510")
    page.get_by_role("button", name="Rename “Façade”").click()
    expect(page.get_by_role("textbox", name="New title")).to_be_focused()
    page.keyboard.type("Chat 511")
    page.keyboard.press("Enter")
    shows(page, "Chat 511")


def test_several_are_ticked_over_pages_and_taken_home(page: Any) -> None:
    """One from each of two pages; a ZIP with both, and the page says that it is there."""
    page.get_by_role("checkbox", name="Choose “Chat 510”").check()
    page.get_by_role("button", name="Next page").click()
    shows(page, "Chat 486")
    page.get_by_role("checkbox", name="Choose “Chat 486”").check()
    expect(page.get_by_text("2 chats chosen")).to_be_visible()
    page.get_by_label("Form of the export").select_option("json")

    with page.expect_download() as found:
        page.get_by_role("button", name="Export", exact=True).click()

    with zipfile.ZipFile(found.value.path()) as archive:
        chats = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
    assert sorted(chat["title"] for chat in chats) == ["Chat 486", "Chat 510"]
    expect(page.get_by_text(re.compile("is among your downloads"))).to_be_visible()


@pytest.mark.fault(23)
def test_everything_is_exported_and_opens(page: Any, server: Server, new_page: Callable[..., Any], tmp_path: Path) -> None:
    """The first page of the ZIP leads to each chat, which opens from the disk without asking anybody for anything. Its address is dead afterwards."""
    asked: list[str] = []
    with page.expect_download() as found:
        page.get_by_role("button", name="Export everything").click()
    with zipfile.ZipFile(io.BytesIO(Path(found.value.path()).read_bytes())) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)

    reader = new_page()
    reader.on("request", lambda request: asked.append(request.url) if not request.url.startswith("file:") else None)
    reader.goto((tmp_path / "index.html").as_uri())
    expect(reader.get_by_role("row")).to_have_count(CHATS + 1)
    reader.get_by_role("link", name="The long one").click()
    expect(reader.get_by_text("The façade needs two coats.")).to_be_visible()
    account = json.loads((tmp_path / "account.json").read_text("utf-8"))
    assert account["account"]["sign_in"]["subject"] == "bench-1" and len(account["receipts"]) > CHATS

    assert asked == []
    address = found.value.url
    assert "/export/" in address and page.request.get(address).status == 404 == reader.request.get(address).status


def test_an_address_of_a_message_lands_on_it(page: Any, server: Server) -> None:
    """Far up in a long chat: in sight, marked, and where those who hear the page begin. A new message is sent below the newest, as ever."""
    page.get_by_role("button", name="Deleted on").click()
    shows(page, "The long one")
    chat = page.get_by_role("link", name="The long one").get_attribute("href").partition("chat=")[2]

    page.goto(f"{server.url}/chat?chat={chat}&at={FACADE}")

    found = page.locator(f'.said[data-entry="{FACADE}"]')
    expect(found).to_be_in_viewport()
    expect(found).to_be_focused()
    settled(page, lambda: _equal(found.evaluate("(node) => getComputedStyle(node).outlineWidth"), "3px"))
    place = page.evaluate("() => document.querySelector('[data-testid=stBottom]').getBoundingClientRect().top")
    settled(page, lambda: _equal(0 < found.bounding_box()["y"] < place - 40, True))

    page.goto(f"{server.url}/chat?chat={chat}&at={'0' * 32}")
    expect(page.get_by_text("That message is not there any more.")).to_be_visible()
    expect(page.get_by_text("Question 59 about the layout")).to_be_in_viewport()


def test_a_sentence_is_found_among_hundreds_of_chats_and_the_click_lands_on_it(page: Any, server: Server) -> None:
    """From the panel, by keyboard, without its accents; back again, and from the results to the table."""
    page.goto(f"{server.url}/chat")
    field = page.get_by_role("searchbox", name="Search your chats")
    field.fill('"facade at zwolferhof"')
    field.press("Enter")
    hit = page.get_by_role("link", name=re.compile("You wrote.*What about the façade at Zwölferhof"))
    expect(hit).to_be_visible()
    expect(hit.locator("mark")).to_have_text("façade at Zwölferhof")
    expect(page.get_by_role("status").filter(has_text="Found: 1 message in one chat.")).to_be_visible()

    hit.focus()
    page.keyboard.press("Enter")
    found = page.locator(f'.said[data-entry="{FACADE}"]')
    expect(found).to_be_in_viewport()
    expect(found).to_be_focused()

    page.go_back()
    expect(hit).to_be_visible()
    field.fill("Question 4")
    field.press("Enter")
    expect(page.get_by_role("heading", name="Chat 499")).to_be_visible()
    page.get_by_role("button", name="Older ones").click()
    expect(page.get_by_role("status").filter(has_text="Further back: 20 messages")).to_be_focused()
    page.get_by_role("button", name="Newest").click()
    expect(page.get_by_role("heading", name="Chat 499")).to_be_visible()
    field.fill("zebra")
    field.press("Enter")
    expect(page.get_by_text("Nothing of yours has “zebra”.")).to_be_visible()
    page.get_by_role("button", name="All chats").click()
    expect(page.get_by_role("row", name=re.compile("Chat 509"))).to_be_visible()
    expect(field).to_be_focused()
    expect(field).to_have_value("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_was_found_fits_a_phone_and_has_no_fault_that_axe_finds(server: Server, new_page: Callable[..., Any], scheme: str) -> None:
    """Also a title and a word of any length."""
    page = new_page(viewport={"width": 320, "height": 640}, color_scheme=scheme, has_touch=True)
    for words in ("question", "zebra" * 30, "e"):
        page.goto(f"{server.url}/history?as=bench-1&q={words}")
        expect(page.get_by_role("region", name="What was found").get_by_role("status")).not_to_be_empty()
        settled(page, lambda: _equal(page.evaluate("() => document.documentElement.scrollWidth <= 320"), True))
        expect(page.get_by_label("Sort by")).to_be_hidden()
        assert faults_of(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_usable_on_a_phone_and_has_no_fault_that_axe_finds(server: Server, new_page: Callable[..., Any], scheme: str) -> None:
    """At 320 px nothing goes beyond the screen, each row has its day, and the table is still one to those who hear it."""
    page = new_page(viewport={"width": 320, "height": 640}, color_scheme=scheme, has_touch=True)
    page.goto(f"{server.url}/history?as=bench-1&sort=goes&order=up")
    shows(page, "The long one")

    settled(page, lambda: _equal(page.evaluate("() => document.documentElement.scrollWidth <= 320"), True))
    expect(page.get_by_role("row", name=re.compile("The long one")).get_by_role("cell").nth(4)).to_contain_text(re.compile(r"\d+ \w{3}"))
    assert faults_of(page, "serious", "critical") == []
