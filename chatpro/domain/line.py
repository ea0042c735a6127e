"""The waiting line: whose send is next when the process can carry no more answers.

Fair between people, not between sends: everybody in the line has a turn before anybody has a second one. In a line that is
fair between sends, one person with twenty tabs makes nineteen others wait for what nobody is reading.
"""

from __future__ import annotations

from collections.abc import Callable


class Line:
    """Tickets, by account. Not safe for threads: whoever uses it holds a lock."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[str]] = {}  # in the order of turns: who had one goes to the end

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def of(self, account_id: str) -> int:
        """How many tickets this account has in the line."""
        return len(self._waiting.get(account_id, ()))

    def join(self, account_id: str, ticket: str) -> None:
        """To the end of the account's own tickets; somebody new is after everybody's first."""
        self._waiting.setdefault(account_id, []).append(ticket)

    def leave(self, ticket: str) -> bool:
        """Called off. False when it is not in the line (any more)."""
        for account_id, tickets in self._waiting.items():
            if ticket in tickets:
                tickets.remove(ticket)
                if not tickets:
                    del self._waiting[account_id]
                return True
        return False

    def next(self, may: Callable[[str], bool]) -> str | None:
        """Take the ticket whose turn it is, among each account's first ones that may go now. None when there is none."""
        for account_id, tickets in self._waiting.items():
            if may(tickets[0]):
                ticket = tickets.pop(0)
                del self._waiting[account_id]
                if tickets:
                    self._waiting[account_id] = tickets
                return ticket
        return None

    def places(self) -> dict[str, int]:
        """For each ticket how many go before it, if everybody may."""
        found: dict[str, int] = {}
        for turn in range(max(map(len, self._waiting.values()), default=0)):
            for tickets in self._waiting.values():
                if turn < len(tickets):
                    found[tickets[turn]] = len(found)
        return found
