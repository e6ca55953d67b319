"""A second look at what the quarantine holds, whenever a secret may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from calls.errors import JournalUnavailable, PayloadMalformed, SignatureRejected
from calls.journal import NewDelivery
from ingest.gate import Gate, new_delivery
from ingest.quarantine import Held, Quarantine, Retry

AT_ONCE = 50
PAUSE_S = 5.0
"""Before going on when the journal takes no writes."""

log = structlog.get_logger("ingest")


class Reverification:
    """Verifies held deliveries again and makes deliveries of those that pass, with the time at which they came."""

    def __init__(
        self,
        quarantine: Quarantine,
        gates: Callable[[], Mapping[str, Gate]],
        accept: Callable[[NewDelivery], Awaitable[object]],
    ) -> None:
        self._quarantine = quarantine
        self._gates = gates
        self._accept = accept
        self._lock = asyncio.Lock()

    async def requested(self) -> None:
        """Carry out what the command line asked for."""
        for retry in await asyncio.to_thread(self._quarantine.requested):
            accepted, refused = await self.of(retry.source)
            self._quarantine.finish(Retry(ticket=retry.ticket, source=retry.source, accepted=accepted, refused=refused))

    async def of(self, source: str | None) -> tuple[int, int]:
        """Verify again what is held of one source, or of all; how many passed, and how many did not."""
        async with self._lock:
            accepted = refused = row = 0
            while held := await asyncio.to_thread(self._quarantine.held_after, row, source, AT_ONCE):
                passed = [one for one in held if await self._passes(one)]
                self._quarantine.remove(passed)
                accepted += len(passed)
                refused += len(held) - len(passed)
                row = held[-1].row
        if accepted:
            log.info("quarantine_reverified", source=source, accepted=accepted, still_refused=refused)
        return accepted, refused

    async def _passes(self, held: Held) -> bool:
        gate = self._gates().get(held.source)
        if gate is None:
            return False
        try:
            verified = await asyncio.to_thread(gate.prove, held.headers, held.body, held.received_at)
        except (SignatureRejected, PayloadMalformed):
            return False
        delivery = new_delivery(gate, held.headers, held.body, held.received_at, verified.trust, held.id)
        while True:
            try:
                await self._accept(delivery)
            except JournalUnavailable:
                await asyncio.sleep(PAUSE_S)
            else:
                return True
