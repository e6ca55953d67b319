"""Tolerant access to the fields of a parsed body: what is absent or oddly typed reads as None, never as a guess.

Every reader takes the object and one key. `section` gives an empty object where there is none, so that readers chain:
`reading.text(reading.section(body, "data"), "summary")`. Blank text counts as absent, so that it cannot overwrite what
an earlier event knew; all other text is kept exactly as sent.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import cast
from zoneinfo import ZoneInfo

from calls.model import Facts, Micros, Variable
from calls.payload import JsonObject, JsonValue, encode

ID_LENGTH_MAX = 512
DURATION_MAX_S = 7 * 86_400
YEARS = range(2000, 2100)
"""A time outside these years is a sender's mistake (0001-01-01, seconds taken for milliseconds)."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_ZONE = re.compile(r"(?=.{1,64}\Z)[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*", re.ASCII)
"""What may reach `ZoneInfo`, which looks a name up as a file, and be remembered."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S = datetime(YEARS.start, 1, 1, tzinfo=UTC).timestamp()
_END_S = datetime(YEARS.stop, 1, 1, tzinfo=UTC).timestamp()


def section(parent: JsonObject, key: str) -> JsonObject:
    """The object at `key`; an empty one where there is none."""
    value = parent.get(key)
    return value if type(value) is dict else {}


def text(parent: JsonObject, key: str) -> str | None:
    """A string as sent; None where blank."""
    value = parent.get(key)
    return value if type(value) is str and value and not value.isspace() else None


def texts(parent: JsonObject, key: str) -> list[str] | None:
    """The strings of the list at `key`, in order and each once; None where there is no list."""
    value = parent.get(key)
    if type(value) is not list:
        return None
    return list(dict.fromkeys(item for item in value if type(item) is str and item and not item.isspace()))


def identifier(parent: JsonObject, key: str) -> str | None:
    """An id as text: a string as sent, an integer in decimal; None where blank or longer than `ID_LENGTH_MAX`."""
    value = parent.get(key)
    if type(value) is int:
        value = str(value)
    return value if type(value) is str and len(value) <= ID_LENGTH_MAX and value and not value.isspace() else None


phone = identifier
"""A phone number as sent; some platforms send digits as a JSON number."""

word = identifier
"""A platform's own word, such as an event or a status, verbatim; bounded, because such words travel in headers."""


def number(parent: JsonObject, key: str) -> float | None:
    """A finite number, also where sent as a plain decimal string."""
    value = parent.get(key)
    kind = type(value)
    if kind is str and _NUMBER.fullmatch(cast(str, value)) is None:
        return None
    if kind is not float and kind is not int and kind is not str:
        return None
    try:
        found = float(cast("float | str", value))
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def duration_s(parent: JsonObject, key: str) -> float | None:
    """Seconds, from a number or a decimal string; None where negative or over a week."""
    found = number(parent, key)
    return found if found is not None and 0 <= found <= DURATION_MAX_S else None


def flag(parent: JsonObject, key: str) -> bool | None:
    """A boolean, also where sent as the word true or false in any case."""
    value = parent.get(key)
    if type(value) is bool:
        return value
    return {"true": True, "false": False}.get(value.lower()) if type(value) is str else None


def instant(parent: JsonObject, key: str, zone: tzinfo = UTC) -> Micros | None:
    """A time: ISO 8601, or seconds or milliseconds since 1970 as a number or digits; `zone` where it names none."""
    value = parent.get(key)
    if type(value) is str:
        return _instant_of_number(float(value)) if _NUMBER.fullmatch(value) else _instant_of_iso(value, zone)
    return _instant_of_number(value) if type(value) is int or type(value) is float else None


def zone(parent: JsonObject, key: str) -> tzinfo:
    """The time zone of that IANA name; UTC where it is absent or unknown."""
    value = parent.get(key)
    return _zone_named(value) if type(value) is str and _ZONE.fullmatch(value) else UTC


def call_times(
    started_at: Micros | None, ended_at: Micros | None, duration: float | None
) -> tuple[Micros | None, Micros | None, float | None]:
    """Start, end and duration of a call, the third from the other two where only those were sent."""
    if duration is None:
        if started_at is not None and ended_at is not None and 0 <= ended_at - started_at <= DURATION_MAX_S * 1_000_000:
            duration = (ended_at - started_at) / 1_000_000
    elif ended_at is None:
        ended_at = None if started_at is None else started_at + round(duration * 1_000_000)
    elif started_at is None:
        started_at = ended_at - round(duration * 1_000_000)
    return started_at, ended_at, duration


def known(**facts: str | float | bool | list[str] | None) -> Facts:
    """The facts that were sent: those that are not None."""
    return cast(Facts, {name: value for name, value in facts.items() if value is not None})


def variable(name: str, value: JsonValue, *, collected: bool, agent_id: str | None = None) -> Variable:
    """A collected variable with its value as JSON, as plain text and, where it is a JSON number, as a number."""
    return {
        "agent_id": agent_id,
        "name": name,
        "value": None if value is None else encode(value),
        "value_text": value if type(value) is str else plain_text(value),
        "value_number": None if type(value) is str else _finite(value),
        "collected": collected,
    }


def plain_text(value: JsonValue) -> str | None:
    """A JSON value as a person would write it: strings without quotes, all else as JSON; None for null."""
    if value is None or type(value) is str:
        return value
    return encode(value)


def _finite(value: JsonValue) -> float | None:
    if type(value) is not int and type(value) is not float:
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _instant_of_number(value: float) -> Micros | None:
    if _FIRST_S <= value < _END_S:
        return round(value * 1_000_000)
    if _FIRST_S * 1000 <= value < _END_S * 1000:
        return round(value * 1000)
    return None


def _instant_of_iso(value: str, zone: tzinfo) -> Micros | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.year not in YEARS:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    since = moment - _EPOCH
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds


@lru_cache(maxsize=1024)
def _zone_named(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # the last for a folder of zones, such as America
        return UTC
