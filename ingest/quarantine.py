"""What failed verification, kept within bounds, so that a wrong secret does not mean lost calls.

A SQLite file beside the journal. Ingest writes it, in a thread of its own; the command line reads it and leaves
requests for a retry in it, which ingest takes up. Each source may fill its share and no more, at a bounded rate; when
its share is full, what is already held stays, since newer junk must not push out older genuine deliveries.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import structlog

from calls.model import Micros
from calls.signing import Headers

ROWS_PER_SOURCE = 20_000
BYTES_PER_SOURCE = 256 << 20
ROWS_PER_S = 20
ROWS_AT_ONCE = 1_000
BYTES_PER_S = 2 << 20
BYTES_AT_ONCE = 64 << 20
KEPT_DAYS = 30
FORGET_EVERY_S = 3600.0
BUSY_MS = 2_000
NEVER_KEPT = frozenset({b"authorization", b"cookie", b"proxy-authorization"})

log = structlog.get_logger("ingest")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS held (
    row INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL, provider TEXT NOT NULL, reason TEXT NOT NULL,
    detail TEXT, headers BLOB NOT NULL, body BLOB NOT NULL, received_at INTEGER NOT NULL, count INTEGER NOT NULL,
    UNIQUE (source, id)
);
CREATE TABLE IF NOT EXISTS retries (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT, requested_at INTEGER NOT NULL,
    accepted INTEGER, refused INTEGER, finished_at INTEGER
);
"""

_SHARES = "SELECT source, count(*), sum(length(body)) FROM held GROUP BY source"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that failed verification."""

    row: int = 0
    """Its place in the order of arrival; 0 before it is stored."""
    source: str
    id: str
    provider: str
    reason: str
    detail: str | None
    headers: list[tuple[bytes, bytes]]
    """As they arrived, without those that carry other credentials."""
    body: bytes
    received_at: Micros
    count: int = 1
    """How often the same body came."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to verify again what is held, of one source or of all."""

    ticket: int
    source: str | None
    accepted: int | None = None
    """None while it has not been done."""
    refused: int | None = None


class Quarantine:
    """Ingest's side: takes what was refused; never blocks and never fails the request it is called for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._shares: dict[str, _Share] = {}
        self._failure: str | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(_connect(path, create=True)) as connection:
                self._prepare(connection)
        except sqlite3.Error as error:
            # Deliveries that verify must be accepted all the same.
            self._failed(error)
        self._writer = threading.Thread(target=self._run, name="quarantine", daemon=True)
        self._writer.start()

    def offer(self, held: Held) -> bool:
        """Keep it if its source's share allows; called from one thread only."""
        share = self._shares.setdefault(held.source, _Share())
        if not share.take(len(held.body), time.monotonic()):
            return False
        self._orders.put(lambda connection: _insert(connection, held, share))
        return True

    def remove(self, found: Iterable[Held]) -> None:
        """Forget what has become a delivery."""
        gone = list(found)
        for held in gone:
            share = self._shares.setdefault(held.source, _Share())
            share.give_back(len(held.body))
        self._orders.put(lambda connection: _delete(connection, gone))

    def finish(self, retry: Retry) -> None:
        """Record what came of a retry."""
        self._orders.put(lambda connection: _finish(connection, retry))

    def held_after(self, row: int, source: str | None, limit: int) -> list[Held]:
        """The next ones in order of arrival; blocks on the disk."""
        try:
            with closing(_connect(self._path)) as connection:
                return list(_read(connection, source, after=row, limit=limit))
        except sqlite3.Error as error:
            self._failed(error)
            return []

    def requested(self) -> list[Retry]:
        """Retries that wait; blocks on the disk."""
        try:
            with closing(_connect(self._path)) as connection:
                return _retries(connection, "finished_at IS NULL")
        except sqlite3.Error as error:
            self._failed(error)
            return []

    def close(self) -> None:
        """Write what was taken, and end."""
        self._orders.put(None)
        self._writer.join()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._path.chmod(0o600)
        connection.executescript(_SCHEMA)
        _drop_old(connection)
        for source, rows, size in connection.execute(_SHARES):
            self._shares[source] = _Share(rows, size)

    def _run(self) -> None:
        ended, forgotten_at = False, time.monotonic()
        while not ended:
            orders = self._next_orders()
            ended = None in orders
            if time.monotonic() - forgotten_at > FORGET_EVERY_S:
                orders.append(self._forget_old)
                forgotten_at = time.monotonic()
            self._carry_out([order for order in orders if order is not None])

    def _next_orders(self) -> list[_Order | None]:
        """All that wait, once there are any; none after a while without."""
        try:
            orders = [self._orders.get(timeout=FORGET_EVERY_S)]
        except queue.Empty:
            return []
        while not self._orders.empty():
            orders.append(self._orders.get())
        return orders

    def _forget_old(self, connection: sqlite3.Connection) -> None:
        for source, size in _drop_old(connection):
            self._shares.setdefault(source, _Share()).give_back(size)

    def _carry_out(self, orders: list[_Order]) -> None:
        if not orders:
            return
        try:
            with closing(_connect(self._path, create=True)) as connection:
                connection.executescript(_SCHEMA)
                connection.execute("BEGIN IMMEDIATE")
                for order in orders:
                    order(connection)
                connection.execute("COMMIT")
            self._failure = None
        except sqlite3.Error as error:
            self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        if self._failure != str(error):
            self._failure = str(error)
            log.error("quarantine_unavailable", detail=f"{self._path} cannot be used ({error}). Check disk and rights.")


def held_in(path: Path, source: str | None = None) -> Iterator[Held]:
    """What another process's quarantine holds, in order of arrival; nothing where there is no file."""
    if path.exists():
        with closing(_connect(path)) as connection:
            yield from _read(connection, source)


def counts_in(path: Path) -> dict[str, tuple[int, int]]:
    """Rows and bytes that another process's quarantine holds, by source."""
    if not path.exists():
        return {}
    with closing(_connect(path)) as connection:
        return {source: (rows, size) for source, rows, size in connection.execute(_SHARES)}


def request_retry(path: Path, source: str | None = None) -> Retry:
    """Ask ingest to verify again what is held; it takes that up within seconds, or when it next starts."""
    with closing(_connect(path, create=True)) as connection:
        connection.executescript(_SCHEMA)
        ticket = connection.execute(
            "INSERT INTO retries (source, requested_at) VALUES (?, ?)", (source, time.time_ns() // 1000)
        ).lastrowid
        return Retry(ticket=ticket or 0, source=source)


def retry_in(path: Path, ticket: int) -> Retry | None:
    """How a retry stands; None where it is unknown."""
    with closing(_connect(path)) as connection:
        found = _retries(connection, "ticket = ?", (ticket,))
        return found[0] if found else None


def kept(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that are held: all but those that carry other credentials."""
    return [(name, value) for name, value in headers if name not in NEVER_KEPT]


_Order = Callable[[sqlite3.Connection], None]


class _Share:
    """What one source may still put into the quarantine: a level, and a rate at which it may rise."""

    __slots__ = ("_at", "_bytes_now", "_lock", "_rows_now", "bytes", "rows")

    def __init__(self, rows: int = 0, size: int = 0) -> None:
        self.rows = rows
        self.bytes = size
        self._rows_now: float = ROWS_AT_ONCE
        self._bytes_now: float = BYTES_AT_ONCE
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, size: int, now: float) -> bool:
        with self._lock:
            return self._take(size, now)

    def give_back(self, size: int) -> None:
        with self._lock:
            self.rows -= 1
            self.bytes -= size

    def _take(self, size: int, now: float) -> bool:
        passed = now - self._at
        self._at = now
        self._rows_now = min(ROWS_AT_ONCE, self._rows_now + passed * ROWS_PER_S)
        self._bytes_now = min(BYTES_AT_ONCE, self._bytes_now + passed * BYTES_PER_S)
        if self._rows_now < 1 or self._bytes_now < size:
            return False
        if self.rows >= ROWS_PER_SOURCE or self.bytes + size > BYTES_PER_SOURCE:
            return False
        self._rows_now -= 1
        self._bytes_now -= size
        self.rows += 1
        self.bytes += size
        return True


def _connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    mode = "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_MS / 1000
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _insert(connection: sqlite3.Connection, held: Held, share: _Share) -> None:
    inserted = connection.execute(
        "INSERT INTO held (source, id, provider, reason, detail, headers, body, received_at, count) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING",
        (
            held.source,
            held.id,
            held.provider,
            held.reason,
            held.detail,
            msgspec.msgpack.encode(held.headers),
            held.body,
            held.received_at,
        ),
    )
    if not inserted.rowcount:
        connection.execute("UPDATE held SET count = count + 1 WHERE source = ? AND id = ?", (held.source, held.id))
        share.give_back(len(held.body))


def _drop_old(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """Source and size of the body of each that is dropped."""
    oldest = time.time_ns() // 1000 - KEPT_DAYS * 86_400 * 1_000_000
    dropped = "DELETE FROM held WHERE received_at < ? RETURNING source, length(body)"
    return connection.execute(dropped, (oldest,)).fetchall()


def _delete(connection: sqlite3.Connection, gone: list[Held]) -> None:
    connection.executemany("DELETE FROM held WHERE row = ?", [(held.row,) for held in gone])


def _finish(connection: sqlite3.Connection, retry: Retry) -> None:
    connection.execute(
        "UPDATE retries SET accepted = ?, refused = ?, finished_at = ? WHERE ticket = ?",
        (retry.accepted, retry.refused, time.time_ns() // 1000, retry.ticket),
    )


def _read(connection: sqlite3.Connection, source: str | None, *, after: int = 0, limit: int = -1) -> Iterator[Held]:
    rows = connection.execute(
        "SELECT row, source, id, provider, reason, detail, headers, body, received_at, count FROM held "
        "WHERE row > :after AND (:source IS NULL OR source = :source) ORDER BY row LIMIT :limit",
        {"source": source, "after": after, "limit": limit},
    )
    for row, name, identity, provider, reason, detail, headers, body, received_at, count in rows:
        yield Held(
            row=row,
            source=name,
            id=identity,
            provider=provider,
            reason=reason,
            detail=detail,
            headers=msgspec.msgpack.decode(headers, type=list[tuple[bytes, bytes]]),
            body=body,
            received_at=received_at,
            count=count,
        )


def _retries(connection: sqlite3.Connection, where: str, values: tuple[int, ...] = ()) -> list[Retry]:
    rows = connection.execute(f"SELECT ticket, source, accepted, refused FROM retries WHERE {where}", values)
    return [Retry(ticket=row[0], source=row[1], accepted=row[2], refused=row[3]) for row in rows]
