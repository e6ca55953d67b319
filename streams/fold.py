"""What all events of one call add up to.

Pure, and the same for any order and any repetition of the events: they are first made distinct and put in an order
that depends on nothing but what they say and where the journals hold them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeVar, cast

import msgspec

from calls.model import (
    Action,
    Analysis,
    Appointment,
    Call,
    CallEvent,
    Connection,
    EndedBy,
    Excluded,
    Facts,
    Lead,
    Micros,
    Result,
    Rules,
    Stage,
    TimelineEvent,
    Trust,
    Variable,
)
from calls.provider import discover
from calls.reading import call_times

DAY: Final = 86_400_000_000

Item = TypeVar("Item", Analysis, Variable, Action, Appointment, Lead)


def fold(events: Sequence[TimelineEvent], rules: Rules) -> Call:
    """The call that its events, at least one, add up to; all must have the same provider, org and call id.

    Distinct are events of different ids; of equal ids the one that stands lowest in the journals counts. Field by
    field the event with the later `happened_at` wins; at equal times a finished event outweighs an unfinished one, and
    then the higher event id (a digest of the content) decides, so the order of arrival never does. Null never
    overwrites, nor does an `ended_by` of `unknown`.

    Trust C proves only the call's id, so there each event is a whole version of the call and versions never mix: among
    finished ones that with the lowest position stands, since whoever has seen one signature can send later ones;
    unfinished ones give way to it, and among themselves the latest in the order above stands.

    Mixed trust happens where a Synthflow secret was added or taken away, or a second source is unsigned. The one
    standing version of trust C then folds with the events of other grades field by field like any event, and
    `trust` shows the weakest of them. `conflict` says that a finished version was accepted on trust C and another
    finished event of trust C or weaker says something else; versions that differ only in bytes (key order, spaces,
    `1.0` for `1` in a number column) do not conflict. Versions that do not stand still count in `event_count`,
    `first_received_at` and `last_received_at`, and in nothing else.
    """
    if len(events) == 1:
        return _fold_one(events[0], rules)
    return _fold_many(events, rules)


def _fold_one(timed: TimelineEvent, rules: Rules) -> Call:
    """The same as `_fold_many` of that one event (a test holds them together); nine of ten calls have only one."""
    said = timed.event
    call = _blank(timed)
    call.update(cast(Call, said.facts))
    call["connection"] = _connection((said,))
    call["analysis"] = _once(said.analysis, _criterion, _newer_judgement)
    call["variables"] = _once(_with_agent(said.variables, call["agent_id"]), _name, _newer_variable)
    call["actions"] = _once(said.actions, _occasion, _filled_up)
    call["appointments"] = _once(said.appointments, _booking, _filled_up)
    call["leads"] = _once(said.leads, _the_only_one, _filled_up)
    _complete(call, said.happened_at, rules)
    return call


def _fold_many(events: Sequence[TimelineEvent], rules: Rules) -> Call:
    distinct = _distinct(events)
    standing, conflict = _standing(distinct, rules)
    standing.sort(key=_by_time)
    told = [timed.event for timed in standing]
    call = _blank(distinct[0])
    call["trust"] = max(str(timed.trust) for timed in standing)
    call["conflict"] = conflict
    call["first_received_at"] = min(timed.received_at for timed in distinct)
    call["last_received_at"] = max(timed.received_at for timed in distinct)
    call["event_count"] = len(distinct)
    for said in told:
        call.update(cast(Call, _known(said.facts)))
    call["connection"] = _connection(told)
    call["analysis"] = _merged([said.analysis for said in told], _criterion, _newer_judgement)
    variables = [_with_agent(said.variables, call["agent_id"]) for said in told]
    call["variables"] = _merged(variables, _name, _newer_variable)
    call["actions"] = _merged([said.actions for said in told], _occasion, _filled_up)
    call["appointments"] = _merged([said.appointments for said in told], _booking, _filled_up)
    call["leads"] = _merged([said.leads for said in told], _the_only_one, _filled_up)
    _complete(call, min(said.happened_at for said in told), rules)
    return call


def _blank(timed: TimelineEvent) -> Call:
    """A call of one event of which nothing is known but where it came from; its lists are still to be set."""
    call = _BLANK.copy()
    call["provider"] = timed.provider
    call["org"] = timed.event.org
    call["call_id"] = cast(str, timed.event.call_id)
    call["trust"] = str(timed.trust)
    call["first_received_at"] = call["last_received_at"] = timed.received_at
    return call


_BLANK: Final[Call] = {
    "provider": "",
    "org": "",
    "call_id": "",
    "counted_at": 0,
    "agent_id": None,
    "agent_name": None,
    "campaign": None,
    "direction": None,
    "status": None,
    "end_call_reason": None,
    "custom_end_call_reason": None,
    "connection": "unknown",
    "ended_by": "unknown",
    "result": "unknown",
    "excluded": None,
    "transferred": False,
    "transferred_to": None,
    "transfer_reason": None,
    "started_at": None,
    "ended_at": None,
    "duration_s": None,
    "caller_phone": None,
    "callee_phone": None,
    "caller_name": None,
    "caller_email": None,
    "summary": None,
    "transcript": None,
    "recording_url": None,
    "sentiment": None,
    "disposition": None,
    "intent": None,
    "urgency": None,
    "tags": None,
    "cost_usd": None,
    "trust": "",
    "conflict": False,
    "first_received_at": 0,
    "last_received_at": 0,
    "event_count": 1,
    "analysis": [],
    "variables": [],
    "actions": [],
    "appointments": [],
    "leads": [],
}
"""Copied, since that takes a third of the time of building it."""


def _distinct(events: Iterable[TimelineEvent]) -> list[TimelineEvent]:
    lowest: dict[str, TimelineEvent] = {}
    for timed in events:
        held = lowest.get(timed.event_id)
        if held is None or timed.point < held.point:
            lowest[timed.event_id] = timed
    return list(lowest.values())


def _standing(distinct: Sequence[TimelineEvent], rules: Rules) -> tuple[list[TimelineEvent], bool]:
    """The events that make the call, and whether versions of it contradict each other."""
    versions = [timed for timed in distinct if timed.trust == Trust.C]
    if not versions:
        return list(distinct), False
    others = [timed for timed in distinct if timed.trust != Trust.C]
    finished = [timed for timed in versions if timed.event.stage == Stage.FINISHED]
    if not finished:
        return [max(versions, key=_by_time), *others], False
    accepted = min(finished, key=lambda timed: timed.point)
    rivals = [
        timed
        for timed in distinct
        if timed is not accepted and timed.trust >= Trust.C and timed.event.stage == Stage.FINISHED
    ]
    conflict = False
    if rivals:
        meaning = _meaning(accepted, rules)
        conflict = any(_meaning(timed, rules) != meaning for timed in rivals)
    return [accepted, *others], conflict


_STAGE_WEIGHT = {Stage.OTHER: 0, Stage.PROGRESS: 1, Stage.FINISHED: 2}


def _by_time(timed: TimelineEvent) -> tuple[Micros, int, str]:
    return timed.event.happened_at, _STAGE_WEIGHT[timed.event.stage], timed.event_id


_NOT_MEANT = frozenset({"counted_at", "trust", "conflict", "first_received_at", "last_received_at", "event_count"})
_LISTS = ("analysis", "variables", "actions", "appointments", "leads")


def _meaning(timed: TimelineEvent, rules: Rules) -> dict[str, object]:
    """What a version alone makes of the call, whatever the order of its keys."""
    call = _fold_one(timed, rules)
    meaning: dict[str, object] = {name: value for name, value in call.items() if name not in _NOT_MEANT}
    for name in _LISTS:
        items = cast("list[dict[str, object]]", meaning[name])
        meaning[name] = sorted(msgspec.json.encode(_canonical(item), order="sorted") for item in items)
    return meaning


def _canonical(item: Mapping[str, object]) -> dict[str, object]:
    """An item with its JSON texts read, and without `value_text`, which only repeats `value`."""
    read = {name: value for name, value in item.items() if name != "value_text"}
    for name in ("value", "return_value"):
        text = read.get(name)
        if isinstance(text, str):
            try:
                read[name] = msgspec.json.decode(text)
            except msgspec.DecodeError:
                continue
    return read


def _known(facts: Facts) -> dict[str, object]:
    return {name: value for name, value in facts.items() if value is not None and value is not EndedBy.UNKNOWN}


def _connection(told: Sequence[CallEvent]) -> str:
    """The latest finished event's word; a call that only began is in progress; others tell nothing about it."""
    found = Connection.UNKNOWN
    finished = False
    for said in told:
        if said.stage == Stage.FINISHED:
            found = said.facts.get("connection", found if finished else Connection.UNKNOWN)
            finished = True
        elif said.stage == Stage.PROGRESS and not finished:
            found = Connection.IN_PROGRESS
    return str(found)


def _with_agent(variables: list[Variable], agent_id: str | None) -> list[Variable]:
    """Variables of the flat shape name no agent: they are the call's agent's."""
    if agent_id is None:
        return variables
    return [item if item["agent_id"] is not None else {**item, "agent_id": agent_id} for item in variables]


def _once(items: list[Item], key: Callable[[Item], Hashable], newer: Callable[[Item, Item], Item]) -> list[Item]:
    """`_merged` of one event's list, which nearly always names each key once."""
    if not items or len({key(item) for item in items}) == len(items):
        return items
    return _merged([items], key, newer)


def _merged(
    lists: Iterable[list[Item]], key: Callable[[Item], Hashable], newer: Callable[[Item, Item], Item]
) -> list[Item]:
    """One item a key, in the order in which the keys are first told."""
    merged: dict[Hashable, Item] = {}
    for items in lists:
        for item in items:
            name = key(item)
            held = merged.get(name)
            merged[name] = item if held is None else newer(held, item)
    return list(merged.values())


def _criterion(item: Analysis) -> Hashable:
    return item["criterion"]


def _name(item: Variable) -> Hashable:
    return item["agent_id"], item["name"]


def _occasion(item: Action) -> Hashable:
    return item["name"], item["happened_at"]


def _booking(item: Appointment) -> Hashable:
    calendar_event_id = item["calendar_event_id"]
    return ("at", item["starts_at"]) if calendar_event_id is None else ("id", calendar_event_id)


def _the_only_one(_: Lead) -> Hashable:
    return None


def _newer_judgement(held: Analysis, item: Analysis) -> Analysis:
    # Feedback belongs to its result: a new result without feedback must not keep the old one's.
    return held if item["feedback"] is None and item["result"] == held["result"] else item


def _newer_variable(held: Variable, item: Variable) -> Variable:
    return held if item["value"] is None and held["value"] is not None else item


def _filled_up(held: Item, item: Item) -> Item:
    return cast(Item, {**held, **{name: value for name, value in item.items() if value is not None}})


def _complete(call: Call, happened_at: Micros, rules: Rules) -> None:
    """Fill in what follows from the rest of the call; `happened_at` is its earliest event's."""
    started_at, ended_at, duration_s = call_times(call["started_at"], call["ended_at"], call["duration_s"])
    call["started_at"], call["ended_at"], call["duration_s"] = started_at, ended_at, duration_s
    near = started_at is not None and abs(started_at - happened_at) <= DAY
    call["counted_at"] = cast(Micros, started_at) if near else happened_at
    call["ended_by"] = str(call["ended_by"])
    if call["excluded"] is not None:
        call["excluded"] = str(call["excluded"])
    if rules.test_numbers and _is_test(call, _digits_of_all(rules.test_numbers)):
        call["excluded"] = Excluded.TEST.value
    call["result"] = _result(call, rules)


def _is_test(call: Call, test_numbers: frozenset[str]) -> bool:
    phones = (call["caller_phone"], call["callee_phone"])
    return any(phone is not None and _digits(phone) in test_numbers for phone in phones)


@lru_cache(maxsize=16)
def _digits_of_all(numbers: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_digits(number) for number in numbers) - {""}


_NO_DIGITS = re.compile(r"[^0-9]+")


def _digits(number: str) -> str:
    """A number as its digits; `+44 20 ...` and `0044 20 ...` are the same."""
    return _NO_DIGITS.sub("", number).removeprefix("00")


_JUDGED = {
    "true": Result.MET.value,
    "partial": Result.PARTLY.value,
    "false": Result.NOT_MET.value,
    "not_applicable": Result.NOT_APPLICABLE.value,
}
_RESULTS = frozenset(result.value for result in Result)


def _result(call: Call, rules: Rules) -> str:
    """What the platform's own judge says where it has one, elsewhere a booking, then what the disposition maps to."""
    provider = discover().get(call["provider"])
    if provider is not None and provider.judges:
        for item in call["analysis"]:
            if item["criterion"] == rules.success_criterion:
                return _JUDGED.get(item["result"], Result.UNKNOWN.value)
        return Result.UNKNOWN.value
    if call["appointments"]:
        return Result.MET.value
    if rules.success and call["disposition"] is not None:
        return _result_of(call["disposition"], rules.success)
    return Result.UNKNOWN.value


def _result_of(disposition: str, success: Mapping[str, str]) -> str:
    """As the settings map it, without regard to case; a word that is no result counts as unknown."""
    word = disposition.strip().casefold()
    for name, result in success.items():
        if name.strip().casefold() == word:
            return result if result in _RESULTS else Result.UNKNOWN.value
    return Result.UNKNOWN.value
