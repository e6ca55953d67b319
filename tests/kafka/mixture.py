"""Everything that can stand in a journal, mixed at random: four platforms, any order, repeats, notices, big bodies.

What the tables must hold is counted from the list itself, by a reader of JSON that knows nothing of our code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from calls.journal import NewDelivery, NewNotice
from calls.model import Trust, Verdict, delivery_id
from calls.provider import discover
from calls.traffic import one_call

STARTED_AT = 1_750_000_000_000_000
SECOND = 1_000_000
BIG_BYTES = 700_000
"""Several records, where the largest record is what the settings allow as the least."""
SOURCES = {
    **{name: (name, "") for name in discover()},
    "acme-inboundflow": ("inboundflow", "acme"),
    "a:b%-aisync": ("aisync", "a:b%"),
}
"""Source -> provider and configured org."""
DEAD = {
    "not_json": b"this is no JSON, number %d",
    "not_an_object": b"[%d]",
    "not_utf8": b'{"event": "call.ended", "data": {"call_id": "\xff%d"}}',
    "provider_unknown": b'{"call_id": "%d"}',
}
"""Bodies that no reader understands, by the reason."""
GONE = "gone"
"""A provider that has no module any more."""


class Counts(NamedTuple):
    """What the tables must hold after a list of records."""

    accepted: int
    repeated: int
    calls: int
    events: int
    """Of calls."""
    other_events: int
    dead: Counter[str]
    notices: Counter[str]
    """By verdict: requests."""


def mixture(seed: int, calls: int) -> list[NewDelivery | NewNotice]:
    """What the door may have journalled of so many calls, and beside them; the same for the same seed."""
    dice = Random(seed)
    bodies = [body for number in range(calls) for body in _of_call(number, dice)]
    bodies += [_dead(dice) for _ in range(calls // 10)]
    bodies += [_of_no_call(dice) for _ in range(calls // 10)]
    dice.shuffle(bodies)
    records: list[NewDelivery | NewNotice] = []
    at = STARTED_AT
    for source, body in bodies:
        # Clocks are set back now and then; positions are not.
        at += dice.choice((1, 1_000, SECOND, SECOND, -3 * SECOND))
        records.append(_delivery(source, body, at))
        if dice.random() < 0.06:
            again = dice.choice([record for record in records[-200:] if isinstance(record, NewDelivery)])
            records.append(_delivery(again.source, again.body, at + 1))
        if dice.random() < 0.06:
            records.append(_notice(dice, at + 2))
    return records


def counts(records: Sequence[NewDelivery | NewNotice]) -> Counts:
    """Counted by plain means."""
    deliveries = [record for record in records if isinstance(record, NewDelivery)]
    distinct = {(record.source, record.body) for record in deliveries}
    reasons = Counter(reason for source, body in distinct if (reason := _reason(source, body)) is not None)
    understood = [(source, json.loads(body)) for source, body in distinct if _reason(source, body) is None]
    notices: Counter[str] = Counter()
    for record in records:
        if isinstance(record, NewNotice):
            notices[record.verdict] += record.count
    return Counts(
        accepted=len(distinct),
        repeated=len(deliveries) - len(distinct),
        calls=len({(*SOURCES[source], call_id) for source, said in understood if (call_id := _call_id(said))}),
        events=sum(_call_id(said) is not None for _, said in understood),
        other_events=sum(_call_id(said) is None for _, said in understood),
        dead=reasons,
        notices=notices,
    )


def _call_id(said: dict[str, dict[str, object]]) -> object:
    if "call" in said:
        return said["call"]["call_id"]
    details = said["data"].get("call_details")
    return details["call_id"] if isinstance(details, dict) else said["data"].get("call_id")


def _of_call(number: int, dice: Random) -> list[tuple[str, bytes]]:
    source = dice.choice(list(SOURCES))
    provider = discover()[SOURCES[source][0]]
    ended_at = STARTED_AT - dice.randrange(40 * 86_400) * SECOND
    posts = [post.body for post in one_call(provider, dice=dice, ended_at=ended_at)]
    if number % 40 == 0:
        posts[0] = _grown(posts[0], dice)
    return [(source, body) for body in posts]


def _grown(body: bytes, dice: Random) -> bytes:
    """With a long text somewhere: where nobody looks for it, or in a field that calls have."""
    said = json.loads(body)
    inner = said.get("call") or said["data"]
    inner[dice.choice(("filler", "transcript", "summary"))] = dice.randbytes(BIG_BYTES // 2).hex()
    return json.dumps(said).encode()


def _of_no_call(dice: Random) -> tuple[str, bytes]:
    """Of an agent, or a booking or lead that names no call."""
    event = dice.choice(("agent.updated", "appointment.scheduled", "lead.generated"))
    person = {"name": f"Lead {dice.randrange(10**9)}", "phone": "+12125550100"}
    said = {"event": event, "timestamp": STARTED_AT // 1000 + dice.randrange(10**6), "data": {"lead": person}}
    return dice.choice(("aisync", "a:b%-aisync")), json.dumps(said).encode()


def _dead(dice: Random) -> tuple[str, bytes]:
    reason = dice.choice(list(DEAD))
    body = DEAD[reason] % dice.randrange(10**9)
    if reason == "not_json" and dice.random() < 0.1:
        body += b"!" * BIG_BYTES
    return (GONE if reason == "provider_unknown" else dice.choice(list(SOURCES))), body


def _reason(source: str, body: bytes) -> str | None:
    if source == GONE:
        return "provider_unknown"
    for reason, start in (("not_json", b"this"), ("not_an_object", b"[")):
        if body.startswith(start):
            return reason
    return "not_utf8" if b"\xff" in body else None


def _delivery(source: str, body: bytes, at: int) -> NewDelivery:
    provider, org = SOURCES.get(source, (GONE, ""))
    known = discover().get(provider)
    return NewDelivery(
        source=source, provider=provider, org=org, body=body,
        headers={"content-type": "application/json", "user-agent": "sender/ü"}, received_at=at,
        trust=Trust.D if known is None else known.scheme.trust, id=delivery_id(source, body),
    )  # fmt: skip


def _notice(dice: Random, at: int) -> NewNotice:
    verdict = dice.choice((Verdict.REFUSED, Verdict.REPEATED, Verdict.INBOUND))
    refused = verdict is Verdict.REFUSED
    return NewNotice(
        source=dice.choice(list(SOURCES)), provider="aisync", verdict=verdict,
        reason="signature_wrong" if refused else None, detail="The signature is another one." if refused else None,
        id=None if refused else dice.randbytes(32).hex(), bytes=dice.randrange(2_000), count=dice.randint(1, 5),
        received_at=at,
    )  # fmt: skip
