"""The soak, for a short while: what is looked at for an hour in `make faults` is looked at here too."""

from __future__ import annotations

from pathlib import Path

from tests.faults.soak import soak

GROWN_MIB = 80
"""What a process may take more than at the first look, while its caches fill."""
GROWN_HANDLES = 8


def test_steady_traffic_leaves_nothing_behind(tmp_path: Path) -> None:
    """Under traffic with a kill or a restart in the middle: all five numbers 0, no handle and no memory left behind."""
    found = soak(tmp_path, seed=1, seconds=12, rate=150, look_s=3, looks=2)

    assert found.outcome.clean, str(found.outcome)
    assert found.outcome.kills + found.outcome.restarts > 0
    first, last = found.samples[0], found.samples[-1]
    assert last.answered > first.answered
    for name in first.memory_mib:
        assert last.memory_mib[name] - first.memory_mib[name] < GROWN_MIB
        assert last.handles[name] - first.handles[name] < GROWN_HANDLES
