"""Charts: published figures as pictures, each with the same finding in words. The only place that knows plotly.

A picture that only eyes can read, in colours that two of twelve men can't tell apart, or on an axis without its unit, says nothing or
something wrong. The template here decides that once. A bar that stands for several days together is hatched and as wide as they are:
its height is their mean a day, so that its area is their sum and nobody takes a merged week for a busy Monday.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Protocol

import plotly.graph_objects as go

HEIGHT = 240
"""Pixels of every chart."""


@dataclass(frozen=True)
class Ink:
    """The colours of one theme: series in their order, axis words (at least 4.5:1 on the card), the lines behind."""

    series: tuple[str, str, str]
    words: str
    lines: str
    hover: str


LIGHT = Ink(("#0C6B5D", "#E07021", "#1B2A4E"), "#5A6563", "#DCE2E0", "#FFFFFF")
DARK = Ink(("#35A892", "#DD6B33", "#C2D4FA"), "#9DA9A6", "#2C3433", "#171C1B")


class Span(Protocol):
    """One cell: its days and how many they are."""

    @property
    def first_day(self) -> date: ...

    @property
    def last_day(self) -> date: ...

    @property
    def days(self) -> int: ...


class Tokens(Span, Protocol):
    @property
    def tokens_in(self) -> int: ...

    @property
    def tokens_out(self) -> int: ...


class Warned(Span, Protocol):
    @property
    def at_75(self) -> int: ...

    @property
    def at_95(self) -> int: ...

    @property
    def last_message(self) -> int: ...


@dataclass(frozen=True)
class Chart:
    """A figure, and its finding in words for whoever doesn't see it."""

    figure: go.Figure
    alt: str


def tokens_chart(cells: Sequence[Tokens], *, dark: bool) -> Chart:
    """Tokens a day, in and out, one upon the other."""
    ink = DARK if dark else LIGHT
    per_day = [(c.tokens_in + c.tokens_out) / c.days for c in cells]
    scale, unit = (1_000_000, "million tokens a day") if max(per_day) >= 1_000_000 else (1_000, "thousand tokens a day")
    bars = [
        _bars(cells, name, values, colour, 0.0, 1.0, scale)
        for name, values, colour in (
            ("Tokens in", [c.tokens_in for c in cells], ink.series[0]),
            ("Tokens out", [c.tokens_out for c in cells], ink.series[1]),
        )
    ]
    figure = _drawn(go.Figure(bars), unit, ink).update_layout(barmode="stack")
    least, most = per_day.index(min(per_day)), per_day.index(max(per_day))
    alt = (
        f"Stacked bars, {_period(cells)}: {sum(c.tokens_in for c in cells):,} tokens in and {sum(c.tokens_out for c in cells):,} out. "
        f"Most on {span(cells[most])} with {per_day[most]:,.0f} a day, least on {span(cells[least])} with {per_day[least]:,.0f} a day."
    )
    return Chart(figure, alt)


def warnings_chart(cells: Sequence[Warned], *, dark: bool) -> Chart:
    """Warnings a day by kind, side by side."""
    ink = DARK if dark else LIGHT
    kinds = (
        ("75 %", [c.at_75 for c in cells]),
        ("95 %", [c.at_95 for c in cells]),
        ("Last", [c.last_message for c in cells]),
    )
    bars = [_bars(cells, name, values, ink.series[n], n / 3, 1 / 3, 1) for n, (name, values) in enumerate(kinds)]
    figure = _drawn(go.Figure(bars), "warnings a day", ink).update_layout(barmode="overlay")
    sums = ", ".join(f"{sum(values):,} at {name}" if name != "Last" else f"{sum(values):,} before a last message" for name, values in kinds)
    given = [sum(values[n] for _, values in kinds) for n in range(len(cells))]
    most = given.index(max(given))
    finding = f"Most on {span(cells[most])}: {given[most]:,}." if given[most] else "None was given."
    return Chart(figure, f"Bars side by side, {_period(cells)}: {sums}. {finding}")


def span(cell: Span) -> str:
    """9 Nov 2026, or 7 to 9 Nov 2026 for days together."""
    first, last = cell.first_day, cell.last_day
    if first == last:
        return f"{last.day} {last:%b %Y}"
    begins = (
        str(first.day) if (first.year, first.month) == (last.year, last.month) else f"{first.day} {first:%b}" + (f" {first.year}" * (first.year != last.year))
    )
    return f"{begins} to {last.day} {last:%b %Y}"


def _bars(cells: Sequence[Span], name: str, values: Sequence[int], colour: str, begins: float, width: float, scale: int) -> go.Bar:
    """Bars over their own days on a time axis. `begins` and `width` are the part of a day's width that this series takes."""
    day = 86_400_000  # plotly's unit of width on a time axis: milliseconds
    gap = 0.14
    return go.Bar(
        x=[datetime.combine(c.first_day, time()) + timedelta(days=c.days * (begins + width / 2) * (1 - gap) + c.days * gap / 2) for c in cells],
        y=[value / c.days / scale for value, c in zip(values, cells, strict=True)],
        width=[c.days * width * (1 - gap) * day for c in cells],
        name=name,
        marker={
            "color": colour,
            "line": {"width": 0},
            # "overlay" keeps the colour and draws the strokes into it.
            "pattern": {"shape": ["/" if c.days > 1 else "" for c in cells], "fillmode": "overlay", "size": 5, "solidity": 0.25},
        },
        customdata=[(span(c), f"{value:,}" + (f" in {c.days} days" if c.days > 1 else "")) for value, c in zip(values, cells, strict=True)],
        hovertemplate="%{customdata[0]}<br>" + name + ": %{customdata[1]}<extra></extra>",
    )


def _drawn(figure: go.Figure, unit: str, ink: Ink) -> go.Figure:
    """The template: no title (the card has it), one light grid, the unit on the axis, the legend on top."""
    words = {"color": ink.words, "size": 12}
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 0, "r": 0, "t": 28, "b": 0},
        legend={
            "orientation": "h",
            "traceorder": "normal",
            "font": words,
            "itemclick": False,
            "itemdoubleclick": False,
            "itemwidth": 30,
            # Of the container, not of the plot: in 320 pixels the plot alone is too narrow for three kinds in one line.
            "xref": "container",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 1,
            "yanchor": "top",
        },
        hoverlabel={"bgcolor": ink.hover, "bordercolor": ink.lines, "font": {"color": ink.words, "size": 12}},
        font=words,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
    )
    figure.update_yaxes(
        title={"text": unit, "font": words},
        tickfont=words,
        gridcolor=ink.lines,
        zerolinecolor=ink.lines,
        rangemode="tozero",
        showline=False,
        nticks=5,
        fixedrange=True,
    )
    figure.update_xaxes(type="date", showgrid=False, tickfont=words, tickformat="%-d %b", nticks=6, fixedrange=True)
    return figure


def _period(cells: Sequence[Span]) -> str:
    return f"{cells[0].first_day.day} {cells[0].first_day:%B} to {cells[-1].last_day.day} {cells[-1].last_day:%B %Y}"
