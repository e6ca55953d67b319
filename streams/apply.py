"""From journalled records to one committed batch of the store; both shells share it.

A record that is applied already, in this batch or in any before, changes nothing: neither a delivery, nor a notice, nor
what stands for a damaged row. So a shell may hand in the same records again whenever it is not sure that a commit went
through, and Kafka may bring them again, from whatever partition.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from analytics.store import Batch, CallChange, DeliveryRow, Place, Position, Store, StoredCall, StoredEvent
from calls.crashes import Crashes
from calls.dead_letters import CRASHED_WORKER, MISTAKES, NOT_STORABLE, OUR_FAULT
from calls.errors import CalltallyError, StoreError, StoreMismatch
from calls.journal_row import Damaged, Record
from calls.model import (
    CallKey,
    DeadLetter,
    Delivery,
    Micros,
    Notice,
    Rules,
    StreamPoint,
    TimelineEvent,
    Trust,
    Verdict,
)
from streams.copies import choose, point_of
from streams.fold import fold
from streams.recent import KnownCall, RecentCalls
from streams.steps import interpret

JOURNAL: Final = "journal"
"""The stream that a journal's positions are kept under where it is followed itself."""
STORE_REFUSED = "store_refused"
"""The code of a StoreError that says: a value cannot be kept, and nothing was changed."""
REPORTED_MAX = 20
"""So many dead letters of a batch are told one by one; a bug may make dead letters of everything."""
MISTAKES_IN_A_ROW = 50
"""So many deliveries, no two alike, that are dead letters by our mistake in batches of little else are an alarm."""
FAULTS_MAX = 10
"""More records of one batch that cannot be stored, and none that can, are the store's fault and stop the stream."""

log = structlog.get_logger("streams")


@dataclass
class Tally:
    """What was applied since the process started; written by one thread, read by any."""

    batches: int = 0
    records: int = 0
    events: int = 0
    calls_changed: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By reason."""
    mistakes_in_a_row: int = 0
    """Deliveries that became dead letters by our mistake since a batch was mostly understood."""


class Applier:
    """Applies records to a store that it alone writes to; one thread may use it."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        *,
        recent: RecentCalls | None = None,
        crashes: Crashes | None = None,
        on_commit: Callable[[Batch], None] = lambda _: None,
        clock: Callable[[], Micros] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`on_commit` is told every batch that the store took, several of one `apply` where it was cut; never raises.

        Of a record that was applied before, no row is in any batch.
        """
        self.tally = Tally()
        self._store = store
        self._rules = rules
        self._recent = RecentCalls() if recent is None else recent
        self._crashes = crashes
        self._on_commit = on_commit
        self._clock = clock

    def apply(self, records: Sequence[Record], positions: Sequence[Position]) -> None:
        """Commit what the records mean, together with the positions that stand for having applied them.

        A record that breaks its batch becomes a dead letter alone. Raises StoreUnavailable: whether the batch was
        committed is not known, and the caller reopens the store, reads its positions and goes on from there. Other
        errors of the store pass through likewise.
        """
        crashes = self._crashes
        if crashes is None or not records:
            self._apply(records, positions)
            return
        left = len(records)
        try:
            if suspects := crashes.suspects:
                crashes.acquit(self._store.known(suspects))
            # Only a journal's records come in one order; of all others the position is that behind the whole batch.
            for piece in crashes.pieces(records, in_order=any(position.stream == JOURNAL for position in positions)):
                left -= len(piece)
                self._apply(piece, _up_to(piece, positions) if left else positions)
        except MemoryError:
            raise
        except Exception:
            crashes.relax()
            raise

    def forget(self) -> None:
        """Drop what is remembered of recent calls: for when the store may have been reopened or replaced."""
        self._recent.clear()

    def _apply(self, records: Sequence[Record], positions: Sequence[Position]) -> None:
        try:
            self._commit(records, positions)
        except Exception as error:
            self._recent.clear()
            if not _is_in_the_records(error):
                raise
            log.exception("a batch cannot be stored; looking for the record at fault", records=len(records))
            self._commit_apart(records, positions, error)

    def _commit(self, records: Sequence[Record], positions: Sequence[Position]) -> None:
        batch = Batch(positions=list(positions), applied_at=self._clock())
        deliveries = []
        beside: dict[Place, DeliveryRow] = {}
        lost: dict[Place, DeadLetter] = {}
        for record in records:
            if isinstance(record, Delivery):
                deliveries.append(record)
            elif isinstance(record, Notice):
                beside[_place(record)] = _row_of_notice(record)
            else:
                letter = _letter_of(record, _journal_of(record, records, positions))
                place = _place(letter.delivery)
                beside[place], lost[place] = _row_of_damaged(letter), letter
        deadly = {} if self._crashes is None else self._crashes.deadly
        counting, repeated, replaced = choose(deliveries, self._store, deadly)
        batch.deliveries.extend([_row(delivery, Verdict.ACCEPTED) for delivery in counting])
        batch.replaced_event_ids.extend(replaced)
        beside.update((_place(delivery), _row(delivery, Verdict.REPEATED)) for delivery in repeated)
        for place in self._not_yet_applied(beside, positions):
            batch.deliveries.append(beside[place])
            if place in lost:
                batch.dead_letters.append(lost[place])
        told = _interpret(counting, batch, deadly)
        touched = self._change_calls(told, batch)
        self._store.apply(batch)
        self._recent.keep(touched)
        self._on_commit(batch)
        self._count(len(records), batch)

    def _not_yet_applied(self, rows: Mapping[Place, object], positions: Sequence[Position]) -> list[Place]:
        """The places of these rows, without those that have a row in the store."""
        if not rows:
            return []
        # A followed journal tells by its position what is new, so only what Kafka brings has to be looked up.
        followed = {stream_id: 0 for stream, stream_id, _ in positions if stream == JOURNAL}
        for (stream, stream_id), position in self._store.positions().items():
            if stream == JOURNAL and stream_id in followed:
                followed[stream_id] = position
        doubtful = [place for place in rows if place.position <= followed.get(place.journal_id, place.position)]
        applied = self._store.places(doubtful) if doubtful else set()
        return [place for place in rows if place not in applied]

    def _change_calls(self, told: dict[CallKey, list[TimelineEvent]], batch: Batch) -> dict[CallKey, KnownCall]:
        known = self._recent.of(told)
        missing = [key for key in told if key not in known]
        known.update((key, _recalled(key, call)) for key, call in self._store.stored_calls(missing).items())
        touched: dict[CallKey, KnownCall] = {}
        for key, events in told.items():
            before = known.get(key)
            together = events if before is None else _together(before.events, events)
            after = fold(together, self._rules)
            touched[key] = KnownCall(after, together)
            if before is None:
                batch.changes.append(CallChange(key=key, before=None, after=after))
            elif after != before.call:
                batch.changes.append(CallChange(key=key, before=before.call, after=after))
        return touched

    def _commit_apart(self, records: Sequence[Record], positions: Sequence[Position], error: Exception) -> None:
        """Find by halving what broke a batch, so that one poison event never stops the stream."""
        failed = stored = 0
        pieces = [list(records)]
        while pieces:
            piece = pieces.pop()
            at = _up_to(piece, positions) if pieces else positions
            try:
                self._commit(piece, at)
                stored += len(piece)
            except Exception as cause:
                self._recent.clear()
                if not _is_in_the_records(cause):
                    raise
                if len(piece) > 1:
                    middle = len(piece) // 2
                    pieces += [piece[middle:], piece[:middle]]
                    continue
                failed += 1
                culprit = piece[0] if piece else None
                if not isinstance(culprit, Delivery) or (failed > FAULTS_MAX and not stored):
                    raise error from cause
                self._commit_as_dead(culprit, at, cause)

    def _commit_as_dead(self, delivery: Delivery, positions: Sequence[Position], cause: Exception) -> None:
        batch = Batch(positions=list(positions), applied_at=self._clock())
        detail = f"{type(cause).__name__}: {cause}"[:500]
        earlier = self._store.known([delivery.id]).get(delivery.id)
        if earlier is None or (point_of(delivery) < earlier and self._is_dead(earlier)):
            batch.dead_letters.append(DeadLetter(reason=NOT_STORABLE, detail=detail, delivery=delivery))
            batch.deliveries.append(_row(delivery, Verdict.ACCEPTED))
            batch.replaced_event_ids.extend([] if earlier is None else [delivery.id])
        elif earlier != point_of(delivery) and not self._store.places([_place(delivery)]):
            batch.deliveries.append(_row(delivery, Verdict.REPEATED))
        self._store.apply(batch)
        self._on_commit(batch)
        self._count(1, batch)

    def _is_dead(self, point: StreamPoint) -> bool:
        return bool(self._store.not_understood([Place(point.journal_id, point.position)]))

    def _count(self, records: int, batch: Batch) -> None:
        tally = self.tally
        tally.batches += 1
        tally.records += records
        tally.events += len(batch.events)
        tally.calls_changed += len(batch.changes)
        tally.verdicts.update([str(row.verdict) for row in batch.deliveries])
        if batch.dead_letters:
            # Replaced, not changed, because other threads go through it.
            tally.dead_letters = tally.dead_letters + Counter(letter.reason for letter in batch.dead_letters)
        for letter in batch.dead_letters[:REPORTED_MAX]:
            _report(letter)
        if rest := batch.dead_letters[REPORTED_MAX:]:
            say = log.error if any(letter.reason in OUR_FAULT for letter in rest) else log.warning
            say("more deliveries of this batch became dead letters", more=len(rest))
        self._watch_mistakes(batch)

    def _watch_mistakes(self, batch: Batch) -> None:
        """Raise the alarm once where most of what comes is not understood, by a mistake of ours."""
        mistakes = sum(letter.reason in MISTAKES for letter in batch.dead_letters)
        if mistakes <= len(batch.events):
            self.tally.mistakes_in_a_row = 0 if batch.events else self.tally.mistakes_in_a_row
        else:
            before, now = self.tally.mistakes_in_a_row, self.tally.mistakes_in_a_row + mistakes
            self.tally.mistakes_in_a_row = now
            if before < MISTAKES_IN_A_ROW <= now:
                log.critical(
                    "most of what arrives is not understood, by a mistake of Calltally. Nothing is lost: it stays in "
                    "the journal. Update Calltally: a worker with other code reads it again, and so does "
                    "`calltally dead retry --yes`",
                    in_a_row=now,
                    reasons=dict(self.tally.dead_letters),
                )


def _up_to(piece: Sequence[Record], positions: Sequence[Position]) -> list[Position]:
    """Where a batch stands after a piece of it; a journal's are in its order, elsewhere all waits for the last."""
    return [position._replace(position=piece[-1].position) for position in positions if position.stream == JOURNAL]


def _is_in_the_records(error: Exception) -> bool:
    """Whether a batch failed for what is in it: a value no column takes, or a bug that some record brings out."""
    return not isinstance(error, CalltallyError | OSError | MemoryError) or (
        isinstance(error, StoreError) and error.code == STORE_REFUSED
    )


def _interpret(
    deliveries: Iterable[Delivery], batch: Batch, deadly: Mapping[str, str]
) -> dict[CallKey, list[TimelineEvent]]:
    """Put events and dead letters into the batch; the events of calls once more by call."""
    told: dict[CallKey, list[TimelineEvent]] = {}
    replaced = set(batch.replaced_event_ids)
    for delivery in deliveries:
        if deadly and delivery.id in deadly:
            batch.dead_letters.append(DeadLetter(reason=CRASHED_WORKER, detail=deadly[delivery.id], delivery=delivery))
            continue
        meaning = interpret(delivery)
        # The parsed body is several times as large as its text; a batch of them would not stay in the CPU's caches.
        delivery.__dict__.pop("payload", None)
        if isinstance(meaning, DeadLetter):
            batch.dead_letters.append(meaning)
            continue
        batch.events.extend(meaning)
        if delivery.id in replaced:
            batch.replaced_event_ids.extend([timed.event_id for timed in meaning[1:]])
        for timed in meaning:
            key = _key(timed)
            if key is not None:
                told.setdefault(key, []).append(timed)
    return told


def _key(timed: TimelineEvent) -> CallKey | None:
    said = timed.event
    return None if said.call_id is None else CallKey(timed.provider, said.org, said.call_id)


def _together(earlier: Sequence[TimelineEvent], new: Sequence[TimelineEvent]) -> list[TimelineEvent]:
    """Each event once, at its lowest point."""
    lowest = {timed.event_id: timed for timed in earlier}
    for timed in new:
        held = lowest.get(timed.event_id)
        if held is None or timed.point < held.point:
            lowest[timed.event_id] = timed
    return list(lowest.values())


def _recalled(key: CallKey, stored: StoredCall) -> KnownCall:
    """A stored call and its events. Raises StoreMismatch where these read otherwise than when they were applied."""
    return KnownCall(stored.call, [_read_again(key, event) for event in stored.events])


def _read_again(key: CallKey, stored: StoredEvent) -> TimelineEvent:
    meaning = interpret(
        Delivery(
            source=stored.source,
            provider=stored.provider,
            org=stored.source_org,
            body=stored.body,
            headers=stored.headers,
            received_at=stored.received_at,
            trust=Trust(stored.trust),
            journal_id=stored.journal_id,
            position=stored.position,
        )
    )
    for timed in () if isinstance(meaning, DeadLetter) else meaning:
        if timed.event_id == stored.event_id and _key(timed) == key:
            return timed
    raise StoreMismatch(
        f"Event {stored.event_id} of the store reads differently now: it was stored by another version of the code. "
        "Rebuild the store with `calltally rebuild`."
    )


def _row(delivery: Delivery, verdict: Verdict) -> DeliveryRow:
    return DeliveryRow(
        id=delivery.id,
        position=delivery.position,
        journal_id=delivery.journal_id,
        source=delivery.source,
        provider=delivery.provider,
        verdict=verdict,
        reason=None,
        trust=delivery.trust,
        bytes=len(delivery.body),
        count=1,
        received_at=delivery.received_at,
    )


def _row_of_notice(notice: Notice) -> DeliveryRow:
    return DeliveryRow(
        id=notice.id,
        position=notice.position,
        journal_id=notice.journal_id,
        source=notice.source,
        provider=notice.provider,
        verdict=notice.verdict,
        reason=notice.reason,
        trust=None,
        bytes=notice.bytes,
        count=notice.count,
        received_at=notice.received_at,
    )


def _place(record: Delivery | Notice) -> Place:
    return Place(record.journal_id, record.position)


def _journal_of(damaged: Damaged, records: Sequence[Record], positions: Sequence[Position]) -> str:
    """The journal that a record comes from which may not be able to tell it itself."""
    if damaged.journal_id:
        return damaged.journal_id
    told = next((record.journal_id for record in records if not isinstance(record, Damaged)), None)
    return told or next((stream_id for stream, stream_id, _ in positions if stream == JOURNAL), "")


def _letter_of(damaged: Damaged, journal_id: str) -> DeadLetter:
    """For a record that cannot be trusted: it is known where it stood, not from whom and when it came."""
    lost = Delivery(
        source="",
        provider="",
        org="",
        body=damaged.body,
        headers={},
        received_at=0,
        trust=Trust.D,
        journal_id=journal_id,
        position=damaged.position,
    )
    return DeadLetter(reason=damaged.code, detail=damaged.reason, delivery=lost)


def _row_of_damaged(letter: DeadLetter) -> DeliveryRow:
    return msgspec.structs.replace(_row(letter.delivery, Verdict.ACCEPTED), id=None, reason=letter.reason)


def _report(letter: DeadLetter) -> None:
    at = letter.delivery
    say = log.error if letter.reason in OUR_FAULT else log.warning
    say(
        "a delivery became a dead letter",
        reason=letter.reason,
        detail=letter.detail,
        source=at.source,
        position=at.position,
    )
