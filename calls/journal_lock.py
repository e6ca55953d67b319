"""One writer per journal: a lock on a file beside it, which the kernel frees however its holder ends.

The lock is on a file of its own, because closing any second descriptor of the SQLite file would drop SQLite's locks.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from calls.errors import JournalLocked
from calls.journal_file import translated

_RETRY_S = 0.02


class JournalLock:
    """The right to write one journal, held until `release` or the end of the process."""

    def __init__(self, path: Path, wait_s: float = 0.0) -> None:
        """Take the lock of the journal at `path`, waiting up to `wait_s`. Raises JournalLocked, JournalUnavailable."""
        lock_path = path.with_name(path.name + ".lock")
        deadline = time.monotonic() + wait_s
        with translated(path):
            self._descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while not _try(self._descriptor):
                if time.monotonic() >= deadline:
                    holder = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                    os.close(self._descriptor)
                    raise JournalLocked(
                        f"Another ingest (process {holder}) is writing the journal in {path.parent}. Stop that one, "
                        "or give this one another data folder."
                    )
                time.sleep(_RETRY_S)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def writer_of(path: Path) -> int | None:
    """The process that writes the journal at `path` now, None where none does; changes nothing."""
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        told = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        return int(told) if told.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def _try(descriptor: int) -> bool:
    try:
        # Of the open file, not of the process: a second writer inside this process is refused as well.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
