"""The records of a history: few callers, so that events of one call come in several batches and in any order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Final

import msgspec

from calls.journal import NewDelivery, NewNotice
from calls.model import Micros, Verdict, delivery_id
from calls.provider import discover
from calls.traffic import one_call
from tests.faults.histories.mishaps import POISON, POISONED_HEADER, UNSTORABLE

NOON: Final[Micros] = 1_780_315_200_000_000
SECOND: Final = 1_000_000
STRANGE_BODIES: Final = (
    b"not JSON", b"", b"[]", b"{}", b"\xff\xfe", b'{"call_id": NaN}', b'{"a":' * 80 + b"1" + b"}" * 80,
    b'{"event":"call.ended","data":{"call_id":null}}',
    b'{"event":"call.ended","data":{"call_id":"x","duration":"long"}}',
    b'{"event":"call.ended","timestamp":1e400,"data":{"call_id":"x"}}',
    b'{"event":"call.ended","data":{"call_id":"x","n":123456789012345678901234567890}}',
    b'{"event":"' + POISON + b'","data":{"call_id":"c1"}}',
)  # fmt: skip
UNSTORABLE_BODY: Final = b'{"event":"' + UNSTORABLE + b'","data":{"call_id":"c1"}}'
HEADERS: Final = {"content-type": "application/json"}
_NAMES: Final = tuple(discover())
_CALLS: Final = 10
_ENDS: Final = 6


def record(dice: Random, sent: Sequence[NewDelivery], at: Micros) -> NewDelivery | NewNotice:
    """The next one; `sent` are those that may come again."""
    kind = dice.random()
    if kind < 0.15 and sent:
        return again(dice, dice.choice(sent), at)
    if kind < 0.22:
        return _notice(dice, at)
    if kind < 0.3:
        return _delivery(dice.choice(["aisync", "synthflow", "callsync"]), dice.choice(STRANGE_BODIES), at, HEADERS)
    if kind < 0.303:
        return _delivery("callsync", UNSTORABLE_BODY, at, HEADERS)
    name = dice.choice(_NAMES)
    bodies = _bodies(name, dice.randrange(_CALLS), dice.randrange(_ENDS))
    headers = {**HEADERS, POISONED_HEADER: "1"} if dice.random() < 0.03 else HEADERS
    return _delivery(name, dice.choice(bodies), at, headers)


def again(dice: Random, delivery: NewDelivery, at: Micros) -> NewDelivery:
    """The same webhook later; now and then with headers that make the one of them unreadable."""
    changed = msgspec.structs.replace(delivery, received_at=at)
    if dice.random() < 0.15:
        other = HEADERS if POISONED_HEADER in delivery.headers else {**HEADERS, POISONED_HEADER: "1"}
        changed = msgspec.structs.replace(changed, headers=other)
    return changed


@cache
def _bodies(provider: str, call: int, end: int) -> list[bytes]:
    ended_at = NOON + end * 9 * SECOND
    return [post.body for post in one_call(discover()[provider], dice=Random(call), ended_at=ended_at)]


def _delivery(provider: str, body: bytes, received_at: Micros, headers: dict[str, str]) -> NewDelivery:
    return NewDelivery(
        source=provider,
        provider=provider,
        org="",
        body=body,
        headers=headers,
        received_at=received_at,
        trust=discover()[provider].scheme.trust,
        id=delivery_id(provider, body),
    )


def _notice(dice: Random, at: Micros) -> NewNotice:
    return NewNotice(
        source="aisync",
        provider="aisync",
        verdict=dice.choice((Verdict.REFUSED, Verdict.REPEATED, Verdict.INBOUND)),
        reason=None,
        detail=None,
        id=None,
        bytes=dice.randint(0, 100),
        count=dice.randint(1, 5),
        received_at=at,
    )
