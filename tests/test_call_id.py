"""The one call id of a body: found wherever platforms put it, refused where two readers could see different ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calls import call_id
from calls.errors import PayloadMalformed
from calls.payload import DEPTH_MAX, parse
from calls.reading import ID_LENGTH_MAX

NATIVE = b'{"status":"completed","call":{"call_id":"c-1","duration":3},"collected_variables":null}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (NATIVE, "c-1"),
        (b'{"call_id":"c-1"}', "c-1"),
        (b'{"Call_id":"c-1"}', "c-1"),
        (b'{"callId":"c-1"}', "c-1"),
        (b'{"event":"call_inbound","call_inbound":{"call_id":"c-1"}}', "c-1"),
        (b'{"call":{"call_id":17}}', "17"),
        (b'{"call":{"call_id":123456789012345678901234567890}}', "123456789012345678901234567890"),
        (b'{"call":{"call_id":"c-1","score":NaN}}', "c-1"),
        (b'{"call":{"call_id":"c-1","score":1e400}}', "c-1"),
        ('{"call":{"call_id":"c-\u00e9"},"lead":{"name":"J\u00fcrgen"}}'.encode(), "c-\u00e9"),
        ('{"call":{"call_id":"c-e\u0301"}}'.encode(), "c-e\u0301"),
        ('{"call":{"call_id":"c-e\u0301","score":NaN}}'.encode(), "c-e\u0301"),
        (rb'{"call":{"call_id":"c-\u0031"}}', "c-1"),
        (rb'{"\u0063all":{"call\u005Fid":"c-1"}}', "c-1"),
        (b'{"call":{"call_id":"c-1"},"lead":{"prompt_variables":{"call_id":"c-2"}}}', "c-1"),
        (b'{"call":{"call_id":"c-1","transcript":"he said \\"call_id\\": \\"c-2\\""}}', "c-1"),
        (b'{"call":{"call_id":null},"call_id":"c-1"}', "c-1"),
        (b'{"call":{"call_id":"c-1"},"call_id":""}', "c-1"),
        (b'{"call":{"call_id":"c-1"},"callId":"c-1"}', "c-1"),
        (b'{"call":{"call_id":"7"},"call_id":7}', "7"),
        (b'{"call":{"call_id":"c-1","call_id":"c-1"}}', "c-1"),
    ],
)
def test_an_id_is_read_from_every_place_and_spelling(body: bytes, expected: str) -> None:
    """Nested, flat, as a number, beside NaN, escaped, or said twice alike: it is the same id, never a composed one."""
    assert call_id.read(body) == expected
    assert call_id.only(body, parse(body).value) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"call":{"call_id":"c-1"},"call_id":"c-2"}',
        b'{"call":{"call_id":"c-1"},"Call_id":"c-2"}',
        b'{"call":{"call_id":"c-1"},"callId":"c-2"}',
        b'{"call":{"call_id":"c-1","call_id":"c-2"}}',
        b'{"call":{"call_id":"c-1"},"call":{"call_id":"c-2"}}',
        b'{"call":{"call_id":"c-1"},"call":null,"call_id":"c-2"}',
        b'{"call_id":"c-1","call_id":"c-2"}',
        b'{"callId":"c-1","callId":"c-2"}',
        rb'{"call":{"call\u005fid":"c-1","call_id":"c-2"}}',
        rb'{"call":{"call_id":"c-1","\u0063all_id":"c-2"}}',
        rb'{"\u0063all":{"call_id":"c-1"},"call":{"call_id":"c-2"}}',
        rb'{"call":{"call_id":"c-1"},"call\u0049d":"c-2"}',
        b'{"call":{"call_id":"c-1","call_id":"c-2"},"score":NaN}',
        b'{"call":{"call_id":"c-1"},"call_inbound":{"call_id":"c-2"}}',
        b'{"call":{"call_id":"c-1 "},"call_id":"c-1"}',
    ],
)
def test_two_ids_that_differ_are_none(body: bytes) -> None:
    """Repeated keys and objects, spelled with escapes or not, cannot make two readers see two calls."""
    with pytest.raises(PayloadMalformed) as caught:
        call_id.read(body)
    assert caught.value.code == "call_id_ambiguous"


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"call":{}}',
        b'{"call":null}',
        b'{"call":"c-1"}',
        b'{"call":[{"call_id":"c-1"}]}',
        b'{"data":{"call_id":"c-1"}}',
        b'{"call":{"call_id":null}}',
        b'{"call":{"call_id":""}}',
        b'{"call":{"call_id":"  "}}',
        b'{"call":{"call_id":1.5}}',
        b'{"call":{"call_id":true}}',
        b'{"call":{"call_id":["c-1"]}}',
        b'{"call":{"call_id":{"id":"c-1"}}}',
        b'{"call":{"call_id":NaN}}',
        b'{"call":{"call_id":"c-1"},"call_id":["c-2"]}',
        b'{"call":{"call_id":"' + b"9" * (ID_LENGTH_MAX + 1) + b'"}}',
        b'{"call":{"call_id":' + b"9" * 4000 + b"}}",
    ],
)
def test_a_body_without_a_usable_id_is_refused(body: bytes) -> None:
    """What is absent, blank, endless or of another type is no id."""
    with pytest.raises(PayloadMalformed) as caught:
        call_id.read(body)
    assert caught.value.code == "call_id_missing"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty"),
        (b"call_id=c-1", "not_json"),
        (NATIVE[:-1], "not_json"),
        (b"[" + NATIVE + b"]", "not_an_object"),
        (NATIVE.replace(b"completed", b"complet\xff"), "not_utf8"),
        (NATIVE.replace(b"completed", b"\\ud800"), "not_utf8"),
        (NATIVE.replace(b"null", b"[" * DEPTH_MAX + b"]" * DEPTH_MAX), "too_deep"),
        (NATIVE.replace(b"null", b"[" * 100_000 + b"]" * 100_000), "too_deep"),
    ],
)
def test_a_body_that_is_not_readable_json_is_refused_with_its_reason(body: bytes, code: str) -> None:
    """An id inside something broken proves nothing, even where the bytes seem to show one."""
    with pytest.raises(PayloadMalformed) as caught:
        call_id.read(body)
    assert caught.value.code == code


IDS = ['"a"', '"b"', '"a"', '""', '" "', "null", "1", '"1"', "-0", "1.5", "true", "[]", "NaN", '"\\u0061"', '"\u00e9"']
KEYS = ["call", "call_id", "Call_id", "callId", "call_inbound", "lead", "event"]


def _escaped(key: str, mask: int) -> str:
    letters = (f"\\u{ord(letter):04{'xX'[mask & 1]}}" if mask >> at & 1 else letter for at, letter in enumerate(key))
    return f'"{"".join(letters)}"'


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + " , ".join(f"{key} : {value}" for key, value in pairs) + "}"


keys = st.builds(_escaped, st.sampled_from(KEYS), st.sampled_from([0, 0, 0, 1, 0b10000, 0b1100]))
values = st.recursive(
    st.sampled_from(IDS), lambda inner: st.lists(st.tuples(keys, inner), max_size=4).map(_object), max_leaves=6
)
odd_bodies = st.lists(st.tuples(keys, values), max_size=5).map(_object)
native_bodies = st.builds(
    lambda inner, more: _object([('"call"', _object([*inner, ('"call_id"', '"a"')])), *more]),
    st.lists(st.tuples(keys, values), max_size=1),
    st.lists(st.tuples(keys, values), max_size=1),
)


@given(text=odd_bodies | native_bodies)
@example(text='{"call":{"call_id":"a"}}')
@example(text='{"call":{"call_id":"a"},"Call_id":null}')
def test_the_short_way_and_the_long_way_read_the_same_id(text: str) -> None:
    """For any body, `read` finds what a reader that keeps every repeated key finds, or refuses for the same reason."""
    body = text.encode()
    assert _outcome(lambda: call_id.read(body)) == _outcome(lambda: _named_anywhere(text))
    assert _outcome(lambda: call_id.only(body, parse(body).value)) == _outcome(lambda: call_id.read(body))


class _Pairs(list):  # type: ignore[type-arg]
    pass


def _named_anywhere(text: str) -> str:
    found = []
    top = json.loads(text, object_pairs_hook=_Pairs)
    for key, value in top:
        if key in ("call_id", "Call_id", "callId"):
            found.append(value)
        elif key in ("call", "call_inbound") and isinstance(value, _Pairs):
            found += [inner for inner_key, inner in value if inner_key == "call_id"]
    said = [value for value in found if value is not None and not (isinstance(value, str) and not value.strip())]
    if not said or any(isinstance(value, bool) or not isinstance(value, str | int) for value in said):
        return "call_id_missing"
    return str(said[0]) if len({str(value) for value in said}) == 1 else "call_id_ambiguous"


def _outcome(read) -> str:  # type: ignore[no-untyped-def]
    try:
        return read()  # type: ignore[no-any-return]
    except PayloadMalformed as error:
        return error.code
