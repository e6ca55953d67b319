"""The answer to a call that waits: complete, at once, and never one that hangs up on the caller.

Synthflow drops the call on an empty object, and asks again or gives up when no answer comes. So the safe answer is
ready before anything is looked up, and what the store knows of the caller is added only if it is there in time.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec
import structlog

from calls.errors import CalltallyError, QueryError, SignatureRejected
from calls.inbound_call import InboundCall
from calls.model import Micros
from calls.settings import Settings
from calls.signing import Headers
from ingest.gate import Gate

if TYPE_CHECKING:
    from analytics.client import Client

LOOK_UP_S = 1.2
"""The platform's own patience is not documented; ours ends well within the two seconds that we promise."""

LOOK_UPS_AT_ONCE = 4

log = structlog.get_logger("ingest")

Known = Mapping[str, str]
LookUp = Callable[[Gate, str], Known]
"""What the store knows of a caller, by phone number, as variables for the agent; blocking; may raise."""


def safe_answer() -> bytes:
    """Carry on with the agent that the call was made for."""
    return _answer({})


def is_trusted(gate: Gate, call: InboundCall, headers: Headers, query: bytes, body: bytes, now: Micros) -> bool:
    """Whether who asks may learn something of a caller: by a signature over the call's id, or by the URL's token."""
    token = gate.source.inbound_token
    if token is not None and hmac.compare_digest(_token(query), token.encode()):
        return True
    if not gate.source.secrets or call.call_id is None:
        return False
    try:
        gate.proves(headers, body, now, call.call_id.encode())
    except SignatureRejected:
        return False
    return True


class InboundAnswers:
    """Answers calls that wait; `look_up` is asked for trusted ones only."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._executor = ThreadPoolExecutor(max_workers=LOOK_UPS_AT_ONCE, thread_name_prefix="inbound")
        self._running = 0

    async def answer(self, gate: Gate, call: InboundCall) -> bytes:
        """The answer for a trusted question; the safe one where the store does not say in time."""
        if call.from_number is None or self._running >= LOOK_UPS_AT_ONCE:
            return safe_answer()
        self._running += 1
        asked = asyncio.get_running_loop().run_in_executor(self._executor, self._look_up, gate, call.from_number)
        # The look-up's place is free again when it ends, not when we stop waiting for it.
        asked.add_done_callback(self._ended)
        try:
            return _answer(await asyncio.wait_for(asyncio.shield(asked), LOOK_UP_S))
        except TimeoutError:
            log.warning("inbound_look_up", source=gate.name, detail=f"The store did not answer within {LOOK_UP_S} s.")
        except CalltallyError as error:
            log.warning("inbound_look_up", source=gate.name, detail=error.message)
        except Exception:
            # Whatever went wrong is ours; a person on the line must not be hung up on for it.
            log.exception("inbound_look_up", source=gate.name, detail="The look-up failed; the safe answer was given.")
        return safe_answer()

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _ended(self, asked: asyncio.Future[Known]) -> None:
        self._running -= 1
        if not asked.cancelled():
            asked.exception()


class StoreLookUp:
    """Asks the worker what it knows of a caller; the connection is made with the first question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def prepare(self) -> None:
        """Load what the first question would have to load while a caller waits."""
        import analytics.client  # noqa: F401

    def __call__(self, gate: Gate, phone: str) -> Known:
        """Raises QueryError."""
        rows = self._connected().query(_KNOWN_CALLER, {"provider": gate.provider.name, "org": gate.org, "phone": phone})
        return _variables(rows.to_pylist()[0])

    def _connected(self) -> Client:
        if self._client is None:
            # Imported with the first question: it brings pandas and pyarrow, which an ingest without one never needs.
            from analytics.client import Client

            self._client = Client(self._settings.sql_url, self._token(), LOOK_UP_S)
        return self._client

    def _token(self) -> str:
        path = self._settings.sql_token_path
        try:
            return self._settings.sql_token or path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise QueryError(f"The worker's token {path} cannot be read ({error}).", code="unreachable") from None


_KNOWN_CALLER = """
SELECT count(*) AS calls, arg_max(caller_name, counted_at) AS name, max(counted_at) AS last_at,
       arg_max(result, counted_at) AS last_result, arg_max(summary, counted_at) AS last_summary
FROM calls
WHERE provider = $provider AND org = $org AND caller_phone = $phone
"""


def _variables(row: Mapping[str, object]) -> Known:
    """What the agent may use: texts only, as Synthflow's `custom_variables` are."""
    if not row["calls"]:
        return {"known_caller": "false"}
    said = {
        "caller_name": row["name"],
        "calls_before": row["calls"],
        "last_call_at": row["last_at"],
        "last_result": row["last_result"],
        "last_summary": row["last_summary"],
    }
    return {
        "known_caller": "true",
        **{
            name: f"{value.isoformat()}Z" if isinstance(value, datetime) else str(value)
            for name, value in said.items()
            if value is not None
        },
    }


def _answer(known: Known) -> bytes:
    answer: dict[str, object] = {"override_model_id": ""}
    if known:
        answer["custom_variables"] = known
    return msgspec.json.encode({"call_inbound": answer})


def _token(query: bytes) -> bytes:
    given = parse_qs(query.decode("latin-1"), encoding="utf-8").get("token", [""])
    return given[0].encode()
