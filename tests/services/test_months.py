"""Made-up months, sent once more through the real service: the books kept in memory and the rows in the store have to be the same.

The generator calls the rules of the domain itself; what could still part the two is what stands around them (when a row is written, which
cycle pays, what is offered as history). Here each made-up send is made again, with words of the same size, and every row is compared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from chatpro.bootstrap import House
from chatpro.domain import months
from chatpro.domain.accounts import Entitlement
from chatpro.domain.books import PastCall, PastRefusal
from chatpro.domain.months import AROUND, MadeUp, Scene
from chatpro.models.scripted import Ended, Hold, ScriptedModel, ScriptedSource, Spent
from chatpro.services.answering import AskLast, NotSent, Sent
from tests.cast import PLAN, TODAY, person
from tests.conftest import trials
from tests.running import assert_books_agree, running, until

ALLOWANCE = 30_000
"""Some fifteen messages: a few weeks of one person reach every warning, a last message and a new cycle."""


def words(tokens: int) -> str:
    """So many tokens in each vocabulary."""
    return " ".join(["a"] * tokens)


class Replay:
    """One made-up account, lived again by Mara."""

    def __init__(self, house: House, model: ScriptedModel, made: MadeUp) -> None:
        self.house, self.model, self.made = house, model, made
        house.accounts.set_zone(person(house, "mara"), made.books.zone)
        self.mara, self.ada = person(house, "mara"), person(house, "ada")
        self.chats: dict[str, str] = {}
        self.newest: dict[str, str] = {}

    def live(self) -> None:
        """Everything that was written in the books, in the order of its time; at the same instant a change comes before a send."""
        books = self.made.books
        steps: list[tuple[datetime, int, Callable[[], None]]] = []
        steps += [(row.recorded_at, 0, partial(self._entitle, row)) for row in books.entitlements]
        steps += [(row.at, 0, partial(self._consent, row.given)) for row in books.consents]
        steps += [(row.at, 0, partial(self._limit, row.tokens)) for row in books.own_limits]
        steps += [(at, 0, partial(self._remember, chat)) for chat, at in self.made.remembering]
        steps += [(call.asked_at, 1, partial(self._call, call)) for call in books.calls]
        steps += [(refusal.at, 1, partial(self._refusal, refusal)) for refusal in books.refusals]
        for at, _, step in sorted(steps, key=lambda step: step[:2]):
            self.house.now.at = at  # type: ignore[attr-defined]
            step()

    def _entitle(self, row: Entitlement) -> None:
        if row.ends_at is None:
            self.house.accounts.entitle(self.ada, self.mara.id, row.plan, row.allowance)
        else:
            self.house.accounts.end_plan(self.ada, self.mara.id)

    def _consent(self, given: bool) -> None:
        self.house.accounts.opt_in(self.mara) if given else self.house.accounts.opt_out(self.mara)

    def _limit(self, tokens: int | None) -> None:
        self.house.accounts.lift_own_limit(self.mara) if tokens is None else self.house.accounts.set_own_limit(self.mara, tokens)

    def _remember(self, chat: int) -> None:
        self.house.answering.remember_more(self.mara, self.chats[f"chat {chat}"], True)

    def _call(self, call: PastCall) -> None:
        got, cost, gate = call.accepted, call.cost, threading.Event()
        draft = got.prompt_tokens - got.resent_tokens - self.made.books.sizes.instructions - AROUND
        usage = (Spent(cost.tokens_in, cost.tokens_out + cost.over_reserved),) if cost.counted == "measured" else ()
        reason = "length" if call.state == "length" else "stop"
        self.model.queue((Hold(gate), words(cost.tokens_out + cost.over_reserved), *usage, Ended(reason)))  # type: ignore[arg-type]
        sent = self._send(f"chat {call.chat}", words(draft))
        assert isinstance(sent, Sent)
        assert (sent.kind, sent.left_out, sent.shortened) == (got.kind, got.left_out, got.shortened)
        self.house.now.at = call.ended_at  # type: ignore[attr-defined]
        gate.set()
        until(lambda: self.house.answering.watch(self.mara.id, sent.answer_id) is None)
        self.newest[sent.chat_id] = sent.answer_id

    def _refusal(self, refusal: PastRefusal) -> None:
        sizes = self.made.books.sizes
        if refusal.reason != "own_limit":  # what it wanted has history in it, so the draft is not known from it; it is tried in test_own_limit
            draft = refusal.wanted - sizes.instructions - sizes.answer - AROUND
            assert isinstance(self._send(f"draft {refusal.draft}", words(draft)), NotSent)

    def _send(self, name: str, text: str) -> Sent | NotSent:
        chat = self.chats.setdefault(name, self.house.answering.new_chat_id())
        outcome = self.house.answering.send(self.mara, chat, text, self.newest.get(chat))
        if isinstance(outcome, AskLast):
            outcome = self.house.answering.send(self.mara, chat, text, self.newest.get(chat), outcome.yes)
        assert isinstance(outcome, Sent | NotSent)
        return outcome


def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lives full of changes, in which everything is sent once and ends by itself: what breaks off is tried in test_answering."""
    for name in ("FAILS", "CUT", "INTERRUPTED", "ASIDE", "ANOTHER", "NEVER_SAYS_YES"):
        monkeypatch.setattr(months, name, 0.0)
    for name in ("ENDS", "IS_RAISED", "IS_LOWERED", "OPTS_OUT", "RAISED_AT_ONCE", "SETS_A_LIMIT"):
        monkeypatch.setattr(months, name, 0.2)
    monkeypatch.setattr(MadeUp, "_part", lambda self, produced: produced)


@pytest.mark.trials
def test_the_service_keeps_the_same_books_as_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry, warning and refusal of made-up weeks comes out the same through the real service and its store: figures, kinds, instants."""
    simple(monkeypatch)
    for number in range(trials(2, 12)):
        model = ScriptedModel()
        with running(tmp_path / str(number), ScriptedSource(model)) as house:
            more = house.settings.history_more_tokens
            made = interesting(number, Scene(41, house.answering.sizes(), ALLOWANCE, TODAY, 60, plan=PLAN, history_more=more))
            replay = Replay(house, model, made)
            replay.live()

            books, mara = made.books, replay.mara
            entries = [
                (e.cycle_starts_at, e.receipt.tokens_in, e.receipt.tokens_out, e.receipt.tokens_resent, e.receipt.counted, e.receipt.over_reserved, e.at)
                for e in reversed(house.accounts.receipts(mara))
            ]
            assert entries == [
                (c.cycle.starts_at, c.cost.tokens_in, c.cost.tokens_out, min(c.accepted.resent_tokens, c.cost.tokens_in), c.cost.counted,
                 c.cost.over_reserved, c.ended_at)
                for c in books.calls
            ]  # fmt: skip
            given = [(w.cycle_starts_at, w.kind, w.allowance, w.at) for w in house.accounts.warnings(mara)]
            assert given == [(w.cycle.starts_at, w.kind, w.allowance, w.at) for w in books.warnings]
            refused = house.store.read(lambda rows, who=mara.id: rows.refusals(who))  # type: ignore[misc]
            made_refusals = [r for r in books.refusals if r.reason != "own_limit"]
            assert [(reason, wanted, at) for reason, wanted, _, at in refused] == [(r.reason, r.wanted, r.at) for r in made_refusals]
            assert len({draft for _, _, draft, _ in refused}) == len({r.draft for r in made_refusals})
            assert list(books.recent) == house.store.read(lambda rows, who=mara.id: rows.recent_totals(who))  # type: ignore[misc]
            assert house.store.read(lambda rows, who=mara.id: rows.anchor(who)) == books.anchor  # type: ignore[misc]
            assert_books_agree(house, mara)


def interesting(number: int, scene: Scene) -> MadeUp:
    """The so-manieth life in which an allowance was used up and something was refused, not too long to be lived again."""
    found = -1
    for place in range(10_000):
        made = MadeUp(place, scene)
        made.run(scene.until)
        kinds = {w.kind for w in made.books.warnings}
        found += 25 < len(made.books.calls) < 60 and "last_message" in kinds and bool(made.books.refusals) and len(made.books.counters) > 1
        if found == number:
            return made
    raise AssertionError("no such life")
