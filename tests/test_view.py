"""Which period is shown, with which it is compared, and how it is cut."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.view import RANGES, View, midnight, of_days, of_range

NOW = datetime(2026, 11, 20, 13, 37, 21, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "America/Havana", "Pacific/Apia")


def local(micros: int, zone: str) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def spans(view: View) -> list[datetime]:
    zone = view.filters.zone
    return [local(at, zone) for f in (view.filters, view.before) for at in (f.start, f.end)]


@pytest.mark.parametrize("name", [name for name, (_, days) in RANGES.items() if days])
@pytest.mark.parametrize("zone", ZONES)
def test_a_range_is_compared_with_the_same_weekdays(name: str, zone: str) -> None:
    """Whole weeks back, as often as needed for the two not to overlap."""
    start, end, before_start, before_end = spans(of_range(name, zone=zone, only={}, now=NOW))
    assert (start - before_start).days % 7 == 0
    assert start.weekday() == before_start.weekday()
    assert end - start == before_end - before_start
    assert before_end <= start + timedelta(minutes=15)
    assert (start.hour, start.minute) == (0, 0)
    assert (end.date() - start.date()).days + 1 == RANGES[name][1]


def test_today_is_compared_with_the_same_hours_of_the_same_weekday() -> None:
    """A morning with a morning."""
    view = of_range("today", zone="Europe/Berlin", only={}, now=NOW)
    start, end, before_start, before_end = spans(view)
    assert (start, before_start) == (datetime(2026, 11, 20), datetime(2026, 11, 13))
    assert (end, before_end) == (datetime(2026, 11, 20, 14, 45), datetime(2026, 11, 13, 14, 45))
    assert (view.label, view.bucket, view.back) == ("Today", "hour", "a week before")


@pytest.mark.parametrize(
    ("now", "hours"), [(datetime(2026, 3, 29, 20, tzinfo=UTC), 22), (datetime(2026, 10, 25, 20, tzinfo=UTC), 21)]
)
def test_midnight_stays_midnight_when_the_clocks_change(now: datetime, hours: int) -> None:
    """A day of 23 or 25 hours is compared with one of 24, both from midnight to the same time."""
    view = of_range("today", zone="Europe/Berlin", only={}, now=now)
    start, end, before_start, before_end = spans(view)
    assert start.hour == before_start.hour == 0
    assert end.hour == before_end.hour == hours
    assert view.filters.end - view.filters.start != view.before.end - view.before.start


def test_the_last_24_hours_are_24_hours() -> None:
    """Also in the night in which the clocks change."""
    view = of_range("24h", zone="Europe/Berlin", only={}, now=datetime(2026, 3, 29, 8, tzinfo=UTC))
    assert view.filters.end - view.filters.start == 24 * 3_600_000_000
    assert view.back == "a week before"


def test_days_are_whole_local_days_with_both_ends() -> None:
    """Swapped ends are put right."""
    view = of_days(date(2026, 3, 29), date(2026, 3, 27), zone="Europe/Berlin", only={}, now=NOW)
    assert spans(view) == [
        datetime(2026, 3, 27), datetime(2026, 3, 30), datetime(2026, 3, 20), datetime(2026, 3, 23),
    ]  # fmt: skip
    assert view.filters.end - view.filters.start == 71 * 3_600_000_000
    assert view.label == "27 Mar 2026 to 29 Mar 2026"
    assert of_days(date(2026, 3, 1), date(2026, 3, 1), zone="UTC", only={}, now=NOW).label == "1 Mar 2026"


@given(first=st.dates(), last=st.dates(), zone=st.sampled_from(ZONES))
def test_any_days_give_a_range_and_one_before_it(first: date, last: date, zone: str) -> None:
    """Also dates at the ends of the calendar, which are cut to where calls can be."""
    view = of_days(first, last, zone=zone, only={}, now=NOW)
    assert view.before.start < view.before.end <= view.filters.start + 3_600_000_000 < view.filters.end + 3_600_000_000
    assert view.filters.start % 900_000_000 == view.filters.end % 900_000_000 == 0


@pytest.mark.parametrize(
    ("days", "bucket"), [(1, "hour"), (2, "hour"), (3, "day"), (45, "day"), (46, "week"), (370, "week"), (371, "month")]
)
def test_longer_ranges_are_cut_coarser(days: int, bucket: str) -> None:
    """So that a chart has some dozen bars, not hundreds."""
    last = date(2026, 7, 1)
    view = of_days(last - timedelta(days=days - 1), last, zone="UTC", only={}, now=NOW)
    assert view.bucket == bucket


@pytest.mark.parametrize(
    ("days", "open_from"),
    [
        (1, datetime(2026, 11, 20, 14)), (7, datetime(2026, 11, 20)), (60, datetime(2026, 11, 16)),
        (700, datetime(2026, 11, 1)),
    ],
)  # fmt: skip
def test_the_bucket_that_is_not_over_is_known(days: int, open_from: datetime) -> None:
    """In the zone: an hour, a day, a week that starts on Monday, a month."""
    view = of_days(
        date(2026, 11, 20) - timedelta(days=days - 1), date(2026, 11, 20), zone="Europe/Berlin", only={}, now=NOW
    )
    assert view.open_from == open_from


@pytest.mark.parametrize(
    ("name", "first", "last", "many"),
    [
        ("today", datetime(2026, 11, 20), datetime(2026, 11, 20, 14), 15),
        ("24h", datetime(2026, 11, 19, 14), datetime(2026, 11, 20, 14), 25),
        ("7d", datetime(2026, 11, 14), datetime(2026, 11, 20), 7),
        ("90d", datetime(2026, 8, 17), datetime(2026, 11, 16), 14),
    ],
)
def test_the_buckets_are_those_of_the_range(name: str, first: datetime, last: datetime, many: int) -> None:
    """From its start to now, on the zone's clock, whenever calls came."""
    buckets = of_range(name, zone="Europe/Berlin", only={}, now=NOW).buckets
    assert (buckets[0], buckets[-1], len(buckets)) == (first, last, many)


def test_no_bucket_is_of_the_future() -> None:
    """Days that are still to come are not silent; days that are over are all there."""
    for last, end in ((date(2026, 11, 30), datetime(2026, 11, 20)), (date(2026, 11, 12), datetime(2026, 11, 12))):
        view = of_days(date(2026, 11, 10), last, zone="Europe/Berlin", only={}, now=NOW)
        assert (view.buckets[0], view.buckets[-1]) == (datetime(2026, 11, 10), end)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), [0, 1, 3]),
        ("Europe/Berlin", date(2026, 10, 25), [0, 1, 2, 3]),
        ("America/Havana", date(2026, 3, 8), [1, 2, 3]),
    ],
)
def test_an_hour_that_the_clocks_leave_out_is_no_bucket(zone: str, day: date, hours: list[int]) -> None:
    """No call can come in it; one that comes twice stands once."""
    found = of_days(day, day, zone=zone, only={}, now=NOW).buckets
    assert [moment.hour for moment in found][: len(hours)] == hours


def test_filters_hold_for_both_periods() -> None:
    """A comparison is of like with like."""
    view = of_range("7d", zone="UTC", only={"provider": ("aisync",)}, now=NOW)
    assert view.filters.only == view.before.only == {"provider": ("aisync",)}


def test_a_midnight_that_does_not_exist_is_the_first_moment_of_its_day() -> None:
    """In Havana summer time begins at midnight."""
    assert midnight(date(2026, 3, 8), "America/Havana").astimezone(UTC) == datetime(2026, 3, 8, 5, tzinfo=UTC)
