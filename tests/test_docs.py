"""The documentation is true: generated parts are fresh, commands exist, queries run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_generated import FILES, README, generated

PAGE = README.read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^(?:\$ )?calltally ([a-z]+(?: [a-z]+)?)", PAGE, re.MULTILINE)))


def test_the_generated_parts_of_the_readme_are_fresh() -> None:
    """`make docs` changes nothing."""
    assert generated(PAGE) == PAGE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_generated_files_are_fresh(path: Path) -> None:
    """`make docs` changes none of them."""
    assert path.read_text(encoding="utf-8") == FILES[path]()


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_of_the_readme_exists(words: str) -> None:
    """Each `calltally ...` line of a code block names a command that has help."""
    first, *rest = words.split()
    command = [first, *rest] if first in ("sources", "dead", "quarantine") else [first]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *command, "--help"], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """Files that the page links to or shows exist."""
    targets = re.findall(r"\]\(((?!https?://)[^)#]+)\)", PAGE)

    assert [target for target in targets if not (README.parent / target).exists()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    """`make x` in the page is a target of the Makefile."""
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z-]+)", PAGE)) - targets == set()


def test_decisions_are_numbered_without_gaps() -> None:
    """docs/decisions holds 0001, 0002, ... each once."""
    numbers = [int(path.name[:4]) for path in sorted((README.parent / Path("docs/decisions")).glob("*.md"))]

    assert numbers == list(range(1, len(numbers) + 1))
