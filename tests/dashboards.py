"""Pages without a browser: the real script over a real SQL endpoint and store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from analytics.store import Store
from dashboard import data
from streams.worker_state import WorkerState
from tests.serving import TOKEN, Serving, serving

SCRIPT = Path(__file__).parent.parent / "dashboard" / "entry" / "start.py"


@contextmanager
def served(
    store: Store, folder: Path, patch: pytest.MonkeyPatch, *, port: int = 0, state: WorkerState | None = None
) -> Iterator[Serving]:
    """A dashboard's surroundings: an endpoint over the store, and settings that lead to it."""
    st.cache_resource.clear()
    with serving(store, port=port, state=state) as endpoint:
        patch.setenv("CALLTALLY_SQL_URL", endpoint.url)
        patch.setenv("CALLTALLY_SQL_TOKEN", TOKEN)
        patch.setenv("CALLTALLY_DATA_DIR", str(folder))
        patch.chdir(folder)
        # Each drawing sees what a test has just put into the store.
        patch.setattr(data, "ASK_AGAIN_S", 0.0)
        yield endpoint
    st.cache_resource.clear()


def drawn(page: str = "overview", address: Mapping[str, str] | None = None) -> AppTest:
    """The page as first drawn at that address."""
    test = AppTest.from_file(str(SCRIPT), default_timeout=30)
    test.query_params.update(address or {})
    # Our pages are functions, which AppTest cannot switch to by file.
    test._page_hash = calc_hash("" if page == "overview" else page)
    return test.run()


def told(test: AppTest) -> str:
    """All that the page says, parts included."""
    elements = [*test.main, *test.sidebar]
    words = [str(getattr(element, "value", "")) for element in elements]
    parts = [element.proto.json for element in test.get("bidi_component")]
    return "\n".join([*words, *parts])
