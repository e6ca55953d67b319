"""What is read from one partition: its records as deliveries and notices, and how far that is to be kept as applied.

Pure. A record of ours that cannot be read, and one that is not ours, becomes something lost with a reason: the
applier makes a dead letter of it, and the stream goes on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from calls.dead_letters import RECORD_MALFORMED
from calls.errors import BrokerError, RecordMalformed
from calls.journal_row import Damaged, Record
from calls.records import GIVE_UP_RECORDS, Chunk, Joiner, Topic, read_delivery, read_notice

Slot: TypeAlias = "tuple[str, int]"
"""A topic's name and the number of one of its partitions."""


class Incoming(Protocol):
    """A record as a consumer gives it."""

    @property
    def offset(self) -> int: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...

    @property
    def value(self) -> bytes | None: ...


class Gap(NamedTuple):
    """Offsets that were expected and did not come."""

    slot: Slot
    expected: int
    found: int


class FetchGap(BrokerError):
    """A fetch began behind the offset that is next: what lies between has to be read first."""

    transient = True
    code = "fetch_gap"

    def __init__(self, gap: Gap) -> None:
        (topic, number), expected, found = gap
        super().__init__(
            f"Kafka's client gave offset {found} of {topic} partition {number}, but {expected} is next; nothing of it "
            "was applied, and it is read again."
        )
        self.gap = gap


class Partition:
    """One assignment of a partition, read from where the store stands."""

    def __init__(self, slot: Slot, stream_id: str, start: int, *, empty_until: int | None = None) -> None:
        """`start` is the offset to read first; up to `empty_until` it is known that there is nothing."""
        self.slot = slot
        self.stream_id = stream_id
        """What names this partition of this very topic for good."""
        self.next = start
        """The offset that is expected next."""
        self._empty_until = empty_until
        self._joiner = Joiner()
        self._is_deliveries = slot[0] == Topic.DELIVERIES

    @property
    def position(self) -> int:
        """The offset from which to read after a crash: everything before it is in the records that were returned."""
        held = self._joiner.holds_from
        return self.next if held is None else min(held, self.next)

    def read(self, fetched: Sequence[Incoming]) -> list[Record]:
        """What the records of a fetch say; those that were read before are left out.

        Raises FetchGap where records are missing before them, and has then changed nothing.
        """
        if fetched and fetched[0].offset < self.next:
            fetched = fetched[bisect_left(fetched, self.next, key=_offset) :]
        if not fetched:
            return []
        first = fetched[0].offset
        if first > self.next and first != self._empty_until:
            raise FetchGap(Gap(self.slot, self.next, first))
        records: list[Record] = []
        for incoming in fetched:
            try:
                record = self._record(incoming)
            except RecordMalformed as error:
                record = self._lost(incoming, error)
            if record is not None:
                records.append(record)
        self.next = fetched[-1].offset + 1
        if self._joiner.holds_from is not None:
            records += [_given_up(chunk) for chunk in self._joiner.give_up(self.next)]
        return records

    def _record(self, incoming: Incoming) -> Record | None:
        if not self._is_deliveries:
            return read_notice(incoming.headers, incoming.value)
        read = read_delivery(incoming.headers, incoming.value)
        return self._joiner.add(read, incoming.offset) if isinstance(read, Chunk) else read

    def _lost(self, incoming: Incoming, error: RecordMalformed) -> Damaged:
        topic, number = self.slot
        # There is no place in a journal that could be trusted, so it stands at its own in Kafka.
        return Damaged(
            position=incoming.offset,
            reason=f"{topic} partition {number} offset {incoming.offset}: {error.message}",
            journal_id=self.stream_id,
            code=RECORD_MALFORMED,
            body=incoming.value or b"",
        )


def _offset(incoming: Incoming) -> int:
    return incoming.offset


def _given_up(chunk: Chunk) -> Damaged:
    return Damaged(
        position=chunk.of.position,
        reason=f"Of delivery {chunk.id} not all {chunk.count} pieces came within {GIVE_UP_RECORDS:,} records.",
        journal_id=chunk.of.journal_id,
    )
