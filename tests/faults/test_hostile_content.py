"""Genuine senders of impossible bodies: every one of them becomes a row or a dead letter, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.hostile_content import TORTURE, run
from tests.faults.length import LONG


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 6 if LONG else 2))
def test_any_body_becomes_an_event_or_a_dead_letter(tmp_path: Path, seed: int) -> None:
    """Torture for JSON parsers and mutated samples of every provider; roll-ups hold, no normaliser fails."""
    outcome = run(tmp_path, seed=seed, count=100_000 if LONG else 2_000)

    assert outcome.wrong == []
    assert outcome.given > len(TORTURE)
    assert outcome.meant["event"] > outcome.given // 4
    assert {"not_json", "too_deep", "not_utf8", "number_out_of_range"} <= set(outcome.meant)
