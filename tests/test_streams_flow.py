"""What waits between Kafka's client and the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from analytics.store import Store
from calls.model import Rules
from streams.announce import Announcer
from streams.apply import Applier
from streams.fetches import Fetch
from streams.flow import WAITING_BYTES, Flow
from streams.kafka_state import KafkaState
from streams.offsets import Held
from streams.publishing import Publishing
from streams.recent import RecentCalls

SLOT = ("calltally.deliveries", 0)


class Record:
    """One of so many bytes, as Kafka's client gives it."""

    offset = 0
    headers: Sequence[tuple[str, bytes | None]] = ()

    def __init__(self, size: int) -> None:
        self.value = bytes(size)


def test_large_records_wait_outside_where_few_of_them_are_much(tmp_path: Path) -> None:
    """Kafka's client is asked for more only when there is room: thousands of the largest would take gigabytes."""
    rules = Rules()
    store = Store.open(tmp_path / "store.duckdb", rules=rules)
    fetch = Fetch({SLOT: [Record(WAITING_BYTES // 2)]}, {SLOT: 1})

    async def three_fetches() -> None:
        publishing = Publishing(Announcer(store, RecentCalls(), record_bytes_max=1 << 20))
        flow = Flow(store, Applier(store, rules), KafkaState(), Held({}, {}, {}), publishing)
        await flow.take(fetch)
        await flow.take(fetch)
        third = asyncio.create_task(flow.take(fetch))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not third.done()

        async def never() -> None: ...

        running = asyncio.create_task(flow.run(never))
        await asyncio.wait_for(third, 30)
        running.cancel()
        await asyncio.wait([running])
        await flow.close(well=True)

    asyncio.run(three_fetches())
    store.close()
