"""Histories of the stream with everything that can go wrong between: the store is always what was applied to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.store import Store
from streams import apply, copies
from streams.publishing import Publishing
from tests.faults.histories.history import Broken, run_seeds

SEEDS = range(96)
PIECE = 24
"""Each test runs so many; the long form is `python -m tests.faults.histories --count 20000`."""

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("first", SEEDS[::PIECE])
def test_the_store_follows_from_what_was_applied_after_every_step(folder: Path, first: int) -> None:
    """Crashes, lost and false commit answers, repeats, clock jumps, poison, rot: rows, roll-ups and a rebuild agree."""
    given = run_seeds(range(first, first + PIECE), folder)
    assert given["histories"] == PIECE
    assert given["histories of partitions"] == PIECE // 3
    assert given["crashes"] > 0


def test_a_call_that_is_not_counted_again_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of the proof: an applier that forgets a call's earlier events breaks a history, by seed."""
    monkeypatch.setattr(apply, "_together", lambda earlier, new: list(new))
    with pytest.raises(Broken, match=r"^seed \d+: at step \d+"):
        run_seeds(SEEDS, folder)


def test_an_unreadable_copy_that_takes_a_place_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower copy that is a dead letter took the events of the one that counted, and left their call as it was."""
    monkeypatch.setattr(copies, "_takes_place", lambda *_, is_lower, of_read: is_lower)
    with pytest.raises(Broken, match=r"^seed \d+: "):
        run_seeds(SEEDS, folder)


def test_a_version_that_falls_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is only the highest position that counts falls when a lower copy takes the place of that one."""
    monkeypatch.setattr(Store, "copies", lambda self, _: {})
    with pytest.raises(Broken, match=r"the version of .* falls|was never|is not the stored one|other versions"):
        run_seeds(SEEDS[1::3], folder)


def test_a_lost_announcement_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was applied before a death, and not yet told, has to be told after it."""
    monkeypatch.setattr(Publishing, "again", lambda self, records, positions: None)
    with pytest.raises(Broken, match=r"never announced|is not the stored one"):
        run_seeds(SEEDS[1::3], folder)


def test_a_lower_copy_takes_the_place_of_one_that_cannot_be_stored(tmp_path: Path) -> None:
    """Found by the long run: which of two unreadable copies counted depended on which came first."""
    run_seeds([5797], tmp_path)
