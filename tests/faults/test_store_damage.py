"""The store's files cut, zeroed, flipped, swapped or gone: the worker ends with the journal's contents by itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from analytics.store import Position, Store
from calls.errors import JournalDamaged
from calls.journal import JournalReader
from calls.journal_row import Damaged
from calls.model import Delivery
from streams.apply import JOURNAL, Applier
from tests.faults.length import LONG
from tests.faults.memory import memory_folder
from tests.storing import everything, rows
from tests.test_worker import RULES, caught_up, journalled, running, samples, webhook
from tests.waiting import until

TIMES = 100 if LONG else 2
SPOTS = 600 if LONG else 60
"""How many single bits of the journal are flipped."""

pytestmark = pytest.mark.timeout(3600 if LONG else 300)
Tables = dict[str, list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A journal, a store of a process that died with much in its log (`store`), and an older store (`old`)."""
    folder = memory_folder("store-damage-")
    path = journalled(folder, *samples())
    shutil.copy(path, folder / "shorter")
    journalled(folder, *[webhook(n, call_id=f"c{n % 9}") for n in range(120)])
    reader = JournalReader(path)
    records = reader.read(0)
    reader.close()
    store = Store.open(folder / "store.duckdb", rules=RULES)
    applier = Applier(store, RULES)
    for at in range(0, len(records), 30):
        batch = records[at : at + 30]
        applier.apply(batch, [Position(JOURNAL, store_journal(records), batch[-1].position)])
        if at == 60:
            store.close()
            shutil.copy(folder / "store.duckdb", folder / "old")
            store.reopen()
    for name in ("store.duckdb", "store.duckdb.wal"):
        shutil.copy(folder / name, folder / f"left-{name}")
    store.close()
    for name in ("store.duckdb", "store.duckdb.wal"):
        (folder / name).unlink(missing_ok=True)
        (folder / f"left-{name}").rename(folder / name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def truth(prepared: Path) -> Tables:
    """What a store holds that is made from the journal anew."""
    return _worked_out(_copy(prepared, "truth", store=False))


def store_journal(records: Sequence[object]) -> str:
    return next(record.journal_id for record in records if isinstance(record, Delivery))


def _truncated(folder: Path, dice: Random) -> None:
    os.truncate(_wal(folder), dice.randrange(_wal(folder).stat().st_size))


def _zero_tail(folder: Path, dice: Random) -> None:
    size = _wal(folder).stat().st_size
    _overwrite(_wal(folder), start := dice.randrange(size), bytes(size - start))


def _flipped_log(folder: Path, dice: Random) -> None:
    _flip(_wal(folder), dice)


def _log_gone(folder: Path, dice: Random) -> None:
    _wal(folder).unlink()


def _file_gone(folder: Path, dice: Random) -> None:
    (folder / "store.duckdb").unlink()


def _both_gone(folder: Path, dice: Random) -> None:
    _file_gone(folder, dice)
    _log_gone(folder, dice)


def _empty(folder: Path, dice: Random) -> None:
    os.truncate(folder / "store.duckdb", 0)


def _old_file(folder: Path, dice: Random) -> None:
    """An older copy without its log, or under the newer one's."""
    shutil.copy(folder / "old", folder / "store.duckdb")
    if dice.random() < 0.5:
        _log_gone(folder, dice)


def _flipped_header(folder: Path, dice: Random) -> None:
    _flip(folder / "store.duckdb", dice, below=3 * 4096)


def _flipped_blocks(folder: Path, dice: Random) -> None:
    for _ in range(3):
        _flip(folder / "store.duckdb", dice, above=3 * 4096)


def _zeroed_block(folder: Path, dice: Random) -> None:
    size = (folder / "store.duckdb").stat().st_size
    _overwrite(folder / "store.duckdb", dice.randrange(size // 4096) * 4096, bytes(4096))


DAMAGES: list[Callable[[Path, Random], None]] = [
    _truncated, _zero_tail, _flipped_log, _log_gone, _file_gone, _both_gone, _empty, _old_file, _flipped_header,
    _flipped_blocks, _zeroed_block,
]  # fmt: skip


@pytest.mark.parametrize("number", range(TIMES))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_a_damaged_store_ends_with_the_journals_contents(
    prepared: Path, truth: Tables, damage: Callable[[Path, Random], None], number: int
) -> None:
    """Without a person: it is read on from where it truly stands, or set aside and made anew."""
    folder = _copy(prepared, "damaged")
    damage(folder, Random(f"{damage.__name__}/{number}"))
    assert _worked_out(folder) == truth
    shutil.rmtree(folder)


def test_a_flipped_bit_of_the_journal_is_reported_and_kept_out(prepared: Path) -> None:
    """Each record is read as it was written or named as damaged; a file that cannot be opened says so."""
    folder = _copy(prepared, "flipped", store=False)
    path = folder / "journal.sqlite"
    whole, right = path.read_bytes(), _read(path)
    found = 0
    for number in range(SPOTS):
        path.write_bytes(whole)
        _flip(path, Random(number))
        try:
            records = _read(path)
        except JournalDamaged:
            found += 1
            continue
        assert len(records) <= len(right)
        wrong = [one for one, other in zip(records, right, strict=False) if one != other]
        assert all(isinstance(one, Damaged) for one in wrong), f"flip {number} is served"
        found += bool(wrong)
    assert found > 0
    shutil.rmtree(folder)


@pytest.mark.parametrize("further", [0, 200], ids=["shorter", "grown again"])
def test_a_store_that_is_ahead_of_the_journal_raises_the_alarm(prepared: Path, further: int) -> None:
    """Where the end of the journal was lost, what takes its place is never skipped: it is said by name."""
    folder = _copy(prepared, f"ahead-{further}")
    with running(folder) as (worker, _):
        caught_up(worker, len(_read(folder / "journal.sqlite")))
    for file in folder.glob("journal.sqlite*"):
        file.unlink()
    shutil.copy(prepared / "shorter", folder / "journal.sqlite")
    journalled(folder, *[webhook(1000 + number, call_id="later") for number in range(further)])
    with running(folder) as (worker, store):
        until(lambda: worker.state.fault is not None)
        assert isinstance(worker.state.fault, JournalDamaged)
        assert rows(store, "SELECT count(*) FROM calls WHERE call_id = 'later'") == [(0,)]


def _worked_out(folder: Path) -> Tables:
    """All public rows once a worker has caught up; read again where the damage shows only in the reading."""
    last = len(_read(folder / "journal.sqlite"))
    with running(folder) as (worker, store):
        caught_up(worker, last)
        assert store.verify() == []
        return everything(store)


def _read(path: Path) -> list[Delivery | object]:
    reader = JournalReader(path)
    try:
        return list(reader.read(0))
    finally:
        reader.close()


def _copy(prepared: Path, name: str, *, store: bool = True) -> Path:
    folder = prepared / name
    folder.mkdir()
    for file in ("journal.sqlite", "old", *(("store.duckdb", "store.duckdb.wal") if store else ())):
        shutil.copy(prepared / file, folder / file)
    return folder


def _wal(folder: Path) -> Path:
    return folder / "store.duckdb.wal"


def _flip(path: Path, dice: Random, *, above: int = 0, below: int | None = None) -> None:
    at = dice.randrange(above, below or path.stat().st_size)
    old = path.read_bytes()[at]
    _overwrite(path, at, bytes([old ^ (1 << dice.randrange(8))]))


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
