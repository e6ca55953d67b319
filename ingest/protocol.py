"""HTTP as strictly as a door on the internet needs it: uvicorn's httptools protocol with limits and deadlines.

uvicorn has no deadline for heads and bodies, accepts a request without Host and heads of any size, and drains the body
of a refused request without bound. All deadlines are absolute, and kept by one sweep over the connections, so that a
request costs no timer. A connection that is refused while its body still arrives is closed lingering, since a plain
close would reset it and the sender would lose the answer.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGISendEvent, ASGIVersions
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ingest.passage import Passage

MIB = 1024 * 1024
READY_ANSWER = "calltally.ready_answer"
"""The ASGI extension by which a whole 200 answer goes out as one message: `head` (its header lines) and `body`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and deadlines of one connection; seconds and bytes."""

    headers_s: float = 5.0
    body_s: float = 10.0
    body_s_per_mib: float = 1.0
    idle_s: float = 75.0
    write_s: float = 10.0
    """How long a client may take to read an answer."""
    linger_s: float = 2.0
    drain_s: float = 1.5
    """How long an idle connection is still served when the process stops."""
    sweep_s: float = 0.25
    target_bytes: int = 4 * 1024
    headers_bytes: int = 16 * 1024
    headers_count: int = 100


class Refuser(Protocol):
    """What the protocol needs of the application it serves."""

    limits: Limits

    def refused_head(self, target: bytes, code: str, message: str) -> None:
        """Take note of a request that was refused before it reached the application."""


class StrictProtocol(HttpToolsProtocol):
    """One connection. `config.app` must be a Refuser as well as an ASGI application."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._refuser = cast(Refuser, config.loaded_app)
        self._limits = self._refuser.limits
        self._phase = _Phase.SILENT
        self._deadline = self.loop.time() + self._limits.headers_s
        self._write_deadline: float | None = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._refusal: _Refusal | None = None
        self._draining = False

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed."""
        if self._write_deadline is not None and now > self._write_deadline:
            self.transport.abort()
        elif now > self._deadline and not self._extended(now):
            self._out_of_time()

    def adopt(self) -> None:
        """Begin as a connection on which somebody else has answered before."""
        self._phase = _Phase.IDLE
        self._deadline = self.loop.time() + self._limits.idle_s

    def hand_on(self, passage: Passage) -> bool:
        """Give the connection away where nothing is under way on it; whether it is gone."""
        if self._phase not in (_Phase.SILENT, _Phase.IDLE) or not cast(_Lingering, self.transport).is_untouched():
            return False
        given = passage.give(self.transport.get_extra_info("socket").fileno())
        if given:
            self.transport.abort()  # closes our descriptor only; the connection is another's
        return given

    def linger(self) -> bool:
        """Whether the sender is still sending, so that closing must wait; from here on all it sends is dropped."""
        if self._phase is _Phase.BODY:
            self._phase = _Phase.LINGERING
            self._deadline = self.loop.time() + self._limits.linger_s
            self.flow.resume_reading()
            return True
        return self._phase is _Phase.LINGERING

    def expect_closed(self) -> None:
        """A client that does not read its answer keeps a closed connection open; not for ever."""
        self._write_deadline = self.loop.time() + self._limits.write_s

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Lingering(transport, self)))

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.LINGERING or self._refusal is not None:
            return
        try:
            self.parser.feed_data(data)
            if self._phase is _Phase.HEAD:
                self._bound_unfinished_head(len(data))
        except _Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserUpgrade:
            # An offer to speak HTTP/2 was declined by answering as usual; nothing after this request is read.
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, _Refusal) else _malformed(str(error)))

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self._phase is _Phase.ANSWERING and not self.cycle.response_complete:
            # Only half closed: the sender still reads, and gets its answer.
            self.cycle.keep_alive = False
            return True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = _Phase.CLOSED
        self._deadline = _NEVER
        self._write_deadline = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.time() + self._limits.write_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = None

    def shutdown(self) -> None:
        """Answer what is under way and, for a moment, what an idle sender may just be sending; then close."""
        self._draining = True
        if self._under_way():
            self.cycle.keep_alive = False
        elif self._phase in (_Phase.SILENT, _Phase.IDLE):
            self._deadline = min(self._deadline, self.loop.time() + self._limits.drain_s)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = _BEGAN_JUST_NOW
        self._body_bytes = 0
        self._phase = _Phase.HEAD
        self._deadline = self.loop.time() + self._limits.headers_s

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._check_head()
        path, _, query = self.url.partition(b"?")
        self.scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "method": self.parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "headers": self.headers,
            "extensions": _EXTENSIONS,
        }
        before: RequestResponseCycle | None = self.cycle
        self.cycle = _Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=self.parser.should_keep_alive() and not self._draining,
            on_response=self.on_response_complete,
        )
        self._phase = _Phase.BODY
        self._deadline = self.loop.time() + self._limits.body_s
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._phase = _Phase.ANSWERING
        self._deadline = _NEVER
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            if self._phase is _Phase.BODY:
                self._deadline = self.loop.time() + self._limits.body_s
        elif self._refusal is not None:
            self._answer_refusal()
        elif self._phase is _Phase.BODY:
            # Answered before the body was read: what is still to come belongs to a request that is over.
            self.transport.close()
        elif self._phase is _Phase.ANSWERING:
            self._phase = _Phase.IDLE
            self._deadline = self.loop.time() + (self._limits.drain_s if self._draining else self._limits.idle_s)

    def _check_head(self) -> None:
        """Raises _Refusal."""
        limits = self._limits
        size = hosts = 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                # "gzip, chunked" is well-formed, yet nothing here is inflated, and a proxy may read it otherwise.
                if value.lower() != b"chunked":
                    raise _malformed("only the transfer encoding 'chunked' is understood")
            elif name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif name == b"upgrade" and self._get_upgrade() == b"websocket":
                raise _not_http()
        if len(self.url) > limits.target_bytes:
            raise _target_too_long(limits)
        if size > limits.headers_bytes or len(self.headers) > limits.headers_count:
            raise _headers_too_large(limits)
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise _malformed("it needs exactly one Host header")
        if self.parser.get_method() == b"CONNECT":
            raise _not_http()

    def _bound_unfinished_head(self, arrived: int) -> None:
        """Raises _Refusal for a head of which too much has come to wait for its end."""
        limits = self._limits
        if self._head_bytes == _BEGAN_JUST_NOW:
            # What arrived may be mostly the body before; what follows is counted.
            self._head_bytes = arrived = 0
        self._head_bytes += arrived
        if len(self.url) > limits.target_bytes:
            raise _target_too_long(limits)
        if len(self.headers) > limits.headers_count or self._head_bytes > limits.headers_bytes + limits.target_bytes:
            raise _headers_too_large(limits)

    def _under_way(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _extended(self, now: float) -> bool:
        if self._phase is not _Phase.BODY:
            return False
        if self.flow.read_paused:
            # It is us who do not read: the sender's time starts anew.
            self._deadline = now + self._limits.body_s
            self._body_bytes = 0
            return True
        # More of the body has arrived since: its share of time is added, once.
        self._deadline += self._body_bytes / MIB * self._limits.body_s_per_mib
        self._body_bytes = 0
        return now <= self._deadline

    def _out_of_time(self) -> None:
        if self._phase in (_Phase.SILENT, _Phase.IDLE):
            self.transport.close()
        elif self._phase is _Phase.LINGERING:
            self.transport.abort()
        else:
            what = "head" if self._phase is _Phase.HEAD else "body"
            self._refuse(_Refusal(408, "too_slow", f"The request's {what} did not arrive in time."))

    def _refuse(self, refusal: _Refusal) -> None:
        self._refusal = refusal
        self._deadline = _NEVER
        answering = self._under_way()
        if answering and self.cycle.more_body:
            # The application waits for the rest of this very request, in vain.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            answering = False
        if answering:
            # Requests before this one are still being answered; the refusal comes after them, in order.
            while self.pipeline and self.pipeline[0][0].more_body:
                self.pipeline.popleft()
            return
        self._answer_refusal()

    def _answer_refusal(self) -> None:
        refusal = self._refusal
        if refusal is None or self.transport.is_closing():
            return
        self._refuser.refused_head(self.url, refusal.code, refusal.message)
        body = json.dumps({"error": refusal.code, "message": refusal.message}).encode()
        self.transport.write(
            STATUS_LINE[refusal.status]
            + b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self._phase = _Phase.BODY
        self.transport.close()


async def sweep_deadlines(state: ServerState, limits: Limits) -> None:
    """Keep the deadlines of all connections, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(limits.sweep_s)
        now = loop.time()
        for connection in list(state.connections):
            if isinstance(connection, StrictProtocol):
                connection.sweep(now)


_NEVER = float("inf")
_BEGAN_JUST_NOW = -1
_ASGI: ASGIVersions = {"version": "3.0", "spec_version": "2.3"}
_EXTENSIONS: dict[str, dict[object, object]] = {READY_ANSWER: {}}


class _Phase(Enum):
    SILENT = "nothing has been sent yet"
    HEAD = "a head arrives"
    BODY = "a body arrives"
    ANSWERING = "all has arrived"
    IDLE = "answered; the connection is kept"
    LINGERING = "closed by us; what still arrives is dropped"
    CLOSED = "gone"


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def _target_too_long(limits: Limits) -> _Refusal:
    return _Refusal(414, "target_too_long", f"The address is longer than {limits.target_bytes} bytes.")


def _headers_too_large(limits: Limits) -> _Refusal:
    return _Refusal(
        431,
        "headers_too_large",
        f"The headers have over {limits.headers_bytes} bytes or are more than {limits.headers_count}.",
    )


def _not_http() -> _Refusal:
    return _Refusal(400, "upgrade_refused", "This address speaks plain HTTP/1.1 and nothing beside it.")


def _malformed(why: str) -> _Refusal:
    return _Refusal(400, "malformed_http", f"This is not a well-formed HTTP/1.1 request: {why}.")


class _Cycle(RequestResponseCycle):
    """One request and its answer, with a short way for answers that are ready."""

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] != READY_ANSWER:
            self._notice_the_end()
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        self._notice_the_end()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        ready = cast(dict[str, bytes], message)
        close = b"" if self.keep_alive else b"connection: close\r\n"
        date = b"".join([b"%b: %b\r\n" % header for header in self.default_headers])
        self.transport.write(b"HTTP/1.1 200 OK\r\n%b%b%b\r\n%b" % (date, ready["head"], close, ready["body"]))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _notice_the_end(self) -> None:
        # uvicorn tells only the latest of pipelined requests that the connection is gone, and a write would raise.
        self.disconnected = self.disconnected or self.transport.is_closing()


class _Lingering:
    """The connection's transport, whose `close` first lets a sender that is still sending read its answer."""

    def __init__(self, transport: asyncio.Transport, protocol: StrictProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._lingers = False
        self.write = transport.write
        self.abort = transport.abort
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def is_untouched(self) -> bool:
        """Whether it is open, and all that was written has gone out."""
        return not self.is_closing() and self._transport.get_write_buffer_size() == 0

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if self._protocol.linger():
            self._lingers = True
            self._transport.write_eof()
        else:
            self._protocol.expect_closed()
            self._transport.close()
