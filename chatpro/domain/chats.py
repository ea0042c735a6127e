"""Chats and what is in them: which versions make the conversation, what may be sent, how long it is kept.

Nothing here is ever updated in place: an edited message, another try of an answer, a new title are new entries, and
these functions say which of them a person sees.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeVar

TITLE_CHARS = 60

UNDO = timedelta(minutes=10)
"""How long a deletion can be taken back. From then on the chat goes with the next rewrite."""

GONE_WITHIN = timedelta(hours=24)
"""The promise: that long after it could be read last, no file of the store holds it any more. The purge runs twice in it."""


class Linked(Protocol):
    """What follows what: all that the versions of a chat are told by."""

    @property
    def id(self) -> str: ...

    @property
    def parent_id(self) -> str | None: ...

    @property
    def sequence(self) -> int: ...


class Link(NamedTuple):
    """One entry of a chat without anything in it: a chat of any length can be held so."""

    id: str
    parent_id: str | None
    sequence: int


E = TypeVar("E", bound=Linked)


class AnswerState(StrEnum):
    """How an answer stands. `length`: ended at the answer limit; `cut`: the model's connection broke after some text;
    `interrupted`: this service ended in the middle; `failed`: no text came."""

    RUNNING = "running"
    FINISHED = "finished"
    LENGTH = "length"
    STOPPED = "stopped"
    CUT = "cut"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class Receipt:
    """What one answer cost, in tokens, shown with it."""

    tokens_in: int
    tokens_out: int
    tokens_resent: int
    counted: str
    over_reserved: int

    @property
    def total(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True)
class AnswerFacts:
    """What is known of an answer beside its text. `thumb`: its reader's own `up` or `down`, or nothing."""

    state: AnswerState
    problem: str | None
    model: str
    prompt_version: str
    request_id: str
    left_out: int
    shortened: bool
    started_at: datetime
    ended_at: datetime | None
    receipt: Receipt | None
    thumb: str = ""


@dataclass(frozen=True)
class Message:
    """One entry of a chat. `answer` is None for the freelancer's own words."""

    id: str
    chat_id: str
    parent_id: str | None
    sequence: int
    text: str
    sent_at: datetime
    answer: AnswerFacts | None = None

    @property
    def own(self) -> bool:
        """Written by the freelancer."""
        return self.answer is None


@dataclass(frozen=True)
class Chat:
    """One conversation in the side panel. `last_at` is when the newest message was sent, `messages` how many there are (answers too);
    `unread`: an answer ended there while nobody watched, and the chat was not opened since."""

    id: str
    title: str
    created_at: datetime
    last_at: datetime
    messages: int
    running: bool
    unread: bool = False


class Column(StrEnum):
    """What the table of own chats may be sorted by. `goes`: when the first words of a chat are deleted."""

    TITLE = "title"
    MESSAGES = "messages"
    TOKENS = "tokens"
    LAST = "last"
    GOES = "goes"


@dataclass(frozen=True)
class Listed:
    """One row of the table of own chats. `tokens`: what the answers cost that are still in it; `first_at` and `last_at`: when the oldest and the
    newest of its messages were sent."""

    id: str
    title: str
    messages: int
    tokens: int
    first_at: datetime
    last_at: datetime
    running: bool = False


def conversation(messages: Sequence[E], through: str | None = None) -> list[E]:
    """The path a person sees: where there are several versions, the one in which something was written last.

    `through` is an entry that the path must lead through, if it is there: what somebody leafed to. A message whose parent is
    gone (purged) begins the path: what is left of an old chat stays readable.
    """
    children = _children(messages)
    newest: dict[str, int] = {}
    for message in sorted(messages, key=lambda m: m.sequence, reverse=True):  # what follows a message always has a higher number
        newest[message.id] = max([message.sequence, *(newest[child.id] for child in children.get(message.id, ()))])
    path = path_to(messages, through)
    while below := children.get(path[-1].id if path else None):
        path.append(max(below, key=lambda m: newest[m.id]))
    return path


def path_to(messages: Sequence[E], message_id: str | None) -> list[E]:
    """The entries from the beginning to this one, along its parents. Empty for one that is not there."""
    by_id = {m.id: m for m in messages}
    path: list[E] = []
    while message_id in by_id:
        path.append(by_id[message_id])
        message_id = path[-1].parent_id
    return path[::-1]


def versions(messages: Sequence[Message], path: Sequence[Message]) -> dict[str, list[str]]:
    """For each entry of the path that has other versions beside it: the ids of all of them, oldest first.

    A try that came to nothing is no version unless it is on the path or something follows it: it can be tried again, not leafed to.
    """
    on_path = {m.id for m in path}
    found: dict[str, list[str]] = {}
    children = _children(messages)
    for group in children.values():
        worth = [m for m in group if m.text or m.id in on_path or m.id in children or (m.answer and m.answer.state is AnswerState.RUNNING)]
        if len(worth) > 1:
            found.update({m.id: [other.id for other in worth] for m in worth if m.id in on_path})
    return found


def _children(messages: Sequence[E]) -> dict[str | None, list[E]]:
    """Entries by what they follow, in order; what follows nothing that is still there stands under None."""
    known = {m.id for m in messages}
    children: dict[str | None, list[E]] = {}
    for message in sorted(messages, key=lambda m: m.sequence):
        children.setdefault(message.parent_id if message.parent_id in known else None, []).append(message)
    return children


def request_id(account_id: str, chat_id: str, follows: str | None, text: str, number: int = 0) -> str:
    """The same for the same send, from any tab and after any reconnect: account, chat, the message it follows, the text, the number of the regeneration."""
    digest = hashlib.sha256()
    for part in (account_id, chat_id, follows or "", text, str(number)):
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:40]


def clean_text(text: str) -> str:
    """What can be stored and shown: lone surrogates become the replacement sign, NUL goes, line ends become one kind."""
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text.replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")


_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad\x00-\x08\x0b-\x1f\x7f]")


def is_blank(text: str) -> bool:
    """Nothing but spaces and characters that can't be seen."""
    return not _INVISIBLE.sub("", text).strip()


def clean_title(text: str) -> str:
    """One visible line: direction overrides and zero-width characters out, white space folded, at most TITLE_CHARS characters."""
    line = " ".join(_INVISIBLE.sub("", clean_text(text)).split())
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1].rstrip() + "…"


def title_from(first_message: str) -> str:
    """A chat's first title: the beginning of its first message."""
    return clean_title(first_message[:400]) or "New chat"


def readable_since(now: datetime, retention_days: int) -> datetime:
    """A message is readable while it was sent after this instant (D11), whether or not the purge has run."""
    return now - timedelta(days=retention_days)


def deleted_on(sent_at: datetime, retention_days: int) -> datetime:
    """The instant from which a message can't be read any more."""
    return sent_at + timedelta(days=retention_days)


def quoted(entries: Sequence[Message]) -> str:
    """Earlier entries as the beginning of another message, marked as what they are, with room to write on below. Empty for none."""
    pieces = []
    for entry in entries:
        lines = "\n".join(f"> {line}".rstrip() for line in entry.text.strip().splitlines())
        pieces.append(f"{'I wrote' if entry.own else 'You answered'}:\n{lines}")
    return "From an earlier chat.\n\n" + "\n\n".join(pieces) + "\n\n" if pieces else ""
