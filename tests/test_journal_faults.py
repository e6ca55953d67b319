"""The journal when the disk refuses: never a false success, a clear sentence, and recovery without a restart."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from calls import journal as journal_module
from calls import journal_file
from calls.errors import JournalDamaged, JournalUnavailable
from calls.journal import Append, Damaged, Journal, JournalReader
from calls.model import Delivery
from tests.failing_fsync import can_fail_fsync
from tests.journalling import Answers, child, delivery, edit, filled, opened, said
from tests.waiting import until

FULL_DISK_CHILD = """
import resource, sys, threading, time
from pathlib import Path
from calls.journal import Append, Journal
from tests.journalling import Answers, delivery
from tests.waiting import until

answers = Answers()
journal = Journal(Path(sys.argv[1]), on_committed=answers)
number = 0
room = int(sys.argv[2])
# No file of this process may grow beyond this, as on a disk that has no room left: writes fail half-way.
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
while not answers.failures:
    journal.append(Append(delivery(number, size=100_000), number))
    number += 1
    answers.wait(lambda answers: len(answers.batches) >= number)
print(answers.failures[0].message, flush=True)
print(journal.health() is not None, flush=True)
for _ in range(20):
    journal.append(Append(delivery(number, size=100_000), number))
    number += 1
answers.wait(lambda answers: sum(len(items) for items, _ in answers.batches) >= number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
until(lambda: journal.health() is None)
print("recovered", flush=True)
journal.append(Append(delivery(number, size=100_000), number))
number += 1
answers.wait(lambda answers: sum(len(items) for items, _ in answers.batches) >= number)
assert answers.batches[-1][1] is None
print(*[item.waiter for item in answers.durable], flush=True)
sys.stdin.readline()
"""


LOST_PAGES_CHILD = """
import os, shutil, sys
from pathlib import Path
from calls.journal import Append, Journal
from calls.journal_cursor import JournalCursor
from tests.failing_fsync import fail_fsync_here
from tests.journalling import Answers, delivery

path, cut = Path(sys.argv[1]), Path(sys.argv[2])
wal = path.with_name(path.name + "-wal")

def descriptors():
    held = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            held[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass
    return [number for number, file in held.items() if file == str(wal)]

class Disk(Answers):
    # Called in the writer's thread, after each commit and before its senders are answered.
    def __call__(self, items, failure):
        if failure is None and items[0].waiter == "before":
            self.failing = descriptors()
            fail_fsync_here(self.failing)
        if failure is not None:
            # Files that are opened from here on get other numbers, and their fsyncs succeed.
            while os.dup(0) < max(self.failing):
                pass
            # At once, so that no probe comes in between.
            journal.append(Append(delivery(3), "after"))
        if failure is None and items[0].waiter == "after":
            cut_power()
        super().__call__(items, failure)

def cut_power():
    cut.mkdir()
    for file in (path, wal):
        shutil.copy(file, cut / file.name)
    content = bytearray((cut / wal.name).read_bytes())
    if content[16:24] == salts:
        content[synced:written] = bytes(written - synced)
    (cut / wal.name).write_bytes(content)

disk = Disk()
journal = Journal(path, on_committed=disk)
cursor = JournalCursor(path, "relay")
journal.append(Append(delivery(1), "before"))
disk.wait_durable(1)
synced = max(wal.stat().st_size, 32)
cursor.save(1)
salts, written = wal.read_bytes()[16:24], wal.stat().st_size
assert written > synced
journal.append(Append(delivery(2), "refused"))
disk.wait(lambda answers: len(answers.failures) == 1)
print(disk.failures[0].message, flush=True)
disk.wait_durable(2)
print(*[item.waiter for item in disk.durable], flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal.sqlite"


@pytest.mark.parametrize("room", [200_000, 1_000_000, 5_000_000])
def test_a_disk_without_room_refuses_and_recovers(path: Path, room: int) -> None:
    """Wherever a write fails: the batch is refused, health says why, and with room again all goes on by itself."""
    with child(FULL_DISK_CHILD, path, room) as writer:
        assert str(path.parent) in said(writer)
        assert said(writer) == "True"
        assert said(writer) == "recovered"
        acknowledged = {int(number) for number in said(writer).split()}
        writer.kill()
    reader = JournalReader(path)
    found = reader.read(0, bytes_max=1 << 30)
    reader.close()
    assert not any(isinstance(record, Damaged) for record in found)
    kept = [record.received_at - 1_700_000_000_000_000 for record in found if isinstance(record, Delivery)]
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))


def test_nothing_is_acknowledged_behind_pages_that_a_failed_fsync_lost(path: Path, tmp_path: Path) -> None:
    """The kernel reports a page it could not write once, and drops it: a power cut then must not cut off the rest."""
    if not can_fail_fsync():
        pytest.skip("An fsync is made to fail by Linux's seccomp, which this machine does not have.")
    cut = tmp_path / "cut"
    with child(LOST_PAGES_CHILD, path, cut) as writer:
        assert "failed (disk I/O error)" in said(writer)
        assert said(writer) == "before after"
    with opened(cut / path.name):
        reader = JournalReader(cut / path.name)
        found = reader.read(0)
        reader.close()
    numbers = [record.received_at % 10 for record in found if isinstance(record, Delivery)]
    assert {1, 3} <= set(numbers)


def test_sqlites_own_full_error_names_the_disk(path: Path) -> None:
    """The sentence for a full disk says so, and what to do."""
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE t (a)")
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    message = journal_file.translate(path, full.value).message
    assert message.startswith(
        f"The disk that holds the journal in {path.parent} is full. Free space there, at least 64 MiB"
    )


def test_a_start_on_a_disk_that_takes_nothing_does_not_promise_to_go_on(path: Path) -> None:
    """Whoever ends there has to be started again; one that runs goes on by itself. One sentence is true of both."""
    for error in (OSError(errno.EROFS, "Read-only file system"), OSError(errno.ENOSPC, "No space left on device")):
        message = journal_file.translate(path, error).message
        assert str(path.parent) in message
        assert "one that has ended must be started again" in message


def test_a_locked_journal_refuses_and_recovers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's write lock costs the batches of that time, not the process."""
    monkeypatch.setattr(journal_file, "BUSY_MS", 50)
    answers = Answers()
    with opened(path, answers) as journal:
        browser = sqlite3.connect(path, isolation_level=None)
        browser.execute("BEGIN IMMEDIATE")
        journal.append(Append(delivery(1), "refused"))
        answers.wait(lambda answers: len(answers.failures) == 1)
        assert "Another program keeps the journal" in answers.failures[0].message
        health = journal.health()
        assert health is not None
        assert "locked" in health.message
        assert health.transient
        browser.execute("ROLLBACK")
        until(lambda: journal.health() is None)  # by a probe: nothing was appended
        journal.append(Append(delivery(2), "taken"))
        answers.wait_durable(1)
        browser.close()
        reader = JournalReader(path)
        assert [record.position for record in reader.read(0)] == [1]
        reader.close()
    assert [item.waiter for item in answers.durable] == ["taken"]


def test_a_stalled_disk_turns_health_bad(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a batch hangs, its senders get no answer: health must say so before it ends, and be good again after."""
    monkeypatch.setattr(journal_module, "STALL_S", 0.1)
    monkeypatch.setattr(journal_file, "BUSY_MS", 20_000)
    answers = Answers()
    with opened(path, answers) as journal:
        assert journal.health() is None
        browser = sqlite3.connect(path, isolation_level=None)
        browser.execute("BEGIN IMMEDIATE")
        journal.append(Append(delivery(1)))
        until(lambda: journal.health() is not None)
        health = journal.health()
        assert health is not None
        assert "busy with one batch" in health.message
        assert not answers.batches
        browser.execute("ROLLBACK")
        browser.close()
        answers.wait_durable(1)
        until(lambda: journal.health() is None)


@pytest.mark.parametrize("lost", ["journal.sqlite", "journal.sqlite-wal"])
def test_a_removed_file_is_no_success(path: Path, lost: str) -> None:
    """SQLite goes on writing into a deleted file; nothing that went there is acknowledged, nor once it is back."""
    answers = Answers()
    aside = path.with_name("aside")
    with opened(path, answers) as journal:
        journal.append(Append(delivery(1), 1))
        answers.wait_durable(1)
        (path.parent / lost).rename(aside)
        for number in (2, 3):
            journal.append(Append(delivery(number), number))
        answers.wait(lambda answers: sum(len(items) for items, _ in answers.batches) == 3)
        health = journal.health()
        assert health is not None
        assert f"{path.parent / lost} was removed or replaced" in health.message
        aside.rename(path.parent / lost)
        until(lambda: journal.health() is None)
        journal.append(Append(delivery(4), 4))
        answers.wait_durable(2)
    assert [item.waiter for item in answers.durable] == [1, 4]
    reader = JournalReader(path)
    assert [record.received_at % 10 for record in reader.read(0) if isinstance(record, Delivery)] == [1, 4]
    reader.close()


def test_a_file_that_is_away_during_a_commit_costs_that_batch_only(path: Path) -> None:
    """The rows are in it, unacknowledged, and the next ones stand behind them."""
    answers = Answers()
    aside = path.with_name("aside")
    with opened(path, answers) as journal:
        journal.append(Append(delivery(1), 1))
        answers.wait_durable(1)
        connection = journal._connection
        assert connection is not None

        def take_away(statement: str) -> None:
            if statement == "COMMIT":
                connection.set_trace_callback(None)
                path.rename(aside)

        connection.set_trace_callback(take_away)
        journal.append(Append(delivery(2), 2))
        answers.wait(lambda answers: len(answers.failures) == 1)
        aside.rename(path)
        journal.append(Append(delivery(3), 3))
        answers.wait_durable(2)
        assert len(answers.failures) == 1
    assert [item.waiter for item in answers.durable] == [1, 3]
    reader = JournalReader(path)
    assert [(record.position, type(record)) for record in reader.read(0)] == [(n, Delivery) for n in (1, 2, 3)]
    reader.close()


def test_a_reader_in_the_way_of_a_new_log_holds_nothing_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed write the log is made sure of, also while a program that hangs in a read keeps it from ending."""
    monkeypatch.setattr(journal_file, "BUSY_MS", 50)
    answers = Answers()
    with opened(path, answers) as journal:
        for number in (1, 2):
            journal.append(Append(delivery(number), number))
            answers.wait_durable(number)
        hanging = sqlite3.connect(path, isolation_level=None)
        hanging.execute("BEGIN")
        hanging.execute("SELECT * FROM rows").fetchall()
        connection = journal._connection
        assert connection is not None
        connection.set_authorizer(lambda _, what, *__: sqlite3.SQLITE_DENY if what == "COMMIT" else sqlite3.SQLITE_OK)
        journal.append(Append(delivery(3), 3))
        answers.wait(lambda answers: len(answers.failures) == 1)
        journal.append(Append(delivery(4), 4))
        answers.wait_durable(3)
        assert journal.health() is None
        hanging.close()
    assert [item.waiter for item in answers.durable] == [1, 2, 4]


def test_ids_are_not_given_for_received_while_the_log_is_not_made_sure_of(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last process may have ended after a failed fsync: a sender must not hear 200 for what may yet be lost."""
    filled(path, 2)
    monkeypatch.setattr(journal_file, "BUSY_MS", 50)
    browser = sqlite3.connect(path, isolation_level=None)
    browser.execute("BEGIN IMMEDIATE")
    with opened(path) as journal:
        assert journal.health() is not None
        with pytest.raises(JournalUnavailable, match="could not be made sure of"):
            journal.recent_ids()
        browser.execute("ROLLBACK")
        browser.close()
        until(lambda: journal.health() is None)
        assert len(list(journal.recent_ids())) == 2


def test_a_removed_log_loses_nothing_acknowledged(path: Path) -> None:
    """With its log deleted for good, the journal refuses, and after a restart everything acknowledged is there."""
    answers = Answers()
    with opened(path, answers) as journal:
        for number in range(100):
            journal.append(Append(delivery(number)))
        answers.wait_durable(100)
        reader = JournalReader(path)
        assert reader.last_position() == 100
        path.with_name("journal.sqlite-wal").unlink()
        journal.append(Append(delivery(101)))
        answers.wait(lambda answers: bool(answers.failures))
    reader.close()
    with opened(path) as journal:
        reader = JournalReader(path)
        found = reader.read(0)
        reader.close()
    assert len(found) == 100
    assert not any(isinstance(record, Damaged) for record in found)


def test_a_replaced_journal_is_no_success(path: Path) -> None:
    """Another journal moved over ours is not written into."""
    other = path.parent / "other" / "journal.sqlite"
    filled(other, 3)
    pristine = other.read_bytes()
    answers = Answers()
    with opened(path, answers) as journal:
        os.replace(other, path)
        for number in (1, 2):
            journal.append(Append(delivery(number)))
        answers.wait(lambda answers: sum(len(items) for items, _ in answers.batches) == 2)
    assert not answers.durable
    assert path.read_bytes() == pristine


def test_a_damaged_file_is_named_at_the_start(path: Path) -> None:
    """Overwritten structure is refused with what to do, and the lock is free again."""
    filled(path, 5)
    with path.open("r+b") as file:
        file.write(b"\0" * 4096)
    for _ in range(2):
        with pytest.raises((JournalDamaged, JournalUnavailable)) as damaged:
            Journal(path, on_committed=Answers())
        assert "put back the last backup" in damaged.value.message.replace("\n", " ")
    edit_id = path.with_name("other.sqlite")
    filled(edit_id, 1)
    edit(edit_id, "UPDATE about SET value = 'another' WHERE key = 'journal_id'")
    with pytest.raises(JournalDamaged, match="no longer says which journal it is"):
        Journal(edit_id, on_committed=Answers())


def test_a_damaged_end_is_not_written_over(path: Path) -> None:
    """With its last commit row broken, the journal still goes on behind the last record."""
    filled(path, 1)
    with opened(path, answers := Answers()) as journal:
        journal.append(Append(delivery(2)))
        answers.wait_durable(1)
    edit(path, "UPDATE commits SET seal = zeroblob(16) WHERE last = 2")
    with opened(path, answers := Answers()) as journal:
        assert journal.last_position() == 2
        journal.append(Append(delivery(3)))
        answers.wait_durable(1)
        reader = JournalReader(path)
        assert [type(record) for record in reader.read(0)] == [Delivery] * 3
        reader.close()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A file where the data folder should be is named at the start."""
    (tmp_path / "data").write_text("")
    with pytest.raises(JournalUnavailable, match="Check that its folder exists"):
        Journal(tmp_path / "data" / "journal.sqlite", on_committed=Answers())


def test_a_reader_stopped_in_mid_read_does_not_stop_the_writer(path: Path) -> None:
    """A follower that hangs inside a transaction lets the log grow, and commits go on."""
    answers = Answers()
    with opened(path, answers) as journal:
        journal.append(Append(delivery(0)))
        answers.wait_durable(1)
        hanging = sqlite3.connect(path, isolation_level=None)
        hanging.execute("BEGIN")
        hanging.execute("SELECT * FROM rows").fetchall()
        for number in range(1, 40):
            journal.append(Append(delivery(number, size=1_000_000)))
        answers.wait_durable(40)
        assert journal.health() is None
        hanging.close()
        wal = path.with_name("journal.sqlite-wal")
        assert wal.stat().st_size > journal_module.WAL_MAX_BYTES
        # With the reader gone the log begins anew in a quiet moment, and at its next write shrinks to its bound.
        until(lambda: _is_small_after_a_write(journal, wal))


def test_a_writer_that_is_killed_while_waiting_frees_nothing_it_does_not_hold(path: Path) -> None:
    """A waiting second writer that dies leaves the first one's lock in place."""
    script = """
import sys
from pathlib import Path
from calls.journal import Journal
print("waiting", flush=True)
Journal(Path(sys.argv[1]), on_committed=lambda items, failure: None, wait_s=60)
print("took it", flush=True)
"""
    with opened(path):
        with child(script, path) as second:
            assert said(second) == "waiting"
        with child(script.replace("wait_s=60", "wait_s=0"), path) as third:
            assert said(third) == "waiting"
            assert said(third) == ""
            assert third.wait(30) == 1


def _is_small_after_a_write(journal: Journal, wal: Path) -> bool:
    journal.append(Append(delivery(1)))
    return wal.stat().st_size <= journal_module.WAL_MAX_BYTES
