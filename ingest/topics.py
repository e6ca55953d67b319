"""Our topics at the broker: made where they are missing, checked where they exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka import TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.protocol.consumer.offsets import OffsetSpec

from calls.errors import BrokerRefused, BrokerUnavailable, TopicUnsuitable
from calls.records import RELAYED, Topic

if TYPE_CHECKING:
    from calls.settings import Settings

RECORD_BYTES_MIN = 65_536
"""A topic that takes no larger record has no room for a delivery's headers beside a useful piece of its body."""
READY_S = 10.0
CHANGED = "topic_changed"
FOR_EVER = -1
NO_LIMIT_MS = 2**63 - 1
DAY_MS = 86_400_000


class Finding(NamedTuple):
    """Something about a topic that should be otherwise."""

    topic: str
    sentence: str
    stops: bool
    """Whether records would be lost or refused, so that nothing may be published."""
    missing: bool = False
    """Whether there is no such topic yet."""


class Topics(NamedTuple):
    """The topics as they are."""

    id: str
    """Of `calltally.deliveries`: a topic that was deleted and made again has another."""
    record_bytes_max: int
    oldest_ms: int
    """A record whose time lies longer ago is refused."""
    findings: list[Finding]
    made: list[str]
    """Those that were missing."""


class _Topic(NamedTuple):
    id: str
    partitions: int
    replicas: int
    settings: Mapping[str, str]
    """Empty where we may not read them."""


def prepare(client: KafkaAdminClient, settings: Settings) -> Topics:
    """Make what is missing and look at the rest.

    Raises TopicUnsuitable where records would be lost or refused, BrokerRefused where we have no right, and the
    client library's errors.
    """
    brokers = len(client.describe_cluster()["brokers"])
    missing = [topic for topic, found in _described(client).items() if found is None]
    if missing:
        _make(client, missing, settings, brokers)
    described = _described(client)
    lost = [topic for topic, found in described.items() if found is None]
    if lost:
        raise BrokerUnavailable(f"Kafka does not show the topics {', '.join(lost)} yet, which were just made.")
    topics = {topic: found for topic, found in described.items() if found is not None}
    findings = [finding for topic, found in topics.items() for finding in _findings(topic, found, settings, brokers)]
    stopping = [finding.sentence for finding in findings if finding.stops]
    if stopping:
        raise TopicUnsuitable(" ".join(stopping))
    deliveries = topics[Topic.DELIVERIES]
    allowed = int(deliveries.settings.get("max.message.bytes", settings.kafka_record_max_bytes))
    oldest = [int(topic.settings.get("message.timestamp.before.max.ms", NO_LIMIT_MS)) for topic in topics.values()]
    return Topics(deliveries.id, min(allowed, settings.kafka_record_max_bytes), min(oldest), findings, [*missing])


def look(client: KafkaAdminClient, settings: Settings) -> list[Finding]:
    """What is not as it should be, changing nothing. Raises BrokerRefused and the client library's errors."""
    brokers = len(client.describe_cluster()["brokers"])
    findings = []
    for topic, found in _described(client).items():
        if found is None:
            findings.append(Finding(topic, f"The topic {topic} does not exist yet; the relay makes it.", False, True))
        else:
            findings += _findings(topic, found, settings, brokers)
    return findings


def require_same(client: KafkaAdminClient, the_id: str) -> None:
    """Raises BrokerUnavailable (`topic_changed`) where `calltally.deliveries` was deleted or made anew."""
    (found,) = client.describe_topics([str(Topic.DELIVERIES)])
    error = errors.for_code(found["error_code"])
    if error is errors.UnknownTopicOrPartitionError or (error is errors.NoError and str(found["topic_id"]) != the_id):
        raise BrokerUnavailable(
            f"The topic {Topic.DELIVERIES} was deleted or made anew; what it held is published again.", code=CHANGED
        )


def cursor_name(topics_id: str) -> str:
    """Under which name the journal keeps how far the topics of this id hold it."""
    return f"relay {topics_id}"


def held(client: KafkaAdminClient) -> tuple[str, int]:
    """The id of `calltally.deliveries`, empty where there is none, and how many records it was ever given.

    Raises the client library's errors.
    """
    (found,) = client.describe_topics([str(Topic.DELIVERIES)])
    error = errors.for_code(found["error_code"])
    if error is errors.UnknownTopicOrPartitionError:
        return "", 0
    if error is not errors.NoError:
        raise error(found["name"])
    partitions = [TopicPartition(found["name"], one["partition_index"]) for one in found["partitions"]]
    ends = client.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    return str(found["topic_id"]), sum(end.offset for end in ends.values())


def short_of_replicas(client: KafkaAdminClient) -> list[str]:
    """Partitions that take nothing now, a phrase each. Raises the client library's errors."""
    found = []
    for topic in client.describe_topics([str(topic) for topic in RELAYED]):
        needed = int(_settings(client, [topic["name"]])[topic["name"]].get("min.insync.replicas", 1))
        for partition in topic["partitions"]:
            name = f"{topic['name']} partition {partition['partition_index']}"
            in_sync = len(partition["isr_nodes"])
            if partition["leader_id"] < 0:
                found.append(f"{name} has no leader")
            elif in_sync < needed:
                found.append(f"{name} has {in_sync} of {needed} needed copies")
    return found


def _described(client: KafkaAdminClient) -> dict[Topic, _Topic | None]:
    """The topics that we may see; None for what does not exist."""
    described = client.describe_topics([str(topic) for topic in Topic])
    settings = _settings(client, [topic["name"] for topic in described if topic["error_code"] == 0])
    found: dict[Topic, _Topic | None] = dict.fromkeys(Topic)
    for topic in described:
        name, error = Topic(topic["name"]), errors.for_code(topic["error_code"])
        if error is errors.UnknownTopicOrPartitionError:
            continue
        if error is errors.TopicAuthorizationFailedError:
            if name in RELAYED:
                raise BrokerRefused(
                    f"The user may not see the topic {name}. "
                    "Give it the rights Describe, DescribeConfigs and Write on it."
                )
            # The worker's alone: where the relay has a user of its own, it need not know of them.
            del found[name]
            continue
        if error is not errors.NoError:
            raise error(name)
        partitions = topic["partitions"]
        replicas = min((len(partition["replica_nodes"]) for partition in partitions), default=0)
        found[name] = _Topic(str(topic["topic_id"]), len(partitions), replicas, settings.get(name, {}))
    return found


def _settings(client: KafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    given: dict[str, dict[str, dict[str, Any]]] = client.describe_configs(resources, config_filter="all")
    return {
        name: {key: str(entry["value"]) for key, entry in entries.items()}
        for name, entries in given.get("topic", {}).items()
    }


def _make(client: KafkaAdminClient, missing: list[Topic], settings: Settings, brokers: int) -> None:
    replicas = min(settings.kafka_replication, brokers)
    wanted = {
        str(topic): {
            "num_partitions": settings.kafka_partitions,
            "replication_factor": replicas,
            "configs": _wanted(topic, settings, replicas),
        }
        for topic in missing
    }
    try:
        client.create_topics(wanted)
    except errors.TopicAlreadyExistsError:
        pass  # another relay was quicker
    except errors.AuthorizationError:
        raise BrokerRefused(
            f"The user may not make the topics {', '.join(missing)}. Give it the right Create, or make them by hand."
        ) from None
    client.wait_for_topics([str(topic) for topic in missing], timeout_ms=int(READY_S * 1000))


def _wanted(topic: Topic, settings: Settings, replicas: int) -> dict[str, str]:
    # Two copies are written before an acknowledgement wherever one broker of three may then be lost.
    safe = {"min.insync.replicas": "2"} if replicas >= 3 else {}
    size = {"max.message.bytes": str(settings.kafka_record_max_bytes)}
    if topic is Topic.CALLS:
        return {"cleanup.policy": "compact", **size, **safe}
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(settings.kafka_retention_ms),
        "retention.bytes": str(FOR_EVER),
        **size,
        **safe,
    }


def _findings(topic: Topic, found: _Topic, settings: Settings, brokers: int) -> Iterator[Finding]:
    def finding(sentence: str, *, stops: bool = False) -> Finding:
        return Finding(topic, sentence, stops)

    if found.partitions < settings.kafka_partitions:
        yield finding(f"{topic} has {found.partitions} partitions, the settings ask for {settings.kafka_partitions}.")
    replicas = min(settings.kafka_replication, brokers)
    if found.replicas < replicas:
        yield finding(f"{topic} keeps {found.replicas} copies of a record, the settings ask for {replicas}.")
    given = found.settings
    if not given:
        yield finding(f"The settings of {topic} cannot be checked: give the user the right DescribeConfigs on it.")
        return
    in_sync = int(given.get("min.insync.replicas", "1"))
    if in_sync > found.replicas:
        yield finding(
            f"{topic} asks for {in_sync} copies before it acknowledges and keeps {found.replicas}: it would take "
            "nothing. Lower its min.insync.replicas.",
            stops=True,
        )
    if in_sync < 2 <= found.replicas - 1:
        yield finding(f"{topic} acknowledges what only one broker has; set its min.insync.replicas to 2.")
    if given.get("unclean.leader.election.enable") == "true":
        yield finding(f"{topic} may lose acknowledged records: set its unclean.leader.election.enable to false.")
    yield from _size_findings(topic, int(given.get("max.message.bytes", settings.kafka_record_max_bytes)), settings)
    yield from _keeping_findings(topic, given, settings)


def _size_findings(topic: Topic, allowed: int, settings: Settings) -> Iterator[Finding]:
    if allowed < RECORD_BYTES_MIN:
        yield Finding(
            topic,
            f"{topic} takes records up to {allowed} bytes; raise its max.message.bytes to at least {RECORD_BYTES_MIN}.",
            topic in RELAYED,
        )
    elif allowed < settings.kafka_record_max_bytes:
        yield Finding(
            topic,
            f"{topic} takes records up to {allowed} bytes, the settings ask for {settings.kafka_record_max_bytes}: "
            "larger bodies travel in more pieces.",
            False,
        )


def _keeping_findings(topic: Topic, given: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    policy = given.get("cleanup.policy", "delete").replace(" ", "").split(",")
    if topic is Topic.CALLS:
        if policy != ["compact"]:
            yield Finding(
                topic, f"{topic} must keep the newest record of every call: set its cleanup.policy to compact.", False
            )
        return
    if "compact" in policy:
        yield Finding(
            topic,
            f"{topic} is compacted, which deletes all but the last record of a call: set its cleanup.policy to delete.",
            True,
        )
    kept_ms, kept_bytes = (int(given.get(name, FOR_EVER)) for name in ("retention.ms", "retention.bytes"))
    if kept_ms != FOR_EVER and (settings.kafka_retention_ms == FOR_EVER or kept_ms < settings.kafka_retention_ms):
        yield Finding(
            topic,
            f"{topic} deletes records after {_days(kept_ms)}: what the worker has not read by then it never reads, and "
            "it cannot rebuild from Kafka. Set its retention.ms to the setting kafka_retention_ms "
            f"({settings.kafka_retention_ms}).",
            False,
        )
    if kept_bytes != FOR_EVER:
        yield Finding(
            topic,
            f"{topic} deletes records beyond {kept_bytes} bytes a partition; set its retention.bytes to -1.",
            False,
        )


def _days(milliseconds: int) -> str:
    if milliseconds < 2 * DAY_MS:
        return f"{milliseconds / 3_600_000:.3g} hours"
    return f"{milliseconds / DAY_MS:.3g} days"
