"""`calltally rebuild` where Kafka fills the store: a new one is filled from the topics, or nothing is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import TopicPartition

from calls.settings import Settings
from tests.command import run
from tests.kafka.reading import DELIVERIES, administrating
from tests.kafka.relaying import published, relaying, settings, webhooks, writing
from tests.kafka.workers import WorkerProcess, data_folder
from tools.kafka.broker import Cluster

pytestmark = pytest.mark.kafka

WEBHOOKS = 50


def applied(folder: Path) -> None:
    """Run a worker there until it has applied all, and stop it."""
    worker = WorkerProcess(folder, "--kafka")
    try:
        worker.wait_rows(lambda rows: rows == WEBHOOKS)
    finally:
        worker.end()


@pytest.fixture
def filled(cluster: Cluster, tmp_path: Path) -> Settings:
    """A store that a worker has filled from the topics; the worker is gone."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(WEBHOOKS))
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, WEBHOOKS)
    ours = data_folder(tmp_path / "worker", cluster.bootstrap)
    applied(tmp_path / "worker")
    return ours


def test_the_next_worker_fills_a_new_store(filled: Settings, tmp_path: Path) -> None:
    """The old one stays beside it."""
    done = run(tmp_path / "worker", "rebuild")
    assert done.returncode == 0, done.stderr
    assert b"fills a new one from Kafka" in done.stderr
    assert not filled.store_path.exists()
    assert len(list(filled.data_dir.glob("store.duckdb.store_mismatch-*Z"))) == 1
    applied(tmp_path / "worker")


def test_nothing_is_moved_where_kafka_lacks_the_beginning(filled: Settings, cluster: Cluster, tmp_path: Path) -> None:
    """A store made again would lack older calls, so the person is told what to do instead."""
    with administrating(cluster.bootstrap) as client:
        client.delete_records({TopicPartition(DELIVERIES, number): -1 for number in range(4)})
    done = run(tmp_path / "worker", "rebuild")
    assert done.returncode == 1
    assert b"Nothing was moved" in done.stderr
    assert filled.store_path.exists()


def test_a_running_worker_keeps_its_store(filled: Settings, tmp_path: Path) -> None:
    """It has to be stopped first, and the message says so."""
    worker = WorkerProcess(tmp_path / "worker", "--kafka")
    try:
        worker.wait_rows(lambda rows: rows == WEBHOOKS)
        done = run(tmp_path / "worker", "rebuild")
        assert done.returncode == 1
        assert b"stop it first" in done.stderr
        assert filled.store_path.exists()
    finally:
        worker.end()
