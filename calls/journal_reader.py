"""The journal's followers: read records by position, from any process, without ever holding up the writer."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calls import journal_file
from calls.errors import CalltallyError, JournalDamaged, JournalError, JournalUnavailable
from calls.journal_file import About
from calls.journal_row import Damaged, Record, Row, Sealer
from calls.nudge import NudgeReceiver

FOLLOWERS = "followers"
"""The folder beside the journal in which its followers' sockets lie."""
POLL_S = 1.0
POLL_WITHOUT_NUDGE_S = 0.05
"""Where no socket can be made, in a read-only folder."""


class JournalReader:
    """A read-only view of a journal, written by another process or by none at present."""

    def __init__(self, path: Path) -> None:
        """Raises JournalUnavailable where there is no journal yet, JournalDamaged, JournalError."""
        self._path = path
        self._one_at_a_time = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            with self._snapshot() as connection:
                about = self._about(connection)
        except BaseException:
            self._disconnect()
            raise
        self._sealer = Sealer(about.journal_id)
        self.journal_id = about.journal_id
        with journal_file.translated(path):
            self._file = journal_file.identity(path)
        self._nudges = NudgeReceiver(path.parent / FOLLOWERS)

    def last_position(self) -> int:
        """The position of the newest durable record; 0 in a new journal."""
        with self._snapshot() as connection:
            return journal_file.last_position(connection, self._sealer)

    def first_position(self) -> int:
        """The lowest position this file is meant to hold; what is older was moved away."""
        with self._snapshot() as connection:
            return self._about(connection).first_position

    def begins_at(self) -> int:
        """The position from which on rows are there, be they damaged; one more than the last where none is left."""
        with self._snapshot() as connection:
            first = self._about(connection).first_position
            last = journal_file.last_position(connection, self._sealer)
            try:
                (lowest,) = connection.execute("SELECT min(position) FROM rows").fetchone()
            except sqlite3.DatabaseError as error:
                if not journal_file.is_damage(error):
                    raise
                return first  # broken pages are damaged records, each reported by `read`
        return max(first, last + 1 if lowest is None else int(lowest))

    def read(self, after: int, *, rows: int = 5000, bytes_max: int = 16 << 20) -> list[Record]:
        """The records that follow position `after`, in order and without a gap: what is missing or broken is Damaged.

        At most `rows` of them; a record that reaches `bytes_max` of bodies is the last. Raises JournalUnavailable;
        JournalError (`journal_archived`) where `after` lies before the first position; JournalDamaged where the
        journal ends before `after`.
        """
        with self._snapshot() as connection:
            found, last, full = self._scan(connection, after, rows, bytes_max)
        records: list[Record] = []
        unseal = self._sealer.open
        expected = after + 1
        for row in found:
            if row[0] == expected:
                records.append(unseal(row))
                expected += 1
            elif row[0] > expected:  # lower ones are out of order: a damaged position
                missing = self._read_singly(range(expected, min(row[0], expected + rows - len(records))))
                records += missing
                expected += len(missing)
                if len(records) >= rows:
                    return records[:rows]
                records.append(unseal(row))
                expected += 1
        if not full and expected <= last:
            records += self._read_singly(range(expected, min(last + 1, expected + rows - len(records))))
        return records

    def wait(self, after: int, timeout_s: float) -> bool:
        """Whether there are records beyond `after`; returns as soon as there are, at the latest after `timeout_s`.

        Raises what `read` raises, and JournalUnavailable when the file was replaced: then open a new reader.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            last = self.last_position()
            if last > after:
                return True
            self._refuse_lost_end(after, last)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._nudges.wait(min(remaining, POLL_S if self._nudges.works else POLL_WITHOUT_NUDGE_S))
            self._refuse_if_replaced()

    def close(self) -> None:
        self._nudges.close()
        with self._one_at_a_time:
            self._disconnect()

    def _scan(
        self, connection: sqlite3.Connection, after: int, rows: int, bytes_max: int
    ) -> tuple[list[Row], int, bool]:
        """The raw rows, the last position, and whether a limit ended the scan. Decodes nothing: the transaction is
        short, so that the writer's log can begin anew."""
        first = self._about(connection).first_position
        last = journal_file.last_position(connection, self._sealer)
        self._refuse_lost_end(after, last)
        if after < first - 1:
            raise JournalError(
                f"The journal {self._path} begins at position {first}; {after + 1} to {first - 1} are not in it. Put "
                "back a copy of the journal that holds them.",
                code="journal_archived",
            )
        found: list[Row] = []
        size = 0
        try:
            for row in connection.execute(_SCAN, (after, last, rows)):
                found.append(row)
                size += len(row[3]) if row[3].__class__ is bytes else 0
                if size >= bytes_max:
                    return found, last, True
        except sqlite3.DatabaseError as error:
            if not journal_file.is_damage(error):
                raise
            return found, last, False  # what lies behind the broken page is read one by one
        return found, last, len(found) >= rows

    def _read_singly(self, positions: range) -> list[Record]:
        """Rows that a scan did not find; one of them may still be reached where a page before it is broken."""
        records: list[Record] = []
        for position in positions:
            with self._snapshot() as connection:
                try:
                    row = connection.execute(_ONE, (position,)).fetchone()
                except sqlite3.DatabaseError as error:
                    if not journal_file.is_damage(error):
                        raise
                    records.append(Damaged(position, f"Its page in the file cannot be read ({error})."))
                    continue
            if row is None:
                records.append(Damaged(position, "The row is missing."))
            else:
                records.append(self._sealer.open(row))
        return records

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _about(self, connection: sqlite3.Connection) -> About:
        return journal_file.read_about(connection, self._path)

    def _refuse_lost_end(self, after: int, last: int) -> None:
        if last < after:
            raise JournalDamaged(
                f"The journal {self._path} ends at position {last}, but {after} was read from it before: its end was "
                "lost or an older copy was put back. Rebuild the store."
            )

    def _refuse_if_replaced(self) -> None:
        with journal_file.translated(self._path):
            same = journal_file.identity(self._path) == self._file
        if not same:
            raise JournalUnavailable(f"The journal {self._path} was removed or replaced. Open it again.")

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """One short read transaction."""
        with self._one_at_a_time, journal_file.translated(self._path):
            connection, frozen = self._connection, False
            if connection is None:
                connection, frozen = journal_file.open_read_only(self._path)
                self._connection = None if frozen else connection
            keep = False
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
                keep = not frozen
            except CalltallyError:
                connection.execute("ROLLBACK")
                keep = not frozen
                raise
            finally:
                if not keep:
                    connection.close()
                    self._connection = None


_SCAN = "SELECT position, seal, head, body FROM rows WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
_ONE = "SELECT position, seal, head, body FROM rows WHERE position = ?"
