"""Charts as pure functions: a table in, an Altair chart out. Knows no page, no query and no clock.

Text marks take the theme's text colour, a category keeps its colour on every page, and meaning never rests on colour alone:
legends stand in the order of the stack and bars carry their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import altair as alt
import pandas as pd

from calls.model import Connection

SERIES_MAX = 6


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


LIGHT = Theme(
    text="#1b1f27", quiet="#5b6473", grid="#e3e6ec", accent="#3457d5",
    categories=("#3457d5", "#e08a1e", "#1d9a8a", "#b5488f", "#7a8699", "#8a5cd0"), better="#1d7a4f", worse="#b3402f",
)  # fmt: skip
DARK = Theme(
    text="#e8ebf2", quiet="#9aa6b8", grid="#2a303c", accent="#8aa4ff",
    categories=("#8aa4ff", "#f0a94a", "#45c4b3", "#dd7cb8", "#9aa6b8", "#b592f0"), better="#5cc48f", worse="#ee8472",
)  # fmt: skip

CONNECTIONS: Mapping[str, tuple[str, int]] = {
    Connection.PERSON: ("person", 0),
    Connection.MACHINE: ("machine", 1),
    Connection.NO_ANSWER: ("no answer", 2),
    Connection.BUSY: ("busy", 3),
    Connection.FAILED: ("failed", 4),
    Connection.CANCELED: ("canceled", 5),
    Connection.IN_PROGRESS: ("still open", 4),
    Connection.UNKNOWN: ("unknown", 4),
}
"""Label and colour index of each connection, in the order of the stack."""

RESULTS: Sequence[tuple[str, str, str]] = (
    ("true", "met", "#1d9a8a"),
    ("partial", "partly", "#e8c468"),
    ("false", "not met", "#c8553d"),
)
"""Value, label and colour of a criterion's results, in the order of the stack."""


def outcomes_over_time(
    rows: pd.DataFrame, theme: Theme, *, zone: str, bucket: str, open_from: datetime | None = None
) -> alt.Chart | alt.LayerChart:
    """Calls a bucket by connection, stacked; `rows`: bucket (in the zone), slice (connection), value.

    The bucket that begins at `open_from` is not over yet and is drawn lighter.
    """
    frame = rows.assign(
        connection=[CONNECTIONS.get(value, (value, 4))[0] for value in rows["slice"]],
        rank=[list(CONNECTIONS).index(value) if value in CONNECTIONS else 99 for value in rows["slice"]],
        open=[open_from is not None and moment >= open_from for moment in rows["bucket"]],
    )
    shown = [key for key in CONNECTIONS if key in set(rows["slice"])]
    labels = [CONNECTIONS[key][0] for key in shown]
    colours = [theme.categories[CONNECTIONS[key][1]] for key in shown]
    form = {"15 minutes": "%H:%M", "hour": "%a %H:%M", "day": "%a %d", "week": "%d %b", "month": "%b %Y"}[bucket]
    buckets = max(1, rows["bucket"].nunique())
    return _styled(
        alt.Chart(frame)
        .mark_bar(size=max(3, min(44, 520 // buckets)), cornerRadius=1)
        .encode(
            x=alt.X(
                "yearmonthdatehoursminutes(bucket):T",
                title=None,
                axis=alt.Axis(format=form, tickCount=min(buckets, 8), grid=False, labelFlush=False, labelOverlap=True),
                scale=alt.Scale(padding=26),
            ),
            y=alt.Y("sum(value):Q", title=None, axis=alt.Axis(tickCount=4, format=",d")),
            color=alt.Color(
                "connection:N",
                scale=alt.Scale(domain=labels, range=colours),
                legend=alt.Legend(orient="top", title=None, symbolType="square"),
            ),
            order=alt.Order("rank:Q"),
            opacity=alt.condition("datum.open", alt.value(0.55), alt.value(1)),
            tooltip=[
                alt.Tooltip("bucket:T", title=f"from ({zone})", format="%a %d %b %H:%M"),
                alt.Tooltip("connection:N", title="reached"),
                alt.Tooltip("value:Q", title="calls", format=",d"),
            ],
        )
        .properties(height=260),
        theme,
    )


def bars(rows: pd.DataFrame, theme: Theme, *, unit: str, colour: str | None = None) -> alt.LayerChart:
    """Horizontal bars, longest first; `rows`: label, value (0..1 or a count), text (at the bar), hint (tooltip)."""
    longest = float(rows["value"].max()) if len(rows) else 1.0
    base = alt.Chart(rows).encode(
        y=alt.Y(
            "label:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=190, labelPadding=8)
        ),
        x=alt.X("value:Q", title=None, axis=None, scale=alt.Scale(domain=[0, (longest or 1.0) * 1.22])),
        tooltip=[
            alt.Tooltip("label:N", title=" "),
            alt.Tooltip("text:N", title=unit),
            alt.Tooltip("hint:N", title="means"),
        ],
    )
    return _styled(
        (
            base.mark_bar(color=colour or theme.accent, cornerRadiusEnd=2, height={"band": 0.62})
            + base.mark_text(align="left", dx=5, color=theme.text, fontSize=12).encode(text="text:N")
        ).properties(height=max(60, 30 * len(rows))),
        theme,
    )


def result_bars(rows: pd.DataFrame, theme: Theme) -> alt.LayerChart:
    """Criteria as shares of met, partly and not met; `rows`: criterion, result (true, partial, false), calls, n."""
    order = {value: rank for rank, (value, _, _) in enumerate(RESULTS)}
    names = {value: name for value, name, _ in RESULTS}
    frame = rows.assign(
        label=[f"{row.criterion} ({row.n})" for row in rows.itertuples()],
        outcome=[names[value] for value in rows["result"]],
        rank=[order[value] for value in rows["result"]],
        share=rows["calls"] / rows["n"],
    )
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "label:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=190, labelPadding=8)
        ),
        x=alt.X("share:Q", stack="zero", title=None, axis=None, scale=alt.Scale(domain=[0, 1])),
        order=alt.Order("rank:Q"),
        tooltip=[
            alt.Tooltip("criterion:N"),
            alt.Tooltip("outcome:N"),
            alt.Tooltip("share:Q", format=".1%"),
            alt.Tooltip("calls:Q", format=",d"),
            alt.Tooltip("n:Q", title="judged", format=",d"),
        ],
    )
    coloured = base.mark_bar(height={"band": 0.62}).encode(
        color=alt.Color(
            "outcome:N",
            scale=alt.Scale(domain=[name for _, name, _ in RESULTS], range=[colour for _, _, colour in RESULTS]),
            legend=alt.Legend(orient="top", title=None, symbolType="square"),
        )
    )
    met = frame[frame["result"] == "true"]
    text = (
        alt.Chart(met)
        .mark_text(align="left", dx=6, color="#ffffff", fontSize=11, fontWeight=600)
        .encode(y=alt.Y("label:N", sort=None), x=alt.value(0), text=alt.Text("share:Q", format=".0%"))
        .transform_filter("datum.share >= 0.12")
    )
    return _styled((coloured + text).properties(height=max(90, 30 * frame["label"].nunique())), theme)


def sparkline(rows: pd.DataFrame, theme: Theme, *, colour: str | None = None, share: bool = False) -> alt.LayerChart:
    """A small line without axes; `rows`: bucket, value. Shares keep 0 to 1 out of it: only their shape is shown."""
    line = colour or theme.accent
    base = alt.Chart(rows).encode(
        x=alt.X("bucket:T", axis=None),
        y=alt.Y("value:Q", axis=None, scale=alt.Scale(zero=not share)),
    )
    return _styled(
        (base.mark_area(opacity=0.12, color=line) + base.mark_line(color=line, strokeWidth=1.6)).properties(height=44),
        theme,
    )


def topped(rows: pd.DataFrame, *, label: str, value: str, most: int = SERIES_MAX) -> pd.DataFrame:
    """The `most` largest rows, the rest summed up as "other (n)"; sorted, largest first."""
    ordered = rows.sort_values([value, label], ascending=[False, True]).reset_index(drop=True)
    if len(ordered) <= most:
        return ordered
    rest = ordered.iloc[most - 1 :]
    other = pd.DataFrame([{label: f"other ({len(rest)})", value: rest[value].sum()}])
    return pd.concat([ordered.iloc[: most - 1], other], ignore_index=True)


def _styled(chart: alt.Chart | alt.LayerChart, theme: Theme) -> alt.LayerChart:
    styled: alt.LayerChart = (
        chart.configure_view(strokeWidth=0)
        .configure_axis(
            labelColor=theme.quiet, titleColor=theme.quiet, gridColor=theme.grid, domainColor=theme.grid,
            tickColor=theme.grid, labelFontSize=12,
        )
        .configure_legend(labelColor=theme.text, labelFontSize=12, offset=6, padding=0)
        .configure(background="transparent", padding=4)
    )  # fmt: skip
    return styled
