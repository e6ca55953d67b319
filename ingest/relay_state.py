"""How the relay is doing: kept in a small file beside the journal, since the relay itself listens nowhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from calls.errors import BrokerError, CalltallyError
from calls.model import Micros

FILE_NAME = "relay.json"
LOCK_NAME = "relay.lock"
RATE_S = 10.0
MICROS_PER_S = 1_000_000


class Fault(msgspec.Struct, frozen=True):
    """Why nothing is being published."""

    code: str
    message: str
    transient: bool
    since: Micros


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the relay said of itself when it last wrote its file."""

    process: int
    written_at: Micros
    running: bool
    """Whether it still meant to go on then; a relay that was killed could not say otherwise."""
    journal_id: str
    position: int
    """Everything up to here is acknowledged by Kafka."""
    journal_position: int
    published: int
    """Records acknowledged since the relay started, chunks each."""
    records_per_s: float
    last_ack_at: Micros | None
    fault: Fault | None
    findings: list[str]
    """What about the topics should be otherwise, sentences."""

    @property
    def lag(self) -> int:
        return max(0, self.journal_position - self.position)


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


def read(data_dir: Path) -> Report | None:
    """The relay's last words, None where there never was a relay or they cannot be read."""
    try:
        return msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError):
        return None


def running(data_dir: Path) -> bool:
    """Whether a relay of this data folder lives now."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


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

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

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
