"""A report: the overview's cards on paper. One HTML file that opens offline, and the same numbers as rows.

The rows are for programs; sheets and Markdown are for people, who read shares in per cent and times on their own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from analytics import exports
from analytics.metric import Filters, Kind, Metric, interval
from analytics.together import Question
from dashboard import cards, charts, nothing, words
from dashboard.cards import Card
from dashboard.charts import Picture
from dashboard.reader import Reader
from dashboard.tiles import NONE, TILES, Tile, tile, total, without
from dashboard.view import View, only

Sent = tuple[str, str | None]
"""What a card shows, for people, and the column that a platform sends it in; None for what every one sends."""
TEMPLATE = Path(__file__).parent / "report.html"
FRACTION = "fraction"
"""The unit of shares where programs read them: 0.863 is no per cent."""
WIDTHS = {"wide": 610, "narrow": 396}
"""Of a picture, in CSS pixels; a page is 1080 wide, its cards stand 3 to 2."""

MORE = (
    "answered", "voicemail", "no_answer", "busy", "canceled", "failed", "unknown", "unique_contacts",
    "contacts_reached", "talk_time_median", "early_hangup", "contained", "judged", "goal_on_attempts", "booking_rate",
    "lead_rate", "sentiment_net", "opt_out", "cost_per_call",
)  # fmt: skip
"""Numbers of the second rank; those without a case in the range are left out."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A card with its picture."""

    card: Card
    svg: str
    empty: str
    """Why there is no picture, where there is none."""
    meanings: Mapping[str, str]
    """What words in it mean, which a page tells in its tooltips."""


@dataclass(frozen=True, slots=True)
class Told:
    """A metric with its words."""

    metric: Metric
    tile: Tile
    left_out: str
    """The platforms whose calls are not in it, as they do not send it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a report is of, in words for people."""

    title: str
    span: str
    """The range with its zone."""
    only: Mapping[str, str]
    """The filters, by name."""
    before: str
    """The period that it is compared with."""
    made: str
    demo: str
    """That the calls are made up; empty where they are not."""


def header(view: View, *, title: str, names: Mapping[str, str], made_at: datetime, demo: bool) -> Header:
    """What stands on top of a report, whatever its form; `names` are those of agents by id."""
    zone = view.filters.zone
    first, last = _day(view.filters.start, zone), _day(view.filters.end - 1, zone)
    days = first if first == last else f"{first} to {last}"
    return Header(
        title=words.label(title, 200),
        span=f"{view.label}, {zone}" if first in view.label else f"{view.label}: {days}, {zone}",
        only=only(view.filters, names),
        before=f"{_day(view.before.start, zone)} to {_day(view.before.end - 1, zone)}",
        made=f"{words.day(made_at, zone)}, {words.local(made_at, zone)[-8:-3]}",
        demo="Demo data: made-up calls." if demo else "",
    )


def html(reader: Reader, view: View, head: Header, names: Mapping[str, str]) -> str:
    """The report as one HTML page; needs nothing from outside."""
    _prepare(reader, view)
    providers = _providers(reader, view.filters)
    told = [_told(reader, reader.metric(name), view, providers) for name in TILES]
    more = [_told(reader, reader.metric(name), view, providers) for name in MORE]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        head=head,
        tiles=told,
        no_figure=NONE,
        more=[item for item in more if item.tile.figure != NONE],
        drawn=_drawn(reader, view, providers),
        agents=cards.agents(reader, view.filters, names),
        no_calls=nothing.none_in(view, "calls"),
        agent_columns=cards.AGENT_COLUMNS,
        agent_numbers=cards.AGENT_NUMBERS,
        note=cards.left_out(reader, view.filters),
        back=view.back,
        theme=charts.LIGHT,
        font=charts.FONT,
    )


def rows(reader: Reader, view: View, metrics: Mapping[str, Metric]) -> pa.Table:
    """Every metric of the period and of the one before, with counts and, for shares, the Wilson 95 % interval.

    A metric without a case has a row too, without numbers. Shares and their intervals are fractions.
    """
    found = []
    periods = (view.filters, view.before)
    reader.prepare(Question(metric, filters) for metric in metrics.values() for filters in periods)
    for name, metric in metrics.items():
        for period, filters in (("range", view.filters), ("before", view.before)):
            now = total(reader.measure(name, filters))
            low: float | None = None
            high: float | None = None
            if metric.kind is Kind.SHARE and now.denominator:
                low, high = interval(now.numerator or 0, now.denominator)
            found.append(
                {
                    "metric": name, "title": metric.title,
                    "unit": FRACTION if metric.kind is Kind.SHARE else metric.unit, "period": period,
                    "start": datetime.fromtimestamp(filters.start / 1_000_000, UTC),
                    "end": datetime.fromtimestamp(filters.end / 1_000_000, UTC),
                    "value": now.value, "numerator": now.numerator, "denominator": now.denominator, "n": now.n,
                    "low": low, "high": high, "about": metric.about,
                }
            )  # fmt: skip
    return pa.Table.from_pylist(found, schema=_SCHEMA)


def markdown(table: pa.Table, zone: str, head: Header) -> bytes:
    """The rows for people, below what they are of."""
    told = [head.span, *(f"{name}: {value}" for name, value in head.only.items()), f"made {head.made}"]
    lines = [f"# {exports.markdown(head.title)}", exports.markdown(" · ".join(told)), *filter(None, [head.demo])]
    return "\n\n".join([*lines, ""]).encode() + exports.to_bytes(_for_people(table, zone), exports.Form.MARKDOWN)


def workbook(table: pa.Table, zone: str, head: Header) -> bytes:
    """A sheet that says what the report is of, and one with the rows for people."""
    about = {
        "Range": head.span,
        **{name.capitalize(): value for name, value in head.only.items()},
        "Compared with": head.before,
        "Made": head.made,
        **({"Note": head.demo} if head.demo else {}),
    }
    first = pa.Table.from_arrays([pa.array(list(about)), pa.array(list(about.values()))], names=["Report", head.title])
    return exports.workbook({"About": first, head.title: _for_people(table, zone)})


def _for_people(table: pa.Table, zone: str) -> pa.Table:
    """The rows with shares in per cent, as many digits as are read, and times in the zone of the report."""
    shares = pc.equal(table.column("unit"), FRACTION)

    def rounded(name: str) -> pa.ChunkedArray:
        column = table.column(name)
        return pc.if_else(shares, pc.round(pc.multiply(column, 100), 1), pc.round(column, 2))

    told = {
        **{name: rounded(name) for name in ("value", "low", "high")},
        **{name: pc.round(table.column(name), 2) for name in ("numerator", "denominator")},
        **{name: table.column(name).cast(pa.timestamp("us", zone)) for name in ("start", "end")},
        "unit": pc.if_else(shares, "%", table.column("unit")),
    }
    return pa.table({name: told.get(name, table.column(name)) for name in table.column_names})


_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("metric", "title", "unit", "period")]
    + [(name, pa.timestamp("us", "UTC")) for name in ("start", "end")]
    + [(name, pa.float64()) for name in ("value", "numerator", "denominator", "n", "low", "high")]
    + [("about", pa.string())]
)


def _prepare(reader: Reader, view: View) -> None:
    questions, also = cards.questions(reader, view.filters, view.bucket)
    numbers = [
        Question(reader.metric(name), filters) for name in (*TILES, *MORE) for filters in (view.filters, view.before)
    ]
    reader.prepare([*questions, *numbers], also)


def _told(reader: Reader, metric: Metric, view: View, providers: frozenset[str]) -> Told:
    now, before = (total(reader.measure(metric.name, filters)) for filters in (view.filters, view.before))
    words_of = tile(metric, now, before, only={"provider": sorted(providers)}, back=view.back)
    return Told(metric, words_of, without(metric, providers))


def _providers(reader: Reader, filters: Filters) -> frozenset[str]:
    """The platforms that have calls in the range."""
    return frozenset(row.slice or "" for row in reader.measure("attempts", filters, slice_by="provider"))


def _drawn(reader: Reader, view: View, providers: frozenset[str]) -> list[Drawn]:
    theme, filters = charts.LIGHT, view.filters
    wide, narrow = True, False
    calls: Sent = ("calls", None)
    drawings: list[tuple[Card, bool, Sent, Callable[[charts.Rows], Picture]]] = [
        (
            cards.outcomes(reader, filters, view.bucket), wide, calls,
            lambda rows: charts.outcomes_over_time(
                rows, theme, zone=filters.zone, bucket=view.bucket, buckets=view.buckets, open_from=view.open_from
            ),
        ),
        (
            cards.reasons(reader, filters), narrow, ("end-call reasons", "end_call_reason"),
            lambda rows: charts.bars(rows, theme, unit="share"),
        ),
        (
            cards.analysis(reader, filters), wide, ("analysis", "call_analysis"),
            lambda rows: charts.result_bars(rows, theme),
        ),
        (
            cards.variables(reader, filters), narrow, ("collected variables", "call_variables"),
            lambda rows: charts.bars(rows, theme, unit="filled", colour=theme.categories[2]),
        ),
        (cards.hours(reader, filters), wide, calls, lambda rows: charts.heat_map(rows, theme, unit="calls")),
        (cards.platforms(reader, filters), narrow, calls, lambda rows: charts.bars(rows, theme, unit="calls")),
    ]  # fmt: skip
    return [
        Drawn(
            card,
            _svg(draw(card.rows), width) if card.rows else "",
            nothing.why(view, what, column=column, providers=providers),
            _meanings(card),
        )
        for card, width, (what, column), draw in drawings
    ]


def _meanings(card: Card) -> dict[str, str]:
    labels = [str(row.get("label")) for row in card.rows]
    return {label: words.PLAIN_REASONS[label] for label in labels if label in words.PLAIN_REASONS}


def _svg(picture: Picture, wide: bool) -> str:
    import vl_convert

    # The whole picture takes the width, labels included; else each card would be scaled to a type size of its own.
    fitted = {"width": WIDTHS["wide" if wide else "narrow"], "autosize": {"type": "fit-x", "contains": "padding"}}
    svg: str = vl_convert.vegalite_to_svg({**picture.to_dict(), **fitted})
    return svg


def _day(moment: int, zone: str) -> str:
    return words.day(datetime.fromtimestamp(moment / 1_000_000, UTC), zone)
