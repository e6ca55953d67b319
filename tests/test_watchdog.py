"""The thread that looks at running queries: nothing of it outlives the query."""

from __future__ import annotations

import threading

from analytics.watchdog import Watchdog

LONG_S = 30.0


def test_a_look_that_is_under_way_is_waited_for() -> None:
    """A command ends right behind its query, and must not end in the middle of a look."""
    begun, ended = threading.Event(), threading.Event()

    def look() -> None:
        begun.set()
        threading.Event().wait(0.1)
        ended.set()

    with Watchdog().watching(look):
        assert begun.wait(LONG_S)
    assert ended.is_set()


def test_a_look_that_fails_keeps_no_other_query_from_being_looked_at() -> None:
    """And the query that it looked at can end."""
    watchdog, looked = Watchdog(), threading.Event()

    def fail() -> None:
        raise ValueError("a look that fails")

    with watchdog.watching(fail), watchdog.watching(looked.set):
        assert looked.wait(LONG_S)
        looked.clear()
        assert looked.wait(LONG_S)
