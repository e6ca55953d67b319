"""A peer of the Kafka worker: a plain Faust agent, `take(1000)`, a pandas INSERT a batch into three tables.

    python faust_pandas.py BROKER STORE COUNT

Prints {"cpu_s": ..., "wall_s": ...} once COUNT records are inserted, of all that this process did since its imports.
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
store.execute("CREATE TABLE calls (provider TEXT, call_id TEXT, status TEXT, reason TEXT, duration DOUBLE, data TEXT)")
store.execute("CREATE TABLE analysis (call_id TEXT, criterion TEXT, result TEXT)")
store.execute("CREATE TABLE variables (call_id TEXT, name TEXT, value TEXT)")
seen = 0


@app.agent(deliveries)
async def insert(stream):
    global seen  # noqa: PLW0603
    async for bodies in stream.take(1000, within=0.5):
        calls, analysis, variables = [], [], []
        for body in bodies:
            said = json.loads(body)
            call = said.get("call") or said.get("data") or {}
            call_id = str(call.get("call_id") or (call.get("call_details") or {}).get("call_id"))
            calls.append(
                (
                    "synthflow" if "call" in said else "other",
                    call_id,
                    call.get("status"),
                    call.get("end_call_reason"),
                    call.get("duration"),
                    body.decode(),
                )
            )
            for name, result in (said.get("analysis") or {}).items():
                if not name.endswith("_feedback"):
                    analysis.append((call_id, name, result))
            for name, given in (said.get("collected_variables") or {}).items():
                variables.append((call_id, name, given["value"]))
        frames = {
            "calls": pd.DataFrame(calls, columns=["provider", "call_id", "status", "reason", "duration", "data"]),
            "analysis": pd.DataFrame(analysis, columns=["call_id", "criterion", "result"]),
            "variables": pd.DataFrame(variables, columns=["call_id", "name", "value"]),
        }
        store.execute("BEGIN")
        for table, frame in frames.items():
            store.register("given", frame)
            store.execute(f"INSERT INTO {table} SELECT * FROM given")
        store.execute("COMMIT")
        seen += len(bodies)
        if seen >= COUNT:
            used, took = time.process_time() - cpu, time.perf_counter() - wall
            # Faust turns what is printed into log lines.
            print(json.dumps({"cpu_s": used, "wall_s": took}), file=sys.__stdout__, flush=True)
            os._exit(0)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel", "error"]
    app.main()
