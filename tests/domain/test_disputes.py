"""The audit's chain: whatever is changed, taken out or swapped is found, and the first broken entry is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro.domain.disputes import FIRST_HASH, AuditEntry, audit_hash, first_broken

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


def chain(length: int) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    previous = FIRST_HASH
    for n in range(1, length + 1):
        digest = audit_hash(n, "ada", "roles.set", f"s{n}", None, None, NOW, previous)
        entries.append(AuditEntry(n, "ada", "roles.set", f"s{n}", None, None, NOW, previous, digest))
        previous = digest
    return entries


def test_an_untouched_chain_holds() -> None:
    """Also an empty one."""
    assert first_broken(chain(20)) is None
    assert first_broken([]) is None


@pytest.mark.fault(102)
@given(at=st.integers(0, 19), field=st.sampled_from(["actor", "action", "subject", "reason", "hash", "previous_hash"]))
def test_a_changed_entry_is_named(at: int, field: str) -> None:
    """Any field, also the hashes themselves."""
    entries = chain(20)
    entries[at] = replace(entries[at], **{field: "x"})

    assert first_broken(entries) == at + 1


@pytest.mark.fault(102)
@given(at=st.integers(0, 18))
def test_an_entry_taken_out_or_swapped_is_named(at: int) -> None:
    """The one after the hole is the first that does not follow."""
    entries = chain(20)

    assert first_broken(entries[:at] + entries[at + 1 :]) == at + 2
    swapped = [*entries]
    swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
    assert first_broken(swapped) == at + 2
