"""Brokers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from calls.records import Topic
from tests.kafka.reading import administrating
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
    with administrating(shared_cluster.bootstrap) as client:
        ours = [topic for topic in client.list_topics() if topic in set(Topic)]
        if ours:
            client.delete_topics(ours)
    return shared_cluster
