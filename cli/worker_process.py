"""The worker's process: one thread applies the journal, the event loop answers SQL over the same store."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING

import structlog

from analytics import server
from analytics.access import ensure_token
from analytics.metric import catalogue
from analytics.query import Limits
from analytics.store import Store
from calls.crashes import trace_fatal_errors
from calls.errors import CalltallyError
from cli.ports import require_free
from streams.collector import rare_collections

if TYPE_CHECKING:
    import uvicorn

    from calls.settings import Settings
    from streams.faust_app import KafkaWorker
    from streams.worker import Worker

STOP_S = 8.0

log = structlog.get_logger("worker")


def run(settings: Settings, *, kafka: bool = False, from_oldest: bool = False) -> None:
    """Serve until SIGINT or SIGTERM: from the journal, or with `kafka` from what the relay published.

    `from_oldest` goes on with the oldest records that Kafka still has. Raises StoreLocked, StoreUnavailable,
    StoreMismatch, SettingsError, CalltallyError where the port is taken.
    """
    os.umask(0o077)  # the store's log and what it spills to disk hold what callers said, as the store does
    trace_fatal_errors(settings.store_path)
    worker = _of_kafka(settings, from_oldest) if kafka else _of_journal(settings)
    store = worker.open()
    try:
        web = _web(settings, store, worker)
    except CalltallyError:
        worker.close()
        raise
    thread = threading.Thread(target=_apply, args=(worker,), name="apply")
    with rare_collections():
        thread.start()
        try:
            web.run()
        finally:
            worker.stop()
            thread.join(STOP_S)
            worker.close()
            log.info("stopped", position=worker.state.position)


def _web(settings: Settings, store: Store, worker: Worker | KafkaWorker) -> uvicorn.Server:
    """What answers SQL. Raises CalltallyError where it must not, or cannot, listen."""
    app = server.create_app(
        store,
        token=settings.sql_token or ensure_token(settings.sql_token_path),
        limits=Limits(timeout_s=settings.sql_timeout_s, max_rows=settings.sql_max_rows),
        worker_state=worker.state,
        catalogue=partial(catalogue, settings.data_dir / "metrics"),
        on_stuck=_restart,
    )
    explicit = settings.sql_token is not None
    web = server.serve(app, settings.sql_host, settings.sql_port, explicit_token=explicit, url=settings.sql_url)
    # Only now: where another worker holds the store, that is the thing to say.
    require_free("sql_port", settings.sql_host, settings.sql_port)
    return web


def _of_journal(settings: Settings) -> Worker:
    from streams.worker import Worker

    rules, path = settings.rules, settings.store_path
    return Worker(settings.journal_path, lambda: Store.open(path, rules=rules), rules, store_path=path)


def _of_kafka(settings: Settings, from_oldest: bool) -> KafkaWorker:
    from streams.faust_app import KafkaWorker

    rules, path = settings.rules, settings.store_path
    return KafkaWorker(settings, lambda: Store.open(path, rules=rules), from_oldest=from_oldest)


def _apply(worker: Worker | KafkaWorker) -> None:
    try:
        worker.run()
    except MemoryError:
        # Ended as the kernel would end it: the next process looks for the delivery that does this.
        log.critical("the worker has no memory left", exc_info=True)
        os.abort()
    except BaseException:
        # A bug: the supervisor starts a new process, which goes on where the store is.
        log.critical("the worker failed", exc_info=True)
        os._exit(1)


def _restart() -> None:
    # Nothing but a new process frees the query's thread. The supervisor starts one, which goes on where the store is.
    os._exit(server.STUCK_EXIT)
