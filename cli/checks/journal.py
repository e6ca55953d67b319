"""Whether the journal opens and its newest records are as they were written."""

from __future__ import annotations

from collections.abc import Iterator

from calls.journal_reader import JournalReader
from calls.journal_row import Damaged
from cli.check import Finding, Level, Patient


def check(patient: Patient) -> Iterator[Finding]:
    """The newest records' digests; all of them are checked by `calltally verify`."""
    path = patient.settings.journal_path
    if not path.exists():
        yield Finding(Level.NOTE, f"There is no journal {path} yet; ingest makes it when it starts.")
        return
    reader = JournalReader(path)
    try:
        last = reader.last_position()
        damaged = [record for record in patient.tail if isinstance(record, Damaged)]
    finally:
        reader.close()
    if damaged:
        yield Finding(
            Level.WRONG,
            f"{len(damaged)} of the newest {len(patient.tail):,} records are damaged, the first at position "
            f"{damaged[0].position}: {damaged[0].reason}",
            "Check the disk; keep a copy of the file; put the last backup back. `calltally verify` reads all of it.",
        )
    else:
        newest = f"the newest {len(patient.tail):,} match their digests"
        yield Finding(Level.OK, f"The journal has {last:,} records; {newest}.")
