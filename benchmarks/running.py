"""The running product: how soon it starts, how fresh its numbers are, and what it costs at rest.

    python -m benchmarks.running

Real processes of `calltally up --no-dashboard` on loopback. Freshness is from the moment a signed webhook is sent to
the moment an answer of `POST /sql` first shows it, asked for whenever the store's version has changed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from analytics.access import read_token
from analytics.client import Client
from benchmarks import load
from calls.model import delivery_id
from calls.provider import named

PROVIDER = "inboundflow"
COMMAND = [sys.executable, "-m", "cli.main"]


@contextmanager
def running(folder: Path, *words: str, more: str = "") -> Iterator[tuple[subprocess.Popen[bytes], int, int, float]]:
    """`calltally up`: its process, ingest's port, the SQL port, seconds from start to the first accepted webhook.

    `words` are further ones of its command, `more` are further settings.
    """
    port, sql_port = load._free_port(), load._free_port()
    settings = (
        f'ingest_port = {port}\nsql_port = {sql_port}\n{more}\n[sources.{PROVIDER}]\nsecrets = ["{load.SECRET}"]\n'
    )
    (folder / "calltally.toml").write_text(settings)
    began = time.perf_counter()
    command = [*COMMAND, "up", "--no-dashboard", *words]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        first_s = _until_accepted(port, began)
        yield process, port, sql_port, first_s
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def freshness(port: int, sql_port: int, folder: Path, *, rate: float, seconds: float) -> list[float]:
    """Milliseconds from sending to seeing, sorted, at so many webhooks a second."""
    token = read_token(folder / "data" / "sql.token") or ""
    count = int(rate * seconds)
    requests = load.signed_posts(named(PROVIDER), f"/webhooks/{PROVIDER}", load.SECRET, count)
    ids = {delivery_id(PROVIDER, request.partition(b"\r\n\r\n")[2]): number for number, request in enumerate(requests)}
    sent, seen = [0.0] * count, [0.0] * count
    watch = threading.Thread(target=_watch, args=(Client(f"http://127.0.0.1:{sql_port}", token), ids, seen))
    watch.start()
    asyncio.run(_send(port, requests, rate, sent))
    watch.join(30)
    return sorted((after - before) * 1000 for before, after in zip(sent, seen, strict=True) if after)


def idle_cpu(process: subprocess.Popen[bytes], seconds: float) -> float:
    """Share of one core that the process and its children use."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    before = sum(sum(one.cpu_times()[:2]) for one in tree)
    time.sleep(seconds)
    return (sum(sum(one.cpu_times()[:2]) for one in tree) - before) / seconds


def _watch(client: Client, ids: dict[str, int], seen: list[float]) -> None:
    last, version, missing, until = 0, -1, len(ids), time.monotonic() + 90
    ahead: set[int] = set()
    while missing and time.monotonic() < until:
        # The version is cheap to ask for and says when a query can find something new.
        if (now_held := client.version()) == version:
            time.sleep(0.001)
            continue
        version = now_held
        rows = client.query("SELECT position, id FROM deliveries WHERE position > $last", {"last": last}).to_pylist()
        now = time.perf_counter()
        for row in rows:
            ahead.add(row["position"])
            if row["id"] in ids and not seen[ids[row["id"]]]:
                seen[ids[row["id"]]] = now
                missing -= 1
        while last + 1 in ahead:  # through Kafka they come in another order
            last += 1
            ahead.remove(last)


async def _send(port: int, requests: list[bytes], rate: float, sent: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    for number, request in enumerate(requests):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        sent[number] = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
    writer.close()


def _until_accepted(port: int, began: float) -> float:
    address = f"http://127.0.0.1:{port}/webhooks/{PROVIDER}"
    request = load.signed_posts(named(PROVIDER), f"/webhooks/{PROVIDER}", load.SECRET, 1)[0]
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    while time.perf_counter() - began < 30:
        try:
            if httpx.post(address, content=body, headers=headers, timeout=2).status_code == 200:
                return time.perf_counter() - began
        except httpx.TransportError:
            time.sleep(0.01)
    raise RuntimeError("Ingest did not accept a webhook within 30 s.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--idle", type=float, default=30)
    given = parser.parse_args()
    os.environ.pop("CALLTALLY_DATA_DIR", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder) as (process, port, sql_port, first_s):
            print(f"start to first accepted webhook: {first_s:.2f} s")
            time.sleep(3)
            freshness(port, sql_port, folder, rate=50, seconds=2)
            times = freshness(port, sql_port, folder, rate=given.rate, seconds=given.seconds)
            print(
                f"freshness at {given.rate:.0f}/s: p50 {times[len(times) // 2]:.1f} ms, "
                f"p99 {times[int(len(times) * 0.99)]:.1f} ms, longest {times[-1]:.1f} ms, n {len(times)}"
            )
            time.sleep(5)
            print(f"at rest: {idle_cpu(process, given.idle) * 100:.2f} % of a core")


if __name__ == "__main__":
    main()
