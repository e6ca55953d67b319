"""Brokers that want TLS and a login, as real clusters do; and what is said where either is wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType

from calls.records import RELAYED
from ingest import topics
from tests import command
from tests.command import rows, run
from tests.kafka.reading import administrating, delete_topics, everything
from tests.kafka.relaying import faulty, published, relaying, settings, webhooks, writing
from tools.kafka import broker
from tools.kafka.broker import SUPER_USER, Cluster
from tools.ports import free_ports

pytestmark = pytest.mark.kafka

STORE_PASSWORD = "only-for-tests"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


class Guarded(NamedTuple):
    """A broker with guarded listeners beside the open one."""

    cluster: Cluster
    ca_file: Path


@pytest.fixture(scope="module")
def guarded(kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """`ada` may do everything, `bob` nothing; anybody may, who comes through the open listener."""
    folder = tmp_path_factory.mktemp("guarded")
    keys, ca_file = _certificate(folder)
    users = 'user_ada="right" user_bob="right"'
    more = "".join(
        f"{line}\n"
        for line in [
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"ssl.keystore.location={keys}",
            "ssl.keystore.type=PKCS12",
            f"ssl.keystore.password={STORE_PASSWORD}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            f"super.users={SUPER_USER};User:ada",
            *[
                f"listener.name.{listener}.{mechanism}.sasl.jaas.config={module} required {given};"
                for listener in ("login", "guarded")
                for mechanism, module, given in [
                    ("plain", PLAIN, users),
                    ("scram-sha-256", SCRAM, ""),
                    ("scram-sha-512", SCRAM, ""),
                ]
            ],
        ]
    )
    scram = [f"SCRAM-SHA-{bits}=[name=ada,password=right]" for bits in (256, 512)]
    listeners = {"TLS": "SSL", "LOGIN": "SASL_PLAINTEXT", "GUARDED": "SASL_SSL"}
    with broker.cluster(folder / "kafka", listeners=listeners, more=more, scram=scram) as cluster:
        yield Guarded(cluster, ca_file)


@pytest.fixture
def empty(guarded: Guarded) -> Guarded:
    """The same without topics."""
    delete_topics(guarded.cluster.bootstrap)
    return guarded


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("listener", ["LOGIN", "GUARDED"])
def test_a_login_is_accepted(empty: Guarded, tmp_path: Path, listener: str, mechanism: str) -> None:
    """With each mechanism, with and without TLS."""
    protocol = {"LOGIN": "SASL_PLAINTEXT", "GUARDED": "SASL_SSL"}[listener]
    chosen = settings(
        tmp_path, empty.cluster.address(listener), kafka_security_protocol=protocol, kafka_sasl_mechanism=mechanism,
        kafka_username="ada", kafka_password="right", kafka_ca_file=empty.ca_file,
    )  # fmt: skip
    with writing(tmp_path) as journal, relaying(chosen) as relay:
        journal.append(webhooks(20))
        published(relay, 20)
    assert len(everything(empty.cluster.bootstrap)) == 20


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_named(empty: Guarded, tmp_path: Path, mechanism: str) -> None:
    """The relay says what to check, and never the password."""
    chosen = settings(
        tmp_path, empty.cluster.address("LOGIN"), kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism=mechanism, kafka_username="ada", kafka_password="Vq8rZ2mK0pTn4xWc",
    )  # fmt: skip
    with writing(tmp_path), relaying(chosen) as relay:
        sentence = faulty(relay, "broker_refused")
    assert "kafka_username, kafka_password" in sentence
    assert "Vq8rZ2mK0pTn4xWc" not in sentence


def test_a_user_without_rights_is_told_which(empty: Guarded, tmp_path: Path) -> None:
    """Missing rights are not missing topics."""
    chosen = settings(
        tmp_path, empty.cluster.address("LOGIN"), kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN", kafka_username="bob", kafka_password="right",
    )  # fmt: skip
    with writing(tmp_path), relaying(chosen) as relay:
        assert "Give it the rights Describe, DescribeConfigs and Write" in faulty(relay, "broker_refused")


def test_tls_alone(empty: Guarded, tmp_path: Path) -> None:
    """Encrypted, without a login; nobody is then a user without rights."""
    chosen = settings(
        tmp_path, empty.cluster.address("TLS"), kafka_security_protocol="SSL", kafka_ca_file=empty.ca_file
    )
    with writing(tmp_path) as journal, relaying(chosen) as relay:
        journal.append(webhooks(20))
        published(relay, 20)
    assert len(everything(empty.cluster.bootstrap)) == 20


def test_a_certificate_that_is_not_trusted_is_named(empty: Guarded, tmp_path: Path) -> None:
    """Without the authority's file only public ones are trusted."""
    chosen = settings(tmp_path, empty.cluster.address("TLS"), kafka_security_protocol="SSL")
    with writing(tmp_path), relaying(chosen) as relay:
        assert "has a certificate that is not trusted (self-signed certificate)" in faulty(relay, "broker_unavailable")


def test_a_listener_without_tls_is_named(empty: Guarded, tmp_path: Path) -> None:
    """TLS spoken to a port that does not."""
    chosen = settings(tmp_path, empty.cluster.bootstrap, kafka_security_protocol="SSL", kafka_ca_file=empty.ca_file)
    with writing(tmp_path), relaying(chosen) as relay:
        assert empty.cluster.bootstrap in faulty(relay, "broker_unavailable")


def test_a_listener_with_tls_spoken_to_without(empty: Guarded, tmp_path: Path) -> None:
    """It hangs up; that is said."""
    with writing(tmp_path), relaying(settings(tmp_path, empty.cluster.address("TLS"))) as relay:
        assert faulty(relay, "broker_unavailable")


def test_the_doctor_names_the_rights_that_are_missing(empty: Guarded, tmp_path: Path) -> None:
    """All of them for a user without any; a relay's user need not have the worker's."""
    login = {
        "KAFKA_BOOTSTRAP_SERVERS": empty.cluster.address("LOGIN"), "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_USERNAME": "bob", "KAFKA_PASSWORD": "right",
    }  # fmt: skip
    environ = {f"CALLTALLY_{name}": value for name, value in login.items()}
    command.settings_file(tmp_path, ports=free_ports(3))
    with administrating(empty.cluster.bootstrap) as client:
        chosen = settings(tmp_path, empty.cluster.bootstrap)
        topics.prepare(client, chosen)
        nothing = rows(run(tmp_path, "doctor", "--format", "json", environ=environ), 1)
        with _rights_of_a_relay(client):
            enough = rows(run(tmp_path, "doctor", "--format", "json", environ=environ))

    (relays, workers) = [one for one in nothing if "lacks rights" in str(one["cause"])]
    assert (relays["level"], workers["level"]) == ("wrong", "wrong")
    needed = "Describe on calltally.deliveries, DescribeConfigs on calltally.deliveries, Write on calltally.deliveries"
    assert f"the relay needs: {needed}" in str(relays["cause"])
    assert "Read on calltally.notices" in str(workers["cause"])
    (workers,) = [one for one in enough if "lacks rights" in str(one["cause"])]
    assert workers["level"] == "note"
    assert "but all that the relay needs" in str(workers["cause"])


def test_the_rights_that_the_doctor_asks_for_are_enough_for_a_relay(empty: Guarded, tmp_path: Path) -> None:
    """Of the topics that only the worker writes, its user need not even know."""
    chosen = settings(
        tmp_path, empty.cluster.address("LOGIN"), kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN", kafka_username="bob", kafka_password="right",
    )  # fmt: skip
    with administrating(empty.cluster.bootstrap) as client:
        topics.prepare(client, settings(tmp_path, empty.cluster.bootstrap))
        with _rights_of_a_relay(client), writing(tmp_path) as journal, relaying(chosen) as relay:
            journal.append(webhooks(20))
            published(relay, 20)
            assert relay.state.findings == []
    assert len(everything(empty.cluster.bootstrap)) == 20


def test_the_doctor_names_a_wrong_password(empty: Guarded, tmp_path: Path) -> None:
    """As the relay does, with what to check."""
    command.settings_file(tmp_path, ports=free_ports(3))
    environ = {
        "CALLTALLY_KAFKA_BOOTSTRAP_SERVERS": empty.cluster.address("LOGIN"),
        "CALLTALLY_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "CALLTALLY_KAFKA_SASL_MECHANISM": "PLAIN",
        "CALLTALLY_KAFKA_USERNAME": "ada", "CALLTALLY_KAFKA_PASSWORD": "Vq8rZ2mK0pTn4xWc",
    }  # fmt: skip
    done = run(tmp_path, "doctor", "--format", "json", environ=environ)
    (wrong,) = [one for one in rows(done, 1) if one["level"] == "wrong"]

    assert "Kafka refuses us" in str(wrong["cause"])
    assert "kafka_username" in str(wrong["fix"])
    assert b"Vq8rZ2mK0pTn4xWc" not in done.stdout + done.stderr


@contextmanager
def _rights_of_a_relay(client: KafkaAdminClient) -> Iterator[None]:
    given = [
        ACL("User:bob", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(ResourceType.TOPIC, topic))
        for topic in RELAYED
        for operation in (ACLOperation.DESCRIBE, ACLOperation.DESCRIBE_CONFIGS, ACLOperation.WRITE)
    ]
    client.create_acls(given)
    try:
        yield
    finally:
        client.delete_acls(given)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A key with its certificate for 127.0.0.1, as the broker wants it, and the certificate as a client does."""
    keys, ca_file = folder / "keys.p12", folder / "ca.pem"
    common = ["-keystore", str(keys), "-storetype", "PKCS12", "-storepass", STORE_PASSWORD, "-alias", "broker"]
    subprocess.run(
        ["keytool", "-genkeypair", *common, "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1",
         "-ext", "bc:c", "-validity", "30"],
        check=True, capture_output=True,
    )  # fmt: skip
    exported = subprocess.run(["keytool", "-exportcert", "-rfc", *common], check=True, capture_output=True)
    ca_file.write_bytes(exported.stdout)
    return keys, ca_file
