"""The journal after a power cut at any instant: all that was acknowledged is there, and it goes on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.length import LONG
from tests.faults.power_cuts import Found, all_cuts, record, some_cuts, try_cuts

RECORDS = 400 if LONG else 60
STATES = 700
"""How many states the short form samples."""
SEEDS = range(1, 6) if LONG else range(1, 2)

pytestmark = pytest.mark.timeout(7200 if LONG else 300)


@pytest.mark.parametrize("failing_syncs", [False, True], ids=["syncs succeed", "some syncs fail"])
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_a_power_cut_leaves_holds_what_was_acknowledged(folder: Path, seed: int, failing_syncs: bool) -> None:
    """Unsynced writes dropped, reordered, torn or zeroed: the journal opens, is whole, and takes the next record."""
    recorded = record(folder, seed, RECORDS, failing_syncs=failing_syncs)
    cuts = all_cuts(recorded, seed, times=2) if LONG else some_cuts(recorded, seed, STATES)
    assert try_cuts(recorded, cuts, folder) >= STATES


def test_an_answer_before_the_fsync_would_be_found(folder: Path) -> None:
    """The proof of the proof: with synchronous = NORMAL a power cut takes back what was acknowledged."""
    recorded = record(folder, 1, 30, planted=True)
    with pytest.raises(Found, match="acknowledged but gone"):
        try_cuts(recorded, some_cuts(recorded, 1, STATES), folder)
