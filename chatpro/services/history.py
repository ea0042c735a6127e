"""A person's own chats: the side panel, one conversation, searching, renaming, deleting and taking a deletion back.

Reads go through what the asker may reach: a chat of somebody else, a deleted one, one past its 90 days and one that never
was are all the same "not found".
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from chatpro.config import Settings
from chatpro.domain.accounts import Account, Role
from chatpro.domain.chats import UNDO, AnswerState, Chat, Column, Listed, Message, clean_title, conversation, deleted_on, readable_since, versions
from chatpro.domain.search import Query, QueryRefused, Snippet, parse, snippet
from chatpro.errors import NotAllowed, NotFound, NotSearchable, NotSendable, TooLate
from chatpro.storage import Store, Unit

LISTED = 25
"""Rows of one page of the table."""
MOST_PAGES = 1_000_000

FOUND = 20
"""Hits of one page of a search."""

SEARCHED = 5_000
"""Messages that a search reads at once: some 3 MB of text, and more than nearly anybody writes in 90 days."""

SEARCH_SECONDS = 2.0
"""How long one search may look through a person's messages; a read of the store has the same bound. 2,000 messages take 30 ms."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a search stands among what was written, from the newest back: an instant, and a number among the entries of that instant."""

    at: datetime
    sequence: int


ABOVE = 2**62
"""More than any entry's number."""

LATEST = Place(datetime(9999, 1, 1, tzinfo=UTC), ABOVE)


@dataclass(frozen=True)
class Hit:
    """A message that meets a query, with the piece of it in which it does; or a chat whose title does (`message_id` is None, `at` its last message)."""

    chat_id: str
    title: str
    message_id: str | None
    own: bool
    at: datetime
    snippet: Snippet


@dataclass(frozen=True)
class Found:
    """Some hits, newest first. `more`: pass it to have the next ones; None when all was looked through. `ended_early`: the time was up, and
    there may be more hits than fit one page even where these are few."""

    hits: list[Hit]
    more: Place | None
    ended_early: bool = False

    @property
    def by_chat(self) -> list[list[Hit]]:
        """The hits of each chat together: the chat with the newest one first, newest first in each, a title before the messages under it."""
        chats: dict[str, list[Hit]] = {}
        for hit in self.hits:
            chats.setdefault(hit.chat_id, []).append(hit)
        return [sorted(hits, key=lambda hit: hit.message_id is not None) for hits in chats.values()]


@dataclass(frozen=True)
class Opened:
    """One chat as its owner sees it: the path through the versions, what other versions its entries have (ids, oldest first), the
    highest number of any of its entries, the answers nobody has seen yet, the answer that is being written (in whatever version), and
    when the first and the last of it are deleted, and whether the model is to remember more of it."""

    id: str
    title: str
    messages: list[Message]
    versions: dict[str, list[str]]
    newest: int
    unread: frozenset[str]
    running: Message | None
    first_deleted_on: datetime
    last_deleted_on: datetime
    remembers_more: bool = False


@dataclass(frozen=True)
class View:
    """How the table of own chats is looked at. `begin` and `end`: bounds of the newest message's time, the first included; `page` from 1."""

    column: Column = Column.LAST
    descending: bool = True
    begin: datetime | None = None
    end: datetime | None = None
    page: int = 1


@dataclass(frozen=True)
class Listing:
    """One page of the table: `number` is the nearest page there is to the one asked for, `chats` how many chats stand on all `pages`."""

    rows: list[Listed]
    number: int
    pages: int
    chats: int


class History:
    """What a freelancer wrote and was answered."""

    def __init__(self, store: Store, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._now = now
        self.on_deleted: list[Callable[[str, str], None]] = []
        """Called with account id and chat id after a deletion: an answer that runs there must stop."""
        self.answered: Callable[[Account], frozenset[str]] = lambda actor: frozenset()
        """The chats of an account in which an answer is being written at this moment; the engine knows."""

    def chats(self, actor: Account) -> list[Chat]:
        """Own chats that still hold something readable, newest activity first."""
        _need_freelancer(actor)
        answered = self.answered(actor)
        return [replace(chat, running=chat.id in answered) for chat in self._store.read(lambda rows: rows.chats(actor.id, self._since()))]

    def listing(self, actor: Account, view: View) -> Listing:
        """One page of own chats as a table, sorted, bounded and cut in the store."""
        _need_freelancer(actor)
        since, answered = self._since(), self.answered(actor)

        def page(number: int) -> tuple[list[Listed], int]:
            offset = (number - 1) * LISTED
            return self._store.read(lambda rows: rows.listed(actor.id, since, view.column, view.descending, view.begin, view.end, LISTED, offset))

        number = max(1, min(view.page, MOST_PAGES))
        rows, count = page(number)
        if not rows and number > 1:
            _, count = page(1)
            number = max(1, -(-count // LISTED))
            rows, count = page(number)
        return Listing([replace(row, running=row.id in answered) for row in rows], number, max(1, -(-count // LISTED)), count)

    def open(self, actor: Account, chat_id: str, through: str | None = None) -> Opened:
        """One own chat, along the version in which something was written last, or the one that `through` is in. Raises NotFound."""
        _need_freelancer(actor)
        since = self._since()

        def work(rows: Unit) -> tuple[list[Message], str | None, list[str]]:
            messages = rows.outline(actor.id, chat_id, since)
            return messages, rows.title(actor.id, chat_id, since) if messages else None, rows.unread(actor.id, chat_id) if messages else []

        messages, title, unread = self._store.read(work)
        if not messages:
            raise NotFound
        path = conversation(messages, through)
        sent = [m.sent_at for m in messages]
        days = self._settings.retention_days
        return Opened(
            id=chat_id,
            title=title or "Chat",
            messages=path,
            versions=versions(messages, path),
            newest=messages[-1].sequence,
            unread=frozenset(unread),
            running=next((m for m in messages if m.answer and m.answer.state is AnswerState.RUNNING), None),
            first_deleted_on=deleted_on(min(sent), days),
            last_deleted_on=deleted_on(max(sent), days),
            remembers_more=chat_id in self._store.read(lambda rows: rows.person(actor.id)).remembering,
        )

    def search(self, actor: Account, words: str, before: Place | None = None, limit: int = FOUND) -> Found:
        """Own messages and answers that have all of these words, earlier versions too, and chats whose title has; newest first.

        Case, accents and typographic signs don't matter, quotes mean a phrase (chatpro/domain/search.py). Asked of the store each time, so that
        what was sent a second ago is found; it needs no plan and no consent. Raises NotSearchable with a sentence.
        """
        _need_freelancer(actor)
        try:
            query = parse(words)
        except QueryRefused as error:
            raise NotSearchable(str(error)) from error
        since = self._since()
        chats = {chat.id: chat for chat in self._store.read(lambda rows: rows.chats(actor.id, since))}
        until = time.monotonic() + SEARCH_SECONDS
        hits: list[Hit] = []
        last = before or LATEST
        for place, hit in self._looked_through(actor.id, since, query, chats, last):
            if hit is not None and len(hits) == limit:
                return Found(hits, last)
            if hit is not None:
                hits.append(hit)
                last = place
            elif time.monotonic() > until:
                return Found(hits, place, ended_early=True)
        return Found(hits, None)

    def _looked_through(self, account_id: str, since: datetime, query: Query, chats: dict[str, Chat], place: Place) -> Iterator[tuple[Place, Hit | None]]:
        """Every place behind this one, newest first, with its hit where there is one: messages, and chats at the time of their last message."""
        titled = sorted((_above(chat), chat.id) for chat in chats.values() if _above(chat) < place and query.meets(chat.title))
        while rows := self._store.read(partial(Unit.written, account_id=account_id, since=since, before=(place.at, place.sequence), limit=SEARCHED)):
            for row in rows:
                place = Place(row.sent_at, row.sequence)
                while titled and titled[-1][0] > place:
                    yield _titled(titled.pop(), chats, query)
                chat = chats.get(row.chat_id)
                met_here = chat is not None and query.meets(row.text)
                yield place, Hit(chat.id, chat.title, row.message_id, row.own, row.sent_at, snippet(row.text, query)) if chat and met_here else None
            if len(rows) < SEARCHED:
                break
        while titled:
            yield _titled(titled.pop(), chats, query)

    def seen(self, actor: Account, chat_id: str) -> None:
        """The chat was opened: nothing in it is new any more."""
        _need_freelancer(actor)
        self._store.write(lambda unit: unit.mark_read(actor.id, chat_id))

    def draft(self, actor: Account, chat_id: str) -> str | None:
        """Text that was refused or failed in this chat and is kept for its author."""
        _need_freelancer(actor)
        found = self._store.read(lambda rows: rows.draft(actor.id, chat_id, self._since()))
        return found[1] if found else None

    def rename(self, actor: Account, chat_id: str, title: str) -> None:
        """Give an own chat another title. Raises NotFound, and NotSendable for a title in which nothing can be seen."""
        _need_freelancer(actor)
        cleaned = clean_title(title)
        if not cleaned:
            raise NotSendable("A title needs at least one visible character.")

        def work(unit: Unit) -> None:
            if not unit.holds_readable(actor.id, chat_id, self._since()):
                raise NotFound
            unit.add_title(actor.id, chat_id, cleaned, self._now())

        self._store.write(work)

    def delete(self, actor: Account, chat_id: str) -> datetime:
        """Take an own chat out of every list and reading at once. Returns until when that can be taken back; then its text goes with the next
        rewrite. Raises NotFound. Usage and receipts stay as they are."""
        _need_freelancer(actor)
        now = self._now()

        def work(unit: Unit) -> None:
            if not unit.holds_readable(actor.id, chat_id, self._since()) or not unit.delete_chat(actor.id, chat_id, now):
                raise NotFound
            unit.append_audit(actor.id, "chat.deleted", now, subject=chat_id)

        self._store.write(work)
        for call in self.on_deleted:
            call(actor.id, chat_id)
        return now + UNDO

    def delete_all(self, actor: Account) -> list[str]:
        """All own chats, as `delete` does with one. Returns their ids, with which each can be taken back."""
        _need_freelancer(actor)
        now = self._now()

        def work(unit: Unit) -> list[str]:
            gone = unit.delete_chats(actor.id, now)
            for chat_id in gone:
                unit.append_audit(actor.id, "chat.deleted", now, subject=chat_id)
            return gone

        gone = self._store.write(work)
        for call in self.on_deleted:
            for chat_id in gone:
                call(actor.id, chat_id)
        return gone

    def restore(self, actor: Account, chat_id: str) -> None:
        """Take back the deletion of an own chat. Raises NotFound when there is nothing to take back, TooLate after its ten minutes."""
        _need_freelancer(actor)

        def work(unit: Unit) -> None:
            now = self._now()  # in its turn: a purge that began after the ten minutes must not find half of the chat back
            deleted_at = unit.deleted_at(actor.id, chat_id)
            if deleted_at is None:
                raise NotFound
            if deleted_at + UNDO <= now:
                raise TooLate("A deletion can be taken back for ten minutes, and these are over. The text is being taken out of all files.")
            unit.restore_chat(actor.id, chat_id)
            unit.append_audit(actor.id, "chat.restored", now, subject=chat_id)

        self._store.write(work)

    def _since(self) -> datetime:
        return readable_since(self._now(), self._settings.retention_days)


def _above(chat: Chat) -> Place:
    """Where a chat's title stands: above all messages of the moment of its last one."""
    return Place(chat.last_at, ABOVE + zlib.crc32(chat.id.encode()))


def _titled(found: tuple[Place, str], chats: dict[str, Chat], query: Query) -> tuple[Place, Hit]:
    place, chat = found[0], chats[found[1]]
    return place, Hit(chat.id, chat.title, None, True, chat.last_at, snippet(chat.title, query))


def _need_freelancer(actor: Account) -> None:
    if not actor.has(Role.FREELANCER):
        raise NotAllowed
