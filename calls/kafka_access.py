"""How Kafka's brokers are reached, trusted and logged in to: what the settings say of it, for every client."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final

from calls.errors import SettingsError

if TYPE_CHECKING:
    from calls.settings import Settings

PROBE_S: Final = 2.0


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


def options(settings: Settings) -> dict[str, object]:
    """Servers, TLS and login under the names that kafka-python gives them. Raises SettingsError."""
    given: dict[str, object] = {
        "bootstrap_servers": [f"{host}:{port}" for host, port in settings.kafka_servers],
        "security_protocol": settings.kafka_security_protocol,
    }
    context, names = tls(settings), login(settings)
    if context is not None:
        given["ssl_context"] = context
    if names is not None:
        given |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": names[0],
            "sasl_plain_password": names[1],
        }
    return given


def unreachable(settings: Settings) -> str | None:
    """Why no broker of the settings can be connected to, a sentence; None where one can. Raises SettingsError."""
    context = tls(settings)
    found = []
    for host, port in settings.kafka_servers:
        try:
            with socket.create_connection((host, port), PROBE_S) as connection:
                if context is not None:
                    context.wrap_socket(connection, server_hostname=host).close()
                return None
        except ssl.SSLCertVerificationError as error:
            found.append(f"{host}:{port} has a certificate that is not trusted ({error.verify_message})")
        except ssl.SSLError as error:
            found.append(f"{host}:{port} does not speak TLS as expected ({error.reason or error})")
        except TimeoutError:
            found.append(f"{host}:{port} does not answer")
        except OSError as error:
            found.append(f"{host}:{port} cannot be reached ({error.strerror or error})")
    return f"Kafka is away: {'; '.join(found)}."
