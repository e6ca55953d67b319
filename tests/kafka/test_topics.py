"""The topics: made as the settings say, checked where they exist, with a sentence for all that should be otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from calls.errors import TopicUnsuitable
from calls.records import Topic
from ingest import broker, topics
from tests.kafka.reading import administrating, everything
from tests.kafka.relaying import faulty, published, relaying, settings, webhook, webhooks, writing
from tools.kafka.broker import Cluster

pytestmark = pytest.mark.kafka


def make(cluster: Cluster, topic: str, config: Mapping[str, str], *, partitions: int = 4) -> None:
    """A topic that somebody made by hand."""
    configs = {"retention.ms": "-1", **config}
    with administrating(cluster.bootstrap) as client:
        client.create_topics(
            {topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}}, wait_for_metadata=True
        )


def configured(cluster: Cluster, topic: str) -> Mapping[str, str]:
    with administrating(cluster.bootstrap) as client:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        entries = client.describe_configs([resource], config_filter="all")["topic"][topic]
        return {name: entry["value"] for name, entry in entries.items()}


def looked_at(cluster: Cluster, folder: Path, **more: object) -> list[str]:
    """The sentences about the topics as they are."""
    chosen = settings(folder, cluster.bootstrap, **more)
    with broker.admin(chosen) as client:
        return [finding.sentence for finding in topics.look(client, chosen)]


def test_topics_are_made_as_the_settings_say(cluster: Cluster, tmp_path: Path) -> None:
    """Partitions, retention, compaction and record size; replication as far as there are brokers."""
    chosen = settings(
        tmp_path, cluster.bootstrap, kafka_partitions=3, kafka_retention_ms=86_400_000, kafka_record_max_bytes=300_000
    )
    with broker.admin(chosen) as client:
        made = topics.prepare(client, chosen)
    assert sorted(made.made) == sorted(Topic)
    assert (made.findings, made.record_bytes_max) == ([], 300_000)
    with administrating(cluster.bootstrap) as client:
        described = client.describe_topics(list(map(str, Topic)))
    assert {topic["name"]: len(topic["partitions"]) for topic in described} == {str(topic): 3 for topic in Topic}
    for topic in Topic:
        found = configured(cluster, topic)
        assert found["max.message.bytes"] == "300000"
        if topic is Topic.CALLS:
            assert found["cleanup.policy"] == "compact"
        else:
            assert (found["cleanup.policy"], found["retention.ms"]) == ("delete", "86400000")
            assert found["retention.bytes"] == "-1"


def test_by_default_deliveries_are_kept_for_ever(cluster: Cluster, tmp_path: Path) -> None:
    """The store can then be rebuilt from Kafka."""
    chosen = settings(tmp_path, cluster.bootstrap)
    with broker.admin(chosen) as client:
        topics.prepare(client, chosen)
    assert configured(cluster, Topic.DELIVERIES)["retention.ms"] == "-1"
    assert looked_at(cluster, tmp_path) == []


def test_looking_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """What is missing is named, and still missing afterwards."""
    for _ in range(2):
        sentences = looked_at(cluster, tmp_path)
        assert sentences == [f"The topic {topic} does not exist yet; the relay makes it." for topic in Topic]


def test_only_what_is_missing_is_made(cluster: Cluster, tmp_path: Path) -> None:
    """A topic that somebody made stays as it is."""
    make(cluster, Topic.DELIVERIES, {}, partitions=7)
    chosen = settings(tmp_path, cluster.bootstrap)
    with broker.admin(chosen) as client:
        made = topics.prepare(client, chosen)
        again = topics.prepare(client, chosen)
    assert sorted(made.made) == sorted({*Topic} - {Topic.DELIVERIES})
    assert (again.made, again.id) == ([], made.id)
    with administrating(cluster.bootstrap) as client:
        assert len(client.describe_topics([str(Topic.DELIVERIES)])[0]["partitions"]) == 7


@pytest.mark.parametrize(
    ("topic", "partitions", "config", "words"),
    [
        (Topic.DELIVERIES, 2, {}, "has 2 partitions, the settings ask for 4"),
        (Topic.DELIVERIES, 4, {"retention.ms": "86400000"}, "deletes records after 24 hours"),
        (Topic.NOTICES, 4, {"retention.ms": "604800000"}, "deletes records after 7 days"),
        (Topic.DELIVERIES, 4, {"retention.bytes": "1000000"}, "set its retention.bytes to -1"),
        (Topic.DELIVERIES, 4, {"max.message.bytes": "100000"}, "larger bodies travel in more pieces"),
        (Topic.DELIVERIES, 4, {"unclean.leader.election.enable": "true"}, "may lose acknowledged records"),
        (Topic.CALLS, 4, {"cleanup.policy": "delete"}, "set its cleanup.policy to compact"),
        (Topic.CALLS, 4, {"cleanup.policy": "compact,delete"}, "set its cleanup.policy to compact"),
    ],
)  # fmt: skip
def test_a_topic_that_should_be_otherwise_is_named(
    cluster: Cluster, tmp_path: Path, topic: Topic, partitions: int, config: dict[str, str], words: str
) -> None:
    """One sentence says which topic and what to set; the relay works on and shows it."""
    make(cluster, topic, config, partitions=partitions)
    (sentence,) = [one for one in looked_at(cluster, tmp_path) if "does not exist" not in one]
    assert words in sentence
    assert topic in sentence
    with writing(tmp_path) as journal, relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        journal.append(webhooks(3)[:1])
        published(relay, 1)
        assert relay.state.findings == [sentence]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"cleanup.policy": "compact"}, "deletes all but the last record of a call"),
        ({"max.message.bytes": "1000"}, "raise its max.message.bytes"),
        ({"min.insync.replicas": "2"}, "would take nothing"),
    ],
)
def test_a_topic_that_would_lose_or_refuse_records_stops_the_relay(
    cluster: Cluster, tmp_path: Path, config: dict[str, str], words: str
) -> None:
    """Nothing is published until it is put right; then the relay goes on by itself."""
    make(cluster, Topic.DELIVERIES, config)
    chosen = settings(tmp_path, cluster.bootstrap)
    with broker.admin(chosen) as client, pytest.raises(TopicUnsuitable, match=words):
        topics.prepare(client, chosen)
    with writing(tmp_path) as journal, relaying(chosen) as relay:
        journal.append(webhooks(5))
        assert words in faulty(relay, "topic_unsuitable")
        assert everything(cluster.bootstrap) == []
        with administrating(cluster.bootstrap) as client:
            right = {"cleanup.policy": "delete", "max.message.bytes": "1048588", "min.insync.replicas": "1"}
            client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, str(Topic.DELIVERIES), right)])
        published(relay, 5)


def test_bodies_are_cut_to_what_the_topic_takes(cluster: Cluster, tmp_path: Path) -> None:
    """Also where that is less than the setting."""
    make(cluster, Topic.DELIVERIES, {"max.message.bytes": "100000"})
    with writing(tmp_path) as journal, relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        journal.append([webhook(b'{"a": "' + b"x" * 500_000 + b'"}'), *webhooks(300)])
        published(relay, 301)
    records = everything(cluster.bootstrap)
    cut = [read for read in records if "chunk" in read.headers]
    assert len(cut) == 6
    assert b"".join(read.value for read in cut) == b'{"a": "' + b"x" * 500_000 + b'"}'
    assert {read.position for read in records} == set(range(1, 302))


def test_an_old_backlog_is_published_where_old_times_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    """Its records get the oldest time that the topic takes; when they were received is in their headers."""
    make(cluster, Topic.DELIVERIES, {"message.timestamp.before.max.ms": "3600000"})
    with writing(tmp_path) as journal, relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        journal.append(webhooks(5))
        published(relay, 5)
    for read in everything(cluster.bootstrap):
        assert int(read.headers["received_at"]) // 1000 < read.timestamp_ms - 86_400_000


def test_a_topic_whose_limit_is_lowered_under_the_relay(cluster: Cluster, tmp_path: Path) -> None:
    """What is refused as too large is cut anew for the new limit."""
    with writing(tmp_path) as journal, relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        journal.append(webhooks(5))
        published(relay, 5)
        with administrating(cluster.bootstrap) as client:
            smaller = {"max.message.bytes": "100000"}
            client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, str(Topic.DELIVERIES), smaller)])
        journal.append([webhook(b'{"a": "' + b"x" * 500_000 + b'"}'), *webhooks(5, seed=2)])
        published(relay, 11)
    assert {read.position for read in everything(cluster.bootstrap)} == set(range(1, 12))


def test_partitions_added_under_the_relay_are_used(cluster: Cluster, tmp_path: Path) -> None:
    """By the next relay at the latest; nothing is lost or twice."""
    with writing(tmp_path) as journal:
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            journal.append(webhooks(50))
            published(relay, 50)
            with administrating(cluster.bootstrap) as client:
                client.create_partitions({str(Topic.DELIVERIES): 8})
            journal.append(webhooks(50, seed=2))
            published(relay, 100)
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            journal.append(webhooks(200, seed=3))
            published(relay, 300)
    records = everything(cluster.bootstrap)
    assert sorted(read.position for read in records) == list(range(1, 301))
    assert {read.partition for read in records} == set(range(8))
