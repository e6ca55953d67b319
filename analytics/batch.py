"""What goes into the store in one transaction, and what comes back out of it to be folded again."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from calls.model import Call, CallKey, DeadLetter, Micros, TimelineEvent, Trust, Verdict


class Position(NamedTuple):
    """How far a stream is applied."""

    stream: str
    """`journal` or `kafka`."""
    stream_id: str
    """The journal's id, or what names a topic's partition for good."""
    position: int


class Place(NamedTuple):
    """Where a record stands for good; each has one row of `deliveries` at most."""

    journal_id: str
    position: int


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `deliveries`: a delivery, or what happened at the door without becoming one."""

    id: str | None
    position: int
    journal_id: str
    source: str
    provider: str
    verdict: Verdict | str
    reason: str | None
    trust: Trust | str | None
    bytes: int
    count: int
    received_at: Micros


class CallChange(msgspec.Struct, frozen=True, kw_only=True):
    """One call as it stands in the store, if it does, and as it is to stand there."""

    key: CallKey
    before: Call | None
    after: Call


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one transaction changes. Every call, event and delivery in it comes once."""

    positions: list[Position]
    deliveries: list[DeliveryRow] = []
    events: list[TimelineEvent] = []
    """Events that are new, and those that take the place of a replaced one."""
    replaced_event_ids: list[str] = []
    """Stored events that give way to one of equal id and lower position in `events`.

    A delivery's first event bears its id: the row of the delivery that gives way becomes a repeat, and a dead letter
    of it goes.
    """
    changes: list[CallChange] = []
    dead_letters: list[DeadLetter] = []
    applied_at: Micros


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A stored event's delivery, from which its meaning can be read again."""

    event_id: str
    source: str
    provider: str
    source_org: str
    body: bytes
    headers: dict[str, str]
    received_at: Micros
    trust: Trust
    journal_id: str
    position: int


class StoredCall(msgspec.Struct, frozen=True, kw_only=True):
    """A stored call and all its events, in the order of the journals."""

    call: Call
    events: list[StoredEvent]
