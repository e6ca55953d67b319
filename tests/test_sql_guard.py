"""What people may ask the store, and that nothing else gets past the guard or leaves a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics import guard
from analytics.metric import BUCKETS, Filters, Partial, catalogue
from analytics.query import Limits, Query
from analytics.sizes import GROWTH_MAX
from analytics.store import Store
from calls.errors import QueryError
from calls.model import Rules
from tests.storing import NOON, SECOND, everything, new_calls

USEFUL = [
    "SELECT count(*) FROM calls",
    "from calls select provider, count() as n group by all order by n desc, 1 limit 5 offset 1",
    "TABLE positions",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT 1;",
    "-- a comment\nSELECT 1 /* another */ ;; ",
    "SELECT * FROM main.calls",
    'SELECT * FROM "Calls"',
    "SELECT calls.*, calls.provider, * EXCLUDE (org) REPLACE (upper(status) AS status) RENAME (trust AS t) FROM calls",
    "SELECT COLUMNS('.*_at') FROM calls",
    "SELECT DISTINCT ON (provider) * FROM calls ORDER BY provider, counted_at DESC NULLS LAST",
    "WITH a AS MATERIALIZED (SELECT 1 AS x), b AS (FROM a) SELECT * FROM a JOIN b USING (x)",
    "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i) FROM n",
    "WITH calls AS (SELECT * FROM calls WHERE excluded IS NULL) SELECT count(*) FROM calls",
    "SELECT * FROM calls c LEFT JOIN call_analysis a USING (provider, org, call_id) WHERE a.result = 'true'",
    "SELECT * FROM calls ANTI JOIN leads USING (call_id) WHERE NOT conflict",
    "SELECT * FROM calls c ASOF JOIN deliveries d ON c.counted_at >= d.received_at",
    "SELECT * FROM calls, LATERAL (SELECT calls.call_id AS again)",
    "SELECT * FROM calls WHERE (provider, org) IN (SELECT provider, org FROM leads) AND EXISTS (FROM leads)",
    "SELECT sum(calls) FILTER (WHERE result = 'met') / nullif(sum(calls), 0) FROM rollup_calls",
    "SELECT quantile_cont(duration_s, [0.5, 0.95]), percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_s), "
    "median(duration_s), mode(status), arg_max(call_id, counted_at), string_agg(DISTINCT provider, ', ') FROM calls",
    "SELECT row_number() OVER w, lag(duration_s) OVER w, dense_rank() OVER (ORDER BY org), "
    "avg(duration_s) OVER (PARTITION BY agent_id ORDER BY counted_at RANGE BETWEEN INTERVAL 7 DAY PRECEDING "
    "AND CURRENT ROW) FROM calls WINDOW w AS (PARTITION BY provider ORDER BY counted_at) "
    "QUALIFY row_number() OVER w = 1",
    "SELECT provider, org, grouping(provider), count(*) FROM calls GROUP BY ROLLUP (provider, org) HAVING count(*) > 0",
    "SELECT time_bucket(INTERVAL '15 minutes', timezone('UTC', counted_at), 'Europe/Berlin'), "
    "date_trunc('day', counted_at), extract(hour FROM counted_at), counted_at AT TIME ZONE 'UTC', "
    "counted_at - INTERVAL 1 DAY, strftime(counted_at, '%A'), current_date, now() FROM calls",
    "SELECT data->>'$.number', data->'call_id', json_extract_string(data, '$.x'), json_keys(data) FROM call_events",
    "SELECT key, value FROM call_events, json_each(data)",
    "SELECT unnest(tags), list_transform(tags, lambda t: upper(t)), [t FOR t IN tags IF t <> 'x'], tags[1], len(tags) "
    "FROM calls",
    "SELECT CASE WHEN duration_s > 60 THEN 'long' ELSE 'short' END, coalesce(agent_id, '?'), "
    "try_cast(call_id AS INTEGER), duration_s::DECIMAL(10,2), {'a': 1}.a, MAP {'k': 2}['k'], status LIKE 'c%', "
    "status ~ 'x', caller_name.upper() FROM calls",
    "SELECT regexp_replace(caller_phone, '[^0-9]', '', 'g'), split_part(caller_email, '@', 2), "
    "printf('%5.1f %%', 12.5), format('{:>8}', call_id), lpad(call_id, 20, '0'), "
    "repeat('#', least(event_count, 50)), bar(1, 0, 10, 20) FROM calls",
    "SELECT day FROM generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-02-01', INTERVAL 1 DAY) t(day)",
    "SELECT range FROM range(100000)",
    "SELECT * FROM calls PIVOT (count(*) FOR provider IN ('aisync', 'synthflow') GROUP BY org)",
    "UNPIVOT (SELECT event_count, duration_s FROM calls) ON event_count, duration_s INTO NAME n VALUE v",
    "SELECT 1 UNION ALL BY NAME SELECT 2 AS b EXCEPT SELECT 3, 4 INTERSECT SELECT 5, 6 ORDER BY ALL",
    "SELECT * FROM calls USING SAMPLE 10 ROWS",
    "DESCRIBE calls",
    "DESCRIBE SELECT provider FROM calls",
    "SUMMARIZE calls",
    "SHOW TABLES",
    "SHOW calls",
    "SELECT column_name FROM (DESCRIBE calls) WHERE column_type = 'TIMESTAMP'",
    'SELECT "column", comment FROM schema_columns WHERE "table" = \'calls\'',
    "SELECT jaro_winkler_similarity(caller_name, 'Smith'), md5(call_id), approx_count_distinct(caller_phone) "
    "FROM calls GROUP BY ALL",
]

# The classes of escape: what writes, what leaves the store, what hides names, what changes the session.
ESCAPES = {
    "insert": ("INSERT INTO kept.positions VALUES ('a', 'b', 1, now())", "not_a_select"),
    "update": ("UPDATE kept.calls SET status = 'forged'", "not_a_select"),
    "delete": ("DELETE FROM kept.calls", "not_a_select"),
    "delete returning": ("DELETE FROM kept.calls RETURNING *", "not_a_select"),
    "merge": ("MERGE INTO kept.calls USING kept.calls c ON true WHEN MATCHED THEN DELETE", "not_a_select"),
    "truncate": ("TRUNCATE kept.calls", "not_a_select"),
    "insert in with": (
        "WITH a AS (INSERT INTO kept.schema_columns VALUES ('a','b','c','d') RETURNING *) SELECT * FROM a",
        "not_a_select",
    ),
    "delete in with": ("WITH a AS (DELETE FROM kept.calls RETURNING *) SELECT * FROM a", "not_a_select"),
    "update in with": ("WITH a AS (UPDATE kept.calls SET status = 'x' RETURNING *) SELECT * FROM a", "not_a_select"),
    "create table": ("CREATE TABLE t AS SELECT 1", "not_a_select"),
    "create temp table": ("CREATE TEMP TABLE calls AS SELECT 1", "not_a_select"),
    "temp view shadows": ("CREATE TEMP VIEW calls AS SELECT 7 AS forged", "not_a_select"),
    "temp macro shadows": ("CREATE TEMP MACRO lower(x) AS 'forged'", "not_a_select"),
    "drop": ("DROP VIEW calls", "not_a_select"),
    "alter": ("ALTER TABLE kept.calls ADD COLUMN x INTEGER", "not_a_select"),
    "comment": ("COMMENT ON VIEW calls IS 'forged'", "not_a_select"),
    "copy to": ("COPY calls TO 'out.csv'", "not_a_select"),
    "copy from": ("COPY kept.calls FROM 'secret.csv'", "not_a_select"),
    "export": ("EXPORT DATABASE 'out'", "not_a_select"),
    "import": ("IMPORT DATABASE 'out'", "not_a_select"),
    "attach": ("ATTACH 'other.duckdb' AS other", "not_a_select"),
    "attach memory": ("ATTACH ':memory:' AS other", "not_a_select"),
    "detach": ("DETACH store", "not_a_select"),
    "use": ("USE kept", "not_a_select"),
    "set": ("SET threads = 1", "not_a_select"),
    "set search path": ("SET search_path = 'kept'", "not_a_select"),
    "set variable": ("SET VARIABLE x = 1", "not_a_select"),
    "reset": ("RESET threads", "not_a_select"),
    "pragma": ("PRAGMA database_list", "not_a_select"),
    "pragma call": ("PRAGMA table_info('calls')", "not_a_select"),
    "call": ("CALL pragma_table_info('calls')", "not_a_select"),
    "install": ("INSTALL httpfs", "not_a_select"),
    "load": ("LOAD httpfs", "not_a_select"),
    "prepare": ("PREPARE p AS SELECT 1", "not_a_select"),
    "execute": ("EXECUTE p", "not_a_select"),
    "begin": ("BEGIN", "not_a_select"),
    "commit": ("COMMIT", "not_a_select"),
    "rollback": ("ROLLBACK", "not_a_select"),
    "checkpoint": ("FORCE CHECKPOINT", "not_a_select"),
    "vacuum": ("VACUUM", "not_a_select"),
    "explain analyze": ("EXPLAIN ANALYZE SELECT * FROM calls", "not_a_select"),
    "pivot": ("PIVOT calls ON provider USING count(*)", "not_a_select"),
    "two statements": ("SELECT 1; SELECT 2", "not_one_statement"),
    "five statements": ("SELECT 1; COMMIT; DROP VIEW calls; BEGIN; SELECT 2", "not_one_statement"),
    "write behind a select": ("SELECT 1; DELETE FROM kept.calls", "not_one_statement"),
    "nothing": ("  -- only words\n ;", "not_one_statement"),
    "no sql": ("how many calls?", "syntax_error"),
    "null byte": ("SELECT 1\0; DROP VIEW calls", "syntax_error"),
    "read_csv": ("SELECT * FROM read_csv('secret.csv')", "function_not_allowed"),
    "read_text": ("SELECT * FROM read_text('secret.csv')", "function_not_allowed"),
    "read_blob of the store": ("SELECT * FROM read_blob('store.duckdb')", "function_not_allowed"),
    "read_parquet in a list": ("SELECT (FROM read_parquet(['a', 'b']))", "function_not_allowed"),
    "glob": ("SELECT * FROM glob('*')", "function_not_allowed"),
    "sniff_csv": ("FROM sniff_csv('secret.csv')", "function_not_allowed"),
    "parquet_metadata": ("FROM parquet_metadata('secret.csv')", "function_not_allowed"),
    "file as table": ("SELECT * FROM 'secret.csv'", "table_not_allowed"),
    "file as quoted table": ('SELECT * FROM "secret.csv"', "table_not_allowed"),
    "file in a join": ("SELECT * FROM calls JOIN 'secret.csv' ON true", "table_not_allowed"),
    "file in a subquery": ("SELECT (SELECT count(*) FROM 'secret.csv')", "table_not_allowed"),
    "file in describe": ("DESCRIBE 'secret.csv'", "table_not_allowed"),
    "file in summarize": ("SUMMARIZE 'secret.csv'", "table_not_allowed"),
    "file in from-first": ("FROM 'https://example.org/x.parquet'", "table_not_allowed"),
    "file in unpivot": ("UNPIVOT 'secret.csv' ON COLUMNS(*)", "table_not_allowed"),
    "file in in": ("SELECT 1 IN (FROM 'secret.csv')", "table_not_allowed"),
    "file in a table function": ("FROM unnest((SELECT list(x) FROM 'secret.csv' t(x)))", "table_not_allowed"),
    "kept schema": ("SELECT * FROM kept.calls", "table_not_allowed"),
    "catalog": ("SELECT * FROM store.main.calls", "table_not_allowed"),
    "system catalog": ("SELECT * FROM system.main.duckdb_settings", "table_not_allowed"),
    "information_schema": ("SELECT * FROM information_schema.tables", "table_not_allowed"),
    "pg_catalog": ("SELECT * FROM pg_catalog.pg_tables", "table_not_allowed"),
    "sqlite_master": ("SELECT sql FROM sqlite_master", "table_not_allowed"),
    "duckdb view": ("SELECT * FROM duckdb_tables", "table_not_allowed"),
    "python variable": ("SELECT * FROM ESCAPES", "table_not_allowed"),
    "show all tables": ("SHOW ALL TABLES", "syntax_not_allowed"),
    "show databases": ("SHOW DATABASES", "syntax_not_allowed"),
    "show a hidden table": ("SHOW duckdb_settings", "table_not_allowed"),
    "describe a clause that is none": (
        'WITH "secret.csv" AS (SELECT 1) FROM (DESCRIBE "secret.csv")', "table_not_allowed",
    ),
    "clause out of its scope": ("SELECT * FROM (WITH hidden AS (SELECT 1) FROM hidden), hidden", "table_not_allowed"),
    "clause naming itself": ("WITH hidden AS (FROM hidden) FROM hidden", "table_not_allowed"),
    "clause before it is made": ("WITH a AS (FROM b), b AS (SELECT 1) FROM a", "table_not_allowed"),
    "recursion in its first half": ("WITH RECURSIVE r AS (FROM r UNION ALL FROM r) FROM r", "table_not_allowed"),
    "settings": ("SELECT * FROM duckdb_settings()", "function_not_allowed"),
    "databases": ("SELECT path FROM duckdb_databases()", "function_not_allowed"),
    "secrets": ("SELECT * FROM duckdb_secrets()", "function_not_allowed"),
    "pragma function": ("SELECT * FROM pragma_database_size()", "function_not_allowed"),
    "query": ("SELECT * FROM query('FROM kept.calls')", "function_not_allowed"),
    "query_table": ("SELECT * FROM query_table('kept.calls')", "function_not_allowed"),
    "serialised sql": ("SELECT * FROM json_execute_serialized_sql('{}')", "function_not_allowed"),
    "serialise": ("SELECT json_serialize_sql('SELECT 1')", "function_not_allowed"),
    "checkpoint function": ("SELECT * FROM force_checkpoint()", "function_not_allowed"),
    "logging function": ("SELECT * FROM enable_logging()", "function_not_allowed"),
    "write_log": ("SELECT write_log('x')", "function_not_allowed"),
    "getenv": ("SELECT getenv('HOME')", "function_not_allowed"),
    "getvariable": ("SELECT getvariable('x')", "function_not_allowed"),
    "current_setting": ("SELECT current_setting('temp_directory')", "function_not_allowed"),
    "nextval": ("SELECT nextval('s')", "function_not_allowed"),
    "setseed": ("SELECT setseed(0.5)", "function_not_allowed"),
    "sleep": ("SELECT sleep_ms(60000)", "function_not_allowed"),
    "invoke": ("SELECT invoke(lambda x: x, 1)", "function_not_allowed"),
    "method": ("SELECT 'HOME'.getenv()", "function_not_allowed"),
    "function of a schema": ("SELECT system.main.getenv('HOME')", "function_not_allowed"),
    "function in a window": ("SELECT getenv('HOME') OVER ()", "function_not_allowed"),
    "function in a filter": ("SELECT count(*) FILTER (WHERE getenv('x') = '') FROM calls", "function_not_allowed"),
    "function in a limit": ("FROM calls LIMIT getvariable('x')", "function_not_allowed"),
    "function in a lambda": ("SELECT list_transform([1], lambda x: getvariable('x'))", "function_not_allowed"),
    "function in order by": ("SELECT list(1 ORDER BY getvariable('x'))", "function_not_allowed"),
    "macro of a table": ("FROM histogram_values(calls, provider)", "function_not_allowed"),
    "arrow_scan": ("FROM arrow_scan(1, 2, 3)", "function_not_allowed"),
    "type that loads an extension": ("SELECT 'x'::inet", "type_not_allowed"),
    "collation": ("SELECT 'a' COLLATE de", "syntax_not_allowed"),
    "time travel": ("FROM calls AT (VERSION => 1)", "syntax_not_allowed"),
    "positional parameter": ("SELECT ?", "bad_parameters"),
    "numbered parameter": ("SELECT $1", "bad_parameters"),
    "repeat": ("SELECT repeat('x', 1000000000)", "too_large"),
    "repeat of unknown size": ("SELECT repeat('x', event_count) FROM calls", "too_large"),
    "repeat by parameter": ("SELECT repeat('x', $n)", "too_large"),
    "repeat of repeat": ("SELECT repeat(repeat('x', 1000), 1000)", "too_large"),
    "repeat through clauses": ("WITH a AS (SELECT repeat('x', 5000) s) SELECT repeat(s, 5000) FROM a", "too_large"),
    "repeat as method": ("SELECT caller_name.repeat(1000000000) FROM calls", "too_large"),
    "lpad": ("SELECT lpad('x', 2000000000, 'y')", "too_large"),
    "range": ("SELECT range(1000000000)", "too_large"),
    "range downwards": ("SELECT range(-1000000000, 0)", "too_large"),
    "range of unknown start": ("SELECT range(-event_count, 5) FROM calls", "too_large"),
    "series of seconds": (
        "SELECT generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2100-01-01', INTERVAL 1 SECOND)", "too_large",
    ),
    "range in a lambda": ("SELECT list_transform(range(1000), lambda x: range(1000))", "too_large"),
    "replace": ("SELECT replace('aaaa', 'a', repeat('b', 100))", "too_large"),
    "format": ("SELECT format('{:>2000000000}', 'x')", "too_large"),
    "format by argument": ("SELECT format('{:>{}}', 'x', 2000000000)", "too_large"),
    "printf": ("SELECT printf('%2000000000d', 1)", "too_large"),
    "printf by argument": ("SELECT printf('%*d', 2000000000, 1)", "too_large"),
    "separator": ("SELECT string_agg(provider, repeat('x', 10000)) FROM calls", "too_large"),
    "quadratic text": ("SELECT levenshtein(transcript, summary) FROM calls", "function_not_allowed"),
    "very long": ("SELECT " + "1," * 60_000 + "1", "too_large"),
    "very deep": ("SELECT " + "NOT " * 900 + "true", "too_large"),
    "deeper": ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, "syntax_error"),
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    (folder / "secret.csv").write_text("word\nhidden\n")
    opened = Store.open(folder / "store.duckdb", rules=Rules())
    opened.apply(new_calls(range(1, 40), tags=["a", "b"], caller_name="Ada", transcript="hello", duration_s=61.5))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def parse() -> Iterator[guard.Parse]:
    with duckdb.connect() as connection:
        yield guard.parser(connection)


@pytest.mark.parametrize("sql", USEFUL)
def test_a_useful_query_runs(store: Store, sql: str) -> None:
    """What an analyst writes is let through and gives rows or none, not an error."""
    assert Query(store.cursor, sql, {}, Limits()).run().table.num_columns > 0


@pytest.mark.parametrize(("sql", "code"), ESCAPES.values(), ids=ESCAPES)
def test_an_escape_is_refused_and_leaves_no_trace(
    store: Store, sql: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each class of escape is refused by its code, and rows, settings, catalog and folder stay as they were."""
    monkeypatch.chdir(store.path.parent)
    before = _traces(store)
    with pytest.raises(QueryError) as refused:
        Query(store.cursor, sql, {}, Limits()).run()
    assert refused.value.code == code
    assert str(store.path.parent) not in refused.value.message
    assert "hidden" not in refused.value.message or "hidden" in sql
    assert _traces(store) == before


@pytest.mark.parametrize(
    "name",
    ["insert", "update", "delete", "insert in with", "delete in with", "create table", "drop", "alter", "copy to",
     "attach", "set", "install", "read_csv", "read_text", "glob", "file as table", "export"],
)  # fmt: skip
def test_without_the_guard_the_walls_behind_it_hold(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read-only transaction and the locked configuration stop by themselves what would write or read files."""
    monkeypatch.chdir(store.path.parent)
    before = _traces(store)
    with store.cursor() as cursor:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        with pytest.raises(duckdb.Error):
            cursor.execute(ESCAPES[name][0]).fetchall()
    assert _traces(store) == before


def test_a_query_sees_nothing_that_another_left_in_its_session(store: Store) -> None:
    """Even a temp view that a cursor managed to make is gone with that cursor."""
    with store.cursor() as cursor:
        cursor.execute("CREATE TEMP VIEW calls AS SELECT 7 AS forged")
    answer = Query(store.cursor, "SELECT count(*) AS n FROM calls", {}, Limits()).run()
    assert answer.table.to_pylist() == [{"n": 39}]


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_every_metric_passes_the_guard(parse: guard.Parse, name: str) -> None:
    """A metric that the guard refuses would be a page without its number."""
    filters = Filters(start=NOON, end=NOON + 86_400 * SECOND, zone="Europe/Berlin", only={"provider": ("aisync", "")})
    for bucket in BUCKETS:
        sql, _ = catalogue()[name].sql(filters, bucket=bucket, slice_by="provider", partial=Partial.HALF)
        guard.check(sql, parse)


def test_the_public_tables_are_those_of_the_store(store: Store) -> None:
    """The allow-list of tables and the store's own description name the same tables."""
    answer = Query(store.cursor, 'SELECT DISTINCT "table" AS t FROM schema_columns', {}, Limits()).run()
    assert set(answer.table.column("t").to_pylist()) == set(guard.ALLOWED.tables)


def test_every_allowed_function_exists(store: Store) -> None:
    """A name that DuckDB does not know is a slip of the pen in the allow-list."""
    with store.cursor() as cursor:
        rows = cursor.execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()").fetchall()
    known = {name for (name,) in rows} | {"rank_dense"}
    assert known >= guard.ALLOWED.functions | guard.ALLOWED.table_functions


def test_no_allowed_function_looks_like_one_that_leaves_the_store() -> None:
    """Readers of files, settings and catalogs never get on the list by a careless addition."""
    words = ("read_", "scan", "pragma", "duckdb_", "glob", "query", "setting", "variable", "env", "secret",
             "log_", "sql", "parse_path", "dirname", "sleep", "seq", "nextval", "currval", "setval",
             "internal", "pg_")  # fmt: skip
    functions = guard.ALLOWED.functions | guard.ALLOWED.table_functions
    assert [name for name in sorted(functions) if any(word in name for word in words)] == []


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM call", "Did you mean calls"),
        ("SELECT * FROM nothing_like_it", "There are calls, call_analysis"),
        ("SELECT lowr('x')", "Did you mean lower"),
        ("SELECT levenshtein('a', 'b')", "Use jaro_winkler_similarity"),
        ("PIVOT calls ON provider USING count(*)", "FROM calls PIVOT (count(*) FOR provider IN"),
        ("DROP TABLE calls", "DROP is not possible here"),
        ("SELECT 1; SELECT 2; SELECT 3", "These are 3 statements"),
        ("SELECT 1\nFROM calls WHERE WHERE", "line 2, column 18"),
        ("SELECT nope FROM calls", "Candidate bindings"),
        ("SELECT repeat('x', event_count) FROM calls", "least("),
        ("SELECT $a", "a"),
    ],
)
def test_a_refusal_says_what_to_do(store: Store, sql: str, words: str) -> None:
    """The message is for the person who wrote the query."""
    with pytest.raises(QueryError) as refused:
        Query(store.cursor, sql, {}, Limits()).run()
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("sql", "fits"),
    [
        (f"SELECT repeat('x', {GROWTH_MAX})", True),
        (f"SELECT repeat('x', {GROWTH_MAX + 1})", False),
        ("SELECT repeat('x', 100), repeat('y', 100)", True),
        ("SELECT repeat('x', 101), repeat('y', 100)", False),
        ("SELECT range(10, 20), range(5)", True),
        ("SELECT range(100, 0, -1)", True),
        ("SELECT range(least($n, 100))", True),
        ("SELECT range(len([1, 2]) + 1)", True),
        ("SELECT range(greatest(1, least($n, 100)))", True),
        ("SELECT range(greatest(1, $n))", False),
        ("SELECT range(0, least($n, 5), -1)", False),
        ("SELECT range(0, 5, 0)", False),
        ("SELECT repeat('x', 5 - $n)", False),
        ("SELECT regexp_replace(regexp_replace(transcript, '[0-9]+', '[number]'), ' +', ' ') FROM calls", True),
        ("SELECT regexp_replace(regexp_replace(transcript, '.', 'a long text'), '.', 'a long text') FROM calls", False),
        ("SELECT repeat('x', (20)::INTEGER)", True),
        ("SELECT replace(transcript, 'human_goodbye', 'the person hung up') FROM calls", True),
    ],
)
def test_sizes_are_bounded_by_the_text_of_the_query(parse: guard.Parse, sql: str, fits: bool) -> None:
    """What grows lists and texts has to be bounded by the query itself, all of it together."""
    if fits:
        guard.check(sql, parse)
    else:
        with pytest.raises(QueryError) as refused:
            guard.check(sql, parse)
        assert refused.value.code == "too_large"


@given(data=st.data())
def test_a_node_of_an_unknown_kind_or_with_an_unknown_field_is_refused(parse: guard.Parse, data: st.DataObject) -> None:
    """What a later DuckDB adds to its trees is refused until somebody has judged it."""
    sql = data.draw(st.sampled_from(USEFUL))
    tree = json.loads(parse(sql))
    node = data.draw(st.sampled_from(list(_nodes(tree["statements"]))))
    if data.draw(st.booleans()) and isinstance(node.get("type"), str):
        node["type"] = "MARVELLOUS_NEW_NODE"
    else:
        node["marvellous_new_field"] = data.draw(st.sampled_from([True, 1, "x", [], {}, [{"type": "SELECT_NODE"}]]))
    with pytest.raises(QueryError):
        guard.check(sql, lambda _: json.dumps(tree))


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _traces(store: Store) -> tuple[object, ...]:
    """All that an escape could have changed."""
    folder: Path = store.path.parent
    with store.cursor() as cursor:
        catalog = [
            cursor.execute(text).fetchall()
            for text in (
                "SELECT database_name, path FROM duckdb_databases() ORDER BY ALL",
                "SELECT name, value FROM duckdb_settings() ORDER BY ALL",
                "SELECT schema_name, view_name, sql, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
                "SELECT schema_name, table_name, column_count FROM duckdb_tables() ORDER BY ALL",
                "SELECT function_name FROM duckdb_functions() WHERE NOT internal ORDER BY ALL",
                "FROM kept.positions ORDER BY ALL",
            )
        ]
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("store.duckdb"))
    return everything(store), catalog, files, (folder / "secret.csv").read_text()
