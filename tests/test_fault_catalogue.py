"""The catalogue of faults in docs/faults.md: every row has its tests, or says why it has none."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
_ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`")


class Row(NamedTuple):
    """One fault, and what is said of its tests."""

    number: int
    fault: str
    covered: str


def rows() -> list[Row]:
    page = (ROOT / "docs" / "faults.md").read_text()
    return [Row(int(number), fault, covered) for number, fault, covered in _ROW.findall(page)]


@cache
def found_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_the_catalogue_is_whole() -> None:
    """No row was lost and none stands twice."""
    assert [row.number for row in rows()] == list(range(1, 174))


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row.number))
def test_every_fault_has_its_tests_or_a_reason(row: Row) -> None:
    """Each named test exists; a row without one says `none: ` and why."""
    named = _TEST.findall(row.covered)

    assert named or re.match(r"none: \w+", row.covered), row
    for file, test in named:
        assert test in found_in(file), f"row {row.number}: {file}::{test}"
