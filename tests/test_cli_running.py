"""The commands beside a running ingest and a running worker, which own journal and store."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from unittest.mock import Mock

import duckdb
import httpx
import pytest

from calls import settings
from calls.errors import SettingsError
from calls.provider import named
from calls.traffic import one_call
from cli import up
from cli.send import Sender
from tests import command
from tests.command import rows, run, told
from tests.waiting import until
from tools.ports import free_ports


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("running")
    command.stock(made, 30)
    command.settings_file(made, ports=free_ports(3))
    with command.running(made, "ingest", "worker"):
        yield made


def test_what_is_sent_is_soon_in_sql(folder: Path) -> None:
    """Signed, posted, proved, journalled, applied, asked."""
    before = _count(folder)
    done = run(folder, "send", "synthflow", "--count", "5", "--seed", "3")

    assert done.stderr.decode() == "5 answered 200\n"
    until(lambda: _count(folder) == before + 5)


def test_every_event_that_send_offers_is_answered_200(tmp_path: Path) -> None:
    """What cannot be signed is not offered, and the question of a waiting call is asked as the platform asks it."""
    command.settings_file(tmp_path, ports=free_ports(3))
    loaded = settings.load(tmp_path, {})
    with command.running(tmp_path, "ingest"):
        for source in loaded.sources.values():
            with pytest.raises(SettingsError, match="Known are: ") as unknown:
                one_call(named(source.provider), dice=Random(1), ended_at=command.NOW, event="?")
            sender = Sender(source, f"{loaded.ingest_url}/webhooks/{source.name}")
            for event in unknown.value.message.partition("Known are: ")[2].rstrip(".").split(", "):
                ((status, _),) = asyncio.run(sender.send(count=1, seed=1, event=event))
                assert status == 200, (source.name, event)


def test_the_answer_to_a_waiting_call_is_shown(folder: Path) -> None:
    """Anyone gets the safe one; with the source's token, as in the address at the platform, the store is asked."""
    plain = run(folder, "send", "synthflow", "--event", "call_inbound")
    assert (plain.returncode, plain.stderr.decode()) == (
        0, '1 answered 200 ({"call_inbound":{"override_model_id":""}})\n',
    )  # fmt: skip

    text = (folder / "calltally.toml").read_text()
    with_token = text.replace("[sources.synthflow]", '[sources.synthflow]\ninbound_token = "a+b&c 4fRz"')
    (folder / "calltally.toml").write_text(with_token)
    try:
        until(lambda: "known_caller" in run(folder, "send", "synthflow", "--event", "call_inbound").stderr.decode())
    finally:
        (folder / "calltally.toml").write_text(text)


def test_a_body_that_is_not_proved_waits_in_the_quarantine_until_the_secret_is_right(folder: Path) -> None:
    """Refused, listed, planned, retried by the running ingest."""
    settings = (folder / "calltally.toml").read_text()
    body = json.dumps({"event": "call.ended", "data": {"call_id": "held-1"}}).encode()
    from calls.signing import sign

    headers = sign(named("aisync").scheme, "theRightSecret-5521", body, now_s=0)
    port = command.ports_of(folder)["ingest"]
    refused = httpx.post(f"http://127.0.0.1:{port}/webhooks/aisync", content=body, headers=headers, trust_env=False)
    assert refused.status_code == 401
    until(lambda: len(rows(run(folder, "quarantine", "list", "--format", "json"))) == 1)
    assert "None of them would pass" in run(folder, "quarantine", "retry", "--yes").stderr.decode()

    told(run(folder, "sources", "rotate", "aisync", "--secret", "theRightSecret-5521"))
    until(lambda: "Nothing is held" in run(folder, "quarantine", "retry", "--yes").stderr.decode())
    (folder / "calltally.toml").write_text(settings)
    query = "SELECT count(*) AS n FROM calls WHERE call_id = 'held-1'"
    until(lambda: rows(run(folder, "sql", query, "--format", "json")) == [{"n": 1}])


@pytest.mark.parametrize(("process", "setting"), [("worker", "sql_port"), ("dashboard", "dashboard_port")])
def test_a_taken_port_is_told_with_the_setting_that_chooses_another(
    folder: Path, tmp_path: Path, process: str, setting: str
) -> None:
    """A sentence and exit code 1, and nothing is left that would look like a crash to the next start."""
    port = command.ports_of(folder)["ingest"]
    done = run(tmp_path, process, "--port", str(port))

    assert told(done, 1) == ""
    said = done.stderr.decode().splitlines()[-1]
    assert said.startswith(f"calltally: Port {port} on 127.0.0.1 cannot be used (Address already in use)")
    assert f"{setting} in calltally.toml" in said
    assert not (tmp_path / "data" / "store.duckdb.crashes").exists()


def test_status_tells_what_runs(folder: Path) -> None:
    """Both processes, the lag, the sources."""
    (found,) = rows(run(folder, "status", "--format", "json"))

    for name in ("ingest", "worker"):
        process = found[name]
        assert isinstance(process, dict)
        assert process["state"] == "running"


def test_verify_works_while_everything_runs(folder: Path) -> None:
    """The store is checked by its owner, the journal read beside its writer."""
    assert rows(run(folder, "verify", "--format", "json")) == []


def test_a_snapshot_is_made_by_the_owner(folder: Path, tmp_path: Path) -> None:
    """Its file opens, and nothing is left in the data folder."""
    path = tmp_path / "copy.duckdb"
    told(run(folder, "snapshot", "-o", str(path)))
    with duckdb.connect(str(path), read_only=True) as copy:
        found = copy.execute("SELECT count(*) FROM calls").fetchall()

    assert found == [(_count(folder),)]
    assert not [left.name for left in (folder / "data").iterdir() if "copy" in left.name or "export" in left.name]


def test_an_export_is_taken_from_a_copy(folder: Path) -> None:
    """All of the same moment, without the owner's file being opened."""
    found = rows(run(folder, "export", "--table", "calls", "--format", "json"))

    assert len(found) == _count(folder)
    assert not [left.name for left in (folder / "data").iterdir() if "export" in left.name]


def test_a_report_is_asked_of_the_worker(folder: Path) -> None:
    """The same numbers as SQL."""
    said = told(run(folder, "report", "--from", "2026-11-18", "--to", "today", "--format", "csv", "-o", "-"))
    told_rows = csv.DictReader(said.splitlines())
    (attempts,) = [row for row in told_rows if row["metric"] == "attempts" and row["period"] == "range"]

    counted = rows(run(folder, "sql", "SELECT count(*) AS n FROM calls WHERE excluded IS NULL", "--format", "json"))
    assert float(attempts["value"]) == counted[0]["n"]


def test_the_doctor_proves_each_secret_at_the_door_and_leaves_no_trace(folder: Path) -> None:
    """A signed GET a source; neither journal nor quarantine grows."""
    (before,) = rows(run(folder, "status", "--format", "json"))
    found = rows(run(folder, "doctor", "--format", "json"))
    (after,) = rows(run(folder, "status", "--format", "json"))

    assert sum("is proved at" in str(one["cause"]) for one in found) == len(command.SECRETS)
    assert after["journal"] == before["journal"]


def test_the_doctor_finds_a_door_with_other_secrets(folder: Path, tmp_path: Path) -> None:
    """Settings that are not those of the running ingest."""
    text = (folder / "calltally.toml").read_text().replace(command.SECRETS["aisync"], "anotherSecret-9931")
    (tmp_path / "calltally.toml").write_text(f'data_dir = "{folder / "data"}"\n{text}')
    (tmp_path / "calltally.toml").chmod(0o600)
    found = rows(run(tmp_path, "doctor", "--format", "json"), 1)

    assert [str(one["cause"])[:7] for one in found if one["level"] == "wrong"] == ["aisync:"]


def test_the_doctor_finds_a_door_of_another_folder(folder: Path, tmp_path: Path) -> None:
    """The same ports, another data folder: as when the demo still runs."""
    (tmp_path / "calltally.toml").write_text((folder / "calltally.toml").read_text())
    (tmp_path / "calltally.toml").chmod(0o600)
    found = rows(run(tmp_path, "doctor", "--format", "json"), 1)

    assert [one["check"] for one in found if "belongs to another data folder" in str(one["cause"])] == [
        "ports",
        "ports",
    ]


def test_the_doctor_asks_as_a_waiting_call_only_when_told_to(folder: Path) -> None:
    """It is carried on, and leaves a row of the verdict `inbound`."""
    query = "SELECT count(*) AS n FROM deliveries WHERE verdict = 'inbound'"

    def asked() -> int:
        return int(str(rows(run(folder, "sql", query, "--format", "json"))[0]["n"]))

    before = asked()
    found = rows(run(folder, "doctor", "--inbound", "--format", "json"))

    assert any("a waiting call is carried on" in str(one["cause"]) for one in found)
    until(lambda: asked() > before)


def test_a_rebuild_refuses_beside_a_worker(folder: Path) -> None:
    """A sentence that says what to stop."""
    done = run(folder, "rebuild")

    assert told(done, 1) == ""
    assert "stop it first" in done.stderr.decode()


def test_a_wrong_token_is_a_sentence(folder: Path) -> None:
    """Not an empty answer."""
    for words in (["sql", "FROM calls"], ["verify"], ["snapshot", "-o", "x.duckdb"]):
        done = run(folder, *words, environ={"CALLTALLY_SQL_TOKEN": "wrong-token-wrong-token"})
        assert told(done, 1) == ""
        assert "bearer token" in done.stderr.decode()


def _count(folder: Path) -> int:
    return int(str(rows(run(folder, "sql", "SELECT count(*) AS n FROM calls", "--format", "json"))[0]["n"]))


def test_a_demo_says_how_its_command_is_known_where_it_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`make demo` installs it beside Python, not where a shell looks."""
    (tmp_path / "activate").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for path, known in (("", False), (str(tmp_path), True)):
        monkeypatch.setenv("PATH", path)
        if known:
            (tmp_path / "calltally").touch(mode=0o755)
        supervisor = Mock()
        up._greet(supervisor, settings.load(tmp_path), demo=True, kafka=False, dashboard=True)
        lines = [call.args[0] for call in supervisor.say.call_args_list]
        assert any(f"source {tmp_path / 'activate'}" in line for line in lines) is not known
