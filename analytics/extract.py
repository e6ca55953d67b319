"""Whole tables out of a store's file, or out of a copy of it, as files; in batches, so that none stands in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet

from analytics.database import first_line
from analytics.exports import Form, to_bytes, workbook
from analytics.query import open_read_only
from calls.errors import CalltallyError, StoreError, StoreUnavailable
from calls.model import Micros

Range: TypeAlias = tuple[Micros, Micros]
"""From the first, up to but without the second."""

BATCH_ROWS: Final = 20_000
SHEET_ROWS_MAX: Final = 200_000
"""A sheet could hold a million rows, but takes gigabytes of memory to make, and to open."""

_BETWEEN = "{column} >= make_timestamp($start) AND {column} < make_timestamp($end)"


class Extract:
    """One consistent state of all public tables. Raises StoreLocked, StoreDamaged, StoreMismatch.

    Once narrowed to some orgs it has only the tables that tell whose a row is, and of those only the rows of theirs.
    """

    def __init__(self, path: Path) -> None:
        self._only: tuple[str, ...] = ()
        self._connection = open_read_only(path)
        self._connection.execute("BEGIN TRANSACTION READ ONLY")
        self._columns: dict[str, list[str]] = {}
        found = self._connection.execute('SELECT "table", "column" FROM schema_columns').fetchall()
        for table, column in found:
            self._columns.setdefault(table, []).append(column)

    @property
    def tables(self) -> list[str]:
        return sorted(self._columns)

    @property
    def orgs(self) -> list[str]:
        """Those that have calls."""
        return [str(org) for (org,) in self._connection.execute("SELECT DISTINCT org FROM calls").fetchall()]

    def narrow(self, orgs: tuple[str, ...]) -> None:
        """Hold from now on what belongs to these orgs, and nothing else."""
        self._only = orgs
        self._columns = {table: columns for table, columns in self._columns.items() if "org" in columns}

    def count(self, table: str, within: Range | None) -> int:
        """How many rows the table has; within a range: those of it, or of calls that count in it."""
        ((count,),) = self._run(f"SELECT count(*) FROM ({self._text(table, within)}) AS kept", within).fetchall()
        return int(count)

    def rows(self, table: str, within: Range | None) -> pa.RecordBatchReader:
        """The rows in batches, as far as possible in the order of arrival."""
        return self._run(self._text(table, within), within).to_arrow_reader(BATCH_ROWS)

    def close(self) -> None:
        self._connection.close()

    def _run(self, text: str, within: Range | None) -> duckdb.DuckDBPyRelation:
        offered = {**dict(zip(("start", "end"), within or (), strict=False)), "orgs": list(self._only)}
        told = {name: value for name, value in offered.items() if f"${name}" in text}
        try:
            return self._connection.sql(text, params=told or None)
        except duckdb.Error as error:
            raise StoreUnavailable(f"The table cannot be read: {first_line(error)}.") from error

    def _text(self, table: str, within: Range | None) -> str:
        if table not in self._columns:
            raise StoreError(f"There is no table '{table}'. There are: {', '.join(self.tables)}.", code="no_table")
        conditions = [
            None if within is None else self._condition(self._columns[table]),
            "list_contains($orgs, org)" if self._only else None,
        ]
        where = " AND ".join(filter(None, conditions))
        return f"SELECT * FROM {table} AS kept" + (f" WHERE {where}" if where else "")

    def _condition(self, columns: list[str]) -> str | None:
        for column in ("counted_at", "bucket_start"):
            if column in columns:
                return _BETWEEN.format(column=column)
        received = _BETWEEN.format(column="received_at") if "received_at" in columns else None
        if "call_id" not in columns:
            return received
        of_call = (
            "EXISTS (FROM calls WHERE calls.provider = kept.provider AND calls.org = kept.org "
            f"AND calls.call_id = kept.call_id AND {_BETWEEN.format(column='calls.counted_at')})"
        )
        return f"({of_call} OR (call_id IS NULL AND {received}))" if received else of_call


def write(
    extract: Extract, table: str, form: Form, file: BinaryIO, within: Range | None, told: Callable[[int], None]
) -> int:
    """Write a table as a file of that kind; how many rows it has. `told` hears how many are written."""
    if form is Form.XLSX:
        file.write(workbook({table: sheet(extract, table, within)}))
        return extract.count(table, within)
    if form is Form.PARQUET:
        return _write_parquet(extract.rows(table, within), file, told)
    written = 0
    pieces = _json if form is Form.JSON else _lines
    for piece, rows in pieces(extract.rows(table, within), form):
        file.write(piece)
        written += rows
        told(written)
    return written


def sheet(extract: Extract, table: str, within: Range | None) -> pa.Table:
    """A table small enough for a workbook. Raises CalltallyError for a larger one."""
    count = extract.count(table, within)
    if count > SHEET_ROWS_MAX:
        raise CalltallyError(
            f"{table} has {count:,} rows; a workbook takes {SHEET_ROWS_MAX:,}. Use csv or parquet, or a "
            "narrower range.",
            code="too_many_rows",
        )
    return extract.rows(table, within).read_all()


def _write_parquet(reader: pa.RecordBatchReader, file: BinaryIO, told: Callable[[int], None]) -> int:
    written = 0
    with pyarrow.parquet.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            written += batch.num_rows
            told(written)
    return written


def _lines(reader: pa.RecordBatchReader, form: Form) -> Iterator[tuple[bytes, int]]:
    """CSV: the line of names once, then each batch without it."""
    yield to_bytes(reader.schema.empty_table(), form), 0
    for batch in reader:
        yield to_bytes(pa.Table.from_batches([batch]), form).split(b"\n", 1)[1], batch.num_rows


def _json(reader: pa.RecordBatchReader, form: Form) -> Iterator[tuple[bytes, int]]:
    """One array of objects, however many batches."""
    yield b"[", 0
    between = b""
    for batch in reader:
        if batch.num_rows:
            yield between + to_bytes(pa.Table.from_batches([batch]), form)[1:-1], batch.num_rows
            between = b",\n"
    yield b"]\n", 0
