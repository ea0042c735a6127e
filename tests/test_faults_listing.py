"""The list of faults and their proofs: `make faults` must find every mark, or a proven row looks unproven and the other way round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.faults import find_proofs, read_rows

ROOT = Path(__file__).resolve().parent.parent


def test_all_rows_have_a_short_title_and_no_number_is_missing() -> None:
    """docs/faults.md numbers its rows from 1 without a gap; at least the 122 of the beginning are there."""
    rows = read_rows(ROOT)

    assert list(rows) == list(range(1, len(rows) + 1))
    assert len(rows) >= 122
    assert [number for number, title in rows.items() if not 2 <= len(title.split()) <= 10] == []


def test_every_mark_names_a_row_that_exists() -> None:
    """A mark with a wrong number proves nothing, so it fails here."""
    assert set(find_proofs(ROOT / "tests")) <= set(read_rows(ROOT))


def test_marks_are_found_on_functions_classes_parameters_and_modules(tmp_path: Path) -> None:
    """Wherever pytest allows the mark, the list sees it."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_sample.py").write_text(
        "pytestmark = [pytest.mark.fault(4)]\n"
        "@pytest.mark.fault(1, 2)\ndef test_one(): ...\n"
        "@pytest.mark.fault(3)\nclass TestMany:\n    async def test_two(self): ...\n"
        "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.fault(5))])\ndef test_three(n): ...\n"
        "def helper(): ...\n"
    )

    proofs = find_proofs(folder)

    one, two, three = "tests/test_sample.py::test_one", "tests/test_sample.py::TestMany::test_two", "tests/test_sample.py::test_three"
    assert proofs == {1: [one], 2: [one], 3: [two], 4: [one, two, three], 5: [three]}


def test_the_command_prints_each_row_and_says_what_is_unproven() -> None:
    """`make faults` shows all rows, and this test beside its own."""
    printed = subprocess.run([sys.executable, "scripts/faults.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert all(title in printed for title in read_rows(ROOT).values())
    assert "rows have a test" in printed
