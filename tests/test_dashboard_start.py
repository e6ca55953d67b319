"""What the dashboard does before anybody looks."""

from __future__ import annotations

from pathlib import Path

from tests.journalling import child, said

START = """
import sys
from pathlib import Path
import streamlit
from calls.settings import load_without_secrets
from dashboard import serve
from tests.waiting import until

def looked_at(app, **_):
    until(lambda: hasattr(sys.modules.get("statsmodels.stats.proportion"), "proportion_confint"))
    print("warm", flush=True)

streamlit.App.run = looked_at
serve.run(load_without_secrets(Path(sys.argv[1])))
"""


def test_the_first_page_need_not_wait_for_what_is_slow_to_import(tmp_path: Path) -> None:
    """The server begins with it by itself, before the first look and without waiting for it."""
    with child(START, tmp_path) as dashboard:
        assert said(dashboard) == "warm"
