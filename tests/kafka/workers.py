"""Workers of either kind as processes of their own, watched only through what they show to everybody."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

from analytics.client import Client
from calls.errors import QueryError
from calls.settings import Settings, load
from tests.command import environment, settings_file
from tests.forking import Calltally
from tests.kafka.relaying import DEADLINE_S
from tests.waiting import until
from tools.ports import free_ports


def data_folder(folder: Path, bootstrap: str = "", **more: object) -> Settings:
    """A folder with a calltally.toml whose ports are free; the settings as a process there reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'kafka_bootstrap_servers = "{bootstrap}"'] if bootstrap else []
    lines += [f"{name} = {value!r}" for name, value in more.items()]
    settings_file(folder, ports=free_ports(3), more="\n".join(lines))
    return load(folder, {})


class WorkerProcess:
    """`calltally worker` in a folder, killed at the end of a `with` where it still runs."""

    def __init__(self, folder: Path, *words: str, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._client: Client | None = None
        self._environ = environ or {}
        self.log = folder / "worker.log"
        self.process = Calltally(folder, ["worker", *words], environment(environ), self.log)

    def query(self, text: str) -> pa.Table | None:
        """What its SQL endpoint answers; None while it does not."""
        assert self.process.poll() is None, f"the worker ended: {self.log.read_text()[-3000:]}"
        try:
            if self._client is None:
                self._client = Client.of(load(self.folder, self._environ))
            return self._client.query(text)
        except QueryError as error:
            if error.code not in ("unreachable", "timeout", "busy"):
                raise
            return None

    def count(self, text: str) -> int:
        """The number that a query gives; -1 while there is no answer."""
        found = self.query(text)
        return -1 if found is None else int(found.column(0)[0].as_py())

    def rows(self) -> int:
        """How many journalled things are applied: each has its row."""
        return self.count("SELECT count(*) FROM deliveries")

    def wait_rows(self, enough: Callable[[int], bool], deadline_s: float = DEADLINE_S) -> None:
        until(
            lambda: enough(self.rows()),
            lambda: f"{self.rows()} rows: {self.log.read_text()[-3000:]}",
            seconds=deadline_s,
        )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self._client is not None:
            self._client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
            raise

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)
