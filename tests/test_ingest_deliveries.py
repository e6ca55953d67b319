"""The door as judge: what is accepted, repeated, refused, quarantined, and what is said about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from calls.model import Trust, Verdict
from ingest.quarantine import held_in
from tests.ingesting import SECRET, SETTINGS, Ingest, bodies, ingesting, signed
from tests.waiting import until

PROVIDERS = ("aisync", "callsync", "inboundflow", "synthflow")
OTHER_SECRET = "the secret of another source"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    more = f'[sources.acme]\nprovider = "aisync"\norg = "acme"\nsecrets = ["{OTHER_SECRET}"]\n'
    with ingesting(tmp_path_factory.mktemp("door"), SETTINGS + more) as ingest:
        yield ingest
        told = json.dumps(ingest.lines) + repr(ingest.notices())
        assert SECRET not in told
        assert OTHER_SECRET not in told
        assert not [line for line in ingest.lines if "Traceback" in json.dumps(line)]


def body_of(call_id: str, **more: object) -> bytes:
    return json.dumps({"event": "call.ended", "call": {"call_id": call_id}, **more}).encode()


def refusal(ingest: Ingest, body: bytes, source: str = "aisync") -> tuple[str | None, str]:
    """Reason and diagnosis with which a body was refused."""
    identity = hashlib.sha256(source.encode() + b"\0" + body).hexdigest()
    until(lambda: any(notice.id == identity for notice in ingest.notices()))
    notice = next(notice for notice in ingest.notices() if notice.id == identity)
    assert notice.verdict is Verdict.REFUSED
    return notice.reason, notice.detail or ""


@pytest.mark.parametrize(
    ("provider", "trust"),
    [("inboundflow", Trust.A), ("aisync", Trust.B), ("callsync", Trust.B), ("synthflow", Trust.C)],
)
def test_a_signed_delivery_is_durable_when_it_is_answered(door: Ingest, provider: str, trust: Trust) -> None:
    """The answer names the id, and the journal holds the bytes as they came, with their grade of trust."""
    body = body_of(f"c-durable-{provider}")
    answer = door.post_signed(provider, body)
    found = next(delivery for delivery in door.deliveries() if delivery.body == body)
    assert answer.status_code == 200
    assert answer.json() == {"received": True, "id": hashlib.sha256(provider.encode() + b"\0" + body).hexdigest()}
    assert (found.source, found.provider, found.trust) == (provider, provider, trust)


def test_a_delivery_keeps_its_headers_but_no_signature(door: Ingest) -> None:
    """What could be replayed or leak is not stored."""
    body = body_of("c-headers")
    more = {"User-Agent": "Voice/1", "Content-Type": "text/odd", "Authorization": "Bearer x", "Cookie": "a=b"}
    door.post("inboundflow", body, {**signed("inboundflow", body), "X-InboundFlow-Delivery-Id": "d-1", **more})
    kept = next(delivery for delivery in door.deliveries() if delivery.body == body).headers
    assert kept["user-agent"] == "Voice/1"
    assert kept["content-type"] == "text/odd"
    assert kept["x-inboundflow-delivery-id"] == "d-1"
    assert not {name for name in kept if "signature" in name or name in {"authorization", "cookie"}}


def test_a_source_of_its_own_name_has_its_own_org_and_secret(door: Ingest) -> None:
    """An agency's second client."""
    body = body_of("c-acme")
    assert door.post_signed("acme", body, provider="aisync", secret=OTHER_SECRET).status_code == 200
    assert door.post_signed("acme", body_of("c-acme-2"), provider="aisync").status_code == 401
    assert next(delivery for delivery in door.deliveries() if delivery.body == body).org == "acme"


def test_a_repeated_delivery_is_answered_alike_and_stored_once(door: Ingest) -> None:
    """The second is a notice, a sign of life."""
    body = body_of("c-repeated")
    first, second = door.post_signed("aisync", body), door.post_signed("aisync", body)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert bodies(door.deliveries()).count(body) == 1
    until(lambda: any(notice.verdict is Verdict.REPEATED for notice in door.notices()))
    notice = next(notice for notice in door.notices() if notice.verdict is Verdict.REPEATED)
    assert (notice.id, notice.count, notice.reason) == (first.json()["id"], 1, None)


def test_equal_bodies_at_once_are_one_delivery_and_all_acknowledged(door: Ingest) -> None:
    """A hundred at the same moment: none is answered before the one is durable."""
    body = body_of("c-at-once")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: door.post_signed("aisync", body), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert bodies(door.deliveries()).count(body) == 1


def test_equal_bodies_of_two_sources_are_two_deliveries(door: Ingest) -> None:
    """Only what one source repeats is a repeat."""
    body = body_of("c-two-sources")
    assert door.post_signed("aisync", body).json()["id"] != door.post_signed("callsync", body).json()["id"]
    assert bodies(door.deliveries()).count(body) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"not JSON", b" ", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"a": NaN}', b'{"a": "\\ud800"}', b"{" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b'{"a": ' + b"9" * 5_000 + b"}", b'{"a": 1, "a": 2}', b'\xef\xbb\xbf{}',
        b'{"a": 18446744073709551616}', b'{"a": "\\u0000"}', b'{"call_id": "../../etc/passwd%s"}', b"{}",
    ],
)  # fmt: skip
def test_whatever_is_signed_is_stored_as_it_is(door: Ingest, body: bytes) -> None:
    """Not understanding a body is no reason to refuse it: it becomes a dead letter downstream."""
    assert door.post_signed("aisync", body).status_code == 200
    assert bodies(door.deliveries()).count(body) == 1


@pytest.mark.parametrize("size", [300_000, 5 * MIB])
def test_a_long_body_is_accepted(door: Ingest, size: int) -> None:
    """A long transcript is not refused."""
    body = body_of("c-long", transcript="a" * size)
    for source in ("synthflow", "inboundflow"):
        assert door.post_signed(source, body).status_code == 200
    assert bodies(door.deliveries()).count(body) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not JSON", "not_json"), (b"[]", "not_an_object"), (b'{"call": {}}', "call_id_missing"),
        (b'{"call": {"call_id": "a"}, "call_id": "b"}', "call_id_ambiguous"),
        (b'{"call": {"call_id": "a", "call_id": "b"}}', "call_id_ambiguous"),
        (b'{"call": {"call_id": null}}', "call_id_missing"), (b'{"call_id": ["a"]}', "call_id_missing"),
        (b'{"a":' * 5_000, "too_deep"), (b"\xff", "not_utf8"),
    ],
)  # fmt: skip
def test_a_synthflow_body_without_one_clear_id_cannot_be_verified(door: Ingest, body: bytes, code: str) -> None:
    """Only the id is signed, so without it nothing is: 401, and the quarantine."""
    headers = signed("synthflow", body_of("a"))
    answer = door.post("synthflow", body, headers)
    assert (answer.status_code, answer.json()["error"]) == (401, code)
    until(lambda: any(held.body == body for held in held_in(door.folder / "data" / "quarantine.sqlite", "synthflow")))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_changed_signature_is_refused_and_the_body_quarantined(door: Ingest, provider: str) -> None:
    """Any one character of it."""
    body = body_of(f"c-forged-{provider}")
    headers = signed(provider, body)
    name = next(name for name in headers if "signature" in name.lower())
    old = headers[name]
    headers[name] = old[:-5] + ("A" if old[-5] != "A" else "B") + old[-4:]
    answer = door.post(provider, body, headers)
    assert answer.status_code == 401
    assert answer.json()["error"] in {"signature_wrong", "signature_malformed"}
    until(lambda: any(held.body == body for held in held_in(door.folder / "data" / "quarantine.sqlite")))
    assert body not in bodies(door.deliveries())


def test_a_stale_timestamp_is_refused(door: Ingest) -> None:
    """InboundFlow signs the time, and five minutes are allowed."""
    body = body_of("c-stale")
    answer = door.post("inboundflow", body, signed("inboundflow", body, now_s=1_709_064_000))
    assert (answer.status_code, answer.json()["error"]) == (401, "timestamp_outside_window")


def test_a_stale_timestamp_is_not_said_to_be_another_mistake(door: Ingest) -> None:
    """The signature is right, so the unchanged body matches in every variation that a diagnosis tries."""
    body = b'{"event":"call.completed","data":{"call_id":"c-stale-and-right"}}'
    door.post("inboundflow", body, signed("inboundflow", body, now_s=1_709_064_000))
    detail = refusal(door, body, "inboundflow")[1]
    assert "It matches" not in detail
    assert detail.endswith("How much is allowed is the setting inboundflow_tolerance_s.")


def test_a_wrong_signature_names_the_setting_to_check(door: Ingest) -> None:
    """In log and notice, for whoever runs this; the sender is not told."""
    body = body_of("c-which-setting")
    answer = door.post_signed("aisync", body, secret="a-third-secret")
    where = "[sources.aisync] of calltally.toml (or CALLTALLY_SECRET_AISYNC)"
    assert where in refusal(door, body)[1]
    assert "aisync" not in answer.text


@pytest.mark.parametrize(
    ("sent", "was_signed", "hint"),
    [
        (b'{"a": 1,  "b": "\xc3\xa9"}', b'{"a":1,"b":"\xc3\xa9"}', "written anew as JSON"),
        (b'{"c":1}', b'{"c": 1}', "written anew as JSON"),
        (b'{"d":1}\n', b'{"d":1}', "without a line break"),
        (b'{"e":1}', b'{"e":1}\n', "with a line break"),
    ],
)
def test_a_diagnosis_names_what_changed_the_body(door: Ingest, sent: bytes, was_signed: bytes, hint: str) -> None:
    """It stays refused, but the log says what to look for."""
    assert door.post("aisync", sent, signed("aisync", was_signed)).status_code == 401
    reason, detail = refusal(door, sent)
    assert reason == "signature_wrong"
    assert hint in detail


def test_a_diagnosis_names_the_source_whose_secret_it_was(door: Ingest) -> None:
    """Two addresses swapped at the provider."""
    body = body_of("c-swapped")
    door.post_signed("aisync", body, secret=OTHER_SECRET)
    assert "matches the source 'acme'" in refusal(door, body)[1]


def test_a_diagnosis_names_the_platform_whose_signature_it_is(door: Ingest) -> None:
    """A source that was given the wrong provider."""
    body = body_of("c-platform")
    door.post("acme", body, signed("inboundflow", body, secret=OTHER_SECRET))
    reason, detail = refusal(door, body, "acme")
    assert reason == "signature_missing"
    assert "InboundFlow" in detail


def test_a_diagnosis_finds_blanks_around_a_secret(tmp_path: Path) -> None:
    """The most frequent mistake when pasting one."""
    with ingesting(tmp_path, f'[sources.aisync]\nsecrets = [" {SECRET} "]\n') as ingest:
        body = body_of("c-blanks")
        ingest.post_signed("aisync", body)
        assert "without the blanks around it" in refusal(ingest, body)[1]


@pytest.mark.parametrize("source", PROVIDERS)
@pytest.mark.parametrize(
    "body",
    [
        b'{"event":"call_inbound","call_inbound":{"model_id":"m","from_number":"+12137771234","to_number":"+12137771235"}}',
        b'{"call_inbound":{}, "event" : "call_inbound"}',
        b'{"event":"call\\u005finbound"}',
    ],
)
def test_a_waiting_call_is_answered_on_any_source_without_proof(door: Ingest, source: str, body: bytes) -> None:
    """The complete default, never {}; a notice, and no delivery."""
    answer = door.post(source, body)
    assert answer.status_code == 200
    assert answer.json() == {"call_inbound": {"override_model_id": ""}}
    assert body not in bodies(door.deliveries())
    until(lambda: any(notice.verdict is Verdict.INBOUND and notice.source == source for notice in door.notices()))


def test_a_waiting_call_at_an_unknown_source_is_404(door: Ingest) -> None:
    """There is nobody to answer for."""
    assert door.post("unknown", b'{"event":"call_inbound"}').status_code == 404


def test_what_a_stranger_sends_cannot_forge_a_log_line(door: Ingest) -> None:
    """Line breaks and escape sequences reach neither the log nor a notice as such."""
    httpx.post(door.url + "/webhooks/a%0d%0a%1b[31mforged", content=b"x")
    until(lambda: any("forged" in str(line) for line in door.lines))
    for line in door.lines:
        assert str(line.get("detail", "")).isprintable()
    assert all((notice.detail or "").isprintable() for notice in door.notices())


def test_a_flood_of_refusals_is_counted_in_full_but_told_in_few_lines(tmp_path: Path) -> None:
    """The first ones singly, the rest as one line and one notice with their count."""
    with ingesting(tmp_path) as ingest:
        with httpx.Client() as client:
            for number in range(200):
                client.post(f"{ingest.url}/webhooks/aisync", content=b"forged %d" % number)
        assert ingest.stop() == 0
        refused = [notice for notice in ingest.notices() if notice.reason == "signature_missing"]
        assert sum(notice.count for notice in refused) == 200
        assert len(refused) < 50
        assert sum(int(str(line["count"])) for line in ingest.events("refused")) == 200


def test_a_restart_remembers_what_was_seen(tmp_path: Path) -> None:
    """The memory of repeats is filled from the journal."""
    body = body_of("c-before")
    with ingesting(tmp_path) as ingest:
        before = ingest.post_signed("aisync", body).json()
    with ingesting(tmp_path) as ingest:
        assert ingest.post_signed("aisync", body).json() == before
        until(lambda: [notice.verdict for notice in ingest.notices()] == [Verdict.REPEATED])
        assert bodies(ingest.deliveries()) == [body]
