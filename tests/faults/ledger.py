"""The ledger: one line of JSON for each attempt to deliver a webhook, in the order of their ends.

The driver writes it and the checker reads it; it is all that the two share.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request, and what came back."""

    source: str
    digest: str
    """The hex SHA-256 of source, NUL and the bytes that were sent."""
    kind: str
    """genuine, unreadable, forged or inbound."""
    call: tuple[str, str, str] | None
    number: int
    """1 for the first attempt of a delivery."""
    sent_at: float
    ended_at: float
    status: int | None
    """Of the answer; None where there was none."""
    answer: str
    """The id that the answer named, else the end of its body; or what happened instead of an answer."""


def write(ledger: TextIO, attempt: Attempt) -> None:
    ledger.write(json.dumps(asdict(attempt)) + "\n")


def read(path: Path) -> Iterator[Attempt]:
    with path.open() as lines:
        for line in lines:
            found = json.loads(line)
            call = found.pop("call")
            yield Attempt(call=None if call is None else tuple(call), **found)
