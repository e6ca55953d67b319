"""Which delivery ends the process: found by what is written down before it is applied, and passed over from then on.

A segmentation fault, or the kernel in want of memory, leaves no exception to catch and would meet the same delivery at
every start. So a worker that follows one which did not end in order says in a file beside the store how many records
it is about to apply. Where that one ends too, the next applies those one by one, each named in the file before; and a
delivery that was named at the end of two processes is `deadly`: it becomes a dead letter without being read. The relay,
which reads a delivery only to name it, does so one by one at once.

Nothing is written while processes end in order. SIGKILL at a bad moment looks alike, so once is not enough; and while
records are named, the store's owner answers no query, so that a query that ends the process is never taken for one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from calls.journal_row import Record
from calls.model import Delivery

DEATHS_MAX: Final = 2
WARY_RECORDS: Final = 5_000
"""More than a batch of either stream: what ended the process before is among so many."""
WARY_PIECE: Final = 100
"""Few enough to be gone through one by one within a second."""

log = structlog.get_logger("streams")


class _Kept(msgspec.Struct):
    """What the file holds."""

    running: bool = False
    """Whether a process began that has not ended in order."""
    trying: int = 0
    """So many records, the next ones, were being applied or are to be gone through one by one."""
    named: str | None = None
    """The delivery that was being applied alone."""
    deaths: dict[str, int] = msgspec.field(default_factory=dict)
    """How many processes ended while this delivery was named."""
    deadly: dict[str, str] = msgspec.field(default_factory=dict)
    """Deliveries that are passed over, and why; by id."""


class Crashes:
    """What is known of how the processes of one kind ended; all but reading is for the only one that runs."""

    def __init__(self, beside: Path) -> None:
        """`beside` is the store, or another name that stands for the process in its data folder."""
        self._path = beside.with_name(beside.name + ".crashes")
        self._kept = self._read()
        self._changing = threading.RLock()
        self._careful = 0
        self._wary = 0

    @property
    def deadly(self) -> Mapping[str, str]:
        """Ids of the deliveries that are never to be read, and what they did."""
        return self._kept.deadly

    @property
    def is_careful(self) -> bool:
        """Whether records are named before they are applied, and no query may run."""
        return self._careful > 0

    def begin(self, *, careful: int = 0) -> None:
        """A process begins; how it goes about is decided by how the one before ended.

        After one that did not end in order, at least so many records are taken one by one as `careful` says.
        """
        kept = self._kept = self._read()
        if kept.running:
            self._wary = WARY_RECORDS
            self._careful = max(kept.trying, 1 if kept.named else 0, careful)
            if kept.named is not None:
                self._blame(kept.named)
            if self._careful:
                log.warning("looking for a delivery that ends the process that reads it", records=self._careful)
        kept.running, kept.trying, kept.named = True, self._careful, None
        self._write()

    def end(self) -> None:
        """The process ends in order."""
        self._careful = self._wary = 0
        kept = self._kept
        kept.running, kept.trying, kept.named = False, 0, None
        kept.deaths.clear()
        if kept.deadly:
            self._write()
        else:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def pieces(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """The records in the pieces to apply them in: each is applied when the next is asked for."""
        rest = records
        while self._careful and rest:
            one, rest = rest[0], rest[1:]
            with self.alone(one):
                yield [one]
        while self._wary and rest:
            piece, rest = rest[:WARY_PIECE], rest[WARY_PIECE:]
            self._announce(len(piece))
            yield piece
            self._wary = max(0, self._wary - len(piece))
            if not self._wary:
                self._announce(0)
        if rest:
            yield rest

    @contextmanager
    def alone(self, record: Record) -> Iterator[None]:
        """This record is named while the block runs; where it raises, `relax` says that no record is to blame."""
        # Nothing of a notice or a damaged row is read, so none ends a process.
        named = isinstance(record, Delivery) and record.id not in self.deadly
        if named and isinstance(record, Delivery):
            with self._changing:
                self._kept.trying, self._kept.named = self._careful, record.id
                self._write()
        yield
        with self._changing:
            self._careful = max(0, self._careful - 1)
            if self._kept.named is not None:
                self._kept.deaths.pop(self._kept.named, None)
            if named or not self._careful:
                self._announce(self._careful)

    def relax(self) -> None:
        """Nothing more is there to apply, or something else stands in the way: no record is to blame for what comes."""
        with self._changing:
            self._careful = 0
            if self._kept.trying or self._kept.named:
                self._announce(0)

    def forgive(self, deliveries: Collection[str]) -> None:
        """Let these deliveries be read again; for who knows that no process owns the store."""
        for delivery_id in deliveries:
            self._kept.deadly.pop(delivery_id, None)
        if deliveries:
            self._write()

    def _blame(self, delivery_id: str) -> None:
        kept = self._kept
        kept.deaths[delivery_id] = deaths = kept.deaths.get(delivery_id, 0) + 1
        if deaths >= DEATHS_MAX:
            del kept.deaths[delivery_id]
            kept.deadly[delivery_id] = (
                f"The process that reads it ended {deaths} times while it was at this delivery alone."
            )
            log.error(
                "a delivery ends the process that reads it, and is passed over from now on; its bytes stay in the "
                "journal. After an update try it again with `calltally dead retry`",
                id=delivery_id,
            )

    def _announce(self, count: int) -> None:
        with self._changing:
            self._kept.trying, self._kept.named = count, None
            self._write()

    def _read(self) -> _Kept:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("how the process before this one ended cannot be read", reason=str(error))
            return _Kept()

    def _write(self) -> None:
        new = self._path.with_name(self._path.name + ".new")
        try:
            with new.open("wb") as file:
                file.write(msgspec.json.encode(self._kept))
                if self._kept.deadly:
                    # The rest is of use only where this machine runs on, and then its file system knows it.
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(new, self._path)
        except OSError as error:
            # Worse than to search for a record in vain would be to stop for that.
            log.warning("what is about to be applied cannot be written down", reason=str(error))
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
