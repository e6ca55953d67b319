"""Whether Kafka, where it is used, takes what the relay publishes and gives the worker what it reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple

from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from calls import kafka_access, relay_report
from calls.errors import BrokerRefused, CalltallyError, SettingsError
from calls.records import RELAYED, Topic
from cli.check import Finding, Level, Patient
from ingest import broker, topics

if TYPE_CHECKING:
    from calls.settings import Settings

OLDEST: Final = (2, 8)
"""The first that tells a topic's id, by which we know it from another one of the same name."""
SKEW_WARN_S: Final = 60.0
LAG_WARN: Final = 1_000
GROUP: Final = "calltally-doctor"
_OFFSETS: Final = "__consumer_offsets"
_NTP: Final = "Switch time synchronisation on (timedatectl set-ntp true), here and on Kafka's machines."
_START: Final = "Start Kafka or mend the way to it; what is received meanwhile is kept and published when it is back."
_NAME: Final = "Set CALLTALLY_KAFKA_BOOTSTRAP_SERVERS, or run `calltally up` without --kafka and rebuild the store."
_LOGIN: Final = "Check kafka_username, kafka_password and kafka_sasl_mechanism."


class _Role(NamedTuple):
    """What a process of ours does with topics."""

    name: str
    operations: Mapping[Topic, frozenset[str]]


_ROLES: Final = (
    _Role("the relay", dict.fromkeys(RELAYED, frozenset({"DESCRIBE", "DESCRIBE_CONFIGS", "WRITE"}))),
    _Role(
        "the worker",
        {
            **dict.fromkeys(RELAYED, frozenset({"DESCRIBE", "READ"})),
            **dict.fromkeys((Topic.CALLS, Topic.DEAD), frozenset({"DESCRIBE", "WRITE"})),
        },
    ),
)


def check(patient: Patient) -> Iterator[Finding]:
    """Reachable, versions, topics, rights, sizes, clocks, and how far the relay is; nothing where Kafka is not used."""
    settings = patient.settings
    report = relay_report.read(settings.data_dir)
    if not settings.kafka_bootstrap_servers:
        if report is not None:
            yield Finding(Level.WARNING, "A relay has published this journal, but no Kafka broker is named now.", _NAME)
        return
    # The client tells of every attempt to connect; what it comes to is said below.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        broker.options(settings)
    except SettingsError as error:
        yield Finding(Level.WRONG, error.message, "Mend it in calltally.toml or the environment; see README, Settings.")
        return
    reached = list(_reached(settings))
    yield from reached
    if any(not finding.bad for finding in reached):
        try:
            yield from _asked(settings)
        except CalltallyError as error:
            yield Finding(Level.WRONG, error.message, _LOGIN if isinstance(error, BrokerRefused) else _START)
    if report is not None:
        yield _relay(report, relay_report.running(settings.data_dir))


def _reached(settings: Settings) -> Iterator[Finding]:
    away = {}
    for host, port in settings.kafka_servers:
        server = f"{host}:{port}"
        reason = kafka_access.unreachable(settings.model_copy(update={"kafka_bootstrap_servers": server}))
        if reason is None:
            yield Finding(Level.OK, f"{server} takes connections.")
        else:
            away[server] = reason
    # One of several is enough to begin with.
    level = Level.WRONG if len(away) == len(settings.kafka_servers) else Level.WARNING
    for reason in away.values():
        yield Finding(level, reason, _START)


def _asked(settings: Settings) -> Iterator[Finding]:
    with broker.admin(settings) as client:
        cluster = client.describe_cluster()
        yield from _versions(client, [int(one["broker_id"]) for one in cluster["brokers"]])
        described = {Topic(one["name"]): one for one in client.describe_topics([str(topic) for topic in Topic])}
        yield from _rights(described)
        yield from _group(client)
        missing = [topic for topic, one in described.items() if _error(one) is errors.UnknownTopicOrPartitionError]
        yield from _may_make(client, missing)
        if all(_error(one) is not errors.TopicAuthorizationFailedError for one in described.values()):
            yield from _topics(client, settings)
        yield from _sizes(client, settings, int(cluster["controller_id"]), Topic.DELIVERIES not in missing)
        yield _clock(client)


def _versions(client: KafkaAdminClient, brokers: list[int]) -> Iterator[Finding]:
    found = {}
    for number in brokers:
        try:
            found[number] = client.get_broker_version_data(number).broker_version
        except errors.KafkaError as error:
            yield Finding(
                Level.WARNING, f"Broker {number} of the cluster does not answer ({type(error).__name__}).",
                "Start it, or mend its advertised.listeners: clients are sent to the address it names there.",
            )  # fmt: skip
    clients = f"kafka-python {version('kafka-python')}, faust-streaming {version('faust-streaming')}"
    told = ", ".join(sorted({".".join(map(str, one)) for one in found.values()}))
    yield Finding(Level.OK, f"Kafka {told or '?'} with {len(brokers)} broker{'s' * (len(brokers) != 1)}; {clients}.")
    if any(one < OLDEST for one in found.values()):
        oldest = ".".join(map(str, OLDEST))
        yield Finding(Level.WRONG, f"Kafka {told} is too old: topics have no ids there.", f"Use {oldest} or newer.")


def _rights(described: Mapping[Topic, Mapping[str, object]]) -> Iterator[Finding]:
    lacking = {role.name: list(_lacking(role, described)) for role in _ROLES}
    complete = [name for name, lacks in lacking.items() if not lacks]
    if len(complete) == len(lacking):
        # Of a topic that does not exist nothing is known.
        if any(_error(one) is errors.NoError for one in described.values()):
            yield Finding(Level.OK, "The user has the rights on the topics that relay and worker need.")
        return
    for name, lacks in lacking.items():
        if lacks:
            # Where each has a user of its own, this one is not to have the rights of the other.
            level = Level.NOTE if complete else Level.WRONG
            but = f", but all that {complete[0]} needs" if complete else ""
            yield Finding(
                level, f"The user lacks rights that {name} needs: {', '.join(lacks)}{but}.",
                f"Where {name} runs as this user, give it these rights (kafka-acls --add --allow-principal ...).",
            )  # fmt: skip


def _lacking(role: _Role, described: Mapping[Topic, Mapping[str, object]]) -> Iterator[str]:
    for topic, needed in role.operations.items():
        one = described[topic]
        operations = one.get("authorized_operations")
        if _error(one) is errors.TopicAuthorizationFailedError:
            operations = []
        elif _error(one) is not errors.NoError or not isinstance(operations, list):
            continue
        for operation in sorted(needed - set(operations)):
            yield f"{operation.title().replace('_', '')} on {topic}"


def _group(client: KafkaAdminClient) -> Iterator[Finding]:
    # To ask where there are no groups at all would make Kafka's own topic for them.
    if _OFFSETS not in client.list_topics():
        return
    try:
        client.describe_groups([GROUP])
    except errors.GroupAuthorizationFailedError:
        yield Finding(
            Level.WARNING, "The user may not use consumer groups that begin with calltally-, which the worker needs.",
            "Give it Read on them: kafka-acls ... --operation Read --group calltally- --resource-pattern-type prefixed",
        )  # fmt: skip
    except errors.KafkaError as error:
        yield Finding(
            Level.WARNING, f"Kafka cannot tell of consumer groups ({type(error).__name__}).",
            f"Look at its topic {_OFFSETS}: the worker waits until its partitions have a leader.",
        )  # fmt: skip


def _may_make(client: KafkaAdminClient, missing: list[Topic]) -> Iterator[Finding]:
    if not missing:
        return
    try:
        client.create_topics(
            {str(topic): {"num_partitions": 1, "replication_factor": 1} for topic in missing}, validate_only=True
        )
    except (errors.AuthorizationError, errors.PolicyViolationError) as error:
        yield Finding(
            Level.WRONG, f"The user may not make the topics {', '.join(missing)} ({type(error).__name__}).",
            "Give it the right Create on them, or make them by hand.",
        )  # fmt: skip
    except errors.TopicAlreadyExistsError:
        return


def _topics(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    found = topics.look(client, settings)
    for finding in found:
        if finding.missing:
            yield Finding(Level.NOTE, finding.sentence)
        elif finding.stops:
            yield Finding(Level.WRONG, finding.sentence, "Until then nothing is published, and deliveries wait here.")
        else:
            yield Finding(Level.WARNING, finding.sentence, "Change it with kafka-configs, or the setting to match.")
    if not found:
        yield Finding(Level.OK, f"The topics are as the settings say: {', '.join(Topic)}.")


def _sizes(client: KafkaAdminClient, settings: Settings, number: int, made: bool) -> Iterator[Finding]:
    """What a record may be, against what a body may be and what the broker reads at a time."""
    asked = [ConfigResource(ConfigResourceType.BROKER, str(number))]
    asked += [ConfigResource(ConfigResourceType.TOPIC, str(Topic.DELIVERIES))] if made else []
    try:
        given = client.describe_configs(asked, config_filter="all")
    except errors.AuthorizationError:
        yield Finding(
            Level.NOTE,
            "How large a request Kafka takes cannot be told.",
            "Give the user DescribeConfigs on the cluster.",
        )
        return
    largest = settings.kafka_record_max_bytes
    entry = given.get("topic", {}).get(str(Topic.DELIVERIES), {}).get("max.message.bytes")
    if entry is not None:
        largest = min(largest, int(entry["value"]))
    pieces = -(-(settings.max_body_mib << 20) // largest)
    request = given.get("broker", {}).get(str(number), {}).get("socket.request.max.bytes")
    if request is not None and int(request["value"]) < 2 * largest:
        yield Finding(
            Level.WRONG, f"Kafka reads requests up to {int(request['value']):,} bytes: one with two records of "
            f"{largest:,} is refused.",
            "Lower kafka_record_max_bytes, or raise the broker's socket.request.max.bytes.",
        )  # fmt: skip
    else:
        told = "one record" if pieces == 1 else f"about {pieces} records"
        yield Finding(
            Level.OK, f"Records may have {largest:,} bytes: a body of {settings.max_body_mib} MiB, the largest that is "
            f"accepted, travels in {told}.",
        )  # fmt: skip


def _clock(client: KafkaAdminClient) -> Finding:
    before_s = time.time()
    try:
        (quorum,) = client.describe_metadata_quorum()["topics"][0]["partitions"]
    except errors.KafkaError as error:
        return Finding(
            Level.NOTE, f"Kafka's clock cannot be compared with ours ({type(error).__name__}).",
            "It tells its time to who has the right Describe on the cluster.",
        )  # fmt: skip
    # A leader is always caught up with itself: what it says of that is the time by its clock.
    leader = [one for one in quorum["current_voters"] if one["replica_id"] == quorum["leader_id"]]
    told_ms = [one["last_caught_up_timestamp"] for one in leader]
    if not told_ms or told_ms[0] <= 0:
        return Finding(Level.NOTE, "Kafka's clock cannot be compared with ours: its controller does not tell its time.")
    return compared((before_s + time.time()) / 2 - told_ms[0] / 1000)


def compared(ahead_s: float) -> Finding:
    """What it means that this machine's clock is so far ahead of Kafka's."""
    if abs(ahead_s) < SKEW_WARN_S:
        return Finding(Level.OK, f"This machine's clock and Kafka's agree within {max(abs(ahead_s), 0.1):.1f} s.")
    which = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        Level.WARNING, f"This machine's clock is {abs(ahead_s):,.0f} s {which} Kafka's: records bear a wrong time, and "
        "from an hour ahead Kafka refuses them.",
        _NTP,
    )  # fmt: skip


def _relay(report: relay_report.Report, alive: bool) -> Finding:
    behind = f"{report.lag:,} records of the journal are not published yet."
    if not alive:
        level = Level.WARNING if report.lag else Level.NOTE
        return Finding(
            level, f"The relay does not run; {behind}", "Start `calltally up --kafka`, or `calltally relay`."
        )
    if report.fault is not None:
        return Finding(
            Level.WRONG,
            f"The relay waits: {report.fault.message} {behind}",
            "It goes on by itself once that is mended.",
        )
    if report.lag > LAG_WARN:
        return Finding(Level.WARNING, f"The relay is behind: {behind}", "Wait, or see its log for why.")
    return Finding(Level.OK, f"The relay runs; {behind if report.lag else 'all of the journal is published.'}")


def _error(described: Mapping[str, object]) -> type[BaseException]:
    found: type[BaseException] = errors.for_code(described["error_code"])
    return found
