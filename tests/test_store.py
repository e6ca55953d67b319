"""The store keeps what it is given and finds it again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from msgspec.structs import replace

from analytics import store as store_module
from analytics.store import Batch, CallChange, DeliveryRow, Place, Position, Store
from calls.errors import StoreDamaged, StoreError
from calls.model import (
    Action,
    Appointment,
    CallKey,
    DeadLetter,
    Delivery,
    Lead,
    Rules,
    StreamPoint,
    Trust,
    Variable,
    Verdict,
)
from tests.storing import (
    JOURNAL,
    NOON,
    batch_of,
    call_of,
    delivery_of,
    event_of,
    everything,
    key_of,
    new_calls,
    python,
    rows,
)

RULES = Rules()
DEADLINE_S = 30

booking: Appointment = {
    "starts_at": NOON,
    "ends_at": None,
    "service": "cut",
    "caller_name": None,
    "caller_phone": "+4930",
    "calendar_event_id": "e1",
    "link": None,
}
lead: Lead = {
    "name": "Ada",
    "phone": None,
    "email": None,
    "intent": "buy",
    "urgency": None,
    "interest": None,
    "summary": None,
}
action: Action = {
    "name": "look_up",
    "action_type": None,
    "return_value": '{"ok": true}',
    "error_message": None,
    "happened_at": NOON,
}
variable: Variable = {
    "agent_id": "a1",
    "name": "age",
    "value": "41.5",
    "value_text": "41.5",
    "value_number": 41.5,
    "collected": True,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(path, rules=RULES)
    yield opened
    opened.close()


def test_a_stored_call_comes_back_as_it_was_given(store: Store) -> None:
    """Every field and every list, times to the microsecond, and events from which deliveries can be made again."""
    timed = event_of(1, "c1")
    call = call_of(
        [timed],
        tags=["vip", ""],
        started_at=NOON + 1,
        duration_s=0.1,
        transcript="nul\0, ünïcödé, 'quotes'",
        analysis=[{"criterion": "goal", "result": "true", "feedback": None}],
        variables=[variable],
        actions=[action],
        appointments=[booking],
        leads=[lead],
    )
    store.apply(batch_of([timed], [CallChange(key=key_of(call), before=None, after=call)]))
    held = store.stored_calls([key_of(call), CallKey("aisync", "acme", "other")])
    assert list(held) == [key_of(call)]
    assert held[key_of(call)].call == call
    (event,) = held[key_of(call)].events
    delivery = Delivery(
        source=event.source,
        provider=event.provider,
        org=event.source_org,
        body=event.body,
        headers=event.headers,
        received_at=event.received_at,
        trust=event.trust,
        journal_id=event.journal_id,
        position=event.position,
    )
    assert (delivery.id, event.event_id) == (timed.event_id, timed.event_id)
    assert (delivery.headers, delivery.trust, delivery.received_at) == (timed.headers, Trust.B, timed.received_at)


def test_the_lists_of_a_call_are_tables(store: Store) -> None:
    """What is nested in the call's row is shown as rows of its own, JSON as JSON."""
    timed = event_of(1, "c1")
    call = call_of([timed], variables=[variable], actions=[action], appointments=[booking], leads=[lead])
    store.apply(batch_of([timed], [CallChange(key=key_of(call), before=None, after=call)]))
    assert rows(store, "SELECT name, value, value_number FROM call_variables") == [("age", "41.5", 41.5)]
    assert rows(store, "SELECT call_id, return_value->>'ok' FROM call_actions") == [("c1", "true")]
    assert rows(store, "SELECT call_id, service FROM appointments") == [("c1", "cut")]
    assert rows(store, "SELECT call_id, name FROM leads") == [("c1", "Ada")]
    assert rows(store, "SELECT booked FROM rollup_calls") == [(1,)]


def test_events_without_a_call_are_kept_apart(store: Store) -> None:
    """They are other_events, and what they tell of bookings and leads stands in those tables without a call."""
    timed = event_of(1, None, appointments=[booking], leads=[lead])
    store.apply(batch_of([timed], []))
    assert rows(store, "SELECT event_id, call_id, data->>'number' FROM other_events") == [(timed.event_id, None, "1")]
    assert rows(store, "SELECT count(*) FROM call_events") == [(0,)]
    assert rows(store, "SELECT call_id, starts_at::VARCHAR FROM appointments") == [(None, "2026-06-01 12:00:00")]
    assert rows(store, "SELECT call_id, intent FROM leads") == [(None, "buy")]
    assert store.verify() == []


def test_a_body_that_is_not_its_data_is_kept_in_bytes(store: Store) -> None:
    """Where the JSON shown differs from the bytes received, the delivery is made again from the bytes."""
    timed = event_of(1, "c1")
    odd = replace(timed, raw=b'{"x": NaN}')
    call = call_of([odd])
    store.apply(batch_of([odd], [CallChange(key=key_of(call), before=None, after=call)]))
    assert store.stored_calls([key_of(call)])[key_of(call)].events[0].body == b'{"x": NaN}'


def test_a_changed_call_takes_the_place_of_the_old_one(store: Store) -> None:
    """One row a call, also after the change has been forgotten by the memory of recent calls."""
    first, second = event_of(1, "c1"), event_of(2, "c1")
    call = call_of([first], status="queued")
    store.apply(batch_of([first], [CallChange(key=key_of(call), before=None, after=call)]))
    store.reopen()
    held = store.stored_calls([key_of(call)])[key_of(call)]
    later = call_of([first, second], status="completed")
    store.apply(batch_of([second], [CallChange(key=key_of(call), before=held.call, after=later)]))
    assert rows(store, "SELECT status, event_count FROM calls") == [("completed", 2)]
    assert [event.position for event in store.stored_calls([key_of(call)])[key_of(call)].events] == [1, 2]
    assert store.verify() == []


def test_a_call_changed_from_what_is_not_there_is_refused(store: Store) -> None:
    """A second row for the same call would be worse than a rebuild."""
    timed = event_of(1, "c1")
    call = call_of([timed])
    with pytest.raises(StoreDamaged, match="not in the store as it was read"):
        store.apply(batch_of([timed], [CallChange(key=key_of(call), before=call, after=call)]))
    assert (store.positions(), rows(store, "SELECT count(*) FROM call_events")) == ({}, [(0,)])


def test_known_deliveries_are_those_accepted(store: Store) -> None:
    """A repeat's notice bears the same id and is no delivery; of two journals the lowest place is told."""
    timed = event_of(5, "c1")
    call = call_of([timed])
    accepted = delivery_of(timed)
    elsewhere = replace(accepted, journal_id="other", received_at=NOON, position=9)
    repeated = replace(accepted, position=4, verdict=Verdict.REPEATED, received_at=0)
    merged = replace(accepted, position=3, id=None, trust=None)
    refused = replace(accepted, position=2, id="f" * 64, verdict="refused", reason="stale")
    store.apply(
        batch_of(
            [timed],
            [CallChange(key=key_of(call), before=None, after=call)],
            deliveries=[accepted, elsewhere, repeated, merged, refused],
        )
    )
    expected = {timed.event_id: StreamPoint(NOON, "other", 9)}
    assert store.known([timed.event_id, "f" * 64, "0" * 64]) == expected
    store.reopen()
    assert store.known([timed.event_id, "f" * 64, "0" * 64]) == expected


def test_a_replaced_event_gives_way_to_the_lower_one(store: Store) -> None:
    """Of equal ids the one of the lower position stays, with the bookings it tells; the other was the repeat."""
    high = event_of(5, None, appointments=[booking])
    store.apply(batch_of([high], []))
    low = replace(high, journal_id="other", position=1)
    store.apply(batch_of([low], [], replaced_event_ids=[high.event_id], positions=[Position("journal", "other", 1)]))
    assert rows(store, "SELECT position FROM other_events") == [(1,)]
    assert rows(store, "SELECT position, verdict FROM deliveries ORDER BY 1") == [(1, "accepted"), (5, "repeated")]
    assert rows(store, "SELECT count(*) FROM appointments") == [(1,)]
    assert store.verify() == []


def test_dead_letters_keep_their_bytes(store: Store) -> None:
    """The public row says why; the bytes stay beside it."""
    store.apply(_dead(JOURNAL, 1))
    assert rows(store, "SELECT position, reason, detail FROM dead_letters") == [(1, "not_json", "It is not JSON.")]
    assert rows(store, "SELECT body FROM kept.dead_letters") == [(b"\xff{",)]
    assert store.verify() == []


def test_a_dead_letter_gives_way_with_its_delivery(store: Store) -> None:
    """One dead letter for one webhook, however many journals hold it."""
    store.apply(_dead(JOURNAL, 5))
    first = _dead("other", 1)
    store.apply(replace(first, replaced_event_ids=[first.dead_letters[0].delivery.id]))
    assert rows(store, "SELECT position FROM dead_letters") == [(1,)]
    assert rows(store, "SELECT position, verdict FROM deliveries ORDER BY 1") == [(1, "accepted"), (5, "repeated")]
    assert store.verify() == []


def test_positions_only_go_forward_and_survive(store: Store) -> None:
    """Each stream has its own, a batch may carry several, and an older one does not take a stream back."""
    store.apply(batch_of([event_of(3, None)], [], positions=[Position("kafka", "t:0", 7), Position("kafka", "t:1", 2)]))
    store.apply(batch_of([event_of(4, None)], [], positions=[Position("kafka", "t:0", 5), Position("kafka", "t:1", 3)]))
    assert store.positions() == {("kafka", "t:0"): 7, ("kafka", "t:1"): 3}
    store.reopen()
    assert store.positions() == {("kafka", "t:0"): 7, ("kafka", "t:1"): 3}


def test_a_value_that_no_column_holds_is_refused_and_changes_nothing(store: Store) -> None:
    """Half a surrogate pair, a time beyond all times or a missing word stops one batch, not the store."""
    for fields in ({"summary": "\ud800"}, {"counted_at": 1 << 70}, {"connection": None}):
        batch = new_calls([1])
        change = batch.changes[0]
        change = CallChange(key=change.key, before=None, after=call_of(batch.events, **fields))
        with pytest.raises(StoreError) as caught:
            store.apply(batch_of(batch.events, [change]))
        assert caught.value.code == "store_refused"
    store.apply(new_calls([1]))
    assert store.verify() == []


def test_verify_says_what_is_wrong(store: Store) -> None:
    """Each thing that is kept twice is compared, and the sentence names an example."""
    store.apply(new_calls(range(1, 6)))
    with store.cursor() as cursor:
        cursor.execute("UPDATE kept.calls SET event_count = 7 WHERE call_id = 'call-1'")
        cursor.execute("DELETE FROM kept.calls WHERE call_id = 'call-2'")
        cursor.execute("INSERT INTO kept.events FROM kept.events WHERE call_id = 'call-3'")
        cursor.execute("DELETE FROM kept.deliveries WHERE position = 4")
        cursor.execute("UPDATE kept.positions SET position = 3")
    found = "\n".join(store.verify())
    for part in (
        "2 calls disagree with their events",
        "call-1",
        "1 calls have events but no row, for example aisync, acme, call-2",
        "1 events are stored more than once",
        f"1 events or dead letters belong to no delivery (journal, position), for example {JOURNAL}, 4",
        f"1 rows come from beyond the position of their journal (journal, position), for example {JOURNAL}, 5",
        "rows of rollup_calls differ from what the calls give",
    ):
        assert part in found


def test_verify_reads_one_state_while_batches_arrive(store: Store) -> None:
    """A check that runs beside the writer sees no half of anything."""
    stop, found = threading.Event(), list[str]()

    def check() -> None:
        while not stop.is_set():
            found.extend(store.verify())

    checker = threading.Thread(target=check)
    checker.start()
    for number in range(1, 300, 10):
        store.apply(new_calls(range(number, number + 10)))
        if number % 50 == 1:
            store.checkpoint_if_due()
    stop.set()
    checker.join(DEADLINE_S)
    assert not checker.is_alive()
    assert found == []


def test_a_snapshot_that_cannot_be_written_names_the_file_that_was_asked_for(store: Store, tmp_path: Path) -> None:
    """Not the one beside it, of which nobody knows."""
    target = tmp_path / f"{'n' * 300}.duckdb"
    with pytest.raises(OSError, match="File name too long") as failed:
        store.snapshot(target)
    assert failed.value.filename == str(target)


def test_a_snapshot_opens_elsewhere_while_the_store_lives(store: Store, tmp_path: Path) -> None:
    """Another process reads the public tables, with their comments, and nothing is left beside them."""
    store.apply(new_calls(range(1, 21)))
    target = tmp_path / "out" / "copy.duckdb"
    store.snapshot(target)
    store.apply(new_calls(range(21, 31)))
    store.snapshot(target)
    said = python(
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); "
        "print(c.execute('SELECT count(*), max(data->>$$number$$) FROM calls JOIN call_events USING (call_id)')"
        ".fetchall(),"
        "c.execute('SELECT position FROM positions').fetchall(),"
        "c.execute('SELECT count(*) FROM duckdb_columns() WHERE comment IS NULL AND NOT internal').fetchall())",
        str(target),
    )
    assert said == "[(30, '9')] [(30,)] [(0,)]\n"
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "out") == [
        "store.duckdb",
        "store.duckdb.wal",
    ]
    assert [entry.name for entry in target.parent.iterdir()] == ["copy.duckdb"]


def test_sql_reaches_no_other_file(store: Store, tmp_path: Path) -> None:
    """Neither reading, nor attaching, nor undoing the lock works; nor do Python's variables stand for tables."""
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for text in (
        f"FROM read_csv('{secret}')",
        f"ATTACH '{tmp_path / 'other.duckdb'}'",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "FROM secret",
    ):
        with store.cursor() as cursor, pytest.raises(duckdb.Error):
            cursor.execute(text)


def test_an_idle_store_writes_its_log_into_the_file(store: Store, path: Path) -> None:
    """A long write-ahead log is brought in at an idle moment, a short one is left alone."""
    wal = path.with_name(path.name + ".wal")
    store.apply(new_calls([1]))
    store.checkpoint_if_due()
    assert wal.stat().st_size > 0
    for number in range(1000, 3000, 500):
        store.apply(new_calls(range(number, number + 500), transcript="said " * 1000))
    assert wal.stat().st_size > store_module.CHECKPOINT_WAL_BYTES
    store.checkpoint_if_due()
    assert not wal.exists() or wal.stat().st_size < store_module.CHECKPOINT_WAL_BYTES
    assert store.verify() == []


def test_two_stores_given_the_same_hold_the_same(store: Store, tmp_path: Path) -> None:
    """Whatever the size of the batches, all public contents agree."""
    other = Store.open(tmp_path / "other.duckdb", rules=RULES)
    store.apply(new_calls(range(1, 31)))
    for number in range(1, 31, 10):
        other.apply(new_calls(range(number, number + 10)))
    assert everything(store) == everything(other)
    other.close()


def test_what_stands_somewhere_is_found_by_its_place(store: Store) -> None:
    """Each journal for itself, in whatever order its positions come, and after a reopening too."""
    asked = [Place(journal_id, position) for journal_id in (JOURNAL, "other") for position in (4, 5, 6)]
    assert store.places(asked) == set()
    assert store.not_understood(asked) == {}
    store.apply(_dead(JOURNAL, 6))
    store.apply(_dead("other", 4))
    store.apply(_dead(JOURNAL, 5))
    expected = {Place(JOURNAL, 5), Place(JOURNAL, 6), Place("other", 4)}
    for _ in range(2):
        assert store.places(asked) == expected
        assert store.not_understood(asked) == dict.fromkeys(expected, "not_json")
        store.reopen()


def _dead(journal_id: str, position: int) -> Batch:
    """A batch of one delivery that cannot be understood."""
    delivery = Delivery(
        source="aisync",
        provider="aisync",
        org="",
        body=b"\xff{",
        headers={},
        received_at=NOON + position,
        trust=Trust.D,
        journal_id=journal_id,
        position=position,
    )
    row = DeliveryRow(
        id=delivery.id,
        position=position,
        journal_id=journal_id,
        source="aisync",
        provider="aisync",
        verdict=Verdict.ACCEPTED,
        reason=None,
        trust=Trust.D,
        bytes=len(delivery.body),
        count=1,
        received_at=delivery.received_at,
    )
    letter = DeadLetter(reason="not_json", detail="It is not JSON.", delivery=delivery)
    return Batch(
        positions=[Position("journal", journal_id, position)],
        deliveries=[row],
        dead_letters=[letter],
        applied_at=NOON,
    )
