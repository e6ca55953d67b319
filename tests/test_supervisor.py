"""The supervisor over real children: what cannot start ends all, and a stop is heard at any moment."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.journalling import child, said
from tests.waiting import until

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
HANDING_OVER = """
import asyncio, os, signal, socket, sys
from pathlib import Path
import cli.supervisor
from cli.supervisor import Child, Supervisor

cli.supervisor.SETTLED_S = 0
folder = Path(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
children = [
    Child("first", [str(folder / "python"), str(folder / "first.py")], dict(os.environ), 0, listener=listener),
    Child("second", [sys.executable, str(folder / "second.py")], dict(os.environ), 1),
]
code = asyncio.run(Supervisor(children, folder=folder, out=sys.stdout).run())
print("ended with", code, flush=True)
"""
LIVING = "import signal\nprint('lives', flush=True)\nsignal.pause()\n"


def heard(folder: Path, *, signal_at: str | None = None) -> list[str]:
    """All that a supervisor says until it ends; it is sent SIGTERM once a line has this in it."""
    return heard_of(SUPERVISED, folder, [] if signal_at is None else [(signal_at, 1, signal.SIGTERM)])


def heard_of(script: str, folder: Path, signals: list[tuple[str, int, signal.Signals]]) -> list[str]:
    """All that it says until it ends; each signal is sent once so many lines have these words in them."""
    lines = []
    with child(script, folder) as supervisor:
        while line := said(supervisor):
            lines.append(line)
            if signals and sum(signals[0][0] in one for one in lines) >= signals[0][1]:
                supervisor.send_signal(signals.pop(0)[2])
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
    until(lambda: ended.exists() or not (tmp_path / "began").exists())


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


def test_a_successor_that_cannot_be_spawned_leaves_all_as_it_was(tmp_path: Path) -> None:
    """A restart into a program that is gone is given up, in words, and the next one is heard."""
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "first.py").write_text("from pathlib import Path\nPath('python').unlink()\n" + LIVING)
    (tmp_path / "second.py").write_text(LIVING)
    given_up = "nothing else begins anew"
    lines = heard_of(
        HANDING_OVER,
        tmp_path,
        [("lives", 2, signal.SIGHUP), (given_up, 1, signal.SIGHUP), (given_up, 2, signal.SIGTERM)],
    )
    assert sum("the new first cannot be started: No such file or directory" in line for line in lines) == 2
    assert sum("lives" in line for line in lines) == 2
    assert lines[-1] == "ended with 0"


def test_a_handover_is_not_told_as_a_death(tmp_path: Path) -> None:
    """The process that made room is followed at once by the one that waits, without a word of an end."""
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "first.py").write_text("import os, sys\nos.write(int(sys.argv[-1]), b'prepared')\n" + LIVING)
    (tmp_path / "second.py").write_text(LIVING)
    renewed = "every process has begun anew"
    lines = heard_of(HANDING_OVER, tmp_path, [("lives", 2, signal.SIGHUP), (renewed, 1, signal.SIGTERM)])
    assert any(renewed in line for line in lines)
    assert not any("starting it again" in line for line in lines)
    assert lines[-1] == "ended with 0"


def test_a_child_that_settled_is_tried_again_even_with_wrong_settings(tmp_path: Path) -> None:
    """Somebody is in the middle of changing them; the other processes must not be ended for it."""
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "first.py").write_text(LIVING)
    (tmp_path / "second.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        "starts = Path('starts')\nstarts.write_text((starts.read_text() if starts.exists() else '') + '.')\n"
        "if len(starts.read_text()) < 3: sys.exit(2)\n" + LIVING
    )
    lines = heard_of(HANDING_OVER, tmp_path, [("lives", 2, signal.SIGTERM)])
    assert sum("second ended with exit code 2; starting it again" in line for line in lines) == 2
    assert lines[-1] == "ended with 0"


def test_a_stop_in_the_middle_of_a_handover_ends_both(tmp_path: Path) -> None:
    """Neither the process that was to make room nor the one that is not prepared yet is left behind."""
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "first.py").write_text(
        "import os\nfrom pathlib import Path\nPath(f'pid.{os.getpid()}').touch()\n" + LIVING
    )
    (tmp_path / "second.py").write_text(LIVING)
    lines = heard_of(HANDING_OVER, tmp_path, [("lives", 2, signal.SIGHUP), ("lives", 3, signal.SIGTERM)])
    assert lines[-1] == "ended with 0"
    firsts = [int(path.suffix[1:]) for path in tmp_path.glob("pid.*")]
    assert len(firsts) == 2
    assert not any(psutil.pid_exists(number) for number in firsts)
