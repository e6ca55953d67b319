"""Hostile HTTP against a real ingest: never a 5xx, never a dead process, never a lost or invented delivery."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import psutil
import pytest

from tests.faults.hostile_http import SETTINGS, run
from tests.faults.length import LONG
from tests.ingesting import Ingest, ingesting, received, request, signed, statuses
from tests.waiting import until

DRIPPING = 500
HONEST = 2_000 if LONG else 200
BODY = b'{"event": "call.ended", "data": {"call_id": "c-slow-%d"}}'
SECRET = {"aisync": "oU1eW7iK9pZ2xV4q"}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 6 if LONG else 2))
def test_mutated_requests_never_break_the_door(tmp_path: Path, seed: int) -> None:
    """Each answer is below 500, honest requests between them are 200, the journal holds just what was signed."""
    outcome = run(tmp_path, seed=seed, count=200_000 if LONG else 3_000)

    assert outcome.wrong == []
    assert outcome.statuses["200"] > outcome.sent // 10
    assert outcome.statuses["400"] > outcome.sent // 10
    assert outcome.acknowledged


def test_a_request_cut_off_behind_a_whole_one_is_no_error(tmp_path: Path) -> None:
    """The sender hangs up within its second request while the first is being made durable."""
    with ingesting(tmp_path, SETTINGS) as ingest:
        for number in range(100):
            body = BODY % number
            whole = request("/webhooks/aisync", body, signed("aisync", body, secret=SECRET["aisync"]))
            with ingest.connect() as connection:
                connection.sendall(whole + whole[:-5])
                connection.shutdown(socket.SHUT_WR)
                received(connection)
        until(lambda: len(ingest.deliveries()) == 100)

    assert not [line for line in ingest.lines if line.get("level") == "error"]


def test_500_dripping_connections_leave_honest_senders_alone(tmp_path: Path) -> None:
    """Every honest request is answered 200 while 500 others send a byte at a time; none of those is served."""
    with ingesting(tmp_path, SETTINGS) as ingest:
        before = cpu_s(ingest)
        began = time.monotonic()
        with dripping(ingest.port):
            until(
                lambda: connections(ingest) >= DRIPPING * 9 // 10,
                lambda: f"{connections(ingest)} connections",
                seconds=20,
            )
            took = asyncio.run(_honest(ingest))
        share = (cpu_s(ingest) - before) / (time.monotonic() - began)

    took.sort()
    # The times are those of the machine, too; what ingest spent is not.
    print(
        f"honest p50 {took[len(took) // 2] * 1000:.1f} ms, p99 {took[len(took) * 99 // 100] * 1000:.1f} ms; "
        f"ingest took {share * 100:.1f} % of a core"
    )
    assert len(took) == HONEST


def cpu_s(ingest: Ingest) -> float:
    times = psutil.Process(ingest.process.pid).cpu_times()
    return times.user + times.system


def connections(ingest: Ingest) -> int:
    found = psutil.Process(ingest.process.pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED for one in found)


@contextmanager
def dripping(port: int) -> Iterator[None]:
    """In a process of its own: what it does must not keep those waiting who are timed."""
    process = multiprocessing.get_context("spawn").Process(target=_drip_all, args=(port,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


async def _honest(ingest: Ingest) -> list[float]:
    """Seconds that each honest request took, at an even pace."""
    took = []
    for number in range(HONEST):
        body = BODY % number
        whole = request("/webhooks/aisync", body, signed("aisync", body, secret=SECRET["aisync"]))
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", ingest.port)
        writer.write(whole)
        writer.write_eof()
        answer = await reader.read()
        took.append(time.monotonic() - began)
        writer.close()
        assert statuses(answer) == [200]
    return took


def _drip_all(port: int) -> None:
    async def drip_all() -> None:
        await asyncio.gather(*(_drip(port, number) for number in range(DRIPPING)))

    asyncio.run(drip_all())


async def _drip(port: int, number: int) -> None:
    """A line that never ends, a body that never ends, or a head a letter at a time; again when it is cut off."""
    await asyncio.sleep(number / DRIPPING)  # not all at the same instant
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /webhooks/aisync HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        at_once = (20, len(head), 0)[number % 3]
        writer.write(head[:at_once])
        letters = chain(head if at_once == 0 else b"", repeat(ord("a")))
        try:
            while not reader.at_eof():
                await asyncio.sleep(0.5)
                writer.write(bytes([next(letters)]))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
