"""Records to journal, and a place where the journal's answers are awaited with a deadline."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from calls.errors import JournalUnavailable
from calls.journal import Append, Journal, NewDelivery, NewNotice
from calls.model import Delivery, Notice, Trust, Verdict, delivery_id

DEADLINE_S = 30.0
ROOT = Path(__file__).resolve().parent.parent


class Answers:
    """What `on_committed` was told; its first call can be held to let others arrive meanwhile."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[Append], JournalUnavailable | None]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.reached = threading.Event()
        self._changed = threading.Condition()

    def __call__(self, items: list[Append], failure: JournalUnavailable | None) -> None:
        self.reached.set()
        assert self.hold.wait(DEADLINE_S)
        with self._changed:
            self.batches.append((items, failure))
            self._changed.notify_all()

    @property
    def durable(self) -> list[Append]:
        return [item for items, failure in self.batches if failure is None for item in items]

    @property
    def failures(self) -> list[JournalUnavailable]:
        return [failure for _, failure in self.batches if failure is not None]

    def wait(self, enough: Callable[[Answers], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self), DEADLINE_S), f"{len(self.durable)} durable"

    def wait_durable(self, count: int) -> None:
        self.wait(lambda answers: len(answers.durable) >= count)


@contextmanager
def opened(path: Path, answers: Answers | None = None) -> Iterator[Journal]:
    journal = Journal(path, on_committed=answers or Answers())
    try:
        yield journal
    finally:
        journal.close()


def filled(path: Path, count: int, *, size: int = 1000) -> list[NewDelivery]:
    """A closed journal with that many deliveries; returns them."""
    answers = Answers()
    deliveries = [delivery(number, size=size) for number in range(count)]
    with opened(path, answers) as journal:
        for record in deliveries:
            journal.append(Append(record))
        answers.wait_durable(count)
    return deliveries


def delivery(number: int, *, size: int = 100, source: str = "synthflow") -> NewDelivery:
    body = b'{"number": %d, "filler": "%s"}' % (number, b"x" * size)
    return NewDelivery(
        source=source,
        provider="synthflow",
        org="acme",
        body=body,
        headers={"content-type": "application/json", "user-agent": "sender/1"},
        received_at=1_700_000_000_000_000 + number,
        trust=Trust.B,
        id=delivery_id(source, body),
    )


def notice(number: int, *, detail: str | None = "No signature header was sent.") -> NewNotice:
    return NewNotice(
        source="synthflow",
        provider="synthflow",
        verdict=Verdict.REFUSED,
        reason="signature_missing",
        detail=detail,
        id=None,
        bytes=12,
        count=number,
        received_at=1_700_000_000_000_000 + number,
    )


def as_read(record: NewDelivery | NewNotice, journal_id: str, position: int) -> Delivery | Notice:
    """What a reader is to return for a record."""
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    if isinstance(record, NewNotice):
        return Notice(**fields, journal_id=journal_id, position=position)
    del fields["id"]
    return Delivery(**fields, journal_id=journal_id, position=position)


def edit(path: Path, statement: str, *parameters: object) -> None:
    """Change a journal that nobody has open, as a person with SQLite would."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, parameters)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own, killed at the end where it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        process.wait()


def said(process: subprocess.Popen[str]) -> str:
    """The next line of a child."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def tell(process: subprocess.Popen[str], line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
