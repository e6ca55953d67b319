"""Where a follower stands that keeps its position in the journal itself, such as the relay."""

from __future__ import annotations

import time
from pathlib import Path

from calls import journal_file


class JournalCursor:
    """One named position; written beside the journal's writer, whose batches wait for it a fraction of a millisecond.

    A power cut may take the last `save` back (never the one before it on disk): work since then is done again.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Raises JournalUnavailable, JournalError."""
        self._path = path
        self._name = name
        self._connection = journal_file.open_beside_writer(path)

    def position(self) -> int:
        """The saved position; 0 where none was saved. Raises JournalUnavailable."""
        with journal_file.translated(self._path):
            found = self._connection.execute("SELECT position FROM cursors WHERE name = ?", (self._name,)).fetchone()
        return 0 if found is None else int(found[0])

    def save(self, position: int) -> None:
        """Raises JournalUnavailable: then the position may or may not have been saved."""
        row = (self._name, position, time.time_ns() // 1000)
        with journal_file.translated(self._path):
            self._connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", row)

    def close(self) -> None:
        self._connection.close()
