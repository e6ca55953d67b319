"""What calls add to the roll-ups. Pure; `rollups.sql` counts the same from the tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from analytics.batch import CallChange
from calls.model import Call, Variable

GRAIN_US: Final = 15 * 60 * 1_000_000
DURATION_MAX_S: Final = 1e7
"""Longer durations (four months) are senders' mistakes that would overflow a sum; they are counted as not known."""

COLUMNS: Final = (
    *("rollup", "bucket_start", "provider", "org", "agent_id", "campaign", "direction", "status", "end_call_reason"),
    *("connection", "ended_by", "label", "result"),
    *("calls", "transferred", "booked", "duration_us", "duration_n", "collected", "filled"),
)
"""The columns of a change: first what a roll-up's row is about, then the numbers that are added to it."""

Row: TypeAlias = tuple[str | int | None, ...]
Numbers: TypeAlias = tuple[int, int, int, int, int]


def changes(batch: Iterable[CallChange]) -> list[Row]:
    """The rows of `kept.rollup_changes` for calls that change: retract what stood before, add what stands now."""
    sums = _Sums()
    for change in batch:
        if change.before is not None:
            _add(sums, change.before, -1)
        _add(sums, change.after, 1)
    return list(_rows(sums))


class _Sums:
    """What is added, by what each roll-up's row is about."""

    def __init__(self) -> None:
        self.calls: dict[Row, Numbers] = {}
        # In two steps, since a short key is hashed at a third of the price and most calls of a batch share the first.
        self.analysis: dict[Row, dict[tuple[str, str], int]] = {}
        self.variables: dict[Row, dict[tuple[str | None, str], tuple[int, int, int]]] = {}


def _add(sums: _Sums, call: Call, sign: int) -> None:
    if call["excluded"] is not None:
        return
    bucket = call["counted_at"] // GRAIN_US * GRAIN_US
    provider, org, agent_id, direction = call["provider"], call["org"], call["agent_id"], call["direction"]
    about: Row = (
        *(bucket, provider, org, agent_id, call["campaign"], direction, call["status"], call["end_call_reason"]),
        *(call["connection"], call["ended_by"], call["result"]),
    )
    a, b, c, d, e = sums.calls.get(about, (0, 0, 0, 0, 0))
    if call["transferred"]:
        b += sign
    if call["appointments"]:
        c += sign
    seconds = call["duration_s"]
    if seconds is not None and abs(seconds) < DURATION_MAX_S:
        d, e = d + sign * math.floor(seconds * 1e6 + 0.5), e + sign
    sums.calls[about] = a + sign, b, c, d, e
    if call["analysis"]:
        about = bucket, provider, org, agent_id, direction
        judged = sums.analysis.setdefault(about, {})
        for judgement in {(item["criterion"], item["result"]) for item in call["analysis"]}:
            judged[judgement] = judged.get(judgement, 0) + sign
    if call["variables"]:
        about = bucket, provider, org, direction
        asked = sums.variables.setdefault(about, {})
        for name, (collected, filled) in _variables(call["variables"]).items():
            a, b, c = asked.get(name, (0, 0, 0))
            asked[name] = a + sign, b + sign * collected, c + sign * filled


def _rows(sums: _Sums) -> Iterator[Row]:
    for about, numbers in sums.calls.items():
        if any(numbers):
            yield ("calls", *about[:10], None, about[10], *numbers, 0, 0)
    for (bucket, provider, org, agent_id, direction), judged in sums.analysis.items():
        for (criterion, result), calls in judged.items():
            if calls:
                about = bucket, provider, org, agent_id, None, direction, None, None, None, None, criterion, result
                yield ("analysis", *about, calls, 0, 0, 0, 0, 0, 0)
    for (bucket, provider, org, direction), asked in sums.variables.items():
        for (agent_id, name), (calls, collected, filled) in asked.items():
            if calls or collected or filled:
                about = bucket, provider, org, agent_id, None, direction, None, None, None, None, name, None
                yield ("variables", *about, calls, 0, 0, 0, 0, collected, filled)


def _variables(variables: list[Variable]) -> dict[tuple[str | None, str], tuple[bool, bool]]:
    found: dict[tuple[str | None, str], tuple[bool, bool]] = {}
    for item in variables:
        name = item["agent_id"], item["name"]
        collected, filled = found.get(name, (False, False))
        found[name] = collected or item["collected"], filled or _filled(item)
    return found


def _filled(item: Variable) -> bool:
    value, text = item["value"], item["value_text"]
    if value is None or value in ("null", "[]", "{}"):
        return False
    # Only spaces are stripped: what else counts as blank, Python and SQL do not agree on.
    return (value if text is None else text).strip(" ") != ""
