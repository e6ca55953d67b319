"""A nudge from the journal's writer to its followers, so that they need not poll to be quick.

Each follower binds a Unix datagram socket of its own in a folder beside the journal; after a commit the writer sends
an empty datagram to each. A nudge carries nothing and may get lost: a follower looks for itself now and then anyway.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
import uuid
from pathlib import Path

_SUFFIX = ".sock"
_LONGEST_NAME = "4294967295-00000000" + _SUFFIX
_SETTLED_NS = 100_000_000
"""A folder changed this recently may change again within the same tick of its file system's clock."""


class NudgeSender:
    """The writer's side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._descriptor: int | None = None
        self._names: list[str] = []
        self._listed_mtime: int | None = None

    def send(self) -> None:
        """Nudge every follower; a socket that nobody holds any more is removed."""
        for name in self._followers():
            path = self._folder / name
            try:
                self._socket.sendto(b"", _address(path, self._descriptor))
            except (ConnectionRefusedError, FileNotFoundError):
                with contextlib.suppress(OSError):
                    path.unlink()
                self._listed_mtime = None
            except OSError:
                continue  # its queue is full, so it is awake; or it belongs to another user, and polls

    def close(self) -> None:
        self._socket.close()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _followers(self) -> list[str]:
        try:
            mtime = os.stat(self._folder).st_mtime_ns
            if mtime != self._listed_mtime:
                self._open_folder()
                self._names = [name for name in os.listdir(self._folder) if name.endswith(_SUFFIX)]
                self._listed_mtime = mtime if abs(time.time_ns() - mtime) > _SETTLED_NS else None
        except OSError:
            return []
        return self._names

    def _open_folder(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if not _fits(self._folder / _LONGEST_NAME):
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)


class NudgeReceiver:
    """A follower's side; where no socket can be bound, `wait` merely waits, and `works` is False."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._bind()

    @property
    def works(self) -> bool:
        return self._socket is not None

    def wait(self, timeout_s: float) -> None:
        """Return at a nudge or after `timeout_s`."""
        if self._socket is None:
            time.sleep(timeout_s)
            return
        if select.select([self._socket], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._socket.recv(1)
        elif self._path is not None and not self._path.exists():  # someone tidied the folder
            self.close()
            self._bind()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _bind(self) -> None:
        path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        descriptor = None
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if not _fits(self._folder / _LONGEST_NAME):
                descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            bound.bind(_address(path, descriptor))
            bound.setblocking(False)
        except OSError:  # a read-only folder, or a path too long on a system without /proc
            bound.close()
        else:
            self._socket, self._path = bound, path
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= 100


def _address(path: Path, folder_descriptor: int | None) -> str:
    # A socket deep in the tree is reached through its folder's descriptor, whose path is always short.
    return str(path) if folder_descriptor is None else f"/proc/self/fd/{folder_descriptor}/{path.name}"
