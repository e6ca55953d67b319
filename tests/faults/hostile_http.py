"""Hostile HTTP: requests that were right once and then mutated, sent to a real ingest, and what must hold afterwards.

`python -m tests.faults.hostile_http --count 1000000 --seed 1` is the long form. The seed gives the same requests again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.faults.platforms import SECRETS, Webhook, webhooks
from tests.ingesting import Ingest, ingesting

CONNECTIONS: Final = 48
ANSWER_S: Final = 20.0
"""Longer than every deadline of ingest: a connection that is still open then was forgotten."""
OWN_S: Final = 2.0
"""Shorter than ingest waits for the first byte."""
GENUINE_EVERY: Final = 50
"""So many hostile requests come between two honest ones."""
WARM: Final = 2_000
SETTINGS: Final = "max_body_mib = 1\n" + "".join(
    f'[sources.{name}]\nsecrets = ["{secret}"]\n' for name, secret in SECRETS.items()
)
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_ID = re.compile(rb'"id":\s*"([0-9a-f]{64})"')


@dataclass
class Outcome:
    """What came of a run."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """By status; `closed` where nothing was answered."""
    wrong: list[str] = field(default_factory=list)
    """Answers that must not be, each with what was sent."""
    acknowledged: set[str] = field(default_factory=set)
    genuine: dict[str, Webhook] = field(default_factory=dict)
    """Every webhook a platform could have sent, by the digest of its bytes."""
    calls: set[str] = field(default_factory=set)
    """Ids that Synthflow signed."""
    took_s: float = 0.0
    memory_mib: list[float] = field(default_factory=list)
    """Of ingest's process: when warm, and at the end."""


def run(folder: Path, *, seed: int, count: int, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Send `count` hostile requests, and honest ones between them; ingest's log must stay free of errors."""
    outcome = Outcome()
    with ingesting(folder, SETTINGS) as ingest:
        began = time.monotonic()
        asyncio.run(_send_all(ingest, Random(seed), count, outcome, say))
        outcome.took_s = time.monotonic() - began
        outcome.memory_mib.append(_memory_mib(ingest))
        assert ingest.process.poll() is None, "ingest died"
        assert ingest.stop() == 0
    told = [line for line in ingest.lines if line.get("level") in ("error", "critical") or "Traceback" in str(line)]
    outcome.wrong += [f"log: {line}" for line in told[:5]]
    outcome.wrong += list(_wrong_in_the_journal(folder / "data" / "journal.sqlite", outcome))
    return outcome


async def _send_all(ingest: Ingest, dice: Random, count: int, outcome: Outcome, say: Callable[[str], None]) -> None:
    traffic = webhooks(dice)
    turns = asyncio.Semaphore(CONNECTIONS)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            if number % GENUINE_EVERY == 0:
                webhook = _next_genuine(traffic, outcome)
                await turns.acquire()
                group.create_task(_exchange(ingest, _request(webhook), outcome, turns, must=200))
            await turns.acquire()
            webhook = _next_genuine(traffic, outcome)
            sent = _mutated(_request(webhook), dice)
            group.create_task(_exchange(ingest, sent, outcome, turns))
            if number == WARM:
                outcome.memory_mib.append(_memory_mib(ingest))
            if number % 50_000 == 49_999:
                say(f"{number + 1:,} sent, {dict(outcome.statuses)}, {len(outcome.wrong)} wrong")


def _next_genuine(traffic: Iterator[Webhook], outcome: Outcome) -> Webhook:
    for webhook in traffic:
        if webhook.kind in ("genuine", "unreadable"):
            outcome.genuine[webhook.digest] = webhook
            if webhook.source == "synthflow" and webhook.call is not None:
                outcome.calls.add(webhook.call[2])
            return webhook
    raise AssertionError("the traffic ended")


async def _exchange(
    ingest: Ingest, sent: bytes, outcome: Outcome, turns: asyncio.Semaphore, *, must: int | None = None
) -> None:
    answer = b""
    try:
        answer = await asyncio.wait_for(_answer(ingest.port, sent), ANSWER_S)
    except TimeoutError:
        outcome.wrong.append(f"no end of the connection within {ANSWER_S:.0f} s: {sent[:300]!r}")
    finally:
        turns.release()
    outcome.sent += 1
    statuses = [int(status) for status in _STATUS.findall(answer)]
    outcome.statuses.update([str(status) for status in statuses] or ["closed"])
    if any(status >= 500 or (status < 200 and status != 100) for status in statuses):
        outcome.wrong.append(f"{statuses} for {sent[:300]!r}")
    if must is not None and statuses != [must]:
        outcome.wrong.append(f"an honest request was answered {statuses or 'nothing'}: {answer[:200]!r}")
    outcome.acknowledged.update(found.decode() for found in _ID.findall(answer))


async def _answer(port: int, sent: bytes) -> bytes:
    while True:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if time.monotonic() - began > OWN_S:
                continue  # it was us who slept, and a connection on which nothing comes is closed after a while
            writer.write(sent)
            await writer.drain()
            writer.write_eof()
            return await reader.read()
        except OSError:
            return b""  # it hung up while more was being sent, which is its right
        finally:
            writer.transport.abort()


def _request(webhook: Webhook) -> bytes:
    headers = {"Host": "calltally.test", "Content-Type": "application/json", **webhook.sign()}
    lines = [f"POST /webhooks/{webhook.source} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"Content-Length: {len(webhook.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + webhook.body


def _mutated(request: bytes, dice: Random) -> bytes:
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        request = dice.choice(_MUTATIONS)(request, dice)
    return request


def _flip(request: bytes, dice: Random) -> bytes:
    at = dice.randrange(max(1, len(request)))
    return (
        request[:at] + bytes([(request[at] if at < len(request) else 0) ^ 1 << dice.randrange(8)]) + request[at + 1 :]
    )


def _insert(request: bytes, dice: Random) -> bytes:
    at = dice.randrange(len(request) + 1)
    return request[:at] + dice.choice(_MORSELS) + request[at:]


def _cut(request: bytes, dice: Random) -> bytes:
    start = dice.randrange(len(request) + 1)
    return request[:start] + request[start + dice.randrange(1, 40) :]


def _stop_short(request: bytes, dice: Random) -> bytes:
    return request[: dice.randrange(len(request) + 1)]


def _head_and_body(request: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def _joined(lines: Sequence[bytes], body: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _add_header(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    lines.insert(dice.randrange(1, len(lines) + 1), dice.choice(_HEADERS))
    return _joined(lines, body)


def _repeat_header(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    lines.append(dice.choice(lines))
    return _joined(lines, body)


def _drop_header(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    if len(lines) > 1:
        del lines[dice.randrange(1, len(lines))]
    return _joined(lines, body)


def _flood(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    lines += [b"X-%d: %s" % (number, b"a" * dice.randrange(200)) for number in range(dice.choice((20, 200, 2000)))]
    return _joined(lines, body)


def _chunked(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    lines = [line for line in lines if not line.lower().startswith(b"content-length")]
    lines.append(b"Transfer-Encoding: chunked")
    chunks, rest = b"", body
    while rest:
        size = dice.randrange(1, 200)
        piece, rest = rest[:size], rest[size:]
        said = len(piece) if dice.random() < 0.9 else dice.choice((0, 1, len(piece) + 1, 2**31, 2**64))
        chunks += b"%x%s\r\n%s%s" % (said, dice.choice((b"", b"", b";a=b", b" ", b"\t")), piece, b"\r\n")
    return _joined(lines, chunks + dice.choice((b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n", b"", b"0\r\n", b"-1\r\n\r\n")))


def _other_line(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    lines[0] = dice.choice(_METHODS) + b" " + dice.choice(_TARGETS) + b" " + dice.choice(_VERSIONS)
    return _joined(lines, body)


def _pipelined(request: bytes, dice: Random) -> bytes:
    return request * dice.randrange(2, 5)


def _smuggled(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    hidden = b"POST /webhooks/callsync HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    lines.append(dice.choice((b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x, chunked")))
    return _joined(lines, dice.choice((b"0\r\n\r\n", b"")) + hidden + body)


def _other_ends(request: bytes, dice: Random) -> bytes:
    lines, body = _head_and_body(request)
    end = dice.choice((b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\x0b\r\n"))
    return end.join(lines) + end * 2 + body


def _noise(request: bytes, dice: Random) -> bytes:
    return dice.randbytes(dice.randrange(1, 2000))


_MUTATIONS: Final = (
    _flip, _flip, _insert, _insert, _cut, _stop_short, _add_header, _repeat_header, _drop_header, _flood, _chunked,
    _chunked, _other_line, _pipelined, _smuggled, _other_ends, _noise,
)  # fmt: skip
_MORSELS: Final = (
    b"\x00", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b" ", b"\t", b"\xff", b"%00", b"{", b'"', b"\x80\x80",
    b"A" * 5000, b"[" * 300, b"\xed\xa0\x80", "\u202e".encode(), b"${jndi:ldap://x}", b"' OR 1=1 --", b"\x1b[31m",
)  # fmt: skip
_HEADERS: Final = (
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
    b"Content-Length: 3", b"Content-Length: +3", b"Content-Length: 0x10", b"Content-Length: 99999999999999999999",
    b"Content-Encoding: gzip", b"Expect: 100-continue", b"Expect: 200-ok", b"Connection: Upgrade", b"Upgrade: h2c",
    b"Upgrade: websocket", b"Host: other", b"Host:", b": nothing", b"No colon here", b" Folded: yes", b"X: \x00",
    b"X-Forwarded-For: 127.0.0.1", b"Synthflow-Signature: " + b"0" * 64, b"X-Webhook-Signature: sha256=" + b"f" * 64,
    b"Connection: keep-alive, close", b"Range: bytes=0-", b"Cookie: " + b"a" * 9000, b"Trailer: X-T", b"TE: trailers",
)  # fmt: skip
_METHODS: Final = (b"GET", b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"POSTT", b"post", b"", b"\x00")
_TARGETS: Final = (
    b"/", b"*", b"/webhooks/", b"/webhooks/synthflow/", b"/webhooks/../metrics", b"/webhooks/%73ynthflow",
    b"//webhooks", b"http://x/webhooks/callsync", b"/webhooks/callsync?" + b"a=b&" * 300, b"/" + b"a" * 9000,
    b"/webhooks/\xff", b"/webhooks/callsync#x", b"/metrics", b"/healthz", b"/readyz", b"", b"/webhooks/nobody",
)  # fmt: skip
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", b"ICY", b"")


def _wrong_in_the_journal(path: Path, outcome: Outcome) -> Iterator[str]:
    """Everything acknowledged is there, and nothing is there that no platform could have sent."""
    journal = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = journal.execute("SELECT head, body FROM rows").fetchall()
    finally:
        journal.close()
    records = [(json.loads(head), body or b"") for head, body in rows]
    deliveries = [(head["source"], body) for head, body in records if head["type"] == "delivery"]
    held = {hashlib.sha256(source.encode() + b"\0" + body).hexdigest(): (source, body) for source, body in deliveries}
    yield from (f"acknowledged, but not in the journal: {lost}" for lost in outcome.acknowledged - held.keys())
    for digest in held.keys() - outcome.genuine.keys():
        source, body = held[digest]
        if source != "synthflow" or not any(call.encode() in body for call in outcome.calls):
            yield f"in the journal, but never signed: {source} {body[:200]!r}"


def _memory_mib(ingest: Ingest) -> float:
    pages = int(Path(f"/proc/{ingest.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), seed=given.seed, count=given.count, say=print)
    found = {
        "seed": given.seed, "sent": outcome.sent, "statuses": dict(outcome.statuses), "took_s": round(outcome.took_s),
        "memory_mib": [round(value) for value in outcome.memory_mib], "wrong": outcome.wrong[:20],
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    raise SystemExit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()
