"""A peer of the Kafka worker: a plain Faust agent, `take(1000)`, a pandas INSERT a batch into three tables.

    python faust_pandas.py BROKER STORE COUNT

It fills what an obvious build would show: of each webhook the columns of our `calls` that its body tells, analysis with
feedback, and variables, of all four providers. It keeps no events, merges no two webhooks of a call, counts repeats
again, and has no roll-ups, dead letters or positions. Prints {"cpu_s": ..., "wall_s": ...} once COUNT records are
inserted, of all that this process did since its imports.
"""

import json
import os
import sys
import tempfile
import time

import duckdb
import faust
import pandas as pd

BROKER, STORE, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
CALLS = (
    "provider", "call_id", "event", "agent_id", "direction", "status", "end_call_reason", "started_at", "ended_at",
    "duration_s", "caller_phone", "callee_phone", "caller_name", "summary", "transcript", "recording_url", "sentiment",
    "disposition", "intent", "urgency", "data",
)  # fmt: skip
TYPES = {"duration_s": "DOUBLE", "started_at": "TIMESTAMPTZ", "ended_at": "TIMESTAMPTZ"}
ANALYSIS = ("provider", "call_id", "criterion", "result", "feedback")
VARIABLES = ("provider", "call_id", "name", "value", "collected")
cpu, wall = time.process_time(), time.perf_counter()
app = faust.App(
    "peer",
    broker=f"kafka://{BROKER}",
    value_serializer="raw",
    key_serializer="raw",
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
    topic_disable_leader=True,
    datadir=tempfile.mkdtemp(),
)
deliveries = app.topic("calltally.deliveries", value_serializer="raw", key_serializer="raw")
store = duckdb.connect(STORE)
for name, columns in (("calls", CALLS), ("analysis", ANALYSIS), ("variables", VARIABLES)):
    typed = [f"{column} {TYPES.get(column, 'TEXT')}" for column in columns]
    store.execute(f"CREATE TABLE {name} ({', '.join(typed)})")
seen = 0


def synthflow(said):
    call, lead = said["call"], said.get("lead") or {}
    call_id = call.get("call_id")
    found = {
        "provider": "synthflow", "call_id": call_id, "agent_id": call.get("model_id"),
        "direction": call.get("type_of_call"), "status": call.get("status"),
        "end_call_reason": call.get("end_call_reason"), "started_at": call.get("start_time"),
        "duration_s": call.get("duration"), "caller_phone": lead.get("phone_number"),
        "caller_name": lead.get("name"), "transcript": call.get("transcript"),
        "recording_url": call.get("recording_url"),
    }  # fmt: skip
    scores, collected = said.get("analysis") or {}, said.get("collected_variables") or {}
    analysis = [
        ("synthflow", call_id, name, result, scores.get(f"{name}_feedback"))
        for name, result in scores.items()
        if not name.endswith("_feedback")
    ]
    variables = [
        ("synthflow", call_id, name, given.get("value"), given.get("collected")) for name, given in collected.items()
    ]
    return found, analysis, variables


def inboundflow(said):
    data = said.get("data") or {}
    found = {
        "provider": "inboundflow", "call_id": data.get("call_id"), "event": said.get("event"),
        "direction": "inbound", "ended_at": data.get("ended_at"), "duration_s": data.get("duration_seconds"),
        "caller_phone": data.get("caller_phone"), "caller_name": data.get("caller_name"),
        "summary": data.get("summary"), "transcript": data.get("transcript"), "intent": data.get("intent"),
        "urgency": data.get("urgency"),
    }  # fmt: skip
    return found, [], []


def aisync(said):
    data = said.get("data") or {}
    call_id = data.get("call_id")
    found = {
        "provider": "aisync", "call_id": call_id, "event": said.get("event"), "agent_id": data.get("agent_id"),
        "direction": data.get("call_direction"), "status": data.get("call_status"),
        "ended_at": said.get("timestamp"), "duration_s": data.get("call_duration"),
        "caller_phone": data.get("caller_number"), "callee_phone": data.get("called_number"),
        "summary": data.get("summary"), "transcript": data.get("transcription"),
        "recording_url": data.get("recording_url"), "sentiment": data.get("sentiment"),
        "disposition": data.get("disposition"),
    }  # fmt: skip
    fields = data.get("custom_fields") or {}
    return found, [], [("aisync", call_id, name, str(value), True) for name, value in fields.items()]


def callsync(said):
    data = said.get("data") or {}
    call, scores = data.get("call_details") or {}, data.get("ai_analysis") or {}
    call_id, length = str(call.get("call_id")), call.get("duration_total")
    found = {
        "provider": "callsync", "call_id": call_id, "event": said.get("event"),
        "agent_id": (data.get("staff") or {}).get("id"), "direction": call.get("direction"),
        "started_at": call.get("started_at"), "duration_s": None if length is None else float(length),
        "caller_phone": (data.get("caller") or {}).get("phone"), "recording_url": call.get("recording_url"),
        "summary": scores.get("summary"), "sentiment": scores.get("sentiment"),
    }  # fmt: skip
    analysis = [
        ("callsync", call_id, name, str(result).lower(), None)
        for name, result in scores.items()
        if isinstance(result, bool)
    ]
    return found, analysis, []


@app.agent(deliveries)
async def insert(stream):
    global seen  # noqa: PLW0603
    readers = {reader.__name__: reader for reader in (synthflow, inboundflow, aisync, callsync)}
    async for events in stream.take_events(1000, within=0.5):
        calls, analysis, variables = [], [], []
        for event in events:
            body = event.value
            reader = readers[event.headers["provider"].decode()]
            call, scores, collected = reader(json.loads(body))
            calls.append({**call, "data": body.decode()})
            analysis += scores
            variables += collected
        frames = {
            "calls": pd.DataFrame(calls, columns=CALLS),
            "analysis": pd.DataFrame(analysis, columns=ANALYSIS),
            "variables": pd.DataFrame(variables, columns=VARIABLES),
        }
        store.execute("BEGIN")
        for table, frame in frames.items():
            store.register("given", frame)
            store.execute(f"INSERT INTO {table} SELECT * FROM given")
        store.execute("COMMIT")
        seen += len(events)
        if seen >= COUNT:
            used, took = time.process_time() - cpu, time.perf_counter() - wall
            # Faust turns what is printed into log lines.
            print(json.dumps({"cpu_s": used, "wall_s": took}), file=sys.__stdout__, flush=True)
            os._exit(0)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel", "error"]
    app.main()
