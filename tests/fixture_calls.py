"""A small history of calls of all four platforms, told twice: as deliveries to journal, and as what is true of them.

Metrics are measured on a store that was filled with the deliveries by the real steps, fold and store, and compared with
what plain Python counts over the truth. Everything is fixed: no clock, no dice. The calls lie around three changes of
the clocks: 26 October 2025 (Berlin), 2 November 2025 (St. John's) and 29 March 2026 (Berlin).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from analytics.store import Position, Store
from calls.journal_row import Record
from calls.model import Delivery, Micros, Notice, Rules, Verdict
from calls.payload import JsonObject
from calls.provider import named
from streams.apply import Applier

JOURNAL_ID = "11111111-1111-4111-8111-111111111111"
TEST_NUMBER = "+12125550199"
RULES = Rules(
    success={"interested": "met", "callback": "partly", "not_interested": "not_met"}, test_numbers=(TEST_NUMBER,)
)
ODD_AGENT = 'o\'Brien "二" \N{ROBOT FACE}'
"""An agent's id with everything that must travel as a parameter."""
START = datetime(2025, 10, 19, tzinfo=UTC)
END = datetime(2026, 3, 31, tzinfo=UTC)
BATCH = 17
"""Records of a batch: roll-ups are read partly settled and partly not."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is so of one call."""

    provider: str
    call_id: str
    at: datetime
    connection: str
    org: str = ""
    agent: str | None = None
    direction: str | None = None
    result: str = "unknown"
    excluded: str | None = None
    transferred: bool = False
    booked: bool = False
    lead: bool = False
    duration: float | None = None
    contact: str | None = None
    sentiment: str | None = None
    criteria: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, bool] = field(default_factory=dict)
    """Name -> whether it was filled with a value."""


def history() -> tuple[list[Truth], list[Record]]:
    """What is true, and the records of the journal that tell it, in the order of the journal."""
    truths, told = [], []
    for truth, bodies in _every_call():
        truths.append(truth)
        told += [(truth.provider, truth.at + timedelta(minutes=6, seconds=step), b) for step, b in enumerate(bodies)]
    told.append(("aisync", START + timedelta(days=9), _aisync("sms.sent", START + timedelta(days=9), {"to": "+1"})))
    told.append(("callsync", START + timedelta(days=9), {"event": "call_logged", "data": {}}))
    # The call's id is all that is signed, so somebody could send it again with another result: the first one counts.
    forged = _synthflow_call(0, truths[0].at)[1][0] | {"analysis": {"goal": "false"}}
    told.append(("synthflow", truths[0].at + timedelta(days=1), forged))
    told.sort(key=lambda entry: entry[1])
    records: list[Record] = []
    for provider, moment, body in told:
        delivery = _delivery(provider, json.dumps(body).encode(), moment, len(records) + 1)
        records.append(delivery)
        if len(records) % 30 == 0:
            # The platform sends the same webhook again.
            records.append(_notice(moment, len(records) + 1, Verdict.REPEATED, delivery.id, 1))
    records.append(_notice(END - timedelta(days=1), len(records) + 1, Verdict.REFUSED, None, 7))
    records.append(_notice(END - timedelta(days=1), len(records) + 1, Verdict.INBOUND, None, 1))
    return truths, records


def counted() -> list[Truth]:
    """The calls that are in the numbers: neither spam nor test."""
    return [truth for truth in history()[0] if truth.excluded is None]


def filled_store(path: Path) -> Store:
    """A new store that holds the history."""
    store = Store.open(path, rules=RULES)
    applier = Applier(store, RULES, clock=lambda: micros(END))
    _, records = history()
    for first in range(0, len(records), BATCH):
        part = records[first : first + BATCH]
        applier.apply(part, [Position("journal", JOURNAL_ID, first + len(part))])
        if first < len(records) // 2:
            store.checkpoint_if_due()
    return store


def micros(moment: datetime) -> Micros:
    """A time as the rest of the program writes it."""
    return round(moment.timestamp()) * 1_000_000


def _every_call() -> list[tuple[Truth, list[JsonObject]]]:
    makers = [_synthflow_call] * 40 + [_inboundflow_call] * 16 + [_aisync_call] * 26 + [_callsync_call] * 12
    made = []
    for number, make in enumerate(makers):
        moment = _moment(number * 37 % len(makers))
        made.append(make(number, moment))
    # Half past two in Berlin happens twice that night.
    made.append(_synthflow_call(200, datetime(2025, 10, 26, 0, 30, tzinfo=UTC)))
    made.append(_synthflow_call(201, datetime(2025, 10, 26, 1, 30, tzinfo=UTC)))
    # The person of the first one calls again on the same day.
    made.append(_synthflow_call(225, datetime(2025, 10, 26, 10, 0, tzinfo=UTC)))
    # Two calls at the same moment.
    made.append(_synthflow_call(202, datetime(2025, 10, 26, 1, 30, 10, tzinfo=UTC)))
    return made


def _moment(place: int) -> datetime:
    if place < 32:
        return datetime(2025, 10, 20, 0, 10, tzinfo=UTC) + place * timedelta(hours=5, minutes=37)
    if place < 64:
        return datetime(2025, 10, 27, 10, 0, tzinfo=UTC) + (place - 32) * timedelta(hours=4, minutes=41)
    return datetime(2026, 3, 27, 20, 5, tzinfo=UTC) + (place - 64) * timedelta(hours=1, minutes=53)


def _phone(number: int) -> str:
    return f"+141555501{number % 25:02d}"


_SYNTHFLOW: list[JsonObject] = [
    {"goal": "true"}, {"goal": "true"}, {"goal": "partial"}, {"goal": "false"}, {"goal": "not_applicable"},
    {"goal": "true", "transfer": True}, {"status": "hangup_on_voicemail", "reason": "voicemail"},
    {"status": "left_voicemail", "reason": "voicemail_message_left"}, {"status": "no-answer", "reason": None},
    {"status": "busy", "reason": None}, {"status": "failed", "reason": "error"},
    {"status": "canceled", "reason": "user_canceled"}, {"status": "spam", "reason": "spam"},
    {"status": "in_progress", "reason": None}, {"goal": "true", "test": True}, {"goal": "false", "seconds": 7},
    {"status": "newly_invented", "reason": "undefined"}, {"goal": None}, {"goal": "true", "failed_transfer": True},
    {"goal": "partial", "agent": None},
]  # fmt: skip
_CONNECTIONS = {
    "completed": "person", "hangup_on_voicemail": "machine", "left_voicemail": "machine", "no-answer": "no_answer",
    "busy": "busy", "failed": "failed", "canceled": "canceled", "spam": "unknown", "in_progress": "in_progress",
    "newly_invented": "unknown",
}  # fmt: skip
_RESULTS = {"true": "met", "partial": "partly", "false": "not_met", "not_applicable": "not_applicable"}


def _synthflow_call(number: int, moment: datetime) -> tuple[Truth, list[JsonObject]]:
    story = _SYNTHFLOW[number % len(_SYNTHFLOW)]
    status, goal = str(story.get("status", "completed")), story.get("goal")
    reason = story.get("reason", "human_goodbye" if number % 3 else "agent_goodbye")
    talked = status == "completed"
    seconds = int(str(story.get("seconds", 40 + 13 * number % 300))) if talked else 0
    if "seconds" in story:
        reason = "human_ended_call"
    agent = None if "agent" in story else (ODD_AGENT if number % 4 == 0 else f"model-{number % 3}")
    direction = "inbound" if number % 5 == 0 else None
    phone = TEST_NUMBER if story.get("test") else _phone(number)
    criteria = {"goal": str(goal), "style": "partial" if number % 2 else "true"} if goal else {}
    variables = {"user_name": True, "insurance": number % 2 == 0} if talked else {}
    body: JsonObject = {
        "status": status,
        "lead": {"name": f"Person {number}", "phone_number": phone},
        "call": {
            "call_id": f"syn-{number}", "status": status, "end_call_reason": reason, "model_id": agent,
            "start_time": moment.isoformat(), "duration": seconds, "type_of_call": direction,
            "transcript": "bot: Hello." if talked else None,
        },
        "analysis": dict(criteria),
        "collected_variables": {
            name: {"value": "x" if filled else "", "collected": filled} for name, filled in variables.items()
        },
        "executed_actions": _transfer_action(story),
    }  # fmt: skip
    return (
        Truth(
            provider="synthflow", call_id=f"syn-{number}", at=moment, agent=agent, direction=direction,
            connection=_CONNECTIONS[status], duration=float(seconds),
            result=_RESULTS.get(str(goal), "unknown"),
            excluded="spam" if status == "spam" else "test" if story.get("test") else None,
            transferred=bool(story.get("transfer")), contact=phone, criteria=criteria, variables=variables,
        ),
        [body],
    )  # fmt: skip


def _transfer_action(story: JsonObject) -> JsonObject:
    if not (story.get("transfer") or story.get("failed_transfer")):
        return {}
    action: JsonObject = {"name": "to_front_desk", "action_type": "transfer_call", "return_value": {"to": "+1212555"}}
    if story.get("failed_transfer"):
        action["error_message"] = "The line is busy."
    return {"to_front_desk": action}


_INBOUNDFLOW = ("plain", "booked", "lead", "transferred", "plain", "booked", "plain", "booking only")


def _inboundflow_call(number: int, moment: datetime) -> tuple[Truth, list[JsonObject]]:
    story, phone, seconds = _INBOUNDFLOW[number % len(_INBOUNDFLOW)], _phone(number), 30 + number
    ended = moment + timedelta(seconds=seconds)
    data: JsonObject = {"call_id": f"inb-{number}", "caller_phone": phone, "caller_name": "A Caller"}
    course: JsonObject = {"duration_seconds": seconds, "started_at": _iso(moment), "ended_at": _iso(ended)}

    def event(name: str, more: JsonObject) -> JsonObject:
        return {"event": name, "timestamp": _iso(ended), "organization_id": "org-1", "data": {**data, **more}}

    bodies = {
        "transferred": [event("call.transferred", {**course, "reason": "Billing dispute"})],
        "booking only": [event("appointment.booked", {"appointment_time_start": _iso(END)})],
    }.get(story, [event("call.completed", course)])
    if story == "booked":
        bodies.append(event("appointment.booked", {"appointment_time_start": _iso(END), "calendar_event_id": "c1"}))
    if story == "lead":
        bodies.append(event("lead.created", {"interest": "price"}))
    alone = story == "booking only"
    return (
        Truth(
            provider="inboundflow", org="org-1", call_id=f"inb-{number}", direction="inbound", contact=phone,
            at=ended if alone else moment, connection="unknown" if alone else "person",
            duration=None if alone else float(seconds), transferred=story == "transferred",
            booked="book" in story, lead=story == "lead", result="met" if "book" in story else "unknown",
        ),
        bodies,
    )  # fmt: skip


_AISYNC: list[JsonObject] = [
    {"disposition": "interested", "sentiment": "positive"}, {"disposition": "not_interested", "sentiment": "negative"},
    {"disposition": "callback", "sentiment": "neutral"}, {"disposition": "interested", "booked": True},
    {"status": "no-answer"}, {"status": "voicemail"}, {"status": "busy"}, {"open": True}, {"transfer": True},
    {"disposition": "do_not_call", "sentiment": "negative"}, {"disposition": None, "agent": None},
    {"disposition": "interested", "sentiment": "negative", "inbound": True}, {"status": "failed"},
]  # fmt: skip
_HOW = {"no-answer": "no_answer", "voicemail": "machine", "busy": "busy", "failed": "failed"}


def _aisync_call(number: int, moment: datetime) -> tuple[Truth, list[JsonObject]]:
    story = _AISYNC[number % len(_AISYNC)]
    # Who wants no more calls gets some more.
    phone = "+14155550177" if story.get("disposition") == "do_not_call" or story.get("transfer") else _phone(number)
    status, disposition = story.get("status"), story.get("disposition")
    seconds, agent = 0 if status else 60 + number, None if "agent" in story else "agent_nova"
    inbound = bool(story.get("inbound"))
    data: JsonObject = {
        "call_id": f"ais-{number}", "agent_id": agent, "call_direction": "inbound" if inbound else "outbound",
        "caller_number": phone if inbound else "+12125550101", "called_number": "+12125550101" if inbound else phone,
    }  # fmt: skip
    end = moment + timedelta(seconds=seconds)
    ended: JsonObject = {
        **data, "call_duration": seconds, "call_status": status or "completed", "disposition": disposition,
        "sentiment": story.get("sentiment"),
    }  # fmt: skip
    variables = {"budget": number % 2 == 0} if disposition else {}
    if variables:
        ended["custom_fields"] = {"budget": 900 if variables["budget"] else ""}
    bodies = [_aisync("call.started", moment, data)]
    if story.get("transfer"):
        bodies.append(_aisync("call.transferred", end, {**ended, "transferred_to": "+12125550100"}))
    elif not story.get("open"):
        bodies.append(_aisync("call.ended", end, ended))
    if story.get("booked"):
        bodies.append(_aisync("appointment.scheduled", end, {**data, "appointment": {"id": "a1"}}))
        bodies.append(_aisync("lead.generated", end, {**data, "lead": {"name": "A Lead"}}))
    result = {"interested": "met", "callback": "partly", "not_interested": "not_met"}.get(str(disposition), "unknown")
    open_ = bool(story.get("open"))
    return (
        Truth(
            provider="aisync", call_id=f"ais-{number}", at=moment, agent=agent,
            direction="inbound" if inbound else "outbound",
            connection="in_progress" if open_ else _HOW[str(status)] if status else "person",
            duration=None if open_ else float(seconds), result=result, transferred=bool(story.get("transfer")),
            booked=bool(story.get("booked")), lead=bool(story.get("booked")), contact=phone, variables=variables,
            sentiment=str(story["sentiment"]) if "sentiment" in story else None,
        ),
        bodies,
    )  # fmt: skip


def _aisync(event: str, moment: datetime, data: JsonObject) -> JsonObject:
    known: JsonObject = {key: value for key, value in data.items() if value is not None}
    return {"event": event, "timestamp": _iso(moment), "data": known}


def _callsync_call(number: int, moment: datetime) -> tuple[Truth, list[JsonObject]]:
    seconds = 0 if number % 4 == 3 else 50 + number
    details: JsonObject = {
        "call_id": 5000 + number, "direction": "incoming" if number % 2 else "outgoing",
        "duration_total": str(seconds), "started_at": _iso(moment),
    }  # fmt: skip
    criteria = {"polite": "true", "followed": "partial" if number % 3 else "false"} if number % 2 else {}

    def event(name: str, data: JsonObject) -> JsonObject:
        return {"event": name, "org_id": "org-2", "timestamp": _iso(moment + timedelta(seconds=seconds)), "data": data}

    bodies = [
        event(
            "call_logged",
            {"call_details": details, "caller": {"phone": _phone(number)}, "staff": {"id": "emp-1", "name": "Elif"}},
        )
    ]
    if criteria:
        judged: JsonObject = {"status": "completed", "sentiment": "positive"}
        judged.update(criteria)
        bodies.append(event("ai_analysis", {"call_details": {"call_id": 5000 + number}, "ai_analysis": judged}))
    return (
        Truth(
            provider="callsync", org="org-2", call_id=str(5000 + number), at=moment, agent="emp-1",
            direction="inbound" if number % 2 else "outbound", connection="person" if seconds else "unknown",
            duration=float(seconds), contact=_phone(number), criteria=criteria,
        ),
        bodies,
    )  # fmt: skip


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _delivery(provider: str, body: bytes, moment: datetime, position: int) -> Delivery:
    return Delivery(
        source=provider, provider=provider, org="", body=body, headers={}, received_at=micros(moment),
        trust=named(provider).scheme.trust, journal_id=JOURNAL_ID, position=position,
    )  # fmt: skip


def _notice(moment: datetime, position: int, verdict: Verdict, delivery_id: str | None, count: int) -> Notice:
    return Notice(
        source="synthflow", provider="synthflow", verdict=verdict, detail=None, id=delivery_id, bytes=100, count=count,
        reason="signature_mismatch" if verdict is Verdict.REFUSED else None, received_at=micros(moment),
        journal_id=JOURNAL_ID, position=position,
    )  # fmt: skip
