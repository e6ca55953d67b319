"""The embedded stream: follows the journal on this disk and applies it to the store.

A thin shell. What records mean is decided in `steps` and `fold`, how they are applied in `apply`; here is only where
they come from, how far they are applied, and what to do when journal or store fail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from analytics.store import Place, Position, Store
from calls.crashes import Crashes
from calls.errors import CalltallyError, JournalDamaged, StoreDamaged, StoreError, StoreMismatch
from calls.journal import JournalReader
from calls.journal_row import Damaged, Record
from calls.model import Rules
from streams.apply import JOURNAL, Applier
from streams.collector import rare_collections
from streams.rebuild import is_beyond_use, require_beginning, set_aside
from streams.worker_state import WorkerState

BATCH_ROWS: Final = 2_000
"""Large enough to share a commit's cost, small enough that a stop or a fresh webhook waits a quarter of a second."""
BATCH_BYTES: Final = 16 << 20
QUIET_S: Final = 0.5
"""Without a new record for this long, there is time to tidy the store; also how soon a stop is noticed."""


class Worker:
    """Follows one journal into one store: `open` first, then `run` in a thread of its own until `stop`."""

    def __init__(self, journal_path: Path, open_store: Callable[[], Store], rules: Rules, *, store_path: Path) -> None:
        self.state = WorkerState()
        self._journal_path = journal_path
        self._open_store = open_store
        self._store_path = store_path
        self._rules = rules
        self._stopping = threading.Event()
        self._store: Store | None = None
        self._crashes = self.state.crashes = Crashes(store_path)
        self._reader: JournalReader | None = None
        self._rebuild_until = 0

    def open(self) -> Store:
        """The store, for this worker and all who read; it stays open until `close`, through every repair.

        One that is damaged, or was made by other rules or code, is set aside and begun anew. Raises StoreLocked,
        StoreUnavailable, and StoreDamaged or StoreMismatch where the journal could not fill a new one: then nothing
        was moved.
        """
        try:
            self._store = self._open_store()
        except (StoreDamaged, StoreMismatch) as error:
            if not is_beyond_use(error):
                raise
            self._require_journal(error)
            set_aside(self._store_path, error)
            self._store = self._open_store()
        self._crashes.begin()
        return self._store

    def run(self) -> None:
        """Apply the journal until `stop`. A failure turns the state's `fault` on and is tried again; a bug raises."""
        store = self._store or self.open()
        applier = Applier(store, self._rules, crashes=self._crashes)
        self.state.tally = applier.tally
        self.state.running = True
        failure: CalltallyError | None = None
        try:
            with rare_collections():
                while not self._stopping.is_set():
                    try:
                        if failure is not None:
                            self._recover(store, applier, failure)
                            failure = None
                        self._follow(store, applier)
                    except CalltallyError as error:
                        failure = error if failure is None or is_beyond_use(error) else failure
                        self._stopping.wait(self.state.failed(error))
        finally:
            self.state.running = False
            self._close_reader()

    def stop(self) -> None:
        """Ask `run` to return after the batch in hand; it does within a second."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of the store, once `run` has returned."""
        if self._store is not None:
            self._store.close()
            self._store = None
            self._crashes.end()

    def _follow(self, store: Store, applier: Applier) -> None:
        """Read, apply, repeat, from wherever the store stands."""
        reader = self._reader = self._reader or JournalReader(self._journal_path)
        position = self._applied(store, reader)
        self._begin(position, reader.last_position())
        while not self._stopping.is_set():
            records = reader.read(position, rows=BATCH_ROWS, bytes_max=BATCH_BYTES)
            if records:
                _require_next(records, position)
                last = records[-1].position
                applier.apply(records, [Position(JOURNAL, reader.journal_id, last)])
                position = last
                self.state.committed(len(records), position)
                self.state.journal_position = reader.last_position()
            self._well()
            if position >= self.state.journal_position:
                self._wait(reader, position, store)

    def _wait(self, reader: JournalReader, position: int, store: Store) -> None:
        self._crashes.relax()
        if not reader.wait(position, QUIET_S):
            self.state.journal_position = position
            store.checkpoint_if_due()

    def _applied(self, store: Store, reader: JournalReader) -> int:
        """How far the store has applied this journal. Raises StoreMismatch where it was filled from something else."""
        positions = store.positions()
        others = [f"{stream} {stream_id}" for stream, stream_id in positions if stream != JOURNAL]
        if others:
            raise StoreMismatch(
                f"The store is filled from Kafka ({others[0]}), not from a journal on this disk. Start the worker with "
                "--kafka, or run `calltally rebuild`.",
                code="other_stream",
            )
        journals = [stream_id for _, stream_id in positions]
        if journals and reader.journal_id not in journals:
            raise StoreMismatch(
                f"The store was filled from journal {journals[0]}, but {self._journal_path} is journal "
                f"{reader.journal_id}. Put the right journal back, or run `calltally rebuild` to begin anew from this "
                "one.",
                code="other_journal",
            )
        position = positions.get((JOURNAL, reader.journal_id), 0)
        if position:
            self._require_same_record(store, reader, position)
        return position

    def _require_same_record(self, store: Store, reader: JournalReader, position: int) -> None:
        """Raises JournalDamaged where the journal lost its end after that was applied, and has grown again since."""
        if position < reader.first_position():
            return
        records = reader.read(position - 1, rows=1)
        applied_at = store.received_at(Place(reader.journal_id, position))
        if records and not isinstance(records[0], Damaged) and applied_at not in (None, records[0].received_at):
            raise JournalDamaged(
                f"Position {position} of the journal {self._journal_path} is another record than the one that the "
                "store has applied: the journal's end was lost and others took its place. Rebuild the store."
            )

    def _begin(self, position: int, last: int) -> None:
        self.state.position, self.state.journal_position = position, last
        if position == 0 and last > 0:
            self.state.rebuilding = True
            self._rebuild_until = last

    def _well(self) -> None:
        state = self.state
        if state.rebuilding and state.position >= self._rebuild_until:
            state.rebuilding = False
        state.well()

    def _recover(self, store: Store, applier: Applier, failure: CalltallyError) -> None:
        """Begin again from what is on disk. Raises what stands in the way; it is then tried again."""
        self._close_reader()
        applier.forget()
        if is_beyond_use(failure):
            self._require_journal(failure)
            store.close()
            set_aside(self._store_path, failure)
            store.reopen()
        elif isinstance(failure, StoreError) and not isinstance(failure, StoreMismatch):
            store.reopen()

    def _require_journal(self, failure: CalltallyError) -> None:
        """Raises StoreMismatch where the journal cannot fill a new store, JournalUnavailable where there is none."""
        reader = JournalReader(self._journal_path)
        try:
            require_beginning(reader, failure)
        finally:
            reader.close()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _require_next(records: Sequence[Record], position: int) -> None:
    if records[0].position != position + 1 or records[-1].position != position + len(records):
        raise JournalDamaged(
            f"The journal was read from position {position + 1}, but gave {records[0].position} to "
            f"{records[-1].position} in {len(records)} records. Nothing of it was applied."
        )
