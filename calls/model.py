"""The words of Calltally as types: deliveries, notices, events, calls.

Records are immutable. Times are `Micros`: integer microseconds since 1970 in UTC, so that they compare, travel and
become Arrow timestamps without conversion. What a provider did not send is absent (a missing key or None), never 0.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, TypeAlias, TypedDict

import msgspec

from calls.payload import Payload, parse

Micros: TypeAlias = int
JsonText: TypeAlias = str
"""A JSON value as text."""


class Trust(StrEnum):
    """How well a delivery is proved; later letters are weaker, so the weakest of several is their `max`."""

    A = "A"
    """Body and timestamp signed."""
    B = "B"
    """Body signed."""
    C = "C"
    """Only an id signed (Synthflow)."""
    D = "D"
    """Unsigned, allowed by configuration."""


class Verdict(StrEnum):
    """What the door made of a request."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    REFUSED = "refused"
    INBOUND = "inbound"


class Connection(StrEnum):
    """Whom or what a call reached; comparable across providers."""

    PERSON = "person"
    MACHINE = "machine"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    CANCELED = "canceled"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    UNKNOWN = "unknown"


class EndedBy(StrEnum):
    """Who or what ended a call; `caller` is the person on the line, whoever dialled."""

    CALLER = "caller"
    AGENT = "agent"
    TRANSFER = "transfer"
    LIMIT = "limit"
    SYSTEM = "system"
    UNKNOWN = "unknown"


class Result(StrEnum):
    """Whether a call reached its aim."""

    MET = "met"
    PARTLY = "partly"
    NOT_MET = "not_met"
    NOT_APPLICABLE = "not_applicable"
    UNKNOWN = "unknown"


class Excluded(StrEnum):
    """Why a call is counted apart and left out of rates."""

    SPAM = "spam"
    TEST = "test"


class Stage(StrEnum):
    """What an event says about the life of its call."""

    FINISHED = "finished"
    PROGRESS = "progress"
    OTHER = "other"


class Delivery(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One verified webhook exactly as it arrived."""

    source: str
    provider: str
    org: str
    """The source's configured org; empty where it has none."""
    body: bytes
    headers: dict[str, str]
    """The request headers that are kept: lower-case names, no signature, no token."""
    received_at: Micros
    trust: Trust
    journal_id: str
    position: int

    @cached_property
    def id(self) -> str:
        return delivery_id(self.source, self.body)

    @cached_property
    def payload(self) -> Payload:
        """The body as JSON. Raises PayloadMalformed."""
        return parse(self.body)


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What happened at the door without becoming a delivery: a refusal, a repeat, an answered `call_inbound`."""

    source: str
    provider: str
    verdict: Verdict
    reason: str | None
    """The refusal's code; None for repeats and inbound answers."""
    detail: str | None
    """One sentence of diagnosis, without secrets."""
    id: str | None
    """The delivery's id; None where several requests were merged or nothing was read."""
    bytes: int
    count: int
    """How many requests this notice stands for."""
    received_at: Micros
    journal_id: str
    position: int


class Analysis(TypedDict):
    """One judged criterion; `result` is verbatim where it is none of true, false, partial, not_applicable."""

    criterion: str
    result: str
    feedback: str | None


class Variable(TypedDict):
    """One variable that the agent was to collect."""

    agent_id: str | None
    name: str
    value: JsonText | None
    """None where nothing was sent."""
    value_text: str | None
    """The value as plain text: strings without quotes, true/false, numbers as sent; JSON for lists and objects."""
    value_number: float | None
    """The value where it is a JSON number."""
    collected: bool


class Action(TypedDict):
    """Something the agent did during the call."""

    name: str
    action_type: str | None
    return_value: JsonText | None
    error_message: str | None
    happened_at: Micros | None


class Appointment(TypedDict):
    """A booking made in a call."""

    starts_at: Micros | None
    ends_at: Micros | None
    service: str | None
    caller_name: str | None
    caller_phone: str | None
    calendar_event_id: str | None
    link: str | None


class Lead(TypedDict):
    """A contact who showed interest."""

    name: str | None
    phone: str | None
    email: str | None
    intent: str | None
    urgency: str | None
    interest: str | None
    summary: str | None


class Facts(TypedDict, total=False):
    """What one event says about its call: only what was sent, never None."""

    agent_id: str
    agent_name: str
    campaign: str
    direction: str
    status: str
    end_call_reason: str
    custom_end_call_reason: str
    connection: Connection
    ended_by: EndedBy
    excluded: Excluded
    transferred: bool
    transferred_to: str
    transfer_reason: str
    started_at: Micros
    ended_at: Micros
    duration_s: float
    caller_phone: str
    callee_phone: str
    caller_name: str
    caller_email: str
    summary: str
    transcript: str
    recording_url: str
    sentiment: str
    disposition: str
    intent: str
    urgency: str
    tags: list[str]
    cost_usd: float


class CallEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery means, as a provider's `normalise` says it."""

    event: str
    """The provider's own word for it."""
    call_id: str | None
    """None for agent, campaign and SMS events."""
    org: str
    happened_at: Micros
    delivery_id: str | None = None
    """The provider's own id of the delivery."""
    stage: Stage = Stage.OTHER
    facts: Facts = {}
    analysis: list[Analysis] = []
    variables: list[Variable] = []
    actions: list[Action] = []
    appointments: list[Appointment] = []
    leads: list[Lead] = []


class StreamPoint(NamedTuple):
    """Where a delivery stands among those of all journals; the lower one counts where two are equal."""

    received_at: Micros
    journal_id: str
    position: int


class TimelineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A call event together with the delivery that carried it: what the fold reads and the store keeps."""

    event_id: str
    provider: str
    source: str
    trust: Trust
    received_at: Micros
    journal_id: str
    position: int
    event: CallEvent
    data: str
    """The whole body as valid JSON text."""
    raw: bytes | None
    """The body's bytes where `data` is not exactly them."""
    source_org: str
    """The source's configured org."""
    headers: dict[str, str]

    @property
    def point(self) -> StreamPoint:
        return StreamPoint(self.received_at, self.journal_id, self.position)


class CallKey(NamedTuple):
    """What makes a call one call."""

    provider: str
    org: str
    call_id: str


class Call(TypedDict):
    """What all events of one call add up to: one row of the store, its lists nested."""

    provider: str
    org: str
    call_id: str
    counted_at: Micros
    agent_id: str | None
    agent_name: str | None
    campaign: str | None
    direction: str | None
    status: str | None
    end_call_reason: str | None
    custom_end_call_reason: str | None
    connection: str
    ended_by: str
    result: str
    excluded: str | None
    transferred: bool
    transferred_to: str | None
    transfer_reason: str | None
    started_at: Micros | None
    ended_at: Micros | None
    duration_s: float | None
    caller_phone: str | None
    callee_phone: str | None
    caller_name: str | None
    caller_email: str | None
    summary: str | None
    transcript: str | None
    recording_url: str | None
    sentiment: str | None
    disposition: str | None
    intent: str | None
    urgency: str | None
    tags: list[str] | None
    cost_usd: float | None
    trust: str
    conflict: bool
    first_received_at: Micros
    last_received_at: Micros
    event_count: int
    analysis: list[Analysis]
    variables: list[Variable]
    actions: list[Action]
    appointments: list[Appointment]
    leads: list[Lead]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A verified delivery that could not be understood."""

    reason: str
    """A code: not_json, not_utf8, not_an_object, too_deep, number_out_of_range, no_call_id, normaliser_failed, ..."""
    detail: str
    """What exactly, in one sentence."""
    delivery: Delivery


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decide what a call counts as; a change of them means a rebuild."""

    success_criterion: str = "goal"
    success: dict[str, str] = {}
    """AI Sync's and others' disposition -> result."""
    test_numbers: tuple[str, ...] = ()
    """Numbers, as digits with a leading +, whose calls are excluded as `test`."""


def delivery_id(source: str, body: bytes) -> str:
    """The hex SHA-256 of source name, NUL and body: equal for a repeated delivery."""
    digest = hashlib.sha256(source.encode())
    digest.update(b"\0")
    digest.update(body)
    return digest.hexdigest()
