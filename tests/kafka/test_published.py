"""What stays published through crashes and rebuilds: whatever is stored and not known to be published comes again."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from analytics.store import Store
from calls.records import Topic, call_key
from calls.settings import Settings
from ingest import broker, topics
from streams.announce import ANNOUNCED, APPLIED
from tests.kafka.reading import administrating, everything
from tests.kafka.relaying import published, relaying, webhook, webhooks, writing
from tests.kafka.workers import WorkerProcess, data_folder
from tests.published import columns_of, public_calls
from tests.waiting import until
from tools.kafka.broker import Cluster

pytestmark = pytest.mark.kafka

PUBLISHED = (Topic.CALLS, Topic.DEAD)


def test_what_was_stored_and_not_published_is_published_by_the_next_worker(cluster: Cluster, tmp_path: Path) -> None:
    """A worker is killed, and everything it had published is taken away: what it had not yet noted down comes again."""
    settings = filled(tmp_path, cluster)
    with WorkerProcess(tmp_path, "--kafka") as worker:
        worker.wait_rows(lambda count: count > 0)
        worker.end(signal.SIGKILL)
    lost = not_noted_down(settings, cluster)
    assert lost
    empty(settings, cluster)
    stored = stop_when_complete(tmp_path, settings, cluster, lost)
    assert lost <= stored.keys()
    assert {key: call for key, call in published_calls(cluster).items() if key in lost} == {
        key: stored[key] for key in lost
    }


def test_a_new_store_publishes_every_call_and_every_dead_letter_again(cluster: Cluster, tmp_path: Path) -> None:
    """As for a consumer that came later, or after a rebuild under other rules."""
    settings = filled(tmp_path, cluster)
    with WorkerProcess(tmp_path, "--kafka") as worker:
        worker.wait_rows(lambda count: count == 301)
        assert worker.end() == 0
    before, dead = published_calls(cluster), dead_letters(cluster)
    assert len(dead) == 1
    empty(settings, cluster)
    settings.store_path.unlink()
    stored = stop_when_complete(tmp_path, settings, cluster, set(before))
    assert published_calls(cluster) == stored == before
    assert dead_letters(cluster) == dead


def filled(folder: Path, cluster: Cluster) -> Settings:
    """A folder whose journal is in Kafka: three hundred deliveries that are understood, and one that is not."""
    settings = data_folder(folder, cluster.bootstrap)
    with writing(folder) as journal, relaying(settings) as relay:
        journal.append([*webhooks(300), webhook(b"not understood")])
        published(relay, 301)
    return settings


def not_noted_down(settings: Settings, cluster: Cluster) -> set[bytes]:
    """The keys of the calls whose publication the store does not know of, by its second positions."""
    store = Store.open(settings.store_path, rules=settings.rules)
    try:
        positions = store.positions()
    finally:
        store.close()
    with administrating(cluster.bootstrap) as client:
        (topic,) = client.describe_topics([Topic.DELIVERIES.value])
    found = set()
    for read in everything(cluster.bootstrap):
        slot = f"{topic['topic_id']}/{read.partition}"
        announced, applied = positions.get((ANNOUNCED, slot), 0), positions.get((APPLIED, slot), 0)
        if announced <= read.offset < applied and read.value != b"not understood":
            found.add(read.key)
    return found


def empty(settings: Settings, cluster: Cluster) -> None:
    """Make the topics of what is published anew."""
    with administrating(cluster.bootstrap) as client:
        client.delete_topics([topic.value for topic in PUBLISHED])
    with broker.admin(settings) as client:
        until(lambda: not set(PUBLISHED) & set(client.list_topics()), seconds=30)
        topics.prepare(client, settings)


def stop_when_complete(folder: Path, settings: Settings, cluster: Cluster, keys: set[bytes]) -> Mapping[bytes, object]:
    """Run a worker until all is applied and these calls are published; the calls as they are stored then."""
    with WorkerProcess(folder, "--kafka") as worker:
        worker.wait_rows(lambda count: count == 301)
        until(lambda: keys <= published_calls(cluster).keys(), seconds=60)
        assert worker.end() == 0
    store = Store.open(settings.store_path, rules=settings.rules)
    try:
        return {call_key(key): call for key, call in public_calls(store).items()}
    finally:
        store.close()


def published_calls(cluster: Cluster) -> dict[bytes, object]:
    """The newest record of each call."""
    return {read.key: columns_of(read.value) for read in everything(cluster.bootstrap, Topic.CALLS)}


def dead_letters(cluster: Cluster) -> set[tuple[bytes, bytes, bytes]]:
    return {(read.key, read.headers["reason"], read.value) for read in everything(cluster.bootstrap, Topic.DEAD)}
