"""Charts as pure functions: a table in, a picture made with Altair out. Knows no page, no query and no clock.

Text marks take the theme's text colour, a category keeps its colour on every page, and meaning never rests on colour
alone: legends stand in the order of the stack and bars carry their numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import altair as alt

from calls.model import Connection
from dashboard.words import THIN, count

Rows = Sequence[Mapping[str, Any]]
"""What a picture shows: a row's values by name."""

CLICKED = "clicked"
"""The name under which a picture tells which of its bars was clicked: the `narrow` of its row."""
SERIES_MAX = 6
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
"""Of the same widths on all systems: a picture on paper is laid out here and drawn by who opens it."""
SCREEN_FONT = '"Source Sans", sans-serif'
"""Of the pages around a picture; Streamlit gives it to axes and legends, and not to the text at a bar."""
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a page, light or dark."""

    text: str
    quiet: str
    grid: str
    accent: str
    categories: tuple[str, ...]
    better: str
    worse: str
    faint: str
    """For what is not decided yet."""


LIGHT = Theme(
    text="#1b1f27", quiet="#5b6473", grid="#e3e6ec", accent="#3457d5",
    categories=("#3457d5", "#e08a1e", "#1d9a8a", "#b5488f", "#7a8699", "#8a5cd0"), better="#1d7a4f", worse="#b3402f",
    faint="#c3cad6",
)  # fmt: skip
DARK = Theme(
    text="#e8ebf2", quiet="#9aa6b8", grid="#2a303c", accent="#8aa4ff",
    categories=("#8aa4ff", "#f0a94a", "#45c4b3", "#dd7cb8", "#9aa6b8", "#b592f0"), better="#5cc48f", worse="#ee8472",
    faint="#4a5366",
)  # fmt: skip

CONNECTIONS: Mapping[str, str] = {
    Connection.PERSON: "person",
    Connection.MACHINE: "machine",
    Connection.NO_ANSWER: "no answer",
    Connection.BUSY: "busy",
    Connection.CANCELED: "cancelled",
    Connection.FAILED: "failed",
    Connection.UNKNOWN: "unknown",
    Connection.IN_PROGRESS: "still open",
}
"""Label of each connection, in the order of the stack."""

RESULTS: Sequence[tuple[str, str, str]] = (
    ("true", "met", "#1d9a8a"),
    ("partial", "partly", "#e8c468"),
    ("false", "not met", "#c8553d"),
)
"""Value, label and colour of a criterion's results, in the order of the stack."""

_FORMS = {"15 minutes": "%H:%M", "hour": "%a %H:%M", "day": "%a %d", "week": "%d %b", "month": "%b %Y"}
_KEY = "%Y-%m-%dT%H:%M"
_COUNT = f"replace(format(datum.value, ',d'), /,/g, '{THIN}')"
"""A number on an axis, written as everywhere else."""
_ROUND = (1, 2, 3, 4, 5, 6, 8, 10)
_ROWS = "rows"
_LOOKS = 64


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart: its look, which is one for all rows of the same shape, and the rows that it shows.

    Looks are made once and kept: on a live page only the rows change, and the browser redraws what has changed of them.
    """

    look: str
    """A Vega-Lite specification as JSON, without data and without a font."""
    rows: Rows
    leads: bool = False
    """Whether a click on a bar leads to its calls."""

    def spec(self) -> dict[str, Any]:
        """The specification without its data, in the font of the pages."""
        return self._in(SCREEN_FONT)

    def to_dict(self) -> dict[str, Any]:
        """The specification with its rows in place, in the font of paper."""
        return {**self._in(FONT), "data": {"name": _ROWS}, "datasets": {_ROWS: [dict(row) for row in self.rows]}}

    def _in(self, font: str) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self.look)
        spec["config"]["font"] = font
        return spec


def outcomes_over_time(
    rows: Rows,
    theme: Theme,
    *,
    zone: str,
    bucket: str,
    buckets: Sequence[datetime],
    open_from: datetime | None = None,
    leads: bool = False,
) -> Picture:
    """Calls a bucket by connection, stacked; `rows`: bucket (in the zone), slice (connection), value.

    The axis is `buckets`, whatever of them has calls: silence at either end is seen as well as between calls. The
    bucket that begins at `open_from` is not over yet and is drawn lighter.
    """
    counts: dict[tuple[datetime, str], float] = {}
    calls = {}
    for row in rows:
        at = row["bucket"], row["slice"]
        counts[at] = counts.get(at, 0) + row["value"]
        calls[at] = {name: row.get(name, "") for name in ("narrow", "click")}
    found = {connection for _, connection in counts}
    order = [*(key for key in CONNECTIONS if key in found), *sorted(found - set(CONNECTIONS))]
    shown = [
        {
            "key": f"{moment:{_KEY}}", "begins": f"{moment:%a %d %b %Y %H:%M}", "value": value, "told": count(value),
            "connection": CONNECTIONS.get(connection, connection), "rank": order.index(connection),
            "open": open_from is not None and moment >= open_from, **calls[moment, connection],
        }
        for (moment, connection), value in sorted(counts.items())
    ]  # fmt: skip
    highest: dict[datetime, float] = {}
    for (moment, _), value in counts.items():
        highest[moment] = highest.get(moment, 0) + value
    axis = tuple(f"{moment:{_KEY}}" for moment in sorted({*buckets, *highest}))
    look = _stacked(theme, axis, bucket, tuple(order), zone, _round(max(highest.values(), default=1)), leads)
    return Picture(look, shown, leads)


@lru_cache(maxsize=_LOOKS)
def _stacked(
    theme: Theme, buckets: tuple[str, ...], bucket: str, order: tuple[str, ...], zone: str, most: float, leads: bool
) -> str:
    colours = connection_colours(theme)
    form = "%d %b" if bucket == "day" and len(buckets) > 14 else _FORMS[bucket]
    chart = (
        alt.Chart()
        .mark_bar(cornerRadius=1)
        .encode(
            # A band for each bucket, not a scale of time: bars fill the width of any page, and no viewer's zone
            # moves them.
            x=alt.X(
                "key:O",
                title=None,
                scale=alt.Scale(domain=list(buckets), paddingInner=0.18, paddingOuter=0.1),
                axis=alt.Axis(
                    labelExpr=f"utcFormat(toDate(datum.value + 'Z'), '{form}')", labelAngle=0, labelOverlap=True,
                    labelSeparation=6, labelFlush=False, ticks=False, grid=False,
                ),
            ),
            y=alt.Y(
                "value:Q", title=None, stack="zero", axis=alt.Axis(tickCount=4, tickMinStep=1, labelExpr=_COUNT),
                # Told, as the browser draws once before it has the rows, and complains that it finds no end in them.
                scale=alt.Scale(domain=[0, most]),
            ),
            color=alt.Color(
                "connection:N",
                scale=alt.Scale(
                    domain=[CONNECTIONS.get(key, key) for key in order],
                    range=[colours.get(key, theme.categories[4]) for key in order],
                ),
                legend=_legend(),
            ),
            order=alt.Order("rank:Q"),
            opacity=alt.condition("datum.open", alt.value(0.55), alt.value(1)),
            tooltip=[
                alt.Tooltip("begins:N", title=f"from ({zone})"),
                alt.Tooltip("connection:N", title="reached"),
                alt.Tooltip("told:N", title="calls"),
            ],
        )
        .properties(height=260)
    )  # fmt: skip
    return _styled(_leading(chart) if leads else chart, theme)


def bars(rows: Rows, theme: Theme, *, unit: str, colour: str | None = None, leads: bool = False) -> Picture:
    """Horizontal bars in the order given; `rows`: label, value (0..1 or a count), text (at the bar), hint (tooltip)."""
    longest = _rounded_up(max((float(row["value"]) for row in rows), default=1.0))
    labels = tuple(row["label"] for row in rows)
    return Picture(_lying(theme, labels, longest, _letters(rows), unit, colour or theme.accent, leads), rows, leads)


@lru_cache(maxsize=_LOOKS)
def _lying(
    theme: Theme, labels: tuple[str, ...], longest: float, letters: int, unit: str, colour: str, leads: bool
) -> str:
    base = alt.Chart().encode(
        y=_labels(labels),
        x=alt.X("value:Q", title=None, axis=None, scale=_up_to(longest, letters)),
        tooltip=[
            alt.Tooltip("label:N", title=" "),
            alt.Tooltip("text:N", title=unit),
            alt.Tooltip("hint:N", title="means"),
        ],
    )
    bar = base.mark_bar(color=colour, cornerRadiusEnd=2, height={"band": 0.62})
    chart = (_leading(bar) if leads else bar) + base.mark_text(
        align="left", dx=5, color=theme.text, fontSize=12
    ).encode(text="text:N")
    return _styled(chart.properties(height=max(60, 30 * len(labels))), theme)


def result_bars(rows: Rows, theme: Theme, *, leads: bool = False) -> Picture:
    """Criteria as shares of met, partly and not met; `rows`: criterion, result, calls, n, text (how many met).

    Results are `true`, `partial` and `false`; the text stands beside the bar.
    """
    outcomes = {value: (rank, name) for rank, (value, name, _) in enumerate(RESULTS)}
    shown = []
    labels: dict[str, None] = {}
    for row in rows:
        rank, outcome = outcomes[row["result"]]
        first = row["criterion"] not in labels
        labels[row["criterion"]] = None
        shown.append(
            {
                **row, "label": row["criterion"], "outcome": outcome, "rank": rank, "share": row["calls"] / row["n"],
                "first": first, "end": 1.0, "told": f"{count(row['calls'])} of {count(row['n'])} judged",
            }
        )  # fmt: skip
    return Picture(_parts(theme, tuple(labels), _letters(rows), leads), shown, leads)


@lru_cache(maxsize=_LOOKS)
def _parts(theme: Theme, labels: tuple[str, ...], letters: int, leads: bool) -> str:
    width = _up_to(1, letters)
    coloured = (
        alt.Chart()
        .mark_bar(height={"band": 0.62})
        .encode(
            y=_labels(labels),
            x=alt.X("share:Q", stack="zero", title=None, axis=None, scale=width),
            order=alt.Order("rank:Q"),
            color=alt.Color(
                "outcome:N",
                scale=alt.Scale(domain=[name for _, name, _ in RESULTS], range=[colour for _, _, colour in RESULTS]),
                legend=_legend(),
            ),
            tooltip=[
                alt.Tooltip("criterion:N"),
                alt.Tooltip("outcome:N"),
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("told:N", title="calls"),
            ],
        )
    )
    text = (
        alt.Chart()
        .mark_text(align="left", dx=6, color=theme.text, fontSize=12)
        .encode(y=_labels(labels), x=alt.X("end:Q", scale=width), text="text:N")
        .transform_filter("datum.first")
    )
    coloured = _leading(coloured) if leads else coloured
    return _styled((coloured + text).properties(height=max(90, 30 * len(labels))), theme)


def heat_map(rows: Rows, theme: Theme, *, unit: str) -> Picture:
    """Hours of the day by days of the week; `rows`: weekday (0 is Monday), hour, value. What is not named is 0."""
    filled = {(row["weekday"], row["hour"]): row["value"] for row in rows}
    shown = [
        {"day": name, "hour": hour, "value": value, "at": f"{name} {hour:02d}:00", "told": count(value)}
        for weekday, name in enumerate(DAYS)
        for hour in range(24)
        for value in (filled.get((weekday, hour), 0),)
    ]
    most = max(float(row["value"]) for row in shown)
    return Picture(_week(theme, max(1.0, _rounded_up(most)), unit), shown)


@lru_cache(maxsize=_LOOKS)
def _week(theme: Theme, most: float, unit: str) -> str:
    chart = (
        alt.Chart()
        .mark_rect(cornerRadius=2)
        .encode(
            x=alt.X(
                "hour:O", title=None, scale=alt.Scale(paddingInner=0.08),
                axis=alt.Axis(
                    labelAngle=0, values=list(range(0, 24, 3)), labelExpr="pad(datum.value, 2, '0', 'left') + ':00'",
                    ticks=False, domain=False, grid=False,
                ),
            ),
            y=alt.Y(
                "day:O", sort=list(DAYS), title=None, scale=alt.Scale(paddingInner=0.08),
                axis=alt.Axis(ticks=False, domain=False, grid=False, labelPadding=8),
            ),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(domain=[0, most], range=[theme.grid, theme.accent], interpolate="rgb"),
                legend=alt.Legend(
                    orient="top", title=None, tickMinStep=1, tickCount=2, gradientLength=120, gradientThickness=8,
                    labelExpr=_COUNT,
                ),
            ),
            tooltip=[alt.Tooltip("at:N", title="from"), alt.Tooltip("told:N", title=unit)],
        )
        .properties(height=200)
    )  # fmt: skip
    return _styled(chart, theme)


def topped(counts: Mapping[str, float], most: int = SERIES_MAX) -> list[tuple[str, float]]:
    """The `most` largest counts by name, the rest summed up as "other (n)"; sorted, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) <= most:
        return ordered
    rest = ordered[most - 1 :]
    return [*ordered[: most - 1], (f"other ({len(rest)})", sum(value for _, value in rest))]


def connection_colours(theme: Theme) -> dict[str, str]:
    """The colour of each connection, the same on every page."""
    blue, orange, teal, pink, grey, violet = theme.categories
    colours = (blue, orange, teal, pink, violet, theme.worse, grey, theme.faint)
    return dict(zip(CONNECTIONS, colours, strict=True))


def _labels(names: Sequence[str]) -> alt.Y:
    """The axis of named bars, in that order."""
    return alt.Y(
        "label:N",
        sort=list(names),
        title=None,
        axis=alt.Axis(ticks=False, domain=False, labelLimit=170, labelPadding=8, minExtent=40),
    )


def _leading(bars: alt.Chart) -> alt.Chart:
    """Bars that lead to their calls, and say so."""
    chosen = alt.selection_point(name=CLICKED, fields=["narrow"], toggle=False)
    bars = bars.copy()
    bars.mark.cursor = "pointer"
    bars.encoding.tooltip = [*bars.encoding.tooltip, alt.Tooltip("click:N")]
    return bars.add_params(chosen).properties(name="bars")


def _letters(rows: Rows) -> int:
    """Of the longest text at a bar."""
    return max((len(row["text"]) for row in rows), default=0)


def _up_to(longest: float, letters: int) -> alt.Scale:
    """The scale of lying bars: behind the longest is room for its text, which takes as much on a phone as elsewhere."""
    return alt.Scale(domain=[0, longest], range=[0, alt.ExprRef(f"max(width / 4, width - {10 + 7 * letters})")])


def _legend() -> alt.Legend:
    """In as many columns as there is room for: on a phone one row of names would be cut off."""
    return alt.Legend(
        orient="top", title=None, symbolType="square", columns=alt.ExprRef("max(3, floor(width / 80))"), columnPadding=8
    )


def _round(value: float) -> float:
    """The next round number: the end of an axis that stays for a while."""
    size = 10.0 ** math.floor(math.log10(max(value, 1)))
    return next(part * size for part in _ROUND if part * size >= value - 1e-9)


def _rounded_up(value: float) -> float:
    """A little more, with two digits: a scale that does not change with every call."""
    if value <= 0:
        return 1.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step - 1e-9) * step


def _styled(chart: alt.Chart | alt.LayerChart, theme: Theme) -> str:
    config = alt.Config(
        background="transparent",
        padding=4,
        view=alt.ViewConfig(strokeWidth=0),
        axis=alt.AxisConfig(
            labelColor=theme.quiet, titleColor=theme.quiet, gridColor=theme.grid, domainColor=theme.grid,
            tickColor=theme.grid, labelFontSize=12,
        ),
        legend=alt.LegendConfig(labelColor=theme.text, labelFontSize=12, offset=6, padding=0),
    )  # fmt: skip
    layers = chart if isinstance(chart, alt.LayerChart) else alt.layer(chart)
    spec = layers.properties(config=config).to_dict()
    # Every layer shows the same rows, and those come later.
    for part in (spec, *spec["layer"]):
        part.pop("data", None)
        part.pop("datasets", None)
    return json.dumps(spec)
