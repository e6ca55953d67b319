"""The roll-ups equal what the tables give, at every commit and whatever changes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics import store as store_module
from analytics.selection import RELATIONS
from analytics.store import CallChange, Store
from calls.model import Call, Rules, TimelineEvent
from tests.storing import NOON, SECOND, batch_of, call_of, event_of, everything, key_of, rows

MINUTE = 60 * SECOND

Opener = Callable[[], Store]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an empty store: copying it is faster than making one for every example."""
    path = tmp_path_factory.mktemp("empty") / "store.duckdb"
    Store.open(path, rules=Rules()).close()
    return path.read_bytes()


@pytest.fixture
def opener(empty: bytes, tmp_path: Path) -> Iterator[Opener]:
    """Opens empty stores, as many as are asked for."""
    made: list[Store] = []

    def open_one() -> Store:
        path = tmp_path / f"{len(made)}.duckdb"
        path.write_bytes(empty)
        made.append(Store.open(path, rules=Rules()))
        return made[-1]

    yield open_one
    for store in made:
        store.close()


odd_text = st.sampled_from(
    ["", " ", "\t", " \N{NO-BREAK SPACE}", "\n", "a", "b", "nul\0", "ünï", "'", "%", "null", "[]", "{}"]
)
maybe_text = st.none() | odd_text

variables = st.fixed_dictionaries(
    {
        "agent_id": st.sampled_from([None, "a1", "a2"]),
        "name": st.sampled_from(["name", "date", ""]),
        "value": st.sampled_from([None, "null", '""', '" "', '"x"', "[]", "{}", "0", "[1]", "not json"]),
        "value_text": maybe_text,
        "value_number": st.none() | st.just(0.5),
        "collected": st.booleans(),
    }
)
analysis = st.fixed_dictionaries(
    {
        "criterion": st.sampled_from(["goal", "polite"]),
        "result": st.sampled_from(["true", "false", "partial", "odd"]),
        "feedback": maybe_text,
    }
)
appointment = st.just(
    dict.fromkeys(("starts_at", "ends_at", "service", "caller_name", "caller_phone", "calendar_event_id", "link"))
)
contents = st.fixed_dictionaries(
    {
        "counted_at": st.sampled_from([NOON, NOON + 14 * MINUTE, NOON + 15 * MINUTE, NOON - 1, 0, -1, -900 * SECOND]),
        "agent_id": st.sampled_from([None, "a1", "a2", ""]),
        "campaign": st.sampled_from([None, "spring"]),
        "direction": st.sampled_from([None, "inbound", "outbound"]),
        "status": st.sampled_from([None, "completed"]),
        "end_call_reason": maybe_text,
        "connection": st.sampled_from(["person", "machine"]),
        "result": st.sampled_from(["met", "unknown"]),
        "excluded": st.sampled_from([None, None, "spam", "test"]),
        "transferred": st.booleans(),
        "duration_s": st.none()
        | st.sampled_from([0.0, 0.1, 0.2, 61.5, -1.0, 1e7, 9999999.5, 1e300, math.inf, math.nan, 5e-7, 2.5e-6])
        | st.floats(0, 10_000),
        "summary": maybe_text,
        "tags": st.none() | st.lists(odd_text, max_size=2),
        "analysis": st.lists(analysis, max_size=3),
        "variables": st.lists(variables, max_size=3),
        "appointments": st.lists(appointment, max_size=1),
    }
)
batches = st.lists(st.dictionaries(st.integers(1, 4), contents, min_size=1, max_size=4), min_size=1, max_size=5)


class Driver:
    """Puts what calls say into a store, batch after batch, as the stream does: asking what is there before."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.events: dict[int, list[TimelineEvent]] = {}
        self.calls: dict[int, Call] = {}
        self._position = 0

    def say(self, said: dict[int, dict[str, object]]) -> None:
        new = []
        for number in said:
            self._position += 1
            new.append(event_of(self._position, f"call-{number}"))
            self.events.setdefault(number, []).append(new[-1])
        for number, fields in said.items():
            self.calls[number] = call_of(self.events[number], **fields)
        after = [self.calls[number] for number in said]
        stored = self.store.stored_calls([key_of(call) for call in after])
        before = {key: held.call for key, held in stored.items()}
        changes = [CallChange(key=key_of(call), before=before.get(key_of(call)), after=call) for call in after]
        self.store.apply(batch_of(new, changes))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches, st.booleans())
def test_rollups_equal_the_tables_after_every_batch(
    opener: Opener, said: Sequence[dict[int, dict[str, object]]], idle: bool
) -> None:
    """New calls, changed calls, exclusions that come and go, nulls and odd values: nothing drifts."""
    driver = Driver(opener())
    for batch in said:
        driver.say(batch)
        if idle:
            driver.store.checkpoint_if_due()
        assert driver.store.verify() == []
    driver.store.close()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches)
def test_the_way_to_a_state_does_not_show_in_it(opener: Opener, said: Sequence[dict[int, dict[str, object]]]) -> None:
    """Many batches with changes leave the same rows as one batch of the outcome."""
    driver, fresh = Driver(opener()), opener()
    for batch in said:
        driver.say(batch)
    changes = [CallChange(key=key_of(call), before=None, after=call) for call in driver.calls.values()]
    events = [timed for timeline in driver.events.values() for timed in timeline]
    fresh.apply(batch_of(events, changes))
    assert _comparable(everything(driver.store)) == _comparable(everything(fresh))
    driver.store.close()
    fresh.close()


def test_many_batches_settle_into_the_rollups(opener: Opener) -> None:
    """Changes beyond the limit are brought in by the batch itself, and readers see no difference."""
    driver = Driver(opener())
    judged = [{"criterion": f"c{i}", "result": "true", "feedback": None} for i in range(1000)]
    needed = store_module.SETTLE_ROWS // 1000 + 2
    for number in range(needed):
        driver.say({number: {"analysis": judged, "counted_at": NOON + number * 15 * MINUTE}})
    (pending,) = rows(driver.store, "SELECT count(*) FROM kept.rollup_changes")[0]
    assert cast(int, pending) < store_module.SETTLE_ROWS
    assert rows(driver.store, "SELECT sum(calls) FROM rollup_analysis") == [(needed * 1000,)]
    assert driver.store.verify() == []


@pytest.mark.parametrize("text", [" ", "\t", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}", "x"])
def test_what_counts_as_filled_is_one_thing_everywhere(opener: Opener, text: str) -> None:
    """In the roll-up, in its recount and where a metric counts call by call: only spaces are nothing."""
    driver = Driver(opener())
    asked = {"agent_id": None, "name": "name", "value": json.dumps(text), "value_text": text, "value_number": None}
    driver.say({1: {"variables": [{**asked, "collected": True}]}})
    by_call = RELATIONS["rollup_variables"].by_call
    assert by_call is not None
    filled = int(text != " ")
    assert rows(driver.store, "SELECT sum(filled) FROM rollup_variables") == [(filled,)]
    assert rows(driver.store, f"SELECT sum(filled) FROM {by_call.rows}") == [(filled,)]
    assert driver.store.verify() == []


def test_rows_that_reach_nought_vanish(opener: Opener) -> None:
    """A call that moves to another agent leaves no empty row behind, pending or settled."""
    driver = Driver(opener())
    judged = [{"criterion": "goal", "result": "true", "feedback": None}]
    driver.say({1: {"agent_id": "a1", "analysis": judged}})
    driver.store.checkpoint_if_due()
    driver.say({1: {"agent_id": "a2", "analysis": judged}})
    for table in ("rollup_calls", "rollup_analysis"):
        assert rows(driver.store, f"SELECT agent_id, calls FROM {table}") == [("a2", 1)]
    driver.store.checkpoint_if_due()
    for table in ("rollup_calls", "rollup_analysis"):
        assert rows(driver.store, f"SELECT agent_id, calls FROM kept.{table}") == [("a2", 1)]


def test_verify_names_a_rollup_that_drifted(opener: Opener) -> None:
    """A number that is wrong by one is found: the row that is shown, and the one that should be."""
    driver = Driver(opener())
    driver.say({1: {}, 2: {"agent_id": "a1"}})
    driver.store.checkpoint_if_due()
    rows(driver.store, "UPDATE kept.rollup_calls SET calls = calls + 1 WHERE agent_id = 'a1'")
    found = driver.store.verify()
    assert len(found) == 1
    assert found[0].startswith("2 rows of rollup_calls differ from what the calls give, for example ")


def _comparable(tables: dict[str, list[tuple[object, ...]]]) -> dict[str, list[str]]:
    """As text, because a NaN equals nothing."""
    return {table: [repr(row) for row in found] for table, found in tables.items()}
