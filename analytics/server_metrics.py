"""What the SQL server tells Prometheus: how the worker is doing, and how queries fare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from analytics.server import WorkerState

_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class ServerMetrics:
    """The counters of one server, and a reading of the worker's state at each scrape."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, state: WorkerState, numbers: Collector) -> None:
        """`numbers` are what the calls come to, which is not for every scraper."""
        self._numbers = CollectorRegistry()
        self._numbers.register(numbers)
        self._registry = CollectorRegistry()
        self._registry.register(_WorkerCollector(state))
        self._queries = Counter("calltally_queries", "SQL queries by outcome.", ["outcome"], registry=self._registry)
        self.running = Gauge("calltally_queries_running", "SQL queries running now.", registry=self._registry)
        self._seconds = Histogram(
            "calltally_query_seconds",
            "From a query's arrival to its last row.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def observe(self, outcome: str, seconds: float) -> None:
        self._queries.labels(outcome).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """The answer to a scrape."""
        return generate_latest(self._registry)

    def text_with_numbers(self) -> bytes:
        """The same, and the numbers behind it; blocks while they are measured."""
        return self.text() + generate_latest(self._numbers)


class _WorkerCollector(Collector):
    def __init__(self, state: WorkerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state, tally = self._state, self._state.tally
        gauges: list[tuple[str, str, float]] = [
            ("calltally_worker_position", "Last applied position of the journal.", state.position),
            ("calltally_worker_lag", "Records of the journal that are not applied yet.", state.lag),
            ("calltally_worker_rows_per_second", "Records applied a second, over the last ten.", state.rows_per_s),
            ("calltally_worker_running", "1 while the worker applies.", float(state.running)),
            ("calltally_worker_rebuilding", "1 while the store is filled anew.", float(state.rebuilding)),
            (
                "calltally_worker_faulty",
                "1 while something keeps the worker from applying.",
                float(state.fault is not None),
            ),
        ]
        for name, words, value in gauges:
            yield GaugeMetricFamily(name, words, value=value)
        partitions = partitions_of(state)
        if partitions:
            lags = GaugeMetricFamily(
                "calltally_worker_partition_lag",
                "Records of the partition that are not applied yet.",
                labels=["topic", "partition"],
            )
            for (topic, number), lag in partitions.items():
                lags.add_metric([topic, str(number)], lag)
            yield lags
        if state.last_commit_at is not None:
            yield GaugeMetricFamily(
                "calltally_worker_last_commit_timestamp_seconds",
                "When the last batch was committed.",
                value=state.last_commit_at / 1e6,
            )
        totals: list[tuple[str, str, float]] = [
            ("calltally_applied_records", "Records of the journal applied since the start.", tally.records),
            ("calltally_applied_events", "Events applied since the start.", tally.events),
            ("calltally_changed_calls", "Calls made or changed since the start.", tally.calls_changed),
        ]
        for name, words, value in totals:
            yield CounterMetricFamily(name, words, value=value)
        dead = CounterMetricFamily(
            "calltally_dead_letters", "Deliveries that could not be understood, since the start.", labels=["reason"]
        )
        for reason, count in dict(tally.dead_letters).items():
            dead.add_metric([reason], count)
        yield dead


def partitions_of(state: WorkerState) -> Mapping[tuple[str, int], int]:
    """Records of each topic's partition that are not applied yet; empty for a worker that reads a journal."""
    return state.partitions if isinstance(state, _Partitioned) else {}


@runtime_checkable
class _Partitioned(Protocol):
    @property
    def partitions(self) -> Mapping[tuple[str, int], int]: ...
