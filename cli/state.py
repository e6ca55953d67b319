"""How everything stands: what runs, what the journal holds, how much of it is applied, who sent when.

What could not be read is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from calls.dead_letters import MISTAKES
from calls.errors import CalltallyError, JournalError, QueryError
from calls.journal_lock import writer_of
from cli import quarantined
from cli.probe import Health, State, health

if TYPE_CHECKING:
    from analytics.client import Partition
    from calls.settings import Settings

UNKNOWN = "-"


@dataclass(slots=True)
class Journalled:
    """What the journal holds."""

    id: str | None = None
    position: int | None = None
    bytes: int | None = None
    newest_at: datetime | None = None
    error: str | None = None


@dataclass(slots=True)
class Relayed:
    """How far the relay has published the journal to Kafka."""

    running: bool
    position: int
    lag: int
    """Records of the journal, as far as it is known, that Kafka has not acknowledged."""
    records_per_s: float
    fault: str | None
    """Why nothing is published now."""
    findings: list[str]
    """What about the topics should be otherwise."""


@dataclass(slots=True)
class Stored:
    """What the store holds; nothing is known of one that cannot be asked."""

    position: int | None = None
    """How far it has applied the journal that lies here; None where it says nothing of that one."""
    bytes: int | None = None
    """None where its file is not here."""
    newest_at: datetime | None = None
    calls: int | None = None
    events: int | None = None
    dead_letters: int | None = None
    mistakes: int | None = None
    """Those of the dead letters that are Calltally's own mistake."""
    error: str | None = None


@dataclass(slots=True)
class Sender:
    """What a source has sent, as far as it is applied."""

    source: str
    provider: str
    configured: bool
    last_delivery_at: datetime | None = None
    accepted: int | None = None
    repeated: int | None = None
    refused: int | None = None
    inbound: int | None = None
    quarantined: int | None = None


@dataclass(slots=True)
class Status:
    """Everything that `calltally status` shows."""

    ingest: Health
    worker: Health
    journal: Journalled
    store: Stored
    relay: Relayed | None
    """None where this journal was never published."""
    lag: int | None
    """How many records are received and not applied, on their way through Kafka included; None where that cannot be
    told."""
    sources: list[Sender] = field(default_factory=list)
    quarantine_error: str | None = None

    def problems(self) -> list[str]:
        """What is not well, a sentence each."""
        return [sentence for sentence in self._problems() if sentence]

    def _problems(self) -> Iterator[str | None]:
        for name, one in (("ingest", self.ingest), ("worker", self.worker)):
            if one.state is State.UNREADY:
                yield f"{name.capitalize()} is not ready: {one.detail}"
            elif one.state is State.FOREIGN:
                yield f"At {one.address}, where {name} should be, something else answers: {one.detail}."
        if self.relay is not None and self.relay.running:
            yield self.relay.fault and f"The relay waits: {self.relay.fault}"
            yield from self.relay.findings
        yield self.journal.error
        yield self.store.error
        yield self.quarantine_error


def look(settings: Settings) -> Status:
    """Ask what runs, and read what lies on disk."""
    journal = _journal(settings.journal_path)
    ingest, worker, relay = health(settings.ingest_url), health(settings.sql_url), _relay(settings, journal)
    if ingest.state in (State.READY, State.UNREADY) and writer_of(settings.journal_path) is None:
        ingest = replace(ingest, state=State.FOREIGN, detail="the ingest of another data folder")
    found = Status(ingest=ingest, worker=worker, journal=journal, store=Stored(), relay=relay, lag=None)
    senders: dict[str, Sender] = {}
    try:
        found.store, senders = _store(settings, journal.id), _senders(settings)
    except QueryError as error:
        # Neither a worker nor a file: nothing can be asked yet, which is no fault.
        if error.code != "unreachable" or settings.store_path.exists():
            found.store.error = error.message
    except CalltallyError as error:
        found.store.error = error.message
    found.store.bytes = _size(settings.store_path)
    found.lag = None if found.store.error else _lag(found, settings)
    known = found.store.calls is not None
    for source in settings.sources.values():
        senders.setdefault(source.name, _silent(source.name, source.provider, known)).configured = True
    try:
        _count_quarantined(settings, senders, known)
    except CalltallyError as error:
        found.quarantine_error = error.message
    found.sources = sorted(senders.values(), key=lambda sender: sender.source)
    return found


def lines(status: Status, now: datetime) -> Iterator[tuple[str, str]]:
    """What stands, for a person: a name, and words."""
    yield "ingest", _process(status.ingest)
    if status.relay is not None:
        yield "relay", _relaying(status.relay)
    yield "worker", _process(status.worker)
    if status.worker.partitions:
        yield "in Kafka", _partitions(status.worker.partitions)
    journal, store = status.journal, status.store
    if journal.error:
        yield "journal", "cannot be read; see below"
    elif journal.id is None:
        yield "journal", "none yet; ingest makes it when it starts"
    else:
        size = _bytes(journal.bytes)
        yield "journal", f"{journal.position:,} records{size}, newest {_ago(journal.newest_at, now)}"
    if store.error:
        yield "store", "cannot be asked; see below"
    elif store.calls is None:
        yield "store", "none here; the worker has it, or makes it when it starts"
    else:
        yield "store", f"{how_far(status)}, {store.calls:,} calls, {store.events:,} events{_bytes(store.bytes)}"
    if store.dead_letters:
        ours = f", {store.mistakes:,} of them by a mistake of Calltally" if store.mistakes else ""
        yield "not readable", f"{store.dead_letters:,} deliveries{ours}; see `calltally dead list`"
    held = sum(sender.quarantined or 0 for sender in status.sources)
    if held:
        yield "quarantine", f"{held:,} deliveries that were not proved; see `calltally quarantine list`"


def how_far(status: Status) -> str:
    """How far the store is, or why that cannot be told."""
    if status.lag is not None:
        return f"{status.lag:,} records behind" if status.lag else "up to date"
    reasons = {
        State.READY: ": its positions are not those of the journal that lies here",
        State.UNREADY: " until the worker is ready",
    }
    return f"how far behind cannot be told{reasons.get(status.worker.state, ' while the worker is away')}"


def source_rows(status: Status, now: datetime) -> list[dict[str, object]]:
    """A line for each source, for a person."""
    return [
        {
            "source": sender.source + ("" if sender.configured else " (not configured)"),
            "provider": sender.provider,
            "last delivery": UNKNOWN if sender.accepted is None else _ago(sender.last_delivery_at, now),
            "accepted": _or_unknown(sender.accepted),
            "repeated": _or_unknown(sender.repeated),
            "refused": _or_unknown(sender.refused),
            "quarantined": _or_unknown(sender.quarantined),
        }
        for sender in status.sources
    ]


def _journal(path: Path) -> Journalled:
    from calls.journal_reader import JournalReader
    from calls.journal_row import Damaged

    if not path.exists():
        return Journalled()
    try:
        reader = JournalReader(path)
        try:
            last = reader.last_position()
            newest = reader.read(last - 1, rows=1) if last >= reader.first_position() else []
        finally:
            reader.close()
    except JournalError as error:
        return Journalled(bytes=_size(path), error=error.message)
    at = [_time(record.received_at) for record in newest if not isinstance(record, Damaged)]
    return Journalled(reader.journal_id, last, _size(path), at[0] if at else None)


def _relay(settings: Settings, journal: Journalled) -> Relayed | None:
    from calls import relay_report

    report = relay_report.read(settings.data_dir)
    if report is None:
        return None
    # What it knew of the journal is as old as its last words; the file is here.
    here = journal.position if report.journal_id in ("", journal.id) else None
    last = report.journal_position if here is None else here
    return Relayed(
        running=relay_report.running(settings.data_dir),
        position=report.position,
        lag=max(0, last - report.position),
        records_per_s=report.records_per_s,
        fault=None if report.fault is None else report.fault.message,
        findings=report.findings,
    )


def _lag(found: Status, settings: Settings) -> int | None:
    from analytics.client import Client

    position, newest = found.store.position, found.journal.position
    if found.worker.partitions:
        return sum(one.lag for one in found.worker.partitions) + (0 if found.relay is None else found.relay.lag)
    if position is not None and newest is not None:
        return max(0, newest - position)
    if found.journal.id is None and found.journal.error is None and found.worker.state is State.READY:
        # The journal lies where the worker is, which compares the two itself.
        with suppress(QueryError):
            return Client.of(settings).state().lag
    return None


def _store(settings: Settings, journal_id: str | None) -> Stored:
    """What the store holds. Raises QueryError, StoreError."""
    from analytics.client import ask

    row = ask(_COUNTS, {"journal": journal_id or ""}, settings=settings).table.to_pylist()[0]
    position = row.pop("applied")
    row["newest_at"] = row["newest_at"].replace(tzinfo=UTC) if row["newest_at"] else None
    # Filled from Kafka or from another journal, the store does not count in the positions of this one.
    if row.pop("streams") == 0:
        position = 0
    return Stored(position=position, **row)


def _senders(settings: Settings) -> dict[str, Sender]:
    from analytics.client import ask

    found = {}
    for row in ask(_SENDERS, settings=settings).table.to_pylist():
        at = row.pop("last_delivery_at")
        found[row["source"]] = Sender(**row, configured=False, last_delivery_at=at.replace(tzinfo=UTC) if at else None)
    return found


def _silent(source: str, provider: str, known: bool) -> Sender:
    """One of whom the store tells nothing: it sent nothing, if the store could be asked."""
    count = 0 if known else None
    return Sender(source, provider, False, accepted=count, repeated=count, refused=count, inbound=count)


def _count_quarantined(settings: Settings, senders: dict[str, Sender], known: bool) -> None:
    """Raises CalltallyError."""
    held = quarantined.counts(settings)
    for name in held:
        senders.setdefault(name, _silent(name, "", known))
    if held or settings.journal_path.exists():
        for sender in senders.values():
            sender.quarantined = held.get(sender.source, (0, 0))[0]


_COUNTS = f"""
SELECT (SELECT max(position) FROM positions WHERE stream = 'journal' AND stream_id = $journal) AS applied,
    (SELECT count(*) FROM positions) AS streams,
    (SELECT max(received_at) FROM deliveries) AS newest_at,
    (SELECT count(*) FROM calls) AS calls,
    (SELECT count(*) FROM call_events) + (SELECT count(*) FROM other_events) AS events,
    (SELECT count(*) FROM dead_letters) AS dead_letters,
    (SELECT count(*) FROM dead_letters WHERE reason IN {tuple(sorted(MISTAKES))}) AS mistakes
"""
_SENDERS = """
SELECT source, max(provider) AS provider, max(received_at) FILTER (verdict <> 'refused') AS last_delivery_at,
    coalesce(sum("count") FILTER (verdict = 'accepted'), 0)::BIGINT AS accepted,
    coalesce(sum("count") FILTER (verdict = 'repeated'), 0)::BIGINT AS repeated,
    coalesce(sum("count") FILTER (verdict = 'refused'), 0)::BIGINT AS refused,
    coalesce(sum("count") FILTER (verdict = 'inbound'), 0)::BIGINT AS inbound
FROM deliveries WHERE source <> '' GROUP BY source
"""


def _process(one: Health) -> str:
    where = f"at {one.address}"
    return f"{one.state} {where}" + (f": {one.detail}" if one.detail else "")


def _relaying(relay: Relayed) -> str:
    behind = f"{relay.lag:,} records not published yet" if relay.lag else "all of the journal is published"
    if not relay.running:
        return f"not running, {behind}"
    return f"waits, {behind}; see below" if relay.fault else f"running, {behind}"


def _partitions(partitions: Sequence[Partition]) -> str:
    behind = [one for one in partitions if one.lag]
    if not behind:
        return f"nothing waits in {len(partitions)} partitions"
    each = ", ".join(f"{one.lag:,} in {one.topic} {one.partition}" for one in behind)
    return f"{sum(one.lag for one in behind):,} records wait for the worker: {each}"


def _size(path: Path) -> int | None:
    """Bytes of a database file and of its log; None where there is no file."""
    if not path.exists():
        return None
    total = 0
    for part in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + ".wal")):
        try:
            total += part.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _bytes(size: int | None) -> str:
    from rich.filesize import decimal

    return "" if size is None else f", {decimal(size)}"


def _or_unknown(count: int | None) -> int | str:
    return UNKNOWN if count is None else count


def _ago(moment: datetime | None, now: datetime) -> str:
    from dashboard.words import ago

    return "never" if moment is None else ago(moment, now)


def _time(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
