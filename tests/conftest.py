"""What tests of several folders need, and how many run at once.

Without Java or Maven those with a real Kafka are left out with one line.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from tools.kafka import broker

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_LEFT_OUT = pytest.StashKey[str]()
_LEFT_OUT_KEY = "left out"
_WORKERS_MAX = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, since every other test waits for a process that it has started."""
    return min(_WORKERS_MAX, (os.cpu_count() or 1) + 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without Java or Maven one line says so, instead of one a test."""
    missing = broker.missing()
    if missing is None or os.environ.get("CI") == "true":
        return
    ours = [item for item in items if item.get_closest_marker("kafka") is not None]
    if ours:
        items[:] = [item for item in items if item not in set(ours)]
        config.hook.pytest_deselected(items=ours)
        said = f"{len(ours)} tests with a real Kafka were skipped: {missing}"
        config.stash[_LEFT_OUT] = said
        if hasattr(config, "workeroutput"):
            config.workeroutput[_LEFT_OUT_KEY] = said


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Where tests run in several processes, each of them collects, and only the one above them sums up."""
    told = getattr(node, "workeroutput", {})  # one that crashed has none
    if _LEFT_OUT_KEY in told:
        node.config.stash[_LEFT_OUT] = told[_LEFT_OUT_KEY]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(_LEFT_OUT, None)
    if left_out is not None:
        terminalreporter.write_line(left_out, yellow=True)


@pytest.fixture(scope="session")
def kafka() -> None:
    """Kafka itself, fetched once."""
    # The client tells of every attempt to connect, and of every fault that these tests make.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        broker.libraries()
    except broker.KafkaMissing as missing:
        pytest.fail(str(missing), pytrace=False)
