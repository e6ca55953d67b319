"""A piece of the long run, for a process of its own: what a spawned process is to run cannot stand in `__main__`."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.faults.histories.history import Broken, run_seeds
from tests.faults.memory import memory_folder


class Piece(NamedTuple):
    """What came of some seeds."""

    first: int
    given: Counter[str]
    cpu_s: float
    broken: str


def play(seeds: Sequence[int]) -> Piece:
    """Play these histories in memory; what broke is told, not raised."""
    folder = memory_folder("histories-")
    began = time.process_time()
    given: Counter[str] = Counter()
    broken = ""
    try:
        given = run_seeds(seeds, folder)
    except Broken as error:
        broken = str(error)
    finally:
        shutil.rmtree(folder)
    return Piece(seeds[0], given, round(time.process_time() - began, 2), broken)
