"""The memory that long bodies share while they arrive."""

from __future__ import annotations

import asyncio

from ingest.room import Room


def test_who_does_not_fit_waits_in_line_until_there_is_room() -> None:
    """A small one does not overtake a large one that came before it."""

    async def scenario() -> None:
        room, order = Room(10), []
        may_leave = asyncio.Event()

        async def stay(name: str, size: int) -> None:
            async with room.for_bytes(size):
                order.append(name)
                await may_leave.wait()

        guests = [asyncio.create_task(stay(name, size)) for name, size in (("a", 6), ("b", 6), ("c", 1))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["a"]
        may_leave.set()
        await asyncio.gather(*guests)
        assert order == ["a", "b", "c"]

    asyncio.run(scenario())


def test_who_gives_up_waiting_holds_nothing() -> None:
    """Neither its place in the line nor any bytes."""

    async def scenario() -> None:
        room = Room(10)
        async with room.for_bytes(10):
            waiting = asyncio.create_task(_enter(room, 10))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(_enter(room, 10), 10)

    asyncio.run(scenario())


async def _enter(room: Room, size: int) -> None:
    async with room.for_bytes(size):
        pass
