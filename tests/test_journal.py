"""The journal's writer: order, group commit, identity, one writer, what a crash leaves."""

from __future__ import annotations

import json
import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calls import journal as journal_module
from calls.errors import JournalError, JournalLocked, JournalUnavailable
from calls.journal import STEP_US, Append, Damaged, Journal, JournalReader, NewDelivery, NewNotice
from calls.journal_cursor import JournalCursor
from calls.model import Delivery, Notice, Trust, Verdict, delivery_id
from tests.journalling import Answers, as_read, child, delivery, edit, filled, notice, opened, said, tell
from tests.waiting import until

APPENDING_CHILD = """
import sys, threading
from pathlib import Path
from calls.journal import Append, Journal
from tests.journalling import delivery

first = int(sys.argv[2])
room = threading.Semaphore(64)

def acknowledge(items, failure):
    assert failure is None
    print(" ".join(str(item.waiter) for item in items), flush=True)
    for _ in items:
        room.release()

journal = Journal(Path(sys.argv[1]), on_committed=acknowledge)
for number in range(first, first + 1_000_000):
    room.acquire()
    journal.append(Append(delivery(number, size=1500), number))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal.sqlite"


def test_records_are_read_back_in_the_order_they_were_appended(path: Path) -> None:
    """Positions count from 1 without a gap, over deliveries and notices alike, and every field returns."""
    answers = Answers()
    records = [notice(number) if number % 3 == 0 else delivery(number) for number in range(500)]
    with opened(path, answers) as journal:
        for record in records:
            journal.append(Append(record))
        answers.wait_durable(500)
        reader = JournalReader(path)
        assert reader.read(0) == [as_read(record, journal.journal_id, at) for at, record in enumerate(records, 1)]
        assert reader.last_position() == journal.last_position() == 500
        reader.close()


def test_what_arrives_during_one_commit_is_the_next_batch(path: Path) -> None:
    """While the first record is being reported, fifty more arrive: they share one commit, in order."""
    answers = Answers()
    answers.hold.clear()
    with opened(path, answers) as journal:
        journal.append(Append(delivery(0), 0))
        assert answers.reached.wait(10)
        for number in range(1, 51):
            journal.append(Append(delivery(number), number))
        answers.hold.set()
        answers.wait_durable(51)
    assert [[item.waiter for item in items] for items, _ in answers.batches] == [[0], list(range(1, 51))]


def test_a_crowd_of_large_bodies_is_split_into_bearable_batches(path: Path) -> None:
    """Five bodies of 5 MiB that arrive at once are committed in more than one transaction, in order."""
    answers = Answers()
    answers.hold.clear()
    with opened(path, answers) as journal:
        for number in range(6):
            journal.append(Append(delivery(number, size=5 << 20 if number else 10), number))
            assert answers.reached.wait(10)
        answers.hold.set()
        answers.wait_durable(6)
    assert [[item.waiter for item in items] for items, _ in answers.batches] == [[0], [1, 2, 3], [4, 5]]


def test_appends_of_many_threads_all_become_durable_once(path: Path) -> None:
    """Eight threads append; each record is there once, and each thread's own are in its order."""
    answers = Answers()
    with opened(path, answers) as journal:

        def append(start: int) -> None:
            for number in range(start, start + 200):
                journal.append(Append(delivery(number)))

        threads = [threading.Thread(target=append, args=(start * 1000,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers.wait_durable(1600)
        reader = JournalReader(path)
        numbers = [json.loads(record.body)["number"] for record in reader.read(0) if isinstance(record, Delivery)]
        reader.close()
    assert len(set(numbers)) == 1600
    for start in range(8):
        own = [number for number in numbers if number // 1000 == start]
        assert own == sorted(own)


def test_a_reopened_journal_is_the_same_and_goes_on(path: Path) -> None:
    """After a restart the id is the same and positions continue."""
    filled(path, 3)
    answers = Answers()
    with opened(path, answers) as journal:
        first_id = journal.journal_id
        journal.append(Append(delivery(99)))
        answers.wait_durable(1)
    with opened(path) as journal:
        assert journal.journal_id == first_id
        assert (journal.first_position(), journal.last_position()) == (1, 4)


def test_closing_commits_what_has_arrived_and_leaves_an_empty_log(path: Path) -> None:
    """Nothing queued is dropped by close, and the file alone holds everything."""
    answers = Answers()
    journal = Journal(path, on_committed=answers)
    for number in range(200):
        journal.append(Append(delivery(number)))
    journal.close()
    journal.close()
    assert len(answers.durable) == 200
    assert not path.with_name("journal.sqlite-wal").exists()
    with pytest.raises(JournalUnavailable, match="being closed"):
        journal.append(Append(delivery(1)))


def test_a_new_journal_is_readable_by_its_owner_only(path: Path) -> None:
    """Transcripts lie in it: neither the file nor its log may be read by others."""
    with opened(path):
        modes = {name: (path.parent / name).stat().st_mode & 0o777 for name in ("journal.sqlite", "journal.sqlite-wal")}
    assert modes == {"journal.sqlite": 0o600, "journal.sqlite-wal": 0o600}


def test_a_second_writer_gets_a_clear_error(path: Path) -> None:
    """Whoever opens a journal that is being written is refused at once, in this process too."""
    with opened(path), pytest.raises(JournalLocked) as refused:
        Journal(path, on_committed=Answers())
    assert str(path.parent) in refused.value.message
    assert f"process {os.getpid()}" in refused.value.message
    assert "Stop that one, or give this one another data folder." in refused.value.message


def test_a_writer_that_waits_takes_over_when_the_other_ends(path: Path) -> None:
    """In a rolling restart the new writer starts before the old one has drained, and loses nothing of it."""
    script = """
import sys
from pathlib import Path
from calls.journal import Append, Journal
from tests.journalling import delivery
journal = Journal(Path(sys.argv[1]), on_committed=lambda items, failure: None)
print("writing", flush=True)
sys.stdin.readline()
for number in range(100):
    journal.append(Append(delivery(number)))
journal.close()
"""
    with child(script, path) as old:
        assert said(old) == "writing"
        taken: list[Journal] = []
        waiting = threading.Thread(
            target=lambda: taken.append(Journal(path, on_committed=Answers(), wait_s=30)), daemon=True
        )
        waiting.start()
        tell(old)
        waiting.join(30)
        assert taken[0].last_position() == 100
        taken[0].close()


def test_a_killed_writer_has_lost_nothing_it_acknowledged(path: Path) -> None:
    """Three times a writer under load is killed without warning: every acknowledged record is there, once."""
    acknowledged: list[int] = []
    for round_number in range(3):
        with child(APPENDING_CHILD, path, round_number * 1_000_000) as writer:
            assert writer.stdout is not None
            target = len(acknowledged) + 2000
            while len(acknowledged) < target:
                line = said(writer)
                assert line, "the writer ended by itself"
                acknowledged += map(int, line.split())
            writer.kill()
            # What it had written to the pipe before it died was acknowledged as well; a torn last line was not.
            for line in writer.stdout:
                if line.endswith("\n"):
                    acknowledged += map(int, line.split())
        with opened(path) as journal:
            last = journal.last_position()
    reader = JournalReader(path)
    found: list[int] = []
    after = 0
    while records := reader.read(after):
        assert not any(isinstance(record, Damaged) for record in records)
        found += [record.received_at - 1_700_000_000_000_000 for record in records if isinstance(record, Delivery)]
        after = records[-1].position
    reader.close()
    assert after == last == len(found) == len(set(found))
    assert set(acknowledged) <= set(found)


def test_the_newest_ids_are_known_without_reading_bodies(path: Path) -> None:
    """The door's memory of seen deliveries: the newest, oldest of them first, notices left out."""
    answers = Answers()
    records = [notice(number) if number % 5 == 0 else delivery(number) for number in range(100)]
    with opened(path, answers) as journal:
        for record in records:
            journal.append(Append(record))
        answers.wait_durable(100)
        ids = [record.id for record in records if isinstance(record, NewDelivery)]
        assert list(journal.recent_ids()) == ids
        assert list(journal.recent_ids(7)) == ids[-7:]
        assert list(journal.recent_ids(0)) == []


def test_a_body_of_32_mib_goes_through(path: Path) -> None:
    """The largest body the door takes is journalled and read like any other."""
    answers = Answers()
    body = os.urandom(1 << 20) * 32
    with opened(path, answers) as journal:
        record = NewDelivery(
            source="a", provider="a", org="", body=body, headers={}, received_at=1, trust=Trust.A,
            id=delivery_id("a", body),
        )  # fmt: skip
        journal.append(Append(record))
        journal.append(Append(delivery(1)))
        answers.wait_durable(2)
        reader = JournalReader(path)
        first = reader.read(0)
        assert [found.position for found in first] == [1]  # it fills the answer alone
        assert first == [as_read(record, journal.journal_id, 1)]
        assert [found.position for found in reader.read(1)] == [2]
        reader.close()


def test_a_fault_in_the_callback_does_not_end_the_writer(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The caller's mistake with one batch is logged, and the next batch is still committed."""
    answers = Answers()

    def faulty(items: list[Append], failure: JournalUnavailable | None) -> None:
        if items[0].waiter == "faulty":
            raise RuntimeError("mistake")
        answers(items, failure)

    journal = Journal(path, on_committed=faulty)
    journal.append(Append(delivery(1), "faulty"))
    until(lambda: journal.last_position() == 1)
    journal.append(Append(delivery(2), "fine"))
    answers.wait_durable(1)
    journal.close()
    assert "on_committed failed" in caplog.text


def test_too_much_waiting_for_the_disk_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk stands still memory stays bounded: what is over the bound is refused at once."""
    monkeypatch.setattr(journal_module, "PENDING_MAX_BYTES", 100_000)
    answers = Answers()
    answers.hold.clear()
    with opened(path, answers) as journal:
        journal.append(Append(delivery(0)))
        assert answers.reached.wait(10)
        journal.append(Append(delivery(1, size=60_000)))
        with pytest.raises(JournalUnavailable, match="does not keep up"):
            journal.append(Append(delivery(2, size=60_000)))
        answers.hold.set()
        answers.wait_durable(2)
        journal.append(Append(delivery(2, size=60_000)))
        answers.wait_durable(3)


def test_an_id_that_is_no_digest_is_refused_at_the_door(path: Path) -> None:
    """A wrong id would read back as damage, so its shape is checked before anything is queued."""
    with opened(path) as journal:
        record = delivery(1)
        for wrong in ("", "abc", "zz" * 32, record.id[:-2]):
            fields = {name: getattr(record, name) for name in record.__struct_fields__} | {"id": wrong}
            with pytest.raises(ValueError, match=r"id|hex"):
                journal.append(Append(NewDelivery(**fields)))


def test_a_diagnosis_with_half_a_surrogate_pair_is_kept(path: Path) -> None:
    """Text without a UTF-8 form must not cost its batch: the unreadable half becomes a question mark."""
    answers = Answers()
    with opened(path, answers) as journal:
        journal.append(Append(notice(1, detail="The agent's name is \ud83d.")))
        answers.wait_durable(1)
        reader = JournalReader(path)
        [found] = reader.read(0)
        reader.close()
    assert isinstance(found, Notice)
    assert found.detail == "The agent's name is ?."


def test_a_file_that_is_no_journal_is_left_alone(path: Path) -> None:
    """Someone else's database, or a journal of a newer version, is refused by name and not changed."""
    path.parent.mkdir()
    edit(path, "CREATE TABLE mine (a)")
    with pytest.raises(JournalError, match="no journal of Calltally"):
        Journal(path, on_committed=Answers())
    with pytest.raises(JournalError, match="no journal of Calltally"):
        JournalReader(path)
    other = path.with_name("newer.sqlite")
    filled(other, 1)
    edit(other, "PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="newer Calltally"):
        Journal(other, on_committed=Answers())
    with pytest.raises(JournalError, match="newer Calltally"):
        JournalReader(other)


def test_a_cursor_is_kept_in_the_journal_while_it_is_written(path: Path) -> None:
    """A follower's own position survives, beside a busy writer."""
    answers = Answers()
    with opened(path, answers) as journal:
        cursor = JournalCursor(path, "relay")
        assert cursor.position() == 0
        for number in range(50):
            journal.append(Append(delivery(number)))
            cursor.save(number)
        answers.wait_durable(50)
        assert not answers.failures
        cursor.close()
    reopened = JournalCursor(path, "relay")
    assert reopened.position() == 49
    another = JournalCursor(path, "another")
    assert another.position() == 0
    another.close()
    reopened.close()


# Extreme, and too far apart for the journal to take one for late.
times = st.integers(-(2**63) // STEP_US + 1, 2**63 // STEP_US - 1).map(lambda steps: steps * STEP_US)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
odd_deliveries = st.builds(
    lambda source, provider, org, body, headers, received_at, trust: NewDelivery(
        source=source, provider=provider, org=org, body=body, headers=headers, received_at=received_at, trust=trust,
        id=delivery_id(source, body),
    ),
    texts, texts, texts, st.binary(max_size=20_000) | st.sampled_from([b"", b"\0", b"\xff\xfe", b"\0" * 9000]),
    st.dictionaries(texts, texts, max_size=4), times, st.sampled_from(Trust),
)  # fmt: skip
odd_notices = st.builds(
    NewNotice,
    source=texts, provider=texts, verdict=st.sampled_from(Verdict), reason=st.none() | texts,
    detail=st.none() | texts, id=st.none() | texts, bytes=st.integers(0, 2**63 - 1), count=st.integers(0, 2**63 - 1),
    received_at=times,
)  # fmt: skip


@given(st.lists(odd_deliveries | odd_notices, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_values_return_exactly(tmp_path: Path, records: list[NewDelivery | NewNotice]) -> None:
    """NUL, empty and non-UTF-8 bodies, any Unicode and extreme numbers come back as they went in."""
    path = tmp_path / "odd.sqlite"
    answers = Answers()
    with opened(path, answers) as journal:
        before = journal.last_position()
        for record in records:
            journal.append(Append(record))
        answers.wait_durable(len(records))
        reader = JournalReader(path)
        found = reader.read(before)
        reader.close()
    assert found == [as_read(record, journal.journal_id, at) for at, record in enumerate(records, before + 1)]
    assert all(record.id == delivery_id(record.source, record.body) for record in found if isinstance(record, Delivery))
    assert all(b.position == a.position + 1 for a, b in pairwise(found))
