"""The chats of the panel's harness and what was done to them. Stands in for services/history."""

from __future__ import annotations

import time
from typing import Any

Chat = dict[str, Any]

START: dict[str, list[Chat]] = {
    "Today": [{"id": "bake", "title": "Proposal for Bakehouse website relaunch", "note": "Deleted on 14 March"}, {"id": "late", "title": "Late invoice"}],
    "Last 7 days": [{"id": "scope", "title": "Scope creep"}, {"id": "case", "title": "Case study outline"}, {"id": "csv", "title": "Clean the survey export"}],
    "Older": [{"id": "rate", "title": "Day rate or fixed price?"}],
}

groups: dict[str, list[Chat]] = {}
deleted: list[tuple[str, int, Chat]] = []
state: dict[str, Any] = {}


def reset() -> None:
    groups.clear()
    groups.update({heading: [dict(chat) for chat in chats] for heading, chats in START.items()})
    deleted.clear()
    state.update(more=0, slow=0.0, refuse=False, runs=0, did=[], busy=0, at_once=0)


def find(chat_id: str) -> tuple[str, int, Chat]:
    return next((heading, at, chat) for heading, chats in groups.items() for at, chat in enumerate(chats) if chat["id"] == chat_id)


def take_time() -> None:
    """What a store does. Streamlit breaks a callback off at the next look at its session, so that comes after this."""
    state["busy"] += 1
    state["at_once"] = max(state["at_once"], state["busy"])
    time.sleep(state["slow"])
    state["busy"] -= 1


def rename(chat_id: str, title: str) -> None:
    state["did"].append(["rename", chat_id, title])
    if not state["refuse"]:
        find(chat_id)[2]["title"] = title


def delete(chat_id: str) -> None:
    state["did"].append(["delete", chat_id])
    if not state["refuse"]:
        heading, at, chat = find(chat_id)
        deleted.append((heading, at, chat))
        groups[heading].remove(chat)


def undo() -> None:
    heading, at, chat = deleted.pop()
    groups[heading].insert(at, chat)


reset()
