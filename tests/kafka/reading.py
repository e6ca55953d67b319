"""What is in a topic, read with a plain consumer that knows nothing of our code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from calls.records import Topic
from tests.waiting import until

DELIVERIES = "calltally.deliveries"
NOTICES = "calltally.notices"


class Read(NamedTuple):
    """One record as it lies in its partition."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: dict[str, bytes]
    timestamp_ms: int

    @property
    def position(self) -> int:
        return int(self.headers["position"])


def everything(bootstrap: str, topic: str = DELIVERIES) -> list[Read]:
    """Every record of a topic, partition by partition, in order."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","), enable_auto_commit=False, auto_offset_reset="earliest",
        fetch_max_bytes=64 << 20, max_partition_fetch_bytes=16 << 20,
    )  # fmt: skip
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[Read] = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, records in consumer.poll(timeout_ms=500, max_records=10_000).items():
                found += [
                    Read(partition.partition, one.offset, one.key, one.value, dict(one.headers), one.timestamp)
                    for one in records
                    if one.offset < ends[partition]
                ]
        return sorted(found, key=lambda read: (read.partition, read.offset))
    finally:
        consumer.close()


def repeated_positions(records: list[Read]) -> int:
    """How many records are repeats; in every partition the positions rise but for going back to a repeated tail.

    A record after a gap that is not filled behind it, or one that comes before an earlier one for the first time, is
    an AssertionError.
    """
    repeats = 0
    by_partition: dict[int, list[int]] = defaultdict(list)
    for read in records:
        by_partition[read.partition].append(read.position)
    for partition, positions in by_partition.items():
        seen: list[int] = []
        at = 0
        for position in positions:
            if not seen or position > seen[-1]:
                assert at == len(seen), f"partition {partition} skips from {seen[at : at + 3]} to {position}"
                seen.append(position)
                at = len(seen)
            elif at < len(seen) and seen[at] == position:
                repeats += 1
                at += 1
            else:
                assert position in seen, f"partition {partition} has {position} after {seen[-1]} for the first time"
                repeats += 1
                at = seen.index(position) + 1
    return repeats


@contextmanager
def administrating(bootstrap: str) -> Iterator[KafkaAdminClient]:
    """A client that may do everything."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    try:
        yield client
    finally:
        client.close()


def delete_topics(bootstrap: str) -> None:
    """Delete all of ours, and return once the broker shows them no more: it says earlier that they are deleted."""
    with administrating(bootstrap) as client:

        def ours() -> list[str]:
            return [topic for topic in client.list_topics() if topic in set(Topic)]

        if found := ours():
            client.delete_topics(found)
            until(lambda: not ours(), "the topics are gone")
