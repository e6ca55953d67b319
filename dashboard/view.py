"""Which period a page or a report shows, what it is compared with, and how time is cut. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from analytics.metric import Filters, titles
from dashboard import words

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


FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)
"""No call lies outside; a range is cut to them."""
_WEEK_US = 7 * 86_400_000_000
_STEPS = {
    "15 minutes": timedelta(minutes=15),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
FILTER_NAMES = {"provider": "platform", "org": "client", "agent_id": "agent"}
"""What columns that can be filtered by are called, where that is not their own name."""
_BUCKETS_BY_DAYS = ((2, "hour"), (45, "day"), (370, "week"))


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows: the filters, the period before, and how time is cut."""

    filters: Filters
    before: Filters
    label: str
    bucket: str
    open_from: datetime
    """Start of the bucket that is not over yet, in the zone, without tzinfo."""

    @property
    def buckets(self) -> list[datetime]:
        """The starts of all buckets of the range, on the wall clock: those without calls too, none of the future."""
        zone = ZoneInfo(self.filters.zone)
        first, last = (
            bucket_start(datetime.fromtimestamp(moment / 1_000_000, zone), self.bucket)
            for moment in (self.filters.start, self.filters.end - 1)
        )
        found = every_bucket(first, min(last, self.open_from), self.bucket)
        # There and back, as an hour that the clocks leave out is no hour without calls.
        there = (moment.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) for moment in found)
        return list(dict.fromkeys(there))

    @property
    def back(self) -> str:
        """How the period before is called."""
        weeks = (self.filters.start - self.before.start) / _WEEK_US
        # A change of the clocks between the two makes an hour of difference.
        if round(weeks) < 1 or abs(weeks - round(weeks)) > 0.01:
            return "period before"
        return "a week before" if round(weeks) == 1 else f"{round(weeks)} weeks before"


def of_range(name: str, *, zone: str, only: Mapping[str, tuple[str, ...]], now: datetime) -> View:
    """The view of a named range that ends now."""
    label, days = RANGES[name]
    local_now = now.astimezone(ZoneInfo(zone))
    if days == 0:
        return _view(now.astimezone(UTC) - timedelta(hours=24), now.astimezone(UTC), 1, label, zone, only, now)
    first = local_now.date() - timedelta(days=days - 1)
    return _view(midnight(first, zone), local_now, days, label, zone, only, now)


def of_days(first: date, last: date, *, zone: str, only: Mapping[str, tuple[str, ...]], now: datetime) -> View:
    """The view of whole local days, both included; the other way round where they are swapped."""
    first, last = sorted(min(max(day, FIRST_DAY), LAST_DAY) for day in (first, last))
    start, end = midnight(first, zone), midnight(last + timedelta(days=1), zone)
    label = _day(first) if first == last else f"{_day(first)} to {_day(last)}"
    return _view(start, end, (last - first).days + 1, label, zone, only, now)


def line(view: View, agents: Mapping[str, str]) -> str:
    """Range, zone and filters, as a page says them below its title; `agents` are their names by id."""
    chosen = (f"{name}: {value}" for name, value in only(view.filters, agents).items())
    return " · ".join([f"{view.label}, {view.filters.zone}", *chosen])


def only(filters: Filters, agents: Mapping[str, str]) -> dict[str, str]:
    """What calls are narrowed to besides the range, in words for people, by the name of the filter."""
    plain = {"provider": titles(), "agent_id": agents}
    return {
        FILTER_NAMES.get(column, column): ", ".join(
            words.label(plain.get(column, {}).get(value, value) or "none") for value in values
        )
        for column, values in filters.only.items()
        if values
    }


def midnight(day: date, zone: str) -> datetime:
    """The first moment of a local day."""
    return datetime.combine(day, time(), ZoneInfo(zone))


def every_bucket(first: datetime, last: datetime, bucket: str) -> list[datetime]:
    """The starts of all buckets from the first to the last, on the wall clock."""
    found = [first]
    while (after := _next(found[-1], bucket)) <= last:
        found.append(after)
    return found


def bucket_start(moment: datetime, bucket: str) -> datetime:
    """The start of the bucket that a local time lies in, on the wall clock, without tzinfo."""
    naive = moment.replace(tzinfo=None)
    day = naive.replace(hour=0, minute=0, second=0, microsecond=0)
    if bucket == "hour":
        return naive.replace(minute=0, second=0, microsecond=0)
    if bucket == "month":
        return day.replace(day=1)
    return day if bucket == "day" else day - timedelta(days=day.weekday())


def _next(start: datetime, bucket: str) -> datetime:
    if bucket == "month":
        return (start.replace(day=1) + timedelta(days=32)).replace(day=1)
    return start + _STEPS[bucket]


def _view(
    start: datetime,
    end: datetime,
    days: int,
    label: str,
    zone: str,
    only: Mapping[str, tuple[str, ...]],
    now: datetime,
) -> View:
    # Whole weeks back, so that each weekday is compared with the same: a Monday not with a Sunday. The wall clock is
    # set back, not the hours counted, so that midnight stays midnight over a change of the clocks.
    back = timedelta(weeks=-(-days // 7))
    length_days = (end - start).total_seconds() / 86_400
    bucket = next((name for most, name in _BUCKETS_BY_DAYS if length_days <= most), "month")
    return View(
        filters=Filters(start=_micros(start), end=_micros(end), zone=zone, only=only),
        before=Filters(start=_micros(start - back), end=_micros(end - back), zone=zone, only=only),
        label=label,
        bucket=bucket,
        open_from=bucket_start(now.astimezone(ZoneInfo(zone)), bucket),
    )


def _day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _micros(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000
