"""What does an accepted webhook cost at the door, beside a FastAPI route that verifies alike and stores nothing?

    python -m benchmarks.ingest                    three rounds in turn, at an empty journal
    python -m benchmarks.ingest --journalled 1000000   the same at a journal that holds so many deliveries

Ours does everything: signature, replay window, repeat check, fsync before the 200. CPU is that of the whole process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks import load
from calls.journal import Append, Journal, NewDelivery
from calls.model import Trust, delivery_id
from calls.provider import named

HERE = Path(__file__).parent
PEER_ENVIRONMENT = HERE / ".venv-peer"
PROVIDER = "inboundflow"
IN_FLIGHT = 5_000


@contextmanager
def peer(module: str = "fastapi_ingest", **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A peer's process and port; the environment of the peers is made when it is missing or another is required."""
    port = load._free_port()
    command = [str(_python()), "-m", "uvicorn", f"{module}:app", "--port", str(port), "--no-access-log"]
    process = subprocess.Popen(
        command, cwd=HERE / "peers", stderr=subprocess.DEVNULL,
        env={**os.environ, "PEER_SECRET": load.SECRET, **environment},
    )  # fmt: skip
    try:
        _wait_for_port(port)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _python() -> Path:
    python, required = PEER_ENVIRONMENT / "bin" / "python", HERE / "peers" / "requirements.txt"
    installed = PEER_ENVIRONMENT / required.name
    if not installed.exists() or installed.read_text() != required.read_text():
        venv.create(PEER_ENVIRONMENT, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", required], check=True)
        shutil.copy(required, installed)
    return python


def fill(path: Path, deliveries: int) -> None:
    """Journal so many deliveries of the benchmark's size."""
    slots = threading.Semaphore(IN_FLIGHT)

    def committed(batch: list[Append], failure: object) -> None:
        if failure is not None:
            raise RuntimeError(failure)
        slots.release(len(batch))

    journal = Journal(path, on_committed=committed)
    for number in range(deliveries):
        slots.acquire()
        body = (f'{{"call_id":"{number:012}"' + ',"transcript":"').encode() + b"what does it cost? " * 87 + b'"}'
        journal.append(
            Append(
                NewDelivery(
                    source=PROVIDER, provider=PROVIDER, org="", body=body, headers={}, trust=Trust.A,
                    received_at=time.time_ns() // 1000, id=delivery_id(PROVIDER, body),
                )
            )
        )  # fmt: skip
    journal.close()


def measure(port: int, pid: int, webhooks: int) -> tuple[float, float, float, dict[int, int]]:
    """CPU microseconds a webhook, webhooks a second, p99 in milliseconds, answers."""
    requests = load.signed_posts(named(PROVIDER), f"/webhooks/{PROVIDER}", load.SECRET, webhooks)
    before = load.cpu_seconds(pid)
    run = uvloop.run(load.post_all("127.0.0.1", port, requests))
    used_us = (load.cpu_seconds(pid) - before) / webhooks * 1e6
    return used_us, run.per_second, run.latency_ms(0.99), run.answers


def _wait_for_port(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/docs", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("The peer did not start.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhooks", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--journalled", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.journalled:
            (folder / "data").mkdir()
            fill(folder / "data" / "journal.sqlite", given.journalled)
        with peer() as (their_process, their_port), load.ingest(folder, [PROVIDER]) as (our_process, our_port):
            _rounds(given.rounds, given.webhooks, (their_process.pid, their_port), (our_process.pid, our_port))


def _rounds(rounds: int, webhooks: int, theirs: tuple[int, int], ours: tuple[int, int]) -> None:
    ratios = []
    for pid, port in (theirs, ours):
        measure(port, pid, load.WARM_UP)
    print(f"{'':10}{'us CPU':>9}{'per s':>9}{'p99 ms':>9}  answers")
    for _ in range(rounds):
        used = []
        for name, (pid, port) in (("FastAPI", theirs), ("Calltally", ours)):
            used_us, per_second, p99_ms, answers = measure(port, pid, webhooks)
            used.append(used_us)
            print(f"{name:10}{used_us:9.1f}{per_second:9.0f}{p99_ms:9.2f}  {answers}", flush=True)
        ratios.append(used[1] / used[0])
    print(f"Calltally / FastAPI, CPU a webhook: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
