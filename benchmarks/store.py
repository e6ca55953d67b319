"""What does a batch cost the store, empty and with a million or more calls in it?

    python benchmarks/store.py                      # empty, then 1,000,000 stored calls
    python benchmarks/store.py --stored 5000000     # empty, then that many

A delivery here is a finished call with a body of 1.7 KB, 4 criteria and 4 variables; one in ten changes a call that is
there. The tables are filled by SQL in the order of time. A lone delivery's time includes looking up its call.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from analytics.store import Batch, CallChange, DeliveryRow, Position, Store, StoredCall
from calls.model import (
    Analysis,
    Call,
    CallEvent,
    CallKey,
    Rules,
    Stage,
    TimelineEvent,
    Trust,
    Variable,
    Verdict,
    delivery_id,
)

START = 1_760_000_000_000_000
SECOND = 1_000_000
AGENTS, CRITERIA, NAMES = 20, ("goal", "polite", "complete", "correct"), ("name", "date", "reason", "callback")
STATUSES = ("completed", "no-answer", "busy", "hangup_on_voicemail")
JOURNAL = "11111111-1111-1111-1111-111111111111"

FILL_CALLS = """
    INSERT INTO kept.calls SELECT
        hash(i)::HUGEINT - 9223372036854775808, 'synthflow', '', 'stored-' || i, t, 'agent-' || i % 20, 'Agent',
        NULL, if(i % 3 = 0, 'inbound', 'outbound'), s, 'human_goodbye', NULL,
        ['person', 'no_answer', 'busy', 'machine'][1 + (hash(i) % 4)::BIGINT], 'caller',
        ['met', 'not_met'][1 + (hash(i, 1) % 2)::BIGINT],
        NULL, false, NULL, NULL, t, t + INTERVAL 1 MINUTE, (hash(i, 2) % 300)::DOUBLE, '+49301234' || i % 10000, NULL,
        NULL, NULL, 'A short summary of call ' || i, repeat('said ' || i || ' ', 20), NULL, NULL, NULL, NULL, NULL,
        NULL, 0.1, 'C', false, t, t, 1,
        [{'criterion': c, 'result': if(hash(i, c) % 3 = 0, 'false', 'true'), 'feedback': 'because'}
            FOR c IN ['goal', 'polite', 'complete', 'correct']],
        [{'agent_id': 'agent-' || i % 20, 'name': n, 'value': '"v"', 'value_text': 'v', 'value_number': NULL,
            'collected': true} FOR n IN ['name', 'date', 'reason', 'callback']],
        [], [], []
    FROM (
        SELECT i, make_timestamp($first + i * $gap) AS t,
            ['completed', 'no-answer', 'busy', 'hangup_on_voicemail'][1 + (hash(i) % 4)::BIGINT] AS s
        FROM range($from, $to) AS r(i)
    )"""
FILL_EVENTS = """
    INSERT INTO kept.events SELECT
        hash(i)::HUGEINT - 9223372036854775808, sha256('stored-' || i), 'synthflow', '', 'stored-' || i, 'synthflow',
        'call_completed', t, t, 'filled', i + 1, NULL, 'C', '{"said": "' || repeat('x' || i, 20) || '"}', NULL, '', '{}'
    FROM (SELECT i, make_timestamp($first + i * $gap) AS t FROM range($from, $to) AS r(i))"""
FILL_DELIVERIES = """
    INSERT INTO kept.deliveries SELECT
        hash(i, 9)::HUGEINT - 9223372036854775808, sha256('stored-' || i), 'filled', i + 1, 'synthflow', 'synthflow',
        'accepted', NULL, 'C', 1700, 1, t, t
    FROM (SELECT i, make_timestamp($first + i * $gap) AS t FROM range($from, $to) AS r(i))"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=None, help="where to keep the files (a temporary folder)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        empty = measure(Path(folder) / "empty.duckdb", 0, asked.batches)
        full = measure(Path(folder) / "full.duckdb", asked.stored, asked.batches)
    print(f"rate with {asked.stored:,} stored calls, as a share of that on an empty store: {empty / full:.2f}")


def measure(path: Path, stored: int, batches: int) -> float:
    """Print what was measured; CPU microseconds a delivery."""
    print(f"--- {stored:,} stored calls")
    fill(path, stored)
    began = time.perf_counter()
    store = Store.open(path, rules=Rules())
    print(f"open: {time.perf_counter() - began:.2f} s, file {path.stat().st_size / 1e6:.0f} MB")
    work = traffic()
    cost = throughput(store, work, batches)
    lone(store, work)
    began = time.perf_counter()
    found = store.verify()
    print(f"verify: {time.perf_counter() - began:.2f} s, {len(found)} findings {found[:2]}")
    store.close()
    return cost


def fill(path: Path, stored: int) -> None:
    store = Store.open(path, rules=Rules())
    step = 250_000
    with store.cursor() as cursor:
        for first in range(0, stored, step):
            told = {"first": START - stored * 10 * SECOND, "gap": 10 * SECOND}
            told |= {"from": first, "to": min(first + step, stored)}
            for statement in (FILL_CALLS, FILL_EVENTS, FILL_DELIVERIES):
                cursor.execute(statement, told)
        if stored:
            recounts = Path(__file__).parent.parent.joinpath("analytics", "rollups.sql").read_text()
            for name in ("calls", "analysis", "variables"):
                text = recounts.split(f"-- name: recount_{name}\n")[1].split("-- name:")[0]
                cursor.execute(f"INSERT INTO kept.rollup_{name} {text}")
            cursor.execute("CHECKPOINT")
    store.close()


def throughput(store: Store, work: Iterator[TimelineEvent], batches: int) -> float:
    """CPU microseconds a delivery in `apply`, without an idle moment, so that checkpoints come by themselves."""
    size, walls, applied, looked_up = 1000, [], 0.0, 0.0
    for _ in range(batches):
        events = work_of(work, size)
        keys = [CallKey(timed.provider, timed.event.org, str(timed.event.call_id)) for timed in events]
        cpu = time.process_time()
        store.known([timed.event_id for timed in events])
        stored = store.stored_calls(keys)
        looked_up += time.process_time() - cpu
        batch = batch_of(events, keys, stored)
        cpu, began = time.process_time(), time.perf_counter()
        store.apply(batch)
        applied += time.process_time() - cpu
        walls.append(time.perf_counter() - began)
    cost = applied / (batches * size) * 1e6
    print(f"{size} deliveries a batch: {cost:.1f} us CPU each in apply, of looking up before it "
          f"{looked_up / (batches * size) * 1e6:.1f} us")  # fmt: skip
    walls.sort()
    print(f"  apply p50 {walls[len(walls) // 2] * 1e3:.0f} ms, p90 {walls[int(len(walls) * 0.9)] * 1e3:.0f} ms, "
          f"longest (checkpoints) " + ", ".join(f"{wall * 1e3:.0f} ms" for wall in walls[-3:]))  # fmt: skip
    began = time.perf_counter()
    store.checkpoint_if_due()
    print(f"  then an idle moment: {(time.perf_counter() - began) * 1e3:.0f} ms")
    return cost


def lone(store: Store, work: Iterator[TimelineEvent]) -> None:
    walls = []
    for _ in range(300):
        events = work_of(work, 1)
        keys = [CallKey(timed.provider, timed.event.org, str(timed.event.call_id)) for timed in events]
        began = time.perf_counter()
        store.known([timed.event_id for timed in events])
        store.apply(batch_of(events, keys, store.stored_calls(keys)))
        walls.append(time.perf_counter() - began)
    walls.sort()
    print(f"one delivery a batch: p50 {walls[150] * 1e3:.1f} ms, p99 {walls[297] * 1e3:.1f} ms")


def work_of(work: Iterator[TimelineEvent], size: int) -> list[TimelineEvent]:
    return [next(work) for _ in range(size)]


def batch_of(events: list[TimelineEvent], keys: list[CallKey], stored: dict[CallKey, StoredCall]) -> Batch:
    """What the stream would make of the events and what is stored of their calls."""
    before = {key: held.call for key, held in stored.items()}
    changes = [
        CallChange(key=key, before=before.get(key), after=folded(timed, before.get(key)))
        for key, timed in dict(zip(keys, events, strict=True)).items()
    ]
    rows = [
        DeliveryRow(id=timed.event_id, position=timed.position, journal_id=JOURNAL, source="synthflow",
                    provider="synthflow", verdict=Verdict.ACCEPTED, reason=None, trust=Trust.C, bytes=len(timed.data),
                    count=1, received_at=timed.received_at)
        for timed in events
    ]  # fmt: skip
    return Batch(
        positions=[Position("journal", JOURNAL, events[-1].position)],
        deliveries=rows,
        events=events,
        changes=changes,
        applied_at=events[-1].received_at,
    )


def traffic() -> Iterator[TimelineEvent]:
    number = 0
    while True:
        number += 1
        # One in ten speaks of a call of an earlier batch.
        call = number - 1703 if number % 10 == 0 and number > 2000 else number
        at = START + number * SECOND // 10
        text = json.dumps({"call_id": f"live-{call}", "n": number, "transcript": f"So {number} was said. " * 80})[:1698]
        yield TimelineEvent(
            event_id=delivery_id("synthflow", text.encode()),
            provider="synthflow",
            source="synthflow",
            trust=Trust.C,
            received_at=at,
            journal_id=JOURNAL,
            position=number,
            event=CallEvent(
                event="call_completed", call_id=f"live-{call}", org="", happened_at=at, stage=Stage.FINISHED
            ),
            data=json.dumps(text),
            raw=None,
            source_org="",
            headers={"content-type": "application/json", "user-agent": "x"},
        )


def folded(timed: TimelineEvent, before: Call | None) -> Call:
    digest = hashlib.blake2b(str(timed.event.call_id).encode()).digest()
    agent = f"agent-{digest[0] % AGENTS}"
    analysis: list[Analysis] = [
        {"criterion": name, "result": ("true", "false", "partial")[digest[i] % 3], "feedback": "because it was so"}
        for i, name in enumerate(CRITERIA, 1)
    ]
    variables: list[Variable] = [
        {"agent_id": agent, "name": name, "value": '"y"', "value_text": "y", "value_number": None, "collected": True}
        for name in NAMES
    ]
    first = timed.received_at if before is None else before["first_received_at"]
    return {
        "provider": "synthflow", "org": "", "call_id": str(timed.event.call_id), "counted_at": first,
        "agent_id": agent, "agent_name": "Agent", "campaign": None,
        "direction": ("inbound", "outbound")[digest[5] % 2], "status": STATUSES[digest[6] % 4],
        "end_call_reason": "human_goodbye", "custom_end_call_reason": None, "connection": "person",
        "ended_by": "caller", "result": "met", "excluded": None, "transferred": False, "transferred_to": None,
        "transfer_reason": None, "started_at": first, "ended_at": first + 60 * SECOND, "duration_s": 60.0 + digest[7],
        "caller_phone": "+4930123456", "callee_phone": None, "caller_name": None, "caller_email": None,
        "summary": "They talked and agreed.", "transcript": timed.data[:800], "recording_url": None,
        "sentiment": None, "disposition": None, "intent": None, "urgency": None, "tags": None, "cost_usd": 0.1,
        "trust": "C", "conflict": False, "first_received_at": first, "last_received_at": timed.received_at,
        "event_count": 1 if before is None else before["event_count"] + 1,
        "analysis": analysis, "variables": variables, "actions": [], "appointments": [], "leads": [],
    }  # fmt: skip


if __name__ == "__main__":
    main()
