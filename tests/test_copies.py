"""Equal webhooks at several places of the journals, applied in any order: which counts, and what is announced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from analytics.store import Position, Store
from calls.crashes import Crashes
from calls.journal import NewDelivery
from calls.model import Delivery
from streams.announce import APPLIED, Announcer, calls_of
from streams.apply import Applier
from streams.recent import RecentCalls
from tests.faults.histories.mishaps import POISONED_HEADER, poisonous_providers
from tests.journalling import as_read
from tests.storing import everything, rows
from tests.test_worker import NOON, RULES, SECOND, webhook


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "store.duckdb", rules=RULES)
    yield made
    made.close()


def copy(of: NewDelivery, position: int, *, readable: bool = True) -> Delivery:
    """The same webhook at another place of the journal; its headers may be such that it cannot be read."""
    headers = of.headers if readable else {**of.headers, POISONED_HEADER: "1"}
    changed = msgspec.structs.replace(of, received_at=NOON + position * SECOND, headers=headers)
    read = as_read(changed, "j1", position)
    assert isinstance(read, Delivery)
    return read


def apply_each(applier: Applier, records: Sequence[Delivery]) -> None:
    for at, record in enumerate(records, 1):
        applier.apply([record], [Position(APPLIED, "t/0", at)])


def verdicts(store: Store) -> list[tuple[object, ...]]:
    return rows(store, "SELECT position, verdict FROM deliveries ORDER BY position")


def test_what_cannot_be_read_takes_no_place_of_what_counts(store: Store) -> None:
    """A lower copy that is a dead letter would take the events away, and leave their call as it was."""
    one = webhook(1)
    with poisonous_providers():
        apply_each(Applier(store, RULES), [copy(one, 9), copy(one, 4, readable=False)])
    assert verdicts(store) == [(4, "repeated"), (9, "accepted")]
    assert rows(store, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert rows(store, "SELECT event_count FROM calls") == [(1,)]
    assert store.verify() == []


def test_a_copy_that_can_be_read_counts_after_one_that_cannot(store: Store) -> None:
    """The dead letter goes, since what it held is understood now."""
    one = webhook(1)
    with poisonous_providers():
        apply_each(Applier(store, RULES), [copy(one, 4, readable=False), copy(one, 9), copy(one, 12)])
    assert verdicts(store) == [(4, "repeated"), (9, "accepted"), (12, "repeated")]
    assert rows(store, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert store.verify() == []


def test_which_copy_counts_does_not_depend_on_their_order(tmp_path: Path) -> None:
    """Readable or not, one by one or at once: the same tables."""
    one = webhook(1, event="call.ended")
    copies = [copy(one, 2, readable=False), copy(one, 5), copy(one, 7, readable=False), copy(one, 8)]
    told = []
    with poisonous_providers():
        for number, order in enumerate(permutations(copies)):
            made = Store.open(tmp_path / f"{number}.duckdb", rules=RULES)
            if number % 2:
                apply_each(Applier(made, RULES), order)
            else:
                Applier(made, RULES).apply(order, [Position(APPLIED, "t/0", 4)])
            told.append(everything(made))
            made.close()
    assert all(tables == told[0] for tables in told)
    assert len(told[0]["call_events"]) == 1


def test_a_delivery_that_ended_processes_leaves_its_earlier_copy_counted(tmp_path: Path, store: Store) -> None:
    """Whatever ended them, the same bytes were applied."""
    one = webhook(1)
    crashes = Crashes(tmp_path / "store.duckdb")
    applier = Applier(store, RULES, crashes=crashes)
    apply_each(applier, [copy(one, 9)])
    crashes._kept.deadly[one.id] = "ended two processes"
    apply_each(applier, [copy(one, 4)])
    assert verdicts(store) == [(4, "repeated"), (9, "accepted")]
    assert rows(store, "SELECT event_count FROM calls") == [(1,)]
    assert store.verify() == []


def test_what_cannot_be_stored_takes_no_place_of_what_counts(store: Store) -> None:
    """The store refuses a lower copy: what counts goes on counting."""
    one = webhook(1)
    applier = Applier(store, RULES)
    apply_each(applier, [copy(one, 9)])
    lower = msgspec.structs.replace(copy(one, 4), org="\ud800")
    apply_each(applier, [lower])
    assert verdicts(store) == [(4, "repeated"), (9, "accepted")]
    assert rows(store, "SELECT event_count FROM calls") == [(1,)]
    assert store.verify() == []


def test_a_version_does_not_fall_when_a_lower_copy_comes_late(store: Store) -> None:
    """After partitions were added one may; a consumer that passes over lower versions must not miss what follows."""
    one, two = webhook(1, event="call.started"), webhook(2, event="call.ended")
    recent = RecentCalls()
    applier = Applier(store, RULES, recent=recent)
    versions = []
    for at, record in enumerate([copy(one, 20), copy(one, 3), copy(two, 12), copy(two, 5)], 1):
        applier.apply([record], [Position(APPLIED, "t/0", at)])
        for memory in (recent, RecentCalls()):
            (told,) = Announcer(store, memory, record_bytes_max=1 << 20).records(calls_of([record]))
            versions.append(int(dict(told.headers)["version"]))
    assert versions == [20] * 8
    store.reopen()
    (told,) = Announcer(store, RecentCalls(), record_bytes_max=1 << 20).records(calls_of([copy(one, 3)]))
    assert dict(told.headers)["version"] == b"20"


def test_a_version_is_the_same_in_whatever_order_the_copies_came(tmp_path: Path) -> None:
    """So a store that is made again announces nothing that a consumer would pass over."""
    one = webhook(1)
    found = set()
    for number, order in enumerate(permutations([copy(one, 3), copy(one, 20), copy(one, 11)])):
        made = Store.open(tmp_path / f"{number}.duckdb", rules=RULES)
        apply_each(Applier(made, RULES), order)
        (told,) = Announcer(made, RecentCalls(), record_bytes_max=1 << 20).records(calls_of(order))
        found.add((told.value, dict(told.headers)["version"]))
        made.close()
    assert {version for _, version in found} == {b"20"}
    assert len(found) == 1
