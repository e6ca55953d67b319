"""The range that a command is asked about, and what it is compared with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.period import view
from dashboard.view import of_range

NOW = datetime(2026, 11, 20, 13, 37, tzinfo=UTC)
CLOCKS_CHANGED = datetime(2026, 10, 25, 11, 15, tzinfo=UTC)
HOUR = 3_600_000_000


@pytest.mark.parametrize("now", [NOW, CLOCKS_CHANGED])
@pytest.mark.parametrize("name", ["24h", "7d", "14d", "30d", "90d"])
def test_so_and_so_long_back_is_the_range_of_that_name_on_the_page(name: str, now: datetime) -> None:
    """Page and report of the same words show the same calls, compared with the same ones."""
    zone = "Europe/Berlin"
    asked, page = view(name, "now", zone=zone, only={}, now=now), of_range(name, zone=zone, only={}, now=now)

    assert (asked.filters, asked.before, asked.back) == (page.filters, page.before, page.back)
    assert asked.label == page.label


def test_hours_back_are_hours_also_when_the_clocks_change() -> None:
    """Not those of the clock on the wall, which were 13 of 12 and one more."""
    found = view("12h", "now", zone="Europe/Berlin", only={}, now=CLOCKS_CHANGED)

    assert found.filters.end - found.filters.start == 12 * HOUR
    assert found.before.end - found.before.start == 12 * HOUR
    assert found.back == "a week before"


def test_two_moments_are_compared_with_as_long_before_them() -> None:
    """No weeks where nobody spoke of days."""
    found = view("2026-11-19T09:00", "2026-11-19T15:00", zone="UTC", only={}, now=NOW)

    assert found.before.end == found.filters.start
    assert found.before.start == found.filters.start - 6 * HOUR
