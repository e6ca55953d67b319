"""A place for what is tested without a real disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def memory_folder(prefix: str) -> Path:
    """A new folder, in memory where there is a file system of that kind."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix=prefix, dir=shared if os.access(shared, os.W_OK) else None))
