"""The journal's file: its layout, how it is made and opened, and what its failures mean.

`rows` holds one row a record, `commits` one row a group commit: its last position and the ids of its deliveries, so
that the newest ids are found without reading a body. There is no index over the ids: a commit would dirty one page a
record. `cursors` is for those who follow the journal and keep their position here (the relay).
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from calls.errors import JournalDamaged, JournalError, JournalUnavailable
from calls.journal_row import ID_BYTES, SEAL_BYTES, Damaged, Sealer, time_in
from calls.model import Micros

PAGE_BYTES = 8192
"""Twice SQLite's default: four webhooks of the usual 1.7 KB fill a page, where two would leave a sixth of it empty."""
APPLICATION_ID = 0x43544A4C
SCHEMA_VERSION = 1
ROOM_MIB = 64
"""How much free space lets a journal go on for certain: twice what its log may hold."""
BUSY_MS = 2000
"""How long a statement waits for another program's lock; well under the 8 s in which a webhook must be answered."""

_SCHEMA = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE rows (position INTEGER PRIMARY KEY, seal BLOB NOT NULL, head TEXT NOT NULL, body BLOB)",
    "CREATE TABLE commits (last INTEGER PRIMARY KEY, seal BLOB NOT NULL, ids BLOB NOT NULL)",
    "CREATE TABLE cursors (name TEXT PRIMARY KEY, position INTEGER NOT NULL, updated_at INTEGER NOT NULL)",
    "CREATE TABLE probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class About(NamedTuple):
    """What a journal says of itself."""

    journal_id: str
    first_position: int
    """The lowest position this file is meant to hold; older records have left for the archive."""


def open_writable(path: Path, *, wal_max_bytes: int) -> sqlite3.Connection:
    """The writer's connection to an existing file. Raises JournalUnavailable and JournalError."""
    connection = _connect(path, "mode=rw")
    try:
        with translated(path):
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                _create(connection, path)
            _check_version(connection, path)
            mode = connection.execute("PRAGMA journal_mode = wal").fetchone()[0]
            if mode != b"wal":
                raise JournalUnavailable(
                    f"The file system of {path.parent} cannot hold the journal (SQLite stays in {mode.decode()} mode "
                    "there). Use a local disk for the data folder."
                )
            # Commits wait for the disk; on a Mac fsync alone leaves them in the drive's cache.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {wal_max_bytes}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_beside_writer(path: Path) -> sqlite3.Connection:
    """A connection for small writes that may be repeated; it never checkpoints and never waits for the disk.

    Raises JournalUnavailable and JournalError.
    """
    if not path.exists():
        raise JournalUnavailable(_MISSING.format(path=path))
    connection = _connect(path, "mode=rw")
    try:
        with translated(path):
            _check_version(connection, path)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def make_folder(path: Path) -> None:
    """Make the folder of the journal at `path` where it is missing, durably. Raises JournalUnavailable."""
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent.parent)


def create_if_missing(path: Path) -> None:
    """Make an empty file that only its owner may read, durably. Raises JournalUnavailable."""
    with translated(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        sync_folder(path.parent)


def open_read_only(path: Path) -> tuple[sqlite3.Connection, bool]:
    """A reader's connection, and whether it is frozen: made without any locks, because the folder admits none.

    A frozen connection does not notice a writer: use it once and close it. Raises JournalUnavailable and JournalError.
    """
    if not path.exists():
        raise JournalUnavailable(_MISSING.format(path=path))
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        connection = _connect(path, mode)
        try:
            with translated(path):
                _check_version(connection, path)
            return connection, "immutable" in mode
        except JournalUnavailable as error:
            connection.close()
            # A folder that may not be written has no room for the WAL index; without a WAL none is needed.
            refused = _name_of(error.__cause__).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
            if not refused or _bytes_of(wal_path(path)) > 0:
                raise
        except BaseException:
            connection.close()
            raise
    raise JournalUnavailable(f"The journal {path} cannot be opened. Check that this user may read the folder.")


def read_about(connection: sqlite3.Connection, path: Path) -> About:
    """Raises JournalDamaged."""
    found = {}
    for key, value, seal in connection.execute("SELECT key, value, seal FROM about"):
        if _seal_about(key, value) == seal:
            found[key] = value.decode()
    try:
        return About(found[b"journal_id"], int(found[b"first_position"]))
    except (KeyError, ValueError):
        raise JournalDamaged(
            f"The journal {path} no longer says which journal it is. Stop Calltally, keep a copy of the file, and put "
            "back the last backup."
        ) from None


def set_first_position(connection: sqlite3.Connection, position: int) -> None:
    """For the archive: within the transaction that removes the rows below `position`."""
    value = str(position)
    seal = _seal_about(b"first_position", value.encode())
    connection.execute("UPDATE about SET value = ?, seal = ? WHERE key = 'first_position'", (value, seal))


def last_position(connection: sqlite3.Connection, sealer: Sealer) -> int:
    """The last position that a genuine row vouches for; 0 in a new journal."""
    for number, (last, seal, ids) in enumerate(connection.execute(_COMMITS)):
        if sealer.is_genuine_commit(last, seal, ids):
            return int(last)
        if number == 0:
            newest = connection.execute("SELECT * FROM rows ORDER BY position DESC LIMIT 1").fetchone()
            if newest is not None and not isinstance(sealer.open(newest), Damaged):
                return int(newest[0])
    return 0


def newest_time(connection: sqlite3.Connection) -> Micros:
    """The latest time that the last records bear, damaged ones left out; 0 in a new journal."""
    newest = 0
    try:
        # Several, since the very last one may have been released from quarantine and be older than those before it.
        for (head,) in connection.execute("SELECT head FROM rows ORDER BY position DESC LIMIT 100"):
            newest = max(newest, time_in(head))
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    return newest


def recent_ids(connection: sqlite3.Connection, sealer: Sealer, limit: int) -> Iterator[str]:
    """The ids of the newest deliveries, oldest of them first; one scan that reads no body."""
    found: list[bytes] = []
    missing = limit
    for last, seal, ids in connection.execute(_COMMITS):
        if missing <= 0:
            break
        if sealer.is_genuine_commit(last, seal, ids):
            found.append(ids[-missing * ID_BYTES :])
            missing -= len(ids) // ID_BYTES
    return (ids[at : at + ID_BYTES].hex() for ids in reversed(found) for at in range(0, len(ids), ID_BYTES))


def write_log_again(path: Path) -> None:
    """Write the log of a journal over itself and sync it, so that what an fsync that failed left behind gets to disk.

    Only while holding the right to write the journal, so that nobody adds to the log meanwhile. SQLite's locks are not
    on this file, so closing it here drops none. Raises OSError.
    """
    try:
        log = wal_path(path).open("r+b", buffering=0)
    except FileNotFoundError:
        return
    with log:
        at = 0
        while piece := os.pread(log.fileno(), _PIECE_BYTES, at):
            done = 0
            while done < len(piece):
                done += os.pwrite(log.fileno(), piece[done:], at + done)
            at += len(piece)
        os.fsync(log.fileno())


def sync_folder(folder: Path) -> None:
    """A new file survives a power cut only once its folder's entry is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at a path at this moment; None for no file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns what SQLite and the operating system raise into errors that a person can act on."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translate(path, error) from error


def translate(path: Path, error: Exception) -> JournalUnavailable | JournalDamaged:
    """The sentence for a failed read or write of the journal."""
    name = _name_of(error)
    if is_damage(error):
        return JournalDamaged(
            f"The journal {path} is damaged ({error}). Stop Calltally, keep a copy of the file and its -wal, and put "
            "back the last backup; if there is none, move it aside and a new journal begins."
        )
    if name.startswith("SQLITE_FULL") or getattr(error, "errno", None) == errno.ENOSPC:
        # What is in the log is copied into the file as well, so as much is needed again as the log may hold.
        why = (
            f"The disk that holds the journal in {path.parent} is full. Free space there, at least {ROOM_MIB} "
            f"MiB. {_THEN}"
        )
    elif name.startswith("SQLITE_READONLY") or getattr(error, "errno", None) == errno.EROFS:
        why = (
            f"The journal in {path.parent} cannot be written: the disk or the file is read-only. Check how the disk is "
            f"mounted and that this user owns the file. {_THEN}"
        )
    elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        why = (
            f"Another program keeps the journal in {path.parent} locked (a database browser, a backup?). Close it. "
            f"{_THEN}"
        )
    elif name.startswith("SQLITE_IOERR"):
        why = f"The disk that holds the journal in {path.parent} failed ({error}). Check the disk and its free space."
    elif name.startswith("SQLITE_CANTOPEN") or isinstance(error, OSError):
        why = f"The journal {path} cannot be opened ({error}). Check that its folder exists and its rights."
    else:
        why = f"The journal {path} cannot be used ({error})."
    return JournalUnavailable(why)


def is_damage(error: Exception) -> bool:
    """Whether SQLite found the file's own structure broken."""
    return _name_of(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def is_lost_sync(error: Exception) -> bool:
    """Whether an fsync failed, so that what was written before it may never reach the disk."""
    return _name_of(error) == "SQLITE_IOERR_FSYNC"


_MISSING = "There is no journal at {path} yet. Ingest makes it when it starts."
_THEN = "An ingest that still runs then goes on by itself; one that has ended must be started again."
_PIECE_BYTES = 1 << 20
_COMMITS = "SELECT last, seal, ids FROM commits ORDER BY last DESC"


def _name_of(error: BaseException | None) -> str:
    return str(getattr(error, "sqlite_errorname", ""))


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    with translated(path):
        uri = f"file:{quote(str(path.absolute()))}?{mode}"
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000
        )
    connection.text_factory = bytes  # damaged text must not raise while a scan goes over it
    return connection


def _create(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise JournalError(f"{path} is a SQLite file, but no journal of Calltally. Choose another data folder.")
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    now = str(time.time_ns() // 1000)
    for key, value in (("journal_id", str(uuid.uuid4())), ("first_position", "1"), ("created_at", now)):
        seal = _seal_about(key.encode(), value.encode())
        connection.execute("INSERT INTO about VALUES (?, ?, ?)", (key, value, seal))
    connection.execute("COMMIT")
    sync_folder(path.parent)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise JournalUnavailable(f"The journal {path} is being made at this moment. Try again.")
    if application != APPLICATION_ID:
        raise JournalError(f"{path} is a SQLite file, but no journal of Calltally. Choose another data folder.")
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"The journal {path} was written by a newer Calltally (layout {version}, this one knows {SCHEMA_VERSION}). "
            "Install that version."
        )


def _seal_about(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + b"\0" + value).digest()[:SEAL_BYTES]


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
