"""How many deliveries a second does one core bring from the journal to a real broker, and how soon is a lone one there?

    python -m benchmarks.relay
    python -m benchmarks.relay --compression gzip

The mix of `benchmarks.stream` (bodies of 1.7 KB), published by a `calltally relay` of its own process to Apache Kafka
(one node from Maven, on this machine); an independent consumer counts. CPU is that of the relay's process: all of it,
divided by the deliveries, from its start with nothing imported to the last acknowledgement; and between the first and
the last acknowledgement alone. A lone delivery's time is from its being durable, when the door answers 200, to its
being read by a consumer.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from kafka import KafkaConsumer, TopicPartition

from benchmarks import stream
from calls import relay_report
from calls.journal import Append, Journal
from calls.journal_row import NewDelivery
from tools.kafka import broker

TOPIC = "calltally.deliveries"
HEAP = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC")
DEADLINE_S = 300.0


class Backlog(NamedTuple):
    """What a backlog took."""

    seconds: float
    cpu_us: float
    """A delivery, between first and last acknowledgement."""
    whole_cpu_us: float
    """A delivery, with the start of the process."""
    per_second: float


def backlog(folder: Path, bootstrap: str, count: int, *, compression: str = "none") -> Backlog:
    """Publish so many journalled deliveries."""
    stream.journal_of(stream.mix(count, seed=1), folder / "data" / "journal.sqlite")
    with _relay(folder, bootstrap, compression) as process, _consumer(bootstrap) as published:
        first = _until(published, 1, process)
        begun, cpu = time.perf_counter(), _cpu_s(process)
        last = _until(published, count, process)
        seconds, whole = time.perf_counter() - begun, _cpu_s(process)
    done = last - first
    return Backlog(seconds, (whole - cpu) / done * 1e6, whole / count * 1e6, done / seconds)


def lone(folder: Path, bootstrap: str, count: int) -> list[float]:
    """Milliseconds from durable to read, sorted, of deliveries that come one by one."""
    durable: dict[int, float] = {}
    arrived: dict[int, float] = {}
    committed = threading.Event()

    def on_committed(batch: list[Append], failure: object) -> None:
        now = time.perf_counter()
        if failure is not None:
            raise RuntimeError(failure)
        for item in batch:
            durable[int(str(item.waiter))] = now
        committed.set()

    journal = Journal(folder / "data" / "journal.sqlite", on_committed=on_committed)
    start = sum(1 for _ in journal.recent_ids())
    deliveries: list[NewDelivery] = stream.mix(count * 2, seed=2)[-count:]
    with _relay(folder, bootstrap) as process, _consumer(bootstrap) as consumer:
        until = time.monotonic() + DEADLINE_S
        while (report := relay_report.read(folder / "data")) is None or report.process != process.pid:
            assert time.monotonic() < until
            time.sleep(0.05)
        consumer.seek_to_end()
        consumer.poll(timeout_ms=100)
        reading = threading.Thread(target=_read, args=(consumer, start, count, arrived))
        reading.start()
        for number, delivery in enumerate(deliveries, start + 1):
            time.sleep(0.05)
            committed.clear()
            journal.append(Append(delivery, number))
            committed.wait(10)
        reading.join(30)
    journal.close()
    return sorted((arrived[number] - at) * 1000 for number, at in durable.items() if number in arrived)


def _read(consumer: KafkaConsumer, start: int, count: int, arrived: dict[int, float]) -> None:
    until = time.monotonic() + DEADLINE_S
    while len(arrived) < count and time.monotonic() < until:
        for records in consumer.poll(timeout_ms=200).values():
            now = time.perf_counter()
            for record in records:
                position = int(dict(record.headers)["position"])
                if position > start:
                    arrived[position] = now


@contextmanager
def _relay(folder: Path, bootstrap: str, compression: str = "none") -> Iterator[subprocess.Popen[bytes]]:
    chosen = {"CALLTALLY_KAFKA_BOOTSTRAP_SERVERS": bootstrap, "CALLTALLY_KAFKA_COMPRESSION": compression}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "relay"], cwd=folder, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        env={**os.environ, **chosen, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def _consumer(bootstrap: str) -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        until = time.monotonic() + DEADLINE_S
        while not (partitions := consumer.partitions_for_topic(TOPIC)):
            assert time.monotonic() < until, "the relay made no topic"
            time.sleep(0.02)
        consumer.assign([TopicPartition(TOPIC, number) for number in partitions])
        yield consumer
    finally:
        consumer.close()


def _until(consumer: KafkaConsumer, count: int, process: subprocess.Popen[bytes]) -> int:
    """Wait until the topic holds so many records; how many it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        held = sum(consumer.end_offsets(list(consumer.assignment())).values())
        if held >= count:
            return int(held)
        assert process.poll() is None, "the relay ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=200_000)
    parser.add_argument("--lone", type=int, default=300)
    parser.add_argument("--compression", choices=["none", "gzip"], default="none")
    given = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with broker.cluster(folder / "kafka", heap=HEAP) as cluster:
            took = backlog(folder, cluster.bootstrap, given.deliveries, compression=given.compression)
            print(
                f"backlog of {given.deliveries:,} ({given.compression}): {took.per_second:,.0f}/s, "
                f"{took.cpu_us:.1f} us CPU a delivery ({1e6 / took.cpu_us:,.0f} a CPU second), "
                f"{took.whole_cpu_us:.1f} us with the start of the process"
            )
            times = lone(folder, cluster.bootstrap, given.lone)
            print(
                f"a lone delivery, from durable to read by a consumer: p50 {times[len(times) // 2]:.1f} ms, "
                f"p99 {times[int(len(times) * 0.99)]:.1f} ms, longest {times[-1]:.1f} ms, n {len(times)}"
            )


if __name__ == "__main__":
    main()
