"""The Python door: the same rows and errors with a running worker, without one, and when one goes away."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from analytics import client as client_module
from analytics.access import ensure_token
from analytics.client import Client, ask, query
from analytics.store import Store
from calls.errors import QueryError, StoreLocked
from calls.model import Rules
from calls.settings import Settings, load_without_secrets
from tests.serving import TOKEN, Serving, serving
from tests.storing import new_calls

CALLS = 12


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a folder with a store in it, a token, and no worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    loaded = load_without_secrets(tmp_path, {}, sql_port=port)
    loaded.data_dir.mkdir()
    ensure_token(loaded.sql_token_path)
    store = Store.open(loaded.store_path, rules=loaded.rules)
    store.apply(new_calls(range(1, CALLS + 1)))
    store.close()
    return loaded


@pytest.fixture(autouse=True)
def kept_connections() -> Iterator[None]:
    """None outlives its test."""
    yield
    client_module._kept.cache_clear()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = Store.open(settings.store_path, rules=settings.rules)
    yield opened
    opened.close()


@pytest.fixture
def server(settings: Settings, store: Store) -> Iterator[Serving]:
    with serving(store, port=settings.sql_port, token=ensure_token(settings.sql_token_path)) as running:
        yield running


def test_a_worker_answers_with_a_data_frame(settings: Settings, server: Serving) -> None:
    """pandas unless asked otherwise, with numbers as numbers and times as times."""
    rows = query(
        "SELECT provider, sum(event_count) AS events, max(counted_at) AS last FROM calls GROUP BY ALL",
        settings=settings,
    )
    assert isinstance(rows, pd.DataFrame)
    assert rows["events"].tolist() == [CALLS]
    assert rows["events"].dtype == "int64"
    assert pd.api.types.is_datetime64_dtype(rows["last"])


def test_without_a_worker_the_file_answers_the_same(settings: Settings) -> None:
    """Rows, types, refusals and version are those that the worker gives."""
    sql = "SELECT call_id, counted_at, tags, $word AS word FROM calls ORDER BY call_id"
    from_file = ask(sql, {"word": "x"}, settings=settings)
    with pytest.raises(QueryError) as refused_by_file:
        ask("DROP VIEW calls", settings=settings)
    store = Store.open(settings.store_path, rules=settings.rules)
    with serving(store, port=settings.sql_port, token=ensure_token(settings.sql_token_path)):
        from_worker = ask(sql, {"word": "x"}, settings=settings)
        with pytest.raises(QueryError) as refused_by_worker:
            ask("DROP VIEW calls", settings=settings)
    store.close()
    assert from_file == from_worker
    assert from_file.version == CALLS
    assert refused_by_file.value.code == refused_by_worker.value.code == "not_a_select"
    assert refused_by_file.value.message == refused_by_worker.value.message


def test_the_file_is_let_go_of_after_each_query(settings: Settings) -> None:
    """A worker can start right after a query that opened the store itself, also after one that failed."""
    assert query("SELECT count(*) AS n FROM calls", as_arrow=True, settings=settings) == pa.table({"n": [CALLS]})
    with pytest.raises(QueryError):
        query("SELECT nope FROM calls", settings=settings)
    opener = "import sys, pathlib; from analytics.store import Store; from calls.model import Rules; "
    opener += "Store.open(pathlib.Path(sys.argv[1]), rules=Rules()).close()"
    command = [sys.executable, "-c", opener, str(settings.store_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_row_cap_of_the_settings_holds_without_a_worker(settings: Settings) -> None:
    """A cut-off answer says so."""
    small = settings.model_copy(update={"sql_max_rows": 5})
    answer = ask("FROM calls", settings=small)
    assert (answer.table.num_rows, answer.truncated) == (5, True)


def test_a_store_that_another_process_holds_is_explained(settings: Settings) -> None:
    """Locked, though nothing answers: who has it, and what to look at."""
    holder = "import sys, pathlib; from analytics.store import Store; from calls.model import Rules; "
    holder += "s = Store.open(pathlib.Path(sys.argv[1]), rules=Rules()); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(settings.store_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreLocked) as locked:
            query("SELECT 1", settings=settings)
        process.communicate("")
    assert f"process {process.pid}" in locked.value.message
    assert "CALLTALLY_SQL_URL" in locked.value.message


def test_with_neither_worker_nor_store_the_next_step_is_named(tmp_path: Path) -> None:
    """A fresh folder is no mystery."""
    with pytest.raises(QueryError, match="calltally up") as missing:
        query("SELECT 1", settings=load_without_secrets(tmp_path, {}, sql_port=9))
    assert missing.value.code == "unreachable"
    assert not (tmp_path / "data").exists()


def test_a_client_keeps_its_connection_and_reads_the_version(settings: Settings, store: Store, server: Serving) -> None:
    """The version grows with every batch and needs no query; answers carry it too."""
    client = Client.of(settings)
    assert client.version() == CALLS
    store.apply(new_calls([CALLS + 1]))
    assert client.version() == CALLS + 1
    answer = client.ask("SELECT count(*) AS n FROM calls")
    assert (answer.version, answer.truncated, answer.table.to_pylist()) == (CALLS + 1, False, [{"n": CALLS + 1}])
    assert client.query("SELECT $a AS a", {"a": [1, 2]}).to_pylist() == [{"a": [1, 2]}]
    client.close()


def test_a_client_survives_a_restart_of_the_worker(settings: Settings, store: Store) -> None:
    """The kept connection is dead then; the query is asked again on a new one."""
    token = ensure_token(settings.sql_token_path)
    client = Client.of(settings)
    for _ in range(2):
        with serving(store, port=settings.sql_port, token=token):
            assert client.query("SELECT 1 AS one").to_pylist() == [{"one": 1}]
    with pytest.raises(QueryError) as gone:
        client.query("SELECT 1")
    assert gone.value.code == "unreachable"
    client.close()


def test_a_connection_that_fails_is_told_without_the_number_of_the_error(settings: Settings) -> None:
    """The address is what to look at; the system's number says nothing to anybody."""
    with pytest.raises(QueryError) as refused:
        Client.of(settings).version()
    assert refused.value.message == f"No worker answers at {settings.sql_url} (Connection refused)."


def test_errors_of_the_server_arrive_with_their_code(server: Serving, settings: Settings) -> None:
    """Refused, wrong, unauthorized: the code and sentence that the server sent."""
    client = Client.of(settings)
    for sql, code in (("DELETE FROM calls", "not_a_select"), ("SELECT $a", "bad_parameters"), ("x", "syntax_error")):
        with pytest.raises(QueryError) as refused:
            client.query(sql)
        assert refused.value.code == code
    client.close()
    stranger = Client(server.url, TOKEN)
    with pytest.raises(QueryError, match=r"sql\.token") as unknown:
        stranger.version()
    assert unknown.value.code == "unauthorized"
    stranger.close()


def test_a_wrong_token_does_not_lead_around_the_worker(settings: Settings, server: Serving) -> None:
    """Only where nobody answers is the file opened."""
    stranger = settings.model_copy(update={"sql_token": TOKEN})
    with pytest.raises(QueryError) as refused:
        query("SELECT 1", settings=stranger)
    assert refused.value.code == "unauthorized"


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    """A server that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, timeout=0.2)
        started = time.monotonic()
        with pytest.raises(QueryError) as late:
            client.query("SELECT 1")
        assert late.value.code == "timeout"
        assert time.monotonic() - started < 10
        client.close()


def test_a_worker_that_says_nothing_of_itself_is_away() -> None:
    """A frozen process still takes connections: one waits for it a few seconds, not as long as for a query."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, timeout=3600, patience=0.2)
        for asked in (client.state, client.readiness):
            with pytest.raises(QueryError, match="says nothing") as away:
                asked()
            assert away.value.code == "unreachable"
        client.close()


def test_asking_a_worker_needs_no_duckdb_of_ones_own() -> None:
    """The client costs a process that only asks neither DuckDB nor pandas."""
    look = "import sys, analytics.client; print(sorted({'duckdb', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_of_the_working_folder_are_the_default(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a notebook there is nothing to configure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLTALLY_SQL_PORT", str(settings.sql_port))
    assert query("SELECT count(*) AS n FROM calls")["n"].tolist() == [CALLS]
    assert settings.rules == Rules()
