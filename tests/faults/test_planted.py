"""The harness's own proof: mistakes put into the product on purpose are found, and the world's troubles are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import planted
from tests.faults.scenarios import fault


@pytest.mark.parametrize("name", planted.FAULTS)
def test_a_planted_fault_is_found(tmp_path: Path, name: str) -> None:
    """The report names it under the number it belongs to."""
    outcome = fault(tmp_path / "run", 5, name)

    assert outcome.report.counts[planted.FAULTS[name].found_as] > 0, str(outcome)


@pytest.mark.parametrize("name", planted.TROUBLES)
def test_a_trouble_that_is_no_mistake_of_ours_costs_nothing(tmp_path: Path, name: str) -> None:
    """A commit that is done and reports an error neither loses nor doubles anything."""
    outcome = fault(tmp_path / "run", 6, name)

    assert outcome.clean, str(outcome)
