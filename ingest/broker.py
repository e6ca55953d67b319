"""How Kafka is reached: clients made from the settings, and what their failures mean to a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from kafka import KafkaProducer, errors
from kafka.admin import KafkaAdminClient
from kafka.net.compat import KafkaNetClient

from calls import kafka_access
from calls.errors import BrokerError, BrokerRefused, BrokerUnavailable, SettingsError

if TYPE_CHECKING:
    from calls.settings import Settings

CLIENT_ID = "calltally-relay"
BOOTSTRAP_S = 5.0
REQUEST_S = 20.0
WHILE_CONNECTING_MS = 50.0

_REFUSALS = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
    errors.PolicyViolationError,
)
_Client = TypeVar("_Client")


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """A client that makes and describes topics. Raises BrokerError, SettingsError."""
    # Looked at first, because the client would try for seconds and could not say why.
    away = kafka_access.unreachable(settings)
    if away is not None:
        raise BrokerUnavailable(away)
    with explained(settings):
        refused = _refused_login(settings)
        if refused is not None:
            raise refused
        client = _opened(KafkaAdminClient, settings)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def producer(settings: Settings, **options: object) -> Iterator[KafkaProducer]:
    """A client that publishes; what it has not published at the end is dropped. Raises BrokerError, SettingsError."""
    with explained(settings):
        client = _opened(KafkaProducer, settings, metrics_enabled=False, **options)
        try:
            yield client
        finally:
            _abandon(client)


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turns the client library's errors into ours."""
    try:
        yield
    except errors.KafkaConfigurationError as error:
        raise SettingsError(f"The settings for Kafka do not fit together: {error}.") from None
    except errors.KafkaError as error:
        raise explain(error, settings) from None


def explain(error: BaseException, settings: Settings) -> BrokerError:
    """What an error of the client library means, in a sentence."""
    if isinstance(error, errors.KafkaError) and error.retriable:
        away = kafka_access.unreachable(settings)
        if away is not None:
            return BrokerUnavailable(away)
        error = _refused_login(settings) or error
    said = ": ".join(part for part in (type(error).__name__, _detail(error)) if part)
    if isinstance(error, _REFUSALS):
        return BrokerRefused(f"Kafka refuses us ({said}). Check kafka_username, kafka_password and the user's rights.")
    if isinstance(error, errors.KafkaTimeoutError):
        return BrokerUnavailable(
            f"Kafka takes connections at {settings.kafka_bootstrap_servers}, but does not answer in time; trying again."
        )
    if isinstance(error, errors.KafkaError) and error.retriable:
        return BrokerUnavailable(f"Kafka does not answer as it should ({said}); trying again.")
    return BrokerError(f"Kafka refused a request ({said}).")


def options(settings: Settings) -> dict[str, object]:
    """What every client of kafka-python is told. Raises SettingsError."""
    return {
        **kafka_access.options(settings),
        "client_id": CLIENT_ID,
        "bootstrap_timeout_ms": int(BOOTSTRAP_S * 1000),
        "request_timeout_ms": int(REQUEST_S * 1000),
        "reconnect_backoff_ms": 100,
        "reconnect_backoff_max_ms": 2000,
    }


class _PatientClient(KafkaNetClient):  # type: ignore[misc]
    """The connections of a client, without the spinning of 3.0.12 while a broker is away.

    Its sender takes the seconds until the next attempt for milliseconds, and polls without a pause while one is under
    way: a broker that is paused cost a whole core. A poll ends at once when anything arrives.
    """

    def connection_delay(self, node_id: object) -> float:
        return max(WHILE_CONNECTING_MS, 1000 * float(super().connection_delay(node_id)))


def _opened(make: Callable[..., _Client], settings: Settings, **more: object) -> _Client:
    clients: list[Any] = []

    def keep(**given: object) -> object:
        clients.append(_PatientClient(**given))
        return clients[-1]

    try:
        return make(kafka_client=keep, **options(settings), **more)
    except BaseException:
        # A constructor that fails leaves its sockets, and the admin client its thread, to nobody.
        for client in clients:
            client.close()
        raise


def _abandon(client: KafkaProducer) -> None:
    try:
        client.close(timeout=0)
    except errors.KafkaTimeoutError:
        # `close` stops at what is not acknowledged yet and leaves its thread publishing; only the thread itself can
        # be told to drop that. Then `close` goes through.
        client._sender.force_close()
        client._sender.join(REQUEST_S)
        client.close(timeout=0)


def _refused_login(settings: Settings) -> errors.KafkaError | None:
    """A client whose login is refused tries on and ends with a timeout: the refusal shows on a bare connection."""
    if not settings.kafka_security_protocol.startswith("SASL_"):
        return None
    client = KafkaNetClient(**options(settings))

    async def login() -> None:
        for server in client.cluster.bootstrap_brokers():
            await client._manager.get_connection(server.node_id, timeout_ms=int(BOOTSTRAP_S * 1000))

    try:
        client._net.run(login)
    except _REFUSALS as refusal:
        return refusal
    except errors.KafkaConnectionError:
        # How a refusal often arrives: the broker hangs up behind its answer, and the client sees that first.
        return errors.SaslAuthenticationFailedError("it hung up during the login")
    except errors.KafkaError:
        return None
    finally:
        client.close()
    return None


def _detail(error: BaseException) -> str:
    return str(error.args[0]) if error.args and error.args[0] else ""
