"""`calltally up` as people use it: real processes, real signals, real HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from analytics.access import read_token
from analytics.client import Client
from tools.ports import free_ports

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "cli.main"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("CALLTALLY_")}
AFTER_END_S = 20.0
SOURCES = '[sources.inboundflow]\nsecrets = ["a-test-secret"]\n'


class Running:
    """A running `calltally up` (or what starts one), its ports and its log."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        data: Path,
        ports: list[int],
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self.ingest_port, self.sql_port, self.dashboard_port = ports
        self.data = data
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait for a condition; not much longer once the process has ended, since nothing more comes of it then."""
        deadline, ended = time.monotonic() + seconds, 0.0
        while time.monotonic() < deadline:
            if condition():
                return
            if self.process.poll() is not None:
                ended = ended or time.monotonic()
                deadline = min(deadline, ended + AFTER_END_S)
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {what}\n" + "\n".join(self.lines[-40:]))

    def ready(self, port: int) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def calls(self) -> int:
        token = read_token(self.data / "sql.token")
        if token is None or not self.ready(self.sql_port):
            return 0
        client = Client(f"http://127.0.0.1:{self.sql_port}", token)
        try:
            count = client.query("SELECT count(*) AS n FROM calls").to_pylist()[0]["n"]
        finally:
            client.close()
        return int(count)

    def child(self, name: str) -> psutil.Process:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.is_running() and name in child.cmdline():
                return child
        raise AssertionError(f"no process '{name}'")

    def stop(self) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(40)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line.rstrip())


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    """`calltally up` without the dashboard, with one source."""
    ports = free_ports(3)
    (tmp_path / "calltally.toml").write_text(f"ingest_port = {ports[0]}\nsql_port = {ports[1]}\n{SOURCES}")
    running = Running([*COMMAND, "up", "--no-dashboard"], tmp_path, tmp_path / "data", ports)
    try:
        running.until(lambda: running.ready(ports[0]) and running.ready(ports[1]), "both processes ready")
        yield running
    finally:
        running.stop()


def send(running: Running, count: int) -> None:
    command = [*COMMAND, "send", "inboundflow", "--count", str(count), "--event", "call.completed"]
    subprocess.run(command, cwd=running.data.parent, env=ENVIRONMENT, check=True, capture_output=True, timeout=60)


def test_what_is_sent_can_be_asked_for(up: Running) -> None:
    """`calltally send` shows up through the SQL endpoint and in `calltally sql`."""
    send(up, 5)
    up.until(lambda: up.calls() == 5, "five calls in the store")

    asked = [*COMMAND, "sql", "SELECT count(*) AS calls FROM calls", "--format", "json"]
    answer = subprocess.run(
        asked, cwd=up.data.parent, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=60
    )

    assert json.loads(answer.stdout) == [{"calls": 5}]


def test_a_killed_process_is_started_again_and_nothing_is_lost(up: Running) -> None:
    """SIGKILL of worker and ingest: both come back, and every acknowledged call is counted once."""
    send(up, 5)
    for name, port in (("worker", up.sql_port), ("ingest", up.ingest_port)):
        up.child(name).kill()
        up.until(lambda: f"{name} was killed" in "\n".join(up.lines), f"{name} is gone")  # noqa: B023
        up.until(partial(up.ready, port), f"{name} is back")
        send(up, 5)

    up.until(lambda: up.calls() == 15, "fifteen calls in the store")


def test_an_interrupt_stops_all_in_order(up: Running) -> None:
    """Ctrl-C ends every process with exit code 0 and leaves none behind."""
    family = psutil.Process(up.process.pid).children(recursive=True)

    assert up.stop() == 0
    up.until(lambda: not any(child.is_running() for child in family), "no process is left", 10)


def test_processes_end_when_their_supervisor_is_killed(up: Running) -> None:
    """After a SIGKILL of `calltally up` its processes stop by themselves and free their ports."""
    family = psutil.Process(up.process.pid).children(recursive=True)

    up.process.kill()
    up.process.wait(10)

    up.until(lambda: not any(child.is_running() for child in family), "no process is left", 20)


def test_a_source_without_a_secret_is_wrong_usage(tmp_path: Path) -> None:
    """`up` exits 2 with one sentence, before anything starts."""
    (tmp_path / "calltally.toml").write_text("[sources.synthflow]\n")
    done = subprocess.run(
        [*COMMAND, "up"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert "synthflow" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_one_sentence(up: Running, tmp_path: Path) -> None:
    """A second `up` on the same ports exits 1 and names the port and the setting."""
    done = subprocess.run(
        [*COMMAND, "up", "--no-dashboard"], cwd=up.data.parent, env=ENVIRONMENT, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert str(up.ingest_port) in done.stderr
    assert "ingest_port" in done.stderr


@pytest.mark.demo
def test_make_demo_shows_made_up_calls_of_every_platform(tmp_path: Path) -> None:
    """`make demo` fills its own folder with signed calls of all four platforms, and they keep coming."""
    ports = free_ports(3)
    data = tmp_path / "demo-data"
    options = f"--ingest-port {ports[0]} --sql-port {ports[1]} --dashboard-port {ports[2]} --demo-dir {data}"
    running = Running(["make", "demo", f"UP={options}"], ROOT, data, ports)
    try:
        running.until(lambda: running.calls() > 1_500, "the history is in the store", 120)
        before = running.calls()
        running.until(lambda: running.calls() > before, "live calls follow", 60)
        client = Client(f"http://127.0.0.1:{ports[1]}", read_token(running.data / "sql.token") or "")
        rows = client.query("SELECT provider, count(*) AS n FROM calls GROUP BY ALL").to_pylist()
        letters = client.query("SELECT count(*) AS n FROM dead_letters").to_pylist()
        page = httpx.get(f"http://127.0.0.1:{ports[2]}/", timeout=10)

        assert {row["provider"] for row in rows} == {"aisync", "callsync", "inboundflow", "synthflow"}
        assert letters == [{"n": 0}]
        assert page.status_code == 200
        assert any(f"http://127.0.0.1:{ports[2]}" in line for line in running.lines)
    finally:
        running.stop()
