"""The question of a waiting call: recognised however it is spelled, and nothing else is taken for it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import inbound_call
from calls.inbound_call import InboundCall

QUESTION = {
    "event": "call_inbound",
    "call_inbound": {"model_id": "agent-1", "from_number": "+12135550123", "to_number": "+12135550124"},
}
BODY = json.dumps(QUESTION).encode()
EVENT_LETTERS = "call_inbound"


def test_the_documented_question_is_read() -> None:
    """Agent and both numbers are known; there is no call id in it."""
    assert inbound_call.read(BODY) == InboundCall(
        model_id="agent-1", from_number="+12135550123", to_number="+12135550124", call_id=None
    )


@given(masks=st.tuples(st.integers(0, 2**12 - 1), st.integers(0, 2**5 - 1)), upper=st.booleans(), space=st.booleans())
def test_escapes_and_white_space_do_not_hide_the_question(masks: tuple[int, int], upper: bool, space: bool) -> None:
    """Any letter of the event, and of its key, may be written as an escape."""
    said, key = (_escaped(word, mask, upper) for word, mask in zip((EVENT_LETTERS, "event"), masks, strict=True))
    gap = " \n" if space else ""
    body = f'{{"a":1,{gap}"{key}"{gap}:{gap}"{said}"}}'.encode()
    assert inbound_call.read(body) == InboundCall()


@pytest.mark.parametrize(
    "body",
    [
        BODY[:-5],
        BODY.replace(b"agent-1", b"agent-\xe4"),
        BODY.replace(b'"agent-1"', b"[" * 100 + b"]" * 100),
        BODY.replace(b'"agent-1"', b"[" * 100_000),
        BODY.replace(b"agent-1", b"\\ud800"),
    ],
)
def test_a_question_that_cannot_be_parsed_is_still_one(body: bytes) -> None:
    """Cut off, wrongly encoded or too deep: somebody is on the line, so nothing is known but that."""
    assert inbound_call.read(body) == InboundCall()


@pytest.mark.parametrize("described", ["null", "[]", '"x"', "17", '{"model_id":{},"from_number":[],"to_number":""}'])
def test_odd_details_are_absent(described: str) -> None:
    """Oddly typed details do not keep the question from being recognised."""
    body = f'{{"event":"call_inbound","call_inbound":{described},"score":NaN}}'.encode()
    assert inbound_call.read(body) == InboundCall()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"call_id": "c-1"}, "c-1"),
        ({"call": {"call_id": "c-1"}}, "c-1"),
        ({"call_inbound": {"call_id": 17}}, "17"),
        ({"call_id": "c-1", "call_inbound": {"call_id": "c-2"}}, None),
        ({"call_id": ["c-1"]}, None),
    ],
)
def test_a_call_id_is_given_only_where_the_body_names_one(more: dict[str, object], expected: str | None) -> None:
    """Where two ids differ, none may stand for what a signature proves."""
    found = inbound_call.read(json.dumps({**QUESTION, **more}).encode())
    assert found is not None
    assert found.call_id == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"call_inbound",
        b"[" + BODY + b"]",
        b'"call_inbound"',
        b'{"event":"call.completed","data":{"event":"call_inbound"}}',
        b'{"event":"call.completed","call_inbound":{}}',
        b'{"event":["call_inbound"]}',
        b'{"event":"call_inbound "}',
        b'{"event":"CALL_INBOUND"}',
        b'{"event":"call.completed","data":{"transcript":"{\\"event\\":\\"call_inbound\\"}"}}',
        b'{"event":"call.completed","data":{"transcript":"{\\"event\\":\\"call_inbound\\"}"}',
        rb'{"event":"call.completed","name":"\u0041\u0062"}',
        b"\xff\xfe\\u0061",
    ],
)
def test_other_bodies_are_not_taken_for_the_question(body: bytes) -> None:
    """Only a top-level `event` of exactly that word asks; everything else goes on to its signature."""
    assert inbound_call.read(body) is None


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0061event call_inbound', max_size=60).map(str.encode))
def test_no_body_makes_the_reader_fail(body: bytes) -> None:
    """The door asks this of every request before anything is proved."""
    assert inbound_call.read(body) is None or b"event" in body or b"\\u" in body


def _escaped(word: str, mask: int, upper: bool) -> str:
    return "".join(
        f"\\u{ord(letter):04{'X' if upper else 'x'}}" if mask >> at & 1 else letter for at, letter in enumerate(word)
    )
