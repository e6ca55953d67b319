"""The dashboard: page frame, navigation, and what is shown when the store does not answer."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from calls.errors import CalltallyError
from dashboard import data, filters, live
from dashboard.inert import literal
from dashboard.pages import call_list, overview, sql

HERE = Path(__file__).parent


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="Calltally", page_icon=HERE / "favicon.svg", layout="wide")
    st.html(f"<style>{(HERE / 'frame.css').read_text(encoding='utf-8')}</style>")
    page = st.navigation(
        [
            st.Page(overview.render, title="Overview", icon=":material/monitoring:", url_path="overview", default=True),
            st.Page(call_list.render, title="Calls", icon=":material/call:", url_path="calls"),
            st.Page(sql.render, title="SQL", icon=":material/database:", url_path="sql"),
        ]
    )
    if data.settings().dashboard_password_hash is not None:
        # A form, since to sign out is no mere link that a page of others could follow.
        st.sidebar.html('<form method="post" action="sign-out"><button class="sign-out">Sign out</button></form>')
    if data.settings().demo:
        st.info("Demo data: made-up calls. Your own calls never mix with these.", icon=":material/science:")
    filters.bring_along(page.url_path)
    with live.following(page.url_path):
        try:
            live.refused()
            page.run()
        except CalltallyError as error:
            _show(error)


def _show(error: CalltallyError) -> None:
    if not data.pulse().reachable:
        # The line on top says so already, and the page is drawn by itself when the worker is back.
        st.caption("This page is shown as soon as the worker answers.")
        return
    st.error(literal(error.message), icon=":material/error:")
    st.button("Try again", type="primary")


if __name__ == "__main__":
    main()
