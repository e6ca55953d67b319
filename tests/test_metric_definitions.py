"""What some metrics mean at their edges, each over a few calls of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analytics.metric import Filters, catalogue
from analytics.store import Store
from calls.model import Micros, Rules
from tests.contracts.measures import Measured, measure
from tests.storing import NOON, SECOND, put_call

METRICS = catalogue()
HOUR = 3600 * SECOND
DAY = 24 * HOUR
TODAY = Filters(start=NOON - NOON % DAY, end=NOON - NOON % DAY + DAY)
CALLER = "+4917099012"

Put = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store.duckdb", rules=Rules())
    yield opened
    opened.close()


@pytest.fixture
def put(store: Store) -> Put:
    """Store a call that was counted, and received, at that time."""
    stored: list[int] = []

    def put(at: Micros, *, received_at: Micros | None = None, **fields: object) -> None:
        stored.append(len(stored) + 1)
        told = {"counted_at": at, "caller_phone": CALLER, "ended_by": "agent", **fields}
        put_call(store, stored[-1], received_at=at if received_at is None else received_at, **told)

    return put


def measured(store: Store, name: str, filters: Filters = TODAY, bucket: str = "all") -> list[Measured]:
    return measure(store, METRICS[name], filters, bucket=bucket)


def test_a_call_is_contained_for_good_though_we_call_back(store: Store, put: Put) -> None:
    """Only a caller who calls again says that something was left open."""
    put(NOON, direction="inbound")
    put(NOON + HOUR, direction="outbound", callee_phone=CALLER, caller_phone=None, connection="no_answer")
    put(NOON + 4 * DAY, direction="inbound")
    assert [(row.numerator, row.n) for row in measured(store, "durably_contained")] == [(1, 1)]


def test_a_caller_who_comes_back_was_not_contained_for_good(store: Store, put: Put) -> None:
    """However the number is spelled the second time."""
    put(NOON, direction="inbound")
    put(NOON + DAY, direction="inbound", caller_phone="0049 170 99012")
    put(NOON + 4 * DAY, direction="inbound", caller_phone="+12125550100")
    assert [(row.numerator, row.n) for row in measured(store, "durably_contained")] == [(0, 1)]


@pytest.mark.parametrize("name", ["durably_contained", "resolved_first_time"])
def test_an_event_from_the_future_makes_nothing_mature(store: Store, put: Put, name: str) -> None:
    """What a platform's clock says is not how long we have been watching."""
    put(NOON, result="met")
    put(NOON + 1000 * DAY, received_at=NOON + HOUR, caller_phone="+12125550100")
    assert measured(store, name) == []


@pytest.mark.parametrize("name", ["durably_contained", "resolved_first_time"])
def test_who_withholds_a_number_is_in_no_rate_of_who_comes_back(store: Store, put: Put, name: str) -> None:
    """Else all of them together would be one person who calls all day."""
    for hour in range(3):
        put(NOON + hour * HOUR, caller_phone="anonymous", result="met")
    put(NOON + 8 * DAY)
    assert measured(store, name) == []
    assert [(row.value, row.n) for row in measured(store, "unique_contacts")] == [(0, 0)]
    assert [(row.numerator, row.n) for row in measured(store, "false_success")] == [(0, 3)]


def test_calls_that_began_the_day_before_are_still_under_way(store: Store, put: Put) -> None:
    """Each day has the most of its moments, whoever began when."""
    midnight = TODAY.end
    for minute in range(1, 4):
        began = midnight - minute * 60 * SECOND
        put(began, started_at=began, ended_at=began + HOUR, duration_s=3600.0)
    put(midnight + 60 * SECOND, started_at=midnight + 60 * SECOND, ended_at=midnight + 120 * SECOND, duration_s=60.0)
    both = Filters(start=TODAY.start, end=TODAY.end + DAY)
    assert [(row.value, row.n) for row in measured(store, "most_at_once", both, "day")] == [(3, 3), (4, 1)]


def test_a_message_was_left_however_the_status_is_written(store: Store, put: Put) -> None:
    """A connection is read without regard to case, so is this."""
    for status in ("left_voicemail", "LEFT_VOICEMAIL", "left-voicemail", "hangup_on_voicemail"):
        put(NOON, provider="synthflow", status=status, connection="machine")
    assert [(row.numerator, row.n) for row in measured(store, "message_left")] == [(3, 4)]


def test_a_slice_by_transferred_has_the_same_names_everywhere(store: Store, put: Put) -> None:
    """Whether its rows come from a roll-up or are the calls."""
    put(NOON, transferred=True)
    put(NOON)
    for name in ("attempts", "conflicts"):
        assert [row.slice for row in measure(store, METRICS[name], TODAY, slice_by="transferred")] == ["false", "true"]
