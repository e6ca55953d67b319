"""The relay against a real broker: what is journalled is published, each once, in order, in the documented form."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from random import Random

import pytest
from prometheus_client.samples import Sample

from calls import relay_report
from calls.errors import BrokerError, SettingsError
from calls.journal import NewNotice
from calls.journal_row import Damaged
from calls.model import Verdict
from calls.provider import discover
from calls.records import Chunk, Joiner, read_delivery, read_notice
from ingest import relay_state
from ingest.relay import Relay
from tests.forking import ROOT
from tests.journalling import as_read, edit
from tests.kafka.reading import NOTICES, administrating, everything, repeated_positions
from tests.kafka.relaying import RelayProcess, faulty, published, relaying, settings, webhook, webhooks, writing
from tests.waiting import until
from tools.kafka.broker import Cluster
from tools.ports import free_ports

pytestmark = pytest.mark.kafka


def notice(number: int) -> NewNotice:
    return NewNotice(
        source="synthflow", provider="synthflow", verdict=Verdict.REFUSED, reason="signature_wrong",
        detail="Größe", id=None, bytes=9, count=number, received_at=1_750_000_000_000_000 + number,
    )  # fmt: skip


def test_every_delivery_is_published_once_and_in_order(cluster: Cluster, tmp_path: Path) -> None:
    """All bodies byte for byte, none twice, and in every partition in the journal's order."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(3_000))
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 3_000)
        records = everything(cluster.bootstrap)
        assert repeated_positions(records) == 0
        assert {read.position: read.value for read in records} == dict(enumerate(journal.bodies(), 1))
    assert len({read.partition for read in records}) == 4


def test_a_record_read_back_is_the_delivery(cluster: Cluster, tmp_path: Path) -> None:
    """Everything that the journal knows of a delivery arrives, and the record's time is when it was received."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(50))
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 50)
        for read in everything(cluster.bootstrap):
            sent = journal.records[read.position - 1]
            assert read_delivery(read.headers.items(), read.value) == as_read(sent, journal.journal_id, read.position)
            assert read.timestamp_ms == sent.received_at // 1000


def test_one_call_stays_in_one_partition(cluster: Cluster, tmp_path: Path) -> None:
    """All events of a call have its key, which names provider, org and call."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(600))
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 600)
    partitions: dict[bytes, set[int]] = defaultdict(set)
    deliveries: dict[bytes, int] = defaultdict(int)
    for read in everything(cluster.bootstrap):
        delivery = read_delivery(read.headers.items(), read.value)
        assert not isinstance(delivery, Chunk)
        event = discover()[delivery.provider].normalise(delivery)[0]
        assert read.headers["event"].decode() == event.event
        if event.call_id is None:
            assert read.key == read.headers["id"]
        else:
            assert read.key.decode() == f"{delivery.provider}:{event.org}:{event.call_id}"
            partitions[read.key].add(read.partition)
            deliveries[read.key] += 1
    assert max(deliveries.values()) > 1
    assert all(len(of_call) == 1 for of_call in partitions.values())


def test_what_cannot_be_understood_is_published_too(cluster: Cluster, tmp_path: Path) -> None:
    """The worker makes a dead letter of it; the relay only lacks a call to put into the key."""
    with writing(tmp_path) as journal:
        journal.append([webhook(b"not json"), webhook(b"{}"), webhook(b'{"a": 1}', source="callsync")])
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 3)
        records = everything(cluster.bootstrap)
    assert sorted(read.value for read in records) == [b"not json", b'{"a": 1}', b"{}"]
    assert all(read.key == read.headers["id"] for read in records)


def test_notices_have_a_topic_of_their_own(cluster: Cluster, tmp_path: Path) -> None:
    """They share the journal's positions with deliveries, and arrive as they were noted."""
    with writing(tmp_path) as journal:
        journal.append([*webhooks(5), notice(1), *webhooks(5, seed=2), notice(2)])
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 12)
        assert sorted(read.position for read in everything(cluster.bootstrap)) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
        found = [read_notice(read.headers.items(), read.value) for read in everything(cluster.bootstrap, NOTICES)]
        assert found == [as_read(journal.records[at - 1], journal.journal_id, at) for at in (6, 12)]


def test_a_damaged_row_is_published_as_such(cluster: Cluster, tmp_path: Path) -> None:
    """It cannot be read, but that it was there must not vanish on the way."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(9))
    edit(journal.path, "UPDATE rows SET body = ? WHERE position = 5", b"something else")
    with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        published(relay, 9)
    assert sorted(read.position for read in everything(cluster.bootstrap)) == [1, 2, 3, 4, 6, 7, 8, 9]
    (lost,) = everything(cluster.bootstrap, NOTICES)
    damaged = read_notice(lost.headers.items(), lost.value)
    assert isinstance(damaged, Damaged)
    assert (damaged.position, damaged.journal_id) == (5, journal.journal_id)


def test_a_body_of_32_mib_travels_in_chunks(cluster: Cluster, tmp_path: Path) -> None:
    """None is over the topic's limit, they lie in order in one partition, and together they are the body."""
    big = b'{"call": {"call_id": "c-1"}, "transcript": "' + Random(1).randbytes(16 << 20).hex().encode()[:-46] + b'"}'
    assert len(big) == 32 << 20
    with writing(tmp_path) as journal:
        journal.append([*webhooks(20), webhook(big), *webhooks(20, seed=2)])
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 41)
        records = everything(cluster.bootstrap)
        assert repeated_positions([read for read in records if "chunk" not in read.headers]) == 0
        cut = [read for read in records if "chunk" in read.headers]
        assert len(cut) == 33
        assert {(read.partition, read.key) for read in cut} == {(cut[0].partition, b"synthflow::c-1")}
        joiner = Joiner()
        joined = []
        for read in cut:
            chunk = read_delivery(read.headers.items(), read.value)
            assert isinstance(chunk, Chunk)
            joined += [whole for whole in [joiner.add(chunk, read.offset)] if whole is not None]
        assert joined == [as_read(journal.records[20], journal.journal_id, 21)]


def test_a_time_from_the_future_does_not_stop_the_relay(cluster: Cluster, tmp_path: Path) -> None:
    """A broker refuses times an hour ahead; where our clock was wrong for a while the record's time is now."""
    with writing(tmp_path) as journal:
        journal.append([webhook(b'{"a": 1}', at=4_000_000_000_000_000), *webhooks(3)])
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 4)
    (read,) = [read for read in everything(cluster.bootstrap) if read.position == 1]
    assert read.headers["received_at"] == b"4000000000000000"
    assert read.timestamp_ms < 4_000_000_000_000


def test_gzip_packs_what_is_published(cluster: Cluster, tmp_path: Path) -> None:
    """Consumers see the same records."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(500))
        with relaying(settings(tmp_path, cluster.bootstrap, kafka_compression="gzip")) as relay:
            published(relay, 500)
        records = everything(cluster.bootstrap)
        assert {read.position: read.value for read in records} == dict(enumerate(journal.bodies(), 1))


def test_after_an_orderly_stop_nothing_is_repeated(cluster: Cluster, tmp_path: Path) -> None:
    """The next relay begins behind what was acknowledged."""
    with writing(tmp_path) as journal:
        for number in range(1, 4):
            journal.append(webhooks(400, seed=number))
            with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
                published(relay, 400 * number)
        records = everything(cluster.bootstrap)
    assert repeated_positions(records) == 0
    assert len(records) == 1_200


def test_another_topic_receives_the_whole_journal(cluster: Cluster, tmp_path: Path) -> None:
    """A topic that was deleted and made again lacks everything; the relay notices by its id."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(100))
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 100)
        with administrating(cluster.bootstrap) as client:
            client.delete_topics(["calltally.deliveries"])
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            until(lambda: relay.state.published >= 100, seconds=30)
    assert {read.position for read in everything(cluster.bootstrap)} == set(range(1, 101))


def test_a_topic_deleted_under_the_relay_is_made_again(cluster: Cluster, tmp_path: Path) -> None:
    """It says what happened, and publishes the journal into the new one."""
    with writing(tmp_path) as journal, relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        journal.append(webhooks(100))
        published(relay, 100)
        with administrating(cluster.bootstrap) as client:
            client.delete_topics(["calltally.deliveries"])
        journal.append(webhooks(50, seed=2))
        published(relay, 150)
        assert {read.position for read in everything(cluster.bootstrap)} == journal.positions()


def test_a_person_can_have_it_published_again(cluster: Cluster, tmp_path: Path) -> None:
    """From a position on, for a cluster that lost what it had acknowledged."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(100))
        for again_from in (None, 61):
            with relaying(settings(tmp_path, cluster.bootstrap), again_from=again_from) as relay:
                until(lambda: relay.state.published > 0 and relay.state.position == 100, seconds=30)
        records = everything(cluster.bootstrap)
    assert len(records) == 140
    assert repeated_positions(records) == 40


def test_a_second_relay_of_one_journal_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """Both would publish everything."""
    with writing(tmp_path), relaying(settings(tmp_path, cluster.bootstrap)) as first:
        until(lambda: first.state.running, seconds=10)
        assert relay_report.running(tmp_path / "data")
        second = Relay(settings(tmp_path, cluster.bootstrap))
        with pytest.raises(BrokerError, match="Another relay already publishes") as refused:
            second.run()
        assert refused.value.code == "relay_running"
    assert not relay_report.running(tmp_path / "data")


def test_a_relay_waits_for_the_journal_to_be_made(cluster: Cluster, tmp_path: Path) -> None:
    """It may be started before ingest ever was."""
    with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        faulty(relay, "journal_unavailable")
        with writing(tmp_path) as journal:
            journal.append(webhooks(10))
            published(relay, 10)
            until(lambda: relay.state.fault is None, seconds=10)


def test_its_state_can_be_read_from_outside(cluster: Cluster, tmp_path: Path) -> None:
    """Where it stands, how much is behind, when Kafka last acknowledged: for status and metrics."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(25))
        with relaying(settings(tmp_path, cluster.bootstrap)) as relay:
            published(relay, 25)
            until(
                lambda: (report := relay_report.read(tmp_path / "data")) is not None and report.position == 25,
                seconds=10,
            )
            report = relay_report.read(tmp_path / "data")
            assert report is not None
            assert (report.journal_id, report.lag, report.published) == (journal.journal_id, 0, 25)
            assert (report.running, report.fault, report.findings) == (True, None, [])
            metrics = {sample.name: sample.value for sample in _samples(tmp_path)}
            assert metrics["calltally_relay_up"] == 1
            assert metrics["calltally_relay_position"] == 25
            assert metrics["calltally_relay_records_total"] == 25
        stopped = relay_report.read(tmp_path / "data")
        assert stopped is not None
        assert not stopped.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_publishes_until_it_is_told_to_stop(
    cluster: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    """It ends with exit code 0, having saved where it stands."""
    with writing(tmp_path) as journal:
        journal.append(webhooks(30))
        process = RelayProcess(tmp_path, cluster.bootstrap)
        process.published(30)
        assert process.end(number) == 0
        log = (tmp_path / "relay.log").read_text()
        assert json.loads(log.splitlines()[-1])["event"] == "stopped"
        again = RelayProcess(tmp_path, cluster.bootstrap)
        journal.append(webhooks(5, seed=2))
        again.published(35)
        assert again.end(number) == 0
    assert len(everything(cluster.bootstrap)) == 35


def test_the_command_ends_with_its_supervisor(cluster: Cluster, tmp_path: Path) -> None:
    """The supervisor holds the other end of its standard input for as long as it lives."""
    with writing(tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "relay", "--supervised"], cwd=tmp_path, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"PYTHONPATH": str(ROOT), "CALLTALLY_KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap},
        )  # fmt: skip
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("publishing" in line for line in lines)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "stopped" in said


def test_settings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """Before anything is connected to."""
    wrong: list[tuple[dict[str, object], str]] = [
        ({"kafka_security_protocol": "SASL_SSL"}, "needs kafka_username and kafka_password"),
        ({"kafka_password": "x"}, "sends none"),
        ({"kafka_security_protocol": "SSL", "kafka_ca_file": tmp_path / "none.pem"}, "none.pem"),
    ]
    for more, words in wrong:
        with pytest.raises(SettingsError, match=words), relaying(settings(tmp_path, "127.0.0.1:1", **more)):
            pass
    with pytest.raises(SettingsError, match="names 'kafka:port'"), relaying(settings(tmp_path, "kafka:port")):
        pass


def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The relay waits and says for whom."""
    (port,) = free_ports(1)
    with writing(tmp_path) as journal, relaying(settings(tmp_path, f"127.0.0.1:{port}")) as relay:
        journal.append(webhooks(3))
        assert f"127.0.0.1:{port} cannot be reached (Connection refused)" in faulty(relay, "broker_unavailable")
        until(lambda: relay.state.lag == 3, seconds=10)
        until(lambda: (report := relay_report.read(tmp_path / "data")) is not None and report.lag == 3, seconds=10)
        assert {sample.name: sample.value for sample in _samples(tmp_path)}["calltally_relay_up"] == 0


def _samples(folder: Path) -> list[Sample]:
    return [sample for metric in relay_state.RelayMetrics(folder / "data").collect() for sample in metric.samples]
