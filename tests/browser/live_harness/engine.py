"""Scripted answers for the live component's tests: they grow when the test's HTTP call says so. Stands in for services/answering."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from chatpro.web.sockets import Sockets

ACCOUNT = "mara"


@dataclass
class Answer:
    id: str
    account_id: str = ACCOUNT
    text: str = ""
    done: bool = False
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    ahead: int | None = None

    async def more(self, seen: int, ahead: int | None = None) -> None:
        while len(self.text) <= seen and not self.done and self.ahead == ahead:
            future = asyncio.get_running_loop().create_future()
            self.waiting.append(future)
            await future

    def grow(self, words: str = "", done: bool = False) -> None:
        self.text += words
        self.done = self.done or done
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


answers: dict[str, Answer] = {}
order: list[str] = []
stopped: list[str] = []
ended: list[str] = []
runs = {"full": 0, "fragment": 0}

if first := os.environ.get("HARNESS_ANSWER"):  # what a restarted server knows from its store
    answers["a1"] = Answer("a1", text=first)
    order.append("a1")


def find(account_id: str, answer_id: str) -> Answer | None:
    answer = answers.get(answer_id)
    return answer if answer and answer.account_id == account_id else None


def stop(account_id: str, answer_id: str) -> None:
    stopped.append(answer_id)
    answers[answer_id].grow(done=True)


sockets = Sockets(find, stop, lambda account_id, epoch: True)
