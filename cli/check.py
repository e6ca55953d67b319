"""What a check of `calltally doctor` is: a module of `cli/checks/` with a `check` that yields findings."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import cli.checks
from calls.errors import CalltallyError, JournalError
from calls.journal_reader import JournalReader
from calls.journal_row import Record
from calls.model import Micros
from calls.settings import Settings
from cli.probe import Health, health

TAIL_RECORDS = 5_000


class Level(StrEnum):
    """How bad a finding is; from `warning` on something should be done."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    cause: str
    """What is so, and why."""
    fix: str = ""
    """What to do about it."""

    @property
    def bad(self) -> bool:
        return self.level in (Level.WARNING, Level.WRONG)


@dataclass
class Patient:
    """What is looked at."""

    settings: Settings
    folder: Path
    """Where calltally.toml lies."""
    now: Micros
    ask_inbound: bool = False
    """Whether a waiting call's question may be put to the running ingest; it leaves a row."""

    @cached_property
    def ingest(self) -> Health:
        return health(self.settings.ingest_url)

    @cached_property
    def worker(self) -> Health:
        return health(self.settings.sql_url)

    @cached_property
    def tail(self) -> list[Record]:
        """The newest records of the journal; none where it cannot be read, which is a finding of its own."""
        try:
            reader = JournalReader(self.settings.journal_path)
        except JournalError:
            return []
        try:
            after = max(reader.first_position() - 1, reader.last_position() - TAIL_RECORDS)
            return reader.read(after, rows=TAIL_RECORDS)
        except JournalError:
            return []
        finally:
            reader.close()


Check = Callable[[Patient], Iterator[Finding]]


def checks() -> dict[str, Check]:
    """Every check by name, found by walking the folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(cli.checks.__path__))
    return {name: importlib.import_module(f"cli.checks.{name}").check for name in names}


def examined(check: Check, patient: Patient) -> Iterator[Finding]:
    """What a check finds; one that cannot go on for a reason we know is a finding, too."""
    try:
        yield from check(patient)
    except CalltallyError as error:
        yield Finding(Level.WRONG, error.message)
    except OSError as error:
        yield Finding(Level.WRONG, f"{error.filename or 'A file'}: {error.strerror or error}.")
