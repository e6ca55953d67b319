"""Why there is nothing to show, and the one next step."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from dashboard import address, data, nothing, words
from dashboard.filters import CHOSEN
from dashboard.view import RANGES, View

LONGEST = "90d"


def nothing_received() -> bool:
    """Say how to begin if the store holds no call at all; whether it does not."""
    if data.freshness().calls:
        return False
    with st.container(border=True):
        st.markdown("**No call has been received yet.** This page fills by itself when the first one comes.")
        st.markdown("Connect a platform; its secret and its webhook address are asked for and shown:")
        st.code("calltally sources add", language="bash")
        st.markdown("Or look around with made-up calls of a source that you have:")
        st.code("calltally send synthflow --count 20", language="bash")
    return True


def why_empty(view: View, what: str, *, key: str, column: str | None = None, also: str = "") -> None:
    """Say why there is no such thing: not sent by the platforms, or nothing in the range with these filters.

    `also` names what else narrows, with the names in the address that it stands for.
    """
    if column is not None and (silent := nothing.not_sent(what, column, _providers(view))):
        st.info(silent, icon=":material/block:")
        return
    held = f"The store holds {words.counted(data.freshness().calls, 'call', 'calls')} in all."
    st.info(f"{nothing.none_in(view, what, narrowed=bool(also))} {held}", icon=":material/search_off:")
    if view.filters.columns or also:
        st.button("Clear the filters", key=f"clear-{key}", on_click=_clear, args=(tuple(also.split()),))
    elif address.read("range") != LONGEST:
        st.button(f"Show the {RANGES[LONGEST][0].lower()}", key=f"longer-{key}", on_click=_longer)


def _providers(view: View) -> Collection[str]:
    """The platforms that have calls in the selection; the one that is chosen, where there is no call."""
    rows = data.reader().measure("attempts", view.filters, slice_by="provider")
    return {row.slice or "" for row in rows} or view.filters.only.get("provider", ())


def _clear(also: tuple[str, ...]) -> None:
    address.write(**dict.fromkeys((*CHOSEN, address.PAGE, *also), ""))


def _longer() -> None:
    address.write(**{"range": LONGEST, "from": "", "to": "", address.PAGE: ""})
