"""The door in trouble: a journal that cannot be written, a full disk, a killed process, a stop under load."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx

from calls.model import delivery_id
from tests.ingesting import DEADLINE_S, Ingest, ingesting, signed
from tests.waiting import until

SAFE_ANSWER = {"call_inbound": {"override_model_id": ""}}
PADDING = "x" * 20_000


def body_of(number: int, padding: str = "") -> bytes:
    return b'{"event": "call.ended", "data": {"call_id": "c-%d", "transcript": "%b"}}' % (number, padding.encode())


def post(ingest: Ingest, client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post(f"{ingest.url}/webhooks/aisync", content=body, headers=signed("aisync", body))


def test_a_journal_that_cannot_be_written_is_answered_503_and_shown(tmp_path: Path) -> None:
    """Senders are told to come back, health turns red, live calls are answered, and all is well again afterwards."""
    with ingesting(tmp_path) as ingest:
        assert ingest.post_signed("aisync", body_of(1)).status_code == 200
        (tmp_path / "data").rename(tmp_path / "gone")
        answer = ingest.post_signed("aisync", body_of(2))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"] == "journal_unavailable"
        ready = httpx.get(f"{ingest.url}/readyz")
        assert (ready.status_code, ready.json()["error"]) == (503, "journal_unavailable")
        assert httpx.get(f"{ingest.url}/healthz").status_code == 200
        assert "calltally_journal_up 0.0" in httpx.get(f"{ingest.url}/metrics").text
        assert ingest.post("synthflow", b'{"event":"call_inbound"}').json() == SAFE_ANSWER
        assert ingest.post("aisync", b"forged").status_code == 401
        (tmp_path / "gone").rename(tmp_path / "data")
        until(lambda: httpx.get(f"{ingest.url}/readyz").status_code == 200)
        assert ingest.post_signed("aisync", body_of(2)).status_code == 200
        assert {delivery.body for delivery in ingest.deliveries()} == {body_of(1), body_of(2)}


def test_on_a_full_disk_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Every 200 before, between and after is in the journal; a live call is answered all the same."""
    acknowledged, refused = set(), 0
    with ingesting(tmp_path, file_bytes=1_000_000) as ingest, httpx.Client() as client:
        for number in range(100):
            answer = post(ingest, client, body_of(number, PADDING))
            assert answer.status_code in {200, 503}, answer.text
            if answer.status_code == 200:
                acknowledged.add(answer.json()["id"])
            else:
                refused += 1
        assert refused > 0
        assert ingest.post("synthflow", b'{"event":"call_inbound"}').json() == SAFE_ANSWER
    assert acknowledged
    assert acknowledged <= {delivery.id for delivery in ingest.deliveries()}


def test_without_file_handles_connections_that_are_open_go_on(tmp_path: Path) -> None:
    """Strangers take them all: who is connected is answered, and whoever comes is once the strangers are cut off."""
    with ingesting(tmp_path) as ingest, httpx.Client() as client, ExitStack() as strangers:
        assert post(ingest, client, body_of(1)).status_code == 200
        used = len(os.listdir(f"/proc/{ingest.process.pid}/fd"))
        resource.prlimit(ingest.process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
        for _ in range(40):
            strangers.enter_context(ingest.connect())
        until(lambda: len(os.listdir(f"/proc/{ingest.process.pid}/fd")) >= used + 10)
        for number in range(2, 40):
            assert post(ingest, client, body_of(number)).status_code == 200

        def taken() -> bool:
            # Without a handle a new connection is closed at once.
            with suppress(httpx.TransportError):
                return ingest.post_signed("aisync", body_of(40)).status_code == 200
            return False

        until(taken)
        assert len(ingest.deliveries()) == 40


def test_a_killed_process_has_kept_all_it_acknowledged(tmp_path: Path) -> None:
    """SIGKILL while eight senders are at it."""
    with ingesting(tmp_path) as ingest:
        acknowledged = _send_until_it_ends(ingest, stop=ingest.process.kill)
    with ingesting(tmp_path) as ingest:
        assert acknowledged <= {delivery.id for delivery in ingest.deliveries()}
        assert ingest.post_signed("aisync", body_of(0)).status_code == 200


def test_a_stop_under_load_answers_what_it_took_and_exits_0(tmp_path: Path) -> None:
    """SIGTERM while eight senders are at it: each request is answered or was never begun."""
    with ingesting(tmp_path) as ingest:
        acknowledged = _send_until_it_ends(ingest, stop=ingest.process.terminate)
        assert ingest.process.wait(DEADLINE_S) == 0
        assert acknowledged == {delivery.id for delivery in ingest.deliveries()}
        assert ingest.events("stopped")
        assert not [line for line in ingest.lines if line["level"] in {"error", "critical"}]


def test_an_idle_connection_is_told_to_close_before_a_stop(tmp_path: Path) -> None:
    """A kept connection that sends while ingest stops is answered, with `Connection: close`."""
    with ingesting(tmp_path) as ingest, closing(HTTPConnection("127.0.0.1", ingest.port, timeout=20)) as connection:
        statuses = []

        def closes() -> bool:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            return answer.will_close

        assert not closes()
        ingest.process.terminate()
        until(closes)
        assert set(statuses) == {200}
        assert ingest.process.wait(DEADLINE_S) == 0


def _send_until_it_ends(ingest: Ingest, *, stop: object) -> set[str]:
    """Post from eight threads, stop ingest in the midst; the ids that were acknowledged."""
    assert callable(stop)
    acknowledged: set[str] = set()

    def send(thread: int) -> None:
        with httpx.Client() as client:
            for number in range(thread, 1_000_000, 8):
                body = body_of(number)
                try:
                    answer = post(ingest, client, body)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged.add(delivery_id("aisync", body))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 200)
    stop()
    for thread in threads:
        thread.join(DEADLINE_S)
    return acknowledged
