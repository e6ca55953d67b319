"""What the relay last said of itself, in a small file beside the journal: it listens nowhere, so others read that."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from calls.model import Micros

FILE_NAME = "relay.json"
LOCK_NAME = "relay.lock"


class Fault(msgspec.Struct, frozen=True):
    """Why nothing is being published."""

    code: str
    message: str
    transient: bool
    since: Micros


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the relay said of itself when it last wrote its file."""

    process: int
    written_at: Micros
    running: bool
    """Whether it still meant to go on then; a relay that was killed could not say otherwise."""
    journal_id: str
    position: int
    """Everything up to here is acknowledged by Kafka."""
    journal_position: int
    published: int
    """Records acknowledged since the relay started, chunks each."""
    records_per_s: float
    last_ack_at: Micros | None
    fault: Fault | None
    findings: list[str]
    """What about the topics should be otherwise, sentences."""

    @property
    def lag(self) -> int:
        return max(0, self.journal_position - self.position)


def read(data_dir: Path) -> Report | None:
    """The relay's last words, None where there never was a relay or they cannot be read."""
    try:
        return msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError):
        return None


def running(data_dir: Path) -> bool:
    """Whether a relay of this data folder lives now."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
