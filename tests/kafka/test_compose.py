"""The services of docker-compose.yml as plain processes: their commands, their environment, their health checks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from analytics.client import Client
from calls.errors import QueryError
from calls.settings import load_without_secrets
from dashboard.password import hashed
from tests.command import ROOT
from tests.composing import Service, services
from tools.kafka.broker import Cluster
from tools.ports import free_ports

pytestmark = pytest.mark.kafka

PASSWORD = "four words of a test"
DEADLINE_S = 90.0
GIVEN = {
    "CALLTALLY_SQL_TOKEN": "a token that only the tests know",
    "CALLTALLY_DASHBOARD_PASSWORD_HASH": hashed(PASSWORD),
    "CALLTALLY_SECRET_INBOUNDFLOW": "a secret of the tests",
}
OURS = ("ingest", "relay", "worker", "dashboard")


class Machine:
    """What an engine would do: volumes, names and ports of the services on this machine, and nothing else of it."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.services = services(GIVEN)
        self.folder = folder
        self.ports = dict(zip(("8000", "8001", "8501"), free_ports(3), strict=True))
        self._names = {"kafka:9092": bootstrap, "worker:8001": f"127.0.0.1:{self.ports['8001']}"}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, service: Service) -> dict[str, str]:
        """That of the file, with what the image sets, and where things are here."""
        told = {name: self._here(value) for name, value in service.environment.items()}
        remapped = {"CALLTALLY_INGEST_PORT": "8000", "CALLTALLY_SQL_PORT": "8001", "CALLTALLY_DASHBOARD_PORT": "8501"}
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(self._folder("home")),
            "CALLTALLY_DATA_DIR": str(self._folder(service.volumes["/data"])),
            **{name: str(self.ports[port]) for name, port in remapped.items()},
            **told,
        }

    def start(self, name: str) -> None:
        """As soon as what it depends on is well."""
        service = self.services[name]
        for needed, how in service.told.get("depends_on", {}).items():
            if needed in OURS and how["condition"] == "service_healthy":
                self.wait_healthy(needed)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *service.command], cwd=self._settings(service), stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, env=self.environment(service),
            )  # fmt: skip

    def wait_healthy(self, name: str) -> None:
        """Until its health check of the file says so."""
        service = self.services[name]
        kind, program, *words = service.told["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "calltally")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            done = self.run(name, *words)
            if done.returncode == 0:
                return
            said = done.stderr.decode() + (self.folder / f"{name}.log").read_text()[-3000:]
            assert self.processes[name].poll() is None, said
            assert time.monotonic() < deadline, said

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        """A command inside a service, as `docker compose exec` would run it."""
        service = self.services[name]
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *words], cwd=self._settings(service), env=self.environment(service),
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    def stop(self) -> dict[str, int]:
        """SIGTERM to all, as `docker compose down`; the exit codes."""
        for process in self.processes.values():
            process.terminate()
        codes = {}
        for name, process in self.processes.items():
            patience = float(str(self.services[name].told["stop_grace_period"]).removesuffix("s"))
            try:
                codes[name] = process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        return codes

    def _here(self, value: str) -> str:
        for name, place in self._names.items():
            value = value.replace(name, place)
        return value

    def _folder(self, volume: str) -> Path:
        path = self.folder / volume
        path.mkdir(exist_ok=True)
        return path

    def _settings(self, service: Service) -> Path:
        return self._folder("settings" if "/settings" in service.volumes else "empty")


@pytest.fixture
def machine(tmp_path: Path, cluster: Cluster) -> Iterator[Machine]:
    """All of ours running, each well by its own check."""
    made = Machine(tmp_path, cluster.bootstrap)
    try:
        for name in OURS:
            made.start(name)
        for name in OURS:
            made.wait_healthy(name)
        yield made
    finally:
        made.stop()


def test_a_webhook_goes_in_and_its_call_comes_out(machine: Machine) -> None:
    """Signed and posted to ingest, through Kafka, counted by the SQL that the dashboard asks; then all stop."""
    sent = machine.run("ingest", "send", "inboundflow", "--event", "call.completed", "--count", "3")
    assert sent.returncode == 0, sent.stderr.decode()

    settings = load_without_secrets(machine.folder / "empty", machine.environment(machine.services["dashboard"]))
    _wait_calls(Client.of(settings), 3)
    assert {path.name for path in (machine.folder / "store").iterdir()} >= {"store.duckdb"}
    assert not (machine.folder / "store" / "journal.sqlite").exists()

    _look(f"http://127.0.0.1:{machine.ports['8501']}")
    codes = machine.stop()
    assert {name: code for name, code in codes.items() if code not in (0, -15)} == {}


def _wait_calls(client: Client, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            found = client.query("SELECT count(*) AS n FROM calls").to_pylist()[0]["n"]
        except QueryError as error:
            found = error.message
        if found == count:
            client.close()
            return
        assert time.monotonic() < deadline, found


def _look(url: str) -> None:
    page: Mapping[str, str] = {"accept": "text/html"}
    with httpx.Client(base_url=url, trust_env=False) as browser:
        assert browser.get("/", headers=page).headers["location"] == "./sign-in"
        assert browser.get("/_stcore/host-config").status_code == 401
        signed_in = browser.post("/sign-in", data={"password": PASSWORD}, headers={"origin": url})
        assert signed_in.status_code == 303
        assert "Streamlit" in browser.get("/", headers=page).text
