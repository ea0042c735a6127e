"""The cast: made-up people with names, and a whole house on a store of its own, for any test that needs somebody to be somebody.

Without it every test invents its own freelancer, and each of them forgets something (the consent, the anchor, the counter
that must agree with the ledger). Everybody is written through the store's own verbs, so a reconcile finds nothing to mend.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.config import Settings
from chatpro.domain.accounts import Account, Role, grant_at
from chatpro.domain.allowance import Accepted, Anchor, Charge, SendKind, cycle_at, warnings_due
from chatpro.domain.chats import AnswerState, request_id, title_from
from chatpro.models import ChatModel, Ended, Event, ModelCard, ModelSource, Piece, Prompt, Spent
from chatpro.storage import Unit

TODAY = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)

NAMES: dict[str, tuple[str, frozenset[Role]]] = {
    "mara": ("Mara Lindqvist", frozenset({Role.FREELANCER})),
    "tomas": ("Tomás Ferreira", frozenset({Role.FREELANCER})),
    "nia": ("Nia Okonkwo", frozenset({Role.FREELANCER})),
    "hal": ("Hal Brandt", frozenset({Role.FREELANCER})),
    "lea": ("Lea Moreau", frozenset({Role.FREELANCER})),
    "priya": ("Priya Raman", frozenset({Role.ANALYST})),
    "jude": ("Jude Okafor", frozenset({Role.SUPPORT})),
    "ana": ("Ana Petrova", frozenset({Role.APPROVER})),
    "otto": ("Otto Weiss", frozenset({Role.AUDITOR})),
    "ada": ("Ada Nowak", frozenset({Role.ADMIN})),
}
"""Mara has the plan and said yes. Tomás too, and has used nearly all of it. Nia never had the plan; Hal had it until twelve
days ago; Lea has it and was not asked yet. Priya, Jude, Ana, Otto and Ada hold one staff role each."""

PLAN = "Freelancer Plus"
ISSUER = "https://id.example"


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self, at: datetime = TODAY) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **delta: float) -> None:
        self.at += timedelta(**delta)


class Echo:
    """A model that answers with what it was told, at once."""

    name = "gpt-4"
    card = ModelCard("gpt-4", "GPT-4", 8192, 4096, "cl100k_base")

    async def stream(self, prompt: Prompt) -> AsyncIterator[Event]:
        text = f"You wrote: {prompt.turns[-1].text}"
        yield Piece(text)
        yield Spent(len(prompt.turns[-1].text) // 4 + 8, len(text) // 4 + 1)
        yield Ended("stop")


class Source:
    """A source that knows one model from the start, or none."""

    def __init__(self, model: ChatModel | None, *, is_local: bool = False, trouble: str | None = None) -> None:
        self.model = model
        self.is_local = is_local
        self.trouble = trouble

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


def build_house(tmp_path: Path, *, model: ChatModel | ModelSource | None = None, now: Callable[[], datetime] | None = None, **settings: Any) -> House:
    """A house on a fresh store with the whole cast in it and nobody else. Nothing runs: `bootstrap.start` is the test's to call.

    `model` may be a model or a source; without one it is Echo. `now` defaults to a Clock at TODAY (`house.now` is that clock).
    """
    given = {"demo_dir": tmp_path / "demo", "data_dir": tmp_path / "var", "weights_dir": tmp_path / "weights", "models": ("gpt-4",), **settings}
    source: ModelSource = model if model is not None and hasattr(model, "is_local") else Source(model or Echo())  # type: ignore[assignment,arg-type]
    house_settings, clock = Settings(**given), now or Clock()
    shutil.copytree(_cast_at(house_settings, clock()), house_settings.store_dir, dirs_exist_ok=True)
    with mock.patch("chatpro.sample.fill"):
        return bootstrap.build(house_settings, source, clock)


_stores: dict[tuple[object, ...], tempfile.TemporaryDirectory[str]] = {}


def _cast_at(settings: Settings, at: datetime) -> Path:
    """The folder of a closed store with the cast in it, to be copied. Making it takes three times as long, and hundreds of tests want one."""
    written = (settings.demo, settings.allowance_tokens, settings.consent_version, at)
    if written not in _stores:
        _stores[written] = tempfile.TemporaryDirectory(prefix="cast-")
        folder = Path(_stores[written].name)
        with mock.patch("chatpro.sample.fill"):
            house = bootstrap.build(replace(settings, demo_dir=folder, data_dir=folder), Source(None), Clock(at))
        house.store.write(lambda unit: _enter(unit, house))
        spend(house, person(house, "tomas"), 193_640)
        write_chat(house, person(house, "hal"), ("How do I word a late fee", "Name the day and the amount."), at=at - timedelta(days=20))
        house.store.close()
        house.analytics.close()
    return Path(_stores[written].name)


def person(house: House, name: str) -> Account:
    """One of the cast, as the store has them now."""
    issuer = "sample" if house.settings.demo else ISSUER
    account = house.store.read(lambda rows: rows.account_by_subject(issuer, name))
    assert account is not None, f"{name} is not in the cast"
    return account


def _enter(unit: Unit, house: House) -> None:
    now, demo = house.now(), house.settings.demo
    made = now - timedelta(days=110)
    for name, (full, roles) in NAMES.items():
        zone = "Europe/Stockholm" if name == "mara" else "UTC"
        account = Account(secrets.token_hex(16), "sample" if demo else ISSUER, name, full, f"{name}@example.com", zone, demo, made, roles)
        unit.add_account(account)
        if name in ("mara", "tomas", "hal", "lea"):
            ends = now - timedelta(days=12) if name == "hal" else None
            unit.add_entitlement(account.id, PLAN, house.settings.allowance_tokens, now - timedelta(days=100), ends, made)
        if name in ("mara", "tomas", "hal"):
            unit.add_consent(account.id, house.settings.consent_version, True, now - timedelta(days=95))


def spend(house: House, account: Account, tokens: int, at: datetime | None = None) -> str:
    """Use up this many tokens of the account's allowance in one answered message, warnings included. Returns the chat's id."""
    return write_chat(
        house, account, ("Where were we", "At the milestones."), at=at or house.now() - timedelta(days=2), tokens=(tokens - tokens // 4, tokens // 4)
    )


def write_chat(
    house: House, account: Account, *exchanges: Sequence[str], title: str | None = None, at: datetime | None = None, tokens: tuple[int, int] = (300, 200)
) -> str:
    """A chat of answered messages, each settled and charged `tokens` (in, out). Write an account's chats in the order of their time. Returns its id."""
    when, chat_id = at or house.now(), secrets.token_hex(16)

    def work(unit: Unit) -> None:
        unit.add_chat(account.id, chat_id, when)
        parent = None
        for number, (question, answer) in enumerate(exchanges):
            parent = _exchange(unit, account, chat_id, parent, question, answer, when + timedelta(seconds=number), tokens, first=number == 0)
        if title is not None:
            unit.add_title(account.id, chat_id, title, when)

    house.store.write(work)
    return chat_id


def _exchange(
    unit: Unit, account: Account, chat_id: str, parent: str | None, question: str, answer: str, at: datetime, tokens: tuple[int, int], *, first: bool
) -> str:
    question_id, answer_id, reservation_id = (secrets.token_hex(16) for _ in range(3))
    unit.add_message(account.id, question_id, chat_id, parent, "freelancer", question, at)
    if first:
        unit.add_title(account.id, chat_id, title_from(question), at, question_id)

    entitlement = grant_at(unit.entitlements(account.id), at).entitlement
    assert entitlement is not None, "only who has or had the plan can have written"
    anchor = unit.anchor(account.id)
    if anchor is None:
        anchor = Anchor(at.astimezone(ZoneInfo(account.zone)).date(), account.zone)
        unit.add_anchor(account.id, anchor, at)
    cycle = cycle_at(anchor, at)
    unit.open_cycle(account.id, cycle)

    accepted = Accepted(SendKind.ORDINARY, 0, tokens[0], 0, tokens[1], sum(tokens), 0, False)
    request = request_id(account.id, chat_id, parent, question)
    assert unit.reserve(account.id, reservation_id, request, cycle, entitlement.allowance, 0, accepted, at, at + timedelta(minutes=6))
    unit.add_answer(account.id, answer_id, chat_id, question_id, request, 1, reservation_id, "gpt-4", "1", accepted, at)
    call = unit.call(answer_id)
    assert call is not None
    unit.end_answer(call, AnswerState.FINISHED, None, at)
    unit.fold_parts(call, answer)
    charge = Charge(*tokens, "measured", 0)
    unit.resolve(call, "settled", charge.total, at)
    unit.add_usage_entry(call, entitlement.plan, charge, 0, 400, 3_000, "finished", at)
    for kind in warnings_due(entitlement.allowance, unit.standing(account.id, cycle.starts_at, entitlement.allowance).used):
        unit.add_warning(account.id, cycle.starts_at, kind, entitlement.allowance, entitlement.plan, at)
    return answer_id
