"""Export: everything that is one's own, in files that are safe to open, and never more of it in memory than a page."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import secrets
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chatpro.bootstrap import House
from chatpro.domain.accounts import Account
from chatpro.errors import Busy, ChatProError, NotAllowed, NotFound, ReadTooLong
from chatpro.services.export import MOST_OWN, PAGE, RECEIPT_COLUMNS, TOKEN_SECONDS, Form, Parcel
from chatpro.storage import Unit
from tests.cast import PLAN, build_house, person, write_chat
from tests.conftest import LARGE

HOSTILE = '<script>alert(1)</script> <img src="https://evil.example/p.png"> ![p](https://evil.example/q.png) [x](javascript:alert(1)) <b onclick=x>&amp;'


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = build_house(tmp_path)
    yield built
    built.store.close()
    built.analytics.close()


def fetch(house: House, actor: Account, form: Form, *chats: str) -> bytes:
    parcel = house.export.collect(house.export.order(actor, form, chats).token)
    try:
        return b"".join(parcel.pieces)
    finally:
        parcel.close()


def unzipped(data: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def many(house: House, account: Account, count: int, chats: int = 1, text: str = "Yes.") -> None:
    """This many messages (answers too), written as whole columns."""
    each = count // chats // 2

    def work(unit: Unit) -> None:
        for c in range(chats):
            chat, at = secrets.token_hex(16), house.now() - timedelta(days=2) + timedelta(seconds=c * 10)
            unit.add_chat(account.id, chat, at)
            first, entry = unit._next("messages"), unit._next("usage_entries")
            for _ in range(each - 1):
                unit._next("messages"), unit._next("messages"), unit._next("usage_entries")
            unit._next("messages")
            numbers = f"FROM range({each}) numbers(i)"
            sent_at = "CAST(? AS TIMESTAMP) + to_seconds(i)"
            unit._all(
                f"INSERT INTO messages SELECT ?, ? || 'q' || i, ?, CASE WHEN i > 0 THEN ? || 'a' || (i - 1) END, ? + 2 * i, 'freelancer', "
                f"'Question ' || i || ' ' || ?, {sent_at} {numbers}",
                account.id, chat, chat, chat, first, text, at,
            )  # fmt: skip
            unit._all(
                f"INSERT INTO messages SELECT ?, ? || 'a' || i, ?, ? || 'q' || i, ? + 2 * i, 'answer', 'Answer ' || i || ' ' || ?, {sent_at} {numbers}",
                account.id, chat, chat, chat, first + 1, text, at,
            )  # fmt: skip
            unit._all(
                f"INSERT INTO answers SELECT ?, ? || 'a' || i, ?, ? || 'q' || i, ? || 'r' || i, 0, ? || 's' || i, ? + 2 * i, 'finished', NULL, "
                f"'gpt-4', '1', 0, false, {sent_at}, {sent_at} {numbers}",
                account.id, chat, chat, chat, chat, chat, first + 1, at, at,
            )  # fmt: skip
            unit._all(
                f"INSERT INTO usage_entries SELECT ?, ? + i, ? || 'a' || i, ? || 's' || i, CAST(? AS TIMESTAMP), ?, 1, 1, 0, 'measured', 0, "
                f"'gpt-4', '1', 100, 200, 'finished', {sent_at}, 1 {numbers}",
                account.id, entry, chat, chat, at, PLAN, at,
            )  # fmt: skip

    house.store.write(work)


# --- What is in them --------------------------------------------------------------------------------------------------


def test_one_chat_is_one_file_named_by_its_title(house: House) -> None:
    """In the form that was asked for; own words quoted, the answer as it was written, times in the person's zone."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("When is the deposit due?", "Before the work begins."), title="Deposit: when?")

    order = house.export.order(mara, Form.MARKDOWN, [chat])
    text = b"".join(house.export.collect(order.token).pieces).decode()

    assert order.name == "Deposit when.md"
    assert text.startswith("# Deposit: when?\n")
    assert "## You\n\n*23 November 2026, 11:15*\n\n> When is the deposit due?\n" in text
    assert "## Chat Pro, gpt-4\n\n*23 November 2026, 11:15*\n\nBefore the work begins.\n" in text


def test_everything_holds_every_chat_in_three_forms_and_the_account(house: House) -> None:
    """Also the list to begin with, and a file that says what is what."""
    mara = person(house, "mara")
    for title in ("Proposal", "Proposal", "Late fee"):
        write_chat(house, mara, ("How", "So."), title=title)

    files = unzipped(fetch(house, mara, Form.EVERYTHING))

    stems = [f"chats/2026-11-23 {title}" for title in ("Late fee", "Proposal", "Proposal (2)")]
    assert set(files) == {s + e for s in stems for e in (".md", ".html", ".json")} | {"account.json", "receipts.csv", "index.html", "README.txt"}
    assert [f'href="chats/{s[6:].replace(" ", "%20").replace("(", "%28").replace(")", "%29")}.html"' in files["index.html"] for s in stems] == [True] * 3


def test_json_has_all_versions_and_stopped_answers(house: House) -> None:
    """What the conversation shows is marked; Markdown and HTML leave the rest out, and say so."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("First words", "First answer."))
    first = house.history.open(mara, chat).messages[0]

    def another(unit: object) -> None:
        unit.add_message(mara.id, "b" * 32, chat, None, "freelancer", "Other words", house.now())  # type: ignore[attr-defined]

    house.store.write(another)

    found = json.loads(fetch(house, mara, Form.JSON, chat))
    text = fetch(house, mara, Form.MARKDOWN, chat).decode()

    assert found["schema"] == "chatpro-export/1/chat"
    assert [(m["text"], m["author"], m["shown"]) for m in found["messages"]] == [
        ("First words", "freelancer", False), ("First answer.", "answer", False), ("Other words", "freelancer", True),
    ]  # fmt: skip
    assert found["messages"][1]["follows"] == first.id
    assert found["messages"][1]["answer"]["tokens"] == {"in": 300, "out": 200, "sent_again": 0, "counted": "measured"}
    assert "> Other words" in text and "> First words" not in text and "2 messages of other versions are not in this file" in text


def test_everything_tells_what_is_stored_about_the_account(house: House) -> None:
    """Consents, entitlements, own limits, warnings, refusals, receipts, drafts, and the looks, of which there are none yet."""
    tomas = person(house, "tomas")
    house.accounts.set_own_limit(tomas, 199_000)
    house.store.write(lambda unit: unit.keep_draft(tomas.id, "c" * 32, "d" * 32, "Half a sentence", house.now()))
    house.store.write(lambda unit: unit.add_refusal(tomas.id, None, "too_long", 9_000, "d" * 32, PLAN, house.now()))

    found = json.loads(unzipped(fetch(house, tomas, Form.EVERYTHING))["account.json"])

    assert found["account"]["name"] == "Tomás Ferreira" and found["account"]["roles"] == ["freelancer"]
    assert [len(found[part]) for part in ("entitlements", "consents", "own_limits", "warnings", "refusals", "drafts", "receipts", "looks")] == [
        1, 1, 1, 2, 1, 1, 1, 0,
    ]  # fmt: skip
    assert found["drafts"][0]["text"] == "Half a sentence"
    assert found["receipts"][0]["tokens"] == 193_640 == house.accounts.receipts(tomas)[0].receipt.total


def test_nothing_of_anybody_else_and_nothing_deleted_or_past_its_days_is_in_it(house: House) -> None:
    """Though it lies in the same tables."""
    mara = person(house, "mara")
    write_chat(house, person(house, "tomas"), ("Timbuktumarker", "Timbuktumarker."))
    write_chat(house, mara, ("Zanzibarmarker", "Zanzibarmarker."), at=house.now() - timedelta(days=91))
    house.history.delete(mara, write_chat(house, mara, ("Zanzibarmarker", "Zanzibarmarker.")))
    write_chat(house, mara, ("Mine", "Yours."))

    files = unzipped(fetch(house, mara, Form.EVERYTHING))

    assert "marker" not in "".join([*files, *files.values()])
    assert "Mine" in "".join(files.values())


def test_who_said_no_whose_plan_ended_and_who_is_at_the_end_can_export(house: House) -> None:
    """Taking one's words home is never what is switched off."""
    mara, hal, tomas = (person(house, name) for name in ("mara", "hal", "tomas"))
    write_chat(house, mara, ("Mine", "Yours."))
    house.accounts.opt_out(mara)

    for actor in (mara, hal, tomas):
        assert "index.html" in unzipped(fetch(house, actor, Form.EVERYTHING))


def test_an_answer_that_is_being_written_is_in_it_as_far_as_it_was_saved(house: House) -> None:
    """With its state; the file does not pretend that it was finished."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("Go", "Begun."))
    answer = house.history.open(mara, chat).messages[1]
    house.store.write(lambda unit: unit._all("UPDATE answers SET state = 'running' WHERE id = ?", answer.id) and None)
    house.store.write(lambda unit: unit._all("DELETE FROM messages WHERE id = ?", answer.id) and None)
    house.store.write(lambda unit: unit.save_parts([(mara.id, answer.id, 0, "Half an ")], house.now()))

    found = json.loads(fetch(house, mara, Form.JSON, chat))
    text = fetch(house, mara, Form.MARKDOWN, chat).decode()

    assert (found["messages"][1]["text"], found["messages"][1]["answer"]["state"]) == ("Half an ", "running")
    assert "still being written when this was exported" in text


def test_a_chat_of_many_pages_is_whole_and_in_order(house: House) -> None:
    """Pages meet without a hole or a double."""
    mara = person(house, "mara")
    many(house, mara, PAGE * 4 + 6)
    chat = house.history.chats(mara)[0].id

    found = json.loads(fetch(house, mara, Form.JSON, chat))

    wanted = [f"{who} {n} Yes." for n in range(PAGE * 2 + 3) for who in ("Question", "Answer")]
    assert [m["text"] for m in found["messages"]] == wanted and all(m["shown"] for m in found["messages"])


# --- Safe to open -----------------------------------------------------------------------------------------------------


@pytest.mark.fault(73)
@pytest.mark.fault(75)
def test_html_runs_nothing_and_loads_nothing(house: House) -> None:
    """Own words and title are escaped; an answer's tags are text, its pictures words, its links lead to the web or nowhere."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, (HOSTILE, f"{HOSTILE}\n\n[good](https://example.com/a) [bad](file:///etc/passwd)"), title=f"Title {HOSTILE}"[:60])

    text = fetch(house, mara, Form.HTML, chat).decode()
    index = unzipped(fetch(house, mara, Form.EVERYTHING))["index.html"]

    for page in (text, index):
        tags = {tag.lower() for tag in re.findall(r"<([a-zA-Z][\w-]*)", page)}
        assert not tags & {"script", "img", "iframe", "object", "link", "b", "svg", "form", "base"}
        assert "default-src 'none'" in page and "url(" not in page and "@import" not in page
    assert re.findall(r'href="([^"]*)"', text) == ["https://example.com/a"]


@pytest.mark.fault(73)
def test_markdown_loads_no_picture_and_keeps_code_as_it_is(house: House) -> None:
    """`vec![1]` in code is code; a picture outside of it is words. An open fence ends with its answer."""
    mara = person(house, "mara")
    answer = "Use `vec![1]` here ![p](https://evil.example/q.png)\n\n<img src=x>\n\n```rust\nlet a = vec![2]; // <b>\nnever closed"
    chat = write_chat(house, mara, ("How\n```\nopen", answer), ("Next", "Fine."))

    text = fetch(house, mara, Form.MARKDOWN, chat).decode()

    assert "Use `vec![1]` here \\![p](https" in text and "\n\\<img src=x>" in text and "let a = vec![2]; // <b>\nnever closed\n```\n\n## You" in text
    assert "> How\n> ```\n> open\n> ```\n" in text


@pytest.mark.fault(79)
def test_receipts_add_up_and_no_cell_runs(house: House) -> None:
    """A plan whose name is a formula gets an apostrophe; figures stay figures and come to what the meter shows."""
    mara, ada = person(house, "mara"), person(house, "ada")
    house.accounts.entitle(ada, mara.id, '=HYPERLINK("https://evil.example")', 200_000)
    for _ in range(3):
        write_chat(house, mara, ("How", "So."))

    rows = list(csv.DictReader(io.StringIO(fetch(house, mara, Form.RECEIPTS).decode(), newline="")))
    meter = house.accounts.meter(mara, house.answering.sizes())

    assert tuple(rows[0]) == RECEIPT_COLUMNS
    assert {row["plan"] for row in rows} == {'\'=HYPERLINK("https://evil.example")'}
    assert meter is not None and sum(int(row["tokens"]) for row in rows) == meter.used == 1_500


@pytest.mark.fault(83)
def test_no_title_makes_a_name_that_leads_anywhere(house: House) -> None:
    """Titles with paths, devices, direction marks, capitals alone apart: every name in the ZIP is plain and stands there once."""
    mara = person(house, "mara")
    titles = ["../../etc/passwd", "C:\\Windows\\x", "con", "NUL.txt", ".env", "\u202etxt.exe", "😀", "Über", "über", "a" * 60, "...", "a/b", "a?b*c|d"]
    for title in titles:
        write_chat(house, mara, ("How", "So."), title=title)

    names = [n for n in unzipped(fetch(house, mara, Form.MARKDOWN, *(chat.id for chat in house.history.chats(mara)))) if n.startswith("chats/")]

    assert len(names) == len(titles) == len({n.casefold() for n in names})
    for name in names:
        assert re.fullmatch(r"chats/2026-11-23 [\w ()&+=,'_-]+\.md", name), name


# --- Who gets it ------------------------------------------------------------------------------------------------------


@pytest.mark.fault(23)
def test_a_token_works_once_for_a_minute_in_one_browser(house: House) -> None:
    """A second time, later, elsewhere, or made up: not found."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("How", "So."))
    collect = house.export.collect

    used = house.export.order(mara, Form.MARKDOWN, [chat], "this browser").token
    with pytest.raises(NotFound):
        collect(used, "another browser")
    assert b"".join(collect(used, "this browser").pieces)
    late = house.export.order(mara, Form.MARKDOWN, [chat]).token
    house.now.forward(seconds=TOKEN_SECONDS + 1)  # type: ignore[attr-defined]

    for token, browser in ((used, "this browser"), (late, ""), ("", ""), (secrets.token_urlsafe(32), "")):
        with pytest.raises(NotFound):
            collect(token, browser)


@pytest.mark.fault(5)
@pytest.mark.fault(23)
def test_a_token_dies_with_its_session_and_its_account(house: House) -> None:
    """Signed out, role gone: nothing is given out, and what is under way breaks off at the next page."""
    mara, ada = person(house, "mara"), person(house, "ada")
    many(house, mara, PAGE * 6)
    chat = house.history.chats(mara)[0].id
    before = house.export.order(mara, Form.JSON, [chat]).token
    under_way = house.export.collect(house.export.order(person(house, "mara"), Form.JSON, [chat]).token)
    next(under_way.pieces), next(under_way.pieces)

    house.accounts.sign_out_everywhere(mara)

    with pytest.raises(NotAllowed):
        list(under_way.pieces)
    with pytest.raises(NotFound):
        house.export.collect(before)
    after = house.export.order(person(house, "mara"), Form.JSON, [chat]).token
    house.accounts.set_roles(ada, mara.id, frozenset())
    with pytest.raises(NotFound):
        house.export.collect(after)


@pytest.mark.fault(20)
def test_a_foreign_a_deleted_and_a_made_up_chat_are_the_same_not_found(house: House) -> None:
    """Also beside one's own, and none at all."""
    mara, tomas = person(house, "mara"), person(house, "tomas")
    own, foreign, gone = write_chat(house, mara, ("A", "B.")), write_chat(house, tomas, ("A", "B.")), write_chat(house, mara, ("A", "B."))
    house.history.delete(mara, gone)

    for chats in ([foreign], [gone], ["x"], [own, foreign], []):
        with pytest.raises(NotFound):
            house.export.order(mara, Form.JSON, chats)


def test_a_chat_deleted_while_its_export_waits_is_not_in_it(house: House) -> None:
    """One chat: nothing comes. Several: the others come."""
    mara = person(house, "mara")
    first, second = (write_chat(house, mara, ("How", "So."), title=title) for title in ("First", "Second"))
    one, both = house.export.order(mara, Form.JSON, [first]).token, None
    house.history.delete(mara, first)
    with pytest.raises(NotFound):
        list(house.export.collect(one).pieces)
    house.history.restore(mara, first)

    both = house.export.order(mara, Form.JSON, [first, second]).token
    house.history.delete(mara, first)

    assert [n for n in unzipped(b"".join(house.export.collect(both).pieces)) if n.startswith("chats/")] == ["chats/2026-11-23 Second.json"]


def test_only_so_many_are_fetched_at_once(house: House) -> None:
    """The next one is told so; a place is free again as soon as one has ended or was left."""
    mara = person(house, "mara")
    chat = write_chat(house, mara, ("How", "So."))
    open_ones: list[Parcel] = [house.export.collect(house.export.order(mara, Form.JSON, [chat]).token) for _ in range(MOST_OWN)]

    with pytest.raises(Busy):
        house.export.order(mara, Form.JSON, [chat])
    open_ones[0].close()

    assert house.export.order(mara, Form.JSON, [chat])


def test_progress_is_counts_and_ends_with_done_or_failed(house: House) -> None:
    """Waiting, running with what is written, done; one that was never fetched, or broke off, failed."""
    mara = person(house, "mara")
    many(house, mara, PAGE * 6)
    chat = house.history.chats(mara)[0].id
    order = house.export.order(mara, Form.JSON, [chat])

    def now() -> tuple[str, int, int]:
        found = house.export.progress(order.watch)
        assert found is not None
        return found.state, found.done, found.of

    assert now() == ("waiting", 0, PAGE * 6)
    parcel = house.export.collect(order.token)
    next(parcel.pieces), next(parcel.pieces), next(parcel.pieces)
    assert now()[0] == "running" and 0 < now()[1] < PAGE * 6
    list(parcel.pieces)
    parcel.close()
    assert now() == ("done", PAGE * 6, PAGE * 6)

    order = house.export.order(mara, Form.JSON, [chat])
    house.now.forward(seconds=TOKEN_SECONDS + 1)  # type: ignore[attr-defined]
    assert now()[0] == "failed"
    assert house.export.progress("made up") is None


# --- What it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.trials
@pytest.mark.parametrize("chats", [2, 100] if LARGE else [2], ids=lambda count: f"{count} chats")
def test_the_zip_of_20_000_messages_stays_under_20_mb_of_memory(house: House, chats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MB of text, in trials all of it in all forms: what is written is not held, and no page of it is larger than the others."""
    mara = person(house, "mara")
    many(house, mara, 20_000, chats, "words " * 60)
    own = [chat.id for chat in house.history.chats(mara)]
    order = house.export.order(mara, Form.EVERYTHING) if LARGE else house.export.order(mara, Form.JSON, own)
    monkeypatch.setattr("chatpro.services.export.GENTLE", 0.0)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        size = sum(map(len, house.export.collect(order.token).pieces))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert size > 300_000
    assert peak < 20_000_000, f"{peak:,} bytes"


def test_a_read_that_takes_too_long_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine under load a page may be cut off; the file goes on where it was, whole and without a double."""
    mara = person(house, "mara")
    many(house, mara, PAGE * 2)
    read, calls = house.store.read, itertools.count()

    def sometimes(work: Callable[[Unit], Any]) -> Any:
        if next(calls) % 3 == 1:
            raise ReadTooLong
        return read(work)

    order = house.export.order(mara, Form.JSON, [house.history.chats(mara)[0].id])
    monkeypatch.setattr(house.store, "read", sometimes)

    assert len(json.loads(b"".join(house.export.collect(order.token).pieces))["messages"]) == PAGE * 2


def test_nothing_of_an_export_stays_in_the_stores_memory(house: House) -> None:
    """The chats that people work in are remembered there; one export must not push them out."""
    mara = person(house, "mara")
    many(house, mara, 400)

    fetch(house, mara, Form.EVERYTHING)

    memory = house.store._memory  # type: ignore[attr-defined]
    assert memory._characters == 0


def test_a_wrong_role_gets_no_order(house: House) -> None:
    """Whatever it names."""
    for name in ("priya", "jude", "ana", "otto", "ada"):
        with pytest.raises(NotAllowed):
            house.export.order(person(house, name), Form.EVERYTHING)
    assert issubclass(NotAllowed, ChatProError)
