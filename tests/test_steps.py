"""From a delivery to what it means, and that nothing inside one delivery can stop the stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls.dead_letters import NORMALISER_FAILED, PROVIDER_UNKNOWN
from calls.model import CallEvent, DeadLetter, Delivery, StreamPoint, TimelineEvent
from calls.provider import Provider, discover
from streams import steps
from streams.steps import interpret
from tests.contracts.samples import Sample, delivery_of, every_sample, meaning, samples_of, written

BODY = b'{"event":"call.started","timestamp":"2026-06-01T11:59:00Z","data":{"call_id":"c1"}}'


@pytest.fixture
def delivery() -> Delivery:
    """A delivery that means one event."""
    return delivery_of(discover()["aisync"], BODY, org="acme", headers={"user-agent": "x"}, position=7)


def understood(delivery: Delivery) -> list[TimelineEvent]:
    events = interpret(delivery)
    assert not isinstance(events, DeadLetter), events.detail
    return events


def refused(delivery: Delivery) -> DeadLetter:
    letter = interpret(delivery)
    assert isinstance(letter, DeadLetter)
    assert letter.delivery is delivery
    return letter


def normalised_by(monkeypatch: pytest.MonkeyPatch, normalise: Callable[[Delivery], list[CallEvent]]) -> None:
    """Let a provider of our own stand in the folder's place."""
    provider = replace(discover()["aisync"], normalise=normalise)
    monkeypatch.setattr(steps, "discover", lambda: MappingProxyType({"aisync": provider}))


@pytest.mark.parametrize("sample", every_sample(), ids=str)
def test_every_sample_becomes_what_its_provider_says(sample: Sample) -> None:
    """Events in the provider's order, each with where it came from; or the dead letter that the provider names."""
    said = meaning(sample.delivery, sample.provider)
    if isinstance(said, dict):
        assert said == {"dead_letter": refused(sample.delivery).reason}
        return
    events = understood(sample.delivery)
    assert [written(timed.event) for timed in events] == said
    held_at = StreamPoint(sample.delivery.received_at, sample.delivery.journal_id, sample.delivery.position)
    assert {timed.point for timed in events} == {held_at}
    assert len({timed.event_id for timed in events}) == len(events)


def test_an_event_carries_its_delivery(delivery: Delivery) -> None:
    """So that the delivery can be rebuilt from the store to the byte."""
    (timed,) = understood(delivery)
    assert timed.event_id == delivery.id
    assert (timed.provider, timed.source, timed.source_org) == ("aisync", "aisync", "acme")
    assert (timed.trust, timed.received_at, timed.position) == (delivery.trust, delivery.received_at, 7)
    assert (timed.data.encode(), timed.raw, timed.headers) == (BODY, None, {"user-agent": "x"})


def test_the_bytes_are_kept_where_the_data_is_not_exactly_them() -> None:
    """A body with NaN is understood, its data is valid JSON, and its bytes are still there."""
    body = BODY.replace(b'"call_id":"c1"', b'"call_id":"c1","call_duration":NaN')
    (timed,) = understood(delivery_of(discover()["aisync"], body))
    assert timed.raw == body
    assert json.loads(timed.data)["data"] == {"call_id": "c1", "call_duration": None}


def test_what_parsers_disagree_about_stays_in_the_data_as_it_was_sent() -> None:
    """Of a repeated key the last one counts; spellings of numbers are no reason to write a body anew."""
    said = b'"n":-0,"e":1E2,"f":0.100000000000000000000000000001,"i":18446744073709551617'
    body = BODY.replace(b'"call_id":"c1"', b'"call_id":"c0","call_id":"c1","custom_fields":{%b}' % said)
    (timed,) = understood(delivery_of(discover()["aisync"], body))
    assert (timed.data.encode(), timed.raw) == (body, None)
    assert timed.event.call_id == "c1"
    assert {item["name"]: item["value"] for item in timed.event.variables}["i"] == "18446744073709551617"


def test_further_events_of_one_delivery_have_ids_of_their_own(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has the delivery's id, so that equal bytes give equal ids."""
    told = [CallEvent(event=word, call_id="c1", org="", happened_at=1) for word in ("one", "two", "three")]
    normalised_by(monkeypatch, lambda _: told)
    assert [timed.event_id for timed in understood(delivery)] == [delivery.id, f"{delivery.id}-2", f"{delivery.id}-3"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"\xff{}", "not_utf8"),
        (BODY.decode().encode("utf-16"), "not_utf8"),
        (BODY.replace(b"c1", b"\xc0\xaf"), "not_utf8"),
        (BODY.replace(b"c1", b"\xed\xa0\x80"), "not_utf8"),
        (BODY.replace(b"c1", b"\\ud800"), "not_utf8"),
        (b"\xef\xbb\xbf" + BODY, "not_json"),
        (BODY.replace(b'"c1"', b"9" * 5_000), "number_out_of_range"),
        (b"event=call.started", "not_json"),
        (b"[]", "not_an_object"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "too_deep"),
        (b'{"event":"call.started","data":{}}', "no_call_id"),
    ],
)
def test_what_cannot_be_understood_becomes_a_dead_letter_that_says_why(body: bytes, reason: str) -> None:
    """The reason is a stable word, the detail a sentence, and the delivery is kept whole."""
    letter = refused(delivery_of(discover()["aisync"], body))
    assert letter.reason == reason
    assert letter.detail
    assert letter.delivery.body == body


def test_a_bug_in_a_normaliser_becomes_a_dead_letter(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the exception, so that the bug can be found, and is cut so that no body ends up in it."""

    def buggy(delivery: Delivery) -> list[CallEvent]:
        raise KeyError("x" * 10_000)

    normalised_by(monkeypatch, buggy)
    letter = refused(delivery)
    assert letter.reason == NORMALISER_FAILED
    assert letter.detail.startswith("KeyError: 'xxx")
    assert len(letter.detail) <= 500


@pytest.mark.parametrize(
    "found",
    [
        [],
        [{"event": None}],
        [{"happened_at": None}],
        [{"happened_at": 1.5}],
        [{"org": None}],
        [{"call_id": ""}],
        [{}, {"call_id": 7}],
    ],
    ids=str,
)
def test_a_normaliser_that_leaves_out_what_every_event_has_is_a_bug_too(
    found: list[dict[str, object]], delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery yields events that a row can be made of, or a dead letter: it never just disappears."""
    whole = CallEvent(event="told", call_id="c1", org="", happened_at=1)
    normalised_by(monkeypatch, lambda _: [msgspec.structs.replace(whole, **fields) for fields in found])
    assert refused(delivery).reason == NORMALISER_FAILED


def test_memory_running_out_is_no_dead_letter(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing about the delivery, which is understood another time."""

    def hungry(delivery: Delivery) -> list[CallEvent]:
        raise MemoryError

    normalised_by(monkeypatch, hungry)
    with pytest.raises(MemoryError):
        interpret(delivery)


def test_a_provider_without_a_module_becomes_a_dead_letter(delivery: Delivery) -> None:
    """The journal may hold deliveries of a provider that is gone."""
    letter = refused(msgspec.structs.replace(delivery, provider="formerly"))
    assert letter.reason == PROVIDER_UNKNOWN
    assert "'formerly'" in letter.detail


@given(st.sampled_from(sorted(discover())), st.binary(max_size=200) | st.sampled_from([b"{}", b'{"call":{}}', BODY]))
@settings(deadline=None)
def test_no_body_raises(name: str, body: bytes) -> None:
    """Whatever arrives is an event or a dead letter."""
    found = interpret(delivery_of(discover()[name], body))
    assert isinstance(found, DeadLetter) or found


@pytest.mark.parametrize("provider", discover().values(), ids=discover())
def test_interpreting_twice_gives_the_same(provider: Provider) -> None:
    """Nothing but the delivery decides, so a stored event can be read again."""
    for sample in samples_of(provider):
        assert msgspec.to_builtins(interpret(sample.delivery)) == msgspec.to_builtins(interpret(sample.delivery))
