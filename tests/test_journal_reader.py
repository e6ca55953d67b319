"""The journal's followers: waking, reading without a writer, and what damage becomes."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from calls import journal_reader
from calls.errors import JournalDamaged, JournalError, JournalUnavailable
from calls.journal import Append, Damaged, Journal, JournalReader
from calls.model import Delivery
from tests.journalling import DEADLINE_S, Answers, as_read, child, delivery, edit, filled, opened, said, tell

FOLLOWING_CHILD = """
import sys, time
from pathlib import Path
from calls.journal import JournalReader

reader = JournalReader(Path(sys.argv[1]))
print(reader.journal_id, flush=True)
after = 0
while after < int(sys.argv[2]):
    if reader.wait(after, 10):
        for record in reader.read(after):
            after = record.position
            print(record.id, flush=True)
reader.close()
"""
READING_CHILD = """
import os, sys
from pathlib import Path
from calls.journal import JournalReader

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
path = Path(sys.argv[1])
assert not os.access(path.parent, os.W_OK)
reader = JournalReader(path)
seen = len(reader.read(0))
print(seen, flush=True)
sys.stdin.readline()
print(reader.wait(seen, 30), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal.sqlite"


@pytest.fixture
def folder_of_all() -> Iterator[Path]:
    """A folder that other users can reach; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="calltally-"))
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_follower_in_another_process_sees_every_record(path: Path) -> None:
    """It starts while the journal is written, and gets each record once, in order."""
    answers = Answers()
    records = [delivery(number) for number in range(300)]
    with opened(path, answers) as journal, child(FOLLOWING_CHILD, path, 300) as follower:
        assert said(follower) == journal.journal_id
        for record in records:
            journal.append(Append(record))
        assert [said(follower) for _ in records] == [record.id for record in records]


def test_a_follower_wakes_at_a_commit_and_not_only_at_its_poll(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a poll that would come too late, the nudge alone wakes it."""
    monkeypatch.setattr(journal_reader, "POLL_S", 10 * DEADLINE_S)
    with opened(path) as journal:
        reader = JournalReader(path)
        woken = threading.Event()

        def follow() -> None:
            assert reader.wait(0, 10 * DEADLINE_S)
            woken.set()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        journal.append(Append(delivery(1)))
        assert woken.wait(DEADLINE_S)
        thread.join()
        reader.close()


def test_a_follower_deep_in_the_tree_is_nudged_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket's address has about 107 bytes; a data folder's path may have more."""
    test_a_follower_wakes_at_a_commit_and_not_only_at_its_poll(
        tmp_path / ("deep" * 30) / ("down" * 30) / "journal.sqlite", monkeypatch
    )


def test_a_follower_without_a_socket_polls(path: Path) -> None:
    """Where the folder admits no socket, records are still seen soon."""
    path.parent.mkdir()
    (path.parent / "followers").write_text("a file where the folder should be")
    answers = Answers()
    with opened(path, answers) as journal:
        reader = JournalReader(path)
        threading.Timer(0.05, journal.append, (Append(delivery(1)),)).start()
        assert reader.wait(0, DEADLINE_S)
        reader.close()


def test_waiting_ends_without_records_at_the_time_limit(path: Path) -> None:
    """Nothing new is False, not an error and not a hang."""
    with opened(path):
        reader = JournalReader(path)
        assert reader.wait(0, 0.05) is False
        assert reader.read(0) == []
        reader.close()


def test_sockets_left_by_killed_followers_are_removed(path: Path) -> None:
    """A follower that died cannot tidy up: the writer does, at its next commit."""
    answers = Answers()
    with opened(path, answers) as journal:
        with child(FOLLOWING_CHILD, path, 300) as follower:
            said(follower)
        reader = JournalReader(path)
        assert len(os.listdir(path.parent / "followers")) == 2
        journal.append(Append(delivery(1)))
        assert reader.wait(0, DEADLINE_S)
        journal.append(Append(delivery(2)))
        answers.wait_durable(2)
        reader.close()
    assert os.listdir(path.parent / "followers") == []


def test_a_follower_outlives_its_writer(path: Path) -> None:
    """The writer is killed and comes back: the same reader goes on."""
    script = """
import sys
from pathlib import Path
from calls.journal import Append, Journal
from tests.journalling import delivery
journal = Journal(Path(sys.argv[1]), on_committed=lambda items, failure: print("durable", flush=True))
journal.append(Append(delivery(int(sys.argv[2]))))
sys.stdin.readline()
"""
    with child(script, path, 1) as writer:
        assert said(writer) == "durable"
        reader = JournalReader(path)
        assert reader.wait(0, DEADLINE_S)
    assert reader.wait(1, 0.05) is False
    with child(script, path, 2) as writer:
        assert said(writer) == "durable"
        assert reader.wait(1, DEADLINE_S)
        assert [record.position for record in reader.read(0)] == [1, 2]
    reader.close()


def test_a_closed_journal_is_read_without_a_writer(path: Path) -> None:
    """Whether its log was folded in or left behind."""
    records = filled(path, 20)
    reader = JournalReader(path)
    assert reader.read(0) == [as_read(record, reader.journal_id, at) for at, record in enumerate(records, 1)]
    reader.close()
    left_behind = path.with_name("left.sqlite")
    with opened(path) as journal:
        journal.append(Append(delivery(20)))
        reader = JournalReader(path)
        assert reader.wait(20, DEADLINE_S)
        for name in ("", "-wal"):
            shutil.copy(f"{path}{name}", f"{left_behind}{name}")
        reader.close()
    reader = JournalReader(left_behind)
    assert len(reader.read(0)) == 21
    reader.close()


def test_a_folder_that_may_not_be_written_can_be_read(folder_of_all: Path) -> None:
    """Another user reads a closed journal, and then follows it when a writer comes."""
    path = folder_of_all / "journal.sqlite"
    filled(path, 5)
    _let_others_read(path)
    with child(READING_CHILD, path) as reader:
        assert said(reader) == "5"
        answers = Answers()
        path.parent.chmod(0o755)
        with opened(path, answers) as journal:
            _let_others_read(path)
            journal.append(Append(delivery(6)))
            answers.wait_durable(1)
            with child(READING_CHILD, path) as second:
                assert said(second) == "6"
                tell(second)
                tell(reader)
                assert said(reader) == "True"  # it was there before the writer, and sees what that one wrote
                journal.append(Append(delivery(7)))
                assert said(second) == "True"


def test_there_is_a_clear_error_before_the_journal_exists(path: Path) -> None:
    """The worker may start first: it is told so, and tries again."""
    with pytest.raises(JournalUnavailable, match=r"There is no journal at .* yet") as missing:
        JournalReader(path)
    assert missing.value.transient
    path.parent.mkdir()
    path.touch()
    with pytest.raises(JournalUnavailable, match="being made"):
        JournalReader(path)
    with opened(path):
        JournalReader(path).close()


def test_reading_ends_at_the_limits_and_goes_on_behind_them(path: Path) -> None:
    """A number of rows and a number of bytes bound one answer; one record is always returned."""
    records = filled(path, 50, size=1000)
    reader = JournalReader(path)
    assert [found.position for found in reader.read(10, rows=5)] == [11, 12, 13, 14, 15]
    assert [found.position for found in reader.read(10, bytes_max=3000)] == [11, 12, 13]
    assert [found.position for found in reader.read(10, bytes_max=1)] == [11]
    assert [found.position for found in reader.read(48)] == [49, 50]
    assert reader.read(50) == []
    assert len(records) == 50
    reader.close()


def test_an_altered_row_is_reported_and_kept_out(path: Path) -> None:
    """Body, head, seal or position: whatever was changed, that row is Damaged and the others are served."""
    records = filled(path, 10)
    edit(path, "UPDATE rows SET body = replace(body, '2', '3') WHERE position = 3")
    edit(path, "UPDATE rows SET head = replace(head, 'acme', 'acne') WHERE position = 5")
    edit(path, "UPDATE rows SET seal = zeroblob(16) WHERE position = 7")
    edit(path, "UPDATE rows SET body = NULL WHERE position = 8")
    edit(path, "UPDATE rows SET head = 17 WHERE position = 9")
    reader = JournalReader(path)
    found = reader.read(0)
    reader.close()
    assert [record.position for record in found] == list(range(1, 11))
    assert [record.position for record in found if isinstance(record, Damaged)] == [3, 5, 7, 8, 9]
    assert found[0] == as_read(records[0], reader.journal_id, 1)


def test_a_row_in_another_place_is_damage(path: Path) -> None:
    """A row is bound to its position and to its journal: neither an old page nor a foreign row passes."""
    filled(path, 4)
    other = path.with_name("other.sqlite")
    filled(other, 4)
    edit(path, "UPDATE rows SET (seal, head, body) = (SELECT seal, head, body FROM rows WHERE position = 1) "
               "WHERE position = 2")  # fmt: skip
    connection = sqlite3.connect(other)
    row = connection.execute("SELECT seal, head, body FROM rows WHERE position = 3").fetchone()
    connection.close()
    edit(path, "UPDATE rows SET seal = ?, head = ?, body = ? WHERE position = 3", *row)
    reader = JournalReader(path)
    assert [type(record) for record in reader.read(0)] == [Delivery, Damaged, Damaged, Delivery]
    reader.close()


def test_missing_rows_are_reported_one_by_one(path: Path) -> None:
    """A gap at the start, inside or at the end is never skipped silently."""
    filled(path, 10)
    edit(path, "DELETE FROM rows WHERE position IN (1, 4, 5, 10)")
    reader = JournalReader(path)
    found = reader.read(0)
    assert [record.position for record in found] == list(range(1, 11))
    assert [record for record in found if isinstance(record, Damaged)] == [
        Damaged(position, "The row is missing.") for position in (1, 4, 5, 10)
    ]
    assert [record.position for record in reader.read(2, rows=2)] == [3, 4]
    reader.close()


@pytest.mark.parametrize(
    ("damage", "begins_at"),
    [
        ("UPDATE rows SET body = '{}' WHERE position = 1", 1),
        ("DELETE FROM rows WHERE position IN (1, 2, 4)", 3),
        ("DELETE FROM rows", 11),
    ],
    ids=["damaged", "gone", "all gone"],
)
def test_a_journal_tells_where_its_rows_begin(path: Path, damage: str, begins_at: int) -> None:
    """A lost beginning is told from a damaged first record: a store made again would lack it all."""
    filled(path, 10)
    edit(path, damage)
    reader = JournalReader(path)
    assert reader.begins_at() == begins_at
    reader.close()


def test_no_flipped_bit_is_served_or_hides_a_record(path: Path) -> None:
    """Anywhere in the file: each position comes back exactly as it was or as Damaged, or the file is refused."""
    records = filled(path, 40, size=700)
    edit(path, "VACUUM")
    pristine = path.read_bytes()
    reader = JournalReader(path)
    expected = reader.read(0)
    reader.close()
    assert len(expected) == len(records)
    dice = random.Random(7)
    seen_damage = refused = 0
    for number in range(400):
        # Half of the flips go to the first bytes of a page, where the structure is.
        at = dice.randrange(len(pristine)) if number % 2 else dice.randrange(len(pristine) // 8192) * 8192
        at += 0 if number % 2 else dice.randrange(120)
        broken = bytearray(pristine)
        broken[at] ^= 1 << dice.randrange(8)
        damaged = path.with_name("damaged.sqlite")
        damaged.write_bytes(broken)
        try:
            with closing(JournalReader(damaged)) as reader:
                found = reader.read(0)
        except JournalError:
            refused += 1
            continue
        assert [record.position for record in found] == list(range(1, len(found) + 1)), at
        for record, original in zip(found, expected, strict=False):
            assert isinstance(record, Damaged) or record == original, at
        lost_end = len(expected) - len(found)
        assert lost_end == 0, (at, len(found))
        seen_damage += any(isinstance(record, Damaged) for record in found)
    assert seen_damage > 50
    assert refused < 200


def test_an_older_copy_put_back_is_noticed(path: Path) -> None:
    """A reader that has seen more than the journal holds says so instead of waiting for ever."""
    filled(path, 5)
    copy = path.with_name("backup.sqlite")
    shutil.copy(path, copy)
    answers = Answers()
    with opened(path, answers) as journal:
        journal.append(Append(delivery(6)))
        answers.wait_durable(1)
    reader = JournalReader(path)
    assert reader.wait(5, DEADLINE_S)
    os.replace(copy, path)
    with pytest.raises(JournalUnavailable, match="removed or replaced"):
        reader.wait(6, DEADLINE_S)
    reader.close()
    reader = JournalReader(path)
    with pytest.raises(JournalDamaged, match="ends at position 5, but 6 was read"):
        reader.wait(6, 0)
    with pytest.raises(JournalDamaged, match="Rebuild the store"):
        reader.read(6)
    reader.close()


def test_positions_that_were_moved_away_are_named(path: Path) -> None:
    """They are no gap: reading from before the first position says where the file begins, reading from there works."""
    from calls.journal_file import set_first_position

    filled(path, 10)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM rows WHERE position < 8")
    set_first_position(connection, 8)
    connection.execute("COMMIT")
    connection.close()
    reader = JournalReader(path)
    assert reader.first_position() == 8
    with pytest.raises(JournalError, match="begins at position 8; 1 to 7 are not in it") as archived:
        reader.read(0)
    assert archived.value.code == "journal_archived"
    assert [record.position for record in reader.read(7)] == [8, 9, 10]
    reader.close()
    with opened(path) as journal:
        assert (journal.first_position(), journal.last_position()) == (8, 10)


def test_the_log_stays_bounded_while_a_reader_follows(path: Path) -> None:
    """150 MiB are written as fast as they go, with a reader at work all the time: the log does not grow with them."""
    answers = Answers()
    wal = path.with_name("journal.sqlite-wal")
    count, largest, room = 6000, 0, threading.Semaphore(200)
    stop = threading.Event()

    def acknowledge(items: list[Append], failure: JournalUnavailable | None) -> None:
        answers(items, failure)
        for _ in items:
            room.release()

    journal = Journal(path, on_committed=acknowledge)
    read: list[int] = []

    def follow() -> None:
        reader = JournalReader(path)
        after = 0
        while not (stop.is_set() and after == count):
            if reader.wait(after, 0.2):
                after = reader.read(after)[-1].position
        read.append(after)
        reader.close()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    for number in range(count):
        assert room.acquire(timeout=DEADLINE_S)
        journal.append(Append(delivery(number, size=25_000)))
        largest = max(largest, wal.stat().st_size)
    answers.wait_durable(count)
    stop.set()
    follower.join(DEADLINE_S)
    journal.close()
    assert read == [count]
    assert not answers.failures
    assert largest < 64 << 20


def _let_others_read(path: Path) -> None:
    """All may enter the folder and read in it, nobody may write (root may always, so the child gives that up)."""
    for name in path.parent.iterdir():
        name.chmod(0o644 if name.is_file() else 0o755)
    path.parent.chmod(0o755 if os.geteuid() == 0 else 0o555)
