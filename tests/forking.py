"""Processes that begin as `calltally` does, but for the second that its imports take.

They are forked from one that has imported everything and done nothing yet; there is one of it in a run of the tests.
"""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.context
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_IMPORTED = (
    "tests.command", "tests.faults.cast", "cli.main", "cli.check", "cli.checks.sources", "cli.logs", "cli.owner",
    "cli.relay", "cli.supervised", "cli.worker_process", "analytics.client", "analytics.extract", "analytics.query",
    "analytics.server", "analytics.store", "dashboard.report", "ingest.quarantine", "ingest.relay", "ingest.serve",
    "streams.faust_app", "streams.worker", "statsmodels.stats.proportion", "rich.table", "rich.progress", "tomlkit",
    "xlsxwriter", "vl_convert", "pyarrow.parquet",
)  # fmt: skip


class Surroundings(NamedTuple):
    """What a process finds when it begins."""

    folder: Path
    environ: Mapping[str, str]
    stdin: Path
    stdout: Path
    stderr: Path


class Calltally:
    """`calltally` at work, told and asked as any process of `subprocess` is."""

    def __init__(self, folder: Path, words: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._words = words
        log.touch()
        self._process = forked(run_calltally, Surroundings(folder, environ, Path(os.devnull), log, log), words)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int:
        """Its exit code; raises subprocess.TimeoutExpired."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired([*self._words], seconds)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)


def forked(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """A process that is started on it; it ends with this one."""
    process = _forks().Process(target=_run, args=(target, arguments))
    process.daemon = True  # a run that fails must leave nobody behind
    process.start()
    return process


def run_calltally(surroundings: Surroundings, words: Sequence[str], prepare: Callable[[], None] = lambda: None) -> None:
    """Go on as `calltally` with these words, after `prepare`; to be called in a process that was forked."""
    import cli.main

    files = ((surroundings.stdin, os.O_RDONLY), (surroundings.stdout, _WRITE), (surroundings.stderr, _WRITE))
    for descriptor, (path, flags) in enumerate(files):
        os.dup2(os.open(path, flags, 0o600), descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(surroundings.folder)
    os.environ.clear()
    os.environ.update(surroundings.environ)
    prepare()
    sys.argv = ["calltally", *words]
    cli.main.run()


def _run(target: Callable[..., None], arguments: Sequence[object]) -> None:
    threading.Thread(target=_end_with_the_tests, name="end-with-the-tests", daemon=True).start()
    target(*arguments)


def _end_with_the_tests() -> None:
    """Those that are interrupted or killed tell nobody to stop."""
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.kill(os.getpid(), signal.SIGKILL)


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@functools.cache
def _forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    return context
