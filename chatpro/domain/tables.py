"""Tables for spreadsheets, as CSV that no program takes for a formula.

A spreadsheet runs a cell that begins with `=`, and a file that a product manager or a freelancer downloads is opened in one. Text is
always quoted and such a beginning gets an apostrophe in front; numbers stay numbers, so that they can be added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""The signs that ASVS 1.2.10 names, and their full-width twins, which some programs fold. A leading line end would hide the sign behind it."""

LINE_END = "\r\n"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One line a row, as RFC 4180 has it. None is an empty cell."""
    return "".join(csv_line(row) for row in [header, *rows])


def csv_line(row: Sequence[object]) -> str:
    """One row with its line end: for files that are written as a stream."""
    return ",".join(_cell(value) for value in row) + LINE_END


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    text = str(value).replace("\0", "")
    if text.lstrip(" ").startswith(FORMULA_STARTS):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"'
