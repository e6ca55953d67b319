"""Whether a process may listen where the settings say, asked before it starts: its web server would tell it badly."""

from __future__ import annotations

import socket

from calls.errors import CalltallyError


def require_free(setting: str, host: str, port: int) -> None:
    """Raises CalltallyError where nothing could listen there; `setting` is the one that names the port."""
    if (reason := why_not(host, port)) is not None:
        raise CalltallyError(
            f"Port {port} on {host} cannot be used ({reason}): perhaps Calltally already runs. "
            f"Choose another with {setting} in calltally.toml or CALLTALLY_{setting.upper()}."
        )


def why_not(host: str, port: int) -> str | None:
    """What keeps one from listening there, in the system's words; None where nothing does."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None
