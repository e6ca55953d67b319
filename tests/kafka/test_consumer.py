"""The program of docs/consumer.md, as it stands there, follows the calls of a real topic."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer

from calls.records import Outgoing, Topic
from ingest import broker, topics
from streams.announce import of_call
from tests.kafka.relaying import settings
from tests.storing import call_of, event_of
from tests.waiting import until
from tools.kafka.broker import Cluster

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parents[2] / "docs" / "consumer.md"


def test_the_example_consumer_keeps_a_copy_of_every_call(cluster: Cluster, tmp_path: Path) -> None:
    """Newer versions and those of a new journal replace what it has; older ones, as a rebuild publishes, do not."""
    given = settings(tmp_path, cluster.bootstrap)
    with broker.admin(given) as client:
        topics.prepare(client, given)
    told = [
        published("c1", 1, "first"), published("c1", 2, "second"), published("c1", 1, "an older one again"),
        published("c2", 5, "under old rules"), published("c2", 5, "under new rules"),
        published("c3", 900, "of the old journal"), published("c3", 7, "of the new journal", "another"),
    ]  # fmt: skip
    copy = tmp_path / "calls.sqlite"
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "follow_calls.py").write_text(code, encoding="utf-8")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "follow_calls.py", cluster.bootstrap, str(copy)], cwd=tmp_path, stderr=log
        )
    try:
        last = publish(cluster.bootstrap, told)
        until(lambda: last <= copied(copy).keys(), (tmp_path / "log").read_text)
        calls = {call_id: summary for call_id, summary in copied(copy).items() if call_id not in last}
        assert calls == {"c1": "second", "c2": "under new rules", "c3": "of the new journal"}
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def published(call_id: str, version: int, summary: str, journal_id: str = "the journal") -> Outgoing:
    events = [msgspec.structs.replace(event_of(version, call_id), journal_id=journal_id)]
    return of_call(call_of(events, summary=summary), events, bytes_max=1 << 20)


def publish(bootstrap: str, told: Sequence[Outgoing]) -> set[str]:
    """Publish these, and behind them one more call in every partition; the ids of those."""
    producer = KafkaProducer(bootstrap_servers=bootstrap.split(","))
    for out in told:
        producer.send(Topic.CALLS, out.value, out.key, out.headers)
    last = {f"last of {partition}": partition for partition in producer.partitions_for(Topic.CALLS)}
    for call_id, partition in last.items():
        out = published(call_id, 1, "last")
        producer.send(Topic.CALLS, out.value, out.key, out.headers, partition)
    producer.flush(30)
    producer.close()
    return set(last)


def copied(path: Path) -> dict[str, str]:
    """The calls that the program has, by id: their summaries."""
    if not path.exists():
        return {}
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        calls = [json.loads(call) for (call,) in connection.execute("SELECT call FROM calls")]
    except sqlite3.OperationalError:  # before the table is made
        return {}
    finally:
        connection.close()
    return {call["call_id"]: call["summary"] for call in calls}
