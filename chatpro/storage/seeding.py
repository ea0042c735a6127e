"""Made-up lives in bulk: accounts with the months behind them, and accounts for load tests. Nothing here is used outside demo mode.

One call written by the verbs of `sql.py` takes a dozen statements, 8 ms; the months of three hundred made-up people would keep a first start
waiting for minutes. So whole tables are handed over, as columns in JSON, which the engine reads five times as fast as lists of Python's;
calls go into one table first, from which the store's own are filled. What the verbs guarantee one by one comes from the books
(chatpro/domain/books.py), and has to be found the same by reconcile: the counter of each cycle is the sum of its entries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from chatpro.domain.accounts import Account
from chatpro.domain.books import Books, PastCall
from chatpro.storage import Unit
from chatpro.storage.sql import day_number

SLICE = 50_000
"""Calls handed over at once: some 14 MB of JSON."""

SET_ASIDE_SECONDS = 330
"""How long a reservation was held for at most, with the default settings."""


class Words(NamedTuple):
    """What was said in one call and can still be read, under the ids by which pages ask for it."""

    chat_id: str
    parent_id: str | None
    question_id: str
    answer_id: str
    request_id: str
    question: str
    answer: str


@dataclass(frozen=True)
class Life:
    """A made-up account and its books. `words`, by request: what can be read of it. Of the rest there is what the purge leaves of a deleted
    chat: reservations and the ledger."""

    account: Account
    books: Books
    words: Mapping[int, Words] = field(default_factory=dict)


def add_lives(unit: Unit, lives: Sequence[Life], model: Callable[[datetime], str], prompt_version: str) -> None:
    """Write them with all that their books hold, each table in the order of time, as if they had lived here. `model` says which one answered when."""
    _add_accounts(unit, [life.account for life in lives])
    _add_grants(unit, lives)
    _add_words(unit, lives, model, prompt_version)
    calls = sorted(((life, n, call) for life in lives for n, call in enumerate(life.books.calls)), key=lambda entry: entry[2].ended_at)
    for first in range(0, len(calls), SLICE):
        _add_calls(unit, [_staged(unit, *entry, model, prompt_version) for entry in calls[first : first + SLICE]])
    _add_cycles(unit, lives)


def _add_accounts(unit: Unit, accounts: Sequence[Account]) -> None:
    _insert(
        unit, "accounts", "VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR BOOLEAN TIMESTAMP",
        [(a.id, a.issuer, a.subject, a.name, a.email, a.zone, a.sample, a.created_at) for a in accounts],
    )  # fmt: skip
    _insert(unit, "roles", "VARCHAR VARCHAR", [(a.id, role.value) for a in accounts for role in a.roles])


def _add_grants(unit: Unit, lives: Sequence[Life]) -> None:
    """Entitlements, consents, own limits and first days."""
    granted = sorted(((life.account.id, row) for life in lives for row in life.books.entitlements), key=lambda pair: pair[1].recorded_at)
    _insert(
        unit, "entitlements", "VARCHAR BIGINT VARCHAR BIGINT TIMESTAMP TIMESTAMP TIMESTAMP",
        [(who, unit._next("entitlements"), e.plan, e.allowance, e.starts_at, e.ends_at, e.recorded_at) for who, e in granted],
    )  # fmt: skip
    said = sorted(((life.account.id, row) for life in lives for row in life.books.consents), key=lambda pair: pair[1].at)
    _insert(
        unit, "consents", "VARCHAR BIGINT INTEGER BOOLEAN VARCHAR TIMESTAMP",
        [(who, unit._next("consents"), c.version, c.given, c.facts, c.at) for who, c in said],
    )  # fmt: skip
    limited = sorted(((life.account.id, row) for life in lives for row in life.books.own_limits), key=lambda pair: pair[1].at)
    _insert(
        unit, "own_limits", "VARCHAR BIGINT TIMESTAMP BIGINT TIMESTAMP",
        [(who, unit._next("own_limits"), row.cycle_starts_at, row.tokens, row.at) for who, row in limited],
    )  # fmt: skip
    begun = [(life.account.id, life.books.anchor, life.books.first_sent_at) for life in lives if life.books.anchor]
    _insert(unit, "anchors", "VARCHAR DATE VARCHAR TIMESTAMP", [(who, anchor.day, anchor.zone, at) for who, anchor, at in begun])


def _add_words(unit: Unit, lives: Sequence[Life], model: Callable[[datetime], str], prompt_version: str) -> None:
    """Messages and answers that can be read. Their chats and titles are the caller's to write."""
    calls = sorted(((life, call) for life in lives if life.words for call in life.books.calls if call.request in life.words), key=lambda pair: pair[1].asked_at)
    messages: list[tuple[object, ...]] = []
    answers: list[tuple[object, ...]] = []
    for life, call in calls:
        who, words, place = life.account.id, life.words[call.request], unit._next("messages")
        messages.append((who, words.question_id, words.chat_id, words.parent_id, place, "freelancer", words.question, call.asked_at))
        place = unit._next("messages")
        messages.append((who, words.answer_id, words.chat_id, words.question_id, place, "answer", words.answer, call.asked_at))
        answers.append(
            (who, words.answer_id, words.chat_id, words.question_id, words.request_id, call.attempt, words.answer_id, place, call.state.value, None,
             model(call.asked_at), prompt_version, call.accepted.left_out, call.accepted.shortened, call.asked_at, call.ended_at)
        )  # fmt: skip
    _insert(unit, "messages", "VARCHAR VARCHAR VARCHAR VARCHAR BIGINT VARCHAR VARCHAR TIMESTAMP", messages)
    _insert(
        unit, "answers",
        "VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR INTEGER VARCHAR BIGINT VARCHAR VARCHAR VARCHAR VARCHAR INTEGER BOOLEAN TIMESTAMP TIMESTAMP", answers,
    )  # fmt: skip


def _add_cycles(unit: Unit, lives: Sequence[Life]) -> None:
    """Counters, and what was given and refused in their cycles."""
    _insert(
        unit, "cycles", "VARCHAR TIMESTAMP TIMESTAMP BIGINT BIGINT BIGINT",
        [(life.account.id, c.cycle.starts_at, c.cycle.ends_at, c.used, c.reserved, c.highest) for life in lives for c in life.books.counters],
    )  # fmt: skip
    given = sorted(((life.account.id, row) for life in lives for row in life.books.warnings), key=lambda pair: pair[1].at)
    _insert(
        unit, "warnings", "VARCHAR TIMESTAMP VARCHAR BIGINT BIGINT VARCHAR TIMESTAMP INTEGER",
        [(who, w.cycle.starts_at, w.kind, w.allowance, unit._next("warnings"), w.plan, w.at, day_number(w.at)) for who, w in given],
    )  # fmt: skip
    refused = sorted(((life, row) for life in lives for row in life.books.refusals), key=lambda pair: pair[1].at)
    _insert(
        unit, "refusals", "VARCHAR BIGINT TIMESTAMP VARCHAR BIGINT VARCHAR VARCHAR TIMESTAMP INTEGER",
        [(life.account.id, unit._next("refusals"), r.cycle.starts_at if r.cycle else None, r.reason, r.wanted, f"{life.account.subject}-{r.draft}", r.plan,
          r.at, day_number(r.at)) for life, r in refused],
    )  # fmt: skip


# --- Calls ------------------------------------------------------------------------------------------------------------

_CALL = (
    ("account_id", "VARCHAR"), ("answer_id", "VARCHAR"), ("request_id", "VARCHAR"), ("sequence", "BIGINT"), ("cycle_starts_at", "TIMESTAMP"),
    ("plan", "VARCHAR"), ("allowance", "BIGINT"), ("kind", "VARCHAR"), ("tokens", "BIGINT"), ("prompt_tokens", "BIGINT"),
    ("resent_tokens", "BIGINT"), ("answer_limit", "BIGINT"), ("state", "VARCHAR"), ("resolution", "VARCHAR"), ("tokens_in", "BIGINT"),
    ("tokens_out", "BIGINT"), ("counted", "VARCHAR"), ("over_reserved", "BIGINT"), ("model", "VARCHAR"), ("prompt_version", "VARCHAR"),
    ("first_token_ms", "BIGINT"), ("asked_at", "TIMESTAMP"), ("ended_at", "TIMESTAMP"),
)  # fmt: skip


def _staged(unit: Unit, life: Life, number: int, call: PastCall, model: Callable[[datetime], str], prompt_version: str) -> tuple[object, ...]:
    """One call as a row. Without words its ids are short and alike: they are of use to nobody, and random ones would make half of the file."""
    words, got, cost = life.words.get(call.request), call.accepted, call.cost
    subject = life.account.subject
    return (
        life.account.id, words.answer_id if words else f"{subject}-{number}", words.request_id if words else f"{subject}-{call.request}",
        unit._next("usage_entries"), call.cycle.starts_at, call.plan, call.allowance, got.kind.value, got.reserve, got.prompt_tokens,
        got.resent_tokens, got.answer_limit, call.state.value, call.resolution, cost.tokens_in, cost.tokens_out, cost.counted, cost.over_reserved,
        model(call.asked_at), prompt_version, call.first_token_ms, call.asked_at, call.ended_at,
    )  # fmt: skip


def _add_calls(unit: Unit, rows: Sequence[tuple[object, ...]]) -> None:
    """Into a table of their own, and from there into reservations and the ledger. A reservation has its answer's id."""
    if not rows:
        return
    columns = ", ".join(f"{_column(kind)} AS {name}" for name, kind in _CALL)
    unit._all(f"CREATE TEMP TABLE past_calls AS SELECT {columns}", *_columns([kind for _, kind in _CALL], rows))
    unit._all(
        "INSERT INTO reservations SELECT account_id, answer_id, request_id, cycle_starts_at, allowance, kind, tokens, prompt_tokens, resent_tokens, "
        f"answer_limit, resolution, asked_at, asked_at + INTERVAL '{SET_ASIDE_SECONDS} seconds', ended_at FROM past_calls"
    )
    unit._all(
        "INSERT INTO usage_entries SELECT account_id, sequence, answer_id, answer_id, cycle_starts_at, plan, tokens_in, tokens_out, "
        "least(resent_tokens, tokens_in), counted, over_reserved, model, prompt_version, first_token_ms, "
        "(epoch_us(ended_at) - epoch_us(asked_at)) // 1000, state, ended_at, epoch_us(ended_at) // 86400000000 FROM past_calls ORDER BY sequence"
    )
    unit._all("DROP TABLE past_calls")


# --- Load tests -------------------------------------------------------------------------------------------------------


def add_freelancers(unit: Unit, accounts: Sequence[Account], plan: str, allowance: int, consent_version: int, at: datetime) -> None:
    """Accounts with the role freelancer, a plan without end and a yes to the consent."""
    _add_accounts(unit, accounts)
    _insert(
        unit, "entitlements", "VARCHAR BIGINT VARCHAR BIGINT TIMESTAMP TIMESTAMP TIMESTAMP",
        [(a.id, unit._next("entitlements"), plan, allowance, at, None, at) for a in accounts],
    )  # fmt: skip
    _insert(
        unit, "consents", "VARCHAR BIGINT INTEGER BOOLEAN VARCHAR TIMESTAMP", [(a.id, unit._next("consents"), consent_version, True, "", at) for a in accounts]
    )  # fmt: skip


def count_subjects(unit: Unit, issuer: str, pattern: str) -> int:
    """How many accounts of an issuer have a subject like this."""
    return int(unit._all("SELECT count(*) FROM accounts WHERE issuer = ? AND subject LIKE ?", issuer, pattern)[0][0])


# --- Columns ----------------------------------------------------------------------------------------------------------


def _insert(unit: Unit, table: str, types: str, rows: Sequence[tuple[object, ...]]) -> None:
    """One statement for all rows: a column each, as JSON. A hundred times as fast as a row of parameters each."""
    if rows:
        kinds = types.split()
        unit._all(f"INSERT INTO {table} SELECT {', '.join(map(_column, kinds))}", *_columns(kinds, rows))


def _column(kind: str) -> str:
    if kind == "TIMESTAMP":
        return "make_timestamp(unnest(from_json(?, '[\"BIGINT\"]')))"
    return f"unnest(from_json(?, '[\"{kind}\"]'))"


def _columns(kinds: Sequence[str], rows: Iterable[tuple[object, ...]]) -> list[str]:
    return [
        json.dumps([_moment(value) for value in column] if kind in ("TIMESTAMP", "DATE") else column, ensure_ascii=False)
        for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)
    ]


EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def _moment(value: object) -> int | str | None:
    """Microseconds of an instant, the words for a day. One without a zone is a mistake of ours."""
    if isinstance(value, datetime):
        return (value - EPOCH) // MICROSECOND
    return value.isoformat() if isinstance(value, date) else None
