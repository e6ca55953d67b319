"""What is published of calls and dead letters: the rows of the store, in records that every consumer can read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import msgspec
import pytest

from analytics.store import Position, Store
from calls.journal_row import Damaged, NewDelivery, NewNotice, Record
from calls.model import CallKey, DeadLetter, Delivery, Rules
from calls.payload import JsonObject
from calls.records import Outgoing, Topic, call_key
from streams.announce import ANNOUNCED, APPLIED, Announcer, call_schema, calls_of, of_call, of_dead_letter
from streams.apply import Applier
from streams.recent import RecentCalls
from tests.published import columns_of, public_calls
from tests.storing import call_of, event_of
from tests.test_worker import as_records, of_body, poisonous, refusal, samples, webhook, with_normaliser

MIB = 1 << 20
RULES = Rules(success={"interested": "met"})


@contextmanager
def announcing(folder: Path, *, bytes_max: int = MIB) -> Iterator[tuple[Store, Applier, Announcer]]:
    """An empty store with what applies to it and what tells of it."""
    store = Store.open(folder / "store.duckdb", rules=RULES)
    recent = RecentCalls()
    try:
        yield store, Applier(store, RULES, recent=recent), Announcer(store, recent, record_bytes_max=bytes_max)
    finally:
        store.close()


def apply(applier: Applier, records: Sequence[Record], *, at: int = 1) -> None:
    applier.apply(records, [Position(APPLIED, "t:0", at)])


def calls_in(told: Sequence[Outgoing]) -> list[JsonObject]:
    return [json.loads(out.value) for out in told if out.topic == Topic.CALLS]


def dead_in(told: Sequence[Outgoing]) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
    return [(out.key, out.value, dict(out.headers)) for out in told if out.topic == Topic.DEAD]


# Calls


def test_what_is_published_is_what_the_tables_say(tmp_path: Path) -> None:
    """For every sample of every provider, each public column of a call stands in its record, and nothing else."""
    records = as_records(samples())
    with announcing(tmp_path) as (store, applier, announcer):
        apply(applier, records)
        told = announcer.records(calls_of(records))
        in_tables = {call_key(key): call for key, call in public_calls(store).items()}
    assert len(in_tables) > 20
    assert {out.key: columns_of(out.value) for out in told} == in_tables
    assert all(call["truncated"] == [] for call in calls_in(told))


def test_every_record_of_a_call_follows_the_published_schema(tmp_path: Path) -> None:
    """The schema says of each field what a consumer gets, and the records hold to it."""
    records = as_records(samples())
    validator = jsonschema.Draft202012Validator(call_schema(), format_checker=jsonschema.FormatChecker())
    with announcing(tmp_path) as (_, applier, announcer):
        apply(applier, records)
        for call in calls_in(announcer.records(calls_of(records))):
            assert [error.message for error in validator.iter_errors(call)] == []
            assert [error for error in validator.iter_errors({**call, "started_at": 17}) if error.path] != []


def test_a_call_is_told_the_same_from_memory_and_from_the_store(tmp_path: Path) -> None:
    """After a restart nothing is in memory, and the records are byte for byte the same."""
    records = as_records(samples())
    keys = calls_of(records)
    with announcing(tmp_path) as (store, applier, announcer):
        apply(applier, records)
        fresh = Announcer(store, RecentCalls(), record_bytes_max=MIB)
        assert fresh.records(keys) == announcer.records(keys)


def test_the_version_rises_with_every_delivery_of_a_call(tmp_path: Path) -> None:
    """It is the highest position folded in, so that what comes out of order does not lower it."""
    records = as_records([webhook(1, event="call.started"), webhook(2, event="call.ended"), webhook(3)])
    versions = []
    with announcing(tmp_path) as (_, applier, announcer):
        for record in (records[0], records[2], records[1]):
            apply(applier, [record])
            (call,) = calls_in(announcer.records(calls_of([record])))
            versions.append((call["version"], call["journal_id"], call["event_count"]))
    assert versions == [(1, "j1", 1), (3, "j1", 2), (3, "j1", 3)]


def test_versions_rise_although_a_clock_was_set_back() -> None:
    """Within a journal its positions tell what is new, not its times."""
    events = [event_of(1, "c", received_at=2_000), event_of(2, "c", received_at=1_000)]
    assert json.loads(of_call(call_of(events), events, bytes_max=MIB).value)["version"] == 2


def test_of_several_journals_the_one_written_last_gives_the_version() -> None:
    """Positions of different journals cannot be compared, so a record names its journal."""
    old = msgspec.structs.replace(event_of(900, "c", received_at=1_000), journal_id="replaced")
    new = msgspec.structs.replace(event_of(7, "c", received_at=2_000), journal_id="present")
    out = of_call(call_of([old, new]), [old, new], bytes_max=MIB)
    assert (json.loads(out.value)["version"], json.loads(out.value)["journal_id"]) == (7, "present")
    assert dict(out.headers) == {"schema": b"1", "version": b"7", "journal_id": b"present", "provider": b"aisync"}


def test_each_call_is_told_once_and_unknown_ones_not_at_all(tmp_path: Path) -> None:
    """However often its deliveries came; what is not stored is not published."""
    (record,) = as_records([webhook(1)])
    with announcing(tmp_path) as (_, applier, announcer):
        apply(applier, [record])
        (key,) = calls_of([record])
        told = announcer.records([key, CallKey("aisync", "", "never heard of"), key])
    assert [(out.key, out.at) for out in told] == [(call_key(key), record.received_at)]


def test_json_values_are_json_and_what_is_none_is_null() -> None:
    """A consumer parses a record once; one bad value does not make the rest of it unreadable."""
    events = [event_of(1, "c")]
    variables = [
        {"agent_id": None, "name": name, "value": value, "value_text": None, "value_number": None, "collected": True}
        for name, value in (("list", '[1,{"a":null}]'), ("huge", "12345678901234567890123"), ("bad", "{oops"))
    ]
    out = of_call(call_of(events, variables=variables), events, bytes_max=MIB)
    told = {variable["name"]: variable["value"] for variable in json.loads(out.value)["variables"]}
    assert told == {"list": [1, {"a": None}], "huge": 12345678901234567890123, "bad": None}


def test_a_time_beyond_the_calendar_stops_nothing() -> None:
    """The store takes it, and what is stored is published."""
    events = [event_of(1, "c")]
    told = json.loads(of_call(call_of(events, ended_at=10**18), events, bytes_max=MIB).value)
    assert told["ended_at"] == "9999-12-31T23:59:59.999999Z"


def test_a_call_too_large_for_a_record_comes_without_its_longest_fields() -> None:
    """A compacted topic has room for one record a call; it says what the consumer has to ask the tables for."""
    events = [event_of(1, "c")]
    analysis = [{"criterion": "goal", "result": "true", "feedback": "x" * 80_000}]
    call = call_of(events, transcript="€" * 60_000, summary="short", analysis=analysis)
    out = of_call(call, events, bytes_max=65_536)
    told = json.loads(out.value)
    assert len(out.value) + len(out.key) < 65_536
    assert (told["transcript"], told["analysis"], told["summary"]) == (None, [], "short")
    assert told["truncated"] == ["transcript", "analysis"]


# Dead letters


def test_a_dead_letter_is_the_body_with_its_reason(tmp_path: Path) -> None:
    """The value is the body as it came; all that is known of the delivery is in the headers."""
    (record,) = as_records([of_body("aisync", b'\xff{"not": JSON')])
    with announcing(tmp_path) as (_, applier, announcer):
        apply(applier, [record])
        ((key, value, headers),) = dead_in(announcer.again([record]))
    assert isinstance(record, Delivery)
    assert (key, value) == (b"j1:1", record.body)
    assert headers.pop("detail").startswith(b"The body is not UTF-8")
    assert headers == {
        "reason": b"not_utf8", "source": b"aisync", "provider": b"aisync", "org": b"", "trust": b"B",
        "received_at": str(record.received_at).encode(), "journal_id": b"j1", "position": b"1",
        "id": record.id.encode(), "http": b'{"content-type":"application/json"}',
    }  # fmt: skip


@pytest.mark.parametrize("headers", [{}, {"x": "y" * 70_000}], ids=["", "and headers"])
def test_a_dead_letter_too_large_for_a_record_is_cut(headers: dict[str, str]) -> None:
    """One record a dead letter; the header tells the whole length, and the store keeps all of it."""
    (record,) = as_records([of_body("aisync", b"[" * 200_000)])
    assert isinstance(record, Delivery)
    delivery = msgspec.structs.replace(record, headers=headers)
    letter = DeadLetter(reason="too_deep", detail="\ud800" + "d" * 9_000, delivery=delivery)
    out = of_dead_letter(letter, bytes_max=65_536)
    told = dict(out.headers)
    size = len(out.value) + len(out.key) + sum(len(name) + len(value) for name, value in out.headers)
    assert 60_000 < size < 65_536
    assert delivery.body.startswith(out.value)
    assert (told["truncated"], "http" in told) == (b"200000", not headers)


def test_after_a_crash_everything_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what turned out to be a dead letter only in the store, and the damaged rows; notices are not told."""
    wrong = [msgspec.structs.replace(event_of(1, "c9").event, happened_at=2**70)]
    with_normaliser(monkeypatch, poisonous(lambda: wrong))
    given: list[NewDelivery | NewNotice] = [
        webhook(1),
        webhook(2, event="poison"),
        of_body("aisync", b"[]"),
        refusal(4),
        webhook(5, call_id="c2"),
    ]
    records: list[Record] = [*as_records(given), Damaged(6, "Its seal is broken.", "j1")]
    with announcing(tmp_path) as (store, applier, announcer):
        apply(applier, records)
        told = Announcer(store, RecentCalls(), record_bytes_max=MIB).again(records)
        assert announcer.again(records) == told
    assert sorted((call["call_id"], call["version"]) for call in calls_in(told)) == [("c1", 1), ("c2", 5)]
    found = {key: headers["reason"] for key, _, headers in dead_in(told)}
    assert found == {b"j1:2": b"not_storable", b"j1:3": b"not_an_object", b"j1:6": b"journal_damaged"}


def test_a_repeat_of_a_dead_letter_is_none(tmp_path: Path) -> None:
    """Of equal bodies one is told, as the table has one."""
    records = as_records([of_body("aisync", b"[]"), of_body("aisync", b"[]")])
    with announcing(tmp_path) as (_, applier, announcer):
        apply(applier, records)
        assert [key for key, _, _ in dead_in(announcer.again(records))] == [b"j1:1"]


def test_nothing_read_again_is_nothing_told(tmp_path: Path) -> None:
    """An empty stretch asks the store nothing."""
    with announcing(tmp_path) as (_, _, announcer):
        assert announcer.again([]) == []


def test_the_calls_of_records_are_named_once_each_in_order() -> None:
    """Dead letters, notices and damaged rows are about no call."""
    records = as_records([webhook(1), webhook(2, call_id="c2"), webhook(3), of_body("aisync", b"[]"), refusal(5)])
    keys = calls_of([*records, Damaged(6, "Its seal is broken.", "j1")])
    assert [key.call_id for key in keys] == ["c1", "c2"]


# How far


def test_the_second_position_travels_with_a_batch(tmp_path: Path) -> None:
    """It is saved in the transaction of the next batch, so a crash tells again rather than not at all."""
    records = as_records([webhook(1), webhook(2)])
    with announcing(tmp_path) as (store, applier, _):
        apply(applier, records[:1], at=1)
        applier.apply(records[1:], [Position(APPLIED, "t:0", 2), Position(ANNOUNCED, "t:0", 1)])
        assert store.positions() == {(APPLIED, "t:0"): 2, (ANNOUNCED, "t:0"): 1}
        store.reopen()
        applier.forget()
        assert store.positions() == {(APPLIED, "t:0"): 2, (ANNOUNCED, "t:0"): 1}
