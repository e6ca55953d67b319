"""What the worker asks Kafka beside reading: which topics these are, and what they hold."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kafka import TopicPartition, errors
from kafka.admin import KafkaAdminClient, OffsetSpec

from calls.errors import BrokerError, BrokerRefused, BrokerUnavailable, SettingsError
from streams.offsets import TOPICS, Held

if TYPE_CHECKING:
    from calls.settings import Settings

CLIENT_ID: Final = "calltally-worker"
PROBE_S: Final = 2.0
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
    _require_reachable(settings)
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


def tls(settings: Settings) -> ssl.SSLContext | None:
    """How connections are secured; None where they are not. Raises SettingsError."""
    if settings.kafka_security_protocol not in ("SSL", "SASL_SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
        if settings.kafka_certificate_file is not None:
            context.load_cert_chain(settings.kafka_certificate_file, settings.kafka_key_file)
    except OSError as error:  # also ssl.SSLError
        named = [str(path) for path in (settings.kafka_ca_file, settings.kafka_certificate_file) if path]
        raise SettingsError(f"The certificates for Kafka ({', '.join(named)}) cannot be read: {error}.") from None
    return context


def login(settings: Settings) -> tuple[str, str] | None:
    """User and password; None where the brokers ask for none. Raises SettingsError where one is missing."""
    protocol, user, password = settings.kafka_security_protocol, settings.kafka_username, settings.kafka_password
    if protocol.startswith("SASL_"):
        if user is None or password is None:
            raise SettingsError(
                f"kafka_security_protocol is {protocol}, which needs kafka_username and kafka_password "
                "(CALLTALLY_KAFKA_USERNAME, CALLTALLY_KAFKA_PASSWORD)."
            )
        return user, password
    if password is not None:
        raise SettingsError(
            f"kafka_password is set, but kafka_security_protocol is {protocol}, which sends none. Set it to SASL_SSL."
        )
    return None


@contextmanager
def _admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    options: dict[str, object] = {
        "bootstrap_servers": [f"{host}:{port}" for host, port in settings.kafka_servers],
        "client_id": CLIENT_ID,
        "security_protocol": settings.kafka_security_protocol,
        "bootstrap_timeout_ms": int(BOOTSTRAP_S * 1000),
        "request_timeout_ms": int(REQUEST_S * 1000),
    }
    context, given = tls(settings), login(settings)
    if context is not None:
        options["ssl_context"] = context
    if given is not None:
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": given[0],
            "sasl_plain_password": given[1],
        }
    client = KafkaAdminClient(**options)
    try:
        yield client
    finally:
        client.close()


def _require_reachable(settings: Settings) -> None:
    """Looked at first, because a client tries for seconds and cannot say why. Raises BrokerUnavailable."""
    found = []
    context = tls(settings)
    for host, port in settings.kafka_servers:
        try:
            with socket.create_connection((host, port), PROBE_S) as connection:
                if context is not None:
                    context.wrap_socket(connection, server_hostname=host).close()
                return
        except ssl.SSLCertVerificationError as error:
            found.append(f"{host}:{port} has a certificate that is not trusted ({error.verify_message})")
        except TimeoutError:
            found.append(f"{host}:{port} does not answer")
        except OSError as error:
            found.append(f"{host}:{port} cannot be reached ({error.strerror or error})")
    raise BrokerUnavailable(f"Kafka is away: {'; '.join(found)}.")


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
