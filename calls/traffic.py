"""Sample traffic: what a platform would send for made-up calls, drawn from its samples and their `traffic.toml`.

Pure: the dice and the time are arguments, so one seed gives one history. `traffic.toml` holds

    [values]             drawn once a call, in order; later ones may refer to earlier ones as "$name"
    [[story]]            one kind of call: its weight, values of its own, and the deliveries it sends

A drawn value is a constant, a reference ("$name", or "$name|format" for times: iso, iso_ms, epoch_ms, date), a list or
table of such, or

    {choice = {a = 3, b = 1}}    one of the keys, by weight       {one_of = [..]}         one of the items, evenly
    {between = [1, 9]}           a whole number                   {around = [90, 0.6]}    log-normal: median, spread
    {chance = 0.4}               true or false                    {make = "uuid"}         digits, phone, person, email
    {maybe = 0.7, then = .., else = ..}                           {text = "Hello {name}"}
    {days_after = [1, 9]}        a full hour so many days after the call ended
"""

from __future__ import annotations

import json
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import cast

from calls import inbound_call
from calls.errors import PayloadMalformed, SettingsError
from calls.model import Delivery, Micros, Trust
from calls.payload import JsonObject, JsonValue
from calls.provider import Provider

FIRST_NAMES = ("Ada", "Bela", "Carla", "Dmitri", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jonas", "Kofi", "Lena")
LAST_NAMES = ("Abel", "Brandt", "Costa", "Duarte", "Eriksen", "Fofana", "Garcia", "Haas", "Ito", "Jansen", "Kaya")


@dataclass(frozen=True, slots=True)
class Post:
    """One body to send, some seconds after its call ended."""

    sample: str
    body: bytes
    after_s: float


def sample_names(provider: Provider) -> list[str]:
    """The names of a provider's sample bodies."""
    bodies = provider.samples.glob("*.json")
    return sorted(path.stem for path in bodies if not path.name.endswith(".expected.json") and path.stem != "vector")


def sendable_names(provider: Provider) -> list[str]:
    """Those of the samples that the platform could send as its own: signed, or a question that it asks unsigned."""
    return [name for name in sample_names(provider) if _can_be_sent(provider, _read(provider, name))]


def one_call(provider: Provider, *, dice: Random, ended_at: Micros, event: str | None = None) -> list[Post]:
    """What the provider sends for one made-up call that ended at that time; only `event` where one is named."""
    if event is not None:
        return [_of_event(provider, event, dice, ended_at)]
    story = _story(provider, dice)
    if story is None:
        return [_renamed(provider, dice.choice(sendable_names(provider)), dice)]
    return list(_told(provider, story, dice, ended_at))


def _of_event(provider: Provider, event: str, dice: Random, ended_at: Micros) -> Post:
    plan = _plan(provider)
    for story in cast("list[JsonObject]", plan.get("story", [])):
        for post in _told(provider, story, dice, ended_at):
            if event in (post.sample, _event_of(provider, post.body)):
                return post
    names = sendable_names(provider)
    for name in names:
        if event in (name, _event_of(provider, _read(provider, name))):
            return _renamed(provider, name, dice)
    known = sorted({_event_of(provider, _read(provider, name)) or name for name in names})
    raise SettingsError(f"{provider.title} has no sample of an event '{event}'. Known are: {', '.join(known)}.")


@cache
def _plan(provider: Provider) -> JsonObject:
    path = provider.samples / "traffic.toml"
    return cast(JsonObject, tomllib.loads(path.read_text())) if path.exists() else {}


def _story(provider: Provider, dice: Random) -> JsonObject | None:
    stories = cast("list[JsonObject]", _plan(provider).get("story", []))
    if not stories:
        return None
    weights = [float(cast(float, story.get("weight", 1))) for story in stories]
    return dice.choices(stories, weights)[0]


def _told(provider: Provider, story: JsonObject, dice: Random, ended_at: Micros) -> Iterator[Post]:
    plan = _plan(provider)
    drawn: JsonObject = {"ended": ended_at, "started": ended_at}
    wanted = {**cast(JsonObject, plan.get("values", {})), **cast(JsonObject, story.get("values", {}))}
    for name, spec in wanted.items():
        drawn[name] = _draw(spec, drawn, dice)
        if name == "duration":
            drawn["started"] = ended_at - int(cast(float, drawn["duration"])) * 1_000_000
    for send in cast("list[JsonObject]", story["send"]):
        name = cast(str, send["sample"])
        body = cast(JsonObject, json.loads(_read(provider, name)))
        for path in cast("list[str]", send.get("drop", [])):
            _drop(body, path.split("."))
        for path, spec in cast("dict[str, JsonObject]", plan.get("set", {})).get(name, {}).items():
            _put(body, path.split("."), _draw(spec, drawn, dice))
        yield Post(name, json.dumps(body, separators=(",", ":")).encode(), float(cast(float, send.get("after_s", 0))))


def _draw(spec: JsonValue, drawn: Mapping[str, JsonValue], dice: Random) -> JsonValue:
    if isinstance(spec, str):
        return _refer(spec, drawn) if spec.startswith("$") else spec
    if isinstance(spec, list):
        return [_draw(item, drawn, dice) for item in spec]
    if not isinstance(spec, dict):
        return spec
    match spec:
        case {"choice": dict(weights)}:
            return dice.choices(list(weights), [float(cast(float, w)) for w in weights.values()])[0]
        case {"one_of": list(items)}:
            return _draw(dice.choice(items), drawn, dice)
        case {"between": [int(low), int(high)]}:
            return dice.randint(low, high)
        case {"around": [median, spread]}:
            return max(1, round(cast(float, median) * dice.lognormvariate(0, cast(float, spread))))
        case {"days_after": [int(low), int(high)]}:
            return _office_hour(cast(int, drawn["ended"]), dice.randint(low, high), dice.randint(8, 16))
        case {"chance": share}:
            return dice.random() < cast(float, share)
        case {"make": str(kind)}:
            return _make(kind, drawn, dice)
        case {"maybe": share, "then": then}:
            return _draw(then if dice.random() < cast(float, share) else spec.get("else"), drawn, dice)
        case {"text": str(template)}:
            return template.format_map(drawn)
    return {key: _draw(value, drawn, dice) for key, value in spec.items()}


def _office_hour(moment: Micros, days: int, hour: int) -> Micros:
    day_us = 86_400 * 1_000_000
    return moment - moment % day_us + days * day_us + hour * 3_600 * 1_000_000


def _refer(spec: str, drawn: Mapping[str, JsonValue]) -> JsonValue:
    name, _, form = spec[1:].partition("|")
    value = drawn[name]
    if not form:
        return value
    micros = cast(int, value)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    forms: dict[str, JsonValue] = {
        "iso": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "iso_ms": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{micros // 1000 % 1000:03d}Z",
        "epoch_ms": str(micros // 1000),
        "date": moment.strftime("%Y-%m-%d"),
    }
    return forms[form]


def _make(kind: str, drawn: Mapping[str, JsonValue], dice: Random) -> JsonValue:
    match kind:
        case "uuid":
            return str(uuid.UUID(int=dice.getrandbits(128), version=4))
        case "digits":
            return dice.randint(10_000_000, 9_999_999_999)
        case "phone":
            # 555-0100 to 555-0199 are kept free for made-up numbers.
            return f"+1{dice.choice((212, 312, 415, 617, 737))}55501{dice.randint(0, 99):02d}"
        case "person":
            return f"{dice.choice(FIRST_NAMES)} {dice.choice(LAST_NAMES)}"
        case "email":
            name = str(drawn.get("person", "someone")).lower().replace(" ", ".")
            return f"{name}@example.com"
    raise SettingsError(f"traffic.toml asks to make '{kind}', which is none of uuid, digits, phone, person, email.")


def _put(body: JsonObject, path: list[str], value: JsonValue) -> None:
    for key in path[:-1]:
        body = cast(JsonObject, body.setdefault(key, {}))
    body[path[-1]] = value


def _drop(body: JsonObject, path: list[str]) -> None:
    for key in path[:-1]:
        body = cast(JsonObject, body.get(key, {}))
    body.pop(path[-1], None)


@cache
def _read(provider: Provider, name: str) -> bytes:
    return (provider.samples / f"{name}.json").read_bytes()


def _can_be_sent(provider: Provider, body: bytes) -> bool:
    if provider.signed_id is None or inbound_call.read(body) is not None:
        return True
    try:
        provider.signed_id(body)
    except PayloadMalformed:
        return False
    return True


@cache
def _event_of(provider: Provider, body: bytes) -> str | None:
    try:
        events = provider.normalise(_as_delivery(provider, body))
    except PayloadMalformed:
        return None
    return events[0].event if events else None


def _renamed(provider: Provider, name: str, dice: Random) -> Post:
    """A sample whose call id is fresh wherever it stands, so that it counts as another call."""
    body = _read(provider, name)
    events = provider.normalise(_as_delivery(provider, body)) if _event_of(provider, body) else []
    old = next((event.call_id for event in events if event.call_id), None)
    if old is not None:
        fresh = str(dice.randint(10_000_000, 9_999_999_999)) if old.isdigit() else str(_make("uuid", {}, dice))
        body = body.replace(old.encode(), fresh.encode())
    return Post(name, body, 0.0)


def _as_delivery(provider: Provider, body: bytes) -> Delivery:
    return Delivery(
        source=provider.name, provider=provider.name, org="", body=body, headers={}, received_at=0,
        trust=Trust.D, journal_id="", position=0,
    )  # fmt: skip
