"""The layout of docs/two-machines.md with its own settings: folders that share nothing but the broker."""

from __future__ import annotations

import re
import shutil
import signal
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from calls.settings import load
from tests.command import rows, run, running, told
from tests.kafka.relaying import RelayProcess
from tests.kafka.workers import WorkerProcess
from tools.kafka.broker import Cluster
from tools.ports import free_ports

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parents[2] / "docs" / "two-machines.md"
TOKEN = "5d1f0c7e9b3a48265d1f0c7e9b3a4826"


def test_the_door_and_the_tables_share_nothing_but_the_broker(cluster: Cluster, tmp_path: Path) -> None:
    """What is sent to one machine is counted on the other, and read from a third."""
    door, tables, desk = folders(tmp_path, cluster)
    with taking(door, cluster), telling(tables) as worker:
        sent = send(door, "synthflow", 12) + send(door, "acme-inboundflow", 12)
        worker.wait_rows(lambda count: count == sent)
        counted = rows(
            run(
                desk, "sql", "SELECT provider, org, count(*) AS calls FROM calls GROUP BY ALL ORDER BY ALL",
                "--format", "json", environ=elsewhere(tables),
            )
        )  # fmt: skip
    assert counted == [
        {"provider": "inboundflow", "org": "acme", "calls": 12},
        {"provider": "synthflow", "org": "", "calls": 12},
    ]
    assert not (door / "data" / "store.duckdb").exists()
    assert not (tables / "data" / "journal.sqlite").exists()
    assert not (desk / "data").exists()


def test_either_machine_can_be_lost(cluster: Cluster, tmp_path: Path) -> None:
    """New tables are filled from Kafka; a new door begins a new journal, and what was counted stays counted."""
    door, tables, _ = folders(tmp_path, cluster)
    with taking(door, cluster), telling(tables) as worker:
        sent = send(door, "synthflow", 10)
        worker.wait_rows(lambda count: count == sent)
    shutil.rmtree(tables / "data")
    shutil.rmtree(door / "data")
    with taking(door, cluster), telling(tables) as worker:
        sent += send(door, "synthflow", 5, seed=2)
        worker.wait_rows(lambda count: count == sent)
        assert worker.count("SELECT count(*) FROM calls") == 15
        assert worker.count("SELECT count(*) FROM deliveries WHERE position = 1") == 2


def test_the_settings_of_the_page_belong_to_their_machine(tmp_path: Path) -> None:
    """Each block is a settings file that loads; the tables know no source, the door no rule."""
    door, tables = blocks()
    for text in (door, tables):
        tmp_path.joinpath("calltally.toml").write_text(text)
        tmp_path.joinpath("calltally.toml").chmod(0o600)
        load(tmp_path, {})
    assert "sources" not in tomllib.loads(tables)
    assert not {"success", "success_criterion", "test_numbers"} & tomllib.loads(door).keys()


def blocks() -> tuple[str, str]:
    """The two settings files of the page."""
    door, tables = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return door, tables


def folders(folder: Path, cluster: Cluster) -> tuple[Path, Path, Path]:
    """Three machines: the door and the tables with the settings of the page, and one with none at all."""
    door, tables, desk = (folder / name for name in ("door", "tables", "desk"))
    for one in (door, tables, desk):
        one.mkdir()
    ports = free_ports(4)
    for one, text, first in zip((door, tables), blocks(), (0, 2), strict=True):
        here = text.replace("kafka:9092", cluster.bootstrap).replace("0.0.0.0", "127.0.0.1")
        (one / "calltally.toml").write_text(f"ingest_port = {ports[first]}\nsql_port = {ports[first + 1]}\n{here}")
        (one / "calltally.toml").chmod(0o600)
    return door, tables, desk


@contextmanager
def taking(door: Path, cluster: Cluster) -> Iterator[None]:
    """Ingest and relay, as on the door."""
    relay = RelayProcess(door, cluster.bootstrap)
    try:
        with running(door, "ingest"):
            yield
    finally:
        relay.end(signal.SIGTERM)


@contextmanager
def telling(tables: Path) -> Iterator[WorkerProcess]:
    """The worker, as on the machine of the tables, with a token of its own."""
    with WorkerProcess(tables, "--kafka", environ={"CALLTALLY_SQL_TOKEN": TOKEN}) as worker:
        yield worker
        assert worker.end(signal.SIGTERM) == 0


def elsewhere(tables: Path) -> Mapping[str, str]:
    """The variables of the page for another machine."""
    return {"CALLTALLY_SQL_TOKEN": TOKEN, "CALLTALLY_SQL_URL": load(tables, {}).sql_url}


def send(door: Path, source: str, calls: int, *, seed: int = 1) -> int:
    """Send made-up calls from the door; how many webhooks were answered 200."""
    done = run(door, "send", source, "--count", str(calls), "--seed", str(seed))
    told(done)
    (number,) = re.findall(rb"^(\d+) answered 200$", done.stderr, re.MULTILINE)
    return int(number)
