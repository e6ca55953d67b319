"""Sample bodies of the providers and what they must become: the file format that `test_every_provider.py` describes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from calls.errors import PayloadMalformed
from calls.model import CallEvent, Delivery, Micros
from calls.payload import JsonObject, JsonValue
from calls.provider import Provider, discover
from calls.signing import sign
from calls.traffic import sample_names

RECEIVED_AT: Micros = 1_780_315_200_000_000
"""2026-06-01T12:00:00Z: when every sample is taken to have arrived."""

SECRET = "contract-secret"

LIST_TABLES = {
    "analysis": "call_analysis",
    "variables": "call_variables",
    "actions": "call_actions",
    "appointments": "appointments",
    "leads": "leads",
}
"""The lists of an event, and the tables they fill."""


@dataclass(frozen=True)
class Sample:
    """One sample body of one provider."""

    provider: Provider
    name: str

    @property
    def body(self) -> bytes:
        return (self.provider.samples / f"{self.name}.json").read_bytes()

    @property
    def expected(self) -> JsonValue:
        return cast(JsonValue, json.loads((self.provider.samples / f"{self.name}.expected.json").read_bytes()))

    @property
    def delivery(self) -> Delivery:
        return delivery_of(self.provider, self.body)

    def __str__(self) -> str:
        return f"{self.provider.name}/{self.name}"


def every_sample() -> list[Sample]:
    return [sample for provider in discover().values() for sample in samples_of(provider)]


def samples_of(provider: Provider) -> list[Sample]:
    return [Sample(provider, name) for name in sample_names(provider)]


def delivery_of(
    provider: Provider, body: bytes, *, org: str = "", headers: Mapping[str, str] | None = None, position: int = 1
) -> Delivery:
    """A body as it would be journalled at `RECEIVED_AT` for a source of the provider's own name."""
    return Delivery(
        source=provider.name,
        provider=provider.name,
        org=org,
        body=body,
        headers=dict(headers or {}),
        received_at=RECEIVED_AT,
        trust=provider.scheme.trust,
        journal_id="00000000-0000-4000-8000-000000000000",
        position=position,
    )


def meaning(delivery: Delivery, provider: Provider) -> JsonValue:
    """What a body means, in the form of an expected file."""
    try:
        return [written(event) for event in provider.normalise(delivery)]
    except PayloadMalformed as error:
        return {"dead_letter": error.code}


def written(event: CallEvent) -> JsonObject:
    """An event for people to read: times in ISO 8601, absent and default fields left out."""
    fields = msgspec.to_builtins(event)
    for field in msgspec.structs.fields(event):
        if not field.required and fields[field.name] == _default(field):
            del fields[field.name]
    return cast(JsonObject, {name: _readable(name, value) for name, value in fields.items()})


def signed_headers(provider: Provider, body: bytes, *, now_s: int, secret: str = SECRET) -> list[tuple[bytes, bytes]]:
    """The headers that make a body genuine, as they would arrive."""
    signed_id = b"" if provider.signed_id is None else provider.signed_id(body)
    headers = sign(provider.scheme, secret, body, now_s=now_s, signed_id=signed_id)
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def every_path(value: JsonValue, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything inside a JSON value."""
    items: list[tuple[str | int, JsonValue]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield (*prefix, key)
        yield from every_path(item, (*prefix, key))


def _default(field: msgspec.structs.FieldInfo) -> object:
    made = field.default_factory
    return field.default if made is msgspec.NODEFAULT else made()


def _readable(name: str, value: Any) -> JsonValue:
    if isinstance(value, dict):
        return {key: _readable(key, item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_readable("", item) for item in value]
    if name.endswith("_at") and isinstance(value, int):
        moment = datetime.fromtimestamp(value // 1_000_000, UTC).replace(microsecond=value % 1_000_000)
        return moment.isoformat().replace("+00:00", "Z")
    return cast(JsonValue, value)
