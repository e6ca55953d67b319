"""The door: every request to `/webhooks/{source}` checked in one fixed order, answered only when it is durable.

Syntax and size of the head (`ingest/protocol.py`), 404, 405, 415, 413, empty body, `call_inbound`, signature. The way
of a webhook is a plain ASGI callable with answers that are ready beforehand; the rest is Starlette.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn, TypeAlias

from starlette.types import Receive, Scope, Send

from calls import inbound_call
from calls.errors import CalltallyError, JournalUnavailable, PayloadMalformed, RequestRejected, SignatureRejected
from calls.inbound_call import InboundCall
from calls.model import Micros, Verdict, delivery_id
from calls.settings import Settings, Source
from calls.signing import Headers, Verified
from ingest import health, inbound, quarantine
from ingest.acceptance import Acceptance, Outcome
from ingest.counters import Counters
from ingest.diagnosis import diagnose
from ingest.gate import Gate, new_delivery
from ingest.inbound import InboundAnswers
from ingest.notices import Happening, Notices
from ingest.protocol import MIB, READY_ANSWER, Limits
from ingest.quarantine import Held, Quarantine
from ingest.room import Room

PATH = health.WEBHOOKS.encode()
LARGE_BYTES = 256 * 1024
"""Longer bodies are hashed and parsed in a thread, one at a time, so that nobody waits behind them."""
ROOM_BYTES = 256 * MIB
"""What bodies longer than that may take in memory, all together, while they arrive."""
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
        self._judging = asyncio.Lock()
        self._room = Room(max(ROOM_BYTES, self._body_max))
        self._acceptance = acceptance
        self._notices = notices
        self._quarantine = held
        self._answers = answers
        self._counters = counters
        self._gates: dict[str, Gate] = {}
        self._by_path: dict[bytes, Gate] = {}
        self._others = health.create_app(counters, unready, self._tell_unknown_source)
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
            await _reply(send, 200, _PROBED[gate.probed(scope["headers"], _now())])
        else:
            message = f"{scope['method']} is not answered here. Webhooks come by POST."
            await self._refuse(send, gate, _HeadRejected(405, "method_not_allowed", message), _ALLOW)

    def refused_head(self, target: bytes, code: str, message: str) -> None:
        """Take note of a request that the protocol refused."""
        gate = self._by_path.get(target.split(b"?", 1)[0])
        if gate is None:
            self._counters.refused_head(code)
            self._notices.tell(_nowhere(code), lambda: message)
        else:
            self._tell_refused(gate, code, 0, lambda: message)

    async def _post(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = scope["headers"]
        try:
            body = await self._read_body(receive, self._declared_size(headers))
        except _HeadRejected as error:
            await self._refuse(send, gate, error, _CLOSE)
            return
        if body is None:
            return
        if not body:
            gate.counts.probes += 1
            await _reply(send, 200, _PROBED[None])
            return
        arrived = _Arrived(gate, headers, scope["query_string"], body, _now())
        judged = _judge(arrived) if len(body) <= LARGE_BYTES else await self._judge_in_turn(arrived)
        if type(judged) is _Proved:
            await self._accept(arrived, judged, send)
        elif type(judged) is _Asked:
            await self._answer_inbound(arrived, judged, send)
        elif type(judged) is _Unproved:
            await self._refuse_unproved(arrived, judged, send)

    async def _judge_in_turn(self, arrived: _Arrived) -> _Proved | _Asked | _Unproved:
        # A parser keeps the interpreter's lock until it is done. With several at once everybody else, a live call too,
        # waits for all of them each time that it gets to run; and together they are no faster than in turn.
        async with self._judging:
            return await asyncio.to_thread(_judge, arrived)

    def _declared_size(self, headers: Headers) -> int:
        """The body's length where it is declared, else 0. Raises _HeadRejected."""
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
        return declared

    async def _read_body(self, receive: Receive, declared: int) -> bytes | None:
        """The whole body; None where the sender went away. Raises _HeadRejected."""
        body = bytearray()
        more = True
        while more and len(body) <= LARGE_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            more = message["more_body"]
            if not more and not body:
                return self._within_limit(message["body"])
            body += message["body"]
        if more:
            async with self._room.for_bytes(declared or self._body_max):
                while more and len(body) <= self._body_max:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    more = message["more_body"]
                    body += message["body"]
        return self._within_limit(bytes(body))

    def _within_limit(self, body: bytes) -> bytes:
        if len(body) > self._body_max:
            self._refuse_too_large(len(body))
        return body

    def _refuse_too_large(self, size: int) -> NoReturn:
        raise _HeadRejected(
            413,
            "too_large",
            f"The body has {size} bytes or more; {self._body_max} are allowed (setting max_body_mib).",
            size=size,
        )

    async def _accept(self, arrived: _Arrived, proved: _Proved, send: Send) -> None:
        gate, headers, _, body, at = arrived
        counts = gate.counts
        try:
            outcome = await self._acceptance.accept(
                new_delivery(gate, headers, body, at, proved.verified.trust, proved.id)
            )
        except JournalUnavailable as error:
            self._counters.unavailable += 1
            await _reply(send, 503, _error(error.code, error.message), _RETRY)
            return
        counts.last_received_at = at
        if proved.verified.secret_index:
            counts.by_older_secret += 1
        if outcome is Outcome.DURABLE:
            counts.accepted += 1
            counts.bytes += len(body)
        else:
            counts.repeated += 1
            self._notices.tell(_happening(gate, Verdict.REPEATED, len(body), at, proved.id), _unexplained)
        await send({"type": READY_ANSWER, "head": _RECEIVED_HEAD, "body": _RECEIVED_BODY % proved.id.encode()})

    async def _answer_inbound(self, arrived: _Arrived, asked: _Asked, send: Send) -> None:
        gate = arrived.gate
        gate.counts.inbound += 1
        answer = _SAFE_ANSWER
        if asked.trusted:
            gate.counts.last_received_at = arrived.at
            answer = await self._answers.answer(gate, asked.call)
        await _reply(send, 200, answer)
        self._notices.tell(_happening(gate, Verdict.INBOUND, len(arrived.body), arrived.at), _unexplained)

    async def _refuse_unproved(self, arrived: _Arrived, unproved: _Unproved, send: Send) -> None:
        gate, headers, _, body, at = arrived
        error = unproved.error

        def explain() -> str:
            if isinstance(error, SignatureRejected):
                return diagnose(gate, self._gates, headers, body, error)
            return f"{error.message} Without the id that is signed, nothing can be verified."

        self._tell_refused(gate, error.code, len(body), explain, at, unproved.id)
        held = Held(
            source=gate.name,
            id=unproved.id,
            provider=gate.provider.name,
            reason=error.code,
            detail=error.message,
            headers=quarantine.kept(headers),
            body=body,
            received_at=at,
        )
        if self._quarantine.offer(held):
            gate.counts.quarantined += 1
        else:
            gate.counts.quarantine_full += 1
        await _reply(send, 401, _error(error.code, error.message))

    async def _refuse(self, send: Send, gate: Gate, error: _HeadRejected, extra: list[tuple[bytes, bytes]]) -> None:
        self._tell_refused(gate, error.code, error.size, lambda: error.message)
        await _reply(send, error.status, _error(error.code, error.message), extra)

    def _tell_refused(
        self,
        gate: Gate,
        code: str,
        size: int,
        explain: Callable[[], str],
        at: Micros | None = None,
        identity: str | None = None,
    ) -> None:
        gate.counts.refused[code] += 1
        what = _happening(gate, Verdict.REFUSED, size, _now() if at is None else at, identity, reason=code)
        self._notices.tell(what, explain)

    def _tell_unknown_source(self, name: str) -> None:
        self._counters.refused_head("unknown_source")
        known = ", ".join(self._gates) or "none"
        detail = f"There is no source '{name[:80]}'; configured are: {known}."
        self._notices.tell(_nowhere("unknown_source"), lambda: detail)


class _Arrived(NamedTuple):
    gate: Gate
    headers: Headers
    query: bytes
    body: bytes
    at: Micros


class _Asked(NamedTuple):
    call: InboundCall
    trusted: bool


class _Proved(NamedTuple):
    id: str
    verified: Verified


class _Unproved(NamedTuple):
    id: str
    error: SignatureRejected | PayloadMalformed


class _HeadRejected(RequestRejected):
    def __init__(self, status: int, code: str, message: str, *, size: int = 0) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.size = size


def _judge(arrived: _Arrived) -> _Proved | _Asked | _Unproved:
    """What a whole request is: all that takes time in proportion to its body."""
    gate, headers, query, body, at = arrived
    call = inbound_call.read(body)
    if call is not None:
        return _Asked(call, inbound.is_trusted(gate, call, headers, query, body, at))
    identity = delivery_id(gate.name, body)
    try:
        return _Proved(identity, gate.prove(headers, body, at))
    except (SignatureRejected, PayloadMalformed) as error:
        return _Unproved(identity, error)


def _happening(
    gate: Gate, verdict: Verdict, size: int, at: Micros, identity: str | None = None, *, reason: str | None = None
) -> Happening:
    return Happening(
        source=gate.name,
        provider=gate.provider.name,
        verdict=verdict,
        reason=reason,
        id=identity,
        bytes=size,
        received_at=at,
    )


def _nowhere(code: str) -> Happening:
    return Happening(source="", provider="", verdict=Verdict.REFUSED, reason=code, id=None, bytes=0, received_at=0)


def _unexplained() -> None:
    return None


def _now() -> Micros:
    return time.time_ns() // 1000


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


def _error(code: str, message: str) -> bytes:
    return json.dumps({"error": code, "message": message}).encode()


async def _reply(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [_JSON, (b"content-length", str(len(body)).encode()), *(extra or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
