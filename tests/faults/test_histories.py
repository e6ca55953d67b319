"""Histories of the stream with everything that can go wrong between: the store is always what the journal says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams import apply
from tests.faults.histories import Broken, run_seeds
from tests.faults.power_cuts import memory_folder

SEEDS = range(32)
PIECE = 8
"""Each test runs so many; the long form is `python -m tests.faults.histories --count 20000`."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = memory_folder("histories-")
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("first", SEEDS[::PIECE])
def test_the_store_follows_from_the_journal_after_every_step(folder: Path, first: int) -> None:
    """Crashes, lost and false commit answers, repeats, clock jumps, poison, rot: rows, roll-ups and a rebuild agree."""
    given = run_seeds(range(first, first + PIECE), folder)
    assert given["histories"] == PIECE
    assert given.total() > given["histories"] + given["steps"], "no fault was given"


def test_a_call_that_is_not_counted_again_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of the proof: an applier that forgets a call's earlier events breaks a history, by seed."""
    monkeypatch.setattr(apply, "_together", lambda earlier, new: list(new))
    with pytest.raises(Broken, match=r"^seed \d+: at step \d+"):
        run_seeds(SEEDS, folder)
