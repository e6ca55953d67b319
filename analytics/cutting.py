"""How time is cut into the buckets of a zone, as SQL that costs little a row.

DuckDB's own `time_bucket` with a zone asks the calendar for every row, half a microsecond each. A range of days has few
edges, which are asked for here, once; hours and quarters of an hour need nothing but the zone's odd minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from types import MappingProxyType
from zoneinfo import ZoneInfo

from calls.model import Micros

BUCKETS: Mapping[str, str | None] = MappingProxyType(
    {
        "15 minutes": "15 minutes",
        "hour": "1 hour",
        "day": "1 day",
        "week": "7 days",
        "month": "1 month",
        "all": None,
    }
)
"""Bucket names and the intervals they stand for; weeks start on Monday."""

_EDGES_MOST = 120
_HOURS_MOST = 120 * 24
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bucket_of(column: str, bucket: str, start: Micros, end: Micros, zone: str) -> str:
    """The start of a row's bucket as TIMESTAMPTZ; `$zone` is used where the range is too long for anything else."""
    plain = plain_bucket_of(column, bucket, start, end, zone)
    if plain is not None:
        return f"timezone('UTC', {plain})"
    step = BUCKETS[bucket]
    if step is None:
        return "CAST(NULL AS TIMESTAMPTZ)"
    return f"time_bucket(INTERVAL '{step}', timezone('UTC', {column}), $zone)"


def plain_bucket_of(column: str, bucket: str, start: Micros, end: Micros, zone: str) -> str | None:
    """The start of a row's bucket as TIMESTAMP in UTC, where that needs no calendar; None else.

    A group of rows is cheaper found by this than by a time with a zone, which costs a tenth of a microsecond to make.
    """
    step = BUCKETS[bucket]
    if step is None:
        return None
    first, last = (_EPOCH + timedelta(microseconds=moment) for moment in (start, end))
    days = (last - first).days + 2
    if bucket in ("15 minutes", "hour") and days * 24 <= _HOURS_MOST:
        minutes = 15 if bucket == "15 minutes" else 60
        odd = _odd_minutes(first, days, ZoneInfo(zone), minutes)
        if len(odd) == 1:
            return _by_odd_minutes(column, step, odd.pop())
    if (bucket == "day" and days <= _EDGES_MOST) or (bucket == "week" and days <= _EDGES_MOST * 7):
        return _by_edges(column, _edges(first, last, bucket, ZoneInfo(zone)))
    return None


def _by_odd_minutes(column: str, step: str, odd: int) -> str:
    if not odd:
        return f"time_bucket(INTERVAL '{step}', {column})"
    shift = f"INTERVAL {odd} MINUTES"
    return f"time_bucket(INTERVAL '{step}', {column} + {shift}) - {shift}"


def _odd_minutes(first: datetime, days: int, zone: ZoneInfo, minutes: int) -> set[int]:
    """By how many minutes the zone's hours are beside those of UTC, over the range; nearly always one number."""
    offsets = {(first + timedelta(hours=hour)).astimezone(zone).utcoffset() for hour in range(-24, days * 24, 6)}
    return {int(offset.total_seconds() // 60) % minutes for offset in offsets if offset is not None}


def _by_edges(column: str, edges: list[str]) -> str:
    """The last edge that is not after the row's time; there is always one."""
    cases = [f"WHEN {column} < TIMESTAMP '{later}' THEN TIMESTAMP '{edge}'" for edge, later in pairwise(edges)]
    return f"CASE {' '.join(cases)} ELSE TIMESTAMP '{edges[-1]}' END"


def _edges(first: datetime, last: datetime, bucket: str, zone: ZoneInfo) -> list[str]:
    day = first.astimezone(zone).date() - timedelta(days=1)
    if bucket == "week":
        day -= timedelta(days=day.weekday())
    step = timedelta(days=7 if bucket == "week" else 1)
    edges: list[str] = []
    while (edge := _midnight(day, zone)) < last or len(edges) < 2:
        edges.append(edge.strftime("%Y-%m-%d %H:%M:%S"))
        day += step
    return edges


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
