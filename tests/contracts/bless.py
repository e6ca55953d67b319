"""Write what a provider's samples become now as its expected files: `python -m tests.contracts.bless PROVIDER`.

Nothing is checked here: the difference that git shows afterwards is what a person reviews.
"""

from __future__ import annotations

import json
import sys

from calls.provider import Provider, named
from tests.contracts.samples import meaning, samples_of


def bless(provider: Provider) -> list[str]:
    """Write every expected file of a provider; returns the names of those that changed."""
    changed = []
    for sample in samples_of(provider):
        path = provider.samples / f"{sample.name}.expected.json"
        now = json.dumps(meaning(sample.delivery, provider), indent=2, ensure_ascii=False) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != now:
            path.write_text(now, encoding="utf-8")
            changed.append(path.name)
    return changed


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python -m tests.contracts.bless PROVIDER...")
    for name in sys.argv[1:]:
        print(f"{name}: {', '.join(bless(named(name))) or 'nothing changed'}")
