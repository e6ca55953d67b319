"""Why there is nothing to show, and the one next step."""

from __future__ import annotations

import streamlit as st

from dashboard import address, data, words
from dashboard.inert import literal
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
    """Say why there is no such thing: not sent by the platform, or nothing in the range with these filters.

    `also` names what else narrows, with the names in the address that it stands for.
    """
    chosen = view.filters.only.get("provider", ())
    silent = [provider for provider in chosen if column is not None and not data.sends(provider, column)]
    if silent:
        title = data.titles().get(silent[0], silent[0])
        st.info(f"Not available from {literal(title)}: it does not send {what}.", icon=":material/block:")
        return
    filtered = bool(view.filters.columns) or bool(also)
    st.info(
        f"No {what} in the range ({view.label})" + (" with these filters." if filtered else ".")
        + f" The store holds {words.counted(data.freshness().calls, 'call', 'calls')} in all.",
        icon=":material/search_off:",
    )  # fmt: skip
    if filtered:
        st.button("Clear the filters", key=f"clear-{key}", on_click=_clear, args=(tuple(also.split()),))
    elif address.read("range") != LONGEST:
        st.button(f"Show the {RANGES[LONGEST][0].lower()}", key=f"longer-{key}", on_click=_longer)


def _clear(also: tuple[str, ...]) -> None:
    address.write(**dict.fromkeys(("provider", "agent", "direction", address.PAGE, *also), ""))


def _longer() -> None:
    address.write(**{"range": LONGEST, "from": "", "to": "", address.PAGE: ""})
