"""Calls: find one among many, and see all that is known about it; the address leads back to it."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from analytics.metric import RELATIONS, Filters, Parameter
from dashboard import data, words
from dashboard.address import choose, turn, write
from dashboard.empty import why_empty
from dashboard.filters import pick
from dashboard.live import heading
from dashboard.pages import call_detail
from dashboard.view import View

ROWS_A_PAGE = 15
SORTS = {
    "newest": ("Newest first", "counted_at DESC, call_id"),
    "oldest": ("Oldest first", "counted_at, call_id"),
    "longest": ("Longest first", "duration_s DESC NULLS LAST, counted_at DESC, call_id"),
    "changed": ("Last changed first", "last_received_at DESC, call_id"),
}
NARROW = {"connection": "Reached", "result": "Result", "end_call_reason": "End-call reason", "status": "Status"}
COLUMNS = (
    "provider, org, call_id, counted_at, coalesce(agent_name, agent_id) AS agent, direction, connection, result, "
    "end_call_reason, duration_s, caller_name, caller_phone, transferred, conflict, excluded"
)


def render() -> None:
    """Draw the list, or the one call that the address names."""
    if "call" in st.query_params:
        call_detail.render(st.query_params["call"])
        return
    head, choose = st.columns([1, 2.4], vertical_alignment="bottom")
    with choose:
        view = pick(data.choices(), data.titles(), datetime.now(UTC))
    with head:
        heading("Calls", f"{view.label}, {view.filters.zone}")
    conditions, params = _narrowed(view.filters)
    where = " AND ".join(conditions)
    found = int(data.ask(f"SELECT count(*) AS n FROM calls WHERE {where}", params)["n"][0])
    if not found:
        why_empty(view, "calls")
        return
    _list(view, where, params, found)


def _narrowed(filters: Filters) -> tuple[list[str], dict[str, Parameter]]:
    conditions, params = filters.conditions(RELATIONS["calls"])
    columns = st.columns([2.2, 1, 1, 1.3, 1, 1.2])
    with columns[0]:
        text = write("Find", "find", placeholder="number, name, call id, words of summary or transcript")
    for column, (name, label) in zip(columns[1:5], NARROW.items(), strict=True):
        with column:
            value = choose(
                label, name, ["", *_values(name)], first="", say=lambda word: word.replace("_", " ") or "All"
            )
        if value:
            conditions.append(f"{name} = $narrow_{name}")
            params[f"narrow_{name}"] = value
    with columns[5]:
        choose("Sort", "sort", list(SORTS), first="newest", say=lambda key: SORTS[key][0])
    if text:
        conditions.append(
            "(call_id = $find OR contains(lower(concat_ws(' ', caller_name, caller_email, summary, transcript)), lower($find))"
            " OR contains(regexp_replace(concat_ws(' ', caller_phone, callee_phone), '[^0-9 ]', '', 'g'), $find_digits))"
        )
        digits = "".join(char for char in text if char.isdigit())
        # Fewer digits than these are in almost every number; words are searched as words.
        params |= {"find": text.strip(), "find_digits": digits if len(digits) >= 4 else "none"}
    return conditions, params


def _values(column: str) -> list[str]:
    rows = data.ask(f"SELECT DISTINCT {column} AS value FROM rollup_calls WHERE {column} IS NOT NULL ORDER BY value")
    return list(rows["value"])


def _list(view: View, where: str, params: dict[str, Parameter], found: int) -> None:
    shown = st.container()
    left, right = st.columns([1, 1], vertical_alignment="center")
    with left:
        st.caption(f"{words.count(found)} calls; select a row to open the call")
    with right:
        page = turn("page", -(-found // ROWS_A_PAGE))
    order = SORTS[st.session_state["sort"]][1]
    rows = data.ask(
        f"SELECT {COLUMNS} FROM calls WHERE {where} ORDER BY {order} "
        f"LIMIT {ROWS_A_PAGE} OFFSET {(page - 1) * ROWS_A_PAGE}",
        params,
    )
    with shown:
        choice = st.dataframe(
            _shown(rows, view.filters.zone), hide_index=True, key="call-rows", on_select="rerun",
            selection_mode="single-row", height="content",
        )  # fmt: skip
    selected = choice["selection"]["rows"]
    if selected and selected[0] < len(rows):
        row = rows.iloc[selected[0]]
        st.query_params["call"] = call_detail.address(row["provider"], row["org"], row["call_id"])
        del st.session_state["call-rows"]
        st.rerun()


def _shown(rows: pd.DataFrame, zone: str) -> pd.DataFrame:
    titles = data.titles()
    return pd.DataFrame(
        {
            "When": [words.local(moment.to_pydatetime(), zone) for moment in rows["counted_at"]],
            "Platform": [titles.get(name, name) for name in rows["provider"]],
            "Agent": rows["agent"].fillna(""),
            "Person": [
                f"{name or ''} {words.phone(number)}".strip()
                for name, number in zip(rows["caller_name"].fillna(""), rows["caller_phone"].fillna(""), strict=True)
            ],
            "Direction": rows["direction"].fillna(""),
            "Reached": [value.replace("_", " ") for value in rows["connection"]],
            "Length": [words.duration(value) if pd.notna(value) else "" for value in rows["duration_s"]],
            "Ended": rows["end_call_reason"].fillna(""),
            "Result": [value.replace("_", " ") for value in rows["result"]],
            "Note": [_note(row) for row in rows.itertuples()],
        }
    )


def _note(row: object) -> str:
    notes = [
        "transferred" if getattr(row, "transferred", False) else "",
        "conflict" if getattr(row, "conflict", False) else "",
        getattr(row, "excluded", None) or "",
    ]
    return ", ".join(note for note in notes if note)
