"""A relay at work: over a journal that is being written, in a thread or as a process of its own."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from calls import relay_report
from calls.journal import Append, Journal, NewDelivery, NewNotice
from calls.model import Trust, delivery_id
from calls.provider import discover
from calls.settings import Settings, load
from calls.traffic import one_call
from ingest.relay import Relay
from tests.command import environment
from tests.forking import Calltally
from tests.journalling import Answers
from tests.waiting import until

DEADLINE_S = 60.0
STARTED_AT = 1_750_000_000_000_000


class Writing:
    """A journal in a data folder, with its writer open."""

    def __init__(self, folder: Path) -> None:
        self._answers = Answers()
        self.path = folder / "data" / "journal.sqlite"
        self._journal = Journal(self.path, on_committed=self._answers)
        self.records: list[NewDelivery | NewNotice] = []
        """What was appended, with the times that it bears in the journal; the first has position 1."""

    @property
    def journal_id(self) -> str:
        return self._journal.journal_id

    def append(self, records: Sequence[NewDelivery | NewNotice]) -> None:
        """Journal them; they are durable when this returns."""
        for record in records:
            item = Append(record)
            self._journal.append(item)
            self.records.append(item.record)  # with the time that it bears in the journal
        self._answers.wait_durable(len(self.records))

    def close(self) -> None:
        self._journal.close()

    def bodies(self) -> list[bytes]:
        """Of the deliveries."""
        return [record.body for record in self.records if isinstance(record, NewDelivery)]

    def positions(self) -> set[int]:
        return set(range(1, len(self.records) + 1))


@contextmanager
def writing(folder: Path) -> Iterator[Writing]:
    made = Writing(folder)
    try:
        yield made
    finally:
        made.close()


def webhooks(count: int, *, seed: int = 1) -> list[NewDelivery]:
    """That many deliveries of calls of all four platforms."""
    return list(itertools.islice(endless_webhooks(seed=seed), count))


def endless_webhooks(*, seed: int) -> Iterator[NewDelivery]:
    dice, providers = Random(seed), discover()
    names, number = list(providers), 0
    while True:
        name = names[dice.randrange(len(names))]
        for post in one_call(providers[name], dice=dice, ended_at=STARTED_AT + number * 1_000_000):
            yield webhook(post.body, source=name, at=STARTED_AT + number)
            number += 1


def webhook(body: bytes, *, source: str = "synthflow", at: int = STARTED_AT) -> NewDelivery:
    return NewDelivery(
        source=source, provider=source, org="", body=body, headers={"content-type": "application/json"},
        received_at=at, trust=Trust.B, id=delivery_id(source, body),
    )  # fmt: skip


def settings(folder: Path, bootstrap: str, **more: object) -> Settings:
    return load(folder, {}, kafka_bootstrap_servers=bootstrap, **more)


@contextmanager
def relaying(settings: Settings, *, again_from: int | None = None) -> Iterator[Relay]:
    """A relay in a thread of its own, stopped at the end; what it raised is raised here."""
    relay = Relay(settings, again_from=again_from)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            relay.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="relay")
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join(30)
        assert not thread.is_alive(), "the relay does not stop"
        if raised:
            raise raised[0]


def published(relay: Relay, position: int, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until Kafka has acknowledged everything up to a position."""
    until(lambda: relay.state.position >= position, lambda: f"{relay.state}", seconds=deadline_s)


def faulty(relay: Relay, code: str) -> str:
    """Wait until the relay says that fault; its sentence."""
    until(lambda: relay.state.fault is not None and relay.state.fault.code == code, lambda: f"{relay.state}")
    assert relay.state.fault is not None
    return relay.state.fault.message


class RelayProcess:
    """`calltally relay` as a person starts it."""

    def __init__(self, folder: Path, bootstrap: str, *words: str) -> None:
        self.folder = folder
        environ = environment({"CALLTALLY_KAFKA_BOOTSTRAP_SERVERS": bootstrap})
        self.log = folder / "relay.log"
        self.process = Calltally(folder, ["relay", *words], environ, self.log)

    def report(self) -> relay_report.Report | None:
        """What this process, not one before it, said of itself."""
        report = relay_report.read(self.folder / "data")
        return report if report is not None and report.process == self.process.pid else None

    def published(self, position: int) -> None:
        def reached() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            report = self.report()
            return report is not None and report.position >= position

        until(reached, self.log.read_text)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)
