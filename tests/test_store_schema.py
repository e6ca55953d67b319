"""What people see of the store, and what it takes to open one that was made before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from analytics import database
from analytics.fingerprint import fingerprint
from analytics.store import Store
from calls.errors import StoreDamaged, StoreMismatch
from calls.model import Rules
from tests.storing import rows

RULES = Rules()

PUBLIC = {
    "calls": (
        "provider VARCHAR, org VARCHAR, call_id VARCHAR, counted_at TIMESTAMP, agent_id VARCHAR, agent_name "
        "VARCHAR, campaign VARCHAR, direction VARCHAR, status VARCHAR, end_call_reason VARCHAR, "
        "custom_end_call_reason VARCHAR, connection VARCHAR, ended_by VARCHAR, result VARCHAR, excluded "
        "VARCHAR, transferred BOOLEAN, transferred_to VARCHAR, transfer_reason VARCHAR, started_at TIMESTAMP,"
        " ended_at TIMESTAMP, duration_s DOUBLE, caller_phone VARCHAR, callee_phone VARCHAR, caller_name "
        "VARCHAR, caller_email VARCHAR, summary VARCHAR, transcript VARCHAR, recording_url VARCHAR, sentiment"
        " VARCHAR, disposition VARCHAR, intent VARCHAR, urgency VARCHAR, tags VARCHAR[], cost_usd DOUBLE, "
        "trust VARCHAR, conflict BOOLEAN, first_received_at TIMESTAMP, last_received_at TIMESTAMP, "
        "event_count BIGINT"
    ),
    "call_analysis": (
        "provider VARCHAR, org VARCHAR, call_id VARCHAR, criterion VARCHAR, result VARCHAR, feedback VARCHAR"
    ),
    "call_variables": (
        "provider VARCHAR, org VARCHAR, call_id VARCHAR, agent_id VARCHAR, name VARCHAR, value JSON, "
        "value_text VARCHAR, value_number DOUBLE, collected BOOLEAN"
    ),
    "call_actions": (
        "provider VARCHAR, org VARCHAR, call_id VARCHAR, name VARCHAR, action_type VARCHAR, return_value "
        "JSON, error_message VARCHAR, happened_at TIMESTAMP"
    ),
    "call_events": (
        "event_id VARCHAR, provider VARCHAR, org VARCHAR, call_id VARCHAR, source VARCHAR, event VARCHAR, "
        "happened_at TIMESTAMP, received_at TIMESTAMP, position BIGINT, delivery_id VARCHAR, trust VARCHAR, "
        "data JSON"
    ),
    "other_events": (
        "event_id VARCHAR, provider VARCHAR, org VARCHAR, call_id VARCHAR, source VARCHAR, event VARCHAR, "
        "happened_at TIMESTAMP, received_at TIMESTAMP, position BIGINT, delivery_id VARCHAR, trust VARCHAR, "
        "data JSON"
    ),
    "appointments": (
        "provider VARCHAR, org VARCHAR, call_id VARCHAR, starts_at TIMESTAMP, ends_at TIMESTAMP, service "
        "VARCHAR, caller_name VARCHAR, caller_phone VARCHAR, calendar_event_id VARCHAR, link VARCHAR"
    ),
    "leads": (
        "provider VARCHAR, org VARCHAR, call_id VARCHAR, name VARCHAR, phone VARCHAR, email VARCHAR, intent "
        "VARCHAR, urgency VARCHAR, interest VARCHAR, summary VARCHAR"
    ),
    "deliveries": (
        "id VARCHAR, position BIGINT, source VARCHAR, provider VARCHAR, verdict VARCHAR, reason VARCHAR, "
        "trust VARCHAR, bytes BIGINT, count BIGINT, received_at TIMESTAMP, applied_at TIMESTAMP"
    ),
    "dead_letters": (
        "position BIGINT, source VARCHAR, provider VARCHAR, reason VARCHAR, detail VARCHAR, received_at TIMESTAMP"
    ),
    "rollup_calls": (
        "bucket_start TIMESTAMP, provider VARCHAR, org VARCHAR, agent_id VARCHAR, campaign VARCHAR, direction"
        " VARCHAR, status VARCHAR, end_call_reason VARCHAR, connection VARCHAR, ended_by VARCHAR, result "
        "VARCHAR, calls BIGINT, transferred BIGINT, booked BIGINT, duration_s_sum DOUBLE, duration_n BIGINT"
    ),
    "rollup_analysis": (
        "bucket_start TIMESTAMP, provider VARCHAR, org VARCHAR, agent_id VARCHAR, direction VARCHAR, "
        "criterion VARCHAR, result VARCHAR, calls BIGINT"
    ),
    "rollup_variables": (
        "bucket_start TIMESTAMP, provider VARCHAR, org VARCHAR, agent_id VARCHAR, direction VARCHAR, name "
        "VARCHAR, calls BIGINT, collected BIGINT, filled BIGINT"
    ),
    "positions": ("stream VARCHAR, stream_id VARCHAR, position BIGINT, updated_at TIMESTAMP"),
    "schema_version": ("version INTEGER, made_by VARCHAR"),
    "schema_columns": ("table VARCHAR, column VARCHAR, type VARCHAR, comment VARCHAR"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(path, rules=RULES)
    yield opened
    opened.close()


def test_every_public_table_has_the_columns_of_the_contract(store: Store) -> None:
    """Names, types and order are what people's SQL goes by."""
    found = {}
    for table in PUBLIC:
        described = rows(store, f"DESCRIBE {table}")
        found[table] = ", ".join(f"{row[0]} {row[1]}" for row in described)
    assert found == PUBLIC


def test_schema_columns_describes_every_public_column(store: Store) -> None:
    """Each table of the contract, its columns in order, their types, and a comment for every one."""
    described: dict[str, list[str]] = {}
    for table, column, kind, comment in rows(store, "FROM schema_columns"):
        assert comment, (table, column)
        described.setdefault(str(table), []).append(f"{column} {kind}")
    assert {table: ", ".join(said) for table, said in described.items()} == PUBLIC


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    """A DuckDB file with other tables is not taken over."""
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE mine (a INTEGER)")
    with pytest.raises(StoreMismatch, match="not a store of Calltally"):
        Store.open(path, rules=RULES)


def test_other_rules_ask_for_a_rebuild(store: Store, path: Path) -> None:
    """What counts as success is part of what made the rows."""
    store.close()
    with pytest.raises(StoreMismatch, match="rebuilt"):
        Store.open(path, rules=Rules(success_criterion="appointment"))
    store.reopen()
    assert store.verify() == []


def test_the_fingerprint_covers_rules_and_nothing_of_chance() -> None:
    """Equal rules give equal fingerprints whatever the order in which they are written."""
    one = Rules(success={"a": "met", "b": "partly"})
    same = Rules(success={"b": "partly", "a": "met"})
    assert fingerprint(one) == fingerprint(same) != fingerprint(Rules())


def test_a_migration_happens_whole_or_not_at_all(path: Path, tmp_path: Path) -> None:
    """One that breaks off leaves the old schema; the right one then runs, and views are made anew."""
    schema = tmp_path / "schema"
    shutil.copytree(database.HERE, schema, ignore=shutil.ignore_patterns("*.py", "__pycache__", "metrics"))
    Store.open(path, rules=RULES).close()
    step = schema / "migrations" / "0002_notes.sql"
    step.write_text("ALTER TABLE kept.calls ADD COLUMN note VARCHAR; SELECT error('stopped');")
    with pytest.raises(StoreDamaged):
        database.connect(path, RULES, schema=schema)
    store = Store.open(path, rules=RULES)
    assert rows(store, "SELECT count(*) FROM duckdb_columns() WHERE column_name = 'note'") == [(0,)]
    store.close()
    step.write_text("ALTER TABLE kept.calls ADD COLUMN note VARCHAR;")
    views = schema / "views.sql"
    views.write_text(views.read_text() + "CREATE VIEW notes AS SELECT note FROM kept.calls;")
    connection = database.connect(path, RULES, schema=schema)
    assert connection.execute("SELECT version FROM schema_version").fetchall() == [(2,)]
    described = connection.execute("""SELECT "column" FROM schema_columns WHERE "table" = 'notes'""").fetchall()
    assert described == [("note",)]
    connection.close()
    with pytest.raises(StoreMismatch, match="newer version"):
        Store.open(path, rules=RULES)


def test_only_its_owner_may_read_a_new_store(tmp_path: Path) -> None:
    """It holds numbers and transcripts, whatever the process's mask is."""
    path = tmp_path / "store.duckdb"
    Store.open(path, rules=RULES).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_queries_may_not_fill_the_disk(tmp_path: Path) -> None:
    """What they put aside lies beside the store and is bounded, since the journal shares the disk."""
    store = Store.open(tmp_path / "store.duckdb", rules=RULES)
    ((folder,),) = rows(store, "SELECT value FROM duckdb_settings() WHERE name = 'temp_directory'")
    ((size,),) = rows(store, "SELECT value FROM duckdb_settings() WHERE name = 'max_temp_directory_size'")
    store.close()
    assert folder == str(tmp_path / "store.duckdb.tmp")
    assert not str(size).startswith("90%")
