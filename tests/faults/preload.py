"""The preloaded library (`shim.c`): compiled for the occasion, switched on and off through a shared file."""

from __future__ import annotations

import ctypes
import enum
import errno
import functools
import mmap
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).with_name("shim.c")
EVERY_NAME: Final = ""


class Call(enum.IntFlag):
    """System calls that can be made to fail; the values are those of `shim.c`."""

    WRITE = 1
    PWRITE = 2
    FSYNC = 4
    FDATASYNC = 8
    RENAME = 16
    FTRUNCATE = 32
    OPEN = 64


WRITES: Final = Call.WRITE | Call.PWRITE
SYNCS: Final = Call.FSYNC | Call.FDATASYNC


class _Kind(enum.IntEnum):
    FAIL = 1
    SHORT = 2
    STALL = 3


class _Shared(ctypes.Structure):
    _fields_ = (
        ("on", ctypes.c_uint32),
        ("calls", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("error", ctypes.c_uint32),
        ("every", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("matched", ctypes.c_uint64),
        ("given", ctypes.c_uint64),
        ("name", ctypes.c_char * 64),
    )


class Shim:
    """What a process under the shim is told and what it writes down."""

    def __init__(self, watched: Path, scratch: Path) -> None:
        """`watched` is the folder whose files count; control and trace are put into `scratch`, elsewhere."""
        scratch.mkdir(parents=True, exist_ok=True)
        watched.mkdir(parents=True, exist_ok=True)
        self.trace = scratch / "trace"
        self.trace.touch()
        control = scratch / "control"
        control.write_bytes(bytes(ctypes.sizeof(_Shared)))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._shared = _Shared.from_buffer(self._map)
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAULTS_SHIM_FOLDER": str(watched.resolve()),
            "FAULTS_SHIM_TRACE": str(self.trace),
            "FAULTS_SHIM_CONTROL": str(control),
        }

    def fail(self, calls: Call, error: int, *, name: str = EVERY_NAME, every: int = 1) -> None:
        """From now on these calls fail, on files whose name contains `name`, or one in `every` of them."""
        self._turn_on(calls, _Kind.FAIL, error, name, every)

    def shorten(self, calls: Call, *, name: str = EVERY_NAME) -> None:
        """From now on these calls write half of what they are given."""
        self._turn_on(calls, _Kind.SHORT, 0, name, 1)

    def stall(self, calls: Call, *, name: str = EVERY_NAME) -> None:
        """From now on these calls do not return before `well`."""
        self._turn_on(calls, _Kind.STALL, 0, name, 1)

    def well(self) -> None:
        """No more faults."""
        self._shared.on = 0

    @property
    def given(self) -> int:
        """How many calls were refused, shortened or stalled since the faults were last turned on."""
        return int(self._shared.given)

    def written(self) -> int:
        """How long the trace is now: all that has happened so far stands before there."""
        return self.trace.stat().st_size

    def _turn_on(self, calls: Call, kind: _Kind, error: int, name: str, every: int) -> None:
        shared = self._shared
        shared.on = 0
        shared.calls, shared.kind, shared.error, shared.every, shared.name = calls, kind, error, every, name.encode()
        shared.matched = shared.given = 0
        shared.on = 1


@functools.cache
def library() -> Path:
    """The compiled library. Skips the test where there is no C compiler, unless CI is set: then it fails."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        said = "System-call faults and power cuts need a C compiler: apt-get install gcc libc6-dev."
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    made = Path(tempfile.mkdtemp(prefix="calltally-shim-")) / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(made), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return made


def name_of(error: int) -> str:
    return errno.errorcode[error]
