"""The made-up people of demo mode: one for each role and each state of the plan, and three hundred freelancers more behind them.

Without the first a visitor opens empty pages, and nobody can see what a spent allowance or an ended plan looks like; without the others the
product manager's page shows nothing, because no figure may stand on fewer than ten people. All are marked as sample and live in the demo
store only. What they sent was decided, charged and warned of by the product's own rules (chatpro/domain/books.py); what the first ones wrote
stands in data/sample/chats.toml, the others have habits and no words (chatpro/domain/months.py).
"""

from __future__ import annotations

import random
import secrets
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from chatpro import tokens
from chatpro.config import ROOT, Settings
from chatpro.domain.accounts import Account, Role
from chatpro.domain.allowance import DRAFT_AT_LEAST, Accepted, Anchor, Cycle, SendKind, Sizes, cycle_at
from chatpro.domain.books import Books, Produced
from chatpro.domain.chats import AnswerState, clean_title, request_id, title_from
from chatpro.domain.months import MadeUp, Scene
from chatpro.models import Turn
from chatpro.services.answering import FALLBACK_CARD, PROMPT_VERSION
from chatpro.storage import Store, Unit
from chatpro.storage.seeding import Life, Words, add_freelancers, add_lives, count_subjects

ISSUER = "sample"
CHATS = ROOT / "data" / "sample" / "chats.toml"
BENCH_ALLOWANCE = 2_000_000_000
"""Tokens of a load-test account: a hundred thousand of the longest sends in one cycle."""

INSTRUCTIONS = 400
"""About the tokens that the instructions take in each call of a named person; the real ones are of that size."""

GPT_4_ENDED = datetime(2026, 10, 23, tzinfo=UTC)

DAYS, SEED = 120, 2026
"""Months that the other freelancers have behind them: as many as the longest figure on the product manager's page, and one to compare with.
They are the same ones in each demo store."""


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
    if store.read(lambda rows: count_subjects(rows, ISSUER, "%")) == 0:  # any of them: one may have closed their account
        others = [_freelancer(made) for made in scene(settings, now).accounts(settings.sample_freelancers)]
        store.write(lambda unit: _fill(unit, settings, now, others))
    there = store.read(lambda rows: count_subjects(rows, ISSUER, "bench-%"))
    for first in range(there + 1, settings.sample_accounts + 1, 2_000):
        numbers = range(first, min(first + 2_000, settings.sample_accounts + 1))
        accounts = [_account(f"bench-{n}", f"Bench {n}", "UTC", Role.FREELANCER, now) for n in numbers]
        store.write(lambda unit, made=accounts: add_freelancers(unit, made, settings.plan_name, BENCH_ALLOWANCE, settings.consent_version, now))  # type: ignore[misc]


def _fill(unit: Unit, settings: Settings, now: datetime, others: Sequence[Life]) -> None:
    chats = tomllib.loads(CHATS.read_text("utf-8"))["chat"]
    lives = list(others)
    for place, person in enumerate(PEOPLE):
        # A minute apart, so that the list of people keeps this order; long ago, so that the plan is older than the first message.
        account = _account(person.subject, person.name, person.zone, person.role, now - timedelta(days=100, minutes=-place))
        past = _Past(unit, settings, person, account, now)
        lives.append(past.life([chat for chat in chats if chat["who"] == person.subject]))
    add_lives(unit, lives, _model_at, PROMPT_VERSION)
    unit.append_audit("sample", "samples.made", now, reason=f"{len(lives)} made-up accounts")


def _account(subject: str, name: str, zone: str, role: Role, at: datetime) -> Account:
    return Account(secrets.token_hex(16), ISSUER, subject, name, None, zone, True, at, frozenset({role}))


def _model_at(at: datetime) -> str:
    return "gpt-4" if at < GPT_4_ENDED else "gpt-4.1"


# --- The others -------------------------------------------------------------------------------------------------------


def scene(settings: Settings, now: datetime) -> Scene:
    """The months that demo mode shows: with the same figures as for real people, and the model that is first on the list."""
    card, s = FALLBACK_CARD, settings
    words = (ROOT / "data" / "prompts" / f"system-{PROMPT_VERSION}.md").read_text("utf-8").strip()
    sizes = Sizes(
        instructions=tokens.count_turns((Turn("system", words),), card.tokenizer),
        note_max=s.note_max_tokens,
        history=s.history_tokens,
        answer=min(s.answer_tokens, card.output_limit),
        answer_min=min(s.answer_min_tokens, s.answer_tokens),
        prompt=s.prompt_tokens,
        context=card.context,
        output_limit=card.output_limit,
    )
    return Scene(SEED, sizes, s.allowance_tokens, now, DAYS, s.plan_name, s.consent_version, s.history_more_tokens)


def _freelancer(made: MadeUp) -> Life:
    account = _account(f"freelancer-{made.number + 1}", f"Freelancer {made.number + 1}", made.books.zone, Role.FREELANCER, made.joined_at)
    return Life(account, made.books)


# --- Those with names -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Planned:
    """A send that a named person is to have made: its tokens, and what can still be read of it."""

    at: datetime
    tokens_in: int
    tokens_out: int
    resent: int
    state: AnswerState = AnswerState.FINISHED
    words: Words | None = None

    @property
    def total(self) -> int:
        return self.tokens_in + self.tokens_out


class _Past:
    """What one person did since they began: the chats that can still be read, and the use that is left of deleted ones.

    How much they use in each cycle is given, so sizes are planned to come to it; each send then goes through the rules.
    """

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
        self._sizes = Sizes(
            instructions=self._tokens(INSTRUCTIONS), note_max=0, history=self._tokens(2_000), answer=self._tokens(1_500),
            answer_min=self._tokens(500), prompt=self._tokens(6_000), context=self._tokens(8_192), output_limit=self._tokens(8_192),
        )  # fmt: skip
        self._random = random.Random(person.subject)  # noqa: S311 - the same people look the same after each reset

    def life(self, chats: Sequence[dict[str, Any]]) -> Life:
        """Chats and their titles are written; the rest is handed back, to be written in the order of everybody's time."""
        person, account, settings = self._person, self._account, self._settings
        books, words = Books(account.id, person.zone, self._sizes), {}
        if person.plan:
            books.entitle(account.created_at, settings.plan_name, settings.allowance_tokens)
        if person.shares:
            books.consent(self._first - timedelta(minutes=5), settings.consent_version, True)
            for request, (planned, last) in enumerate(self._plan(chats)):
                self._send(books, request, planned, last)
                if planned.words is not None:
                    words[request] = planned.words
            books.pass_to(self._until)
        if person.ended is not None:
            books.end_plan(self._now - timedelta(days=person.ended))
        return Life(account, books, words)

    def _send(self, books: Books, request: int, planned: _Planned, last: bool) -> None:
        """One planned send by the rules. They say yes to it: that is what it was planned for."""
        at = max([planned.at, *(running.ends_at + timedelta(seconds=5) for running in books.running)])
        draft = planned.tokens_in - planned.resent - self._sizes.instructions
        decision = books.decide(at, draft, [planned.resent] if planned.resent else [], self._settings.consent_version)
        assert isinstance(decision, Accepted) and (decision.kind is SendKind.LAST) == last, f"{self._person.subject}: {decision}"
        whole = planned.state in (AnswerState.FINISHED, AnswerState.LENGTH)
        claimed = (planned.tokens_in, planned.tokens_out) if whole else None
        seconds = 3 + planned.tokens_out / 55
        books.accept(at, decision, Produced(planned.state, planned.tokens_out, claimed, self._random.randrange(350, 1_900), seconds), request, request)

    def _plan(self, chats: Sequence[dict[str, Any]]) -> Iterator[tuple[_Planned, bool]]:
        """Every send in the order of time, and whether it is the last of its cycle."""
        readable = [planned for chat in chats for planned in self._chat(chat)]
        cycles = list(self._cycles())
        for cycle, share in zip(cycles[-len(self._person.shares) :], self._person.shares[-len(cycles) :], strict=True):
            yield from self._in_cycle(cycle, share, [planned for planned in readable if cycle.starts_at <= planned.at < cycle.ends_at])

    def _cycles(self) -> Iterator[Cycle]:
        cycle = cycle_at(self._anchor, self._first)
        while cycle.starts_at <= self._until:
            yield cycle
            cycle = cycle_at(self._anchor, cycle.ends_at)

    def _chat(self, chat: dict[str, Any]) -> Iterator[_Planned]:
        """One chat of the file as sends; its row and its title are written."""
        who, chat_id = self._account.id, secrets.token_hex(16)
        begun = max(self._now - timedelta(days=chat["days_ago"]), self._first)
        self._unit.add_chat(who, chat_id, begun)
        follows: str | None = None
        history = 0
        for number, turn in enumerate(chat["turn"]):
            you, answer = turn["you"].strip(), turn["answer"].strip()
            words = Words(chat_id, follows, secrets.token_hex(16), secrets.token_hex(16), request_id(who, chat_id, follows, you), you, answer)
            resent = self._tokens(min(history, 2_000)) if history else 0
            tokens_in, tokens_out = self._tokens(INSTRUCTIONS) + resent + self._tokens(_count(you)), self._tokens(_count(answer))
            yield _Planned(begun + timedelta(minutes=5 * number), tokens_in, tokens_out, resent, AnswerState(turn.get("state", "finished")), words)
            if number == 0:
                typed = chat.get("title")
                self._unit.add_title(who, chat_id, clean_title(typed) if typed else title_from(you), begun, None if typed else words.question_id)
            follows, history = words.answer_id, history + _count(you) + _count(answer)

    def _in_cycle(self, cycle: Cycle, share: float, readable: list[_Planned]) -> Iterator[tuple[_Planned, bool]]:
        """The readable sends, and as many of deleted chats as bring the cycle to its share; one that used all ends with its last message."""
        allowance, sizes = self._settings.allowance_tokens, self._sizes
        begins, ends = max(cycle.starts_at, self._first), min(cycle.ends_at, self._until)
        last = share >= 1 and allowance <= 200_000
        # What an ordinary send needs beside itself, so that none of them is the last before it is meant to be.
        spare = sizes.smallest_send(allowance) + sizes.answer + DRAFT_AT_LEAST
        target = min(int(allowance * share), int(200_000 * share), allowance - spare) - sum(planned.total for planned in readable)
        lengths = list(self._lengths(target))
        times = self._times(begins, ends - timedelta(minutes=30), len(lengths))
        sends = sorted([*readable, *(self._deleted(at, length) for at, length in zip(times, lengths, strict=True))], key=lambda planned: planned.at)
        yield from ((planned, False) for planned in sends)
        if last:
            longest = sizes.answer + DRAFT_AT_LEAST - sizes.answer_min + self._tokens(50)  # with less it would still be an ordinary one
            yield _Planned(max([ends - timedelta(minutes=9), *(p.at for p in sends)]), longest, self._tokens(600), 0), True

    def _lengths(self, total: int) -> Iterator[int]:
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

    def _deleted(self, at: datetime, size: int) -> _Planned:
        tokens_out = max(1, min(int(size * self._random.uniform(0.18, 0.34)), self._tokens(1_400)))
        tokens_in = max(1, size - tokens_out)
        return _Planned(at, tokens_in, tokens_out, min(tokens_in // 3, self._tokens(2_000)))

    def _tokens(self, count: int) -> int:
        return max(1, int(count * self._scale))


def _count(text: str) -> int:
    """About how many tokens a text has: near enough for a made-up receipt."""
    return -(-len(text) // 4)
