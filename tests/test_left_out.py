"""What is left out on a machine that lacks something is said, and in CI it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ONE_TEST = "tests/kafka/test_topics.py::test_looking_changes_nothing"


def run_without_java(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a test with a real Kafka where no Java is found."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "PATH")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, ONE_TEST], cwd=ROOT, text=True, timeout=100,
        env={**kept, "PATH": str(folder), **more}, capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", [[], ["-n", "1"]], ids=["one process", "others run the tests"])
def test_without_java_one_line_says_what_was_left_out(tmp_path: Path, words: list[str]) -> None:
    """And how to get it; nothing fails."""
    done = run_without_java(tmp_path, *words)

    assert done.returncode == 5, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "were skipped" in line]
    assert line.startswith("1 tests with a real Kafka were skipped: no java")
    assert "apt-get install" in line


def test_in_ci_a_test_that_cannot_run_fails(tmp_path: Path) -> None:
    """With CI=true nothing is left out."""
    done = run_without_java(tmp_path, CI="true")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "apt-get install" in done.stdout
