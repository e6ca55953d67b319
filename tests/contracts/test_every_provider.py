"""What every provider keeps, shown by walking `calls/providers/`: a new one is held to all of it without an edit here.

A provider's samples stand in `calls/providers/samples/<provider>/`:

`<name>.json`
    A body exactly as it is sent, byte for byte (values are ours, the shape is the vendor's). One for each event the
    platform documents (`Provider.events`), more for its oddities: nulls, missing names, unknown events, other types.
`<name>.expected.json`
    What it means: an array of `CallEvent`s with default fields and absent (null) values left out and times, which are
    all fields ending in `_at`, in ISO 8601 ending in Z; or `{"dead_letter": "<reason>"}`. The delivery is of a source
    of the provider's own name, without org and headers, received at 2026-06-01T12:00:00Z.
    `python -m tests.contracts.bless <provider>` writes these files; review the difference that git shows.
`vector.json`
    A known answer of the signature: `{"about", "secret", "timestamp", "body", "headers"}`. `timestamp` is in seconds (0
    where none is signed), `headers` are all signature headers in lower case. `about` says where the answer is from.

Other files of the folder (`traffic.toml`) are none of this suite's business.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calls.errors import PayloadMalformed, SignatureRejected
from calls.model import CallEvent, Facts, Stage
from calls.payload import JsonValue
from calls.provider import Naming, Provider, discover
from calls.reading import YEARS
from calls.signing import Part, sign, verify
from tests.contracts.samples import (
    LIST_TABLES,
    RECEIVED_AT,
    SECRET,
    Sample,
    delivery_of,
    every_path,
    every_sample,
    meaning,
    samples_of,
    signed_headers,
)

NOW_S = RECEIVED_AT // 1_000_000
FLIPPED_BODY_BYTES = 64

REPLACEMENTS: list[JsonValue] = [
    None,
    True,
    False,
    0,
    -1,
    7,
    1.5,
    1e308,
    10**18,
    10**40,
    10**4000,
    "",
    " ",
    "text",
    "12",
    "-12",
    "1e999",
    "NaN",
    "9" * 5000,
    "٣",
    "2026-13-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "America",
    "../../etc/passwd",
    "\0",
    "\ud800",
    '{"a": [1, null]}',
    '{"a": ',
    "[" * 2000,
    "x" * 100_000,
    [],
    [[]],
    [None, 1, "a", {}, []],
    {},
    {"": None},
    {"value": {"value": {}}, "collected": "maybe"},
    {"a": {"b": {"c": {"d": {"e": []}}}}},
    float("nan"),
    float("-inf"),
]

each_provider = pytest.mark.parametrize("provider", list(discover().values()), ids=list(discover()))
each_sample = pytest.mark.parametrize("sample", every_sample(), ids=str)


@each_provider
def test_a_provider_describes_itself_completely(provider: Provider) -> None:
    """Its record says what people need to connect it, and it goes by one name everywhere."""
    assert discover()[provider.name] is provider
    assert provider.samples.is_dir()
    assert provider.title
    assert provider.docs_url.startswith("https://")
    assert "{url}" in provider.connect
    assert provider.events


@each_provider
def test_a_provider_names_headers_in_lower_case_and_keeps_no_signature(provider: Provider) -> None:
    """Headers are compared in lower case, and what is kept with a delivery proves nothing to a thief."""
    scheme = provider.scheme
    names = {*scheme.headers, *provider.kept_headers} | (
        {scheme.timestamp_header} if scheme.timestamp_header else set()
    )
    assert names == {name.lower() for name in names}
    assert not provider.kept_headers & {*scheme.headers, "authorization", "cookie"}


@each_provider
def test_every_sample_has_an_expected_file_and_the_reverse(provider: Provider) -> None:
    """No sample goes unchecked and no expectation is left over."""
    expected = {path.name.removesuffix(".expected.json") for path in provider.samples.glob("*.expected.json")}
    assert expected == {sample.name for sample in samples_of(provider)}


@each_provider
def test_every_documented_event_has_a_sample(provider: Provider) -> None:
    """Each event that the platform documents is shown by a sample that becomes that event."""
    shown = {event.event for event in _events_of_samples(provider)}
    assert provider.events - shown == set()


@each_provider
def test_a_provider_sends_exactly_what_its_samples_show(provider: Provider) -> None:
    """`sends` decides what the dashboard calls "not available", so it is neither longer nor shorter than the truth."""
    shown: set[str] = set()
    for event in _events_of_samples(provider):
        shown.update(event.facts)
        shown.update(table for name, table in LIST_TABLES.items() if getattr(event, name))
    assert provider.sends == shown


@each_provider
def test_a_provider_says_of_a_call_only_what_it_declares(provider: Provider) -> None:
    """A share of what a platform never says would be a 0 % or 100 % that nobody measured, so `connections` is exact."""
    said = {event.facts["connection"] for event in _events_of_samples(provider) if "connection" in event.facts}
    assert said <= provider.connections


@each_provider
def test_the_known_answer_is_signed_and_verified(provider: Provider) -> None:
    """A signature computed elsewhere is what we would send, and is accepted."""
    vector = json.loads((provider.samples / "vector.json").read_bytes())
    body = vector["body"].encode()
    signed_id = _signed_id(provider, body)
    now_s = vector["timestamp"]
    assert vector["about"]
    assert sign(provider.scheme, vector["secret"], body, now_s=now_s, signed_id=signed_id) == vector["headers"]
    headers = [(name.encode(), value.encode()) for name, value in vector["headers"].items()]
    verified = verify(provider.scheme, [vector["secret"]], headers, body, now_s=now_s, signed_id=signed_id)
    assert verified.trust is provider.scheme.trust
    with pytest.raises(SignatureRejected):
        verify(provider.scheme, [vector["secret"] + "x"], headers, body, now_s=now_s, signed_id=signed_id)


@each_sample
def test_a_sample_means_exactly_what_is_expected(sample: Sample) -> None:
    """A body becomes these events with these facts and lists, or a dead letter with this reason."""
    assert meaning(sample.delivery, sample.provider) == sample.expected


@each_sample
def test_a_signed_sample_is_accepted_and_no_bit_of_it_can_change(sample: Sample) -> None:
    """A changed bit of what is signed, or of a signature header, is refused."""
    provider, body = sample.provider, sample.body
    try:
        headers = signed_headers(provider, body, now_s=NOW_S)
    except PayloadMalformed:
        assert isinstance(sample.expected, dict), "what cannot be signed cannot be understood either"
        return
    signed_id = _signed_id(provider, body)
    assert verify(provider.scheme, [SECRET], headers, body, now_s=NOW_S, signed_id=signed_id).secret_index == 0
    for changed in _flipped_headers(headers):
        with pytest.raises(SignatureRejected):
            verify(provider.scheme, [SECRET], changed, body, now_s=NOW_S, signed_id=signed_id)
    for changed_body in _flipped(body, step=max(1, len(body) // FLIPPED_BODY_BYTES)):
        _assert_refused_if_signed(provider, headers, body, changed_body)


@each_sample
def test_a_damaged_sample_never_breaks_the_normaliser(sample: Sample) -> None:
    """Whatever field is missing or holds anything else: events of the right shape, or a dead letter with a reason."""
    for body in _damaged(cast(JsonValue, json.loads(sample.body))):
        _assert_understood_or_malformed(sample.provider, body)


@each_provider
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_json_of_a_providers_own_words_is_understood_or_a_dead_letter(
    provider: Provider, data: st.DataObject
) -> None:
    """Bodies made of the provider's own keys and values, nested in any way, break nothing."""
    keys, leaves = _words(provider)
    values = st.recursive(
        leaves | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
        max_leaves=25,
    )
    body = json.dumps(data.draw(st.dictionaries(keys, values, max_size=8))).encode()
    _assert_understood_or_malformed(provider, body)


@each_sample
def test_a_delivery_is_named_as_its_first_event_is(sample: Sample) -> None:
    """Who only sorts deliveries sees the event, org and call that the normaliser sees, in whatever is understood."""
    naming = sample.provider.naming
    if naming is None:
        return
    bodies = [sample.body, *_damaged(json.loads(sample.body))]
    for body in bodies:
        delivery = delivery_of(sample.provider, body)
        with suppress(PayloadMalformed):
            first = sample.provider.normalise(delivery)[0]
            assert naming(delivery) == Naming(first.event, first.org, first.call_id)


@each_sample
def test_a_redelivery_gives_equal_events(sample: Sample) -> None:
    """The same body at another time and position means the same; only what carries no time at all takes our clock's."""
    if isinstance(sample.expected, dict):
        return
    first = sample.delivery
    again = msgspec.structs.replace(first, position=99, received_at=RECEIVED_AT + 86_400_000_000)
    for before, after in zip(sample.provider.normalise(first), sample.provider.normalise(again), strict=True):
        untimed = before.happened_at == first.received_at
        assert after.happened_at == (again.received_at if untimed else before.happened_at)
        assert msgspec.structs.replace(after, happened_at=before.happened_at) == before


@each_sample
def test_normalising_is_pure(sample: Sample) -> None:
    """The same delivery gives the same events every time, and its body is left as it was."""
    delivery = sample.delivery
    first = meaning(delivery, sample.provider)
    try:
        parsed = copy.deepcopy(delivery.payload)
    except PayloadMalformed:
        return
    assert meaning(delivery, sample.provider) == first == meaning(sample.delivery, sample.provider)
    assert repr(delivery.payload) == repr(parsed)


@each_sample
def test_the_org_of_the_source_goes_before_that_of_the_body(sample: Sample) -> None:
    """An agency's own word for its client wins over the platform's."""
    if isinstance(sample.expected, dict):
        return
    events = sample.provider.normalise(delivery_of(sample.provider, sample.body, org="acme"))
    assert {event.org for event in events} == {"acme"}


def _events_of_samples(provider: Provider) -> Iterator[CallEvent]:
    for sample in samples_of(provider):
        if not isinstance(sample.expected, dict):
            yield from provider.normalise(sample.delivery)


def _signed_id(provider: Provider, body: bytes) -> bytes:
    return b"" if provider.signed_id is None else provider.signed_id(body)


def _assert_refused_if_signed(
    provider: Provider, headers: list[tuple[bytes, bytes]], body: bytes, changed: bytes
) -> None:
    try:
        signed_id = _signed_id(provider, changed)
    except PayloadMalformed:
        return
    if Part.BODY not in provider.scheme.signed and signed_id == _signed_id(provider, body):
        return
    with pytest.raises(SignatureRejected):
        verify(provider.scheme, [SECRET], headers, changed, now_s=NOW_S, signed_id=signed_id)


def _assert_understood_or_malformed(provider: Provider, body: bytes) -> None:
    with suppress(PayloadMalformed):
        assert isinstance(_signed_id(provider, body), bytes)
    try:
        events = provider.normalise(delivery_of(provider, body))
    except PayloadMalformed as error:
        _assert_names_a_reason(error)
        return
    assert events
    for event in events:
        _assert_well_shaped(event)


def _assert_names_a_reason(error: PayloadMalformed) -> None:
    assert error.code.isidentifier()
    assert error.message


def _assert_well_shaped(event: CallEvent) -> None:
    built = msgspec.to_builtins(event)
    # Strict conversion refuses wrong types, missing keys and words that are no member of their enum; it drops keys
    # that the type does not have, which then shows as a difference.
    assert msgspec.convert(built, CallEvent, strict=True) == event
    assert None not in event.facts.values()
    assert event.event
    assert event.call_id != ""
    if event.call_id is None:
        assert event.stage is Stage.OTHER
        assert event.facts == Facts()
    for moment in _times(built):
        assert (YEARS.start - 1971) * 365.25 < moment / 86_400_000_000 < (YEARS.stop - 1969) * 365.25
    assert json.dumps(built, allow_nan=False)


def _times(value: Any, name: str = "") -> Iterator[int]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _times(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _times(item)
    elif name.endswith("_at") and value is not None:
        yield value


def _damaged(sample: JsonValue) -> Iterator[bytes]:
    for path in every_path(sample):
        yield json.dumps(_changed(sample, path)).encode()
        for replacement in REPLACEMENTS:
            yield json.dumps(_changed(sample, path, [replacement])).encode()


def _changed(sample: JsonValue, path: tuple[str | int, ...], replacement: list[JsonValue] | None = None) -> JsonValue:
    """A copy of the sample with what is at the path replaced, or removed."""
    copied = copy.deepcopy(sample)
    parent: Any = copied
    for key in path[:-1]:
        parent = parent[key]
    if replacement is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = replacement[0]
    return copied


def _flipped(value: bytes, step: int = 1) -> Iterator[bytes]:
    for index in range(0, len(value), step):
        yield value[:index] + bytes([value[index] ^ (1 << index % 8)]) + value[index + 1 :]


def _flipped_headers(headers: list[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    for index, (name, value) in enumerate(headers):
        for changed in _flipped(value):
            yield [*headers[:index], (name, changed), *headers[index + 1 :]]


def _words(provider: Provider) -> tuple[st.SearchStrategy[str], st.SearchStrategy[JsonValue]]:
    keys: set[str] = set()
    leaves: list[JsonValue] = []
    for sample in samples_of(provider):
        body: Any = json.loads(sample.body)
        for path in every_path(body):
            found = body
            for key in path:
                found = found[key]
            keys.update(key for key in path if isinstance(key, str))
            if not isinstance(found, dict | list) and found not in leaves:
                leaves.append(found)
    return st.sampled_from(sorted(keys)), st.sampled_from(leaves)
