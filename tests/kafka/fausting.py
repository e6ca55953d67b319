"""A Kafka worker at work in a thread, its store, and an independent count of what is in it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

import duckdb

from analytics.store import Store
from calls.errors import StoreUnavailable
from calls.journal import NewDelivery, NewNotice
from calls.settings import Settings, load
from ingest.relay import Relay
from streams.faust_app import KafkaWorker
from tests.kafka import relaying
from tests.kafka.relaying import Writing, published
from tests.waiting import until
from tools.kafka.broker import Cluster


def settings(folder: Path, bootstrap: str, **more: object) -> Settings:
    """Of a worker whose data folder is its own: it shares nothing with a relay but the broker."""
    folder.mkdir(parents=True, exist_ok=True)
    return load(folder, {}, kafka_bootstrap_servers=bootstrap, **more)


class Working:
    """A worker in a thread of its own, and the store it fills."""

    def __init__(self, settings: Settings, open_store: Callable[[], Store] | None, from_oldest: bool) -> None:
        def usual() -> Store:
            return Store.open(settings.store_path, rules=settings.rules)

        self.settings = settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.worker = KafkaWorker(settings, open_store or usual, from_oldest=from_oldest)
        self.store = self.worker.open()
        self.raised: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="apply")
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """The code of what keeps it from applying."""
        fault = self.worker.state.fault
        return None if fault is None else fault.code

    def begun(self) -> None:
        """Wait until partitions are assigned."""
        until(lambda: self.worker.state.running, lambda: f"{self.worker.state} {self.raised}")

    def faulty(self, code: str) -> str:
        """Wait until it says that fault; its sentence."""
        until(lambda: self.fault == code, lambda: f"{self.worker.state} {self.raised}")
        fault = self.worker.state.fault
        return "" if fault is None else fault.message

    def applied(self, rows: int) -> None:
        """Wait until the store has at least so many rows of deliveries."""

        def enough() -> bool:
            # While the store is reopened or made anew it gives no cursors, or takes them away.
            with suppress(duckdb.Error, StoreUnavailable):
                return self.count("deliveries") >= rows
            return False

        until(enough, lambda: f"{self.worker.state} {self.raised}")

    def count(self, table: str) -> int:
        ((found,),) = self.rows(f"SELECT count(*) FROM {table}")
        return int(found)

    def rows(self, text: str) -> list[tuple[int, ...]]:
        with closing(self.store.cursor()) as cursor:
            return cursor.execute(text).fetchall()

    def end(self) -> None:
        """Stop and let go; what the worker raised is raised here."""
        self.worker.stop()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the worker does not stop"
        self.worker.close()
        if self.raised:
            raise self.raised[0]

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.raised.append(error)


@contextmanager
def working(
    settings: Settings, *, open_store: Callable[[], Store] | None = None, from_oldest: bool = False
) -> Iterator[Working]:
    made = Working(settings, open_store, from_oldest)
    try:
        yield made
    finally:
        made.end()


class Way:
    """The way of webhooks through a broker: a journal, a relay where asked for, a worker with its own folder."""

    def __init__(self, journal: Writing, folder: Path, bootstrap: str) -> None:
        self.journal = journal
        self.folder = folder
        self.bootstrap = bootstrap
        self.settings = settings(folder / "worker", bootstrap)

    def publish(self, records: Sequence[NewDelivery | NewNotice] = (), *, again_from: int | None = None) -> None:
        """Journal them, and return once a relay has published all that is journalled."""
        self.journal.append(records)
        with self.relaying(again_from=again_from) as relay:
            published(relay, len(self.journal.records))

    def relaying(self, *, again_from: int | None = None) -> AbstractContextManager[Relay]:
        return relaying.relaying(relaying.settings(self.folder, self.bootstrap), again_from=again_from)

    @contextmanager
    def applied(self, *, open_store: Callable[[], Store] | None = None, from_oldest: bool = False) -> Iterator[Working]:
        """A worker that has applied everything that is journalled."""
        with working(self.settings, open_store=open_store, from_oldest=from_oldest) as worker:
            worker.applied(len(self.journal.records))
            yield worker

    def assert_once(self, worker: Working) -> None:
        """Everything that is journalled is in its store, each once."""
        assert_once(worker.store, self.journal.positions())


@contextmanager
def way(folder: Path, cluster: Cluster) -> Iterator[Way]:
    with relaying.writing(folder) as journal:
        yield Way(journal, folder, cluster.bootstrap)


def assert_once(store: Store, positions: set[int]) -> None:
    """Every journalled position has exactly one row, and every event stands once: nothing lost, nothing twice."""
    with closing(store.cursor()) as cursor:
        rows = Counter(position for (position,) in cursor.execute("SELECT position FROM deliveries").fetchall())
        ((events, distinct),) = cursor.execute("SELECT count(*), count(DISTINCT event_id) FROM call_events").fetchall()
        ((counted,),) = cursor.execute("SELECT coalesce(sum(event_count), 0) FROM calls").fetchall()
    lost, made = positions - set(rows), set(rows) - positions
    assert not lost, f"lost: {sorted(lost)[:5]}"
    assert not made, f"from nowhere: {sorted(made)[:5]}"
    twice = [position for position, count in rows.items() if count > 1]
    assert not twice, f"twice: {twice[:5]}"
    assert events == distinct == counted
    assert store.verify() == []
