"""Runs the door: one event loop with the journal's thread and the quarantine's beside it, stopped in order."""

from __future__ import annotations

import asyncio
import gc
import resource
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
    prepared: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    `watch` tells changes of sources; `listener` is a bound socket to use instead of the configured address. `prepared`
    is called when all that can be done beside another ingest is done: what is left needs the journal, for which this
    one then waits. Raises JournalLocked, JournalUnavailable, JournalDamaged, SettingsError.
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
        runner.run(_serve(settings, watch, limits or Limits(), bound))


async def _serve(settings: Settings, watch: SourcesWatch | None, limits: Limits, bound: socket.socket) -> None:
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
        await _Server(door, state, limits).serve(sockets=[bound])
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

    def __init__(self, door: Door, state: ServerState, limits: Limits) -> None:
        super().__init__(
            Config(
                door, interface="asgi3", http=StrictProtocol, ws="none", lifespan="off", access_log=False,
                log_config=None, proxy_headers=False, server_header=False, backlog=BACKLOG,
                timeout_graceful_shutdown=STOP_S,
            )
        )  # fmt: skip
        self.server_state = state
        self._drain_s = limits.drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on, and take new connections, while senders are told to close theirs; only then stop listening.

        Whoever comes after us accepts once we have let go of the journal, so the later we stop, the shorter the time
        in which new connections wait in the socket's queue.
        """
        telling = asyncio.create_task(self._tell_to_close())
        try:
            for _ in range(round(self._drain_s / TELL_S)):
                if not self.server_state.connections:
                    break
                await asyncio.sleep(TELL_S)
            await super().shutdown(sockets)
        finally:
            telling.cancel()

    async def _tell_to_close(self) -> None:
        # Again and again, because connections still arrive, and the last ones after uvicorn has gone through them.
        while True:
            for connection in list(self.server_state.connections):
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
