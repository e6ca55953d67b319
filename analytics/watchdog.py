"""One thread that looks at every running query a few times a second."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

import structlog

LOOK_S: Final = 0.1

log = structlog.get_logger("sql")


class Watchdog:
    """Calls what it watches every `LOOK_S`; its thread begins with the first and costs nothing while there is none.

    A thread for each query would cost a query of three milliseconds as much again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._looks: list[Callable[[], None]] = []
        self._under_way: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, look: Callable[[], None]) -> Iterator[None]:
        """Look until the block ends, and no longer."""
        with self._changed:
            self._looks.append(look)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="query-watchdog", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._looks.remove(look)
                # A process that ends while this thread is inside DuckDB is aborted, with words on stderr.
                self._changed.wait_for(lambda: self._under_way is not look)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._looks)
            pause.wait(LOOK_S)
            self._look_at_all()

    def _look_at_all(self) -> None:
        # In a frame of its own: an idle thread must not hold on to the last query, and so to its cursor.
        with self._changed:
            looks = list(self._looks)
        for look in looks:
            with self._changed:
                if look not in self._looks:
                    continue
                self._under_way = look
            try:
                look()
            except Exception:
                # The other queries still need their deadlines.
                log.exception("a query could not be looked at")
            finally:
                with self._changed:
                    self._under_way = None
                    self._changed.notify_all()
