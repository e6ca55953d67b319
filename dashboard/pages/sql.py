"""SQL: ask the store anything, beside its schema; the query is in the address, its answer stays until the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import streamlit as st

from analytics.exports import Form, to_bytes
from calls.errors import CalltallyError
from dashboard import address, data, live, part, words
from dashboard.filters import zone
from dashboard.inert import literal

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOWN_MOST = 10_000
LINK_MOST = 6_000
"""Characters of a query that fit into an address everywhere."""
SAVED_MOST = 100_000
RECENT_MOST = 20
FORMS = ((Form.CSV, "CSV", "text/csv"), (Form.PARQUET, "Parquet", "application/vnd.apache.parquet"))


AWAY = (
    "The worker does not answer, so the query was not run. Under `calltally up` the worker comes back by itself; else "
    "start it with `calltally worker`. Then run the query again."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query that was run, and what came of it."""

    query: str
    at: datetime
    took_ms: float
    table: pa.Table | None
    truncated: bool
    error: str
    """As Markdown."""


def render() -> None:
    """Draw the page."""
    live.stand_still()
    live.heading("SQL", "read only")
    left, right = st.columns([3, 1.3], gap="medium")
    with left:
        _remember()
        _editor()
        answered = _answered()
        if answered is not None:
            _show(answered)
    with right:
        _schema()


def _editor() -> None:
    texts = {**dict(_saved(data.queries_folder())), **dict(_saved(EXAMPLES))}
    first = next(iter(texts.values()), "")
    asked = _query()
    # Back, a link, another query opened, or the page come back to: the editor follows the address.
    if asked != st.session_state.get("edited") or "editor" not in st.session_state:
        st.session_state["edited"] = asked
        st.session_state["editor"] = asked or first
    _open_another(texts)
    with st.form("query", border=False):
        st.text_area("Query", key="editor", height=220, label_visibility="collapsed")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.form_submit_button("Run", type="primary", icon=":material/play_arrow:", on_click=_run)
            st.caption("or Ctrl+Enter (\N{PLACE OF INTEREST SIGN}+Enter)")


def _remember() -> None:
    """Keep the query of the address; who comes back by the menu, whose link has none, finds the last one again."""
    if query := address.read("sql").strip():
        _put_first(query)
    elif "editor" not in st.session_state and (last := _query()):
        # Only on coming back: who goes back in the browser's history would never get past it.
        _take(last)


def _query() -> str:
    """The query of the address; where it has none, the last one, which may be too long for it."""
    return address.read("sql").strip() or next(iter(st.session_state.get("recent", [])), "")


def _take(query: str) -> None:
    _put_first(query)
    address.write(sql=query if len(query) <= LINK_MOST else "")


def _put_first(query: str) -> None:
    recent = [query, *(one for one in st.session_state.get("recent", []) if one != query)]
    st.session_state["recent"] = recent[:RECENT_MOST]


def _run() -> None:
    text = str(st.session_state["editor"]).strip()
    if text:
        st.session_state["edited"] = text
        # A query that is run again is asked again, whatever is known of it.
        st.session_state["asked"] = None
        _take(text)


def _open_another(texts: Mapping[str, str]) -> None:
    recent = {f"recent: {words.label(query, 70)}": query for query in st.session_state.get("recent", [])}
    offered = {**recent, **texts}

    def opened() -> None:
        chosen = st.session_state["open-query"]
        st.session_state["open-query"] = None
        if chosen in offered:
            _take(offered[chosen])

    st.selectbox(
        "Open a query", list(offered), index=None, key="open-query", on_change=opened, label_visibility="collapsed",
        placeholder="Open a query: recent, saved or an example",
    )  # fmt: skip


def _saved(folder: Path) -> Iterator[tuple[str, str]]:
    """The queries of a folder by what their first line says, if it is a comment, or by the name of the file."""
    for path in sorted(folder.glob("*.sql")) if folder.is_dir() else ():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        first = text.lstrip().splitlines()[0] if text.strip() else ""
        title = first.removeprefix("--").strip() if first.startswith("--") else path.stem
        if text.strip() and len(text) <= SAVED_MOST:
            yield words.label(title), text.strip()


def _answered() -> Asked | None:
    """The answer to the query of the address: the one on the page, or asked for now."""
    query = _query()
    if not query:
        return None
    asked: Asked | None = st.session_state.get("asked")
    if asked is not None and asked.query == query and not _may_work_now(asked):
        return asked
    asked = _ask(query)
    st.session_state["asked"] = asked
    return asked


def _may_work_now(asked: Asked) -> bool:
    """Whether the worker was away when that was asked, and is back."""
    return asked.took_ms < 0 and data.pulse().reachable


def _ask(query: str) -> Asked:
    began, at = time.perf_counter(), datetime.now(UTC)
    try:
        with st.spinner("Running", show_time=True):
            answer = data.fresh(query)
    except CalltallyError as error:
        took_ms = -1.0 if error.code in ("unreachable", "busy") else (time.perf_counter() - began) * 1000
        said = AWAY if error.code == "unreachable" else literal(error.message)
        return Asked(query, at, took_ms, None, False, said)
    return Asked(query, at, (time.perf_counter() - began) * 1000, answer.table, answer.truncated, "")


def _show(asked: Asked) -> None:
    if asked.table is None:
        st.error(asked.error, icon=":material/error:")
        return
    if asked.truncated:
        st.warning(
            f"The answer was cut off after {words.count(asked.table.num_rows)} rows. Narrow the query, or aggregate "
            "in it.",
            icon=":material/content_cut:",
        )
    if asked.table.num_rows:
        st.dataframe(asked.table.slice(0, SHOWN_MOST), hide_index=True, key="answer")
    else:
        st.info("The query is right, and no row matches it.", icon=":material/search_off:")
    told = [
        words.counted(asked.table.num_rows, "row", "rows"),
        words.counted(asked.table.num_columns, "column", "columns"),
        f"{asked.took_ms:,.0f} ms",
        f"asked {words.local(asked.at, zone())} {zone()}",
        "times in the answer are UTC",
    ]
    if asked.table.num_rows > SHOWN_MOST:
        told.append(f"the first {words.count(SHOWN_MOST)} are shown, the files hold all")
    if len(asked.query) > LINK_MOST:
        told.append("too long for an address, so not in the link")
    st.caption(literal(" · ".join(told)))
    _downloads(asked.table)


def _downloads(table: pa.Table) -> None:
    with st.container(horizontal=True):
        for form, label, mime in FORMS:
            st.download_button(
                label, partial(to_bytes, table, form), f"calltally.{form.value}", mime,
                icon=":material/download:", on_click="ignore", key=f"download-{form.value}",
            )  # fmt: skip


def _schema() -> None:
    st.markdown("**Tables**")
    try:
        rows = data.ask('SELECT "table" AS name, "column" AS field, type, comment FROM schema_columns')
    except CalltallyError:
        st.caption("Shown as soon as the worker answers.")
        return
    tables: dict[str, list[tuple[str, str, str]]] = {}
    for row in sorted(rows, key=lambda row: str(row["name"])):
        field = (str(row["field"]), str(row["type"]), str(row["comment"] or ""))
        tables.setdefault(str(row["name"]), []).append(field)
    part.schema("schema", tables)
