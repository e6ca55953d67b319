"""The supervisor over real children: what cannot start ends all, and a stop is heard at any moment."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.journalling import child, eventually, said

SUPERVISED = """
import asyncio, os, sys
from pathlib import Path
from cli.supervisor import Child, Supervisor

folder = Path(sys.argv[1])
scripts = {child: (folder / f"{child}.py").exists() for child in ("first", "second")}
children = [
    Child(
        name, [sys.executable if present else str(folder / "missing"), str(folder / f"{name}.py")], dict(os.environ),
        stop_order, ("127.0.0.1", 1) if name == "first" else None,
    )
    for stop_order, (name, present) in enumerate(scripts.items())
]
code = asyncio.run(Supervisor(children, folder=folder, out=sys.stdout).run())
print("ended with", code, flush=True)
"""
LIVING = "import signal\nprint('lives', flush=True)\nsignal.pause()\n"


def heard(folder: Path, *, signal_at: str | None = None) -> list[str]:
    """All that a supervisor says until it ends; it is sent SIGTERM once a line has this in it."""
    lines = []
    with child(SUPERVISED, folder) as supervisor:
        while line := said(supervisor):
            lines.append(line)
            if signal_at is not None and signal_at in line:
                supervisor.send_signal(signal.SIGTERM)
    return lines


def test_a_child_that_cannot_be_spawned_ends_all(tmp_path: Path) -> None:
    """With a sentence, instead of waiting for ever for it to have started."""
    (tmp_path / "second.py").write_text(LIVING)
    lines = heard(tmp_path)
    assert any("first cannot be started: No such file or directory" in line for line in lines)
    assert lines[-1] == "ended with 1"


@pytest.mark.parametrize("present", ["first", "second"])
def test_what_runs_is_stopped_when_another_cannot_be_spawned(tmp_path: Path, present: str) -> None:
    """Whichever comes first."""
    ended = tmp_path / "ended"
    (tmp_path / f"{present}.py").write_text(
        "import signal, sys\nfrom pathlib import Path\n"
        f"def end(*_): Path({str(ended)!r}).touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nPath('began').touch()\nsignal.pause()\n"
    )
    assert heard(tmp_path)[-1] == "ended with 1"
    eventually(lambda: ended.exists() or not (tmp_path / "began").exists())


def test_a_stop_while_a_child_is_not_ready_yet_starts_no_other(tmp_path: Path) -> None:
    """The wait for the first child's port ends at once, and what has not begun never does."""
    (tmp_path / "first.py").write_text(LIVING)
    (tmp_path / "second.py").write_text("print('second began', flush=True)\n" + LIVING)
    lines = heard(tmp_path, signal_at="lives")
    assert not any("second began" in line for line in lines)
    assert lines[-1] == "ended with 0"


def test_a_child_that_starts_as_the_stop_comes_is_stopped_too(tmp_path: Path) -> None:
    """It was not there yet when the others were told, and nobody else would tell it."""
    (tmp_path / "first.py").write_text("import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\n" + LIVING)
    (tmp_path / "second.py").write_text(LIVING)
    assert heard(tmp_path)[-1] == "ended with 0"
