"""The catalogue's numbers over the last 24 hours, for Prometheus.

They are asked for at a scrape and kept for a minute, so that nothing is computed where nobody scrapes and a second
scraper costs nothing. A metric without a number has no sample.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import duckdb
import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from analytics.metric import Metric
from analytics.query import Limits, Query
from analytics.selection import Filters
from analytics.together import Question, grouped, together
from calls.errors import CalltallyError, QueryError
from calls.model import Micros

DAY_US: Final = 86_400_000_000
KEPT_S: Final = 60.0
"""A day's number moves little within a minute."""

Number: TypeAlias = tuple[str, float, int]
"""A metric's name, its value, and the n it is made of."""

log = structlog.get_logger("sql")


class LastDay(Collector):
    """Measures the whole catalogue; any thread may collect, which blocks while it is measured."""

    def __init__(
        self,
        connect: Callable[[], duckdb.DuckDBPyConnection],
        catalogue: Callable[[], Mapping[str, Metric]],
        limits: Limits,
        *,
        clock: Callable[[], Micros] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._connect = connect
        self._catalogue = catalogue
        self._limits = limits
        self._clock = clock
        self._asking = threading.Lock()
        self._kept: tuple[float, Sequence[Number]] | None = None

    def collect(self) -> Iterator[Family]:
        values = GaugeMetricFamily(
            "calltally_metric", "A number of the metrics dictionary over the last 24 hours.", labels=["metric"]
        )
        sizes = GaugeMetricFamily("calltally_metric_n", "Of how many it is made.", labels=["metric"])
        for name, value, n in self._numbers():
            values.add_metric([name], value)
            sizes.add_metric([name], n)
        yield from (values, sizes)

    def _numbers(self) -> Sequence[Number]:
        with self._asking:
            if self._kept is None or time.monotonic() - self._kept[0] > KEPT_S:
                self._kept = time.monotonic(), list(self._measured())
            return self._kept[1]

    def _measured(self) -> Iterator[Number]:
        try:
            metrics = self._catalogue()
        except CalltallyError as error:
            log.warning("there are no numbers for Prometheus", reason=error.message)
            return
        end = self._clock()
        filters = Filters(start=end - DAY_US, end=end)
        for group in grouped(Question(metric, filters) for metric in metrics.values()):
            yield from self._answered(group)

    def _answered(self, group: Sequence[Question]) -> Iterator[Number]:
        try:
            rows = Query(self._connect, *together(group), self._limits).run().table.to_pylist()
        except QueryError as error:
            names = [question.metric.name for question in group]
            log.warning("metrics have no number for Prometheus", metrics=names, reason=error.message)
            return
        for row in rows:
            if row["value"] is not None:
                yield group[row["question"]].metric.name, float(row["value"]), int(row["n"] or 0)
