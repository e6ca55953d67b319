"""One connection's worth of the relay: from the position that is saved onwards, until a failure or a stop."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from kafka import KafkaProducer, errors

from calls.crashes import Crashes
from calls.errors import (
    BrokerError,
    BrokerUnavailable,
    CalltallyError,
    JournalError,
    JournalUnavailable,
    PayloadMalformed,
)
from calls.journal import JournalReader
from calls.journal_cursor import JournalCursor
from calls.journal_row import Record
from calls.model import Delivery, Micros, Notice
from calls.provider import Naming, discover
from calls.records import RELAYED, Outgoing, of_damaged, of_delivery, of_notice, partition_of
from ingest import broker, topics
from ingest.relay_state import RelayState, now
from ingest.topics import Topics

if TYPE_CHECKING:
    from kafka.producer.future import FutureRecordMetadata

    from calls.settings import Settings

BATCH_ROWS: Final = 1_000
BATCH_BYTES: Final = 4 << 20
WINDOW_RECORDS: Final = 8_000
"""How many records may wait for their acknowledgement: enough to keep the broker busy while the next are made."""
UNACKNOWLEDGED_MAX: Final = WINDOW_RECORDS + 2 * BATCH_ROWS
"""A crash repeats at most so many records: what ended the process is among them."""
WINDOW_BYTES: Final = 16 << 20
PRODUCER_BATCH_BYTES: Final = 512 << 10
LINGER_MS: Final = 20
"""How long a batch of a backlog is gathered; what is published at rest does not wait for it, it is flushed."""
GATHERED_ROWS: Final = 32
"""Where so many come while others are published, the next are gathered for as long as a batch of a backlog is: each
round trip costs as much as ten records."""
DELIVERY_TIMEOUT_S: Final = 120.0
"""After so long without an acknowledgement a producer is given up for a new one, which begins at the position."""
SAVE_S: Final = 0.5
"""How often the position is saved: a crash repeats what was published since."""
TICK_S: Final = 0.5
"""How soon a stop is noticed."""
SILENT_S: Final = 3.0
"""An acknowledgement that takes longer is a fault worth telling."""
EXPLAIN_S: Final = 5.0
"""How often it is then asked why."""
LOOK_S: Final = 60.0
"""How often the topic is looked at for being still the same."""
CLOCKS_MS: Final = 60_000
"""By how much the broker's clock may be ahead of ours where it refuses old times."""
STOP_S: Final = 3.0

log = structlog.get_logger("relay")


class _Sent(NamedTuple):
    position: int
    size: int
    future: FutureRecordMetadata


class Publication:
    """Publishes a journal with one producer; of one thread."""

    def __init__(
        self,
        settings: Settings,
        reader: JournalReader,
        found: Topics,
        state: RelayState,
        stopping: threading.Event,
        on_tick: Callable[[], None],
        crashes: Crashes,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._topics = found
        self._state = state
        self._stopping = stopping
        self._on_tick = on_tick
        self._crashes = crashes
        self._window: deque[_Sent] = deque()
        self._window_bytes = 0
        self._read = self._saved = 0
        self._save_failed = False
        self._saved_at = self._progress_at = self._looked_at = time.monotonic()
        self._explained_at = 0.0

    def follow(self) -> None:
        """Publish until asked to stop, then wait for what is under way. Raises BrokerError, JournalError."""
        cursor = JournalCursor(self._settings.journal_path, topics.cursor_name(self._topics.id))
        try:
            with broker.producer(self._settings, **self._producer_options()) as producer:
                self._begin(cursor)
                while not self._stopping.is_set():
                    self._advance(producer, cursor)
                self._flush(producer, give_up_at=time.monotonic() + STOP_S)
                self._save(cursor)
        finally:
            cursor.close()

    def _producer_options(self) -> dict[str, object]:
        record_max, compression = self._topics.record_bytes_max, self._settings.kafka_compression
        batch_max = min(PRODUCER_BATCH_BYTES, record_max)
        return {
            "acks": "all",
            "enable_idempotence": True,
            "batch_size": batch_max,
            "linger_ms": LINGER_MS,
            "max_request_size": max(8 * batch_max, 2 * record_max),
            "compression_type": None if compression == "none" else compression,
            "delivery_timeout_ms": int(DELIVERY_TIMEOUT_S * 1000),
            "max_block_ms": int(SILENT_S * 1000),
            "allow_auto_create_topics": False,
        }

    def _begin(self, cursor: JournalCursor) -> None:
        position, first = cursor.position(), self._reader.first_position()
        if position < first - 1:
            log.error(
                "part of the journal cannot be published: the file begins after it",
                from_position=position + 1, to_position=first - 1,
            )  # fmt: skip
            position = first - 1
        self._read = self._saved = position
        self._state.journal_id = self._reader.journal_id
        self._state.position, self._state.journal_position = position, self._reader.last_position()
        log.info("publishing", position=position, lag=self._state.lag, topic=self._topics.id)

    def _advance(self, producer: KafkaProducer, cursor: JournalCursor) -> None:
        """Publish what there is, or wait a little where there is nothing."""
        records = self._reader.read(self._read, rows=BATCH_ROWS, bytes_max=BATCH_BYTES)
        size = self._send(producer, records)
        if len(records) == BATCH_ROWS or size >= BATCH_BYTES:
            self._state.journal_position = self._reader.last_position()
            self._make_room()
        else:
            self._flush(producer)
            if self._window:
                return
            self._go_on()
            if len(records) >= GATHERED_ROWS:
                self._stopping.wait(LINGER_MS / 1000)
            if not self._reader.wait(self._read, TICK_S):
                self._state.journal_position = self._read
        if time.monotonic() - self._saved_at > SAVE_S:
            self._save(cursor)
        if time.monotonic() - self._looked_at > LOOK_S:
            self._look_for_the_topic()
        self._on_tick()

    def _send(self, producer: KafkaProducer, records: Sequence[Record]) -> int:
        if not self._window:
            self._progress_at = time.monotonic()
        moment, total = now(), 0
        # A broker refuses times an hour ahead of its clock, which ours may have been meanwhile, and some that are old.
        newest_ms = moment // 1000
        oldest_ms = max(0, newest_ms - self._topics.oldest_ms + CLOCKS_MS)
        partitions = {str(topic): len(producer.partitions_for(str(topic))) for topic in RELAYED}
        for record in records:
            for out in self._outgoing(record, moment):
                future = producer.send(
                    out.topic,
                    out.value,
                    out.key,
                    out.headers,
                    partition_of(out.key, partitions[out.topic]),
                    max(oldest_ms, min(out.at // 1000, newest_ms)),
                )
                size = len(out.value)
                self._window.append(_Sent(record.position, size, future))
                total += size
        if records:
            self._read = records[-1].position
        self._window_bytes += total
        return total

    def _outgoing(self, record: Record, at: Micros) -> Iterable[Outgoing]:
        crashes, journal_id, bytes_max = self._crashes, self._reader.journal_id, self._topics.record_bytes_max
        if crashes.is_careful:
            with crashes.alone(record):
                return list(_outgoing(record, journal_id, crashes.deadly, bytes_max=bytes_max, at=at))
        return _outgoing(record, journal_id, crashes.deadly, bytes_max=bytes_max, at=at)

    def _make_room(self) -> None:
        self._take_acknowledgements()
        while not self._stopping.is_set() and (len(self._window) > WINDOW_RECORDS or self._window_bytes > WINDOW_BYTES):
            oldest = self._window[0].future
            # Too early to say, or a failure, which is raised when it is taken.
            with contextlib.suppress(errors.KafkaError):
                oldest.get(TICK_S)
            if not self._take_acknowledgements():
                self._wait_on()

    def _flush(self, producer: KafkaProducer, *, give_up_at: float | None = None) -> None:
        """Until everything is acknowledged; or until a stop, or `give_up_at` where one is under way."""
        while self._window:
            with contextlib.suppress(errors.KafkaTimeoutError):
                producer.flush(TICK_S)
            if self._take_acknowledgements():
                continue
            if give_up_at is None and self._stopping.is_set():
                return
            if give_up_at is not None and time.monotonic() > give_up_at:
                return
            self._wait_on()

    def _take_acknowledgements(self) -> bool:
        """Whether there were any. Raises BrokerError where Kafka refused a record."""
        window, taken, position = self._window, 0, self._state.position
        while window and window[0].future.is_done:
            done = window.popleft()
            if done.future.failed():
                raise broker.explain(done.future.exception, self._settings)
            self._window_bytes -= done.size
            taken += 1
            if not window or window[0].position != done.position:
                position = done.position
        if taken:
            self._progress_at = time.monotonic()
            self._state.acknowledged(taken, position)
            self._go_on()
        return taken > 0

    def _wait_on(self) -> None:
        """Nothing was acknowledged for a while: say so once it is too long."""
        with contextlib.suppress(JournalError):  # the lag grows meanwhile; whether the journal is well shows at a read
            self._state.journal_position = self._reader.last_position()
        moment = time.monotonic()
        if moment - self._progress_at > SILENT_S and moment - self._explained_at > EXPLAIN_S:
            error = self._why_silent()
            if self._state.failed(error):
                log.warning("the relay waits", code=error.code, reason=error.message, lag=self._state.lag)
            # The client drops a socket with every attempt to connect, in a cycle; an hour's outage would use them up.
            gc.collect()
            self._explained_at = time.monotonic()
        self._on_tick()

    def _why_silent(self) -> CalltallyError:
        try:
            self._require_same_topic()
            with broker.admin(self._settings) as client:
                short = topics.short_of_replicas(client)
        except BrokerError as error:
            if error.code == topics.CHANGED:
                raise
            return error
        if short:
            return BrokerUnavailable(f"Kafka takes nothing now: {'; '.join(short[:3])}. Are all its brokers up?")
        return BrokerUnavailable(f"Kafka answers, but has acknowledged nothing for over {SILENT_S:.0f} s; waiting.")

    def _look_for_the_topic(self) -> None:
        try:
            self._require_same_topic()
        except BrokerError as error:
            if error.code == topics.CHANGED:
                raise
            # Kafka is away: that shows when there is something to publish.

    def _require_same_topic(self) -> None:
        self._looked_at = time.monotonic()
        with broker.admin(self._settings) as client:
            topics.require_same(client, self._topics.id)

    def _go_on(self) -> None:
        if self._state.fault is not None:
            log.info("the relay goes on", position=self._state.position, lag=self._state.lag)
            self._state.fault = None

    def _save(self, cursor: JournalCursor) -> None:
        self._saved_at = time.monotonic()
        if self._state.position == self._saved:
            return
        try:
            cursor.save(self._state.position)
        except JournalUnavailable as error:
            # Nothing is lost by it: a crash would repeat more. So publishing goes on.
            if not self._save_failed:
                log.warning("the relay's position cannot be saved", reason=error.message)
            self._save_failed = True
        else:
            self._saved = self._state.position
            self._save_failed = False


def _outgoing(
    record: Record, journal_id: str, deadly: Mapping[str, str], *, bytes_max: int, at: Micros
) -> Iterator[Outgoing]:
    if isinstance(record, Delivery):
        naming = None if deadly and record.id in deadly else _naming(record)
        yield from of_delivery(record, naming, bytes_max=bytes_max)
    elif isinstance(record, Notice):
        yield of_notice(record)
    else:
        log.error("a row of the journal is damaged", position=record.position, reason=record.reason)
        yield of_damaged(record, journal_id, at=at)


def _naming(delivery: Delivery) -> Naming | None:
    """Of what a delivery is, for its key; None where that cannot be said: the worker says why."""
    provider = discover().get(delivery.provider)
    if provider is None:
        return None
    try:
        if provider.naming is not None:
            return provider.naming(delivery)
        first = provider.normalise(delivery)[0]
        return Naming(first.event, first.org, first.call_id)
    except PayloadMalformed:
        return None
    except Exception:  # a provider's bug: the worker makes a dead letter of it and reports it
        return None
