"""Export: people take their chats with them, as files to read and as files for programs, made while they are fetched.

An export is the only moment at which all of somebody's text leaves the store at once. So it is never whole in memory and never in
a file of ours: a page of messages is read (no read is open longer than that), written, handed on and forgotten. It is fetched by an
address that works once, for a minute, for the session that asked: Streamlit's own addresses for files ask nobody who they are.

What the JSON files look like is a promise to other programs: docs/export.md, SCHEMA.
"""

from __future__ import annotations

import secrets
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from chatpro import written
from chatpro.config import Settings
from chatpro.domain.accounts import Account, Role
from chatpro.domain.chats import Chat, Message, conversation, deleted_on, readable_since
from chatpro.domain.files import Names, safe_name
from chatpro.domain.tables import csv_line
from chatpro.errors import Busy, NotAllowed, NotFound, ReadTooLong
from chatpro.storage import Store, Unit
from chatpro.storage.sql import UsageEntry
from chatpro.written import SCHEMA, Told

T = TypeVar("T")

TOKEN_SECONDS = 60
"""How long an address waits to be fetched, once."""
PAGE = 200
"""Messages read at a time: some 200 KB of text, 5 ms of the store."""
GENTLE = 1.0
"""How long it pauses after each page, as a part of what the page took. An answer that is streamed meanwhile should not stutter."""
TRIES = 3
"""How often a page is asked for that the store cut off for taking too long, which happens on a machine under load."""
MOST_RUNNING, MOST_OWN = 20, 3
"""Exports being fetched at once, of all and of one account. Each holds a thread while a page of it is written."""
REMEMBERED = timedelta(minutes=10)
"""How long it can be asked what became of an export."""
RECEIPT_COLUMNS = (
    "settled_at", "cycle_starts_at", "plan", "model", "tokens", "tokens_in", "tokens_out", "tokens_sent_again", "counted", "outcome", "answer_id",
)  # fmt: skip


class Form(StrEnum):
    """What is wanted: chats in one form, everything there is of the account, or its receipts alone."""

    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"
    EVERYTHING = "everything"
    RECEIPTS = "receipts"


ENDINGS = {Form.MARKDOWN: ".md", Form.HTML: ".html", Form.JSON: ".json"}


@dataclass
class Progress:
    """How far one export is: messages written, each once for each form, of how many. `state`: waiting (nobody fetched it yet), running, done,
    failed (broken off). No text."""

    of: int
    asked_at: datetime
    state: str = "waiting"
    done: int = 0


class Order(NamedTuple):
    """An export that was asked for: the token that fetches it, the id by which its progress is asked, and its file's name."""

    token: str
    watch: str
    name: str


@dataclass(frozen=True)
class _Ordered:
    account_id: str
    epoch: int
    browser: str
    form: Form
    chats: tuple[str, ...]
    name: str
    at: datetime
    progress: Progress


@dataclass(frozen=True)
class Parcel:
    """One file on its way: its name, and its bytes in pieces, to be asked for on a thread. `close` when nobody takes any more."""

    name: str
    pieces: Iterator[bytes]
    close: Callable[[], None]


class Export:
    """Everything that is somebody's own, as files."""

    def __init__(self, store: Store, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store, self._settings, self._now = store, settings, now
        self._orders: dict[str, _Ordered] = {}
        self._progress: dict[str, Progress] = {}
        self._running: dict[object, str] = {}
        self._lock = threading.Lock()

    def order(self, actor: Account, form: Form, chat_ids: Sequence[str] = (), browser: str = "") -> Order:
        """Ask for own chats in a form, or for everything, or the receipts. Whoever fetches it has to be the same `browser`, whatever that says.

        Raises NotFound where a chat is not there (or none was named), Busy while this account fetches as many as it may.
        """
        if not actor.has(Role.FREELANCER):
            raise NotAllowed
        chats = self._chosen(actor, form, tuple(dict.fromkeys(chat_ids)))
        now = self._now()
        progress = Progress(sum(chat.messages for chat in chats) * len(_forms(form)), now)
        ordered = _Ordered(actor.id, actor.epoch, browser, form, tuple(chat.id for chat in chats), self._name_of(form, chats, actor), now, progress)
        token, watch = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
        with self._lock:
            if list(self._running.values()).count(actor.id) >= MOST_OWN:
                raise Busy("Some of your exports are still being fetched. Wait until one has ended.")
            self._forget(now, actor.id)
            self._orders[token], self._progress[watch] = ordered, progress
        return Order(token, watch, ordered.name)

    def collect(self, token: str, browser: str = "") -> Parcel:
        """What a token was given for, once. Raises NotFound for one that is unknown, used, too old, of another browser or of a session that
        is over; Busy when too many are fetched."""
        with self._lock:
            ordered = self._orders.get(token)
            if ordered is None or ordered.browser != browser or self._now() - ordered.at > timedelta(seconds=TOKEN_SECONDS):
                raise NotFound
            if len(self._running) >= MOST_RUNNING:
                raise Busy("Many exports are being fetched. Try again in a moment.")
            del self._orders[token]
            running = object()
            self._running[running] = ordered.account_id
        try:
            actor = self._still(ordered)
        except NotAllowed:
            self._end(running, ordered.progress)
            raise NotFound from None
        ordered.progress.state = "running"
        return Parcel(ordered.name, self._pieces(ordered, actor), lambda: self._end(running, ordered.progress))

    def progress(self, watch: str) -> Progress | None:
        """How far an export is, by the id that its order gave. Counts only."""
        found = self._progress.get(watch)
        if found is not None and found.state == "waiting" and self._now() - found.asked_at > timedelta(seconds=TOKEN_SECONDS):
            found.state = "failed"
        return found

    def _chosen(self, actor: Account, form: Form, wanted: tuple[str, ...]) -> list[Chat]:
        if form is Form.RECEIPTS:
            return []
        chats = self._store.read(lambda rows: rows.chats(actor.id, self._since()))
        if form is Form.EVERYTHING:
            return chats
        own = {chat.id: chat for chat in chats}
        if not wanted or any(chat_id not in own for chat_id in wanted):
            raise NotFound
        return [own[chat_id] for chat_id in wanted]

    def _name_of(self, form: Form, chats: Sequence[Chat], actor: Account) -> str:
        day = f"{self._now().astimezone(written.zone_of(actor)):%Y-%m-%d}"
        if form is Form.RECEIPTS:
            return f"Receipts {day}.csv"
        if form is not Form.EVERYTHING and len(chats) == 1:
            return f"{safe_name(chats[0].title)}{ENDINGS[form]}"
        return f"{safe_name(self._settings.product_name, 'Export')} {'everything' if form is Form.EVERYTHING else 'chats'} {day}.zip"

    def _forget(self, now: datetime, account_id: str) -> None:
        """What nobody can use any more, and what this account ordered before and did not fetch."""
        too_old = timedelta(seconds=TOKEN_SECONDS)
        self._orders = {t: o for t, o in self._orders.items() if now - o.at <= too_old and o.account_id != account_id}
        self._progress = {w: p for w, p in self._progress.items() if now - p.asked_at <= REMEMBERED or p.state == "running"}

    def _end(self, running: object, progress: Progress) -> None:
        """Safe to call twice."""
        with self._lock:
            self._running.pop(running, None)
        if progress.state != "done":
            progress.state = "failed"

    def _still(self, ordered: _Ordered) -> Account:
        """Whose it is, as the store has them now: who signed out, closed the account or lost the role gets nothing further."""
        account = self._read(lambda rows: rows.person(ordered.account_id)).account
        if account is None or account.epoch != ordered.epoch or not account.has(Role.FREELANCER):
            raise NotAllowed
        return account

    def _read(self, work: Callable[[Unit], T]) -> T:
        for _ in range(TRIES - 1):
            with suppress(ReadTooLong):
                return self._store.read(work)
            time.sleep(0.2)
        return self._store.read(work)

    def _since(self) -> datetime:
        return readable_since(self._now(), self._settings.retention_days)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _pieces(self, ordered: _Ordered, actor: Account) -> Iterator[bytes]:
        """The file, a page at a time."""
        if ordered.form is Form.RECEIPTS:
            pieces = self._encoded(self._receipts_csv(actor))
        elif ordered.name.endswith(".zip"):
            pieces = self._zip(ordered, actor)
        else:
            pieces = self._encoded(self._of_one(ordered, actor))
        began = time.monotonic()
        for piece in pieces:
            time.sleep(GENTLE * min(0.1, time.monotonic() - began))
            yield piece
            began = time.monotonic()
            self._still(ordered)
        ordered.progress.state, ordered.progress.done = "done", ordered.progress.of

    def _encoded(self, texts: Iterator[str]) -> Iterator[bytes]:
        for text in texts:
            yield text.encode()

    def _of_one(self, ordered: _Ordered, actor: Account) -> Iterator[str]:
        chats = self._there(actor, ordered.chats)
        if not chats:
            raise NotFound  # deleted since it was asked for
        yield from self._chat(actor, chats[0], ordered.form, ordered.progress)

    def _there(self, actor: Account, wanted: Sequence[str]) -> list[Chat]:
        """Those of the chats that were asked for which are still there."""
        own = {chat.id: chat for chat in self._read(lambda rows: rows.chats(actor.id, self._since()))}
        return [own[chat_id] for chat_id in wanted if chat_id in own]

    def _zip(self, ordered: _Ordered, actor: Account) -> Iterator[bytes]:
        """Members one after the other into a sink that is emptied with each piece; sizes and sums follow each member, so nothing is written twice."""
        sink = _Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, texts in self._members(ordered, actor):
                with _member(archive, name, self._now().astimezone(written.zone_of(actor))) as member:
                    for text in texts:
                        member.write(text.encode())
                        if piece := sink.taken():
                            yield piece
        yield sink.taken()

    def _members(self, ordered: _Ordered, actor: Account) -> Iterator[tuple[str, Iterator[str]]]:
        everything, forms = ordered.form is Form.EVERYTHING, _forms(ordered.form)
        names, listed = Names(), []
        zone = written.zone_of(actor)
        for chat in self._there(actor, ordered.chats):
            name = names.unique(f"{chat.last_at.astimezone(zone):%Y-%m-%d} {safe_name(chat.title)}")
            listed.append((name, chat))
            for form in forms:
                yield f"chats/{name}{ENDINGS[form]}", self._chat(actor, chat, form, ordered.progress)
        if everything:
            yield "account.json", self._account(actor)
            yield "receipts.csv", self._receipts_csv(actor)
        if Form.HTML in forms:
            yield "index.html", iter([written.index(self._told(actor), listed)])
        yield "README.txt", iter([written.readme(self._told(actor), len(listed), everything, ENDINGS.get(ordered.form, ""))])

    def _told(self, actor: Account) -> Told:
        return Told(self._settings.product_name, self._now(), written.zone_of(actor), actor.zone)

    def _chat(self, actor: Account, chat: Chat, form: Form, progress: Progress) -> Iterator[str]:
        """One chat as text, a page at a time. Files to read follow the conversation as the chat page shows it; JSON has every version."""
        links = self._read(lambda rows: rows.links(actor.id, chat.id, self._since()))
        path = frozenset(link.id for link in conversation(links))
        others = len(links) - len(path)
        del links
        draft = self._read(lambda rows: rows.draft(actor.id, chat.id, self._since()))
        head = written.Head(chat, *self._days(chat, actor), draft[1] if draft else None, others)
        writer = {Form.MARKDOWN: written.markdown, Form.HTML: written.html, Form.JSON: written.json_of}[form]
        yield from writer(self._told(actor), head, path, self._pages(actor, chat, progress))

    def _days(self, chat: Chat, actor: Account) -> tuple[datetime, datetime]:
        days, first = self._settings.retention_days, self._read(lambda rows: rows.entries_after(actor.id, chat.id, self._since(), -1, 1))
        return deleted_on(first[0].sent_at if first else chat.last_at, days), deleted_on(chat.last_at, days)

    def _pages(self, actor: Account, chat: Chat, progress: Progress) -> Iterator[list[Message]]:
        after = -1
        while page := self._read(lambda rows, at=after: rows.entries_after(actor.id, chat.id, self._since(), at, PAGE)):  # type: ignore[misc]
            yield page
            progress.done = min(progress.of, progress.done + sum(bool(entry.text) for entry in page))
            after = page[-1].sequence

    # --- what is not chats ------------------------------------------------------------------------------------------

    def _receipts(self, actor: Account) -> Iterator[list[UsageEntry]]:
        """Newest first, a page at a time: the ledger is kept for ever."""
        before = 1 << 62
        while page := self._read(lambda rows, at=before: rows.usage_entries_before(actor.id, at, PAGE * 5)):  # type: ignore[misc]
            yield page
            before = page[-1].sequence

    def _receipts_csv(self, actor: Account) -> Iterator[str]:
        yield csv_line(RECEIPT_COLUMNS)
        for page in self._receipts(actor):
            yield "".join(csv_line(list(_receipt(entry).values())) for entry in page)

    def _account(self, actor: Account) -> Iterator[str]:
        """All that is stored about the person beside the chats."""
        since = self._since()
        person = self._read(lambda rows: rows.person(actor.id))
        beside: dict[str, Any] = {
            "schema": f"{SCHEMA}/account",
            "exported_at": written.instant(self._now()),
            "account": written.account(actor),
            "first_use": None if person.anchor is None else {"day": person.anchor.day.isoformat(), "zone": person.anchor.zone},
            "entitlements": [written.entitlement(row) for row in person.entitlements],
            "consents": [written.consent(row) for row in person.consents],
            "carried_usage": [{"cycle_starts_at": written.instant(at), "tokens": tokens} for at, tokens in self._read(lambda rows: rows.all_carried(actor.id))],
            "own_limits": [written.own_limit(row) for row in person.own_limits],
            "warnings": [
                written.warning(w.kind, w.allowance, w.cycle_starts_at, w.at, w.dismissed_at) for w in self._read(lambda rows: rows.warnings(actor.id))
            ],
            "refusals": [written.refusal(*row) for row in self._read(lambda rows: rows.refusals(actor.id))],
            "looks": [],
            "drafts": [written.draft(*row) for row in self._read(lambda rows: rows.drafts(actor.id, since))],
        }
        receipts = ([_receipt(entry) for entry in page] for page in self._receipts(actor))
        yield from written.with_list(beside, "receipts", receipts)


def _receipt(entry: UsageEntry) -> dict[str, Any]:
    """One row of the ledger, in the order of RECEIPT_COLUMNS."""
    cost = entry.receipt
    values = (
        written.instant(entry.at), written.instant(entry.cycle_starts_at), entry.plan, entry.model, cost.total, cost.tokens_in, cost.tokens_out,
        cost.tokens_resent, cost.counted, entry.outcome, entry.answer_id,
    )  # fmt: skip
    return dict(zip(RECEIPT_COLUMNS, values, strict=True))


def _forms(form: Form) -> tuple[Form, ...]:
    """Each chat's files."""
    return tuple(ENDINGS) if form is Form.EVERYTHING else (form,)


@contextmanager
def _member(archive: zipfile.ZipFile, name: str, at: datetime) -> Iterator[Any]:
    info = zipfile.ZipInfo(name, at.timetuple()[:6])
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
    with archive.open(info, "w") as member:
        yield member


class _Sink:
    """What a ZIP is written into: it can't be gone back in, and forgets what was taken."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._held.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nor is anything open."""

    def taken(self) -> bytes:
        held, self._held = b"".join(self._held), []
        return held
