"""Power cuts of the journal: a real journal under load, its trace, and every state that the disk may be left in.

`python -m tests.faults.power_cuts --seed 1` records a load and tries every cut of it in every way; what it prints when
one fails replays exactly that state.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from calls import journal as journal_module
from calls import journal_file
from calls.errors import JournalUnavailable
from calls.journal import Append, Damaged, Journal, JournalReader, NewDelivery, NewNotice
from calls.journal_cursor import JournalCursor
from calls.model import Delivery, Notice
from tests.faults.disk import SURVIVALS, Disk, Entry, Operation, Survival, read_trace
from tests.faults.memory import memory_folder
from tests.faults.preload import SYNCS, Shim
from tests.journalling import ROOT, Answers, as_read, delivery, notice

ACKS: Final = "acks"
"""The file in the watched folder to which a load writes what was acknowledged, so that it stands in the trace."""
NAME: Final = "journal.sqlite"
CURSOR: Final = "relay"
GENERATIONS: Final = 3
"""So often a load closes its journal and opens it again."""
WAL_MAX_BYTES: Final = 150_000
"""Small, so that a short load passes through many checkpoints."""
FAILING_SYNCS_EVERY: Final = 5
DEADLINE_S: Final = 120.0


class Found(AssertionError):
    """A state of the disk in which the journal breaks its promise; says how to see it again."""


class Cut(NamedTuple):
    """One state of the disk: after so many entries of the trace, what was not synced survives so."""

    after: int
    survival: Survival
    dice: str
    """The seed of this state's dice."""


class Recorded(NamedTuple):
    """A load's trace."""

    entries: list[Entry]
    seed: int
    refused: bool
    """Whether syncs failed on the way, so that some records were refused."""


def record(scratch: Path, seed: int, records: int, *, failing_syncs: bool = False, planted: bool = False) -> Recorded:
    """Run a load in a process of its own under the shim; `failing_syncs` makes fsync fail now and then.

    `planted` makes the journal answer before its fsync, to see that this is found.
    """
    folder = scratch / "data"
    shim = Shim(folder, scratch / "shim")
    if failing_syncs:
        shim.fail(SYNCS, errno.EIO, every=FAILING_SYNCS_EVERY)
    command = [sys.executable, "-m", "tests.faults.power_cuts", "--load", str(folder)]
    command += ["--seed", str(seed), "--records", str(records)]
    done = subprocess.run(
        [*command, "--planted"] if planted else command,
        cwd=ROOT,
        env={**os.environ, **shim.environment, "PYTHONPATH": str(ROOT)},
        timeout=DEADLINE_S,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Recorded(read_trace(shim.trace), seed, failing_syncs)


def all_cuts(recorded: Recorded, seed: int, *, times: int = 1) -> Iterator[Cut]:
    """Every state that a power cut may leave, each way so many times with other dice."""
    disk = Disk()
    for after, entry in enumerate(recorded.entries, 1):
        disk.feed(entry)
        settled = disk.is_settled()
        for survival in SURVIVALS[:1] if settled else SURVIVALS:
            for again in range(1 if survival in SURVIVALS[:2] else times):
                yield Cut(after, survival, f"{seed}/{after}/{survival.title}/{again}")


def some_cuts(recorded: Recorded, seed: int, count: int) -> list[Cut]:
    """A sample of all of them."""
    every = list(all_cuts(recorded, seed))
    return sorted(Random(seed).sample(every, min(count, len(every))), key=lambda cut: cut.after)


def try_cuts(recorded: Recorded, cuts: Iterable[Cut], folder: Path) -> int:
    """Open the journal in each of these states, which come in the order of the trace; how many there were.

    Raises Found for the first in which something acknowledged is missing, altered or doubled, or the journal does not
    open and go on by itself.
    """
    disk = Disk()
    acked: set[int] = set()
    at = tried = 0
    for cut in cuts:
        for entry in recorded.entries[at : cut.after]:
            disk.feed(entry)
            if entry.name == ACKS and entry.operation == Operation.WRITE:
                acked.update(map(int, entry.data.split()))
        at = cut.after
        place = folder / "state"
        _lay_out(disk.cut(cut.survival, Random(cut.dice)), place, Random(cut.dice))
        try:
            check(place, recorded, acked)
        except Exception as error:
            raise Found(
                f"after entry {cut.after} with '{cut.survival.title}' (load seed {recorded.seed}, dice {cut.dice!r}), "
                f"{len(acked)} acknowledged: {type(error).__name__}: {error}. The state is in {place}."
            ) from error
        shutil.rmtree(place)
        tried += 1
    return tried


def check(folder: Path, recorded: Recorded, acked: set[int]) -> None:
    """Whether the journal opens by itself, holds what was acknowledged and nothing else, and goes on."""
    path = folder / NAME
    answers = Answers()
    journal = Journal(path, on_committed=answers)
    try:
        before = _numbers(path, recorded.seed)
        assert before == sorted(set(before)), "doubled or out of order"
        assert acked <= set(before), f"acknowledged but gone: {sorted(acked - set(before))[:10]}"
        if not recorded.refused:
            assert before == list(range(len(before))), "a gap in what was sent"
        assert journal.last_position() == len(before)
        _check_cursor(path, len(before))
        journal.append(Append(delivery(999_999)))
        answers.wait_durable(1)
        assert journal.last_position() == len(before) + 1
    finally:
        journal.close()


def record_of(number: int, seed: int) -> NewDelivery | NewNotice:
    """The record of that number in the load of that seed."""
    dice = Random(f"{seed}/{number}")
    if dice.random() < 0.15:
        return notice(number)
    return delivery(number, size=dice.choice((10, 300, 2_000, 9_000, 40_000)))


def load(folder: Path, seed: int, records: int) -> None:
    """What runs under the shim: bursts of records, a cursor and a reader beside them, opened and closed some times."""
    dice = Random(seed)
    journal_module.WAL_MAX_BYTES = WAL_MAX_BYTES
    journal_module.WAL_QUIET_BYTES = 20_000
    journal_module.QUIET_S = 0.02
    journal_module.PROBE_S = 0.02
    acks = os.open(folder / ACKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    path = folder / NAME
    sizes = [records // GENERATIONS] * (GENERATIONS - 1)
    sizes.append(records - sum(sizes))
    first = 0
    for size in sizes:
        _one_generation(path, seed, range(first, first + size), acks, dice)
        first += size


def _one_generation(path: Path, seed: int, numbers: Sequence[int], acks: int, dice: Random) -> None:
    answered = threading.Semaphore(0)

    def committed(items: list[Append], failure: JournalUnavailable | None) -> None:
        if failure is None:
            os.write(acks, b"".join(b"%d\n" % item.waiter for item in items if isinstance(item.waiter, int)))
        for _ in items:
            answered.release()

    journal = _opened(path, committed)
    with _followed(path):
        left = list(numbers)
        while left:
            burst = left[: dice.randint(1, 6)]
            del left[: len(burst)]
            for number in burst:
                journal.append(Append(record_of(number, seed), number))
            for _ in burst:
                assert answered.acquire(timeout=DEADLINE_S)
            if dice.random() < 0.1:
                time.sleep(0.03)  # a quiet moment, in which the log is copied
    journal.close()


def _answer_before_the_fsync() -> None:
    right = journal_file.open_writable

    def wrong(path: Path, *, wal_max_bytes: int) -> sqlite3.Connection:
        connection = right(path, wal_max_bytes=wal_max_bytes)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    journal_file.open_writable = wrong


def _opened(path: Path, committed: Callable[[list[Append], JournalUnavailable | None], None]) -> Journal:
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            return Journal(path, on_committed=committed)
        except JournalUnavailable:  # where syncs are made to fail; whoever starts ingest tries again too
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


@contextmanager
def _followed(path: Path) -> Iterator[None]:
    """A relay that reads and saves how far it is, as another connection does beside the writer."""
    ended = threading.Event()

    def follow() -> None:
        reader, cursor = JournalReader(path), JournalCursor(path, CURSOR)
        while not ended.wait(0.003):
            try:
                read = reader.read(cursor.position(), rows=7)
                if read:
                    cursor.save(read[-1].position)
            except JournalUnavailable:
                continue
        reader.close()
        cursor.close()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(DEADLINE_S)


def _lay_out(image: dict[str, bytes], folder: Path, dice: Random) -> None:
    """Write what the disk holds; the index of the log (-shm) is in memory only, so anything may be in its file."""
    folder.mkdir(parents=True)
    for name, content in image.items():
        if name.startswith(NAME) and not name.endswith(("-shm", ".lock")):
            (folder / name).write_bytes(content)
    if dice.random() < 0.3:
        (folder / f"{NAME}-shm").write_bytes(dice.randbytes(32768))


def _numbers(path: Path, seed: int) -> list[int]:
    """The numbers of all records, each of which is as it was sent."""
    reader = JournalReader(path)
    try:
        records = reader.read(0, rows=1_000_000, bytes_max=1 << 40)
    finally:
        reader.close()
    numbers = []
    for found in records:
        assert not isinstance(found, Damaged), f"position {found.position}: {found.reason}"
        number = found.count if isinstance(found, Notice) else found.received_at % 1_000_000
        expected = as_read(record_of(number, seed), found.journal_id, found.position)
        assert found == expected, f"position {found.position} is not record {number} as it was sent"
        assert not isinstance(found, Delivery) or found.id
        numbers.append(number)
    return numbers


def _check_cursor(path: Path, last: int) -> None:
    cursor = JournalCursor(path, CURSOR)
    try:
        assert cursor.position() <= last, "the cursor stands beyond the journal's end"
    finally:
        cursor.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=int, default=150)
    parser.add_argument("--times", type=int, default=2, help="how often each way is diced")
    parser.add_argument("--failing-syncs", action="store_true")
    parser.add_argument("--planted", action="store_true", help="answer before the fsync: this must be found")
    parser.add_argument("--load", type=Path, help="run the load itself, in this folder")
    asked = parser.parse_args()
    if asked.load is not None:
        if asked.planted:
            _answer_before_the_fsync()
        load(asked.load, asked.seed, asked.records)
        return
    began = time.monotonic()
    scratch = memory_folder("power-cuts-")
    recorded = record(scratch, asked.seed, asked.records, failing_syncs=asked.failing_syncs, planted=asked.planted)
    tried = try_cuts(recorded, all_cuts(recorded, asked.seed, times=asked.times), scratch)
    shutil.rmtree(scratch)
    took = time.monotonic() - began
    print(f"{tried} states of {len(recorded.entries)} entries, seed {asked.seed}: 0 faults, {took:.0f} s")


if __name__ == "__main__":
    main()
