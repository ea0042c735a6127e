"""The generator of months: made-up accounts whose every send was decided, charged and warned of by the product's own rules.

Tests, sample data and benches all need months of use. Made up by each of them apart, they would show three products, and none of them
this one. So there is one generator: the rules are called (books.py), and what is made up is people: when they work, how much they write,
what they do when the end comes near. No text is made, only its size. The same seed makes the same months, and every account is made by
itself, so that one of ten thousand can be made again alone.

What is known of how people write, and stands behind the figures below:
- WildChat, a million conversations with GPT-3.5 and GPT-4 (arXiv 2405.01470, table 1): 2.5 messages a conversation, 3.7 % of them with
  more than ten; 296 tokens a message (standard deviation 1,609), 441 an answer (411). ShareGPT, what people found worth sharing: 3.5
  messages. A log-normal with WildChat's moments has its middle at 53 tokens, and a mean of 223 in what one prompt takes.
- How People Use ChatGPT (NBER 34255): 26 messages a person and week, 27 to 47 % of them for work, which is 30 to 53 a month; 40 % of
  messages at work are writing, and two thirds of those work on a text of the person's own.
- Our instructions ask for brief answers; those in data/sample are shorter than all of these.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from chatpro.domain.allowance import Accepted, SendKind, Sizes, Wait
from chatpro.domain.books import Books, Produced, Running
from chatpro.domain.chats import AnswerState

AROUND = 7
"""Tokens that are counted around each turn's words (chatpro/tokens.py)."""

PROVIDER_AROUND = 4
"""What the provider itself takes for them."""


# --- What is made up --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Persona:
    """How often somebody works with it. `chats`: chats begun or taken up again on a working day. `busy`, `idle`: mean days of a spell
    of work and of the pause after it; 0 for somebody without spells."""

    name: str
    share: float
    chats: float
    busy: float = 0.0
    idle: float = 0.0


PERSONAS = (
    Persona("occasional", 0.45, 0.22),
    Persona("steady", 0.30, 0.65),
    Persona("heavy", 0.13, 1.9),
    Persona("bursty", 0.12, 2.6, busy=6, idle=12),
)
"""Some 15, 45, 130 and 60 messages a month where the allowance lets them, 44 for all together: within the 30 to 53 of above."""

WEEKEND = 0.25
"""Work on a day of the weekend, of that on a working day."""


@dataclass(frozen=True)
class Work:
    """One kind of chat. `draft` and `answer`: median tokens and sigma of a log-normal; `messages`: the mean number in one sitting."""

    name: str
    share: float
    draft: tuple[float, float]
    answer: tuple[float, float]
    messages: float


WORK = (
    Work("ask", 0.45, (45, 0.9), (220, 0.75), 2.0),
    Work("write", 0.18, (130, 1.0), (380, 0.65), 3.5),
    Work("edit", 0.27, (550, 1.0), (350, 0.75), 3.2),
    Work("data", 0.10, (800, 1.1), (350, 0.75), 3.5),
)
"""Shares after the NBER paper: of ten chats two write something new, three work on a text that is pasted in, one on a table or code.
All together: drafts of 45 tokens in the middle and 210 in the mean, answers of 400, 3.2 messages a chat, 3.6 % of chats with more than ten."""

ALIKE = 3.0
"""How alike people's mixtures of these kinds are (a Dirichlet's concentration): a translator pastes, a consultant asks. At 3 the commonest
kind makes 60 % of somebody's chats, and all people together come to the shares above."""

FOLLOW_UP = (30, 1.0)
"""What is written after the first message: "shorter", "in English". The eighteen messages of data/sample have 26 and 0.9."""

PASTES_AGAIN, TAKES_UP = 0.15, 0.2
"""How often a later message brings new material, and how often somebody goes on in one of their last chats instead of a new one."""

ASIDE, ANOTHER, GOES_ON, TRIES_AGAIN = 0.03, 0.03, 0.5, 0.8
"""How often something is asked in a second chat while an answer is written; another answer to the same words is wanted; an answer that
ended at its limit is continued; a call that failed is tried again."""

FAILS, CUT, INTERRUPTED, GARBLED, GOES_OVER = 0.012, 0.004, 0.002, 0.006, 0.01
"""Calls without any text, cut in the middle, ended by a restart of the service; finished ones whose provider sent no usable figures, and
long ones where it went on past the limit it was given."""

BEFORE_THE_FIRST_WORD = 0.2
"""How often an answer that is stopped or interrupted has no text yet."""

NEVER_SAYS_YES, STAYS_AWAY = 0.06, 0.97
"""Who has the plan and never opts in; and how often somebody who can't send at all, and is told so by the page, does not try to."""

ENDS, IS_RAISED, IS_LOWERED, OPTS_OUT = 0.06, 0.04, 0.015, 0.025
"""How many lives with the plan have one such change in them. Half of the ended plans are resumed, most who opted out come back."""

REMEMBERS_MORE, SETS_A_LIMIT, LIFTS_IT = 0.05, 0.06, 0.6
"""How often a chat that goes beyond the model's memory is told to remember more; how many people set a limit of their own each month, and how
often they lift it where it is met."""

RAISED_AT_ONCE = 0.08
"""How often somebody who is told that nothing is left has the allowance raised within the hour."""

PATIENCE = 6
"""Times that one draft is tried in one sitting, waits and shortenings included."""

SHORTEST = AROUND + 20
"""A draft that would have to be shorter than that is given up."""

CONTINUE = AROUND + 5
"""The words that the product sends to have an answer continued."""

SPARE = timedelta(minutes=6)
"""Nothing is begun so short before the end that its answer (at most five minutes) would lie beyond it."""

SITTINGS = 2_000
"""More than anybody needs to fill an allowance: whoever sends nothing any more is not followed for ever."""

ZONES = (
    "Europe/London", "Europe/Berlin", "Europe/Madrid", "Europe/Warsaw", "Europe/Istanbul", "America/New_York", "America/Los_Angeles",
    "America/Sao_Paulo", "America/Mexico_City", "Africa/Lagos", "Africa/Casablanca", "Asia/Kolkata", "Asia/Manila", "Asia/Kathmandu",
    "Australia/Sydney", "Pacific/Auckland",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What all accounts of a run share: the seed, the figures of the rules, and the time: `days` that end at `until`."""

    seed: int
    sizes: Sizes
    allowance: int
    until: datetime
    days: int
    plan: str = "Freelancer Plus"
    consent_version: int = 1
    history_more: int = 0

    def accounts(self, count: int) -> Iterator[MadeUp]:
        """The first so many accounts, each with all its months."""
        for number in range(count):
            account = MadeUp(number, self)
            account.run(self.until)
            yield account


class _Traits(NamedTuple):
    """What is a person's own: how much they do and write, of what kind, and how they take the end of their allowance."""

    pace: float
    works: tuple[float, ...]
    drafts: float
    answers: float
    stops: float
    careful: bool
    saves_last: bool
    keeps_trying: float
    own_limit: float


class _Plan(NamedTuple):
    """Something that will happen to an account: a new figure (0 ends the plan), or a yes or no."""

    at: datetime
    allowance: int | None = None
    yes: bool | None = None


class _Chat:
    """A chat that goes on. `turns` are its latest entries in tokens, newest first, no more of them than a send would offer."""

    def __init__(self, number: int, work: Work) -> None:
        self.number = number
        self.work = work
        self.turns: list[int] = []
        self.tokens = 0
        self.more = False

    def add(self, tokens: int, budget: int) -> None:
        self.turns.insert(0, tokens)
        self.tokens += tokens
        while self.tokens - self.turns[-1] > budget:
            self.tokens -= self.turns.pop()

    def copy(self) -> _Chat:
        other = _Chat(self.number, self.work)
        other.turns, other.tokens, other.more = list(self.turns), self.tokens, self.more
        return other


class MadeUp:
    """One made-up account: a person with habits, and the books that come of them. `run` lets time pass."""

    def __init__(self, number: int, scene: Scene) -> None:
        rng = random.Random(f"{scene.seed}/{number}")  # noqa: S311 - the same seed has to make the same months
        self._scene = scene
        self._random = rng
        self.number = number
        self.persona = rng.choices(PERSONAS, [p.share for p in PERSONAS])[0]
        self.books = Books(str(number), rng.choice(ZONES), scene.sizes)
        self._zone = ZoneInfo(self.books.zone)
        self._traits = _Traits(
            pace=rng.lognormvariate(0, 0.35),
            works=tuple(rng.gammavariate(ALIKE * work.share, 1.0) for work in WORK),
            drafts=rng.lognormvariate(0, 0.3),
            answers=rng.lognormvariate(0, 0.2),
            stops=rng.betavariate(1, 25),
            careful=rng.random() < 0.3,
            saves_last=rng.random() < 0.25,
            keeps_trying=rng.random(),
            own_limit=rng.uniform(0.3, 0.9) if rng.random() < SETS_A_LIMIT else 0.0,
        )
        # The product grows: as many join on each day, and the last ones have had some weeks.
        self._day = (scene.until - timedelta(days=scene.days * rng.uniform(0.15, 1.0))).astimezone(self._zone).date()
        self.joined_at = self._clock = self._at_work(self._day)
        self._planned = sorted(self._plans())
        self._occasions = [self.joined_at + timedelta(minutes=15)]
        self._busy = True
        self._spell = self._spell_days()
        self._chats: list[_Chat] = []
        self._begun = self._requests = self._drafts = 0
        self._limited = -1
        self._end = scene.until - SPARE
        self._more = replace(scene.sizes, history=max(scene.sizes.history, scene.history_more))
        self.remembering: list[tuple[int, datetime]] = []
        """Chats that were told to remember more, and when."""
        self._hurried = False

    # --- time -------------------------------------------------------------------------------------------------------

    def run(self, until: datetime) -> None:
        """Everything that this person begins before an instant; what is being answered then has ended a little later."""
        while True:
            while self._occasions and self._occasions[-1] < until:
                self._sit_down(self._occasions.pop())
            if self._occasions or datetime.combine(self._day, time(), UTC) > until + timedelta(days=1):
                break
            self._day += timedelta(days=1)
            self._occasions = self._occasions_of(self._day)
        self._pass(until)
        if self.books.running:
            self._pass(self.books.running[-1].ends_at)

    def _occasions_of(self, day: date) -> list[datetime]:
        """When this person sits down to it on one day, latest first."""
        persona, rng = self.persona, self._random
        if persona.busy:
            self._spell -= 1
            if self._spell <= 0:
                self._busy = not self._busy
                self._spell = self._spell_days()
            if not self._busy:
                return []
        mean = persona.chats * self._traits.pace * (1.0 if day.weekday() < 5 else WEEKEND)
        times, passed = [], rng.expovariate(1.0)
        while passed < mean:  # a Poisson number of them
            times.append(self._at_work(day))
            passed += rng.expovariate(1.0)
        return sorted(times, reverse=True)

    def _at_work(self, day: date) -> datetime:
        """A moment of a local day, most likely in the late morning."""
        seconds = int(self._random.triangular(7.5, 21.0, 10.5) * 3_600)
        return datetime.combine(day, time(seconds // 3_600, seconds // 60 % 60, seconds % 60), self._zone).astimezone(UTC)

    def _spell_days(self) -> int:
        mean = self.persona.busy if self._busy else self.persona.idle
        return max(1, round(self._random.expovariate(1 / mean))) if mean else 0

    def _pass(self, until: datetime) -> None:
        """Answers end and plans change, in the order of their time."""
        while self._planned and self._planned[0].at <= until:
            at, allowance, yes = self._planned.pop(0)
            self.books.pass_to(at)
            if yes is not None:
                self.books.consent(at, self._scene.consent_version, yes)
            elif allowance:
                self.books.entitle(at, self._scene.plan, allowance)
            else:
                self.books.end_plan(at)
        self.books.pass_to(until)
        self._clock = max(self._clock, until)

    def _plans(self) -> Iterator[_Plan]:
        """The plan and the yes at the beginning, and for some a change later."""
        rng, joined, allowance = self._random, self.joined_at, self._scene.allowance
        later = joined + (self._scene.until - joined) * rng.random() + timedelta(hours=1)
        yield _Plan(joined, allowance=allowance)
        if rng.random() < NEVER_SAYS_YES:
            return
        yield _Plan(joined + timedelta(minutes=rng.uniform(2, 12)), yes=True)
        fate = rng.choices(("ends", "raised", "lowered", "out", ""), (ENDS, IS_RAISED, IS_LOWERED, OPTS_OUT, 1 - ENDS - IS_RAISED - IS_LOWERED - OPTS_OUT))[0]
        if fate == "ends":
            yield _Plan(later, allowance=0)
            if rng.random() < 0.5:
                yield _Plan(later + timedelta(days=rng.uniform(2, 35)), allowance=allowance)
        elif fate == "out":
            yield _Plan(later, yes=False)
            if rng.random() < 0.7:
                yield _Plan(later + timedelta(days=rng.uniform(1, 20)), yes=True)
        elif fate:
            yield _Plan(later, allowance=allowance * 3 // 2 if fate == "raised" else allowance // 2)

    # --- sitting down to it -----------------------------------------------------------------------------------------

    def _sit_down(self, at: datetime) -> None:
        """One chat, begun or taken up again: a message, its answer, some reading, the next message."""
        rng, at = self._random, max(at, self._clock)
        self._pass(at)
        if not self._hurried and not self._feels_like_it(at):
            return
        self._set_limit(at)
        chat = rng.choice(self._chats) if self._chats and rng.random() < TAKES_UP else self._new_chat()
        again = True
        while again:
            first = not chat.turns
            done = self._write(at, chat, self._draft(chat.work.draft if first or rng.random() < PASTES_AGAIN else FOLLOW_UP), self._wanted(chat.work))
            if done is None:
                return
            at = done + timedelta(seconds=150 * math.exp(rng.gauss(0, 0.9)))
            if not chat.more and chat.tokens > self._scene.sizes.history and rng.random() < REMEMBERS_MORE:
                chat.more = True
                self.remembering.append((chat.number, at))
            again = rng.random() > 1 / chat.work.messages

    def _feels_like_it(self, at: datetime) -> bool:
        """Whoever knows that nothing can be sent mostly stays away; some go easy once they were warned."""
        rng, books = self._random, self.books
        if books.allowance is None or not books.consents or not books.consents[-1].given:
            return rng.random() > STAYS_AWAY
        if books.closed(at):
            return rng.random() < 0.5 * self._traits.keeps_trying
        return not (self._traits.careful and books.counter_at(at).given and rng.random() < 0.4)

    def _set_limit(self, at: datetime) -> None:
        """Once in each cycle, by whoever sets one at all."""
        cycle = self.books.counter_at(at).cycle.number
        if self._traits.own_limit and cycle > self._limited and self.books.allowance is not None and not self._hurried:
            self._limited = cycle
            self.books.limit(at, int(self.books.allowance * self._traits.own_limit))

    def _new_chat(self) -> _Chat:
        chat = _Chat(self._begun, self._random.choices(WORK, self._traits.works)[0])
        self._begun += 1
        self._chats = [*self._chats[-4:], chat]
        return chat

    def _draft(self, size: tuple[float, float]) -> int:
        return self._lognormal(size, self._traits.drafts) + AROUND

    def _wanted(self, work: Work) -> int:
        return self._lognormal(work.answer, self._traits.answers)

    def _lognormal(self, size: tuple[float, float], factor: float) -> int:
        return max(2, int(size[0] * factor * math.exp(self._random.gauss(0, size[1]))))

    def _write(self, at: datetime, chat: _Chat, draft: int, wanted: int) -> datetime | None:
        """One message with its answer, and what a person does where that is not what they wanted. Returns when they are done with it,
        None when they leave it at that."""
        rng, budget, before, request = self._random, self._more.history, list(chat.turns), self._next_request()
        sent = self._send(at, chat, request, draft, wanted, before)
        if sent is None:
            return None
        running, draft = sent
        if rng.random() < ASIDE and not self._hurried:
            self._ask_aside(running.asked_at + timedelta(seconds=rng.uniform(2, 8)))
        while not running.produced.tokens and rng.random() < TRIES_AGAIN:
            sent = self._send(running.ends_at + timedelta(seconds=15), chat, request, draft, wanted, before, running.attempt + 1)
            if sent is None:
                return None
            running, draft = sent
        if running.produced.state is AnswerState.FINISHED and rng.random() < ANOTHER:
            sent = self._send(running.ends_at + timedelta(seconds=40), chat, self._next_request(), draft, self._wanted(chat.work), before)
            running = sent[0] if sent is not None and sent[0].produced.tokens else running
        chat.add(draft, budget)
        if running.produced.tokens:
            chat.add(running.produced.tokens + AROUND, budget)
        if running.produced.state is AnswerState.LENGTH and rng.random() < GOES_ON:
            return self._write(running.ends_at + timedelta(seconds=30), chat, CONTINUE, max(2, wanted - running.produced.tokens))
        return running.ends_at

    def _ask_aside(self, at: datetime) -> None:
        """A short question in another chat while an answer is being written."""
        chat = _Chat(self._begun, WORK[0])
        self._begun += 1
        self._send(at, chat, self._next_request(), self._draft(FOLLOW_UP), self._wanted(WORK[0]), [])

    # --- one send ---------------------------------------------------------------------------------------------------

    def _send(self, at: datetime, chat: _Chat, request: int, draft: int, wanted: int, history: list[int], attempt: int = 0) -> tuple[Running, int] | None:
        """One draft until it is accepted or given up: waited with, shortened, tried again, confirmed as the last or kept for later.
        Returns the call and the tokens of the draft that it became."""
        rng, number = self._random, self._next_draft()
        for _ in range(PATIENCE):
            at = max(at, self._clock)
            if at > self._end:
                return None
            self._pass(at)
            decision = self.books.decide(at, draft, history, self._scene.consent_version, self._more if chat.more else None)
            if isinstance(decision, Accepted):
                if decision.kind is SendKind.LAST and not self._says_yes(at, attempt):
                    return None
                return self.books.accept(at, decision, self._produced(decision, wanted), chat.number, request, attempt), draft
            if isinstance(decision, Wait):
                at = self.books.running[-1].ends_at + timedelta(seconds=5)
                continue
            self.books.refuse(at, decision, number)
            at += timedelta(seconds=55 * math.exp(rng.gauss(0, 1)))
            if decision.reason == "too_long":
                if decision.fits_now < SHORTEST or rng.random() < 0.2:
                    return None
                draft, number = max(SHORTEST, int(decision.fits_now * rng.uniform(0.5, 0.95))), self._next_draft()
            elif decision.reason == "own_limit" and rng.random() < LIFTS_IT:
                self.books.limit(at, None)
            elif decision.reason == "no_tokens" and rng.random() < RAISED_AT_ONCE and not self._hurried:
                self._raise(at + timedelta(minutes=20))
                return None
            elif rng.random() > 0.4:
                return None
        return None

    def _says_yes(self, at: datetime, attempt: int) -> bool:
        """To the last message of the cycle; asked once, also when it has to be tried again. Some keep it for what may still come."""
        standing = self.books.standing(at)
        if self._hurried or (attempt and standing is not None and standing.last_warned):
            return True
        if not self._traits.saves_last:
            return self._random.random() < 0.9
        days = (self.books.counter_at(at).cycle.ends_at - at) / timedelta(days=1)
        return self._random.random() < (0.15 if days > 3 else 0.7)

    def _raise(self, at: datetime) -> None:
        allowance = self.books.allowance
        if allowance is not None:
            self._planned = sorted([*self._planned, _Plan(at, allowance=allowance + self._scene.allowance // 2)])

    def _produced(self, accepted: Accepted, wanted: int) -> Produced:
        """What becomes of an answer of which so many tokens are wanted."""
        rng = self._random
        state, tokens = self._outcome(accepted.answer_limit, wanted)
        first_token, speed = 700 * math.exp(rng.gauss(0, 0.5)), 55 * math.exp(rng.gauss(0, 0.25))
        seconds = first_token / 1_000 + tokens / speed if tokens else 4 * math.exp(rng.gauss(0, 0.8))
        claimed = self._claimed(accepted, tokens) if state in (AnswerState.FINISHED, AnswerState.LENGTH) else None
        return Produced(state, tokens, claimed, int(first_token) if tokens else None, min(300.0, seconds))

    def _outcome(self, limit: int, wanted: int) -> tuple[AnswerState, int]:
        rng, produced = self._random, min(wanted, limit)
        chance = rng.random()
        if chance < FAILS:
            return AnswerState.FAILED, 0
        if chance < FAILS + CUT:
            return AnswerState.CUT, max(1, int(produced * rng.random()))
        if chance < FAILS + CUT + INTERRUPTED:
            return AnswerState.INTERRUPTED, self._part(produced)
        if rng.random() < self._traits.stops:
            return AnswerState.STOPPED, self._part(produced)
        if wanted <= limit:
            return AnswerState.FINISHED, produced
        return AnswerState.LENGTH, min(wanted, limit * 3 // 2) if rng.random() < GOES_OVER else limit

    def _part(self, produced: int) -> int:
        """What is there of an answer that did not come to its end: often nothing yet."""
        return 0 if self._random.random() < BEFORE_THE_FIRST_WORD else max(1, int(produced * self._random.random()))

    def _claimed(self, accepted: Accepted, produced: int) -> tuple[object, object]:
        """What the provider says it used: it counts less around each turn than we do, and now and then something that can't be."""
        if self._random.random() < GARBLED:
            return self._random.choice(((None, None), (0, 0), (10**12, produced), ("many", produced)))
        return accepted.prompt_tokens - (AROUND - PROVIDER_AROUND) * (accepted.history_kept + 2) + 3, produced

    def _next_request(self) -> int:
        self._requests += 1
        return self._requests

    def _next_draft(self) -> int:
        self._drafts += 1
        return self._drafts

    # --- what if ----------------------------------------------------------------------------------------------------

    def messages_to_the_full(self, at: datetime) -> int | None:
        """How many charged messages this account would still send in its cycle, if from now on it went on in its own way without a pause
        until the allowance is full, the last message included. None for one that can't send: without a plan or a yes, or closed.
        Nothing of the account changes."""
        standing = self.books.standing(at)
        if standing is None or self.books.closed(at) or not self.books.consents or not self.books.consents[-1].given:
            return None
        then = self._hurrying(at)
        counter = then.books.counters[0]
        for _ in range(SITTINGS):
            then._sit_down(then._clock + timedelta(minutes=10))
            then._pass(max([then._clock, *(r.ends_at for r in then.books.running)]))
            if standing.allowance in counter.closed_under:
                break
        return sum(1 for call in then.books.calls if call.cost.total)

    def _hurrying(self, at: datetime) -> MadeUp:
        """The same person in the same place, who does nothing else any more."""
        other = copy.copy(self)
        other._random = random.Random()  # noqa: S311 - set to where this one stands
        other._random.setstate(self._random.getstate())
        other.books = self.books.without_past(at)
        other._chats = [chat.copy() for chat in self._chats]
        other._planned, other._clock, other._hurried = [], at, True
        other._end = other.books.counters[0].cycle.ends_at
        return other
