"""How many deliveries a second does one core bring from a real topic to committed rows and roll-ups, and how fresh?

    python -m benchmarks.faust_worker
    python -m benchmarks.faust_worker --deliveries 200000 --rounds 3

The mix of `benchmarks.stream` (bodies of 1.7 KB), published by a relay to Apache Kafka (one node from Maven, on this
machine). Then, in turn, each in a process of its own: the Kafka worker, which also publishes every changed call to
`calltally.calls`; the same where nothing is published (`silent`); and a peer, a plain Faust agent with `take(1000)` and
one pandas INSERT a batch into three tables without roll-ups, which hold what the bodies of all four providers tell. CPU
is all of that process, from its start without imports to its last commit. Freshness is from handing a record to Kafka's
client to its row being committed, at so many a second.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas  # noqa: F401  # an import, which is not measured: pyarrow would do it at its first array
from kafka import KafkaProducer

from analytics.store import Store
from benchmarks import stream
from calls.model import Delivery
from calls.provider import discover
from calls.records import of_delivery
from calls.settings import Settings, load
from ingest.relay import Relay
from streams.faust_app import KafkaWorker
from streams.publishing import Publishing
from tools.kafka import broker

PEER = Path(__file__).with_name("peers") / "faust_pandas.py"
HEAP = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC")
DEADLINE_S = 300.0


def publish(folder: Path, bootstrap: str, count: int) -> None:
    """Journal the mix and have it published."""
    stream.journal_of(stream.mix(count, seed=1), folder / "data" / "journal.sqlite")
    relay = Relay(load(folder, {}, kafka_bootstrap_servers=bootstrap))
    thread = threading.Thread(target=relay.run)
    thread.start()
    until = time.monotonic() + DEADLINE_S
    while relay.state.position < count:
        assert time.monotonic() < until, relay.state
        time.sleep(0.05)
    relay.stop()
    thread.join()


def measured(command: list[str]) -> dict[str, float]:
    """What a process prints of itself in its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, float] = json.loads(said[-1])
    return found


def freshness(settings: Settings, rate: float, seconds: float) -> list[float]:
    """Milliseconds from sending to the commit, sorted, of records that come evenly."""
    worker, thread = _started(settings)
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    committed: list[tuple[int, float]] = []
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            now = worker.state.tally.records
            if not committed or committed[-1][0] != now:
                committed.append((now, time.perf_counter()))
            time.sleep(0.0005)

    start = worker.state.tally.records
    watcher = threading.Thread(target=watch)
    watcher.start()
    sent = []
    began = time.perf_counter()
    for number, new in enumerate(stream.mix(int(rate * seconds), seed=7)):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        delivery = Delivery(
            source=new.source, provider=new.provider, org="", body=new.body, headers={}, received_at=new.received_at,
            trust=new.trust, journal_id="fresh", position=number + 1,
        )  # fmt: skip
        naming = discover()[new.provider].naming
        (out,) = of_delivery(delivery, None if naming is None else naming(delivery), bytes_max=1 << 20)
        sent.append(time.perf_counter())
        producer.send(out.topic, out.value, out.key, out.headers)
    until = time.monotonic() + 60
    while worker.state.tally.records - start < len(sent) and time.monotonic() < until:
        time.sleep(0.01)
    watching.set()
    watcher.join()
    producer.close()
    worker.stop()
    thread.join()
    worker.close()
    found, at = [], 0
    for total, moment in committed:
        while at < min(total - start, len(sent)):
            found.append((moment - sent[at]) * 1000)
            at += 1
    return sorted(found)


def _started(settings: Settings) -> tuple[KafkaWorker, threading.Thread]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    worker = KafkaWorker(settings, lambda: Store.open(settings.store_path, rules=settings.rules))
    worker.open()
    thread = threading.Thread(target=worker.run)
    thread.start()
    until = time.monotonic() + 60
    while not worker.state.running:
        assert time.monotonic() < until, worker.state
        time.sleep(0.01)
    return worker, thread


def _apply(folder: str, bootstrap: str, count: int, *, silent: bool) -> None:
    """In a process of its own: apply the topic, print the CPU and wall seconds of all of it."""
    if silent:
        setattr(Publishing, "committed", lambda *_: None)  # noqa: B010  # what publishing costs is the difference
    cpu, wall = time.process_time(), time.perf_counter()
    worker, thread = _started(load(Path(folder), {}, kafka_bootstrap_servers=bootstrap))
    while worker.state.tally.records < count:
        time.sleep(0.02)
    figures = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    worker.stop()
    thread.join()
    figures["published_cpu_s"] = time.process_time() - cpu
    worker.close()
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    for name in ("kafka", "faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory() as name, broker.cluster(Path(name) / "kafka", heap=HEAP) as cluster:
        folder, count = Path(name), given.deliveries
        publish(folder, cluster.bootstrap, count)
        costs: dict[str, list[float]] = {"worker": [], "silent": [], "peer": []}
        for number in range(given.rounds):
            ours = folder / f"worker-{number}"
            silent = folder / f"silent-{number}"
            apply = ["-m", "benchmarks.faust_worker", "--apply"]
            words = {
                "worker": [*apply, str(ours), cluster.bootstrap, str(count)],
                "silent": [*apply, str(silent), cluster.bootstrap, str(count), "silent"],
                "peer": [str(PEER), cluster.bootstrap, str(folder / f"peer-{number}.duckdb"), str(count)],
            }
            ours.mkdir()
            silent.mkdir()
            for who, more in words.items():
                if who == "peer":
                    _forget_group(cluster.bootstrap)
                figures = measured([sys.executable, *more])
                costs[who].append(figures["cpu_s"] / count * 1e6)
                print(
                    f"{who:>7}: {costs[who][-1]:6.1f} us CPU a delivery = {1e6 / costs[who][-1]:8,.0f} a CPU second; "
                    f"{count / figures['wall_s']:8,.0f} a second of wall time",
                    flush=True,
                )
        worker, silently, peer = (statistics.median(costs[who]) for who in ("worker", "silent", "peer"))
        print(
            f"medians: worker {worker:.1f} us, of that publishing {worker - silently:.1f}; peer {peer:.1f} us, which "
            f"is {peer / worker:.2f} times the worker's and {peer / silently:.2f} times that without publishing"
        )
        fresh = load(folder / "worker-0", {}, kafka_bootstrap_servers=cluster.bootstrap)
        times = freshness(fresh, given.rate, given.seconds)
        print(
            f"freshness at {given.rate:.0f}/s, sent to committed: p50 {times[len(times) // 2]:.0f} ms, "
            f"p99 {times[int(len(times) * 0.99)]:.0f} ms, longest {times[-1]:.0f} ms, n {len(times)}"
        )


def _forget_group(bootstrap: str) -> None:
    """So that a further peer begins at the beginning."""
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError

    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    until = time.monotonic() + 90
    try:
        while "peer" in {group["group_id"] for group in client.list_groups()}:
            try:
                client.delete_groups(["peer"])
            except KafkaError:
                # It is not empty as long as the session of the one before lasts.
                assert time.monotonic() < until
                time.sleep(1)
    finally:
        client.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--apply"]:
        _apply(sys.argv[2], sys.argv[3], int(sys.argv[4]), silent="silent" in sys.argv)
    else:
        main()
