"""Puts the house together: settings → store → services. The only place that knows every room.

One house per process. Pages reach it through `house()`; tests install one of their own with `install()`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from chatpro import sample, tokens
from chatpro.config import Settings
from chatpro.models import ModelSource
from chatpro.models.cards import Cards
from chatpro.services.accounts import Accounts
from chatpro.services.analytics import Analytics
from chatpro.services.answering import Answering
from chatpro.services.export import Export
from chatpro.services.history import History
from chatpro.services.housekeeping import Housekeeping
from chatpro.storage import Store
from chatpro.storage.analytics import Copy
from chatpro.storage.duckdb import DuckStore

log = logging.getLogger("chatpro")


@dataclass(frozen=True)
class House:
    """Everything that lives as long as the process."""

    settings: Settings
    store: Store
    model: ModelSource
    cards: Cards
    accounts: Accounts
    history: History
    export: Export
    answering: Answering
    analytics: Analytics
    housekeeping: Housekeeping
    now: Callable[[], datetime]


_house: House | None = None


def house() -> House:
    """The house of this process. Raises RuntimeError before it was built: a page ran without the server's start."""
    if _house is None:
        raise RuntimeError("the server was not started through app.py")
    return _house


def install(built: House | None) -> None:
    """Make this the house of the process (None: there is none any more)."""
    global _house
    _house = built


def utc_now() -> datetime:
    """The clock, in UTC."""
    return datetime.now(UTC)


def build(settings: Settings, source: ModelSource | None = None, now: Callable[[], datetime] = utc_now) -> House:
    """Open the store (migrated, locked, checked) and make the services. Nothing runs yet.

    Raises StoreInUse, StoreDamaged, ConfigError: each a sentence for whoever starts the program.
    """
    tokens.warm()
    store = DuckStore(settings.store_dir / "chatpro.duckdb", memory=settings.store_memory, threads=settings.store_threads, now=now)
    copy = Copy(settings.store_dir / "analytics.duckdb")
    cards = Cards()
    model = source or model_source(settings, cards)
    accounts = Accounts(store, settings, now)
    answering = Answering(store, settings, model, now)
    history = History(store, settings, now)
    accounts.on_stopped.append(answering.stop_account)
    accounts.on_closed.append(answering.forget_account)
    history.on_deleted.append(answering.stop_chat)
    history.answered = answering.running_chats
    if settings.demo:
        sample.fill(store, settings, now())
    housekeeping = Housekeeping(store, copy, answering, settings, now)
    return House(settings, store, model, cards, accounts, history, Export(store, settings, now), answering, Analytics(copy, now), housekeeping, now)


def model_source(settings: Settings, cards: Cards) -> ModelSource:
    """OpenAI or a compatible server where one is configured, else the local model."""
    if settings.needs_local_model:
        from chatpro.models.local import LocalSource

        return LocalSource(settings, cards)
    from chatpro.models.openai import OpenAISource

    return OpenAISource(settings, cards)


async def start(built: House) -> None:
    """Settle what a dead process left, take out text that is late, find the model, let answers run on this loop, begin to keep house."""
    await asyncio.to_thread(built.answering.recover)
    await asyncio.to_thread(built.housekeeping.purge_late)
    await built.model.start()
    built.answering.start(asyncio.get_running_loop())
    built.housekeeping.start(asyncio.get_running_loop())


async def stop(built: House) -> None:
    """Let running answers end within their grace, settle the rest, close everything. Safe to call twice."""
    await built.answering.close()
    await built.housekeeping.close()
    await built.model.close()
    await asyncio.to_thread(built.analytics.close)
    await asyncio.to_thread(built.store.close)
