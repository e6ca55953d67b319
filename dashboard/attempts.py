"""How often a password may be tried: a few times an address, and not without end by all of them together."""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 300.0
PER_ADDRESS: Final = 5
OVERALL: Final = 60


class Attempts:
    """Counts tries before they are judged, so that many at once are not more than allowed one by one."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all: deque[float] = deque()
        self._by_network: dict[str, deque[float]] = {}

    def wait_s(self, address: str) -> float:
        """0 and the try is counted, or the seconds until there may be another."""
        now = self._clock()
        self._forget(now)
        theirs = self._by_network.get(_network(address), deque())
        wait = max(_wait(theirs, PER_ADDRESS, now), _wait(self._all, OVERALL, now))
        if wait <= 0:
            self._all.append(now)
            self._by_network.setdefault(_network(address), deque()).append(now)
        return wait

    def forgive(self, address: str) -> None:
        """It was the right password: what the address tried before counts no more."""
        for at in self._by_network.pop(_network(address), ()):
            self._all.remove(at)

    def _forget(self, now: float) -> None:
        # No more entries than `OVERALL` in any of them: cheap to walk.
        for times in (self._all, *self._by_network.values()):
            while times and times[0] <= now - WINDOW_S:
                times.popleft()
        self._by_network = {network: times for network, times in self._by_network.items() if times}


def _wait(times: deque[float], most: int, now: float) -> float:
    return times[-most] + WINDOW_S - now if len(times) >= most else 0.0


def _network(address: str) -> str:
    """What one person commands: an address, or the half of an IPv6 address that is a network's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
