"""What the records of a partition become, and how far they are to be kept as applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.errors import BrokerError, CalltallyError, StoreMismatch
from calls.journal_row import Damaged, Record
from calls.model import Delivery, Notice, Trust, Verdict
from calls.records import Topic, of_delivery, of_notice
from streams.offsets import Held, require_beginning, starts, unannounced_from
from streams.partition import FetchGap, Partition

JOURNAL = "4f2c0d3e-0000-4000-8000-000000000001"
SLOT = (Topic.DELIVERIES.value, 0)
ID = "topic-id/0"
PIECE = 20_000


class Kept(NamedTuple):
    """A record as it lies in a partition."""

    offset: int
    headers: Sequence[tuple[str, bytes | None]]
    value: bytes | None


def delivery(position: int, size: int = 10) -> Delivery:
    body = b'{"number": %d, "text": "%s"}' % (position, b"x" * size)
    return Delivery(
        source="aisync", provider="aisync", org="", body=body, headers={}, received_at=1_750_000_000_000_000 + position,
        trust=Trust.B, journal_id=JOURNAL, position=position,
    )  # fmt: skip


def log_of(deliveries: Sequence[Delivery], start: int = 0) -> list[Kept]:
    """The partition that a relay writes."""
    found: list[Kept] = []
    for one in deliveries:
        for outgoing in of_delivery(one, None, bytes_max=PIECE):
            found.append(Kept(start + len(found), list(outgoing.headers), outgoing.value))
    return found


def positions(records: Sequence[Record]) -> list[int]:
    return [record.position for record in records]


def test_records_become_deliveries_and_the_position_moves_behind_them() -> None:
    """The position is the offset to read next."""
    partition = Partition(SLOT, ID, 5)
    read = partition.read(log_of([delivery(1), delivery(2)], start=5))
    assert [record for record in read if isinstance(record, Delivery)] == [delivery(1), delivery(2)]
    assert partition.position == 7


def test_what_was_read_before_is_left_out() -> None:
    """A fetch that begins before the position is taken from there."""
    partition = Partition(SLOT, ID, 2)
    assert positions(partition.read(log_of([delivery(n) for n in range(1, 5)]))) == [3, 4]
    assert partition.read(log_of([delivery(1)])) == []
    assert partition.position == 4


def test_a_gap_is_refused_and_changes_nothing() -> None:
    """Offsets that were skipped have to be read first."""
    partition = Partition(SLOT, ID, 2)
    with pytest.raises(FetchGap) as refused:
        partition.read(log_of([delivery(9)], start=4))
    assert refused.value.gap == (SLOT, 2, 4)
    assert partition.position == 2
    assert positions(partition.read(log_of([delivery(n) for n in range(1, 4)], start=2))) == [1, 2, 3]


def test_offsets_that_are_known_to_be_empty_are_no_gap() -> None:
    """As behind a transaction of somebody else's."""
    partition = Partition(SLOT, ID, 2, empty_until=4)
    assert positions(partition.read(log_of([delivery(9)], start=4))) == [9]


@pytest.mark.parametrize(
    "poison",
    [
        Kept(1, [], b"hello"),
        Kept(1, [("id", None)], b"hello"),
        Kept(1, [("id", b"\xff")], b"hello"),
        Kept(1, [("source", b"aisync")], None),
    ],
)
def test_a_record_that_is_not_ours_becomes_something_lost_with_a_reason(poison: Kept) -> None:
    """It names where it stands in Kafka; what is around it goes on."""
    partition = Partition(SLOT, ID, 0)
    before, _, after = log_of([delivery(1), delivery(2), delivery(3)])
    read = partition.read([before, poison, after])
    assert [type(record) for record in read] == [Delivery, Damaged, Delivery]
    lost = read[1]
    assert isinstance(lost, Damaged)
    assert lost.journal_id == ID
    assert lost.position == 1
    assert "calltally.deliveries partition 0 offset 1: " in lost.reason
    assert partition.position == 3


def test_notices_are_read_from_their_topic() -> None:
    """With their place in the journal."""
    notice = Notice(
        source="aisync", provider="aisync", verdict=Verdict.REFUSED, reason="signature_wrong", detail=None, id=None,
        bytes=9, count=3, received_at=1_750_000_000_000_000, journal_id=JOURNAL, position=4,
    )  # fmt: skip
    written = of_notice(notice)
    partition = Partition((Topic.NOTICES.value, 0), ID, 0)
    assert partition.read([Kept(0, list(written.headers), written.value)]) == [notice]


def test_the_position_waits_before_an_unfinished_delivery() -> None:
    """Records behind its first piece are handed out, and are read again after a crash."""
    partition = Partition(SLOT, ID, 0)
    small, *pieces = log_of([delivery(1), delivery(2, size=50_000)])
    later = log_of([delivery(3)], start=2)[0]
    assert len(pieces) > 2
    assert positions(partition.read([small, pieces[0], later])) == [1, 3]
    assert partition.next == 3
    assert partition.position == 1
    rest = [piece._replace(offset=2 + number) for number, piece in enumerate(pieces[1:], 1)]
    assert positions(partition.read(rest)) == [2]
    assert partition.position == partition.next


@given(st.data())
def test_a_crash_anywhere_loses_nothing(data: st.DataObject) -> None:
    """Whatever was read when, and however often it began anew from the kept position: every delivery is handed out."""
    sizes = data.draw(st.lists(st.sampled_from([5, 30_000, 60_000]), min_size=1, max_size=8))
    wanted = [delivery(number, size) for number, size in enumerate(sizes, 1)]
    log = log_of(wanted)
    kept, found = 0, dict[int, Record]()
    partition = Partition(SLOT, ID, kept)
    for _ in range(data.draw(st.integers(0, 12))):
        if data.draw(st.booleans()):
            partition = Partition(SLOT, ID, kept)
        begin = data.draw(st.integers(0, partition.next))
        end = data.draw(st.integers(begin, len(log)))
        found |= {record.position: record for record in partition.read(log[begin:end])}
        kept = partition.position
    partition = Partition(SLOT, ID, kept)
    found |= {record.position: record for record in partition.read(log[kept:])}
    assert [found[number] for number in range(1, len(wanted) + 1)] == wanted
    assert partition.position == len(log)


def held(first: int = 0, end: int = 100, *, topic_id: str = "d") -> Held:
    """One partition of each topic."""
    notices = (Topic.NOTICES.value, 0)
    return Held({SLOT[0]: topic_id, notices[0]: "n"}, {SLOT: first, notices: 0}, {SLOT: end, notices: 0})


def test_reading_begins_where_the_store_stands() -> None:
    """A partition without a position begins at its beginning."""
    assert starts({("kafka", "d/0"): 40}, held())[SLOT] == 40
    assert starts({}, held())[SLOT] == 0


@pytest.mark.parametrize(
    ("kept", "first", "end"), [(40, 41, 100), (0, 1, 100), (40, 0, 39)], ids=["deleted", "beginning", "lost"]
)
def test_an_offset_that_kafka_does_not_have_is_an_error_with_a_way_on(kept: int, first: int, end: int) -> None:
    """Never a silent skip."""
    with pytest.raises(BrokerError) as refused:
        starts({("kafka", "d/0"): kept} if kept else {}, held(first, end))
    assert refused.value.code == "offsets_gone"
    assert "relay" in refused.value.message


def test_what_is_deleted_can_be_left_out_on_purpose() -> None:
    """Then reading begins with the oldest there is."""
    assert starts({("kafka", "d/0"): 40}, held(60), from_oldest=True)[SLOT] == 60
    with pytest.raises(BrokerError):
        starts({("kafka", "d/0"): 40}, held(0, 39), from_oldest=True)


@pytest.mark.parametrize(
    ("kept", "code"), [({("journal", "j"): 5}, "other_stream"), ({("kafka", "old/0"): 5}, "other_topic")]
)
def test_a_store_of_something_else_is_not_filled(kept: dict[tuple[str, str], int], code: str) -> None:
    """Neither one filled from a journal nor one of topics that are gone."""
    with pytest.raises(StoreMismatch) as refused:
        starts(kept, held())
    assert refused.value.code == code


def test_notices_made_anew_are_read_from_their_beginning() -> None:
    """Only another topic of deliveries means that everything is published again."""
    kept = {("kafka", "d/0"): 40, ("kafka", "older/0"): 7}
    assert starts(kept, held()) == {SLOT: 40, (Topic.NOTICES.value, 0): 0}


@pytest.mark.parametrize(
    ("held_now", "code"), [(held(1), "topic_incomplete"), (held(0, 0), "topic_empty")], ids=["cut", "empty"]
)
def test_a_store_is_set_aside_only_for_topics_that_can_fill_a_new_one(held_now: Held, code: str) -> None:
    """Else the reason is kept and nothing is moved."""
    with pytest.raises(CalltallyError) as refused:
        require_beginning(held_now, StoreMismatch("It is damaged."))
    assert refused.value.code == code
    assert "othing was moved" in refused.value.message
    require_beginning(held(), StoreMismatch("It is damaged."))


def test_what_is_not_published_is_read_again() -> None:
    """From the announced position, or the oldest that is left; never from behind what is applied."""
    kept = {("kafka", "d/0"): 40, ("announced", "d/0"): 30}
    applied = starts(kept, held())
    assert unannounced_from(kept, held(), applied)[SLOT] == 30
    assert unannounced_from(kept, held(35), applied)[SLOT] == 35
    assert unannounced_from({("kafka", "d/0"): 40}, held(), applied)[SLOT] == 0
    assert unannounced_from({**kept, ("announced", "d/0"): 50}, held(), applied)[SLOT] == 40
