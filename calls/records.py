"""The records that carry journalled things through Kafka: how one is written, read, cut into chunks and put together.

A delivery is a record of `calltally.deliveries`: its value is the raw body, its headers say the rest. A body over the
limit is several records with equal headers and `chunk` = `1/3`, `2/3`, `3/3`. Notices, and rows of the journal that
are damaged, are records of `calltally.notices` whose value is JSON. Unknown headers are ignored, so that a later
version may add some. Nothing here knows a Kafka client.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from calls.errors import RecordMalformed
from calls.journal_row import Damaged
from calls.model import CallKey, Delivery, Micros, Notice, Trust, delivery_id
from calls.provider import Naming


class Topic(StrEnum):
    """The names of our topics."""

    DELIVERIES = "calltally.deliveries"
    NOTICES = "calltally.notices"
    CALLS = "calltally.calls"
    DEAD = "calltally.dead"


RELAYED = (Topic.DELIVERIES, Topic.NOTICES)
"""What the relay writes and the worker reads; the others the worker writes."""

Headers: TypeAlias = "list[tuple[str, bytes]]"
Given: TypeAlias = "Iterable[tuple[str, bytes | None]]"
"""Headers as a consumer reads them; anyone may have written them."""

FRAME_BYTES = 1024
"""What a record adds to its key, headers and value, and its batch to the record; generous."""
CHUNKS_MAX = 100_000
EVENT_LENGTH_MAX = 512
GIVE_UP_RECORDS = 1_000_000
"""After so many further records the rest of a chunked delivery is not expected any more: its journal is gone."""


class Outgoing(NamedTuple):
    """A record to publish."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers
    at: Micros
    """The record's time: when the webhook was received."""


class Chunk(msgspec.Struct, frozen=True):
    """One numbered piece of a delivery whose body did not fit into one record."""

    of: Delivery
    """The delivery; its body is empty."""
    id: str
    """The delivery's id."""
    number: int
    """From 1."""
    count: int
    piece: bytes


def call_key(call: CallKey) -> bytes:
    """`provider:org:call_id`, the key of all records about one call; another call never has the same."""
    org = call.org
    if ":" in org or "%" in org:
        org = org.replace("%", "%25").replace(":", "%3A")
    return f"{call.provider}:{org}:{call.call_id}".encode()


def partition_of(key: bytes, partitions: int) -> int:
    """CRC-32 of the key, as librdkafka's default has it: equal keys, one partition.

    The Java client's hash takes kafka-python, which has it in pure Python, a sixth of the relay's time.
    """
    return zlib.crc32(key) % partitions


def of_delivery(delivery: Delivery, naming: Naming | None, *, bytes_max: int) -> list[Outgoing]:
    """The record of a delivery, or its chunks in order; no record is larger than `bytes_max`.

    `naming` says of what it is; None where it cannot be understood. Raises ValueError where the headers alone
    leave no room.
    """
    id_bytes = delivery.id.encode()
    key, event = id_bytes, b""
    if naming is not None:
        event = naming.event[:EVENT_LENGTH_MAX].encode()
        if naming.call_id is not None:
            key = call_key(CallKey(delivery.provider, naming.org, naming.call_id))
    headers = [
        ("source", delivery.source.encode()),
        ("provider", delivery.provider.encode()),
        ("org", delivery.org.encode()),
        ("event", event),
        ("received_at", b"%d" % delivery.received_at),
        ("trust", delivery.trust.encode()),
        ("journal_id", delivery.journal_id.encode()),
        ("position", b"%d" % delivery.position),
        ("id", id_bytes),
        ("http", _encode(delivery.headers)),
    ]
    body = delivery.body
    room = bytes_max - FRAME_BYTES - len(key) - sum([len(name) + len(value) + 8 for name, value in headers])
    if len(body) <= room:
        return [Outgoing(_DELIVERIES, key, body, headers, delivery.received_at)]
    if room < FRAME_BYTES:
        raise ValueError(f"The headers of journal position {delivery.position} leave no room in {bytes_max} bytes.")
    count = -(-len(body) // room)
    return [
        Outgoing(
            _DELIVERIES,
            key,
            body[number * room : (number + 1) * room],
            [*headers, ("chunk", b"%d/%d" % (number + 1, count))],
            delivery.received_at,
        )
        for number in range(count)
    ]


def of_notice(notice: Notice) -> Outgoing:
    """The record of a notice; its key is the source."""
    headers = [
        ("kind", b"notice"),
        ("source", notice.source.encode()),
        ("provider", notice.provider.encode()),
        ("received_at", b"%d" % notice.received_at),
        ("journal_id", notice.journal_id.encode()),
        ("position", b"%d" % notice.position),
    ]
    return Outgoing(_NOTICES, notice.source.encode(), _encode(notice), headers, notice.received_at)


def of_damaged(damaged: Damaged, journal_id: str, *, at: Micros) -> Outgoing:
    """The record that stands for a row of the journal that cannot be read; its key is the journal."""
    headers = [("kind", b"damaged"), ("journal_id", journal_id.encode()), ("position", b"%d" % damaged.position)]
    value = _encode(Damaged(damaged.position, damaged.reason, journal_id))
    return Outgoing(_NOTICES, journal_id.encode(), value, headers, at)


def read_delivery(headers: Given, value: bytes | None) -> Delivery | Chunk:
    """The delivery, or the piece of one, in a record of `calltally.deliveries`. Raises RecordMalformed."""
    given = dict(headers)
    try:
        the_id = _text(given, "id")
        chunk = given.get("chunk")
        if value is None:
            raise RecordMalformed("The record has no value.")
        delivery = Delivery(
            source=_text(given, "source"),
            provider=_text(given, "provider"),
            org=_text(given, "org"),
            body=value if chunk is None else b"",
            headers=_decode_http(given["http"] or b""),
            received_at=int(given["received_at"] or b""),
            trust=_TRUSTS[given["trust"] or b""],
            journal_id=_text(given, "journal_id"),
            position=int(given["position"] or b""),
        )
        if chunk is not None:
            number, count = map(int, chunk.split(b"/"))
    except KeyError as error:
        raise RecordMalformed(f"The record has no proper header {error}; it was not written by a relay.") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordMalformed(f"A header of the record cannot be read ({error}).") from None
    if delivery.received_at < 0 or delivery.position < 1:
        raise RecordMalformed("The record's received_at or position is out of range.")
    if chunk is None:
        _require_genuine(delivery, the_id)
        return delivery
    if not 1 <= number <= count <= CHUNKS_MAX:
        raise RecordMalformed(f"The record calls itself chunk {number} of {count}.")
    return Chunk(delivery, the_id, number, count, value)


def read_notice(headers: Given, value: bytes | None) -> Notice | Damaged:
    """The notice or the damaged row in a record of `calltally.notices`. Raises RecordMalformed."""
    kind = dict(headers).get("kind")
    decode: Callable[[bytes], Notice | Damaged] | None = _NOTICE_KINDS.get(kind or b"")
    if decode is None:
        raise RecordMalformed(f"The record's kind is {kind!r}, which is neither notice nor damaged.")
    try:
        return decode(value or b"")
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordMalformed(f"The {(kind or b'').decode()} cannot be read ({error}).") from None


class Joiner:
    """Puts the chunks of one partition together again; one for each assignment of it.

    A relay sends the chunks of a delivery one after the other, and all of them again when it was interrupted.
    """

    def __init__(self) -> None:
        self._unfinished: dict[tuple[str, str], _Unfinished] = {}

    def add(self, chunk: Chunk, offset: int) -> Delivery | None:
        """The whole delivery where this chunk, read at `offset`, was its last.

        A chunk that was seen changes nothing. Raises RecordMalformed for one whose predecessors are missing, and for
        a whole that is not what was cut.
        """
        key = (chunk.of.journal_id, chunk.id)
        if chunk.number == 1:
            self._unfinished[key] = begun = _Unfinished(chunk, offset)
        else:
            known = self._unfinished.get(key)
            if known is None or known.first.count != chunk.count or chunk.number > len(known.pieces) + 1:
                self._unfinished.pop(key, None)
                raise RecordMalformed(
                    f"Chunk {chunk.number} of {chunk.count} of delivery {chunk.id} came without those before it."
                )
            if chunk.number <= len(known.pieces):
                return None
            begun = known
        begun.pieces.append(chunk.piece)
        begun.last_offset = offset
        if len(begun.pieces) < chunk.count:
            return None
        del self._unfinished[key]
        whole = msgspec.structs.replace(chunk.of, body=b"".join(begun.pieces))
        _require_genuine(whole, chunk.id)
        return whole

    @property
    def holds_from(self) -> int | None:
        """The offset of the first chunk of any unfinished delivery; what is stored as applied must end before it."""
        return min((begun.first_offset for begun in self._unfinished.values()), default=None)

    def give_up(self, offset: int) -> list[Chunk]:
        """Forget the deliveries whose rest did not come within `GIVE_UP_RECORDS` before `offset`; a chunk of each."""
        late = [key for key, begun in self._unfinished.items() if offset - begun.last_offset > GIVE_UP_RECORDS]
        return [self._unfinished.pop(key).first for key in late]


class _Unfinished:
    def __init__(self, first: Chunk, offset: int) -> None:
        self.first = first
        self.first_offset = self.last_offset = offset
        self.pieces: list[bytes] = []


# The bare names: an enum member's hash is computed in Python, and a client looks a topic up several times a record.
_DELIVERIES, _NOTICES = Topic.DELIVERIES.value, Topic.NOTICES.value
_encode = msgspec.json.Encoder().encode
_decode_http = msgspec.json.Decoder(dict[str, str]).decode
_TRUSTS = {trust.encode(): trust for trust in Trust}
_NOTICE_KINDS: dict[bytes, Callable[[bytes], Notice | Damaged]] = {
    b"notice": msgspec.json.Decoder(Notice).decode,
    b"damaged": msgspec.json.Decoder(Damaged).decode,
}


def _text(given: Mapping[str, bytes | None], name: str) -> str:
    value = given[name]
    if value is None:
        raise KeyError(name)
    return value.decode()


def _require_genuine(delivery: Delivery, the_id: str) -> None:
    found = delivery_id(delivery.source, delivery.body)
    if found != the_id:
        raise RecordMalformed(f"The body is not the one whose id the record bears ({the_id}).")
    delivery.__dict__["id"] = found  # saves whoever asks the second hash of the body
