"""What several tests of this folder need."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.memory import memory_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, for what makes its own faults of a disk."""
    made = memory_folder("calltally-")
    yield made
    shutil.rmtree(made)
