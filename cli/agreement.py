"""Whether journal and store agree: every record that counts as applied is in the store exactly as it was journalled.

Both are read in step, block by block, so that neither stands in memory; what is journalled meanwhile counts as lag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from calls.journal_row import Damaged, Record
from calls.model import Delivery, Notice
from cli.output import Told

if TYPE_CHECKING:
    import pyarrow as pa

    from calls.journal_reader import JournalReader

BLOCK_ROWS = 10_000

Ask = Callable[[str, Mapping[str, str | int]], "pa.Table"]


@dataclass(slots=True)
class Comparison:
    """What was compared, and what was found."""

    made: bool = True
    """False where there is no journal to compare with."""
    records: int = 0
    deliveries: dict[str, int] = field(default_factory=dict)
    """Journalled deliveries by source, as far as they are applied."""
    lag: int = 0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be compared."""
    _faults: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, fault: str, example: object) -> None:
        """One more of a kind of fault; the first one is named."""
        number, first = self._faults.get(fault, (0, str(example)))
        self._faults[fault] = number + 1, first

    def close(self) -> None:
        """Turn the counted faults into sentences."""
        for fault, (number, first) in self._faults.items():
            self.findings.append(f"{fault.format(n=number)}, for example {first}.")


def compare(reader: JournalReader, ask: Ask, told: Told) -> Comparison:
    """Read the whole journal, checking each digest, beside the store. Raises JournalError, QueryError, StoreError."""
    found = Comparison()
    applied = _applied(reader, ask, found)
    position, last = reader.first_position() - 1, reader.last_position()
    if position:
        found.notes.append(
            f"The journal begins at position {position + 1}; what stood before is not in it and was not compared."
        )
    while records := reader.read(position, rows=BLOCK_ROWS):
        _check(records, applied, ask, found)
        position = records[-1].position
        found.records += len(records)
        told(position, max(position, last))
    if applied.certain:
        found.lag = max(0, position - applied.until)
    found.close()
    return found


def without_journal(journal_path: Path, ask: Ask, *, is_store_here: bool) -> Comparison:
    """What is to be said where there is no journal: that is as it should be unless this disk's store came from one."""
    found = Comparison(
        made=False, notes=[f"The journal was not compared with the store: there is none at {journal_path}."]
    )
    filled_from = ask("SELECT DISTINCT stream FROM positions", {}).column("stream").to_pylist()
    if is_store_here and "journal" in filled_from:
        found.findings.append(f"The store was filled from a journal, but there is none at {journal_path}. Put it back.")
    return found


class _Applied(NamedTuple):
    """How far the store says it is."""

    until: int
    """The last position of this journal that should be in the store."""
    certain: bool
    """Whether everything up to there must be in it; of a store filled from Kafka that cannot be told."""
    alone: bool
    """Whether the store was filled from this journal only."""


class _Standing(NamedTuple):
    """How a record stands in the table `deliveries`."""

    position: int
    source: str
    id: str | None
    delivered: bool


def _applied(reader: JournalReader, ask: Ask, found: Comparison) -> _Applied:
    rows = ask("SELECT stream, stream_id, position FROM positions", {}).to_pylist()
    journals = {row["stream_id"]: int(row["position"]) for row in rows if row["stream"] == "journal"}
    # Read after the store's: what the store has applied must be in the journal by now.
    last = reader.last_position()
    if len(journals) < len(rows):
        return _Applied(last, certain=False, alone=False)
    until = journals.get(reader.journal_id, 0)
    if journals and reader.journal_id not in journals:
        found.findings.append(
            f"The store was filled from journal {next(iter(journals))}, but the one in the data folder is "
            f"{reader.journal_id}. Put the right one back, or run `calltally rebuild`."
        )
    elif until > last:
        found.findings.append(
            f"The store has applied position {until}, but the journal ends at {last}: an older copy was put back, or "
            "its end was lost. Put the right one back, or run `calltally rebuild`."
        )
    return _Applied(min(until, last), certain=True, alone=len(journals) <= 1)


def _check(records: Sequence[Record], applied: _Applied, ask: Ask, found: Comparison) -> None:
    block: list[Delivery | Notice] = []
    for record in records:
        if isinstance(record, Damaged):
            why = record.reason.rstrip(".")
            found.add("{n} records of the journal are damaged (position)", f"{record.position} ({why})")
        elif record.position <= applied.until:
            block.append(record)
    until = min(records[-1].position, applied.until)
    after = records[0].position - 1
    if until <= after:
        return
    columns = ask(_ROWS, {"after": after, "until": until}).columns
    stored = {_Standing(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)}
    journalled = {_standing(record) for record in block}
    missing = sorted(one.position for one in journalled - stored)
    for position in missing if applied.certain else ():
        found.add("{n} journalled records are not in the store as they were received (position)", position)
    if not applied.certain:
        found.lag += len(missing)
    for position in sorted(one.position for one in stored - journalled) if applied.alone else ():
        found.add("{n} deliveries of the store are not so in the journal (position)", position)
    for record in block:
        if isinstance(record, Delivery):
            found.deliveries[record.source] = found.deliveries.get(record.source, 0) + 1


def _standing(record: Delivery | Notice) -> _Standing:
    return _Standing(record.position, record.source, record.id, isinstance(record, Delivery))


_ROWS = """
SELECT position, source, id, trust IS NOT NULL AS delivered FROM deliveries
WHERE position > $after AND position <= $until
"""
