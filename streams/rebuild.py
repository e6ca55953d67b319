"""Making the store again from the journal: aside and by itself where it cannot be used, or whole on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from analytics.store import Place, Position, Store
from calls.crashes import Crashes
from calls.dead_letters import JOURNAL_DAMAGED
from calls.errors import CalltallyError, StoreDamaged, StoreMismatch, StoreUnavailable
from calls.journal import JournalReader
from calls.journal_row import Damaged
from calls.model import Rules
from streams.apply import JOURNAL, Applier, Tally
from streams.collector import rare_collections

ASIDE_KEPT: Final = 2
"""So many stores that were set aside are kept, the newest."""
BATCH_ROWS: Final = 2_000
_KEPT: Final = StoreMismatch("The store may hold what the journal can no longer tell.")

log = structlog.get_logger("streams")


class Rebuilt(NamedTuple):
    """A store that was made again."""

    tally: Tally
    kept_as: Path | None
    """Where the store before it is, which may hold what the journal can no longer tell."""


def rebuild(
    journal_path: Path,
    store_path: Path,
    rules: Rules,
    *,
    progress: Callable[[int, int], None] = lambda _, __: None,
    forgiven: Collection[str] = (),
) -> Rebuilt:
    """Make the store again beside the present one and put it in its place only when it is whole.

    One that may hold what the journal can no longer tell is set aside, not replaced. `progress` is told the position
    reached and the last one to reach; `forgiven` are ids of deliveries that ended a worker's process and are read
    again. Raises StoreLocked where another process has the store, StoreMismatch where the journal lacks its beginning,
    and what journal and store raise; the present store is then as it was.
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
            filled = _fill(reader, new_path, rules, progress, crashes)
            kept = _put_in_place(new_path, store_path, keep=_knows_more(store_path, rules, filled))
        finally:
            _remove(new_path)
        return Rebuilt(filled.tally, kept)
    finally:
        reader.close()


def require_beginning(reader: JournalReader, why: CalltallyError | None = None) -> None:
    """Raises StoreMismatch (`journal_incomplete`) where a store made from this journal would lack older calls."""
    begins_at = reader.begins_at()
    if begins_at > 1:
        raise StoreMismatch(
            f"{why.message if why else 'The store is to be rebuilt.'} It cannot be made from the journal, which begins "
            f"at position {begins_at}: what stood before is not in it. Nothing was moved. Put back a copy of the "
            "journal that begins at 1.",
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


class _Filled(NamedTuple):
    """What a new store was made of."""

    tally: Tally
    reached: dict[tuple[str, str], int]
    """The positions of the new store."""
    damaged: list[Place]


def _require_no_owner(store_path: Path, rules: Rules) -> None:
    """Raises StoreLocked. A store that cannot be used is no reason to refuse: that is what a rebuild is for."""
    if store_path.exists():
        try:
            Store.open(store_path, rules=rules).close()
        except (StoreDamaged, StoreMismatch):
            return


def _knows_more(store_path: Path, rules: Rules, filled: _Filled) -> bool:
    """Whether the present store may hold what the new one lacks. Raises StoreLocked."""
    if not store_path.exists():
        return False
    try:
        store = Store.open(store_path, rules=rules)
    except (StoreDamaged, StoreMismatch):
        return bool(filled.damaged)
    try:
        if any(position > filled.reached.get(stream, 0) for stream, position in store.positions().items()):
            return True
        held = store.places(filled.damaged)
        unread = store.not_understood(held)
        return any(unread.get(place) != JOURNAL_DAMAGED for place in held)
    finally:
        store.close()


def _fill(
    reader: JournalReader, path: Path, rules: Rules, progress: Callable[[int, int], None], crashes: Crashes
) -> _Filled:
    store = Store.open(path, rules=rules)
    try:
        applier = Applier(store, rules, crashes=crashes)
        damaged: list[Place] = []
        position, last = 0, reader.last_position()
        progress(position, last)
        with rare_collections():
            while records := reader.read(position, rows=BATCH_ROWS):
                position = records[-1].position
                damaged += [Place(reader.journal_id, one.position) for one in records if isinstance(one, Damaged)]
                applier.apply(records, [Position(JOURNAL, reader.journal_id, position)])
                progress(position, max(position, last))
        store.checkpoint_if_due()
        return _Filled(applier.tally, store.positions(), damaged)
    finally:
        store.close()


def _put_in_place(new_path: Path, store_path: Path, *, keep: bool) -> Path | None:
    """Let the new store take the place of the present one; where that is now if it is to be kept."""
    if _wal(new_path).exists():
        raise StoreUnavailable("The new store was not closed cleanly, so nothing was replaced. Rebuild again.")
    kept = set_aside(store_path, _KEPT) if keep else None
    # A log left by the store that is replaced must never be taken for the new one's.
    _wal(store_path).unlink(missing_ok=True)
    os.replace(new_path, store_path)
    _sync(store_path.parent)
    return kept


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
