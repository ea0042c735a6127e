"""Many made-up rows at once: past calls of a model, and accounts for load tests. Nothing here is used outside demo mode.

One call written by the verbs of `sql.py` takes twelve statements, 8 ms; the months of a dozen made-up people would make each first
start, and each test that builds a house, wait for seconds. So columns are handed over as lists, one statement a table. What
the verbs guarantee one by one has to come out the same: the counter of each cycle is the sum of its entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chatpro.domain.accounts import Account
from chatpro.domain.allowance import Cycle, SendKind
from chatpro.domain.chats import AnswerState
from chatpro.storage import Unit
from chatpro.storage.sql import _in, day_number


@dataclass(frozen=True)
class PastCall:
    """One message and its answer, ended and settled. Without `question` and `answer` it is one whose text was purged."""

    account_id: str
    chat_id: str
    parent_id: str | None
    question_id: str
    answer_id: str
    request_id: str
    reservation_id: str
    question: str
    answer: str
    state: AnswerState
    kind: SendKind
    cycle: Cycle
    plan: str
    allowance: int
    reserved: int
    answer_limit: int
    tokens_in: int
    tokens_out: int
    tokens_resent: int
    counted: str
    model: str
    prompt_version: str
    first_token_ms: int
    asked_at: datetime
    ended_at: datetime

    @property
    def total(self) -> int:
        return self.tokens_in + self.tokens_out


def add_past_calls(unit: Unit, calls: Sequence[PastCall]) -> None:
    """Write them in the order of time, as the ledger would have them, with the counters they come to."""
    calls = sorted(calls, key=lambda c: c.ended_at)
    places = {id(c): (unit._next("messages"), unit._next("messages")) for c in sorted(calls, key=lambda c: c.asked_at)}
    _insert(
        unit, "messages", "VARCHAR VARCHAR VARCHAR VARCHAR BIGINT VARCHAR VARCHAR TIMESTAMP",
        [(c.account_id, c.question_id, c.chat_id, c.parent_id, places[id(c)][0], "freelancer", c.question, c.asked_at) for c in calls if c.question]
        + [(c.account_id, c.answer_id, c.chat_id, c.question_id, places[id(c)][1], "answer", c.answer, c.asked_at) for c in calls if c.answer],
    )  # fmt: skip
    _insert(
        unit, "reservations",
        "VARCHAR VARCHAR VARCHAR TIMESTAMP BIGINT VARCHAR BIGINT BIGINT BIGINT BIGINT VARCHAR TIMESTAMP TIMESTAMP TIMESTAMP",
        [(c.account_id, c.reservation_id, c.request_id, c.cycle.starts_at, c.allowance, c.kind.value, c.reserved, c.tokens_in, c.tokens_resent,
          c.answer_limit, "settled", c.asked_at, c.asked_at + timedelta(seconds=330), c.ended_at) for c in calls],
    )  # fmt: skip
    _insert(
        unit, "answers",
        "VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR INTEGER VARCHAR BIGINT VARCHAR VARCHAR VARCHAR VARCHAR INTEGER BOOLEAN TIMESTAMP TIMESTAMP",
        [(c.account_id, c.answer_id, c.chat_id, c.question_id, c.request_id, 1, c.reservation_id, places[id(c)][1], c.state.value, None,
          c.model, c.prompt_version, 0, False, c.asked_at, c.ended_at) for c in calls],
    )  # fmt: skip
    _insert(
        unit, "usage_entries",
        "VARCHAR BIGINT VARCHAR VARCHAR TIMESTAMP VARCHAR BIGINT BIGINT BIGINT VARCHAR BIGINT VARCHAR VARCHAR BIGINT BIGINT VARCHAR TIMESTAMP INTEGER",
        [(c.account_id, unit._next("usage_entries"), c.answer_id, c.reservation_id, c.cycle.starts_at, c.plan, c.tokens_in, c.tokens_out,
          c.tokens_resent, c.counted, 0, c.model, c.prompt_version, c.first_token_ms, int((c.ended_at - c.asked_at).total_seconds() * 1000),
          c.state.value, c.ended_at, day_number(c.ended_at)) for c in calls],
    )  # fmt: skip
    used: dict[tuple[str, datetime, datetime], int] = {}
    for c in calls:
        key = (c.account_id, c.cycle.starts_at, c.cycle.ends_at)
        used[key] = used.get(key, 0) + c.total
    _insert(unit, "cycles", "VARCHAR TIMESTAMP TIMESTAMP BIGINT BIGINT BIGINT", [(*key, tokens, 0, 0) for key, tokens in used.items()])


def add_freelancers(unit: Unit, accounts: Sequence[Account], plan: str, allowance: int, consent_version: int, at: datetime) -> None:
    """Accounts with the role freelancer, a plan without end and a yes to the consent."""
    _insert(
        unit, "accounts", "VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR BOOLEAN TIMESTAMP",
        [(a.id, a.issuer, a.subject, a.name, a.email, a.zone, a.sample, a.created_at) for a in accounts],
    )  # fmt: skip
    _insert(unit, "roles", "VARCHAR VARCHAR", [(a.id, role.value) for a in accounts for role in a.roles])
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


def _insert(unit: Unit, table: str, types: str, rows: Sequence[tuple[object, ...]]) -> None:
    """One statement for all rows: a list a column. Twenty times as fast as a row of parameters each (10,000 accounts: 0.03 s instead of 0.6)."""
    if rows:
        columns = ", ".join(f"unnest(CAST(? AS {kind}[]))" for kind in types.split())
        unit._all(f"INSERT INTO {table} SELECT {columns}", *([_in(value) for value in column] for column in zip(*rows, strict=True)))
