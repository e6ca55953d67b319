"""From fetches that wait to committed batches: one at a time, in a thread, while the event loop stays free."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from analytics.store import Position, Store
from calls.journal_row import Record
from streams.announce import APPLIED
from streams.apply import Applier
from streams.offsets import Held, is_beginning, starts, unannounced_from
from streams.partition import FetchGap, Gap, Partition, Slot

if TYPE_CHECKING:
    from streams.fetches import Fetch
    from streams.kafka_state import KafkaState

BATCH_RECORDS: Final = 4_000
BATCH_BYTES: Final = 16 << 20
"""So much of what waits is applied in one transaction; the last fetch of it may bring more."""
WAITING_RECORDS: Final = 8_000
WAITING_BYTES: Final = 32 << 20
QUIET_S: Final = 0.5
"""Without a new record for this long, there is time to tidy the store."""

log = structlog.get_logger("streams")


class Publisher(Protocol):
    """Who publishes what follows from a commit; its methods are called by the applying thread."""

    def positions(self, *, at_once: bool) -> list[Position]:
        """How far all is published, as far as that has changed and is to be saved now."""
        ...

    def committed(self, records: Sequence[Record], positions: Sequence[Position]) -> None:
        """These records are in the store now, which stands at these positions."""
        ...

    def again(self, records: Sequence[Record], positions: Sequence[Position]) -> None:
        """These records were in the store before, and may not have been published."""
        ...


class Flow:
    """Applies fetches to the store until it is closed; a `Feed` of the consumer."""

    def __init__(
        self,
        store: Store,
        applier: Applier,
        state: KafkaState,
        held: Held,
        publisher: Publisher,
        *,
        from_oldest: bool = False,
    ) -> None:
        """Raises StoreMismatch and BrokerError where the store does not fit to what Kafka holds."""
        self._store = store
        self._applier = applier
        self._state = state
        self._held = held
        self._publisher = publisher
        self._ends = dict(held.ends)
        self._partitions: dict[Slot, Partition] = {}
        self._gaps: dict[Slot, Gap] = {}
        self._waiting: deque[Fetch] = deque()
        self._waiting_records = self._waiting_bytes = 0
        self._changed = asyncio.Condition()
        self._applying = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "apply")
        self._told = False
        self.begun = asyncio.Event()
        """Set once partitions are assigned."""
        positions = store.positions()
        self._applied = starts(positions, held, from_oldest=from_oldest)
        self._read_from = unannounced_from(positions, held, self._applied)
        """Where to read on; before that which is applied as long as what follows from it is still to be published."""
        self._rebuild_until = dict(held.ends) if is_beginning(positions) and any(held.ends.values()) else {}
        self._show()

    async def take(self, fetch: Fetch) -> None:
        """Keep a fetch for the next batch; waits while too much is kept."""
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._waiting.append(fetch)
            self._waiting_records += fetch.record_count
            self._waiting_bytes += fetch.value_bytes
            self._ends.update(fetch.ends)
            self._changed.notify_all()

    async def run(self, read_again: Callable[[], Awaitable[None]]) -> None:
        """Apply what is taken, for ever; `read_again` makes the consumer begin anew from where the store stands.

        Raises what store and applier raise: the store may then have to be reopened.
        """
        idle = False
        while True:
            fetches = await self._next(idle)
            if fetches is None:
                async with self._applying:
                    await self._in_thread(self._tidy)
                idle = True
                continue
            idle = False
            try:
                async with self._applying:
                    await self._in_thread(lambda fetches=fetches: self._apply(fetches))  # type: ignore[misc]
            except FetchGap as gap:
                await self._refuse(gap, read_again)
                continue
            self._show()

    async def close(self, *, well: bool) -> None:
        """Once `run` was cancelled: wait for the batch in hand, and where all is `well` save what is published."""
        async with self._applying:
            if well:
                await self._in_thread(self._tidy)
            self._thread.shutdown()

    def start_of(self, slot: Slot) -> int:
        """The offset to read first; 0 of a partition that did not exist yet."""
        return self._read_from.get(slot, 0)

    async def assigned(self, slots: Iterable[Slot]) -> Mapping[Slot, int]:
        """Begin anew with these partitions, from where the store stands once the batch in hand is in."""
        async with self._applying, self._changed:
            self._waiting.clear()
            self._waiting_records = self._waiting_bytes = 0
            self._partitions = {slot: self._partition(slot) for slot in slots}
            self._changed.notify_all()
            self._show()
            self.begun.set()
            return {slot: partition.next for slot, partition in self._partitions.items()}

    def applied(self) -> Mapping[Slot, int]:
        """How far each partition is applied."""
        return dict(self._applied)

    def see(self, held: Held) -> None:
        """What Kafka holds now, for the lag."""
        self._held = held
        for slot, end in held.ends.items():
            self._ends[slot] = max(end, self._applied.get(slot, 0))
        self._show()

    @property
    def not_assigned(self) -> set[Slot]:
        """Partitions that Kafka has and we were not given."""
        return set(self._held.firsts) - set(self._partitions)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is being applied."""
        return not self._waiting and not self._applying.locked()

    def _partition(self, slot: Slot) -> Partition:
        start, gap = self.start_of(slot), self._gaps.get(slot)
        again = gap is not None and gap.expected == start
        return Partition(slot, self._held.stream_id(slot), start, empty_until=gap.found if gap and again else None)

    async def _next(self, idle: bool) -> list[Fetch] | None:
        """What waits, up to a batch; None after a quiet while, if not `idle` already."""
        async with self._changed:
            try:
                async with asyncio.timeout(None if idle else QUIET_S):
                    await self._changed.wait_for(lambda: self._waiting)
            except TimeoutError:
                return None
            taken: list[Fetch] = []
            records = size = 0
            while self._waiting and records < BATCH_RECORDS and size < BATCH_BYTES:
                fetch = self._waiting.popleft()
                taken.append(fetch)
                records += fetch.record_count
                size += fetch.value_bytes
            self._waiting_records -= records
            self._waiting_bytes -= size
            self._changed.notify_all()
            return taken

    def _has_room(self) -> bool:
        return self._waiting_records < WAITING_RECORDS and self._waiting_bytes < WAITING_BYTES

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """What is begun is ended, also when nobody waits any more: half a batch is none."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def _apply(self, fetches: Iterable[Fetch]) -> None:
        old: list[Record] = []
        new: list[Record] = []
        touched: dict[Slot, Partition] = {}
        count = 0
        for fetch in fetches:
            for slot, fetched in fetch.records.items():
                partition = self._partitions.get(slot)
                if partition is None:
                    continue
                touched[slot] = partition
                applied = self._applied.get(slot, 0)
                if partition.next < applied:
                    middle = bisect_left(fetched, applied, key=lambda one: one.offset)
                    old += partition.read(fetched[:middle])
                    new += partition.read(fetched[middle:])
                    count += len(fetched) - middle
                else:
                    new += partition.read(fetched)
                    count += len(fetched)
        if not touched:
            return
        positions = [Position(APPLIED, partition.stream_id, partition.position) for partition in touched.values()]
        if old:
            # Only as far as is committed: what follows from the new ones is not even made yet.
            before = [
                Position(APPLIED, partition.stream_id, min(partition.position, self._applied.get(slot, 0)))
                for slot, partition in touched.items()
            ]
            self._publisher.again(old, before)
        if count:
            self._commit(new, positions)
            self._state.committed(count, sum(self._applied.values()))
        for slot, partition in touched.items():
            self._read_from[slot] = partition.position
            self._applied[slot] = max(partition.position, self._applied.get(slot, 0))

    def _commit(self, records: list[Record], positions: list[Position]) -> None:
        told = positions
        if not self._told:
            # Once every partition's position is kept, also of those that are empty: they tell which topics these are.
            known = {position.stream_id for position in positions}
            rest = [partition for partition in self._partitions.values() if partition.stream_id not in known]
            told = positions + [Position(APPLIED, partition.stream_id, partition.position) for partition in rest]
        self._applier.apply(records, told + self._publisher.positions(at_once=False))
        self._told = True
        self._publisher.committed(records, positions)

    def _tidy(self) -> None:
        published = self._publisher.positions(at_once=True)
        if published:
            self._applier.apply([], published)
        self._store.checkpoint_if_due()

    async def _refuse(self, error: FetchGap, read_again: Callable[[], Awaitable[None]]) -> None:
        gap = error.gap
        if self._gaps.get(gap.slot) == gap:
            # Read again from the very offset, Kafka gave the same: there is nothing between, as behind a transaction.
            log.warning(
                "Kafka has no records at these offsets",
                topic=gap.slot[0],
                partition=gap.slot[1],
                expected=gap.expected,
                found=gap.found,
            )
        else:
            log.warning("a fetch was refused", code=error.code, reason=error.message)
        self._gaps[gap.slot] = gap
        await read_again()

    def _show(self) -> None:
        """Tell the state how far behind each partition is."""
        state = self._state
        state.partitions = {slot: max(0, end - self._applied.get(slot, 0)) for slot, end in self._ends.items()}
        state.position = sum(self._applied.values())
        state.journal_position = state.position + state.lag
        if self._rebuild_until and all(self._applied.get(slot, 0) >= end for slot, end in self._rebuild_until.items()):
            self._rebuild_until = {}
        state.rebuilding = bool(self._rebuild_until)
