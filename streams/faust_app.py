"""The Kafka stream: a Faust worker that applies what the relay published to the store.

A thin shell, as `worker` is for the journal. What records mean is decided in `steps` and `fold`, how they are applied
in `apply`; where each partition is read from, in `offsets`. Here is only what runs when, and what to do when Kafka or
the store fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from analytics.store import Batch, Store
from calls import kafka_access
from calls.crashes import Crashes
from calls.errors import BrokerError, BrokerUnavailable, CalltallyError, StoreDamaged, StoreError, StoreMismatch
from streams import broker
from streams.announce import Announcer
from streams.apply import Applier
from streams.collector import rare_collections
from streams.fetches import Cluster, explain, make_app, receive, rejoin, sender, stop_reading
from streams.flow import Flow
from streams.kafka_state import KafkaState
from streams.offsets import OTHER_TOPIC, TOPICS, require_beginning, starts
from streams.partition import Slot
from streams.publishing import Publishing
from streams.rebuild import is_beyond_use, set_aside
from streams.recent import RecentCalls
from streams.refill import GROUP_FILE

if TYPE_CHECKING:
    from calls.settings import Settings

LOOK_S: Final = 5.0
"""How often it is looked whether these are still the same topics, and how much they hold."""
ASSIGNED_S: Final = 3.0
"""Partitions that are not assigned by then are asked for."""
MISSED_MAX: Final = 5
"""Asked for so often in vain, they belong to somebody else."""
SILENT_MAX: Final = 3
"""A client that was told so often to read on, and brings nothing, is made again."""
END_S: Final = 5.0
DRAIN_S: Final = 1.0
"""At a stop, so long is waited for what is not published yet; the rest is published at the next start."""

log = structlog.get_logger("streams")


class KafkaWorker:
    """Follows our topics into one store: `open` first, then `run` in a thread of its own until `stop`."""

    def __init__(self, settings: Settings, open_store: Callable[[], Store], *, from_oldest: bool = False) -> None:
        self.state = KafkaState()
        self._settings = settings
        self._open_store = open_store
        self._from_oldest = from_oldest
        self._stopping = threading.Event()
        self._wake: Callable[[], object] = lambda: None
        self._publish_of: Callable[[Batch], None] = lambda _: None
        self._store: Store | None = None
        self._crashes = self.state.crashes = Crashes(settings.store_path)

    def open(self) -> Store:
        """The store, for this worker and all who read; it stays open until `close`, through every repair.

        One that is damaged, or was made by other rules or code, is set aside and begun anew. Raises StoreLocked,
        StoreUnavailable, SettingsError, and, where Kafka could not fill a new one, BrokerError or StoreMismatch: then
        nothing was moved.
        """
        kafka_access.options(self._settings)
        try:
            self._store = self._open_store()
        except (StoreDamaged, StoreMismatch) as error:
            if not is_beyond_use(error):
                raise
            require_beginning(broker.look(self._settings), error)
            set_aside(self._settings.store_path, error)
            self._store = self._open_store()
        self._crashes.begin()
        return self._store

    def run(self) -> None:
        """Apply what Kafka brings until `stop`. A failure becomes `state.fault` and is tried again; a bug raises."""
        store = self._store or self.open()
        recent = RecentCalls()
        applier = Applier(
            store,
            self._settings.rules,
            recent=recent,
            crashes=self._crashes,
            on_commit=self._took,
        )
        self.state.tally = applier.tally
        for name in ("faust", "mode", "aiokafka", "kafka"):
            # They tell of every attempt; what it means is said here, once.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        failure: CalltallyError | None = None
        with rare_collections():
            while not self._stopping.is_set():
                try:
                    if failure is not None:
                        self._recover(store, applier, failure)
                        failure = None
                    self._run_session(store, applier, recent)
                except CalltallyError as error:
                    failure = error if failure is None or is_beyond_use(error) else failure
                    self._stopping.wait(self.state.failed(error))
                finally:
                    self.state.running = False

    def stop(self) -> None:
        """Ask `run` to return after the batch in hand."""
        self._stopping.set()
        self._wake()

    def close(self) -> None:
        """Let go of the store, once `run` has returned."""
        if self._store is not None:
            self._store.close()
            self._store = None
            self._crashes.end()

    def _took(self, batch: Batch) -> None:
        self._publish_of(batch)

    def _run_session(self, store: Store, applier: Applier, recent: RecentCalls) -> None:
        loop = asyncio.new_event_loop()
        stopping = asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(stopping.set)
        try:
            if not self._stopping.is_set():
                loop.run_until_complete(self._session(store, applier, recent, stopping))
        finally:
            self._wake = lambda: None
            _drop_tasks(loop)
            loop.close()

    async def _session(self, store: Store, applier: Applier, recent: RecentCalls, stopping: asyncio.Event) -> None:
        """Serve from the store's positions until a stop or a failure."""
        stop = asyncio.create_task(stopping.wait())
        looking = asyncio.create_task(asyncio.to_thread(broker.look, self._settings))
        await _first(stop, looking)
        if stop.done():
            return
        settings = self._settings
        bytes_max = settings.kafka_record_max_bytes
        publishing = Publishing(Announcer(store, recent, record_bytes_max=bytes_max, crashes=self._crashes))
        self._publish_of = publishing.took
        flow = Flow(store, applier, self.state, looking.result(), publishing, from_oldest=self._from_oldest)
        cluster = Cluster(
            settings.kafka_servers,
            kafka_access.tls(settings),
            kafka_access.login(settings),
            settings.kafka_sasl_mechanism,
        )
        app = make_app(
            group_of(settings.data_dir),
            cluster,
            flow,
            data_dir=str(settings.data_dir / "faust"),
            record_bytes_max=bytes_max,
        )
        receive(app, TOPICS, flow.take)
        started = asyncio.Event()
        tasks = [
            asyncio.create_task(work)
            for work in (
                flow.run(app.consumer.perform_seek),
                self._watch(app, flow, store, started),
                _publish(app, started, publishing),
                _serve(app, started),
            )
        ]
        *ours, serving = tasks
        try:
            done = await _first(stop, *tasks)
        finally:
            await _cancel(*ours[:2])
            await asyncio.to_thread(publishing.drain, DRAIN_S if stop.done() else 0)
            await _cancel(*ours)
            await flow.close(well=stop.done())
            ended = await _end(app, serving, started)
        for task in done - {stop}:
            task.result()
        if not (ended or stop.done()):
            raise RuntimeError("Kafka's client cannot be ended, and would stand in the way of the next.")

    async def _watch(self, app: Any, flow: Flow, store: Store, started: asyncio.Event) -> None:
        """Look at what Kafka holds, now and then. Raises where these are not the same topics any more."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(flow.begun.wait(), ASSIGNED_S)
        before, missed, silent = flow.applied(), 0, 0
        while True:
            elsewhere = flow.not_assigned
            missed = missed + 1 if elsewhere else 0
            if elsewhere and started.is_set():
                await rejoin(app)
            if missed < MISSED_MAX and flow.begun.is_set():
                self._well()
            elif missed >= MISSED_MAX and flow.begun.is_set():
                self.state.failed(_shared(elsewhere))
            elif missed >= MISSED_MAX:
                raise _stuck("gets no partitions")
            await asyncio.sleep(ASSIGNED_S if elsewhere and self.state.fault is None else LOOK_S)
            await self._look_again(flow, store)
            now = flow.applied()
            if flow.begun.is_set() and self.state.lag and now == before and flow.is_idle and not elsewhere:
                silent += 1
                if silent >= SILENT_MAX:
                    raise _stuck("brings nothing, although there is more")
                log.warning("nothing comes although Kafka has more; reading again", lag=self.state.lag)
                await app.consumer.perform_seek()
            else:
                silent = 0
            before = now

    async def _look_again(self, flow: Flow, store: Store) -> None:
        """Until Kafka answers, with the reason as the fault meanwhile."""
        while True:
            try:
                held = await asyncio.to_thread(broker.look, self._settings)
            except BrokerUnavailable as error:
                await asyncio.sleep(self.state.failed(error))
                continue
            starts(store.positions(), held, from_oldest=True)
            flow.see(held)
            return

    def _well(self) -> None:
        state = self.state
        state.running = True
        self._from_oldest = False
        if not state.lag:
            self._crashes.relax()
        state.well()

    def _recover(self, store: Store, applier: Applier, failure: CalltallyError) -> None:
        """Begin again from what is on disk. Raises what stands in the way; it is then tried again."""
        applier.forget()
        if is_beyond_use(failure) or failure.code == OTHER_TOPIC:
            require_beginning(broker.look(self._settings), failure)
            store.close()
            set_aside(self._settings.store_path, StoreMismatch(failure.message))
            store.reopen()
        elif isinstance(failure, StoreError) and not isinstance(failure, StoreMismatch):
            store.reopen()


def group_of(data_dir: Path) -> str:
    """The consumer group of the store in a data folder, equal at every start; no two stores have the same.

    A store is whole only if its worker gets every partition, so no two may share them. What the folder holds tells
    folders apart that have the same path on two machines, host and path tell a copied folder from its original.
    """
    path = data_dir / GROUP_FILE
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(16) + "\n")
    where = f"{path.read_text().strip()}\0{socket.gethostname()}\0{data_dir.resolve()}"
    return f"calltally-{hashlib.sha256(where.encode()).hexdigest()[:12]}"


async def _publish(app: Any, started: asyncio.Event, publishing: Publishing) -> None:
    await started.wait()
    await publishing.run(sender(app))


async def _serve(app: Any, started: asyncio.Event) -> None:
    """Run a Faust app until it crashes. Raises BrokerError."""
    try:
        await app.start()
        started.set()
        await app.wait_until_stopped()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        raise explain(error) from error
    raise explain(app.crash_reason or RuntimeError("it stopped by itself"))


async def _end(app: Any, serving: asyncio.Task[None], started: asyncio.Event) -> bool:
    """Stop a Faust app; whether it is gone. One that is starting is let start: half of it could not be stopped."""
    if not started.is_set():
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait((serving, waiting), timeout=END_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    await _cancel(serving)
    # Canceling would not end it: mode takes that for the end of the one child that it is just stopping.
    stopping = asyncio.create_task(app.stop())
    await asyncio.wait((stopping,), timeout=END_S)
    if not stopping.done():
        log.warning("Kafka's client does not end in time")
        return await stop_reading(app)
    if not stopping.cancelled() and (error := stopping.exception()):
        # It is thrown away; what it could not do at its end changes nothing in the store.
        log.warning("Kafka's client ended with an error", reason=f"{type(error).__name__}: {error}")
    return await stop_reading(app)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _shared(slots: set[Slot]) -> BrokerError:
    """A partition that was added is ours within seconds; one that stays away has somebody else."""
    return BrokerError(
        f"{len(slots)} partitions are not assigned to this worker, so its store lacks what they bring: another "
        "consumer uses its group. Stop that one, or delete the file `kafka-group` in the data folder and start this "
        "worker again.",
        code="partitions_shared",
    )


def _stuck(what: str) -> BrokerError:
    return BrokerUnavailable(f"Kafka answers, but its client {what}; starting it again.", code="consumer_stuck")


async def _first(*tasks: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done


def _drop_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
