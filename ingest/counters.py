"""What the door counted, for Prometheus: plain integers on the way in, metrics only when someone asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from calls.errors import CalltallyError
from calls.model import Verdict
from ingest.gate import Counts

MICROS_PER_S = 1_000_000
COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 8.0)


class Counters:
    """Everything `/metrics` shows; has a registry of its own."""

    def __init__(
        self, *, unready: Callable[[], CalltallyError | None], connections: Callable[[], int], lost: Callable[[], int]
    ) -> None:
        self.by_source: dict[str, Counts] = {}
        self.unknown_source = 0
        self.refused_heads: dict[str, int] = {}
        """By reason: requests refused before a source was known."""
        self.unavailable = 0
        """Deliveries that were answered 503."""
        self._registry = CollectorRegistry()
        self._registry.register(_Door(self, unready, connections, lost))
        self._commit = Histogram(
            "calltally_commit_seconds",
            "Time from a batch's oldest verified delivery to its being durable.",
            buckets=COMMIT_BUCKETS_S,
            registry=self._registry,
        )
        self._batch = Histogram(
            "calltally_batch_deliveries",
            "Deliveries that shared one commit.",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 1000),
            registry=self._registry,
        )

    def of(self, source: str) -> Counts:
        """The counts of a source, kept when its settings change."""
        return self.by_source.setdefault(source, Counts())

    def refused_head(self, reason: str) -> None:
        """Count a request that was refused before its source was known."""
        self.refused_heads[reason] = self.refused_heads.get(reason, 0) + 1

    def committed(self, deliveries: int, seconds: float) -> None:
        """Count one commit of the journal."""
        self._commit.observe(seconds)
        self._batch.observe(deliveries)

    def also(self, collector: Collector) -> None:
        """Show what this one tells, too."""
        self._registry.register(collector)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Door(Collector):
    def __init__(
        self,
        counters: Counters,
        unready: Callable[[], CalltallyError | None],
        connections: Callable[[], int],
        lost: Callable[[], int],
    ) -> None:
        self._counters = counters
        self._unready = unready
        self._connections = connections
        self._lost = lost

    def collect(self) -> Iterable[Metric]:
        counts = self._counters.by_source
        yield _webhooks(counts)
        yield _per_source("bytes", "Bytes of accepted webhook bodies.", counts, lambda of: of.bytes)
        yield _per_source("probes", "GETs and empty POSTs.", counts, lambda of: of.probes)
        yield _per_source(
            "older_secret_webhooks", "Webhooks proved by another than the newest secret.", counts,
            lambda of: of.by_older_secret,
        )  # fmt: skip
        yield _per_source("quarantined", "Refused bodies put into the quarantine.", counts, lambda of: of.quarantined)
        yield _per_source(
            "quarantine_full", "Refused bodies for which the quarantine had no room.", counts,
            lambda of: of.quarantine_full,
        )  # fmt: skip
        last = GaugeMetricFamily(
            "calltally_last_webhook_timestamp_seconds", "When a source last proved alive.", labels=["source"]
        )
        for source, of in counts.items():
            if of.last_received_at:
                last.add_metric([source], of.last_received_at / MICROS_PER_S)
        yield last
        heads = CounterMetricFamily(
            "calltally_refused_heads", "Requests refused before a source was known.", labels=["reason"]
        )
        for reason, number in self._counters.refused_heads.items():
            heads.add_metric([reason], number)
        yield heads
        yield CounterMetricFamily(
            "calltally_unavailable", "Verified webhooks answered 503.", value=self._counters.unavailable
        )
        yield CounterMetricFamily("calltally_notices_lost", "Notices the journal did not take.", value=self._lost())
        yield GaugeMetricFamily("calltally_connections", "Open connections.", value=self._connections())
        yield GaugeMetricFamily(
            "calltally_journal_up", "Whether the journal takes writes.", value=int(self._unready() is None)
        )


def _webhooks(counts: Mapping[str, Counts]) -> Metric:
    family = CounterMetricFamily(
        "calltally_webhooks", "Requests to a source by what became of them.", labels=["source", "verdict", "reason"]
    )
    for source, of in counts.items():
        family.add_metric([source, Verdict.ACCEPTED, ""], of.accepted)
        family.add_metric([source, Verdict.REPEATED, ""], of.repeated)
        family.add_metric([source, Verdict.INBOUND, ""], of.inbound)
        for reason, number in of.refused.items():
            family.add_metric([source, Verdict.REFUSED, reason], number)
    return family


def _per_source(name: str, text: str, counts: Mapping[str, Counts], value: Callable[[Counts], int]) -> Metric:
    family = CounterMetricFamily(f"calltally_{name}", text, labels=["source"])
    for source, of in counts.items():
        family.add_metric([source], value(of))
    return family
