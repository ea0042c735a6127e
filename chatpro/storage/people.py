"""What the store knows of each person, kept in memory until a commit changes it.

Every run of every page asks who is there, what they are granted and whether they said yes, several times over. As statements that
was half of what an answer cost the server. One process writes to the store, so it knows exactly when its own copy is out of date:
a unit of work says whose rows it changed, and they are forgotten with its commit, before anybody hears that it was committed.
An engine that several processes write to must not keep this copy (docs/decisions.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from chatpro.domain.accounts import Account, Consent, Entitlement
from chatpro.domain.allowance import Anchor
from chatpro.storage.sql import Unit

MOST = 20_000
"""People remembered, some 2 KB each; beyond it all are forgotten and asked for again."""


@dataclass(frozen=True)
class Person:
    """An account with its entitlements, consents (oldest first) and the day of its first use. `account` is None for an unknown id."""

    account: Account | None
    entitlements: tuple[Entitlement, ...]
    consents: tuple[Consent, ...]
    anchor: Anchor | None


class People:
    """The copy. `version` counts the commits that changed anybody: a read that began before such a commit is not kept."""

    def __init__(self) -> None:
        self._known: dict[str, Person] = {}
        self._lock = threading.Lock()
        self.version = 0

    def known(self, account_id: str) -> Person | None:
        """As of the last commit, or None when it has to be read."""
        return self._known.get(account_id)

    def of(self, rows: Unit, account_id: str) -> Person:
        """This person, from memory or from these rows."""
        if account_id not in rows.changed_people and (found := self._known.get(account_id)) is not None:
            return found
        account = rows.account(account_id)
        if account is None:
            return Person(None, (), (), None)
        person = Person(account, tuple(rows.entitlements(account_id)), tuple(rows.consents(account_id)), rows.anchor(account_id))
        with self._lock:
            if rows.people_version == self.version and not rows.changed_people:
                if len(self._known) >= MOST:
                    self._known.clear()
                self._known[account_id] = person
        return person

    def forget(self, account_ids: Iterable[str]) -> None:
        """A commit changed these people."""
        with self._lock:
            self.version += 1
            for account_id in account_ids:
                self._known.pop(account_id, None)
