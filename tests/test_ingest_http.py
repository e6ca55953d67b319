"""The door as HTTP: malformed, oversized, slow and odd requests; nothing of them is a 5xx or a traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from ingest.protocol import Limits
from tests.ingesting import DEADLINE_S, SETTINGS, Ingest, ingesting, received, request, signed, statuses
from tests.waiting import until

BODY = b'{"event": "call.ended", "data": {"call_id": "c-http"}}'
PATH = "/webhooks/aisync"
MIB = 1024 * 1024
SHORT = "dict(headers_s=0.4, body_s=0.4, idle_s=0.6, sweep_s=0.05, write_s=0.5)"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    with ingesting(tmp_path_factory.mktemp("door"), "max_body_mib = 1\n" + SETTINGS) as ingest:
        yield ingest
        assert not [line for line in ingest.lines if "Traceback" in json.dumps(line) or line.get("level") == "error"]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    """A door whose deadlines are a fraction of a second."""
    with ingesting(tmp_path_factory.mktemp("hasty"), limits=SHORT) as ingest:
        yield ingest


MALFORMED = {
    "length beside chunked": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two different lengths": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "signed length": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
    "negative length": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc",
    "hexadecimal length": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc",
    "overlong length": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
    "chunked, identity": b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "xchunked": b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "tabbed chunked": b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "garbage after a chunk": b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabcXX\r\n0\r\n\r\n",
    "bad chunk size": b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "line feeds only": b"POST %b HTTP/1.1\nHost: x\nContent-Length: 3\n\nabc",
    "folded header": b"POST %b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n  2\r\nContent-Length: 3\r\n\r\nabc",
    "NUL in a value": b"POST %b HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\nContent-Length: 3\r\n\r\nabc",
    "bare CR in a value": b"POST %b HTTP/1.1\r\nHost: x\r\nX-A: a\rb\r\nContent-Length: 3\r\n\r\nabc",
    "space before the colon": b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
    "no Host": b"POST %b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    "two Hosts": b"POST %b HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "NUL in the target": b"POST /webhooks/\x00 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "WebSocket": b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET %b\r\n\r\n",
    "noise": b"hello there, is this a door?\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http_is_answered_400_and_closed(door: Ingest, name: str) -> None:
    """What is not one clear HTTP/1.1 request is refused as such, whole, and the connection ends."""
    answer = door.send(MALFORMED[name].replace(b"%b", PATH.encode()))
    assert statuses(answer) == [400], answer
    assert b"connection: close" in answer.lower()
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error", "message"}


def test_a_target_over_4_kib_is_answered_414(door: Ingest) -> None:
    """The address has its own limit."""
    assert statuses(door.send(request(PATH + "?" + "a" * 5000, BODY))) == [414]
    assert statuses(door.send(request("/" + "a" * 100_000, BODY))) == [414]


@pytest.mark.parametrize(
    "headers", [{"X-Long": "a" * 17_000}, {"X-Long": "a" * 100_000}, {f"X-{n}": "a" for n in range(101)}]
)
def test_heads_over_16_kib_or_100_headers_are_answered_431(door: Ingest, headers: dict[str, str]) -> None:
    """In one packet or in many."""
    raw = request(PATH, BODY, headers)
    assert statuses(door.send(raw)) == [431]
    assert statuses(door.send(*(raw[at : at + 4000] for at in range(0, len(raw), 4000)))) == [431]


def test_a_head_that_never_ends_is_answered_431_before_it_ends(door: Ingest) -> None:
    """A header line without end is not collected without bound."""
    with door.connect() as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nX-Endless: " % PATH.encode())
        with suppress(OSError):
            for _ in range(200):
                connection.sendall(b"a" * 4096)
        assert statuses(received(connection)) == [431]


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/unknown",
        "/webhooks/../webhooks/aisync",
        "/webhooks/%61isync",
        "//webhooks/aisync",
        "/webhooks/aisync/",
        "/webhooks/aisync%00",
        "http://test/webhooks/aisync",
        "/webhooks/AISYNC",
        "/webhooks",
        "/",
        "/webhooks/aisync;a",
    ],
)
def test_any_address_but_the_exact_one_is_404(door: Ingest, path: str) -> None:
    """No decoding, no cleaning up: a source has one address."""
    answer = door.send(request(path, BODY, {**signed("aisync", BODY), "Connection": "close"}))
    assert statuses(answer) == [404], answer


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_405_with_what_is_allowed(door: Ingest, method: str) -> None:
    """Only GET and POST are answered at a source."""
    answer = httpx.request(method, f"{door.url}{PATH}")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"


def test_a_get_and_an_empty_post_answer_200_and_store_nothing(door: Ingest) -> None:
    """Platforms probe an address when it is saved."""
    before = len(door.deliveries())
    assert httpx.get(f"{door.url}{PATH}").status_code == 200
    assert door.post("aisync", b"").status_code == 200
    assert statuses(door.send(b"POST %b HTTP/1.0\r\n\r\n" % PATH.encode())) == [200]
    assert len(door.deliveries()) == before


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "GZIP", "identity, gzip", "x"])
def test_a_compressed_body_is_answered_415(door: Ingest, encoding: str) -> None:
    """Nothing is inflated, however well it is signed."""
    answer = door.post("aisync", BODY, {**signed("aisync", BODY), "Content-Encoding": encoding})
    assert answer.status_code == 415
    assert answer.json()["error"] == "compressed_body"


def test_a_declared_giant_is_answered_413_before_it_is_sent(door: Ingest) -> None:
    """The declaration is enough; nothing of the body is waited for."""
    answer = door.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n" % PATH.encode())
    assert statuses(answer) == [413]
    assert b"connection: close" in answer.lower()


def test_a_sender_that_keeps_sending_still_reads_its_413(door: Ingest) -> None:
    """Closing at once would reset the connection, and the sender would never know why."""
    answer = door.post("aisync", b"x" * (3 * MIB))
    assert answer.status_code == 413
    assert answer.json()["error"] == "too_large"
    until(lambda: any(notice.reason == "too_large" and notice.bytes >= MIB for notice in door.notices()))


def test_chunks_without_end_are_answered_413_at_the_limit(door: Ingest) -> None:
    """What is not declared is counted."""
    with door.connect() as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode())
        chunk = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
        with suppress(OSError):
            for _ in range(100):
                connection.sendall(chunk)
        assert statuses(received(connection)) == [413]


def test_the_order_of_checks_is_that_of_the_contract(door: Ingest) -> None:
    """405 before 415 before 413 before 401."""
    gzip = {"Content-Encoding": "gzip"}
    assert httpx.put(f"{door.url}{PATH}", content=b"x" * 2 * MIB, headers=gzip).status_code == 405
    assert door.post("aisync", b"x" * 2 * MIB, gzip).status_code == 415
    assert door.post("nobody", b"x" * 2 * MIB, gzip).status_code == 404
    assert httpx.options(f"{door.url}/webhooks/nobody").status_code == 404
    assert door.post("aisync", b"x" * 2 * MIB).status_code == 413
    assert door.post("aisync", b"x").status_code == 401


def test_a_chunked_body_is_as_good_as_one_with_a_length(door: Ingest) -> None:
    """The signature is over the bytes, however they were framed."""
    body = BODY.replace(b"c-http", b"c-chunked")
    head = "".join(f"{name}: {value}\r\n" for name, value in signed("aisync", body).items()).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, bytes([byte])) for byte in body)
    answer = door.send(
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n%b\r\n%b0\r\n\r\n"
        % (PATH.encode(), head, chunks)
    )
    assert statuses(answer) == [200]


def test_pipelined_requests_are_answered_in_order(door: Ingest) -> None:
    """Two at once, three in one packet, the malformed one last: each in its turn."""
    first, second = (BODY.replace(b"c-http", name) for name in (b"c-first", b"c-second"))
    raw = [request(PATH, body, signed("aisync", body)) for body in (first, second)]
    answer = door.send(raw[0] + request(PATH, b"{}") + raw[1] + MALFORMED["no Host"].replace(b"%b", PATH.encode()))
    assert statuses(answer) == [200, 401, 200, 400], answer


def test_expect_100_continue_is_answered_and_then_the_request(door: Ingest) -> None:
    """Senders of large bodies ask first."""
    body = BODY.replace(b"c-http", b"c-expect")
    with door.connect() as connection:
        head = request(PATH, body, {**signed("aisync", body), "Expect": "100-continue", "Connection": "close"})
        connection.sendall(head[: -len(body)])
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert statuses(received(connection)) == [200]


def test_an_offer_of_http2_is_declined_by_answering(door: Ingest) -> None:
    """Some clients offer it with every request; the webhook counts all the same."""
    body = BODY.replace(b"c-http", b"c-h2c")
    headers = {
        **signed("aisync", body),
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AA",
    }
    assert statuses(door.send(request(PATH, body, headers))) == [200]


def test_a_sender_that_closes_its_half_still_gets_its_answer(door: Ingest) -> None:
    """It has said all it wants to say, and listens."""
    body = BODY.replace(b"c-http", b"c-half")
    with door.connect() as connection:
        connection.sendall(request(PATH, body, signed("aisync", body)))
        connection.shutdown(socket.SHUT_WR)
        assert statuses(received(connection)) == [200]


def test_a_disconnect_within_the_body_stores_nothing(door: Ingest) -> None:
    """Half a body is no delivery, and no noise either."""
    before, lines = len(door.deliveries()), len(door.lines)
    body = BODY.replace(b"c-http", b"c-lost")
    with door.connect() as connection:
        connection.sendall(request(PATH, body, signed("aisync", body))[:-5])
    assert httpx.get(f"{door.url}/healthz").status_code == 200
    assert (len(door.deliveries()), len(door.lines)) == (before, lines)


def test_bytes_beyond_ascii_in_headers_are_no_error(door: Ingest) -> None:
    """They are kept as they came, or refused as a signature."""
    body = BODY.replace(b"c-http", b"c-latin")
    good = request(PATH, body, {**signed("aisync", body), "User-Agent": "caf\xe9", "Connection": "close"})
    assert statuses(door.send(good)) == [200]
    bad = request(PATH, BODY, {"X-Webhook-Signature": "\xff" * 64, "Connection": "close"})
    assert statuses(door.send(bad)) == [401]


def test_health_is_answered_by_get_and_head(door: Ingest) -> None:
    """What a load balancer asks."""
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(door.url + path).status_code == 200
        assert httpx.head(door.url + path).status_code == 200
    assert httpx.post(door.url + "/healthz").status_code == 405


def test_metrics_count_what_came(door: Ingest) -> None:
    """By source, verdict and reason, in Prometheus' format."""
    door.post("callsync", b"{}")
    text = httpx.get(f"{door.url}/metrics").text
    assert 'calltally_webhooks_total{reason="signature_missing",source="callsync",verdict="refused"} 1.0' in text
    assert "calltally_journal_up 1.0" in text


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"POST /webhooks/aisync HT", [408]),
        (b"POST /webhooks/aisync HTTP/1.1\r\nHost: x\r\n", [408]),
        (request(PATH, BODY)[:-3], [408]),
        (b"POST /webhooks/aisync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", [408]),
        (b"", []),
        (b"\r\n\r\n", []),
    ],
    ids=["request line", "headers", "body", "chunk", "silence", "empty lines"],
)
def test_a_request_that_does_not_come_in_time_is_closed(hasty: Ingest, sent: bytes, expected: list[int]) -> None:
    """408 for a part of a request; who never said anything is just closed."""
    assert statuses(hasty.send(sent)) == expected


def test_the_deadlines_and_sizes_are_those_that_are_promised() -> None:
    """The tests of deadlines set short ones of their own; these hold where nobody sets any."""
    promised = Limits()
    assert (promised.headers_s, promised.body_s, promised.body_s_per_mib, promised.idle_s) == (5, 10, 1, 75)
    assert (promised.target_bytes, promised.headers_bytes, promised.headers_count) == (4 * 1024, 16 * 1024, 100)


def test_dripping_bytes_does_not_move_the_deadline(hasty: Ingest) -> None:
    """Deadlines are absolute: a byte now and then buys nothing."""
    with hasty.connect() as connection:
        connection.settimeout(0.02)
        answer = b""
        for byte in b"POST /webhooks/aisync HTTP/1.1\r\nHost: x\r\nX-Drip: " + b"a" * 2000:
            try:
                connection.sendall(bytes([byte]))
                answer = connection.recv(1000)
                break
            except TimeoutError:
                continue
        connection.settimeout(DEADLINE_S)
        assert statuses(answer + received(connection)) == [408]


def test_an_idle_connection_is_kept_and_then_closed(hasty: Ingest) -> None:
    """It takes the next request, and ends in silence when none comes."""
    with hasty.connect() as connection:
        for number in (b"1", b"2"):
            body = BODY.replace(b"c-http", b"c-idle-" + number)
            connection.sendall(request(PATH, body, signed("aisync", body)))
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert received(connection) == b""


def test_slow_clients_do_not_disturb_honest_ones(hasty: Ingest) -> None:
    """While three hundred of them hold connections, a webhook is taken as ever."""
    slow = [hasty.connect() for _ in range(300)]
    for connection in slow:
        connection.sendall(b"POST /webhooks/aisync HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    body = BODY.replace(b"c-http", b"c-honest")
    assert hasty.post_signed("aisync", body).status_code == 200
    assert [statuses(received(connection)) for connection in slow] == [[408]] * 300
    for connection in slow:
        connection.close()


def test_who_never_reads_the_answers_is_cut_off(hasty: Ingest) -> None:
    """Answers that nobody reads are not kept in memory for ever."""
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.2)
        asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50
        with suppress(OSError):
            for _ in range(1000):
                connection.sendall(asked)
        until(lambda: "calltally_connections 1.0" in httpx.get(f"{hasty.url}/metrics").text)
