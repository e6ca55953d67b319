"""Which of equal deliveries counts, of those that come now and the one that is stored.

Several journals may hold the same webhook, and Kafka brings them in any order. Of equal ids the one counts that stands
lowest among those that can be read; so one that comes later may take the place of one that was applied before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from analytics.store import Place, Store
from calls.dead_letters import NOT_STORABLE
from calls.model import DeadLetter, Delivery, StreamPoint
from streams.steps import interpret


class Chosen(NamedTuple):
    """What becomes of deliveries."""

    counting: Iterable[Delivery]
    repeated: Sequence[Delivery]
    replaced: Sequence[str]
    """Ids of which a stored delivery gives way to one that counts."""


def choose(deliveries: Sequence[Delivery], store: Store, deadly: Collection[str]) -> Chosen:
    """`deadly` are ids of what must not be read. What is stored already, at the same place, is in none of the three."""
    ids = [delivery.id for delivery in deliveries]
    standing = store.known(ids)
    if not standing and len(set(ids)) == len(ids):
        return Chosen(deliveries, (), ())
    dead = _dead({one.id: standing[one.id] for one in deliveries if _is_copy(one, standing)}, store)
    counting: dict[str, Delivery] = {}
    repeated, replaced = [], []
    for delivery in sorted(deliveries, key=point_of):
        point, among, held = point_of(delivery), counting.get(delivery.id), standing.get(delivery.id)
        at = held if among is None else point_of(among)
        if point in (at, held):
            continue
        of_dead = delivery.id in dead if among is None else not _reads(among, deadly)
        # What was read, but cannot be stored, is not tried again; to a lower copy it gives way as any dead letter does.
        settled = not of_dead or dead.get(delivery.id) == NOT_STORABLE
        if at is not None and not _takes_place(delivery, deadly, is_lower=point < at, of_dead=of_dead, settled=settled):
            repeated.append(delivery)
            continue
        if among is not None:
            repeated.append(among)
        elif held is not None:
            replaced.append(delivery.id)
        counting[delivery.id] = delivery
    return Chosen(counting.values(), repeated, replaced)


def point_of(delivery: Delivery) -> StreamPoint:
    """Where it stands among all deliveries of all journals."""
    return StreamPoint(delivery.received_at, delivery.journal_id, delivery.position)


def _takes_place(delivery: Delivery, deadly: Collection[str], *, is_lower: bool, of_dead: bool, settled: bool) -> bool:
    """Whether it counts instead of an equal one: nothing that counts as an event gives way to a dead letter."""
    if settled and not is_lower:
        return False
    return (is_lower and of_dead) or _reads(delivery, deadly)


def _reads(delivery: Delivery, deadly: Collection[str]) -> bool:
    """Whether it is no dead letter. Equal bytes may differ in that: their headers do, and the source's org may."""
    if delivery.id in deadly:
        return False
    meaning = interpret(delivery)
    delivery.__dict__.pop("payload", None)
    return not isinstance(meaning, DeadLetter)


def _dead(standing: Mapping[str, StreamPoint], store: Store) -> dict[str, str]:
    """Those of the ids that are dead letters, and why."""
    places = {Place(point.journal_id, point.position): name for name, point in standing.items()}
    reasons = store.not_understood(places) if places else {}
    return {places[place]: reason for place, reason in reasons.items()}


def _is_copy(delivery: Delivery, standing: Mapping[str, StreamPoint]) -> bool:
    """Whether an equal one is stored that stands elsewhere."""
    point = standing.get(delivery.id)
    return point is not None and point != point_of(delivery)
