"""What the worker asks Kafka beside reading: which topics these are, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kafka import TopicPartition, errors
from kafka.admin import KafkaAdminClient, OffsetSpec

from calls import kafka_access
from calls.errors import BrokerError, BrokerRefused, BrokerUnavailable, SettingsError
from streams.offsets import TOPICS, Held

if TYPE_CHECKING:
    from calls.settings import Settings

CLIENT_ID: Final = "calltally-worker"
BOOTSTRAP_S: Final = 5.0
REQUEST_S: Final = 10.0

_REFUSALS: Final = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
)


def look(settings: Settings) -> Held:
    """What Kafka holds of the topics that a worker reads. Raises BrokerError, SettingsError."""
    # Looked at first, because a client tries for seconds and cannot say why.
    away = kafka_access.unreachable(settings)
    if away is not None:
        raise BrokerUnavailable(away)
    with _explained(settings), _admin(settings) as client:
        ids: dict[str, str] = {}
        slots: list[TopicPartition] = []
        for topic in client.describe_topics(list(TOPICS)):
            error = errors.for_code(topic["error_code"])
            if error is errors.UnknownTopicOrPartitionError:
                raise BrokerUnavailable(
                    f"The topic {topic['name']} does not exist yet; the relay makes it. Is `calltally relay` running?",
                    code="topic_missing",
                )
            if error is not errors.NoError:
                raise error(topic["name"])
            ids[topic["name"]] = str(topic["topic_id"])
            slots += [TopicPartition(topic["name"], part["partition_index"]) for part in topic["partitions"]]
        firsts = client.list_partition_offsets(dict.fromkeys(slots, OffsetSpec.EARLIEST))
        ends = client.list_partition_offsets(dict.fromkeys(slots, OffsetSpec.LATEST))
    return Held(
        ids,
        {(slot.topic, slot.partition): found.offset for slot, found in firsts.items()},
        {(slot.topic, slot.partition): found.offset for slot, found in ends.items()},
    )


@contextmanager
def _admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(
        **kafka_access.options(settings),
        client_id=CLIENT_ID,
        bootstrap_timeout_ms=int(BOOTSTRAP_S * 1000),
        request_timeout_ms=int(REQUEST_S * 1000),
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    try:
        yield
    except errors.KafkaConfigurationError as error:
        raise SettingsError(f"The settings for Kafka do not fit together: {error}.") from None
    except errors.KafkaError as error:
        raise _explain(error, settings.kafka_bootstrap_servers) from error


def _explain(error: errors.KafkaError, servers: str) -> BrokerError:
    said = ": ".join(part for part in (type(error).__name__, _detail(error.args)) if part)
    if isinstance(error, _REFUSALS):
        return BrokerRefused(f"Kafka refuses us ({said}). Check kafka_username, kafka_password and the user's rights.")
    return BrokerUnavailable(f"Kafka at {servers} does not answer as it should ({said}); trying again.")


def _detail(args: Sequence[object]) -> str:
    return str(args[0]) if args and args[0] else ""
