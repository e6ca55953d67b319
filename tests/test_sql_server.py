"""The SQL endpoint: who may ask, what comes back and in which form, and that no query takes the worker with it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from analytics.access import ensure_token, read_token
from analytics.last_day import DAY_US
from analytics.query import Limits, Query
from analytics.server import BODY_MAX, create_app, serve
from analytics.store import Store
from calls.errors import QueryError, SettingsError, StoreUnavailable
from calls.model import Rules
from streams.worker_state import WorkerState
from tests.serving import TOKEN, Serving, serving
from tests.storing import new_calls, put_call
from tests.waiting import comes_true, until

ENDLESS = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7"
SLOW = "SELECT count(*) FROM range(100000) a, range(100000) b WHERE a.range * b.range = 7"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(tmp_path_factory.mktemp("store") / "store.duckdb", rules=Rules())
    opened.apply(new_calls(range(1, 21), tags=["a", "b"]))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[Serving]:
    with serving(store) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client


def ask(http: httpx.Client, sql: str, params: dict[str, object] | None = None, form: str = "json") -> httpx.Response:
    return http.post("/sql", json={"sql": sql, "params": params or {}, "format": form})


def value(http: httpx.Client, expression: str, params: dict[str, object] | None = None) -> Any:
    answer = ask(http, f"SELECT {expression} AS v", params)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"][0]["v"]


def test_rows_come_as_json(http: httpx.Client) -> None:
    """Columns in order, a row an object, and whether rows are missing."""
    answer = ask(http, "SELECT provider, count(*) AS n FROM calls GROUP BY ALL")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "columns": ["provider", "n"],
        "rows": [{"provider": "aisync", "n": 20}],
        "truncated": False,
    }


def test_rows_come_as_an_arrow_stream(http: httpx.Client) -> None:
    """Types survive; whether rows are missing is in a header."""
    answer = ask(http, "SELECT position, received_at, count FROM deliveries ORDER BY position", form="arrow")
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.schema.types == [pa.int64(), pa.timestamp("us"), pa.int64()]
    assert table.column("position").to_pylist() == list(range(1, 21))
    assert answer.headers["x-calltally-truncated"] == "false"


def test_an_empty_answer_has_its_columns(http: httpx.Client) -> None:
    """No rows is an answer too, in both forms."""
    sql = "SELECT provider, duration_s FROM calls WHERE provider = 'nobody'"
    assert ask(http, sql).json() == {"columns": ["provider", "duration_s"], "rows": [], "truncated": False}
    assert pa.ipc.open_stream(ask(http, sql, form="arrow").content).read_all().column_names == [
        "provider",
        "duration_s",
    ]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("TIMESTAMP '2026-07-01 12:00:00'", "2026-07-01T12:00:00Z"),
        ("TIMESTAMP '2026-07-01 12:00:00.25'", "2026-07-01T12:00:00.250000Z"),
        ("TIMESTAMPTZ '2026-07-01 12:00:00+02'", "2026-07-01T10:00:00Z"),
        ("TIMESTAMP 'infinity'", None),
        ("DATE '2026-07-01'", "2026-07-01"),
        ("TIME '12:00'", "12:00:00"),
        ("INTERVAL '1 month 2 days 3.5 seconds'", "P1M2DT3.5S"),
        ("9007199254740992", 9007199254740992),
        ("9007199254740993", "9007199254740993"),
        ("-9007199254740993", "-9007199254740993"),
        ("170141183460469231731687303715884105::HUGEINT", "170141183460469231731687303715884105"),
        ("(SELECT sum(x) FROM range(4) t(x))", 6),
        ("1.50::DECIMAL(10,2)", "1.50"),
        ("0.25::DOUBLE", 0.25),
        ("'nan'::DOUBLE", None),
        ("'-infinity'::DOUBLE", None),
        ("NULL", None),
        ("true", True),
        ("'Zoë \"☎\" \\'", 'Zoë "☎" \\'),
        ("'\\x00\\xFF'::BLOB", "AP8="),
        ("[1, NULL, 3]", [1, None, 3]),
        ("{'at': TIMESTAMP '2026-07-01', 'n': [1.5::DECIMAL(3,1)]}", {"at": "2026-07-01T00:00:00Z", "n": ["1.5"]}),
        ("MAP {'a': 'nan'::DOUBLE}", {"a": None}),
        ("'6ac20b1c-0000-4000-8000-000000000001'::UUID", "6ac20b1c-0000-4000-8000-000000000001"),
        ("'{\"a\": 1}'::JSON", '{"a": 1}'),
        ("'a'::ENUM('a', 'b')", "a"),
    ],
)
def test_json_says_each_type_in_one_way(http: httpx.Client, expression: str, expected: object) -> None:
    """Times are ISO with Z, what a double cannot hold is text, what JSON does not have is null."""
    assert value(http, expression) == expected


def test_repeated_column_names_are_told_apart(http: httpx.Client) -> None:
    """`_1`, `_2` follow a name that comes again, and never meet a name that is there."""
    sql = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a, 5 AS A"
    expected = ["a", "a_2", "a_1", "a_3", "A"]
    answer = ask(http, sql).json()
    assert answer["columns"] == expected
    assert answer["rows"] == [dict(zip(expected, [1, 2, 3, 4, 5], strict=True))]
    assert pa.ipc.open_stream(ask(http, sql, form="arrow").content).read_all().column_names == expected


@pytest.mark.parametrize(
    ("expression", "given", "expected"),
    [
        ("$p", None, None),
        ("$p AND true", True, True),
        ("$p + 1", 41, 42),
        ("$p", 2**62, str(2**62)),
        ("$p", 1.5, 1.5),
        ("$p", "'; DROP VIEW calls; --", "'; DROP VIEW calls; --"),
        ("len($p)", ["a", "b"], 2),
        ("'b' IN $p", ["a", "b"], True),
        ("CAST($p AS TIMESTAMP)", "2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z"),
        ("CAST($p AS TIMESTAMPTZ)", "2026-07-01T12:00:00+02:00", "2026-07-01T10:00:00Z"),
    ],
)
def test_parameters_are_values_and_never_sql(
    http: httpx.Client, expression: str, given: object, expected: object
) -> None:
    """Null, true, numbers, text, lists; times as text that the query casts."""
    assert value(http, expression, {"p": given}) == expected


@pytest.mark.parametrize(
    ("params", "sql"),
    [
        ({}, "SELECT $a"),
        ({"b": 1}, "SELECT $a"),
        ({"a": 1, "b": 2}, "SELECT $a"),
        ({"a": 1}, "SELECT 1"),
        ({"1": 1}, "SELECT $1"),
        ({"a b": 1}, "SELECT 1"),
        ({"a": 10**40}, "SELECT $a"),
    ],
)
def test_parameters_have_to_fit_the_query(http: httpx.Client, params: dict[str, object], sql: str) -> None:
    """Missing, superfluous, unnamed and unfit ones are `bad_parameters`."""
    answer = ask(http, sql, params)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_parameters")


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"bearer  {TOKEN}"]
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/sql"), ("GET", "/version")])
def test_without_the_token_nothing_is_answered(
    server: Serving, method: str, path: str, authorization: str | None
) -> None:
    """401, also for the version."""
    headers = {} if authorization is None else {"Authorization": authorization}
    body = b'{"sql": "SELECT 1"}' if method == "POST" else b""
    answer = _raw(server, method, path, headers, body)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"error":"unauthorized"' in answer


@pytest.mark.parametrize(
    "body",
    [b"", b"SELECT 1", b"[]", b"{}", b'{"sql": 1}', b'{"sql": "SELECT 1", "format": "csv"}',
     b'{"sql": "SELECT 1", "x": 1}', b'{"sql": "SELECT 1", "params": [1]}', b'{"sql": "\xff"}',
     b'{"sql": "SELECT 1", "params": ' + b"[" * 100_000],
)  # fmt: skip
def test_a_body_of_another_shape_is_a_bad_request(http: httpx.Client, body: bytes) -> None:
    """400, with words that show the right shape."""
    answer = http.post("/sql", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert '{"sql"' in answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/sql", 405, "method_not_allowed"), ("POST", "/query", 404, "not_found"), ("GET", "/", 404, "not_found")],
)
def test_a_wrong_address_or_method_is_told_which_is_right(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert "/sql" in answer.json()["message"]
    assert ("allow" in answer.headers) is (status == 405)


def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    """413, declared or not."""
    large = b'{"sql": "' + b" " * BODY_MAX + b'"}'
    declared = http.post("/sql", content=large)
    chunked = http.post("/sql", content=iter([large[: BODY_MAX // 2], large[BODY_MAX // 2 :]]))
    for answer in (declared, chunked):
        assert (answer.status_code, answer.json()["error"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("DELETE FROM calls", "not_a_select"),
        ("SELECT 1; SELECT 2", "not_one_statement"),
        ("SELECT * FROM 'x.csv'", "table_not_allowed"),
        ("SELECT getenv('HOME')", "function_not_allowed"),
        ("SELEC", "syntax_error"),
        ("SELECT nope FROM calls", "query_failed"),
        ("SELECT error('my words')", "query_failed"),
        ("SELECT call_id::INTEGER FROM calls", "query_failed"),
    ],
)
def test_what_is_refused_or_wrong_is_a_400_with_a_code(http: httpx.Client, sql: str, code: str) -> None:
    """The code is for machines, the message for people."""
    answer = ask(http, sql)
    assert (answer.status_code, answer.json()["error"]) == (400, code)
    assert len(answer.json()["message"]) > 5


def test_an_error_in_the_midst_of_the_rows_is_no_half_answer(http: httpx.Client) -> None:
    """Nothing is sent before all rows are there."""
    answer = ask(http, "SELECT CASE WHEN x = 500000 THEN error('midway') ELSE x END FROM range(1000000) t(x)")
    assert (answer.status_code, answer.json()) == (400, {"error": "query_failed", "message": answer.json()["message"]})
    assert "midway" in answer.json()["message"]


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_rows_beyond_the_cap_are_cut_off_and_said_to_be(store: Store, form: str) -> None:
    """Exactly as many rows as allowed are whole, one more is cut off."""
    with serving(store, limits=Limits(max_rows=20_000)) as server, _client(server) as http:
        for given, kept, truncated in ((20_000, 20_000, "false"), (20_001, 20_000, "true"), (10**12, 20_000, "true")):
            answer = ask(http, f"SELECT * FROM range({given})", form=form)
            assert answer.headers["x-calltally-truncated"] == truncated
            if form == "json":
                assert (len(answer.json()["rows"]), answer.json()["truncated"]) == (kept, truncated == "true")
            else:
                assert pa.ipc.open_stream(answer.content).read_all().num_rows == kept


def test_an_answer_beyond_its_bytes_is_cut_off(store: Store) -> None:
    """A million long texts do not fill the worker's memory."""
    answer = Query(store.cursor, "SELECT repeat('x', 5000) FROM range(1000000)", {}, Limits(max_bytes=50 << 20)).run()
    assert answer.truncated
    assert answer.table.nbytes < 150 << 20


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS,
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
        "SELECT a.range FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 1000003 = 7",
        "SELECT count(*) FROM range(10000000) a WHERE regexp_matches(repeat('a', 5000) || range, '(a*)*(x|a*b){50}c')",
        "WITH l AS (SELECT list(range) AS l FROM range(20000)) "
        "SELECT list_sum(list_transform(l, lambda x: list_sum(list_transform(l, lambda y: x * y)))) FROM l, range(99)",
    ],
    ids=["cross join", "recursion", "slow rows", "regex", "lambda"],
)
def test_a_query_is_stopped_at_its_deadline(store: Store, sql: str) -> None:
    """504 of code `timeout`; the next query is answered and nothing is stuck."""
    with serving(store, limits=Limits(timeout_s=0.3, stuck_s=15)) as server, _client(server) as http:
        answer = ask(http, sql)
        assert (answer.status_code, answer.json()["error"]) == (504, "timeout")
        until(lambda: ask(http, "SELECT 1").status_code == 200)
        assert not server.stuck.is_set()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(a.range) FROM range(1000000) a, range(1000000) b",
        "WITH RECURSIVE r AS (SELECT 'x' AS n UNION ALL SELECT n || n FROM r) SELECT max(length(n)) FROM r",
        "WITH a AS MATERIALIZED (SELECT x.range || y.range FROM range(1000000) x, range(1000) y) "
        "SELECT count(*) FROM a, a b",
    ],
    ids=["list", "doubling text", "materialised"],
)
def test_a_query_that_takes_too_much_memory_is_stopped(store: Store, sql: str) -> None:
    """Also where DuckDB's own limit for operators does not count what is held."""
    with pytest.raises(QueryError) as refused:
        Query(store.cursor, sql, {}, Limits(memory_bytes=64 << 20)).run()
    assert refused.value.code == "out_of_memory"
    assert "SET " not in refused.value.message


def test_a_query_that_ignores_its_interruption_is_reported(store: Store) -> None:
    """Its caller is answered at the deadline; `on_stuck` then lets the supervisor restart the process."""
    limits = Limits(timeout_s=0.5, stuck_s=0.05)
    with serving(store, limits=limits) as server, _client(server) as http:
        # One call of one function for one row, some seconds long: nothing looks at the interruption in between, and
        # almost nothing comes before it, where the query would end in time.
        sql = "SELECT jaro_similarity(it, reverse(it)) FROM (SELECT string_agg('ab', '') AS it FROM range(400000))"
        answer = ask(http, sql)
        assert (answer.status_code, answer.json()["error"]) == (504, "timeout")
        assert server.stuck.wait(20)


def test_the_writer_goes_on_while_queries_run(store: Store) -> None:
    """A batch is applied while both turns are taken by endless queries, and the version moves on."""
    with serving(store, limits=Limits(timeout_s=2)) as server, _client(server) as http, ThreadPoolExecutor(2) as pool:
        endless = [pool.submit(ask, http, ENDLESS) for _ in range(2)]
        until(lambda: _running(http) == 2)
        before = int(http.get("/version").headers["x-calltally-version"])
        store.apply(new_calls([max(store.positions().values()) + 1]))
        assert int(http.get("/version").headers["x-calltally-version"]) == before + 1
        assert [future.result().status_code for future in endless] == [504, 504]


def test_queries_wait_for_their_turn_and_the_rest_is_sent_away(store: Store) -> None:
    """Two run, the waiting are bounded, one more is told at once to come back."""
    limits = Limits(timeout_s=1.5, running=2, waiting=3)
    with serving(store, limits=limits) as server, _client(server) as http, ThreadPoolExecutor(12) as pool:
        answers = [future.result() for future in [pool.submit(ask, http, SLOW) for _ in range(12)]]
        busy = [answer for answer in answers if answer.status_code == 503]
        assert len(busy) >= 12 - 2 - 3
        assert {answer.json()["error"] for answer in busy} == {"busy"}
        assert {answer.headers["retry-after"] for answer in busy} == {"1"}
        assert ask(http, "SELECT 1").status_code == 200


def test_a_query_whose_asker_is_gone_is_ended(store: Store) -> None:
    """A closed page frees its turn long before the deadline."""
    with serving(store, limits=Limits(timeout_s=60, running=1)) as server, _client(server) as http:
        body = b'{"sql": "' + ENDLESS.encode() + b'"}'
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as asker:
            asker.sendall(_head("POST", "/sql", {"Authorization": f"Bearer {TOKEN}"}, body) + body)
            until(lambda: _running(http) == 1)
        assert ask(http, "SELECT 1").status_code == 200


def test_queries_at_the_same_time_get_their_own_answers(http: httpx.Client) -> None:
    """No cursor, parameter or row of one shows in another."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: ask(http, "SELECT $n AS n, count(*) AS c FROM calls", {"n": n}).json(), range(60))
    assert [answer["rows"][0]["n"] for answer in answers] == list(range(60))


def test_a_store_that_is_just_opened_anew_is_a_503(tmp_path: Path) -> None:
    """A query that the reopening ended may be asked again, and is answered then."""
    store = Store.open(tmp_path / "store.duckdb", rules=Rules())
    with serving(store) as server, _client(server) as http, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, http, ENDLESS)
        until(lambda: _running(http) == 1)
        # Who has its turn may not have reached the store yet, and would then be answered by the new one.
        until(lambda: _ended_by_reopening(store, asked))
        assert (asked.result().status_code, asked.result().json()["error"]) == (503, StoreUnavailable.code)
        assert ask(http, "SELECT count(*) FROM calls").status_code == 200
    store.close()


def _ended_by_reopening(store: Store, asked: Future[httpx.Response]) -> bool:
    store.reopen()
    return comes_true(asked.done, 2)


def test_every_response_carries_the_version(http: httpx.Client, store: Store) -> None:
    """The sum of the positions: answers, refusals, health, unknown paths."""
    version = str(sum(store.positions().values()))
    answers = [
        ask(http, "SELECT 1"),
        ask(http, "nonsense"),
        http.get("/version"),
        http.get("/healthz"),
        http.get("/nowhere"),
    ]
    assert {answer.headers["x-calltally-version"] for answer in answers} == {version}
    assert [answer.status_code for answer in answers] == [200, 400, 204, 200, 404]


def test_only_a_post_asks(http: httpx.Client) -> None:
    """A GET of /sql is no query, whatever is in its address."""
    assert http.get("/sql", params={"sql": "SELECT 1"}).status_code == 405


def test_ready_says_why_not(store: Store) -> None:
    """503 with the reason while the worker is at fault, stopped, or filling a new store."""
    with serving(store) as server, httpx.Client(base_url=server.url) as http:
        assert http.get("/readyz").json() == {"status": "ready"}
        server.state.rebuilding, server.state.journal_position = True, 1_500
        assert "1,500 records" in http.get("/readyz").json()["reason"]
        server.state.fault = StoreUnavailable("The disk is full.")
        answer = http.get("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "The disk is full.")
        server.state.fault, server.state.running = None, False
        assert http.get("/readyz").status_code == 503
        assert http.get("/healthz").status_code == 200


def test_metrics_show_the_worker_and_its_queries(store: Store) -> None:
    """Prometheus reads lag, position, last commit, what was applied, and how queries ended."""
    with serving(store) as server, _client(server) as http:
        server.state.position, server.state.journal_position = 40, 42
        server.state.last_commit_at = 1_780_315_200_500_000
        server.state.tally.dead_letters["not_json"] += 3
        ask(http, "SELECT 1")
        ask(http, "DROP TABLE x")
        samples = _samples(http)
    assert samples["calltally_worker_lag", ()] == 2
    assert samples["calltally_worker_position", ()] == 40
    assert samples["calltally_worker_last_commit_timestamp_seconds", ()] == 1_780_315_200.5
    assert samples["calltally_dead_letters_total", (("reason", "not_json"),)] == 3
    assert samples["calltally_queries_total", (("outcome", "done"),)] == 1
    assert samples["calltally_queries_total", (("outcome", "not_a_select"),)] == 1
    assert samples["calltally_query_seconds_count", ()] == 2


def test_the_numbers_of_the_last_day_are_told_to_who_shows_the_token(tmp_path: Path) -> None:
    """Prometheus reads the same catalogue as pages and reports; how a business does is not for everybody."""
    store = Store.open(tmp_path / "store.duckdb", rules=Rules())
    now = time.time_ns() // 1000
    for number, (at, connection) in enumerate([(now, "person"), (now, "busy"), (now - 2 * DAY_US, "person")], 1):
        put_call(store, number, received_at=at, connection=connection)
    with serving(store) as server, _client(server) as http:
        told, told_to_a_stranger = _samples(http, TOKEN), _samples(http)
    store.close()

    assert told["calltally_metric", (("metric", "attempts"),)] == 2
    assert told["calltally_metric", (("metric", "connected"),)] == 0.5
    assert told["calltally_metric_n", (("metric", "connected"),)] == 2
    assert ("calltally_metric", (("metric", "goal_met"),)) not in told
    assert told.keys() > told_to_a_stranger.keys()
    assert not [name for name, _ in told_to_a_stranger if name.startswith("calltally_metric")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "store.example.org"])
def test_other_machines_need_a_token_set_on_purpose(store: Store, host: str) -> None:
    """The token of the file is for this machine; beyond loopback it has to be a setting."""
    app = create_app(store, token=TOKEN, limits=Limits(), worker_state=WorkerState())
    with pytest.raises(SettingsError, match="CALLTALLY_SQL_TOKEN"):
        serve(app, host, 0, explicit_token=False)
    assert serve(app, host, 0, explicit_token=True).config.host == host


def test_a_foreign_page_in_a_browser_of_this_machine_reads_nothing(store: Store) -> None:
    """DNS rebinding: its name leads here, but `Host` stays its own."""
    with serving(store) as endpoint:
        port = endpoint.url.rpartition(":")[2]
        answers = [
            httpx.get(f"{endpoint.url}/metrics", headers={"Host": host}, trust_env=False).status_code
            for host in ("rebound.example.org", f"rebound.example.org:{port}", f"localhost:{port}", f"[::1]:{port}")
        ]
    assert answers == [421, 421, 200, 200]


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    """Mode 0600, and the same for all who ask for it at the same time."""
    path = tmp_path / "data" / "sql.token"
    assert read_token(path) is None
    barrier = threading.Barrier(8)

    def made(_: int) -> str:
        barrier.wait()
        return ensure_token(path)

    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(made, range(8)))
    assert tokens == {read_token(path)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["sql.token"]


@pytest.mark.parametrize(("mode", "text"), [(0o644, "a token of many letters"), (0o600, "short"), (0o600, "")])
def test_a_token_file_that_is_no_secret_is_an_error(tmp_path: Path, mode: int, text: str) -> None:
    """One that others can read, or that holds no token, stops the start with what to do."""
    path = tmp_path / "sql.token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=r"chmod 600|Remove it"):
        ensure_token(path)


def _client(server: Serving) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)


def _samples(http: httpx.Client, token: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = http.get("/metrics", headers={"Authorization": f"Bearer {token}" if token else "none"}).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _running(http: httpx.Client) -> int:
    return int(_samples(http)["calltally_queries_running", ()])


def _head(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {text}" for name, text in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _raw(server: Serving, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as asker:
        asker.sendall(_head(method, path, headers, body) + body)
        parts = []
        while part := asker.recv(65_536):
            parts.append(part)
    return b"".join(parts)
