"""The processes under test: started in no time, watched, killed, and started again.

What they do is exactly what `calltally ingest` and `calltally worker` do.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Sequence
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import psutil

from calls import relay_report
from tests.faults import planted, points
from tests.faults.platforms import SECRETS
from tests.forking import Surroundings, forked, run_calltally
from tests.waiting import until
from tools.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE_S = 60.0
SMALL_WAL_BYTES = 64 << 10
"""Logs are checkpointed at this length, so that short runs come by there too."""
RECORD_BYTES = 256 << 10
PORTS = ("ingest_port", "sql_port")


class Folder:
    """A folder with settings and data of its own."""

    def __init__(self, path: Path, *, kafka: str = "") -> None:
        """`kafka` is where the brokers are; records are then as small as they may be, so that some bodies are cut."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} = {port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
        if kafka:
            lines += [f'kafka_bootstrap_servers = "{kafka}"', f"kafka_record_max_bytes = {RECORD_BYTES}"]
        for source, secret in SECRETS.items():
            lines += [f"[sources.{source}]", f'secrets = ["{secret}"]']
        (path / "calltally.toml").write_text("\n".join(lines) + "\n")
        (path / "calltally.toml").chmod(0o600)
        settings = tomllib.loads("\n".join(lines))
        self.ports = {"ingest": settings["ingest_port"], "worker": settings["sql_port"]}
        self.journal = path / "data" / "journal.sqlite"
        self.ledger = path / "ledger.jsonl"
        self.snapshot = path / "snapshot.duckdb"

    def listen(self) -> socket.socket:
        """Take the place of a supervisor: hold the socket at which webhooks arrive."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.ports["ingest"]))
        listener.listen(4096)
        return listener

    def log_lines(self) -> list[str]:
        return [line for log in sorted(self.path.glob("*.log")) for line in log.read_text().splitlines()]


class Actor:
    """One process of Calltally; started again as often as it is killed."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        *words: str,
        fault: str | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        """`words` are the command's, its name alone where there are none; `fault` is a planted one.

        `listener` is handed to every process, as a supervisor does.
        """
        self.name = name
        self.title = " ".join(words or (name,))
        """What it is; several may be the same under different names."""
        self._listener = listener
        self._folder = folder
        self._words = words or (name,)
        self._fault = fault
        self._process: BaseProcess | None = None

    def start(self, point: points.Point | None = None, nth: int = 1) -> None:
        """Start it; it dies at the nth time it comes by `point`."""
        log = self._folder.path / f"{self.name}.log"
        given = (self._folder.path, self._words, environment(), log, point, nth, self._fault, self._listener)
        self._process = forked(_perform, *given)

    def await_ready(self) -> None:
        """Return once it is ready to do its work."""
        until(lambda: self.ready() or not self.alive, f"{self.name} is ready")
        assert self.alive, f"{self.name} ended: {self._folder.log_lines()[-5:]}"

    def ready(self) -> bool:
        if self.title == "relay":
            # It listens nowhere.
            said = relay_report.read(self._folder.journal.parent)
            return said is not None and said.running and said.fault is None and said.process == self._pid
        return _answers(self._folder.ports[self.title.split()[0]])

    @property
    def _pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return None if self._process is None else self._process.exitcode

    def dies_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""
        assert self._process is not None
        return bool(wait_for_any([self._process.sentinel], seconds))

    def kill(self) -> int:
        """End it by SIGKILL if it still lives; its exit code."""
        assert self._process is not None
        self._process.kill()
        self._process.join(DEADLINE_S)
        code = self._process.exitcode
        assert code is not None
        return code

    def stop(self) -> None:
        """End it in order."""
        if self._process is None or not self._process.is_alive():
            return
        self._process.terminate()
        self._process.join(20)
        assert self._process.exitcode is not None, f"{self.name} does not stop"


COMMAND: Final = (sys.executable, "-m", "cli.main", "up", "--no-dashboard")


class Up:
    """`calltally up` as a process of its own, started again when it is killed."""

    def __init__(self, folder: Folder, *words: str) -> None:
        self._folder = folder
        self._words = words
        self._log = folder.path / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Up:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(40) == 0, self.said()[-3000:]

    def await_ready(self) -> None:
        """Return once ingest and worker do their work, starting `up` again where it ended."""
        until(lambda: self._revived() and all(_answers(port) for port in self._folder.ports.values()), "up is ready")

    def renew(self) -> None:
        """Make every process begin anew, and return once they have."""
        before = self.said().count(_RENEWED)
        self.signal(signal.SIGHUP)
        until(lambda: self.said().count(_RENEWED) > before, "every process has begun anew")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def said(self) -> str:
        """Its log, and that of all its processes."""
        return self._log.read_text()

    def pid_of(self, name: str) -> int:
        """The process of `up` itself, or the first one of a child."""
        assert self._process is not None
        if name == "up":
            return self._process.pid
        children = psutil.Process(self._process.pid).children()
        return next(child.pid for child in children if name in child.cmdline())

    def kill(self, name: str) -> None:
        """SIGKILL one of `ingest`, `worker`, `up`; nothing where it is not there at this moment."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            up = psutil.Process(self._process.pid)
            found = [up] if name == "up" else [child for child in up.children() if name in child.cmdline()]
            for process in found:
                process.kill()

    def _revived(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            # Killed, or started again before those it had left behind had freed their ports.
            self._start()
        return True

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, *self._words], cwd=self._folder.path, env=environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip


_RENEWED = "every process has begun anew"


def listening(folder: Folder) -> bool:
    """Whether somebody takes webhooks."""
    return _answers(folder.ports["ingest"])


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def command(folder: Folder, *words: str) -> tuple[int, str]:
    """Run a `calltally` command there; its exit code and all it said."""
    log = folder.path / f"{words[0]}.said"
    log.unlink(missing_ok=True)
    process = forked(_perform, folder.path, words, environment(), log)
    process.join(DEADLINE_S)
    assert process.exitcode is not None, f"{words} did not end"
    return process.exitcode, log.read_text()


def ask(folder: Folder, query: str) -> list[dict[str, object]]:
    """Rows of the running worker."""
    token = (folder.path / "data" / "sql.token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{folder.ports['worker']}/sql",
        data=json.dumps({"sql": query, "format": "json"}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        rows: list[dict[str, object]] = json.load(answer)["rows"]
        return rows


def _perform(
    folder: Path,
    words: Sequence[str],
    environment: dict[str, str],
    log: Path,
    point: points.Point | None = None,
    nth: int = 1,
    fault: str | None = None,
    listener: socket.socket | None = None,
) -> None:
    """What runs in the new process."""
    import analytics.store
    import calls.journal

    def prepare() -> None:
        calls.journal.WAL_QUIET_BYTES = SMALL_WAL_BYTES
        analytics.store.CHECKPOINT_WAL_BYTES = SMALL_WAL_BYTES  # type: ignore[misc]
        if fault is not None:
            planted.ALL[fault].plant()
        if point is not None:
            points.arm(point, nth)

    handed = [] if listener is None else ["--listener", str(listener.detach())]
    run_calltally(Surroundings(folder, environment, Path(os.devnull), log, log), [*words, *handed], prepare)


def environment() -> dict[str, str]:
    """That of this process, without what it says about Calltally."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLTALLY_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
