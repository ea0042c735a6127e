"""The made-up people of demo mode: one for each role and each state of the plan, with chats and months of use behind them.

Without them a visitor opens empty pages, and nobody can see what a spent allowance or an ended plan looks like. They are marked
as sample, live in the demo store only, and their ledger follows the product's own rules: receipts sum to the meter, each
cycle begins on the day of first use, warnings fall where usage passed them. What they wrote stands in data/sample/chats.toml.
"""

from __future__ import annotations

import random
import secrets
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from chatpro.config import ROOT, Settings
from chatpro.domain.accounts import Account, Role
from chatpro.domain.allowance import Anchor, Cycle, SendKind, cycle_at, warnings_due
from chatpro.domain.chats import AnswerState, clean_title, request_id, title_from
from chatpro.storage import Store, Unit
from chatpro.storage.seeding import PastCall, add_freelancers, add_past_calls, count_subjects

ISSUER = "sample"
CHATS = ROOT / "data" / "sample" / "chats.toml"
BENCH_ALLOWANCE = 2_000_000_000
"""Tokens of a load-test account: a hundred thousand of the longest sends in one cycle."""

INSTRUCTIONS = 400
"""About the tokens that the instructions take in each made-up call; the real ones are of that size."""

GPT_4_ENDED = datetime(2026, 10, 23, tzinfo=UTC)


@dataclass(frozen=True)
class Person:
    """One made-up account. `began`: days since the first message. `shares`: part of the allowance used in each cycle, the current one last;
    1.0 means that the last message of the cycle was sent. `ended`: days since the plan ended."""

    subject: str
    name: str
    zone: str = "Europe/Berlin"
    role: Role = Role.FREELANCER
    plan: bool = True
    consent: bool = True
    began: int = 0
    shares: tuple[float, ...] = ()
    ended: int | None = None


# The first ten are the ones a tester reaches for; the others make enough company that figures about people can be shown at all.
PEOPLE = (
    Person("mara", "Mara Brandt", began=85, shares=(0.38, 0.55, 0.62)),
    Person("tomas", "Tomás Herrera", "Europe/Madrid", began=78, shares=(0.64, 0.88, 0.97)),
    Person("nia", "Nia Mensah", "Africa/Accra", plan=False, consent=False),
    Person("hal", "Hal Okafor", "Europe/London", began=74, shares=(0.42, 0.30, 0.06), ended=12),
    Person("lea", "Lea Fontaine", "Europe/Paris", consent=False),
    Person("priya", "Priya Raman", "Asia/Kolkata", Role.ANALYST, plan=False, consent=False),
    Person("jude", "Jude Whitaker", "Europe/London", Role.SUPPORT, plan=False, consent=False),
    Person("ana", "Ana Ferreira", "Europe/Lisbon", Role.APPROVER, plan=False, consent=False),
    Person("otto", "Otto Vogel", "Europe/Vienna", Role.AUDITOR, plan=False, consent=False),
    Person("ada", "Ada Nyström", "Europe/Stockholm", Role.ADMIN, plan=False, consent=False),
    Person("ines", "Inês Carvalho", "Europe/Lisbon", began=82, shares=(0.22, 0.34, 0.27)),
    Person("bruno", "Bruno Keller", "Europe/Zurich", began=70, shares=(0.45, 1.0, 0.36)),
    Person("greta", "Greta Lund", "Europe/Copenhagen", began=81, shares=(0.52, 0.79, 1.0)),
    Person("sofia", "Sofia Marchetti", "Europe/Rome", began=84, shares=(0.29, 0.41, 0.33)),
    Person("karim", "Karim Haddad", "Africa/Casablanca", began=79, shares=(0.35, 0.24, 0.31)),
    Person("yara", "Yara Costa", "America/Sao_Paulo", began=80, shares=(0.18, 0.78, 0.40)),
    Person("pavel", "Pavel Novák", "Europe/Prague", began=77, shares=(0.26, 0.33, 0.22)),
    Person("aiko", "Aiko Tanaka", "Asia/Tokyo", began=66, shares=(0.30, 0.96, 0.45)),
    Person("lucia", "Lucía Ortega", "America/Mexico_City", began=58, shares=(0.37, 0.76)),
    Person("emre", "Emre Aydın", "Europe/Istanbul", began=49, shares=(0.28, 0.35)),
    Person("noel", "Noel Byrne", "Europe/Dublin", began=83, shares=(0.24, 0.28, 0.19)),
    Person("dario", "Dario Kovač", "Europe/Zagreb", began=40, shares=(0.40, 0.30)),
)


def fill(store: Store, settings: Settings, now: datetime) -> None:
    """Put the made-up people into the demo store, and as many load-test freelancers as the settings ask for. Nothing is made twice.

    Raises RuntimeError outside demo mode: made-up people never stand beside real ones.
    """
    if not settings.demo:
        raise RuntimeError("sample people belong to demo mode only")
    if store.read(lambda rows: rows.account_by_subject(ISSUER, PEOPLE[0].subject)) is None:
        store.write(lambda unit: _fill(unit, settings, now))
    there = store.read(lambda rows: count_subjects(rows, ISSUER, "bench-%"))
    for first in range(there + 1, settings.sample_accounts + 1, 2_000):
        numbers = range(first, min(first + 2_000, settings.sample_accounts + 1))
        accounts = [_account(Person(f"bench-{n}", f"Bench {n}", "UTC"), now) for n in numbers]
        store.write(lambda unit, made=accounts: add_freelancers(unit, made, settings.plan_name, BENCH_ALLOWANCE, settings.consent_version, now))  # type: ignore[misc]


def _fill(unit: Unit, settings: Settings, now: datetime) -> None:
    chats = tomllib.loads(CHATS.read_text("utf-8"))["chat"]
    calls: list[PastCall] = []
    for place, person in enumerate(PEOPLE):
        # A minute apart, so that the list of people keeps this order; long ago, so that the plan is older than the first message.
        account = _account(person, now - timedelta(days=100, minutes=-place))
        unit.add_account(account)
        if person.plan:
            ends_at = None if person.ended is None else now - timedelta(days=person.ended)
            unit.add_entitlement(account.id, settings.plan_name, settings.allowance_tokens, account.created_at, ends_at, account.created_at)
        if person.shares:
            calls += _Past(unit, settings, person, account, now).write([chat for chat in chats if chat["who"] == person.subject])
    add_past_calls(unit, calls)
    _warn(unit, calls)
    unit.append_audit("sample", "samples.made", now, reason=f"{len(PEOPLE)} made-up accounts")


def _account(person: Person, at: datetime) -> Account:
    return Account(secrets.token_hex(16), ISSUER, person.subject, person.name, None, person.zone, True, at, frozenset({person.role}))


def _warn(unit: Unit, calls: Sequence[PastCall]) -> None:
    """Give each warning at the moment usage reached it, as settling does; the one for a last message when it was accepted."""
    used: dict[tuple[str, datetime], int] = {}
    for call in sorted(calls, key=lambda c: c.ended_at):
        cycle = (call.account_id, call.cycle.starts_at)
        if call.kind is SendKind.LAST:
            unit.add_warning(*cycle, "last_message", call.allowance, call.plan, call.asked_at)
        before = set(warnings_due(call.allowance, used.get(cycle, 0)))
        used[cycle] = used.get(cycle, 0) + call.total
        for kind in warnings_due(call.allowance, used[cycle]):
            if kind not in before:
                unit.add_warning(*cycle, kind, call.allowance, call.plan, call.ended_at)


class _Past:
    """What one person did since they began: the chats that can still be read, and the use that is left of deleted ones."""

    def __init__(self, unit: Unit, settings: Settings, person: Person, account: Account, now: datetime) -> None:
        self._unit = unit
        self._settings = settings
        self._person = person
        self._account = account
        self._until = now - timedelta(days=person.ended or 0, minutes=20)
        self._now = now
        self._first = now - timedelta(days=person.began)
        self._anchor = Anchor(self._first.astimezone(ZoneInfo(person.zone)).date(), person.zone)
        # Made-up sends fit the default allowance; under a smaller one everything shrinks with it.
        self._scale = min(1.0, settings.allowance_tokens / 200_000)
        self._random = random.Random(person.subject)  # noqa: S311 - the same people look the same after each reset

    def write(self, chats: Sequence[dict[str, Any]]) -> list[PastCall]:
        """Consent, anchor and chats are written; the calls are handed back, to be written in the order of everybody's time."""
        unit, account = self._unit, self._account
        unit.add_consent(account.id, self._settings.consent_version, True, self._first - timedelta(minutes=5))
        unit.add_anchor(account.id, self._anchor, self._first)
        readable = [call for chat in chats for call in self._chat(chat)]
        cycles = list(self._cycles())
        calls: list[PastCall] = []
        deleted = secrets.token_hex(16)
        unit.add_chat(account.id, deleted, self._first)
        for cycle, share in zip(reversed(cycles), reversed(self._person.shares), strict=False):
            calls += self._in_cycle(cycle, share, deleted, [call for call in readable if call.cycle == cycle])
        unit.delete_chat(account.id, deleted, self._until)
        return calls

    def _cycles(self) -> Iterator[Cycle]:
        cycle = cycle_at(self._anchor, self._first)
        while cycle.starts_at <= self._until:
            yield cycle
            cycle = cycle_at(self._anchor, cycle.ends_at)

    def _chat(self, chat: dict[str, Any]) -> Iterator[PastCall]:
        """One chat of the file as calls; its row and its title are written."""
        chat_id, begun = secrets.token_hex(16), max(self._now - timedelta(days=chat["days_ago"]), self._first)
        self._unit.add_chat(self._account.id, chat_id, begun)
        follows: str | None = None
        history = 0
        for number, turn in enumerate(chat["turn"]):
            you, answer, state = turn["you"].strip(), turn["answer"].strip(), AnswerState(turn.get("state", "finished"))
            resent = min(history, 2_000)
            tokens_in, tokens_out = self._tokens(INSTRUCTIONS + resent + _count(you)), self._tokens(_count(answer))
            call = self._call(chat_id, follows, you, answer, state, begun + timedelta(minutes=5 * number), tokens_in, tokens_out, self._tokens(resent))
            if number == 0:
                typed = chat.get("title")
                self._unit.add_title(self._account.id, chat_id, clean_title(typed) if typed else title_from(you), begun, None if typed else call.question_id)
            follows, history = call.answer_id, history + _count(you) + _count(answer)
            yield call

    def _in_cycle(self, cycle: Cycle, share: float, chat_id: str, readable: list[PastCall]) -> list[PastCall]:
        """The readable calls and as many of a deleted chat as bring the cycle to its share, reserved one after another."""
        allowance = self._settings.allowance_tokens
        begins, ends = max(cycle.starts_at, self._first), min(cycle.ends_at, self._until)
        last = share >= 1 and allowance <= 200_000
        target = min(int(allowance * share), int(200_000 * share)) - (self._tokens(3_000) if last else 0) - sum(call.total for call in readable)
        sizes = list(self._sizes(target))
        times = self._times(begins, ends, len(sizes))
        calls = [*readable, *(self._deleted(chat_id, at, size) for at, size in zip(times, sizes, strict=False))]
        calls.sort(key=lambda call: call.asked_at)
        if last:
            calls.append(
                replace(self._deleted(chat_id, max([ends - timedelta(minutes=9), *(c.ended_at for c in calls)]), self._tokens(2_500)), kind=SendKind.LAST)
            )
        return self._reserved(calls, allowance)

    def _reserved(self, calls: list[PastCall], allowance: int) -> list[PastCall]:
        """Each call with the reservation that the rules would have given it at that moment."""
        kept_free, used, reserved = -(-allowance // 100), 0, []
        for call in calls:
            room = allowance - used - call.tokens_in
            limit = room if call.kind is SendKind.LAST else min(self._settings.answer_tokens, room - kept_free)
            limit = max(limit, call.tokens_out)
            reserved.append(replace(call, answer_limit=limit, reserved=call.tokens_in + limit))
            used += call.total
        return reserved

    def _sizes(self, total: int) -> Iterator[int]:
        """Whole sends that come to this total, from a short question to a long paste."""
        least = self._tokens(1_200)
        while total > 0:
            size = self._tokens(self._random.choice((1_400, 1_900, 2_600, 3_800, 4_700, 5_600)) + self._random.randrange(400))
            size = total if total < size + least else size
            yield size
            total -= size

    def _times(self, begins: datetime, ends: datetime, count: int) -> list[datetime]:
        """Moments of work between two instants: by day, fewer at weekends."""
        zone, times = ZoneInfo(self._person.zone), []
        seconds = max(1, int((ends - begins).total_seconds()))
        for _ in range(count):
            for _ in range(40):
                at = begins + timedelta(seconds=self._random.randrange(seconds))
                local = at.astimezone(zone)
                if 8 <= local.hour < 19 and (local.weekday() < 5 or self._random.random() < 0.3):
                    break
            times.append(at)
        times.sort()
        return [begins, *times[1:]] if begins == self._first else times  # the day of first use is what every cycle is counted from

    def _deleted(self, chat_id: str, at: datetime, size: int) -> PastCall:
        tokens_out = max(1, min(int(size * self._random.uniform(0.18, 0.34)), self._tokens(1_400)))
        tokens_in = max(1, size - tokens_out)
        return self._call(chat_id, None, "", "", AnswerState.FINISHED, at, tokens_in, tokens_out, min(tokens_in // 3, self._tokens(2_000)))

    def _call(
        self, chat_id: str, follows: str | None, you: str, answer: str, state: AnswerState, at: datetime, tokens_in: int, tokens_out: int, resent: int
    ) -> PastCall:
        whole = state in (AnswerState.FINISHED, AnswerState.LENGTH)
        return PastCall(
            account_id=self._account.id,
            chat_id=chat_id,
            parent_id=follows,
            question_id=secrets.token_hex(16),
            answer_id=secrets.token_hex(16),
            request_id=request_id(self._account.id, chat_id, follows, you or secrets.token_hex(8)),
            reservation_id=secrets.token_hex(16),
            question=you,
            answer=answer,
            state=state,
            kind=SendKind.ORDINARY,
            cycle=cycle_at(self._anchor, at),
            plan=self._settings.plan_name,
            allowance=self._settings.allowance_tokens,
            reserved=tokens_in + tokens_out,
            answer_limit=tokens_out,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            tokens_resent=min(resent, tokens_in),
            counted="measured" if whole else "estimated",
            model="gpt-4" if at < GPT_4_ENDED else "gpt-4.1",
            prompt_version="1",
            first_token_ms=self._random.randrange(350, 1_900),
            asked_at=at,
            ended_at=at + timedelta(seconds=3 + tokens_out / 55),
        )

    def _tokens(self, count: int) -> int:
        return max(1, int(count * self._scale))


def _count(text: str) -> int:
    """About how many tokens a text has: near enough for a made-up receipt."""
    return -(-len(text) // 4)
