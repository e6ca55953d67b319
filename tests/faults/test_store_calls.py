"""The worker over a disk that refuses, tears and stalls under its store: no wrong number, no hang, and well again."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from analytics.store import Store
from calls.journal import Append, Journal
from calls.model import Rules
from streams.rebuild import rebuild
from tests.command import environment
from tests.faults.length import LONG
from tests.faults.preload import SYNCS, WRITES, Call, Shim
from tests.journalling import Answers
from tests.storing import everything
from tests.test_worker import webhook
from tests.waiting import until
from tools.ports import free_ports

HEALTHY_S = 10.0
TIMEOUT_S = 2.0
"""A query's deadline here."""
SPARE_S = 3.0
"""How much later its answer may come on a machine that is busy with other tests."""
FAULT_S = 20.0 if LONG else 1.5
PAUSE_S = 0.01
EVENTS = 3
"""Of every call."""
ENOUGH = 40
TOKEN = "w6Xq1rLm8vZt3bHk"
STUCK_EXIT = 70

NUMBERS = """
SELECT (SELECT sum(position)::BIGINT FROM positions) AS applied, (SELECT count(*) FROM deliveries) AS deliveries,
    (SELECT count(*) FROM calls) AS calls, (SELECT sum(calls)::BIGINT FROM rollup_calls) AS counted,
    (SELECT count(*) FROM call_events) AS events
"""

pytestmark = pytest.mark.timeout(600 if LONG else 120)
FaultOn = Callable[[Shim], None]
STORE = "store.duckdb"
FAULTS: dict[str, FaultOn] = {
    "no space to write": lambda shim: shim.fail(WRITES, errno.ENOSPC, name=STORE),
    "writes fail": lambda shim: shim.fail(WRITES, errno.EIO, name=STORE),
    "some writes fail": lambda shim: shim.fail(WRITES, errno.EIO, name=STORE, every=5),
    "writes are interrupted": lambda shim: shim.fail(WRITES, errno.EINTR, name=STORE, every=2),
    "writes are short": lambda shim: shim.shorten(WRITES, name=STORE),
    "syncs fail": lambda shim: shim.fail(SYNCS, errno.EIO, name=STORE),
    "some syncs fail": lambda shim: shim.fail(SYNCS, errno.EIO, name=STORE, every=3),
    "syncs find no space": lambda shim: shim.fail(SYNCS, errno.ENOSPC, name=STORE),
    "syncs are interrupted": lambda shim: shim.fail(SYNCS, errno.EINTR, name=STORE, every=2),
    "truncations fail": lambda shim: shim.fail(Call.FTRUNCATE, errno.EIO, name=STORE),
    "nothing can be opened": lambda shim: shim.fail(Call.OPEN | Call.RENAME, errno.EIO, name=STORE),
    "syncs stall": lambda shim: shim.stall(SYNCS, name=STORE),
    "writes stall": lambda shim: shim.stall(WRITES, name=STORE),
}
STOPS_COMMITS = {"no space to write", "writes fail", "syncs fail", "syncs find no space"}
"""Then nothing can be committed, and `/readyz` has to say why."""
SHORT = {"no space to write", "some writes fail", "writes are short", "syncs fail", "syncs stall"}
MAY_BE_UNSEEN = {"truncations fail", "nothing can be opened"}
"""A healthy store does neither."""


class Work:
    """A worker as a process under the shim; started again where it ends itself, as its supervisor would do."""

    def __init__(self, folder: Path, shim: Shim) -> None:
        self.folder = folder
        self.ended: list[int] = []
        """With what it ended itself."""
        self._shim = shim
        (self.port,) = free_ports(1)
        (folder / "calltally.toml").write_text(
            f'sql_port = {self.port}\nsql_token = "{TOKEN}"\nsql_timeout_s = {TIMEOUT_S:g}\n'
        )
        (folder / "calltally.toml").chmod(0o600)
        self._start()

    def _start(self) -> None:
        with (self.folder / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "worker"], cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log,
                env=environment(self._shim.environment),
            )  # fmt: skip

    def look_after(self) -> None:
        """Do what the supervisor does."""
        code = self._process.poll()
        if code is not None:
            self.ended.append(code)
            assert code == STUCK_EXIT, f"the worker ended with {code}: {self.log()}"
            self._start()

    def ready(self) -> tuple[bool, str]:
        """Whether it is, or why not."""
        self.look_after()
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=TIMEOUT_S + SPARE_S, trust_env=False)
        except httpx.TransportError as error:
            return False, f"{type(error).__name__}: {error}"
        return answer.status_code == 200, str(answer.json().get("reason"))

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()


class Asker:
    """Asks for numbers that must fit together, all the time."""

    def __init__(self, work: Work) -> None:
        self.wrong: list[dict[str, int]] = []
        self.applied = 0
        """The newest number of applied records that an answer told."""
        self.answers = 0
        self.slowest_s = 0.0
        self.other: set[str] = set()
        """What was answered instead, by status and code."""
        self._work = work

    def ask(self, client: httpx.Client) -> None:
        began = time.monotonic()
        try:
            answer = client.post(
                f"http://127.0.0.1:{self._work.port}/sql",
                json={"sql": NUMBERS, "format": "json"}, headers={"Authorization": f"Bearer {TOKEN}"},
            )  # fmt: skip
        except httpx.TransportError as error:
            if isinstance(error, httpx.TimeoutException):
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.other.add(type(error).__name__)
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if answer.status_code != 200:
            self.other.add(f"{answer.status_code} {answer.text}")
            return
        (told,) = answer.json()["rows"]
        applied = told["applied"] or 0
        calls = -(-applied // EVENTS)
        if (told["deliveries"], told["calls"], told["counted"] or 0, told["events"]) != (
            applied,
            calls,
            calls,
            applied,
        ):
            self.wrong.append(told)
        self.applied = max(self.applied, applied)
        self.answers += 1


class Load:
    """A journal that grows, and somebody who asks."""

    def __init__(self, folder: Path, asker: Asker) -> None:
        self.written = 0
        self._answers = Answers()
        self._journal = Journal(folder / "data" / "journal.sqlite", on_committed=self._answers)
        self._asker = asker
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._write), *(threading.Thread(target=self._ask) for _ in range(2))]

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
            self._answers.wait_durable(self.written)
            self._journal.close()

    def _write(self) -> None:
        while not self._stopping.wait(PAUSE_S):
            self._journal.append(Append(webhook(self.written, call_id=f"c{self.written // EVENTS}")))
            self.written += 1

    def _ask(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._stopping.wait(PAUSE_S):
                self._asker.ask(client)


@pytest.mark.parametrize("fault", FAULTS if LONG else [fault for fault in FAULTS if fault in SHORT])
def test_no_number_is_wrong_and_the_worker_is_well_again(folder: Path, fault: str) -> None:
    """Each answer fits to a prefix of the journal, comes in time, and says why there is none; nothing is lost after."""
    shim = Shim(folder / "data", folder / "shim")
    work = Work(folder, shim)
    asker = Asker(work)
    load = Load(folder, asker)
    try:
        with load.at_work():
            until(lambda: work.ready()[0] and asker.applied > ENOUGH, lambda: f"{work.ready()} {work.log()}")
            FAULTS[fault](shim)
            reasons = _reasons_while_it_lasts(work)
            given = shim.given
            shim.well()
            until(lambda: work.ready()[0], lambda: f"{work.ready()} {work.log()}", seconds=HEALTHY_S)
            reached = load.written
            until(lambda: asker.applied >= reached, lambda: f"{asker.applied} of {reached} {work.log()}")
    finally:
        code = work.stop()

    print(f"{fault}: {given} given, {asker.answers} answers, else {asker.other}, slowest {asker.slowest_s:.2f} s, "
          f"reasons {reasons}, ended {work.ended}")  # fmt: skip
    assert given > 0 or fault in MAY_BE_UNSEEN
    assert asker.wrong == []
    assert asker.slowest_s < TIMEOUT_S + SPARE_S
    assert all(said.startswith(("503 ", "504 ")) or " " not in said for said in asker.other), asker.other
    assert code == 0
    if fault in STOPS_COMMITS:
        assert any("store" in reason for reason in reasons), reasons
        assert _told(work), work.log()
    assert "Traceback" not in work.log(), work.log()
    _check(folder, load.written)


def _reasons_while_it_lasts(work: Work) -> set[str]:
    """What `/readyz` says is the matter."""
    reasons = set()
    end = time.monotonic() + FAULT_S
    while time.monotonic() < end:
        is_ready, why = work.ready()
        reasons |= set() if is_ready else {why}
        threading.Event().wait(0.05)
    return reasons


def _told(work: Work) -> bool:
    """Whether the log says what stands in the way."""
    return any("the worker waits" in line and "store" in line for line in work.log().splitlines())


def _check(folder: Path, written: int) -> None:
    """The store holds what one does that is made from the journal anew."""
    path = folder / "data" / STORE
    store = Store.open(path, rules=Rules())
    try:
        assert store.verify() == []
        found = everything(store)
    finally:
        store.close()
    assert len(found["deliveries"]) == written
    rebuild(folder / "data" / "journal.sqlite", path, Rules())
    again = Store.open(path, rules=Rules())
    try:
        assert everything(again) == found
    finally:
        again.close()
