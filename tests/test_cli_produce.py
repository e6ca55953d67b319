"""`calltally report`, `export` and `snapshot`: whole files or none."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest

from tests import command
from tests.command import rows, run, told

DAY = ["--from", "2026-11-18", "--to", "2026-11-18"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("produced")
    command.stock(made, 60)
    return made


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve calls of each of two clients."""
    made = tmp_path_factory.mktemp("clients")
    orgs = {"synthflow": "acme", "inboundflow": "acme", "aisync": "beta", "callsync": "beta"}
    command.stock_of_clients(made, orgs, 24)
    return made


def test_a_report_is_one_page_that_needs_nothing_from_outside(folder: Path, tmp_path: Path) -> None:
    """Charts are inside; no address is loaded; the heading is the one given, and inert."""
    path = tmp_path / "report.html"
    told(run(folder, "report", *DAY, "-o", str(path), "--title", "<b>Week</b>"))
    page = path.read_text(encoding="utf-8")

    assert "<svg" in page
    assert "&lt;b&gt;Week" in page
    assert 'src="http' not in page
    assert "<link" not in page


def test_a_report_as_rows_has_the_numbers_of_sql(folder: Path) -> None:
    """Attempts of the range, on standard output."""
    found = list(csv.DictReader(io.StringIO(told(run(folder, "report", *DAY, "--format", "csv", "-o", "-")))))
    (attempts,) = [one for one in found if one["metric"] == "attempts" and one["period"] == "range"]

    assert float(attempts["value"]) == 60


def test_a_report_of_one_client_holds_its_calls_only(clients: Path) -> None:
    """Two clients on one installation; what is sent to one of them has nothing of the other."""
    found = list(
        csv.DictReader(io.StringIO(told(run(clients, "report", *DAY, "--org", "acme", "--format", "csv", "-o", "-"))))
    )
    (attempts,) = [one for one in found if one["metric"] == "attempts" and one["period"] == "range"]

    assert float(attempts["value"]) == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--agent", "Nowa"], "no call of an agent 'Nowa'. There are: Nova (agent_Nova), Pax (agent_Pax), "),
        (["--provider", "calsync"], "no call of a platform 'calsync'. There are: callsync, aisync"),
        (["--org", "acne"], "no call of a client 'acne'. There are: acme, beta."),
    ],
)
def test_a_report_of_a_misspelt_name_is_refused(clients: Path, words: list[str], said: str) -> None:
    """A confident report of zeros would be sent on; the names that there are stand in the error, most alike first."""
    done = run(clients, "report", *DAY, *words, "-o", "-")

    assert told(done, 2) == ""
    assert said in " ".join(done.stderr.decode().replace("│", " ").split())


def test_a_report_of_an_agent_without_calls_in_the_range_is_made(clients: Path) -> None:
    """The agent is known, so nothing is misspelt: that it had no calls may be the news."""
    day = ["--from", "2026-11-01", "--to", "2026-11-01"]
    found = list(
        csv.DictReader(io.StringIO(told(run(clients, "report", *day, "--agent", "nova", "--format", "csv", "-o", "-"))))
    )

    assert {one["value"] for one in found if one["metric"] == "attempts"} == {""}


def test_a_report_names_its_file_after_the_range(folder: Path) -> None:
    """Without -o, in the present folder."""
    done = run(folder, "report", *DAY, "--format", "md", "--agent", "Orla")

    assert (folder / "calltally-2026-11-18.md").exists()
    assert "calltally-2026-11-18.md" in done.stderr.decode()


def test_reports_of_two_clients_are_two_files(clients: Path) -> None:
    """The second must not take the place of the first, which somebody is about to send."""
    for org in ("acme", "beta"):
        told(run(clients, "report", *DAY, "--format", "csv", "--org", org))

    assert (clients / "calltally-acme-2026-11-18.csv").exists()
    assert (clients / "calltally-beta-2026-11-18.csv").exists()


def test_a_report_without_a_store_says_how_to_get_one(tmp_path: Path) -> None:
    """Nothing runs and nothing ever did."""
    command.settings_file(tmp_path)
    done = run(tmp_path, "report", *DAY)

    assert told(done, 1) == ""
    assert "Start `calltally up`" in done.stderr.decode()


def test_a_report_that_cannot_be_written_leaves_the_old_one(folder: Path, tmp_path: Path) -> None:
    """A folder that takes no writes: a sentence, and no half file."""
    done = run(folder, "report", *DAY, "--format", "csv", "-o", str(tmp_path / "none" / "r.csv"))

    assert told(done, 1) == ""
    assert "cannot be written" in done.stderr.decode()


def test_an_export_of_one_table_goes_to_standard_output(folder: Path) -> None:
    """JSON is one array of objects with every row."""
    found = rows(run(folder, "export", "--table", "calls", "--format", "json"))

    assert len(found) == 60
    assert found[0]["call_id"]


def test_an_export_of_all_tables_fills_a_folder(folder: Path, tmp_path: Path) -> None:
    """A file a table, each with all its rows, as Parquet exactly as stored."""
    told(run(folder, "export", "--table", "all", "--format", "parquet", "-o", str(tmp_path / "all")))
    counts = {path.stem: pyarrow.parquet.read_metadata(path).num_rows for path in (tmp_path / "all").iterdir()}
    with command.store_of(folder).cursor() as cursor:
        stored = {name: cursor.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in counts}

    assert counts == stored
    assert counts["calls"] == 60
    assert "call_analysis" in counts


def test_an_export_of_a_range_holds_its_calls_and_what_belongs_to_them(folder: Path, tmp_path: Path) -> None:
    """The other tables keep rows of those calls only."""
    words = ["--table", "calls", "--table", "call_events", "--table", "positions", "--to", "2026-11-18T10:30:00"]
    told(run(folder, "export", *words, "--format", "json", "-o", str(tmp_path)))
    calls = json.loads((tmp_path / "calls.json").read_text())
    events = json.loads((tmp_path / "call_events.json").read_text())

    assert 0 < len(calls) < 60
    assert all(call["counted_at"] < "2026-11-18T10:30:00" for call in calls)
    assert {event["call_id"] for event in events} == {call["call_id"] for call in calls}
    assert len(json.loads((tmp_path / "positions.json").read_text())) == 1


def test_an_export_of_one_client_has_nothing_of_another(clients: Path, tmp_path: Path) -> None:
    """Tables that do not tell clients apart are left out rather than given to the wrong one."""
    told(run(clients, "export", "--table", "all", "--org", "beta", "--format", "json", "-o", str(tmp_path)))
    tables = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}

    assert len(tables["calls"]) == 12
    assert tables["call_events"]
    assert {row["org"] for rows in tables.values() for row in rows} == {"beta"}
    assert "deliveries" not in tables


def test_an_export_in_many_batches_is_one_table(folder: Path) -> None:
    """One line of names, one array, whatever the number of batches."""
    from analytics import extract
    from analytics.exports import Form

    whole = extract.Extract(folder / "data" / "store.duckdb")
    small = pytest.MonkeyPatch()
    try:
        small.setattr(extract, "BATCH_ROWS", 7)
        lines, objects = io.BytesIO(), io.BytesIO()
        assert extract.write(whole, "calls", Form.CSV, lines, None, lambda _: None) == 60
        assert extract.write(whole, "calls", Form.JSON, objects, None, lambda _: None) == 60
    finally:
        small.undo()
        whole.close()

    assert len(list(csv.DictReader(io.StringIO(lines.getvalue().decode())))) == 60
    assert len({call["call_id"] for call in json.loads(objects.getvalue())}) == 60


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--table", "shoes"], 2, "There is no table 'shoes'"),
        (["--table", "all"], 2, "need a folder"),
        (["--from", "never"], 2, "is no time"),
        (["--org", "acme"], 2, "no call of a client 'acme'. There are: org_haas, "),
        (["--table", "calls", "-o", "/proc/none/calls.csv"], 1, "cannot be written"),
        (["--table", "all", "-o", "/proc/none"], 1, "cannot be made"),
    ],
)
def test_a_wrong_export_is_answered_by_a_sentence(folder: Path, words: list[str], code: int, said: str) -> None:
    """And by the exit code."""
    done = run(folder, "export", *words)

    assert told(done, code) == ""
    assert said in " ".join(done.stderr.decode().replace("│", " ").split())


def test_a_snapshot_opens_in_any_duckdb(folder: Path, tmp_path: Path) -> None:
    """With all calls, while the store stays as it is."""
    path = tmp_path / "copy.duckdb"
    told(run(folder, "snapshot", "-o", str(path)))
    with duckdb.connect(str(path), read_only=True) as copy:
        assert copy.execute("SELECT count(*) FROM calls").fetchall() == [(60,)]

    assert [left.name for left in tmp_path.iterdir()] == ["copy.duckdb"]


def test_a_snapshot_never_takes_the_place_of_the_store(folder: Path) -> None:
    """Wrong usage, and nothing happens."""
    before = (folder / "data" / "store.duckdb").stat()
    done = run(folder, "snapshot", "-o", "data/store.duckdb")

    assert told(done, 2) == ""
    assert (folder / "data" / "store.duckdb").stat()[stat.ST_MTIME] == before[stat.ST_MTIME]
