"""The store says truly how far it got, whatever happens to its process, its file or its disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from analytics.store import Store
from calls.errors import StoreDamaged, StoreLocked, StoreUnavailable
from calls.model import CallKey, Rules
from tests.storing import JOURNAL, new_calls, python, rows

RULES = Rules()
DEADLINE_S = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(path, rules=RULES)
    yield opened
    opened.close()


def test_a_second_process_gets_a_clear_error(store: Store, path: Path) -> None:
    """Another process may not open it, and is told which one has it."""
    said = python(
        "import sys; from pathlib import Path; from analytics.store import Store; from calls.model import Rules\n"
        "from calls.errors import StoreLocked\n"
        "try: Store.open(Path(sys.argv[1]), rules=Rules())\n"
        "except StoreLocked as error: print(error.message)",
        str(path),
    )
    assert said.startswith(f"The store store.duckdb is in use by process {os.getpid()}.")


def test_one_process_opens_a_store_once(store: Store, path: Path) -> None:
    """A second opening, which could drop the first one's lock, is refused."""
    with pytest.raises(StoreLocked, match="This process has the store"):
        Store.open(path, rules=RULES)
    store.apply(new_calls([1]))


def test_a_store_that_another_process_holds_is_locked(path: Path) -> None:
    """Opening it here is refused while the other one lives, and works when it is gone."""
    with _applying(path) as child:
        _positions_said(child, 10)
        with pytest.raises(StoreLocked, match=f"process {child.pid}"):
            Store.open(path, rules=RULES)
        child.kill()
    store = Store.open(path, rules=RULES)
    assert store.verify() == []
    store.close()


def test_a_killed_process_leaves_positions_and_rows_that_agree(path: Path) -> None:
    """However often it is killed in the midst of applying, nothing is there in part, and what it said is there."""
    for kill in range(4):
        with _applying(path) as child:
            said = _positions_said(child, 10 * (3 + 7 * kill))
            child.kill()
        store = Store.open(path, rules=RULES)
        position = store.positions()["journal", JOURNAL]
        assert position >= said
        assert rows(store, "SELECT count(*), max(position) FROM deliveries") == [(position, position)]
        assert rows(store, "SELECT count(*) FROM calls") == [(position,)]
        assert store.verify() == []
        store.close()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_write_ahead_log_cut_short_loses_only_its_end(path: Path, share: float) -> None:
    """The position says how far the rows go, so that the rest is read again."""
    wal = _left_with_wal(path)
    os.truncate(wal, int(wal.stat().st_size * share))
    store = Store.open(path, rules=RULES)
    position = store.positions().get(("journal", JOURNAL), 0)
    assert 0 <= position < 200
    assert rows(store, "SELECT count(*) FROM deliveries") == [(position,)]
    assert store.verify() == []
    store.close()


def test_a_damaged_write_ahead_log_is_named(path: Path) -> None:
    """A log whose middle is overwritten is refused as damaged, not repaired."""
    wal = _left_with_wal(path)
    with wal.open("r+b") as file:
        file.seek(wal.stat().st_size // 2)
        file.write(b"\xa5" * 4096)
    with pytest.raises(StoreDamaged, match="rebuilt"):
        Store.open(path, rules=RULES)


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"\0" * 20_000])
def test_a_file_that_is_no_database_is_damaged(path: Path, content: bytes) -> None:
    """Whatever stands under the store's name and is no database is set aside by the caller."""
    path.write_bytes(content)
    with pytest.raises(StoreDamaged):
        Store.open(path, rules=RULES)


def test_rot_in_the_data_is_named(path: Path) -> None:
    """A flipped bit in a block is found by its checksum, at opening or when it is read."""
    store = Store.open(path, rules=RULES)
    for number in range(1, 2001, 500):
        store.apply(new_calls(range(number, number + 500), transcript="said " * 100))
    store.close()
    with path.open("r+b") as file:
        for offset in range(3 * 4096 + 20_000, path.stat().st_size, 100_000):
            file.seek(offset)
            file.write(b"\x5a" * 64)
    with pytest.raises(StoreDamaged):
        _read_all(path)


def test_rot_that_shows_only_when_a_row_is_read_is_named_too(path: Path) -> None:
    """Long after the opening, and whatever DuckDB calls it: only a rebuild helps, no retry."""
    found = 0
    for _ in _rotten_blocks(path):
        try:
            store = Store.open(path, rules=RULES)
        except StoreDamaged:
            continue
        try:
            store.verify()
            store.stored_calls([CallKey("aisync", "acme", f"call-{number}") for number in range(1, 2001)])
        except StoreDamaged:
            found += 1
        finally:
            store.close()
    assert found


def test_a_store_that_fails_at_opening_is_not_left_open(path: Path) -> None:
    """Else it could neither be set aside nor opened again before the process ends."""
    kept = []
    for whole in _rotten_blocks(path):
        try:
            Store.open(path, rules=RULES).close()
        except StoreDamaged as error:
            kept.append(error)  # with its traceback, which holds what was being opened
        path.write_bytes(whole)
        Store.open(path, rules=RULES).close()
    assert any("could not be read" in error.message for error in kept)


def test_a_full_disk_is_survived(store: Store, path: Path) -> None:
    """A commit that cannot be written is reported; after reopening position and rows agree and it goes on."""
    store.apply(new_calls(range(1, 11)))
    room = path.with_name(path.name + ".wal").stat().st_size + 100_000
    with _file_size_limit(room), pytest.raises(StoreUnavailable, match="reopened"):
        store.apply(new_calls(range(11, 511), transcript="said " * 100))
    with pytest.raises(StoreUnavailable, match="earlier batch"):
        store.apply(new_calls(range(11, 21)))
    store.reopen()
    position = store.positions()["journal", JOURNAL]
    assert position in (10, 510)
    assert rows(store, "SELECT count(*) FROM deliveries") == [(position,)]
    assert store.verify() == []
    store.apply(new_calls([position + 1]))
    assert store.positions()["journal", JOURNAL] == position + 1


def test_a_checkpoint_on_a_full_disk_is_survived(store: Store, path: Path) -> None:
    """A checkpoint that cannot be written loses no row that was committed."""
    for number in range(1, 2001, 200):
        store.apply(new_calls(range(number, number + 200), transcript="said " * 1000))
    with _file_size_limit(path.stat().st_size + 20_000), pytest.raises(StoreUnavailable, match="reopened"):
        store.checkpoint_if_due()
    store.reopen()
    assert rows(store, "SELECT count(*) FROM deliveries") == [(2000,)]
    assert store.verify() == []
    store.apply(new_calls([2001]))
    assert store.positions()["journal", JOURNAL] == 2001


@pytest.mark.parametrize("room", [20_000, 300_000, 1_500_000])
def test_a_snapshot_on_a_full_disk_says_so_and_leaves_nothing(store: Store, path: Path, room: int) -> None:
    """Wherever the disk ends, the first error is told and not what failed after it; the store goes on."""
    for number in range(1, 2001, 200):
        store.apply(new_calls(range(number, number + 200), transcript="said " * 1000 + str(number)))
    store.checkpoint_if_due()
    before = {file.name for file in path.parent.iterdir()}
    with _file_size_limit(room), pytest.raises(StoreUnavailable) as refused:
        store.snapshot(path.with_name("copy.duckdb"))
    assert "rollback" not in refused.value.message.lower()
    assert any(word in refused.value.message.lower() for word in ("could not write", "too large", "no space"))
    assert {file.name for file in path.parent.iterdir()} == before
    store.apply(new_calls([2001]))
    store.snapshot(path.with_name("copy.duckdb"))
    with duckdb.connect(str(path.with_name("copy.duckdb")), read_only=True) as copy:
        assert copy.sql("SELECT count(*) FROM calls").fetchall() == [(2001,)]


def test_reopening_ends_queries_that_run(store: Store) -> None:
    """A reader in the midst of a long query neither delays reopening nor keeps the old database alive."""
    started, ended = threading.Event(), list[BaseException]()

    def read() -> None:
        cursor = store.cursor()
        started.set()
        try:
            cursor.execute("SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b WHERE a.range + b.range = 1")
            cursor.fetchall()
        except duckdb.Error as error:
            ended.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert started.wait(DEADLINE_S)
    store.reopen()
    reader.join(DEADLINE_S)
    assert not reader.is_alive()
    assert len(ended) == 1
    store.apply(new_calls([1]))
    assert rows(store, "SELECT count(*) FROM calls") == [(1,)]


def _read_all(path: Path) -> None:
    store = Store.open(path, rules=RULES)
    try:
        store.verify()
        store.stored_calls([CallKey("aisync", "acme", f"call-{number}") for number in range(1, 2001)])
    finally:
        store.close()


def _rotten_blocks(path: Path) -> Iterator[bytes]:
    """A store's file with one block after the other rotten; what it was before each."""
    store = Store.open(path, rules=RULES)
    for number in range(1, 2001, 500):
        store.apply(new_calls(range(number, number + 500), transcript="said " * 100))
    store.close()
    whole = path.read_bytes()
    for block in range(3 * 4096, len(whole) - 20_064, 256 * 1024):
        rotten = bytearray(whole)
        rotten[block + 20_000 : block + 20_064] = b"\x5a" * 64
        path.write_bytes(rotten)
        yield whole


def _left_with_wal(path: Path) -> Path:
    """Twenty batches of ten calls, in the write-ahead log of a process that died."""
    with _applying(path, "200") as child:
        assert _positions_said(child, 200) == 200
    return path.with_name(path.name + ".wal")


def _applying(path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.storing", str(path), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)


def _positions_said(child: subprocess.Popen[str], more: int) -> int:
    """Wait until a child has applied so many more calls; the last position it said."""
    assert child.stdout is not None
    last = 0
    for _ in range(more // 10):
        line = child.stdout.readline()
        assert line, "the child ended"
        last = int(line)
    return last


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Within it no file of this process can grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
