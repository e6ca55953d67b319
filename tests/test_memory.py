"""What memory a process takes for its own where a container or a service is given less than the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.memory import given_bytes

GIB = 1 << 30


@pytest.mark.parametrize(
    ("membership", "limits"),
    [
        ("0::/\n", {"memory.max": "1073741824\n"}),
        ("0::/system.slice/calltally.service\n", {"system.slice/calltally.service/memory.max": "1073741824\n"}),
        ("0::/above/below\n", {"above/memory.max": "1073741824\n", "above/below/memory.max": "max\n"}),
        ("1:cpu:/\n4:memory:/docker/1a2b\n0::/\n", {"memory/memory.limit_in_bytes": "1073741824\n"}),
    ],
    ids=["container", "service", "group above", "older form"],
)
def test_the_lowest_limit_above_the_process_holds(tmp_path: Path, membership: str, limits: dict[str, str]) -> None:
    """A limit may stand on any level, and a container sees only those from its own on."""
    (tmp_path / "membership").write_text(membership)
    for name, text in limits.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert given_bytes(tmp_path / "membership", tmp_path / "cgroup") == GIB


def test_without_limits_the_machine_is_the_limit(tmp_path: Path) -> None:
    """Where nothing is said, or there is nothing that could say it."""
    (tmp_path / "membership").write_text("0::/\n")
    unlimited = given_bytes(tmp_path / "missing", tmp_path)
    assert unlimited == given_bytes(tmp_path / "membership", tmp_path) > 0
