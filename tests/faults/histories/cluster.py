"""Topics without a broker, and relays that fill them from two journals as a relay does: late, twice, interrupted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from analytics.store import Place
from calls.journal import NewDelivery
from calls.journal_row import Damaged, Record
from calls.records import Headers, Topic, partition_of
from ingest.publication import _outgoing
from streams.offsets import Held, stream_id
from streams.partition import Partition, Slot
from tests.faults.histories.traffic import NOON, SECOND, record
from tests.journalling import as_read

JOURNALS: Final = ("journal-a", "journal-b")
TOPIC_IDS: Final = {Topic.DELIVERIES.value: "deliveries-1", Topic.NOTICES.value: "notices-1"}
PARTITIONS_MAX: Final = 6


class Written(NamedTuple):
    """A record of a partition, as a consumer gives it; `place` is what can be applied once it is read."""

    offset: int
    headers: Headers
    value: bytes | None
    place: Place | None


@dataclass
class _Journal:
    id: str
    clock: int
    records: list[Record] = field(default_factory=list)
    published: int = 0


class Cluster:
    """The topics of deliveries and notices, and the journals that they are filled from."""

    def __init__(self, dice: Random, given: Counter[str]) -> None:
        self.logs: dict[Slot, list[Written]] = {}
        self.records: dict[Place, Record] = {}
        """What was published as a whole at least once."""
        self._given = given
        self._sent: list[NewDelivery] = []
        self._bytes_max = dice.choice((3_300, 1_000_000))
        self._journals = [_Journal(name, NOON + dice.randint(-3, 3) * SECOND) for name in JOURNALS]
        self._count = dice.randint(1, 3)
        self.add_partitions(0)
        self.logs[Topic.NOTICES.value, 0] = []

    def held(self) -> Held:
        """What the broker would say."""
        ends = {slot: len(log) for slot, log in self.logs.items()}
        return Held(TOPIC_IDS, dict.fromkeys(self.logs, 0), ends)

    def stream_of(self, slot: Slot) -> str:
        return stream_id(TOPIC_IDS[slot[0]], slot[1])

    def add_partitions(self, more: int) -> None:
        """From now on, calls may go to other partitions than before."""
        self._count = min(self._count + more, PARTITIONS_MAX)
        for number in range(self._count):
            self.logs.setdefault((Topic.DELIVERIES.value, number), [])

    def write(self, dice: Random, count: int, *, rotten: bool = False) -> None:
        """Put so many records into one of the journals, or into both at once."""
        both = dice.random() < 0.3
        one = dice.choice(self._journals)
        for number in range(count):
            for journal in self._journals if both else [one]:
                journal.clock += dice.randint(0, 4 * SECOND)
                position = len(journal.records) + 1
                if rotten and number == 0:
                    self._given["rotten rows"] += 1
                    journal.records.append(Damaged(position, "made to rot", journal.id))
                    continue
                drawn = record(dice, self._sent, journal.clock)
                if isinstance(drawn, NewDelivery):
                    self._given["repeated deliveries"] += any(drawn.id == one.id for one in self._sent)
                    self._given["poison"] += b"poison" in drawn.body or "x-poison" in drawn.headers
                    self._sent.append(drawn)
                journal.records.append(as_read(drawn, journal.id, position))

    def jump_clock(self, by: int) -> None:
        """A journal of its own goes by the higher of its clock and its last record's time; another may be behind."""
        for journal in self._journals[: 1 + (by > 0)]:
            last = journal.records[-1] if journal.records else None
            floor = NOON - SECOND if last is None or isinstance(last, Damaged) else last.received_at
            journal.clock = max(journal.clock + by, floor)

    def relay(self, dice: Random, *, all_of_it: bool) -> None:
        """Publish on, to the end or to somewhere before it; where it stops within a delivery, that begins again."""
        for journal in self._journals:
            rest = len(journal.records) - journal.published
            ready = rest if all_of_it else dice.randint(0, rest)
            for one in journal.records[journal.published : journal.published + ready]:
                self._publish(journal, one, interrupted=False)
            journal.published += ready
            if ready < rest:
                self._publish(journal, journal.records[journal.published], interrupted=True)

    def repeat(self, dice: Random) -> None:
        """The relays' cursors go back, as after a crash or `--again-from`."""
        for journal in self._journals:
            back = dice.randint(0, journal.published)
            self._given["records published again"] += back
            journal.published -= back

    def disturb(self, dice: Random) -> None:
        """Someone else writes into a topic."""
        slot = dice.choice(list(self.logs))
        self._given["foreign records"] += 1
        log = self.logs[slot]
        place = Place(self.stream_of(slot), len(log))
        headers: Headers = dice.choice([[], [("id", b"0" * 64)], [("kind", b"notice")], [("kind", b"other")]])
        written = Written(len(log), headers, dice.choice([None, b"", b"not ours"]), place)
        log.append(written)
        (self.records[place],) = Partition(slot, place.journal_id, written.offset).read([written])

    def _publish(self, journal: _Journal, one: Record, *, interrupted: bool) -> None:
        outgoing = list(_outgoing(one, journal.id, {}, bytes_max=self._bytes_max, at=journal.clock))
        self._given["deliveries in chunks"] += len(outgoing) > 1
        place = Place(journal.id, one.position)
        for number, record_ in enumerate(outgoing[: -1 if interrupted else None], 1):
            count = self._count if record_.topic == Topic.DELIVERIES else 1
            log = self.logs[record_.topic, partition_of(record_.key, count)]
            log.append(Written(len(log), record_.headers, record_.value, place if number == len(outgoing) else None))
        if not interrupted:
            self.records[place] = one
