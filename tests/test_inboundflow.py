"""InboundFlow, beyond its samples: headers, clocks and what two deliveries of one call say of each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calls.errors import PayloadMalformed, SignatureRejected
from calls.model import CallEvent, Connection, EndedBy, Stage
from calls.provider import named
from calls.signing import sign, verify
from tests.contracts.samples import RECEIVED_AT, delivery_of

PROVIDER = named("inboundflow")
CALL: dict[str, Any] = {"event": "call.completed", "data": {"call_id": "c1"}}


def event_of(body: dict[str, Any], **headers: str) -> CallEvent:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    [event] = PROVIDER.normalise(delivery_of(PROVIDER, json.dumps(body).encode(), headers=sent))
    return event


def test_the_delivery_id_of_the_body_goes_before_that_of_the_header() -> None:
    """Only the body is signed, so the header counts where the body has none."""
    assert event_of({**CALL, "delivery_id": "signed"}, x_inboundflow_delivery_id="not").delivery_id == "signed"
    assert event_of(CALL, x_inboundflow_delivery_id="header").delivery_id == "header"
    assert event_of({**CALL, "delivery_id": ""}, x_inboundflow_delivery_id="header").delivery_id == "header"
    assert event_of(CALL).delivery_id is None


def test_the_event_is_that_of_the_signed_body_alone() -> None:
    """A header that is not signed cannot say what a body means."""
    assert event_of(CALL, x_inboundflow_event="lead.created").event == "call.completed"
    with pytest.raises(PayloadMalformed) as caught:
        event_of({"data": {"call_id": "c1"}}, x_inboundflow_event="call.completed")
    assert caught.value.code == "no_event"


def test_an_event_happened_when_its_envelope_says() -> None:
    """Else when the call ended, else when it arrived."""
    ended = {"call_id": "c1", "ended_at": "2026-05-12T14:03:20Z"}
    enveloped = {"event": "call.completed", "timestamp": "2026-05-12T14:03:21Z", "data": ended}
    assert event_of(enveloped).happened_at == 1_778_594_601_000_000
    assert event_of({**enveloped, "timestamp": "soon"}).happened_at == 1_778_594_600_000_000
    assert event_of(CALL).happened_at == RECEIVED_AT


@pytest.mark.parametrize(
    "event", ["call.completed", "call.transferred", "appointment.booked", "lead.created", "call.new"]
)
def test_an_event_of_a_call_needs_a_call_id(event: str) -> None:
    """What cannot be added to any call is a dead letter that names what is missing."""
    with pytest.raises(PayloadMalformed, match=r"data\.call_id") as caught:
        event_of({"event": event, "data": {}})
    assert caught.value.code == "no_call_id"


def test_a_new_event_without_a_call_is_kept() -> None:
    """What the platform invents tomorrow is an event of its own word, and says nothing about calls."""
    event = event_of({"event": "sms.received", "data": {"caller_phone": "+1"}})
    assert (event.event, event.call_id, event.stage, event.facts) == ("sms.received", None, Stage.OTHER, {})


def test_a_new_event_of_a_call_leaves_open_whom_it_reached() -> None:
    """`call.missed` is finished, but nobody may count a person for it."""
    event = event_of({"event": "call.missed", "data": {"call_id": "c1"}})
    assert event.stage is Stage.FINISHED
    assert event.facts == {"direction": "inbound"}


def test_a_transfer_belongs_to_the_transferred_event_only() -> None:
    """A stray number in another event makes no transfer."""
    data = {"call_id": "c1", "transferred_to_number": "+13125550100", "transferred_to_label": "Desk", "reason": "Asked"}
    assert event_of({"event": "call.transferred", "data": data}).facts == {
        "direction": "inbound",
        "connection": Connection.PERSON,
        "ended_by": EndedBy.TRANSFER,
        "transferred": True,
        "transferred_to": "+13125550100",
        "transfer_reason": "Asked",
    }
    assert event_of({"event": "call.completed", "data": data}).facts == {
        "direction": "inbound",
        "connection": Connection.PERSON,
    }


def test_either_name_of_the_summary_is_read() -> None:
    """`lead.created` says call_summary where the other events say summary."""
    for key in ("summary", "call_summary"):
        event = event_of({"event": "lead.created", "data": {"call_id": "c1", key: "Wants a quote."}})
        assert event.facts["summary"] == "Wants a quote."
        assert event.leads[0]["summary"] == "Wants a quote."


def test_an_unsigned_request_without_the_timestamp_is_refused() -> None:
    """The timestamp is part of what is signed: without it, or with another, nothing is proved."""
    body = json.dumps(CALL).encode()
    signed = sign(PROVIDER.scheme, "s", body, now_s=1_778_594_601)
    for stamp in (None, "1778594602"):
        headers = {**signed, "x-inboundflow-timestamp": stamp}
        arrived = [(name.encode(), value.encode()) for name, value in headers.items() if value is not None]
        with pytest.raises(SignatureRejected):
            verify(PROVIDER.scheme, ("s",), arrived, body, now_s=1_778_594_601)


@pytest.mark.parametrize("late", [1, -1])
def test_a_timestamp_may_be_five_minutes_off(late: int) -> None:
    """The platform states no window; five minutes either way is ours, unless the settings say otherwise."""
    body = json.dumps(CALL).encode()
    arrived = [(n.encode(), v.encode()) for n, v in sign(PROVIDER.scheme, "s", body, now_s=1_778_594_601).items()]
    assert verify(PROVIDER.scheme, ("s",), arrived, body, now_s=1_778_594_601 + 300 * late).secret_index == 0
    with pytest.raises(SignatureRejected, match="301 s"):
        verify(PROVIDER.scheme, ("s",), arrived, body, now_s=1_778_594_601 + 301 * late)
