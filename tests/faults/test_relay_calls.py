"""The relay on a disk that takes nothing: it publishes on, says what it cannot save, and saves it once it can."""

from __future__ import annotations

import errno
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.command import environment
from tests.faults.length import LONG
from tests.faults.preload import WRITES, Shim
from tests.kafka.reading import everything
from tests.kafka.relaying import Writing, webhooks, writing
from tests.kafka.workers import data_folder
from tests.waiting import until
from tools.kafka import broker
from tools.kafka.broker import Cluster

COUNT = 300
HEALTHY_S = 10.0
FAULT_S = 20.0 if LONG else 1.5
UNSAVED = "the relay's position cannot be saved"

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
FAULTS: dict[str, Callable[[Shim], None]] = {
    "no space to write": lambda shim: shim.fail(WRITES, errno.ENOSPC),
    "writes fail": lambda shim: shim.fail(WRITES, errno.EIO),
    "some writes fail": lambda shim: shim.fail(WRITES, errno.EIO, every=3),
    "writes are interrupted": lambda shim: shim.fail(WRITES, errno.EINTR, every=2),
    "writes are short": lambda shim: shim.shorten(WRITES),
}
KEEPS_FROM_SAVING = {"no space to write", "writes fail"}


@pytest.fixture(scope="module")
def own_cluster(kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with broker.cluster(tmp_path_factory.mktemp("kafka")) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS if LONG else sorted(KEEPS_FROM_SAVING))
def test_a_position_that_cannot_be_saved_costs_repeats_only(own_cluster: Cluster, folder: Path, fault: str) -> None:
    """Published all the while; saved within seconds of the end; and what is published after a kill has no gap."""
    shim = Shim(folder / "data", folder / "shim")
    data_folder(folder, own_cluster.bootstrap)
    with writing(folder) as journal:
        with _relay(folder, shim):
            journal.append(webhooks(COUNT))
            until(lambda: _saved(journal) == COUNT, lambda: _log(folder))
            FAULTS[fault](shim)
            journal.append(webhooks(COUNT, seed=2))
            threading.Event().wait(FAULT_S)
            until(lambda: len(_published(own_cluster, journal)) >= 2 * COUNT, lambda: _log(folder))
            given = shim.given
            shim.well()
            until(lambda: _saved(journal) == 2 * COUNT, lambda: _log(folder), seconds=HEALTHY_S)
            journal.append(webhooks(COUNT, seed=3))
        with _relay(folder, shim):  # the one before was killed
            until(lambda: _saved(journal) == 3 * COUNT, lambda: _log(folder))
        ours = _published(own_cluster, journal)

    assert given > 0
    assert ours == journal.positions()
    assert "Traceback" not in _log(folder), _log(folder)
    if fault in KEEPS_FROM_SAVING:
        assert _log(folder).count(UNSAVED) == 1, _log(folder)


@contextmanager
def _relay(folder: Path, shim: Shim) -> Iterator[None]:
    """A relay as a process under the shim, killed at the end."""
    with (folder / "relay.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "relay"], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=log, env=environment(shim.environment),
        )  # fmt: skip
    try:
        yield
        assert process.poll() is None, _log(folder)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _published(cluster: Cluster, journal: Writing) -> set[int]:
    """The positions of this journal that are in the topic."""
    ours = journal.journal_id.encode()
    return {read.position for read in everything(cluster.bootstrap) if ours in read.headers.values()}


def _saved(journal: Writing) -> int:
    """The position that a relay which starts now would go on from."""
    with closing(sqlite3.connect(f"file:{journal.path}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT coalesce(max(position), 0) FROM cursors").fetchone()
    return int(found[0])


def _log(folder: Path) -> str:
    return (folder / "relay.log").read_text()
