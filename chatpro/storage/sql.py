"""All SQL of the store, in the dialect that DuckDB and PostgreSQL share, behind verbs that speak the domain's words.

One `Unit` is what a service gets inside a unit of work or a read. It runs statements through the engine it was made by;
parameters are always bound, ids and instants always come from Python. Reads of text ask whose it is and since when it may
be read (90 days), so that a caller can't forget either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from chatpro.domain.accounts import Account, ClosedSignIn, Consent, Entitlement, Role
from chatpro.domain.allowance import Accepted, Anchor, Charge, Cycle, OwnLimit, Standing
from chatpro.domain.chats import AnswerFacts, AnswerState, Chat, Column, Link, Listed, Message, Receipt
from chatpro.domain.disputes import FIRST_HASH, AuditEntry, audit_hash
from chatpro.storage.memory import ENTRIES, UNKNOWN, Changes, Key, Memory, Step

T = TypeVar("T")

EPOCH = date(1970, 1, 1)


def day_number(at: datetime) -> int:
    """Days since 1970-01-01, UTC: kept on ledger rows, because computing it from an instant in SQL costs most of a query."""
    return (at.astimezone(UTC).date() - EPOCH).days


@dataclass(frozen=True)
class Call:
    """One answer's row with its reservation: what settling and recovery need."""

    account_id: str
    answer_id: str
    chat_id: str
    question_id: str
    request_id: str
    attempt: int
    state: AnswerState
    model: str
    prompt_version: str
    reservation_id: str
    reservation_state: str
    cycle_starts_at: datetime
    allowance: int
    tokens: int
    prompt_tokens: int
    resent_tokens: int
    answer_limit: int
    started_at: datetime
    expires_at: datetime
    sequence: int


@dataclass(frozen=True)
class UsageEntry:
    """One row of the ledger."""

    sequence: int
    account_id: str
    answer_id: str
    cycle_starts_at: datetime
    plan: str
    receipt: Receipt
    model: str
    prompt_version: str
    first_token_ms: int | None
    whole_ms: int
    outcome: str
    at: datetime


@dataclass(frozen=True)
class PurgeRun:
    """One finished purge: how many rows went, who asked for it (None: the clock), and how many messages it left sorted."""

    began_at: datetime
    ended_at: datetime
    asked_by: str | None
    messages: int
    titles: int
    drafts: int
    chats: int
    sorted: int


class Written(NamedTuple):
    """One entry's text with what is needed to find it again. A tuple: a search makes thousands of them."""

    chat_id: str
    message_id: str
    sequence: int
    own: bool
    text: str
    sent_at: datetime


@dataclass(frozen=True)
class GivenWarning:
    """One warning that was given. `dismissed_at` is when the person put it away, None while they have not."""

    account_id: str
    cycle_starts_at: datetime
    kind: str
    allowance: int
    at: datetime
    dismissed_at: datetime | None = None


@dataclass(frozen=True)
class Person:
    """An account with its entitlements, consents and own limits (oldest first), the day of its first use and the chats that remember more.
    `account` is None for an unknown id."""

    account: Account | None
    entitlements: tuple[Entitlement, ...]
    consents: tuple[Consent, ...]
    anchor: Anchor | None
    own_limits: tuple[OwnLimit, ...] = ()
    remembering: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Carried:
    """Tokens that an account began a cycle with, and the figure of the allowance under which a last message was charged before, if one was."""

    tokens: int
    closed_under: int | None


NOBODY = Person(None, (), (), None)
RECENT = 20
"""Latest charged answers by which it is estimated how many more messages fit."""

# Kinds of facts that are remembered of an account (chatpro/storage/memory.py); ENTRIES, UNREAD and DRAFT go by chat, CYCLE by its start.
PERSON, CHATS, TITLES, ACTIVITY, UNREAD, DRAFT = "person", "chats", "titles", "activity", "unread", "draft"
CYCLE, LATEST_CYCLE, WARNINGS, TOTALS, CARRIED = "cycle", "latest cycle", "warnings", "totals", "carried"


@dataclass(frozen=True)
class _Activity:
    """When something was last written in each chat and how many entries it has, of those sent after `since`; the first of them was sent at `first`."""

    since: datetime
    first: datetime
    chats: dict[str, tuple[datetime, int]]

    def holds(self, since: datetime) -> bool:
        """Whether nothing has grown too old, or young enough again, since it was read."""
        return self.since <= since < self.first


class Unit:
    """The verbs of one unit of work (or one read). Made by an engine, never kept longer than the call it was made for.

    What a verb asks for may come from memory; `as_of` says which version of it this unit's own statements see. A verb that writes says
    with `_write` what of the memory it changes.
    """

    def __init__(
        self,
        run: Callable[[str, Sequence[object]], list[tuple[Any, ...]]],
        next_sequence: Callable[[str], int],
        memory: Memory | None = None,
        as_of: Callable[[], int] = lambda: -1,
    ) -> None:
        self._run = run
        self._next = next_sequence
        self._memory = memory
        self._as_of = as_of
        self.changes = Changes()

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._all(sql, *values)
        return rows[0] if rows else None

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement. Of one that is no question nobody knows what it changes, unless it comes through `_write`."""
        if not sql.lstrip().startswith("SELECT"):
            self.changes.everything = True
        return self._run(sql, [_in(v) for v in values])

    def _write(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement whose verb says by `_changes` what it changes, or that changes nothing which is remembered."""
        return self._run(sql, [_in(v) for v in values])

    def _changes(self, account_id: str, *key: str, by: Step | None = None) -> None:
        """This fact about the account is another one with this unit's commit."""
        self.changes.add(account_id, key, by)

    def _recall(self, account_id: str, key: Key, read: Callable[[], T], holds: Callable[[T], bool] = lambda value: True) -> T:
        """A fact about the account, from memory or from this unit's own reading."""
        if self._memory is None or self.changes.has(account_id, key):
            return read()
        found: T = self._memory.recall(account_id, key)
        if found is not UNKNOWN and holds(found):
            return found
        value = read()
        self._memory.keep(account_id, key, value, self._as_of())
        return value

    # --- accounts ---------------------------------------------------------------------------------------------------

    _ACCOUNT = "id, issuer, subject, name, email, zone, sample, created_at"

    def add_account(self, account: Account) -> None:
        """A new account with its roles. DuplicateKey when (issuer, subject) is known already."""
        a = account
        self._changes(a.id, PERSON)
        self._write("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", a.id, a.issuer, a.subject, a.name, a.email, a.zone, a.sample, a.created_at)
        self.set_roles(a.id, a.roles)

    def set_roles(self, account_id: str, roles: Iterable[Role]) -> None:
        """Exactly these roles from now on; a row that is there already stays untouched."""
        self._changes(account_id, PERSON)
        wanted = {role.value for role in roles}
        present = {row[0] for row in self._all("SELECT role FROM roles WHERE account_id = ?", account_id)}
        for role in sorted(present - wanted):
            self._write("DELETE FROM roles WHERE account_id = ? AND role = ?", account_id, role)
        for role in sorted(wanted - present):
            self._write("INSERT INTO roles VALUES (?, ?)", account_id, role)

    def admins(self) -> list[str]:
        """Ids of the open accounts with the role admin."""
        rows = self._all("SELECT r.account_id FROM roles r WHERE r.role = 'admin' ORDER BY r.account_id")
        return [r[0] for r in rows if (a := self.account(r[0])) is not None and not a.closed]

    def person(self, account_id: str) -> Person:
        """An account with all that decides what it may do."""

        def read() -> Person:
            account = self.account(account_id)
            if account is None:
                return NOBODY
            return Person(
                account,
                tuple(self.entitlements(account_id)),
                tuple(self.consents(account_id)),
                self.anchor(account_id),
                tuple(self.own_limits(account_id)),
                self.remembering(account_id),
            )

        return self._recall(account_id, (PERSON,), read)

    def account(self, account_id: str) -> Account | None:
        row = self._one(f"SELECT {self._ACCOUNT} FROM accounts WHERE id = ?", account_id)
        return self._account(row) if row else None

    def account_by_subject(self, issuer: str, subject: str) -> Account | None:
        row = self._one(f"SELECT {self._ACCOUNT} FROM accounts WHERE issuer = ? AND subject = ?", issuer, subject)
        return self._account(row) if row else None

    def _account(self, row: tuple[Any, ...]) -> Account:
        roles = frozenset(Role(r[0]) for r in self._all("SELECT role FROM roles WHERE account_id = ?", row[0]))
        changes = self._all("SELECT kind, value FROM account_changes WHERE account_id = ? ORDER BY sequence", row[0])
        latest: dict[str, str] = dict(changes)
        return Account(
            id=row[0],
            issuer=row[1],
            subject=row[2],
            name=row[3],
            email=row[4],
            zone=latest.get("zone", row[5]),
            sample=row[6],
            created_at=_out(row[7]),
            roles=roles,
            epoch=sum(1 for kind, _ in changes if kind == "epoch"),
            closed=latest.get("closed") == "yes",
        )

    def change_account(self, account_id: str, kind: str, value: str, at: datetime) -> None:
        """Write a change: `zone` (a new display zone), `epoch` (all sessions are over), `closed` (yes)."""
        self._changes(account_id, PERSON)
        self._write("INSERT INTO account_changes VALUES (?, ?, ?, ?, ?)", account_id, self._next("account_changes"), kind, value, at)

    def close_account(self, account_id: str, at: datetime) -> None:
        """No name, no mail, no sign-in and no role is left of it. Its row stays, for what the ledger says of it."""
        self.set_roles(account_id, ())
        self.change_account(account_id, "closed", "yes", at)
        self._write("UPDATE accounts SET issuer = 'closed', subject = id, name = '', email = NULL WHERE id = ?", account_id)

    def add_closed_sign_in(self, digest: str, closed: ClosedSignIn, keep_until: datetime) -> None:
        self._write("INSERT INTO closed_sign_ins VALUES (?, ?, ?, ?, ?)", digest, closed.account_id, closed.closed_at, closed.cycle_ends_at, keep_until)

    def closed_sign_in(self, digest: str, now: datetime) -> ClosedSignIn | None:
        """The account that was closed last under this sign-in, as long as that is kept."""
        sql = "SELECT account_id, closed_at, cycle_ends_at FROM closed_sign_ins WHERE digest = ? AND keep_until > ? ORDER BY closed_at DESC LIMIT 1"
        row = self._one(sql, digest, now)
        return ClosedSignIn(row[0], _out(row[1]), _maybe(row[2])) if row else None

    def claims_taken_at(self, account_id: str) -> int | None:
        """When the provider's claims that were last taken over were issued, in seconds; None before the first time."""
        row = self._one("SELECT value FROM account_changes WHERE account_id = ? AND kind = 'claims' ORDER BY sequence DESC LIMIT 1", account_id)
        return int(row[0]) if row else None

    def sample_accounts(self) -> list[Account]:
        """The made-up people of demo mode with names, in order of their making: without the numbered ones of load tests and figures."""
        sql = f"SELECT {self._ACCOUNT} FROM accounts WHERE sample AND issuer <> 'closed' AND subject NOT LIKE '%-%' ORDER BY created_at, subject"
        return [self._account(row) for row in self._all(sql)]

    def add_entitlement(self, account_id: str, plan: str, allowance: int, starts_at: datetime, ends_at: datetime | None, now: datetime) -> None:
        self._changes(account_id, PERSON)
        self._write("INSERT INTO entitlements VALUES (?, ?, ?, ?, ?, ?, ?)", account_id, self._next("entitlements"), plan, allowance, starts_at, ends_at, now)

    def entitlements(self, account_id: str) -> list[Entitlement]:
        sql = "SELECT account_id, sequence, plan, allowance, starts_at, ends_at, recorded_at FROM entitlements WHERE account_id = ? ORDER BY sequence"
        return [Entitlement(r[0], r[1], r[2], r[3], _out(r[4]), _maybe(r[5]), _out(r[6])) for r in self._all(sql, account_id)]

    def add_consent(self, account_id: str, version: int, given: bool, at: datetime, facts: str = "") -> None:
        self._changes(account_id, PERSON)
        self._write("INSERT INTO consents VALUES (?, ?, ?, ?, ?, ?)", account_id, self._next("consents"), version, given, facts, at)

    def consents(self, account_id: str) -> list[Consent]:
        sql = "SELECT account_id, sequence, version, given, said_at, facts FROM consents WHERE account_id = ? ORDER BY sequence"
        return [Consent(r[0], r[1], r[2], r[3], _out(r[4]), r[5]) for r in self._all(sql, account_id)]

    def add_own_limit(self, account_id: str, limit: OwnLimit) -> None:
        self._changes(account_id, PERSON)
        sequence = self._next("own_limits")
        self._write("INSERT INTO own_limits VALUES (?, ?, ?, ?, ?)", account_id, sequence, limit.cycle_starts_at, limit.tokens, limit.at)

    def own_limits(self, account_id: str) -> list[OwnLimit]:
        """Every limit the account set for itself or lifted, oldest first."""
        sql = "SELECT cycle_starts_at, tokens, set_at FROM own_limits WHERE account_id = ? ORDER BY sequence"
        return [OwnLimit(_maybe(r[0]), r[1], _out(r[2])) for r in self._all(sql, account_id)]

    def set_remembering(self, account_id: str, chat_id: str, more: bool, at: datetime) -> None:
        """Whether this chat takes more of its earlier conversation along from now on."""
        self._changes(account_id, PERSON)
        self._write("INSERT INTO remembering VALUES (?, ?, ?, ?, ?)", account_id, self._next("remembering"), chat_id, more, at)

    def remembering(self, account_id: str) -> frozenset[str]:
        """The account's chats that remember more."""
        latest: dict[str, bool] = dict(self._all("SELECT chat_id, more FROM remembering WHERE account_id = ? ORDER BY sequence", account_id))
        return frozenset(chat_id for chat_id, more in latest.items() if more)

    # --- chats ------------------------------------------------------------------------------------------------------

    def add_chat(self, account_id: str, chat_id: str, at: datetime) -> None:
        self._changes(account_id, CHATS, by=lambda chats: {**chats, chat_id: (at, False)})
        self._write("INSERT INTO chats VALUES (?, ?, ?, NULL)", account_id, chat_id, at)

    def _chats(self, account_id: str) -> dict[str, tuple[datetime, bool]]:
        """When each chat of the account was begun, and whether it was deleted."""
        sql = "SELECT id, created_at, deleted_at IS NOT NULL FROM chats WHERE account_id = ?"
        return self._recall(account_id, (CHATS,), lambda: {r[0]: (_out(r[1]), r[2]) for r in self._all(sql, account_id)})

    def owns_chat(self, account_id: str, chat_id: str) -> bool:
        """Whether there is such a chat, of this account, not deleted."""
        _, deleted = self._chats(account_id).get(chat_id, (None, True))
        return not deleted

    def may_begin_chat(self, account_id: str, chat_id: str) -> bool:
        """Whether no chat has this id, of whomever, also none that was deleted."""
        return chat_id not in self._chats(account_id) and self._one("SELECT 1 FROM chats WHERE id = ?", chat_id) is None

    def delete_chat(self, account_id: str, chat_id: str, at: datetime) -> bool:
        return self._turn_chat(account_id, chat_id, at, "deleted_at IS NULL")

    def delete_chats(self, account_id: str, at: datetime) -> list[str]:
        """All of the account's chats. Returns the ids of those that were not deleted before."""
        self._changes(account_id, CHATS)
        return [r[0] for r in self._write("UPDATE chats SET deleted_at = ? WHERE account_id = ? AND deleted_at IS NULL RETURNING id", at, account_id)]

    def deleted_at(self, account_id: str, chat_id: str) -> datetime | None:
        """When this chat of the account was deleted, None when it was not, is gone for good, or is none of the account's."""
        row = self._one("SELECT deleted_at FROM chats WHERE id = ? AND account_id = ?", chat_id, account_id)
        return _maybe(row[0]) if row else None

    def restore_chat(self, account_id: str, chat_id: str) -> bool:
        return self._turn_chat(account_id, chat_id, None, "deleted_at IS NOT NULL")

    def _turn_chat(self, account_id: str, chat_id: str, deleted_at: datetime | None, where: str) -> bool:
        self._changes(account_id, CHATS)
        sql = f"UPDATE chats SET deleted_at = ? WHERE id = ? AND account_id = ? AND {where} RETURNING id"
        return bool(self._write(sql, deleted_at, chat_id, account_id))

    def add_title(self, account_id: str, chat_id: str, text: str, at: datetime, message_id: str | None = None) -> None:
        self._changes(account_id, TITLES, by=lambda titles: (*titles, (chat_id, message_id is not None, text, at)))
        self._write("INSERT INTO titles VALUES (?, ?, ?, ?, ?, ?)", account_id, chat_id, self._next("titles"), message_id, text, at)

    def _titles(self, account_id: str, since: datetime) -> dict[str, str]:
        """The newest title of each chat; one that came from a message goes with it."""
        sql = "SELECT chat_id, message_id IS NOT NULL, text, given_at FROM titles WHERE account_id = ? ORDER BY sequence"
        titles = self._recall(account_id, (TITLES,), lambda: tuple((r[0], r[1], r[2], _out(r[3])) for r in self._all(sql, account_id)))
        return {chat_id: text for chat_id, from_message, text, at in titles if not from_message or at > since}

    def title(self, account_id: str, chat_id: str, since: datetime) -> str | None:
        """What a chat is called."""
        return self._titles(account_id, since).get(chat_id)

    def chats(self, account_id: str, since: datetime) -> list[Chat]:
        """The account's chats that hold something sent after `since`, newest activity first. Whether one is being answered is not asked here."""

        def read() -> _Activity:
            sql = "SELECT chat_id, max(sent_at), count(*), min(sent_at) FROM messages WHERE account_id = ? AND sent_at > ? GROUP BY chat_id"
            rows = self._all(sql, account_id, since)
            first = min((_out(r[3]) for r in rows), default=datetime.max.replace(tzinfo=UTC))
            return _Activity(since, first, {r[0]: (_out(r[1]), r[2]) for r in rows})

        activity = self._recall(account_id, (ACTIVITY,), read, lambda found: found.holds(since))
        begun, titles, unread = self._chats(account_id), self._titles(account_id, since), {chat for chat, _ in self._unread(account_id)}
        found = [
            Chat(chat_id, titles.get(chat_id, "Chat"), begun[chat_id][0], last_at, count, False, chat_id in unread)
            for chat_id, (last_at, count) in activity.chats.items()
            if chat_id in begun and not begun[chat_id][1]
        ]
        return sorted(sorted(found, key=lambda chat: chat.id), key=lambda chat: chat.last_at, reverse=True)

    def _sent(self, account_id: str, chat_id: str, at: datetime) -> None:
        """One more entry with text."""

        def step(known: _Activity) -> _Activity:
            if at <= known.since:
                return known
            last_at, count = known.chats.get(chat_id, (at, 0))
            return _Activity(known.since, min(known.first, at), {**known.chats, chat_id: (max(last_at, at), count + 1)})

        self._changes(account_id, ACTIVITY, by=step)

    def add_message(self, account_id: str, message_id: str, chat_id: str, parent_id: str | None, author: str, text: str, at: datetime) -> None:
        sequence = self._next("messages")
        own = author == "freelancer"
        added = Message(message_id, chat_id, parent_id, sequence, text, at)
        self._changes(account_id, ENTRIES, chat_id, by=(lambda entries: (*entries, added)) if own else None)
        self._sent(account_id, chat_id, at)
        self._write("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", account_id, message_id, chat_id, parent_id, sequence, author, text, at)

    def messages(self, account_id: str, chat_id: str, since: datetime) -> list[Message]:
        """Everything readable of one chat, all versions: own messages and answers with their facts (a running one with what was saved).

        Empty when the chat isn't this account's, was deleted, or nothing in it is young enough.
        """
        if not self.owns_chat(account_id, chat_id):
            return []
        readable = [entry for entry in self._entries(account_id, chat_id) if entry.sent_at > since]
        return [replace(entry, text=self.parts(entry.id)) if _running(entry) else entry for entry in readable]

    def outline(self, account_id: str, chat_id: str, since: datetime) -> list[Message]:
        """The same without what was saved of a running answer: for whoever watches it grow elsewhere."""
        return [entry for entry in self._entries(account_id, chat_id) if entry.sent_at > since] if self.owns_chat(account_id, chat_id) else []

    def _entries(self, account_id: str, chat_id: str) -> tuple[Message, ...]:
        """All that is stored of one chat, of any age, in the order of writing; running answers without text."""
        return self._recall(account_id, (ENTRIES, chat_id), lambda: self._read_entries(account_id, chat_id))

    def written(self, account_id: str, since: datetime, before: tuple[datetime, int], limit: int) -> list[Written]:
        """What the account wrote and was answered, newest first, of all its chats, also deleted ones: the caller leaves those out. `before`: (sent
        at, number among the entries) of one that comes before them. Not remembered: it is everything."""
        sql = """
            SELECT chat_id, id, sequence, author = 'freelancer', text, sent_at FROM messages
            WHERE account_id = ? AND sent_at > ? AND sent_at <= ? AND (sent_at < ? OR sequence < ?) ORDER BY sent_at DESC, sequence DESC LIMIT ?
        """
        return [Written(r[0], r[1], r[2], r[3], r[4], _out(r[5])) for r in self._all(sql, account_id, since, before[0], before[0], before[1], limit)]

    def _read_entries(self, account_id: str, chat_id: str) -> tuple[Message, ...]:
        texts = self._all("SELECT id, parent_id, sequence, author, text, sent_at FROM messages WHERE account_id = ? AND chat_id = ?", account_id, chat_id)
        written = {r[0]: r[4] for r in texts if r[3] == "answer"}
        own = [Message(r[0], chat_id, r[1], r[2], r[4], _out(r[5])) for r in texts if r[3] == "freelancer"]
        answers = self._all(
            """
            SELECT a.id, a.question_id, a.sequence, a.state, a.problem, a.model, a.prompt_version, a.request_id,
                   a.left_out, a.shortened, a.started_at, a.ended_at,
                   u.tokens_in, u.tokens_out, u.tokens_resent, u.counted, u.over_reserved
            FROM answers a LEFT JOIN (SELECT * FROM usage_entries WHERE account_id = ?) u ON u.answer_id = a.id
            WHERE a.account_id = ? AND a.chat_id = ?
            """,
            account_id, account_id, chat_id,
        )  # fmt: skip
        thumbs = dict(self._all("SELECT answer_id, thumb FROM thumbs WHERE chat_id = ? AND account_id = ? ORDER BY sequence", chat_id, account_id))
        entries = own + [_answer(chat_id, row, written.get(row[0], ""), thumbs.get(row[0], "none")) for row in answers]
        return tuple(sorted(entries, key=lambda m: m.sequence))

    def _answer_changes(self, account_id: str, chat_id: str, answer_id: str, by: Callable[[Message], Message]) -> None:
        """One answer of a chat is another one from now on."""
        step = partial(_changed_entry, answer_id, by)
        self._changes(account_id, ENTRIES, chat_id, by=step)

    def keep_draft(self, account_id: str, chat_id: str, draft_id: str, text: str, at: datetime) -> None:
        """Keep text for its author; an empty text says that the draft was used."""
        self._changes(account_id, DRAFT, chat_id)
        self._write("INSERT INTO drafts VALUES (?, ?, ?, ?, ?, ?)", account_id, chat_id, self._next("drafts"), draft_id, text, at)

    def draft(self, account_id: str, chat_id: str, since: datetime) -> tuple[str, str] | None:
        """(draft id, text) of the newest draft of this chat, None when there is none."""
        sql = "SELECT id, text, kept_at FROM drafts WHERE account_id = ? AND chat_id = ? ORDER BY sequence DESC LIMIT 1"
        row = self._recall(account_id, (DRAFT, chat_id), lambda: self._one(sql, account_id, chat_id))
        return (row[0], row[1]) if row and row[1] and _out(row[2]) > since else None

    # --- reading in pages: past the memory, which is not to hold somebody's whole history for one export --------------

    _ORDER = {Column.TITLE: "lower(title)", Column.MESSAGES: "messages", Column.TOKENS: "tokens", Column.LAST: "last_at", Column.GOES: "first_at"}

    def listed(
        self, account_id: str, since: datetime, column: Column, descending: bool, begin: datetime | None, end: datetime | None, limit: int, offset: int
    ) -> tuple[list[Listed], int]:
        """One page of the account's chats that hold something sent after `since`, sorted, and how many there are in all. `begin` and `end` are bounds
        of the newest message's time, the first included, the second not. Beyond the last row there is nothing, and 0 in all."""
        way = "DESC" if descending else "ASC"
        sql = f"""
            SELECT id, title, messages, tokens, first_at, last_at, count(*) OVER () FROM (
                SELECT c.id, coalesce(t.text, 'Chat') AS title, m.messages, m.tokens, m.first_at, m.last_at
                FROM (SELECT id FROM chats WHERE account_id = ? AND deleted_at IS NULL) c
                JOIN (
                    SELECT s.chat_id, count(*) AS messages, coalesce(sum(u.tokens), 0) AS tokens, min(s.sent_at) AS first_at, max(s.sent_at) AS last_at
                    FROM (SELECT id, chat_id, sent_at FROM messages WHERE account_id = ? AND sent_at > ?) s
                    LEFT JOIN (SELECT answer_id, tokens_in + tokens_out AS tokens FROM usage_entries WHERE account_id = ?) u ON u.answer_id = s.id
                    GROUP BY s.chat_id
                ) m ON m.chat_id = c.id
                LEFT JOIN (
                    SELECT chat_id, text, row_number() OVER (PARTITION BY chat_id ORDER BY sequence DESC) AS place
                    FROM titles WHERE account_id = ? AND (message_id IS NULL OR given_at > ?)
                ) t ON t.chat_id = c.id AND t.place = 1
                WHERE m.last_at >= ? AND m.last_at < ?
            ) e ORDER BY {self._ORDER[column]} {way}, last_at DESC, id LIMIT ? OFFSET ?
        """
        bounds = (begin or since, end or datetime.max.replace(tzinfo=UTC))
        rows = self._all(sql, account_id, account_id, since, account_id, account_id, since, *bounds, limit, offset)
        return [Listed(r[0], r[1], r[2], int(r[3]), _out(r[4]), _out(r[5])) for r in rows], rows[0][6] if rows else 0

    def links(self, account_id: str, chat_id: str, since: datetime) -> list[Link]:
        """Every readable entry of a chat without what is in it, in the order of writing. Empty where `messages` would be."""
        sql = """
            SELECT id, parent_id, sequence FROM (
                SELECT id, parent_id, sequence FROM messages WHERE account_id = ? AND chat_id = ? AND author = 'freelancer' AND sent_at > ?
                UNION ALL SELECT id, question_id, sequence FROM answers WHERE account_id = ? AND chat_id = ? AND started_at > ?
            ) e ORDER BY sequence
        """
        if not self.owns_chat(account_id, chat_id):
            return []
        return [Link(*row) for row in self._all(sql, account_id, chat_id, since, account_id, chat_id, since)]

    def entries_after(self, account_id: str, chat_id: str, since: datetime, sequence: int, limit: int) -> list[Message]:
        """The next entries of a chat after a number, all versions, at most `limit` of them; a running answer with what was saved of it."""
        if not self.owns_chat(account_id, chat_id):
            return []
        rows = self._all(
            "SELECT id, parent_id, sequence, text, sent_at FROM messages "
            "WHERE account_id = ? AND chat_id = ? AND author = 'freelancer' AND sent_at > ? AND sequence > ? ORDER BY sequence LIMIT ?",
            account_id, chat_id, since, sequence, limit,
        )  # fmt: skip
        own = [Message(r[0], chat_id, r[1], r[2], r[3], _out(r[4])) for r in rows]
        answers = self._all(
            """
            SELECT a.id, a.question_id, a.sequence, a.state, a.problem, a.model, a.prompt_version, a.request_id,
                   a.left_out, a.shortened, a.started_at, a.ended_at,
                   u.tokens_in, u.tokens_out, u.tokens_resent, u.counted, u.over_reserved, m.text
            FROM (SELECT * FROM answers WHERE account_id = ? AND chat_id = ? AND started_at > ? AND sequence > ? ORDER BY sequence LIMIT ?) a
            LEFT JOIN (SELECT * FROM usage_entries WHERE account_id = ?) u ON u.answer_id = a.id
            LEFT JOIN (SELECT id, text FROM messages WHERE account_id = ? AND chat_id = ? AND author = 'answer' AND sequence > ?) m ON m.id = a.id
            """,
            account_id, chat_id, since, sequence, limit, account_id, account_id, chat_id, sequence,
        )  # fmt: skip
        thumbs = dict(self._all("SELECT answer_id, thumb FROM thumbs WHERE chat_id = ? AND account_id = ? ORDER BY sequence", chat_id, account_id))
        entries = own + [_answer(chat_id, row[:17], row[17] or "", thumbs.get(row[0], "none")) for row in answers]
        page = sorted(entries, key=lambda entry: entry.sequence)[:limit]
        return [replace(entry, text=self.parts(entry.id)) if _running(entry) else entry for entry in page]

    def usage_entries_before(self, account_id: str, sequence: int, limit: int) -> list[UsageEntry]:
        """An account's ledger rows before a number, newest first."""
        sql = f"{self._USAGE} WHERE account_id = ? AND sequence < ? ORDER BY sequence DESC LIMIT ?"
        return [_entry(r) for r in self._all(sql, account_id, sequence, limit)]

    def drafts(self, account_id: str, since: datetime) -> list[tuple[str, str, datetime]]:
        """(chat id, text, when it was kept) of every draft that is still there, oldest first; none of a deleted chat."""
        sql = "SELECT chat_id, text, kept_at FROM drafts WHERE account_id = ? ORDER BY sequence"
        newest = {chat_id: (chat_id, text, _out(at)) for chat_id, text, at in self._all(sql, account_id)}
        deleted = {chat_id for chat_id, (_, gone) in self._chats(account_id).items() if gone}
        return [draft for draft in newest.values() if draft[1] and draft[2] > since and draft[0] not in deleted]

    # --- answers ----------------------------------------------------------------------------------------------------

    def add_answer(
        self, account_id: str, answer_id: str, chat_id: str, question_id: str, request_id: str, attempt: int,
        reservation_id: str, model: str, prompt_version: str, accepted: Accepted, at: datetime,
    ) -> int:  # fmt: skip
        """The answer begins. Returns its number among the chat's entries."""
        sequence = self._next("messages")
        facts = AnswerFacts(AnswerState.RUNNING, None, model, prompt_version, request_id, accepted.left_out, accepted.shortened, at, None, None)
        added = Message(answer_id, chat_id, question_id, sequence, "", at, facts)
        self._changes(account_id, ENTRIES, chat_id, by=lambda entries: (*entries, added))
        self._write(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', NULL, ?, ?, ?, ?, ?, NULL)",
            account_id, answer_id, chat_id, question_id, request_id, attempt, reservation_id, sequence,
            model, prompt_version, accepted.left_out, accepted.shortened, at,
        )  # fmt: skip
        return sequence

    _CALL = """
        SELECT a.account_id, a.id, a.chat_id, a.question_id, a.request_id, a.attempt, a.state, a.model, a.prompt_version,
               r.id, r.state, r.cycle_starts_at, r.allowance, r.tokens, r.prompt_tokens, r.resent_tokens, r.answer_limit, a.started_at, r.expires_at,
               a.sequence
        FROM answers a JOIN reservations r ON r.id = a.reservation_id
    """

    def call(self, answer_id: str) -> Call | None:
        row = self._one(self._CALL + "WHERE a.id = ?", answer_id)
        return _call(row) if row else None

    def calls_of_request(self, account_id: str, chat_id: str, request_id: str) -> list[Call]:
        """Every attempt at one request, oldest first. Found by the chat, for which there is an index: asked for both, the engine looks through
        all answers there are (9 ms with two million)."""
        if not any(entry.answer is not None and entry.answer.request_id == request_id for entry in self._entries(account_id, chat_id)):
            return []
        calls = [_call(r) for r in self._all(self._CALL + "WHERE a.chat_id = ? ORDER BY a.attempt", chat_id)]
        return [call for call in calls if call.request_id == request_id]

    def calls_for_question(self, chat_id: str, question_id: str) -> int:
        """How many answers were begun for one message, over all requests: the number of the next regeneration."""
        row = self._one("SELECT count(DISTINCT request_id) FROM answers WHERE chat_id = ? AND question_id = ?", chat_id, question_id)
        return int(row[0]) if row else 0

    def running_calls(self, account_id: str | None = None) -> list[Call]:
        """Answers marked as running, of one account or of all (at start: those that a dead process left)."""
        if account_id is None:
            return [_call(r) for r in self._all(self._CALL + "WHERE a.state = 'running' ORDER BY a.sequence")]
        return [_call(r) for r in self._all(self._CALL + "WHERE a.state = 'running' AND a.account_id = ? ORDER BY a.sequence", account_id)]

    def is_answering(self, account_id: str, chat_id: str) -> bool:
        """Whether an answer is being written in this chat."""
        return any(_running(entry) for entry in self._entries(account_id, chat_id))

    def has_message(self, account_id: str, chat_id: str, message_id: str) -> bool:
        return any(entry.id == message_id for entry in self._entries(account_id, chat_id))

    def end_answer(self, call: Call, state: AnswerState, problem: str | None, at: datetime) -> bool:
        """Running → ended, once. False when it has ended before."""
        sql = "UPDATE answers SET state = ?, problem = ?, ended_at = ? WHERE id = ? AND state = 'running' RETURNING id"
        if not self._write(sql, state.value, problem, at, call.answer_id):
            return False
        self._answer_changes(call.account_id, call.chat_id, call.answer_id, lambda m: _with_facts(m, state=state, problem=problem, ended_at=at))
        return True

    def save_parts(self, rows: Sequence[tuple[str, str, int, str]], at: datetime) -> None:
        """What running answers added: (account id, answer id, position in characters, text), all of them in one statement."""
        if rows:
            values = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
            self._write(f"INSERT INTO answer_parts VALUES {values}", *(v for row in rows for v in (*row, at)))

    def parts(self, answer_id: str) -> str:
        """What was saved of a running answer, in order."""
        return "".join(r[0] for r in self._all("SELECT text FROM answer_parts WHERE answer_id = ? ORDER BY position", answer_id))

    def fold_parts(self, call: Call, text: str, saved: bool = True) -> None:
        """The whole answer as one message in place of its parts (`saved`: there may be some). Nothing is written for an answer without text."""
        if saved:
            self._write("DELETE FROM answer_parts WHERE answer_id = ?", call.answer_id)
        if text:
            values = (call.account_id, call.answer_id, call.chat_id, call.question_id, call.sequence, "answer", text, call.started_at)
            self._write("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
            self._answer_changes(call.account_id, call.chat_id, call.answer_id, lambda m: replace(m, text=text))
            self._sent(call.account_id, call.chat_id, call.started_at)

    def mark_unread(self, call: Call) -> None:
        """The answer ended while nobody watched it."""
        self._changes(call.account_id, UNREAD, by=lambda unread: (*unread, (call.chat_id, call.answer_id)))
        self._write("INSERT INTO unread_answers VALUES (?, ?, ?)", call.account_id, call.answer_id, call.chat_id)

    def _unread(self, account_id: str) -> tuple[tuple[str, str], ...]:
        """(chat id, answer id) of the account's answers that nobody has seen yet."""
        sql = "SELECT chat_id, answer_id FROM unread_answers WHERE account_id = ?"
        return self._recall(account_id, (UNREAD,), lambda: tuple((r[0], r[1]) for r in self._all(sql, account_id)))

    def unread(self, account_id: str, chat_id: str) -> list[str]:
        """Ids of a chat's answers that nobody has seen yet."""
        return [answer_id for chat, answer_id in self._unread(account_id) if chat == chat_id]

    def mark_read(self, account_id: str, chat_id: str) -> None:
        """The chat was opened."""
        self._changes(account_id, UNREAD, by=lambda unread: tuple(pair for pair in unread if pair[0] != chat_id))
        self._write("DELETE FROM unread_answers WHERE chat_id = ? AND account_id = ?", chat_id, account_id)

    def add_thumb(self, call: Call, thumb: str, at: datetime) -> None:
        """What the answer's reader thinks of it: up, down or none."""
        self._answer_changes(call.account_id, call.chat_id, call.answer_id, lambda m: _with_facts(m, thumb=_thumb(thumb)))
        values = (call.account_id, self._next("thumbs"), call.answer_id, call.chat_id, thumb, call.model, call.prompt_version, at, day_number(at))
        self._write("INSERT INTO thumbs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *values)

    # --- allowance --------------------------------------------------------------------------------------------------

    def anchor(self, account_id: str) -> Anchor | None:
        row = self._one("SELECT day, zone FROM anchors WHERE account_id = ?", account_id)
        return Anchor(row[0], row[1]) if row else None

    def add_anchor(self, account_id: str, anchor: Anchor, at: datetime) -> None:
        self._changes(account_id, PERSON)
        self._write("INSERT INTO anchors VALUES (?, ?, ?, ?)", account_id, anchor.day, anchor.zone, at)

    def newest_cycle(self, account_id: str) -> tuple[datetime, datetime] | None:
        """Start and end of the newest cycle anything was reserved in: a clock set back does not reopen an older one."""
        sql = "SELECT starts_at, ends_at FROM cycles WHERE account_id = ?"
        return self._recall(account_id, (LATEST_CYCLE,), lambda: max(((_out(r[0]), _out(r[1])) for r in self._all(sql, account_id)), default=None))

    def latest_cycle_starts_at(self, account_id: str) -> datetime | None:
        newest = self.newest_cycle(account_id)
        return newest[0] if newest else None

    def _counter(self, account_id: str, starts_at: datetime) -> tuple[int, int, int] | None:
        """(used, reserved, the largest allowance that was in force) of one cycle; None while nothing was reserved in it."""

        def read() -> tuple[int, int, int] | None:
            row = self._one("SELECT used, reserved, highest FROM cycles WHERE account_id = ? AND starts_at = ?", account_id, starts_at)
            return None if row is None else (row[0], row[1], row[2] or 0)

        return self._recall(account_id, (CYCLE, starts_at.isoformat()), read)

    def _count(self, account_id: str, starts_at: datetime, used: int, reserved: int, highest: int = 0) -> None:
        """The counter moves by so much."""
        self._changes(account_id, CYCLE, starts_at.isoformat(), by=lambda c: (c[0] + used, c[1] + reserved, max(c[2], highest)))

    def open_cycle(self, account_id: str, cycle: Cycle) -> None:
        """The counter row of this cycle, made if it isn't there."""
        if self._counter(account_id, cycle.starts_at) is None:
            self._changes(account_id, CYCLE, cycle.starts_at.isoformat(), by=lambda none: (0, 0, 0))
            self._changes(account_id, LATEST_CYCLE)
            self._write("INSERT INTO cycles VALUES (?, ?, ?, 0, 0, 0)", account_id, cycle.starts_at, cycle.ends_at)

    def standing(self, account_id: str, cycle_starts_at: datetime, allowance: int) -> Standing:
        """Where the account stands in one cycle under the figure in force."""
        used, reserved, highest = self._counter(account_id, cycle_starts_at) or (0, 0, 0)
        warned = {w.allowance for w in self._warnings(account_id) if w.kind == "last_message" and w.cycle_starts_at == cycle_starts_at}
        charged = self._last_charged(account_id, cycle_starts_at) if warned else set()  # a last message is reserved with its row
        carried = self.carried(account_id, cycle_starts_at)
        if carried is not None and carried.closed_under is not None:
            warned, charged = warned | {carried.closed_under}, charged | {carried.closed_under}
        return Standing(
            allowance=allowance,
            used=used,
            reserved=reserved,
            last_warned=allowance in warned,
            last_charged=allowance in charged,
            last_charged_before=bool(charged - {allowance}),
            highest=max(allowance, highest),
        )

    def carried(self, account_id: str, cycle_starts_at: datetime) -> Carried | None:
        """What the account began this cycle with, None where it began with nothing."""

        def read() -> Carried | None:
            sql = "SELECT tokens, closed_under FROM carried_usage WHERE account_id = ? AND cycle_starts_at = ?"
            row = self._one(sql, account_id, cycle_starts_at)
            return Carried(row[0], row[1]) if row else None

        return self._recall(account_id, (CARRIED, cycle_starts_at.isoformat()), read)

    def all_carried(self, account_id: str) -> list[tuple[datetime, int]]:
        """(start of the cycle, tokens) of each cycle that the account did not begin with nothing."""
        sql = "SELECT cycle_starts_at, tokens FROM carried_usage WHERE account_id = ? ORDER BY cycle_starts_at"
        return [(_out(r[0]), r[1]) for r in self._all(sql, account_id)]

    def carry_over(self, account_id: str, from_id: str, cycle: Cycle, at: datetime) -> None:
        """The new account of a person begins this cycle where their closed one ended in it. What is pending there counts as if it were used."""
        used, reserved, highest = self._counter(from_id, cycle.starts_at) or (0, 0, 0)
        earlier = self.carried(from_id, cycle.starts_at)
        closed_under = max(self._last_charged(from_id, cycle.starts_at), default=earlier.closed_under if earlier else None)
        for key in ((CYCLE, cycle.starts_at.isoformat()), (CARRIED, cycle.starts_at.isoformat()), (LATEST_CYCLE,)):
            self._changes(account_id, *key)
        self._write("INSERT INTO cycles VALUES (?, ?, ?, ?, 0, ?)", account_id, cycle.starts_at, cycle.ends_at, used + reserved, highest)
        self._write("INSERT INTO carried_usage VALUES (?, ?, ?, ?, ?)", account_id, cycle.starts_at, used + reserved, closed_under, at)

    def _last_charged(self, account_id: str, cycle_starts_at: datetime) -> set[int]:
        sql = """
            SELECT r.allowance FROM reservations r JOIN (SELECT * FROM usage_entries WHERE account_id = ?) u ON u.reservation_id = r.id
            WHERE r.account_id = ? AND r.cycle_starts_at = ? AND r.kind = 'last' AND u.tokens_in + u.tokens_out > 0
        """
        return {r[0] for r in self._all(sql, account_id, account_id, cycle_starts_at)}

    def reserve(
        self, account_id: str, reservation_id: str, request_id: str, cycle: Cycle, allowance: int, keep_free: int,
        accepted: Accepted, at: datetime, expires_at: datetime,
    ) -> bool:  # fmt: skip
        """Set tokens aside if they are there: the guarded counter decides, whoever else is asking. `keep_free` is S, 0 for a last one."""
        alone = " AND reserved = 0" if accepted.kind == "last" else ""
        passed = self._write(
            "UPDATE cycles SET reserved = reserved + ?, highest = greatest(highest, ?) "
            f"WHERE account_id = ? AND starts_at = ? AND used + reserved + ? <= ?{alone} RETURNING reserved",
            accepted.reserve, allowance, account_id, cycle.starts_at, accepted.reserve, allowance - keep_free,
        )  # fmt: skip
        if not passed:
            return False
        self._count(account_id, cycle.starts_at, 0, accepted.reserve, allowance)
        self._write(
            "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, NULL)",
            account_id, reservation_id, request_id, cycle.starts_at, allowance, accepted.kind.value, accepted.reserve,
            accepted.prompt_tokens, accepted.resent_tokens, accepted.answer_limit, at, expires_at,
        )  # fmt: skip
        return True

    def resolve(self, call: Call, state: str, used: int, at: datetime) -> tuple[int, datetime] | None:
        """Pending → settled, released or expired, once; the counter gives the reservation back and takes what was used. Returns what is used in
        the cycle now and when it ends, None when somebody was first."""
        sql = "UPDATE reservations SET state = ?, resolved_at = ? WHERE id = ? AND state = 'pending' RETURNING id"
        if not self._write(sql, state, at, call.reservation_id):
            return None
        rows = self._write(
            "UPDATE cycles SET reserved = reserved - ?, used = used + ? WHERE account_id = ? AND starts_at = ? RETURNING used, ends_at",
            call.tokens, used, call.account_id, call.cycle_starts_at,
        )  # fmt: skip
        self._count(call.account_id, call.cycle_starts_at, used, -call.tokens)
        return (int(rows[0][0]), _out(rows[0][1])) if rows else (0, at)  # a counter that is gone is reconcile's to make anew

    def add_usage_entry(
        self, call: Call, plan: str, charge: Charge, resent: int, first_token_ms: int | None, whole_ms: int, outcome: str, at: datetime
    ) -> None:
        resent = min(resent, charge.tokens_in)
        receipt = Receipt(charge.tokens_in, charge.tokens_out, resent, charge.counted, charge.over_reserved)
        self._answer_changes(call.account_id, call.chat_id, call.answer_id, lambda m: _with_facts(m, receipt=receipt))
        if receipt.total:
            self._changes(call.account_id, TOTALS, by=lambda totals: (receipt.total, *totals)[:RECENT])
        self._write(
            "INSERT INTO usage_entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            call.account_id, self._next("usage_entries"), call.answer_id, call.reservation_id, call.cycle_starts_at, plan,
            charge.tokens_in, charge.tokens_out, resent, charge.counted, charge.over_reserved,
            call.model, call.prompt_version, first_token_ms, whole_ms, outcome, at, day_number(at),
        )  # fmt: skip

    def add_warning(self, account_id: str, cycle_starts_at: datetime, kind: str, allowance: int, plan: str, at: datetime) -> bool:
        """One row per account, cycle, kind and figure. False when it was given before."""
        if any((w.cycle_starts_at, w.kind, w.allowance) == (cycle_starts_at, kind, allowance) for w in self._warnings(account_id)):
            return False
        self._changes(account_id, WARNINGS, by=lambda given: (*given, GivenWarning(account_id, cycle_starts_at, kind, allowance, at)))
        values = (account_id, cycle_starts_at, kind, allowance, self._next("warnings"), plan, at, day_number(at))
        self._write("INSERT INTO warnings VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
        return True

    def _warnings(self, account_id: str) -> tuple[GivenWarning, ...]:
        sql = """
            SELECT w.account_id, w.cycle_starts_at, w.kind, w.allowance, w.given_at, d.dismissed_at
            FROM warnings w LEFT JOIN (SELECT * FROM dismissals WHERE account_id = ?) d
                ON d.cycle_starts_at = w.cycle_starts_at AND d.kind = w.kind AND d.allowance = w.allowance
            WHERE w.account_id = ? ORDER BY w.sequence
        """

        def read() -> tuple[GivenWarning, ...]:
            rows = self._all(sql, account_id, account_id)
            return tuple(GivenWarning(r[0], _out(r[1]), r[2], r[3], _out(r[4]), _maybe(r[5])) for r in rows)

        return self._recall(account_id, (WARNINGS,), read)

    def warnings(self, account_id: str) -> list[GivenWarning]:
        """Every warning the account was given, oldest first."""
        return list(self._warnings(account_id))

    def add_dismissal(self, account_id: str, cycle_starts_at: datetime, kind: str, allowance: int, at: datetime) -> bool:
        """The person put this warning away. False when it was put away before."""
        which = (cycle_starts_at, kind, allowance)
        if self._one("SELECT 1 FROM dismissals WHERE account_id = ? AND cycle_starts_at = ? AND kind = ? AND allowance = ?", account_id, *which):
            return False

        def away(given: tuple[GivenWarning, ...]) -> tuple[GivenWarning, ...]:
            return tuple(replace(w, dismissed_at=at) if (w.cycle_starts_at, w.kind, w.allowance) == which else w for w in given)

        self._changes(account_id, WARNINGS, by=away)
        self._write("INSERT INTO dismissals VALUES (?, ?, ?, ?, ?)", account_id, *which, at)
        return True

    def add_refusal(self, account_id: str, cycle_starts_at: datetime | None, reason: str, wanted: int, draft_id: str, plan: str | None, at: datetime) -> None:
        values = (account_id, self._next("refusals"), cycle_starts_at, reason, wanted, draft_id, plan, at, day_number(at))
        self._write("INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *values)

    def refusals(self, account_id: str) -> list[tuple[str, int, str, datetime]]:
        """(reason, tokens wanted, draft id, at), oldest first."""
        sql = "SELECT reason, tokens_wanted, draft_id, refused_at FROM refusals WHERE account_id = ? ORDER BY sequence"
        return [(r[0], r[1], r[2], _out(r[3])) for r in self._all(sql, account_id)]

    _USAGE = """
        SELECT sequence, account_id, answer_id, cycle_starts_at, plan, tokens_in, tokens_out, tokens_resent, counted, over_reserved,
               model, prompt_version, first_token_ms, whole_ms, outcome, settled_at
        FROM usage_entries
    """

    def usage_entries(self, account_id: str, limit: int = 1_000_000, cycle_starts_at: datetime | None = None) -> list[UsageEntry]:
        """An account's ledger rows, of one cycle or of all, newest first."""
        cycle = "" if cycle_starts_at is None else " AND cycle_starts_at = ?"
        values = () if cycle_starts_at is None else (cycle_starts_at,)
        sql = f"{self._USAGE} WHERE account_id = ?{cycle} ORDER BY sequence DESC LIMIT ?"
        return [_entry(r) for r in self._all(sql, account_id, *values, limit)]

    def recent_totals(self, account_id: str) -> list[int]:
        """Tokens of the account's latest RECENT charged answers, newest first."""
        sql = "SELECT tokens_in + tokens_out FROM usage_entries WHERE account_id = ? AND tokens_in + tokens_out > 0 ORDER BY sequence DESC LIMIT ?"
        return list(self._recall(account_id, (TOTALS,), lambda: tuple(int(r[0]) for r in self._all(sql, account_id, RECENT))))

    def pending_past(self, now: datetime) -> list[Call]:
        """Calls whose reservation is still pending after its expiry."""
        return [_call(r) for r in self._all(self._CALL + "WHERE r.state = 'pending' AND r.expires_at <= ?", now)]

    def counters_that_differ(self) -> list[tuple[str, datetime, int, int, int, int]]:
        """Reconcile: (account, cycle start, used, reserved, used by the ledger, reserved by pending rows) wherever the counter is wrong, or gone."""
        sql = """
            WITH due AS (
                SELECT account_id, cycle_starts_at AS starts_at, sum(used) AS used, sum(reserved) AS reserved
                FROM (
                    SELECT account_id, cycle_starts_at, tokens_in + tokens_out AS used, 0 AS reserved FROM usage_entries
                    UNION ALL SELECT account_id, cycle_starts_at, 0, tokens FROM reservations WHERE state = 'pending'
                    UNION ALL SELECT account_id, cycle_starts_at, tokens, 0 FROM carried_usage
                ) AS sources GROUP BY account_id, cycle_starts_at
            )
            SELECT coalesce(c.account_id, d.account_id), coalesce(c.starts_at, d.starts_at), coalesce(c.used, 0), coalesce(c.reserved, 0),
                   coalesce(d.used, 0), coalesce(d.reserved, 0)
            FROM cycles c FULL JOIN due d ON d.account_id = c.account_id AND d.starts_at = c.starts_at
            WHERE c.used IS NULL OR c.used <> coalesce(d.used, 0) OR c.reserved <> coalesce(d.reserved, 0)
        """
        return [(r[0], _out(r[1]), r[2], r[3], int(r[4]), int(r[5])) for r in self._all(sql)]

    def over_reserved_since(self, day: int) -> tuple[int, int]:
        """(answers, tokens) that a provider claimed beyond what was reserved, on this day (number) and after."""
        row = self._one("SELECT count(*), coalesce(sum(over_reserved), 0) FROM usage_entries WHERE over_reserved > 0 AND day >= ?", day)
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def set_counter(self, account_id: str, cycle_starts_at: datetime, used: int, reserved: int) -> None:
        """Put the counter to what the ledger and the pending reservations say; the largest figure it knows is no smaller than any of theirs."""
        self._changes(account_id, CYCLE, cycle_starts_at.isoformat())
        key = (account_id, cycle_starts_at)
        row = self._one("SELECT max(allowance) FROM reservations WHERE account_id = ? AND cycle_starts_at = ?", *key)
        highest = (row[0] if row else None) or 0
        sql = "UPDATE cycles SET used = ?, reserved = ?, highest = greatest(coalesce(highest, 0), ?) WHERE account_id = ? AND starts_at = ?"
        self._write(sql, used, reserved, highest, *key)

    # --- audit ------------------------------------------------------------------------------------------------------

    def append_audit(
        self, actor: str, action: str, at: datetime, *, subject: str | None = None, dispute: str | None = None, reason: str | None = None
    ) -> AuditEntry:
        """Add an entry to the chain. `action` is `noun.verb`; ids only, never text of anybody's messages."""
        row = self._one("SELECT hash FROM audit_entries ORDER BY sequence DESC LIMIT 1")
        previous, sequence = row[0] if row else FIRST_HASH, self._next("audit_entries")
        entry = AuditEntry(
            sequence, actor, action, subject, dispute, reason, at, previous, audit_hash(sequence, actor, action, subject, dispute, reason, at, previous)
        )
        values = (sequence, actor, action, subject, dispute, reason, at, previous, entry.hash)
        self._write("INSERT INTO audit_entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *values)
        return entry

    def audit_entries(self, limit: int = 1_000_000) -> list[AuditEntry]:
        """The newest entries of the chain, oldest first."""
        sql = """
            SELECT * FROM (
                SELECT sequence, actor, action, subject, dispute, reason, recorded_at, previous_hash, hash FROM audit_entries ORDER BY sequence DESC LIMIT ?
            ) e ORDER BY sequence
        """
        return [AuditEntry(r[0], r[1], r[2], r[3], r[4], r[5], _out(r[6]), r[7], r[8]) for r in self._all(sql, limit)]

    # --- the purge --------------------------------------------------------------------------------------------------

    def add_purge(self, run: PurgeRun) -> None:
        values = (run.began_at, run.ended_at, run.asked_by, run.messages, run.titles, run.drafts, run.chats, run.sorted)
        self._write("INSERT INTO purges VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._next("purges"), *values)

    def last_purge(self) -> PurgeRun | None:
        """The newest run that came to its end."""
        row = self._one("SELECT * FROM purges ORDER BY sequence DESC LIMIT 1")
        return PurgeRun(_out(row[1]), _out(row[2]), *row[3:]) if row else None

    def past_their_day(self, since: datetime, deleted: datetime) -> tuple[int, int]:
        """(messages sent at `since` or before, chats deleted at `deleted` or before) that are still in the store's files."""
        messages = self._one("SELECT count(*) FROM messages WHERE sent_at <= ?", since)
        chats = self._one("SELECT count(*) FROM chats WHERE deleted_at <= ?", deleted)
        return (int(messages[0]) if messages else 0, int(chats[0]) if chats else 0)

    # --- the content-free copy --------------------------------------------------------------------------------------

    COPIED = ("usage_entries", "warnings", "refusals", "thumbs")
    """Tables that the analytics copy takes over row by row, in order of their sequence. None of them holds text."""

    def rows_after(self, table: str, sequence: int, limit: int) -> list[tuple[Any, ...]]:
        """Rows of one of COPIED after a sequence, all columns, in order."""
        if table not in self.COPIED:
            raise ValueError(f"{table} is not copied")
        return self._all(f"SELECT * FROM {table} WHERE sequence > ? ORDER BY sequence LIMIT ?", sequence, limit)


def _call(r: tuple[Any, ...]) -> Call:
    values = [*r[:6], AnswerState(r[6]), *r[7:11], _out(r[11]), *r[12:17], _out(r[17]), _out(r[18]), r[19]]
    return Call(**dict(zip((f.name for f in fields(Call)), values, strict=True)))


def _answer(chat_id: str, r: tuple[Any, ...], text: str, thumb: str) -> Message:
    receipt = Receipt(r[12], r[13], r[14], r[15], r[16]) if r[12] is not None else None
    facts = AnswerFacts(AnswerState(r[3]), r[4], r[5], r[6], r[7], r[8], r[9], _out(r[10]), _maybe(r[11]), receipt, _thumb(thumb))
    return Message(r[0], chat_id, r[1], r[2], text, _out(r[10]), facts)


def _thumb(stored: str) -> str:
    return "" if stored == "none" else stored


def _running(entry: Message) -> bool:
    return entry.answer is not None and entry.answer.state is AnswerState.RUNNING


def _with_facts(entry: Message, **facts: Any) -> Message:
    assert entry.answer is not None
    return replace(entry, answer=replace(entry.answer, **facts))


def _changed_entry(entry_id: str, by: Callable[[Message], Message], entries: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(by(entry) if entry.id == entry_id else entry for entry in entries)


def _entry(r: tuple[Any, ...]) -> UsageEntry:
    return UsageEntry(r[0], r[1], r[2], _out(r[3]), r[4], Receipt(r[5], r[6], r[7], r[8], r[9]), r[10], r[11], r[12], r[13], r[14], _out(r[15]))


def _in(value: object) -> object:
    """Aware instants become UTC without a zone; a naive one is a mistake of ours, not of a user."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError("an instant without a zone reached the store")
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _out(value: Any) -> datetime:
    instant: datetime = value
    return instant.replace(tzinfo=UTC)


def _maybe(value: Any) -> datetime | None:
    return None if value is None else _out(value)
