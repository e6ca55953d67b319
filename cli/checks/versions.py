"""Whether the software below us is what Calltally was made for."""

from __future__ import annotations

import importlib.util
import platform
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cli.check import Finding, Level, Patient

WAL_RESET_FIXED = (3, 51, 3)
"""https://sqlite.org/wal.html, "the WAL-reset bug"."""
DUCKDB_MAJOR = "2"


def check(_: Patient) -> Iterator[Finding]:
    """Python, DuckDB, SQLite, crc32c, time zones."""
    duckdb = version("duckdb")
    yield Finding(Level.OK, f"Python {platform.python_version()}, DuckDB {duckdb}, SQLite {sqlite3.sqlite_version}.")
    if duckdb.split(".")[0] != DUCKDB_MAJOR:
        yield Finding(
            Level.WRONG,
            f"DuckDB {duckdb} is installed; Calltally is made for version {DUCKDB_MAJOR}.",
            "Install from requirements.txt (make setup).",
        )
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED:
        yield Finding(
            Level.NOTE,
            f"SQLite {sqlite3.sqlite_version} can damage a file that one program writes while another one checkpoints "
            "it (fixed in 3.51.3). Calltally's journal is written and checkpointed by one connection only.",
            "Do not open journal.sqlite for writing with other tools while ingest runs; copy it, or open it read-only.",
        )
    if importlib.util.find_spec("crc32c") is None:
        yield Finding(
            Level.NOTE,
            "The package crc32c is missing, so Kafka's checksums would be computed in slow Python.",
            "Install from requirements.txt (make setup).",
        )
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        yield Finding(Level.WRONG, "There is no time zone data on this machine.", "Install the package tzdata.")
