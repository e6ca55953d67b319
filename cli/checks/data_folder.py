"""Whether the data folder takes writes, on a disk that has room and that SQLite can trust."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cli.check import Finding, Level, Patient

BYTES_WARN = 2 << 30
BYTES_WRONG = 256 << 20
INODES_WARN = 10_000
NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "glusterfs", "ceph", "lustre", "afs")


def check(patient: Patient) -> Iterator[Finding]:
    """Rights, kind of file system, room, inodes."""
    folder = patient.settings.data_dir
    if not folder.exists():
        parent = next(path for path in folder.absolute().parents if path.exists())
        if os.access(parent, os.W_OK):
            yield Finding(Level.NOTE, f"There is no data folder {folder} yet; the first start makes it.")
        else:
            yield Finding(Level.WRONG, f"The data folder {folder} cannot be made: {parent} is not writable.", _RIGHTS)
        yield from _room(parent)
        return
    if not folder.is_dir():
        yield Finding(Level.WRONG, f"{folder} is no folder.", "Name another with data_dir in calltally.toml.")
        return
    try:
        # Next to the files it is about: a full disk or a read-only mount shows only here.
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
            file.write(b"x" * 65_536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield Finding(Level.WRONG, f"The data folder {folder} takes no writes: {error.strerror}.", _RIGHTS)
    else:
        yield Finding(Level.OK, f"The data folder {folder.resolve()} takes writes.")
    yield from _kind(folder)
    yield from _room(folder)


def _room(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB are free on the disk of {folder}."
    if free < BYTES_WARN:
        level = Level.WRONG if free < BYTES_WRONG else Level.WARNING
        yield Finding(level, text, "Free space: on a full disk webhooks are answered 503 until there is some.")
    else:
        yield Finding(Level.OK, text)
    found = os.statvfs(folder)
    # File systems without a fixed number of inodes say 0 of 0.
    if found.f_files and found.f_favail < INODES_WARN:
        yield Finding(
            Level.WARNING,
            f"Only {found.f_favail:,} more files fit on the disk of {folder} (inodes).",
            "Delete small files there, or move data_dir.",
        )


def _kind(folder: Path) -> Iterator[Finding]:
    kind = _file_system(folder)
    if kind.startswith(NETWORK):
        yield Finding(
            Level.WRONG,
            f"The data folder lies on a network file system ({kind}), on which SQLite and DuckDB cannot lock or sync "
            "reliably.",
            "Move data_dir to a local disk.",
        )
    elif kind == "tmpfs":
        yield Finding(
            Level.WARNING,
            "The data folder lies in memory (tmpfs): a restart of the machine loses it.",
            "Move data_dir to a disk.",
        )


def _file_system(folder: Path) -> str:
    """The kind of file system under a folder, empty where the machine does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mounts = {Path(words[1].replace("\\040", " ")): words[2] for words in map(str.split, lines) if len(words) > 2}
    path = folder.resolve()
    return next((mounts[parent] for parent in (path, *path.parents) if parent in mounts), "")


_RIGHTS = "Give this user write access to it, or name another folder with data_dir in calltally.toml."
