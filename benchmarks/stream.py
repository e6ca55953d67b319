"""How many deliveries a second does one core bring from the journal to committed rows and roll-ups?

    python -m benchmarks.stream                      an empty store
    python -m benchmarks.stream --stored 5000000     then a store that holds so many calls

The mix: bodies of 1.7 KB, 60 % Synthflow with 4 criteria and 4 variables, the rest evenly of the other three; 10 %
repeats, 5 % second events of earlier calls. A worker of its own process applies it; CPU is all of that process, from
its first record to its last commit.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from analytics.store import Store
from benchmarks import store as store_benchmark
from calls.journal import Append, Journal, NewDelivery
from calls.model import Rules, Trust, delivery_id
from streams.collector import rare_collections
from streams.worker import Worker

BODY_BYTES = 1_700
SAID = "human: what does it cost? bot: let me look that up for you. "
START, STEP = 1_790_000_000_000_000, 20_000
"""When the first arrives, and the time between two, in microseconds."""
REPEATS, SECOND_EVENTS = 0.10, 0.05
IN_FLIGHT = 5_000


def mix(count: int, seed: int, *, after: int = 0) -> list[NewDelivery]:
    """The deliveries of the mix, in the order of their arrival, behind so many others."""
    dice = random.Random(seed)
    made: list[NewDelivery] = []
    calls: list[tuple[str, str]] = []
    for number in range(count):
        at = START + (after + number) * STEP
        luck = dice.random()
        if luck < REPEATS and made:
            earlier = dice.choice(made[-20_000:])
            made.append(_delivery(earlier.provider, earlier.body, at))
        elif luck < REPEATS + SECOND_EVENTS and calls:
            provider, call_id = dice.choice(calls[-5_000:])
            made.append(_delivery(provider, _second(provider, call_id, number), at))
        else:
            provider = "synthflow" if dice.random() < 0.6 else dice.choice(("inboundflow", "aisync", "callsync"))
            call_id = str(10_000_000 + number) if provider == "callsync" else f"{seed:04}-{number:012}"
            if provider != "synthflow":
                calls.append((provider, call_id))
            made.append(_delivery(provider, _first(provider, call_id, number, dice), at))
    return made


def journal_of(deliveries: list[NewDelivery], path: Path) -> None:
    """Journal them."""
    slots = threading.Semaphore(IN_FLIGHT)

    def committed(batch: list[Append], failure: object) -> None:
        if failure is not None:
            raise RuntimeError(failure)
        slots.release(len(batch))

    journal = Journal(path, on_committed=committed)
    for delivery in deliveries:
        slots.acquire()
        journal.append(Append(delivery))
    journal.close()


def _first(provider: str, call_id: str, number: int, dice: random.Random) -> bytes:
    ended = f"2026-09-{1 + number // 200_000 % 28:02}T{number // 8_000 % 24:02}:{number // 130 % 60:02}:07"
    length = dice.randint(10, 400)
    agent, phone, said = f"agent-{number % 20}", f"+1212555{number % 10_000:04}", ""
    body: dict[str, object]
    if provider == "synthflow":
        reason = dice.choice(("agent_goodbye", "human_goodbye", "custom_end_call", "max_duration"))
        body = {
            "status": "completed",
            "lead": {"name": "Ada Brandt", "phone_number": phone, "prompt_variables": {}},
            "call": {
                "status": "completed", "end_call_reason": reason, "model_id": agent, "timezone": "Europe/Berlin",
                "call_id": call_id, "duration": length, "start_time": f"{ended}+02:00", "transcript": said,
            },
            "executed_actions": {},
            "analysis": {
                name: dice.choice(("true", "false", "partial")) for name in ("goal", "steps", "style", "knowledge")
            } | {f"{name}_feedback": "because" for name in ("goal", "steps", "style", "knowledge")},
            "collected_variables": {
                name: {"value": "something", "collected": True} for name in ("name", "date", "reason", "callback")
            },
        }  # fmt: skip
        return _padded(body, "call", "transcript")
    if provider == "inboundflow":
        data = {
            "call_id": call_id, "caller_phone": phone, "caller_name": "Ada Brandt", "duration_seconds": length,
            "summary": said, "intent": "book appointment", "urgency": "medium", "ended_at": f"{ended}Z",
        }  # fmt: skip
        body = {"event": "call.completed", "timestamp": f"{ended}.480Z", "delivery_id": f"d-{number}", "data": data}
        return _padded(body, "data", "summary")
    if provider == "aisync":
        data = {
            "call_id": call_id, "agent_id": agent, "caller_number": phone, "called_number": "+13125550142",
            "call_duration": length, "call_status": "completed", "call_direction": "outbound", "transcription": said,
            "sentiment": "positive", "disposition": "interested", "custom_fields": {"lead_score": number % 100},
        }  # fmt: skip
        body = {"event": "call.ended", "timestamp": f"{ended}.123Z", "webhook_id": "wh_1", "data": data}
        return _padded(body, "data", "transcription")
    details = {
        "call_id": int(call_id), "direction": "incoming", "duration_total": str(length), "started_at": f"{ended}Z",
        "recording_url": "",
    }  # fmt: skip
    body = {
        "event": "call_logged", "timestamp": f"{ended}.000Z",
        "data": {"call_details": details, "caller": {"phone": phone}, "staff": {"id": agent}},
    }  # fmt: skip
    return _padded(body, "data", "note")


def _second(provider: str, call_id: str, number: int) -> bytes:
    events = {"inboundflow": "appointment.booked", "aisync": "appointment.scheduled", "callsync": "ai_analysis"}
    data: dict[str, object] = {"call_id": call_id, "appointment_time_start": "2026-10-01T11:00:00Z"}
    if provider == "callsync":
        data = {"call_details": {"call_id": int(call_id)}, "ai_analysis": {"status": "completed", "polite": True}}
    at = "2026-10-01T10:00:00.000Z"
    return _padded({"event": events[provider], "timestamp": at, "number": number, "data": data}, "data", "note")


def _padded(body: dict[str, object], part: str, name: str) -> bytes:
    held = body[part]
    assert isinstance(held, dict)
    missing = BODY_BYTES - len(json.dumps(body, separators=(",", ":")))
    held[name] = (SAID * (missing // len(SAID) + 1))[: max(0, missing - len(name) - 6)]
    return json.dumps(body, separators=(",", ":")).encode()


def _delivery(provider: str, body: bytes, at: int) -> NewDelivery:
    return NewDelivery(
        source=provider, provider=provider, org="", body=body, headers={}, received_at=at, trust=Trust.B,
        id=delivery_id(provider, body),
    )  # fmt: skip


def _apply(folder: Path) -> None:
    """In a process of its own: apply the journal, print CPU and wall microseconds a delivery."""
    path = folder / "store.duckdb"
    worker = Worker(folder / "journal.sqlite", lambda: Store.open(path, rules=Rules()), Rules(), store_path=path)
    worker.open()
    cpu, wall = time.process_time(), time.perf_counter()
    with rare_collections():
        thread = threading.Thread(target=worker.run)
        thread.start()
        while worker.state.tally.records < int(sys.argv[3]):
            time.sleep(0.02)
        used, took = time.process_time() - cpu, time.perf_counter() - wall
        worker.stop()
        thread.join()
    worker.close()
    print(json.dumps({"cpu_s": used, "wall_s": took}))


def _measure(deliveries: int, stored: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if stored:
            store_benchmark.fill(folder / "store.duckdb", stored)
        journal_of(mix(deliveries, seed=stored % 9_000 + 1), folder / "journal.sqlite")
        command = [sys.executable, "-m", "benchmarks.stream", "--apply", name, str(deliveries)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
    cost_us = float(figures["cpu_s"]) / deliveries * 1e6
    print(
        f"{stored:>10,} stored calls: {cost_us:6.1f} us CPU a delivery = {1e6 / cost_us:8,.0f} a CPU second; "
        f"{deliveries / figures['wall_s']:8,.0f} a second of wall time",
        flush=True,
    )
    return cost_us


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=100_000)
    parser.add_argument("--stored", type=int, default=0)
    given = parser.parse_args()
    empty = _measure(given.deliveries, 0)
    if given.stored:
        full = _measure(given.deliveries, given.stored)
        print(f"rate on {given.stored:,} stored calls, as a share of that on an empty store: {empty / full:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--apply"]:
        _apply(Path(sys.argv[2]))
    else:
        main()
