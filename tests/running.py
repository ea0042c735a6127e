"""A house that runs: its engine on a loop of its own thread, as beside the pages, and small waits for what happens there.

Tests act from their own thread, as script runs do. Without this each test of the engine would be a coroutine and could not
show what a blocked or cancelled script does.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chatpro import bootstrap
from chatpro.bootstrap import House
from chatpro.domain.accounts import Account
from chatpro.domain.chats import AnswerState, Message
from chatpro.services.answering import Sent
from tests.cast import build_house


@contextmanager
def running(tmp_path: Path, model: Any = None, **settings: Any) -> Iterator[House]:
    """The house, started; it is stopped as the server would stop it."""
    house = build_house(tmp_path, model=model, **{"save_seconds": 0.05, "shutdown_seconds": 0.2, **settings})
    with started(house):
        yield house


@contextmanager
def started(house: House) -> Iterator[asyncio.AbstractEventLoop]:
    """Start a house that is built, on a loop in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(bootstrap.start(house), loop).result(PATIENCE)
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(bootstrap.stop(house), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


PATIENCE = 30.0
"""Seconds until a wait is given up. Only a failing test takes them, so they may be many: a busy machine pauses for long."""


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.005)
    raise AssertionError(f"did not become true within {seconds} seconds")


def send(house: House, account: Account, text: str, chat_id: str | None = None, follows: str | None = None) -> Sent:
    """Send and expect that it is accepted."""
    outcome = house.answering.send(account, chat_id or house.answering.new_chat_id(), text, follows)
    assert isinstance(outcome, Sent), outcome
    return outcome


def answer(house: House, account: Account, sent: Sent) -> Message:
    """The answer as the chat shows it now."""
    opened = house.history.open(account, sent.chat_id)
    return next(m for m in opened.messages if m.id == sent.answer_id)


def ended(house: House, account: Account, sent: Sent, seconds: float = PATIENCE) -> Message:
    """Wait for the answer's end, and return it."""
    until(lambda: house.answering.watch(account.id, sent.answer_id) is None, seconds)
    message = answer(house, account, sent)
    assert message.answer is not None and message.answer.state is not AnswerState.RUNNING
    return message


def assert_books_agree(house: House, account: Account) -> None:
    """Receipts = ledger = counter, nothing is pending, the audit's chain holds."""
    from chatpro.domain.disputes import first_broken

    assert house.store.read(lambda rows: rows.counters_that_differ()) == []
    meter = house.accounts.meter(account, house.answering.sizes())
    entries = house.accounts.receipts(account)
    if meter is not None and meter.cycle is not None:
        assert sum(e.receipt.total for e in entries if e.cycle_starts_at == meter.cycle.starts_at) == meter.used
        assert meter.reserved == 0
    assert house.store.read(lambda rows: first_broken(rows.audit_entries())) is None
