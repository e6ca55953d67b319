"""The whole chain through Kafka: how fresh its numbers are, how soon a killed worker is back, how long a backlog takes.

    python -m benchmarks.chain
    python -m benchmarks.chain --backlog 500000

Real processes: `calltally up --kafka --no-dashboard`, and Apache Kafka (one node from Maven, on this machine).
Freshness is from the moment a signed webhook is sent to the moment an answer of `POST /sql` first shows it, as in
`benchmarks.running`. A killed worker (SIGKILL) is back when `POST /sql` shows a webhook that was sent after its death.
The backlog is journalled while the broker is down, and is in once all of it is counted by `POST /sql`; its time begins
when the broker takes connections again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from analytics.access import read_token
from analytics.client import Client
from benchmarks import load, running, stream
from benchmarks.relay import HEAP
from calls.errors import QueryError
from tools.kafka import broker

DEADLINE_S = 600.0
MIX = 50_000


def restart(process: subprocess.Popen[bytes], port: int, sql_port: int, folder: Path) -> float:
    """Seconds from the worker's death to the first answer that shows what came after it."""
    with _client(folder, sql_port) as client:
        before = _rows(client)
        (worker,) = [one for one in psutil.Process(process.pid).children() if "worker" in one.cmdline()]
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
        began = time.perf_counter()
        running._until_accepted(port, began)
        until = time.monotonic() + DEADLINE_S
        while _rows(client) <= before:
            assert time.monotonic() < until, "the worker is not back"
            time.sleep(0.01)
        return time.perf_counter() - began


def backlog(folder: Path, cluster: broker.Cluster, count: int) -> float:
    """Seconds from the broker's return until so many deliveries are counted."""
    sql_port = load._free_port()
    (folder / "calltally.toml").write_text(f'sql_port = {sql_port}\nkafka_bootstrap_servers = "{cluster.bootstrap}"\n')
    stream.journal_of(stream.mix(1_000, seed=1), folder / "data" / "journal.sqlite")
    with _process(folder, "relay"), _process(folder, "worker", "--kafka"), _client(folder, sql_port) as client:
        _until_rows(client, 1_000)
        (node,) = cluster.nodes
        node.kill()
        done = 0
        while done < count:
            some = min(MIX, count - done)
            new = stream.mix(some, seed=2 + done // MIX, after=1_000 + done)
            stream.journal_of(new, folder / "data" / "journal.sqlite")
            done += some
        node.start()
        node.wait()
        began = time.perf_counter()
        _until_rows(client, 1_000 + count)
        return time.perf_counter() - began


@contextlib.contextmanager
def _process(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words], cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextlib.contextmanager
def _client(folder: Path, sql_port: int) -> Iterator[Client]:
    path, until = folder / "data" / "sql.token", time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    client = Client(f"http://127.0.0.1:{sql_port}", read_token(path) or "")
    try:
        yield client
    finally:
        client.close()


def _until_rows(client: Client, count: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while _rows(client) < count:
        assert time.monotonic() < until
        time.sleep(0.2)


def _rows(client: Client) -> int:
    """How many journalled things are applied; -1 while nobody answers."""
    try:
        return int(client.query("SELECT count(*) AS n FROM deliveries").column("n")[0].as_py())
    except QueryError:
        return -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--backlog", type=int, default=0)
    given = parser.parse_args()
    os.environ.pop("CALLTALLY_DATA_DIR", None)
    with tempfile.TemporaryDirectory() as name, broker.cluster(Path(name) / "kafka", heap=HEAP) as cluster:
        if given.backlog:
            folder = Path(name) / "backlog"
            folder.mkdir()
            seconds = backlog(folder, cluster, given.backlog)
            print(f"backlog of {given.backlog:,}: {seconds:.1f} s from the broker's return until all of it is counted")
            return
        folder = Path(name) / "chain"
        folder.mkdir()
        named = f'kafka_bootstrap_servers = "{cluster.bootstrap}"'
        with running.running(folder, "--kafka", more=named) as (process, port, sql_port, _):
            with _client(folder, sql_port) as client:
                _until_rows(client, 1)
            running.freshness(port, sql_port, folder, rate=50, seconds=2)
            times = running.freshness(port, sql_port, folder, rate=given.rate, seconds=given.seconds)
            print(
                f"freshness at {given.rate:.0f}/s: p50 {times[len(times) // 2]:.1f} ms, "
                f"p99 {times[int(len(times) * 0.99)]:.1f} ms, longest {times[-1]:.1f} ms, n {len(times)}"
            )
            for _ in range(given.kills):
                print(f"back at work after SIGKILL: {restart(process, port, sql_port, folder):.2f} s", flush=True)
                time.sleep(3)


if __name__ == "__main__":
    main()
