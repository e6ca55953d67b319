"""What follows from commits is published: in order, behind the applying, and again after a crash.

How far everything is published stands in the store under a second stream, saved with a later batch. What lies between
that and what is applied is read from Kafka again at the start and published once more, so no list of what is still to
be sent is kept anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from analytics.store import Batch, Position
from calls.journal_row import Record
from calls.model import CallKey, DeadLetter
from calls.records import Outgoing
from streams.announce import ANNOUNCED, Announcer

WAITING_MAX: Final = 20_000
"""So many records may wait to be sent; then applying waits for them."""
GATHERED_S: Final = 0.2
"""So long after a sending the next one waits for more, since each costs Kafka and us a request for every partition."""
GATHERED_MAX: Final = 1_000
"""So many records are sent at once."""
SAVE_S: Final = 1.0
"""How often it is saved how far all is published: a crash repeats what was published since."""


class Publishing:
    """Sends what an announcer makes of committed records; of several versions of a call that wait, the newest."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        """Set where what waits is not to wait for more."""
        self._changed = threading.Condition()
        self._waiting: dict[tuple[str, bytes], Outgoing] = {}
        self._reached: dict[str, int] = {}
        self._announced: dict[str, int] = {}
        self._saved: dict[str, int] = {}
        self._save_at = 0.0
        self._keys: dict[CallKey, None] = {}
        self._letters: list[DeadLetter] = []
        self._rows = 0
        self._sending = False
        self._closed = False

    def positions(self, *, at_once: bool) -> list[Position]:
        """How far all is published, where that is new and either asked for `at_once` or due. Of the applying thread."""
        if not at_once and time.monotonic() < self._save_at:
            return []
        self._save_at = time.monotonic() + SAVE_S
        with self._changed:
            news = {name: at for name, at in self._announced.items() if self._saved.get(name) != at}
            self._saved.update(news)
        return [Position(ANNOUNCED, name, at) for name, at in news.items()]

    def took(self, batch: Batch) -> None:
        """The store took this; an applier's `on_commit`."""
        self._keys.update(dict.fromkeys([change.key for change in batch.changes]))
        self._letters += batch.dead_letters
        self._rows += len(batch.deliveries)

    def committed(self, records: Sequence[Record], positions: Iterable[Position]) -> None:
        """These records were just applied, up to these positions. Of the applying thread."""
        keys, letters, rows = self._keys, self._letters, self._rows
        self._forget()
        if rows < len(records):
            # Some were in the store, but not published: it took them without their positions before a crash.
            self._add(self._announcer.again(records), positions)
        else:
            self._add(self._announcer.records(keys, letters), positions)

    def again(self, records: Sequence[Record], positions: Iterable[Position]) -> None:
        """These were applied before, and may not have been published. Of the applying thread."""
        self._add(self._announcer.again(records), positions)

    async def run(self, send: Callable[[Sequence[Outgoing]], Awaitable[None]]) -> None:
        """Send what waits, for ever; `send` returns when all is acknowledged.

        What comes after a quiet while is sent at once. The store shows it already, so the rest can wait a little.
        """
        send_at = 0.0
        while True:
            await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(send_at):
                    await self._full.wait()
            send_at = self._loop.time() + GATHERED_S
            self._wake.clear()
            self._full.clear()
            with self._changed:
                batch, reached = list(self._waiting.values()), dict(self._reached)
                self._waiting.clear()
                self._sending = True
                self._changed.notify_all()
            if batch:
                await send(batch)
            with self._changed:
                self._announced.update(reached)
                self._sending = False
                self._changed.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Wait in a thread until all is sent, not longer than that; then nothing waits for room any more."""
        self._loop.call_soon_threadsafe(self._full.set)
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._sending, timeout_s)
            self._closed = True
            self._changed.notify_all()

    def _forget(self) -> None:
        self._keys, self._letters, self._rows = {}, [], 0

    def _add(self, outgoing: Iterable[Outgoing], positions: Iterable[Position]) -> None:
        with self._changed:
            for record in outgoing:
                key = (record.topic, record.key)
                self._waiting.pop(key, None)
                self._waiting[key] = record
            self._reached.update((position.stream_id, position.position) for position in positions)
            self._loop.call_soon_threadsafe(self._wake.set)
            if len(self._waiting) >= GATHERED_MAX:
                self._loop.call_soon_threadsafe(self._full.set)
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < WAITING_MAX)
