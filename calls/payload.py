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
DIGITS_MAX = 300
"""Longer integers are refused; a double ends near 1e308 and no platform sends more than 20 digits."""

_decode_strict = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
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
    if not body.strip():
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
    # Almost every body has fewer brackets in all than the deepest allowed one, and needs no scan.
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return
    depth = 0
    for token in _STRUCTURE.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise PayloadMalformed(f"The body nests deeper than {DEPTH_MAX} levels.", code="too_deep")
        elif first in b"]}":
            depth -= 1
