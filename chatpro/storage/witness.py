"""The witness: a small file beside the store that remembers how far the ledger and the audit had come.

A database that lost the end of its log, or was swapped for an older copy, opens without a word and looks whole: DuckDB drops
everything behind the first bad byte of its log. Without this file nobody would know that charges and audit entries are gone,
and new entries would take the numbers of the lost ones. It is written after commits, so it may be behind the store, never ahead.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chatpro.domain.disputes import FIRST_HASH
from chatpro.errors import StoreDamaged
from chatpro.storage import Head

Run = Callable[[str, Sequence[object]], list[tuple[Any, ...]]]

EMPTY = Head(0, 0, 0, 0, FIRST_HASH)


def load(path: Path) -> Head | None:
    """The head in the file, None where there is no file. A file that says nothing sensible refuses the start: it was never written so."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        said = json.loads(raw)
        head = Head(**{name: type(value)(said[name]) for name, value in asdict(EMPTY).items()})
    except (ValueError, TypeError, KeyError) as error:
        raise StoreDamaged(
            f"The witness file {path} can't be read, so nobody can say whether the store beside it is whole. "
            "Put both back from the same copy, or move the witness away to start without this check."
        ) from error
    return head


def save(path: Path, head: Head) -> None:
    """Replace the file in one step, so that a reader and a crash find the old one or the new one. Raises OSError when the disk doesn't take it."""
    fresh = path.with_name(path.name + ".new")
    try:
        with open(fresh, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(asdict(head), file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: after a power cut a renamed file may otherwise be back under its old name."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def head_of(run: Run, known: Head = EMPTY) -> Head:
    """Where the store is now. Only what came after `known` is counted: with millions of entries a whole count each second would be felt."""
    entries = run("SELECT count(*), max(sequence) FROM usage_entries WHERE sequence > ?", [known.ledger_sequence])[0]
    audit = run("SELECT count(*), max(sequence) FROM audit_entries WHERE sequence > ?", [known.audit_sequence])[0]
    last = known.audit_hash if audit[1] is None else _hash_at(run, audit[1])
    return Head(
        ledger_count=known.ledger_count + entries[0],
        ledger_sequence=known.ledger_sequence if entries[1] is None else entries[1],
        audit_count=known.audit_count + audit[0],
        audit_sequence=known.audit_sequence if audit[1] is None else audit[1],
        audit_hash=str(last),
    )


def agrees(run: Run, witness: Head) -> bool:
    """Whether everything the witness saw is there: as many entries up to its last ones, and the same last hash.

    What the store has beyond is no concern of the witness: a crash between a commit and the next writing leaves it behind.
    """
    entries = run("SELECT count(*) FROM usage_entries WHERE sequence <= ?", [witness.ledger_sequence])[0][0]
    audit = run("SELECT count(*) FROM audit_entries WHERE sequence <= ?", [witness.audit_sequence])[0][0]
    if (entries, audit) != (witness.ledger_count, witness.audit_count):
        return False
    return witness.audit_count == 0 or _hash_at(run, witness.audit_sequence) == witness.audit_hash


def _hash_at(run: Run, sequence: int) -> str | None:
    rows = run("SELECT hash FROM audit_entries WHERE sequence = ?", [sequence])
    return rows[0][0] if rows else None
