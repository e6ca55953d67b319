"""The one call id that a Synthflow-style body names: read here for the signature, for events and for `call_inbound`.

A signature over an id proves a body only if everyone reads the same id from it. JSON lets an object repeat a key, and
parsers keep the last; a body may also carry the id at several places. So one that names two different ids names none.
"""

from __future__ import annotations

import json
import re
from functools import cache

import msgspec

from calls.errors import PayloadMalformed
from calls.payload import DEPTH_MAX, JsonObject, JsonValue, parse
from calls.reading import ID_LENGTH_MAX

PLACES = (
    ("call", "call_id"),
    ("call_id",),
    # Custom actions and automations flatten the post-call body and spell the id in these ways.
    ("Call_id",),
    ("callId",),
    # Documented nowhere, but the vendor says that these requests are signed too, and an id is all that is ever signed.
    ("call_inbound", "call_id"),
)

_ELSEWHERE = frozenset(place[0] for place in PLACES) - {"call"}
_ESCAPED_ASCII = re.compile(rb"\\u00[4-7]")


_NOTHING = msgspec.Raw()


class _NativeCall(msgspec.Struct):
    call_id: str


class _Native(msgspec.Struct):
    """The ordinary body: an id in `call` and none of the other spellings. Everything else is checked, not built."""

    call: _NativeCall
    Call_id: msgspec.Raw = _NOTHING
    callId: msgspec.Raw = _NOTHING
    call_inbound: msgspec.Raw = _NOTHING


_decode_native = msgspec.json.Decoder(_Native).decode


class _Object(list[tuple[str, JsonValue]]):
    """A JSON object with its repeated keys."""


def read(body: bytes) -> str:
    """The one id that `body` names: what `only` says of the parsed body, at a third of the price of parsing it.

    Raises PayloadMalformed as `only` and `payload.parse` do, except that a number too long to be read is not noticed.
    """
    found = _of_native(body)
    return found if found is not None else only(body, parse(body).value)


def only(body: bytes, value: JsonObject) -> str:
    """The one id that `body`, parsed as `value`, names. Raises PayloadMalformed: call_id_missing, call_id_ambiguous."""
    ordinary = _ordinary(body, value)
    if ordinary is not None:
        return ordinary
    found, keys = _named(value)
    if _may_repeat(body, keys):
        found = _named_by_repeats_too(body)
    ids = {_as_text(item) for item in found if not _is_absent(item)}
    if not ids:
        looked_for = ", ".join(".".join(place) for place in PLACES)
        raise PayloadMalformed(f"The body names no call id; looked for {looked_for}.", code="call_id_missing")
    if len(ids) > 1:
        raise PayloadMalformed("The body names two different call ids.", code="call_id_ambiguous")
    return ids.pop()


def may_spell_by_escapes(body: bytes) -> bool:
    """Whether some string of the body writes a letter or underscore as an escape, so that its bytes hide a word."""
    # A single byte is found twenty times as fast as several, and most bodies have no escapes at all.
    return b"\\" in body and b"\\u00" in body and _ESCAPED_ASCII.search(body) is not None


def _of_native(body: bytes) -> str | None:
    """The id of an ordinary body; None for any body that needs a closer look."""
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX or may_spell_by_escapes(body):
        return None
    if body.count(b'"call"') != 1 or body.count(b'"call_id"') != 1:
        return None
    try:
        if not body.isascii():
            body.decode()  # The decoder does not look into the strings that it passes over.
        native = _decode_native(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if native.Call_id or native.callId or native.call_inbound:
        return None
    found = native.call.call_id
    return found if 0 < len(found) <= ID_LENGTH_MAX and not found.isspace() else None


def _ordinary(body: bytes, value: JsonObject) -> str | None:
    """The id in `call`, where nothing else of the body can name one; None for any body that needs a closer look."""
    call = value.get("call")
    if type(call) is not dict or not _ELSEWHERE.isdisjoint(value):
        return None
    found = call.get("call_id")
    if type(found) is not str or not 0 < len(found) <= ID_LENGTH_MAX or found.isspace():
        return None
    if body.count(b'"call_id"') != 1 or body.count(b'"call"') != 1 or may_spell_by_escapes(body):
        return None
    return found


def _named(value: JsonObject) -> tuple[list[JsonValue], list[str]]:
    found, keys = [], []
    for place in PLACES:
        item: JsonValue = value
        for key in place:
            if type(item) is not dict or key not in item:
                break
            keys.append(key)
            item = item[key]
        else:
            found.append(item)
    return found, keys


def _may_repeat(body: bytes, keys: list[str]) -> bool:
    # A key that repeats is in the parsed body once, and without escapes its quoted name is in the bytes each time.
    return any(body.count(_quoted(key)) > 1 for key in keys) or may_spell_by_escapes(body)


@cache
def _quoted(key: str) -> bytes:
    return f'"{key}"'.encode()


def _named_by_repeats_too(body: bytes) -> list[JsonValue]:
    top = json.loads(body.decode(), object_pairs_hook=_Object)
    found = []
    for place in PLACES:
        items = [top]
        for key in place:
            items = [item for holder in items if type(holder) is _Object for name, item in holder if name == key]
        found += items
    return found


def _is_absent(item: JsonValue) -> bool:
    return item is None or (type(item) is str and (not item or item.isspace()))


def _as_text(item: JsonValue) -> str:
    if type(item) is int:
        item = str(item)
    if type(item) is not str:
        raise PayloadMalformed("The call id is neither text nor a whole number.", code="call_id_missing")
    if len(item) > ID_LENGTH_MAX:
        raise PayloadMalformed(f"The call id is longer than {ID_LENGTH_MAX} characters.", code="call_id_missing")
    return item
