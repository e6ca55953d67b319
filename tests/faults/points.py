"""Named points in the code at which a process dies: wrapped from outside, so that the product knows of no test.

A point is a function (`module:owner.name`) or a statement that a database is given, before or after it. The process
kills itself with SIGKILL at the nth time it comes by, so nothing is flushed, closed or told.
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Point:
    """One place to die."""

    process: str
    """Which process comes by here, as `Actor.title` has it."""
    place: str
    """`module:owner.name`, or `sqlite FILE: STATEMENT` or `duckdb: STATEMENT` by the statement's beginning."""
    after: bool = False

    @property
    def name(self) -> str:
        return f"{'after' if self.after else 'before'} {self.place}"


def _both(process: str, *places: str) -> list[Point]:
    return [Point(process, place, after) for place in places for after in (False, True)]


_APPLYING: Final = (
    "streams.apply:Applier.apply",
    "duckdb: BEGIN",
    "duckdb: EXECUTE drop_replaced",
    "duckdb: EXECUTE put_deliveries",
    "duckdb: EXECUTE put_calls",
    "duckdb: EXECUTE put_rollup_changes",
    "duckdb: UPDATE kept.positions",
    "duckdb: INSERT INTO kept.positions",
    "duckdb: COMMIT",
    "duckdb: CHECKPOINT",
    "analytics.store:Store._settle",
    "analytics.store:Store._remember",
    "analytics.store:Store._load",
    "analytics.store:Store._prepare",
)
"""Both kinds of worker come by here."""
POINTS: Final = [
    *_both(
        "ingest",
        "ingest.acceptance:Acceptance._hand_over",
        "calls.journal:Journal._write",
        "sqlite journal.sqlite: BEGIN IMMEDIATE",
        "sqlite journal.sqlite: INSERT INTO rows",
        "sqlite journal.sqlite: INSERT INTO commits",
        "sqlite journal.sqlite: COMMIT",
        "sqlite journal.sqlite: PRAGMA wal_checkpoint",
        "sqlite quarantine.sqlite: COMMIT",
        "calls.journal:Journal._report",
        "calls.nudge:NudgeSender.send",
        "ingest.acceptance:Acceptance._settle",
        "ingest.notices:Notices.flush",
        "calls.journal:Journal._adopt",
        "calls.journal:Journal.recent_ids",
    ),
    *_both("worker", "calls.journal_reader:JournalReader.read", *_APPLYING, "streams.worker:WorkerState.committed"),
    *_both(
        "relay",
        "ingest.topics:prepare",
        "ingest.publication:Publication._begin",
        "ingest.publication:Publication._send",
        "kafka.producer.kafka:KafkaProducer.send",
        "kafka.producer.kafka:KafkaProducer.flush",
        "ingest.publication:Publication._take_acknowledgements",
        "ingest.relay_state:RelayState.acknowledged",
        "calls.journal_cursor:JournalCursor.save",
        "sqlite journal.sqlite: INSERT OR REPLACE INTO cursors",
        "ingest.relay_state:write",
    ),
    *_both(
        "worker --kafka",
        *_APPLYING,
        "streams.flow:Flow.assigned",
        "streams.flow:Flow.take",
        "streams.partition:Partition.read",
        "streams.flow:Flow._apply",
        "streams.flow:Flow._commit",
        "streams.flow:Flow._tidy",
        "streams.publishing:Publishing.committed",
        "streams.publishing:Publishing.again",
        "streams.publishing:Publishing.positions",
        "streams.announce:Announcer.records",
        "streams.fetches:_send_in_order",
    ),
]
"""`duckdb` and `sqlite` points work in any process."""


def arm(point: Point, nth: int) -> None:
    """Make this process die at the nth time it comes by the point."""
    hit = _Countdown(nth)
    if point.place.startswith("sqlite "):
        file, _, statement = point.place.removeprefix("sqlite ").partition(": ")
        watch_sqlite(file, lambda text, after: hit() if after is point.after and _begins(text, statement) else None)
    elif point.place.startswith("duckdb: "):
        statement = point.place.removeprefix("duckdb: ")
        watch_duckdb(lambda text, after: hit() if after is point.after and _begins(text, statement) else None)
    else:
        _wrap(point.place, hit, point.after)


class _Countdown:
    def __init__(self, nth: int) -> None:
        self._left = nth

    def __call__(self) -> None:
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _begins(text: str, statement: str) -> bool:
    return text.lstrip().startswith(statement)


def owner_of(place: str) -> tuple[Any, str]:
    """The object and the attribute's name that a `module:owner.name` means."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    return owner, name


def _wrap(place: str, hit: Callable[[], None], after: bool) -> None:
    owner, name = owner_of(place)
    original = getattr(owner, name)

    async def wrapped_coroutine(*arguments: Any, **named: Any) -> Any:
        if not after:
            hit()
        result = await original(*arguments, **named)
        if after:
            hit()
        return result

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if not after:
            hit()
        result = original(*arguments, **named)
        if after:
            hit()
        return result

    put(owner, name, wrapped_coroutine if inspect.iscoroutinefunction(original) else wrapped)


def put(owner: Any, name: str, value: object) -> None:
    """Put something else in the place of what a module or class has under that name."""
    setattr(owner, name, value)


def watch_sqlite(file: str, told: Callable[[str, bool], None]) -> None:
    """Call `told` with each statement given to a SQLite file of that name: False before it, True after it."""
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        def execute(self, text: str, *arguments: Any) -> sqlite3.Cursor:
            told(text, False)
            result = super().execute(text, *arguments)
            told(text, True)
            return result

        def executemany(self, text: str, *arguments: Any) -> sqlite3.Cursor:
            told(text, False)
            result = super().executemany(text, *arguments)
            told(text, True)
            return result

    def watched_connect(database: Any, *arguments: Any, **named: Any) -> sqlite3.Connection:
        if f"/{file}" in str(database):
            named["factory"] = Watched
        connection: sqlite3.Connection = connect(database, *arguments, **named)
        return connection

    put(sqlite3, "connect", watched_connect)


def watch_duckdb(told: Callable[[str, bool], None]) -> None:
    """Call `told` with each statement by which the store is written: False before it, True after it."""
    from analytics.store import Store

    start = Store._start

    def watched_start(store: Store) -> None:
        start(store)
        put(store, "_writer", _WatchedWriter(store._writer, told))

    put(Store, "_start", watched_start)


class _WatchedWriter:
    def __init__(self, connection: Any, told: Callable[[str, bool], None]) -> None:
        self._connection = connection
        self._told = told

    def execute(self, text: str, *arguments: Any) -> Any:
        self._told(text, False)
        result = self._connection.execute(text, *arguments)
        self._told(text, True)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
