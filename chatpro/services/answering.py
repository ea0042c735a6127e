"""From a send to a settled answer, outside any script run. The deepest room of the house.

An answer belongs to the server, not to the tab that asked for it: `send` decides, reserves and stores in one unit of work,
hands the call over to the server's loop and returns; pages only watch. What running answers add is saved in one batch a
second. However a call ends (finished, stopped, cut, cancelled before its first step, the process told to stop), its task's
done-callback settles it: Streamlit's StopException and asyncio's CancelledError are no `Exception`s, and a coroutine that is
cancelled before it began never reaches a `finally`, so neither may own a reservation. What a dead process left is settled
by `recover` at the next start.

When the process carries as many answers as it can, or a person as many as one may have, a send waits in a line that is fair
between people. It is decided and reserved when its turn comes; until then its text is a draft in the store.

Without this, a reload doubles or loses an answer, and a crash leaves tokens that nobody gets back.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path

from chatpro import tokens
from chatpro.config import ROOT, Settings
from chatpro.domain.accounts import Account, Grant, PlanState, Role, consents_to, figure_in_cycle, grant_at
from chatpro.domain.allowance import (
    Accepted,
    Anchor,
    Charge,
    Cycle,
    Decision,
    Refused,
    SendKind,
    Sizes,
    Wait,
    beyond_own_limit,
    charge,
    decide,
    own_limit_in,
    remembered,
    warnings_due,
    zone_named,
)
from chatpro.domain.chats import AnswerState, Message, clean_text, conversation, is_blank, path_to, readable_since, request_id, title_from
from chatpro.domain.line import Line
from chatpro.errors import Busy, ChatProError, ModelProblem, NotAllowed, NotFound, NotSendable, Problem, StoreUnavailable
from chatpro.models import ChatModel, Ended, ModelCard, ModelSource, Piece, Prompt, Spent, Turn
from chatpro.services.accounts import current_cycle
from chatpro.storage import Person, Store, Unit
from chatpro.storage.migrate import fault_point
from chatpro.storage.sql import Call

log = logging.getLogger("chatpro.answering")

PROMPT_VERSION = "1"
COUNT_EACH = 400
"""Characters between two looks at the length of a running answer that may be too long: about a hundred tokens, so a provider that ignores the limit
is cut soon after it. Before there are as many bytes as tokens are allowed nothing is counted: no token is less than a byte."""

PATIENCE_STEP = 0.5
"""Seconds of silence that may be told too late, so that not each word sets the clock anew."""

COSTS_KEPT = 50_000
"""Counts of entries' tokens kept in memory, some 8 MB, without a word of them."""

LIMIT_NET = 1.5
"""The provider keeps the answer limit, by its own count; vocabularies differ by up to a half. Beyond that it does not keep it, and we end the call.
Whatever it sends, nobody is charged more than was reserved."""


CONTINUE = "Continue exactly where you stopped."
GONE_ON = "This chat has gone on in another tab since. Load the page again to see it."
IN_CHAT = "An answer is being written in this chat. Stop it or wait for its end, then send this."
RESTART = "The service is about to restart. Your text is still here; send it again in a minute."
LINE_FULL = "The service is busy, and as many messages are waiting as it can hold. Your text is still here; try again in a moment."
WAITED = "The service is busy: no place came free in time, so nothing was sent. Your text is still here; try again in a moment."
OWN_FIRST = "Another answer of yours is still being written, and how much is left for this message is known when it has ended. Nothing was sent; send it then."
AHEAD_OWN = -1
"""In place of how many go before it: it waits for another answer of the same person."""

CHAT_ID = re.compile(r"[0-9a-f]{32}")
"""What `new_chat_id` makes; anything else in an address begins no chat."""


@dataclass(frozen=True)
class Sent:
    """It is on its way (or was already: the same send twice is one). What had to give way is told with it."""

    chat_id: str
    answer_id: str
    kind: SendKind
    left_out: int
    shortened: bool


@dataclass(frozen=True)
class InLine:
    """It waits and is decided when its turn has come: for a place, or (`own`) for the person's other answers to end, because only then it is
    known what is left for it. The answer will have this id; `unsent` says if there is none."""

    chat_id: str
    answer_id: str
    own: bool = False


@dataclass(frozen=True)
class NotSent:
    """A refusal: recorded with its reason, the draft is kept. Figures are tokens; `renews_at` is None before the first message."""

    reason: str
    draft_tokens: int
    fits_now: int
    fits_after: int
    renews_at: datetime | None


@dataclass(frozen=True)
class LastYes:
    """What a person says yes to: this send as the last message of this cycle."""

    request_id: str
    cycle_starts_at: datetime


@dataclass(frozen=True)
class AskLast:
    """Nothing was sent: this would be the last message of the cycle. Pass `yes` to send it. `tokens` is all it may use."""

    yes: LastYes
    tokens: int
    renews_at: datetime


Outcome = Sent | InLine | NotSent | AskLast


@dataclass(frozen=True)
class Unsent:
    """A send that waited in the line and was not sent: what was wanted, so that any tab can ask for the same again, and why it was not
    (None: it was called off). `do` is send, edit, again or go on; `entry` the message that is edited or answered again, or what it follows."""

    do: str
    text: str
    entry: str | None
    why: NotSent | AskLast | ChatProError | None


@dataclass(frozen=True)
class _Wish:
    """A send as it was asked for: what it takes to decide it, now or when its turn has come. `keep`: its text is the person's
    draft, to be kept where it is not sent. `follows`: the entry under which it goes, itself or the newest below it; `edits`: the
    message whose next version it is; `question`: the message that is answered again."""

    actor: Account
    chat_id: str
    text: str
    request: str
    yes: LastYes | None
    keep: bool
    follows: str | None = None
    edits: Message | None = None
    question: Message | None = None

    @property
    def worded(self) -> bool:
        """Whether the person has just written these words, a message's new ones too: they must outlive a refusal and a reload."""
        return self.keep or self.edits is not None


class LiveAnswer:
    """An answer being written, or waited for. `text` only grows and may be read from any thread, like `ahead`: how many go before it
    in the line (AHEAD_OWN: it waits for the person's own answers), None once it has its place. The rest belongs to the server's loop."""

    def __init__(self, wish: _Wish) -> None:
        self.id = secrets.token_urlsafe(16)  # 128 bits in few letters: it goes over the wire with each word
        self.account_id = wish.actor.id
        self.chat_id = wish.chat_id
        self.wish = wish
        self.ahead: int | None = None
        self.placed = False
        self.alone = False  # to be decided when nothing else of the account is pending
        self.accepted = False  # its unit of work is committed: the message is in the chat
        self.asked = time.monotonic()
        self.ticket: str | None = None  # it came in through the line
        self.call: Call | None = None
        self.plan = ""
        self.text = ""
        self.done = False
        self.saving_trouble: str | None = None
        self.saved = 0
        self.parts = False  # some of it is in the store, or on its way there
        self.ending: AnswerState | None = None
        self.closing = False
        self.began = time.monotonic()
        self.first_token_ms: int | None = None
        self.spent: tuple[object, object] | None = None
        self.task: asyncio.Task[AnswerState] | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def grow(self, piece: str) -> None:
        """Some more text came."""
        if self.first_token_ms is None:
            self.first_token_ms = self.elapsed_ms
        self.text += piece
        self.wake()

    def finish(self) -> None:
        """Settled and saved: no more will come."""
        self.done = True
        self.wake()

    async def more(self, seen: int, ahead: int | None = None) -> None:
        """On the server's loop: return once there are more than `seen` characters, its place in the line is another, or it is done."""
        if len(self.text) > seen or self.done or self.ahead != ahead:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    @property
    def elapsed_ms(self) -> int:
        return int((time.monotonic() - self.began) * 1000)

    def wake(self) -> None:
        """On the server's loop: whoever waits for more looks again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Answering:
    """The engine. `send`, `again`, `stop` and `live` are called by pages, from any thread; the rest by the server."""

    def __init__(self, store: Store, settings: Settings, source: ModelSource, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._source = source
        self._now = now
        self._instructions = _instructions(ROOT / "data" / "prompts")
        self._live: dict[str, LiveAnswer] = {}
        self._line = Line()
        self._unsent: dict[tuple[str, str], Unsent] = {}
        self._lock = threading.Lock()
        self._places = settings.running_total
        self._held: Counter[str] = Counter()
        self._costs: dict[tuple[str, str], int] = {}
        self._decided: Counter[str] = Counter()  # requests that are being decided at this moment
        self.watched: Callable[[str], bool] = lambda answer_id: False
        """Whether a page shows this answer at the moment. What ends unwatched is marked as new."""
        self.on_changed: list[Callable[[str, str, str], None]] = []
        """Called with account id, chat id and `running`, `unread` or `idle`, when an answer begins or has ended there."""
        self.on_allowance: list[Callable[[str, str], None]] = []
        """Called with account id and answer id when what pages say of the allowance is no longer so: it was settled, or accepted as the last."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._entering: set[asyncio.Task[None]] = set()
        self._saver: asyncio.Task[None] | None = None
        self._closing = False

    # --- what pages call --------------------------------------------------------------------------------------------

    def new_chat_id(self) -> str:
        """An id for a chat that begins with its first message. 122 random bits and more."""
        return secrets.token_hex(16)

    def sizes(self) -> Sizes:
        """What one send may use with the model that answers now."""
        return self._sizes(self._card)

    def send(self, actor: Account, chat_id: str, text: str, follows: str | None, yes: LastYes | None = None) -> Outcome:
        """Send a message to a chat (begun by it if it is new) and have it answered.

        `follows` is the entry that was the last on the sender's screen: with chat and text it makes the request id, so that the
        same send from another tab, after a double click or a reconnect, is the first one's answer and not a second charge. The
        message goes below it, also where the chat went on elsewhere in another version.
        Raises NotSendable, NotFound, NotAllowed, Busy, ModelProblem, StoreUnavailable; wherever a store is left to do it, the text is kept as draft.
        """
        text = clean_text(text)
        self._check_text(text)
        request = request_id(actor.id, chat_id, follows, text)
        return self._keeping(_Wish(actor, chat_id, text, request, yes, keep=True, follows=follows))

    def edit(self, actor: Account, chat_id: str, message_id: str, text: str, yes: LastYes | None = None) -> Outcome:
        """Send an own message again in other words: a version beside it, with an answer of its own. What came after the old one stays with that.

        Words that a version has already lead to that version, and nothing is sent. Raises as `send`.
        """
        text = clean_text(text)
        self._check_text(text)
        edited, messages = self._own_message(actor, chat_id, message_id)
        same = next((m.id for m in messages if m.own and m.parent_id == edited.parent_id and m.text == text), None)
        request = same or request_id(actor.id, chat_id, edited.parent_id, text)
        return self._send(_Wish(actor, chat_id, text, request, yes, keep=False, edits=edited))

    def again(self, actor: Account, chat_id: str, question_id: str, seen: int, yes: LastYes | None = None) -> Outcome:
        """Have a message answered again: the same request where it came to nothing (nothing is sent twice), a new version where there was text.

        `seen` is the highest number of an entry that the asker's page knows of this chat: where another tab has written since, Busy says it.
        """
        question, messages = self._own_message(actor, chat_id, question_id)
        newest = max((m for m in messages if m.parent_id == question_id and m.answer), key=lambda m: m.sequence, default=None)
        if newest is not None and newest.answer is not None and newest.answer.state is AnswerState.RUNNING:
            return Sent(chat_id, newest.id, SendKind.ORDINARY, 0, False)
        if messages[-1].sequence > seen:
            raise Busy(GONE_ON)
        if newest is not None and newest.answer is not None and not newest.text:
            request = newest.answer.request_id
        else:
            number = self._store.read(lambda rows: rows.calls_for_question(chat_id, question_id))
            request = request_id(actor.id, chat_id, question.parent_id, question.text, number)
        return self._send(_Wish(actor, chat_id, question.text, request, yes, keep=False, question=question))

    def go_on(self, actor: Account, chat_id: str, follows: str, yes: LastYes | None = None) -> Outcome:
        """Have the model continue where its answer ended: an ordinary send of these words, which are no draft of anybody's."""
        request = request_id(actor.id, chat_id, follows, CONTINUE)
        return self._send(_Wish(actor, chat_id, CONTINUE, request, yes, keep=False, follows=follows))

    def unsent(self, actor: Account, chat_id: str) -> Unsent | None:
        """The send of this chat that waited in the line and came to nothing, until `put_by` or the next send there."""
        with self._lock:
            return self._unsent.get((actor.id, chat_id))

    def put_by(self, actor: Account, chat_id: str) -> None:
        """A page has told the person of it."""
        with self._lock:
            self._unsent.pop((actor.id, chat_id), None)

    def thumb(self, actor: Account, answer_id: str, thumb: str) -> None:
        """What the reader thinks of an answer: `up`, `down`, or `none` to take it back. Raises NotFound for somebody else's."""
        _need_freelancer(actor)
        since = readable_since(self._now(), self._settings.retention_days)

        def work(unit: Unit) -> None:
            call = unit.call(answer_id)
            if call is None or call.account_id != actor.id or call.started_at <= since or not unit.owns_chat(actor.id, call.chat_id):
                raise NotFound
            unit.add_thumb(call, thumb if thumb in ("up", "down") else "none", self._now())

        self._store.write(work)

    def remembers_from(self, path: list[Message], more: bool = False) -> str | None:
        """The entry of a conversation where the model's memory begins, for a short next message. None when it remembers all of it.
        `more`: the chat is to remember more."""
        sizes = self._sizes(self._card, more)
        kept = remembered(sizes, self._costs_of(path, sizes.history))
        worded = [m for m in path if m.text]
        return worded[-kept].id if 0 < kept < len(worded) else None

    def more_costs(self, path: list[Message]) -> int:
        """About how many tokens dearer a short next message is where this conversation remembers more: 0 where there is no more to remember."""
        usual, more = self._sizes(self._card), self._sizes(self._card, more=True)
        costs = self._costs_of(path, more.history)
        return sum(costs[remembered(usual, costs) : remembered(more, costs)])

    def tokens_of(self, text: str) -> int:
        """How many tokens this text has for the model that answers now."""
        return tokens.count(text, self._card.tokenizer)

    def remember_more(self, actor: Account, chat_id: str, on: bool) -> None:
        """From the next message on, take more of this chat's earlier conversation along, or the usual again. Raises NotFound for somebody else's chat."""
        _need_freelancer(actor)

        def work(unit: Unit) -> None:
            if not unit.owns_chat(actor.id, chat_id):
                raise NotFound
            if on != (chat_id in unit.person(actor.id).remembering):
                unit.set_remembering(actor.id, chat_id, on, self._now())

        self._store.write(work)

    def keep(self, actor: Account, chat_id: str, text: str) -> None:
        """Keep text that can't be sent right now as the draft of this chat. Raises NotFound for somebody else's chat."""
        _need_freelancer(actor)
        text = clean_text(text)
        if CHAT_ID.fullmatch(chat_id) and not is_blank(text) and len(text) <= self._settings.draft_chars:
            self._store.write(lambda unit: self._keep_draft(unit, actor.id, chat_id, text))

    def live(self, actor: Account, chat_id: str) -> LiveAnswer | None:
        """The answer that is being written or waited for in this chat, if it is the asker's."""
        with self._lock:
            return next((a for a in self._live.values() if a.chat_id == chat_id and a.account_id == actor.id), None)

    def running_chats(self, actor: Account) -> frozenset[str]:
        """Ids of the asker's chats in which an answer is being written."""
        with self._lock:
            return frozenset(a.chat_id for a in self._live.values() if a.account_id == actor.id)

    def stop(self, actor: Account, answer_id: str) -> None:
        """End an answer here, or call it off while it waits. What came is kept and charged. Stopping what has ended already does nothing.
        Raises NotFound for somebody else's."""
        if self.stop_running(actor.id, answer_id):
            return
        call = self._store.read(lambda rows: rows.call(answer_id))
        if call is None or call.account_id != actor.id:
            raise NotFound

    # --- what the sockets and other services call -----------------------------------------------------------------------

    def watch(self, account_id: str, answer_id: str) -> LiveAnswer | None:
        """The running answer of this id if it is this account's, None otherwise, whoever's it is."""
        live = self._live.get(answer_id)
        return live if live is not None and live.account_id == account_id else None

    def stop_running(self, account_id: str, answer_id: str) -> bool:
        """End this account's running or waiting answer. False when there is none of this id."""
        if self.watch(account_id, answer_id) is None:
            return False
        self._end(answer_id, AnswerState.STOPPED)
        return True

    def stop_account(self, account_id: str) -> None:
        """The account opted out, was closed or lost its role: its answers end within a second."""
        self._end_where(lambda a: a.account_id == account_id)

    def forget_account(self, account_id: str) -> None:
        """The account was closed: what waited in vain and is kept in memory for its pages goes."""
        with self._lock:
            self._unsent = {key: unsent for key, unsent in self._unsent.items() if key[0] != account_id}

    def stop_chat(self, account_id: str, chat_id: str) -> None:
        """The chat was deleted: what is being written there ends."""
        self._end_where(lambda a: a.account_id == account_id and a.chat_id == chat_id)

    # --- accepting a send -----------------------------------------------------------------------------------------------

    def _check_text(self, text: str) -> None:
        if is_blank(text):
            raise NotSendable("There is nothing to send yet.")
        if len(text) > self._settings.draft_chars:
            most = self._settings.draft_chars
            raise NotSendable(f"Your draft has {len(text):,} characters; one message takes {most:,} at most. Nothing was sent; shorten it or send it in parts.")

    def _own_message(self, actor: Account, chat_id: str, message_id: str) -> tuple[Message, list[Message]]:
        """A message of the asker's own, and everything of its chat. Raises NotFound."""
        _need_freelancer(actor)
        since = readable_since(self._now(), self._settings.retention_days)
        messages = self._store.read(lambda rows: rows.outline(actor.id, chat_id, since))
        found = next((m for m in messages if m.id == message_id and m.own), None)
        if found is None:
            raise NotFound
        return found, messages

    def _keeping(self, wish: _Wish) -> Outcome:
        """Send; where that fails for a reason that may pass, keep the text as a draft first."""
        try:
            return self._send(wish)
        except (Busy, ModelProblem):
            with suppress(StoreUnavailable):
                self._store.write(lambda unit: self._keep_draft(unit, wish.actor.id, wish.chat_id, wish.text))
            raise

    def _keep_draft(self, unit: Unit, account_id: str, chat_id: str, text: str) -> str:
        """Keep a draft under the id it had if it is the same text, so that trying it again counts once. Returns its id."""
        _need_reachable(unit, account_id, chat_id)
        since = readable_since(self._now(), self._settings.retention_days)
        kept = unit.draft(account_id, chat_id, since)
        if kept is not None and kept[1] == text:
            return kept[0]
        draft_id = secrets.token_hex(8)
        unit.keep_draft(account_id, chat_id, draft_id, text, self._now())
        return draft_id

    def _send(self, wish: _Wish) -> Outcome:
        _need_freelancer(wish.actor)
        if not CHAT_ID.fullmatch(wish.chat_id):
            raise NotFound
        if self._source.model is None:
            raise ModelProblem(Problem.NO_MODEL, "")
        live = LiveAnswer(wish)
        with self._lock:
            if self._closing:
                raise Busy(RESTART)
            # The same send again needs no place: it becomes the first one's answer, whatever is full.
            if self._may_run(live) or self._decided[wish.request] or self._same(wish):
                self._take_place(live)
                self._decided[wish.request] += 1
        if not live.placed:
            return self._wait(live)
        try:
            outcome = self._enter(live)
        finally:
            with self._lock:
                self._decided -= Counter((wish.request,))
        if not isinstance(outcome, Wait):
            return outcome
        live.alone = True
        return self._wait(live)

    def _enter(self, live: LiveAnswer) -> Sent | NotSent | AskLast | Wait:
        """Decide a send that has its place. From the acceptance on the place is the answer's, which gives it back when it has ended."""
        accepted = False
        try:
            model = self._source.model
            if model is None:
                raise ModelProblem(Problem.NO_MODEL, "")
            offer = self._offer(live.wish, model)
            outcome = self._store.write(lambda unit: self._accept(unit, live, offer))
            accepted = live.accepted = isinstance(outcome, _HandOver)
        finally:
            if not accepted and live.ticket is None:  # one from the line is forgotten together with telling what became of it
                self._forget(live)
        if isinstance(outcome, _HandOver):
            self._hand_over(outcome, live, model, offer)
            return outcome.sent
        return outcome

    # --- the waiting line -----------------------------------------------------------------------------------------------

    def _may_run(self, live: LiveAnswer) -> bool:
        return self._places > 0 and self._held[live.account_id] < (1 if live.alone else self._settings.running_per_account)

    def _take_place(self, live: LiveAnswer) -> None:
        self._places -= 1
        self._held[live.account_id] += 1
        live.placed, live.ahead = True, None

    def _same(self, wish: _Wish) -> bool:
        return any(other.wish.request == wish.request and other.placed for other in self._live.values())

    def _waiting(self, live: LiveAnswer) -> InLine | None:
        """The same send, if it waits already. Raises Busy where another one of the same chat waits or is being answered."""
        for other in self._live.values():
            if (other.account_id, other.chat_id) == (live.account_id, live.chat_id):
                if other.wish.request != live.wish.request:
                    raise Busy(IN_CHAT)
                return InLine(live.chat_id, other.id, other.alone)
        return None

    def _wait(self, live: LiveAnswer) -> Outcome:
        """Into the line. The text is kept as a draft first: a line lives in memory, and what a person wrote does not."""
        wish = live.wish
        with self._lock:
            if found := self._waiting(live):
                return found
        if wish.worded:
            self._store.write(lambda unit: self._keep_draft(unit, live.account_id, live.chat_id, wish.text))
        with self._lock:
            if found := self._waiting(live):
                return found
            if self._closing:
                raise Busy(RESTART)
            if self._loop is None or len(self._line) >= self._settings.waiting_total or self._line.of(live.account_id) >= self._settings.waiting_per_account:
                raise Busy(OWN_FIRST if live.alone else LINE_FULL)
            self._line.join(live.account_id, live.id)
            self._live[live.id] = live
            live.ticket = live.id
            self._unsent.pop((live.account_id, live.chat_id), None)
            loop = self._loop
        loop.call_soon_threadsafe(loop.call_later, self._settings.waiting_seconds, self._tired, live)
        self._admit()  # a place may have come free meanwhile
        return InLine(wish.chat_id, live.id, live.alone)

    def _admit(self) -> None:
        """Whoever's turn it is, while there are places; and everybody else learns where they stand."""
        with self._lock:
            loop, entering = self._loop, []
            while loop is not None and not self._closing and self._places > 0 and (ticket := self._line.next(self._may_go)) is not None:
                self._take_place(self._live[ticket])
                entering.append(self._live[ticket])
            moved = list(entering)
            for ticket, place in self._line.places().items():
                waiting = self._live[ticket]
                ahead = AHEAD_OWN if waiting.alone else place
                if waiting.ahead != ahead:
                    waiting.ahead = ahead
                    moved.append(waiting)
        if loop is not None and moved and not loop.is_closed():
            loop.call_soon_threadsafe(self._let_in, entering, moved)

    def _may_go(self, ticket: str) -> bool:
        return self._may_run(self._live[ticket])

    def _let_in(self, entering: list[LiveAnswer], moved: list[LiveAnswer]) -> None:
        for live in entering:
            task = asyncio.get_running_loop().create_task(self._enter_from_line(live))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)
        for live in moved:
            live.wake()

    async def _enter_from_line(self, live: LiveAnswer) -> None:
        """Its turn has come. What is not sent now is told to the page that asks for the outcome."""
        try:
            if self._closing:
                raise Busy(RESTART)
            outcome: Outcome | ChatProError | Wait = await asyncio.to_thread(self._enter, live)
        except ChatProError as error:
            outcome = error
        except Exception as error:
            log.error("a send that waited failed inside this service: %s", type(error).__name__)
            outcome = ModelProblem(Problem.INTERNAL, "")
        if isinstance(outcome, Sent | InLine) and outcome.answer_id == live.id:
            return
        if isinstance(outcome, Wait):
            if self._back_into_line(live):
                return
            outcome = Busy(RESTART if self._closing else OWN_FIRST)
        if not isinstance(outcome, Sent | InLine):
            self._note_unsent(live, outcome)
        self._forget(live)  # or it had been sent already, from another tab
        live.finish()

    def _back_into_line(self, live: LiveAnswer) -> bool:
        """Its turn came while something of the account was pending, so it waits for that. False when it did so already: then what is pending is
        nobody's here, and nobody can say when it ends."""
        with self._lock:
            if live.alone or self._closing:
                return False
            live.alone, live.placed = True, False
            self._places += 1
            self._held -= Counter((live.account_id,))
            self._line.join(live.account_id, live.id)
        self._admit()
        return True

    def _tired(self, live: LiveAnswer) -> None:
        if self._leave_line(live, Busy(OWN_FIRST if live.alone else WAITED)):
            live.finish()

    def _leave_line(self, live: LiveAnswer, why: ChatProError | None) -> bool:
        """Out of the line, and what became of it is there for its pages in the same moment. False when its turn had come already."""
        with self._lock:
            if not self._line.leave(live.id):
                return False
            self._live.pop(live.id, None)
            self._keep_unsent(live, why)
        self._admit()
        return True

    def _note_unsent(self, live: LiveAnswer, why: NotSent | AskLast | ChatProError) -> None:
        with self._lock:
            self._keep_unsent(live, why)

    def _keep_unsent(self, live: LiveAnswer, why: NotSent | AskLast | ChatProError | None) -> None:
        wish = live.wish
        do = "edit" if wish.edits else "again" if wish.question else "send" if wish.keep else "go on"
        entry = wish.edits.id if wish.edits else wish.question.id if wish.question else wish.follows
        self._unsent[live.account_id, live.chat_id] = Unsent(do, wish.text, entry, why)
        while len(self._unsent) > self._settings.waiting_total:  # whoever never came back for it
            del self._unsent[next(iter(self._unsent))]

    def _offer(self, wish: _Wish, model: ChatModel) -> _Offer:
        """Everything about a send that can be gathered before its unit of work: reading and counting take their time outside the writers' queue."""
        since = readable_since(self._now(), self._settings.retention_days)

        def work(rows: Unit) -> list[Message]:
            _begins(rows, wish)
            rows.draft(wish.actor.id, wish.chat_id, since)  # for the unit of work, which finds it in memory then
            return rows.outline(wish.actor.id, wish.chat_id, since)

        messages = self._store.read(work)
        replaced = wish.question or wish.edits
        before = path_to(messages, replaced.parent_id) if replaced is not None else conversation(messages, wish.follows)
        parent = replaced.parent_id if replaced is not None else before[-1].id if before else None
        sizes = self._sizes(model.card, wish.chat_id in self._store.read(lambda rows: rows.person(wish.actor.id)).remembering)
        costs = self._costs_of(before, sizes.history, model.card)
        worded = [m for m in before if m.text]
        turns = [_turn(m) for m in reversed(worded[len(worded) - len(costs) :])]
        draft = tokens.count_turns((Turn("user", wish.text),), model.card.tokenizer)
        self._keep_cost(wish.question.id if wish.question else wish.request, model.card.tokenizer, draft)  # its message has just these words
        return _Offer(model.name, wish.text, parent, wish.question.id if wish.question else None, turns, costs, draft, sizes, wish.worded)

    def _accept(self, unit: Unit, live: LiveAnswer, offer: _Offer) -> _HandOver | Sent | NotSent | AskLast | Wait:
        """The one unit of work before the model is called: who, may they, is it new, is there room; then reservation, message and answer together.

        The answer is among the running ones before the unit ends: whoever opts out or deletes the chat in the next unit finds it there.
        """
        now, wish = self._now(), live.wish
        account_id, chat_id, request = live.account_id, live.chat_id, wish.request
        person = unit.person(account_id)
        if person.account is None or person.account.closed or not person.account.has(Role.FREELANCER):
            raise NotAllowed
        new_chat = _begins(unit, wish)
        calls = [] if new_chat else unit.calls_of_request(account_id, chat_id, request)
        if calls and calls[-1].reservation_state in ("pending", "settled"):
            return Sent(chat_id, calls[-1].answer_id, SendKind.ORDINARY, 0, False)
        if calls and wish.question is None and wish.edits is None and offer.parent not in {request, *(call.answer_id for call in calls)}:
            raise Busy(GONE_ON)

        grant = grant_at(person.entitlements, now)
        if grant.state is not PlanState.HAS or grant.entitlement is None:
            return self._refuse(unit, account_id, chat_id, "plan_ended", offer, grant, None)
        if not consents_to(self._settings.consent_version, list(person.consents), self._settings.consent_facts):
            return self._refuse(unit, account_id, chat_id, "no_consent", offer, grant, None)
        if not new_chat and unit.is_answering(account_id, chat_id):
            raise Busy(IN_CHAT)

        room = self._find_room(unit, live, offer, person, grant, tried=bool(calls))
        if not isinstance(room, _Room):
            return room
        question_id = offer.question_id or request
        self._store_question(unit, account_id, chat_id, question_id, new_chat, offer, now)
        place = unit.add_answer(account_id, live.id, chat_id, question_id, request, len(calls), room.id, offer.model, PROMPT_VERSION, room.decision, now)
        live.plan, d = grant.entitlement.plan, room.decision
        live.call = Call(
            account_id, live.id, chat_id, question_id, request, len(calls), AnswerState.RUNNING, offer.model, PROMPT_VERSION, room.id, "pending",
            room.cycle.starts_at, grant.entitlement.allowance, d.reserve, d.prompt_tokens, d.resent_tokens, d.answer_limit, now, room.expires_at, place,
        )  # fmt: skip
        with self._lock:
            self._live[live.id] = live
        return _HandOver(Sent(chat_id, live.id, d.kind, d.left_out, d.shortened), d)

    def _find_room(self, unit: Unit, live: LiveAnswer, offer: _Offer, person: Person, grant: Grant, *, tried: bool) -> _Room | NotSent | AskLast | Wait:
        """Decide by what is left (D4), then by the own limit, and set the tokens aside. `tried`: this request was sent before and came to nothing."""
        now, account_id, entitlement = self._now(), live.account_id, grant.entitlement
        assert entitlement is not None and person.account is not None
        anchor = person.anchor or Anchor(now.astimezone(zone_named(person.account.zone)).date(), person.account.zone)
        cycle = current_cycle(unit, account_id, anchor, now)
        assert cycle is not None
        standing = unit.standing(account_id, cycle.starts_at, entitlement.allowance)
        decision: Decision = decide(offer.sizes, standing, offer.draft, offer.costs)
        if isinstance(decision, Accepted):
            decision = beyond_own_limit(own_limit_in(person.own_limits, cycle), offer.sizes, standing, offer.draft, decision) or decision
        if isinstance(decision, Refused):
            return self._refuse(unit, account_id, live.chat_id, decision.reason, offer, grant, cycle.starts_at, decision, cycle.ends_at)
        if isinstance(decision, Wait):
            return decision
        wanted, last = LastYes(live.wish.request, cycle.starts_at), decision.kind is SendKind.LAST
        if last and live.wish.yes != wanted and not (tried and standing.last_warned):
            if offer.keep:
                self._keep_draft(unit, account_id, live.chat_id, offer.text)
            return AskLast(wanted, decision.reserve, cycle.ends_at)

        if person.anchor is None:
            unit.add_anchor(account_id, anchor, now)
        unit.open_cycle(account_id, cycle)
        keep_free = 0 if last else offer.sizes.smallest_send(entitlement.allowance)
        expires_at = now + timedelta(seconds=self._settings.answer_seconds + self._settings.reservation_grace_seconds)
        room = _Room(secrets.token_hex(16), cycle, decision, expires_at)
        if not unit.reserve(account_id, room.id, live.wish.request, cycle, entitlement.allowance, keep_free, decision, now, expires_at):
            return Wait()  # an engine with several writers: others were faster
        if last:
            unit.add_warning(account_id, cycle.starts_at, "last_message", entitlement.allowance, entitlement.plan, now)
        return room

    def _store_question(self, unit: Unit, account_id: str, chat_id: str, question_id: str, new_chat: bool, offer: _Offer, now: datetime) -> None:
        since = readable_since(now, self._settings.retention_days)
        if new_chat:
            unit.add_chat(account_id, chat_id, now)
        if new_chat or not unit.has_message(account_id, chat_id, question_id):
            if unit.title(account_id, chat_id, since) is None:  # a new one, or one whose title went with the message it came from
                unit.add_title(account_id, chat_id, title_from(offer.text), now, question_id)
            unit.add_message(account_id, question_id, chat_id, offer.parent, "freelancer", offer.text, now)
        kept = unit.draft(account_id, chat_id, since)
        if kept is not None and kept[1] == offer.text:
            unit.keep_draft(account_id, chat_id, secrets.token_hex(8), "", now)

    def _refuse(
        self, unit: Unit, account_id: str, chat_id: str, reason: str, offer: _Offer, grant: Grant,
        cycle_starts_at: datetime | None, refused: Refused | None = None, renews_at: datetime | None = None,
    ) -> NotSent:  # fmt: skip
        """Record the refusal and keep the draft, in the same unit of work."""
        draft_id = self._keep_draft(unit, account_id, chat_id, offer.text) if offer.keep else secrets.token_hex(8)
        wanted = refused.wanted if refused else offer.sizes.instructions + offer.draft + offer.sizes.answer
        plan = grant.entitlement.plan if grant.entitlement else None
        unit.add_refusal(account_id, cycle_starts_at, reason, wanted, draft_id, plan, self._now())
        return NotSent(reason, offer.draft, refused.fits_now if refused else 0, refused.fits_after if refused else 0, renews_at)

    def _hand_over(self, accepted: _HandOver, live: LiveAnswer, model: ChatModel, offer: _Offer) -> None:
        """Give the call to the server's loop. If that is gone, the call is settled here as interrupted rather than left pending."""
        fault_point("answering.reserved")
        decision = accepted.decision
        history = tuple(reversed(offer.turns[: decision.history_kept]))
        prompt = Prompt((Turn("system", self._instructions), *history, Turn("user", offer.text)), decision.answer_limit)
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._begin, live, model, prompt)
            self._tell(live, "running")
            if decision.kind is SendKind.LAST:
                self._tell_allowance(live)
        except (AssertionError, RuntimeError):
            self._forget(live)
            self._store.write(lambda unit: self._write_settlement(unit, live, AnswerState.INTERRUPTED, None, 0))

    # --- on the server's loop -------------------------------------------------------------------------------------------

    def _begin(self, live: LiveAnswer, model: ChatModel, prompt: Prompt) -> None:
        live.began = time.monotonic()
        live.task = asyncio.get_running_loop().create_task(self._stream(live, model, prompt))
        live.task.add_done_callback(lambda task: self._ended(live, task))
        if live.ending is not None:
            live.task.cancel()

    async def _stream(self, live: LiveAnswer, model: ChatModel, prompt: Prompt) -> AnswerState:
        """Call the model until an answer comes, within one deadline for everything, the wait in the line included. A call is tried again
        only while no text came."""
        deadline = asyncio.get_running_loop().time() + self._settings.answer_seconds - (live.began - live.asked)
        for left in range(self._settings.retries, -1, -1):
            try:
                return await self._call(live, model, prompt, deadline)
            except ModelProblem as problem:
                wait = problem.retry_after if problem.retry_after is not None else 0.5 * 2 ** (self._settings.retries - left)
                too_late = asyncio.get_running_loop().time() + wait >= deadline
                if live.text or not problem.retryable or left == 0 or wait > self._settings.retry_after_max_seconds or too_late:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _call(self, live: LiveAnswer, model: ChatModel, prompt: Prompt, deadline: float) -> AnswerState:
        """One call: grow the answer, watch the silence, keep the answer limit even where the provider doesn't."""
        clock = asyncio.get_running_loop().time
        state: AnswerState | None = None
        counted = produced = uncounted = 0
        beyond = prompt.answer_limit * LIMIT_NET
        moved = 0.0
        try:
            async with asyncio.timeout_at(min(deadline, clock() + self._settings.first_token_seconds)) as patience, aclosing(model.stream(prompt)) as events:
                async for event in events:
                    if (now := clock()) - moved > PATIENCE_STEP:
                        moved = now
                        patience.reschedule(min(deadline, now + PATIENCE_STEP + self._settings.silence_seconds))
                    if isinstance(event, Piece):
                        live.grow(event.text)
                        uncounted += len(event.text.encode("utf-8", "replace"))
                        if produced + uncounted > beyond and len(live.text) - counted >= COUNT_EACH:
                            produced += tokens.count(live.text[counted:], model.card.tokenizer)
                            counted, uncounted = len(live.text), 0
                            if produced > beyond:
                                return AnswerState.LENGTH
                    elif isinstance(event, Spent):
                        live.spent = (event.tokens_in, event.tokens_out)
                    elif isinstance(event, Ended):
                        if event.reason == "declined":
                            raise ModelProblem(Problem.DECLINED, model.card.title or model.name)
                        state = AnswerState.LENGTH if event.reason == "length" else AnswerState.FINISHED
        except TimeoutError as error:
            if state is None:  # the provider's last word came; that it kept the line open afterwards is nobody's loss
                slow = Problem.TOO_SLOW if clock() >= deadline else Problem.SILENT if live.text else Problem.NO_FIRST_TOKEN
                raise ModelProblem(slow, model.card.title or model.name) from error
        if not live.text:
            raise ModelProblem(Problem.GARBLED, model.card.title or model.name)
        return state or AnswerState.FINISHED

    def _ended(self, live: LiveAnswer, task: asyncio.Task[AnswerState]) -> None:
        """However the call ended: name it and settle it. This runs for every task, also one that was cancelled before its first step."""
        fault_point("answering.ended")
        problem: Problem | None = None
        if task.cancelled():
            state = live.ending or AnswerState.INTERRUPTED
        elif (error := task.exception()) is None:
            state = task.result()
        else:
            problem = error.problem if isinstance(error, ModelProblem) else Problem.INTERNAL
            state = AnswerState.CUT if live.text else AnswerState.FAILED
            if not isinstance(error, ModelProblem):
                where = "".join(traceback.format_tb(error.__traceback__))  # places in the code only: the message may hold a person's words
                log.error("an answer failed inside this service: %s at\n%s", type(error).__name__, where)
        live.closing = True
        settling = asyncio.get_running_loop().create_task(self._settle(live, state, problem, live.elapsed_ms))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def _settle(self, live: LiveAnswer, state: AnswerState, problem: Problem | None, whole_ms: int) -> None:
        """The one unit of work after the call, tried until the store takes it: no answer is charged without being saved."""
        wait = 0.2
        while True:
            unread = state is not AnswerState.STOPPED and not self.watched(live.id)
            try:
                await asyncio.wrap_future(
                    self._store.submit(partial(self._write_settlement, live=live, state=state, problem=problem, whole_ms=whole_ms, unread=unread))
                )
                break
            except Exception as error:  # whatever it is: given up, the reservation would never be resolved and the chat stay blocked
                live.saving_trouble = str(error) if isinstance(error, StoreUnavailable) else str(StoreUnavailable())
                log.error("an answer could not be settled yet: %s", type(error).__name__)
                await asyncio.sleep(wait)
                wait = min(15.0, wait * 2)
        fault_point("answering.settled")
        self._tell(live, "unread" if unread else "idle")
        self._tell_allowance(live)
        self._forget(live)
        live.finish()

    def _forget(self, live: LiveAnswer) -> None:
        """No longer among the running; its place goes to whoever's turn it is."""
        with self._lock:
            self._live.pop(live.id, None)
            if live.placed:
                live.placed = False
                self._places += 1
                self._held -= Counter((live.account_id,))
        self._admit()

    def _tell(self, live: LiveAnswer, what: str) -> None:
        for call in self.on_changed:
            call(live.account_id, live.chat_id, what)

    def _tell_allowance(self, live: LiveAnswer) -> None:
        for call in self.on_allowance:
            call(live.account_id, live.id)

    def _write_settlement(self, unit: Unit, live: LiveAnswer, state: AnswerState, problem: Problem | None, whole_ms: int, unread: bool = False) -> None:
        assert live.call is not None
        self._resolve(unit, live.call, live.text, state, problem, live.spent, live.plan, live.first_token_ms, whole_ms, unread, live.parts)

    def _resolve(
        self, unit: Unit, call: Call, text: str, state: AnswerState, problem: Problem | None, spent: tuple[object, object] | None,
        plan: str, first_token_ms: int | None, whole_ms: int, unread: bool, parts: bool = True,
    ) -> None:  # fmt: skip
        """End the answer, keep its text, settle or release its reservation, write its usage entry and the warnings that fell due. Once."""
        now = self._now()
        if not unit.end_answer(call, state, problem.value if problem else None, now):
            return
        if unread:
            unit.mark_unread(call)
        unit.fold_parts(call, text, parts)
        cost = Charge(0, 0, "estimated", 0)
        if text:
            cost = charge(spent, call.prompt_tokens, self._counted_answer(call, text), call.tokens)
            if spent is not None and cost.counted == "estimated":
                log.warning("answer %s: the provider's figures can't be (%s in, %s out), so it was counted here", call.answer_id, *map(_figure, spent))
        resolution = "settled" if text else "expired" if state is AnswerState.INTERRUPTED else "released"
        resolved = unit.resolve(call, resolution, cost.total, now)
        if resolved is None:
            cost = Charge(0, 0, cost.counted, cost.total + cost.over_reserved)
        if cost.over_reserved:
            log.warning("answer %s: the provider claims %d tokens beyond what was reserved", call.answer_id, cost.over_reserved)
        unit.add_usage_entry(call, plan, cost, call.resent_tokens if text else 0, first_token_ms, whole_ms, state.value, now)
        if resolved is None:
            return
        used, ends_at = resolved
        allowance = figure_in_cycle(unit.person(call.account_id).entitlements, ends_at, now) or call.allowance
        for kind in warnings_due(allowance, used):
            unit.add_warning(call.account_id, call.cycle_starts_at, kind, allowance, plan, now)

    # --- ending answers -------------------------------------------------------------------------------------------------

    def _end_where(self, which: Callable[[LiveAnswer], bool]) -> None:
        with self._lock:
            ids = [a.id for a in self._live.values() if which(a)]
        for answer_id in ids:
            self._end(answer_id, AnswerState.STOPPED)

    def _end(self, answer_id: str, state: AnswerState) -> None:
        live = self._live.get(answer_id)
        if live is None or self._loop is None:
            return
        if self._leave_line(live, None):
            self._loop.call_soon_threadsafe(live.finish)
            return
        live.ending = live.ending or state
        self._loop.call_soon_threadsafe(_cancel, live)

    # --- the server's start, time and end ---------------------------------------------------------------------------------

    def recover(self) -> int:
        """Settle what a dead process left: what was saved of an answer is charged as estimated, nothing saved costs nothing. Returns how many."""
        dead = self._store.read(lambda rows: rows.running_calls())
        for call in dead:
            try:
                self._store.write(partial(self._finish_dead, call=call))
            except ChatProError as error:  # `expire_past` does it later; a full disk must not keep people from reading
                log.error("what a dead process left could not be settled yet: %s", type(error).__name__)
        return len(dead)

    def expire_past(self) -> int:
        """Give back what is still pending after its expiry and that nobody here is writing (those end by their own deadline). Returns how many."""
        now = self._now()
        past = [call for call in self._store.read(lambda rows: rows.pending_past(now)) if call.answer_id not in self._live]
        for call in past:
            self._store.write(partial(self._finish_dead, call=call))
        return len(past)

    def _finish_dead(self, unit: Unit, call: Call) -> None:
        grant = grant_at(unit.entitlements(call.account_id), call.started_at)
        plan = grant.entitlement.plan if grant.entitlement else ""
        self._resolve(unit, call, unit.parts(call.answer_id), AnswerState.INTERRUPTED, None, None, plan, None, 0, unread=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers run on this loop from now on."""
        self._loop = loop
        self._saver = loop.create_task(self._save_for_ever())

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.save_seconds)
            try:
                await self._save()
            except Exception as error:  # whatever it is, the next second tries again, and settling says it aloud
                log.error("running answers could not be saved: %s", type(error).__name__)

    async def _save(self) -> None:
        """What all running answers added since the last time, in one statement."""
        with self._lock:
            growing = [(a, a.text) for a in self._live.values() if not a.closing and len(a.text) > a.saved]
            for answer, _ in growing:
                answer.parts = True
        rows = [(a.account_id, a.id, a.saved, text[a.saved :]) for a, text in growing]
        if not rows:
            return
        now = self._now()
        await asyncio.wrap_future(self._store.submit(lambda unit: unit.save_parts(rows, now)))
        for answer, text in growing:
            answer.saved = len(text)

    async def close(self) -> None:
        """No new sends; running answers may finish within the grace, the rest is settled as interrupted. Safe to call twice."""
        with self._lock:
            self._closing = True
        for live in list(self._live.values()):
            if self._leave_line(live, Busy(RESTART)):
                live.finish()
        await asyncio.sleep(0)  # whoever was let in at this moment is among the entering after the loop's next turn
        if self._entering:
            await asyncio.wait(list(self._entering))
        running = [a.task for a in list(self._live.values()) if a.task is not None]
        if running:
            await asyncio.wait(running, timeout=self._settings.shutdown_seconds)
        for live in list(self._live.values()):
            if live.task is not None and not live.task.done():
                live.ending = live.ending or AnswerState.INTERRUPTED
                live.task.cancel()
        if running:
            await asyncio.wait(running, timeout=2)
            await asyncio.sleep(0)  # the done-callbacks, which begin the settling, run in the loop's next turn
        if self._settling:
            await asyncio.wait(list(self._settling), timeout=5)
        if self._saver is not None:
            self._saver.cancel()
            self._saver = None

    def _cost(self, message: Message, tokenizer: str) -> int:
        """Tokens of an entry as a turn of the conversation. Entries never change once they have ended, and each is asked for many times."""
        if message.answer is not None and message.answer.state is AnswerState.RUNNING:
            return tokens.count_turns((_turn(message),), tokenizer)
        known = self._costs.get((message.id, tokenizer))
        if known is None:
            known = tokens.count_turns((_turn(message),), tokenizer)
            self._keep_cost(message.id, tokenizer, known)
        return known

    def _counted_answer(self, call: Call, text: str) -> int:
        """Tokens of an answer that has ended. The next run of its page asks for them as a turn."""
        tokenizer = self._tokenizer(call.model)
        counted = tokens.count(text, tokenizer)
        self._keep_cost(call.answer_id, tokenizer, tokens.as_turn(counted, tokenizer))
        return counted

    def _keep_cost(self, entry_id: str, tokenizer: str, cost: int) -> None:
        if len(self._costs) >= COSTS_KEPT:
            self._costs.clear()
        self._costs[entry_id, tokenizer] = cost

    def _costs_of(self, path: list[Message], budget: int, card: ModelCard | None = None) -> list[int]:
        """Tokens of a conversation's entries, newest first, up to the first that goes beyond the budget."""
        costs: list[int] = []
        for message in reversed([m for m in path if m.text]):
            costs.append(self._cost(message, (card or self._card).tokenizer))
            if sum(costs) > budget:
                break
        return costs

    # --- sizes ------------------------------------------------------------------------------------------------------

    @property
    def _card(self) -> ModelCard:
        """Of the model that answers now."""
        return self._source.model.card if self._source.model else FALLBACK_CARD

    def _sizes(self, card: ModelCard, more: bool = False) -> Sizes:
        s = self._settings
        answer = min(s.answer_tokens, card.output_limit, card.context // 2)
        return Sizes(
            instructions=_counted(self._instructions, card.tokenizer),
            note_max=s.note_max_tokens,
            history=max(s.history_tokens, s.history_more_tokens) if more else s.history_tokens,
            answer=answer,
            answer_min=min(s.answer_min_tokens, answer),
            prompt=s.prompt_tokens,
            context=card.context,
            output_limit=card.output_limit,
        )

    def _tokenizer(self, model: str) -> str:
        """The tokenizer of the model that answered; a model that is gone since is counted like the fallback."""
        current = self._source.model
        return current.card.tokenizer if current is not None and current.name == model else FALLBACK_CARD.tokenizer


FALLBACK_CARD = ModelCard(id="", title="", context=8_192, output_limit=4_096, tokenizer="cl100k_base")
"""Sizes while no model is known: those of the first model on the list of preference."""


@dataclass(frozen=True)
class _Offer:
    """A send before it is decided: who will answer, its text, what it follows, earlier turns newest first with their tokens."""

    model: str
    text: str
    parent: str | None
    question_id: str | None
    turns: list[Turn]
    costs: list[int]
    draft: int
    sizes: Sizes
    keep: bool


@dataclass(frozen=True)
class _Room:
    """Tokens are set aside: the reservation's id, in which cycle, what was decided, and until when."""

    id: str
    cycle: Cycle
    decision: Accepted
    expires_at: datetime


@dataclass(frozen=True)
class _HandOver:
    sent: Sent
    decision: Accepted


@cache
def _counted(instructions: str, tokenizer: str) -> int:
    """Tokens of the instructions as a turn: the same with each send and each run of a page."""
    return tokens.count_turns((Turn("system", instructions),), tokenizer)


def _instructions(folder: Path) -> str:
    return (folder / f"system-{PROMPT_VERSION}.md").read_text(encoding="utf-8").strip()


def _turn(message: Message) -> Turn:
    return Turn("user" if message.own else "assistant", message.text)


def _cancel(live: LiveAnswer) -> None:
    if live.task is not None:
        live.task.cancel()


def _need_reachable(rows: Unit, account_id: str, chat_id: str) -> bool:
    """Whether this chat is still to be begun. Raises NotFound where it is somebody else's, or was deleted."""
    if rows.owns_chat(account_id, chat_id):
        return False
    if not rows.may_begin_chat(account_id, chat_id):
        raise NotFound
    return True


def _begins(rows: Unit, wish: _Wish) -> bool:
    """Whether a send begins its chat. Raises NotFound where it can't, and where it goes on in one that is gone: purged since it was on the screen."""
    begins = _need_reachable(rows, wish.actor.id, wish.chat_id)
    if begins and (wish.follows or wish.edits or wish.question):
        raise NotFound
    return begins


def _figure(claimed: object) -> str:
    """For the log: the number itself, and of anything else only its kind, for nobody knows what is in it."""
    return f"{claimed:d}" if type(claimed) is int else type(claimed).__name__


def _need_freelancer(actor: Account) -> None:
    if not actor.has(Role.FREELANCER):
        raise NotAllowed
