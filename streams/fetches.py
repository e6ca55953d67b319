"""How a Faust agent gets a whole fetch as one event, from the offsets that the store names.

Faust's machinery for an event costs 150 us; a fetch of thousands of records pays it once. Its own offsets are no
guarantee (it commits what an agent failed on, and past what none has seen), so here the store's count: every
assignment starts from them, and they are what is committed, for lag displays.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, NamedTuple, Protocol, cast

import faust
from aiokafka import errors
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.threads import WorkerThread

from calls.errors import BrokerError, BrokerRefused, BrokerUnavailable
from calls.records import Outgoing, partition_of
from streams.partition import Incoming, Slot

SESSION_S: Final = 6.0
"""Brokers allow no shorter one by default. With a static member a restart does not wait for its end."""
HEARTBEAT_S: Final = 1.5
REQUEST_S: Final = 20.0
POLL_INTERVAL_S: Final = 24 * 3600.0
"""However long the store takes for a batch, that is no reason to give the partitions to somebody else: nobody is."""
METADATA_MS: Final = 5_000
"""How soon a partition that was added is seen."""
PRODUCE_BYTES: Final = 512 << 10
END_S: Final = 2.0
"""How long each part of the client is waited for when it ends."""
FETCH_RECORDS: Final = 2_000
FETCH_BYTES: Final = 4 << 20
"""Of one partition; a larger record still comes, alone."""


@dataclass(frozen=True)
class Fetch:
    """What one poll brought."""

    records: Mapping[Slot, Sequence[Incoming]]
    ends: Mapping[Slot, int]
    """One more than the newest offset that Kafka then had, for the partitions of `records`."""

    @property
    def record_count(self) -> int:
        """How many records it brought."""
        return sum(map(len, self.records.values()))

    @cached_property
    def value_bytes(self) -> int:
        """The size of their values."""
        return sum(len(one.value or b"") for found in self.records.values() for one in found)


class Feed(Protocol):
    """Who knows how far each partition is applied."""

    def start_of(self, slot: Slot) -> int:
        """The offset to read first."""
        ...

    async def assigned(self, slots: Iterable[Slot]) -> Mapping[Slot, int]:
        """These partitions are read anew; the offset to begin with, of each."""
        ...

    def applied(self) -> Mapping[Slot, int]:
        """The offsets up to which partitions are applied."""
        ...


class Cluster(NamedTuple):
    """How the brokers are reached."""

    servers: Sequence[tuple[str, int]]
    context: ssl.SSLContext | None
    login: tuple[str, str] | None
    mechanism: str


def make_app(group: str, cluster: Cluster, feed: Feed, *, data_dir: str, record_bytes_max: int) -> faust.App:
    """A Faust app that is to be started in a running event loop and serves until it is stopped or crashes."""
    app = _App(
        group,
        broker=[f"kafka://{f'[{host}]' if ':' in host else host}:{port}" for host, port in cluster.servers],
        broker_credentials=_credentials(cluster),
        broker_client_id="calltally-worker",
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_request_timeout=REQUEST_S,
        broker_rebalance_timeout=60.0,
        broker_max_poll_interval=POLL_INTERVAL_S,
        broker_max_poll_records=FETCH_RECORDS,
        broker_commit_interval=2.0,
        # What is out of range must be told, never skipped.
        consumer_auto_offset_reset="none",
        consumer_group_instance_id="worker",
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_metadata_max_age_ms=METADATA_MS,
        producer_max_request_size=record_bytes_max,
        producer_max_batch_size=min(PRODUCE_BYTES, record_bytes_max),
        producer_request_timeout=REQUEST_S,
        # A batch in hand is waited for where partitions are assigned, by the feed.
        stream_wait_empty=False,
        stream_buffer_maxsize=1,
        topic_allow_declare=False,
        topic_disable_leader=True,
        reply_create_topic=False,
        TableManager=_NoTables,
        web_enabled=False,
        datadir=data_dir,
        autodiscover=False,
    )
    app.feed = feed
    return app


def receive(app: faust.App, topics: Sequence[str], take: Callable[[Fetch], Any]) -> None:
    """Have an agent await `take(fetch)` for every fetch of these topics, one at a time, in order."""
    channel = app.topic(*topics, schema=_FetchSchema(), acks=False)

    async def deliveries(stream: Any) -> None:
        async for fetch in stream:
            await take(fetch)

    # What `app.agent` does, but for noting where in which source file this is: that takes every start 0.1 s.
    given: Any = app
    agent = given.conf.Agent(deliveries, name="calltally", app=app, channel=channel, on_error=given._on_agent_error)
    given.agents[agent.name] = agent
    given.topics.beacon.add(agent)


def sender(app: faust.App) -> Callable[[Sequence[Outgoing]], Awaitable[None]]:
    """What gives records to the started app's producer, in their order by key, and returns when all are acknowledged.

    They go as whole batches: a record given alone costs its own future and the client's way to a batch, 15 us.
    """
    producer: Any = cast(Any, app.producer)._ensure_producer()
    counts: dict[str, int] = {}

    async def send(records: Sequence[Outgoing]) -> None:
        try:
            apart: dict[Slot, list[Outgoing]] = {}
            for record in records:
                topic = record.topic
                if topic not in counts:
                    counts[topic] = len(await producer.partitions_for(topic))
                slot = topic, partition_of(record.key, counts[topic])
                apart.setdefault(slot, []).append(record)
            await asyncio.gather(*[_send_in_order(producer, slot, given) for slot, given in apart.items()])
        except Exception as error:
            raise explain(error) from error

    return send


async def _send_in_order(producer: Any, slot: Slot, records: Sequence[Outgoing]) -> None:
    topic, partition = slot
    sent: list[asyncio.Future[object]] = []
    try:
        batch = producer.create_batch()
        for record in records:
            # Without a time: what a call says may be older than the topic takes.
            given = {"timestamp": None, "key": record.key, "value": record.value, "headers": record.headers}
            if batch.append(**given) is None:
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                batch.append(**given)  # the first is taken however large it is
        sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)
    finally:
        for acknowledgement in sent:
            acknowledgement.cancel()  # of a failure, only the first is of interest


async def stop_reading(app: faust.App) -> bool:
    """End the consumer's thread without the rest of the app, which does not stop; whether it has ended."""
    consumer: Any = app._consumer
    thread = None if consumer is None else consumer._thread
    if thread is None or thread._thread is None or not thread._thread.is_alive():
        return True
    with contextlib.suppress(RuntimeError):  # its loop was closed just now
        thread._stopped_set()
    await asyncio.to_thread(thread._thread.join, 2 * END_S)
    return not thread._thread.is_alive()


async def rejoin(app: faust.App) -> None:
    """Have the group's partitions assigned anew.

    A static member that comes back is given what it had, even if the topic has more partitions by now, or other ones.
    """
    consumer: Any = app.consumer
    thread = consumer._thread

    async def ask() -> None:
        thread._ensure_consumer()._coordinator.request_rejoin()

    await thread.call_thread(ask)


def explain(error: BaseException) -> BrokerError:
    """What stopped the consumer, in a sentence."""
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, errors.OffsetOutOfRangeError):
        return BrokerUnavailable(f"Kafka does not have the offset that is next ({error}).", code="offsets_gone")
    if isinstance(error, _REFUSALS):
        return BrokerRefused(
            f"Kafka refuses us ({said}). The user needs the rights Read and Describe on the topics "
            "calltally.* and Read on the groups calltally-*."
        )
    return BrokerUnavailable(f"Kafka's client stopped ({said}); starting it again.", code="consumer_stopped")


_REFUSALS = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.SaslAuthenticationFailed,
)


class _NoTables(TableManager):
    async def on_start(self) -> None:
        # Faust's own first waits a second for tables to be made; so would every start of the worker.
        await self._update_channels()
        await self.recovery.start()


class _Listener(driver.ConsumerRebalanceListener):
    _thread: Any

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        # Before anything else runs: from Kafka's own offset not even one record is to be fetched.
        consumer, feed = self._thread._ensure_consumer(), self._thread.app.feed
        for slot in assigned:
            consumer.seek(slot, feed.start_of((slot.topic, slot.partition)))
        await super().on_partitions_assigned(assigned)


class _Worker(WorkerThread):
    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        # It has nothing to lose, and must not keep the process alive.
        self.daemon = True

    def stop(self) -> None:
        # Of a loop's thread: mode would wait here for ever, and whoever is to end the rest would stand still, too.
        self.is_stopped.wait(END_S)


class _Thread(driver.AIOKafkaConsumerThread):
    Worker: type[WorkerThread] = _Worker

    async def on_thread_stop(self) -> None:
        # aiokafka's stop trips over a fetch that it canceled itself, and leaves its connections open. And it waits for
        # an assignment that is under way, which waits for an answer from the other thread, where nobody is any more.
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            async with asyncio.timeout(END_S):
                await super().on_thread_stop()
        if self._consumer is not None:
            await self._consumer._client.close()


class _Consumer(driver.Consumer):
    app: Any
    RebalanceListener: ClassVar[type[_Listener]] = _Listener

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        starts = await self.app.feed.assigned((slot.topic, slot.partition) for slot in self.assignment())
        await self.seek_wait({TP(*slot): offset for slot, offset in starts.items()})

    async def getmany(self, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109  # Faust's own signature
        records, _ = await self._wait_next_records(timeout)
        if not records or self.should_stop:
            return
        if not self.flow_active:
            # Partitions are being assigned anew, and the client counts these records as given.
            await self.perform_seek()
            return
        ends = {(slot.topic, slot.partition): self.highwater(slot) or 0 for slot in records}
        fetch = Fetch({(slot.topic, slot.partition): found for slot, found in records.items()}, ends)
        slot, found = next(iter(records.items()))
        value: Any = fetch
        tp, last = TP(slot.topic, slot.partition), found[-1]
        # A message without a generation is dropped, without a word.
        yield (
            tp,
            ConsumerMessage(
                tp.topic,
                tp.partition,
                last.offset,
                (last.timestamp or 0) / 1000,
                last.timestamp_type,
                [],
                None,
                value,
                None,
                tp=tp,
                generation_id=self.app.consumer_generation_id,
            ),
        )

    def on_buffer_full(self, _: TP) -> None:
        # Faust would leave out the partition that a full buffer's event bears, so that some come thousands of records
        # behind others, and each further event of a call has to be looked up. A full buffer is waited for anyway.
        pass

    def _filter_committable_offsets(self, _: Iterable[TP]) -> dict[TP, int]:
        applied = {TP(*slot): offset for slot, offset in self.app.feed.applied().items()}
        return {tp: offset for tp, offset in applied.items() if offset > (self._committed_offset[tp] or 0)}


class _Producer(driver.Producer):
    async def on_stop(self) -> None:
        # What is not acknowledged by now is published again at the next start. Without a broker aiokafka would wait
        # for it until its batches expire.
        producer, self._producer = self._producer, None
        if producer is not None and producer._sender.sender_task is not None:
            producer._closed = True
            producer._sender.sender_task.cancel()
            await asyncio.wait([producer._sender.sender_task], timeout=END_S)
            await producer.client.close()
        await super().on_stop()

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"enable_idempotence": True}


class _App(faust.App):
    feed: Feed

    async def _producer_flush(self, logger: Any) -> None:
        # It would wait for a broker that is away before anything else is stopped, the consumer's thread included.
        pass

    def _new_transport(self) -> Any:
        transport: Any = super()._new_transport()
        transport.Consumer = _Consumer
        return transport

    def _new_producer_transport(self) -> Any:
        transport: Any = super()._new_producer_transport()
        transport.Producer = _Producer
        return transport


class _FetchSchema(faust.Schema[None, Fetch]):
    def compile(self, app: Any, **_: object) -> Callable[..., Any]:
        async def decode(message: Any, **_: object) -> Any:
            return app.create_event(None, message.value, message.headers, message)

        return decode


def _credentials(cluster: Cluster) -> object:
    if cluster.login is not None:
        user, password = cluster.login
        return faust.SASLCredentials(
            username=user, password=password, mechanism=cluster.mechanism, ssl_context=cluster.context
        )
    return None if cluster.context is None else faust.SSLCredentials(cluster.context)
