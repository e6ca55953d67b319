"""The socket at which webhooks arrive: made by whoever outlives the process that reads it."""

from __future__ import annotations

import socket

from calls.errors import CalltallyError
from calls.settings import Settings

BACKLOG = 4096


def bind(settings: Settings) -> socket.socket:
    """A socket at the configured address that does not listen yet. Raises CalltallyError."""
    host, port = settings.ingest_host, settings.ingest_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise CalltallyError(
            f"Webhooks cannot be received on {host} port {port}: {error.strerror}. "
            "Perhaps ingest already runs; else choose another with ingest_host and ingest_port."
        ) from None
    return bound
