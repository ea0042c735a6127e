"""Files for spreadsheets: nothing in them is taken for a formula, and what was text comes back as it was."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro.domain.tables import csv_text

BEGINNINGS = ["=", "+", "-", "@", "\t", "\r"]


@pytest.mark.fault(79)
@pytest.mark.parametrize("sign", BEGINNINGS)
def test_a_cell_that_would_be_a_formula_gets_an_apostrophe(sign: str) -> None:
    """=HYPERLINK(…) and its relatives are shown, not run."""
    written = csv_text(["note"], [[f'{sign}HYPERLINK("http://x.example";"a")']])

    assert next(iter(list(csv.reader(io.StringIO(written, newline="")))[1])).startswith(f"'{sign}")


@pytest.mark.fault(79)
def test_spaces_and_zeros_in_front_hide_no_formula() -> None:
    """A NUL or blanks before the sign are what programs drop when they read."""
    assert csv_text(["a"], [["\0=1+1"], ["  =1+1"]]) == '"a"\r\n"\'=1+1"\r\n"\'  =1+1"\r\n'


@pytest.mark.fault(79)
def test_numbers_stay_numbers() -> None:
    """Also negative ones, which begin like a formula; empty stays empty."""
    assert csv_text(["a", "b", "c"], [[-5, 2.5, None]]) == '"a","b","c"\r\n-5,2.5,\r\n'


@pytest.mark.fault(79)
@given(cells=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30), min_size=1, max_size=5))
def test_text_comes_back_as_it_was(cells: list[str]) -> None:
    """Quotes, semicolons, commas and line ends survive; the apostrophe in front is the only difference."""
    back = list(csv.reader(io.StringIO(csv_text(["x"] * len(cells), [cells]), newline="")))[1]

    assert all(b in (cell, "'" + cell) for b, cell in zip(back, cells, strict=True))
