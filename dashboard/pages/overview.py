"""Overview: what happened in the chosen range, and how it compares with the period before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import altair as alt
import pandas as pd
import streamlit as st

from analytics.metric import Filters, Kind, Metric
from dashboard import cards, charts, data
from dashboard.cards import Card
from dashboard.empty import why_empty
from dashboard.filters import pick
from dashboard.live import heading
from dashboard.theme import current
from dashboard.tiles import TILES, Tile, tile, total
from dashboard.view import View

Draw = Callable[[pd.DataFrame], alt.LayerChart]


def render() -> None:
    """Draw the page."""
    head, choose = st.columns([1, 2.4], vertical_alignment="bottom")
    choices = data.choices()
    with choose:
        view = pick(choices, data.titles(), datetime.now(UTC))
    with head:
        heading("Overview", f"{view.label}, {view.filters.zone}")
    reader, theme, filters = data.reader(), current(), view.filters
    _tiles(view)
    left, right = st.columns([3, 2])
    with left:
        _chart(
            cards.outcomes(reader, filters, view.bucket), view, "calls", None,
            lambda rows: charts.outcomes_over_time(
                rows, theme, zone=filters.zone, bucket=view.bucket, open_from=view.open_from
            ),
        )  # fmt: skip
    with right:
        reasons = cards.reasons(reader, filters)
        _chart(
            reasons, view, "end-call reasons", "end_call_reason", lambda rows: charts.bars(rows, theme, unit="share")
        )
    left, right = st.columns([3, 2])
    with left:
        analysis = cards.analysis(reader, filters)
        _chart(analysis, view, "analysis", "analysis", lambda rows: charts.result_bars(rows, theme))
    with right:
        variables, colour = cards.variables(reader, filters), theme.categories[2]
        _chart(
            variables, view, "collected variables", "variables",
            lambda rows: charts.bars(rows, theme, unit="filled", colour=colour),
        )  # fmt: skip
    _agents(cards.agents(reader, filters, choices.agents), view)
    if note := cards.left_out(reader, filters):
        st.caption(note)


def _tiles(view: View) -> None:
    reader = data.reader()
    for column, name in zip(st.columns(len(TILES)), TILES, strict=True):
        metric = reader.metric(name)
        series = reader.measure(name, view.filters, bucket=view.bucket)
        before = reader.measure(name, view.before)
        with column, st.container(border=True, height="stretch", key=f"tile-{name}"):
            _tile(metric, series, tile(metric, total(series), total(before)), view.filters)


def _tile(metric: Metric, series: pd.DataFrame, told: Tile, filters: Filters) -> None:
    enough = series["value"].notna().sum() > 1
    st.metric(
        metric.title,
        told.figure,
        told.change,
        delta_color="gray" if told.good is None else "green" if told.good else "red",
        chart_data=series["value"].fillna(0).tolist() if enough else None,
        chart_type="area",
    )
    with st.popover(told.base, type="tertiary", width="stretch"):
        _passport(metric, filters)


def _passport(metric: Metric, filters: Filters) -> None:
    """Where a number comes from: its definition, and the query that recomputes it."""
    st.markdown(f"**{metric.title}**")
    st.text(metric.about)
    if metric.kind is Kind.SHARE:
        st.caption("Beside the counts: the Wilson 95 % interval of the share, in per cent.")
    st.code(cards.filled_in(*metric.sql(filters)), language="sql", wrap_lines=True)


def _chart(card: Card, view: View, what: str, column: str | None, draw: Draw) -> None:
    with st.container(border=True, height="stretch"):
        _title(card)
        if card.rows.empty:
            why_empty(view, what, column=column)
        else:
            st.altair_chart(draw(card.rows), theme=None, key=card.title)
        if card.note:
            st.caption(card.note)


def _agents(card: Card, view: View) -> None:
    with st.container(border=True):
        _title(card)
        if card.rows.empty:
            why_empty(view, "calls")
            return
        st.dataframe(card.rows, hide_index=True, key="agents-table", height="content")
        if card.note:
            st.caption(card.note)


def _title(card: Card) -> None:
    st.markdown(f"**{card.title}** :gray[{card.base}]" if not card.rows.empty else f"**{card.title}**")
