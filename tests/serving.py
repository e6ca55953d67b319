"""A worker's SQL server for tests: the real app over a real store, listening on a free port of this machine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from analytics.metric import catalogue
from analytics.query import Limits
from analytics.server import Readable, create_app, serve
from streams.worker_state import WorkerState
from tests.waiting import until

TOKEN = "a token that only the tests know"
DEADLINE_S = 20


@dataclass
class Serving:
    """A running server."""

    url: str
    state: WorkerState
    stuck: threading.Event


@contextlib.contextmanager
def serving(
    store: Readable,
    *,
    port: int = 0,
    token: str = TOKEN,
    limits: Limits | None = None,
    state: WorkerState | None = None,
) -> Iterator[Serving]:
    """Serve the store until the block ends."""
    state = state or WorkerState(running=True)
    stuck = threading.Event()
    app = create_app(
        store, token=token, limits=limits or Limits(), worker_state=state, catalogue=catalogue, on_stuck=stuck.set
    )
    server = serve(app, "127.0.0.1", port, explicit_token=False)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        bound = server.servers[0].sockets[0].getsockname()[1]
        yield Serving(f"http://127.0.0.1:{bound}", state, stuck)
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
