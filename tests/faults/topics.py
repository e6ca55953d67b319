"""What is in the topics, held against the journal they were filled from and the store that was filled from them.

Nothing of Calltally is imported; the topics are read with a plain consumer.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import duckdb
from kafka import KafkaConsumer, TopicPartition

from tests.faults.journalled import Journalled
from tests.faults.report import Report
from tests.kafka.reading import DELIVERIES, NOTICES, Read, everything, repeated_positions

CALLS: Final = "calltally.calls"
DEAD: Final = "calltally.dead"
LISTS: Final = {
    "analysis": "call_analysis", "variables": "call_variables", "actions": "call_actions",
    "appointments": "appointments", "leads": "leads",
}  # fmt: skip
"""Fields of a published call that are tables of their own in the store."""
BESIDE: Final = ("schema", "version", "journal_id", "truncated")
"""What a published call says beside its fields."""
LONG: Final = 100_000
"""Only what is longer than this may be left out of a published call."""

Fields = dict[str, object]


def compare(bootstrap: str, journalled: Journalled, store: duckdb.DuckDBPyConnection, report: Report) -> None:
    """What is journalled is in its topic, what is there is in the store, and what is stored is published as it is."""
    deliveries, notices = everything(bootstrap, DELIVERIES), everything(bootstrap, NOTICES)
    calls, dead = everything(bootstrap, CALLS), everything(bootstrap, DEAD)
    report.published = sum(map(len, (deliveries, notices, calls, dead)))
    _compare_deliveries(deliveries, journalled, report)
    _compare_notices(notices, journalled, report)
    _compare_offsets({DELIVERIES: deliveries, NOTICES: notices}, store, report)
    _compare_notice_rows(journalled, store, report)
    _compare_calls(calls, store, report)
    _compare_dead(dead, journalled, store, report)


def length(bootstrap: str) -> int:
    """How many records the topics hold that a worker reads."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        slots = [
            TopicPartition(topic, partition)
            for topic in (DELIVERIES, NOTICES)
            for partition in consumer.partitions_for_topic(topic) or ()
        ]
        return sum(consumer.end_offsets(slots).values())
    finally:
        consumer.close()


def _compare_deliveries(deliveries: list[Read], journalled: Journalled, report: Report) -> None:
    bodies: dict[int, set[str]] = defaultdict(set)
    for read, body in _whole(deliveries):
        bodies[read.position].add(hashlib.sha256(read.headers["source"] + b"\0" + body).hexdigest())
    for position, digest in journalled.deliveries.items():
        if not bodies[position]:
            report.lose(
                f"position {position}, {digest}, is not in {DELIVERIES}", since=journalled.received_at[position]
            )
    for position, digests in bodies.items():
        for digest in digests - {journalled.deliveries.get(position, "")}:
            report.phantom.append(f"position {position} of {DELIVERIES}, {digest}, is not so in the journal")
    strangers = {read.headers["journal_id"].decode() for read in deliveries} - {journalled.journal_id}
    report.phantom += [f"{DELIVERIES} has records of a journal {stranger}" for stranger in strangers]
    try:
        repeated_positions([read for read in deliveries if read.headers.get("chunk", b"1/1").startswith(b"1/")])
    except AssertionError as disorder:
        report.lose(f"{DELIVERIES} is out of order: {disorder}")


def _whole(deliveries: list[Read]) -> Iterable[tuple[Read, bytes]]:
    """Each delivery with its whole body; pieces are put together where all of them lie behind one another."""
    pieces: dict[tuple[int, int], list[bytes]] = {}
    for read in deliveries:
        number, count = map(int, read.headers.get("chunk", b"1/1").split(b"/"))
        found = pieces.setdefault((read.partition, read.position), [])
        if number == 1:
            found.clear()
        if number == len(found) + 1:
            found.append(read.value)
            if number == count:
                yield read, b"".join(found)


def _compare_notices(notices: list[Read], journalled: Journalled, report: Report) -> None:
    found = {read.position for read in notices}
    for position in journalled.notices - found:
        report.lose(f"position {position}, a notice, is not in {NOTICES}", since=journalled.received_at[position])
    report.phantom += [f"position {position} of {NOTICES} is no notice" for position in found - journalled.notices]


def _compare_offsets(topics: Mapping[str, list[Read]], store: duckdb.DuckDBPyConnection, report: Report) -> None:
    """The store's positions name topics by ids of their own, so only their sum can be compared with what is there."""
    held = sum(len(records) for records in topics.values())
    ((applied,),) = store.execute("SELECT coalesce(sum(position), 0) FROM positions WHERE stream = 'kafka'").fetchall()
    if applied != held:
        report.lose(f"the store has applied {applied} records of Kafka, which holds {held}")


def _compare_notice_rows(journalled: Journalled, store: duckdb.DuckDBPyConnection, report: Report) -> None:
    rows = [position for (position,) in store.execute("SELECT position FROM deliveries WHERE trust IS NULL").fetchall()]
    for position in journalled.notices.difference(rows):
        report.lose(f"position {position}, a notice, is not in the store", since=journalled.received_at[position])
    report.phantom += [f"the store has a notice of position {one}" for one in set(rows) - journalled.notices]
    report.double += [f"the notice of position {one} is there more than once" for one in _repeated(rows)]


def _compare_calls(published: list[Read], store: duckdb.DuckDBPyConnection, report: Report) -> None:
    newest = {read.key: json.loads(read.value) for read in published}
    if len({(read.key, read.partition) for read in published}) != len(newest):
        report.phantom.append(f"a call is in several partitions of {CALLS}, so that none of its records is the newest")
    told = {_name(call): _plain_fields(call) for call in newest.values()}
    left_out = {_name(call): call["truncated"] for call in newest.values()}
    stored = _stored_calls(store)
    for call in stored.keys() - told.keys():
        report.lose(f"call {call} is not in {CALLS}")
    report.phantom += [f"call {call} is in {CALLS} and not in the store" for call in told.keys() - stored.keys()]
    for call in stored.keys() & told.keys():
        for name in stored[call].keys() | told[call].keys():
            says, should = told[call].get(name), stored[call].get(name)
            if says != should and not (name in left_out[call] and says in (None, []) and len(str(should)) > LONG):
                report.lose(f"the newest record of call {call} says {str(says)[:90]} for {name}: {str(should)[:90]}")


def _stored_calls(store: duckdb.DuckDBPyConnection) -> dict[str, Fields]:
    found = {_name(row): row for row in _rows(store, "FROM calls")}
    for call in found.values():
        call.update({name: [] for name in LISTS})
    for name, table in LISTS.items():
        for row in _rows(store, f"FROM {table} WHERE call_id IS NOT NULL"):
            call = found[_name(row)]
            item = {field: value for field, value in row.items() if field not in ("provider", "org", "call_id")}
            items = call[name]
            assert isinstance(items, list)
            items.append(item)
    return {name: _sorted(call) for name, call in found.items()}


def _rows(store: duckdb.DuckDBPyConnection, query: str) -> list[Fields]:
    found = store.execute(query)
    columns = [(name, str(kind)) for name, kind, *_ in found.description or ()]
    return [
        {name: _plain(value, kind) for (name, kind), value in zip(columns, row, strict=True)}
        for row in found.fetchall()
    ]


def _plain(value: object, kind: str) -> object:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    return json.loads(str(value)) if kind == "JSON" and value is not None else value


def _plain_fields(call: Fields) -> Fields:
    return _sorted({name: value for name, value in call.items() if name not in BESIDE})


def _sorted(call: Fields) -> Fields:
    """With its lists in one order, whatever order they came in."""
    return {
        name: sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if name in LISTS else value  # type: ignore[call-overload]
        for name, value in call.items()
    }


def _name(call: Fields) -> str:
    return f"{call['provider']}:{call['org']}:{call['call_id']}"


def _compare_dead(
    published: list[Read], journalled: Journalled, store: duckdb.DuckDBPyConnection, report: Report
) -> None:
    rows = store.execute("SELECT position, reason FROM dead_letters").fetchall()
    told = {(read.position, read.headers["reason"].decode()) for read in published}
    for position, reason in set(rows) - told:
        report.lose(f"the dead letter of position {position}, {reason}, is not in {DEAD}")
    report.phantom += [f"{DEAD} has {letter}, which the store has not" for letter in told - set(rows)]
    for read in published:
        digest = hashlib.sha256(read.headers["source"] + b"\0" + read.value).hexdigest()
        if digest != journalled.deliveries.get(read.position) and "truncated" not in read.headers:
            report.phantom.append(f"the body in {DEAD} of position {read.position} is not the one in the journal")


def _repeated(positions: list[int]) -> set[int]:
    seen: set[int] = set()
    return {position for position in positions if position in seen or seen.add(position)}  # type: ignore[func-returns-value]
