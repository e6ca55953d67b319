"""What the store remembers of its keys: it may take a new one for an old one, never the reverse."""

from __future__ import annotations

import numpy as np
import pytest

from analytics.seen import FIRST_LAYER_KEYS, LOCATED_KEYS, STANDING_KEYS, Located, Seen, Standing
from calls.model import StreamPoint

GAP = 7919


@pytest.mark.parametrize("known", [0, 1, FIRST_LAYER_KEYS])
def test_what_was_seen_is_never_denied(known: int) -> None:
    """Neither what was known at first nor what filled layer after layer; and hardly any other is taken for one."""
    step, end = FIRST_LAYER_KEYS // 2, 3 * FIRST_LAYER_KEYS
    seen = Seen(np.arange(known, dtype=np.int64)[::-1] * GAP)
    for first in range(known, end, step):
        seen.add(range(first * GAP, (first + step) * GAP, GAP))
    there = range(0, end * GAP, 101 * GAP)
    assert len(seen.maybe(there)) == len(there)
    assert len(seen.maybe(range(1, FIRST_LAYER_KEYS * GAP, 10 * GAP))) < 50
    assert seen.bytes < 10 * end


def test_each_key_is_answered_once() -> None:
    """Also the lowest and the highest of all numbers, in the order in which they are asked."""
    lowest, highest = -(2**63), 2**63 - 1
    seen = Seen(np.array([highest, 5, lowest], dtype=np.int64))
    seen.add([])
    seen.add([7])
    assert seen.maybe([highest, 7, 6, lowest, 7, 5, 5, 8]) == [highest, 7, lowest, 5]
    assert Seen(np.array([], dtype=np.int64)).maybe([1]) == []
    assert seen.maybe([]) == []


def test_locations_are_bounded_and_recent_ones_stay() -> None:
    """Old ones give way; the newest half is always there."""
    located = Located()
    for key in range(3 * LOCATED_KEYS):
        located.put(key, key + 1)
    assert located.get(0) is None
    newest = range(3 * LOCATED_KEYS - LOCATED_KEYS // 2, 3 * LOCATED_KEYS)
    assert all(located.get(key) == key + 1 for key in newest)


def test_a_delivery_that_gives_way_is_remembered_where_the_new_one_stands() -> None:
    """The place put last is the one that counts, also across the two generations; the oldest are dropped."""
    standing = Standing()
    standing.put("first", StreamPoint(9, "j", 9))
    for number in range(STANDING_KEYS // 2):
        standing.put(f"other {number}", StreamPoint(number, "j", number))
    standing.put("first", StreamPoint(1, "j", 1))
    assert standing.get("first") == StreamPoint(1, "j", 1)
    for number in range(STANDING_KEYS):
        standing.put(f"later {number}", StreamPoint(number, "j", number))
    assert standing.get("first") is None
