"""How the relay is doing: kept in a small file beside the journal, since the relay itself listens nowhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from calls.errors import BrokerError, CalltallyError
from calls.model import Micros
from calls.relay_report import FILE_NAME, LOCK_NAME, Fault, Report, read, running

RATE_S = 10.0
MICROS_PER_S = 1_000_000


@dataclass
class RelayState:
    """How the relay is doing; written by its thread, read by any."""

    journal_id: str = ""
    position: int = 0
    journal_position: int = 0
    published: int = 0
    last_ack_at: Micros | None = None
    running: bool = False
    fault: Fault | None = None
    findings: list[str] = field(default_factory=list)
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=1_000))

    @property
    def lag(self) -> int:
        """How many records of the journal Kafka has not acknowledged."""
        return max(0, self.journal_position - self.position)

    @property
    def records_per_s(self) -> float:
        """Records acknowledged a second, over the last ten."""
        since = time.monotonic() - RATE_S
        return sum(records for at, records in tuple(self._recent) if at >= since) / RATE_S

    def acknowledged(self, records: int, position: int) -> None:
        self.position = position
        self.journal_position = max(self.journal_position, position)
        self.published += records
        self.last_ack_at = now()
        self._recent.append((time.monotonic(), records))

    def failed(self, error: CalltallyError) -> bool:
        """Note why nothing is published; whether that is news."""
        before = self.fault
        if before is not None and before.message == error.message:
            return False
        since = now() if before is None else before.since
        self.fault = Fault(error.code, error.message, error.transient, since)
        return True

    def report(self) -> Report:
        return Report(
            process=os.getpid(),
            written_at=now(),
            running=self.running,
            journal_id=self.journal_id,
            position=self.position,
            journal_position=self.journal_position,
            published=self.published,
            records_per_s=self.records_per_s,
            last_ack_at=self.last_ack_at,
            fault=self.fault,
            findings=list(self.findings),
        )


def write(report: Report, data_dir: Path) -> None:
    """Replace the file. Raises OSError."""
    path = data_dir / FILE_NAME
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(msgspec.json.encode(report))
    fresh.replace(path)


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """The right to relay this data folder's journal, freed however we end. Raises BrokerError (`relay_running`)."""
    descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BrokerError(
            f"Another relay already publishes the journal in {data_dir}. Stop that one first.", code="relay_running"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


class RelayMetrics(Collector):
    """What `/metrics` of ingest says about a relay of the same data folder; nothing where there never was one."""

    def __init__(self, data_dir: Path, last_position: Callable[[], int] | None = None) -> None:
        """`last_position` is the journal's now, known better than by a relay that may be gone."""
        self._data_dir = data_dir
        self._last_position = last_position

    def collect(self) -> Iterable[Metric]:
        report = read(self._data_dir)
        if report is None:
            return
        alive = running(self._data_dir)
        yield GaugeMetricFamily(
            "calltally_relay_up",
            "Whether the relay runs and Kafka takes what it publishes.",
            value=int(alive and report.fault is None),
        )
        yield GaugeMetricFamily(
            "calltally_relay_position", "Kafka has acknowledged the journal up to this position.", value=report.position
        )
        last = report.journal_position if self._last_position is None else self._last_position()
        yield GaugeMetricFamily(
            "calltally_relay_lag",
            "Records of the journal that Kafka has not acknowledged.",
            value=max(0, last - report.position),
        )
        yield CounterMetricFamily("calltally_relay_records", "Records that Kafka acknowledged.", value=report.published)
        if report.last_ack_at is not None:
            yield GaugeMetricFamily(
                "calltally_relay_last_ack_timestamp_seconds",
                "When Kafka last acknowledged.",
                value=report.last_ack_at / MICROS_PER_S,
            )
        fault = GaugeMetricFamily(
            "calltally_relay_fault_since_timestamp_seconds", "Since when nothing is published, by why.", labels=["code"]
        )
        if report.fault is not None:
            fault.add_metric([report.fault.code], report.fault.since / MICROS_PER_S)
        yield fault


def now() -> Micros:
    return time.time_ns() // 1000
