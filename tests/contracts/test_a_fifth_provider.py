"""A platform that Calltally does not know is added as one module and its samples, with no edit anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import calls.providers
from analytics.selection import sends
from calls.errors import SignatureRejected
from calls.model import Analysis, Appointment, Rules, Trust
from calls.provider import Provider, discover, named
from calls.signing import sign, verify
from streams.fold import fold
from tests.contracts.samples import delivery_of, meaning, samples_of
from tests.storing import event_of

NAME = "parrotline"

MODULE = '''
"""Parrotline, a made-up platform: the time stands inside the signature header, in milliseconds."""

from calls.errors import PayloadMalformed
from calls.model import CallEvent, Connection, Delivery, Stage, Trust
from calls.provider import Provider
from calls.reading import call_times, identifier, instant, known, number, section, text, word
from calls.signing import Encoding, Part, Scheme


def normalise(delivery: Delivery) -> list[CallEvent]:
    body = delivery.payload.value
    call = section(body, "call")
    call_id = identifier(call, "id")
    if call_id is None:
        raise PayloadMalformed("A call has no id.", code="no_call_id")
    event = word(body, "kind") or "unknown"
    ended = event == "ended"
    minutes = number(call, "minutes")
    duration = minutes * 60 if minutes is not None and 0 <= minutes <= 1440 else None
    started_at, ended_at, duration = call_times(instant(call, "started_ms"), None, duration)
    happened_at = instant(body, "sent_ms")
    return [
        CallEvent(
            event=event,
            call_id=call_id,
            org=delivery.org,
            happened_at=delivery.received_at if happened_at is None else happened_at,
            stage=Stage.FINISHED if ended else Stage.PROGRESS,
            facts=known(
                connection=Connection.PERSON if ended else None,
                started_at=started_at,
                ended_at=ended_at,
                duration_s=duration,
                summary=text(call, "summary"),
            ),
        )
    ]


provider = Provider(
    name="parrotline",
    title="Parrotline",
    docs_url="https://parrotline.example/webhooks",
    scheme=Scheme(
        headers=("x-parrotline-signature",),
        signed=(Part.BODY, Part.TIMESTAMP),
        encoding=Encoding.BASE64,
        forms=("v={timestamp};mac={signature}",),
        timestamps_per_second=1000,
        tolerance_s=60,
        algorithm="sha512",
        trust=Trust.A,
    ),
    normalise=normalise,
    events=frozenset({"started", "ended"}),
    sends=frozenset({"connection", "started_at", "ended_at", "duration_s", "summary"}),
    judges=True,
    connect="Paste `{url}` into **Hooks**.",
)
'''

STARTED = {"kind": "started", "sent_ms": 1779000000500, "call": {"id": 5, "started_ms": 1779000000000}}
ENDED = {
    "kind": "ended",
    "sent_ms": "1779000091000",
    "call": {"id": 5, "started_ms": 1779000000000, "minutes": 1.5, "summary": "Squawk."},
}
SAMPLES: dict[str, tuple[object, object]] = {
    "started": (
        STARTED,
        [
            {
                "event": "started",
                "call_id": "5",
                "org": "",
                "happened_at": "2026-05-17T06:40:00.500000Z",
                "stage": "progress",
                "facts": {"started_at": "2026-05-17T06:40:00Z"},
            }
        ],
    ),
    "ended": (
        ENDED,
        [
            {
                "event": "ended",
                "call_id": "5",
                "org": "",
                "happened_at": "2026-05-17T06:41:31Z",
                "stage": "finished",
                "facts": {
                    "connection": "person",
                    "started_at": "2026-05-17T06:40:00Z",
                    "ended_at": "2026-05-17T06:41:30Z",
                    "duration_s": 90.0,
                    "summary": "Squawk.",
                },
            }
        ],
    ),
    "ended.without-id": ({"kind": "ended", "call": {}}, {"dead_letter": "no_call_id"}),
}
VECTOR = {
    "about": "Computed with OpenSSL: printf '%s' '{}1779000000000' | openssl dgst -sha512 -hmac perch -binary | base64",
    "secret": "perch",
    "timestamp": 1779000000,
    "body": "{}",
    "headers": {
        "x-parrotline-signature": "v=1779000000000;mac="
        "LOcJVAX2IQXodYq8Jkh5nTPdan+WtmhSRQo2rgmd/pNZZw/D0i4MMgmudZtxg+oWlEcMaSkeZRySeki5XSkylQ=="
    },
}

GOAL_MET: Analysis = {"criterion": "goal", "result": "true", "feedback": None}
GOAL_MISSED: Analysis = {"criterion": "goal", "result": "false", "feedback": None}
BOOKING: Appointment = {
    "starts_at": 1_779_000_000_000_000,
    "ends_at": None,
    "service": None,
    "caller_name": None,
    "caller_phone": None,
    "calendar_event_id": None,
    "link": None,
}
CONTRACT = Path(__file__).with_name("test_every_provider.py")
RUN_THE_CONTRACT = """
import sys, calls.providers, pytest
calls.providers.__path__.append(sys.argv[1])
sys.exit(pytest.main(["-v", "-p", "no:cacheprovider", sys.argv[2], "-k", sys.argv[3]]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module and the samples of a platform nobody here has heard of."""
    samples = tmp_path / "samples" / NAME
    samples.mkdir(parents=True)
    (tmp_path / f"{NAME}.py").write_text(MODULE)
    for name, (body, expected) in SAMPLES.items():
        (samples / f"{name}.json").write_text(json.dumps(body))
        (samples / f"{name}.expected.json").write_text(json.dumps(expected))
    (samples / "vector.json").write_text(json.dumps(VECTOR))
    return tmp_path


@pytest.fixture
def fifth(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """The new platform, found by the same walk as all others; forgotten afterwards."""
    monkeypatch.setattr(calls.providers, "__path__", [*calls.providers.__path__, str(folder)])
    discover.cache_clear()
    yield named(NAME)
    monkeypatch.undo()
    discover.cache_clear()
    sys.modules.pop(f"{calls.providers.__name__}.{NAME}", None)


def test_it_is_found_beside_the_others(fifth: Provider) -> None:
    """Discovery lists it in order with those that were there, by the name of its module."""
    assert fifth.title == "Parrotline"
    assert NAME in discover()
    assert {"aisync", "callsync", "inboundflow", "synthflow"} < set(discover())
    assert list(discover()) == sorted(discover())


def test_it_verifies_by_its_own_scheme(fifth: Provider) -> None:
    """A time inside the header, milliseconds, base64 and SHA-512 are all data."""
    headers = sign(fifth.scheme, "perch", b"{}", now_s=1_779_000_000)
    assert headers == VECTOR["headers"]
    arrived = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert verify(fifth.scheme, ("perch",), arrived, b"{}", now_s=1_779_000_060) == (Trust.A, 0)
    with pytest.raises(SignatureRejected, match="61 s old"):
        verify(fifth.scheme, ("perch",), arrived, b"{}", now_s=1_779_000_061)


def test_it_normalises_its_samples(fifth: Provider) -> None:
    """Its bodies become events of our vocabulary, and what it cannot understand a dead letter."""
    assert {sample.name for sample in samples_of(fifth)} == set(SAMPLES)
    for body, expected in SAMPLES.values():
        assert meaning(delivery_of(fifth, json.dumps(body).encode()), fifth) == expected


def test_its_own_judge_decides_its_results(fifth: Provider) -> None:
    """By data of its module: neither the fold nor the metrics know a platform by name."""
    timed = msgspec.structs.replace(event_of(1, "c1", analysis=[GOAL_MET], appointments=[BOOKING]), provider=NAME)
    assert fold([timed], Rules())["result"] == "met"
    missed = msgspec.structs.replace(timed, event=msgspec.structs.replace(timed.event, analysis=[GOAL_MISSED]))
    assert fold([missed], Rules())["result"] == "not_met"
    assert fold([msgspec.structs.replace(missed, provider="aisync")], Rules())["result"] == "met"
    assert sends(NAME, "result")


def test_it_is_forgotten_again() -> None:
    """Nothing of it stays behind for other tests."""
    assert NAME not in discover()


def test_it_is_held_to_the_same_contract(folder: Path) -> None:
    """The unedited contract suite enumerates it and passes."""
    run = _contract_run(folder)
    assert run.returncode == 0, run.stdout + run.stderr
    for test in re.findall(r"^def (test_\w+)", CONTRACT.read_text(), re.MULTILINE):
        assert f"{test}[{NAME}" in run.stdout
    assert (
        f"{CONTRACT.name}::test_a_sample_means_exactly_what_is_expected[{NAME}/ended.without-id] PASSED" in run.stdout
    )


def test_the_contract_notices_a_wrong_expectation(folder: Path) -> None:
    """The suite fails for a new provider whose event does not mean what its expected file says."""
    path = folder / "samples" / NAME / "ended.expected.json"
    path.write_text(path.read_text().replace("90.0", "91.0"))
    run = _contract_run(folder, "test_a_sample_means_exactly_what_is_expected")
    assert run.returncode == 1
    assert f"test_a_sample_means_exactly_what_is_expected[{NAME}/ended]" in run.stdout
    assert "1 failed" in run.stdout


def _contract_run(folder: Path, test: str = "test") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-c", RUN_THE_CONTRACT, str(folder), str(CONTRACT), f"{test} and {NAME}"],
        cwd=CONTRACT.parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
