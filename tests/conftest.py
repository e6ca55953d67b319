"""What tests of several folders need: without Java or Maven those with a real Kafka are left out with one line."""

from __future__ import annotations

import logging
import os

import pytest

from tools.kafka import broker

_LEFT_OUT = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without Java or Maven one line says so, instead of one a test."""
    missing = broker.missing()
    if missing is None or os.environ.get("CI") == "true":
        return
    ours = [item for item in items if item.get_closest_marker("kafka") is not None]
    if ours:
        items[:] = [item for item in items if item not in set(ours)]
        config.hook.pytest_deselected(items=ours)
        config.stash[_LEFT_OUT] = f"{len(ours)} tests with a real Kafka were skipped: {missing}"


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
