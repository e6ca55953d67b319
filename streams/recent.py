"""The calls that were touched last, so that a further event of one needs no look-up in the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from calls.model import Call, CallKey, TimelineEvent

BYTES_MAX: Final = 128 * 1024 * 1024
CALLS_MAX: Final = 50_000
_CALL_BYTES = 2_500
_EVENT_BYTES = 3_000


class KnownCall(NamedTuple):
    """A call and the distinct events that it was folded from."""

    call: Call
    events: list[TimelineEvent]


class RecentCalls:
    """Bounded by what it holds, in estimated bytes, and by number of calls; the least recently touched go first."""

    def __init__(self, bytes_max: int = BYTES_MAX, calls_max: int = CALLS_MAX) -> None:
        self._bytes_max = bytes_max
        self._calls_max = calls_max
        self._bytes = 0
        self._calls: OrderedDict[CallKey, tuple[KnownCall, int]] = OrderedDict()

    def of(self, keys: Iterable[CallKey]) -> dict[CallKey, KnownCall]:
        """Those of the keys that are remembered."""
        return {key: held[0] for key in keys if (held := self._calls.get(key)) is not None}

    def keep(self, calls: Mapping[CallKey, KnownCall]) -> None:
        """Remember these as the most recent."""
        for key, known in calls.items():
            held = self._calls.pop(key, None)
            size = _size(known)
            self._bytes += size - (0 if held is None else held[1])
            self._calls[key] = known, size
        while self._bytes > self._bytes_max or len(self._calls) > self._calls_max:
            self._bytes -= self._calls.popitem(last=False)[1][1]

    def __len__(self) -> int:
        return len(self._calls)

    def clear(self) -> None:
        """Forget all."""
        self._calls.clear()
        self._bytes = 0


def _size(known: KnownCall) -> int:
    # The data of an event is held twice: as text, and once more in its fields.
    size = _CALL_BYTES
    for timed in known.events:
        size += _EVENT_BYTES + 2 * len(timed.data)
    return size
