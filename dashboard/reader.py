"""What pages and reports ask the store, without any page: a query's rows, a metric's rows.

Rows are plain tuples and dictionaries: a page shows a few dozen of each, for which a data frame costs more than the
query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa

from analytics.metric import Filters, Metric, Parameter, Partial
from analytics.together import Question, grouped, together

Asked = tuple[str, Mapping[str, Parameter]]
Query = Callable[[str, Mapping[str, Parameter]], pa.Table]
Record = dict[str, object]


class Measured(NamedTuple):
    """A row of a metric."""

    bucket: datetime | None
    """Its start on the wall clock of the filters' zone, without tzinfo."""
    slice: str | None
    value: float | None
    numerator: float | None
    denominator: float | None
    n: float


class Reader(Protocol):
    """Reads the store for a card."""

    def prepare(self, questions: Iterable[Question], also: Sequence[Asked] = ()) -> None: ...

    def ask(self, sql: str, params: Mapping[str, Parameter] | None = None) -> list[Record]: ...

    def measure(
        self,
        name: str,
        filters: Filters,
        *,
        bucket: str = "all",
        slice_by: str | None = None,
        partial: Partial = Partial.STRICT,
    ) -> list[Measured]: ...

    def metric(self, name: str) -> Metric: ...


class StoreReader:
    """Reads through a query function: the client's, or one that caches."""

    def __init__(
        self, query: Query, metrics: Mapping[str, Metric], ahead: Callable[[Sequence[Asked]], None] | None = None
    ) -> None:
        """`ahead` is told what is about to be asked, and may begin to fetch it, several at a time."""
        self._query = query
        self._metrics = metrics
        self._ahead = ahead
        self._known: dict[tuple[object, ...], list[Measured]] = {}

    def prepare(self, questions: Iterable[Question], also: Sequence[Asked] = ()) -> None:
        """Measure all of these in as few queries as they can share; `also` are queries that will be asked."""
        groups = grouped(questions)
        queries = [together(group) for group in groups]
        if self._ahead is not None:
            self._ahead([*queries, *also])
        for group, (sql, params) in zip(groups, queries, strict=True):
            self._keep(group, self._query(sql, params))

    def ask(self, sql: str, params: Mapping[str, Parameter] | None = None) -> list[Record]:
        """Rows of a query. Raises QueryError."""
        return records(self._query(sql, params or {}))

    def measure(
        self,
        name: str,
        filters: Filters,
        *,
        bucket: str = "all",
        slice_by: str | None = None,
        partial: Partial = Partial.STRICT,
    ) -> list[Measured]:
        """A metric's rows by bucket and slice. Raises QueryError."""
        question = Question(self._metrics[name], filters, bucket, slice_by, partial)
        if question.key not in self._known:
            self._keep([question], self._query(*together([question])))
        return self._known[question.key]

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return self._metrics[name]

    def _keep(self, group: Sequence[Question], answer: pa.Table) -> None:
        found: list[list[Measured]] = [[] for _ in group]
        zone = ZoneInfo(group[0].filters.zone)
        columns = (answer.column(name).to_pylist() for name in ("question", *Measured._fields))
        for place, bucket, cut, value, numerator, denominator, n in zip(*columns, strict=True):
            wall = None if bucket is None else bucket.astimezone(zone).replace(tzinfo=None)
            found[place].append(Measured(wall, cut, _known(value), _known(numerator), _known(denominator), n or 0))
        for question, rows in zip(group, found, strict=True):
            self._known[question.key] = rows


def records(table: pa.Table) -> list[Record]:
    """A table's rows by name, in the words of Python: None where there is nothing."""
    names = table.column_names
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _known(value: float | None) -> float | None:
    """Nothing instead of what is no number."""
    return None if value is None or math.isnan(value) else value
