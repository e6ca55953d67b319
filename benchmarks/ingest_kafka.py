"""What does a webhook cost on its way into Kafka, beside a FastAPI route that answers once Kafka has acknowledged it?

    python -m benchmarks.ingest_kafka
    python -m benchmarks.ingest_kafka --webhooks 40000 --rounds 5

Both verify the same signature of the same bodies, sent over 64 connections, and publish to the same Apache Kafka (one
node from Maven, on this machine). Ours is two processes: ingest answers once the webhook is on disk, and the relay
publishes it; CPU is that of both, until Kafka has acknowledged all of it. The peer is FastAPI, uvicorn and kafka-python
in a thread pool: one process, which answers after the acknowledgement.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import uvloop
from kafka.admin import KafkaAdminClient, NewTopic

from benchmarks import ingest, load, relay
from calls import relay_report
from calls.provider import named
from tools.kafka import broker

PROVIDER = ingest.PROVIDER
PEER_TOPIC = "peer.webhooks"
PARTITIONS = 4
DEADLINE_S = 300.0


class Cost(NamedTuple):
    """What a round of webhooks took."""

    cpu_us: float
    """A webhook, of all processes named."""
    each_us: list[float]
    """The same by process."""
    per_second: float
    p50_ms: float
    p99_ms: float
    answers: dict[int, int]


def measure(port: int, pids: list[int], webhooks: int, folder: Path | None = None) -> Cost:
    """Post so many; CPU is counted until the relay of `folder`, where there is one, has nothing left to publish."""
    requests = load.signed_posts(named(PROVIDER), f"/webhooks/{PROVIDER}", load.SECRET, webhooks)
    position = 0 if folder is None else _published(folder)
    before = [load.cpu_seconds(pid) for pid in pids]
    run = uvloop.run(load.post_all("127.0.0.1", port, requests))
    until = time.monotonic() + DEADLINE_S
    while folder is not None and _published(folder) < position + run.answers.get(200, 0):
        assert time.monotonic() < until, "the relay does not publish"
        time.sleep(0.1)
    each_us = [(load.cpu_seconds(pid) - was) / webhooks * 1e6 for pid, was in zip(pids, before, strict=True)]
    return Cost(sum(each_us), each_us, run.per_second, run.latency_ms(0.5), run.latency_ms(0.99), run.answers)


def _published(folder: Path) -> int:
    report = relay_report.read(folder / "data")
    return 0 if report is None else report.position


def _make_topic(bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(PEER_TOPIC, PARTITIONS, 1)])
    finally:
        admin.close()


def _rounds(rounds: int, webhooks: int, theirs: tuple[int, list[int]], ours: tuple[int, list[int], Path]) -> None:
    for sides in (theirs, ours):
        measure(sides[0], sides[1], load.WARM_UP, *sides[2:])
    costs: dict[str, list[Cost]] = {"FastAPI": [], "Calltally": []}
    print(f"{'':10}{'us CPU':>9}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}  answers")
    for _ in range(rounds):
        for name, sides in (("FastAPI", theirs), ("Calltally", ours)):
            cost = measure(sides[0], sides[1], webhooks, *sides[2:])
            costs[name].append(cost)
            print(
                f"{name:10}{cost.cpu_us:9.1f}{cost.per_second:9.0f}{cost.p50_ms:9.2f}{cost.p99_ms:9.2f}"
                f"  {cost.answers}  {' + '.join(f'{used:.1f}' for used in cost.each_us)} us",
                flush=True,
            )
    pairs = list(zip(costs["Calltally"], costs["FastAPI"], strict=True))
    cpu = statistics.median(our.cpu_us / their.cpu_us for our, their in pairs)
    p99 = statistics.median(our.p99_ms / their.p99_ms for our, their in pairs)
    print(f"Calltally / FastAPI with kafka-python: CPU a webhook {cpu:.2f}, p99 {p99:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhooks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name, broker.cluster(Path(name) / "kafka", heap=relay.HEAP) as cluster:
        folder = Path(name) / "ours"
        folder.mkdir()
        _make_topic(cluster.bootstrap)
        with (
            ingest.peer("fastapi_kafka", PEER_KAFKA=cluster.bootstrap, PEER_TOPIC=PEER_TOPIC) as (peer, peer_port),
            load.ingest(folder, [PROVIDER]) as (door, door_port),
            relay._relay(folder, cluster.bootstrap) as publisher,
        ):
            _rounds(
                given.rounds,
                given.webhooks,
                (peer_port, [peer.pid]),
                (door_port, [door.pid, publisher.pid], folder),
            )


if __name__ == "__main__":
    main()
