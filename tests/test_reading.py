"""Tolerant readers: what is sent in any usual spelling is read, what is anything else is None."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import reading
from calls.payload import JsonObject, JsonValue

ODD: list[JsonValue] = [None, True, False, [], ["a"], {}, {"a": 1}, "", "  ", "\n", "abc", float("nan"), float("inf")]
MICROS = 1_000_000

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def at(*moment: int) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp()) * MICROS  # type: ignore[arg-type, misc]


def of(value: Any) -> JsonObject:
    return {"key": value}


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a", [], [{}]])
def test_a_section_that_is_no_object_is_empty(value: JsonValue) -> None:
    """Readers chain through what is absent or odd without a check in between."""
    assert reading.section(of(value), "key") == {}
    assert reading.section({}, "key") == {}


def test_a_section_is_the_object_itself() -> None:
    """Nothing is copied on the way down."""
    inner: JsonObject = {"a": 1}
    assert reading.section(of(inner), "key") is inner


@pytest.mark.parametrize("value", ["a", " a ", "\n<b>é\u202e\0", "x" * 100_000, "null", "0"])
def test_text_is_kept_exactly_as_sent(value: str) -> None:
    """White space, markup, control characters and length are not ours to mend."""
    assert reading.text(of(value), "key") == value


@pytest.mark.parametrize("value", [None, "", " ", "\t\n\u00a0", 5, 5.0, True, [], ["a"], {}])
def test_text_that_is_blank_or_no_string_is_absent(value: JsonValue) -> None:
    """A blank must not overwrite what an earlier event knew, and a number is no text."""
    assert reading.text(of(value), "key") is None
    assert reading.text({}, "key") is None


def test_texts_are_the_strings_of_a_list_each_once() -> None:
    """Order stays; blanks, other kinds and repetitions go; an empty list is known to be empty."""
    assert reading.texts(of(["b", "a", "b", "", " ", None, 1, ["c"]]), "key") == ["b", "a"]
    assert reading.texts(of([]), "key") == []
    for value in (None, "a,b", {"a": 1}, 1):
        assert reading.texts(of(value), "key") is None
    assert reading.texts({}, "key") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("58bd0d3f", "58bd0d3f"),
        (" a ", " a "),
        ("1e3", "1e3"),
        (88231, "88231"),
        (-1, "-1"),
        (0, "0"),
        (2**53 + 1, "9007199254740993"),
        (2**64, "18446744073709551616"),
        ("x" * 512, "x" * 512),
        ("x" * 513, None),
        (10**511, "1" + "0" * 511),
        (10**512, None),
        (10**4000, None),
        (1.0, None),
        (True, None),
        ("", None),
        (" \n", None),
        (None, None),
        ([1], None),
        ({"id": 1}, None),
    ],
)
def test_an_identifier_is_text_whatever_it_was_sent_as(value: JsonValue, expected: str | None) -> None:
    """Integers keep every digit; fractions, which may have lost some, and endless texts are no ids."""
    assert reading.identifier(of(value), "key") == expected
    assert reading.phone(of(value), "key") == expected
    assert reading.word(of(value), "key") == expected
    assert reading.identifier({}, "key") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5.0),
        (-5, -5.0),
        (1.25, 1.25),
        ("55", 55.0),
        ("-1.5", -1.5),
        ("+3", 3.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e2", 100.0),
        ("1E-2", 0.01),
        (2**70, float(2**70)),
    ],
)
def test_a_number_is_read_also_from_a_decimal_string(value: JsonValue, expected: float) -> None:
    """Always as a float, so that a column has one type."""
    found = reading.number(of(value), "key")
    assert found == expected
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [
        *ODD, "1_000", "1,5", " 1", "1 ", "1\n", "0x10", "nan", "inf", "-Infinity", "1e999", "1e9999", "1e", ".", "-",
        "e1", "٣", "５", "²", "1s", 10**400, -(10**400), float("-inf"),
    ],
)  # fmt: skip
def test_what_is_no_finite_number_is_none(value: JsonValue) -> None:
    """Spellings that only Python takes for a number, booleans and infinities are none."""
    assert reading.number(of(value), "key") is None
    assert reading.number({}, "key") is None


def test_a_duration_lasts_from_nothing_to_a_week() -> None:
    """Negative and absurd durations are absent, so that no average counts them."""
    for value, expected in [(0, 0.0), ("124", 124.0), (61.5, 61.5), (604_800, 604_800.0), ("0", 0.0)]:
        assert reading.duration_s(of(value), "key") == expected
    for odd in [*ODD, -1, -0.001, 604_801, 604_800.5, 10**400, "-3", "2:04"]:
        assert reading.duration_s(of(odd), "key") is None
    assert reading.duration_s({}, "key") is None


def test_a_flag_is_a_boolean_or_its_word() -> None:
    """Platforms write true, "true" and "True"; numbers and other words are no flags."""
    for value in (True, "true", "True", "TRUE"):
        assert reading.flag(of(value), "key") is True
    for value in (False, "false", "False", "FALSE"):
        assert reading.flag(of(value), "key") is False
    for odd in (None, 0, 1, 1.0, "", "yes", "1", " true", "partial", [True], {"a": True}):
        assert reading.flag(of(odd), "key") is None
    assert reading.flag({}, "key") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-05-12T14:03:21Z", at(2026, 5, 12, 14, 3, 21)),
        ("2026-05-12T14:03:21.480Z", at(2026, 5, 12, 14, 3, 21) + 480_000),
        ("2026-05-12T14:03:21.123456Z", at(2026, 5, 12, 14, 3, 21) + 123_456),
        ("2026-05-12T14:03:21.123456789Z", at(2026, 5, 12, 14, 3, 21) + 123_456),
        ("2026-05-12T16:03:21+02:00", at(2026, 5, 12, 14, 3, 21)),
        ("2026-05-12T09:03:21-0500", at(2026, 5, 12, 14, 3, 21)),
        ("2026-05-12T14:03:21", at(2026, 5, 12, 14, 3, 21)),
        ("2026-05-12 14:03:21", at(2026, 5, 12, 14, 3, 21)),
        ("2026-05-12T14:03", at(2026, 5, 12, 14, 3)),
        ("2026-05-12", at(2026, 5, 12)),
        ("2000-01-01T00:00:00Z", at(2000, 1, 1)),
        ("2099-12-31T23:59:59Z", at(2099, 12, 31, 23, 59, 59)),
        (1_700_000_000, 1_700_000_000 * MICROS),
        ("1700000000", 1_700_000_000 * MICROS),
        (1_700_000_000.25, 1_700_000_000 * MICROS + 250_000),
        (1_700_000_000_123, 1_700_000_000 * MICROS + 123_000),
        ("1700000000123", 1_700_000_000 * MICROS + 123_000),
        (1_700_000_000_123.5, 1_700_000_000 * MICROS + 123_500),
        (946_684_800, at(2000, 1, 1)),
        (946_684_800_000, at(2000, 1, 1)),
        (4_102_444_799, at(2099, 12, 31, 23, 59, 59)),
        (4_102_444_799_000, at(2099, 12, 31, 23, 59, 59)),
    ],
)
def test_a_time_is_read_in_every_usual_spelling(value: JsonValue, expected: int) -> None:
    """ISO 8601 with any offset or none, seconds and milliseconds, as numbers or digits."""
    found = reading.instant(of(value), "key")
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [
        *ODD, "yesterday", "2026-13-01T00:00:00Z", "2026-02-30", "2016-12-31T23:59:60Z", "14:03:21", "05/12/2026",
        "2026", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
        "2026-05-12T14:03:21+25:00", " 2026-05-12", "２０２６-05-12", "1_700_000_000", "1e400", "-1700000000",
        0, 1, -1, 946_684_799, 4_102_444_800, 946_684_799_999, 4_102_444_800_000, 1_700_000_000_000_000, 10**400,
    ],
)  # fmt: skip
def test_what_is_no_time_of_this_century_is_none(value: JsonValue) -> None:
    """Nonsense, other centuries, and numbers that are neither seconds nor milliseconds are not guessed at."""
    assert reading.instant(of(value), "key") is None
    assert reading.instant({}, "key") is None


def test_a_time_without_offset_is_in_the_zone_that_is_given() -> None:
    """The zone counts only where the text names no offset itself, and follows its summer time."""
    berlin = ZoneInfo("Europe/Berlin")
    assert reading.instant(of("2026-07-01T12:00:00"), "key", berlin) == at(2026, 7, 1, 10)
    assert reading.instant(of("2026-01-01T12:00:00"), "key", berlin) == at(2026, 1, 1, 11)
    assert reading.instant(of("2026-07-01T12:00:00Z"), "key", berlin) == at(2026, 7, 1, 12)
    assert reading.instant(of(1_700_000_000), "key", berlin) == 1_700_000_000 * MICROS


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_a_zone_is_read_by_its_name(name: str) -> None:
    """The names of the IANA database."""
    assert reading.zone(of(name), "key") == ZoneInfo(name)


@pytest.mark.parametrize(
    "value",
    [*ODD, "UTC", "Mars/Olympus", "America", "../../etc/passwd", "/etc/passwd", "Europe/../Europe/Berlin", "Europe/",
     "Europe\0", "Europe/Berlin\n", "a" * 65, "a/" * 5000, 5],
)  # fmt: skip
def test_a_zone_that_is_unknown_is_utc(value: JsonValue) -> None:
    """A zone is looked up as a file: nothing that is not the name of one gets there, nor breaks anything."""
    found = reading.zone(of(value), "key")
    assert datetime(2026, 7, 1, tzinfo=found).utcoffset() == datetime(2026, 7, 1, tzinfo=UTC).utcoffset()
    assert reading.zone({}, "key") is UTC


def test_only_names_of_zones_are_looked_up_and_remembered() -> None:
    """A megabyte of text in the place of a zone is neither a path nor kept."""
    before = reading._zone_named.cache_info()
    for value in ("x" * 65, "../Europe/Berlin", "/etc/passwd", "Europe\0", "a b", "", "5"):
        assert reading.zone(of(value), "key") is UTC
    assert reading._zone_named.cache_info() == before


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ((10 * MICROS, 70 * MICROS, 55.0), (10 * MICROS, 70 * MICROS, 55.0)),
        ((10 * MICROS, None, 55.5), (10 * MICROS, 65_500_000, 55.5)),
        ((None, 70 * MICROS, 55.0), (15 * MICROS, 70 * MICROS, 55.0)),
        ((10 * MICROS, 70_500_000, None), (10 * MICROS, 70_500_000, 60.5)),
        ((10 * MICROS, 10 * MICROS, None), (10 * MICROS, 10 * MICROS, 0.0)),
        ((0, 604_800 * MICROS, None), (0, 604_800 * MICROS, 604_800.0)),
        ((0, 604_801 * MICROS, None), (0, 604_801 * MICROS, None)),
        ((70 * MICROS, 10 * MICROS, None), (70 * MICROS, 10 * MICROS, None)),
        ((10 * MICROS, None, None), (10 * MICROS, None, None)),
        ((None, 70 * MICROS, None), (None, 70 * MICROS, None)),
        ((None, None, 55.0), (None, None, 55.0)),
        ((None, None, None), (None, None, None)),
        ((10 * MICROS, None, 0.0), (10 * MICROS, 10 * MICROS, 0.0)),
    ],
)
def test_two_of_start_end_and_duration_give_the_third(
    sent: tuple[int | None, int | None, float | None], expected: tuple[int | None, int | None, float | None]
) -> None:
    """Where all three are sent they stay as sent, even when they disagree; from one alone nothing follows."""
    assert reading.call_times(*sent) == expected


def test_known_facts_are_those_that_are_not_none() -> None:
    """False, zero and an empty list are facts."""
    facts = reading.known(summary=None, transferred=False, duration_s=0.0, tags=[], status="x", agent_id=None)
    assert facts == {"transferred": False, "duration_s": 0.0, "tags": [], "status": "x"}


@pytest.mark.parametrize(
    ("value", "as_json", "as_text", "as_number"),
    [
        (None, None, None, None),
        ("Julian", '"Julian"', "Julian", None),
        ("", '""', "", None),
        ("85", '"85"', "85", None),
        (85, "85", "85", 85.0),
        (1.5, "1.5", "1.5", 1.5),
        (True, "true", "true", None),
        (False, "false", "false", None),
        (["a", 1], '["a",1]', '["a",1]', None),
        ({"a": "é"}, '{"a":"é"}', '{"a":"é"}', None),
        (2**64, "18446744073709551616", "18446744073709551616", float(2**64)),
        (10**400, "1" + "0" * 400, "1" + "0" * 400, None),
        (float("nan"), "null", "null", None),
        (float("-inf"), "null", "null", None),
    ],
)
def test_a_variable_is_json_plain_text_and_a_number(
    value: JsonValue, as_json: str | None, as_text: str | None, as_number: float | None
) -> None:
    """People filter by text, charts take JSON numbers, and nothing is lost beside them."""
    found = reading.variable("name", value, collected=True, agent_id="agent")
    assert found == {
        "agent_id": "agent",
        "name": "name",
        "value": as_json,
        "value_text": as_text,
        "value_number": as_number,
        "collected": True,
    }
    assert reading.plain_text(value) == as_text


def test_a_variable_may_have_no_agent_and_not_be_collected() -> None:
    """An asked but unanswered variable is a fact of its own."""
    found = reading.variable("name", None, collected=False)
    assert (found["agent_id"], found["value"], found["collected"]) == (None, None, False)


@given(json_values)
def test_no_value_breaks_a_reader(value: JsonValue) -> None:
    """Whatever JSON can hold, each reader gives its own type or None."""
    parent = of(value)
    assert isinstance(reading.section(parent, "key"), dict)
    for reader, kind in [
        (reading.text, str),
        (reading.texts, list),
        (reading.identifier, str),
        (reading.number, float),
        (reading.duration_s, float),
        (reading.flag, bool),
        (reading.instant, int),
    ]:
        found = reader(parent, "key")
        assert found is None or type(found) is kind
    reading.zone(parent, "key")
    assert json.dumps(reading.variable("name", value, collected=True), allow_nan=False)
