"""What a check found, and what a person could have seen of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

NAMED: Final = 5
"""How many of a kind a finding names."""
NUMBERS: Final = ("lost", "double", "phantom", "forged", "silent")


@dataclass(frozen=True, slots=True)
class Alarm:
    """A log line that a person would be woken by."""

    at: float
    """When it was written, in seconds since 1970; 0 where it does not say."""
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass
class Report:
    """The five numbers, as lists of what was found."""

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    attempts: int = 0
    acknowledged: int = 0
    records: int = 0
    """Of the journal."""
    calls: int = 0
    published: int = 0
    """Records of the topics, repeats included."""
    alarms: Sequence[Alarm] = ()
    named: frozenset[int] = frozenset()
    """Positions of the journal that are known to be damaged, so that whoever misses them is told."""

    def lose(self, finding: str, *, since: float = 0.0, position: int | None = None) -> None:
        """Something is missing. It is silent, too, unless its position is named or an alarm came at that time or later.

        `since` is the earliest time at which it can have been lost; 0 where none is known, so that any alarm counts.
        """
        self.lost.append(finding)
        if position not in self.named and not any(alarm.at >= since for alarm in self.alarms):
            self.silent.append(finding)

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in NUMBERS}

    @property
    def clean(self) -> bool:
        return not any(self.counts.values())

    def __str__(self) -> str:
        said = [", ".join(f"{name} {number}" for name, number in self.counts.items())]
        for name in self.counts:
            said += [f"  {name}: {finding}" for finding in getattr(self, name)[:NAMED]]
        return "\n".join(said)


def alarms_in(lines: Iterable[str]) -> list[Alarm]:
    """Those of a log's lines that a person would be woken by."""
    found = []
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            # `calltally up` writes its lines for people.
            written = _WRITTEN.search(line)
            if written is not None:
                found.append(Alarm(_of_today(written[1]), line.strip()))
            continue
        if isinstance(told, dict) and told.get("level") in ("error", "critical"):
            said = told.get("timestamp")
            found.append(Alarm(datetime.fromisoformat(said).timestamp() if said else 0.0, line.strip()))
    return found


_WRITTEN = re.compile(r"\| (\d\d:\d\d:\d\d) (?:error|critical) ")


def _of_today(clock: str) -> float:
    """The latest moment at which a clock here showed this; to the end of its second."""
    now = datetime.now().astimezone()
    hours, minutes, seconds = map(int, clock.split(":"))
    then = now.replace(hour=hours, minute=minutes, second=seconds, microsecond=999_999)
    return (then if then <= now + timedelta(minutes=1) else then - timedelta(days=1)).timestamp()
