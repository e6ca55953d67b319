"""Times in a journal do not fall where positions rise, so one total order serves one journal and several."""

from __future__ import annotations

import logging
from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calls.journal import STEP_US, Append, JournalReader, NewDelivery, NewNotice
from calls.model import Delivery, Micros, Notice, StreamPoint
from tests.journalling import Answers, as_read, delivery, edit, notice, opened

SECOND = 1_000_000
BEGIN: Micros = 1_700_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def at(time: Micros, record: NewDelivery | NewNotice) -> NewDelivery | NewNotice:
    return msgspec.structs.replace(record, received_at=time)


def journal_them(path: Path, *items: Append) -> None:
    """Append to the journal at the path, and close it."""
    answers = Answers()
    with opened(path, answers) as journal:
        for item in items:
            journal.append(item)
        answers.wait_durable(len(items))


def in_journal(path: Path) -> list[Delivery | Notice]:
    reader = JournalReader(path)
    found = reader.read(0)
    reader.close()
    records = [record for record in found if isinstance(record, Delivery | Notice)]
    assert len(records) == len(found)
    return records


def times(path: Path) -> list[Micros]:
    return [record.received_at for record in in_journal(path)]


@given(
    given_times=st.lists(st.integers(0, STEP_US - 1).map(lambda late: BEGIN + late), min_size=1, max_size=12),
    reopened=st.sets(st.integers(1, 11)),
    notices=st.sets(st.integers(0, 11)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_times_never_fall_and_nothing_else_changes(
    given_times: list[Micros], reopened: set[int], notices: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever comes late by less than an hour bears the last one's time, across restarts too; ids stay."""
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    records = [
        at(time, notice(number) if number in notices else delivery(number)) for number, time in enumerate(given_times)
    ]
    cuts = sorted(cut for cut in reopened if cut < len(records))
    for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        journal_them(path, *[Append(record) for record in records[start:end]])
    found = in_journal(path)
    lifted = accumulate(given_times, max)
    assert found == [
        as_read(at(time, record), found[0].journal_id, position)
        for position, (time, record) in enumerate(zip(lifted, records, strict=True), 1)
    ]
    points = [StreamPoint(record.received_at, record.journal_id, record.position) for record in found]
    assert points == sorted(points)
    assert [record.id for record in found] == [record.id for record in records]


def test_a_clock_that_went_far_back_is_followed_and_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else a clock that was a year ahead for a moment would give every record of that year one time."""
    ahead = BEGIN + 365 * 24 * STEP_US
    journal_them(path, Append(at(ahead, delivery(1))))
    with caplog.at_level(logging.ERROR, logger="calls.journal"):
        journal_them(path, *[Append(at(BEGIN + late, delivery(2 + late))) for late in (5, 3, 7)])
        journal_them(path, Append(at(BEGIN + 6, delivery(12))))
    # After a restart the last records still show the year ahead, so it is told once more and changes nothing.
    assert times(path) == [ahead, BEGIN + 5, BEGIN + 5, BEGIN + 7, BEGIN + 6]
    assert [record.message.split(":")[0] for record in caplog.records] == ["journal_clock"] * 2
    assert "stands 31535999 s behind" in caplog.records[0].message


def test_what_comes_out_of_the_quarantine_keeps_its_time(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It came when it came; and what is received after it goes by the records before it, also after a restart."""
    journal_them(
        path,
        Append(at(BEGIN + 90 * SECOND, delivery(1))),
        Append(at(BEGIN + 10 * SECOND, delivery(2)), late=True),
        Append(at(BEGIN - 48 * STEP_US, delivery(3)), late=True),
    )
    journal_them(path, Append(at(BEGIN + 80 * SECOND, delivery(4))))
    assert times(path) == [BEGIN + 90 * SECOND, BEGIN + 10 * SECOND, BEGIN - 48 * STEP_US, BEGIN + 90 * SECOND]
    assert not caplog.records


def test_damaged_records_at_the_end_give_no_time(path: Path) -> None:
    """The one before them does."""
    journal_them(path, *[Append(at(BEGIN + 90 * SECOND, delivery(number))) for number in (1, 2)])
    edit(path, "UPDATE rows SET head = x'ff00' WHERE position = 2")
    journal_them(path, Append(at(BEGIN + 80 * SECOND, delivery(3))))
    edit(path, "DELETE FROM rows WHERE position = 2")
    reader = JournalReader(path)
    (last,) = reader.read(2)
    reader.close()
    assert isinstance(last, Delivery)
    assert last.received_at == BEGIN + 90 * SECOND
