"""Plays the four platforms against a running ingest, from a seed, and writes down what it sent and what came back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TextIO

from tests.faults import ledger
from tests.faults.platforms import OFF_AFTER, RETRIES_S, SECRETS, TIMEOUT_S, Webhook, webhooks

CONNECTIONS = 4
"""Of each platform."""
SHORTER = 200
"""Retries come that much sooner than the platforms' own, or no run would end."""
STALL_S = 1.0
"""No more than what is due in this time is made up for."""


class Driver:
    """Sends in a thread of its own between `start` and `stop`."""

    def __init__(
        self,
        port: int,
        ledger_path: Path,
        seed: int,
        *,
        per_s: float = 200.0,
        steady: bool = False,
        only: str = "",
        long: bool = False,
    ) -> None:
        """`steady` sends evenly, else in bursts, so that whoever receives has idle moments too; `only` one platform.

        With `long` there are some long calls among them.
        """
        self.ledger_path = ledger_path
        self.statuses: Counter[str] = Counter()
        """What came back for genuine webhooks, by status or by what happened instead."""
        self.switched_off = 0
        """How often a platform gave up on us."""
        self.slowest_s = 0.0
        self._port = port
        self._dice = Random(seed)
        self._per_s = per_s
        self._steady = steady
        self._only = only
        self._long = long
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="driver")
        self._failure: BaseException | None = None
        self._failures_in_a_row: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after all retries; raises what went wrong in the driver itself."""
        self._stopping.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the driver did not end"
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        try:
            with self.ledger_path.open("a") as lines:
                await self._play(lines)
        except BaseException as error:
            self._failure = error

    async def _play(self, lines: TextIO) -> None:
        queues: dict[str, asyncio.Queue[Webhook | None]] = {name: asyncio.Queue() for name in SECRETS}
        retries: set[asyncio.Task[None]] = set()
        senders = [
            asyncio.create_task(self._send_all(queue, lines, retries))
            for queue in queues.values()
            for _ in range(CONNECTIONS)
        ]
        source = webhooks(self._dice, self._only, long=self._long)
        due = time.monotonic()
        while not self._stopping.is_set():
            burst = 1 if self._steady else self._dice.randrange(1, 60)
            for _ in range(burst):
                webhook = next(source)
                queues[webhook.source].put_nowait(webhook)
            quiet = 0.7 if not self._steady and self._dice.random() < 0.1 else burst / self._per_s
            # By the clock: what sending takes does not make it slower. After a long stall it goes on from there.
            due = max(due, time.monotonic() - STALL_S) + quiet
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        for queue in queues.values():
            for _ in range(CONNECTIONS):
                queue.put_nowait(None)
        await asyncio.gather(*senders)
        while retries:
            await asyncio.gather(*retries)

    async def _send_all(
        self, queue: asyncio.Queue[Webhook | None], lines: TextIO, retries: set[asyncio.Task[None]]
    ) -> None:
        connection = _Connection(self._port)
        while (webhook := await queue.get()) is not None:
            if await self._attempt(connection, webhook, 1, lines):
                continue
            retry = asyncio.create_task(self._try_again(webhook, lines))
            retries.add(retry)
            retry.add_done_callback(retries.discard)
        connection.close()

    async def _try_again(self, webhook: Webhook, lines: TextIO) -> None:
        for number, pause_s in enumerate(RETRIES_S[webhook.source], 2):
            await asyncio.sleep(pause_s / SHORTER)
            connection = _Connection(self._port)
            done = await self._attempt(connection, webhook, number, lines)
            connection.close()
            if done:
                return

    async def _attempt(self, connection: _Connection, webhook: Webhook, number: int, lines: TextIO) -> bool:
        """Whether the platform is content."""
        sent_at = time.time()
        status, answer = await connection.post(webhook)
        attempt = ledger.Attempt(
            source=webhook.source, digest=webhook.digest, kind=webhook.kind, call=webhook.call, number=number,
            sent_at=sent_at, ended_at=time.time(), status=status, answer=answer,
        )  # fmt: skip
        ledger.write(lines, attempt)
        if webhook.kind == "forged" and status is not None:
            return True
        self.statuses[answer if status is None else str(status)] += 1
        self.slowest_s = max(self.slowest_s, attempt.ended_at - sent_at)
        in_a_row = self._failures_in_a_row
        in_a_row[webhook.source] = 0 if status == 200 else in_a_row[webhook.source] + 1
        if in_a_row[webhook.source] == OFF_AFTER.get(webhook.source):
            self.switched_off += 1
            in_a_row[webhook.source] = 0
        return status == 200


class _Connection:
    """One kept-alive connection of a sender."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, webhook: Webhook) -> tuple[int | None, str]:
        """The answer's status and what it says; None and what happened instead where there is none."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._exchange(webhook)
        except TimeoutError:
            what = "timeout"
        except ConnectionRefusedError:
            what = "refused"
        except (OSError, EOFError):
            what = "reset"
        self.close()
        return None, what

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, webhook: Webhook) -> tuple[int, str]:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        headers = {"Host": "calltally", "Content-Type": "application/json", **webhook.sign()}
        head = f"POST /webhooks/{webhook.source} HTTP/1.1\r\nContent-Length: {len(webhook.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(head.encode() + b"\r\n" + webhook.body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        lengths = [line[15:] for line in answer.split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0]))
        if b"connection: close" in answer:
            self.close()
        said = body.decode(errors="replace")
        with contextlib.suppress(ValueError, AttributeError):
            said = str(json.loads(body).get("id", said))
        return int(answer[9:12]), said[:200]
