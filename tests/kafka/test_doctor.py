"""`calltally doctor` with a real Kafka: what is wrong with it is found, named and given a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from calls.records import Topic
from cli.check import Level
from cli.checks.kafka import compared
from tests import command
from tests.command import rows, run
from tests.kafka.relaying import published, relaying, settings, webhooks, writing
from tests.kafka.test_topics import make
from tools.kafka.broker import Cluster
from tools.ports import free_ports

pytestmark = pytest.mark.kafka


def told(folder: Path, bootstrap: str, code: int = 0, **more: str) -> dict[str, list[dict[str, object]]]:
    """What the doctor says about Kafka, by level."""
    command.settings_file(folder, ports=free_ports(3))
    given = {f"CALLTALLY_{name.upper()}": value for name, value in more.items()}
    environ = {"CALLTALLY_KAFKA_BOOTSTRAP_SERVERS": bootstrap, **given}
    found: dict[str, list[dict[str, object]]] = {level: [] for level in Level}
    for one in rows(run(folder, "doctor", "--format", "json", environ=environ), code):
        if one["check"] == "kafka":
            found[str(one["level"])].append(one)
    return found


def causes(found: list[dict[str, object]]) -> str:
    return "\n".join(str(one["cause"]) for one in found)


def test_a_healthy_kafka_needs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Reached, its version, rights, topics, sizes, clock and the relay: a finding each, and none is bad."""
    with writing(tmp_path) as journal, relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        journal.append(webhooks(20))
        published(relay, 20)
    found = told(tmp_path, cluster.bootstrap)

    assert found[Level.WARNING] == found[Level.WRONG] == []
    said = causes(found[Level.OK])
    for part in (
        f"{cluster.bootstrap} takes connections", "Kafka 4.1 with 1 broker", "has the rights on the topics",
        "The topics are as the settings say", "travels in about 32 records", "clock and Kafka's agree within",
    ):  # fmt: skip
        assert part in said
    assert causes(found[Level.NOTE]) == "The relay does not run; 0 records of the journal are not published yet."


def test_topics_that_the_relay_will_make_are_no_fault(cluster: Cluster, tmp_path: Path) -> None:
    """Each is named; looking makes none, nor Kafka's own for groups."""
    for _ in range(2):
        found = told(tmp_path, cluster.bootstrap)
        assert found[Level.WARNING] == found[Level.WRONG] == []
        assert [str(topic) in causes(found[Level.NOTE]) for topic in Topic] == [True] * len(Topic)


def test_a_kafka_that_is_away_is_found(kafka: None, tmp_path: Path) -> None:
    """With its address, and that nothing is lost meanwhile."""
    (port,) = free_ports(1)
    (one,) = told(tmp_path, f"127.0.0.1:{port}", 1)[Level.WRONG]

    assert f"127.0.0.1:{port} cannot be reached" in str(one["cause"])
    assert "kept and published when it is back" in str(one["fix"])


def test_one_of_two_named_brokers_is_away(cluster: Cluster, tmp_path: Path) -> None:
    """A warning that names it; the other one is asked."""
    (port,) = free_ports(1)
    found = told(tmp_path, f"127.0.0.1:{port},{cluster.bootstrap}", 1)

    assert f"127.0.0.1:{port} cannot be reached" in causes(found[Level.WARNING])
    assert "Kafka 4.1" in causes(found[Level.OK])
    assert found[Level.WRONG] == []


def test_a_topic_that_would_lose_records_is_wrong(cluster: Cluster, tmp_path: Path) -> None:
    """And one that should only be otherwise is a warning; both say what to set."""
    make(cluster, Topic.DELIVERIES, {"cleanup.policy": "compact"})
    make(cluster, Topic.NOTICES, {"retention.ms": "86400000"})
    found = told(tmp_path, cluster.bootstrap, 1)

    assert "set its cleanup.policy to delete" in causes(found[Level.WRONG])
    assert "deletes records after 24 hours" in causes(found[Level.WARNING])
    assert all(one["fix"] for one in found[Level.WRONG] + found[Level.WARNING])


def test_pieces_are_counted_by_what_the_topic_takes(cluster: Cluster, tmp_path: Path) -> None:
    """A smaller topic than the settings ask for cuts the largest body into more."""
    make(cluster, Topic.DELIVERIES, {"max.message.bytes": "524288"})

    assert "travels in about 64 records" in causes(told(tmp_path, cluster.bootstrap, 1)[Level.OK])


def test_a_record_that_no_request_can_carry_is_wrong(cluster: Cluster, tmp_path: Path) -> None:
    """The broker reads requests of 100 MiB at most."""
    found = told(tmp_path, cluster.bootstrap, 1, kafka_record_max_bytes="99999999")

    assert "one with two records of 99,999,999 is refused" in causes(found[Level.WRONG])
    assert "socket.request.max.bytes" in str(found[Level.WRONG][0]["fix"])


def test_settings_that_do_not_fit_are_found(kafka: None, tmp_path: Path) -> None:
    """Before anybody is asked."""
    found = told(tmp_path, "127.0.0.1:1", 1, kafka_security_protocol="SASL_SSL")

    assert "needs kafka_username and kafka_password" in causes(found[Level.WRONG])


def test_a_journal_that_is_published_no_more_is_found(cluster: Cluster, tmp_path: Path) -> None:
    """A relay has run, and no broker is named now."""
    with writing(tmp_path) as journal, relaying(settings(tmp_path, cluster.bootstrap)) as relay:
        journal.append(webhooks(1))
        published(relay, 1)
    found = told(tmp_path, "", 1)

    assert "no Kafka broker is named now" in causes(found[Level.WARNING])


def test_where_kafka_is_not_used_nothing_is_said(kafka: None, tmp_path: Path) -> None:
    """The embedded product needs none."""
    assert [one for level in told(tmp_path, "").values() for one in level] == []


@pytest.mark.parametrize(("ahead_s", "words"), [(3700.0, "3,700 s ahead of"), (-61.0, "61 s behind")])
def test_clocks_that_differ_are_found(ahead_s: float, words: str) -> None:
    """By how much, and whose is ahead."""
    found = compared(ahead_s)

    assert found.level is Level.WARNING
    assert words in found.cause
    assert "time synchronisation" in found.fix
