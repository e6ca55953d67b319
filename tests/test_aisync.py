"""What AI Sync's deliveries mean, beyond what its samples show."""

from __future__ import annotations

import json
from itertools import permutations
from random import Random

import pytest

from calls.errors import PayloadMalformed, SignatureRejected
from calls.model import CallEvent, Connection, DeadLetter, Delivery, Rules, Stage, TimelineEvent, Trust
from calls.payload import JsonObject, JsonValue
from calls.providers.aisync import provider
from calls.signing import sign, verify
from calls.traffic import one_call
from streams.fold import fold
from streams.steps import interpret

ENDED_AT = "2026-05-12T14:30:00.000Z"
ENDED = 1_778_596_200_000_000
RECEIVED = 1_780_315_200_000_000


def delivered(body: bytes | JsonObject, *, org: str = "", position: int = 1) -> Delivery:
    return Delivery(
        source="aisync", provider="aisync", org=org, headers={}, trust=Trust.B, journal_id="j", position=position,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(), received_at=RECEIVED,
    )  # fmt: skip


def said(event: JsonValue, at: JsonValue = ENDED_AT, **data: JsonValue) -> CallEvent:
    (found,) = provider.normalise(delivered({"event": event, "timestamp": at, "data": data}))
    return found


def timed(event: str, at: str, **data: JsonValue) -> TimelineEvent:
    found = interpret(delivered({"event": event, "timestamp": at, "data": {"call_id": "c1", **data}}))
    assert not isinstance(found, DeadLetter)
    return found[0]


@pytest.mark.parametrize(
    ("status", "connection"),
    [
        ("completed", Connection.PERSON),
        ("Completed", Connection.PERSON),
        ("answered", Connection.PERSON),
        ("no-answer", Connection.NO_ANSWER),
        ("no_answer", Connection.NO_ANSWER),
        ("noanswer", Connection.NO_ANSWER),
        ("No Answer", Connection.NO_ANSWER),
        ("busy", Connection.BUSY),
        ("failed", Connection.FAILED),
        ("canceled", Connection.CANCELED),
        ("cancelled", Connection.CANCELED),
        ("voicemail", Connection.MACHINE),
        ("machine", Connection.MACHINE),
        ("answering-machine", Connection.MACHINE),
        ("in-progress", Connection.UNKNOWN),
        ("ringing", Connection.UNKNOWN),
        ("something new", Connection.UNKNOWN),
    ],
)
def test_the_status_of_an_ended_call_tells_whom_it_reached_and_stays_verbatim(
    status: str, connection: Connection
) -> None:
    """Spelling does not matter for the connection, and the platform's own word is kept as it was sent."""
    facts = said("call.ended", call_id="c1", call_status=status).facts
    assert (facts["status"], facts["connection"]) == (status, connection)


@pytest.mark.parametrize("status", [None, "", "  ", [], {}])
def test_an_ended_call_without_a_status_reached_a_person_and_has_no_status(status: JsonValue) -> None:
    """Nothing said otherwise, and a status that was not sent is not made up."""
    facts = said("call.ended", call_id="c1", call_status=status).facts
    assert facts["connection"] is Connection.PERSON
    assert "status" not in facts


@pytest.mark.parametrize("event", ["call.started", "call.answered"])
def test_a_call_that_only_began_is_in_progress(event: str) -> None:
    """Neither event finishes a call, whatever status it carries."""
    call = fold([timed(event, ENDED_AT, call_status="completed")], Rules())
    assert call["connection"] == "in_progress"


def test_the_start_of_an_ended_call_is_its_end_less_its_duration() -> None:
    """Only the envelope's time and the duration are documented."""
    call = fold([timed("call.ended", ENDED_AT, call_duration=180)], Rules())
    assert (call["ended_at"], call["started_at"], call["duration_s"]) == (ENDED, ENDED - 180_000_000, 180.0)


def test_a_start_that_was_told_stands_whatever_end_and_duration_say() -> None:
    """A duration may leave out the ringing; a call that began before midnight stays a call of that day."""
    began = timed("call.started", "2026-05-12T13:00:00Z")
    ended = timed("call.ended", ENDED_AT, call_duration=180)
    for events in ([began, ended], [ended, began]):
        call = fold(events, Rules())
        assert (call["started_at"], call["duration_s"]) == (ENDED - 90 * 60_000_000, 180.0)


def test_times_that_a_call_has_of_its_own_go_before_the_envelopes() -> None:
    """A delivery that was retried may be stamped long after the call."""
    own = {"started_at": "2026-05-12T13:00:00Z", "ended_at": "2026-05-12T13:02:00Z"}
    call = fold([timed("call.ended", ENDED_AT, **own)], Rules())
    assert (call["started_at"], call["duration_s"]) == (ENDED - 90 * 60_000_000, 120.0)
    assert call["ended_at"] == ENDED - 88 * 60_000_000


def test_a_call_without_any_time_has_none_and_counts_when_it_was_received() -> None:
    """Our clock orders the event, but is no fact about the call."""
    event = said("call.ended", at=None, call_id="c1", call_duration=30)
    assert event.happened_at == RECEIVED
    assert {"started_at", "ended_at"}.isdisjoint(event.facts)
    assert event.facts["duration_s"] == 30.0


@pytest.mark.parametrize(
    ("sent", "direction"),
    [("inbound", "inbound"), ("incoming", "inbound"), ("outbound", "outbound"), ("Outgoing", "outbound"), ("up", None)],
)
def test_a_direction_is_inbound_or_outbound_or_not_known(sent: str, direction: str | None) -> None:
    """Two words of ours for every spelling, and no guess for a third."""
    assert said("call.ended", call_id="c1", call_direction=sent).facts.get("direction") == direction


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_the_two_numbers_are_copied_as_named(direction: str) -> None:
    """Caller and callee are not swapped by the direction of the call."""
    facts = said(
        "call.ended", call_id="c1", call_direction=direction, caller_number="+12125550101", called_number="+13125550142"
    ).facts
    assert (facts["caller_phone"], facts["callee_phone"]) == ("+12125550101", "+13125550142")


def test_a_custom_field_is_a_variable_that_its_value_fills() -> None:
    """A field with a value was collected, also with false or 0; one with null is named and was not."""
    event = said("call.ended", call_id="c1", custom_fields={"zero": 0, "no": False, "empty": "", "missing": None})
    assert [(item["name"], item["collected"], item["value"]) for item in event.variables] == [
        ("zero", True, "0"),
        ("no", True, "false"),
        ("empty", True, '""'),
        ("missing", False, None),
    ]


def test_a_custom_field_belongs_to_the_agent_of_its_call() -> None:
    """The shape is flat, so the agent is known only once the call is put together."""
    events = [
        timed("call.started", "2026-05-12T14:27:00Z", agent_id="agent_nova"),
        timed("call.ended", ENDED_AT, custom_fields={"score": 1}),
    ]
    assert events[1].event.variables[0]["agent_id"] is None
    assert fold(events, Rules())["variables"][0]["agent_id"] == "agent_nova"


def test_a_transfer_is_finished_and_ended_by_the_transfer() -> None:
    """Who took over and why are kept."""
    event = said("call.transferred", call_id="c1", transferred_to="+12125550190", transfer_reason="billing")
    assert event.stage is Stage.FINISHED
    assert event.facts["ended_by"] == "transfer"
    assert event.facts["transferred"] is True
    assert (event.facts["transferred_to"], event.facts["transfer_reason"]) == ("+12125550190", "billing")


@pytest.mark.parametrize("event", ["call.started", "call.answered", "call.ended", "call.transferred"])
@pytest.mark.parametrize("call_id", [None, "", " ", True, 1.5, [], {"id": "c1"}])
def test_a_call_event_without_a_call_id_is_a_dead_letter(event: str, call_id: JsonValue) -> None:
    """There is no call to count it for."""
    with pytest.raises(PayloadMalformed) as caught:
        said(event, call_id=call_id)
    assert caught.value.code == "no_call_id"


@pytest.mark.parametrize(
    "event", ["agent.updated", "agent.new_thing", "campaign.completed", "sms.replied", "sms.opened"]
)
def test_an_agent_campaign_or_sms_event_belongs_to_no_call(event: str) -> None:
    """Even where it mentions a call, and also where the event is new."""
    found = said(event, call_id="c1", agent_id="agent_nova", custom_fields={"a": 1})
    assert (found.event, found.call_id, found.stage) == (event, None, Stage.OTHER)
    assert not found.facts
    assert not found.variables


def test_an_event_that_is_not_documented_joins_its_call_without_finishing_it() -> None:
    """Unknown events are kept under their own name, and what they say of the agent counts."""
    found = said("call.reviewed", call_id="c1", agent_name="Nova", call_status="archived", call_duration=3)
    assert (found.event, found.call_id, found.stage) == ("call.reviewed", "c1", Stage.OTHER)
    assert found.facts == {"agent_name": "Nova"}


@pytest.mark.parametrize(("event", "table"), [("lead.generated", "leads"), ("appointment.scheduled", "appointments")])
def test_a_lead_or_an_appointment_may_stand_without_a_call(event: str, table: str) -> None:
    """It goes to its table all the same."""
    found = said(event, first_name="Kofi", last_name="Ito")
    assert found.call_id is None
    assert not found.facts
    assert len(getattr(found, table)) == 1


def test_a_booking_makes_its_call_a_success() -> None:
    """An appointment that names its call counts for it."""
    events = [
        timed("call.ended", ENDED_AT, call_status="completed"),
        timed("appointment.scheduled", "2026-05-12T14:30:01Z", starts_at="2026-05-20T15:00:00Z"),
    ]
    assert fold(events, Rules())["result"] == "met"


def test_an_appointments_time_of_day_is_read_in_its_own_zone() -> None:
    """A date and a time that stand apart make one moment."""
    found = said(
        "appointment.scheduled", date="2026-01-21", start_time="14:30", end_time="15:00", timezone="America/Chicago"
    )
    (booking,) = found.appointments
    assert booking["starts_at"] == 1_769_027_400_000_000
    assert booking["ends_at"] == 1_769_029_200_000_000


def test_an_appointment_with_only_a_date_has_no_time() -> None:
    """Midnight would be a guess."""
    (booking,) = said("appointment.scheduled", date="2026-01-21", service="Call back").appointments
    assert booking["starts_at"] is None
    assert booking["service"] == "Call back"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"phone_number": "+13125550142", "powelist_id": "12"}, "contact"),
        ({"data": {"first_name": "Marta"}}, "contact"),
        ({"event": {"name": "call.ended"}}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_signed_object_of_another_shape_is_an_event_of_no_call(body: JsonObject, name: str) -> None:
    """Contact hooks are kept and shown, and nothing of them is mistaken for a call."""
    (event,) = provider.normalise(delivered(body))
    assert (event.event, event.call_id, event.stage) == (name, None, Stage.OTHER)


def test_a_form_encoded_contact_is_a_dead_letter() -> None:
    """It is no JSON; its bytes stay for whoever teaches us to read it."""
    found = interpret(delivered(b"phone_number=%2B13125550142&email=marta.olsen%40example.com"))
    assert isinstance(found, DeadLetter)
    assert found.reason == "not_json"


def test_the_webhook_id_is_not_taken_for_a_deliverys_id() -> None:
    """It may name the subscription, and then all deliveries would look like one."""
    (event,) = provider.normalise(delivered({"event": "agent.created", "webhook_id": "wh_1", "data": {}}))
    assert event.delivery_id is None


def test_late_events_of_a_call_change_nothing_whatever_their_order() -> None:
    """Retries take up to 43 minutes, so a call may be heard to begin after it has ended."""
    events = [
        timed("call.started", "2026-05-12T14:27:00Z", call_status="ringing", agent_id="agent_nova"),
        timed("call.answered", "2026-05-12T14:27:05Z", call_status="in-progress"),
        timed("call.ended", ENDED_AT, call_status="completed", call_duration=175, disposition="interested"),
        timed("lead.generated", "2026-05-12T14:30:02Z", lead={"name": "Marta Olsen"}),
    ]
    calls = [fold(list(order), Rules()) for order in permutations(events)]
    assert all(call == calls[0] for call in calls)
    assert (calls[0]["status"], calls[0]["connection"], calls[0]["caller_name"]) == (
        "completed",
        "person",
        "Marta Olsen",
    )


@pytest.mark.parametrize("form", ["{}", "sha256={}"])
def test_a_signature_counts_with_and_without_its_prefix(form: str) -> None:
    """AI Sync's documents show both."""
    body = b'{"event":"call.ended"}'
    signature = sign(provider.scheme, "s3cret", body, now_s=0)["x-webhook-signature"]
    headers = [(b"x-webhook-signature", form.format(signature).encode())]
    assert verify(provider.scheme, ["s3cret"], headers, body, now_s=0).trust is Trust.B


@pytest.mark.parametrize("form", ["SHA256={}", "sha256={} ", "sha256:{}", "sha256=sha256={}", "sha512={}", "={}"])
def test_no_third_form_of_a_signature_counts(form: str) -> None:
    """Two spellings are all that is documented."""
    body = b'{"event":"call.ended"}'
    signature = sign(provider.scheme, "s3cret", body, now_s=0)["x-webhook-signature"]
    with pytest.raises(SignatureRejected):
        verify(provider.scheme, ["s3cret"], [(b"x-webhook-signature", form.format(signature).encode())], body, now_s=0)


def test_the_signature_inside_the_body_proves_nothing() -> None:
    """It cannot cover itself: anyone who has seen one could send it again with another body."""
    unsigned = b'{"event":"call.ended","metadata":{}}'
    signature = sign(provider.scheme, "s3cret", unsigned, now_s=0)["x-webhook-signature"]
    body = b'{"event":"call.ended","metadata":{"signature":"sha256=' + signature.encode() + b'"}}'
    with pytest.raises(SignatureRejected) as caught:
        verify(provider.scheme, ["s3cret"], [(b"content-type", b"application/json")], body, now_s=0)
    assert caught.value.code == "signature_missing"
    with pytest.raises(SignatureRejected):
        verify(provider.scheme, ["s3cret"], [(b"x-webhook-signature", signature.encode())], body, now_s=0)


def test_made_up_agents_of_one_name_are_one_agent() -> None:
    """Whichever event tells of them: two rows of the same name would puzzle whoever looks at the demo."""
    dice, found = Random(1), set()
    for _ in range(200):
        for post in one_call(provider, dice=dice, ended_at=ENDED):
            facts = [event.facts for event in provider.normalise(delivered(post.body))]
            found |= {(one["agent_name"], one.get("agent_id")) for one in facts if "agent_name" in one}

    assert len(found) == len({name for name, _ in found}) == 3
