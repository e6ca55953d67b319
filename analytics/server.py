"""The HTTP side of the store's owner: read-only SQL for all other processes, health and metrics."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, Protocol, TypeAlias

import duckdb
import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analytics.answer import LAG_HEADER, TRUNCATED_HEADER, VERSION_HEADER, Answer, to_arrow, to_json
from analytics.last_day import LastDay
from analytics.metric import Metric
from analytics.query import Limits, Query
from analytics.server_metrics import ServerMetrics, partitions_of
from analytics.upkeep import Kept, endpoints
from calls.errors import CalltallyError, QueryError, SettingsError, StoreError
from calls.hosts import OnlyKnownHosts, is_loopback
from calls.model import Micros
from calls.stopping import StoppableServer

ARROW: Final = "application/vnd.apache.arrow.stream"
BODY_MAX: Final = 1 << 20
STUCK_EXIT: Final = 70
"""What the worker's process should exit with when a query ignores its interruption; the supervisor starts it again."""

_INLINE_BYTES: Final = 64 << 10
_SPARE_S: Final = 0.25
"""A query is stopped at its deadline and then needs a moment to say so."""
_STATUS: Final = {"timeout": 504, "busy": 503, "unauthorized": 401, "request_too_large": 413, "canceled": 499}

_LOOKING: Final = (
    "The worker's process ended in the midst of its work, and it is looked for the delivery that did it. Until then no "
    "query runs; ask again in a few seconds."
)

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

log = structlog.get_logger("sql")


class Readable(Kept, Protocol):
    """What the server needs of the store."""

    def cursor(self) -> duckdb.DuckDBPyConnection: ...

    def positions(self) -> dict[tuple[str, str], int]: ...


class Tally(Protocol):
    """What a worker has applied since it started."""

    @property
    def records(self) -> int: ...

    @property
    def events(self) -> int: ...

    @property
    def calls_changed(self) -> int: ...

    @property
    def dead_letters(self) -> Counter[str]: ...


class WorkerState(Protocol):
    """How the worker that fills the store is doing."""

    @property
    def position(self) -> int: ...

    @property
    def lag(self) -> int: ...

    @property
    def last_commit_at(self) -> Micros | None: ...

    @property
    def rows_per_s(self) -> float: ...

    @property
    def running(self) -> bool: ...

    @property
    def rebuilding(self) -> bool: ...

    @property
    def fault(self) -> CalltallyError | None: ...

    @property
    def careful(self) -> bool:
        """Whether a query now could be taken for what ends the process."""
        ...

    @property
    def tally(self) -> Tally: ...


def create_app(
    store: Readable,
    *,
    token: str,
    limits: Limits,
    worker_state: WorkerState,
    catalogue: Callable[[], Mapping[str, Metric]] = dict,
    on_stuck: Callable[[], None] | None = None,
) -> Starlette:
    """POST /sql, GET /version, GET /verify, POST /snapshot, /healthz, /readyz, /metrics.

    Who shows the token at /metrics is told the numbers of `catalogue`, too: how a business does is not for everybody.
    `on_stuck` is called, once, when a query ignores its interruption: only a new process frees its thread.
    """
    metrics = ServerMetrics(worker_state, LastDay(store.cursor, catalogue, limits))
    sql = _Sql(store, limits, metrics, on_stuck or _log_stuck)

    async def version(_: Request) -> Response:
        return Response(status_code=204)

    async def healthz(_: Request) -> Response:
        return _json(200, {"status": "alive"})

    async def readyz(_: Request) -> Response:
        reason = _not_ready(worker_state)
        content: dict[str, object] = {"status": "ready"}
        if reason is not None:
            content = {"status": "not ready", "reason": reason}
        if lags := partitions_of(worker_state):
            content["partitions"] = [
                {"topic": topic, "partition": number, "lag": lag} for (topic, number), lag in sorted(lags.items())
            ]
        return _json(200 if reason is None else 503, content)

    async def prometheus(request: Request) -> Response:
        if worker_state.careful or not _shows(request, token):
            return Response(metrics.text(), media_type=metrics.media_type)
        return Response(await asyncio.to_thread(metrics.text_with_numbers), media_type=metrics.media_type)

    return Starlette(
        routes=[
            Route("/sql", _guarded(token, _unless_careful(worker_state, sql.answer)), methods=["POST"]),
            Route("/version", _guarded(token, version)),
            *(
                Route(path, _guarded(token, _unless_careful(worker_state, endpoint)), methods=[method])
                for (method, path), endpoint in endpoints(store).items()
            ),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", prometheus),
        ],
        middleware=[Middleware(_Versioned, store=store, worker_state=worker_state)],
        exception_handlers={CalltallyError: _problem, HTTPException: _misdirected},
    )


def serve(app: ASGIApp, host: str, port: int, *, explicit_token: bool, url: str = "") -> uvicorn.Server:
    """A server whose `run()` blocks until `should_exit` is set; port 0 takes a free one.

    On loopback it answers under this machine's own names and that of `url`, so that no foreign page reads it.
    Raises SettingsError for an address that other machines reach, unless the token was set on purpose.
    """
    if not explicit_token and not is_loopback(host):
        raise SettingsError(
            f"The SQL endpoint is to listen on {host}, which other machines can reach, and has no token of its own. "
            'Set one, as in CALLTALLY_SQL_TOKEN="$(openssl rand -hex 32)", or leave CALLTALLY_SQL_HOST at 127.0.0.1.'
        )
    return StoppableServer(
        uvicorn.Config(
            OnlyKnownHosts(app, urls=[url], setting="sql_url") if is_loopback(host) else app,
            host=host,
            port=port,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
    )


class _Ask(msgspec.Struct, forbid_unknown_fields=True):
    sql: str
    params: dict[str, object] | None = None
    format: Literal["json", "arrow"] = "json"


class _Sql:
    """Runs few queries at a time, lets some more wait, and sends the rest away."""

    def __init__(self, store: Readable, limits: Limits, metrics: ServerMetrics, on_stuck: Callable[[], None]) -> None:
        self._store = store
        self._limits = limits
        self._metrics = metrics
        self._on_stuck = on_stuck
        self._turns = asyncio.Semaphore(limits.running)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(limits.running, thread_name_prefix="query")
        self._decoder = msgspec.json.Decoder(_Ask)

    async def answer(self, request: Request) -> Response:
        started = time.monotonic()
        outcome = "failed"
        try:
            ask = self._decoded(await _body(request))
            # Read before the query begins: its rows are this version's or newer, so nothing stale is ever cached.
            version = _version(self._store)
            answer = await self._rows(ask, request, started)
            response = await _encoded(answer, ask.format, version)
            outcome = "truncated" if answer.truncated else "done"
            return response
        except CalltallyError as error:
            outcome = error.code
            raise
        finally:
            self._metrics.observe(outcome, time.monotonic() - started)

    def _decoded(self, body: bytes) -> _Ask:
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise QueryError(
                'The body has to be JSON like {"sql": "SELECT ...", "params": {"name": "value"}, "format": "json"}: '
                f"{str(error).rstrip('.')}.",
                code="bad_request",
            ) from None

    async def _rows(self, ask: _Ask, request: Request, started: float) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = started + self._limits.timeout_s
        await self._take_turn(deadline)
        query = Query(self._store.cursor, ask.sql, ask.params or {}, self._limits, deadline=deadline)
        running = loop.run_in_executor(self._threads, query.run)
        self._metrics.running.inc()
        stuck = loop.call_later(deadline + self._limits.stuck_s - time.monotonic(), self._stuck, ask.sql)
        running.add_done_callback(lambda ended: self._ended(ended, stuck))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            either: set[asyncio.Future[Answer] | asyncio.Future[None]] = {running, gone}
            patience = max(0.0, deadline + _SPARE_S - time.monotonic())
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            code = "canceled" if gone.done() else "timeout"
            raise query.end(code)
        finally:
            gone.cancel()
            if not running.done():
                query.cancel()

    async def _take_turn(self, deadline: float) -> None:
        """Wait until fewer than `running` queries run, those included whose answer nobody waits for any more."""
        if self._turns.locked() and self._waiting >= self._limits.waiting:
            raise QueryError("Too many queries are waiting. Ask again in a second.", code="busy")
        self._waiting += 1
        try:
            await asyncio.wait_for(self._turns.acquire(), deadline - time.monotonic())
        except TimeoutError:
            raise QueryError("Other queries ran until this one's time was over. Ask again.", code="timeout") from None
        finally:
            self._waiting -= 1

    def _ended(self, running: asyncio.Future[Answer], stuck: asyncio.TimerHandle) -> None:
        stuck.cancel()
        self._turns.release()
        self._metrics.running.dec()
        if not running.cancelled():
            running.exception()

    def _stuck(self, sql: str) -> None:
        log.critical("a query ignores its interruption", sql=sql[:2_000])
        self._on_stuck()


class _Versioned:
    """Gives every response the store's version, as far as it has none, and how many records are still to be applied."""

    def __init__(self, app: ASGIApp, store: Readable, worker_state: WorkerState) -> None:
        self._app = app
        self._store = store
        self._worker_state = worker_state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault(VERSION_HEADER, str(_version(self._store)))
                headers.setdefault(LAG_HEADER, str(self._worker_state.lag))
            await send(message)

        await self._app(scope, receive, send_versioned)


def _unless_careful(state: WorkerState, endpoint: Endpoint) -> Endpoint:
    async def careful(request: Request) -> Response:
        if state.careful:
            raise QueryError(_LOOKING, code="busy")
        return await endpoint(request)

    return careful


def _guarded(
    token: str, endpoint: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        if not _shows(request, token):
            raise QueryError(
                "The bearer token is missing or wrong. It is in sql.token in the data folder, or CALLTALLY_SQL_TOKEN.",
                code="unauthorized",
            )
        return await endpoint(request)

    return guarded


def _shows(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "").encode("latin-1", "replace")
    return hmac.compare_digest(given, f"Bearer {token}".encode())


async def _body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else 0
    parts: list[bytes] = []
    if size <= BODY_MAX:
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > BODY_MAX:
                    break
                parts.append(part)
        except ClientDisconnect:
            raise QueryError("The request was broken off.", code="canceled") from None
    if size > BODY_MAX:
        raise QueryError(f"The request is larger than {BODY_MAX >> 20} MiB.", code="request_too_large")
    return b"".join(parts)


async def _encoded(answer: Answer, form: Literal["json", "arrow"], version: int) -> Response:
    encode, media_type = (to_arrow, ARROW) if form == "arrow" else (to_json, "application/json")
    if answer.table.nbytes <= _INLINE_BYTES:
        content = encode(answer)
    else:
        content = await asyncio.to_thread(encode, answer)
    headers = {VERSION_HEADER: str(version), TRUNCATED_HEADER: "true" if answer.truncated else "false"}
    return Response(content, media_type=media_type, headers=headers)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, CalltallyError):
        raise error
    status = 503 if isinstance(error, StoreError) else _STATUS.get(error.code, 400)
    response = _json(status, {"error": error.code, "message": error.message})
    if status == 503:
        response.headers["Retry-After"] = "1"
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 413:
        # Otherwise the rest of the body would be read to its end.
        response.headers["Connection"] = "close"
    return response


async def _misdirected(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        code, message = "method_not_allowed", f"{request.method} is not answered here. Queries come by POST to /sql."
    else:
        code, message = "not_found", "There is nothing at this address. Queries go to POST /sql, state is at /readyz."
    response = _json(error.status_code, {"error": code, "message": message})
    response.headers.update(error.headers or {})
    return response


def _not_ready(state: WorkerState) -> str | None:
    if state.fault is not None:
        return state.fault.message
    if state.careful:
        return _LOOKING
    if not state.running:
        return "The worker is not running yet, or no more."
    if state.rebuilding:
        return f"The store is being made again; {state.lag:,} records are still to be applied."
    return None


def _version(store: Readable) -> int:
    return sum(store.positions().values())


def _json(status: int, content: Mapping[str, object]) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _log_stuck() -> None:
    log.critical("the process has to be restarted to get rid of it")
