"""What the four platforms send, and how: bodies, signatures and rules of retrying, written from their documents.

Nothing here is the product's: a mistake in how Calltally reads or signs must not hide behind the same mistake here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

SECRETS = {
    "synthflow": "kP2vX9wQ4mT7cL1z", "inboundflow": "fB6nR3sY8hJ5gD0a", "aisync": "oU1eW7iK9pZ2xV4q",
    "callsync": "tM5rC8lN3yH6jS0b",
}  # fmt: skip
"""By source; each bears its platform's name."""

Call = tuple[str, str, str]
"""Platform, org and id of a call."""
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One body to deliver."""

    source: str
    body: bytes
    kind: str
    """genuine, unreadable (genuine, and not JSON), forged, or inbound (a call that waits for an answer)."""
    call: Call | None
    sign: Callable[[], Headers]
    """The headers of one attempt."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.source.encode() + b"\0" + self.body).hexdigest()


RETRIES_S = {
    "synthflow": (),  # none that its documents promise
    "inboundflow": (),  # none; ten failures in a row switch the webhook off
    "aisync": (30.0, 120.0, 480.0, 1920.0),
    "callsync": (),  # none that its documents promise
}
"""When a platform tries again, each in seconds after the attempt before."""
OFF_AFTER = {"inboundflow": 10}
"""How many failures in a row make a platform stop sending."""
TIMEOUT_S = 10.0


LONG_BYTES = (250_000, 800_000)
"""A long call's transcript: more than some brokers take in one record."""


def webhooks(dice: Random, only: str = "", *, long: bool = False) -> Iterator[Webhook]:
    """An endless stream, the events of a call near each other but in any order; of one platform where it is named.

    With `long` one of a few hundred calls has a transcript of `LONG_BYTES`.
    """
    while True:
        waiting: list[Webhook] = []
        for _ in range(8):
            waiting += _of_one_call(dice, only)
        if long and dice.random() < 0.05:
            waiting += _synthflow(dice, dice.getrandbits(120), words=dice.randrange(*LONG_BYTES) // 4)
        dice.shuffle(waiting)
        for webhook in waiting:
            yield webhook
            fate = dice.random()
            if fate < 0.05:
                yield webhook  # sent twice, as every platform may
            elif fate < 0.12:
                yield _forged(webhook, dice)
            elif fate < 0.14:
                yield _inbound(dice)
            elif fate < 0.16:
                yield _unreadable(dice)


def _of_one_call(dice: Random, only: str) -> list[Webhook]:
    platform = only or dice.choice(list(SECRETS))
    number = dice.getrandbits(120)
    return {"synthflow": _synthflow, "inboundflow": _inboundflow, "aisync": _aisync, "callsync": _callsync}[platform](
        dice, number
    )


def _synthflow(dice: Random, number: int, *, words: int = 0) -> list[Webhook]:
    call_id = str(uuid.UUID(int=number))
    outcome = dice.choice(["true", "false", "partial", "not_applicable"])
    body = {
        "status": "completed",
        "lead": {"name": "Ada Brandt", "phone_number": _phone(dice)},
        "call": {
            "status": dice.choice(["completed", "no-answer", "busy", "hangup_on_voicemail"]), "call_id": call_id,
            "model_id": f"agent-{dice.randrange(4)}", "duration": dice.randrange(5, 400),
            "start_time": _iso(dice), "end_call_reason": dice.choice(["human_goodbye", "agent_goodbye", "timeout"]),
            "transcript": "bot: Hello.\nhuman: " + "yes " * (words or dice.randrange(400)),
        },
        "analysis": {"goal": outcome, "goal_feedback": "as heard"},
        "collected_variables": {"user_name": {"value": "Ada", "collected": dice.random() < 0.8}},
    }  # fmt: skip
    return [_genuine("synthflow", body, ("synthflow", "", call_id))]


def _inboundflow(dice: Random, number: int) -> list[Webhook]:
    call_id, org = str(uuid.UUID(int=number)), dice.choice(["", "org-east"])
    call = ("inboundflow", org, call_id)

    def told(event: str, **data: object) -> Webhook:
        body: dict[str, object] = {
            "event": event, "timestamp": _iso(dice), "delivery_id": str(uuid.UUID(int=dice.getrandbits(128))),
            "data": {"call_id": call_id, "caller_phone": _phone(dice), **data},
        }  # fmt: skip
        if org:
            body["organization_id"] = org
        return _genuine("inboundflow", body, call)

    events = [told("call.completed", duration_seconds=dice.randrange(5, 400), summary="asked for a price")]
    if dice.random() < 0.4:
        starts = _iso(dice)
        events.append(told("appointment.booked", appointment_time_start=starts, calendar_event_id=f"c-{number:x}"))
    if dice.random() < 0.3:
        events.append(told("lead.created", interest="brakes"))
    return events


def _aisync(dice: Random, number: int) -> list[Webhook]:
    call_id = f"call_{number:x}"

    def told(event: str, **data: object) -> Webhook:
        body = {
            "event": event, "timestamp": _iso(dice), "webhook_id": "wh_1",
            "data": {"call_id": call_id, "agent_id": "agent_nova", "call_direction": "outbound", **data},
        }  # fmt: skip
        return _genuine("aisync", body, ("aisync", "", call_id))

    ended = {"call_duration": dice.randrange(5, 400), "call_status": "completed"}
    if dice.random() < 0.5:
        ended["custom_fields"] = {"lead_score": dice.randrange(100)}
    return [told("call.started", call_status="ringing"), told("call.ended", **ended)]


def _callsync(dice: Random, number: int) -> list[Webhook]:
    call_id, org = number >> 70, "org_haas"
    call = ("callsync", org, str(call_id))

    def told(event: str, details: dict[str, object], **data: object) -> Webhook:
        body = {
            "event": event, "type": "incoming", "org_id": org, "timestamp": _iso(dice), "payload_id": f"wh_{event}_1",
            "data": {"call_details": {"call_id": call_id, **details}, **data},
        }  # fmt: skip
        return _genuine("callsync", body, call)

    duration = str(dice.randrange(0, 400))
    return [
        told("call_logged", {"direction": "incoming", "duration_total": duration, "started_at": _iso(dice)}),
        told("recording_updated", {"recording_url": "https://recordings.example.com/r"}),
        told("ai_analysis", {}, ai_analysis={"status": "completed", "polite": dice.random() < 0.7}),
    ]


def _genuine(source: str, body: Mapping[str, object], call: Call) -> Webhook:
    raw = json.dumps(body, separators=(",", ":")).encode()
    return Webhook(source, raw, "genuine", call, lambda: signature(source, raw, SECRETS[source], call[2]))


def _unreadable(dice: Random) -> Webhook:
    source = dice.choice(["inboundflow", "aisync", "callsync"])
    raw = b'{"event": "call.ended", ' + dice.randbytes(40).hex().encode()
    return Webhook(source, raw, "unreadable", None, lambda: signature(source, raw, SECRETS[source], ""))


def _inbound(dice: Random) -> Webhook:
    raw = json.dumps({"event": "call_inbound", "call_inbound": {"from_number": _phone(dice)}}).encode()
    return Webhook("synthflow", raw, "inbound", None, dict)


def _forged(genuine: Webhook, dice: Random) -> Webhook:
    """What somebody without the secret can make of a webhook."""
    source, raw = genuine.source, genuine.body
    call_id = genuine.call[2] if genuine.call else ""
    another = str(uuid.UUID(int=dice.getrandbits(128)))
    changed = raw.replace(call_id.encode(), another.encode()) if call_id else raw + b" "
    right = SECRETS[source]

    def altered() -> Headers:
        found = dict(signature(source, raw, right, call_id))
        name = next(iter(found))
        value = found[name]
        return {**found, name: value[:-3] + ("A" if value[-3] != "A" else "B") + value[-2:]}

    other = SECRETS[dice.choice([name for name in SECRETS if name != source])]
    ways: list[tuple[bytes, Callable[[], Headers]]] = [
        (changed, lambda: signature(source, raw, right, call_id)),
        (changed, lambda: signature(source, changed, other, another)),
        (changed, lambda: signature(source, changed, "", another)),
        (changed, dict),
        (raw + b" ", altered),
    ]
    if source == "inboundflow":
        ways.append((changed, lambda: signature(source, changed, right, "", sent_at=time.time() - 3_600)))
    body, sign = dice.choice(ways)
    return Webhook(source, body, "forged", None, sign)


def signature(source: str, body: bytes, secret: str, call_id: str, *, sent_at: float | None = None) -> Headers:
    """The headers by which a platform proves a body."""
    key = secret.encode()
    if source == "synthflow":
        mac = hmac.new(key, call_id.encode(), hashlib.sha256).digest()
        return {"Synthflow-Signature": base64.b64encode(mac).decode()}
    if source == "inboundflow":
        stamp = str(int(time.time() if sent_at is None else sent_at))
        mac_hex = hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        return {"X-InboundFlow-Signature": f"sha256={mac_hex}", "X-InboundFlow-Timestamp": stamp}
    name = "X-Webhook-Signature" if source == "aisync" else "X-CallSync-Signature"
    return {name: hmac.new(key, body, hashlib.sha256).hexdigest()}


def _iso(dice: Random) -> str:
    moment = time.time() - dice.uniform(0, 7_200)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{dice.randrange(1000):03d}Z"


def _phone(dice: Random) -> str:
    return f"+1415555{dice.randrange(100, 200):04d}"
