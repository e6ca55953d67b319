"""Records that are handed in again change nothing, whatever they are and wherever they come from the second time.

Kafka repeats what a relay published just before it crashed, and may bring it in another partition; so every kind of
record is cut, mixed and repeated here, and all public tables are compared with those of applying each once in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.store import Place, Position, Store
from calls.journal import NewDelivery, NewNotice
from calls.journal_row import Damaged, Record
from calls.model import CallEvent, Delivery, Verdict
from calls.provider import discover
from streams import steps
from streams.apply import Applier
from streams.recent import RecentCalls
from tests.journalling import as_read
from tests.storing import everything, new_calls, rows
from tests.test_worker import NOON, RULES, SECOND, of_body, refusal, webhook

PARTITIONS = 3
Tables = dict[str, list[tuple[object, ...]]]


def repeated_at_the_door(number: int, of: NewDelivery) -> NewNotice:
    notice = refusal(number)
    return msgspec.structs.replace(notice, verdict=Verdict.REPEATED, reason=None, detail=None, id=of.id, count=1)


def history(journal_id: str, first: int, later: int = 0) -> list[Record]:
    """Every kind of record there is: calls, refusals, repeats at any age, dead letters and a damaged row."""
    again = webhook(first + 1, event="call.ended")
    told: list[NewDelivery | NewNotice | None] = [
        again,
        webhook(first + 2, call_id="c2"),
        refusal(first + 3),
        None,
        msgspec.structs.replace(again, received_at=NOON + (first + 5) * SECOND),
        of_body("aisync", b"not JSON", received_at=NOON + (first + 6) * SECOND),
        repeated_at_the_door(first + 7, again),
        webhook(first + 8, event="lead.generated"),
        of_body("aisync", b"not JSON", received_at=NOON + (first + 9) * SECOND),
        msgspec.structs.replace(refusal(first + 10), verdict=Verdict.INBOUND, reason=None),
    ]
    return [
        Damaged(position, "The row is missing.", journal_id)
        if record is None
        else as_read(msgspec.structs.replace(record, received_at=record.received_at + later), journal_id, position)
        for position, record in enumerate(told, 1)
    ]


# The second journal holds the same webhooks and some of its own: two doors behind one name, and one topic.
RECORDS = history("j1", 0) + history("j2", 0, later=4 * SECOND)[:8] + history("j3", 20)


def tables_after(
    folder: Path, batches: Sequence[tuple[Sequence[Record], Position]], *, bytes_max: int = 1 << 26
) -> Tables:
    """All that is in a new store after these batches."""
    store = Store.open(folder / "store.duckdb", rules=RULES)
    try:
        applier = Applier(store, RULES, recent=RecentCalls(bytes_max=bytes_max))
        for records, position in batches:
            applier.apply(records, [position])
        assert store.verify() == []
        return everything(store)
    finally:
        store.close()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables after each record once, in the order of the journals."""
    return tables_after(tmp_path_factory.mktemp("once"), [(RECORDS, Position("kafka", "deliveries-0", len(RECORDS)))])


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_interleaving_of_partitions_with_any_repetition_gives_the_same_tables(
    data: st.DataObject, once: Tables, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each partition keeps its order, may go back any way at any time, and may bring what another one brought."""
    homes = data.draw(st.lists(st.integers(0, PARTITIONS - 1), min_size=len(RECORDS), max_size=len(RECORDS)))
    partitions: list[list[Record]] = [[] for _ in range(PARTITIONS)]
    for record, home in zip(RECORDS, homes, strict=True):
        partitions[home].append(record)
    strays = data.draw(st.lists(st.tuples(st.integers(0, PARTITIONS - 1), st.sampled_from(RECORDS)), max_size=6))
    for home, record in strays:
        partitions[home].append(record)

    reached = [0] * PARTITIONS
    batches: list[tuple[Sequence[Record], Position]] = []
    while open_ones := [number for number in range(PARTITIONS) if reached[number] < len(partitions[number])]:
        number = data.draw(st.sampled_from(open_ones))
        start = data.draw(st.integers(0, reached[number]))
        end = data.draw(st.integers(reached[number] + 1, len(partitions[number])))
        batches.append((partitions[number][start:end], Position("kafka", f"deliveries-{number}", end)))
        reached[number] = end
    bytes_max = data.draw(st.sampled_from([0, 20_000, 1 << 26]))
    assert tables_after(tmp_path_factory.mktemp("again"), batches, bytes_max=bytes_max) == once


@pytest.mark.parametrize("number", range(len(history("j1", 0))))
def test_a_record_that_comes_again_from_another_partition_changes_nothing(
    number: int, once: Tables, tmp_path: Path
) -> None:
    """Whatever kind of record it is."""
    first = (RECORDS, Position("kafka", "deliveries-0", 1))
    again = (RECORDS[number : number + 1], Position("kafka", "deliveries-1", 1))
    assert tables_after(tmp_path, [first, again]) == once


def test_a_record_that_comes_twice_in_one_batch_changes_nothing(once: Tables, tmp_path: Path) -> None:
    """As when a relay crashed between two fetches of one consumer."""
    batch = [record for record in RECORDS for _ in range(2)]
    assert tables_after(tmp_path, [(batch, Position("kafka", "deliveries-0", 1))]) == once


def test_a_followed_journal_that_is_read_again_changes_nothing(tmp_path: Path) -> None:
    """The embedded shell never does it, yet nothing may depend on that."""
    records = history("j1", 0)
    position = Position("journal", "j1", len(records))
    read_once = tables_after(make(tmp_path / "once"), [(records, position)])
    assert tables_after(make(tmp_path / "again"), [(records, position), (records, position)]) == read_once


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_followed_journal_costs_no_look_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its position, committed with the rows, says that all beyond it is new."""
    store = Store.open(tmp_path / "store.duckdb", rules=RULES)
    monkeypatch.setattr(Store, "places", lambda *_: pytest.fail("The store was asked."))
    applier = Applier(store, RULES)
    for position in range(1, 6):
        applier.apply([as_read(refusal(position), "j1", position)], [Position("journal", "j1", position)])
    assert rows(store, "SELECT count(*) FROM deliveries") == [(5,)]
    store.close()


def test_a_damaged_row_is_told_apart_by_its_own_journal(tmp_path: Path) -> None:
    """Two journals may be damaged at one position, and neither's notice names the other's."""
    damaged: list[Record] = [Damaged(4, "The row is missing.", journal_id) for journal_id in ("j1", "j2", "j1")]
    store = Store.open(tmp_path / "store.duckdb", rules=RULES)
    Applier(store, RULES).apply([as_read(refusal(1), "j1", 1), *damaged], [Position("kafka", "notices-0", 4)])
    kept = rows(store, "SELECT journal_id, position FROM kept.dead_letters ORDER BY 1")
    assert kept == [("j1", 4), ("j2", 4)]
    store.close()


def test_a_delivery_that_cannot_be_kept_and_comes_again_has_one_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It broke its batch the first time; the second time it is known."""
    provider = replace(discover()["aisync"], normalise=unkeepable(discover()["aisync"].normalise))
    monkeypatch.setattr(steps, "discover", lambda: MappingProxyType({"aisync": provider}))
    records = [as_read(webhook(number, event="poison"), "j1", number) for number in (1, 2, 3)]
    records[1] = as_read(webhook(2), "j1", 2)
    store = Store.open(tmp_path / "store.duckdb", rules=RULES)
    applier = Applier(store, RULES)
    for batch in (records, records[:1], records[1:], records):
        applier.apply(batch, [Position("kafka", "deliveries-0", 1)])
    assert rows(store, "SELECT position, reason FROM dead_letters ORDER BY 1") == [
        (1, "not_storable"),
        (3, "not_storable"),
    ]
    assert rows(store, "SELECT position, verdict FROM deliveries ORDER BY 1") == [
        (1, "accepted"),
        (2, "accepted"),
        (3, "accepted"),
    ]
    store.close()


def unkeepable(right: Callable[[Delivery], list[CallEvent]]) -> Callable[[Delivery], list[CallEvent]]:
    """A normaliser whose bug only the store finds."""
    wrong = [CallEvent(event="poison", call_id="c9", org="", happened_at=2**70)]
    return lambda delivery: wrong if b"poison" in delivery.body else right(delivery)


def test_places_are_found_by_journal_and_position(tmp_path: Path) -> None:
    """One look-up for many, however far apart they lie."""
    store = Store.open(tmp_path / "store.duckdb", rules=RULES)
    store.apply(new_calls(range(1, 50)))
    journal = new_calls([1]).deliveries[0].journal_id
    asked = [Place(journal, 3), Place("another", 3), Place(journal, 49), Place(journal, 50)]
    assert store.places(asked) == {Place(journal, 3), Place(journal, 49)}
    store.close()
