"""The store's file: opened, locked down, and brought to the present schema."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Final

import duckdb

from analytics.fingerprint import fingerprint
from analytics.memory import given_bytes
from calls.errors import StoreDamaged, StoreError, StoreLocked, StoreMismatch, StoreUnavailable
from calls.model import Rules

HERE: Final = Path(__file__).parent
WAL_MAX: Final = "64MB"
"""A commit that makes the write-ahead log longer than this waits for a checkpoint; idle moments should come first."""
ROW_GROUP_ROWS: Final = 16_384
"""A checkpoint now and then writes the newest row group of a table whole: with DuckDB's 122,880 rows of this width that
takes 1.7 s, with these 0.2 s, and scans are as fast."""

_GIB: Final = 1 << 30
_SPILL_MIN: Final = 64 << 20
_SPILL_MAX: Final = 16 * _GIB
_HOLDER = re.compile(r"PID (\d+)")
_OTHER_FORMAT = re.compile(r"database file with version number|storage version|newer version", re.IGNORECASE)
_ROT = re.compile(r"checksum|corrupt|not a valid DuckDB|deserializ", re.IGNORECASE)


def connect(path: Path, rules: Rules, *, schema: Path = HERE) -> duckdb.DuckDBPyConnection:
    """Open or create the file; `schema` is the folder of what makes its tables and views. Read it through `cursor_of`.

    Raises StoreLocked, StoreDamaged, StoreMismatch, StoreUnavailable.
    """
    connection = _open(path)
    try:
        _bring_up(connection, fingerprint(rules), schema)
        _lock_down(connection, export_folder(path))
    except duckdb.Error as error:
        connection.close()
        raise opening_error(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def cursor_of(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A cursor of its own on the store's tables."""
    cursor = connection.cursor()
    cursor.execute("USE store")
    return cursor


def export_folder(path: Path) -> Path:
    """The one folder that SQL may write to: snapshots are made there and then moved."""
    return path.absolute().with_name(path.name + ".export")


def opening_error(path: Path, error: duckdb.Error) -> StoreError:
    """What a failure to open or read the file means."""
    text = str(error)
    if "Unique file handle conflict" in text:
        return StoreLocked(f"This process has the store {path.name} open already.")
    if "Could not set lock" in text or "Conflicting lock" in text:
        holder = _HOLDER.search(text)
        who = f"process {holder[1]}" if holder else "another process"
        return StoreLocked(
            f"The store {path.name} is in use by {who}. Stop it, or, if it is the worker, ask its SQL endpoint."
        )
    if _OTHER_FORMAT.search(text):
        return StoreMismatch(f"The store {path.name} was written by another version of DuckDB; it has to be rebuilt.")
    if "invalidated" in text or (isinstance(error, duckdb.IOException) and not _ROT.search(text)):
        return StoreUnavailable(f"The store {path.name} cannot be opened now: {first_line(error)}")
    return StoreDamaged(f"The store {path.name} cannot be read ({first_line(error)}); it has to be rebuilt.")


def is_rot(error: duckdb.Error) -> bool:
    """Whether an error says that the file itself is damaged."""
    # A block whose checksum is wrong, read long after the opening, comes without a class of its own.
    kinds = (duckdb.IOException, duckdb.SerializationException)
    return (isinstance(error, kinds) or type(error) is duckdb.Error) and bool(_ROT.search(str(error)))


def first_line(error: duckdb.Error) -> str:
    """DuckDB's message without what follows it."""
    return str(error).split("\n", 1)[0].rstrip(".")


def statements(name: str) -> dict[str, str]:
    """The named statements of an SQL file of this folder."""
    parts = re.split(r"^-- name: (\w+)\n", (HERE / name).read_text(), flags=re.MULTILINE)
    return {title: text.strip().rstrip(";") for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    is_new = not path.exists()
    memory = min(max(given_bytes() // 4, _GIB), 8 * _GIB)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory // 1024}KiB",
        # Half of the cores, so that people's questions leave one to whoever writes; and where that is one, a small
        # insert is not handed from thread to thread, which takes a fifth off the time of a lone webhook.
        "threads": max(1, (os.cpu_count() or 1) // 2),
        "wal_autocheckpoint": WAL_MAX,
        "temp_directory": f"{path.absolute()}.tmp",
        "max_temp_directory_size": f"{_spill_bytes(path) // 1024}KiB",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        # Otherwise SQL could name the variables of whatever Python code runs it.
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(config=config)
    try:
        # Attached, because only so the size of row groups can be said.
        quoted = str(path).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS store (ROW_GROUP_SIZE {ROW_GROUP_ROWS})")
        connection.execute("USE store")
        if is_new:
            # DuckDB takes no empty file made beforehand, so the rights follow before there is anything in it.
            path.chmod(0o600)
    except duckdb.Error as error:
        connection.close()
        raise opening_error(path, error) from error
    return connection


def _spill_bytes(path: Path) -> int:
    """What queries may put on the disk of the journal: DuckDB alone would fill nine tenths of it."""
    try:
        free = shutil.disk_usage(path.absolute().parent).free
    except OSError:
        free = 0  # opening the file is about to fail for the same cause, and says it better
    return min(max(free // 4, _SPILL_MIN), _SPILL_MAX)


def _bring_up(connection: duckdb.DuckDBPyConnection, made_by: str, schema: Path) -> None:
    """One transaction: a process that dies in it leaves the schema as it was."""
    changes = sorted((schema / "migrations").glob("[0-9][0-9][0-9][0-9]_*.sql"))
    steps = [(schema / "schema.sql").read_text(), *(path.read_text() for path in changes)]
    views = (schema / "views.sql").read_text()
    views_digest = hashlib.sha256(views.encode()).hexdigest()[:32]
    found = _found(connection)
    if found is None:
        version = 0
    else:
        version, maker, shown = found
        if version > len(steps):
            raise StoreMismatch("The store was made by a newer version of Calltally; it has to be rebuilt.")
        if maker != made_by:
            raise StoreMismatch(
                "The store was made with other rules or by other code, so its numbers would differ from new ones; "
                "it has to be rebuilt."
            )
        if version == len(steps) and shown == views_digest:
            return
    connection.execute("BEGIN")
    for step in steps[version:]:
        connection.execute(step)
    connection.execute(views)
    connection.execute("DELETE FROM kept.schema_version")
    connection.execute("INSERT INTO kept.schema_version VALUES (?, ?, ?)", [len(steps), made_by, views_digest])
    connection.execute("DELETE FROM kept.schema_columns")
    connection.execute(
        "INSERT INTO kept.schema_columns SELECT table_name, column_name, data_type, comment FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND database_name = current_database() AND NOT internal "
        "ORDER BY table_name, column_index"
    )
    connection.execute("COMMIT")


def _found(connection: duckdb.DuckDBPyConnection) -> tuple[int, str, str] | None:
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal"
    ).fetchall()
    if not tables:
        return None
    if ("kept", "schema_version") not in tables:
        raise StoreMismatch("The file is a DuckDB database, but not a store of Calltally; name another data folder.")
    rows = connection.execute("SELECT version, made_by, views FROM kept.schema_version").fetchall()
    if len(rows) != 1:
        raise StoreDamaged("The store does not say which version it is; it has to be rebuilt.")
    version, made_by, views = rows[0]
    return version, made_by, views


def _lock_down(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Nothing that runs SQL here can read or write other files, or undo that."""
    quoted = str(folder).replace("'", "''")
    connection.execute(f"SET allowed_directories = ['{quoted}/']")
    connection.execute("SET allowed_configs = ['operator_memory_limit']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
