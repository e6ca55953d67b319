"""What pages and reports ask the store, without any page: a query's rows, a metric's rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import pandas as pd
import pyarrow as pa

from analytics.metric import Filters, Metric, Parameter, Partial

Query = Callable[[str, Mapping[str, Parameter]], pa.Table]


class Reader(Protocol):
    """Reads the store for a card."""

    def ask(self, sql: str, params: Mapping[str, Parameter] | None = None) -> pd.DataFrame: ...

    def measure(
        self,
        name: str,
        filters: Filters,
        *,
        bucket: str = "all",
        slice_by: str | None = None,
        partial: Partial = Partial.STRICT,
    ) -> pd.DataFrame: ...

    def metric(self, name: str) -> Metric: ...


class StoreReader:
    """Reads through a query function: the client's, or one that caches."""

    def __init__(self, query: Query, metrics: Mapping[str, Metric]) -> None:
        self._query = query
        self._metrics = metrics

    def ask(self, sql: str, params: Mapping[str, Parameter] | None = None) -> pd.DataFrame:
        """Rows of a query. Raises QueryError."""
        rows: pd.DataFrame = self._query(sql, params or {}).to_pandas()
        return rows

    def measure(
        self,
        name: str,
        filters: Filters,
        *,
        bucket: str = "all",
        slice_by: str | None = None,
        partial: Partial = Partial.STRICT,
    ) -> pd.DataFrame:
        """A metric's rows: bucket (in the filters' zone, without tzinfo), slice, value, numerator, denominator, n."""
        sql, params = self._metrics[name].sql(filters, bucket=bucket, slice_by=slice_by, partial=partial)
        rows = self.ask(f'{sql}\nORDER BY bucket, "slice"', params)
        for column in ("value", "numerator", "denominator", "n"):
            rows[column] = pd.to_numeric(rows[column])
        if bucket != "all":
            rows["bucket"] = pd.to_datetime(rows["bucket"], utc=True).dt.tz_convert(filters.zone).dt.tz_localize(None)
        return rows

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return self._metrics[name]
