"""What the quarantine holds, seen from the command line: counted, listed, and what would verify now."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calls.errors import CalltallyError, PayloadMalformed, SignatureRejected

if TYPE_CHECKING:
    from calls.settings import Settings
    from ingest.quarantine import Held, Retry


@dataclass(slots=True)
class Outlook:
    """What a retry would do to the deliveries of one source."""

    source: str
    held: int = 0
    would_pass: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Of those that would be refused again."""


def counts(settings: Settings) -> dict[str, tuple[int, int]]:
    """Rows and bytes held, by source. Raises CalltallyError."""
    from ingest.quarantine import counts_in

    with _said(settings):
        return counts_in(settings.quarantine_path)


def held(settings: Settings, source: str | None) -> Iterator[Held]:
    """What is held, in order of arrival. Raises CalltallyError."""
    from ingest.quarantine import held_in

    with _said(settings):
        yield from held_in(settings.quarantine_path, source)


def outlook(settings: Settings, source: str | None, seen: Callable[[int], None]) -> list[Outlook]:
    """What would verify with the secrets as they are now, source by source; changes nothing."""
    from ingest.gate import Counts, Gate

    tolerance_s = settings.inboundflow_tolerance_s
    gates = {name: Gate(one, Counts(), inboundflow_tolerance_s=tolerance_s) for name, one in settings.sources.items()}
    found: dict[str, Outlook] = {}
    for number, one in enumerate(held(settings, source), 1):
        told = found.setdefault(one.source, Outlook(one.source))
        told.held += 1
        reason = _refusal(gates.get(one.source), one)
        if reason is None:
            told.would_pass += 1
        else:
            told.reasons[reason] = told.reasons.get(reason, 0) + 1
        seen(number)
    return list(found.values())


def request(settings: Settings, source: str | None) -> Retry:
    """Ask ingest to verify again. Raises CalltallyError."""
    from ingest.quarantine import request_retry

    with _said(settings):
        return request_retry(settings.quarantine_path, source)


def outcome(settings: Settings, retry: Retry) -> Retry | None:
    """What came of it; None while it waits. Raises CalltallyError."""
    from ingest.quarantine import retry_in

    with _said(settings):
        found = retry_in(settings.quarantine_path, retry.ticket)
    return found if found is not None and found.accepted is not None else None


def _refusal(gate: object, one: Held) -> str | None:
    from ingest.gate import Gate

    if not isinstance(gate, Gate):
        return "source_not_configured"
    try:
        gate.prove(one.headers, one.body, one.received_at)
    except (SignatureRejected, PayloadMalformed) as error:
        return error.code
    return None


@contextmanager
def _said(settings: Settings) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise CalltallyError(
            f"The quarantine {settings.quarantine_path} cannot be used ({error}). Check the disk and "
            "this user's rights."
        ) from error
