"""Runs processes side by side: one readable log stream, restarts of what dies, an orderly stop.

A child that ends is started again after a short pause that doubles up to `PAUSE_MAX_S`; it resets once a child has
lived for `SETTLED_S`. A child that fails before it ever settled ends everything: starting it again would only repeat
the same sentence. Once it has, it is tried again whatever it fails of, wrong settings included: whoever is in the
middle of changing them must not take the others down, least of all ingest.

A child's listening socket belongs to the supervisor, so that who connects while the child is being started again
waits instead of being refused. On SIGHUP every child begins anew, with the code and the settings that are on disk
now. One with a socket hands over: its successor starts beside it, and it is stopped when that one is prepared. Where
the successor cannot start, the old one goes on, and so does every child behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from ingest.passage import Passage

PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 5.0
SETTLED_S = 15.0
"""Longer than a child may wait for a lock before it gives up."""
STOP_S = 10.0
HAND_OVER_S = 7.0
"""Shorter than the successor waits for the lock of the one before it."""
PREPARED_S = 30.0
READY_S = 10.0
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
    """The next child starts once this host and port answers, or after a few seconds."""
    listener: socket.socket | None = field(default=None, repr=False)
    """A listening socket that each process of this child gets as `--listener`. It also gets `--passage`, through which
    the processes hand connections on, and `--told`, a descriptor on which it says when it is prepared to take over."""


class Supervisor:
    """Keeps children alive until told to stop; `run` returns the exit code for the whole."""

    def __init__(self, children: Sequence[Child], *, folder: Path, out: TextIO = sys.stderr) -> None:
        self._children = children
        self._folder = folder
        self._out = out
        self._width = max(len(child.name) for child in children)
        self._lives: dict[str, list[_Life]] = {child.name: [] for child in children}
        """The processes of each child, the oldest first; two while one hands over to the other."""
        self._passages = {child.name: Passage.new() for child in children if child.listener is not None}
        self._stopping = asyncio.Event()
        self._renewal = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Start all, keep them alive, stop them in order on SIGINT, SIGTERM or a hopeless child."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up, os.isatty(0))
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
        renewing = asyncio.create_task(self._renew_when_asked())
        await self._stopping.wait()
        renewing.cancel()
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
            code, ended_for_a_new_one = await self._one_life(child, colour, started)
            if self._stopping.is_set():
                return
            settled = loop.time() - born >= SETTLED_S
            ever_settled = ever_settled or settled or ended_for_a_new_one
            if ended_for_a_new_one:
                continue
            if code > 0 and not ever_settled:
                self.say(f"{child.name} cannot start (exit code {code}); its last lines say why")
                self._exit_code = code
                self._stopping.set()
                return
            pause_s = PAUSE_MIN_S if settled else min(pause_s * 2, PAUSE_MAX_S)
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self.say(f"{child.name} {ended}; starting it again in {pause_s:.1f} s")
            await self._pause(pause_s)

    async def _one_life(self, child: Child, colour: str, started: asyncio.Event) -> tuple[int, bool]:
        """The exit code of the next process of a child, and whether that was ended in order to begin anew."""
        lives = self._lives[child.name]
        try:
            life = lives[0] if lives else await self._start(child, colour)
        except OSError as error:
            self.say(f"{child.name} cannot be started: {error.strerror}")
            return 1, False
        started.set()
        if self._stopping.is_set():
            await self._stop(child.name)
        code = await life.end()
        lives.remove(life)
        return code, life.makes_room

    async def _start(self, child: Child, colour: str) -> _Life:
        # The child holds the reading end of our pipe as its stdin: when we die, however we die, it sees the end
        # of it and stops by itself, so that no orphan keeps a port or the journal's lock.
        reading, writing = os.pipe()
        arguments, handed = list(child.arguments), []
        if child.listener is not None:
            passage = self._passages[child.name].descriptors
            handed = [child.listener.fileno(), *passage, writing]
            arguments += ["--listener", str(handed[0]), "--passage", *map(str, passage), "--told", str(writing)]
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT, cwd=self._folder, env=dict(child.environment),
                start_new_session=True, limit=LINE_BYTES_MAX, pass_fds=handed,
            )  # fmt: skip
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        output = asyncio.create_task(self._relay_output(child, colour, process))
        life = _Life(process, output, reading)
        self._lives[child.name].append(life)
        return life

    async def _renew_when_asked(self) -> None:
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            for index, child in enumerate(self._children):
                if not await self._renew(child, COLOURS[index % len(COLOURS)]):
                    self.say("nothing else begins anew, since it would meet the same settings and code")
                    break
            else:
                self.say("every process has begun anew")

    async def _renew(self, child: Child, colour: str) -> bool:
        """Replace the process of a child; False where its successor cannot start."""
        lives = self._lives[child.name]
        if not lives:
            return True  # it is about to be started anyway
        old = lives[0]
        self.say(f"{child.name} begins anew")
        if child.listener is not None and not await self._successor_is_prepared(child, colour):
            return False
        old.makes_room = True
        if child.listener is None:
            await self._stop_life(child.name, old, STOP_S)
        else:
            await self._stop_life(child.name, old, HAND_OVER_S, signal.SIGHUP)
        if child.ready_at is not None:
            await self._ready(child)
        return True

    async def _successor_is_prepared(self, child: Child, colour: str) -> bool:
        try:
            new = await self._start(child, colour)
        except OSError as error:
            self.say(f"the new {child.name} cannot be started: {error.strerror}; the one before it goes on")
            return False
        if await new.prepared(PREPARED_S):
            return True
        await self._give_up(child.name, new)
        return False

    async def _give_up(self, name: str, new: _Life) -> None:
        """A successor that cannot start: what runs goes on, unless that has ended meanwhile."""
        await self._stop_life(name, new, STOP_S)
        lives = self._lives[name]
        if new in lives[1:]:
            code = await new.end()
            lives.remove(new)
            self.say(f"the new {name} cannot start (exit code {code}); the one before it goes on")

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
        answered = asyncio.create_task(self._answered(child))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([answered, stopping], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (answered, stopping):
            task.cancel()

    async def _answered(self, child: Child) -> None:
        """Return once the child answers; that its port takes connections says little where the socket is ours."""
        host, port = child.ready_at or ("", 0)
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, port)
                with contextlib.closing(writer):
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: calltally\r\nConnection: close\r\n\r\n")
                    if await reader.read(1):
                        return
            await asyncio.sleep(0.05)

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
        await asyncio.gather(*(self._stop_life(name, life, STOP_S) for life in list(self._lives[name])))

    async def _stop_life(self, name: str, life: _Life, seconds: float, by: signal.Signals = signal.SIGTERM) -> None:
        process = life.process
        if process.returncode is not None:
            return
        process.send_signal(by)
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self.say(f"{name} did not stop within {seconds:.0f} s and is killed; nothing acknowledged is lost by that")
            process.kill()
            await process.wait()

    def _hung_up(self, in_a_terminal: bool) -> None:
        # The same signal says that the terminal is gone; then nobody is there to press Ctrl-C.
        if in_a_terminal and not os.isatty(0):
            self._stopping.set()
        else:
            self._renewal.set()

    def _print(self, name: str, colour: str, text: str) -> None:
        prefix = f"{name:<{max(self._width, 9)}} |"
        if self._out.isatty():
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        # Where nobody reads the log any more, the processes go on, and are still stopped in order.
        with contextlib.suppress(OSError):
            print(prefix, text, file=self._out, flush=True)


class _Life:
    """One process of a child."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.Task[None], told: int) -> None:
        self.process = process
        self.makes_room = False
        """Whether it is being stopped so that the next one of its child can begin."""
        self._output = output
        self._told = asyncio.create_task(_says_something(told))

    async def prepared(self, seconds: float) -> bool:
        """Whether it says in time that it is prepared to take over."""
        await asyncio.wait([self._told], timeout=seconds)
        return self._told.done() and self._told.result()

    async def end(self) -> int:
        """Its exit code, once it has ended and all it said is told."""
        await self._output
        return await self.process.wait()


async def _says_something(descriptor: int) -> bool:
    """Whether anything comes out of a pipe before its other end is closed; closes this end."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
        return os.read(descriptor, 1) != b""
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
