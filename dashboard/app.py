"""The dashboard: page frame, navigation, and what is shown when the store does not answer."""

from __future__ import annotations

import streamlit as st

from calls.errors import CalltallyError
from dashboard import data
from dashboard.live import drawn
from dashboard.pages import call_list, overview, sql

FAVICON = "\N{BAR CHART}"
STYLE = """
<style>
.block-container { max-width: 1280px; padding-top: 2.2rem; }
[data-testid="stMetricValue"] { font-size: 2rem; }
[data-testid="stMetricLabel"] p { font-weight: 500; }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
</style>
"""


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="Calltally", page_icon=FAVICON, layout="wide")
    st.html(STYLE)
    page = st.navigation(
        [
            st.Page(overview.render, title="Overview", icon=":material/monitoring:", url_path="overview", default=True),
            st.Page(call_list.render, title="Calls", icon=":material/call:", url_path="calls"),
            st.Page(sql.render, title="SQL", icon=":material/database:", url_path="sql"),
        ]
    )
    if data.settings().demo:
        st.info("Demo data: made-up calls. Your own calls never mix with these.", icon=":material/science:")
    try:
        page.run()
    except CalltallyError as error:
        _show(error)
    finally:
        drawn()


def _show(error: CalltallyError) -> None:
    st.error(error.message, icon=":material/cloud_off:")
    st.caption(
        "The numbers are safe: every webhook that was answered is in the journal. "
        "See `calltally status` and the log of `calltally up`."
    )
    if st.button("Try again", type="primary"):
        st.rerun()


main()
