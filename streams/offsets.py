"""Where to go on reading: the positions in the store against what Kafka holds now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from calls.errors import BrokerError, BrokerUnavailable, CalltallyError, StoreMismatch
from calls.records import RELAYED, Topic
from streams.announce import ANNOUNCED, APPLIED
from streams.partition import Slot

TOPICS: Final = tuple(map(str, RELAYED))
"""What a worker reads."""
OTHER_TOPIC: Final = "other_topic"
OFFSETS_GONE: Final = "offsets_gone"
_OUTLINE: Final = (
    "Where the journal is, run `calltally relay --again-from 1` (repeats change nothing), then start this worker once "
    "with --from-oldest."
)


class Held(NamedTuple):
    """What Kafka holds of our topics."""

    ids: Mapping[str, str]
    """By topic; a topic that was deleted and made again has another."""
    firsts: Mapping[Slot, int]
    """The oldest offset there is."""
    ends: Mapping[Slot, int]
    """One more than the newest."""

    def stream_id(self, slot: Slot) -> str:
        """What names a partition of this very topic for good."""
        return stream_id(self.ids[slot[0]], slot[1])


def stream_id(topic_id: str, number: int) -> str:
    """Under what a partition's position is kept."""
    return f"{topic_id}/{number}"


def starts(positions: Mapping[tuple[str, str], int], held: Held, *, from_oldest: bool = False) -> dict[Slot, int]:
    """The offset to begin with, of every partition.

    Raises StoreMismatch where the store was filled from a journal or from another topic of that name, and BrokerError
    (`offsets_gone`) where Kafka has not, or no more, what comes next; `from_oldest` then takes the oldest there is.
    """
    _require_kafka(positions)
    _require_same_topic(positions, held)
    found: dict[Slot, int] = {}
    gone: list[str] = []
    for slot, first in held.firsts.items():
        at = positions.get((APPLIED, held.stream_id(slot)), 0)
        end = held.ends[slot]
        topic, number = slot
        if at < first:
            gone.append(
                f"offsets {at} to {first - 1} of {topic} partition {number} were deleted before they were applied"
            )
            at = first
        elif at > end:
            raise BrokerError(
                f"Kafka has lost records: {topic} partition {number} ends at offset {end}, but it was applied up to "
                f"{at}. Nothing is applied now. Delete the topics {' and '.join(TOPICS)}: the relay makes them anew "
                "and publishes the whole journal again, and this worker rebuilds its store from that.",
                code=OFFSETS_GONE,
            )
        found[slot] = at
    if gone and not from_oldest:
        raise BrokerError(f"Kafka no longer has what comes next: {'; '.join(gone[:3])}. {_OUTLINE}", code=OFFSETS_GONE)
    return found


def unannounced_from(
    positions: Mapping[tuple[str, str], int], held: Held, applied: Mapping[Slot, int]
) -> dict[Slot, int]:
    """Where to begin reading so that what follows from every applied record is published: never behind `applied`.

    Records that Kafka has deleted since are left out.
    """
    found = {}
    for slot, at in applied.items():
        announced = positions.get((ANNOUNCED, held.stream_id(slot)), 0)
        found[slot] = min(at, max(announced, held.firsts[slot]))
    return found


def require_beginning(held: Held, why: CalltallyError) -> None:
    """Raises what says that a store made from these topics would lack older calls; then nothing may be set aside."""
    cut = [f"{topic} partition {number}" for (topic, number), first in held.firsts.items() if first > 0]
    if cut:
        raise StoreMismatch(
            f"{why.message} It cannot be made again from Kafka, where the oldest records of {', '.join(cut[:3])} are "
            f"deleted. Nothing was moved. Delete the topics {' and '.join(TOPICS)}: the relay makes them anew and "
            "publishes the whole journal again.",
            code="topic_incomplete",
        )
    if not any(held.ends.values()):
        raise BrokerUnavailable(
            f"{why.message} The topics hold nothing yet; nothing was moved. Waiting for the relay to publish.",
            code="topic_empty",
        )


def is_beginning(positions: Mapping[tuple[str, str], int]) -> bool:
    """Whether nothing was ever applied to the store."""
    return not any(stream == APPLIED for stream, _ in positions)


def _require_kafka(positions: Mapping[tuple[str, str], int]) -> None:
    others = [f"{stream} {other_id}" for stream, other_id in positions if stream not in (APPLIED, ANNOUNCED)]
    if others:
        raise StoreMismatch(
            f"The store is filled from a journal on this disk ({others[0]}), not from Kafka. Start the worker without "
            "--kafka, or give it another data folder.",
            code="other_stream",
        )


def _require_same_topic(positions: Mapping[tuple[str, str], int], held: Held) -> None:
    """The topic of deliveries decides: the relay publishes everything again when that one is new."""
    known = {the_id.rpartition("/")[0] for stream, the_id in positions if stream == APPLIED}
    if known and held.ids[Topic.DELIVERIES] not in known:
        raise StoreMismatch(
            f"The topic {Topic.DELIVERIES} was deleted and made anew since the store was filled, or this is another "
            "Kafka.",
            code=OTHER_TOPIC,
        )
