"""Migrations: the numbered SQL files that make the store what the code expects, applied once each and in order.

Without the record of what was applied, a store made by a newer version would be written by an older one that doesn't know its
columns, and an edited old file would leave two installations with different tables under one number. Each file is one
transaction, so a start that dies in the middle of one is as if it had not begun.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chatpro.errors import StoreDamaged

FOLDER = Path(__file__).parent / "migrations"

RECORD = (
    "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)"
)
APPLIED = "SELECT number, name, sha256 FROM schema_migrations ORDER BY number"
APPLY = "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)"


@dataclass(frozen=True)
class Migration:
    """One file: `0001_foundation.sql` is number 1, name `foundation`."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def known(folder: Path = FOLDER) -> list[Migration]:
    """All migrations of this version, in order. Numbers may have holes, never a twin, or the release was put together wrongly."""
    files = sorted(folder.glob("*.sql"))
    parts = [re.fullmatch(r"(\d{4})_(\w+)", file.stem) for file in files]
    found = [Migration(int(part[1]), part[2], file.read_text("utf-8")) for part, file in zip(parts, files, strict=True) if part]
    if len({m.number for m in found}) != len(files) or not found or found[0].number != 1:
        raise StoreDamaged(f"The migrations in {folder} are not numbered from 0001 on, each once: this copy of the program is not whole.")
    return found


def pending(migrations: Sequence[Migration], applied: Sequence[tuple[int, str, str]]) -> list[Migration]:
    """What is still to be applied. Raises StoreDamaged when the store is newer than the code, or an applied file was changed since."""
    code = {m.number: m for m in migrations}
    for number, name, sha256 in applied:
        if number not in code:
            raise StoreDamaged(
                f"The store was made by a newer version of this program (it has step {number:04}_{name}, this version ends at {max(code):04}). "
                "Start that version, or put back a copy of the store from before the upgrade."
            )
        if code[number].sha256 != sha256:
            raise StoreDamaged(
                f"The step {number:04}_{name} was applied to this store in another form than this version has it, so nobody can say what its tables are. "
                "Start the version that made the store. Applied steps are never edited: a change is a new step."
            )
    done = {number for number, _, _ in applied}
    return [m for m in migrations if m.number not in done]


def fault_point(name: str) -> None:
    """Where a test may end the process, as power loss would. Honoured only when CHATPRO_TEST_FAULTS lists the point's name, parted by commas.

    Points of the store: `store.create`, `store.migrate:0001:7` (before the seventh statement of the first file; the record of the
    file and the commit are statements too), `store.witness`. Of answers: `answering.reserved` (the call is not made yet), `answering.ended` (not
    settled yet), `answering.settled` (nobody was told yet). Those of the purge stand in rewrite.py.
    """
    if name in os.environ.get("CHATPRO_TEST_FAULTS", "").split(","):
        os.kill(os.getpid(), signal.SIGKILL)
