"""The question a platform asks while a call waits (`call_inbound`): recognised at the door of every source.

The door answers it before any signature is checked, since a wrong answer hangs up on the caller. So it must be
recognised however its JSON is spelled, and cost next to nothing on every other body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from calls import call_id, reading
from calls.errors import PayloadMalformed
from calls.payload import JsonObject, parse

EVENT = "call_inbound"

_EVENT_BYTES = EVENT.encode()
_EVENT_FIELD = re.compile(rb'"event"\s*:\s*"call_inbound"')


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundCall:
    """A call that waits for our answer; None is what the platform did not say."""

    model_id: str | None = None
    """The agent that would take the call."""
    from_number: str | None = None
    to_number: str | None = None
    call_id: str | None = None
    """The one call id the body names: all that a signature can cover here."""


def read(body: bytes) -> InboundCall | None:
    """The waiting call that `body` asks about; None for every other body. Never raises."""
    if _EVENT_BYTES not in body and not call_id.may_spell_by_escapes(body):
        return None
    try:
        value = parse(body).value
    except PayloadMalformed as error:
        # Cut off, wrongly encoded or nested too deep: a person still waits on the line, and the safe answer suits all.
        return InboundCall() if error.code != "not_an_object" and _EVENT_FIELD.search(body) else None
    return _described(body, value) if asks(value) else None


def asks(value: JsonObject) -> bool:
    """Whether a parsed body is such a question."""
    return value.get("event") == EVENT


def _described(body: bytes, value: JsonObject) -> InboundCall:
    described = reading.section(value, EVENT)
    return InboundCall(
        model_id=reading.identifier(described, "model_id"),
        from_number=reading.phone(described, "from_number"),
        to_number=reading.phone(described, "to_number"),
        call_id=_call_id(body, value),
    )


def _call_id(body: bytes, value: JsonObject) -> str | None:
    try:
        return call_id.only(body, value)
    except PayloadMalformed:
        return None
