"""A TCP proxy before a broker that can break what passes: connections reset, acknowledgements lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PRODUCE = 0
"""The Kafka protocol's number of a produce request."""
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens at once, forwards to `target` (set it before anyone connects) and breaks what it is told to."""

    def __init__(self) -> None:
        self.target = ("127.0.0.1", 0)
        self.lost_acknowledgements = 0
        """How many answers to produce requests were kept from the client."""
        self._lose = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def reset_all(self) -> None:
        """Every open connection ends with a reset, on both sides."""
        self._loop.call_soon_threadsafe(self._reset_all)

    def lose_acknowledgements(self, count: int) -> None:
        """The broker gets the next `count` produce requests whole; its answers are dropped and the connection reset."""
        self._lose = count

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._reset_all()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._listener.close()
        self._loop.close()

    def _reset_all(self) -> None:
        for writer in tuple(self._open):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, upstream}
        produced: set[int] = set()
        try:
            await asyncio.gather(
                self._forward_requests(reader, upstream, produced),
                self._forward_answers(upstream_reader, writer, produced),
            )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= {writer, upstream}
            writer.transport.abort()
            upstream.transport.abort()

    async def _forward_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, produced: set[int]
    ) -> None:
        while True:
            frame = await _frame(reader)
            api, _, correlation = struct.unpack_from(">hhi", frame, 4)
            if api == PRODUCE:
                produced.add(correlation)
            writer.write(frame)
            await writer.drain()

    async def _forward_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, produced: set[int]
    ) -> None:
        while True:
            frame = await _frame(reader)
            (correlation,) = struct.unpack_from(">i", frame, 4)
            if self._lose and correlation in produced:
                self._lose -= 1
                self.lost_acknowledgements += 1
                raise ConnectionResetError
            writer.write(frame)
            await writer.drain()


@contextmanager
def proxy() -> Iterator[Proxy]:
    """A proxy, closed at the end."""
    made = Proxy()
    try:
        yield made
    finally:
        made.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))
