"""Overview: what happened in the chosen range, and how it compares with the period before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import streamlit as st

from analytics.metric import Kind, Metric
from analytics.together import Question
from dashboard import address, cards, charts, data, narrowing, part
from dashboard.cards import Card
from dashboard.charts import Picture
from dashboard.empty import nothing_received, why_empty
from dashboard.filters import kept, pick
from dashboard.inert import literal
from dashboard.live import heading
from dashboard.reader import Measured, Reader
from dashboard.theme import current
from dashboard.tiles import TILES, tile, total, without
from dashboard.view import View, line

Draw = Callable[[charts.Rows], Picture]


def render() -> None:
    """Draw the page."""
    choices = data.choices()
    head, choose = st.columns([1, 2], vertical_alignment="bottom")
    with choose:
        view = pick(choices, data.titles(), datetime.now(UTC))
    with head:
        heading("Overview", line(view, choices.agents))
    if nothing_received():
        return
    reader = data.reader()
    _prepare(reader, view)
    _tiles(reader, view)
    if cards.platforms(reader, view.filters).rows:
        _charts(reader, view)
        _agents(cards.agents(reader, view.filters, choices.agents))
    else:
        # Once, where every chart would say the same.
        why_empty(view, "calls", key="all")
    if note := cards.left_out(reader, view.filters):
        st.caption(literal(note))


def _prepare(reader: Reader, view: View) -> None:
    """Everything below is asked for at once."""
    questions, also = cards.questions(reader, view.filters, view.bucket)
    for name in TILES:
        questions.append(Question(reader.metric(name), view.filters, view.bucket))
        questions.append(Question(reader.metric(name), view.before))
    reader.prepare(questions, also)


def _tiles(reader: Reader, view: View) -> None:
    shown = []
    providers = {row.slice or "" for row in reader.measure("attempts", view.filters, slice_by="provider")}
    # What a platform does not send is missing whichever filter leads to its calls.
    of = {"provider": sorted(providers)} if providers else view.filters.only
    for name in TILES:
        metric = reader.metric(name)
        series = reader.measure(name, view.filters, bucket=view.bucket)
        before = reader.measure(name, view.before)
        told = tile(metric, total(series), total(before), only=of, back=view.back)
        query = cards.filled_in(*metric.sql(view.filters))
        shown.append(
            part.TileData(
                name=name, title=metric.title, figure=told.figure, change=told.change or "",
                tone="" if told.good is None else "good" if told.good else "bad", base=told.base,
                points=_points(series, metric, view), about=metric.about,
                note=" ".join(filter(None, (without(metric, providers), _note(metric, view)))), sql=query,
                href=address.link("sql", sql=query),
            )
        )  # fmt: skip
    part.tiles("tiles", shown)


def _points(series: Sequence[Measured], metric: Metric, view: View) -> list[float | None]:
    """The sparkline: every bucket of the range in turn; a count that is not over yet would only look like a fall."""
    values = {row.bucket: row.value for row in series if row.bucket is not None}
    buckets = sorted({*view.buckets, *values})
    if metric.kind is Kind.COUNT and any(bucket < view.open_from for bucket in values):
        buckets = [bucket for bucket in buckets if bucket < view.open_from]
    nothing = 0.0 if metric.kind is Kind.COUNT else None
    found = [values.get(bucket) for bucket in buckets]
    return [nothing if value is None else value for value in found] if values and len(found) > 1 else []


def _note(metric: Metric, view: View) -> str:
    compared = f"The change compares with the {view.back.removeprefix('a ').removeprefix('the ')}"
    if metric.kind is not Kind.SHARE:
        return f"{compared}."
    return (
        f"{compared}. Beside the counts stands the Wilson 95 % interval of the share, in per cent; the change is "
        "coloured only where it is more than chance."
    )


def _charts(reader: Reader, view: View) -> None:
    theme, filters = current(), view.filters
    left, right = st.columns([3, 2])
    with left:
        _chart(
            cards.outcomes(reader, filters, view.bucket), view, "calls", None,
            lambda rows: charts.outcomes_over_time(
                rows, theme, zone=filters.zone, bucket=view.bucket, buckets=view.buckets, open_from=view.open_from,
                leads=True,
            ),
        )  # fmt: skip
    with right:
        _chart(
            cards.reasons(reader, filters), view, "end-call reasons", "end_call_reason",
            lambda rows: charts.bars(rows, theme, unit="share", leads=True),
        )  # fmt: skip
    left, right = st.columns([3, 2])
    with left:
        _chart(
            cards.analysis(reader, filters), view, "analysis", "call_analysis",
            lambda rows: charts.result_bars(rows, theme, leads=True),
        )  # fmt: skip
    with right:
        _chart(
            cards.variables(reader, filters), view, "collected variables", "call_variables",
            lambda rows: charts.bars(rows, theme, unit="filled", colour=theme.categories[2], leads=True),
        )  # fmt: skip
    left, right = st.columns([3, 2])
    with left:
        _chart(
            cards.hours(reader, filters), view, "calls", None, lambda rows: charts.heat_map(rows, theme, unit="calls")
        )
    with right:
        _chart(
            cards.platforms(reader, filters), view, "calls", None,
            lambda rows: charts.bars(rows, theme, unit="calls", leads=True),
        )  # fmt: skip


def _chart(card: Card, view: View, what: str, column: str | None, draw: Draw) -> None:
    with st.container(border=True, height="stretch"):
        _title(card)
        if not card.rows:
            why_empty(view, what, key=card.title, column=column)
        else:
            picture = draw(card.rows)
            st.vega_lite_chart(
                _arrow(picture.rows), picture.spec(), theme=None, key=card.title, alt=f"{card.title}: {card.base}",
                on_select=partial(_clicked, card.title) if picture.leads else "ignore",
            )  # fmt: skip
        if card.note:
            st.caption(literal(card.note))


def _clicked(key: str) -> None:
    found = st.session_state[key]["selection"].get(charts.CLICKED)
    if found:
        address.lead(address.link("calls", **{**_along(), **narrowing.of_link(found[0]["narrow"])}))


def _along() -> dict[str, str]:
    """The filters, for the calls behind a number."""
    return {**kept(), **narrowing.COUNTED}


def _arrow(rows: charts.Rows) -> pa.Table:
    """Rows as Streamlit sends them; other forms it would turn into a data frame first."""
    return pa.Table.from_pylist([dict(row) for row in rows])


def _agents(card: Card) -> None:
    with st.container(border=True):
        _title(card)
        # What is asked first stays on a phone; the rest is on the wider page.
        columns = [
            part.Column(title=name, number=place > 0, narrow=place > 3, wrap=place > 1)
            for place, name in enumerate(cards.AGENT_COLUMNS)
        ]
        along = _along()
        rows = []
        for told in card.rows:
            agent = str(told["id"])
            row = part.Row(id=agent, cells=[part.Cell(text=str(told[name])) for name in cards.AGENT_COLUMNS])
            if agent:
                row["href"] = address.link("calls", **{**along, "agent": agent})
            rows.append(row)
        part.table("agents", columns, rows, label=card.title)
        if card.note:
            st.caption(literal(card.note))


def _title(card: Card) -> None:
    st.markdown(f"**{card.title}** :gray[{literal(card.base)}]" if card.rows else f"**{card.title}**")
