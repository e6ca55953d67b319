"""The page's heading with its clock: how fresh the numbers are, and the redraw when new ones have come."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from dashboard import data, words

EVERY_S = 1.0


def heading(title: str, about: str) -> None:
    """Title, and one grey line that ticks; when the store has new rows the whole page is drawn anew."""
    st.subheader(title, anchor=False)
    st.session_state["drawn_version"] = data.version()
    _clock(about)


@st.fragment(run_every=EVERY_S)
def _clock(about: str) -> None:
    fresh = data.freshness()
    if fresh.version != st.session_state.get("drawn_version"):
        st.rerun(scope="app")
    if fresh.newest_delivery is None:
        st.caption(f"{about} · nothing received yet")
        return
    now = datetime.now(UTC)
    st.caption(f"{about} · newest webhook {words.ago(fresh.newest_delivery, now)}")
