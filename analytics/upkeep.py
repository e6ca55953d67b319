"""What only the store's owner can do for others while it goes on working: check the store, and copy it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from calls.errors import QueryError, StoreUnavailable

CHUNK_BYTES = 1 << 20
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Kept(Protocol):
    """What upkeep needs of the store."""

    path: Path

    def verify(self) -> list[str]: ...

    def snapshot(self, path: Path) -> None: ...


def endpoints(store: Kept) -> dict[tuple[str, str], Endpoint]:
    """`GET /verify` and `POST /snapshot`, by method and path; one of them runs at a time."""
    turn = asyncio.Lock()

    async def verify(_: Request) -> Response:
        _refuse_second(turn)
        async with turn:
            found = await asyncio.to_thread(store.verify)
        return Response(msgspec.json.encode({"findings": found}), media_type="application/json")

    async def snapshot(_: Request) -> Response:
        _refuse_second(turn)
        async with turn:
            file, size = await asyncio.to_thread(_copied, store)
        headers = {"content-length": str(size)}
        return StreamingResponse(_chunks(file), media_type="application/octet-stream", headers=headers)

    return {("GET", "/verify"): verify, ("POST", "/snapshot"): snapshot}


def _refuse_second(turn: asyncio.Lock) -> None:
    if turn.locked():
        raise QueryError("The store is being checked or copied already. Try again when that is done.", code="busy")


def _copied(store: Kept) -> tuple[BinaryIO, int]:
    """An open copy that has no name any more, so that nothing is left behind however this process ends."""
    prefix = f".{store.path.name}.copy-"
    for left in store.path.parent.glob(f"{prefix}*"):
        left.unlink(missing_ok=True)
    path = store.path.with_name(f"{prefix}{uuid.uuid4().hex}")
    try:
        store.snapshot(path)
        file = path.open("rb")
        return file, path.stat().st_size
    except OSError as error:
        raise StoreUnavailable(f"The copy cannot be written beside the store: {error.strerror or error}.") from error
    finally:
        path.unlink(missing_ok=True)


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
