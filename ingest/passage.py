"""Idle connections on their way from an ingest that ends to the one that takes over.

Closing an idle connection races with a sender that is just about to use it, and most platforms never send again. Who
supervises holds both ends, so a connection that nobody has taken yet waits, and what is sent on it waits with it.
"""

from __future__ import annotations

import socket

WAITING_BYTES = 1 << 20
"""The kernel counts 768 for a connection under way: 2,700 fit where it grants all of this, 550 by Linux's default."""


class Passage:
    """Gives connections to whoever comes next, and takes those of whoever was before."""

    def __init__(self, giving: socket.socket, taking: socket.socket) -> None:
        self._giving = giving
        self._taking = taking
        for end in (giving, taking):
            end.setblocking(False)

    @classmethod
    def new(cls) -> Passage:
        giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        giving.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING_BYTES)
        return cls(giving, taking)

    @classmethod
    def of(cls, descriptors: tuple[int, int]) -> Passage:
        """The passage whose ends were inherited as these descriptors."""
        giving, taking = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        return cls(giving, taking)

    @property
    def descriptors(self) -> tuple[int, int]:
        return self._giving.fileno(), self._taking.fileno()

    def give(self, connection: int) -> bool:
        """Send a connection on its way; False where there is no room, and it stays whose it is."""
        try:
            socket.send_fds(self._giving, [b"c"], [connection])
        except OSError:
            return False
        return True

    def take(self) -> list[socket.socket]:
        """All that are under way now."""
        taken: list[socket.socket] = []
        while True:
            try:
                _, descriptors, _, _ = socket.recv_fds(self._taking, 1, 1)
            except BlockingIOError:
                return taken
            if not descriptors:
                return taken
            taken += [socket.socket(fileno=descriptor) for descriptor in descriptors]
