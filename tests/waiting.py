"""Waiting for what happens elsewhere: never a sleep of fixed length, always a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

DEADLINE_S = 60.0
"""Generous, since other tests may be using the machine."""
LOOK_S = 0.01


def until(
    condition: Callable[[], object], what: str | Callable[[], str] = "what was waited for", seconds: float = DEADLINE_S
) -> None:
    """Wait for a condition; fail, saying what did not come, where it does not come true in time."""
    if not comes_true(condition, seconds):
        raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")


def comes_true(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it does within that time."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(LOOK_S)
    return True
