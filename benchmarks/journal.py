"""How fast webhooks become durable, and how soon a follower sees them.

Run: python benchmarks/journal.py [--rows 1000000] [--seconds 5] [--folder /a/disk]. The folder's disk is what is
measured. CPU is of the whole process: 64 asyncio tasks that wait for their record, and the journal's writer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import sqlite3
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.table import Table

from calls.errors import JournalUnavailable
from calls.journal import Append, Journal, JournalReader, NewDelivery
from calls.model import Delivery, Trust, delivery_id

APPENDERS = 64
BODY_BYTES = 1700
HEADERS = {"content-type": "application/json", "user-agent": "synthflow/1.0", "x-request-id": "0123456789abcdef"}


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="calltally-journal-", dir=options.folder))
    try:
        path = folder / "journal.sqlite"
        table = Table(title=f"Journal: {APPENDERS} appenders of {BODY_BYTES} bytes, fsync before every answer")
        for column in ("rows there", "rows/s", "CPU us/row", "durable p50 ms", "p99 ms", "max ms", "log MiB"):
            table.add_column(column, justify="right")
        table.add_row(*_appending(path, options.seconds))
        _fill(path, options.rows)
        table.add_row(*_appending(path, options.seconds))
        reading = Table(title="Reading and following")
        reading.add_column("what")
        reading.add_column("figure", justify="right")
        for row in [*_reading(path), *_following(path, options.seconds)]:
            reading.add_row(*row)
        console = Console()
        console.print(table, reading)
        console.print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"SQLite {sqlite3.sqlite_version}; one lone record: {_lone(path):.2f} ms to durable (p50)"
        )
    finally:
        shutil.rmtree(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows there in the second measurement")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: the temporary folder)")
    return parser.parse_args()


def _appending(path: Path, seconds: float) -> list[str]:
    """Each appender sends its next record once the one before is durable, as a connection does."""
    loop = asyncio.new_event_loop()
    latencies: list[float] = []
    largest_log = 0

    def answer(items: list[Append], failure: JournalUnavailable | None) -> None:
        loop.call_soon_threadsafe(_resolve, items, failure)

    journal = Journal(path, on_committed=answer)
    there = journal.last_position()

    async def appender(number: int, end: float) -> None:
        serial = 0
        while (started := time.perf_counter()) < end:
            future: asyncio.Future[None] = loop.create_future()
            journal.append(Append(_delivery(f"{there}-{number}-{serial}"), future))
            await future
            latencies.append(time.perf_counter() - started)
            serial += 1

    async def watch(end: float) -> None:
        nonlocal largest_log
        log = path.with_name(path.name + "-wal")
        while time.perf_counter() < end:
            largest_log = max(largest_log, log.stat().st_size)
            await asyncio.sleep(0.05)

    async def everyone() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(watch(end), *(appender(number, end) for number in range(APPENDERS)))

    started, cpu = time.perf_counter(), time.process_time()
    loop.run_until_complete(everyone())
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    journal.close()
    loop.close()
    latencies.sort()
    count = len(latencies)
    return [
        f"{there:,}",
        f"{count / elapsed:,.0f}",
        f"{cpu / count * 1e6:.1f}",
        f"{_quantile(latencies, 0.5):.2f}",
        f"{_quantile(latencies, 0.99):.2f}",
        f"{latencies[-1] * 1e3:.1f}",
        f"{largest_log / (1 << 20):.0f}",
    ]


def _resolve(items: list[Append], failure: JournalUnavailable | None) -> None:
    for item in items:
        assert isinstance(item.waiter, asyncio.Future)
        if failure is None:
            item.waiter.set_result(None)
        else:
            item.waiter.set_exception(failure)


def _fill(path: Path, rows: int) -> None:
    room = threading.Semaphore(2000)

    def answer(items: list[Append], failure: JournalUnavailable | None) -> None:
        if failure is not None:
            raise failure
        room.release(len(items))

    journal = Journal(path, on_committed=answer)
    for number in range(rows - journal.last_position()):
        room.acquire()
        journal.append(Append(_delivery(f"fill-{number}")))
    journal.close()


def _reading(path: Path) -> list[tuple[str, str]]:
    reader = JournalReader(path)
    after = count = 0
    started, cpu = time.perf_counter(), time.process_time()
    while count < 200_000 and (records := reader.read(after)):
        count += len(records)
        after = records[-1].position
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    reader.close()
    journal = Journal(path, on_committed=lambda _items, _failure: None)
    before = time.perf_counter()
    ids = len(list(journal.recent_ids(500_000)))
    scanned = time.perf_counter() - before
    journal.close()
    return [
        ("read and verify", f"{count / elapsed:,.0f} rows/s, {cpu / count * 1e6:.1f} us CPU/row"),
        (f"the newest {ids:,} ids at start", f"{scanned:.2f} s"),
    ]


def _following(path: Path, seconds: float) -> list[tuple[str, str]]:
    """A follower in a process of its own: 200 records a second, then rest."""
    parent, other = multiprocessing.get_context("spawn").Pipe()
    journal = Journal(path, on_committed=lambda _items, _failure: None)
    follower = multiprocessing.get_context("spawn").Process(
        target=_follow, args=(path, journal.last_position(), seconds, other)
    )
    follower.start()
    parent.recv()
    end, serial = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        journal.append(Append(_delivery(f"{time.time_ns()}", received_at=time.time_ns() // 1000)))
        serial += 1
        time.sleep(1 / 200)
    latencies, idle = parent.recv()
    follower.join()
    journal.close()
    latencies.sort()
    return [
        (
            f"appended until read by a follower, {serial / seconds:.0f}/s",
            f"p50 {_quantile(latencies, 0.5):.2f} ms, p99 {_quantile(latencies, 0.99):.2f} ms",
        ),
        ("a follower's CPU at rest", f"{idle:.3f} %"),
    ]


def _follow(path: Path, after: int, seconds: float, answers: Connection) -> None:
    reader = JournalReader(path)
    latencies: list[float] = []
    answers.send("ready")
    while reader.wait(after, 2.0):
        for record in reader.read(after):
            if isinstance(record, Delivery):
                latencies.append((time.time_ns() // 1000 - record.received_at) / 1e6)
            after = record.position
    cpu = time.process_time()
    reader.wait(after, seconds)
    answers.send((latencies, (time.process_time() - cpu) / seconds * 100))
    reader.close()


def _lone(path: Path) -> float:
    """One record at a time, each waiting for its own fsync."""
    done = threading.Semaphore(0)
    journal = Journal(path, on_committed=lambda _items, _failure: done.release())
    latencies = []
    for number in range(1000):
        record = Append(_delivery(f"lone-{number}"))
        started = time.perf_counter()
        journal.append(record)
        done.acquire()
        latencies.append(time.perf_counter() - started)
    journal.close()
    return _quantile(sorted(latencies), 0.5)


def _delivery(unique: str, received_at: int = 1_700_000_000_000_000) -> NewDelivery:
    body = _BODY % unique.encode()
    return NewDelivery(
        source="synthflow",
        provider="synthflow",
        org="",
        body=body,
        headers=HEADERS,
        received_at=received_at,
        trust=Trust.B,
        id=delivery_id("synthflow", body),
    )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[int(len(ordered) * share)] * 1e3


_BODY = json.dumps({"call_id": "%s", "transcript": "bot: Good morning. human: " + "yes " * 405}).encode()

if __name__ == "__main__":
    main()
