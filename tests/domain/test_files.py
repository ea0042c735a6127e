"""Names of files: whatever a title says, a name that every system takes and that leads nowhere."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro.domain.files import NAME_BYTES, Names, safe_name


@pytest.mark.fault(83)
@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../etc/passwd", "etc passwd"),
        ("C:\\Windows\\system32", "C Windows system32"),
        ("con", "_con"),
        ("Nul.txt", "_Nul txt"),
        ("lpt¹", "_lpt¹"),
        (".env", "env"),
        ("name.exe", "name exe"),
        ("a\0b\nc", "a b c"),
        ("\u202eexe.txt", "exe txt"),
        ("😀", "chat"),
        ("", "chat"),
        ("...", "chat"),
        ("--help", "help"),
        ("Über Preise & Fristen (2)", "Über Preise & Fristen (2)"),
        ("U\u0308ber", "Über"),
        ("שלום", "שלום"),
        ("x" * 300, "x" * NAME_BYTES),
    ],
)
def test_a_title_becomes_a_plain_name(title: str, name: str) -> None:
    """Paths, devices, endings, marks and pictures go; letters of every script stay."""
    assert safe_name(title) == name


@pytest.mark.fault(83)
@given(st.text(max_size=300))
def test_any_text_becomes_a_name(title: str) -> None:
    """Nothing that a system reads as anything else, never empty, never too long, and the name of a name is the same."""
    name = safe_name(title)

    assert name and len(name.encode()) <= NAME_BYTES + 1 and name == name.strip()
    assert not re.search(r'[<>:"/\\|?*.\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]', name)
    assert safe_name(name).lstrip("_") == name.lstrip("_")


@pytest.mark.fault(83)
def test_no_two_names_of_a_folder_are_one_on_any_system() -> None:
    """Capitals, compositions and numbers that were given before."""
    names = Names()

    assert [names.unique(n) for n in ("a", "A", "a", "a (2)", "straße", "STRASSE", "é", "e\u0301")] == [
        "a", "A (2)", "a (3)", "a (2) (2)", "straße", "STRASSE (2)", "é", "e\u0301 (2)",
    ]  # fmt: skip
