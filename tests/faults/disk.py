"""What a process asked of its disk, as the shim wrote it down, and what a power cut can leave of it.

The model of the disk: what is written lies in a cache, and only a sync that succeeds makes certain what was written
before it began. At a power cut everything else may be there or not, whole or in sectors, in any order, or the file may
be as long as it was to become and hold something else there; a sector that is written with what it holds keeps it, and
what stands beside the bytes that are written stays (the power-safe overwrite that SQLite counts on). A sync that
fails drops what it was to bring: the cache still shows it, the disk never gets it, and a later sync of the same file
succeeds without it (as ext4, XFS and Btrfs do; https://www.usenix.org/conference/atc20/presentation/rebello). Only
where the same page is written again is it carried along. Names are like contents: a new file, a removal or a renaming
is certain once the folder is synced, and before that the earlier ones of them may be there without the later ones.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

PAGE: Final = 4096
SECTOR: Final = 512
FOLDER: Final = "."
_HEAD: Final = struct.Struct("<BBHIQQ")


class Operation(enum.IntEnum):
    """The values are those of `shim.c`."""

    CREATE = 0
    WRITE = 1
    TRUNCATE = 2
    SYNC_BEGIN = 3
    SYNC_END = 4
    UNLINK = 5
    RENAME = 6


class Entry(NamedTuple):
    """One line of a trace."""

    operation: Operation
    ok: bool
    name: str
    offset: int
    """Of a truncation, the new size."""
    data: bytes
    end: int
    """Where it ends in the file of the trace."""


def read_trace(path: Path) -> list[Entry]:
    """All that is written there whole."""
    return list(_entries(path.read_bytes()))


def _entries(text: bytes) -> Iterator[Entry]:
    at = 0
    while at + _HEAD.size <= len(text):
        operation, ok, name_bytes, _, offset, data_bytes = _HEAD.unpack_from(text, at)
        end = at + _HEAD.size + name_bytes + data_bytes
        if end > len(text):
            return
        name = text[at + _HEAD.size : at + _HEAD.size + name_bytes].decode()
        yield Entry(Operation(operation), bool(ok), name, offset, text[end - data_bytes : end], end)
        at = end


class Change(NamedTuple):
    """A write, or a truncation to `offset` where there is no data."""

    offset: int
    data: bytes | None


@dataclass
class Content:
    """One file: what the disk holds for certain, what the cache shows, and what is under way between them."""

    disk: bytearray = field(default_factory=bytearray)
    cache: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    syncing: int = 0
    """How many of the pending changes the sync that is under way covers."""
    dropped: set[int] = field(default_factory=set)
    """Pages that a failed sync has left behind: only the cache has them."""

    def change(self, change: Change) -> None:
        _apply(self.cache, change)
        self.pending.append(change)

    def synced(self, ok: bool) -> None:
        covered, self.pending = self.pending[: self.syncing], self.pending[self.syncing :]
        self.syncing = 0
        for change in covered:
            touched = _pages(change)
            if not ok:
                self.dropped.update(touched)
                continue
            _apply(self.disk, change)
            for page in self.dropped.intersection(touched):
                piece = bytes(self.cache[page * PAGE : (page + 1) * PAGE])
                _apply(self.disk, Change(page * PAGE, piece))
                self.dropped.discard(page)


class Disk:
    """A folder's files after the first entries of a trace; feed them one by one, cut the power at any time."""

    def __init__(self) -> None:
        self._certain: dict[str, Content] = {}
        """What the folder's names are certain to mean."""
        self._shown: dict[str, Content] = {}
        """What they mean to the processes."""
        self._renamings: list[Callable[[dict[str, Content]], object]] = []
        self._naming = 0

    def feed(self, entry: Entry) -> None:
        match entry.operation:
            case Operation.CREATE:
                made = Content()
                self._name(lambda names: names.__setitem__(entry.name, made))
            case Operation.UNLINK:
                self._name(lambda names: names.pop(entry.name, None))
            case Operation.RENAME:
                self._name(lambda names: names.__setitem__(entry.data.decode(), names.pop(entry.name, Content())))
            case Operation.WRITE:
                self._content(entry.name).change(Change(entry.offset, entry.data))
            case Operation.TRUNCATE:
                self._content(entry.name).change(Change(entry.offset, None))
            case Operation.SYNC_BEGIN if entry.name == FOLDER:
                self._naming = len(self._renamings)
            case Operation.SYNC_END if entry.name == FOLDER:
                for rename in self._renamings[: self._naming] if entry.ok else ():
                    rename(self._certain)
                del self._renamings[: self._naming if entry.ok else 0]
            case Operation.SYNC_BEGIN:
                content = self._content(entry.name)
                content.syncing = len(content.pending)
            case Operation.SYNC_END:
                self._content(entry.name).synced(entry.ok)

    def files(self) -> list[str]:
        return list(self._shown)

    def is_settled(self) -> bool:
        """Whether a power cut now could leave only one thing."""
        return not self._renamings and not any(content.pending for content in self._shown.values())

    def cut(self, survival: Survival, dice: Random) -> dict[str, bytes]:
        """What is found after the power comes back."""
        names = dict(self._certain)
        for rename in self._renamings[: survival.names(len(self._renamings), dice)]:
            rename(names)
        return {name: survival.content(content, dice) for name, content in sorted(names.items())}

    def _content(self, name: str) -> Content:
        if name not in self._shown:  # it was there before the trace began, or came by a call that is not watched
            made = Content()
            self._shown[name] = self._certain[name] = made
        return self._shown[name]

    def _name(self, rename: Callable[[dict[str, Content]], object]) -> None:
        rename(self._shown)
        self._renamings.append(rename)


class Survival(NamedTuple):
    """One way in which changes that no sync covers come through a power cut."""

    title: str
    content: Callable[[Content, Random], bytes]
    names: Callable[[int, Random], int]
    """Of so many unsynced changes of names, how many survive."""


def _content_of(kept: Callable[[Sequence[Change], Random], Sequence[Change]]) -> Callable[[Content, Random], bytes]:
    def content(of: Content, dice: Random) -> bytes:
        image = bytearray(of.disk)
        for change in kept(_altering(of), dice):
            _apply(image, change)
        return bytes(image)

    return content


def _altering(of: Content) -> list[Change]:
    """The pending changes, by sector, without the bytes at their ends that are on the disk already.

    Whoever writes a few bytes has the whole page sent to the disk, so to write a byte again is no more dangerous to it
    than to write its neighbour: either both may be lost or, as SQLite counts on, neither.
    """
    if any(change.data is None for change in of.pending):
        return of.pending
    end = len(of.disk)
    pieces = [piece for change in of.pending for part in _divided(change, end) for piece in _cut_up(part)]
    return [trimmed for piece in pieces if (trimmed := _trimmed(piece, of.disk)) is not None]


def _trimmed(piece: Change, disk: bytearray) -> Change | None:
    new = piece.data or b""
    old = disk[piece.offset : piece.offset + len(new)]
    if old == new:
        return None
    if len(old) < len(new):
        return piece
    differing = [at for at in range(len(new)) if new[at] != old[at]]
    return Change(piece.offset + differing[0], new[differing[0] : differing[-1] + 1])


def _all(pending: Sequence[Change], _: Random) -> Sequence[Change]:
    return pending


def _none(_pending: Sequence[Change], _dice: Random) -> Sequence[Change]:
    return ()


def _beginning(pending: Sequence[Change], dice: Random) -> Sequence[Change]:
    """In order, the last one torn."""
    kept = list(pending[: dice.randint(0, len(pending))])
    if kept and kept[-1].data is not None:
        last = kept.pop()
        data = last.data or b""
        kept.append(Change(last.offset, data[: SECTOR * dice.randint(0, len(data) // SECTOR)]))
    return kept


def _some(pending: Sequence[Change], dice: Random) -> Sequence[Change]:
    """Any of them without the others: the disk reorders."""
    share = dice.choice((0.2, 0.5, 0.8))
    return [change for change in pending if dice.random() < share]


def _sectors(pending: Sequence[Change], dice: Random) -> Sequence[Change]:
    """Any sector without the others: the disk reorders and tears."""
    share = dice.choice((0.1, 0.5, 0.9))
    return [piece for change in pending for piece in _cut_up(change) if piece.data is None or dice.random() < share]


def _zeros(pending: Sequence[Change], dice: Random) -> Sequence[Change]:
    """The files are as long as they were to become, but some of what was to stand in them is zeros."""
    share = dice.choice((0.3, 1.0))
    return [
        Change(piece.offset, bytes(len(piece.data))) if piece.data is not None and dice.random() < share else piece
        for change in pending
        for piece in _cut_up(change)
    ]


def _noise(pending: Sequence[Change], dice: Random) -> Sequence[Change]:
    """Sectors that were being written hold neither the old nor the new."""
    return [
        Change(piece.offset, dice.randbytes(len(piece.data)))
        if piece.data is not None and dice.random() < 0.2
        else piece
        for change in pending
        for piece in _cut_up(change)
    ]


SURVIVALS: Final = (
    Survival("nothing that was not synced", _content_of(_none), lambda changes, dice: 0),
    Survival("everything", _content_of(_all), lambda changes, dice: changes),
    Survival("the beginning, its end torn", _content_of(_beginning), lambda changes, dice: dice.randint(0, changes)),
    Survival("some writes, in any order", _content_of(_some), lambda changes, dice: dice.randint(0, changes)),
    Survival("some sectors, in any order", _content_of(_sectors), lambda changes, dice: dice.randint(0, changes)),
    Survival("lengths, and zeros", _content_of(_zeros), lambda changes, dice: changes),
    Survival("lengths, and noise", _content_of(_noise), lambda changes, dice: changes),
)


def _apply(content: bytearray, change: Change) -> None:
    if change.data is None:
        if len(content) > change.offset:
            del content[change.offset :]
        else:
            content.extend(bytes(change.offset - len(content)))
        return
    end = change.offset + len(change.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[change.offset : end] = change.data


def _pages(change: Change) -> range:
    if change.data is None:
        return range(0)
    return range(change.offset // PAGE, (change.offset + max(len(change.data), 1) - 1) // PAGE + 1)


def _divided(change: Change, at: int) -> list[Change]:
    """The part before an offset and the part behind it."""
    data = change.data or b""
    before = data[: max(0, at - change.offset)]
    parts = [Change(change.offset, before), Change(change.offset + len(before), data[len(before) :])]
    return [part for part in parts if part.data]


def _cut_up(change: Change) -> Iterator[Change]:
    """By the disk's sectors."""
    if change.data is None:
        yield change
        return
    at = change.offset
    end = at + len(change.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        yield Change(at, change.data[at - change.offset : until - change.offset])
        at = until
