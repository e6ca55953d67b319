"""`calltally sql`, `status` and `metrics`, as processes in a folder with calls and nothing running."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing, nullcontext
from pathlib import Path

import pyarrow.parquet
import pytest

from calls.errors import StoreMismatch
from streams.worker_state import WorkerState
from tests import command
from tests.command import rows, run, told
from tests.serving import TOKEN, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("asked")
    command.stock(made, 40, more=[command.refusal("synthflow", command.NOW, "Another secret.")])
    return made


def test_sql_prints_a_table_for_people(folder: Path) -> None:
    """Names, then a line a row; nothing on stderr."""
    done = run(folder, "sql", "SELECT count(*) AS calls, 'a' || chr(27) || 'b' AS odd FROM calls")

    assert [line.split() for line in told(done).splitlines()] == [["calls", "odd"], ["40", r"a\x1bb"]]
    assert done.stderr == b""


def test_sql_prints_json_as_one_array_of_objects(folder: Path) -> None:
    """Times are ISO with Z and whole numbers beyond 2^53 text, as at the SQL endpoint."""
    found = rows(
        run(folder, "sql", "SELECT TIMESTAMP '2026-01-02 03:04:05' AS at, 9007199254740993 AS big", "--format=json")
    )

    assert found == [{"at": "2026-01-02T03:04:05Z", "big": "9007199254740993"}]


def test_sql_writes_csv_that_no_spreadsheet_computes(folder: Path) -> None:
    """A phone number keeps its + behind an apostrophe."""
    done = run(folder, "sql", "SELECT '+1555' AS phone, NULL AS nothing", "--format", "csv")

    assert list(csv.reader(io.StringIO(told(done)))) == [["phone", "nothing"], ["'+1555", ""]]


def test_sql_takes_its_form_from_the_name_of_the_file(folder: Path, tmp_path: Path) -> None:
    """-o x.parquet is Parquet, with the values as they are."""
    path = tmp_path / "calls.parquet"
    done = run(folder, "sql", "SELECT call_id, caller_phone FROM calls", "-o", str(path))

    assert told(done) == ""
    assert done.stderr.decode() == f"40 rows in {path}\n"
    assert pyarrow.parquet.read_table(path).num_rows == 40
    assert [left.name for left in tmp_path.iterdir()] == ["calls.parquet"]


def test_sql_reads_the_query_from_standard_input_and_binds_parameters(folder: Path) -> None:
    """'-' is stdin; --param gives the $names."""
    query = "SELECT count(*) AS n FROM calls WHERE provider = $p AND duration_s > $s"

    assert rows(
        run(folder, "sql", "-", "--param", "p=synthflow", "--param", "s=-1", "--format=json", stdin=query)
    ) == rows(
        run(
            folder,
            "sql",
            "SELECT count(*) AS n FROM calls WHERE provider = 'synthflow' AND duration_s > -1",
            "--format=json",
        )
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["SELEC 1"], 1, "syntax error"),
        (["FROM nowhere"], 1, "There is no table 'nowhere'"),
        (["DROP TABLE calls"], 1, "SELECT"),
        (["SELECT $p"], 1, "p"),
        (["FROM calls", "--param", "p"], 2, "name=value"),
        (["FROM calls", "-o", "no/such/folder.csv"], 1, "No such file"),
        (["SELECT INTERVAL 3 DAY AS i", "--format", "parquet"], 1, "Cast it in the query"),
    ],
)
def test_a_wrong_query_is_answered_by_a_sentence(folder: Path, words: list[str], code: int, said: str) -> None:
    """Nothing on stdout, a sentence on stderr, 1 for what went wrong and 2 for what was written wrongly."""
    done = run(folder, "sql", *words)

    assert told(done, code) == ""
    assert said in done.stderr.decode()


def test_a_query_that_is_cut_off_says_so(folder: Path) -> None:
    """More rows than allowed: the first of them, and words on stderr."""
    done = run(folder, "sql", "FROM calls", "--format", "json", environ={"CALLTALLY_SQL_MAX_ROWS": "3"})

    assert len(rows(done)) == 3
    assert "Cut off" in done.stderr.decode()


def test_a_reader_that_goes_away_is_no_fault(folder: Path) -> None:
    """`calltally sql ... | head -1` ends quietly."""
    import subprocess
    import sys

    pipe = f"{sys.executable} -m cli.main sql 'FROM range(200000)' --format csv | head -1"
    done = subprocess.run(
        ["bash", "-c", pipe], cwd=folder, capture_output=True, check=False, timeout=60, env=command.environment()
    )

    assert (done.stdout, done.stderr) == (b'"range"\n', b"")


def test_status_reads_the_disk_where_nothing_runs(folder: Path) -> None:
    """Journal and store, their lag, and each source's last delivery."""
    (found,) = rows(run(folder, "status", "--format", "json"))

    assert isinstance(found["ingest"], dict)
    assert isinstance(found["store"], dict)
    assert (found["ingest"]["state"], found["store"]["calls"], found["lag"]) == ("not running", 40, 0)
    assert isinstance(found["sources"], list)
    by_name = {one["source"]: one for one in found["sources"]}
    assert set(by_name) == set(command.SECRETS)
    assert by_name["synthflow"]["refused"] == 1
    assert by_name["synthflow"]["last_delivery_at"].startswith("2026-11-18")


def test_status_counts_what_is_not_applied_yet_as_lag(tmp_path: Path) -> None:
    """Records that came after the store's position."""
    command.stock(tmp_path, 4)
    command.journal(tmp_path, command.deliveries(3, seed=9))

    (found,) = rows(run(tmp_path, "status", "--format", "json"))

    assert found["lag"] == len(command.deliveries(3, seed=9))


def test_status_in_an_empty_folder_says_what_will_make_the_files(tmp_path: Path) -> None:
    """Nothing was ever started there, which is no fault."""
    command.settings_file(tmp_path)

    assert "ingest makes it when it starts" in told(run(tmp_path, "status"))


def test_status_of_a_damaged_store_is_a_problem(tmp_path: Path) -> None:
    """Exit code 1 and a sentence, and the rest is still told."""
    command.stock(tmp_path, 4)
    (tmp_path / "data" / "store.duckdb").write_bytes(b"x" * 8192)
    done = run(tmp_path, "status")

    assert "journal" in told(done, 1)
    assert "rebuilt" in done.stderr.decode()


@pytest.mark.parametrize("trouble", ["locked", "damaged"])
def test_status_tells_nothing_of_a_store_that_it_cannot_ask(tmp_path: Path, trouble: str) -> None:
    """What is unknown is a dash and null: 0 calls and a source that never sent would look like a loss."""
    command.stock(tmp_path, 4)
    if trouble == "damaged":
        (tmp_path / "data" / "store.duckdb").write_bytes(b"x" * 8192)
    with command.owned(tmp_path) if trouble == "locked" else nullcontext():
        table = told(run(tmp_path, "status"), 1)
        (found,) = rows(run(tmp_path, "status", "--format", "json"), 1)

    (callsync,) = [line.split() for line in table.splitlines() if line.startswith("callsync")]
    assert callsync == ["callsync", "callsync", "-", "-", "-", "-", "0"]
    assert "never" not in table
    assert isinstance(found["store"], dict)
    assert isinstance(found["sources"], list)
    assert [found["store"][name] for name in ("position", "calls", "events", "dead_letters")] == [None] * 4
    assert found["store"]["bytes"] > 0
    names = ("last_delivery_at", "accepted", "repeated", "refused", "inbound")
    assert {one[name] for one in found["sources"] for name in names} == {None}
    assert found["lag"] is None


def test_status_of_a_damaged_journal_does_not_say_that_there_is_none(tmp_path: Path) -> None:
    """Nor that it holds nothing."""
    command.stock(tmp_path, 4)
    (tmp_path / "data" / "journal.sqlite").write_bytes(b"x" * 8192)

    assert "cannot be read" in told(run(tmp_path, "status"), 1)
    (found,) = rows(run(tmp_path, "status", "--format", "json"), 1)
    assert isinstance(found["journal"], dict)
    assert (found["journal"]["position"], found["lag"]) == (None, None)


def test_status_tells_how_far_a_store_on_another_machine_is(tmp_path: Path) -> None:
    """The worker there compares it with the journal there; nothing lies here, and the worker is not away."""
    there = tmp_path / "there"
    there.mkdir()
    command.stock(there, 4)
    with closing(command.store_of(there)) as store, serving(store) as worker:
        worker.state.journal_position = 3
        environ = {"CALLTALLY_SQL_URL": worker.url, "CALLTALLY_SQL_TOKEN": TOKEN}
        table = told(run(tmp_path, "status", environ=environ))
        (found,) = rows(run(tmp_path, "status", "--format", "json", environ=environ))

    (said,) = [line for line in table.splitlines() if line.startswith("store")]
    assert said.split(maxsplit=1)[1].startswith("3 records behind, 4 calls, ")
    assert "bytes" not in said
    assert isinstance(found["store"], dict)
    assert (found["lag"], found["store"]["bytes"]) == (3, None)


def test_status_beside_another_journal_does_not_call_a_worker_that_runs_away(tmp_path: Path) -> None:
    """As where the journal was exchanged: the worker answers, and says what it waits for."""
    command.stock(tmp_path, 4)
    for left in (tmp_path / "data").glob("journal.sqlite*"):
        left.unlink()
    command.journal(tmp_path, command.deliveries(2))
    state = WorkerState(running=True, fault=StoreMismatch("It was filled from another journal."))
    with closing(command.store_of(tmp_path)) as store, serving(store, state=state) as worker:
        environ = {"CALLTALLY_SQL_URL": worker.url, "CALLTALLY_SQL_TOKEN": TOKEN}
        done = run(tmp_path, "status", environ=environ)
        examined = run(tmp_path, "doctor", environ=environ).stdout.decode()

    assert "The store opens; how far behind cannot be told until the worker is ready." in examined
    assert "how far behind cannot be told until the worker is ready, 4 calls" in told(done, 1)
    assert "It was filled from another journal." in done.stderr.decode()


def test_metrics_lists_the_dictionary(folder: Path) -> None:
    """Every metric with its definition, in each form."""
    found = rows(run(folder, "metrics", "--format", "json"))

    assert {"name": "connected", "title": "Connected"}.items() <= next(
        one for one in found if one["name"] == "connected"
    ).items()
    assert told(run(folder, "metrics", "--format", "md")).startswith("| name | title |")


def test_a_share_comes_with_its_n_and_interval(folder: Path) -> None:
    """One row a slice; numerator, denominator, and the 95 % interval around the value."""
    words = [
        "metrics",
        "connected",
        "--from",
        "2026-11-18",
        "--to",
        "2026-11-18",
        "--by",
        "provider",
        "--format",
        "json",
    ]
    found = rows(run(folder, *words))
    stored = rows(
        run(folder, "sql", "SELECT provider AS slice, count(*) FILTER (connection = 'person') AS numerator FROM calls "
            "WHERE excluded IS NULL AND provider <> 'inboundflow' GROUP BY ALL ORDER BY ALL", "--format", "json")
    )  # fmt: skip

    assert [{"slice": one["slice"], "numerator": one["numerator"]} for one in found] == stored
    assert "inboundflow" not in {one["slice"] for one in found}
    for one in found:
        assert float(str(one["low"])) < float(str(one["value"])) <= float(str(one["high"]))


@pytest.mark.parametrize("form", ["json", "md"])
def test_a_day_of_a_zone_begins_at_its_midnight(folder: Path, form: str) -> None:
    """With its offset: in UTC the day before would stand there."""
    day = ["--from", "2026-11-18", "--to", "2026-11-18", "--zone", "Europe/Berlin", "--bucket", "day"]

    assert "2026-11-18T00:00:00+01:00" in told(run(folder, "metrics", "attempts", *day, "--format", form))


def test_a_metric_can_be_asked_of_one_client(tmp_path: Path) -> None:
    """And of an agent by the name that people know, as in a report."""
    command.stock_of_clients(tmp_path, {"aisync": "acme", "callsync": "beta"}, 24)
    day = ["--from", "2026-11-18", "--to", "2026-11-18", "--format", "json"]

    assert rows(run(tmp_path, "metrics", "attempts", "--org", "acme", *day))[0]["value"] == 6
    assert rows(run(tmp_path, "metrics", "attempts", "--agent", "nova", *day)) == rows(
        run(tmp_path, "metrics", "attempts", "--agent", "agent_Nova", *day)
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["connected", "--agent", "Nobody"], "no call of an agent 'Nobody'"),
        (["connected", "--provider", "nope"], "no call of a platform 'nope'"),
        (["connected", "--org", "nope"], "no call of a client 'nope'"),
        (["conected"], "Did you mean 'connected'?"),
        (["connected", "--by", "shoe_size"], "shoe_size"),
        (["connected", "--bucket", "fortnight"], "fortnight"),
        (["connected", "--zone", "Mars/Olympus"], "Mars/Olympus"),
        (["connected", "--from", "soon"], "is no time"),
        (["connected", "--from", "2026-11-18", "--to", "2026-11-17"], "before it starts"),
    ],
)
def test_a_wrong_question_about_a_metric_is_wrong_usage(folder: Path, words: list[str], said: str) -> None:
    """Exit code 2, with the word that is wrong."""
    done = run(folder, "metrics", *words)

    assert told(done, 2) == ""
    assert said in " ".join(done.stderr.decode().replace("│", " ").split())


def test_sql_without_a_store_says_how_to_make_one(tmp_path: Path) -> None:
    """Neither a worker nor a file."""
    done = run(tmp_path, "sql", "FROM calls")

    assert told(done, 1) == ""
    assert "Start `calltally up`" in done.stderr.decode()


def test_a_broken_settings_file_stops_every_command_with_a_sentence(tmp_path: Path) -> None:
    """Exit code 2."""
    (tmp_path / "calltally.toml").write_text("data_dir = [")
    for words in (["sql", "FROM calls"], ["status"], ["metrics"], ["sources", "list"], ["verify"]):
        done = run(tmp_path, *words)
        assert told(done, 2) == ""
        assert "calltally.toml is not valid TOML" in done.stderr.decode()


def test_json_of_odd_text_comes_back_as_it_was(folder: Path) -> None:
    """Line breaks, quotes and other scripts."""
    done = run(folder, "sql", "SELECT $t AS t", "--param", 't=a"\n\u202e漢', "--format", "json")

    assert json.loads(told(done)) == [{"t": 'a"\n\u202e漢'}]
