"""A web server that is told to stop by a signal and lives on until it has tidied up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Generator

import uvicorn


class StoppableServer(uvicorn.Server):
    """uvicorn without its habit of dying by the signal that stopped it: there is a journal or a store to close."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.should_exit = True
