"""What happens to a relay and its broker: killed, paused, cut off, unheard. Nothing is lost, and order is kept."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psutil
import pytest

from calls import relay_report
from tests.faults.length import LONG
from tests.kafka.proxy import Proxy, proxy
from tests.kafka.reading import Read, administrating, everything, repeated_positions
from tests.kafka.relaying import (
    RelayProcess,
    Writing,
    endless_webhooks,
    faulty,
    published,
    relaying,
    settings,
    webhook,
    webhooks,
    writing,
)
from tests.waiting import until
from tools.kafka import broker
from tools.kafka.broker import Cluster

pytestmark = pytest.mark.kafka


@pytest.fixture
def proxied(kafka: None, tmp_path: Path) -> Iterator[tuple[Cluster, Proxy, str]]:
    """A broker, a proxy before it, and the proxy's address, by which the broker is known to its clients."""
    with (
        proxy() as before,
        broker.cluster(
            tmp_path / "kafka", listeners={"PROXIED": "PLAINTEXT"}, advertised={"PROXIED": before.port}
        ) as cluster,
    ):
        before.target = ("127.0.0.1", cluster.nodes[0].ports["PROXIED"])
        yield cluster, before, f"127.0.0.1:{before.port}"


@contextmanager
def steady_traffic(journal: Writing, per_s: int) -> Iterator[None]:
    """Webhooks all the while, each batch after the one before it is durable."""
    stopping = threading.Event()

    def write() -> None:
        supply = endless_webhooks(seed=99)
        while not stopping.wait(0.02):
            journal.append(list(itertools.islice(supply, max(1, per_s // 50))))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def goes_on(journal: Writing) -> None:
    """The door waits for the disk only: batch after batch becomes durable while the broker is away."""
    enough = len(journal.records) + 200
    until(lambda: len(journal.records) >= enough, lambda: f"the journal stands at {len(journal.records)}")


def assert_complete(journal: Writing, bootstrap: str) -> int:
    """Every journalled delivery is in the topic with its own body, in order; how many are repeats."""
    records = everything(bootstrap)
    assert_bodies(journal, records)
    return repeated_positions(records)


def assert_bodies(journal: Writing, records: list[Read]) -> None:
    assert {read.position for read in records} == journal.positions()
    bodies = journal.bodies()
    assert all(read.value == bodies[read.position - 1] for read in records)


@pytest.mark.parametrize("seed", range(4 if LONG else 1))
def test_a_relay_killed_at_any_moment_loses_nothing(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    """Six SIGKILLs under way: everything is in the topic, in order, and the repeats are only tails."""
    dice = Random(seed)
    with writing(tmp_path) as journal, steady_traffic(journal, 1_000):
        for _ in range(6):
            process = RelayProcess(tmp_path, cluster.bootstrap)
            until(lambda process=process: process.report() is not None, seconds=30)  # type: ignore[misc]
            threading.Event().wait(dice.uniform(0, 1.5))
            assert process.end(signal.SIGKILL) == -signal.SIGKILL
            assert not relay_report.running(tmp_path / "data")
    last = RelayProcess(tmp_path, cluster.bootstrap)
    last.published(len(journal.records))
    assert last.end(signal.SIGTERM) == 0
    repeats = assert_complete(journal, cluster.bootstrap)
    # The position is saved twice a second, and a tail is what was acknowledged since.
    assert repeats < 6 * 2_000


def test_a_broker_killed_and_back(own_cluster: Cluster, tmp_path: Path) -> None:
    """The relay says that it waits, the journal goes on, and everything arrives in order once the broker is back."""
    node = own_cluster.nodes[0]
    with writing(tmp_path) as journal, relaying(settings(tmp_path, own_cluster.bootstrap)) as relay:
        with steady_traffic(journal, 1_000):
            until(lambda: relay.state.position > 500, seconds=30)
            for _ in range(3 if LONG else 1):
                node.kill()
                sentence = faulty(relay, "broker_unavailable")
                assert f"{node.bootstrap} cannot be reached (Connection refused)" in sentence
                goes_on(journal)
                node.start()
                node.wait()
                until(lambda: relay.state.fault is None, lambda: f"{relay.state}", seconds=60)
        published(relay, len(journal.records))
        assert_complete(journal, own_cluster.bootstrap)


def test_a_broker_stopped_in_order_and_back(own_cluster: Cluster, tmp_path: Path) -> None:
    """A restart of the broker, such as an upgrade, is waited out; at most what was under way is sent again."""
    node = own_cluster.nodes[0]
    with writing(tmp_path) as journal, relaying(settings(tmp_path, own_cluster.bootstrap)) as relay:
        with steady_traffic(journal, 500):
            until(lambda: relay.state.position > 200, seconds=30)
            node.stop()
            node.start()
            node.wait()
        published(relay, len(journal.records))
        assert_complete(journal, own_cluster.bootstrap)


def test_a_broker_that_stops_answering(own_cluster: Cluster, tmp_path: Path) -> None:
    """A paused broker keeps its connections; the relay says so after a while and goes on where it was."""
    node = own_cluster.nodes[0]
    with writing(tmp_path) as journal, relaying(settings(tmp_path, own_cluster.bootstrap)) as relay:
        with steady_traffic(journal, 500):
            until(lambda: relay.state.position > 200, seconds=30)
            node.pause()
            faulty(relay, "broker_unavailable")
            goes_on(journal)
            threading.Event().wait(30 if LONG else 2)
            assert relay.state.fault is not None
            node.resume()
            until(lambda: relay.state.fault is None, lambda: f"{relay.state}", seconds=60)
        published(relay, len(journal.records))
        assert_complete(journal, own_cluster.bootstrap)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_an_outage_costs_next_to_nothing(own_cluster: Cluster, tmp_path: Path, fault: str) -> None:
    """The relay neither spins nor collects descriptors while it tries to reach the broker."""
    with writing(tmp_path) as journal:
        relay = RelayProcess(tmp_path, own_cluster.bootstrap)
        journal.append(webhooks(50))
        relay.published(50)
        getattr(own_cluster.nodes[0], fault)()
        journal.append(webhooks(50, seed=2))
        until(lambda: (report := relay.report()) is not None and report.fault is not None, seconds=60)
        running = psutil.Process(relay.process.pid)
        cpu_s, descriptors = sum(running.cpu_times()[:2]), running.num_fds()
        threading.Event().wait(60 if LONG else 4)
        assert sum(running.cpu_times()[:2]) - cpu_s < (15 if LONG else 1)
        assert running.num_fds() <= descriptors + 10
        assert relay.end(signal.SIGTERM) == 0


def test_a_relay_stops_while_the_broker_is_away(own_cluster: Cluster, tmp_path: Path) -> None:
    """Within seconds, and the next one publishes what this one could not."""
    node = own_cluster.nodes[0]
    with writing(tmp_path) as journal:
        with relaying(settings(tmp_path, own_cluster.bootstrap)) as relay:
            journal.append(webhooks(50))
            published(relay, 50)
            node.kill()
            journal.append(webhooks(50, seed=2))
            begun = time.monotonic()
        assert time.monotonic() - begun < 20
        assert relay.state.position == 50
        node.start()
        node.wait()
        with relaying(settings(tmp_path, own_cluster.bootstrap)) as relay:
            published(relay, 100)
        assert assert_complete(journal, own_cluster.bootstrap) == 0


def test_a_broker_that_comes_later_gets_everything(kafka: None, tmp_path: Path) -> None:
    """The broker is absent when the relay starts: webhooks are journalled, and published when it comes."""
    with writing(tmp_path) as journal, broker.cluster(tmp_path / "kafka") as cluster:
        node = cluster.nodes[0]
        node.kill()
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            journal.append(webhooks(300))
            faulty(relay, "broker_unavailable")
            node.start()
            node.wait()
            published(relay, 300)
            until(lambda: relay.state.fault is None, lambda: f"{relay.state}")
        assert assert_complete(journal, cluster.bootstrap) == 0


@pytest.mark.parametrize("seed", range(4 if LONG else 1))
def test_connections_that_are_reset(proxied: tuple[Cluster, Proxy, str], tmp_path: Path, seed: int) -> None:
    """At any moment, again and again: the producer knows what the broker has, so nothing is repeated either."""
    cluster, before, address = proxied
    dice = Random(seed)
    with writing(tmp_path) as journal, relaying(settings(tmp_path, address)) as relay:
        with steady_traffic(journal, 2_000):
            until(lambda: relay.state.position > 200, seconds=30)
            for _ in range(10):
                threading.Event().wait(dice.uniform(0, 0.4))
                before.reset_all()
        published(relay, len(journal.records))
        assert assert_complete(journal, cluster.bootstrap) == 0


def test_lost_acknowledgements_repeat_nothing(proxied: tuple[Cluster, Proxy, str], tmp_path: Path) -> None:
    """The broker has the records, we do not know it and send them again: the broker knows them by their number."""
    cluster, before, address = proxied
    with writing(tmp_path) as journal, relaying(settings(tmp_path, address)) as relay:
        with steady_traffic(journal, 1_000):
            until(lambda: relay.state.position > 200, seconds=30)
            for number in range(1, 6):
                before.lose_acknowledgements(1)
                until(lambda number=number: before.lost_acknowledgements == number, seconds=30)  # type: ignore[misc]
        published(relay, len(journal.records))
        assert assert_complete(journal, cluster.bootstrap) == 0


def test_a_relay_killed_with_its_acknowledgement_lost_repeats_the_tail(
    proxied: tuple[Cluster, Proxy, str], tmp_path: Path
) -> None:
    """What the broker has and the relay never heard of is published again by the next one."""
    cluster, before, address = proxied
    with writing(tmp_path) as journal:
        process = RelayProcess(tmp_path, address)
        journal.append(webhooks(200))
        process.published(200)
        before.lose_acknowledgements(1_000_000)
        journal.append(webhooks(50, seed=2))
        until(lambda: before.lost_acknowledgements > 0, seconds=30)
        process.end(signal.SIGKILL)
        before.lose_acknowledgements(0)
        again = RelayProcess(tmp_path, address)
        again.published(250)
        assert again.end(signal.SIGTERM) == 0
        assert assert_complete(journal, cluster.bootstrap) >= 1


def test_a_body_in_chunks_survives_a_kill(cluster: Cluster, tmp_path: Path) -> None:
    """Half a body may lie in the topic; the next relay publishes all of it again, in one run."""
    bodies = [Random(number).randbytes(6 << 20) for number in range(8)]
    with writing(tmp_path) as journal:
        journal.append([webhook(b'{"x": "' + body.hex().encode() + b'"}') for body in bodies])
        for pause_s in (0.0, 0.1, 0.2, 0.4):
            process = RelayProcess(tmp_path, cluster.bootstrap)
            until(lambda process=process: process.report() is not None, seconds=30)  # type: ignore[misc]
            threading.Event().wait(pause_s)
            process.end(signal.SIGKILL)
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 8)
        assert _joined(everything(cluster.bootstrap)) == dict(enumerate(journal.bodies(), 1))


def test_three_brokers_of_which_one_dies(kafka: None, tmp_path: Path) -> None:
    """The other two go on; with only one left nothing is acknowledged, and the relay says why until one is back."""
    with (
        broker.cluster(tmp_path / "kafka", nodes=3) as cluster,
        writing(tmp_path) as journal,
        relaying(settings(tmp_path, cluster.bootstrap)) as relay,
    ):
        with steady_traffic(journal, 500):
            until(lambda: relay.state.position > 200, lambda: f"{relay.state}", seconds=60)
            cluster.nodes[2].kill()
            reached = relay.state.position + 500
            until(lambda: relay.state.position > reached, lambda: f"{relay.state}", seconds=60)
            cluster.nodes[1].kill()
            faulty(relay, "broker_unavailable")
            goes_on(journal)
            cluster.nodes[1].start()
            cluster.nodes[1].wait()
            reached = relay.state.position + 500
            until(lambda: relay.state.position > reached, lambda: f"{relay.state}", seconds=60)
        published(relay, len(journal.records))
        with administrating(cluster.bootstrap) as client:
            (topic,) = client.describe_topics(["calltally.deliveries"])
        assert {len(partition["replica_nodes"]) for partition in topic["partitions"]} == {3}
        assert_complete(journal, cluster.bootstrap)


def _joined(records: list[Read]) -> dict[int, bytes]:
    """The last whole run of chunks of each position, put together by hand."""
    found: dict[int, bytes] = {}
    running: dict[int, list[bytes]] = {}
    for read in records:
        number, count = map(int, read.headers["chunk"].split(b"/"))
        if number == 1:
            running[read.position] = []
        running[read.position].append(read.value)
        assert len(running[read.position]) == number, "a chunk is missing"
        if number == count:
            found[read.position] = b"".join(running[read.position])
    return found
