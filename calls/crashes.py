"""Which delivery ends the process: found by what is written down before it is applied, and passed over from then on.

A segmentation fault, or the kernel in want of memory, leaves no exception to catch and would meet the same delivery at
every start. So a worker that follows one which did not end in order applies small pieces, and names in a file beside
the store the deliveries of each before. Where that one ends too, the next applies the deliveries that were named last
in smaller pieces, and so on; and a delivery that was named alone at the end of two processes is `deadly`: it becomes a
dead letter without being read. The relay, which reads a delivery only to name it, does so one by one at once.

Only an end that left a sign counts so: what Python's fault handler wrote when a fatal signal came, or a process that
the kernel has killed for want of memory since. Who is killed from outside again and again soon after its start is at
the same record each time, and that must cost no delivery; what ends processes without a sign takes ten times as many.

Nothing is written while processes end in order. A sign may have another cause, so once is not enough; and while
deliveries are named alone, the store's owner answers no query, so that a query that ends the process is never taken
for one. With a store that takes its time that is bounded: it is so for no more than `SHARE` commits minus one.
"""

from __future__ import annotations

import contextlib
import faulthandler
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
"""So many ends with a sign, of processes that had named a delivery alone, make it deadly."""
UNSIGNED: Final = 10
"""So many ends without a sign count as one with it."""
WARY_RECORDS: Final = 5_000
"""More than a batch of either stream: what ended the process before is among so many."""
WARY_PIECE: Final = 100
"""Few enough to be named in no time, many enough to cost little."""
SHARE: Final = 5
"""Each process tries a fifth at a time of what the one before it was at: of 100 records the fourth names one alone."""

log = structlog.get_logger("streams")


class _Kept(msgspec.Struct):
    """What the file holds."""

    running: bool = False
    """Whether a process began that has not ended in order."""
    tried: list[str] = msgspec.field(default_factory=list)
    """The deliveries that were being applied."""
    named: str | None = None
    """The one that was being applied alone, because it was in doubt before."""
    deaths: dict[str, int] = msgspec.field(default_factory=dict)
    """How many processes ended while this delivery was named; one that left a sign counts as `UNSIGNED`."""
    killed_for_memory: int | None = None
    """How many processes of this machine the kernel had killed for want of memory when this one began."""
    deadly: dict[str, str] = msgspec.field(default_factory=dict)
    """Deliveries that are passed over, and why; by id."""


def trace_fatal_errors(beside: Path) -> None:
    """Have what ends this process by a fatal signal written down, for the `Crashes` of the next; once a process."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    # Kept open on purpose: after the signal nothing can be opened any more.
    faulthandler.enable(_trace_path(_path(beside)).open("ab"), all_threads=False)


class Crashes:
    """What is known of how the processes of one kind ended; all but reading is for the only one that runs."""

    def __init__(self, beside: Path) -> None:
        """`beside` is the store, or another name that stands for the process in its data folder."""
        self._path = _path(beside)
        self._kept = self._read()
        self._changing = threading.RLock()
        self._suspects: set[str] = set()
        self._few = 1
        self._careful = 0
        self._wary = 0

    @property
    def deadly(self) -> Mapping[str, str]:
        """Ids of the deliveries that are never to be read, and what they did."""
        return self._kept.deadly

    @property
    def suspects(self) -> list[str]:
        """Deliveries that the process before was at when it ended."""
        with self._changing:
            return list(self._suspects)

    @property
    def is_careful(self) -> bool:
        """Whether deliveries are named alone, and no query may run."""
        return self._careful > 0 or (self._few == 1 and bool(self._suspects))

    def begin(self, *, careful: int = 0) -> None:
        """A process begins; how it goes about is decided by how the one before ended.

        After one that did not end in order so many records are to be applied `alone` as `careful` says.
        """
        kept = self._kept = self._read()
        if kept.running:
            self._wary, self._careful = WARY_RECORDS, careful
            sign = self._sign()
            if sign:
                log.error("the process before this one ended by itself", reason=sign)
            if kept.named is not None:
                self._blame(kept.named, sign)
            self._suspects = set(kept.tried).difference(kept.deadly)
            self._few = -(-len(self._suspects) // SHARE)
            if self._careful or self._suspects:
                log.warning(
                    "looking for a delivery that ends the process that reads it",
                    records=self._careful or len(self._suspects),
                )
        kept.running, kept.tried, kept.named = True, [], None
        kept.killed_for_memory = _killed_for_memory()
        with contextlib.suppress(OSError):
            os.truncate(_trace_path(self._path), 0)
        self._write()

    def end(self) -> None:
        """The process ends in order."""
        self._careful = self._wary = 0
        self._suspects.clear()
        kept = self._kept
        kept.running, kept.tried, kept.named = False, [], None
        kept.deaths.clear()
        with contextlib.suppress(OSError):
            _trace_path(self._path).unlink(missing_ok=True)
        if kept.deadly:
            self._write()
        else:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def pieces(self, records: Sequence[Record], *, in_order: bool = True) -> Iterator[Sequence[Record]]:
        """The records in the pieces to apply them in: each is applied when the next is asked for.

        Where they need not be `in_order`, those in doubt come first: the sooner is it known.
        """
        if self._suspects and not in_order:
            records = sorted(records, key=lambda record: not self._is_suspect(record))
        rest = records
        while self._wary and rest:
            count = self._together(rest)
            piece, rest = rest[:count], rest[count:]
            yield from self._tried(piece)
        if rest:
            yield rest

    @contextmanager
    def alone(self, record: Record) -> Iterator[None]:
        """This record is named while the block runs; where it raises, `relax` says that no record is to blame."""
        # Nothing of a notice or a damaged row is read, so none ends a process.
        named = record.id if isinstance(record, Delivery) and record.id not in self.deadly else None
        if named is not None:
            self._announce([named], named)
        yield
        with self._changing:
            self._careful = max(0, self._careful - 1)
            if named is not None:
                self._kept.deaths.pop(named, None)
                self._suspects.discard(named)
                self._announce([])

    def acquit(self, applied: Collection[str]) -> None:
        """These deliveries are in the store, so none of them is in doubt."""
        with self._changing:
            self._suspects.difference_update(applied)

    def relax(self) -> None:
        """Nothing more is there to apply, or something else stands in the way: no record is to blame for what comes."""
        with self._changing:
            self._careful = 0
            self._suspects.clear()
            if self._kept.tried or self._kept.named:
                self._announce([])

    def forgive(self, deliveries: Collection[str]) -> None:
        """Let these deliveries be read again; for who knows that no process owns the store."""
        for delivery_id in deliveries:
            self._kept.deadly.pop(delivery_id, None)
        if deliveries:
            self._write()

    def _is_suspect(self, record: Record) -> bool:
        return isinstance(record, Delivery) and record.id in self._suspects

    def _together(self, records: Sequence[Record]) -> int:
        """How many of the next records make a piece: those in doubt a few at a time, and apart from the others."""
        deliveries, in_doubt = 0, False
        for index, record in enumerate(records[:WARY_PIECE]):
            if not isinstance(record, Delivery):
                continue
            suspect = record.id in self._suspects
            if deliveries and (suspect != in_doubt or (suspect and deliveries == self._few)):
                return index
            deliveries, in_doubt = deliveries + 1, suspect
        return min(WARY_PIECE, len(records))

    def _tried(self, piece: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """The piece, written down while it is applied."""
        suspect = next(filter(self._is_suspect, piece), None)
        if suspect is not None and self._few == 1:
            with self.alone(suspect):
                yield piece
        else:
            tried = [one.id for one in piece if isinstance(one, Delivery) and one.id not in self.deadly]
            self._announce(tried)
            yield piece
            with self._changing:
                self._suspects.difference_update(tried)
        with self._changing:
            self._wary = max(0, self._wary - len(piece))
            if not self._wary:
                self._suspects.clear()
                self._announce([])

    def _sign(self) -> str:
        """What shows that the process before was not merely killed; empty where nothing does."""
        try:
            with _trace_path(self._path).open(errors="replace") as file:
                if first := file.readline(200).strip():
                    return first
        except OSError:
            pass
        before = self._kept.killed_for_memory
        killed = before is not None and _killed_for_memory() > before
        return "Out of memory: the kernel has killed a process since." if killed else ""

    def _blame(self, delivery_id: str, sign: str) -> None:
        kept = self._kept
        kept.deaths[delivery_id] = deaths = kept.deaths.get(delivery_id, 0) + (UNSIGNED if sign else 1)
        if deaths >= DEATHS_MAX * UNSIGNED:
            del kept.deaths[delivery_id]
            kept.deadly[delivery_id] = (
                f"The process that reads it ended each time that it was at this delivery alone. {sign}".rstrip()
            )
            log.error(
                "a delivery ends the process that reads it, and is passed over from now on; its bytes stay in the "
                "journal. After an update try it again with `calltally dead retry`",
                id=delivery_id,
            )

    def _announce(self, tried: list[str], named: str | None = None) -> None:
        with self._changing:
            self._kept.tried, self._kept.named = tried, named
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


def _path(beside: Path) -> Path:
    return beside.with_name(beside.name + ".crashes")


def _trace_path(crashes: Path) -> Path:
    return crashes.with_suffix(".trace")


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for want of memory since it was started; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
