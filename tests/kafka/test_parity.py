"""Both shells make the same rows of the same journal, however often they are killed while they do.

One journal is written; the embedded worker follows it on its disk, the relay publishes it to a real Kafka, and a worker
with a data folder of its own reads it from there. All three are killed at random under way.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from analytics.store import Store
from calls.journal import NewDelivery, NewNotice
from calls.records import Topic, call_key
from calls.settings import Settings
from tests.faults.length import LONG
from tests.journalling import edit
from tests.kafka.mixture import counts, mixture
from tests.kafka.reading import Read, delete_topics, everything
from tests.kafka.relaying import RelayProcess, writing
from tests.kafka.workers import WorkerProcess, data_folder
from tests.published import LISTS, columns_of, public_calls
from tests.storing import everything as everything_in
from tests.storing import rows
from tests.waiting import until
from tools.kafka.broker import Cluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900 if LONG else 300)]

CALLS = 4_000 if LONG else 500
KILLS = {"embedded": 6, "relay": 6, "kafka": 8} if LONG else {"embedded": 1, "relay": 1, "kafka": 2}
RECORD_BYTES_MAX = 262_144


class Made(NamedTuple):
    """What a run has left behind."""

    journalled: Sequence[NewDelivery | NewNotice]
    damaged: int
    """The position of the row that was damaged on disk."""
    here: Settings
    """Of the embedded worker."""
    there: Settings
    """Of the worker behind Kafka."""
    calls: list[Read]
    dead: list[Read]


@pytest.fixture(scope="module", params=range(3 if LONG else 1), ids="seed{}".format)
def made(request: pytest.FixtureRequest, shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Both stores after all of the traffic."""
    delete_topics(shared_cluster.bootstrap)
    return _run(request.param, shared_cluster.bootstrap, tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def embedded(made: Made) -> Iterator[Store]:
    """The store of the worker that followed the journal."""
    yield from _opened(made.here)


@pytest.fixture(scope="module")
def behind_kafka(made: Made) -> Iterator[Store]:
    """The store of the worker that read from Kafka."""
    yield from _opened(made.there)


def test_every_table_is_the_same(embedded: Store, behind_kafka: Store) -> None:
    """Every column of every public table, but when a delivery was applied and how far streams are."""
    here, there = everything_in(embedded), everything_in(behind_kafka)
    assert here.keys() == there.keys()
    assert len(here) > 12
    for table in here:
        assert here[table] == there[table], table
        assert here[table] != [], table


def test_both_stores_agree_with_themselves(embedded: Store, behind_kafka: Store) -> None:
    """Roll-ups, counts and positions fit the rows."""
    assert embedded.verify() == []
    assert behind_kafka.verify() == []


def test_the_counts_are_those_of_what_was_journalled(made: Made, behind_kafka: Store) -> None:
    """Nothing is lost and nothing counted twice, by a count that knows nothing of our code."""
    expected = counts([record for position, record in enumerate(made.journalled, 1) if position != made.damaged])

    def found(text: str) -> dict[object, object]:
        return {row[0]: row[1] for row in rows(behind_kafka, text)}

    verdicts = found("SELECT verdict, count(*) FROM deliveries WHERE trust IS NOT NULL GROUP BY ALL")
    assert verdicts == {"accepted": expected.accepted + 1, "repeated": expected.repeated}
    assert found("SELECT verdict, sum(count) FROM deliveries WHERE trust IS NULL GROUP BY ALL") == expected.notices
    reasons = found("SELECT reason, count(*) FROM dead_letters GROUP BY ALL")
    assert reasons == {**expected.dead, "journal_damaged": 1}
    assert rows(behind_kafka, "SELECT count(*) FROM calls") == [(expected.calls,)]
    for table, count in (("call_events", expected.events), ("other_events", expected.other_events)):
        assert rows(behind_kafka, f"SELECT count(*), count(DISTINCT event_id) FROM {table}") == [(count, count)]
    assert rows(behind_kafka, "SELECT sum(event_count) FROM calls") == [(expected.events,)]


def test_every_call_is_published_as_it_is_stored(made: Made, behind_kafka: Store) -> None:
    """The newest record of each key is the call; a call too large for a record says what it left out."""
    newest = {read.key: read.value for read in made.calls}
    stored = {call_key(key): call for key, call in public_calls(behind_kafka).items()}
    for key, value in newest.items():
        for name in json.loads(value)["truncated"]:
            stored[key][name] = [] if name in LISTS else None
    assert {key: columns_of(value) for key, value in newest.items()} == stored
    assert any(json.loads(value)["truncated"] for value in newest.values())


def test_no_version_of_a_call_falls(made: Made) -> None:
    """A kill repeats records, but never publishes what is older than what is there."""
    versions: dict[bytes, list[int]] = defaultdict(list)
    for read in made.calls:
        versions[read.key].append(json.loads(read.value)["version"])
    assert [seen for seen in versions.values() if seen != sorted(seen)] == []
    positions = dict(enumerate(made.journalled, 1))
    assert all(isinstance(positions[seen[-1]], NewDelivery) for seen in versions.values())


def test_every_dead_letter_is_published_with_its_body(made: Made, behind_kafka: Store) -> None:
    """Under the position that the table names, with the bytes that were journalled."""
    found = {(int(read.headers["position"]), read.headers["reason"].decode()) for read in made.dead}
    assert found == set(rows(behind_kafka, "SELECT position, reason FROM dead_letters"))
    for read in made.dead:
        record = made.journalled[read.position - 1]
        if read.position != made.damaged:
            assert isinstance(record, NewDelivery)
            assert record.body.startswith(read.value)
            assert (len(read.value) < len(record.body)) == ("truncated" in read.headers)


def _run(seed: int, bootstrap: str, folder: Path) -> Made:
    here, there = (
        data_folder(folder / name, bootstrap, kafka_record_max_bytes=RECORD_BYTES_MAX) for name in ("here", "there")
    )
    dice, records = Random(seed), mixture(seed, CALLS)
    kills = list(Counter(KILLS).elements())
    portion = len(records) // (2 * len(kills) + 2)
    damaged = _begin(folder / "here", records[:portion])
    waiting = records[portion:]
    with writing(folder / "here") as journal, chained(folder, bootstrap) as chain:
        for name in dice.sample(kills, len(kills)):
            journal.append(waiting[:portion])
            chain.wait_progress(name)
            journal.append(waiting[portion : 2 * portion])
            del waiting[: 2 * portion]
            threading.Event().wait(dice.uniform(0, 0.1))
            chain.kill(name)
        journal.append(waiting)
        for name in chain.processes:
            chain.wait(name, len(records))
        assert chain.stop() == dict.fromkeys(chain.processes, 0)
    calls, dead = (everything(bootstrap, topic) for topic in (Topic.CALLS, Topic.DEAD))
    return Made(records, damaged, here, there, calls, dead)


def _begin(folder: Path, records: Sequence[NewDelivery | NewNotice]) -> int:
    """Journal the first records, and damage one of them on disk; its position."""
    with writing(folder) as journal:
        journal.append(records)
    damaged = max(position for position, record in enumerate(records, 1) if isinstance(record, NewDelivery))
    edit(journal.path, "UPDATE rows SET body = ? WHERE position = ?", b"{}", damaged)
    return damaged


class Chain:
    """The three processes, by name."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self._begin: Mapping[str, Callable[[], WorkerProcess | RelayProcess]] = {
            "embedded": lambda: WorkerProcess(folder / "here"),
            "relay": lambda: RelayProcess(folder / "here", bootstrap),
            "kafka": lambda: WorkerProcess(folder / "there", "--kafka"),
        }
        self._reached = dict.fromkeys(self._begin, 0)
        self.processes = {name: begin() for name, begin in self._begin.items()}

    def wait(self, name: str, count: int) -> None:
        """Until that process has done with so many records of the journal."""
        until(
            lambda: self._progress(name) >= count, lambda: f"{name} is at {self._reached[name]} of {count}", seconds=120
        )

    def wait_progress(self, name: str) -> None:
        """Until it has done more than when it was killed last."""
        self.wait(name, self._reached[name] + 1)

    def kill(self, name: str) -> None:
        """SIGKILL, and another in its place."""
        assert self.processes[name].end(signal.SIGKILL) == -signal.SIGKILL
        self.processes[name] = self._begin[name]()

    def stop(self) -> dict[str, int]:
        """An orderly end of all; the exit codes."""
        return {name: process.end(signal.SIGTERM) for name, process in self.processes.items()}

    def _progress(self, name: str) -> int:
        process = self.processes[name]
        if isinstance(process, WorkerProcess):
            self._reached[name] = max(self._reached[name], process.rows())
        elif (report := process.report()) is not None:
            self._reached[name] = max(self._reached[name], report.position)
        return self._reached[name]


@contextmanager
def chained(folder: Path, bootstrap: str) -> Iterator[Chain]:
    chain = Chain(folder, bootstrap)
    try:
        yield chain
    finally:
        for process in chain.processes.values():
            if process.process.poll() is None:
                process.end(signal.SIGKILL)


def _opened(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings.store_path, rules=settings.rules)
    try:
        yield store
    finally:
        store.close()
