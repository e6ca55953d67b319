"""Ingest and worker on a disk that refuses, tears and stalls: no false 200, no hang, and well again by themselves."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from calls.journal import JournalReader
from calls.model import Delivery, delivery_id
from tests.faults.disk import SURVIVALS, Disk, read_trace
from tests.faults.length import LONG
from tests.faults.preload import SYNCS, WRITES, Call, Shim
from tests.ingesting import Ingest, ingesting, signed
from tests.waiting import until

ANSWER_S = 9.5
"""Ingest gives up after 8 s and looks twice a second; senders hang up after 10 s."""
HEALTHY_S = 10.0
FAULT_S = 20.0 if LONG else 1.0
STALL_S = 20.0 if LONG else 9.0
SENDERS = 4

pytestmark = pytest.mark.timeout(600 if LONG else 300)
FaultOn = Callable[[Shim], None]
FAULTS: dict[str, FaultOn] = {
    "no space to write": lambda shim: shim.fail(WRITES, errno.ENOSPC, name="journal"),
    "writes fail": lambda shim: shim.fail(WRITES, errno.EIO, name="journal"),
    "some writes fail": lambda shim: shim.fail(WRITES, errno.EIO, name="journal", every=5),
    "writes are interrupted": lambda shim: shim.fail(WRITES, errno.EINTR, every=2),
    "writes are short": lambda shim: shim.shorten(WRITES),
    "syncs fail": lambda shim: shim.fail(SYNCS, errno.EIO),
    "some syncs fail": lambda shim: shim.fail(SYNCS, errno.EIO, every=3),
    "syncs find no space": lambda shim: shim.fail(SYNCS, errno.ENOSPC),
    "syncs are interrupted": lambda shim: shim.fail(SYNCS, errno.EINTR, every=2),
    "truncations fail": lambda shim: shim.fail(Call.FTRUNCATE, errno.EIO),
    "nothing can be opened": lambda shim: shim.fail(Call.OPEN | Call.RENAME, errno.EIO, name="journal"),
}
STALLS: dict[str, FaultOn] = {
    "syncs stall": lambda shim: shim.stall(SYNCS, name="journal"),
    "writes stall": lambda shim: shim.stall(WRITES, name="journal"),
}


class Senders:
    """Post from several threads, and keep what was answered when."""

    def __init__(self, ingest: Ingest, shim: Shim) -> None:
        self.acknowledged: dict[str, int] = {}
        """By id, how long the trace was once the answer had come."""
        self.statuses: set[int] = set()
        self.slowest_s = 0.0
        self._ingest = ingest
        self._shim = shim
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(60)

    def _send(self, thread: int) -> None:
        dice = Random(thread)
        with httpx.Client(timeout=60, trust_env=False) as client:
            for number in range(thread, 1_000_000, SENDERS):
                if self._stopping.wait(0.005):
                    return
                filler = b"x" * dice.choice((10, 3_000, 20_000))
                body = b'{"event": "call.ended", "data": {"call_id": "c-%d", "transcript": "%b"}}' % (number, filler)
                began = time.monotonic()
                answer = client.post(
                    f"{self._ingest.url}/webhooks/aisync", content=body, headers=signed("aisync", body)
                )
                took = time.monotonic() - began
                with self._lock:
                    self.statuses.add(answer.status_code)
                    self.slowest_s = max(self.slowest_s, took)
                    if answer.status_code == 200:
                        self.acknowledged[delivery_id("aisync", body)] = self._shim.written()


@pytest.mark.parametrize("fault", [*FAULTS, *STALLS])
def test_ingest_never_says_200_for_what_is_not_synced(folder: Path, fault: str) -> None:
    """It answers in time, is well again by itself, and what it said 200 for survives a power cut at any time after."""
    shim = Shim(folder / "data", folder / "shim")
    with ingesting(folder, environment=shim.environment) as ingest:
        senders = Senders(ingest, shim)
        with senders.at_work():
            until(lambda: len(senders.acknowledged) > 20)
            (FAULTS | STALLS)[fault](shim)
            threading.Event().wait(STALL_S if fault in STALLS else FAULT_S)
            given = shim.given
            shim.well()
            until(lambda: httpx.get(f"{ingest.url}/readyz", trust_env=False).status_code == 200, seconds=HEALTHY_S)
            before = len(senders.acknowledged)
            until(lambda: len(senders.acknowledged) > before + 20, seconds=HEALTHY_S)
        assert given > 0 or fault in {"nothing can be opened", "truncations fail"}
        assert senders.statuses <= {200, 503}
        assert senders.slowest_s < ANSWER_S
        kept = [delivery.id for delivery in ingest.deliveries()]
    assert len(kept) == len(set(kept))
    assert senders.acknowledged.keys() <= set(kept)
    _check_power_cuts(folder, shim, senders.acknowledged)


def _check_power_cuts(folder: Path, shim: Shim, acknowledged: dict[str, int]) -> None:
    """Cut the power at some instants; all that was acknowledged by then has to be there."""
    entries = read_trace(shim.trace)
    cuts = {len(entries) * part // 12 for part in range(1, 13)}
    disk = Disk()
    for number, entry in enumerate(entries, 1):
        disk.feed(entry)
        if number in cuts:
            place = folder / "cut"
            place.mkdir()
            for name, content in disk.cut(SURVIVALS[0], Random(number)).items():
                if name.startswith("journal.sqlite") and not name.endswith(("-shm", ".lock")):
                    (place / name).write_bytes(content)
            reader = JournalReader(place / "journal.sqlite")
            found = {one.id for one in reader.read(0, rows=1_000_000, bytes_max=1 << 40) if isinstance(one, Delivery)}
            reader.close()
            gone = {one for one, written in acknowledged.items() if written <= entry.end} - found
            assert not gone, f"{len(gone)} acknowledged deliveries are gone after a cut at entry {number}"
            shutil.rmtree(place)


def test_a_full_disk_refuses_and_recovers_once_there_is_room(folder: Path) -> None:
    """A file system of 3 MB in memory: 503 while it is full, 200 again when as much is free as the log is long."""
    disk = folder / "data"
    disk.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("A really full disk needs the right to mount one: run this test as root.")
    try:
        (disk / "ballast").write_bytes(bytes(7 << 18))
        with ingesting(folder) as ingest:
            acknowledged, status, number = set(), 200, 0
            while status == 200:
                body = b'{"event": "call.ended", "data": {"call_id": "c-%d", "x": "%b"}}' % (number, b"x" * 30_000)
                status = ingest.post_signed("aisync", body).status_code
                acknowledged |= {delivery_id("aisync", body)} if status == 200 else set()
                number += 1
                assert number < 1_000
            assert status == 503
            (disk / "ballast").unlink()
            until(lambda: httpx.get(f"{ingest.url}/readyz", trust_env=False).status_code == 200, seconds=HEALTHY_S)
            assert ingest.post_signed("aisync", b'{"event": "call.ended", "data": {"call_id": "z"}}').status_code == 200
            assert acknowledged <= {delivery.id for delivery in ingest.deliveries()}
    finally:
        subprocess.run(["umount", str(disk)], check=True)
