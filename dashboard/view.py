"""Which period a page or a report shows, what it is compared with, and how time is cut. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from analytics.metric import Filters

RANGES: Mapping[str, tuple[str, int]] = {
    "today": ("Today", 1),
    "24h": ("Last 24 hours", 0),
    "7d": ("Last 7 days", 7),
    "14d": ("Last 14 days", 14),
    "30d": ("Last 30 days", 30),
    "90d": ("Last 90 days", 90),
    "custom": ("From ... to ...", 0),
}
"""Name in the address bar, label, and how many local days it covers."""


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows: the filters, the period before, and how time is cut."""

    filters: Filters
    before: Filters
    label: str
    bucket: str
    open_from: datetime
    """Start of the bucket that is not over yet, in the zone, without tzinfo."""


def of_range(name: str, *, zone: str, only: Mapping[str, tuple[str, ...]], now: datetime) -> View:
    """The view of a named range that ends now."""
    label, days = RANGES[name]
    if days == 0:
        return _view(now - timedelta(hours=24), now, label, zone, only, now, timedelta(hours=24))
    today = now.astimezone(ZoneInfo(zone)).date()
    # Whole days back, so that a week is compared with the same weekdays.
    return _view(midnight(today - timedelta(days=days - 1), zone), now, label, zone, only, now, timedelta(days=days))


def of_days(first: date, last: date, *, zone: str, only: Mapping[str, tuple[str, ...]], now: datetime) -> View:
    """The view of whole local days, both included; the other way round where they are swapped."""
    first, last = min(first, last), max(first, last)
    start, end = midnight(first, zone), midnight(last + timedelta(days=1), zone)
    label = f"{first:%d %b %Y} to {last:%d %b %Y}"
    return _view(start, end, label, zone, only, now, timedelta(days=(last - first).days + 1))


def midnight(day: date, zone: str) -> datetime:
    """The first moment of a local day."""
    return datetime.combine(day, time(), ZoneInfo(zone))


def _view(
    start: datetime,
    end: datetime,
    label: str,
    zone: str,
    only: Mapping[str, tuple[str, ...]],
    now: datetime,
    back: timedelta,
) -> View:
    length_days = (end - start).total_seconds() / 86_400
    bucket = "hour" if length_days <= 2 else "day" if length_days <= 45 else "week"
    return View(
        filters=Filters(start=_micros(start), end=_micros(end), zone=zone, only=only),
        before=Filters(start=_micros(start - back), end=_micros(end - back), zone=zone, only=only),
        label=label,
        bucket=bucket,
        open_from=_open_from(now.astimezone(ZoneInfo(zone)), bucket),
    )


def _micros(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp()) * 1_000_000


def _open_from(local_now: datetime, bucket: str) -> datetime:
    naive = local_now.replace(tzinfo=None)
    midnight = naive.replace(hour=0, minute=0, second=0, microsecond=0)
    if bucket == "hour":
        return naive.replace(minute=0, second=0, microsecond=0)
    return midnight if bucket == "day" else midnight - timedelta(days=midnight.weekday())
