"""One query, run to its end, its deadline or its cap: in a throw-away cursor and a read-only transaction."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import duckdb
import msgspec
import pyarrow as pa

from analytics import guard
from analytics.answer import Answer, distinct_names, narrowed
from analytics.database import opening_error
from analytics.watchdog import LOOK_S, Watchdog
from calls.errors import QueryError, StoreError, StoreUnavailable

Parameters: TypeAlias = Mapping[str, object]
"""By name; null, true, numbers, text, and lists of these."""

BATCH_ROWS: Final = 8_192
"""Rows taken from DuckDB at a time: what a query holds beyond its caps is one such batch."""
_WATCHDOG: Final = Watchdog()
_HELD: Final = (
    "SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory() "
    "WHERE tag IN ('HASH_TABLE', 'ORDER_BY', 'COLUMN_DATA', 'ALLOCATOR', 'WINDOW', 'OVERFLOW_STRINGS')"
)
_ENDS: Final = {
    "timeout": "The query took longer than {timeout} s and was stopped. Narrow it, for example to fewer days, or read "
    "a roll-up table.",
    "out_of_memory": "The query needs more memory than queries may have. Narrow it, or aggregate before joining and "
    "sorting.",
    "canceled": "The query was canceled.",
}
_INTEGER_MAX: Final = 10**38
_REMEMBERED: Final = 1_000
_REMEMBERED_LENGTH: Final = 10_000
_passed: dict[str, None] = {}
_PARAMETERS = re.compile(r"Values were not provided for the following parameters|identifiers of the excess parameters")
_PATHS = re.compile(r"""(["'])(?:/|[A-Za-z]:\\)[^"'\n]*\1""")
_KIND = re.compile(r"^(?:[A-Z][A-Za-z ]*|INTERRUPT) Error: ")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one query may use, and how many of them run."""

    timeout_s: float = 15.0
    """From its arrival to its last row; waiting for its turn counts."""
    max_rows: int = 1_000_000
    max_bytes: int = 256 << 20
    """Of an answer in memory; beyond it the answer is cut off, like beyond `max_rows`."""
    memory_bytes: int = 512 << 20
    """For what all running queries hold in between, so that the writer always has room; sorts and joins that need more
    go to disk first."""
    running: int = 2
    waiting: int = 32
    """Queries that wait for one of the running; further ones are told to come back."""
    stuck_s: float = 5.0
    """A query still running so long after its deadline ignores its interruption."""


class Query:
    """One query; `run` blocks, `cancel` ends it from any thread."""

    def __init__(
        self,
        connect: Callable[[], duckdb.DuckDBPyConnection],
        sql: str,
        parameters: Parameters,
        limits: Limits,
        *,
        deadline: float | None = None,
    ) -> None:
        self._connect = connect
        self._sql = sql
        self._parameters = dict(parameters)
        self._limits = limits
        self._deadline = time.monotonic() + limits.timeout_s if deadline is None else deadline
        self._begun = time.monotonic()
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._ended: str | None = None

    def run(self) -> Answer:
        """Raise QueryError (codes of `guard.check`, timeout, canceled, out_of_memory, query_failed, bad_parameters)."""
        check_parameters(self._parameters)
        with contextlib.closing(self._connect()) as cursor:
            self._cursor = cursor
            with _WATCHDOG.watching(self._look):
                try:
                    return self._answer(cursor)
                # What fails after the first rows comes through Arrow, as an error of its own or of the system.
                except (duckdb.Error, pa.ArrowException, OSError) as error:
                    raise self._failed(error) from error
                finally:
                    self._cursor = None

    def cancel(self) -> None:
        """End the query without an answer: nobody waits for it any more."""
        self._end_as("canceled")

    def end(self, code: str) -> QueryError:
        """The error for a query that was ended: timeout, out_of_memory, canceled."""
        return QueryError(_ENDS[code].format(timeout=f"{self._limits.timeout_s:g}"), code=code)

    def _answer(self, cursor: duckdb.DuckDBPyConnection) -> Answer:
        checked(self._sql, cursor)
        if self._ended is not None:
            raise self.end(self._ended)
        cursor.execute(f"SET operator_memory_limit = '{self._limits.memory_bytes // 2048}KiB'")
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        relation = cursor.sql(self._sql, params=self._parameters or None)
        if relation is None:
            raise QueryError("This statement returns no rows.", code="not_a_select")
        types = [str(kind) for kind in relation.types]
        with contextlib.closing(relation.to_arrow_reader(BATCH_ROWS)) as reader:
            table, truncated = self._collected(reader)
        return Answer(table=narrowed(distinct_names(table), types), truncated=truncated)

    def _collected(self, reader: pa.RecordBatchReader) -> tuple[pa.Table, bool]:
        batches: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in reader:
            if self._ended is not None:
                raise self.end(self._ended)
            rows += batch.num_rows
            size += batch.get_total_buffer_size()
            if rows > self._limits.max_rows:
                batches.append(batch.slice(0, batch.num_rows - (rows - self._limits.max_rows)))
                return pa.Table.from_batches(batches, reader.schema), True
            batches.append(batch)
            if size > self._limits.max_bytes:
                return pa.Table.from_batches(batches, reader.schema), True
        return pa.Table.from_batches(batches, reader.schema), False

    def _look(self) -> None:
        """An interruption that falls between two statements is lost, so it is repeated as long as the query lives."""
        now = time.monotonic()
        if now >= self._deadline:
            self._end_as("timeout")
        elif self._ended is None and now >= self._begun + LOOK_S and self._held() > self._limits.memory_bytes:
            self._end_as("out_of_memory")
        else:
            self._interrupt_if_ended()

    def _end_as(self, code: str) -> None:
        """The first reason counts."""
        if self._ended is None:
            self._ended = code
        self._interrupt_if_ended()

    def _interrupt_if_ended(self) -> None:
        cursor = self._cursor
        if self._ended is not None and cursor is not None:
            # One that was closed meanwhile has nothing left to interrupt.
            with contextlib.suppress(duckdb.Error):
                cursor.interrupt()

    def _held(self) -> int:
        """Bytes that queries hold, without the cached blocks of tables: no setting of DuckDB limits them all."""
        try:
            with contextlib.closing(self._connect()) as gauge:
                ((size,),) = gauge.execute(_HELD).fetchall()
                return int(size)
        except (duckdb.Error, StoreError):
            # The store is being opened anew, which ends the query as well.
            return 0

    def _failed(self, error: Exception) -> QueryError | StoreError:
        text = str(error)
        if self._ended is not None and "INTERRUPT" in text:
            return self.end(self._ended)
        if "Out of Memory" in text:
            return self.end("out_of_memory")
        if "INTERRUPT" in text or isinstance(error, duckdb.ConnectionException | duckdb.FatalException):
            return StoreUnavailable("The store was just opened anew. Ask again.")
        message = plain(text)
        if "Parameter/argument count mismatch" in message:
            given = ", ".join(f"${name}" for name in self._parameters)
            return QueryError(f"The query has no parameters, but {given} was given.", code="bad_parameters")
        return QueryError(message, code="bad_parameters" if _PARAMETERS.search(message) else "query_failed")


def check_parameters(parameters: Parameters) -> None:
    """Raise QueryError of code `bad_parameters` for a name or a value that cannot be bound."""
    for name, value in parameters.items():
        if not (name.isidentifier() and name.isascii()):
            raise QueryError(f"'{name}' is no name of a parameter: letters, digits and _.", code="bad_parameters")
        _check_value(name, value)


def checked(sql: str, cursor: duckdb.DuckDBPyConnection) -> None:
    """Raise what `guard.check` raises; the texts that passed last are remembered, since a dashboard repeats itself."""
    if sql in _passed:
        return
    guard.check(sql, guard.parser(cursor))
    if len(sql) <= _REMEMBERED_LENGTH:
        _passed[sql] = None
        while len(_passed) > _REMEMBERED:
            _passed.pop(next(iter(_passed)), None)


def open_read_only(path: Path) -> duckdb.DuckDBPyConnection:
    """The store's file, for a moment in which no worker runs. Raises StoreLocked, StoreDamaged, StoreMismatch."""
    try:
        connection = duckdb.connect(
            str(path),
            read_only=True,
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,
            },
        )
        connection.execute("SET allowed_configs = ['operator_memory_limit']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        raise opening_error(path, error) from error
    return connection


def plain(message: str) -> str:
    """DuckDB's message for the person who wrote the query: no kind of error, no paths of this machine."""
    text = _PATHS.sub(r"\1...\1", _KIND.sub("", message)).strip()
    return text.split("\n\nPossible solutions", 1)[0]


def _check_value(name: str, value: object, depth: int = 0) -> None:
    if depth > 8:
        raise QueryError(f"The parameter ${name} is nested too deeply.", code="bad_parameters")
    if isinstance(value, list | tuple):
        for item in value:
            _check_value(name, item, depth + 1)
    elif isinstance(value, dict):
        for item in value.values():
            _check_value(name, item, depth + 1)
    elif isinstance(value, int) and abs(value) >= _INTEGER_MAX:
        raise QueryError(f"The parameter ${name} is too large a number.", code="bad_parameters")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise QueryError(
            f"The parameter ${name} is a {type(value).__name__}; send text, a number, true, false, null or a list "
            "(times as text, cast in the query: CAST($start AS TIMESTAMP)).",
            code="bad_parameters",
        )
