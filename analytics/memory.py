"""How much memory this process may use: that of the machine, or what its container or service is given of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def given_bytes(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> int:
    """The lowest limit above this process; past it the kernel kills it, whatever else is free."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits(membership, cgroups)])


def _limits(membership: Path, cgroups: Path) -> Iterator[int]:
    for limit in _limit_files(membership, cgroups):
        try:
            text = limit.read_text().strip()
        except OSError:
            continue  # of a group that a container does not see
        if text.isdigit():
            yield int(text)


def _limit_files(membership: Path, cgroups: Path) -> Iterator[Path]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return  # no Linux, or no /proc
    for line in lines:
        # https://docs.kernel.org/admin-guide/cgroup-v2.html; the older form names the controllers.
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        below = PurePosixPath(group.lstrip("/"))
        for level in (below, *below.parents):
            yield cgroups / folder / level / name
