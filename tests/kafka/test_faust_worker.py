"""The Kafka worker against a real broker: what is published is in the store, each once, whatever else is there."""

from __future__ import annotations

import json
import signal

import pytest
from faust.types import TP
from kafka import KafkaProducer, TopicPartition

from calls.errors import StoreLocked
from calls.journal import NewNotice
from calls.journal_row import Damaged
from calls.model import Delivery, Verdict
from calls.records import Topic, of_damaged, of_delivery
from streams import fetches, flow
from streams.faust_app import group_of
from tests.kafka import fausting
from tests.kafka.fausting import Way, working
from tests.kafka.reading import DELIVERIES, NOTICES, administrating, everything
from tests.kafka.relaying import STARTED_AT, webhook, webhooks
from tests.kafka.workers import WorkerProcess, data_folder
from tests.waiting import until

pytestmark = pytest.mark.kafka


def notice(number: int) -> NewNotice:
    return NewNotice(
        source="synthflow", provider="synthflow", verdict=Verdict.REFUSED, reason="signature_wrong", detail="why",
        id=None, bytes=9, count=number, received_at=STARTED_AT + number,
    )  # fmt: skip


def produce(way: Way, topic: str, value: bytes | None, headers: list[tuple[str, bytes]], partition: int = 0) -> None:
    """A record that anyone may have written."""
    producer = KafkaProducer(bootstrap_servers=way.bootstrap.split(","), acks="all")
    try:
        producer.send(topic, value, b"key", headers, partition).get(30)
    finally:
        producer.close()


def test_everything_published_is_applied_once(way: Way) -> None:
    """Deliveries, notices and repeats: each has its row, and the store's sums are right."""
    way.journal.append(webhooks(3_000))
    way.publish([notice(1), *webhooks(20), notice(2)])
    with way.applied() as worker:
        until(lambda: worker.worker.state.lag == 0, seconds=30)
        way.assert_once(worker)
        assert worker.rows("SELECT count(*) FROM deliveries WHERE verdict = 'repeated'") == [(20,)]
        assert worker.rows("SELECT count(*) FROM deliveries WHERE verdict = 'refused'") == [(2,)]
        assert set(worker.worker.state.partitions) == {(t, n) for t in (DELIVERIES, NOTICES) for n in range(4)}


def test_a_second_run_goes_on_where_the_store_stands(way: Way) -> None:
    """What a first run applied is not even read by a second; what came meanwhile is."""
    way.publish(webhooks(500))
    with way.applied():
        pass
    way.publish(webhooks(300, seed=2))
    with way.applied() as worker:
        until(lambda: worker.worker.state.tally.records == 300)
        way.assert_once(worker)


def test_no_partition_is_left_out_while_much_waits(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise some are read far ahead of others, and further events of a call come long after its first."""
    asked: list[int] = []
    getmany = fetches._Thread.getmany

    async def noted(thread: fetches._Thread, active_partitions: set[TP], timeout: float) -> object:  # noqa: ASYNC109
        asked.append(len(active_partitions))
        return await getmany(thread, active_partitions, timeout)

    monkeypatch.setattr(fetches._Thread, "getmany", noted)
    monkeypatch.setattr(flow, "WAITING_RECORDS", 1)
    way.publish(webhooks(10_000))
    with way.applied():
        assert len(asked) > 4
        assert set(asked) == {8}


def test_what_kafka_says_was_committed_is_not_believed(way: Way) -> None:
    """A store that is deleted is filled from the beginning, though the group's committed offsets are at the end."""
    way.publish(webhooks(300))
    with way.applied(), administrating(way.bootstrap) as admin:

        def committed() -> int:
            group = group_of(way.settings.data_dir)
            offsets = admin.list_group_offsets(group)[group]
            return sum(found.offset for slot, found in offsets.items() if slot.topic == DELIVERIES)

        until(lambda: committed() == 300, lambda: f"{committed()} committed", seconds=30)
    for path in way.settings.data_dir.glob("store.duckdb*"):
        path.unlink()
    with way.applied() as worker:
        way.assert_once(worker)


def test_two_stores_each_get_everything(way: Way) -> None:
    """A second worker with a data folder of its own is a second, full consumer."""
    way.publish(webhooks(400))
    with way.applied() as first, working(fausting.settings(way.folder / "other", way.bootstrap)) as second:
        second.applied(400)
        for worker in (first, second):
            way.assert_once(worker)


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
    way: Way, topic: str, value: bytes | None, headers: list[tuple[str, bytes]], said: str
) -> None:
    """It becomes a dead letter that names where it stands and why, and all that is behind it is applied."""
    way.publish(webhooks(200))
    for partition in range(4):
        produce(way, topic, value, headers, partition)
    way.publish([*webhooks(200, seed=3), notice(1)])
    with way.applied() as worker:
        worker.applied(401 + 4)
        assert worker.count("call_events") > 0
        found = worker.rows("SELECT DISTINCT detail FROM dead_letters")
        assert len(found) == 4
        assert all(said in str(detail) and f"{topic} partition" in str(detail) for (detail,) in found)
        kept: list[object] = [*worker.rows("SELECT DISTINCT reason, body FROM kept.dead_letters")]
        assert kept == [("record_malformed", value or b"")]
        assert worker.rows("SELECT count(DISTINCT position) FROM deliveries WHERE source <> ''") == [(401,)]


def test_a_body_under_another_ones_id_is_set_apart(way: Way) -> None:
    """A record whose body was altered on its way is a dead letter, not an event."""
    way.publish(webhooks(10))
    genuine = everything(way.bootstrap)[0]
    produce(way, DELIVERIES, genuine.value + b" ", list(genuine.headers.items()))
    with way.applied() as worker:
        worker.applied(11)
        assert worker.count("dead_letters") == 1
        assert worker.count("call_events") <= 10


def test_an_unknown_header_is_ignored(way: Way) -> None:
    """What a later version of the relay may add does not hinder this one."""
    way.publish(webhooks(1))
    (read,) = everything(way.bootstrap)
    again = [*read.headers.items(), ("colour", b"\xff\x00"), ("nothing", b"")]
    with administrating(way.bootstrap) as admin:
        admin.delete_records({TopicPartition(DELIVERIES, read.partition): 1})
    produce(way, DELIVERIES, read.value, again)
    with way.applied(from_oldest=True) as worker:
        assert worker.count("dead_letters") == 0
        assert worker.rows("SELECT position FROM deliveries") == [(1,)]


def test_a_damaged_row_of_the_journal_arrives_as_a_dead_letter(way: Way) -> None:
    """Published twice, as after a crash of the relay, it still stands once."""
    way.publish(webhooks(5))
    lost = of_damaged(Damaged(77, "The row does not match its seal."), way.journal.journal_id, at=STARTED_AT)
    for _ in range(2):
        produce(way, NOTICES, lost.value, lost.headers)
    with way.applied() as worker:
        worker.applied(6)
        until(lambda: worker.worker.state.lag == 0, seconds=30)
        assert worker.rows("SELECT position FROM dead_letters") == [(77,)]
        assert worker.count("deliveries") == 6


def test_a_delivery_in_pieces_survives_a_restart_between_them(way: Way) -> None:
    """What was read of an unfinished one is read again: the position never passes its first piece."""
    way.publish(webhooks(1))
    small = everything(way.bootstrap)[0]
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
        produce(way, DELIVERIES, piece.value, piece.headers)
    with way.applied() as worker:
        worker.applied(2)
    for piece in pieces[2:]:
        produce(way, DELIVERIES, piece.value, piece.headers)
    with way.applied() as worker:
        worker.applied(3)
        until(lambda: worker.worker.state.lag == 0, seconds=30)
        assert sorted(worker.rows("SELECT position FROM deliveries")) == [(1,), (2,), (3,)]
        assert worker.rows("SELECT bytes FROM deliveries WHERE position = 2") == [(len(body),)]
        assert worker.count("dead_letters") == 0


def test_a_partition_that_is_added_is_read_without_a_restart(way: Way) -> None:
    """Records that go to a fifth partition while the worker runs are applied."""
    way.publish(webhooks(200))
    with way.applied() as worker:
        add_partitions(way)
        way.publish(webhooks(400, seed=7))
        assert {read.partition for read in everything(way.bootstrap)} == set(range(6))
        worker.applied(600)
        way.assert_once(worker)


def test_a_partition_that_was_added_meanwhile_is_read(way: Way) -> None:
    """A group gives a member that comes back what it had; the worker asks for the rest."""
    way.publish(webhooks(200))
    with way.applied():
        pass
    add_partitions(way)
    way.publish(webhooks(400, seed=7))
    with way.applied() as worker:
        way.assert_once(worker)


def test_a_second_worker_on_one_store_ends_with_exit_code_1(way: Way) -> None:
    """It says that the store is locked, and the first goes on undisturbed."""
    way.publish(webhooks(100))
    folder = way.folder / "worker"
    data_folder(folder, way.bootstrap)
    with WorkerProcess(folder, "--kafka") as first:
        first.wait_rows(lambda rows: rows == 100)
        second = WorkerProcess(folder, "--kafka", "--port", "0")
        assert second.process.wait(60) == 1
        assert f"is in use by process {first.process.pid}" in second.log.read_text()
        with pytest.raises(StoreLocked):
            fausting.Working(way.settings, None, False)
        way.publish(webhooks(100, seed=4))
        first.wait_rows(lambda rows: rows == 200)
        assert first.end(signal.SIGTERM) == 0


def test_a_store_of_a_journal_is_not_filled_from_kafka(way: Way) -> None:
    """The worker says which of the two it was filled from and changes nothing; SQL goes on being answered."""
    from analytics.store import Batch, Position, Store

    way.settings.data_dir.mkdir()
    store = Store.open(way.settings.store_path, rules=way.settings.rules)
    store.apply(Batch(positions=[Position("journal", "j", 5)], applied_at=1))
    store.close()
    way.publish(webhooks(10))
    with working(way.settings) as worker:
        assert "Start the worker without --kafka" in worker.faulty("other_stream")
        assert worker.store.positions() == {("journal", "j"): 5}


def test_topics_that_are_not_there_yet_are_waited_for(way: Way) -> None:
    """A worker that starts before the relay says so, and begins by itself."""
    with working(way.settings) as worker:
        assert "calltally relay" in worker.faulty("topic_missing")
        way.publish(webhooks(50))
        worker.applied(50)
        until(lambda: worker.fault is None, seconds=30)
        way.assert_once(worker)


def add_partitions(way: Way) -> None:
    """Two, and return once the broker says that they are there."""
    with administrating(way.bootstrap) as admin:
        admin.create_partitions({DELIVERIES: 6})

        def there() -> int:
            (found,) = admin.describe_topics([DELIVERIES])
            return len(found["partitions"])

        until(lambda: there() == 6, seconds=30)
