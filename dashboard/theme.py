"""Which of the two colour sets the viewer's page uses."""

from __future__ import annotations

import streamlit as st

from dashboard.charts import DARK, LIGHT, Theme


def current() -> Theme:
    """The colours of the page as the viewer sees it."""
    return DARK if st.context.theme.type == "dark" else LIGHT
