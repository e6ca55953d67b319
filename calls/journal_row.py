"""A record as a row of the journal: how it is encoded, sealed against rot, and opened again.

A seal is a digest over everything in the row, over its position and over the journal's id, so that neither a flipped
bit nor an old page in a new place passes. A body's part in it is the delivery's id, which is a digest of the body.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, TypeAlias

import msgspec

from calls.dead_letters import JOURNAL_DAMAGED
from calls.model import Delivery, Micros, Notice, Trust, Verdict

SEAL_BYTES = 16
ID_BYTES = 32
_SOURCES_MAX = 1000


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A verified webhook that is to be journalled."""

    source: str
    provider: str
    org: str
    body: bytes
    headers: dict[str, str]
    received_at: Micros
    trust: Trust
    id: str
    """`model.delivery_id(source, body)`; the reader recomputes it, and anything else is damage to it."""


class NewNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What happened at the door and is to be journalled; the fields are those of `model.Notice`."""

    source: str
    provider: str
    verdict: Verdict
    reason: str | None
    detail: str | None
    id: str | None
    bytes: int
    count: int
    received_at: Micros


class Damaged(msgspec.Struct, frozen=True, omit_defaults=True):
    """A position whose record is missing or does not match its seal; it is kept out."""

    position: int
    reason: str
    journal_id: str = ""
    """Set where the record has left its journal, on the way through Kafka."""
    code: str = JOURNAL_DAMAGED
    """The reason of the dead letter that stands for it."""
    body: bytes = b""
    """What was found in its place, where that may be of use."""


Record: TypeAlias = Delivery | Notice | Damaged
Row: TypeAlias = "tuple[int, bytes, bytes, bytes | None]"
"""position, seal, head, body: as the connections below return it, text as bytes."""


class _DeliveryHead(msgspec.Struct, tag="delivery"):
    source: str
    provider: str
    org: str
    headers: dict[str, str]
    received_at: Micros
    trust: Trust


class _NoticeHead(msgspec.Struct, tag="notice"):
    source: str
    provider: str
    verdict: Verdict
    reason: str | None
    detail: str | None
    id: str | None
    bytes: int
    count: int
    received_at: Micros


class _Timed(msgspec.Struct):
    received_at: Micros


class Encoded(NamedTuple):
    """A record ready to be written: everything that does not depend on its position."""

    head: bytes
    digest: bytes
    """The delivery's id as bytes; empty for a notice."""
    body: bytes | None


def encode(record: NewDelivery | NewNotice) -> Encoded:
    """Everything of a record but its position. Raises ValueError for an id that is not 64 hex digits."""
    head: _DeliveryHead | _NoticeHead
    if isinstance(record, NewDelivery):
        head = _DeliveryHead(
            record.source, record.provider, record.org, record.headers, record.received_at, record.trust
        )
        digest = bytes.fromhex(record.id)
        if len(digest) != ID_BYTES:
            raise ValueError(f"A delivery's id has {ID_BYTES} bytes, this one {len(digest)}.")
        return Encoded(_encode_head(head), digest, record.body)
    head = _NoticeHead(*(getattr(record, name) for name in NewNotice.__struct_fields__))
    return Encoded(_encode_head(head), b"", None)


def time_in(head: object) -> Micros:
    """When a record was received, by its head; 0 where that cannot be read."""
    try:
        return _decode_time(head).received_at  # type: ignore[arg-type]
    except (msgspec.MsgspecError, TypeError, ValueError):
        return 0


class Sealer:
    """Seals the rows of one journal, and opens them again."""

    def __init__(self, journal_id: str) -> None:
        self.journal_id = journal_id
        self._of_journal = hashlib.sha256(journal_id.encode())
        self._of_source: dict[str, hashlib._Hash] = {}

    def row(self, position: int, encoded: Encoded) -> tuple[int, bytes, bytes, bytes | None]:
        return position, self._seal(position, encoded.digest + encoded.head), encoded.head, encoded.body

    def commit(self, last: int, ids: bytes) -> tuple[int, bytes, bytes]:
        return last, self._seal(last, ids), ids

    def is_genuine_commit(self, last: int, seal: object, ids: object) -> bool:
        return isinstance(ids, bytes) and self._seal(last, ids) == seal

    def open(self, row: Row) -> Record:
        """The record in a row, or what is wrong with it."""
        position, seal, head_bytes, body = row
        try:
            head = _decode_head(head_bytes)
            if isinstance(head, _NoticeHead):
                if self._seal(position, head_bytes) != seal or body is not None:
                    return Damaged(position, _MISMATCH)
                return _notice(head, self.journal_id, position)
            if body is None:
                return Damaged(position, _MISMATCH)
            hashed = self._hash_of_source(head.source).copy()
            hashed.update(body)
            digest = hashed.digest()
            if self._seal(position, digest + head_bytes) != seal:
                return Damaged(position, _MISMATCH)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            # A flipped bit can turn a column into another type, so anything may be in the row.
            return Damaged(position, f"The row cannot be read ({type(error).__name__}).")
        delivery = Delivery(
            source=head.source,
            provider=head.provider,
            org=head.org,
            body=body,
            headers=head.headers,
            received_at=head.received_at,
            trust=head.trust,
            journal_id=self.journal_id,
            position=position,
        )
        delivery.__dict__["id"] = digest.hex()  # just computed: saves whoever asks the second hash of the body
        return delivery

    def _seal(self, position: int, content: bytes) -> bytes:
        hashed = self._of_journal.copy()
        hashed.update(position.to_bytes(8, "big") + content)
        return hashed.digest()[:SEAL_BYTES]

    def _hash_of_source(self, source: str) -> hashlib._Hash:
        known = self._of_source.get(source)
        if known is None:
            known = hashlib.sha256(source.encode() + b"\0")  # what model.delivery_id hashes before the body
            if len(self._of_source) < _SOURCES_MAX:  # damaged heads must not fill the memory
                self._of_source[source] = known
        return known


_MISMATCH = "The row does not match its seal: the file was altered or the disk returned something else."
_head_encoder = msgspec.json.Encoder()
_decode_time = msgspec.json.Decoder(_Timed).decode
_decode_head = msgspec.json.Decoder(_DeliveryHead | _NoticeHead).decode


def _encode_head(head: _DeliveryHead | _NoticeHead) -> bytes:
    try:
        return _head_encoder.encode(head)
    except UnicodeEncodeError:
        # Half a surrogate pair, from a diagnosis that quotes a body: it has no UTF-8 form and becomes a question mark.
        readable = _encodable(msgspec.to_builtins(head))
        return _head_encoder.encode(msgspec.convert(readable, type(head)))


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value


def _notice(head: _NoticeHead, journal_id: str, position: int) -> Notice:
    return Notice(
        source=head.source,
        provider=head.provider,
        verdict=head.verdict,
        reason=head.reason,
        detail=head.detail,
        id=head.id,
        bytes=head.bytes,
        count=head.count,
        received_at=head.received_at,
        journal_id=journal_id,
        position=position,
    )
