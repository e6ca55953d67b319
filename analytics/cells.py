"""One value as text in a file: times with their zone, and nothing that a spreadsheet would compute."""

from __future__ import annotations

from datetime import UTC, datetime

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def plain(value: object) -> str:
    """A value that JSON does not know, as text; times in ISO with Z."""
    if isinstance(value, datetime):
        moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return moment.isoformat() + "Z"
    return str(value)


def inert(text: str) -> str:
    """Text that a spreadsheet reads as text even from CSV: what starts like a formula gets an apostrophe in front."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
