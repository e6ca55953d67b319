"""The door: every request to `/webhooks/{source}` checked in one fixed order, answered only when it is durable.

Syntax and size of the head (`ingest/protocol.py`), 404, 405, 415, 413, empty body, `call_inbound`, signature. The way
of a webhook is a plain ASGI callable with answers that are ready beforehand; the rest is Starlette.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from calls import inbound_call
from calls.errors import CalltallyError, JournalUnavailable, PayloadMalformed, RequestRejected, SignatureRejected
from calls.inbound_call import InboundCall
from calls.model import Micros, Verdict, delivery_id
from calls.settings import Settings, Source
from calls.signing import Headers, Verified
from ingest import inbound, quarantine
from ingest.acceptance import Acceptance, Outcome
from ingest.counters import Counters
from ingest.diagnosis import diagnose
from ingest.gate import Gate, new_delivery
from ingest.inbound import InboundAnswers
from ingest.notices import Happening, Notices
from ingest.protocol import MIB, READY_ANSWER, Limits
from ingest.quarantine import Held, Quarantine

PATH = b"/webhooks/"
LARGE_BYTES = 256 * 1024
"""Longer bodies are hashed and parsed in a thread, so that nobody waits behind them."""
RETRY_AFTER_S = 5

Sources: TypeAlias = Mapping[str, Source]


class Door:
    """The ASGI application of `calltally ingest`."""

    def __init__(
        self,
        settings: Settings,
        *,
        acceptance: Acceptance,
        notices: Notices,
        held: Quarantine,
        answers: InboundAnswers,
        counters: Counters,
        unready: Callable[[], CalltallyError | None],
        limits: Limits,
    ) -> None:
        self.limits = limits
        self._tolerance_s = settings.inboundflow_tolerance_s
        self._body_max = settings.max_body_mib * MIB
        self._acceptance = acceptance
        self._notices = notices
        self._quarantine = held
        self._answers = answers
        self._counters = counters
        self._unready = unready
        self._gates: dict[str, Gate] = {}
        self._by_path: dict[bytes, Gate] = {}
        self._others = self._other_routes()
        self.use_sources(settings.sources)

    @property
    def gates(self) -> Mapping[str, Gate]:
        return self._gates

    def use_sources(self, sources: Sources) -> None:
        """Take these sources from the next request on."""
        self._gates = {
            name: Gate(source, self._counters.of(name), inboundflow_tolerance_s=self._tolerance_s)
            for name, source in sources.items()
        }
        self._by_path = {PATH + name.encode(): gate for name, gate in self._gates.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self._by_path.get(scope["raw_path"])
        if gate is None:
            await self._others(scope, receive, send)
        elif scope["method"] == "POST":
            await self._post(gate, scope, receive, send)
        elif scope["method"] == "GET":
            gate.counts.probes += 1
            await _reply(send, 200, _PROBED[gate.probed(scope["headers"], time.time_ns() // 1000)])
        else:
            message = f"{scope['method']} is not answered here. Webhooks come by POST."
            await self._refuse(send, gate, 405, "method_not_allowed", message, extra=_ALLOW)

    def refused_head(self, target: bytes, code: str, message: str) -> None:
        """Take note of a request that the protocol refused."""
        gate = self._by_path.get(target.split(b"?", 1)[0])
        if gate is None:
            self._counters.refused_head(code)
            self._notices.tell(_nowhere(code), lambda: message)
        else:
            self._tell_refused(gate, code, lambda: message, 0, None)

    async def _post(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = scope["headers"]
        try:
            self._check_head(headers)
            body = await self._read_body(receive)
        except _HeadRejected as error:
            await self._refuse(send, gate, error.status, error.code, error.message, extra=_CLOSE, size=error.size)
            return
        if body is None:
            return
        if not body:
            gate.counts.probes += 1
            await _reply(send, 200, _PROBED[None])
            return
        received_at = time.time_ns() // 1000
        large = len(body) > LARGE_BYTES
        call = await asyncio.to_thread(inbound_call.read, body) if large else inbound_call.read(body)
        if call is not None:
            await self._answer_inbound(gate, scope, body, call, received_at, send)
            return
        try:
            verified = (
                gate.prove(headers, body, received_at)
                if not large
                else await asyncio.to_thread(gate.prove, headers, body, received_at)
            )
        except (SignatureRejected, PayloadMalformed) as error:
            await self._refuse_unproved(send, gate, headers, body, received_at, error)
            return
        await self._accept(gate, headers, body, received_at, verified, send)

    def _check_head(self, headers: Headers) -> None:
        declared = 0
        for name, value in headers:
            if name == b"content-length":
                declared = int(value)
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise _HeadRejected(
                    415, "compressed_body", "The body is compressed; nothing is inflated here. Send it as it is."
                )
        if declared > self._body_max:
            self._refuse_too_large(declared)

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The whole body; None where the sender went away."""
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message["body"]
        if not message["more_body"] and len(body) <= self._body_max:
            return body
        chunks, size = [body], len(body)
        while message["more_body"]:
            if size > self._body_max:
                break
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message["body"])
            size += len(message["body"])
        if size > self._body_max:
            self._refuse_too_large(size)
        return b"".join(chunks)

    def _refuse_too_large(self, size: int) -> NoReturn:
        raise _HeadRejected(
            413,
            "too_large",
            f"The body has {size} bytes or more; {self._body_max} are allowed (setting max_body_mib).",
            size=size,
        )

    async def _accept(
        self, gate: Gate, headers: Headers, body: bytes, received_at: Micros, verified: Verified, send: Send
    ) -> None:
        identity = delivery_id(gate.name, body)
        delivery = new_delivery(gate, headers, body, received_at, verified.trust, identity)
        try:
            outcome = await self._acceptance.accept(delivery)
        except JournalUnavailable as error:
            self._counters.unavailable += 1
            await _reply(send, 503, _error(error.code, error.message), _RETRY)
            return
        counts = gate.counts
        counts.last_received_at = received_at
        if verified.secret_index:
            counts.by_older_secret += 1
        if outcome is Outcome.DURABLE:
            counts.accepted += 1
            counts.bytes += len(body)
        else:
            counts.repeated += 1
            self._tell(gate, Verdict.REPEATED, None, lambda: None, len(body), identity, received_at)
        await send({"type": READY_ANSWER, "head": _RECEIVED_HEAD, "body": _RECEIVED_BODY % identity.encode()})

    async def _answer_inbound(
        self, gate: Gate, scope: Scope, body: bytes, call: InboundCall, received_at: Micros, send: Send
    ) -> None:
        gate.counts.inbound += 1
        gate.counts.last_received_at = received_at
        answer = _SAFE_ANSWER
        if inbound.is_trusted(gate, call, scope["headers"], scope["query_string"], body, received_at):
            answer = await self._answers.answer(gate, call)
        await _reply(send, 200, answer)
        self._tell(gate, Verdict.INBOUND, None, lambda: None, len(body), None, received_at)

    async def _refuse_unproved(
        self,
        send: Send,
        gate: Gate,
        headers: Headers,
        body: bytes,
        received_at: Micros,
        error: SignatureRejected | PayloadMalformed,
    ) -> None:
        identity = delivery_id(gate.name, body)

        def explain() -> str:
            if isinstance(error, SignatureRejected):
                return diagnose(gate, self._gates, headers, body, error)
            return f"{error.message} Without the id that is signed, nothing can be verified."

        detail = error.message
        self._tell_refused(gate, error.code, explain, len(body), identity, received_at)
        held = Held(
            source=gate.name,
            id=identity,
            provider=gate.provider.name,
            reason=error.code,
            detail=detail,
            headers=quarantine.kept(headers),
            body=body,
            received_at=received_at,
        )
        if self._quarantine.offer(held):
            gate.counts.quarantined += 1
        else:
            gate.counts.quarantine_full += 1
        await _reply(send, 401, _error(error.code, error.message))

    async def _refuse(
        self,
        send: Send,
        gate: Gate,
        status: int,
        code: str,
        message: str,
        *,
        extra: list[tuple[bytes, bytes]],
        size: int = 0,
    ) -> None:
        self._tell_refused(gate, code, lambda: message, size, None)
        await _reply(send, status, _error(code, message), extra)

    def _tell_refused(
        self,
        gate: Gate,
        code: str,
        explain: Callable[[], str],
        size: int,
        identity: str | None,
        received_at: Micros | None = None,
    ) -> None:
        gate.counts.refused[code] += 1
        now = received_at if received_at is not None else time.time_ns() // 1000
        self._tell(gate, Verdict.REFUSED, code, explain, size, identity, now)

    def _tell(
        self,
        gate: Gate,
        verdict: Verdict,
        reason: str | None,
        explain: Callable[[], str | None],
        size: int,
        identity: str | None,
        received_at: Micros,
    ) -> None:
        what = Happening(
            source=gate.name,
            provider=gate.provider.name,
            verdict=verdict,
            reason=reason,
            id=identity,
            bytes=size,
            received_at=received_at,
        )
        self._notices.tell(what, explain)

    def _other_routes(self) -> Starlette:
        async def healthz(_: Request) -> Response:
            return JSONResponse({"status": "alive"})

        async def readyz(_: Request) -> Response:
            error = self._unready()
            if error is None:
                return JSONResponse({"status": "ready"})
            return JSONResponse({"error": error.code, "message": error.message}, 503)

        async def metrics(_: Request) -> Response:
            return Response(self._counters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

        async def webhooks(request: Request) -> Response:
            return self._unknown_source(str(request.path_params["source"]))

        async def refused(_: Request, error: Exception) -> Response:
            status = error.status_code if isinstance(error, HTTPException) else 500
            code, message = _OTHER_ERRORS.get(status, ("refused", "This request is not answered here."))
            close = {"Connection": "close"}
            return JSONResponse({"error": code, "message": message}, status, close)

        application = Starlette(
            routes=[
                Route("/healthz", healthz),
                Route("/readyz", readyz),
                Route("/metrics", metrics),
                Route("/webhooks/{source}", webhooks, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
            ],
            exception_handlers={HTTPException: refused},
        )
        application.router.redirect_slashes = False
        return application

    def _unknown_source(self, name: str) -> Response:
        self._counters.refused_head("unknown_source")
        known = ", ".join(self._gates) or "none"
        detail = f"There is no source '{name[:80]}'; configured are: {known}."
        self._notices.tell(_nowhere("unknown_source"), lambda: detail)
        message = "There is no such source. Check the address against `calltally sources list`."
        return JSONResponse({"error": "unknown_source", "message": message}, 404, {"Connection": "close"})


class _HeadRejected(RequestRejected):
    def __init__(self, status: int, code: str, message: str, *, size: int = 0) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.size = size


_JSON = (b"content-type", b"application/json")
_CLOSE = [(b"connection", b"close")]
_ALLOW = [(b"allow", b"GET, POST"), (b"connection", b"close")]
_RETRY = [(b"retry-after", str(RETRY_AFTER_S).encode())]
_SAFE_ANSWER = inbound.safe_answer()
_NOTHING_SENT: dict[str, object] = {
    "received": False,
    "message": "This address takes webhooks by POST. Nothing was sent.",
}
_PROBED = {
    None: json.dumps(_NOTHING_SENT).encode(),
    True: json.dumps({**_NOTHING_SENT, "proved": True}).encode(),
    False: json.dumps({**_NOTHING_SENT, "proved": False}).encode(),
}
"""The answer to a request without a body, by whether it is signed rightly."""
_RECEIVED_BODY = b'{"received":true,"id":"%b"}'
_RECEIVED_HEAD = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(_RECEIVED_BODY % bytes(64))
_OTHER_ERRORS = {
    404: ("not_found", "There is nothing at this address. Webhooks go to /webhooks/{source}."),
    405: ("method_not_allowed", "This method is not answered here."),
}


def _nowhere(code: str) -> Happening:
    return Happening(source="", provider="", verdict=Verdict.REFUSED, reason=code, id=None, bytes=0, received_at=0)


def _error(code: str, message: str) -> bytes:
    return json.dumps({"error": code, "message": message}).encode()


async def _reply(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [_JSON, (b"content-length", str(len(body)).encode()), *(extra or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
