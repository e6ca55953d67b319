"""The store: all calls, events, roll-ups and positions in one DuckDB file, changed by one transaction a batch.

The files beside this one (`schema.sql`, `rollups.sql`, `columns.py`, `database.py`, `seen.py`) are its inside; nobody
else knows how rows are kept. What people query are the views of `views.sql`.

The store is a view of the journal and can be made again from it at any time, so a damaged one is never mended. An
error at commit leaves open whether the rows are in; only reopening and reading the position tells.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from analytics import columns, database
from analytics.batch import Batch, CallChange, DeliveryRow, Place, Position, StoredCall, StoredEvent
from analytics.seen import Located, Seen, Standing
from analytics.snapshot import write_snapshot
from analytics.verify import findings
from calls.errors import StoreDamaged, StoreError, StoreUnavailable
from calls.model import Call, CallKey, Micros, Rules, StreamPoint, Verdict

__all__ = ["Batch", "CallChange", "DeliveryRow", "Place", "Position", "Store", "StoredCall", "StoredEvent"]

CURSOR_END_S: Final = 10.0
SWAP_S: Final = 1.0
"""So long a reader waits for a store that is being closed or opened, which may take as long as its log is to read."""
CHECKPOINT_WAL_BYTES: Final = 4 << 20
"""At an idle moment, a write-ahead log longer than this is worth a checkpoint."""
SETTLE_ROWS: Final = 20_000
"""Pending changes of roll-ups beyond this are brought in at once: every reader adds up what is pending."""

_SETTLE: Final = tuple(text for name, text in database.statements("rollups.sql").items() if name.startswith("settle"))
_REOPENING: Final = "The store is being opened anew. Ask again in a second."
_REPLACED: Final = pa.schema(
    [
        ("call_hash", pa.int64()),
        ("provider", pa.string()),
        ("org", pa.string()),
        ("call_id", pa.string()),
        ("first_received_at", pa.timestamp("us")),
    ]
)
_DROP_REPLACED: Final = """
    DELETE FROM kept.calls AS kept_row USING feed_replaced AS given
    WHERE kept_row.first_received_at = given.first_received_at AND kept_row.call_hash = given.call_hash
        AND kept_row.provider = given.provider AND kept_row.org = given.org AND kept_row.call_id = given.call_id"""

_GIVE_WAY: Final = (
    *(
        f"DELETE FROM kept.{table} WHERE event_id IN (SELECT unnest($ids))"
        for table in ("events", "loose_appointments", "loose_leads")
    ),
    """DELETE FROM kept.dead_letters AS letter USING kept.deliveries AS given
    WHERE letter.journal_id = given.journal_id AND letter.position = given.position
        AND given.id IN (SELECT unnest($ids))""",
    f"""UPDATE kept.deliveries SET verdict = '{Verdict.REPEATED}'
    WHERE verdict = '{Verdict.ACCEPTED}' AND id IN (SELECT unnest($ids))""",
)
_IS_REPEAT: Final = f"verdict = '{Verdict.REPEATED}' AND trust IS NOT NULL"
"""What the door found to be a repeat, and did not journal again, bears no trust."""
_PUT_POSITION: Final = "INSERT INTO kept.positions VALUES ($stream, $stream_id, $position, make_timestamp($at))"
_ADVANCE_POSITION: Final = """
    UPDATE kept.positions SET position = greatest(position, $position), updated_at = make_timestamp($at)
    WHERE stream = $stream AND stream_id = $stream_id"""
_MOVED: Final = pa.schema(
    [("stream", pa.string()), ("stream_id", pa.string()), ("position", pa.int64()), ("updated_at", pa.timestamp("us"))]
)
_ADVANCE_POSITIONS: Final = """
    UPDATE kept.positions AS kept_row
    SET position = greatest(kept_row.position, given.position), updated_at = given.updated_at
    FROM feed_moved AS given WHERE kept_row.stream = given.stream AND kept_row.stream_id = given.stream_id"""
SINGLY_MAX: Final = 2
"""So many positions are moved by a statement each; more by one, which costs as much as two or three of those."""


class Store:
    """One process's exclusive hold of the store. One thread applies; any thread may take cursors, verify, snapshot."""

    def __init__(self, path: Path, rules: Rules) -> None:
        self.path = path
        self._rules = rules
        self._swap = threading.Lock()
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._feeds: dict[str, columns.Feed] = {}
        self._positions: dict[tuple[str, str], int] = {}
        self._pending = 0
        self._in_doubt = False
        self._start()

    @classmethod
    def open(cls, path: Path, *, rules: Rules) -> Store:
        """Open, migrate or create. Raises StoreLocked, StoreDamaged, StoreUnavailable, StoreMismatch (rebuild)."""
        return cls(path, rules)

    def positions(self) -> dict[tuple[str, str], int]:
        """How far each (stream, stream id) is applied."""
        return dict(self._positions)

    def known(self, delivery_ids: Sequence[str]) -> dict[str, StreamPoint]:
        """Those of the deliveries that are applied, and where each stands lowest; new ids cost no look-up."""
        wanted = {columns.delivery_hash(delivery_id): delivery_id for delivery_id in delivery_ids}
        maybe = self._deliveries.maybe(wanted)
        found: dict[str, StreamPoint] = {}
        elsewhere: list[int] = []
        for key in maybe:
            recent = self._standing.get(wanted[key])
            if recent is None:
                elsewhere.append(key)
            else:
                found[wanted[key]] = recent
        if not elsewhere:
            return found
        rows = self._read(
            "SELECT id, received_at, journal_id, position FROM kept.deliveries "
            f"WHERE id_hash IN ({_listed(elsewhere)}) AND verdict = '{Verdict.ACCEPTED}' AND id IS NOT NULL"
        )
        asked = set(delivery_ids)
        for row in columns.with_micros(rows).to_pylist():
            point = StreamPoint(row["received_at"], row["journal_id"], row["position"])
            if row["id"] in asked:
                found[row["id"]] = min(point, found.get(row["id"], point))
        return found

    def places(self, places: Collection[Place]) -> set[Place]:
        """Those of the places that have a row of `deliveries`; what lies beyond all of its journal costs no look-up."""
        asked = {place for place in places if place.position <= self._furthest.get(place.journal_id, -1)}
        if not asked:
            return asked
        numbers = [place.position for place in asked]
        rows = self._read(
            "SELECT journal_id, position FROM kept.deliveries "
            f"WHERE position BETWEEN {min(numbers)} AND {max(numbers)} AND position IN (SELECT unnest($positions))",
            {"positions": numbers},
        )
        found = map(Place, rows.column("journal_id").to_pylist(), rows.column("position").to_pylist())
        return asked.intersection(found)

    def copies(self, delivery_ids: Collection[str]) -> dict[str, list[StreamPoint]]:
        """Where those of the deliveries stand once more that came more than once; what came once costs no look-up."""
        maybe = self._repeated.maybe(map(columns.delivery_hash, delivery_ids))
        found: dict[str, list[StreamPoint]] = defaultdict(list)
        if maybe:
            rows = self._read(
                "SELECT id, received_at, journal_id, position FROM kept.deliveries "
                f"WHERE id_hash IN ({_listed(maybe)}) AND {_IS_REPEAT}"
            )
            for row in columns.with_micros(rows).to_pylist():
                found[row["id"]].append(StreamPoint(row["received_at"], row["journal_id"], row["position"]))
        return found

    def not_understood(self, places: Collection[Place]) -> dict[Place, str]:
        """Those of the places that stand as dead letters, each with its reason; the others hardly cost a look-up."""
        numbers = self._dead.maybe(place.position for place in places)
        if not numbers:
            return {}
        rows = self._read(
            "SELECT journal_id, position, reason FROM kept.dead_letters WHERE position IN (SELECT unnest($positions))",
            {"positions": numbers},
        )
        found = {Place(row["journal_id"], row["position"]): row["reason"] for row in rows.to_pylist()}
        return {place: found[place] for place in places if place in found}

    def received_at(self, place: Place) -> Micros | None:
        """When the record that was applied from there came; None where none was, or nothing is known of it."""
        rows = self._read(
            "SELECT received_at FROM kept.deliveries WHERE position = $position AND journal_id = $journal_id "
            "AND source <> ''",
            {"position": place.position, "journal_id": place.journal_id},
        )
        times = columns.with_micros(rows).column("received_at").to_pylist()
        return int(times[0]) if times else None

    def stored_calls(self, keys: Sequence[CallKey]) -> dict[CallKey, StoredCall]:
        """Those of the calls that are there, with their events; new keys cost no look-up."""
        asked = set(keys)
        maybe = self._calls.maybe(columns.call_hash(key) for key in asked)
        located = [(key, at) for key in maybe if (at := self._located.get(key)) is not None]
        elsewhere = [key for key in maybe if self._located.get(key) is None]
        calls: list[Call] = []
        if located:
            times = [at for _, at in located]
            calls += self._calls_of([key for key, _ in located], (min(times), max(times)))
        if elsewhere:
            calls += self._calls_of(elsewhere, None)
        found = {key: call for call in calls if (key := _key(call)) in asked}
        for key, call in found.items():
            self._located.put(columns.call_hash(key), call["first_received_at"])
        events = self._events_of(found)
        return {key: StoredCall(call=call, events=events[key]) for key, call in found.items()}

    def apply(self, batch: Batch) -> None:
        """Add and change all rows of a batch, its positions and the roll-ups, in one transaction.

        Raises StoreUnavailable or StoreDamaged (whether the batch is in is then unknown until `reopen` and
        `positions`), or StoreError of code `store_refused` (a value that no column can hold; nothing was changed).
        """
        try:
            rows = columns.added(batch, self._call_columns)
            counts = {table: self._feeds[table].fill(filled) for table, filled in rows.items()}
            before = [change.before for change in batch.changes if change.before is not None]
            self._replaced.fill(columns.replaced(before))
        except (pa.ArrowException, UnicodeError, OverflowError) as error:
            raise StoreError(f"A value cannot be kept: {error}.", code="store_refused") from error
        if self._in_doubt:
            raise StoreUnavailable("The store failed in an earlier batch and has to be reopened.")
        pending = self._pending + counts.get("rollup_changes", 0)
        self._in_doubt = True
        try:
            self._write(batch, counts, len(before), settle=pending > SETTLE_ROWS)
        except (duckdb.DataError, duckdb.IntegrityError) as error:
            self._roll_back()
            raise StoreError(f"A value cannot be kept: {database.first_line(error)}.", code="store_refused") from error
        except duckdb.Error as error:
            raise self._failed("could not take a batch and has to be reopened", error) from error
        finally:
            for table in counts:
                self._feeds[table].clear()
        self._in_doubt = False
        self._pending = 0 if pending > SETTLE_ROWS else pending
        self._remember(batch)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A throw-away cursor for reading; `reopen` and `close` end it. Raises StoreUnavailable in between."""
        if not self._swap.acquire(timeout=SWAP_S):
            raise StoreUnavailable(_REOPENING)
        try:
            cursor = database.cursor_of(self._root)
            self._cursors.add(cursor)
            return cursor
        except duckdb.Error as error:
            # Closed, and not open again yet; or a database that DuckDB gave up after an error of the disk.
            raise StoreUnavailable(_REOPENING) from error
        finally:
            self._swap.release()

    def verify(self) -> list[str]:
        """What is wrong, a sentence each: roll-ups, counts and positions against the rows; works while rows arrive."""
        try:
            with contextlib.closing(self.cursor()) as cursor:
                return findings(cursor)
        except duckdb.Error as error:
            raise self._failed("could not be verified", error) from error

    def snapshot(self, path: Path) -> None:
        """Write the public tables as one consistent, ordinary DuckDB file, replacing `path` only when it is whole."""
        try:
            with contextlib.closing(self.cursor()) as cursor:
                write_snapshot(cursor, path, database.export_folder(self.path))
        except duckdb.Error as error:
            raise self._failed("could not be copied", error) from error

    def checkpoint_if_due(self) -> None:
        """For idle moments: bring pending changes into the roll-ups and shorten a long write-ahead log."""
        try:
            if self._pending:
                self._settle()
            if self._wal_bytes() >= CHECKPOINT_WAL_BYTES:
                # A reader in the midst of a long query is no reason to wait: the next idle moment comes.
                with contextlib.suppress(duckdb.TransactionException):
                    self._writer.execute("CHECKPOINT")
        except duckdb.Error as error:
            self._in_doubt = True
            raise self._failed("could not be checkpointed and has to be reopened", error) from error

    def reopen(self) -> None:
        """Close and open again after an error, ending all cursors. Raises what `open` raises."""
        self._stop()
        self._start()

    def close(self) -> None:
        """End all cursors, write everything into the one file and let go of it."""
        self._stop()

    def _start(self) -> None:
        with self._swap:
            # Cursors are made from a connection that runs nothing, so that any thread may ask for one at any time.
            self._root = database.connect(self.path, self._rules)
            try:
                self._writer = database.cursor_of(self._root)
                self._prepare()
                self._load()
            except BaseException as error:
                # Whatever it was: a file that stays open can be neither opened again nor set aside.
                self._root.close()
                if isinstance(error, duckdb.Error):
                    raise database.opening_error(self.path, error) from error
                raise

    def _prepare(self) -> None:
        for table in columns.BATCHED:
            feed = self._feeds[table] = columns.Feed(self._read(f"FROM kept.{table} LIMIT 0").schema)
            self._writer.register(f"feed_{table}", feed)
            self._writer.execute(f"PREPARE put_{table} AS INSERT INTO kept.{table} SELECT * FROM feed_{table}")
        self._call_columns = self._feeds["calls"].schema.names
        self._replaced = columns.Feed(_REPLACED)
        self._writer.register("feed_replaced", self._replaced)
        self._writer.execute(f"PREPARE drop_replaced AS {_DROP_REPLACED}")
        self._moved = columns.Feed(_MOVED)
        self._writer.register("feed_moved", self._moved)
        self._writer.execute(f"PREPARE advance_positions AS {_ADVANCE_POSITIONS}")

    def _load(self) -> None:
        """Fill memory from the tables: positions, filters of what was ever seen."""
        positions = self._writer.execute("SELECT stream, stream_id, position FROM kept.positions").fetchall()
        self._positions = {(stream, stream_id): position for stream, stream_id, position in positions}
        self._pending = self._count("kept.rollup_changes")
        self._in_doubt = False
        self._located, self._standing = Located(), Standing()
        self._calls = self._seen("kept.calls", "call_hash")
        self._deliveries = self._seen("kept.deliveries", "id_hash")
        self._repeated = self._seen("kept.deliveries", "id_hash", _IS_REPEAT)
        self._dead = self._seen("kept.dead_letters", "position")
        furthest = "SELECT journal_id, max(position) FROM kept.deliveries GROUP BY journal_id"
        self._furthest: dict[str, int] = dict(self._writer.execute(furthest).fetchall())

    def _seen(self, table: str, column: str, which: str = "true") -> Seen:
        rows = self._read(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL AND {which}")
        return Seen(rows.column(0).to_numpy())

    def _count(self, table: str) -> int:
        ((count,),) = self._writer.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(count)

    def _write(self, batch: Batch, counts: dict[str, int], replaced: int, *, settle: bool) -> None:
        execute = self._writer.execute
        execute("BEGIN")
        if batch.replaced_event_ids:
            for statement in _GIVE_WAY:
                execute(statement, {"ids": batch.replaced_event_ids})
        if replaced:
            ((dropped,),) = execute("EXECUTE drop_replaced").fetchall()
            if dropped != replaced:
                self._roll_back()
                raise StoreDamaged("A call that is to change is not in the store as it was read; it has to be rebuilt.")
        for table in counts:
            execute(f"EXECUTE put_{table}")
        if settle:
            for statement in _SETTLE:
                execute(statement)
        self._advance(columns.furthest(batch.positions), batch.applied_at)
        execute("COMMIT")

    def _advance(self, positions: Mapping[tuple[str, str], int], at: Micros) -> None:
        known = {stream: position for stream, position in positions.items() if stream in self._positions}
        if len(known) > SINGLY_MAX:
            self._moved.fill(
                {
                    "stream": [stream for stream, _ in known],
                    "stream_id": [stream_id for _, stream_id in known],
                    "position": list(known.values()),
                    "updated_at": [at] * len(known),
                }
            )
            self._writer.execute("EXECUTE advance_positions")
        for (stream, stream_id), position in positions.items():
            told = {"stream": stream, "stream_id": stream_id, "position": position, "at": at}
            if (stream, stream_id) not in known:
                self._writer.execute(_PUT_POSITION, told)
            elif len(known) <= SINGLY_MAX:
                self._writer.execute(_ADVANCE_POSITION, told)

    def _remember(self, batch: Batch) -> None:
        for stream, position in columns.furthest(batch.positions).items():
            self._positions[stream] = max(position, self._positions.get(stream, position))
        self._deliveries.add([columns.delivery_hash(row.id) for row in batch.deliveries if row.id is not None])
        again = [name for name in batch.replaced_event_ids if "-" not in name]
        for row in batch.deliveries:
            if row.id is not None and row.verdict == Verdict.ACCEPTED:
                self._standing.put(row.id, StreamPoint(row.received_at, row.journal_id, row.position))
            elif row.id is not None and row.trust is not None:
                again.append(row.id)
            if row.position > self._furthest.get(row.journal_id, -1):
                self._furthest[row.journal_id] = row.position
        self._dead.add([letter.delivery.position for letter in batch.dead_letters])
        if again:
            self._repeated.add(list(map(columns.delivery_hash, again)))
        hashes = [columns.call_hash(change.key) for change in batch.changes]
        for key, change in zip(hashes, batch.changes, strict=True):
            self._located.put(key, change.after["first_received_at"])
        self._calls.add([key for key, change in zip(hashes, batch.changes, strict=True) if change.before is None])

    def _calls_of(self, hashes: Sequence[int], times: tuple[Micros, Micros] | None) -> list[Call]:
        text = f"FROM kept.calls WHERE call_hash IN ({_listed(hashes)})"
        if times is not None:
            text += f" AND {_between('first_received_at', times)}"
        return columns.calls_of(self._read(text))

    def _events_of(self, calls: dict[CallKey, Call]) -> dict[CallKey, list[StoredEvent]]:
        found: dict[CallKey, list[StoredEvent]] = defaultdict(list)
        if calls:
            firsts = [call["first_received_at"] for call in calls.values()]
            lasts = [call["last_received_at"] for call in calls.values()]
            rows = self._read(
                f"FROM kept.events WHERE call_hash IN ({_listed([columns.call_hash(key) for key in calls])}) "
                f"AND {_between('received_at', (min(firsts), max(lasts)))} "
                "ORDER BY received_at, journal_id, position, event_id"
            )
            for key, event in columns.stored_events_of(rows):
                found[key].append(event)
        return found

    def _read(self, text: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        try:
            return self._writer.sql(text, params=parameters).to_arrow_table()
        except duckdb.Error as error:
            raise self._failed("could not be read", error) from error

    def _settle(self) -> None:
        self._writer.execute("BEGIN")
        for statement in _SETTLE:
            self._writer.execute(statement)
        self._writer.execute("COMMIT")
        self._pending = 0

    def _wal_bytes(self) -> int:
        try:
            return self.path.with_name(self.path.name + ".wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _roll_back(self) -> None:
        try:
            self._writer.execute("ROLLBACK")
        except duckdb.Error as error:
            raise self._failed("could not undo a batch and has to be reopened", error) from error
        self._in_doubt = False

    def _failed(self, what: str, error: duckdb.Error) -> StoreError:
        cause = database.first_line(error)
        if database.is_rot(error):
            return StoreDamaged(f"The store {what} because its file is damaged ({cause}); it has to be rebuilt.")
        return StoreUnavailable(f"The store {what}: {cause}.")

    def _stop(self) -> None:
        with self._swap:
            # DuckDB keeps a database, and the state it failed in, as long as any cursor of it is open.
            for cursor in list(self._cursors):
                _end(cursor)
            self._writer.close()
            self._root.close()


def _end(cursor: duckdb.DuckDBPyConnection) -> None:
    """Close a cursor, waiting for the call that another thread is in: DuckDB refuses to close a busy one."""
    until = time.monotonic() + CURSOR_END_S
    while True:
        with contextlib.suppress(duckdb.Error):
            cursor.interrupt()
        try:
            cursor.close()
            return
        except duckdb.Error:
            if time.monotonic() >= until:
                raise
        time.sleep(0.005)


def _key(call: Call) -> CallKey:
    return CallKey(call["provider"], call["org"], call["call_id"])


def _listed(hashes: Sequence[int]) -> str:
    return ", ".join(map(str, hashes))


def _between(column: str, times: tuple[Micros, Micros]) -> str:
    return f"{column} BETWEEN make_timestamp({times[0]}) AND make_timestamp({times[1]})"
