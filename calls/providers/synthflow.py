"""Synthflow: the post-call webhook, in its native shape and flattened by custom actions and automations.

The vendor publishes no schema, and its pages disagree with each other and with the wire, so every field is read where
any of them puts it: in `call`, else at the top. Facts and sources: https://docs.synthflow.ai/webhooks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import tzinfo
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import msgspec

from calls import call_id, inbound_call, reading
from calls.errors import PayloadMalformed
from calls.model import (
    Action,
    Analysis,
    CallEvent,
    Connection,
    Delivery,
    EndedBy,
    Excluded,
    Facts,
    Stage,
    Trust,
    Variable,
)
from calls.payload import DEPTH_MAX, JsonObject, JsonValue, encode, parse
from calls.provider import Naming, Provider
from calls.signing import Encoding, Part, Scheme

EVENT = "post_call"
"""Our word: the platform gives the post-call webhook no name of its own."""

WORD_LENGTH_MAX = 100
"""Only so much of a status or reason is looked at: both may be free text, and what is looked at is remembered."""

_decode = msgspec.json.Decoder().decode


class _Outcome(NamedTuple):
    """What status and reason together say of a call."""

    stage: Stage
    connection: Connection | None = None
    ended_by: EndedBy | None = None
    excluded: Excluded | None = None
    transferred: bool = False


def signed_id(body: bytes) -> bytes:
    """The call id, which is all that Synthflow signs.

    Raises PayloadMalformed: call_id_missing, call_id_ambiguous, and the codes of `payload.parse`.
    """
    return call_id.read(body).encode()


def naming(delivery: Delivery) -> Naming:
    """What the event is called and of which call it is. Raises PayloadMalformed: no_call_id, call_id_ambiguous, and
    the codes of `payload.parse`."""
    body = delivery.payload.value
    return Naming(
        reading.text(body, "event") or EVENT,
        delivery.org or reading.identifier(body, "organization_id") or reading.identifier(body, "org_id") or "",
        _call_id(delivery.body, body),
    )


def normalise(delivery: Delivery) -> list[CallEvent]:
    """The call's one event.

    Raises PayloadMalformed: no_call_id, call_id_ambiguous, call_inbound, and the codes of `payload.parse`.
    """
    body = delivery.payload.value
    if inbound_call.asks(body):
        raise PayloadMalformed("The body asks about a waiting call; it reports none.", code="call_inbound")
    event, org, the_id = naming(delivery)
    call = reading.section(body, "call")
    entries = list(_entries(call, body))
    stage, facts = _facts(call, body, entries)
    return [
        CallEvent(
            event=event,
            call_id=the_id,
            org=org,
            # The event is the end of the call; a start alone still orders two versions of one call, and the time of
            # arrival is all that is left where the platform sends neither.
            happened_at=facts.get("ended_at") or facts.get("started_at") or delivery.received_at,
            stage=stage,
            facts=facts,
            analysis=_analysis(call, body),
            variables=_variables(call, body, facts.get("agent_id")),
            actions=[_action(name, entry, call, body) for name, entry in entries],
        )
    ]


def _call_id(raw: bytes, body: JsonObject) -> str:
    try:
        return call_id.only(raw, body)
    except PayloadMalformed as error:
        code = "no_call_id" if error.code == "call_id_missing" else error.code
        raise PayloadMalformed(error.message, code=code) from None


def _text(call: JsonObject, body: JsonObject, key: str) -> str | None:
    value = call.get(key)
    if type(value) is str and value and not value.isspace():
        return value
    return reading.text(body, key) if key in body else None


def _facts(call: JsonObject, body: JsonObject, entries: list[tuple[str, JsonValue]]) -> tuple[Stage, Facts]:
    status = _text(call, body, "status") or _text(call, body, "call_status")
    reason = _text(call, body, "end_call_reason")
    outcome = _outcome((status or "")[:WORD_LENGTH_MAX], (reason or "")[:WORD_LENGTH_MAX])
    transferred, transferred_to = _transfer(entries) if entries else (False, None)
    transferred = transferred or outcome.transferred
    started_at, ended_at, duration = _times(call, body)
    direction = _direction(call, body)
    lead = reading.section(body, "lead")
    facts = reading.known(
        agent_id=reading.identifier(call, "model_id") or reading.identifier(body, "model_id"),
        direction=direction,
        status=status,
        end_call_reason=reason,
        connection=outcome.connection,
        ended_by=EndedBy.TRANSFER if transferred else outcome.ended_by,
        excluded=outcome.excluded,
        transferred=transferred or None,
        transferred_to=transferred_to,
        started_at=started_at,
        ended_at=ended_at,
        duration_s=duration,
        caller_phone=_caller_phone(lead, body, direction),
        caller_name=reading.text(lead, "name") or reading.text(body, "lead_name") or reading.text(body, "name"),
        caller_email=reading.text(lead, "email") or reading.text(body, "lead_email") or reading.text(body, "email"),
    )
    for name in _TEXTS:
        found = _text(call, body, name)
        if found is not None:
            facts[name] = found
    return outcome.stage, facts


# The scores `call_summary` and `user_sentiment` of the analysis are criteria; these are texts, where sent.
_TEXTS: tuple[Literal["custom_end_call_reason", "summary", "transcript", "recording_url", "sentiment"], ...] = (
    "custom_end_call_reason",
    "summary",
    "transcript",
    "recording_url",
    "sentiment",
)

_TRANSIENT = frozenset({"pending", "ringing", "in_progress", "paused", "registered", "queue", "queued", "initiated"})
_CONNECTIONS = {
    "completed": Connection.PERSON,
    "no_answer": Connection.NO_ANSWER,
    "busy": Connection.BUSY,
    "canceled": Connection.CANCELED,
    "cancelled": Connection.CANCELED,
    "user_canceled": Connection.CANCELED,
    "failed": Connection.FAILED,
    "spam": Connection.UNKNOWN,
}
_ENDED_BY = {
    "human_goodbye": EndedBy.CALLER,
    "human_ended_call": EndedBy.CALLER,
    "user_canceled": EndedBy.CALLER,
    "custom_end_call": EndedBy.AGENT,
    "timeout": EndedBy.LIMIT,
    "max_duration": EndedBy.LIMIT,
    "error": EndedBy.SYSTEM,
}
_SPOKEN = re.compile(r"(?:human|agent)_\w+|max_duration|timeout|custom_end_call|completed", re.ASCII)
"""Reasons that a call can only end for once somebody is on the line; they decide where no known status does."""
_TRANSFERRED = re.compile(r"(?!.*(?:fail|error|cancel|not_)).*transfer", re.DOTALL)


@lru_cache(maxsize=256)
def _outcome(status: str, reason: str) -> _Outcome:
    status, reason = _word(status), _word(reason)
    excluded = Excluded.SPAM if "spam" in (status, reason) else None
    if status in _TRANSIENT:
        connection = Connection.MACHINE if "voicemail" in reason else Connection.IN_PROGRESS
        return _Outcome(Stage.PROGRESS, connection, excluded=excluded)
    if not status and not reason:
        return _Outcome(Stage.OTHER)
    # The webhook is sent after a call: a status or reason the platform added since this was written is an end, too.
    transferred = _TRANSFERRED.match(status) is not None or _TRANSFERRED.match(reason) is not None
    connection = _connection(status, reason, transferred)
    return _Outcome(Stage.FINISHED, connection, _ended_by(status, reason), excluded, transferred)


def _word(value: str) -> str:
    # The platform itself mixes `no-answer` and `hangup_on_voicemail`.
    return value.strip().lower().replace("-", "_").replace(" ", "_")


def _connection(status: str, reason: str, transferred: bool) -> Connection:
    if "voicemail" in status or "voicemail" in reason:
        return Connection.MACHINE
    if reason == "spam":
        return Connection.UNKNOWN
    if reason == "user_canceled":
        return Connection.CANCELED
    known = _CONNECTIONS.get(status)
    if known is None and (transferred or _SPOKEN.fullmatch(reason)):
        return Connection.PERSON
    return known or Connection.UNKNOWN


def _ended_by(status: str, reason: str) -> EndedBy:
    # A voicemail status tells who hung up where the reason is left out.
    said = status if reason in ("", "undefined") else reason
    if said.endswith("cut_off"):
        return EndedBy.UNKNOWN
    if said.startswith("agent_") or "voicemail" in said:
        return EndedBy.AGENT
    return _ENDED_BY.get(said, EndedBy.UNKNOWN)


_TRANSFER_TARGETS = ("phone_number", "transfer_to", "to_number", "to", "number", "destination")
_TRANSFER_DETAILS = ("return_value", "parameters_from_llm", "parameters_hard_coded")


def _transfer(entries: list[tuple[str, JsonValue]]) -> tuple[bool, str | None]:
    """Whether an action handed the call over, and to which number.

    The documents know no status or reason of a transfer, but the platform reports the action that makes it; one with
    an error made none. What it returns is undocumented, so the number is taken from wherever the result, the model's
    arguments or the action's configuration name one.
    """
    transferred = False
    for _, entry in entries:
        if type(entry) is not dict or "transfer" not in (reading.text(entry, "action_type") or "").lower():
            continue
        if reading.text(entry, "error_message") is not None:
            continue
        transferred = True
        for detail in _TRANSFER_DETAILS:
            described = _object(entry, detail)
            for key in _TRANSFER_TARGETS:
                if target := reading.phone(described, key):
                    return True, target
    return transferred, None


def _times(call: JsonObject, body: JsonObject) -> tuple[int | None, int | None, float | None]:
    holder = call if call.get("start_time") is not None else body
    started_at = reading.instant(holder, "start_time", _zone(call, body))
    duration = reading.duration_s(call, "duration")
    if duration is None:
        duration = reading.duration_s(body, "duration")
    return reading.call_times(started_at, None, duration)


def _zone(call: JsonObject, body: JsonObject) -> tzinfo:
    return reading.zone(call if "timezone" in call else body, "timezone")


def _direction(call: JsonObject, body: JsonObject) -> str | None:
    said = _text(call, body, "type_of_call") or _text(call, body, "direction")
    return None if said is None else _DIRECTIONS.get(said.strip().lower())


_DIRECTIONS = {"inbound": "inbound", "incoming": "inbound", "outbound": "outbound", "outgoing": "outbound"}


def _caller_phone(lead: JsonObject, body: JsonObject, direction: str | None) -> str | None:
    found = reading.phone(lead, "phone_number") or reading.phone(body, "lead_phone_number")
    if found is None and direction is not None:
        found = reading.phone(body, "phone_number_from" if direction == "inbound" else "phone_number_to")
    return found or reading.phone(body, "phone_number") or reading.phone(body, "phone")


_RESULTS: Final = {word: word for word in ("true", "false", "partial", "not_applicable")}
_FEEDBACK = "_feedback"
_SUMMARIES = frozenset({"judge_found_partial_or_error", "judge_found_full_error", "all_feedback"})
"""Aggregates over the scores; the first two are bad when true."""


def _analysis(call: JsonObject, body: JsonObject) -> list[Analysis]:
    found: dict[str, Analysis] = {}
    for parent in (body, call):
        for key in ("analysis", "judge_results"):
            if key in parent:
                for row in _criteria(_object(parent, key)):
                    found.setdefault(row["criterion"], row)
    return list(found.values())


def _criteria(section: JsonObject) -> Iterator[Analysis]:
    for name, value in section.items():
        if value is None or name in _SUMMARIES or (name.endswith(_FEEDBACK) and _is_feedback(section, name, value)):
            continue
        result = (_RESULTS.get(value) if type(value) is str else None) or _result(value)
        if result is not None:
            yield {"criterion": name, "result": result, "feedback": reading.text(section, name + _FEEDBACK)}


def _is_feedback(section: JsonObject, name: str, value: JsonValue) -> bool:
    """Whether a field is the twin of a score; a criterion's own name may end like one (`customer_feedback`)."""
    if name.removesuffix(_FEEDBACK) in section:
        return True
    return name + _FEEDBACK not in section and _result(value) not in _RESULTS


def _result(value: JsonValue) -> str | None:
    """A result as we write it; a text or number that is none of the four is kept as it is."""
    if type(value) is str:
        word = value.strip().lower()
        return _RESULTS.get(word, value) if word else None
    if type(value) is bool or type(value) is int or (type(value) is float and math.isfinite(value)):
        return encode(value)
    return None


def _variables(call: JsonObject, body: JsonObject, agent_id: str | None) -> list[Variable]:
    found: dict[tuple[str | None, str], Variable] = {}
    for parent in (body, call):
        for name, entry in _object(parent, "collected_variables").items():
            if type(entry) is dict and type(entry.get("collected")) is bool:
                # What the platform sends in its ordinary shape, at half the price of the closer looks below.
                value, collected = entry.get("value"), entry["collected"]
                if type(value) is str or value is None:
                    row = reading.variable(name, value, collected=collected is True, agent_id=agent_id)
                    found.setdefault((agent_id, name), row)
                    continue
            if type(entry) is dict and not _is_leaf(entry):
                for inner, leaf in entry.items():
                    found.setdefault((name, inner), _variable(inner, leaf, name))
            else:
                found.setdefault((agent_id, name), _variable(name, entry, agent_id))
    return list(found.values())


def _is_leaf(entry: JsonObject) -> bool:
    """Whether an entry is a variable, not an agent's group of them (which may name one `value` or `collected`)."""
    if "collected" in entry:
        return type(entry["collected"]) is not dict
    if "value" not in entry:
        return False
    value = entry["value"]
    return type(value) is not dict or not ("value" in value or "collected" in value)


def _variable(name: str, leaf: JsonValue, agent_id: str | None) -> Variable:
    value, collected = leaf, None
    if type(leaf) is dict and _is_leaf(leaf):
        value, collected = leaf.get("value"), reading.flag(leaf, "collected")
    if type(value) is float and not math.isfinite(value):
        value = None
    if collected is None:
        collected = value is not None
    return reading.variable(name, value, collected=collected, agent_id=agent_id)


def _object(parent: JsonObject, key: str) -> JsonObject:
    """The object at `key`, also where it was sent as a string that holds one."""
    value = parent.get(key)
    if type(value) is dict:
        return value
    if type(value) is str and value.lstrip()[:1] == "{":
        try:
            return parse(value.encode()).value
        except PayloadMalformed:
            return {}
    return {}


def _entries(call: JsonObject, body: JsonObject) -> Iterator[tuple[str, JsonValue]]:
    for parent in (body, call):
        section = parent.get("executed_actions")
        if type(section) is list:
            for number, entry in enumerate(section, start=1):
                yield f"action_{number}", entry
        else:
            yield from _object(parent, "executed_actions").items()


def _action(name: str, entry: JsonValue, call: JsonObject, body: JsonObject) -> Action:
    if type(entry) is not dict:
        return {
            "name": name,
            "action_type": None,
            "return_value": _json_of(entry),
            "error_message": None,
            "happened_at": None,
        }
    # The epoch is read first: the other one names no zone.
    happened_at = reading.instant(entry, "timestamp")
    if happened_at is None:
        happened_at = reading.instant(entry, "timestamp_datetime", _zone(call, body))
    return {
        "name": reading.text(entry, "name") or name,
        "action_type": reading.text(entry, "action_type"),
        "return_value": _json_of(entry.get("return_value")),
        "error_message": reading.text(entry, "error_message"),
        "happened_at": happened_at,
    }


def _json_of(value: JsonValue) -> str | None:
    """A value as JSON text: documented as an object, on real accounts a string that holds JSON of any kind."""
    if value is None:
        return None
    if type(value) is not str:
        return encode(value)
    text = value.strip()
    if not text or text == "null":
        return None
    return _json_inside(text) or encode(value)


def _json_inside(text: str) -> str | None:
    try:
        if text[0] == "{":
            return parse(text.encode()).text
        # Only `parse` bounds the depth, and it reads objects: a list that might nest deeper stays the string it is.
        if text.count("[") + text.count("{") <= DEPTH_MAX:
            _decode(text)
            return text
    except (PayloadMalformed, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return None


_CONNECT = """\
1. **Secret.** In Synthflow open *Admin > Workspace Settings > Security > Webhooks* (older workspaces: *Settings > \
Security > Webhooks*), generate a secret key and paste it as this source's secret, exactly as it is shown. A secret \
belongs to one workspace; a subaccount has its own.
2. **Post-call webhook.** Set the agent's `external_webhook_url` to `{url}`: in the agent's webhook settings, or by \
the API for one agent (*Update assistant*) or one call.
3. **Inbound webhook (optional).** The same address may be an agent's `inbound_call_webhook_url`: Calltally always \
answers, and by default lets the call go on with the agent that got it.
4. Make a test call, then look at *Webhook logs* in Synthflow: the delivery must show the response 200.

**Signature missing?** The documents write the header `HTTP_SYNTHFLOW_SIGNATURE`. nginx drops names with underscores \
unless `underscores_in_headers on;` stands in its `server` block; with other proxies check the same. In *Webhook logs* \
the `request_headers` of a delivery show what was really sent.

**What is proved.** Synthflow signs the call id only, not the rest of the body: its calls carry trust `C`.
"""

provider = Provider(
    name="synthflow",
    title="Synthflow",
    docs_url="https://docs.synthflow.ai/webhooks",
    scheme=Scheme(
        # The first signs: HTTP_SYNTHFLOW_SIGNATURE is how WSGI names a header that arrived as Synthflow-Signature,
        # and a name without underscores passes every proxy. The others were seen or are accepted by consumers.
        headers=(
            "synthflow-signature",
            "x-synthflow-signature",
            "http-synthflow-signature",
            "http_synthflow_signature",
            "synthflow_signature",
            "x_synthflow_signature",
        ),
        signed=(Part.ID,),
        encoding=Encoding.BASE64,
        trust=Trust.C,
    ),
    normalise=normalise,
    naming=naming,
    signed_id=signed_id,
    events=frozenset({EVENT}),
    answers_inbound=True,
    # The texts that automations may add (direction, summary, sentiment, mail address) are read, but are not its own.
    sends=frozenset(
        "agent_id status end_call_reason custom_end_call_reason connection ended_by excluded transferred "
        "transferred_to started_at ended_at duration_s caller_phone caller_name transcript recording_url "
        "call_analysis call_variables call_actions".split()
    ),
    judges=True,
    connect=_CONNECT,
)
