"""What a store is to hold after some records, read off a plain list of them, and whether it does.

Nothing here looks at how a store came to hold it: of equal deliveries the lowest that can be read counts, the rest are
repeats, and every call is the fold of its events. Readings and folds are remembered, so that a look after every step
costs what is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from analytics import columns
from analytics.contributions import COLUMNS, changes
from analytics.store import CallChange, Place, Store
from calls.dead_letters import CRASHED_WORKER, NOT_STORABLE
from calls.journal_row import Damaged, Record
from calls.model import Call, CallKey, DeadLetter, Delivery, Notice, Rules, StreamPoint, TimelineEvent, Verdict
from streams import steps
from streams.fold import fold
from tests.faults.histories.mishaps import UNSTORABLE

RULES: Final = Rules(success={"interested": "met", "qualified": "partly"})
THOROUGH: Final = 0.07
"""How often the end of a history that has no files is also compared by what people query, and verified by SQL."""
_ABOUT: Final = COLUMNS[1:13]
_NUMBERS: Final = COLUMNS[13:]
_ROLLUPS: Final = {
    "calls": {"result": "result", **dict.fromkeys(("calls", "transferred", "booked", "duration_us", "duration_n"))},
    "analysis": {"label": "criterion", "result": "result", "calls": None},
    "variables": {"label": "name", **dict.fromkeys(("calls", "collected", "filled"))},
}
_SHARED: Final = {
    "calls": ("agent_id", "campaign", "direction", "status", "end_call_reason", "connection", "ended_by"),
    "analysis": ("agent_id", "direction"),
    "variables": ("agent_id", "direction"),
}


class Expected(NamedTuple):
    """What the store is to hold."""

    deliveries: list[tuple[object, ...]]
    dead_letters: list[tuple[object, ...]]
    events: list[tuple[object, ...]]
    calls: dict[CallKey, Call]


class Copy(NamedTuple):
    """One delivery and what it says."""

    delivery: Delivery
    events: list[TimelineEvent]
    reason: str | None
    """Why it cannot be read."""


@dataclass
class Law:
    """What follows from records, for one history."""

    _copies: dict[Place, Copy] = field(default_factory=dict)
    _calls: dict[frozenset[tuple[str, StreamPoint]], Call] = field(default_factory=dict)

    def of(self, records: Iterable[Record], journal_id: str = "", deadly: Collection[str] = ()) -> Expected:
        """After these records; `journal_id` is that of records which cannot tell it, `deadly` are passed over."""
        rows: dict[Place, tuple[str | None, str]] = {}
        letters: list[tuple[object, ...]] = []
        copies: dict[str, list[Copy]] = {}
        for record in records:
            place = Place(record.journal_id or journal_id, record.position)
            if isinstance(record, Damaged):
                rows[place] = None, "accepted"
                letters.append((*place, record.code))
            elif isinstance(record, Notice):
                rows[place] = record.id, str(record.verdict)
            else:
                copies.setdefault(record.id, []).append(self._copy(record))
        events: list[TimelineEvent] = []
        for name, equal in copies.items():
            standing = _standing(equal)
            for copy in equal:
                verdict = Verdict.ACCEPTED if copy is standing else Verdict.REPEATED
                rows[_place(copy.delivery)] = name, str(verdict)
            reason = CRASHED_WORKER if name in deadly else standing.reason
            if reason is None:
                events += standing.events
            else:
                letters.append((*_place(standing.delivery), reason))
        return Expected(
            sorted((*place, *told) for place, told in rows.items()),
            sorted(letters, key=repr),
            sorted((timed.event_id, timed.journal_id, timed.position) for timed in events),
            self._folded(events),
        )

    def require(self, store: Store, expected: Expected) -> None:
        """Raises AssertionError where the store holds anything else, or its roll-ups are not those of these calls."""
        with store.cursor() as cursor:
            for table, wanted, text in (
                ("deliveries", expected.deliveries, "journal_id, position, id, verdict"),
                ("dead_letters", expected.dead_letters, "journal_id, position, reason"),
                ("events", expected.events, "event_id, journal_id, position"),
            ):
                found = cursor.execute(f"SELECT {text} FROM kept.{table}").fetchall()
                found.sort(key=repr if table == "dead_letters" else None)
                assert found == wanted, _difference(table, found, wanted)
            stored = columns.calls_of(cursor.sql("FROM kept.calls").to_arrow_table())
            rollups = cursor.execute(_ALL_ROLLUPS).fetchall()
        calls = {CallKey(call["provider"], call["org"], call["call_id"]): call for call in stored}
        assert len(calls) == len(stored), "a call is stored twice"
        for key in calls.keys() | expected.calls.keys():
            one, other = calls.get(key), expected.calls.get(key)
            assert one == other, _difference(f"call {key}", one, other)
        sums, wanted_sums = _sums(rollups), _sums(_contributions(expected.calls))
        assert sums == wanted_sums, _difference("roll-ups", dict(sums), dict(wanted_sums))

    def _copy(self, delivery: Delivery) -> Copy:
        place = _place(delivery)
        found = self._copies.get(place)
        if found is None:
            meaning = steps.interpret(delivery)
            if isinstance(meaning, DeadLetter):
                found = Copy(delivery, [], meaning.reason)
            else:
                found = Copy(delivery, meaning, NOT_STORABLE if UNSTORABLE in delivery.body else None)
            self._copies[place] = found
        return found

    def _folded(self, events: Iterable[TimelineEvent]) -> dict[CallKey, Call]:
        told: dict[CallKey, list[TimelineEvent]] = {}
        for timed in events:
            if timed.event.call_id is not None:
                told.setdefault(CallKey(timed.provider, timed.event.org, timed.event.call_id), []).append(timed)
        calls = {}
        for key, of_call in told.items():
            known = frozenset((timed.event_id, timed.point) for timed in of_call)
            if known not in self._calls:
                self._calls[known] = fold(of_call, RULES)
            calls[key] = self._calls[known]
        return calls


def contents(store: Store) -> dict[str, list[str]]:
    """All that two stores of the same records must have in common, whatever the way to it."""
    found = {}
    with store.cursor() as cursor:
        for table, text in _COMPARED.items():
            found[table] = sorted(map(repr, cursor.execute(text).fetchall()))
        found["roll-ups"] = sorted(map(repr, _sums(cursor.execute(_ALL_ROLLUPS).fetchall()).items()))
    return found


def _rollup_rows(table: str) -> str:
    """One roll-up's rows in the columns of `rollup_changes`."""
    there = {name: name if other is None else other for name, other in _ROLLUPS[table].items()}
    shown = [there.get(name) or (name if name in _SHARED[table] else "NULL") for name in _ABOUT[3:]]
    numbers = [there.get(name, "0") for name in _NUMBERS]
    columns_of = ", ".join(["epoch_us(bucket_start)", "provider", "org", *shown, *numbers])
    return f"SELECT '{table}', {columns_of} FROM kept.rollup_{table}"


_ALL_ROLLUPS: Final = " UNION ALL ".join(
    [
        *map(_rollup_rows, _ROLLUPS),
        f"SELECT rollup, epoch_us(bucket_start), {', '.join(COLUMNS[2:])} FROM kept.rollup_changes",
    ]
)
"""What is settled and what is pending; only their sums mean something."""
_COMPARED: Final = {
    "deliveries": "SELECT * EXCLUDE (applied_at) FROM kept.deliveries",
    **{name: f"FROM kept.{name}" for name in ("calls", "events", "dead_letters", "loose_appointments", "loose_leads")},
}


def _standing(equal: list[Copy]) -> Copy:
    """The one that counts: the lowest that can be read, else the lowest."""
    return min(equal, key=lambda copy: (copy.reason is not None, _point(copy.delivery)))


def _sums(rows: Iterable[tuple[object, ...]]) -> dict[tuple[object, ...], tuple[int, ...]]:
    found: dict[tuple[object, ...], list[int]] = {}
    about = 1 + len(_ABOUT)
    for row in rows:
        numbers = found.setdefault(row[:about], [0] * len(_NUMBERS))
        for at, number in enumerate(row[about:]):
            assert isinstance(number, int)
            numbers[at] += number
    return {name: tuple(numbers) for name, numbers in found.items() if any(numbers)}


def _contributions(calls: Mapping[CallKey, Call]) -> list[tuple[object, ...]]:
    return [tuple(row) for row in changes([CallChange(key=key, before=None, after=c) for key, c in calls.items()])]


def _place(delivery: Delivery) -> Place:
    return Place(delivery.journal_id, delivery.position)


def _point(delivery: Delivery) -> StreamPoint:
    return StreamPoint(delivery.received_at, delivery.journal_id, delivery.position)


def _difference(what: str, found: object, expected: object) -> str:
    if isinstance(found, list) and isinstance(expected, list):
        surplus, missing = Counter(found), Counter(expected)
        return f"{what}: missing {list(missing - surplus)[:3]}, too many {list(surplus - missing)[:3]}"
    if isinstance(found, dict) and isinstance(expected, dict):
        differing = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
        return f"{what}: " + str({key: (found.get(key), expected.get(key)) for key in differing[:4]})
    return f"{what}: {found} instead of {expected}"
