"""A webhook's body as JSON, read once and tolerantly, with bounds on depth and numbers.

The strict parser reads almost everything. What it refuses but a platform may well send (NaN, Infinity) is read by a
slower one; what no reader should guess at (other encodings, lone surrogates, no JSON at all) is `PayloadMalformed`.
The same reader serves the door (Synthflow signs a value inside the body) and the stream, so both see the same thing.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn, TypeAlias

import msgspec

from calls.errors import PayloadMalformed

JsonValue: TypeAlias = "None | bool | int | float | str | list[JsonValue] | dict[str, JsonValue]"
JsonObject: TypeAlias = "dict[str, JsonValue]"

DEPTH_MAX = 64
"""Deeper bodies are refused before any parser sees them; the deepest documented payload has 6 levels."""
BRACKETS_MAX = 1_000_000
"""Bodies with more are refused: a parsed empty list takes twenty times its bytes, and the door parses unproved ones."""
DIGITS_MAX = 4300
"""Longer integers are refused: Python turns no longer text into a number. No platform sends more than 20 digits."""

_decode_strict = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_NEITHER_QUOTE_NOR_BRACKET = bytes(byte for byte in range(256) if byte not in b'"[]{}')
_BARE_STRING = re.compile(rb'"[^"]*"?')
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (DIGITS_MAX + 1))
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)


class Payload(msgspec.Struct, frozen=True):
    """A body that is one JSON object."""

    value: JsonObject
    text: str
    """Valid JSON text of the whole body; NaN and infinities are null in it."""
    exact: bool
    """Whether `text` is the body, byte for byte."""


def parse(body: bytes) -> Payload:
    """Read a body. Raises PayloadMalformed: empty, not_utf8, too_deep, number_out_of_range, not_json, not_an_object."""
    if not body or body.isspace():
        raise PayloadMalformed("The body is empty.", code="empty")
    _refuse_too_deep(body)
    try:
        value = _decode_strict(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _parse_tolerantly(body)
    if not isinstance(value, dict):
        _refuse_not_an_object(value)
    return Payload(value, body.decode(), True)


def encode(value: JsonValue) -> str:
    """JSON text of a parsed value; NaN and infinities become null."""
    return _encode(value).decode()


def _parse_tolerantly(body: bytes) -> Payload:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PayloadMalformed(f"The body is not UTF-8 (byte {error.start}).", code="not_utf8") from None
    if _LONG_NUMBER.search(_STRING.sub(b'""', body)):
        raise PayloadMalformed(f"A number has more than {DIGITS_MAX} digits.", code="number_out_of_range")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadMalformed(f"The body is not JSON ({error}).", code="not_json") from None
    if not isinstance(value, dict):
        _refuse_not_an_object(value)
    finite = _without_non_finite(value)
    try:
        return Payload(value, encode(finite), False)
    except (UnicodeEncodeError, msgspec.MsgspecError):
        raise PayloadMalformed("The body holds half of a surrogate pair.", code="not_utf8") from None


def _without_non_finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_without_non_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    return value


def _refuse_not_an_object(value: JsonValue) -> NoReturn:
    kind = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
    raise PayloadMalformed(f"The body is {kind}, not an object.", code="not_an_object")


def _refuse_too_deep(body: bytes) -> None:
    # Almost every body has fewer brackets in all than the deepest allowed one, and needs no closer look.
    brackets = body.count(b"{") + body.count(b"[")
    if brackets <= DEPTH_MAX:
        return
    if brackets > BRACKETS_MAX:
        raise PayloadMalformed(f"The body has more than {BRACKETS_MAX} brackets.", code="too_many_values")
    # Every step is one pass in C: escapes out, all but quotes and brackets out, empty strings out, other strings out.
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NEITHER_QUOTE_NOR_BRACKET)
    bare = _BARE_STRING.sub(b"", bare.replace(b'""', b"")).replace(b"{", b"[").replace(b"}", b"]")
    for _ in range(DEPTH_MAX):
        bare, before = bare.replace(b"[]", b""), len(bare)
        if len(bare) == before:
            break
    # What was never closed is no JSON: the parser says so, unless it is so much that it should not even try.
    if b"[]" in bare or bare.count(b"[") > DEPTH_MAX:
        raise PayloadMalformed(f"The body nests deeper than {DEPTH_MAX} levels.", code="too_deep")
