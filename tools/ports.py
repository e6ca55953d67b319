"""Ports for processes that are started on this machine, side by side with others that look for ports, too."""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Below what Linux (32768) and others (49152) give to connections that go out: what is free here now stays free until
# whom it is meant for takes it, and while that one is started again.
_PORTS = range(10_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Different loopback ports on which nobody listens; nobody else is given them here until this process ends."""
    usable = (port for port in _each_once() if _claimed(port) and _bindable(port))
    return list(itertools.islice(usable, count))


def _each_once() -> Iterator[int]:
    """All ports, from the one behind the last that was looked at."""
    return (_PORTS[next(_turn()) % len(_PORTS)] for _ in _PORTS)


@functools.cache
def _turn() -> Iterator[int]:
    return itertools.count(random.randrange(len(_PORTS)))


def _claimed(port: int) -> bool:
    """Lock the port's byte in a file that all processes of this user share; the system unlocks it when we end."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@functools.cache
def _claims() -> int:
    path = Path(tempfile.gettempdir()) / f"calltally-ports-{os.geteuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
