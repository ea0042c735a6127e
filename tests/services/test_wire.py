"""Faults at the wire, through the whole engine into the ledger: one entry each, nothing charged where no text came, and trying again works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chatpro.bootstrap import House
from chatpro.config import Settings
from chatpro.domain.chats import AnswerState
from chatpro.errors import Problem
from chatpro.models.openai import OpenAISource
from chatpro.services.answering import Sent
from tests.cast import build_house, person
from tests.running import assert_books_agree, ended, send, started, until
from tests.upstream import CUT, DONE, HANG, Reply, Upstream, answer, event, said, status, stream

WORDS = "Dear client, thank you for the quick reply."
HALF = "Dear client, thank"


@dataclass(frozen=True)
class Fault:
    """What the provider sends, and what has to come of it. `counted` None: nothing was charged."""

    replies: tuple[Reply, ...]
    state: AnswerState
    problem: Problem | None = None
    text: str = ""
    counted: str | None = None


WELL, FAILED, PART = AnswerState.FINISHED, AnswerState.FAILED, AnswerState.CUT
FAULTS = {
    "429 that names a wait": Fault((status(429, headers={"Retry-After": "0"}), answer(WORDS, usage=(400, 12))), WELL, None, WORDS, "measured"),
    "429 that names none": Fault((status(429), answer(WORDS, usage=(400, 12))), WELL, None, WORDS, "measured"),
    "429 for longer than anybody waits": Fault((status(429, headers={"Retry-After": "600"}),), FAILED, Problem.RATE_LIMITED),
    "429 each time": Fault((status(429, headers={"Retry-After": "0"}),) * 2, FAILED, Problem.RATE_LIMITED),
    "500 once": Fault((status(500), answer(WORDS, usage=(400, 12))), WELL, None, WORDS, "measured"),
    "500 each time": Fault((status(500, headers={"Retry-After": "0"}),) * 2, FAILED, Problem.UNAVAILABLE),
    "no first word in time": Fault((stream(HANG),), FAILED, Problem.NO_FIRST_TOKEN),
    "a connection that hangs": Fault((stream(said(HALF), HANG),), PART, Problem.SILENT, HALF, "estimated"),
    "a stream cut in the middle": Fault((stream(said(HALF), CUT),), PART, Problem.CUT, HALF, "estimated"),
    "a stream cut before any text": Fault((stream(said(""), CUT),), FAILED, Problem.CUT),
    "garbage events": Fault((stream(said(HALF), b"data: {broken\n\n", DONE),), PART, Problem.GARBLED, HALF, "estimated"),
    "nothing but garbage": Fault((stream(event({"choices": "none"}), DONE),), FAILED, Problem.GARBLED),
    "no usage": Fault((answer(WORDS, usage=None),), WELL, None, WORDS, "estimated"),
    "absurd usage": Fault((answer(WORDS, usage=(-3, 10**12)),), WELL, None, WORDS, "estimated"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Upstream]]:
    """One house and one provider for all: what a fault leaves behind would be found by the next."""
    with Upstream() as upstream:
        source = OpenAISource(Settings(openai_api_key="made-up", openai_base_url=upstream.address, connect_seconds=2.0))
        patience = {"first_token_seconds": 0.5, "silence_seconds": 0.5, "answer_seconds": 20.0, "waiting_seconds": 5.0}
        house = build_house(tmp_path_factory.mktemp("wire"), model=source, retries=1, save_seconds=0.05, shutdown_seconds=0.2, **patience)
        with started(house):
            until(lambda: source.model)
            yield house, upstream


@pytest.mark.fault(33, 34, 35, 36)
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_at_the_wire_is_charged_as_it_should_be_and_can_be_tried_again(shared: tuple[House, Upstream], name: str) -> None:
    """What came is kept and charged, by the provider's figures or by ours; what did not come costs nothing; the next try is answered."""
    (house, upstream), fault = shared, FAULTS[name]
    upstream.forget()
    upstream.queue(*fault.replies)
    mara = person(house, "mara")
    before = len(house.accounts.receipts(mara))

    sent = send(house, mara, "Go")
    message = ended(house, mara, sent)

    facts = message.answer
    assert facts is not None and facts.receipt is not None
    assert (facts.state, facts.problem, message.text) == (fault.state, fault.problem.value if fault.problem else None, fault.text)
    assert len(upstream.asked) == len(fault.replies)
    assert len(house.accounts.receipts(mara)) == before + 1
    if fault.counted is None:
        assert facts.receipt.total == 0
    else:
        assert facts.receipt.counted == fault.counted and 0 < facts.receipt.total < 2_000 and facts.receipt.over_reserved == 0
    if fault.state is not WELL:
        again = house.answering.again(mara, sent.chat_id, message.parent_id or "", message.sequence)
        assert isinstance(again, Sent) and ended(house, mara, again).text == "Dear client, thank you."
    assert_books_agree(house, mara)
