"""Write what metrics give now as their expected results: `python -m tests.contracts.bless_metrics [NAME...]`.

Nothing is checked here: the difference that git shows afterwards is what a person reviews.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from analytics.metric import catalogue
from tests.contracts.measures import expected_path, written
from tests.fixture_calls import filled_store


def bless(names: list[str]) -> list[str]:
    """Write the expected files of these metrics, or of all; returns the names of those that changed."""
    metrics = catalogue()
    changed = []
    with tempfile.TemporaryDirectory() as folder:
        store = filled_store(Path(folder) / "store.duckdb")
        for name in names or metrics:
            path, now = expected_path(metrics[name]), written(store, metrics[name])
            if not path.exists() or path.read_text(encoding="utf-8") != now:
                path.write_text(now, encoding="utf-8")
                changed.append(name)
        store.close()
    return changed


if __name__ == "__main__":
    print(", ".join(bless(sys.argv[1:])) or "nothing changed")
