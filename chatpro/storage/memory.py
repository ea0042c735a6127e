"""What the store has read, kept in memory until a commit changes it.

A run of a page asks for the same things as the run before it: who is there, what they are granted, the open chat, the list of
chats, where the allowance stands. As statements (0.3 to 1.2 ms each) that was half of what an answer cost the server. One process
writes to the store, so it knows exactly when a copy is out of date. A verb that writes says what it changes, and how, where the new
value follows from the old one; with the commit that is done here as well, before anybody hears that it was committed. A statement
about which nobody said what it changes empties the memory: forgetting is what happens by itself.

An engine that several processes write to must not keep this copy (docs/decisions.md).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

log = logging.getLogger("chatpro.storage")

MOST_ACCOUNTS = 20_000
"""Accounts of which something is remembered; a few kilobytes each, beside their chats. Beyond it, those asked for least lately are forgotten."""

MOST_CHATS = 3
"""Chats of one account whose entries are remembered: who works in more tabs than that has them read again."""

MOST_CHARACTERS = 30_000_000
"""Of all remembered chats together, some 60 MB: the open chats of several hundred people."""

Key = tuple[str, ...]
"""What is remembered of an account: the kind of fact, then what tells several of a kind apart."""

Step = Callable[[Any], Any]
"""The new value of what is remembered, from the old one, which it must leave as it was."""

UNKNOWN: Any = object()
_NOTHING: dict[Key, Any] = {}


class Changes:
    """What one unit of work changes. `everything` until somebody has said more exactly what."""

    def __init__(self) -> None:
        self.everything = False
        self.of: dict[str, dict[Key, list[Step] | None]] = {}

    def __bool__(self) -> bool:
        return self.everything or bool(self.of)

    def has(self, account_id: str, key: Key) -> bool:
        """Whether this fact is another one since this unit, so that only its own rows know it."""
        return self.everything or key in self.of.get(account_id, _NOTHING)

    def add(self, account_id: str, key: Key, step: Step | None = None) -> None:
        """This fact changes: by `step`, or into something that has to be read."""
        steps = self.of.setdefault(account_id, {}).setdefault(key, [])
        if step is None or steps is None:
            self.of[account_id][key] = None
        else:
            steps.append(step)


class Memory:
    """Facts by account, each as of the last commit. Read from any thread; written by whoever read something, and by each commit."""

    def __init__(self) -> None:
        self._known: dict[str, dict[Key, Any]] = {}
        self._changed_at: dict[str, int] = {}
        self._emptied_at = 0
        self._characters = 0
        self._lock = threading.Lock()
        self.version = 0
        """Counts the commits that changed anything. Asked before a snapshot is taken, it says how old at most its facts are."""

    def recall(self, account_id: str, key: Key) -> Any:
        """As of the last commit, or UNKNOWN."""
        return self._known.get(account_id, _NOTHING).get(key, UNKNOWN)

    def keep(self, account_id: str, key: Key, value: Any, as_of: int) -> None:
        """What a snapshot taken at version `as_of` holds; not kept where a commit has changed the account since."""
        with self._lock:
            if as_of < max(self._emptied_at, self._changed_at.get(account_id, 0)):
                return
            facts = self._known.pop(account_id, None) or {}
            self._known[account_id] = facts  # at the end: asked for last
            self._put(facts, key, value)
            while len(self._known) > MOST_ACCOUNTS or self._characters > MOST_CHARACTERS:
                self._drop(next(iter(self._known)))

    def commit(self, changes: Changes) -> None:
        """A unit of work was committed: what it changed is remembered as it is now, or not at all."""
        with self._lock:
            self.version += 1
            if changes.everything:
                self._empty()
                return
            for account_id, keys in changes.of.items():
                self._changed_at[account_id] = self.version
                facts = self._known.get(account_id, _NOTHING)
                for key, steps in keys.items():
                    if key in facts:
                        self._put(facts, key, _stepped(facts[key], steps))
            if len(self._changed_at) > MOST_ACCOUNTS:
                self._changed_at.clear()
                self._emptied_at = self.version  # snapshots that are older keep nothing any more

    def forget(self) -> None:
        """All of it: the file was opened anew, and what it holds now is for reading to tell."""
        with self._lock:
            self.version += 1
            self._empty()

    def _empty(self) -> None:
        self._known.clear()
        self._changed_at.clear()
        self._characters = 0
        self._emptied_at = self.version

    def _put(self, facts: dict[Key, Any], key: Key, value: Any) -> None:
        self._characters += _characters(key, value) - _characters(key, facts.pop(key, UNKNOWN))
        if value is not UNKNOWN:
            facts[key] = value
        chats = [key for key in list(facts) if key[0] == ENTRIES]
        for oldest in chats[:-MOST_CHATS]:
            self._characters -= _characters(oldest, facts.pop(oldest))

    def _drop(self, account_id: str) -> None:
        for key, value in self._known.pop(account_id).items():
            self._characters -= _characters(key, value)


ENTRIES = "entries"
"""The kind of fact that is a chat's entries: the only one that holds much text."""


def _stepped(value: Any, steps: Sequence[Step] | None) -> Any:
    if steps is None:
        return UNKNOWN
    try:
        for step in steps:
            value = step(value)
    except Exception as error:  # the commit stands; what can't be brought up to date is read again
        log.error("a remembered fact could not follow a commit: %s", type(error).__name__)
        return UNKNOWN
    return value


def _characters(key: Key, value: Any) -> int:
    return sum(len(entry.text) for entry in value) if key[0] == ENTRIES and value is not UNKNOWN else 0
