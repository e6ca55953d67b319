"""Runs processes side by side: one readable log stream, restarts of what dies, an orderly stop.

A child that ends is started again after a short pause that doubles up to `PAUSE_MAX_S`; it resets once a child has
lived for `SETTLED_S`. A child that ends with exit code 2 (wrong settings), or with any failure before it ever settled
once, ends everything: starting it again would only repeat the same sentence.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 5.0
SETTLED_S = 15.0
"""Longer than a child may wait for a lock before it gives up."""
STOP_S = 10.0
LINE_BYTES_MAX = 1024 * 1024
COLOURS = ("36", "35", "33", "32", "34", "31")


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep alive; children start in the order given and stop in the order of `stop_order`."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    stop_order: int
    ready_at: tuple[str, int] | None = None
    """The next child starts once this host and port takes connections, or after a few seconds."""


class Supervisor:
    """Keeps children alive until told to stop; `run` returns the exit code for the whole."""

    def __init__(self, children: Sequence[Child], *, folder: Path, out: TextIO = sys.stderr) -> None:
        self._children = children
        self._folder = folder
        self._out = out
        self._width = max(len(child.name) for child in children)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Start all, keep them alive, stop them in order on SIGINT, SIGTERM or a hopeless child."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        keepers: list[asyncio.Task[None]] = []
        for index, child in enumerate(self._children):
            if self._stopping.is_set():
                break
            started = asyncio.Event()
            keepers.append(asyncio.create_task(self._keep_alive(child, COLOURS[index % len(COLOURS)], started)))
            waiting = asyncio.create_task(started.wait())
            await asyncio.wait([keepers[-1], waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if child.ready_at is not None:
                await self._ready(child)
        await self._stopping.wait()
        self.say("stopping")
        await self._stop_in_order()
        await asyncio.gather(*keepers)
        return self._exit_code

    def say(self, sentence: str) -> None:
        """Print a line of our own into the log stream."""
        self._print("calltally", "1", sentence)

    async def _keep_alive(self, child: Child, colour: str, started: asyncio.Event) -> None:
        pause_s = PAUSE_MIN_S
        ever_settled = False
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            born = loop.time()
            code = await self._one_life(child, colour, started)
            if self._stopping.is_set():
                return
            settled = loop.time() - born >= SETTLED_S
            ever_settled = ever_settled or settled
            if code == 2 or (code != 0 and not ever_settled and code > 0):
                self.say(f"{child.name} cannot start (exit code {code}); its last lines say why")
                self._exit_code = code
                self._stopping.set()
                return
            pause_s = PAUSE_MIN_S if settled else min(pause_s * 2, PAUSE_MAX_S)
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self.say(f"{child.name} {ended}; starting it again in {pause_s:.1f} s")
            await self._pause(pause_s)

    async def _one_life(self, child: Child, colour: str, started: asyncio.Event) -> int:
        try:
            process = await self._start(child)
        except OSError as error:
            self.say(f"{child.name} cannot be started: {error.strerror}")
            return 1
        started.set()
        if self._stopping.is_set():
            await self._stop(child.name)
        await self._relay_output(child, colour, process)
        return await process.wait()

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        # The child holds the reading end of our pipe as its stdin: when we die, however we die, it sees the end
        # of it and stops by itself, so that no orphan keeps a port or the journal's lock.
        process = await asyncio.create_subprocess_exec(
            *child.arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, cwd=self._folder, env=dict(child.environment), start_new_session=True,
            limit=LINE_BYTES_MAX,
        )  # fmt: skip
        self._processes[child.name] = process
        return process

    async def _relay_output(self, child: Child, colour: str, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                # Longer than the buffer: what was read is dropped, the stream goes on.
                continue
            if not line:
                return
            self._print(child.name, colour, line.decode(errors="replace").rstrip("\n"))

    async def _ready(self, child: Child) -> None:
        host, port = child.ready_at or ("", 0)
        for _ in range(100):
            if self._stopping.is_set():
                return
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await self._pause(0.05)
            else:
                writer.close()
                return

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _stop_in_order(self) -> None:
        for order in sorted({child.stop_order for child in self._children}):
            names = [child.name for child in self._children if child.stop_order == order]
            await asyncio.gather(*(self._stop(name) for name in names))

    async def _stop(self, name: str) -> None:
        process = self._processes.get(name)
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            self.say(f"{name} did not stop within {STOP_S:.0f} s and is killed; nothing acknowledged is lost by that")
            process.kill()
            await process.wait()

    def _print(self, name: str, colour: str, text: str) -> None:
        prefix = f"{name:<{max(self._width, 9)}} |"
        if self._out.isatty():
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        print(prefix, text, file=self._out, flush=True)
