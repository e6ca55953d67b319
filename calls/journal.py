"""The journal's writer: makes deliveries and notices durable, in one order, with one fsync for all that wait.

A batch is whatever arrived while the disk was busy with the one before, so a lone record waits for one fsync and a
crowd shares it; there is no timer. Nothing is reported as committed unless its transaction is on disk in the file that
lies at the path. After a failure the connection is thrown away and the next batch, or a probe each second, tries anew.

Where positions rise times do not fall, so that the order of several journals' deliveries, by time and then by position,
is the order of each one too. Only what comes late, out of the quarantine, keeps its earlier time.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from calls import journal_file
from calls.errors import CalltallyError, JournalUnavailable
from calls.journal_lock import JournalLock
from calls.journal_reader import FOLLOWERS, JournalReader
from calls.journal_row import Damaged, Encoded, NewDelivery, NewNotice, Sealer, encode
from calls.model import Micros
from calls.nudge import NudgeSender

__all__ = ["Append", "Damaged", "Journal", "JournalReader", "NewDelivery", "NewNotice"]

WAL_MAX_BYTES = 32 << 20
"""The write-ahead log is copied into the file and begun again when it has grown this large.

Smaller makes each of these pauses shorter, but more than one record in a hundred would meet one."""
WAL_QUIET_BYTES = 1 << 20
"""Above this the log is copied in a quiet moment, while nobody waits."""
QUIET_S = 0.5
CHECKPOINT_BUSY_MS = 100
"""How long a checkpoint, and with it the next batch, waits for a reader that is in the middle of a transaction."""
CHECKPOINT_RETRY_S = 1.0
BATCH_MAX_BYTES = 16 << 20
PENDING_MAX_BYTES = 256 << 20
"""More than this is not held in memory while the disk stands still."""
PROBE_S = 1.0
STALL_S = 5.0
"""A batch that has been in the disk for longer than this makes `health` bad; senders hang up after 10 s."""
STEP_US = 3_600_000_000
"""A record's time that lies this far behind the one before is kept: the clock went back, and stays there."""
_PROBE_BYTES = 64 << 10

logger = logging.getLogger(__name__)


class Append(msgspec.Struct):
    """One record to journal; `waiter` belongs to the caller, who finds it again in `on_committed`."""

    record: NewDelivery | NewNotice
    """Once it is appended, with the time that it bears in the journal."""
    waiter: object = None
    late: bool = False
    """It came long before the record at the position before, and keeps its time."""


class Journal:
    """The one writer of a journal. Positions are contiguous from 1, over deliveries and notices alike."""

    def __init__(
        self,
        path: Path,
        *,
        on_committed: Callable[[list[Append], JournalUnavailable | None], None],
        wait_s: float = 0.0,
    ) -> None:
        """Open or create, waiting up to `wait_s` for another writer to end.

        `on_committed` is called in the writer's thread, once a batch, with None or with why the batch is not durable.
        Raises JournalLocked, JournalUnavailable, JournalDamaged, JournalError.
        """
        self._path = path
        self._on_committed = on_committed
        self._arrival = threading.Condition(threading.Lock())
        self._arrived: list[tuple[Append, Encoded]] = []
        self._arrived_bytes = 0
        self._closing = False
        self._failure: JournalUnavailable | None = None
        self._in_disk_since: float | None = None
        self._newest: Micros = 0
        self._unsynced = False
        self._wal_bytes = 0
        self._checkpoint_not_before = 0.0
        self._connection: sqlite3.Connection | None = None
        self._keeper: sqlite3.Connection | None = None
        journal_file.make_folder(path)
        self._lock = JournalLock(path, wait_s)
        try:
            journal_file.create_if_missing(path)
            self._connection = journal_file.open_writable(path, wal_max_bytes=WAL_MAX_BYTES)
            with journal_file.translated(path):
                about = journal_file.read_about(self._connection, path)
                self._sealer = Sealer(about.journal_id)
                self._newest = journal_file.newest_time(self._connection)
                self._adopt(self._connection)
                # While it is open, closing the connection that writes does not copy a log that a failed fsync left.
                self._keeper, _ = journal_file.open_read_only(path)
                self._unsynced = True  # the process before this one may have ended after a failed fsync
                self._settle_log(self._connection)
                if self._unsynced:
                    self._failure = JournalUnavailable(
                        f"The log that the last process left in {path.parent} could not be made sure of. It is tried "
                        "again each second; check the disk and its free space."
                    )
                self._nudges = NudgeSender(path.parent / FOLLOWERS)
        except BaseException:
            self._discard_connection()
            if self._keeper is not None:
                self._keeper.close()
            self._lock.release()
            raise
        self.journal_id = about.journal_id
        self._writer = threading.Thread(target=self._run, name="journal", daemon=True)
        self._writer.start()

    def append(self, item: Append) -> None:
        """Queue one record; never blocks, any thread.

        Raises JournalUnavailable when closed or when too much waits for the disk already, ValueError for a bad id.
        """
        with self._arrival:
            if self._closing:
                raise JournalUnavailable("The journal is being closed. Send again in a moment.")
            if not item.late:
                item.record = self._in_order(item.record)
            encoded = encode(item.record)
            size = _bytes_of(encoded)
            if self._arrived_bytes > 0 and self._arrived_bytes + size > PENDING_MAX_BYTES:
                raise JournalUnavailable(
                    f"The disk of {self._path.parent} does not keep up: {PENDING_MAX_BYTES >> 20} MiB wait already. "
                    "Send again in a moment."
                )
            self._arrived.append((item, encoded))
            self._arrived_bytes += size
            self._arrival.notify()

    def health(self) -> JournalUnavailable | None:
        """Why records are not being made durable; None when the last commit succeeded and none is stuck."""
        since = self._in_disk_since
        if since is not None and time.monotonic() - since > STALL_S:
            return JournalUnavailable(
                f"The disk of {self._path.parent} has been busy with one batch for {time.monotonic() - since:.0f} s. "
                "Check the disk."
            )
        if not self._writer.is_alive() and not self._closing:
            return JournalUnavailable("The journal's writer has ended; the log says why. Restart ingest.")
        return self._failure

    def last_position(self) -> int:
        """The position of the newest durable record; 0 in a new journal."""
        return self._last

    def first_position(self) -> int:
        """The lowest position this file is meant to hold; what is older has left for the archive."""
        connection, _ = journal_file.open_read_only(self._path)
        try:
            with journal_file.translated(self._path):
                return journal_file.read_about(connection, self._path).first_position
        finally:
            connection.close()

    def recent_ids(self, limit: int = 500_000) -> Iterable[str]:
        """The ids of the newest deliveries, oldest of them first. Raises JournalUnavailable, JournalDamaged."""
        if self._failure is not None:
            raise self._failure  # who is told "received already" on the strength of these must be able to rely on it
        connection, _ = journal_file.open_read_only(self._path)
        try:
            with journal_file.translated(self._path):
                return journal_file.recent_ids(connection, self._sealer, limit)
        finally:
            connection.close()

    def close(self) -> None:
        """Commit what has arrived, copy the log into the file and let the next writer in; safe to call twice."""
        with self._arrival:
            already = self._closing
            self._closing = True
            self._arrival.notify()
        self._writer.join()
        if already:
            return
        if self._connection is not None:
            self._settle_log(self._connection)
            if not self._unsynced and self._keeper is not None:
                self._keeper.close()
                self._checkpoint(self._connection, "TRUNCATE")
        self._discard_connection()
        if self._keeper is not None:
            self._keeper.close()
        self._nudges.close()
        self._lock.release()

    def _in_order(self, record: NewDelivery | NewNotice) -> NewDelivery | NewNotice:
        """The record with the time that it is to bear at the next position."""
        behind = self._newest - record.received_at
        if 0 < behind < STEP_US:
            # Its body took longer than another's, or the clock was set right.
            return msgspec.structs.replace(record, received_at=self._newest)
        if behind >= STEP_US:
            logger.error(
                "journal_clock: the clock of this machine stands %d s behind the last record of the journal in %s. "
                "From here on records bear its time, so of equal ones the later may count. Check the clock.",
                behind // 1_000_000,
                self._path.parent,
            )
        self._newest = record.received_at
        return record

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch or self._failure is not None:
                failure = self._commit(batch)
                if batch:
                    self._report([item for item, _ in batch], failure)
                if failure is None and batch:
                    self._nudges.send()
            self._checkpoint_if_due(quiet=not batch)

    def _next_batch(self) -> list[tuple[Append, Encoded]] | None:
        """What has arrived; nothing when it is time for a probe or a checkpoint, None when closed and drained."""
        with self._arrival:
            while not self._arrived:
                if self._closing:
                    return None
                if not self._arrival.wait(self._patience_s()):
                    return []
            batch, self._arrived = self._arrived, []
            size, self._arrived_bytes = self._arrived_bytes, 0
            if size > BATCH_MAX_BYTES and len(batch) > 1:
                cut, size = _cut(batch)
                batch, self._arrived = batch[:cut], batch[cut:]
                self._arrived_bytes = size
            return batch

    def _patience_s(self) -> float | None:
        if self._failure is not None:
            return PROBE_S
        return QUIET_S if self._wal_bytes > WAL_QUIET_BYTES else None

    def _commit(self, batch: list[tuple[Append, Encoded]]) -> JournalUnavailable | None:
        """Make a batch durable, or say why it is not; an empty batch is a probe."""
        self._in_disk_since = time.monotonic()
        failure: JournalUnavailable | None = None
        try:
            connection = self._connection or self._reopen()
            self._refuse_if_replaced()
            if self._unsynced:
                self._begin_log_anew(connection)
            self._last = self._write(connection, batch)
            self._refuse_if_replaced()
        except Exception as error:  # whatever it was, the batch is not durable, and its senders must be told so
            failure = self._as_unavailable(error)
            if self._failure is None or self._failure.message != failure.message:
                logger.error("journal_unavailable: %s", failure.message, exc_info=error)
            if not isinstance(error, _FileReplaced):
                self._discard_connection()
        else:
            if self._failure is not None:
                logger.warning("journal_recovered: the journal in %s takes writes again", self._path.parent)
        self._failure = failure
        self._in_disk_since = None
        return failure

    def _write(self, connection: sqlite3.Connection, batch: list[tuple[Append, Encoded]]) -> int:
        connection.execute("BEGIN IMMEDIATE")
        self._unsynced = True
        last = self._last + len(batch)
        if batch:
            connection.executemany(
                "INSERT INTO rows VALUES (?, ?, CAST(? AS TEXT), ?)",
                [self._sealer.row(position, encoded) for position, (_, encoded) in enumerate(batch, self._last + 1)],
            )
            ids = b"".join([encoded.digest for _, encoded in batch])
            connection.execute("INSERT INTO commits VALUES (?, ?, ?)", self._sealer.commit(last, ids))
            # Pages are not quite full; and the last page of each table and its parent are written again.
            self._wal_bytes += sum(_bytes_of(encoded) for _, encoded in batch) * 5 // 4
        else:
            connection.execute("INSERT OR REPLACE INTO probe VALUES (1, randomblob(?))", (_PROBE_BYTES,))
            self._wal_bytes += _PROBE_BYTES
        self._wal_bytes += 3 * journal_file.PAGE_BYTES
        connection.execute("COMMIT")
        self._unsynced = False
        return last

    def _settle_log(self, connection: sqlite3.Connection) -> None:
        """Begin the log anew if it must be; where the disk does not let us, the next batch tries again."""
        if self._unsynced:
            try:
                self._begin_log_anew(connection)
            except (sqlite3.Error, OSError, JournalUnavailable) as error:
                logger.warning("journal_checkpoint: %s", error)

    def _begin_log_anew(self, connection: sqlite3.Connection) -> None:
        """Leave nothing in the log that may not have reached the disk. Raises sqlite3.Error, OSError,
        JournalUnavailable.

        A kernel that could not write a page reports it to one fsync, then counts the page as clean: the next fsync
        succeeds without it ("fsyncgate", https://lwn.net/Articles/752063/). Until memory runs short the page reads as
        if it were there, so SQLite may go on behind it; but after a power cut it reads a log only up to the first bad
        frame, and what was acknowledged behind that would be gone. So the log is written again first; only then may it
        be copied into the file, since a cut in the midst of that is mended from the log. Then it begins anew.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            journal_file.write_log_again(self._path)
        finally:
            connection.execute("ROLLBACK")
        self._unsynced = False
        # May fail for want of room, which must not keep the journal from going on: all of the log is on disk now.
        self._checkpoint(connection, "TRUNCATE")
        if self._unsynced:
            raise JournalUnavailable(f"The disk that holds the journal in {self._path.parent} failed. Check the disk.")

    def _refuse_if_replaced(self) -> None:
        # SQLite goes on writing happily into a file that someone has deleted, or has moved another one over.
        if journal_file.identity(self._path) != self._file:
            raise _FileReplaced(f"The journal {self._path} was removed or replaced while in use. {_PUT_BACK}")
        wal = journal_file.wal_path(self._path)
        if self._connection is not None and journal_file.identity(wal) != self._wal_file:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # saves what only the lost log still holds
            raise _FileReplaced(f"The journal's log {wal} was removed or replaced while in use. {_PUT_BACK}")

    def _reopen(self) -> sqlite3.Connection:
        self._refuse_if_replaced()
        connection = journal_file.open_writable(self._path, wal_max_bytes=WAL_MAX_BYTES)
        try:
            found = journal_file.read_about(connection, self._path).journal_id
            if found != self.journal_id:
                raise JournalUnavailable(f"{self._path} is another journal ({found}) now. Restart ingest to use it.")
            self._adopt(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _adopt(self, connection: sqlite3.Connection) -> None:
        """Go on where the file ends; after a failed COMMIT that may be further than its error said."""
        self._last = journal_file.last_position(connection, self._sealer)
        # SQLite syncs the name of a log that it makes, and goes on where that fails: the log may vanish.
        journal_file.sync_folder(self._path.parent)
        self._file = journal_file.identity(self._path)
        self._wal_file = journal_file.identity(journal_file.wal_path(self._path))
        self._connection = connection
        self._wal_bytes = WAL_MAX_BYTES  # unknown: copied at once

    def _discard_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            logger.info("journal_rollback: %s", error)  # closing rolls back as well
        try:
            connection.close()
        except sqlite3.Error as error:
            logger.warning("journal_close: %s", error)

    def _as_unavailable(self, error: Exception) -> JournalUnavailable:
        if isinstance(error, JournalUnavailable):
            return error
        if isinstance(error, CalltallyError):
            return JournalUnavailable(error.message)
        return JournalUnavailable(journal_file.translate(self._path, error).message)

    def _report(self, items: list[Append], failure: JournalUnavailable | None) -> None:
        try:
            self._on_committed(items, failure)
        except Exception:  # a fault of the caller's, which must not end the writer for everyone
            logger.exception("on_committed failed for a batch of %d", len(items))

    def _checkpoint_if_due(self, *, quiet: bool) -> None:
        due = WAL_QUIET_BYTES if quiet else WAL_MAX_BYTES
        if self._connection is None or self._wal_bytes < due or time.monotonic() < self._checkpoint_not_before:
            return
        self._in_disk_since = time.monotonic()
        self._checkpoint(self._connection, "RESTART")
        self._in_disk_since = None

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> None:
        """Copy the log into the file and begin it anew.

        Always by this connection, between two batches: SQLite before 3.51.3 can corrupt a file that is written by one
        connection while another one checkpoints it (https://sqlite.org/wal.html, "the WAL-reset bug"). RESTART keeps
        the log's blocks allocated, which makes the fsyncs after it cheaper than TRUNCATE does.
        """
        try:
            connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_BUSY_MS}")
            busy, frames, _ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            connection.execute(f"PRAGMA busy_timeout = {journal_file.BUSY_MS}")
        except sqlite3.Error as error:
            # What is committed stays durable in the log; if the disk is full, the next commit will say so.
            self._unsynced = self._unsynced or journal_file.is_lost_sync(error)
            logger.warning("journal_checkpoint: %s", error)
            self._checkpoint_not_before = time.monotonic() + CHECKPOINT_RETRY_S
            return
        if busy:
            self._wal_bytes = max(frames, 0) * journal_file.PAGE_BYTES
            self._checkpoint_not_before = time.monotonic() + CHECKPOINT_RETRY_S
            logger.info("journal_checkpoint: a reader holds %d bytes of the log", self._wal_bytes)
        else:
            self._wal_bytes = 0


class _FileReplaced(JournalUnavailable):
    """Our file is not at its path: the connection is kept, so that all goes on once it is put back."""


_PUT_BACK = "Put the file back, or restart ingest and what follows it to begin a new one."


def _bytes_of(encoded: Encoded) -> int:
    return len(encoded.head) + len(encoded.body or b"")


def _cut(batch: list[tuple[Append, Encoded]]) -> tuple[int, int]:
    """How many records make a batch of bearable size, and how many bytes the others have."""
    size = rest = cut = 0
    for number, (_, encoded) in enumerate(batch):
        size += _bytes_of(encoded)
        if number == 0 or (rest == 0 and size <= BATCH_MAX_BYTES):
            cut = number + 1
        else:
            rest += _bytes_of(encoded)
    return cut, rest
