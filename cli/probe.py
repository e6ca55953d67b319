"""Whether one of our processes answers at an address, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analytics.client import Partition

TIMEOUT_S = 3.0


class State(StrEnum):
    """How a process answers."""

    READY = "running"
    UNREADY = "not ready"
    ABSENT = "not running"
    FOREIGN = "something else answers there"


@dataclass(frozen=True, slots=True)
class Health:
    """What a process says of itself."""

    address: str
    state: State
    detail: str = ""
    partitions: tuple[Partition, ...] = ()
    """Of a worker that reads from Kafka."""


def health(address: str) -> Health:
    """Ask `/readyz` at an address."""
    import httpx

    try:
        answer = httpx.get(f"{address}/readyz", timeout=TIMEOUT_S, trust_env=False)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return Health(address, State.ABSENT)
    except httpx.HTTPError as error:
        return Health(address, State.FOREIGN, f"{type(error).__name__}")
    try:
        said = answer.json()
        partitions = _partitions(said.get("partitions", []))
        if answer.status_code == 200 and said["status"] == "ready":
            return Health(address, State.READY, partitions=partitions)
        if answer.status_code == 503:
            return Health(address, State.UNREADY, str(said.get("message") or said.get("reason") or ""), partitions)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Health(address, State.FOREIGN, f"it answered {answer.status_code} to GET /readyz")


def _partitions(said: list[dict[str, Any]]) -> tuple[Partition, ...]:
    if not said:
        return ()
    from analytics.client import Partition

    return tuple(Partition(**one) for one in said)
