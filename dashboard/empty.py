"""Why a chart is empty, and the one next step."""

from __future__ import annotations

import streamlit as st

from dashboard import data
from dashboard.view import View


def why_empty(view: View, what: str, *, column: str | None = None) -> None:
    """Say why there is nothing to show: nothing received at all, not sent by the platform, or nothing in the range."""
    fresh = data.freshness()
    chosen = view.filters.only.get("provider", ())
    if fresh.calls == 0:
        st.info(
            "No call has been received yet. Connect a platform with `calltally sources add`, or try it with made-up "
            "calls: `calltally send SOURCE --count 20`.",
            icon=":material/hourglass_empty:",
        )
        return
    silent = [provider for provider in chosen if column is not None and not data.sends(provider, column)]
    if silent:
        titles = data.titles()
        st.info(
            f"Not available from {titles.get(silent[0], silent[0])}: it does not send {what}.", icon=":material/block:"
        )
        return
    others = " and these filters" if view.filters.only else ""
    st.info(
        f"No {what} in this range{others}. The store holds {fresh.calls:,} calls; choose a longer range or clear the filters.",
        icon=":material/search_off:",
    )
