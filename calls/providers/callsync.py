"""CallSync (callsyncapp.com): phone calls of human staff, logged, recorded and judged by an AI afterwards.

One call is told in up to four events: `call_logged` finishes it, the others amend it. Only `call_logged` has a
documented payload; the others are read by the same names, wherever they carry them.

- The call id is an integer and the duration is text; `status` and `type` usually repeat the direction.
- `timestamp` is when the event was sent. It may lie years away from `started_at`, also in the vendor's own example.
- The keys of a filled `ai_analysis` are not documented, only that its status is `pending` before; then it says nothing.
  Its summary, sentiment and transcript are taken as such. A criterion is what has one of the four results:
  `"polite": true`, `"goal": "partial"`, `"goal": {"result": ..., "feedback": ...}`; also inside `criteria`, `results`
  or `analysis`, as an object or a list. Scores, other words and other objects stay in the event's data.
"""

from __future__ import annotations

from types import MappingProxyType

from calls import reading
from calls.errors import PayloadMalformed
from calls.model import Analysis, CallEvent, Connection, Delivery, Facts, Stage, Trust
from calls.payload import JsonObject, JsonValue
from calls.provider import Naming, Provider
from calls.signing import Encoding, Part, Scheme

_LOGGED = "call_logged"
_EVENTS = frozenset({_LOGGED, "recording_updated", "ai_analysis", "caller_updated"})
_DIRECTIONS = MappingProxyType(
    {"incoming": "inbound", "inbound": "inbound", "outgoing": "outbound", "outbound": "outbound"}
)
_RESULTS = frozenset({"true", "false", "partial", "not_applicable"})
_NOT_JUDGED = frozenset({"status", "summary", "sentiment", "transcript", "transcription"})
_GROUPS_OF_CRITERIA = ("criteria", "results", "analysis")


def naming(delivery: Delivery) -> Naming:
    """What the event is called and of which call it is. Raises what the parser says."""
    body = delivery.payload.value
    data = reading.section(body, "data")
    return Naming(
        reading.word(body, "event") or "unknown",
        delivery.org or reading.identifier(body, "org_id") or "",
        reading.identifier(reading.section(data, "call_details"), "call_id") or reading.identifier(data, "call_id"),
    )


def normalise(delivery: Delivery) -> list[CallEvent]:
    """The one event of a delivery. Raises PayloadMalformed: no_event, no_call_id, or what the parser says."""
    body = delivery.payload.value
    data = reading.section(body, "data")
    event = reading.word(body, "event")
    named, org, call_id = naming(delivery)
    if call_id is None and event is None:
        raise PayloadMalformed("The body names neither an event nor a call.", code="no_event")
    if call_id is None and event in _EVENTS:
        raise PayloadMalformed(f"A {event} has no data.call_details.call_id.", code="no_call_id")
    judged = _analysis_of(data)
    sent_at = reading.instant(body, "timestamp")
    return [
        CallEvent(
            event=named,
            call_id=call_id,
            org=org,
            happened_at=delivery.received_at if sent_at is None else sent_at,
            delivery_id=reading.identifier(body, "payload_id"),
            stage=Stage.FINISHED if event == _LOGGED else Stage.OTHER,
            facts={} if call_id is None else _facts(event, body, data, judged),
            analysis=[] if call_id is None else _criteria(judged),
        )
    ]


def _analysis_of(data: JsonObject) -> JsonObject:
    """The finished analysis; empty where there is none yet."""
    judged = reading.section(data, "ai_analysis")
    return {} if (reading.text(judged, "status") or "").strip().lower() == "pending" else judged


def _facts(event: str | None, body: JsonObject, data: JsonObject, judged: JsonObject) -> Facts:
    details = reading.section(data, "call_details") or data
    caller, identity, staff = (reading.section(data, key) for key in ("caller", "identity", "staff"))
    direction = _direction(details, "direction") or _direction(details, "type")
    if direction is None and event == _LOGGED:
        direction = _direction(body, "type")
    duration = reading.duration_s(details, "duration_total")
    started_at, ended_at, duration = reading.call_times(
        reading.instant(details, "started_at"), reading.instant(details, "ended_at"), duration
    )
    return reading.known(
        agent_id=reading.identifier(staff, "id"),
        agent_name=reading.text(staff, "name"),
        direction=direction,
        status=_status(details),
        # Whether anybody answered is not told; a call of some length was a conversation.
        connection=(Connection.PERSON if duration else Connection.UNKNOWN) if event == _LOGGED else None,
        started_at=started_at,
        ended_at=ended_at,
        duration_s=duration,
        caller_phone=reading.phone(caller, "phone") or reading.phone(identity, "phone"),
        caller_name=reading.text(identity, "name") or reading.text(caller, "name"),
        caller_email=reading.text(identity, "email") or reading.text(caller, "email"),
        tags=reading.texts(identity, "labels"),
        recording_url=reading.text(details, "recording_url") or reading.text(data, "recording_url"),
        summary=reading.text(judged, "summary"),
        sentiment=reading.text(judged, "sentiment"),
        transcript=reading.text(judged, "transcript") or reading.text(judged, "transcription"),
    )


def _direction(parent: JsonObject, key: str) -> str | None:
    return _DIRECTIONS.get((reading.text(parent, key) or "").strip().lower())


def _status(details: JsonObject) -> str | None:
    """The status as sent; None where it only repeats the direction."""
    status = reading.word(details, "status")
    return None if status is None or _direction(details, "status") or status == details.get("direction") else status


def _criteria(judged: JsonObject) -> list[Analysis]:
    """The judged criteria, each once; what lies in a group gives way to what lies beside it."""
    named = [(key, value) for key, value in judged.items() if key not in _NOT_JUDGED]
    for group in _GROUPS_OF_CRITERIA:
        named += _members(judged.get(group))
    found: dict[str, Analysis] = {}
    for name, value in named:
        criterion = _criterion(name, value)
        if criterion is not None:
            found.setdefault(name, criterion)
    return list(found.values())


def _members(group: JsonValue) -> list[tuple[str, JsonValue]]:
    if isinstance(group, dict):
        return list(group.items())
    if not isinstance(group, list):
        return []
    named = [
        (reading.text(item, "criterion") or reading.text(item, "name"), item)
        for item in group
        if isinstance(item, dict)
    ]
    return [(name, item) for name, item in named if name is not None]


def _criterion(name: str, value: JsonValue) -> Analysis | None:
    if not isinstance(value, dict):
        result = _result(value)
        return None if result is None else {"criterion": name, "result": result, "feedback": None}
    # An object with a result is a judgement whatever the result says: a fifth word is drift, and must be seen.
    result = _result(value.get("result")) or reading.text(value, "result")
    feedback = reading.text(value, "feedback") or reading.text(value, "reason")
    return None if result is None else {"criterion": name, "result": result, "feedback": feedback}


def _result(value: JsonValue) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return None
    word = value.strip().lower().replace(" ", "_")
    return word if word in _RESULTS else None


CONNECT = """\
1. In CallSync open **Settings > Webhooks** and press **New Endpoint**. As the server URL paste

   `{url}`

2. Select all four events: **New Call Log**, **Recording Sync**, **AI Analysis Result** and **Caller Info Updated**.
   The first one makes the call, the others complete it.
3. Set a **secret key**, and put the same text into Calltally as a secret of this source. CallSync signs with it in
   `X-CallSync-Signature`; without one its deliveries are refused.
4. Send the test payload. It arrives as a call like any other; put its number into the setting `test_numbers` to keep
   it out of the rates.
"""

provider = Provider(
    name="callsync",
    title="CallSync",
    docs_url="https://callsyncapp.com/webhook-guide",
    scheme=Scheme(
        headers=("x-callsync-signature",),
        signed=(Part.BODY,),
        encoding=Encoding.HEX,
        trust=Trust.B,
    ),
    normalise=normalise,
    naming=naming,
    events=_EVENTS,
    connections=frozenset({Connection.PERSON, Connection.UNKNOWN}),
    sends=frozenset(
        {
            "agent_id", "agent_name", "direction", "status", "connection", "started_at", "ended_at", "duration_s",
            "caller_phone", "caller_name", "caller_email", "tags", "recording_url", "summary", "sentiment",
            "transcript", "call_analysis",
        }
    ),
    connect=CONNECT,
)  # fmt: skip
