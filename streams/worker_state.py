"""How a worker is doing: what its thread notes, and health checks and metrics of any thread read."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import structlog

from calls.crashes import Crashes
from calls.errors import CalltallyError
from calls.model import Micros
from streams.apply import Tally

RETRY_S: Final = (0.1, 0.3, 1.0, 2.0)
"""Pauses after the first, second, ... failure in a row."""
RATE_S: Final = 10.0

log = structlog.get_logger("streams")


@dataclass
class WorkerState:
    """How the worker is doing; written by its thread, read by health checks and metrics of any thread."""

    position: int = 0
    """The last applied position of the journal."""
    journal_position: int = 0
    """The newest position of the journal when it was last looked at."""
    last_commit_at: Micros | None = None
    running: bool = False
    rebuilding: bool = False
    """Whether the store began empty and does not yet hold all that the journal held then."""
    fault: CalltallyError | None = None
    """Why nothing is being applied now; None while all is well."""
    tally: Tally = field(default_factory=Tally)
    crashes: Crashes | None = None
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=1_000))
    _failures: int = 0
    _told: set[str] = field(default_factory=set)

    @property
    def lag(self) -> int:
        """How many records of the journal are not yet applied."""
        return max(0, self.journal_position - self.position)

    @property
    def careful(self) -> bool:
        """Whether it is looked for a record that ends the process; a query would only be in doubt, too."""
        return self.crashes is not None and self.crashes.is_careful

    @property
    def rows_per_s(self) -> float:
        """Records applied a second, over the last ten."""
        since = time.monotonic() - RATE_S
        return sum(records for at, records in tuple(self._recent) if at >= since) / RATE_S

    def committed(self, records: int, position: int) -> None:
        self.position = position
        self.journal_position = max(self.journal_position, position)
        self.last_commit_at = time.time_ns() // 1000
        self._recent.append((time.monotonic(), records))

    def failed(self, error: CalltallyError) -> float:
        """Note why nothing is applied, and say it once; the seconds to wait before the next attempt."""
        if self.crashes is not None:
            self.crashes.relax()
        self._failures += 1
        self.fault = error
        if error.message not in self._told:
            self._told.add(error.message)
            say = log.warning if error.transient else log.error
            say("the worker waits", code=error.code, reason=error.message)
        return RETRY_S[min(self._failures, len(RETRY_S)) - 1]

    def well(self) -> None:
        """Records are applied again, or still."""
        self._failures = 0
        if self.fault is not None:
            log.info("the worker goes on", position=self.position, lag=self.lag)
            self.fault = None
            self._told.clear()
