"""From a delivery to what it means: parse, normalise, and put beside it where it came from.

Pure: no clock, no I/O. Whatever goes wrong inside one delivery stays inside it and becomes a dead letter, so that
one poison event never stops the stream; the shells count and log dead letters.
"""

from __future__ import annotations

from calls.dead_letters import NORMALISER_FAILED, PROVIDER_UNKNOWN
from calls.errors import PayloadMalformed, SettingsError
from calls.model import CallEvent, DeadLetter, Delivery, TimelineEvent
from calls.provider import discover, named

_DETAIL_MAX = 500


def interpret(delivery: Delivery) -> list[TimelineEvent] | DeadLetter:
    """What a delivery means: one or more events in the order the provider tells them, or a dead letter; never raises.

    The first event's id is the delivery's, further ones add `-2`, `-3`, ...; so equal bytes give equal ids.
    """
    provider = discover().get(delivery.provider)
    if provider is None:
        return DeadLetter(reason=PROVIDER_UNKNOWN, detail=_no_provider(delivery.provider), delivery=delivery)
    try:
        payload = delivery.payload
        events = provider.normalise(delivery)
    except PayloadMalformed as error:
        return DeadLetter(reason=error.code, detail=error.message, delivery=delivery)
    except MemoryError:
        raise
    except Exception as error:
        # A bug of ours in one normaliser: the bytes are kept and can be retried once it is mended.
        detail = f"{type(error).__name__}: {error}"[:_DETAIL_MAX]
        return DeadLetter(reason=NORMALISER_FAILED, detail=detail, delivery=delivery)
    wrong = _wrong_with(events)
    if wrong is not None:
        return DeadLetter(reason=NORMALISER_FAILED, detail=wrong, delivery=delivery)
    delivery_id, raw = delivery.id, None if payload.exact else delivery.body
    return [
        TimelineEvent(
            event_id=delivery_id if number == 1 else f"{delivery_id}-{number}",
            provider=delivery.provider,
            source=delivery.source,
            trust=delivery.trust,
            received_at=delivery.received_at,
            journal_id=delivery.journal_id,
            position=delivery.position,
            event=event,
            data=payload.text,
            raw=raw,
            source_org=delivery.org,
            headers=delivery.headers,
        )
        for number, event in enumerate(events, 1)
    ]


def _wrong_with(events: list[CallEvent]) -> str | None:
    """What a type checker cannot promise of a normaliser, and no row can be without."""
    if not events:
        return "The normaliser found no event."
    for said in events:
        if not (type(said.event) is str and type(said.org) is str and type(said.happened_at) is int):
            return "The normaliser left out an event's name, org or time."
        if said.call_id is not None and (type(said.call_id) is not str or not said.call_id):
            return "The normaliser gave a call id that is no text."
    return None


def _no_provider(name: str) -> str:
    try:
        named(name)
    except SettingsError as error:
        return error.message
    raise AssertionError(f"provider {name} is known")
