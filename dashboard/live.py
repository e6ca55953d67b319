"""The page's heading with its clock: how fresh the numbers are, and the redraw when new ones have come."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import streamlit as st

from dashboard import data, words

EVERY_S = 1.0
REST_S = 1.0
"""How long a page is left alone after it was drawn: what costs more to draw is drawn less often."""


def heading(title: str, about: str) -> None:
    """Title, and one grey line that ticks; when the store has new rows the whole page is drawn anew."""
    st.session_state["drawn_version"] = data.version()
    st.session_state["drawn_at"] = None
    st.subheader(title, anchor=False)
    _clock(about)


def drawn() -> None:
    """Say that the page is complete: from now on news may draw it anew, never in the middle."""
    st.session_state["drawn_at"] = time.monotonic()


@st.fragment(run_every=EVERY_S)
def _clock(about: str) -> None:
    fresh = data.freshness()
    drawn_at = st.session_state.get("drawn_at")
    rested = drawn_at is not None and time.monotonic() - drawn_at >= REST_S
    if rested and fresh.version != st.session_state.get("drawn_version"):
        st.rerun(scope="app")
    if fresh.newest_delivery is None:
        st.caption(f"{about} · nothing received yet")
        return
    st.caption(f"{about} · newest webhook {words.ago(fresh.newest_delivery, datetime.now(UTC))}")
