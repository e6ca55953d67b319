"""A history as its seed says it, played, and where it fails made as short as it still fails."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, Protocol

from analytics.store import Store
from tests.faults.histories import embedded, partitioned
from tests.faults.histories.grounds import Files, Kept
from tests.faults.histories.law import RULES
from tests.faults.histories.mishaps import poisonous_providers, quiet, small_limits

STEPS: Final = (2, 4)
FILES_EVERY: Final = 16
"""Of so many histories one has a store in files of its own, which a death copies and tears."""
PARTITIONED: Final = (1, 3)
"""Which of so many histories in a row is one of Kafka's partitions."""


class Broken(AssertionError):
    """A history in which the store is not what was applied to it."""


class Step(NamedTuple):
    """What happens next, and its dice."""

    name: str
    seed: str


class History(NamedTuple):
    """Steps, each with dice of its own, so that some can be left out while the others stay what they are."""

    seed: int
    steps: tuple[Step, ...]

    @property
    def is_partitioned(self) -> bool:
        return self.seed % PARTITIONED[1] == PARTITIONED[0]

    @property
    def has_files(self) -> bool:
        return self.seed % FILES_EVERY == 0


class World(Protocol):
    """What a history happens to."""

    given: Counter[str]

    def step(self, name: str, dice: Random) -> None: ...

    def finish(self, dice: Random) -> None: ...

    def close(self) -> None: ...


def history_of(seed: int) -> History:
    """The history of a seed."""
    empty, dice = History(seed, ()), Random(seed)
    weights: Mapping[str, int] = partitioned.WEIGHTS if empty.is_partitioned else embedded.WEIGHTS
    drawn = dice.choices(list(weights), list(weights.values()), k=dice.randint(*STEPS))
    return History(
        seed, tuple(Step(name, f"{seed}/{number}") for number, name in enumerate(["append and work", *drawn]))
    )


class Stage:
    """Where one history is played after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.duckdb"
        Store.open(self._template, rules=RULES).close()
        self._kept = Kept(folder / "kept.duckdb", self._template)
        self._spare = Kept(folder / "spare.duckdb", self._template)

    def close(self) -> None:
        """Let go of all files."""
        self._kept.end()
        self._spare.end()

    def play(self, history: History) -> Counter[str]:
        """How often each kind of thing happened. Raises Broken."""
        place = self._folder / "history"
        place.mkdir()
        dice = Random(f"{history.seed}")
        try:
            with poisonous_providers(), small_limits(dice), contextlib.closing(self._world(history, place)) as world:
                for number, step in enumerate(history.steps):
                    with _named(f"at step {number + 1} ({step.name})"):
                        world.step(step.name, Random(step.seed))
                with _named("at the end"):
                    world.finish(dice)
                return world.given
        finally:
            shutil.rmtree(place)

    def shrunk(self, history: History) -> History:
        """A part of a failing history that still fails, with no step in it that could be left out."""
        kept = history
        for at in range(len(history.steps) - 1, -1, -1):
            fewer = kept._replace(steps=kept.steps[:at] + kept.steps[at + 1 :])
            try:
                self.play(fewer)
            except Broken:
                kept = fewer
        return kept

    def _world(self, history: History, place: Path) -> World:
        if history.has_files:
            ground: Files | Kept = Files(place, self._template)
        else:
            ground = self._kept
            ground.begin()
        kind = partitioned.World if history.is_partitioned else embedded.World
        return kind(place, ground, self._spare)


def run_seeds(seeds: Sequence[int], folder: Path) -> Counter[str]:
    """Play these histories; how often each kind of thing happened.

    Raises Broken with the seed and the shrunk steps of the first that fails.
    """
    given: Counter[str] = Counter()
    with quiet(), contextlib.closing(Stage(folder)) as stage:
        for seed in seeds:
            history = history_of(seed)
            try:
                given += stage.play(history)
            except Broken as error:
                left = [step.name for step in stage.shrunk(history).steps]
                raise Broken(f"seed {seed}: {error}. Shrunk to: {left}") from error
            given["histories"] += 1
            given["histories of partitions"] += history.is_partitioned
            given["histories with files"] += history.has_files
            given["steps"] += len(history.steps)
    return given


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Broken(f"{where}: {type(error).__name__}: {error}") from error
