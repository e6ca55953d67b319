"""Runs the door: one event loop with the journal's thread and the quarantine's beside it, stopped in order."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
from collections.abc import Callable
from functools import partial

import structlog
import uvloop
from uvicorn.config import Config
from uvicorn.server import ServerState

from calls.errors import JournalError, JournalUnavailable, SettingsError
from calls.journal import Journal
from calls.settings import Settings, SourcesWatch
from calls.stopping import StoppableServer
from ingest.acceptance import Acceptance
from ingest.app import Door
from ingest.counters import Counters
from ingest.inbound import InboundAnswers, StoreLookUp
from ingest.listener import BACKLOG, bind
from ingest.notices import Notices
from ingest.passage import Passage
from ingest.protocol import Limits, StrictProtocol, sweep_deadlines
from ingest.quarantine import Quarantine
from ingest.relay_state import RelayMetrics
from ingest.reverification import Reverification

TICK_S = 0.5
MEMORY_WAIT_S = 1.5
"""How long the first webhook may wait for the memory of earlier ones to be read."""
STOP_S = 5
TELL_S = 0.05
GARBAGE_THRESHOLD = 20_000
DESCRIPTORS = 65_536
LOCK_WAIT_S = 10.0
"""How long a starting process waits for the one before it to free the journal."""

log = structlog.get_logger("ingest")


def run(
    settings: Settings,
    *,
    watch: SourcesWatch | None = None,
    limits: Limits | None = None,
    listener: socket.socket | None = None,
    passage: Passage | None = None,
    prepared: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    `watch` tells changes of sources; `listener` is a bound socket to use instead of the configured address. `passage`
    brings the connections of the ingest before this one and, at SIGHUP, takes those of this one. `prepared` is called
    when all that can be done beside another ingest is done: what is left needs the journal, for which this one then
    waits. Raises JournalLocked, JournalUnavailable, JournalDamaged, SettingsError.
    """
    _allow_many_connections()
    # What is loaded by now stays: the collector need not look at it again, nor after every 700 requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    bound = listener or bind(settings)
    if prepared is not None:
        prepared()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, watch, limits or Limits(), bound, passage))


async def _serve(
    settings: Settings, watch: SourcesWatch | None, limits: Limits, bound: socket.socket, passage: Passage | None
) -> None:
    state = ServerState()
    acceptance = Acceptance()
    notices = Notices(acceptance.note)
    journal = await asyncio.to_thread(
        Journal, settings.journal_path, on_committed=acceptance.committed, wait_s=LOCK_WAIT_S
    )
    acceptance.use(journal)
    held = await asyncio.to_thread(Quarantine, settings.quarantine_path)
    look_up = StoreLookUp(settings)
    if any(source.inbound_token for source in settings.sources.values()):
        await asyncio.to_thread(look_up.prepare)
    answers = InboundAnswers(look_up)

    def unready() -> JournalUnavailable | None:
        return journal.health() or acceptance.overdue()

    counters = Counters(unready=unready, connections=lambda: len(state.connections), lost=lambda: notices.lost)
    counters.also(RelayMetrics(settings.data_dir, journal.last_position))
    acceptance.on_commit = counters.committed
    door = Door(
        settings,
        acceptance=acceptance,
        notices=notices,
        held=held,
        answers=answers,
        counters=counters,
        unready=unready,
        limits=limits,
    )
    reverification = Reverification(held, lambda: door.gates, partial(acceptance.accept, late=True))
    remembering = asyncio.create_task(_remember(acceptance, journal))
    background = [
        remembering,
        asyncio.create_task(sweep_deadlines(state, limits)),
        asyncio.create_task(_tick(door, acceptance, notices, reverification, watch)),
    ]
    await asyncio.wait([remembering], timeout=MEMORY_WAIT_S)
    bound.listen(BACKLOG)
    _say_listening(settings, bound)
    try:
        await _Server(door, state, limits, passage).serve(sockets=[bound])
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        notices.flush(all_of_them=True)
        answers.close()
        await asyncio.to_thread(held.close)
        # The journal last: the process that waits for it takes over all the rest at once.
        await asyncio.to_thread(journal.close)
        log.info("stopped")


async def _remember(acceptance: Acceptance, journal: Journal) -> None:
    try:
        await acceptance.remember(journal.recent_ids)
    except JournalError as error:
        # Repeats are then stored again, and still counted once: the events of equal bytes have equal ids.
        log.warning("memory_not_filled", detail=error.message)


async def _tick(
    door: Door,
    acceptance: Acceptance,
    notices: Notices,
    reverification: Reverification,
    watch: SourcesWatch | None,
) -> None:
    reverifying: set[asyncio.Task[object]] = {asyncio.create_task(reverification.of(None))}
    while True:
        await asyncio.sleep(TICK_S)
        acceptance.give_up_late()
        notices.flush()
        reverifying = {task for task in reverifying if not task.done()}
        for source in _changed_sources(door, watch):
            reverifying.add(asyncio.create_task(reverification.of(source)))
        if not reverifying:
            reverifying.add(asyncio.create_task(reverification.requested()))


def _changed_sources(door: Door, watch: SourcesWatch | None) -> list[str]:
    """Takes over changed sources; the names of those that verify differently now."""
    try:
        sources = watch.poll() if watch is not None else None
    except SettingsError as error:
        log.error("sources_unchanged", detail=f"{error.message} The sources stay as they were.")
        return []
    if sources is None:
        return []
    before = {name: gate.source for name, gate in door.gates.items()}
    door.use_sources(sources)
    changed = [name for name, source in sources.items() if before.get(name) != source]
    log.info("sources_changed", changed=changed, removed=[name for name in before if name not in sources])
    return changed


class _Server(StoppableServer):
    """Serves the door, and drains it before it stops."""

    def __init__(self, door: Door, state: ServerState, limits: Limits, passage: Passage | None) -> None:
        super().__init__(
            Config(
                door, interface="asgi3", http=StrictProtocol, ws="none", lifespan="off", access_log=False,
                log_config=None, proxy_headers=False, server_header=False, backlog=BACKLOG,
                timeout_graceful_shutdown=STOP_S,
            )
        )  # fmt: skip
        self.server_state = state
        self._drain_s = limits.drain_s
        self._passage = passage
        self._handing_on = False
        self._adopting: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and take over the connections of the process before."""
        await super().startup(sockets)
        if self._passage is not None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._make_room)
            loop.add_reader(self._passage.descriptors[1], self._adopt, self._passage)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, and part with the connections without losing what is just being sent on them."""
        if self._passage is not None:
            asyncio.get_running_loop().remove_reader(self._passage.descriptors[1])
        if self._passage is not None and self._handing_on:
            parting = asyncio.create_task(self._hand_on(self._passage))
        else:
            parting = asyncio.create_task(self._tell_to_close())
        try:
            for _ in range(round(self._drain_s / TELL_S)):
                await asyncio.sleep(TELL_S)
                if not self.server_state.connections:
                    break
            await super().shutdown(sockets)
        finally:
            parting.cancel()

    def _make_room(self) -> None:
        self._handing_on = True
        self.should_exit = True

    def _adopt(self, passage: Passage) -> None:
        for connection in passage.take():
            task = asyncio.create_task(self._adopt_one(connection))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    async def _adopt_one(self, connection: socket.socket) -> None:
        protocol = StrictProtocol(self.config, self.server_state, self.lifespan.state)
        protocol.adopt()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
        except OSError:
            connection.close()  # its sender has gone meanwhile

    async def _hand_on(self, passage: Passage) -> None:
        # Whoever comes next accepts new ones; here they would only have to be handed on.
        for server in self.servers:
            server.close()
        handed_on = 0
        try:
            while True:
                handed_on += sum(connection.hand_on(passage) for connection in self._connections())
                await asyncio.sleep(TELL_S)
        finally:
            log.info("connections handed on", count=handed_on)

    def _connections(self) -> list[StrictProtocol]:
        return [one for one in self.server_state.connections if isinstance(one, StrictProtocol)]

    async def _tell_to_close(self) -> None:
        # Again and again, because connections still arrive, and the last ones after uvicorn has gone through them.
        while True:
            for connection in self._connections():
                connection.shutdown()
            await asyncio.sleep(TELL_S)


def _say_listening(settings: Settings, bound: socket.socket) -> None:
    host, port = bound.getsockname()[:2]
    log.info("listening", host=host, port=port, sources=list(settings.sources))
    for warning in settings.warnings:
        log.warning("settings", detail=warning)


def _allow_many_connections() -> None:
    # Silent connections hold a descriptor each until their deadline; the usual soft limit of 1,024 is soon used up.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard) if hard > 0 else DESCRIPTORS, hard))
