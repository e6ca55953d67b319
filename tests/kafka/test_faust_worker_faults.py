"""What happens to a Kafka worker, its broker and its topics: nothing is lost, nothing counts twice, or it says why."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
from kafka import TopicPartition
from mode.threads import WorkerThread

from analytics.store import Batch, Store
from calls.errors import StoreUnavailable
from tests.faults.length import LONG
from tests.kafka import fausting
from tests.kafka.fausting import Way, Working, assert_once, working
from tests.kafka.reading import DELIVERIES, NOTICES, administrating
from tests.kafka.relaying import published, webhooks
from tests.kafka.test_relay_faults import steady_traffic
from tests.kafka.workers import WorkerProcess, data_folder
from tests.waiting import until
from tools.kafka.broker import Cluster

pytestmark = pytest.mark.kafka


@pytest.fixture
def own_way(own_cluster: Cluster, tmp_path: Path) -> Iterator[Way]:
    """The way through a broker that is to be broken."""
    with fausting.way(tmp_path, own_cluster) as made:
        yield made


@pytest.mark.parametrize("seed", range(4 if LONG else 1))
def test_a_worker_killed_at_any_moment_loses_nothing(way: Way, seed: int) -> None:
    """Killed while it applies, three times and more; what is published meanwhile and before is there once."""
    dice = Random(seed)
    folder = way.folder / "worker"
    ours = data_folder(folder, way.bootstrap)
    with way.relaying() as relay:
        with steady_traffic(way.journal, 1_000):
            for _ in range(8 if LONG else 3):
                worker = WorkerProcess(folder, "--kafka")
                rows = worker.rows()
                worker.wait_rows(lambda now, before=rows: now > max(before, 0))  # type: ignore[misc]
                threading.Event().wait(dice.uniform(0, 0.7))
                assert worker.end(signal.SIGKILL) == -signal.SIGKILL
        published(relay, len(way.journal.records))
        with WorkerProcess(folder, "--kafka") as last:
            last.wait_rows(lambda now: now >= len(way.journal.records))
            assert last.end(signal.SIGTERM) == 0
    store = Store.open(ours.store_path, rules=ours.rules)
    try:
        assert_once(store, way.journal.positions())
    finally:
        store.close()


def test_a_killed_worker_is_back_within_seconds(way: Way) -> None:
    """Its successor does not wait for the end of its session: that would be six seconds and, by default, sixty."""
    folder = way.folder / "worker"
    data_folder(folder, way.bootstrap)
    way.publish(webhooks(100))
    with WorkerProcess(folder, "--kafka") as worker:
        worker.wait_rows(lambda rows: rows == 100)
        worker.end(signal.SIGKILL)
    killed = time.monotonic()
    way.publish(webhooks(100, seed=2))
    with WorkerProcess(folder, "--kafka") as worker:
        worker.wait_rows(lambda rows: rows == 200)
        print(f"\nfrom SIGKILL to the next committed row seen: {time.monotonic() - killed:.1f} s")
        stopped = time.monotonic()
        assert worker.end(signal.SIGTERM) == 0
        print(f"from SIGTERM to the end: {time.monotonic() - stopped:.1f} s")


def test_a_worker_shows_its_lag_and_opens_no_port_of_fausts(way: Way) -> None:
    """Ready, metrics with a lag for each partition, and only its own SQL port listens."""
    import psutil

    folder = way.folder / "worker"
    ours = data_folder(folder, way.bootstrap)
    way.publish(webhooks(100))
    with WorkerProcess(folder, "--kafka") as worker:
        worker.wait_rows(lambda rows: rows == 100)
        until(lambda: httpx.get(f"{ours.sql_url}/readyz").status_code == 200, seconds=30)
        ready = httpx.get(f"{ours.sql_url}/readyz").json()
        assert {(one["topic"], one["partition"]): one["lag"] for one in ready["partitions"]} == {
            (topic, number): 0 for topic in (DELIVERIES, NOTICES) for number in range(4)
        }
        metrics = httpx.get(f"{ours.sql_url}/metrics").text
        assert 'calltally_worker_partition_lag{partition="0",topic="calltally.deliveries"} 0.0' in metrics
        listening = [
            found.laddr.port
            for found in psutil.Process(worker.process.pid).net_connections("inet")
            if found.status == psutil.CONN_LISTEN
        ]
        assert listening == [ours.sql_port]


def test_a_broker_killed_and_back(own_cluster: Cluster, own_way: Way) -> None:
    """The worker says that Kafka is away, answers SQL all the while, and goes on by itself."""
    (node,), journal = own_cluster.nodes, own_way.journal
    journal.append(webhooks(1_000))
    with own_way.relaying() as relay, own_way.applied() as worker:
        node.kill()
        assert "Kafka is away" in worker.faulty("broker_unavailable")
        assert worker.count("deliveries") == 1_000
        journal.append(webhooks(1_000, seed=2))
        node.start()
        published(relay, 2_000)
        worker.applied(2_000)
        until(lambda: worker.fault is None, seconds=60)
        own_way.assert_once(worker)


@pytest.mark.parametrize("trouble", ["paused", "killed"])
def test_no_thread_of_the_client_outlives_a_stop_without_a_broker(
    own_cluster: Cluster, own_way: Way, trouble: str
) -> None:
    """Records wait to be acknowledged and the consumer's session is alive: the worker ends all the same, whole."""
    node, before = own_cluster.nodes[0], set(threading.enumerate())
    own_way.publish(webhooks(4_000))
    with working(own_way.settings) as worker:
        worker.applied(1)
        node.pause() if trouble == "paused" else node.kill()
    left = [thread for thread in set(threading.enumerate()) - before if isinstance(thread, WorkerThread)]
    if trouble == "paused":
        node.resume()
    assert not left


def test_a_broker_that_is_away_at_the_start_is_waited_for(own_cluster: Cluster, own_way: Way) -> None:
    """The store is served at once; applying begins when Kafka is there."""
    own_way.publish(webhooks(200))
    own_cluster.nodes[0].stop()
    with working(own_way.settings) as worker:
        worker.faulty("broker_unavailable")
        own_cluster.nodes[0].start()
        worker.applied(200)
        own_way.assert_once(worker)


def test_records_deleted_before_they_were_applied_are_named(way: Way) -> None:
    """Nothing is skipped; with --from-oldest, after the relay has published again, everything is there."""
    way.publish(webhooks(200))
    with way.applied():
        pass
    way.publish(webhooks(400, seed=2))
    _delete_records(way)
    way.publish(webhooks(100, seed=3))
    with working(way.settings) as worker:
        said = worker.faulty("offsets_gone")
        assert "--again-from 1" in said
        assert "--from-oldest" in said
        assert worker.count("deliveries") == 200
    way.publish(again_from=1)
    with way.applied(from_oldest=True) as worker:
        until(lambda: worker.worker.state.lag == 0, seconds=60)
        way.assert_once(worker)


def test_an_empty_store_is_not_begun_in_the_middle(way: Way) -> None:
    """Where Kafka lacks the beginning, a new store would lack older calls; that is said instead."""
    way.publish(webhooks(100))
    _delete_records(way)
    with working(way.settings) as worker:
        worker.faulty("offsets_gone")
        assert worker.count("deliveries") == 0


@pytest.mark.parametrize("running", [True, False])
def test_topics_made_anew_fill_a_new_store(way: Way, running: bool) -> None:
    """The old store is set aside once the new topics hold something, and is made again from them."""

    def anew() -> None:
        with administrating(way.bootstrap) as admin:
            admin.delete_topics([DELIVERIES, NOTICES])
            until(lambda: DELIVERIES not in admin.list_topics(), seconds=30)
        way.publish()

    way.publish(webhooks(200))
    with way.applied() as worker:
        if running:
            anew()
            _set_aside(worker)
    if not running:
        anew()
    way.publish(webhooks(100, seed=5))
    with working(way.settings) as worker:
        _set_aside(worker)
        worker.applied(300)
        way.assert_once(worker)


def test_a_damaged_store_stays_where_kafka_could_not_fill_a_new_one(way: Way) -> None:
    """Exit code 1 and a sentence; the file is not moved."""
    folder = way.folder / "worker"
    ours = data_folder(folder, way.bootstrap)
    way.publish(webhooks(50))
    _delete_records(way)
    ours.data_dir.mkdir(exist_ok=True)
    ours.store_path.write_bytes(b"no database at all" * 1_000)
    worker = WorkerProcess(folder, "--kafka")
    assert worker.process.wait(60) == 1
    assert "Nothing was moved" in worker.log.read_text()
    assert ours.store_path.read_bytes().startswith(b"no database")


def test_a_damaged_store_is_set_aside_and_made_again(way: Way) -> None:
    """By itself, where Kafka has the beginning."""
    way.publish(webhooks(300))
    way.settings.data_dir.mkdir()
    way.settings.store_path.write_bytes(b"no database at all" * 1_000)
    with way.applied() as worker:
        _set_aside(worker)
        way.assert_once(worker)


class _FailingStore(Store):
    """A store whose commit goes wrong now and then, before or after the rows are in; it is slow besides."""

    dice = Random(11)
    pause_s = 0.0
    failures = 0

    def apply(self, batch: Batch) -> None:
        threading.Event().wait(self.pause_s)
        luck = self.dice.random() if type(self).failures < 6 else 1.0
        if luck < 0.3:
            type(self).failures += 1
            raise StoreUnavailable("The disk did not answer.")
        super().apply(batch)
        if luck < 0.6:
            type(self).failures += 1
            raise StoreUnavailable("The disk did not answer in time, though it had done its work.")


def test_commits_that_fail_are_made_again(way: Way) -> None:
    """Whether a failed commit went through is read from the store; everything stands once in the end."""
    _FailingStore.failures = 0
    ours = way.settings
    with (
        way.relaying(),
        working(ours, open_store=lambda: _FailingStore.open(ours.store_path, rules=ours.rules)) as worker,
    ):
        for seed in range(8):
            way.journal.append(webhooks(150, seed=seed))
            worker.applied(len(way.journal.records) - 1_000)
        worker.applied(len(way.journal.records))
        assert _FailingStore.failures > 0
        _FailingStore.failures = 6
    with working(ours) as worker:
        way.assert_once(worker)


class _SlowStore(Store):
    def apply(self, batch: Batch) -> None:
        threading.Event().wait(12.0 if LONG else 8.0)
        super().apply(batch)


def test_a_store_slower_than_the_session_keeps_its_partitions(way: Way) -> None:
    """Batches that take longer than the group's session cause no rebalance, and are applied once."""
    ours = way.settings
    way.publish(webhooks(6_000))
    with working(ours, open_store=lambda: _SlowStore.open(ours.store_path, rules=ours.rules)) as worker:
        worker.begun()
        worker.applied(2_000)
        assert worker.fault is None
        worker.applied(6_000)
        assert worker.fault is None
        until(lambda: worker.worker.state.tally.records == 6_000)
        way.assert_once(worker)


def _delete_records(way: Way) -> None:
    """All that the topic of deliveries holds."""
    with administrating(way.bootstrap) as admin:
        admin.delete_records({TopicPartition(DELIVERIES, number): -1 for number in range(4)})


def _set_aside(worker: Working) -> None:
    folder = worker.settings.data_dir
    until(lambda: bool(list(folder.glob("store.duckdb.store_*Z"))), lambda: f"{worker.worker.state}", seconds=60)
