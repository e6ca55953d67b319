"""Buckets of a zone, cut cheaply, are those that DuckDB's calendar gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.cutting import BUCKETS, bucket_of

# Not America/Havana, where midnight comes twice in autumn and DuckDB begins the day at the second one, and not
# Australia/Lord_Howe, whose summer time is half an hour: DuckDB cuts its hours as they were in January 2000.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/Sao_Paulo", "America/St_Johns",
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    zone=st.sampled_from(ZONES),
    bucket=st.sampled_from([bucket for bucket in BUCKETS if bucket != "all"]),
    start=st.datetimes(datetime(2015, 1, 1), datetime(2027, 1, 1)),
    days=st.integers(0, 130),
)
def test_every_moment_of_a_range_is_in_the_bucket_that_the_calendar_says(
    zone: str, bucket: str, start: datetime, days: int
) -> None:
    """For any range, zone and size of bucket, summer time and odd offsets included."""
    first = start.replace(tzinfo=UTC, second=0, microsecond=0)
    last = first + timedelta(days=days, hours=1)
    ours = bucket_of("moment", bucket, _micros(first), _micros(last), zone)
    theirs = f"time_bucket(INTERVAL '{BUCKETS[bucket]}', timezone('UTC', moment), '{zone}')"
    span = f"TIMESTAMP '{first:%F %T}', TIMESTAMP '{last:%F %T}', INTERVAL 35 MINUTES"
    moments = f"SELECT * FROM generate_series({span}) AS r(moment)"
    with duckdb.connect() as connection:
        wrong = connection.execute(
            f"SELECT moment, {ours.replace('$zone', repr(zone))} AS ours, {theirs} AS theirs FROM ({moments}) "
            "WHERE ours <> theirs LIMIT 3"
        ).fetchall()

    assert wrong == []


@pytest.mark.parametrize("bucket", ["15 minutes", "hour", "day", "week"])
def test_a_short_range_asks_no_calendar_for_a_row(bucket: str) -> None:
    """A range of two weeks is cut without `time_bucket` of a zone, which would cost each row half a microsecond."""
    start = _micros(datetime(2026, 3, 20, tzinfo=UTC))

    assert "$zone" not in bucket_of("moment", bucket, start, start + 14 * 86_400_000_000, "Europe/Berlin")


def test_weeks_start_on_monday_where_a_day_was_left_out_of_the_calendar() -> None:
    """Samoa had no 30 December 2011; counting sevens of days from before it gives Tuesdays."""
    start = _micros(datetime(2015, 1, 5, 12, tzinfo=UTC))
    cut = bucket_of("moment", "week", start, start + 86_400_000_000, "Pacific/Apia")
    with duckdb.connect() as connection:
        (monday,) = connection.execute(
            f"SELECT strftime(timezone('Pacific/Apia', {cut}), '%A %H:%M') "
            "FROM (SELECT TIMESTAMP '2015-01-05 12:00' AS moment)"
        ).fetchall()[0]

    assert monday == "Monday 00:00"


def _micros(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000
