"""What all tests of the store use: a small one, a few statements, and stores in processes of their own.

In this process a crash can't be played: its threads, locks and buffers would live on.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chatpro.storage import Store, Unit
from chatpro.storage.duckdb import DuckStore

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PREAMBLE = """
import os, sys, time
from pathlib import Path
from chatpro.errors import *
from chatpro.storage import duckdb as engine
from tests.storage.children import NOON, add_role, audited, charged, open_store, raw, roles
folder = Path(sys.argv[1])
"""


def open_store(folder: Path, **given: object) -> DuckStore:
    """The store of a test's folder, small enough for many beside each other."""
    return DuckStore(folder / "store.duckdb", memory="500MB", threads=2, **given)  # type: ignore[arg-type]


def raw(unit: Unit, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """A statement past the verbs: what the engine does with it is what is tested here."""
    if not sql.lstrip().upper().startswith("SELECT"):
        unit.changes.everything = True  # nobody else says what it changes
    return unit._run(sql, list(values))


def add_role(account: str) -> Callable[[Unit], None]:
    """One small row that can be there only once."""
    return lambda unit: raw(unit, "INSERT INTO roles VALUES (?, 'freelancer')", account) and None


def roles(store: Store) -> set[str]:
    return {row[0] for row in store.read(lambda unit: raw(unit, "SELECT account_id FROM roles"))}


def audited(unit: Unit) -> int:
    return unit.append_audit("casey", "test.done", NOON).sequence


def charged(unit: Unit) -> int:
    """One entry of the ledger."""
    sequence = unit._next("usage_entries")
    facts = [
        "casey",
        sequence,
        f"a{sequence}",
        f"r{sequence}",
        NOON,
        "Freelancer Plus",
        40,
        10,
        0,
        "measured",
        0,
        "gpt-4",
        "1",
        90,
        900,
        "finished",
        NOON,
        20_780,
    ]
    unit._all(f"INSERT INTO usage_entries VALUES ({', '.join('?' * len(facts))})", *facts)
    return sequence


class _Child:
    """`child(code, folder)` runs code in a process of its own and gives what it printed; `child.running` leaves it running."""

    def __call__(self, code: str, folder: Path, *, expect: int = 0, faults: str = "") -> str:
        done = subprocess.run(self._command(code, folder), capture_output=True, text=True, timeout=900, env=self._environment(faults))
        assert done.returncode == expect, done.stderr
        return done.stdout.strip()

    @contextlib.contextmanager
    def running(self, code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(self._command(code, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment(""))
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _command(self, code: str, folder: Path) -> list[str]:
        return [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), str(folder)]

    def _environment(self, faults: str) -> dict[str, str]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return {**env, "CHATPRO_TEST_FAULTS": faults} if faults else env


child = _Child()
