"""What a live call is told: what the store knows of the caller, if who asks is trusted and the store is quick."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from analytics.store import Store
from calls.inbound_call import InboundCall
from calls.model import Rules
from calls.source import Source
from ingest.gate import Counts, Gate
from ingest.inbound import InboundAnswers, Known
from tests.ingesting import DEADLINE_S, Ingest, ingesting, signed
from tests.serving import TOKEN, serving
from tests.storing import new_calls

SECRET = "a secret of tests"
INBOUND_TOKEN = "a token for the address"
CALLER = "+12137771234"
SAFE_ANSWER = {"call_inbound": {"override_model_id": ""}}
ASKED = json.dumps({"event": "call_inbound", "call_inbound": {"from_number": CALLER, "to_number": "+1"}}).encode()


def settings(sql_url: str) -> str:
    return f"""
sql_url = "{sql_url}"
sql_token = "{TOKEN}"
[sources.acme]
provider = "aisync"
org = "acme"
secrets = ["{SECRET}"]
inbound_token = "{INBOUND_TOKEN}"
[sources.other]
provider = "aisync"
org = "other"
secrets = ["{SECRET} too"]
inbound_token = "{INBOUND_TOKEN}"
"""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    store = Store.open(tmp_path_factory.mktemp("store") / "store.duckdb", rules=Rules())
    store.apply(new_calls([1, 2], caller_phone=CALLER, caller_name="Ada", result="met", summary="Wants a quote."))
    with serving(store) as server, ingesting(tmp_path_factory.mktemp("door"), settings(server.url)) as ingest:
        yield ingest
    store.close()


def test_the_addresss_token_opens_what_is_known_of_a_caller(door: Ingest) -> None:
    """As texts, for the agent to use."""
    answer = door.post(f"acme?token={INBOUND_TOKEN.replace(' ', '%20')}", ASKED).json()
    known = answer["call_inbound"]["custom_variables"]
    assert answer["call_inbound"]["override_model_id"] == ""
    assert (known["known_caller"], known["caller_name"], known["calls_before"]) == ("true", "Ada", "2")
    assert (known["last_result"], known["last_summary"]) == ("met", "Wants a quote.")
    assert known["last_call_at"].endswith("Z")


def test_a_signed_call_id_opens_it_too(door: Ingest) -> None:
    """The documents say that these requests are signed; only with an id is there something to sign."""
    body = json.dumps({**json.loads(ASKED), "call_id": "c-1"}).encode()
    answer = door.post("acme", body, signed("aisync", body, secret=SECRET)).json()
    assert answer["call_inbound"]["custom_variables"]["caller_name"] == "Ada"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("acme", {}),
        ("acme?token=wrong", {}),
        ("acme?token=", {}),
        ("acme?token=%ff%fe", {}),
        ("acme", {"X-Webhook-Signature": "0" * 64}),
    ],
)
def test_anyone_else_gets_the_safe_answer(door: Ingest, path: str, headers: dict[str, str]) -> None:
    """A stranger learns nothing of a caller, and no call is dropped."""
    assert door.post(path, ASKED, headers).json() == SAFE_ANSWER


def test_another_client_of_the_same_agency_learns_nothing(door: Ingest) -> None:
    """What is known of a caller stays within the org."""
    answer = door.post(f"other?token={INBOUND_TOKEN.replace(' ', '%20')}", ASKED).json()
    assert answer["call_inbound"]["custom_variables"] == {"known_caller": "false"}


def test_a_store_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A worker that hangs, or none at all: the safe answer, and the log says why."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with ingesting(tmp_path, settings(f"http://127.0.0.1:{port}")) as ingest:
            path = f"acme?token={INBOUND_TOKEN.replace(' ', '%20')}"
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: ingest.post(path, ASKED).json(), range(8)))
            assert answers == [SAFE_ANSWER] * 8
            assert ingest.events("inbound_look_up")


def test_a_look_up_that_hangs_is_answered_for_within_two_seconds() -> None:
    """Whatever the store does: that is what is promised, and the platform's own patience is not documented."""
    released = threading.Event()

    def hang(_gate: Gate, _phone: str) -> Known:
        released.wait(DEADLINE_S)
        return {"known_caller": "true"}

    gate = Gate(Source(name="synthflow", provider="synthflow"), Counts(), inboundflow_tolerance_s=300)
    answers = InboundAnswers(hang)
    asked_at = time.monotonic()
    try:
        answer = asyncio.run(answers.answer(gate, InboundCall(from_number=CALLER)))
        waited_s = time.monotonic() - asked_at
    finally:
        released.set()
        answers.close()
    assert json.loads(answer) == SAFE_ANSWER
    assert waited_s < 2
