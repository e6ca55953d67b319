"""Memory for long bodies that are not yet proved genuine: a fixed amount, taken in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """So many bytes; who wants more than are free waits in line, and is not read from meanwhile."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def for_bytes(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes, which must be no more than there are in all, until the block ends."""
        await self._take(size)
        try:
            yield
        finally:
            self._free += size
            self._let_in()

    async def _take(self, size: int) -> None:
        place = (size, asyncio.get_running_loop().create_future())
        self._line.append(place)
        self._let_in()
        try:
            await place[1]
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
            else:
                self._free += size
            self._let_in()
            raise

    def _let_in(self) -> None:
        while self._line and self._line[0][0] <= self._free:
            size, waiting = self._line.popleft()
            self._free -= size
            waiting.set_result(None)
