"""A copy of the public tables that any DuckDB client opens, taken while the store lives on."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

import duckdb


def write_snapshot(cursor: duckdb.DuckDBPyConnection, path: Path, folder: Path) -> None:
    """Copy every public view as a table with its comments; `folder` is the one that SQL may write to.

    One transaction reads it all, so the tables belong together. Raises OSError where `path` cannot be written.
    """
    folder.mkdir(exist_ok=True)
    made = folder / f"{uuid.uuid4().hex}.duckdb"
    try:
        _copy(cursor, made)
        _move(made, path)
    finally:
        made.unlink(missing_ok=True)
        made.with_name(made.name + ".wal").unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _copy(cursor: duckdb.DuckDBPyConnection, made: Path) -> None:
    name = f"snapshot_{made.stem}"
    # The oldest layout that DuckDB still writes: a snapshot is for other people's clients.
    cursor.execute(f"ATTACH {_quoted(made)} AS {name} (STORAGE_VERSION 'v1.0.0')")
    try:
        cursor.execute("BEGIN")
        views = cursor.execute(
            "SELECT view_name, comment FROM duckdb_views() "
            "WHERE schema_name = 'main' AND database_name = current_database() AND NOT internal ORDER BY view_name"
        ).fetchall()
        for view, comment in views:
            cursor.execute(f"CREATE TABLE {name}.main.{view} AS FROM main.{view}")
            cursor.execute(f"COMMENT ON TABLE {name}.main.{view} IS {_quoted(comment)}")
        described = cursor.execute('SELECT "table", "column", comment FROM main.schema_columns').fetchall()
        for table, column, comment in described:
            cursor.execute(f'COMMENT ON COLUMN {name}.main.{table}."{column}" IS {_quoted(comment)}')
        cursor.execute("COMMIT")
    except duckdb.Error:
        # A failed COMMIT leaves nothing to roll back, and a file that could not be written cannot always be let go
        # of: neither may hide the first error, and the cursor is thrown away.
        for statement in ("ROLLBACK", f"DETACH {name}"):
            with contextlib.suppress(duckdb.Error):
                cursor.execute(statement)
        raise
    cursor.execute(f"DETACH {name}")


def _move(made: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{made.stem}")
    try:
        shutil.move(made, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        # Of the file that was asked for: nobody knows of the one beside it.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        # A read-only disk refuses this too.
        with contextlib.suppress(OSError):
            beside.unlink()


def _quoted(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"
