"""`calltally up --kafka` and `make demo-kafka` as people use them: real processes, signals, and a real Apache Kafka."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from analytics.access import read_token
from analytics.client import Client
from calls.records import Topic
from tests.e2e.test_up import COMMAND, ENVIRONMENT, ROOT, Running
from tools.kafka import broker
from tools.kafka.broker import Cluster
from tools.ports import free_ports

pytestmark = pytest.mark.kafka

SOURCES = ("aisync", "callsync", "inboundflow", "synthflow")
COUNTED = (
    "SELECT coalesce(sum(\"count\") FILTER (verdict = 'accepted'), 0)::BIGINT AS accepted, "
    "coalesce(sum(\"count\") FILTER (verdict <> 'accepted'), 0)::BIGINT AS others FROM deliveries"
)


@contextmanager
def up(folder: Path, bootstrap: str, *words: str) -> Iterator[Running]:
    """`calltally up --kafka` with a source of each platform."""
    ports = free_ports(3)
    names = ("ingest_port", "sql_port", "dashboard_port")
    lines = [f"{name} = {port}" for name, port in zip(names, ports, strict=True)]
    lines += [f'kafka_bootstrap_servers = "{bootstrap}"']
    lines += [f'[sources.{source}]\nsecrets = ["a-test-secret-of-{source}"]' for source in SOURCES]
    (folder / "calltally.toml").write_text("\n".join(lines))
    running = Running([*COMMAND, "up", "--kafka", *words], folder, folder / "data", ports)
    try:
        running.until(lambda: running.ready(ports[0]), "ingest is ready")
        yield running
    finally:
        running.stop()


def command(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=running.data.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def send(running: Running, calls: int, sources: Sequence[str] = SOURCES) -> int:
    """Signed webhooks of that many calls of each platform; how many were answered 200, and all were."""
    accepted = 0
    for source in sources:
        done = command(running, "send", source, "--count", str(calls))
        assert done.returncode == 0, done.stderr
        accepted += int(re.fullmatch(r"(\d+) answered 200\n", done.stderr)[1])  # type: ignore[index]
    return accepted


def ask(running: Running, query: str) -> list[dict[str, Any]]:
    """Rows of `POST /sql`; none while nobody answers there."""
    token = read_token(running.data / "sql.token")
    if token is None or not running.ready(running.sql_port):
        return []
    client = Client(f"http://127.0.0.1:{running.sql_port}", token)
    try:
        rows: list[dict[str, Any]] = client.query(query).to_pylist()
    finally:
        client.close()
    return rows


def counts(running: Running, accepted: int) -> Callable[[], bool]:
    """Whether DuckDB holds that many deliveries, each once, and nothing else."""
    return lambda: ask(running, COUNTED) == [{"accepted": accepted, "others": 0}]


def ends(processes: Sequence[tuple[str, psutil.Process]]) -> list[str]:
    """The names in the order in which the processes end."""
    waiting, order = dict(processes), list[str]()
    deadline = time.monotonic() + 60
    while waiting:
        assert time.monotonic() < deadline, f"{list(waiting)} did not end"
        for name, process in list(waiting.items()):
            if _ended(process):
                order.append(name)
                del waiting[name]
        time.sleep(0.002)
    return order


def test_every_webhook_is_counted_once_whatever_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Four platforms in, worker and relay killed and started again, exactly what was answered 200 in DuckDB."""
    with up(tmp_path, cluster.bootstrap, "--no-dashboard") as running:
        accepted = send(running, 10)
        running.until(counts(running, accepted), "the first webhooks are counted")
        for name in ("worker", "relay"):
            running.child(name).kill()
            accepted += send(running, 10)
            running.until(lambda: f"{name} was killed" in "\n".join(running.lines), f"{name} is gone")  # noqa: B023
        running.until(counts(running, accepted), f"{accepted} webhooks are counted")
        calls = ask(running, "SELECT provider, count(*) AS n FROM calls GROUP BY ALL ORDER BY ALL")
        letters = ask(running, "SELECT count(*) AS n FROM dead_letters")

    assert letters == [{"n": 0}]
    assert calls == [{"provider": source, "n": 30} for source in SOURCES]


def test_an_interrupt_stops_all_in_the_order_of_the_path(cluster: Cluster, tmp_path: Path) -> None:
    """Ctrl-C: ingest, relay, worker, dashboard; exit code 0, and nothing is left."""
    with up(tmp_path, cluster.bootstrap) as running:
        running.until(lambda: any("URL:" in line for line in running.lines), "the dashboard runs")
        running.until(lambda: running.ready(running.sql_port), "the worker is ready")
        names = ("ingest", "relay", "worker", "dashboard")
        processes = [(name, running.child(name)) for name in names]
        family = psutil.Process(running.process.pid).children(recursive=True)

        running.process.send_signal(signal.SIGINT)

        assert ends(processes) == list(names)
        assert running.process.wait(30) == 0
        running.until(lambda: not any(child.is_running() for child in family), "no process is left", 10)


def test_a_kafka_that_is_away_at_the_start_costs_nothing(kafka: None, tmp_path: Path) -> None:
    """Everything starts and says what it waits for; webhooks are accepted, and counted once Kafka is there."""
    (port,) = free_ports(1)
    with up(tmp_path, f"127.0.0.1:{port}", "--no-dashboard") as running:
        accepted = send(running, 5, ["aisync"])
        running.until(lambda: any("relay waits" in line for line in running.lines), "the relay says so")
        running.until(lambda: _waits(running), "the worker says so")
        status = command(running, "status", "--format", "json")
        with broker.lasting(tmp_path / "kafka", port=port):
            running.until(counts(running, accepted), "all of it is counted", 90)
            well = command(running, "status", "--format", "json")
            running.stop()

    assert status.returncode == 1
    assert f"127.0.0.1:{port} cannot be reached" in status.stderr
    (found,) = json.loads(status.stdout)
    assert (found["relay"]["running"], found["relay"]["lag"]) == (True, accepted)
    (found,) = json.loads(well.stdout)
    assert (well.returncode, found["lag"], found["relay"]["lag"], found["relay"]["fault"]) == (0, 0, 0, None)
    partitions = {(one["topic"], one["partition"]) for one in found["worker"]["partitions"]}
    assert partitions == {(topic.value, number) for topic in (Topic.DELIVERIES, Topic.NOTICES) for number in range(4)}
    assert {one["lag"] for one in found["worker"]["partitions"]} == {0}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "CALLTALLY_KAFKA_BOOTSTRAP_SERVERS"),
        ('kafka_bootstrap_servers = "here:there"', "write host:port"),
        ('kafka_bootstrap_servers = "127.0.0.1:9092"\nkafka_security_protocol = "SASL_SSL"', "kafka_username"),
    ],
)
def test_settings_that_reach_no_kafka_are_wrong_usage(tmp_path: Path, line: str, words: str) -> None:
    """`up --kafka` exits 2 with one sentence, before anything starts."""
    (tmp_path / "calltally.toml").write_text(line)
    done = subprocess.run(
        [*COMMAND, "up", "--kafka"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_demo_does_not_mix_with_what_others_publish(cluster: Cluster, tmp_path: Path) -> None:
    """A Kafka that holds records of somebody else is refused, and nothing starts."""
    with up(tmp_path, cluster.bootstrap, "--no-dashboard") as running:
        accepted = send(running, 1, ["synthflow"])
        running.until(counts(running, accepted), "real calls are in Kafka")
    done = subprocess.run(
        [*COMMAND, "up", "--demo", "--kafka", "--demo-dir", str(tmp_path / "demo")], cwd=tmp_path,
        env={**ENVIRONMENT, "CALLTALLY_KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "made-up calls must not mix" in done.stderr


@pytest.mark.demo
@pytest.mark.timeout(400)
def test_make_demo_kafka_counts_every_made_up_webhook(kafka: None, tmp_path: Path) -> None:
    """`make demo-kafka` brings its own broker; what it sends is in DuckDB, each once; Ctrl-C ends all of it."""
    ports = free_ports(3)
    data = tmp_path / "demo"
    options = f"--ingest-port {ports[0]} --sql-port {ports[1]} --dashboard-port {ports[2]} --demo-dir {data}"
    running = Running(["make", "demo-kafka", f"UP={options} --demo-seconds 15"], ROOT, data, ports)
    try:
        running.until(lambda: _accepted(running) is not None, "all of the demo was sent", 240)
        accepted = _accepted(running)
        assert accepted is not None
        assert accepted > 3_000
        running.until(lambda: _total(running) == accepted, f"{accepted} webhooks are counted", 90)
        providers = ask(running, "SELECT DISTINCT provider FROM calls ORDER BY provider")
        letters = ask(running, "SELECT count(*) AS n FROM dead_letters")
        page = httpx.get(f"http://127.0.0.1:{ports[2]}/", timeout=10)
        family = psutil.Process(running.process.pid).children(recursive=True)
    finally:
        code = running.stop()

    assert [row["provider"] for row in providers] == list(SOURCES)
    assert letters == [{"n": 0}]
    assert page.status_code == 200
    assert any("Kafka runs at 127.0.0.1:" in line for line in running.lines)
    # Ctrl-C ends make itself, too, once its child has ended.
    assert code in (0, -signal.SIGINT)
    assert any(re.match(r"worker +\| .* stopped", line) for line in running.lines), running.lines[-20:]
    running.until(lambda: not any(child.is_running() for child in family), "no process is left", 20)


def test_a_demo_without_java_says_what_to_install(tmp_path: Path) -> None:
    """One line with the way out, exit code 1, no traceback."""
    python = subprocess.run(
        [COMMAND[0], "-m", "tools.kafka.demo", "--demo-dir", str(tmp_path / "demo")], cwd=ROOT,
        env={**ENVIRONMENT, "PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert python.returncode == 1
    assert "no java" in python.stderr
    assert "CALLTALLY_KAFKA_BOOTSTRAP_SERVERS=" in python.stderr
    assert "Traceback" not in python.stderr
    assert len(python.stderr.splitlines()) == 2


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _waits(running: Running) -> bool:
    try:
        answer = httpx.get(f"http://127.0.0.1:{running.sql_port}/readyz", timeout=2)
    except httpx.TransportError:
        return False
    return answer.status_code == 503 and "Kafka is away" in answer.json()["reason"]


def _accepted(running: Running) -> int | None:
    """How many of its webhooks the demo says were answered 200; none was answered otherwise."""
    for line in running.lines:
        found = re.search(r"(\d+) webhooks accepted, 0 not", line)
        if found:
            return int(found[1])
    return None


def _total(running: Running) -> int:
    rows = ask(running, 'SELECT coalesce(sum("count"), 0)::BIGINT AS n FROM deliveries')
    return int(rows[0]["n"]) if rows else -1
