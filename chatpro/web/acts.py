"""What was done in a list of ours in the browser, each act once, however often it is told.

Streamlit forgets a click when the next one comes before its run has begun, and breaks off a callback that is at work. Whoever
deletes two chats in a row, or clicks another chat to end a renaming, would lose the first. So each act has a number, the
browser (acts.js) says it again with the next one until the data show that it was heard, and what was heard is not done twice.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any

LEADS_AWAY = ("all", "search")
"""Acts that may lead to another page: to Streamlit, that is the same as being broken off."""


class Heard:
    """How many of a list's acts this session has done. The lock: a run that was broken off may still be at its last act."""

    def __init__(self) -> None:
        self.name = secrets.token_urlsafe(6)
        self.count = 0
        self._lock = threading.Lock()

    @property
    def data(self) -> dict[str, Any]:
        """For the browser."""
        return {"line": self.name, "heard": self.count}

    def take(self, acts: Any, do: Callable[[dict[str, Any]], None]) -> None:
        """Do what the browser says was done, as far as it is news. It may say anything: `do` asks what it is about and whose that is, and may
        be called again for the same act when a run was broken off in the middle of it."""
        for act in acts if isinstance(acts, list) else []:
            with self._lock:
                self._once(act, do)

    def _once(self, act: Any, do: Callable[[dict[str, Any]], None]) -> None:
        number = act.get("n") if isinstance(act, dict) else None
        if not isinstance(number, int) or number <= self.count:
            return
        if act.get("is") in LEADS_AWAY:
            self.count = number
        try:
            do(act)
        except Exception:
            self.count = number  # a fault of ours is told once, not again with every further click
            raise
        # Not in a `finally`: what Streamlit broke off, by something that is no Exception, has to come again.
        self.count = number
