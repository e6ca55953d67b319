"""What the journal's file says, as the checker reads it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Journalled:
    """A journal at rest."""

    journal_id: str = ""
    last: int = 0
    deliveries: dict[int, str] = field(default_factory=dict)
    """Digest by position."""
    received_at: dict[int, float] = field(default_factory=dict)
    """Of deliveries and notices, in seconds since 1970."""

    @property
    def notices(self) -> set[int]:
        return self.received_at.keys() - self.deliveries.keys()
