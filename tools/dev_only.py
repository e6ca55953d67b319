"""Names the installed packages that the program itself does not need, one a line.

There is one list of pinned packages, for tests and types too; an image needs half of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROGRAM = "calltally"


def dev_only() -> list[str]:
    """Everything installed that is not needed, directly or by what is."""
    needed = {PROGRAM}
    waiting = [(PROGRAM, "")]
    seen = set(waiting)
    while waiting:
        for name, extra in _requirements(*waiting.pop()):
            needed.add(name)
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting.append((name, extra))
    return sorted({canonicalize_name(one.metadata["Name"]) for one in distributions()} - needed)


def _requirements(name: str, extra: str) -> Iterator[tuple[str, str]]:
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        for asked in ("", *requirement.extras):
            try:
                distribution(requirement.name)
            except PackageNotFoundError:
                # Of another platform, though its marker does not say so.
                continue
            yield canonicalize_name(requirement.name), asked


if __name__ == "__main__":
    print("\n".join(dev_only()))
