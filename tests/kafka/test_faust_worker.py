"""The Kafka worker against a real broker: what is published is in the store, each once, whatever else is there."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from kafka import KafkaProducer, TopicPartition

from calls.errors import StoreLocked
from calls.journal import NewNotice
from calls.journal_row import Damaged
from calls.model import Delivery, Verdict
from calls.records import Topic, of_damaged, of_delivery
from streams.faust_app import group_of
from tests.kafka import fausting
from tests.kafka.fausting import assert_once, working
from tests.kafka.reading import DELIVERIES, NOTICES, administrating, everything
from tests.kafka.relaying import STARTED_AT, Writing, published, relaying, settings, webhook, webhooks, writing
from tests.kafka.workers import WorkerProcess, data_folder
from tests.waiting import until
from tools.kafka.broker import Cluster

pytestmark = pytest.mark.kafka


def publish(journal: Writing, folder: Path, cluster: Cluster) -> None:
    """Everything that is journalled, through a relay."""
    with relaying(settings(folder, cluster.bootstrap)) as relay:
        published(relay, len(journal.records))


def notice(number: int) -> NewNotice:
    return NewNotice(
        source="synthflow", provider="synthflow", verdict=Verdict.REFUSED, reason="signature_wrong", detail="why",
        id=None, bytes=9, count=number, received_at=STARTED_AT + number,
    )  # fmt: skip


def produce(
    cluster: Cluster, topic: str, value: bytes | None, headers: list[tuple[str, bytes]], partition: int = 0
) -> None:
    """A record that anyone may have written."""
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap.split(","), acks="all")
    try:
        producer.send(topic, value, b"key", headers, partition).get(30)
    finally:
        producer.close()


def test_everything_published_is_applied_once(cluster: Cluster, tmp_path: Path) -> None:
    """Deliveries, notices and repeats: each has its row, and the store's sums are right."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(3_000))
        journal.append([notice(1), *webhooks(20), notice(2)])
        publish(journal, tmp_path, cluster)
        with working(fausting.settings(tmp_path / "worker", cluster.bootstrap)) as worker:
            worker.applied(len(journal.records))
            until(lambda: worker.worker.state.lag == 0, seconds=30)
            assert_once(worker.store, journal.positions())
            assert worker.rows("SELECT count(*) FROM deliveries WHERE verdict = 'repeated'") == [(20,)]
            assert worker.rows("SELECT count(*) FROM deliveries WHERE verdict = 'refused'") == [(2,)]
            assert set(worker.worker.state.partitions) == {(t, n) for t in (DELIVERIES, NOTICES) for n in range(4)}


def test_a_second_run_goes_on_where_the_store_stands(cluster: Cluster, tmp_path: Path) -> None:
    """What a first run applied is not even read by a second; what came meanwhile is."""
    ours = fausting.settings(tmp_path / "worker", cluster.bootstrap)
    with writing(tmp_path) as journal:
        journal.append(webhooks(500))
        publish(journal, tmp_path, cluster)
        with working(ours) as worker:
            worker.applied(500)
        journal.append(webhooks(300, seed=2))
        publish(journal, tmp_path, cluster)
        with working(ours) as worker:
            worker.applied(800)
            until(lambda: worker.worker.state.tally.records == 300)
            assert_once(worker.store, journal.positions())


def test_what_kafka_says_was_committed_is_not_believed(cluster: Cluster, tmp_path: Path) -> None:
    """A store that is deleted is filled from the beginning, though the group's committed offsets are at the end."""
    ours = fausting.settings(tmp_path / "worker", cluster.bootstrap)
    with writing(tmp_path) as journal:
        journal.append(webhooks(300))
        publish(journal, tmp_path, cluster)
        with working(ours) as worker:
            worker.applied(300)
            with administrating(cluster.bootstrap) as admin:

                def committed() -> int:
                    group = group_of(ours.data_dir)
                    offsets = admin.list_group_offsets(group)[group]
                    return sum(found.offset for slot, found in offsets.items() if slot.topic == DELIVERIES)

                until(lambda: committed() == 300, lambda: f"{committed()} committed", seconds=30)
        for path in ours.data_dir.glob("store.duckdb*"):
            path.unlink()
        with working(ours) as worker:
            worker.applied(300)
            assert_once(worker.store, journal.positions())


def test_two_stores_each_get_everything(cluster: Cluster, tmp_path: Path) -> None:
    """A second worker with a data folder of its own is a second, full consumer."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(400))
        publish(journal, tmp_path, cluster)
        one, other = (fausting.settings(tmp_path / name, cluster.bootstrap) for name in ("one", "other"))
        with working(one) as first, working(other) as second:
            for worker in (first, second):
                worker.applied(400)
                assert_once(worker.store, journal.positions())


@pytest.mark.parametrize(
    ("topic", "value", "headers", "said"),
    [
        (Topic.DELIVERIES, b'{"hello": 1}', [], "was not written by a relay"),
        (Topic.DELIVERIES, None, [], "no proper header"),
        (Topic.NOTICES, b"{}", [("kind", b"greeting")], "neither notice nor damaged"),
        (Topic.NOTICES, b"\xff\xfe", [("kind", b"notice")], "cannot be read"),
    ],
)
def test_a_record_that_is_not_ours_is_set_apart(
    cluster: Cluster, tmp_path: Path, topic: str, value: bytes | None, headers: list[tuple[str, bytes]], said: str
) -> None:
    """It becomes a dead letter that names where it stands and why, and all that is behind it is applied."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(200))
        publish(journal, tmp_path, cluster)
        for partition in range(4):
            produce(cluster, topic, value, headers, partition)
        journal.append([*webhooks(200, seed=3), notice(1)])
        publish(journal, tmp_path, cluster)
        with working(fausting.settings(tmp_path / "worker", cluster.bootstrap)) as worker:
            worker.applied(401 + 4)
            assert worker.count("call_events") > 0
            found = worker.rows("SELECT DISTINCT detail FROM dead_letters")
            assert len(found) == 4
            assert all(said in str(detail) and f"{topic} partition" in str(detail) for (detail,) in found)
            kept: list[object] = [*worker.rows("SELECT DISTINCT reason, body FROM kept.dead_letters")]
            assert kept == [("record_malformed", value or b"")]
            assert worker.rows("SELECT count(DISTINCT position) FROM deliveries WHERE source <> ''") == [(401,)]


def test_a_body_under_another_ones_id_is_set_apart(cluster: Cluster, tmp_path: Path) -> None:
    """A record whose body was altered on its way is a dead letter, not an event."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(10))
        publish(journal, tmp_path, cluster)
        genuine = everything(cluster.bootstrap)[0]
        produce(cluster, DELIVERIES, genuine.value + b" ", list(genuine.headers.items()))
        with working(fausting.settings(tmp_path / "worker", cluster.bootstrap)) as worker:
            worker.applied(11)
            assert worker.count("dead_letters") == 1
            assert worker.count("call_events") <= 10


def test_an_unknown_header_is_ignored(cluster: Cluster, tmp_path: Path) -> None:
    """What a later version of the relay may add does not hinder this one."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(1))
        publish(journal, tmp_path, cluster)
    (read,) = everything(cluster.bootstrap)
    again = [*read.headers.items(), ("colour", b"\xff\x00"), ("nothing", b"")]
    with administrating(cluster.bootstrap) as admin:
        admin.delete_records({TopicPartition(DELIVERIES, read.partition): 1})
    produce(cluster, DELIVERIES, read.value, again)
    with working(fausting.settings(tmp_path / "worker", cluster.bootstrap), from_oldest=True) as worker:
        worker.applied(1)
        assert worker.count("dead_letters") == 0
        assert worker.rows("SELECT position FROM deliveries") == [(1,)]


def test_a_damaged_row_of_the_journal_arrives_as_a_dead_letter(cluster: Cluster, tmp_path: Path) -> None:
    """Published twice, as after a crash of the relay, it still stands once."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(5))
        publish(journal, tmp_path, cluster)
        lost = of_damaged(Damaged(77, "The row does not match its seal."), journal.journal_id, at=STARTED_AT)
        for _ in range(2):
            produce(cluster, NOTICES, lost.value, lost.headers)
        with working(fausting.settings(tmp_path / "worker", cluster.bootstrap)) as worker:
            worker.applied(6)
            until(lambda: worker.worker.state.lag == 0, seconds=30)
            assert worker.rows("SELECT position FROM dead_letters") == [(77,)]
            assert worker.count("deliveries") == 6


def test_a_delivery_in_pieces_survives_a_restart_between_them(cluster: Cluster, tmp_path: Path) -> None:
    """What was read of an unfinished one is read again: the position never passes its first piece."""
    ours = fausting.settings(tmp_path / "worker", cluster.bootstrap)
    with writing(tmp_path) as journal:
        journal.append(webhooks(1))
        publish(journal, tmp_path, cluster)
    small = everything(cluster.bootstrap)[0]
    body = json.dumps({"event": "call.ended", "data": {"call_id": "big", "transcription": "x" * 900_000}}).encode()
    made = webhook(body, source="aisync")
    big = Delivery(
        source=made.source, provider=made.provider, org="", body=body, headers={}, received_at=made.received_at,
        trust=made.trust, journal_id=small.headers["journal_id"].decode(), position=2,
    )  # fmt: skip
    pieces = of_delivery(big, None, bytes_max=262_144)
    assert len(pieces) > 3
    behind = Delivery(
        source=made.source, provider=made.provider, org="", body=b'{"event":"call.ended","data":{"call_id":"3"}}',
        headers={}, received_at=made.received_at, trust=made.trust, journal_id=big.journal_id, position=3,
    )  # fmt: skip
    (between,) = of_delivery(behind, None, bytes_max=262_144)
    for piece in (*pieces[:2], between):
        produce(cluster, DELIVERIES, piece.value, piece.headers)
    with working(ours) as worker:
        worker.applied(2)
    for piece in pieces[2:]:
        produce(cluster, DELIVERIES, piece.value, piece.headers)
    with working(ours) as worker:
        worker.applied(3)
        until(lambda: worker.worker.state.lag == 0, seconds=30)
        assert sorted(worker.rows("SELECT position FROM deliveries")) == [(1,), (2,), (3,)]
        assert worker.rows("SELECT bytes FROM deliveries WHERE position = 2") == [(len(body),)]
        assert worker.count("dead_letters") == 0


def test_a_partition_that_is_added_is_read_without_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    """Records that go to a fifth partition while the worker runs are applied."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(200))
        publish(journal, tmp_path, cluster)
        with working(fausting.settings(tmp_path / "worker", cluster.bootstrap)) as worker:
            worker.applied(200)
            with administrating(cluster.bootstrap) as admin:
                admin.create_partitions({DELIVERIES: 6})
            until(lambda: len(_partitions(cluster)) == 6, seconds=30)
            journal.append(webhooks(400, seed=7))
            publish(journal, tmp_path, cluster)
            assert {read.partition for read in everything(cluster.bootstrap)} == set(range(6))
            worker.applied(600)
            assert_once(worker.store, journal.positions())


def test_a_partition_that_was_added_meanwhile_is_read(cluster: Cluster, tmp_path: Path) -> None:
    """A group gives a member that comes back what it had; the worker asks for the rest."""
    ours = fausting.settings(tmp_path / "worker", cluster.bootstrap)
    with writing(tmp_path) as journal:
        journal.append(webhooks(200))
        publish(journal, tmp_path, cluster)
        with working(ours) as worker:
            worker.applied(200)
        with administrating(cluster.bootstrap) as admin:
            admin.create_partitions({DELIVERIES: 6})
        until(lambda: len(_partitions(cluster)) == 6, seconds=30)
        journal.append(webhooks(400, seed=7))
        publish(journal, tmp_path, cluster)
        with working(ours) as worker:
            worker.applied(600)
            assert_once(worker.store, journal.positions())


def test_a_second_worker_on_one_store_ends_with_exit_code_1(cluster: Cluster, tmp_path: Path) -> None:
    """It says that the store is locked, and the first goes on undisturbed."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(100))
        publish(journal, tmp_path, cluster)
        folder = tmp_path / "worker"
        data_folder(folder, cluster.bootstrap)
        with WorkerProcess(folder, "--kafka") as first:
            first.wait_rows(lambda rows: rows == 100)
            second = WorkerProcess(folder, "--kafka", "--port", "0")
            assert second.process.wait(60) == 1
            assert f"is in use by process {first.process.pid}" in second.log.read_text()
            with pytest.raises(StoreLocked):
                fausting.Working(fausting.settings(folder, cluster.bootstrap), None, False)
            journal.append(webhooks(100, seed=4))
            publish(journal, tmp_path, cluster)
            first.wait_rows(lambda rows: rows == 200)
            assert first.end(signal.SIGTERM) == 0


def test_a_store_of_a_journal_is_not_filled_from_kafka(cluster: Cluster, tmp_path: Path) -> None:
    """The worker says which of the two it was filled from and changes nothing; SQL goes on being answered."""
    from analytics.store import Batch, Position, Store

    ours = fausting.settings(tmp_path / "worker", cluster.bootstrap)
    ours.data_dir.mkdir()
    store = Store.open(ours.store_path, rules=ours.rules)
    store.apply(Batch(positions=[Position("journal", "j", 5)], applied_at=1))
    store.close()
    with writing(tmp_path) as journal:
        journal.append(webhooks(10))
        publish(journal, tmp_path, cluster)
    with working(ours) as worker:
        assert "Start the worker without --kafka" in worker.faulty("other_stream")
        assert worker.store.positions() == {("journal", "j"): 5}


def test_topics_that_are_not_there_yet_are_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    """A worker that starts before the relay says so, and begins by itself."""
    with working(fausting.settings(tmp_path / "worker", cluster.bootstrap)) as worker, writing(tmp_path) as journal:
        assert "calltally relay" in worker.faulty("topic_missing")
        journal.append(webhooks(50))
        publish(journal, tmp_path, cluster)
        worker.applied(50)
        until(lambda: worker.fault is None, seconds=30)
        assert_once(worker.store, journal.positions())


def _partitions(cluster: Cluster) -> list[object]:
    with administrating(cluster.bootstrap) as admin:
        (found,) = admin.describe_topics([DELIVERIES])
        return list(found["partitions"])
