"""Stores for tests: events and calls to put into them, and everything that is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from analytics.store import Batch, CallChange, DeliveryRow, Position, Store
from calls.model import Call, CallEvent, CallKey, Micros, Rules, TimelineEvent, Trust, Verdict, delivery_id

NOON: Micros = 1_780_315_200_000_000
SECOND = 1_000_000
JOURNAL = "4f2c0d3e-0000-4000-8000-000000000001"
NOT_COMPARED = {"deliveries": "applied_at"}
"""What differs between stores of the same contents; the table `positions` does too."""


def event_of(number: int, call_id: str | None, *, received_at: Micros | None = None, **said: object) -> TimelineEvent:
    """The event at that position of the journal, saying something that no other position says."""
    text = f'{{"call_id": "{call_id}", "number": {number}}}'
    at = NOON + number * SECOND if received_at is None else received_at
    plain = CallEvent(event="call.ended", call_id=call_id, org="acme", happened_at=at)
    return TimelineEvent(
        event_id=delivery_id("aisync", text.encode()),
        provider="aisync",
        source="aisync",
        trust=Trust.B,
        received_at=at,
        journal_id=JOURNAL,
        position=number,
        event=msgspec.structs.replace(plain, **said),
        data=text,
        raw=None,
        source_org="acme",
        headers={"content-type": "application/json"},
    )


def call_of(events: Sequence[TimelineEvent], **fields: object) -> Call:
    """A call that has these events; fields not given are as empty as can be."""
    first = min(timed.received_at for timed in events)
    call: Call = {
        "provider": events[0].provider, "org": events[0].event.org, "call_id": str(events[0].event.call_id),
        "counted_at": first, "agent_id": None, "agent_name": None, "campaign": None, "direction": None, "status": None,
        "end_call_reason": None, "custom_end_call_reason": None, "connection": "person", "ended_by": "unknown",
        "result": "unknown", "excluded": None, "transferred": False, "transferred_to": None, "transfer_reason": None,
        "started_at": None, "ended_at": None, "duration_s": None, "caller_phone": None, "callee_phone": None,
        "caller_name": None, "caller_email": None, "summary": None, "transcript": None, "recording_url": None,
        "sentiment": None, "disposition": None, "intent": None, "urgency": None, "tags": None, "cost_usd": None,
        "trust": "B", "conflict": False, "first_received_at": first,
        "last_received_at": max(timed.received_at for timed in events), "event_count": len(events),
        "analysis": [], "variables": [], "actions": [], "appointments": [], "leads": [],
    }  # fmt: skip
    return cast(Call, {**call, **fields})


def key_of(call: Call) -> CallKey:
    return CallKey(call["provider"], call["org"], call["call_id"])


def delivery_of(timed: TimelineEvent) -> DeliveryRow:
    return DeliveryRow(
        id=timed.event_id,
        position=timed.position,
        journal_id=timed.journal_id,
        source=timed.source,
        provider=timed.provider,
        verdict=Verdict.ACCEPTED,
        reason=None,
        trust=timed.trust,
        bytes=len(timed.data),
        count=1,
        received_at=timed.received_at,
    )


def batch_of(events: Sequence[TimelineEvent], changes: Sequence[CallChange], **more: object) -> Batch:
    """A batch that takes the journal to the last of its events."""
    position = Position("journal", JOURNAL, max(timed.position for timed in events))
    batch = Batch(
        positions=[position],
        deliveries=[delivery_of(timed) for timed in events],
        events=list(events),
        changes=list(changes),
        applied_at=NOON,
    )
    return msgspec.structs.replace(batch, **more)


def new_calls(numbers: Sequence[int], **fields: object) -> Batch:
    """A batch of new calls of one event each, named by position."""
    events = [event_of(number, f"call-{number}") for number in numbers]
    calls = [call_of([timed], **fields) for timed in events]
    return batch_of(events, [CallChange(key=key_of(call), before=None, after=call) for call in calls])


def put_call(store: Store, number: int, *, received_at: Micros, **fields: object) -> Call:
    """Store one new call, whose one event stands at that position of the journal."""
    event = event_of(number, f"call-{number}", received_at=received_at)
    call = call_of([event], **fields)
    store.apply(batch_of([event], [CallChange(key=key_of(call), before=None, after=call)]))
    return call


def everything(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """All public columns of all public tables that are compared between stores, rows in an order of their own."""
    found = {}
    with store.cursor() as cursor:
        tables = cursor.execute('SELECT DISTINCT "table" FROM schema_columns').fetchall()
        for (table,) in tables:
            if table != "positions":
                left_out = NOT_COMPARED.get(table)
                text = f"SELECT * EXCLUDE ({left_out}) FROM {table}" if left_out else f"FROM {table}"
                found[table] = cursor.execute(f"{text} ORDER BY ALL").fetchall()
    return found


def rows(store: Store, text: str, parameters: Mapping[str, object] | None = None) -> list[tuple[object, ...]]:
    with store.cursor() as cursor:
        return cursor.execute(text, parameters).fetchall()


def python(text: str, *arguments: str) -> str:
    """What another process prints."""
    command = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, cwd=Path(__file__).parents[1]
    )
    return done.stdout


def apply_until_stopped(path: Path, end: int | None) -> None:
    """Apply batches of ten calls as fast as they go, saying each position after its commit; die without closing."""
    store = Store.open(path, rules=Rules())
    number = store.positions().get(("journal", JOURNAL), 0)
    while end is None or number < end:
        store.apply(new_calls(range(number + 1, number + 11)))
        number += 10
        print(number, flush=True)
    os._exit(0)


if __name__ == "__main__":
    apply_until_stopped(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
