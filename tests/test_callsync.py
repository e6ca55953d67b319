"""What CallSync's deliveries mean, beyond what its samples show."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from calls.errors import PayloadMalformed, SignatureRejected
from calls.model import CallEvent, Connection, DeadLetter, Delivery, Rules, Stage, TimelineEvent, Trust
from calls.payload import JsonObject, JsonValue
from calls.providers.callsync import provider
from calls.signing import sign, verify
from streams.fold import fold
from streams.steps import interpret

SENT_AT = "2026-05-12T12:00:00.000Z"
SENT = 1_778_587_200_000_000


def delivered(body: JsonObject) -> Delivery:
    return Delivery(
        source="callsync", provider="callsync", org="", headers={}, trust=Trust.B, journal_id="j", position=1,
        body=json.dumps(body).encode(), received_at=SENT + 1_000_000,
    )  # fmt: skip


def said(event: str, data: JsonObject, **envelope: JsonValue) -> CallEvent:
    (found,) = provider.normalise(delivered({"event": event, "timestamp": SENT_AT, "data": data, **envelope}))
    return found


def logged(**details: JsonValue) -> CallEvent:
    return said("call_logged", {"call_details": {"call_id": 431001, **details}})


def judged(**analysis: JsonValue) -> CallEvent:
    return said("ai_analysis", {"call_details": {"call_id": 431001}, "ai_analysis": analysis})


def results(event: CallEvent) -> dict[str, tuple[str, str | None]]:
    return {item["criterion"]: (item["result"], item["feedback"]) for item in event.analysis}


def timed(event: str, at: str, data: JsonObject) -> TimelineEvent:
    found = interpret(delivered({"event": event, "timestamp": at, "data": data}))
    assert not isinstance(found, DeadLetter)
    return found[0]


@pytest.mark.parametrize("call_id", [431001, "431001"])
def test_a_call_id_is_text_however_it_was_sent(call_id: JsonValue) -> None:
    """CallSync sends an integer; a change to text must not make another call of it."""
    assert logged(call_id=call_id).call_id == "431001"


@pytest.mark.parametrize(
    ("duration", "seconds", "connection"),
    [
        ("124", 124.0, Connection.PERSON),
        (124, 124.0, Connection.PERSON),
        ("0", 0.0, Connection.UNKNOWN),
        (0, 0.0, Connection.UNKNOWN),
        (None, None, Connection.UNKNOWN),
        ("", None, Connection.UNKNOWN),
        ("abc", None, Connection.UNKNOWN),
        (-5, None, Connection.UNKNOWN),
    ],
)
def test_a_call_of_some_length_reached_a_person(
    duration: JsonValue, seconds: float | None, connection: Connection
) -> None:
    """Whether anybody answered is not told; without a length it is not known."""
    facts = logged(duration_total=duration).facts
    assert (facts.get("duration_s"), facts["connection"]) == (seconds, connection)


def test_a_length_that_only_the_times_tell_counts_too() -> None:
    """Else a call would have a duration and yet be one of which nobody knows whether it was answered."""
    began, ended = "2026-05-12T11:58:00Z", "2026-05-12T11:59:01Z"
    spoken = logged(started_at=began, ended_at=ended, duration_total=None).facts
    silent = logged(started_at=began, ended_at=began, duration_total=None).facts
    assert (spoken["duration_s"], spoken["connection"]) == (61.0, Connection.PERSON)
    assert (silent["duration_s"], silent["connection"]) == (0.0, Connection.UNKNOWN)


@pytest.mark.parametrize(
    ("direction", "status", "kept"),
    [
        ("incoming", "incoming", None),
        ("incoming", "Incoming", None),
        ("outgoing", "incoming", None),
        ("internal", "internal", None),
        ("incoming", "missed", "missed"),
        ("incoming", None, None),
        (None, "rejected", "rejected"),
    ],
)
def test_a_status_that_repeats_the_direction_is_none(direction: JsonValue, status: JsonValue, kept: str | None) -> None:
    """The documented status is the direction again; another word is kept as it was sent."""
    assert logged(direction=direction, status=status).facts.get("status") == kept


@pytest.mark.parametrize(
    ("direction", "kind", "call_type", "ours"),
    [
        ("incoming", "incoming", "incoming", "inbound"),
        ("outgoing", "incoming", "incoming", "outbound"),
        (None, "outgoing", "incoming", "outbound"),
        (None, "missed", "incoming", "inbound"),
        ("internal", "internal", "internal", None),
    ],
)
def test_the_direction_is_read_where_it_is_said_most_closely(
    direction: JsonValue, kind: JsonValue, call_type: str, ours: str | None
) -> None:
    """The call's own direction goes before its type, and both before the envelope's."""
    data: JsonObject = {"call_details": {"call_id": 1, "direction": direction, "type": kind}}
    assert said("call_logged", data, type=call_type).facts.get("direction") == ours


def test_an_event_that_amends_a_call_leaves_its_direction_alone() -> None:
    """The envelope's type is the call's only where the call is logged."""
    data: JsonObject = {"call_details": {"call_id": 1}}
    assert "direction" not in said("recording_updated", data, type="incoming").facts
    data = {"call_details": {"call_id": 1, "direction": "outgoing"}}
    assert said("recording_updated", data, type="incoming").facts["direction"] == "outbound"


def test_the_end_of_a_call_is_its_start_and_its_duration() -> None:
    """The end is never sent."""
    facts = logged(started_at=SENT_AT, duration_total="61").facts
    assert (facts["started_at"], facts["ended_at"]) == (SENT, SENT + 61_000_000)


def test_a_start_years_from_the_envelope_is_kept_but_the_call_counts_when_it_was_sent() -> None:
    """The vendor's own example contradicts itself by two years."""
    details: JsonObject = {"call_id": 1, "started_at": "2024-05-12T11:58:00Z", "duration_total": "124"}
    call = fold([timed("call_logged", SENT_AT, {"call_details": details})], Rules())
    assert (call["started_at"], call["counted_at"]) == (1_715_515_080_000_000, SENT)


def test_the_staff_member_is_the_agent_and_the_contact_is_the_caller() -> None:
    """Also on an outgoing call, where the staff member dialled; the contact's name goes before the phone's."""
    event = said(
        "call_logged",
        {
            "call_details": {"call_id": 1, "direction": "outgoing"},
            "caller": {"phone": "+16175550177", "name": "Jonas"},
            "identity": {"name": "Jonas Haas", "phone": "+16175550100", "email": "jonas.haas@example.com"},
            "staff": {"id": "emp_71", "name": "Elif Kaya", "phone": "+12125550171", "email": "elif.kaya@example.com"},
        },
    )
    facts = event.facts
    assert (facts["agent_id"], facts["agent_name"]) == ("emp_71", "Elif Kaya")
    assert (facts["caller_phone"], facts["caller_name"]) == ("+16175550177", "Jonas Haas")
    assert facts["caller_email"] == "jonas.haas@example.com"


def test_a_number_without_a_contact_still_has_its_phones_name() -> None:
    """An unknown caller has no identity."""
    event = said(
        "call_logged",
        {"call_details": {"call_id": 1}, "identity": None, "caller": {"phone": "+16175550177", "name": "Jonas"}},
    )
    assert (event.facts["caller_phone"], event.facts["caller_name"]) == ("+16175550177", "Jonas")


@pytest.mark.parametrize("status", ["pending", "Pending", " PENDING "])
def test_a_pending_analysis_says_nothing(status: str) -> None:
    """What stands beside that status is not a judgement yet."""
    event = judged(status=status, polite=False, summary="...", sentiment="neutral")
    assert not event.analysis
    assert not event.facts


@pytest.mark.parametrize(
    ("sent", "result"),
    [
        (True, "true"),
        (False, "false"),
        ("true", "true"),
        ("False", "false"),
        ("PARTIAL", "partial"),
        ("not_applicable", "not_applicable"),
        ("Not Applicable", "not_applicable"),
    ],
)
def test_what_has_one_of_the_four_results_is_a_criterion(sent: JsonValue, result: str) -> None:
    """Standing alone or with its feedback, however it is cased."""
    assert results(judged(polite=sent)) == {"polite": (result, None)}
    assert results(judged(polite={"result": sent, "feedback": "Because."})) == {"polite": (result, "Because.")}


@pytest.mark.parametrize("sent", [None, 8, 0, 7.5, "buy", "", [], [True], {}, {"score": 3}, {"result": None}])
def test_what_is_no_judgement_makes_no_criterion(sent: JsonValue) -> None:
    """A score, a topic or a null must not become a true or a false."""
    assert not judged(status="completed", polite=sent).analysis


def test_a_fifth_result_is_kept_verbatim() -> None:
    """An entry that says `result` is a judgement; a new word in it is drift, to be seen."""
    assert results(judged(closing={"result": "almost", "feedback": "Hung up."})) == {"closing": ("almost", "Hung up.")}


@pytest.mark.parametrize("group", ["criteria", "results", "analysis"])
@pytest.mark.parametrize(
    "members",
    [
        {"polite": "true", "recap": {"result": False, "reason": "Forgot it."}},
        [
            {"name": "polite", "result": True},
            {"criterion": "recap", "result": "false", "feedback": "Forgot it."},
            {"result": True},
            "polite",
        ],
    ],
    ids=["by name", "as a list"],
)
def test_criteria_may_stand_in_a_group(group: str, members: JsonValue) -> None:
    """As an object by name or as a list of entries that name themselves."""
    expected = {"polite": ("true", None), "recap": ("false", "Forgot it.")}
    assert results(judged(**{group: members})) == expected


def test_a_criterion_is_judged_once_in_an_event() -> None:
    """What stands on its own goes before what stands in a group."""
    assert results(judged(polite=True, criteria={"polite": False})) == {"polite": ("true", None)}


def test_texts_of_the_analysis_become_facts_of_the_call() -> None:
    """Its summary, sentiment and transcript, and nothing of its status."""
    event = judged(status="completed", summary="Refund.", sentiment="neutral", transcript="Elif: Hello.")
    assert event.facts == {"summary": "Refund.", "sentiment": "neutral", "transcript": "Elif: Hello."}
    assert not event.analysis


@pytest.mark.parametrize("event", ["recording_updated", "ai_analysis", "caller_updated", "note_added"])
def test_only_a_logged_call_is_finished(event: str) -> None:
    """The other events, known or not, amend."""
    assert said(event, {"call_details": {"call_id": 1}}).stage is Stage.OTHER
    assert logged().stage is Stage.FINISHED


@pytest.mark.parametrize("event", ["call_logged", "recording_updated", "ai_analysis", "caller_updated"])
@pytest.mark.parametrize("call_id", [None, "", True, 1.5, []])
def test_an_event_without_a_call_id_is_a_dead_letter(event: str, call_id: JsonValue) -> None:
    """All four documented events are about a call."""
    with pytest.raises(PayloadMalformed) as caught:
        said(event, {"call_details": {"call_id": call_id}})
    assert caught.value.code == "no_call_id"


def test_an_unknown_event_may_stand_without_a_call() -> None:
    """It is kept under its own name."""
    event = said("staff_updated", {"staff": {"id": "emp_71"}}, org_id="org_haas", payload_id="p1")
    assert (event.event, event.call_id, event.org, event.delivery_id) == ("staff_updated", None, "org_haas", "p1")


def test_four_events_add_up_to_one_call_in_any_order() -> None:
    """The recording, the analysis and the contact may arrive before the call is logged."""
    events = [
        timed(
            "call_logged",
            "2026-05-12T12:00:00Z",
            {
                "call_details": {"call_id": 1, "started_at": "2026-05-12T11:58:00Z", "duration_total": "60"},
                "caller": {"phone": "+16175550177"},
                "ai_analysis": {"status": "pending"},
            },
        ),
        timed(
            "recording_updated", "2026-05-12T12:01:00Z", {"call_id": 1, "recording_url": "https://example.com/1.mp3"}
        ),
        timed("ai_analysis", "2026-05-12T12:02:00Z", {"call_details": {"call_id": 1}, "ai_analysis": {"goal": True}}),
        timed("caller_updated", "2026-05-12T12:03:00Z", {"call_id": 1, "identity": {"name": "Jonas Haas"}}),
    ]
    calls = [fold(list(order), Rules()) for order in permutations(events)]
    assert all(call == calls[0] for call in calls)
    call = calls[0]
    assert (call["connection"], call["duration_s"], call["event_count"]) == ("person", 60.0, 4)
    assert (call["recording_url"], call["caller_name"]) == ("https://example.com/1.mp3", "Jonas Haas")
    assert [(item["criterion"], item["result"]) for item in call["analysis"]] == [("goal", "true")]


def test_an_analysis_alone_tells_nothing_about_the_connection() -> None:
    """Without its log the call is known to exist and no more."""
    event = timed("ai_analysis", SENT_AT, {"call_details": {"call_id": 1}, "ai_analysis": {"polite": True}})
    assert fold([event], Rules())["connection"] == "unknown"


def test_a_bare_signature_counts_on_trust_b() -> None:
    """The body is signed, its time is not."""
    body = b'{"event":"call_logged"}'
    headers = [(name.encode(), value.encode()) for name, value in sign(provider.scheme, "k", body, now_s=0).items()]
    assert verify(provider.scheme, ["k"], headers, body, now_s=10**9).trust is Trust.B


@pytest.mark.parametrize("form", ["sha256={}", "{}=", " {}"])
def test_a_prefixed_signature_is_refused(form: str) -> None:
    """CallSync documents the bare digest and nothing else."""
    body = b'{"event":"call_logged"}'
    signature = sign(provider.scheme, "k", body, now_s=0)["x-callsync-signature"]
    with pytest.raises(SignatureRejected):
        verify(provider.scheme, ["k"], [(b"x-callsync-signature", form.format(signature).encode())], body, now_s=0)
