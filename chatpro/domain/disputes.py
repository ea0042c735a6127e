"""Disputes and the audit. For now the audit's chain: each entry's hash covers the entry and the hash before it.

Without the chain an entry could be changed or taken out and nobody would know; the end of the chain is held by the
witness file beside the store, because a chain alone doesn't show that its last entries were cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

FIRST_HASH = "0" * 64


@dataclass(frozen=True)
class AuditEntry:
    """Who did what to whom, when and why: `noun.verb` actions, ids only, no text of anybody's messages."""

    sequence: int
    actor: str
    action: str
    subject: str | None
    dispute: str | None
    reason: str | None
    at: datetime
    previous_hash: str
    hash: str


def audit_hash(sequence: int, actor: str, action: str, subject: str | None, dispute: str | None, reason: str | None, at: datetime, previous_hash: str) -> str:
    """SHA-256 over the canonical JSON of the entry and of the hash before it."""
    row = [sequence, actor, action, subject, dispute, reason, at.astimezone(UTC).isoformat(timespec="microseconds"), previous_hash]
    return hashlib.sha256(json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def first_broken(entries: Iterable[AuditEntry], previous_hash: str = FIRST_HASH) -> int | None:
    """The sequence of the first entry that does not follow from the one before it or was changed, None when the chain holds."""
    for e in entries:
        if e.previous_hash != previous_hash or e.hash != audit_hash(e.sequence, e.actor, e.action, e.subject, e.dispute, e.reason, e.at, e.previous_hash):
            return e.sequence
        previous_hash = e.hash
    return None
