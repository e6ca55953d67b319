"""What tiles say: figures, changes, bases, and when they say nothing."""

from __future__ import annotations

import pytest

from analytics.metric import catalogue
from dashboard import words
from dashboard.reader import Measured
from dashboard.tiles import NONE, TILES, Tile, Total, tile, total

METRICS = catalogue()
NOTHING = Total(None, None, None, 0)
THIN = words.THIN


def share(numerator: float, denominator: float) -> Total:
    return Total(numerator / denominator if denominator else None, numerator, denominator, denominator)


def count(value: float, n: float | None = None) -> Total:
    return Total(value, value, None, value if n is None else n)


def told(name: str, now: Total, before: Total = NOTHING) -> Tile:
    return tile(METRICS[name], now, before)


def test_a_share_stands_with_its_counts_and_interval() -> None:
    """The interval is Wilson's, in per cent."""
    assert told("connected", share(5157, 8412), share(5000, 8412)) == Tile(
        figure=f"61.3{THIN}%", change="+1.9 pts", good=True, base=f"5{THIN}157 of 8{THIN}412 · 60.3{NONE}62.3"
    )


def test_under_twenty_calls_there_is_neither_rate_nor_arrow() -> None:
    """Three of seven is three of seven, and not 43 %."""
    assert told("connected", share(3, 7), share(300, 700)) == Tile("3 of 7", None, None, "too few for a rate")
    assert told("connected", share(19, 19), share(300, 700)).change is None
    assert told("connected", share(20, 20), share(300, 700)).figure == f"100{THIN}%"


def test_halves_of_partly_met_goals_are_told() -> None:
    """Rounded to whole calls they would not add up."""
    assert told("goal_met", share(3.5, 7)).figure == "3.5 of 7"


def test_a_rate_over_too_few_before_has_no_arrow() -> None:
    """What it would be compared with is chance."""
    assert told("connected", share(50, 100), share(3, 7)).change is None


@pytest.mark.parametrize(("name", "now"), [("connected", share(50, 100)), ("attempts", count(50))])
def test_what_had_nothing_before_is_new(name: str, now: Total) -> None:
    """Never "+100 %", and neither good nor bad."""
    for before in (NOTHING, Total(None, 0, 0, 0) if name == "connected" else count(0)):
        assert (told(name, now, before).change, told(name, now, before).good) == ("new", None)


def test_counts_change_in_per_cent() -> None:
    """Of the number before."""
    assert told("booked", count(120, 500), count(100, 480)).change == f"+20.0{THIN}%"
    assert told("booked", count(0, 500), count(100, 480)).change == f"-100.0{THIN}%"


def test_a_count_that_was_tiny_before_has_no_per_cent() -> None:
    """From two to a hundred is no +4900 %; from a hundred to two is news."""
    assert told("attempts", count(100), count(2)).change is None
    assert told("attempts", count(2), count(100)).change == f"-98.0{THIN}%"


@pytest.mark.parametrize(("name", "rises_well"), [("connected", True), ("voicemail", False), ("transferred", None)])
def test_good_and_bad_follow_the_metric(name: str, rises_well: bool | None) -> None:
    """A rising voicemail share is bad, a rising transfer share is just a change."""
    up, down = told(name, share(600, 1000), share(400, 1000)), told(name, share(400, 1000), share(600, 1000))
    assert up.good is rises_well
    assert down.good is (None if rises_well is None else not rises_well)
    assert (up.change, down.change) == ("+20.0 pts", "-20.0 pts")


def test_a_change_that_may_be_chance_is_not_coloured() -> None:
    """One point of a hundred calls is no good news."""
    change = told("connected", share(61, 100), share(60, 100))
    assert (change.change, change.good) == ("+1.0 pts", None)


def test_no_change_is_neither_good_nor_bad() -> None:
    """Zero points are grey."""
    assert told("connected", share(600, 1000), share(600, 1000)).good is None
    assert told("booked", count(100, 500), count(100, 500)).good is None


def test_where_nothing_was_measured_it_says_so() -> None:
    """A dash never stands alone."""
    assert told("connected", NOTHING) == Tile(NONE, None, None, "nothing to measure")
    assert told("talk_time_mean", Total(None, 0, 0, 0)).base == "nothing to measure"


def test_no_calls_are_none_of_so_many_before() -> None:
    """The day on which nothing comes is when the number matters most."""
    shown = tile(METRICS["attempts"], NOTHING, count(100), back="day before")
    assert (shown.figure, shown.change, shown.base) == ("0", f"-100.0{THIN}%", "day before: 100")
    assert told("booked", NOTHING).base == "of 0 calls"


def test_a_platform_that_does_not_send_it_is_named() -> None:
    """Never 0, and only where no other platform is looked at."""
    metric = METRICS["transferred"]
    assert tile(metric, NOTHING, NOTHING, only={"provider": ("callsync",)}).base == "not available from CallSync"
    both = tile(metric, NOTHING, NOTHING, only={"provider": ("callsync", "aisync")})
    assert both.base == "nothing to measure"


def test_several_platforms_that_do_not_send_it_are_counted() -> None:
    """Their names would not fit into a tile; the passport has them."""
    silent = {"provider": ("callsync", "synthflow")}
    assert tile(METRICS["booked"], NOTHING, NOTHING, only=silent).base == "not available from 2 platforms"


def test_attempts_stand_beside_those_before() -> None:
    """Their base is the number they are compared with."""
    assert tile(METRICS["attempts"], count(50), count(1200), back="a week before").base == f"a week before: 1{THIN}200"


def test_bases_say_what_a_number_is_made_of() -> None:
    """Counts are of calls, lengths from calls."""
    assert told("booked", count(5, 1)).base == "of 1 call"
    assert told("talk_time", count(6000, 40)).base == "from 40 calls"
    assert told("other_events", count(6, 6)).base == "of 6 events"


def test_a_negative_number_changes_by_its_difference() -> None:
    """Per cent of a number that can be negative mean nothing."""
    assert told("sentiment_net", Total(0.3, 30, 100, 100), Total(-0.1, -10, 100, 100)).change == "+0.40"


def test_a_total_is_its_row_or_the_sum_of_its_buckets() -> None:
    """A quantile has neither numerator nor denominator and is taken as it is."""
    rows = [Measured(None, None, 0.5, 1.0, 2.0, 2), Measured(None, None, 0.2, 2.0, 10.0, 10)]
    assert total(rows) == Total(3 / 12, 3, 12, 12)
    assert total([]) == NOTHING
    counts = [row._replace(denominator=None, value=row.numerator) for row in rows]
    assert total(counts) == Total(3, 3, None, 12)
    quantile = Measured(None, None, 127.5, None, None, 61)
    assert total([quantile]) == Total(127.5, None, None, 61)
    assert total([row._replace(numerator=0.0, denominator=0.0) for row in rows]) == Total(None, 0, 0, 12)


def test_tiles_are_metrics_whose_buckets_add_up() -> None:
    """The page sums them from the buckets of their sparklines."""
    assert all(METRICS[name].additive for name in TILES)
