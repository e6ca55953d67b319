"""SIGKILL under load, at random instants and at named points in the code: the short form of `make faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cast import Folder
from tests.faults.points import POINTS, owner_of
from tests.faults.scenarios import kills, one_point, supervised

DATABASES = ("sqlite ", "duckdb: ")
PLACES = {
    "the journal's commit": "after sqlite journal.sqlite: COMMIT",
    "the store's commit": "after duckdb: COMMIT",
    "the store's rows": "before duckdb: UPDATE kept.positions",
}
"""Where the promise is decided: durable but not answered; applied but not known; rows without their position."""


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_killed_at_any_moment_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Ingest and worker die again and again under load; ledger, journal and store agree afterwards."""
    outcome = kills(tmp_path / "run", seed, 8)

    assert outcome.clean, f"python -m tests.faults --scenario kills --seed {seed} --count 8\n{outcome}"
    assert outcome.kills == 8
    assert outcome.report.acknowledged > 0


@pytest.mark.parametrize("name", PLACES.values(), ids=PLACES)
def test_a_death_where_the_promise_is_decided_loses_and_doubles_nothing(tmp_path: Path, name: str) -> None:
    """The process dies exactly there, twice in a row, and goes on right."""
    point = next(point for point in POINTS if point.name == name)
    outcome = one_point(tmp_path / "run", 3, point)

    assert outcome.clean, str(outcome)
    assert outcome.at[name] == 2


def test_a_killed_supervisor_or_child_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL of what `calltally up` started, and of itself."""
    outcome = supervised(tmp_path / "run", 2, 4)

    assert outcome.clean, f"python -m tests.faults --scenario supervised --seed 2 --count 4\n{outcome}"


@pytest.mark.parametrize("point", [point for point in POINTS if not point.place.startswith(DATABASES)], ids=str)
def test_a_named_point_is_a_function_of_the_product(point: object) -> None:
    """No point names what was renamed; deaths there would silently become deaths at random."""
    owner, name = owner_of(point.place)  # type: ignore[attr-defined]

    assert callable(getattr(owner, name))


def test_a_folder_of_a_run_is_its_own(tmp_path: Path) -> None:
    """Two runs side by side share no port."""
    one, other = Folder(tmp_path / "one"), Folder(tmp_path / "other")

    assert not set(one.ports.values()) & set(other.ports.values())
