"""Who waits for whom at the door: long bodies for each other, and senders for a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import Message

from calls import settings
from calls.errors import JournalUnavailable
from calls.journal import Append, Journal
from calls.journal_row import NewDelivery
from calls.model import Trust, delivery_id
from ingest import acceptance, app
from ingest.acceptance import Acceptance, Outcome
from ingest.counters import Counters
from ingest.inbound import InboundAnswers
from ingest.notices import Notices
from ingest.protocol import Limits
from ingest.quarantine import Quarantine
from ingest.serve import TICK_S

SHORTEST_PATIENCE_S = 10
"""InboundFlow's, which switches a webhook off after ten failures in a row."""
LONG = b'{"event":"' + b"x" * app.LARGE_BYTES + b'"}'


class SilentJournal:
    """Takes what is appended, and never says that it is durable."""

    def __init__(self) -> None:
        self.taken: list[Append] = []

    def append(self, item: Append) -> None:
        self.taken.append(item)


def test_long_bodies_are_parsed_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser stops all other threads: several at once would keep a live call waiting for each of them."""
    running, most = 0, 0

    async def in_thread(work: Callable[[Any], Any], arrived: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await turns()
        running -= 1
        return work(arrived)

    async def scenario() -> list[int]:
        held = Quarantine(tmp_path / "quarantine.sqlite")
        try:
            door = door_of(tmp_path, held)
            monkeypatch.setattr(asyncio, "to_thread", in_thread)
            return await asyncio.gather(*(status_of(door, LONG + b" " * number) for number in range(4)))
        finally:
            held.close()

    assert asyncio.run(scenario()) == [401] * 4
    assert most == 1


def test_a_sender_is_told_before_it_gives_up_that_a_commit_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """And when the commit comes after all, the copy that is sent again is a repeat."""
    assert acceptance.COMMIT_S + TICK_S < SHORTEST_PATIENCE_S

    async def scenario() -> None:
        accepts, journal = Acceptance(), SilentJournal()
        accepts.use(cast(Journal, journal))
        waiting = asyncio.create_task(accepts.accept(DELIVERY))
        await turns()
        accepts.give_up_late()
        await turns()
        assert not waiting.done()
        monkeypatch.setattr(acceptance, "COMMIT_S", 0.0)
        accepts.give_up_late()
        with pytest.raises(JournalUnavailable):
            await waiting
        accepts.committed(journal.taken, None)
        await turns()
        assert await accepts.accept(DELIVERY) is Outcome.SEEN_BEFORE

    asyncio.run(scenario())


DELIVERY = NewDelivery(
    source="aisync",
    provider="aisync",
    org="",
    body=b"{}",
    headers={},
    received_at=1,
    trust=Trust.B,
    id=delivery_id("aisync", b"{}"),
)


async def turns() -> None:
    """Let everybody else run."""
    for _ in range(10):
        await asyncio.sleep(0)


def door_of(folder: Path, held: Quarantine) -> app.Door:
    return app.Door(
        settings.load(folder, {"CALLTALLY_SECRET_AISYNC": "a secret of tests"}),
        acceptance=Acceptance(),
        notices=Notices(lambda _notice: None),
        held=held,
        answers=InboundAnswers(lambda _gate, _phone: {}),
        counters=Counters(unready=lambda: None, connections=lambda: 0, lost=lambda: 0),
        unready=lambda: None,
        limits=Limits(),
    )


async def status_of(door: app.Door, body: bytes) -> int:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "raw_path": b"/webhooks/aisync", "query_string": b"", "headers": []}
    await door(scope, receive, send)
    return int(sent[0]["status"])
