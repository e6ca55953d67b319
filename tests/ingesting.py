"""Ingest as a real process for tests: started in a folder of its own, spoken to over HTTP and raw sockets."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from calls.journal import Damaged, JournalReader
from calls.model import Delivery, Notice
from calls.provider import named
from calls.signing import sign

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 30.0
SECRET = "a secret of tests"
SETTINGS = "".join(
    f'[sources.{name}]\nsecrets = ["{SECRET}"]\n' for name in ("synthflow", "inboundflow", "aisync", "callsync")
)
PROGRAM = """
import resource, sys
from calls import settings
from cli.logs import write_log
from ingest import serve
from ingest.protocol import Limits
write_log(readable=False)
file_bytes = int(sys.argv[2])
if file_bytes:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
serve.run(settings.load(), watch=settings.SourcesWatch(), limits=Limits(**eval(sys.argv[1])))
"""


@dataclass
class Ingest:
    """A running ingest."""

    folder: Path
    process: subprocess.Popen[str]
    port: int = 0
    lines: list[dict[str, object]] = field(default_factory=list)
    """Its log, each line parsed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, source: str, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return httpx.post(f"{self.url}/webhooks/{source}", content=body, headers=headers, timeout=DEADLINE_S)

    def post_signed(self, source: str, body: bytes, *, provider: str = "", secret: str = SECRET) -> httpx.Response:
        return self.post(source, body, signed(provider or source, body, secret=secret))

    def send(self, *parts: bytes) -> bytes:
        """All that comes back for raw bytes until ingest closes, or has nothing more to say."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return received(connection)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def records(self) -> list[Delivery | Notice | Damaged]:
        reader = JournalReader(self.folder / "data" / "journal.sqlite")
        try:
            return list(reader.read(0))
        finally:
            reader.close()

    def deliveries(self) -> list[Delivery]:
        return [record for record in self.records() if isinstance(record, Delivery)]

    def notices(self) -> list[Notice]:
        return [record for record in self.records() if isinstance(record, Notice)]

    def events(self, name: str) -> list[dict[str, object]]:
        """Log lines of that event."""
        return [line for line in self.lines if line.get("event") == name]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@contextmanager
def ingesting(
    folder: Path,
    settings: str = SETTINGS,
    *,
    limits: str = "{}",
    environment: Mapping[str, str] | None = None,
    file_bytes: int = 0,
) -> Iterator[Ingest]:
    """Start ingest in a folder; `limits` are the protocol's, `file_bytes` the longest file it may write."""
    (folder / "calltally.toml").write_text(f"ingest_port = 0\n{settings}")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CALLTALLY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, limits, str(file_bytes)],
        cwd=folder,
        env={**inherited, **(environment or {}), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    ingest = Ingest(folder, process)
    port: queue.Queue[int] = queue.Queue()
    reader = threading.Thread(target=_read_log, args=(ingest, port))
    reader.start()
    try:
        ingest.port = port.get(timeout=DEADLINE_S)
        yield ingest
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(DEADLINE_S)
        reader.join(DEADLINE_S)
        if process.stderr is not None:
            process.stderr.close()
    assert not ingest.events("unparsed"), ingest.lines


def _read_log(ingest: Ingest, port: queue.Queue[int]) -> None:
    assert ingest.process.stderr is not None
    for line in ingest.process.stderr:
        try:
            parsed = json.loads(line)
        except ValueError:
            parsed = {"event": "unparsed", "line": line}
        ingest.lines.append(parsed)
        if parsed.get("event") == "listening":
            port.put(parsed["port"])


def signed(provider: str, body: bytes, *, secret: str = SECRET, now_s: int | None = None) -> dict[str, str]:
    """Headers that prove a body."""
    record = named(provider)
    signed_id = record.signed_id(body) if record.signed_id is not None else b""
    return sign(record.scheme, secret, body, now_s=int(time.time()) if now_s is None else now_s, signed_id=signed_id)


def request(path: str, body: bytes, headers: Mapping[str, str] | None = None, *, method: str = "POST") -> bytes:
    """One raw request, with a length and a Host."""
    lines = {"Host": "test", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def received(connection: socket.socket) -> bytes:
    """What arrives until the other side closes."""
    chunks = []
    try:
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        chunks.append(b"<reset>")
    return b"".join(chunks)


def statuses(answer: bytes) -> list[int]:
    """The status of each response in a stream of them."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), answer
        found.append(int(head[9:12]))
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        answer = rest[int(lengths[0].split(b":")[1]) if lengths else 0 :]
    return found


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]
