"""Metrics measured over the fixture's history, and the form of their expected results.

Beside every shipped metric `NAME.sql` lies `NAME.expected.csv`: what it gives over the whole history, by week of
Berlin, and by the first of its columns in `CUTS`. A metric in a person's own folder needs none.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from analytics.metric import SHIPPED, Filters, Metric, Partial
from analytics.query import Limits, Query
from analytics.store import Store
from tests.fixture_calls import END, START, micros

ZONE = "Europe/Berlin"
CUTS = ("criterion", "name", "field", "action", "excluded", "event", "provider")
COLUMNS = ["bucket", "slice", "value", "numerator", "denominator", "n"]
LIMITS = Limits()


class Measured(NamedTuple):
    """One row of a metric."""

    bucket: str
    """In the zone, empty for the whole range."""
    slice: str | None
    value: float | None
    numerator: float | None
    denominator: float | None
    n: int


def everything(zone: str = ZONE, only: Mapping[str, tuple[str, ...]] | None = None) -> Filters:
    """Filters that leave the whole history."""
    return Filters(start=micros(START), end=micros(END), zone=zone, only=only or {})


def measure(
    store: Store,
    metric: Metric,
    filters: Filters | None = None,
    *,
    bucket: str = "all",
    slice_by: str | None = None,
    partial: Partial = Partial.STRICT,
) -> list[Measured]:
    """A metric's rows, asked as the SQL endpoint asks: through the guard, in a read-only transaction."""
    filters = filters or everything()
    sql, parameters = metric.sql(filters, bucket=bucket, slice_by=slice_by, partial=partial)
    sql += '\nORDER BY bucket, "slice" NULLS FIRST'
    answer = Query(store.cursor, sql, parameters, LIMITS).run()
    assert answer.table.column_names == COLUMNS
    return [Measured(_local(row["bucket"], filters.zone), *list(row.values())[1:]) for row in answer.table.to_pylist()]


def expected_path(metric: Metric) -> Path:
    return SHIPPED / f"{metric.name}.expected.csv"


def written(store: Store, metric: Metric) -> str:
    """What a metric gives now, in the form of its expected file."""
    cut = next(column for column in CUTS if column in metric.slices())
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["by", *COLUMNS])
    cuts = {
        "all": measure(store, metric),
        "week": measure(store, metric, bucket="week"),
        cut: measure(store, metric, slice_by=cut),
    }
    for by, rows in cuts.items():
        writer.writerows([by, row.bucket, row.slice, *(_rounded(number) for number in row[2:])] for row in rows)
    return sink.getvalue()


def _rounded(number: float | int | None) -> str:
    return "" if number is None else f"{number:.9g}"


def _local(moment: object, zone: str) -> str:

    if moment is None:
        return ""
    assert isinstance(moment, datetime)
    assert moment.tzinfo is not None
    return moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M%z")
