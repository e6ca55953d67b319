"""What happened at the door, told to the log and to the journal, at a bounded rate.

Of each (source, verdict, reason) the first few within a window are told one by one, with their diagnosis; the rest of
the window becomes one line and one notice with its count. So a stranger who floods the door fills neither log nor disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from calls.errors import JournalUnavailable
from calls.journal import NewNotice
from calls.model import Micros, Verdict

ONE_BY_ONE = 20
WINDOW_S = 10.0
DETAIL_CHARACTERS = 600

log = structlog.get_logger("ingest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One request that did not become a delivery."""

    source: str
    """Empty where no source is known."""
    provider: str
    verdict: Verdict
    reason: str | None
    id: str | None
    bytes: int
    received_at: Micros


class Notices:
    """Tells happenings; `append` hands a notice to the journal and may raise JournalUnavailable."""

    def __init__(self, append: Callable[[NewNotice], None]) -> None:
        self._append = append
        self._windows: dict[tuple[str, Verdict, str | None], _Window] = {}
        self.lost = 0
        """Requests whose notice could not be handed to the journal."""

    def tell(self, what: Happening, explain: Callable[[], str | None]) -> None:
        """Tell it now, explained, or add it to the count of what is told later."""
        key = (what.source, what.verdict, what.reason)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(time.monotonic() + WINDOW_S)
        if window.told < ONE_BY_ONE:
            window.told += 1
            self._tell(what, explain(), 1)
            return
        window.merged += 1
        window.bytes += what.bytes
        window.last = what

    def flush(self, *, all_of_them: bool = False) -> None:
        """Tell what was merged in windows that are over; called now and then."""
        now = time.monotonic()
        over = [key for key, window in self._windows.items() if all_of_them or window.ends <= now]
        for key in over:
            window = self._windows.pop(key)
            if window.last is not None:
                merged = Happening(
                    source=window.last.source,
                    provider=window.last.provider,
                    verdict=window.last.verdict,
                    reason=window.last.reason,
                    id=None,
                    bytes=window.bytes,
                    received_at=window.last.received_at,
                )
                self._tell(
                    merged, f"{window.merged} more requests of this kind within {WINDOW_S:.0f} s.", window.merged
                )

    def _tell(self, what: Happening, detail: str | None, count: int) -> None:
        if detail is not None:
            detail = _printable(detail)
        if what.verdict is Verdict.REFUSED:
            log.warning(
                "refused", source=what.source or None, reason=what.reason, detail=detail, bytes=what.bytes, count=count
            )
        if not what.source:
            return
        try:
            self._append(
                NewNotice(
                    source=what.source,
                    provider=what.provider,
                    verdict=what.verdict,
                    reason=what.reason,
                    detail=detail,
                    id=what.id,
                    bytes=what.bytes,
                    count=count,
                    received_at=what.received_at,
                )
            )
        except JournalUnavailable:
            self.lost += count


@dataclass(slots=True)
class _Window:
    ends: float
    told: int = 0
    merged: int = 0
    bytes: int = 0
    last: Happening | None = None


def _printable(text: str) -> str:
    """Control characters and other invisible ones escaped, so that what a stranger sent cannot forge a line."""
    escaped = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:DETAIL_CHARACTERS])
    return escaped[:DETAIL_CHARACTERS]
