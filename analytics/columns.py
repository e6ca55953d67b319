"""From records to Arrow columns for DuckDB, and from its rows back to records.

Column by column: it costs a fifth of building rows, and DuckDB takes Arrow over without conversion. Each table's
schema is asked from DuckDB, so `schema.sql` is the only place that says it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Final, TypeAlias, cast

import msgspec
import pyarrow as pa

from analytics import contributions
from analytics.batch import Batch, CallChange, DeliveryRow, Position, StoredEvent
from calls.model import Call, CallKey, DeadLetter, Micros, TimelineEvent, Trust

Columns: TypeAlias = Mapping[str, Sequence[object]]

BATCHED: Final = (
    *("deliveries", "events", "loose_appointments", "loose_leads", "dead_letters", "calls", "rollup_changes"),
)
"""The tables a batch adds rows to."""

_encode = msgspec.json.Encoder().encode
_decode_headers = msgspec.json.Decoder(dict[str, str]).decode


@lru_cache(maxsize=16_384)
def call_hash(key: tuple[str, str, str]) -> int:
    """64 bits that stand for a call, by its `CallKey`, in look-ups; the full key is always compared too."""
    return _hash("\0".join(key).encode())


@lru_cache(maxsize=16_384)
def delivery_hash(delivery_id: str) -> int:
    """64 bits that stand for a delivery in look-ups; the full id is always compared too."""
    return _hash(delivery_id.encode())


class Feed:
    """A table that DuckDB reads anew each time a statement runs: what `rows` is set to at that moment.

    Registered once, so that statements over it can be prepared once (planning costs more than a small insert).
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        # Made once: for a lone delivery these cost as much as its rows.
        self._fields = [(field.name, field.type) for field in schema]
        self._empty = schema.empty_table()
        self.rows = self._empty

    def fill(self, columns: Columns) -> int:
        """Set the rows; how many there are."""
        arrays = [pa.array(columns[name], type=kind) for name, kind in self._fields]
        self.rows = pa.Table.from_arrays(arrays, schema=self.schema)
        return len(arrays[0])

    def clear(self) -> None:
        self.rows = self._empty

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


def added(batch: Batch, call_columns: Sequence[str]) -> dict[str, Columns]:
    """The rows that a batch adds, by table; tables without new rows are left out."""
    tables: dict[str, Columns] = {}
    if batch.deliveries:
        tables["deliveries"] = _deliveries(batch.deliveries, batch.applied_at)
    if batch.events:
        tables["events"] = _events(batch.events)
        tables.update(_loose([timed for timed in batch.events if timed.event.call_id is None]))
    if batch.dead_letters:
        tables["dead_letters"] = _dead_letters(batch.dead_letters)
    if batch.changes:
        tables["calls"] = _calls(batch.changes, call_columns)
        changed = contributions.changes(batch.changes)
        if changed:
            tables["rollup_changes"] = dict(zip(contributions.COLUMNS, zip(*changed, strict=True), strict=True))
    return tables


def replaced(before: Sequence[Call]) -> Columns:
    """What finds the rows of calls that are replaced."""
    return {
        "call_hash": [call_hash(CallKey(call["provider"], call["org"], call["call_id"])) for call in before],
        "provider": [call["provider"] for call in before],
        "org": [call["org"] for call in before],
        "call_id": [call["call_id"] for call in before],
        "first_received_at": [call["first_received_at"] for call in before],
    }


def furthest(positions: Sequence[Position]) -> dict[tuple[str, str], int]:
    """Each stream's position; of several of one stream the furthest."""
    found: dict[tuple[str, str], int] = {}
    for stream, stream_id, position in positions:
        found[stream, stream_id] = max(position, found.get((stream, stream_id), position))
    return found


def calls_of(rows: pa.Table) -> list[Call]:
    """Rows of `kept.calls` as calls."""
    return cast(list[Call], with_micros(rows.drop_columns(["call_hash"])).to_pylist())


def stored_events_of(rows: pa.Table) -> list[tuple[CallKey, StoredEvent]]:
    """Rows of `kept.events` as what their deliveries are made from again, each with its call."""
    return [
        (
            CallKey(row["provider"], row["org"], row["call_id"]),
            StoredEvent(
                event_id=row["event_id"],
                source=row["source"],
                provider=row["provider"],
                source_org=row["source_org"],
                body=row["data"].encode() if row["raw"] is None else row["raw"],
                headers=_decode_headers(row["headers"]),
                received_at=row["received_at"],
                trust=Trust(row["trust"]),
                journal_id=row["journal_id"],
                position=row["position"],
            ),
        )
        for row in with_micros(rows).to_pylist()
    ]


def with_micros(rows: pa.Table) -> pa.Table:
    """The same rows with times as integer microseconds, also inside lists."""
    return rows.cast(pa.schema([field.with_type(_with_micros(field.type)) for field in rows.schema]))


def _with_micros(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_micros(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with_micros(field.type)) for field in kind])
    return kind


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little", signed=True)


def _calls(changes: Sequence[CallChange], names: Sequence[str]) -> Columns:
    told = [name for name in names if name != "call_hash"]
    rows = map(itemgetter(*told), [cast("dict[str, object]", change.after) for change in changes])
    columns: dict[str, Sequence[object]] = dict(zip(told, zip(*rows, strict=True), strict=True))
    columns["call_hash"] = [call_hash(change.key) for change in changes]
    return columns


def _events(events: Sequence[TimelineEvent]) -> Columns:
    told = [timed.event for timed in events]
    keys = [
        None if event.call_id is None else call_hash((timed.provider, event.org, event.call_id))
        for timed, event in zip(events, told, strict=True)
    ]
    return {
        "call_hash": keys,
        "event_id": [timed.event_id for timed in events],
        "provider": [timed.provider for timed in events],
        "org": [event.org for event in told],
        "call_id": [event.call_id for event in told],
        "source": [timed.source for timed in events],
        "event": [event.event for event in told],
        "happened_at": [event.happened_at for event in told],
        "received_at": [timed.received_at for timed in events],
        "journal_id": [timed.journal_id for timed in events],
        "position": [timed.position for timed in events],
        "delivery_id": [event.delivery_id for event in told],
        "trust": [timed.trust for timed in events],
        "data": [timed.data for timed in events],
        "raw": [timed.raw for timed in events],
        "source_org": [timed.source_org for timed in events],
        "headers": [_encode(timed.headers).decode() for timed in events],
    }


def _loose(events: Sequence[TimelineEvent]) -> dict[str, Columns]:
    bookings = [(timed, item) for timed in events for item in timed.event.appointments]
    leads = [(timed, item) for timed in events for item in timed.event.leads]
    tables: dict[str, Columns] = {}
    for name, rows in (("loose_appointments", bookings), ("loose_leads", leads)):
        if rows:
            items = cast(list[dict[str, object]], [item for _, item in rows])
            columns: dict[str, Sequence[object]] = {field: [item[field] for item in items] for field in items[0]}
            columns["event_id"] = [timed.event_id for timed, _ in rows]
            columns["provider"] = [timed.provider for timed, _ in rows]
            columns["org"] = [timed.event.org for timed, _ in rows]
            tables[name] = columns
    return tables


def _deliveries(rows: Sequence[DeliveryRow], applied_at: Micros) -> Columns:
    told = zip(*map(msgspec.structs.astuple, rows), strict=True)
    plain = dict(zip(DeliveryRow.__struct_fields__, told, strict=True))
    hashes = [None if row.id is None else delivery_hash(row.id) for row in rows]
    return {**plain, "id_hash": hashes, "applied_at": [applied_at] * len(rows)}


def _dead_letters(letters: Sequence[DeadLetter]) -> Columns:
    deliveries = [letter.delivery for letter in letters]
    return {
        "journal_id": [delivery.journal_id for delivery in deliveries],
        "position": [delivery.position for delivery in deliveries],
        "source": [delivery.source for delivery in deliveries],
        "provider": [delivery.provider for delivery in deliveries],
        "reason": [letter.reason for letter in letters],
        "detail": [letter.detail for letter in letters],
        "received_at": [delivery.received_at for delivery in deliveries],
        "source_org": [delivery.org for delivery in deliveries],
        "trust": [delivery.trust for delivery in deliveries],
        "headers": [_encode(delivery.headers).decode() for delivery in deliveries],
        "body": [delivery.body for delivery in deliveries],
    }
