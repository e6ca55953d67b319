"""One value as text in a file: times with their zone, and nothing that a spreadsheet would compute."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How text starts that a spreadsheet takes for a formula; the last four are the wide forms of the first."""


def plain(value: object) -> str:
    """A value that JSON does not know, as text; times in ISO with Z, bytes in base64."""
    if isinstance(value, datetime):
        moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return moment.isoformat() + "Z"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def inert(text: str) -> str:
    """Text that a spreadsheet reads as text even from CSV: what starts like a formula gets an apostrophe in front."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
