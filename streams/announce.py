"""What consumers downstream are told after a commit: calls as they are stored now, and dead letters, as Kafka records.

A call is one record of the compacted topic `calltally.calls`, whose newest record of a key is the call. Its value is
JSON as `call_schema` says, which is derived from `calls.model.Call`. `version` is the highest position among the
call's deliveries in the journal `journal_id`, repeats included: it rises with what is known of the call. After a crash
and while a store is rebuilt versions are published again, so a consumer passes over what is older than what it has of
the same journal.

Nothing here knows a Kafka client.
"""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, cast, get_args, get_type_hints, is_typeddict

import msgspec

from analytics.store import Store, StoredCall, StoredEvent
from calls.crashes import Crashes
from calls.journal_row import Damaged, Record
from calls.model import Call, CallKey, DeadLetter, Delivery, Micros, StreamPoint, TimelineEvent, Trust
from calls.records import FRAME_BYTES, Headers, Outgoing, Topic, call_key
from streams.recent import KnownCall, RecentCalls
from streams.steps import interpret

SCHEMA: Final = 1
"""Rises when a consumer of the present form would misread the next; fields may be added without."""
APPLIED: Final = "kafka"
"""The stream of the positions up to which partitions are applied."""
ANNOUNCED: Final = "announced"
"""The stream of the positions up to which what was applied is also published; its stream ids are those of `kafka`."""
ID_CHARACTERS: Final = 64
"""An event's id begins with its delivery's."""
HEADER_MAX: Final = 2_000
"""Bytes of one header of a dead letter; only what is no delivery of ours has longer ones."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_END = dt.datetime.max.replace(tzinfo=dt.UTC)


class Announcer:
    """Tells of one store's calls; of the thread that applies to it."""

    def __init__(
        self, store: Store, recent: RecentCalls, *, record_bytes_max: int, crashes: Crashes | None = None
    ) -> None:
        """`recent` is the applier's: what it holds is committed, and need not be read from the store."""
        self._store = store
        self._recent = recent
        self._bytes_max = record_bytes_max
        self._crashes = crashes

    def records(self, keys: Iterable[CallKey], dead_letters: Iterable[DeadLetter] = ()) -> list[Outgoing]:
        """One for each call as it is stored now, and one for each dead letter; a call that is not stored has none."""
        wanted = list(dict.fromkeys(keys))
        known: dict[CallKey, KnownCall | StoredCall] = {**self._recent.of(wanted)}
        missing = [key for key in wanted if key not in known]
        if missing:
            known.update(self._store.stored_calls(missing))
        ids = [event.event_id[:ID_CHARACTERS] for found in known.values() for event in found.events]
        copies = self._store.copies(ids)
        calls = []
        for key in wanted:
            if key in known:
                call, events = known[key].call, known[key].events
                again = [point for event in events for point in copies.get(event.event_id[:ID_CHARACTERS], ())]
                calls.append(of_call(call, events, again, bytes_max=self._bytes_max))
        return calls + [of_dead_letter(letter, bytes_max=self._bytes_max) for letter in dead_letters]

    def again(self, records: Sequence[Record]) -> list[Outgoing]:
        """For records that are applied: their calls as they are stored now, and those of them that are dead letters."""
        return self.records(calls_of(self._harmless(records)), self._dead(records))

    def _harmless(self, records: Sequence[Record]) -> Sequence[Record]:
        deadly = None if self._crashes is None else self._crashes.deadly
        if not deadly:
            return records
        return [record for record in records if not (isinstance(record, Delivery) and record.id in deadly)]

    def _dead(self, records: Sequence[Record]) -> list[DeadLetter]:
        # Only the store knows: some could not be stored, and of equal bodies one is a dead letter, the rest repeats.
        if not records:
            return []
        positions = [record.position for record in records]
        with self._store.cursor() as cursor:
            rows = cursor.execute(
                "SELECT position, source, epoch_us(received_at), reason, detail FROM dead_letters "
                "WHERE position BETWEEN $first AND $last",
                {"first": min(positions), "last": max(positions)},
            ).fetchall()
        said = {(position, source, at): (reason, detail) for position, source, at, reason, detail in rows}
        found = []
        for record in records:
            if isinstance(record, Delivery | Damaged):
                delivery = _stand_in(record) if isinstance(record, Damaged) else record
                known = said.get((delivery.position, delivery.source, delivery.received_at))
                if known is not None:
                    found.append(DeadLetter(reason=known[0], detail=known[1], delivery=delivery))
        return found


def calls_of(records: Iterable[Record]) -> list[CallKey]:
    """Which calls the records are about, each once, in their order; dead letters and notices are about none."""
    keys: dict[CallKey, None] = {}
    for record in records:
        meaning = interpret(record) if isinstance(record, Delivery) else ()
        if isinstance(meaning, DeadLetter):
            continue
        for timed in meaning:
            if timed.event.call_id is not None:
                keys[CallKey(timed.provider, timed.event.org, timed.event.call_id)] = None
    return list(keys)


def of_call(
    call: Call,
    events: Sequence[TimelineEvent | StoredEvent],
    again: Sequence[StreamPoint] = (),
    *,
    bytes_max: int,
) -> Outgoing:
    """The record of a call that was folded from these events, whose deliveries came `again` there.

    Where it would be larger than `bytes_max`, its longest fields are left out, and `truncated` names them.
    """
    key = call_key(CallKey(call["provider"], call["org"], call["call_id"]))
    journal_id, version = _version(events, again)
    headers = [
        ("schema", b"%d" % SCHEMA),
        ("version", b"%d" % version),
        ("journal_id", journal_id.encode()),
        ("provider", call["provider"].encode()),
    ]
    told = _told(cast(Mapping[str, object], call), _CALL)
    message = {"schema": SCHEMA, "version": version, "journal_id": journal_id, **told, "truncated": []}
    value = _encode(message)
    room = bytes_max - FRAME_BYTES - len(key) - _size(headers)
    if len(value) > room:
        value = _shortened(message, room)
    return Outgoing(_CALLS, key, value, headers, call["last_received_at"])


def of_dead_letter(letter: DeadLetter, *, bytes_max: int) -> Outgoing:
    """The record of a dead letter: its value is the body as it came, its headers say why it was not understood.

    A body that does not fit is cut, and the header `truncated` tells its whole length; the store keeps all of it.
    """
    delivery = letter.delivery
    key = f"{delivery.journal_id}:{delivery.position}".encode()[:HEADER_MAX]
    texts = {
        "reason": letter.reason,
        "detail": letter.detail,
        "source": delivery.source,
        "provider": delivery.provider,
        "org": delivery.org,
        "received_at": str(delivery.received_at),
        "trust": delivery.trust,
        "journal_id": delivery.journal_id,
        "position": str(delivery.position),
        "id": delivery.id,
    }
    headers = [(name, text.encode(errors="replace")[:HEADER_MAX]) for name, text in texts.items()]
    http = _encode(delivery.headers)
    if len(http) <= bytes_max // 4:
        headers.append(("http", http))
    body, room = delivery.body, bytes_max - FRAME_BYTES - len(key) - _size(headers)
    if len(body) > room:
        headers.append(("truncated", b"%d" % len(body)))
        body = body[: max(0, room)]
    return Outgoing(_DEAD, key, body, headers, delivery.received_at)


def call_schema() -> dict[str, Any]:
    """The JSON Schema of the records of `calltally.calls`."""
    return msgspec.json.schema(_record_type("CallRecord", Call, first=_FIRST, last=_LAST))


_FIRST: Final[Mapping[str, Any]] = {
    "schema": Annotated[
        Literal[1], msgspec.Meta(description="The form of the record; another number is another form.")
    ],
    "version": Annotated[
        int, msgspec.Meta(description="The highest journal position among the call's deliveries: higher is newer.")
    ],
    "journal_id": Annotated[str, msgspec.Meta(description="The journal whose positions `version` means.")],
}
_LAST: Final[Mapping[str, Any]] = {
    "truncated": Annotated[
        list[str],
        msgspec.Meta(description="Fields left out because the record would be too large; the tables have them."),
    ]
}


class _Shape(NamedTuple):
    """Which fields of a row are not told as they are kept."""

    times: tuple[str, ...]
    json: tuple[str, ...]
    lists: tuple[tuple[str, _Shape], ...]

    @property
    def is_as_kept(self) -> bool:
        return not (self.times or self.json or self.lists)


_Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]


def _hints(of: type) -> dict[str, Any]:
    """The types of a row's fields as they are told: times as moments, JSON texts as what they say."""
    return get_type_hints(of, localns={"Micros": _Moment, "JsonText": Any}, include_extras=True)


def _rows_of(hint: object) -> type | None:
    """What a list of rows is made of; None where a field is none."""
    found = next(iter(get_args(hint)), None)
    return cast(type, found) if is_typeddict(found) else None


def _shape(of: type) -> _Shape:
    hints = _hints(of).items()
    return _Shape(
        times=tuple(name for name, hint in hints if _Moment in (hint, *get_args(hint))),
        json=tuple(name for name, hint in hints if Any in (hint, *get_args(hint))),
        lists=tuple(
            (name, inner)
            for name, hint in hints
            if (rows := _rows_of(hint)) is not None and not (inner := _shape(rows)).is_as_kept
        ),
    )


def _record_type(name: str, of: type, *, first: Mapping[str, Any], last: Mapping[str, Any]) -> type[msgspec.Struct]:
    fields = dict(first)
    for field, hint in _hints(of).items():
        rows = _rows_of(hint)
        if rows is None:
            fields[field] = hint
        else:
            fields[field] = types.GenericAlias(list, _record_type(rows.__name__, rows, first={}, last={}))
    return msgspec.defstruct(name, [*fields.items(), *last.items()], kw_only=True)


_CALL: Final = _shape(Call)
_EMPTY: Final[Mapping[str, object]] = {
    name: None if type(None) in get_args(hint) else []
    for name, hint in _hints(Call).items()
    if type(None) in get_args(hint) or _rows_of(hint) is not None
}
"""What stands for each field that can be left out."""
# The bare names: an enum member's hash is computed in Python, and a client looks a topic up several times a record.
_CALLS, _DEAD = Topic.CALLS.value, Topic.DEAD.value
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def _told(row: Mapping[str, object], shape: _Shape) -> dict[str, object]:
    told = dict(row)
    for name in shape.times:
        if row[name] is not None:
            told[name] = _moment(cast(Micros, row[name]))
    for name in shape.json:
        if row[name] is not None:
            told[name] = _json(cast(str, row[name]))
    for name, of in shape.lists:
        if row[name]:
            told[name] = [_told(item, of) for item in cast("list[Mapping[str, object]]", row[name])]
    return told


def _moment(micros: Micros) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(0, 0, micros)
    except OverflowError:  # the store takes times that ISO 8601 has no four digits for; nothing of ours sends such
        return _END


def _json(text: str) -> msgspec.Raw | None:
    try:
        _decode(text)
    except msgspec.MsgspecError:
        return None  # as in the tables: one value that is no JSON must not make a whole call unreadable
    return msgspec.Raw(text.encode())


def _version(events: Sequence[TimelineEvent | StoredEvent], again: Sequence[StreamPoint]) -> tuple[str, int]:
    """Of several journals the one that was written last counts; within it positions rise, whatever its clock did.

    Of a delivery that came again the lowest counts, whenever it comes: only with those that do not count the version
    never falls.
    """
    if len(events) == 1 and not again:
        return events[0].journal_id, events[0].position
    points = [StreamPoint(event.received_at, event.journal_id, event.position) for event in events]
    points += again
    newest = max(points).journal_id
    return newest, max(point.position for point in points if point.journal_id == newest)


def _shortened(message: dict[str, object], room: int) -> bytes:
    """Without the longest fields; what cannot be left out are ids and words, which the normalisers keep short."""
    left_out = cast("list[str]", message["truncated"])
    sizes = {name: len(_encode(message[name])) for name in _EMPTY}
    value = b""
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        message[name] = _EMPTY[name]
        left_out.append(name)
        value = _encode(message)
        if len(value) <= room:
            break
    return value


def _size(headers: Headers) -> int:
    return sum([len(name) + len(value) + 8 for name, value in headers])


def _stand_in(damaged: Damaged) -> Delivery:
    """All that is known of a row that cannot be read: where it stood."""
    return Delivery(
        source="", provider="", org="", body=damaged.body, headers={}, received_at=0, trust=Trust.D,
        journal_id=damaged.journal_id, position=damaged.position,
    )  # fmt: skip
