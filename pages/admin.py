"""Usage: how many tokens are used and how many warnings were given, for product managers. Counts only, never anybody's words.

Every figure here is a published sum behind which at least ten people stand (chatpro/domain/cells.py), read from the copy that holds
no text. What is not published yet is said to be so; a zero in its place would be a wrong figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import streamlit as st

from chatpro.domain.cells import AT_LEAST, TOO_FEW
from chatpro.domain.tables import csv_text
from chatpro.services.analytics import Totals
from chatpro.web import allowance, gate, parts
from chatpro.web.parts import house

account = gate.page("admin")

# Behind the gate: plotly costs a visitor who is turned away half a second of everybody's processor.
from chatpro import charts  # noqa: E402

PERIODS = {"7 days": 7, "30 days": 30, "90 days": 90}

st.set_page_config(layout="wide")


def draw() -> None:
    """The filter bar, and under it the figures or the sentence that says why there are none."""
    allowance.frame(account)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom", key="filters"):
        parts.head("Usage", "Counts only, never anybody's words")
        # The words stand in the address (?period=30+days), so that a reload and a link show the same; what is no option is the default.
        period = st.segmented_control(
            "Period", list(PERIODS), default="30 days", required=True, label_visibility="collapsed", key="period", bind="query-params"
        )
    days = PERIODS.get(period or "", 30)
    totals = house().analytics.totals(account, days)
    complete = _complete(house().analytics.as_of(account))
    if totals is None:
        st.header("No figures yet", anchor=False)
        parts.note(f"{TOO_FEW} {complete}.")
        return
    parts.note(f"{charts.span(totals)}, days in UTC. The days after that follow once {AT_LEAST} people were active on them.")
    _headline(totals)
    dark = st.context.theme.type == "dark"
    left, right = st.columns(2, gap="small")
    with left:
        tokens = house().analytics.tokens_by_day(account, days)
        _card(
            "tokens",
            "How many tokens are used each day?",
            "Sum of usage entries, tokens in (instructions, history and message) and tokens out (the answer).",
            complete,
            lambda: charts.tokens_chart(tokens, dark=dark),
            ("first day", "last day", "tokens in", "tokens out", "answers"),
            [(c.first_day, c.last_day, c.tokens_in, c.tokens_out, c.answers) for c in tokens],
        )
    with right:
        warned = house().analytics.warnings_by_day(account, days)
        _card(
            "warnings",
            "How many warnings are given each day?",
            "One for each account, cycle and kind: 75 % used, 95 % used, and before a last message.",
            complete,
            lambda: charts.warnings_chart(warned, dark=dark),
            ("first day", "last day", "at 75 %", "at 95 %", "last message"),
            [(c.first_day, c.last_day, c.at_75, c.at_95, c.last_message) for c in warned],
        )
    _definitions()


def _headline(totals: Totals) -> None:
    """Four figures, each with what it counts."""
    figures = (
        ("Tokens used", _short(totals.tokens), "Tokens in plus tokens out of all usage entries in the period"),
        ("Answers", f"{totals.answers:,d}", "Answers that were charged, also stopped and interrupted ones"),
        ("Tokens an answer", f"{totals.tokens / max(1, totals.answers):,.0f}", "Tokens used divided by answers: the mean"),
        ("Warnings given", f"{totals.warnings:,d}", f"{totals.at_75} at 75 %, {totals.at_95} at 95 %, {totals.last_message} before a last message"),
    )
    for column, (word, value, meaning) in zip(st.columns(4, gap="small"), figures, strict=True):
        column.metric(word, value, border=True, help=meaning)


def _card(
    key: str,
    question: str,
    definition: str,
    complete: str,
    chart: Callable[[], charts.Chart],
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> None:
    """A question, what one unit is, the picture with its finding in words, how far it is complete, and the numbers behind it."""
    drawn = chart()
    with st.container(key=f"chart_{key}"):
        st.header(question, anchor=False)
        parts.note(definition)
        st.plotly_chart(drawn.figure, width="stretch", height=charts.HEIGHT, config={"displayModeBar": False}, key=f"fig_{key}", alt=drawn.alt)
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            parts.note(complete)
            st.download_button(
                "CSV",
                csv_text(header, rows),
                f"{key}.csv",
                "text/csv",
                icon=":material/download:",
                type="tertiary",
                key=f"csv_{key}",
                on_click="ignore",
                help="The numbers behind this chart",
            )


def _definitions() -> None:
    with st.expander("What these figures are"):
        st.markdown(
            f"""
- **Days** are days in UTC, published once they have ended. A day on which fewer than {AT_LEAST} people were active is shown only together with the days
  after it: such a bar is hatched and as wide as its days, and its height is their mean. What was shown once doesn't change.
- A **period** is made of whole bars, so it may begin a little before the days you chose.
- **Tokens** are what answers were charged. Calls that failed without any text cost nothing and are not counted.
- A **warning** is counted on the day it was given.
"""
        )


def _complete(as_of: datetime | None) -> str:
    if as_of is None:
        return "Nothing was counted yet"
    at = as_of.astimezone(UTC)
    return f"Copied {at.day} {at:%b %Y, %H:%M} UTC"


def _short(number: int) -> str:
    return f"{number / 1_000_000:,.2f} M" if number >= 1_000_000 else f"{number:,d}"


draw()
