"""Making the store again from the journal: aside and by itself where it cannot be used, or whole on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from analytics.store import Position, Store
from calls.crashes import Crashes
from calls.errors import CalltallyError, StoreDamaged, StoreMismatch, StoreUnavailable
from calls.journal import JournalReader
from calls.model import Rules
from streams.apply import JOURNAL, Applier, Tally
from streams.collector import rare_collections

ASIDE_KEPT: Final = 2
"""So many stores that were set aside are kept, the newest."""
BATCH_ROWS: Final = 2_000

log = structlog.get_logger("streams")


def rebuild(
    journal_path: Path,
    store_path: Path,
    rules: Rules,
    *,
    progress: Callable[[int, int], None] = lambda _, __: None,
    forgiven: Collection[str] = (),
) -> Tally:
    """Make the store again beside the present one and put it in its place only when it is whole.

    `progress` is told the position reached and the last one to reach; `forgiven` are ids of deliveries that ended a
    worker's process and are read again. Raises StoreLocked where a worker runs, StoreMismatch where the journal has
    lost its beginning, and what journal and store raise; the present store is then as it was.
    """
    reader = JournalReader(journal_path)
    try:
        require_beginning(reader)
        _require_no_owner(store_path, rules)
        crashes = Crashes(store_path)
        crashes.forgive(forgiven)
        new_path = store_path.with_name(store_path.name + ".rebuilding")
        _remove(new_path)
        try:
            tally = _fill(reader, new_path, rules, progress, crashes)
            _require_no_owner(store_path, rules)
            _put_in_place(new_path, store_path)
        finally:
            _remove(new_path)
        return tally
    finally:
        reader.close()


def require_beginning(reader: JournalReader, why: CalltallyError | None = None) -> None:
    """Raises StoreMismatch (`journal_incomplete`) where a store made from this journal would lack older calls."""
    first = reader.first_position()
    if first > 1:
        raise StoreMismatch(
            f"{why.message if why else 'The store is to be rebuilt.'} It cannot be made from the journal alone: "
            f"positions 1 to {first - 1} have left it for the archive. Nothing was moved; put the archive back.",
            code="journal_incomplete",
        )


def is_beyond_use(error: CalltallyError) -> bool:
    """Whether only a new store helps: this one is damaged, or other rules or code made it."""
    return isinstance(error, StoreDamaged | StoreMismatch) and error.code in (StoreDamaged.code, StoreMismatch.code)


def set_aside(store_path: Path, why: CalltallyError) -> Path:
    """Move a store that nobody has open out of the way, and drop the oldest that were; where it is now."""
    aside = store_path.with_name(f"{store_path.name}.{why.code}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    # The write-ahead log goes first: a store without it is merely older, a log without its store is nobody's.
    for part, kept in ((_wal(store_path), _wal(aside)), (store_path, aside)):
        if part.exists():
            part.rename(kept)
    _sync(store_path.parent)
    older = sorted(
        (path for path in store_path.parent.glob(f"{store_path.name}.store_*-*Z")), key=lambda path: path.name[-22:]
    )
    for path in older[:-ASIDE_KEPT]:
        _remove(path)
    log.error("the store was set aside and is being rebuilt", reason=why.message, kept_as=aside.name)
    return aside


def _require_no_owner(store_path: Path, rules: Rules) -> None:
    """Raises StoreLocked. A store that cannot be used is no reason to refuse: that is what a rebuild is for."""
    if store_path.exists():
        try:
            Store.open(store_path, rules=rules).close()
        except (StoreDamaged, StoreMismatch):
            return


def _fill(
    reader: JournalReader, path: Path, rules: Rules, progress: Callable[[int, int], None], crashes: Crashes
) -> Tally:
    store = Store.open(path, rules=rules)
    try:
        applier = Applier(store, rules, crashes=crashes)
        position, last = 0, reader.last_position()
        progress(position, last)
        with rare_collections():
            while records := reader.read(position, rows=BATCH_ROWS):
                position = records[-1].position
                applier.apply(records, [Position(JOURNAL, reader.journal_id, position)])
                progress(position, max(position, last))
        store.checkpoint_if_due()
        return applier.tally
    finally:
        store.close()


def _put_in_place(new_path: Path, store_path: Path) -> None:
    if _wal(new_path).exists():
        raise StoreUnavailable("The new store was not closed cleanly, so nothing was replaced. Rebuild again.")
    # A log left by the store that is replaced must never be taken for the new one's.
    _wal(store_path).unlink(missing_ok=True)
    os.replace(new_path, store_path)
    _sync(store_path.parent)


def _remove(path: Path) -> None:
    for part in (_wal(path), path):
        part.unlink(missing_ok=True)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
