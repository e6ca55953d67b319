"""Posts signed webhooks over many kept-alive connections, and measures what one costs.

    python -m benchmarks.load                 ingest alone: rate, CPU a webhook, latency, for each provider
    python -m benchmarks.load --url http://127.0.0.1:8000/webhooks/aisync --secret ...   an ingest that already runs

The requests are written and signed before the clock starts, and sent by a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

from calls.provider import Provider, discover, named
from calls.signing import sign

CONNECTIONS = 64
BODY_BYTES = 1_700
WEBHOOKS = 60_000
WARM_UP = 4_000
SECRET = "benchmark-secret"


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run."""

    answers: dict[int, int]
    """How many by HTTP status."""
    seconds: float
    latencies_ms: Sequence[float]
    """Sorted."""

    @property
    def per_second(self) -> float:
        return sum(self.answers.values()) / self.seconds

    def latency_ms(self, share: float) -> float:
        """The latency that this share of requests did not exceed."""
        return self.latencies_ms[min(len(self.latencies_ms) - 1, int(len(self.latencies_ms) * share))]


def signed_posts(provider: Provider, path: str, secret: str, count: int, *, size: int = BODY_BYTES) -> list[bytes]:
    """Whole HTTP requests with distinct bodies, signed now."""
    run = os.urandom(6).hex()
    return [_post(provider, path, secret, _body(provider, f"{run}-{number:08}", size)) for number in range(count)]


async def post_all(host: str, port: int, requests: Sequence[bytes], *, connections: int = CONNECTIONS) -> Load:
    """Send each request once, one at a time on each connection."""
    loop = asyncio.get_running_loop()
    shared = _Shared(iter(requests), loop.create_future(), connections)
    started = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Sender(shared), host, port)
    await shared.done
    return Load(dict(shared.answers), time.perf_counter() - started, sorted(shared.latencies_ms))


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def ingest(folder: Path, providers: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """An ingest process with a source for each provider; its process and port."""
    port = _free_port()
    lines = [line for name in providers for line in (f"[sources.{name}]", f'secrets = ["{SECRET}"]')]
    (folder / "calltally.toml").write_text("\n".join([f"ingest_port = {port}", *lines]) + "\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "ingest"], cwd=folder, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_ready(port, process)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _body(provider: Provider, call_id: str, size: int) -> bytes:
    known = {"call_id": call_id, "status": "completed", "duration": 61, "transcript": ""}
    body = {"event": "call.ended", "status": "completed", "call" if provider.signed_id else "data": known}
    missing = size - len(json.dumps(body))
    known["transcript"] = ("human: what does it cost? bot: let me look that up. " * (missing // 50 + 1))[:missing]
    return json.dumps(body).encode()


def _post(provider: Provider, path: str, secret: str, body: bytes) -> bytes:
    signed_id = provider.signed_id(body) if provider.signed_id is not None else b""
    headers = {
        "Host": "127.0.0.1",
        "User-Agent": "load",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **sign(provider.scheme, secret, body, now_s=int(time.time()), signed_id=signed_id),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class _Shared:
    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None], senders: int) -> None:
        self.requests = requests
        self.done = done
        self.senders = senders
        self.answers: Counter[int] = Counter()
        self.latencies_ms: list[float] = []


class _Sender(asyncio.Protocol):
    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._received = b""
        self._sent_at = 0.0
        self._write: Callable[[bytes], None]
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(rest) >= length:
            self._shared.latencies_ms.append((time.perf_counter() - self._sent_at) * 1000)
            self._shared.answers[int(head[9:12])] += 1
            self._received = rest[length:]
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        self._shared.senders -= 1
        if not self._shared.senders and not self._shared.done.done():
            self._shared.done.set_result(None)

    def _next(self) -> None:
        request = next(self._shared.requests, None)
        if request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._write(request)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("Ingest did not become ready.")


def _measure(webhooks: int, connections: int, providers: Sequence[str]) -> None:
    print(f"{'provider':14}{'per s':>9}{'us CPU':>9}{'p50 ms':>9}{'p99 ms':>9}  answers")
    with tempfile.TemporaryDirectory() as folder, ingest(Path(folder), providers) as (process, port):
        for name in providers:
            for count in (WARM_UP, webhooks):
                requests = signed_posts(named(name), f"/webhooks/{name}", SECRET, count)
                before = cpu_seconds(process.pid)
                load = uvloop.run(post_all("127.0.0.1", port, requests, connections=connections))
                used_us = (cpu_seconds(process.pid) - before) / count * 1e6
            print(
                f"{name:14}{load.per_second:9.0f}{used_us:9.1f}{load.latency_ms(0.5):9.2f}{load.latency_ms(0.99):9.2f}"
                f"  {load.answers}"
            )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhooks", type=int, default=WEBHOOKS)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--provider", action="append", choices=list(discover()))
    parser.add_argument("--url", help="an ingest that already runs")
    parser.add_argument("--secret", default=SECRET)
    given = parser.parse_args()
    if given.url is None:
        _measure(given.webhooks, given.connections, given.provider or list(discover()))
        return
    url = urlsplit(given.url)
    provider = named((given.provider or [url.path.rsplit("/", 1)[-1]])[0])
    requests = signed_posts(provider, url.path, given.secret, given.webhooks)
    load = uvloop.run(post_all(url.hostname or "", url.port or 80, requests, connections=given.connections))
    p50, p99 = load.latency_ms(0.5), load.latency_ms(0.99)
    print(f"{load.per_second:.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, {load.answers}")


if __name__ == "__main__":
    _main()
