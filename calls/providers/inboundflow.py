"""InboundFlow: an AI receptionist for inbound calls. Facts: https://inboundflow.app/docs/webhooks"""

from __future__ import annotations

from calls.errors import PayloadMalformed
from calls.model import Appointment, CallEvent, Connection, Delivery, EndedBy, Facts, Lead, Stage, Trust
from calls.payload import JsonObject
from calls.provider import Naming, Provider
from calls.reading import call_times, duration_s, identifier, instant, known, phone, section, text, word
from calls.signing import Encoding, Part, Scheme

COMPLETED = "call.completed"
TRANSFERRED = "call.transferred"
BOOKED = "appointment.booked"
LEAD = "lead.created"
EVENTS = frozenset({COMPLETED, TRANSFERRED, BOOKED, LEAD})

DELIVERY_ID_HEADER = "x-inboundflow-delivery-id"


def naming(delivery: Delivery) -> Naming:
    """What the event is called and of which call it is. Raises PayloadMalformed: no_event, or what the parser says."""
    body = delivery.payload.value
    event = word(body, "event")
    if event is None:
        raise PayloadMalformed("The body has no 'event'.", code="no_event")
    org = delivery.org or identifier(body, "organization_id") or ""
    return Naming(event, org, identifier(section(body, "data"), "call_id"))


def normalise(delivery: Delivery) -> list[CallEvent]:
    """The one event of a delivery. Raises PayloadMalformed: no_event, no_call_id, or what the parser says."""
    body = delivery.payload.value
    data = section(body, "data")
    event, org, call_id = naming(delivery)
    of_a_call = event.startswith("call.")
    if call_id is None and (of_a_call or event in EVENTS):
        raise PayloadMalformed(f"A {event} has no 'data.call_id'.", code="no_call_id")
    sent_at = instant(body, "timestamp")
    if sent_at is None:
        sent_at = instant(data, "ended_at")
    return [
        CallEvent(
            event=event,
            call_id=call_id,
            org=org,
            happened_at=delivery.received_at if sent_at is None else sent_at,
            delivery_id=identifier(body, "delivery_id") or delivery.headers.get(DELIVERY_ID_HEADER),
            stage=Stage.FINISHED if of_a_call else Stage.OTHER,
            facts={} if call_id is None else _facts(event, data),
            appointments=[_appointment(data)] if event == BOOKED else [],
            leads=[_lead(data)] if event == LEAD else [],
        )
    ]


def _facts(event: str, data: JsonObject) -> Facts:
    started_at, ended_at, duration = call_times(
        instant(data, "started_at"), instant(data, "ended_at"), duration_s(data, "duration_seconds")
    )
    facts = known(
        direction="inbound",
        # A call event that the platform does not document may well be a missed call: it leaves the connection open.
        connection=Connection.PERSON if event in (COMPLETED, TRANSFERRED) else None,
        started_at=started_at,
        ended_at=ended_at,
        duration_s=duration,
        caller_phone=phone(data, "caller_phone"),
        caller_name=text(data, "caller_name"),
        caller_email=text(data, "caller_email"),
        summary=_summary(data),
        # The event table of the vendor's page promises a transcript, its sample has none.
        transcript=text(data, "transcript"),
        recording_url=text(data, "recording_url"),
        intent=text(data, "intent"),
        urgency=text(data, "urgency"),
    )
    return facts | _transfer(data) if event == TRANSFERRED else facts


def _transfer(data: JsonObject) -> Facts:
    return known(
        ended_by=EndedBy.TRANSFER,
        transferred=True,
        transferred_to=phone(data, "transferred_to_number") or text(data, "transferred_to_label"),
        transfer_reason=text(data, "reason"),
    )


def _summary(data: JsonObject) -> str | None:
    # lead.created names it call_summary, the other events summary.
    return text(data, "summary") or text(data, "call_summary")


def _appointment(data: JsonObject) -> Appointment:
    return {
        "starts_at": instant(data, "appointment_time_start"),
        "ends_at": instant(data, "appointment_time_end"),
        "service": text(data, "service_type"),
        "caller_name": text(data, "caller_name"),
        "caller_phone": phone(data, "caller_phone"),
        "calendar_event_id": identifier(data, "calendar_event_id"),
        "link": text(data, "calendar_event_link"),
    }


def _lead(data: JsonObject) -> Lead:
    return {
        "name": text(data, "caller_name"),
        "phone": phone(data, "caller_phone"),
        "email": text(data, "caller_email"),
        "intent": text(data, "intent"),
        "urgency": text(data, "urgency"),
        "interest": text(data, "interest"),
        "summary": _summary(data),
    }


CONNECT = """\
1. In InboundFlow open **Settings → Integrations → Webhooks** and choose **Connect**.
2. Paste this address as the webhook URL (InboundFlow accepts only `https`): `{url}`
3. Choose or generate a **signing secret** and give the same text to Calltally as a secret of this source.
   Without a signing secret InboundFlow sends no signature, and every delivery is refused.
4. Tick all four events: `call.completed`, `call.transferred`, `appointment.booked`, `lead.created`.
5. Save, press **Test**, and look for the delivery under this source.

After ten failed deliveries in a row InboundFlow switches the webhook off; connect it again in the same place.
"""

provider = Provider(
    name="inboundflow",
    title="InboundFlow",
    docs_url="https://inboundflow.app/docs/webhooks",
    scheme=Scheme(
        headers=("x-inboundflow-signature",),
        signed=(Part.TIMESTAMP, b".", Part.BODY),
        encoding=Encoding.HEX,
        forms=("sha256={signature}",),
        timestamp_header="x-inboundflow-timestamp",
        tolerance_s=300,
        trust=Trust.A,
    ),
    normalise=normalise,
    naming=naming,
    kept_headers=frozenset({DELIVERY_ID_HEADER, "x-inboundflow-event", "x-inboundflow-timestamp"}),
    events=EVENTS,
    connections=frozenset({Connection.PERSON}),
    sends=frozenset(
        {
            "direction",
            "connection",
            "ended_by",
            "transferred",
            "transferred_to",
            "transfer_reason",
            "started_at",
            "ended_at",
            "duration_s",
            "caller_phone",
            "caller_name",
            "caller_email",
            "summary",
            "transcript",
            "recording_url",
            "intent",
            "urgency",
            "appointments",
            "leads",
        }
    ),
    connect=CONNECT,
)
