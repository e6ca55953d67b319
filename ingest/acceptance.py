"""From verified to durable: hands deliveries to the journal, wakes who waits for it, knows what was seen before.

Everything here happens in the event loop, once per batch where possible: the journal's thread only calls `committed`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum

from calls.errors import JournalUnavailable
from calls.journal import Append, Journal, NewDelivery, NewNotice

COMMIT_S = 8.0
"""A commit that takes longer is as good as none: the sender is told to come back."""
REMEMBERED = 500_000
REMEMBERED_AT_ONCE = 10_000


class Outcome(Enum):
    """What became of an offered delivery."""

    DURABLE = "durable"
    SEEN_BEFORE = "seen before"


class Acceptance:
    """Makes deliveries durable, each body of a source once."""

    def __init__(self) -> None:
        self.on_commit: Callable[[int, float], None] = _ignore
        """Told of each commit: its deliveries, and the seconds since the oldest of them was offered."""
        self._loop = asyncio.get_running_loop()
        self._seen = _Seen(REMEMBERED)
        self._in_flight: dict[bytes, _Waiter] = {}
        self._waiting: deque[_Waiter] = deque()
        self._offered: list[Append] = []
        self._journal: Journal | None = None

    def use(self, journal: Journal) -> None:
        """Append to this journal from now on."""
        self._journal = journal

    async def remember(self, recent_ids: Callable[[int], Iterable[str]]) -> None:
        """Take earlier ids, the oldest first, for seen; raises what `recent_ids` raises."""
        keys = await asyncio.to_thread(lambda: [_key(delivery_id) for delivery_id in recent_ids(REMEMBERED)])
        while keys:
            self._seen.add_older(keys[-REMEMBERED_AT_ONCE:])
            del keys[-REMEMBERED_AT_ONCE:]
            await asyncio.sleep(0)

    async def accept(self, delivery: NewDelivery, *, late: bool = False) -> Outcome:
        """Return once the delivery is durable; `late` says that it came long before. Raises JournalUnavailable."""
        key = _key(delivery.id)
        if key in self._seen:
            return Outcome.SEEN_BEFORE
        same = self._in_flight.get(key)
        if same is not None:
            # The sender of this copy may only hear "received" once the other one really is.
            await asyncio.shield(same.future)
            return Outcome.SEEN_BEFORE
        waiter = _Waiter(key, self._loop.create_future(), time.monotonic())
        self._in_flight[key] = waiter
        self._waiting.append(waiter)
        if not self._offered:
            # Handed over when this turn of the loop ends: the journal's thread then wakes once for all of the turn.
            self._loop.call_soon(self._hand_over)
        self._offered.append(Append(delivery, waiter, late))
        await waiter.future
        return Outcome.DURABLE

    def note(self, notice: NewNotice) -> None:
        """Append a notice; nobody waits for it."""
        self._append(Append(notice))

    def committed(self, batch: list[Append], error: JournalUnavailable | None) -> None:
        """The journal's callback: called in its thread, once per batch."""
        self._loop.call_soon_threadsafe(self._settle, batch, error)

    def give_up_late(self) -> None:
        """Refuse deliveries whose commit takes too long; called now and then."""
        now = time.monotonic()
        while self._waiting and (self._waiting[0].future.done() or now - self._waiting[0].since > COMMIT_S):
            waiter = self._waiting.popleft()
            if not waiter.future.done():
                # It stays in flight: should its commit come after all, the resent copy is a repeat.
                waiter.future.set_exception(_overdue())

    def overdue(self) -> JournalUnavailable | None:
        """Why senders are told to come back, where a commit takes too long at this moment."""
        oldest = next(iter(self._in_flight.values()), None)
        return _overdue() if oldest is not None and time.monotonic() - oldest.since > COMMIT_S else None

    def _append(self, item: Append) -> None:
        if self._journal is None:
            raise JournalUnavailable("The journal is not open yet.")
        self._journal.append(item)

    def _hand_over(self) -> None:
        offered, self._offered = self._offered, []
        for item in offered:
            try:
                self._append(item)
            except JournalUnavailable as error:
                self._settle([item], error)

    def _settle(self, batch: list[Append], error: JournalUnavailable | None) -> None:
        oldest = time.monotonic()
        deliveries = 0
        seen, in_flight = self._seen, self._in_flight
        for item in batch:
            waiter = item.waiter
            if not isinstance(waiter, _Waiter):
                continue
            deliveries += 1
            del in_flight[waiter.key]
            if error is None:
                seen.add(waiter.key)
            oldest = min(oldest, waiter.since)
            if not waiter.future.done():
                if error is None:
                    waiter.future.set_result(None)
                else:
                    waiter.future.set_exception(error)
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        if error is None and deliveries:
            self.on_commit(deliveries, time.monotonic() - oldest)


class _Waiter:
    __slots__ = ("future", "key", "since")

    def __init__(self, key: bytes, future: asyncio.Future[None], since: float) -> None:
        self.key = key
        self.future = future
        self.since = since


class _Seen:
    """The newest ids, 16 bytes of each; some 50 MB when full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: set[bytes] = set()
        self._order: deque[bytes] = deque()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def add(self, key: bytes) -> None:
        if key in self._keys:
            return
        self._keys.add(key)
        self._order.append(key)
        if len(self._order) > self._limit:
            self._keys.discard(self._order.popleft())

    def add_older(self, keys: list[bytes]) -> None:
        """Add keys, the oldest first, that were all seen before every one that is here."""
        for key in reversed(keys):
            if len(self._order) >= self._limit:
                return
            if key not in self._keys:
                self._keys.add(key)
                self._order.appendleft(key)


def _overdue() -> JournalUnavailable:
    return JournalUnavailable(f"The journal has not confirmed a write for {COMMIT_S:.0f} s. Check the disk.")


def _ignore(_deliveries: int, _seconds: float) -> None:
    pass


def _key(delivery_id: str) -> bytes:
    return bytes.fromhex(delivery_id[:32])
