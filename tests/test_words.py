"""How numbers, times and people's data are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.metric import catalogue
from dashboard import words

THIN = words.THIN


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1234567, f"1{THIN}234{THIN}567"), (3.5, "3.5"), (2.04, "2"), (1000.5, f"1{THIN}000.5")],
)
def test_counts_have_thin_spaces_and_decimals_only_for_halves(number: float, text: str) -> None:
    """Half a call comes from the policy that counts partly met ones half."""
    assert words.count(number) == text


def test_a_share_has_a_decimal_from_a_hundred_cases_on() -> None:
    """Below that the decimal would be a precision nobody has."""
    assert words.share(0.61254, 99) == f"61{THIN}%"
    assert words.share(0.61254, 100) == f"61.3{THIN}%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.42, "0.4 s"), (9.7, "9.7 s"), (9.97, "10 s"), (52.4, "52 s"), (59.6, "1 min"),
        (112, "1 min 52 s"), (120, "2 min"), (3599.7, "1 h"), (3660, "1 h 1 min"), (11100, "3 h 5 min"),
        (35_999, "9 h 59 min"), (36_000, "10 h"), (662_400, "184 h"), (5_400_000, f"1{THIN}500 h"),
        (-90, "\N{MINUS SIGN}1 min 30 s"),
    ],
)  # fmt: skip
def test_durations_are_told_in_the_units_of_a_clock(seconds: float, text: str) -> None:
    """From parts of a second, where they matter, to hours only."""
    assert words.duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e7))
def test_a_duration_never_says_sixty(seconds: float) -> None:
    """Rounding carries over into the next unit."""
    assert " 60 " not in f" {words.duration(seconds)} "


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [
        ("connected", 0.5, f"50.0{THIN}%"), ("attempts", 12345, f"12{THIN}345"), ("talk_time", 125, "2 min 5 s"),
        ("sentiment_net", 0.2512, "0.25"), ("cost", 1234.5, f"1{THIN}234.50{THIN}USD"), ("most_at_once", 7, "7"),
        ("attempts_per_reach", 1.5, "1.50"), ("delivery_lag", 0.3, "0.3 s"),
    ],
)  # fmt: skip
def test_a_value_is_written_in_its_unit(name: str, number: float, text: str) -> None:
    """Kind and unit of the metric decide."""
    assert words.value(catalogue()[name], number, 500) == text


def test_ago_uses_the_largest_unit() -> None:
    """A clock that runs ahead is not told as the future."""
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    told = [words.ago(now - timedelta(seconds=s), now) for s in (-5, 2, 61, 7_300, 200_000)]
    assert told == ["just now", "2 s ago", "1 min ago", "2 h ago", "2 d ago"]


def test_times_are_in_the_zone_of_the_viewer() -> None:
    """Times of the store have no zone and are UTC."""
    assert words.local(datetime(2026, 11, 20, 13, 5, 9), "Europe/Berlin") == "Fri 20 Nov 14:05:09"
    assert words.day(datetime(2026, 3, 1, 23, 30, tzinfo=UTC), "Asia/Kolkata") == "2 Mar 2026"


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+13125550142", "+1 31\N{BULLET}-\N{BULLET}\N{BULLET}\N{BULLET}-\N{BULLET}\N{BULLET}42"),
        ("911", "\N{BULLET}11"),
        ("anonymous", "anonymous"),
        ("sip:alice@example.com", "si\N{BULLET}\N{BULLET}\N{BULLET}\N{BULLET}"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_masked_number_shows_only_its_ends(number: str | None, masked: str) -> None:
    """Enough to tell two callers apart, not enough to call them."""
    assert words.phone(number) == masked


def test_an_unmasked_number_is_grouped_as_its_country_does_it() -> None:
    """What is no number is shown as it came."""
    assert words.phone("+442079460123", masked=False) == "+44 20 7946 0123"
    assert words.phone("anonymous", masked=False) == "anonymous"


@given(st.text())
def test_a_label_is_one_short_line_that_turns_nothing_around(text: str) -> None:
    """Signs that change the direction or break the line would let a name disguise what stands beside it."""
    label = words.label(text)
    assert 0 < len(label) <= 80
    assert not set(label) & set(
        "\n\r\t\0\u2028\u2029\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\ufeff"
    )


def test_a_label_keeps_what_people_write() -> None:
    """Other scripts, accents and joined emoji stay."""
    for text in ("Jürgen O'Brien", "张伟", "\u05d3\u05d5\u05d3", "\U0001f468\u200d\U0001f469\u200d\U0001f467"):
        assert words.label(text) == text
    assert words.label("\u202egnp.exe") == "gnp.exe"
    assert words.label(" \n ") == "(blank)"
