"""A report: the overview's cards on paper. One HTML file that opens offline, and the same numbers as rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import altair as alt
import jinja2
import pandas as pd
import pyarrow as pa

from analytics.metric import Kind, Metric, interval
from dashboard import cards, charts, words
from dashboard.cards import Card
from dashboard.reader import Reader
from dashboard.tiles import TILES, Tile, tile, total
from dashboard.view import View

TEMPLATE = Path(__file__).parent / "report.html"
WIDTHS = {"wide": 560, "narrow": 330}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A card with its picture."""

    card: Card
    svg: str
    wide: bool


def html(reader: Reader, view: View, *, title: str, names: Mapping[str, str], made_at: datetime, demo: bool) -> str:
    """The report as one HTML page; needs nothing from outside."""
    metrics = [reader.metric(name) for name in TILES]
    told = [(metric, _told(reader, metric, view)) for metric in metrics]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        label=view.label,
        zone=view.filters.zone,
        first=_day(view.filters.start, view.filters.zone),
        last=_day(view.filters.end - 1, view.filters.zone),
        only={key: ", ".join(values) for key, values in view.filters.only.items()},
        made_at=words.local(made_at, view.filters.zone),
        demo=demo,
        tiles=told,
        drawn=_drawn(reader, view),
        agents=cards.agents(reader, view.filters, names),
        note=cards.left_out(reader, view.filters),
        theme=charts.LIGHT,
    )


def rows(reader: Reader, view: View, metrics: Mapping[str, Metric]) -> pa.Table:
    """Every metric of the period and of the one before, with counts and, for shares, the Wilson 95 % interval."""
    found = []
    for name, metric in metrics.items():
        for period, filters in (("range", view.filters), ("before", view.before)):
            for row in reader.measure(name, filters).itertuples():
                found.append(_row(metric, period, row.value, row.numerator, row.denominator, row.n))
    return pa.Table.from_pylist(found, schema=_SCHEMA)


_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("metric", "title", "unit", "period")]
    + [(name, pa.float64()) for name in ("value", "numerator", "denominator", "n", "low", "high")]
    + [("about", pa.string())]
)


def _row(
    metric: Metric, period: str, value: float, numerator: float, denominator: float, n: float
) -> dict[str, str | float | None]:
    low: float | None = None
    high: float | None = None
    if metric.kind is Kind.SHARE and denominator and pd.notna(denominator):
        low, high = interval(numerator, denominator)
    numbers = {"value": value, "numerator": numerator, "denominator": denominator, "n": n}
    return {
        "metric": metric.name, "title": metric.title, "unit": metric.unit, "period": period,
        **{key: None if pd.isna(number) else float(number) for key, number in numbers.items()},
        "low": low, "high": high, "about": metric.about,
    }  # fmt: skip


def _told(reader: Reader, metric: Metric, view: View) -> Tile:
    return tile(
        metric, total(reader.measure(metric.name, view.filters)), total(reader.measure(metric.name, view.before))
    )


def _drawn(reader: Reader, view: View) -> list[Drawn]:
    theme, filters = charts.LIGHT, view.filters
    drawings: list[tuple[Card, bool, Callable[[pd.DataFrame], alt.LayerChart]]] = [
        (
            cards.outcomes(reader, filters, view.bucket), True,
            lambda rows: charts.outcomes_over_time(
                rows, theme, zone=filters.zone, bucket=view.bucket, open_from=view.open_from
            ),
        ),
        (cards.reasons(reader, filters), False, lambda rows: charts.bars(rows, theme, unit="share")),
        (cards.analysis(reader, filters), True, lambda rows: charts.result_bars(rows, theme)),
        (
            cards.variables(reader, filters), False,
            lambda rows: charts.bars(rows, theme, unit="filled", colour=theme.categories[2]),
        ),
    ]  # fmt: skip
    return [Drawn(card, _svg(draw(card.rows), wide) if len(card.rows) else "", wide) for card, wide, draw in drawings]


def _svg(chart: alt.LayerChart, wide: bool) -> str:
    import vl_convert

    spec = chart.properties(width=WIDTHS["wide" if wide else "narrow"]).to_json()
    svg: str = vl_convert.vegalite_to_svg(json.loads(spec))
    return svg


def _day(moment: int, zone: str) -> str:
    return words.local(datetime.fromtimestamp(moment / 1_000_000, UTC), zone)[:10]
