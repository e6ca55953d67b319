"""SQL: ask the store anything, beside its schema; the query is in the address."""

from __future__ import annotations

import time

import pyarrow as pa
import streamlit as st

from analytics.exports import Form, to_bytes
from calls.errors import QueryError
from dashboard import data, words
from dashboard.live import heading

FIRST_QUERY = """SELECT end_call_reason, count(*) AS calls, round(avg(duration_s)) AS seconds
FROM calls
WHERE counted_at >= now()::TIMESTAMP - INTERVAL 7 DAY
GROUP BY ALL
ORDER BY calls DESC"""
SHOWN_MOST = 10_000


def render() -> None:
    """Draw the page."""
    heading("SQL", "read only; the tables are described beside the editor")
    left, right = st.columns([3, 1.4])
    with left:
        query = _editor()
        if query:
            _answer(query)
    with right:
        _schema()


def _editor() -> str:
    asked = st.query_params.get("sql", "")
    with st.form("editor", border=False):
        text = st.text_area("Query", asked or FIRST_QUERY, height=220, key="editor-text")
        run = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:", shortcut="ctrl+enter")
    if run and text.strip():
        st.query_params["sql"] = text.strip()
        return str(text.strip())
    return asked


def _answer(query: str) -> None:
    started = time.perf_counter()
    try:
        table = data.table(query)
    except QueryError as error:
        st.error(error.message, icon=":material/error:")
        return
    took_ms = (time.perf_counter() - started) * 1000
    cut = table.num_rows > SHOWN_MOST
    st.dataframe(table.slice(0, SHOWN_MOST).to_pandas(), hide_index=True)
    note = f"{words.count(table.num_rows)} rows, {table.num_columns} columns, {took_ms:.0f} ms"
    st.caption(note + (f"; the first {words.count(SHOWN_MOST)} are shown, the files hold all" if cut else ""))
    _downloads(table)


def _downloads(table: pa.Table) -> None:
    columns = st.columns([1, 1, 3])
    kinds = ((Form.CSV, "CSV", "text/csv"), (Form.PARQUET, "Parquet", "application/vnd.apache.parquet"))
    for column, (form, label, mime) in zip(columns, kinds, strict=False):
        with column:
            st.download_button(
                label, lambda form=form: to_bytes(table, form), f"calltally.{form.value}", mime,
                icon=":material/download:", on_click="ignore", key=f"download-{form.value}", width="stretch",
            )  # fmt: skip


def _schema() -> None:
    st.markdown("**Tables**")
    columns = data.ask('SELECT "table" AS name, "column" AS field, type, comment FROM schema_columns')
    for name, part in columns.groupby("name", sort=True):
        with st.expander(str(name)):
            st.dataframe(part[["field", "type", "comment"]], hide_index=True, height="content")
