"""AI Sync (ai-sync.com): calls of AI agents, and events of agents, campaigns and text messages beside them.

Of its sixteen events only `call.ended` has a documented payload. From the others the same names are read, and beside
them names that such a field would plausibly bear; what is not recognised stays in the event's data.

- `webhook_id` may name the subscription rather than the delivery, so it is not taken for a delivery's id.
- A signature stands in the body too (`metadata.signature`). It cannot cover itself and is never a proof.
- The dashboard can also send contact records, which are no events and name none: they become the event `contact`,
  and any other signed object without a name becomes `unknown`. Form-encoded ones are not JSON and become dead letters.
- There is no end reason, and no time but the envelope's: a call ended when its `call.ended` was stamped.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TypeVar

from calls import reading
from calls.errors import PayloadMalformed
from calls.model import (
    Appointment,
    CallEvent,
    Connection,
    Delivery,
    EndedBy,
    Facts,
    Lead,
    Micros,
    Stage,
    Trust,
    Variable,
)
from calls.payload import JsonObject
from calls.provider import Naming, Provider
from calls.signing import Encoding, Part, Scheme

T = TypeVar("T")

_STAGES = MappingProxyType(
    {
        "call.started": Stage.PROGRESS,
        "call.answered": Stage.PROGRESS,
        "call.ended": Stage.FINISHED,
        "call.transferred": Stage.FINISHED,
    }
)
"""The events that cannot be without a call; every other one may stand alone."""
_LEAD = "lead.generated"
_APPOINTMENT = "appointment.scheduled"
_OTHER_EVENTS = frozenset(
    {
        "agent.created", "agent.updated", "agent.status_changed", "agent.performance",
        "campaign.started", "campaign.completed",
        "sms.sent", "sms.received", "sms.failed", "sms.replied",
    }
)  # fmt: skip
_GROUPS_WITHOUT_CALL = frozenset({"agent", "campaign", "sms"})
"""Events of these groups are not about a call, even where they mention one."""
_CONTACT_FIELDS = frozenset({"phone_number", "email", "first_name", "last_name", "powelist_id"})

_DIRECTIONS = MappingProxyType(
    {"inbound": "inbound", "incoming": "inbound", "outbound": "outbound", "outgoing": "outbound"}
)
_WORDS_OF_TRANSFER = frozenset({"transferred", "forwarded"})
_WORDS = {
    Connection.PERSON: ("completed", "complete", "answered", "connected", "ended", "finished", *_WORDS_OF_TRANSFER),
    Connection.MACHINE: ("voicemail", "voicemaildetected", "machine", "machinedetected", "answeringmachine"),
    Connection.NO_ANSWER: ("noanswer", "notanswered", "unanswered", "missed"),
    Connection.BUSY: ("busy",),
    Connection.CANCELED: ("canceled", "cancelled"),
    Connection.FAILED: ("failed", "error"),
}
"""Only `completed` is documented; the rest is what telephony platforms say. A finished call whose status speaks of a
call under way (`in-progress`) is as unknown as one with a status not listed here."""
_CONNECTIONS = {word: connection for connection, words in _WORDS.items() for word in words}
_SEPARATORS = str.maketrans("", "", " -_")

_NAMES_OF_START = (
    "starts_at",
    "start_time",
    "appointment_time",
    "appointment_datetime",
    "scheduled_for",
    "scheduled_at",
)
_NAMES_OF_END = ("ends_at", "end_time", "appointment_end_time")


def naming(delivery: Delivery) -> Naming:
    """What the event is called and of which call it is. Raises what the parser says."""
    body = delivery.payload.value
    data = reading.section(body, "data")
    event = reading.word(body, "event") or _name_of_nameless(data or body)
    call_id = None if event.partition(".")[0] in _GROUPS_WITHOUT_CALL else _call_id(data)
    return Naming(event, delivery.org or _first(reading.identifier, body, "organization_id", "org_id") or "", call_id)


def normalise(delivery: Delivery) -> list[CallEvent]:
    """The one event of a delivery. Raises PayloadMalformed: no_call_id, or what the parser says."""
    body = delivery.payload.value
    data = reading.section(body, "data")
    event, org, call_id = naming(delivery)
    if call_id is None and event in _STAGES:
        raise PayloadMalformed(f"A {event} has no data.call_id.", code="no_call_id")
    sent_at = reading.instant(body, "timestamp")
    return [
        CallEvent(
            event=event,
            call_id=call_id,
            org=org,
            happened_at=delivery.received_at if sent_at is None else sent_at,
            stage=_STAGES.get(event, Stage.OTHER),
            facts={} if call_id is None else _facts(event, data, sent_at),
            variables=[] if call_id is None else _variables(data),
            appointments=[_appointment(data)] if event == _APPOINTMENT else [],
            leads=[_lead(data)] if event == _LEAD else [],
        )
    ]


def _name_of_nameless(fields: JsonObject) -> str:
    return "unknown" if _CONTACT_FIELDS.isdisjoint(fields) else "contact"


def _call_id(data: JsonObject) -> str | None:
    found = reading.identifier(data, "call_id")
    if found is None and "call" in data:
        found = _first(reading.identifier, reading.section(data, "call"), "call_id", "id")
    return found


def _facts(event: str, data: JsonObject, sent_at: Micros | None) -> Facts:
    agent = reading.section(data, "agent")
    facts = reading.known(
        agent_id=reading.identifier(data, "agent_id") or reading.identifier(agent, "id"),
        agent_name=reading.text(data, "agent_name") or reading.text(agent, "name"),
        campaign=_first(reading.text, data, "campaign_name", "campaign")
        or reading.text(reading.section(data, "campaign"), "name"),
        direction=_DIRECTIONS.get((reading.text(data, "call_direction") or "").strip().lower()),
        caller_phone=_first(reading.phone, data, "caller_number", "from_number"),
        callee_phone=_first(reading.phone, data, "called_number", "to_number"),
        sentiment=reading.text(data, "sentiment"),
        disposition=reading.text(data, "disposition"),
        tags=reading.texts(data, "tags"),
        transcript=_first(reading.text, data, "transcription", "transcript"),
        recording_url=reading.text(data, "recording_url"),
    )
    facts.update(_facts_of_person(event, data))
    if event in _STAGES:
        facts.update(_facts_of_course(event, data, sent_at))
    return facts


def _facts_of_person(event: str, data: JsonObject) -> Facts:
    if event in (_LEAD, _APPOINTMENT):
        person = _person(data)
        return reading.known(caller_name=_name(person), caller_email=_email(person))
    return reading.known(
        caller_name=_first(reading.text, data, "caller_name", "contact_name", "customer_name", "lead_name"),
        caller_email=_first(reading.text, data, "caller_email", "contact_email", "customer_email", "lead_email"),
    )


def _facts_of_course(event: str, data: JsonObject, sent_at: Micros | None) -> Facts:
    """How the call went: what only the call's own events can tell."""
    status = reading.word(data, "call_status")
    finished = _STAGES[event] is Stage.FINISHED
    word = None if status is None else status.lower().translate(_SEPARATORS)
    transferred = event == "call.transferred" or word in _WORDS_OF_TRANSFER
    started_at = _first(reading.instant, data, "started_at", "start_time")
    ended_at = _first(reading.instant, data, "ended_at", "end_time")
    duration = _first(reading.duration_s, data, "call_duration", "duration")
    if event == "call.started" and started_at is None:
        started_at = sent_at
    if finished and ended_at is None and (started_at is None or duration is None):
        ended_at = sent_at
    # What follows from two of the three is for the fold to say: another event may tell the third.
    return reading.known(
        status=status,
        started_at=started_at,
        ended_at=ended_at,
        duration_s=duration,
        connection=_connection(word) if finished else None,
        ended_by=EndedBy.TRANSFER if transferred else None,
        transferred=True if transferred else None,
        transferred_to=_first(reading.phone, data, "transferred_to", "transfer_to", "transfer_number")
        if transferred
        else None,
        transfer_reason=_first(reading.text, data, "transfer_reason", "reason") if transferred else None,
        summary=_first(reading.text, data, "summary", "call_summary"),
    )


def _connection(word: str | None) -> Connection:
    """Whom a finished call reached: a person, unless its status says otherwise."""
    return Connection.PERSON if word is None else _CONNECTIONS.get(word, Connection.UNKNOWN)


def _variables(data: JsonObject) -> list[Variable]:
    # A field that was sent empty was asked for and not collected: it is named, and counts as not filled.
    fields = reading.section(data, "custom_fields")
    return [
        reading.variable(name, value, collected=value is not None)
        for name, value in fields.items()
        if name and not name.isspace()
    ]


def _lead(data: JsonObject) -> Lead:
    person = _person(data)
    return {
        "name": _name(person),
        "phone": _phone(person),
        "email": _email(person),
        "intent": reading.text(person, "intent"),
        "urgency": reading.text(person, "urgency"),
        "interest": _first(reading.text, person, "interest", "interested_in"),
        "summary": _first(reading.text, person, "summary", "call_summary", "notes"),
    }


def _appointment(data: JsonObject) -> Appointment:
    booking = data | reading.section(data, "appointment")
    person = _person(booking)
    return {
        "starts_at": _time_of_booking(booking, _NAMES_OF_START),
        "ends_at": _time_of_booking(booking, _NAMES_OF_END),
        "service": _first(reading.text, booking, "service", "service_type", "appointment_type", "title"),
        "caller_name": _name(person),
        "caller_phone": _phone(person),
        "calendar_event_id": _first(
            reading.identifier, booking, "calendar_event_id", "event_id", "appointment_id", "id"
        ),
        "link": _first(reading.text, booking, "calendar_event_link", "calendar_link", "meeting_link", "link", "url"),
    }


def _time_of_booking(booking: JsonObject, names: tuple[str, ...]) -> Micros | None:
    """A whole time, or a time of day beside the booking's date; a date alone says too little."""
    zone = reading.zone(booking, "timezone")
    date = _first(reading.text, booking, "appointment_date", "date")
    for name in names:
        found = reading.instant(booking, name, zone)
        if found is None and date is not None and (time := reading.text(booking, name)) is not None:
            found = reading.instant({name: f"{date}T{time}"}, name, zone)
        if found is not None:
            return found
    return None


def _person(data: JsonObject) -> JsonObject:
    """The fields of the outside person: those of an object of its own go over those that lie flat."""
    return data | reading.section(data, "customer") | reading.section(data, "contact") | reading.section(data, "lead")


def _name(person: JsonObject) -> str | None:
    names = ("name", "full_name", "contact_name", "customer_name", "lead_name", "caller_name")
    parts = [part for key in ("first_name", "last_name") if (part := reading.text(person, key)) is not None]
    return _first(reading.text, person, *names) or " ".join(parts) or None


def _phone(person: JsonObject) -> str | None:
    return _first(
        reading.phone, person, "phone", "phone_number", "contact_phone", "customer_phone", "lead_phone", "caller_phone"
    )


def _email(person: JsonObject) -> str | None:
    return _first(
        reading.text, person, "email", "email_address", "contact_email", "customer_email", "lead_email", "caller_email"
    )


def _first(read: Callable[[JsonObject, str], T | None], parent: JsonObject, *names: str) -> T | None:
    """What is read under the first of the names that says anything."""
    for name in names:
        if name in parent:
            found = read(parent, name)
            if found is not None:
                return found
    return None


CONNECT = """\
1. In AI Sync open **Setup > Webhooks** and press the yellow **Add**.
2. **Title**: `Calltally`. **URL**: paste

   `{url}`

3. Choose the events. The numbers need **call.ended** and **call.transferred**; take **call.started**,
   **call.answered**, **appointment.scheduled** and **lead.generated** too, and the agent, campaign and SMS events if
   you want them kept beside the calls. Where the form shows **Powelist** and **Endpoint** instead of events, the
   webhook sends contact records: they are kept as well, but say nothing about calls.
4. Give the webhook a secret, put the same text into Calltally as a secret of this source, and press **Submit**.
   Where your AI Sync shows no field for a secret, ask its support for the key that makes `X-Webhook-Signature`.

AI Sync tries a delivery five times within 43 minutes, so events may arrive late and out of order. The numbers come
right by themselves.
"""

provider = Provider(
    name="aisync",
    title="AI Sync",
    docs_url="https://docs.aisync.link/setup/webhooks",
    scheme=Scheme(
        headers=("x-webhook-signature",),
        signed=(Part.BODY,),
        encoding=Encoding.HEX,
        trust=Trust.B,
        # The documents show both. Plain signs, since the vendor's own verification code understands no other: it
        # decodes the whole header as hex, which a prefix turns into nothing.
        forms=("{signature}", "sha256={signature}"),
    ),
    normalise=normalise,
    naming=naming,
    events=_OTHER_EVENTS | {*_STAGES, _LEAD, _APPOINTMENT},
    sends=frozenset(
        {
            "agent_id", "agent_name", "campaign", "direction", "status", "connection", "ended_by",
            "transferred", "transferred_to", "transfer_reason", "started_at", "ended_at", "duration_s",
            "caller_phone", "callee_phone", "caller_name", "caller_email", "summary", "transcript", "recording_url",
            "sentiment", "disposition", "tags", "call_variables", "appointments", "leads",
        }
    ),
    connect=CONNECT,
)  # fmt: skip
