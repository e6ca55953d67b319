"""Where a history's store lies: in files of its own, or in one that outlives it.

Opening a store's file costs as much as several batches. What a death leaves in the file, and that DuckDB reads it
again, is for those histories whose files really are copied and torn. The others are about what is in the process:
there, a death is the end of its transaction and of all that it remembers, and the file stays open.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final, Protocol

import duckdb
import pyarrow as pa

from analytics.store import Store
from calls.errors import StoreLocked
from calls.model import Rules
from tests.faults.histories.law import RULES

OTHER_RULES: Final = Rules(success_criterion="another")
HISTORIES_MAX: Final = 40
"""A file that was filled and emptied so often is left for a new one: what was deleted still costs a little."""
_LEFT_ALONE: Final = ("schema_columns", "schema_version")
_PARTS: Final = ("_root", "_writer", "_feeds", "_call_columns", "_replaced", "_moved")


class Ground(Protocol):
    """Where one store lies."""

    path: Path

    def open(self) -> Store:
        """The store as a new process finds it."""
        ...

    def close(self, store: Store) -> None:
        """The process that has it ends in order."""
        ...

    def die(self, store: Store, dice: Random, given: Counter[str]) -> None:
        """The process that has it ends at once."""
        ...

    def lose(self, *, to_others: bool) -> None:
        """Nobody has it: it is gone, or in its place is one `to_others`, made by other rules."""
        ...

    def copy(self) -> None:
        """Nobody has it: keep it as it is."""
        ...

    def put_back(self) -> bool:
        """Nobody has it: it is again what was kept; whether something was."""
        ...


class Files:
    """A store in files of its own, opened and closed as the product does."""

    def __init__(self, folder: Path, template: Path) -> None:
        """`template` is a closed, empty store: making the tables takes longer than all the rest."""
        self.path = folder / "store.duckdb"
        self._old = folder / "old.duckdb"
        shutil.copy(template, self.path)

    def open(self) -> Store:
        return Store.open(self.path, rules=RULES)

    def close(self, store: Store) -> None:
        store.close()

    def die(self, store: Store, dice: Random, given: Counter[str]) -> None:
        """What a killed process leaves: the files as they are now, perhaps with the log's last write torn."""
        files = [file for file in (self.path, wal(self.path)) if file.exists()]
        left = [Path(shutil.copy(file, f"{file}.left")) for file in files]
        store.close()
        self._remove()
        for copy, file in zip(left, files, strict=True):
            copy.rename(file)
        log = wal(self.path)
        if log.exists() and dice.random() < 0.5:
            os.truncate(log, max(0, log.stat().st_size - dice.randint(1, 3000)))
            given["logs torn"] += 1

    def lose(self, *, to_others: bool) -> None:
        self._remove()
        if to_others:
            Store.open(self.path, rules=OTHER_RULES).close()

    def copy(self) -> None:
        if self.path.exists():
            shutil.copy(self.path, self._old)

    def put_back(self) -> bool:
        if self._old.exists():
            self._remove()
            shutil.copy(self._old, self.path)
        return self._old.exists()

    def _remove(self) -> None:
        for file in (self.path, wal(self.path)):
            file.unlink(missing_ok=True)


class Kept:
    """A store whose file stays open from history to history, and is empty at the beginning of each."""

    def __init__(self, path: Path, template: Path) -> None:
        self.path = path
        self._template = template
        self._store: _Remembering | None = None
        self._histories = 0
        self._old: dict[str, pa.Table] | None = None

    def begin(self) -> None:
        """Empty it."""
        self._old = None
        self._histories += 1
        if self._store is None or self._histories % HISTORIES_MAX == 0:
            self.end()
            shutil.copy(self._template, self.path)
            self._store = _Remembering(self.path, RULES, None)
        else:
            self._fill({})

    def end(self) -> None:
        """Let go of the file."""
        if self._store is not None:
            self._store.end()
            self._store = None
        for file in (self.path, wal(self.path)):
            file.unlink(missing_ok=True)

    def open(self) -> Store:
        self._store = _Remembering(self.path, RULES, self._store)
        return self._store

    def close(self, store: Store) -> None:
        store.close()

    def die(self, store: Store, dice: Random, given: Counter[str]) -> None:
        store.close()

    def lose(self, *, to_others: bool) -> None:
        self._fill({})

    def copy(self) -> None:
        with self._cursor() as cursor:
            self._old = {name: cursor.sql(f"FROM kept.{name}").to_arrow_table() for name in _tables(cursor)}

    def put_back(self) -> bool:
        if self._old is not None:
            self._fill(self._old)
        return self._old is not None

    def _fill(self, tables: dict[str, pa.Table]) -> None:
        with self._cursor() as cursor:
            cursor.execute("BEGIN")
            for name in _tables(cursor):
                cursor.execute(f"DELETE FROM kept.{name}")
                rows = tables.get(name)
                if rows is not None and rows.num_rows:
                    cursor.register("given", rows)
                    cursor.execute(f"INSERT INTO kept.{name} FROM given")
            cursor.execute("COMMIT")

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        assert self._store is not None
        self._store.roll_back()
        return self._store.cursor()


class _Remembering(Store):
    """A store of a process that finds the file open already: it goes on with the connections of the one before."""

    def __init__(self, path: Path, rules: Rules, before: _Remembering | None) -> None:
        self._before = before
        self._is_open = False
        super().__init__(path, rules)

    def roll_back(self) -> None:
        """The end of a process is that of its transaction."""
        with contextlib.suppress(duckdb.TransactionException):
            self._held.execute("ROLLBACK")

    def end(self) -> None:
        """Let go of the file."""
        self.roll_back()
        self._writer = self._held
        super()._stop()

    def _start(self) -> None:
        before = self if self._is_open else self._before
        if before is None:
            super()._start()
            self._held = self._writer
        else:
            for part in _PARTS:
                setattr(self, part, getattr(before, part))
            self._held = self._writer = before._held
            self.roll_back()
            self._load()
        self._before, self._is_open = None, True

    def _stop(self) -> None:
        with self._swap:
            for cursor in list(self._cursors):
                cursor.close()
        self.roll_back()


def wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def require_locked(ground: Ground) -> None:
    """A second writer is not let in."""
    try:
        Store.open(ground.path, rules=RULES).close()
    except StoreLocked:
        return
    raise AssertionError("a second writer was let in")


def _tables(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    rows = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'kept'").fetchall()
    return [name for (name,) in rows if name not in _LEFT_ALONE]
