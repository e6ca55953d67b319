"""Brokers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka import fausting
from tests.kafka.reading import delete_topics
from tools.kafka import broker
from tools.kafka.broker import Cluster


@pytest.fixture(scope="package")
def shared_cluster(kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker for all tests that do it no harm."""
    with broker.cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The shared broker, without topics."""
    delete_topics(shared_cluster.bootstrap)
    return shared_cluster


@pytest.fixture
def way(cluster: Cluster, tmp_path: Path) -> Iterator[fausting.Way]:
    """From a journal through the shared broker to a worker."""
    with fausting.way(tmp_path, cluster) as made:
        yield made


@pytest.fixture
def own_cluster(kafka: None, tmp_path: Path) -> Iterator[Cluster]:
    """A broker of the test's own, to be broken."""
    with broker.cluster(tmp_path / "kafka") as cluster:
        yield cluster
