"""Synthflow beyond its samples: signatures, every documented status and reason, and fields of other shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import inbound_call
from calls.errors import PayloadMalformed, SignatureRejected
from calls.model import Action, CallEvent, Connection, Delivery, EndedBy, Excluded, Stage, Trust
from calls.providers.synthflow import provider
from calls.signing import sign, verify

CALL_ID = "58bd0d3f-6982-4a6d-911e-1c11fbcc7dca"
SIGNATURE = "Gz4A742SDsldvQiAzkg9XvL4IDCQ1IJLYqlvhB3W3bo="
BODY = json.dumps({"status": "completed", "call": {"call_id": CALL_ID}}).encode()
SPELLINGS = [
    b"synthflow-signature",
    b"x-synthflow-signature",
    b"http-synthflow-signature",
    b"http_synthflow_signature",
    b"synthflow_signature",
    b"x_synthflow_signature",
]
RECEIVED_AT = 1_780_315_200_000_000
HOUR = 3_600_000_000
START = 1_780_304_400_000_000
"""2026-06-01T09:00:00Z."""


@pytest.mark.parametrize("name", SPELLINGS, ids=bytes.decode)
def test_the_signature_is_accepted_under_every_spelling_of_its_header(name: bytes) -> None:
    """The documents name a server variable, so the name on the wire is not known for sure."""
    assert _verify([(name, SIGNATURE.encode())]).trust is Trust.C


def test_spellings_that_disagree_are_refused() -> None:
    """A proxy that drops underscores must not decide which of two signatures counts."""
    with pytest.raises(SignatureRejected) as caught:
        _verify([(SPELLINGS[0], SIGNATURE.encode()), (SPELLINGS[3], b"A" * 43 + b"=")])
    assert caught.value.code == "signature_ambiguous"


def test_a_missing_signature_is_explained_with_the_names_looked_for_and_seen() -> None:
    """Where a proxy dropped the header, the message shows it."""
    with pytest.raises(SignatureRejected) as caught:
        _verify([(b"content-type", b"application/json")])
    assert caught.value.code == "signature_missing"
    assert "http_synthflow_signature" in caught.value.message
    assert "content-type" in caught.value.message


def test_we_sign_under_a_name_that_every_proxy_passes() -> None:
    """Names with underscores are dropped by nginx unless it is told otherwise."""
    assert provider.signed_id is not None
    headers = sign(provider.scheme, "test-secret", BODY, now_s=0, signed_id=provider.signed_id(BODY))
    assert headers == {"synthflow-signature": SIGNATURE}


def test_the_instructions_name_the_proxy_setting_and_the_address() -> None:
    """The page that connects the platform holds what people stumble over."""
    assert "underscores_in_headers on" in provider.connect
    assert "{url}" in provider.connect
    assert provider.answers_inbound


@given(
    ids=st.lists(st.sampled_from(['"a"', '"b"', '"\\u0061"', "1", "null", "[]", "NaN"]), min_size=1, max_size=3),
    keys=st.lists(st.sampled_from(["call_id", "call\\u005fid", "Call_id", "callId"]), min_size=3, max_size=3),
    nested=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_what_is_signed_is_the_call_the_event_counts_for(ids: list[str], keys: list[str], nested: list[bool]) -> None:
    """However ids are repeated and spelled, door and stream read the same one, or both refuse."""
    fields = [
        f'"call":{{"{key}":{value}}}' if inner else f'"{key}":{value}'
        for value, key, inner in zip(ids, keys, nested, strict=False)
    ]
    body = f'{{"status":"completed",{",".join(fields)}}}'.encode()
    assert _signed_id_or_code(body) == _event_id_or_code(body)


def test_a_call_inbound_question_is_no_event_of_a_call() -> None:
    """Even one that names a call, which the door would have answered."""
    body = json.dumps({"event": inbound_call.EVENT, "call": {"call_id": CALL_ID}}).encode()
    with pytest.raises(PayloadMalformed) as caught:
        _normalise(body)
    assert caught.value.code == "call_inbound"


@pytest.mark.parametrize(
    ("status", "stage", "connection"),
    [
        ("pending", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("ringing", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("in-progress", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("in_progress", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("paused", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("registered", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("queue", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("initiated", Stage.PROGRESS, Connection.IN_PROGRESS),
        ("completed", Stage.FINISHED, Connection.PERSON),
        ("Completed", Stage.FINISHED, Connection.PERSON),
        ("no-answer", Stage.FINISHED, Connection.NO_ANSWER),
        ("no_answer", Stage.FINISHED, Connection.NO_ANSWER),
        ("busy", Stage.FINISHED, Connection.BUSY),
        ("failed", Stage.FINISHED, Connection.FAILED),
        ("canceled", Stage.FINISHED, Connection.CANCELED),
        ("user-canceled", Stage.FINISHED, Connection.CANCELED),
        ("hangup_on_voicemail", Stage.FINISHED, Connection.MACHINE),
        ("left_voicemail", Stage.FINISHED, Connection.MACHINE),
        ("spam", Stage.FINISHED, Connection.UNKNOWN),
        ("something-new", Stage.FINISHED, Connection.UNKNOWN),
    ],
)
def test_every_status_has_its_stage_and_connection(status: str, stage: Stage, connection: Connection) -> None:
    """All documented statuses, in the spellings that occur, and one the platform may add."""
    event = _event(call={"status": status})
    assert (event.stage, event.facts["connection"], event.facts["status"]) == (stage, connection, status)


@pytest.mark.parametrize(
    ("status", "reason", "connection", "ended_by"),
    [
        ("completed", "voicemail", Connection.MACHINE, EndedBy.AGENT),
        ("completed", "voicemail_message_left", Connection.MACHINE, EndedBy.AGENT),
        ("completed", "voicemail_cut_off", Connection.MACHINE, EndedBy.UNKNOWN),
        ("completed", "human_goodbye", Connection.PERSON, EndedBy.CALLER),
        ("completed", "human_ended_call", Connection.PERSON, EndedBy.CALLER),
        ("completed", "agent_goodbye", Connection.PERSON, EndedBy.AGENT),
        ("completed", "agent_ended_call", Connection.PERSON, EndedBy.AGENT),
        ("completed", "human_pick_up_cut_off", Connection.PERSON, EndedBy.UNKNOWN),
        ("completed", "max_duration", Connection.PERSON, EndedBy.LIMIT),
        ("completed", "timeout", Connection.PERSON, EndedBy.LIMIT),
        ("completed", "custom_end_call", Connection.PERSON, EndedBy.AGENT),
        ("completed", "user_canceled", Connection.CANCELED, EndedBy.CALLER),
        ("completed", "undefined", Connection.PERSON, EndedBy.UNKNOWN),
        ("completed", "completed", Connection.PERSON, EndedBy.UNKNOWN),
        ("completed", "human_hangup", Connection.PERSON, EndedBy.UNKNOWN),
        ("completed", None, Connection.PERSON, EndedBy.UNKNOWN),
        ("failed", "error", Connection.FAILED, EndedBy.SYSTEM),
        ("failed", "404: Not Found", Connection.FAILED, EndedBy.UNKNOWN),
        ("busy", "voicemail", Connection.MACHINE, EndedBy.AGENT),
        ("hangup_on_voicemail", "undefined", Connection.MACHINE, EndedBy.AGENT),
        ("user-canceled", None, Connection.CANCELED, EndedBy.CALLER),
        (None, "human_goodbye", Connection.PERSON, EndedBy.CALLER),
        (None, "Insufficient Minutes", Connection.UNKNOWN, EndedBy.UNKNOWN),
        ("declined", "agent_goodbye", Connection.PERSON, EndedBy.AGENT),
        ("completed", "call_transferred", Connection.PERSON, EndedBy.TRANSFER),
        ("transferred", None, Connection.PERSON, EndedBy.TRANSFER),
        ("completed", "transfer_failed", Connection.PERSON, EndedBy.UNKNOWN),
    ],
)
def test_status_and_reason_together_say_whom_the_call_reached_and_who_ended_it(
    status: str | None, reason: str | None, connection: Connection, ended_by: EndedBy
) -> None:
    """The platform's own words are kept beside ours."""
    event = _event(call={"status": status, "end_call_reason": reason})
    assert (event.facts["connection"], event.facts["ended_by"]) == (connection, ended_by)
    assert event.facts.get("end_call_reason") == reason
    assert event.stage is Stage.FINISHED


def test_a_call_without_status_and_reason_is_not_said_to_be_finished() -> None:
    """A custom action may report in the middle of a call; nothing then says how it ended."""
    event = _event(call={"duration": 5})
    assert event.stage is Stage.OTHER
    assert not event.facts.keys() & {"connection", "ended_by"}


@pytest.mark.parametrize("where", ["status", "end_call_reason"])
def test_spam_is_excluded(where: str) -> None:
    """Spam is counted apart, whichever field says so."""
    event = _event(call={where: "spam"})
    assert event.facts["excluded"] is Excluded.SPAM
    assert event.facts["connection"] is Connection.UNKNOWN


def test_the_status_of_the_call_goes_before_that_of_the_body() -> None:
    """And `call_status` comes last: flat bodies carry it beside the status of their own request."""
    body: dict[str, Any] = {"status": "busy", "call_status": "failed"}
    assert _event(call={"status": "completed"}, **body).facts["status"] == "completed"
    assert _event(**body).facts["status"] == "busy"
    assert _event(call_status="failed").facts["status"] == "failed"


@pytest.mark.parametrize(
    ("start", "zone", "expected"),
    [
        ("2026-06-01T11:00:00+02:00", "America/New_York", START),
        ("2026-06-01T09:00:00Z", None, START),
        ("2026-06-01T11:00:00", "Europe/Berlin", START),
        ("2026-06-01T09:00:00", "Nowhere/Land", START),
        ("2026-06-01T09:00:00", 7, START),
        (str(START // 1000), "Europe/Berlin", START),
        (START // 1000, None, START),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_start_is_read_in_each_of_its_forms(start: object, zone: object, expected: int | None) -> None:
    """ISO with its offset, ISO in the call's zone, or milliseconds as text."""
    event = _event(call={"status": "completed", "start_time": start, "timezone": zone, "duration": "60"})
    assert event.facts.get("started_at") == expected
    assert event.facts["duration_s"] == 60
    if expected is None:
        assert "ended_at" not in event.facts
        assert event.happened_at == RECEIVED_AT
    else:
        assert event.happened_at == event.facts["ended_at"] == expected + 60_000_000


def test_a_start_alone_dates_the_event() -> None:
    """Without a duration the end is unknown, and our clock is only used where nothing else is."""
    event = _event(call={"status": "failed", "start_time": "2026-06-01T09:00:00Z"})
    assert event.happened_at == START


def test_fields_that_automations_add_are_read_where_they_are_sent() -> None:
    """Direction, summary, sentiment and mail address are no part of the native webhook."""
    event = _event(
        call={"status": "completed", "summary": "Wants a check-up."},
        type_of_call="Outgoing",
        phone_number_from="+12125550100",
        phone_number_to="+12135550101",
        sentiment="positive",
        lead_email="ada@example.com",
        organization_id="org-9",
    )
    expected = {
        "direction": "outbound",
        "caller_phone": "+12135550101",
        "summary": "Wants a check-up.",
        "sentiment": "positive",
        "caller_email": "ada@example.com",
    }
    assert expected.items() <= event.facts.items()
    assert event.org == "org-9"


def test_scores_of_the_analysis_are_neither_summary_nor_sentiment() -> None:
    """`call_summary` is a flag about a summary; a text of it does not exist in the payload."""
    event = _event(call={"status": "completed"}, analysis={"call_summary": "true", "user_sentiment": "partial"})
    assert not event.facts.keys() & {"summary", "sentiment", "direction"}
    assert [row["criterion"] for row in event.analysis] == ["call_summary", "user_sentiment"]


def test_a_name_the_platform_gives_its_event_is_kept() -> None:
    """The post-call webhook has none today."""
    assert _event(event="call.completed").event == "call.completed"
    assert _event().event == "post_call"


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("true", "true"),
        ("True", "true"),
        (" FALSE ", "false"),
        (True, "true"),
        (False, "false"),
        ("Partial", "partial"),
        ("not_applicable", "not_applicable"),
        ("Mostly met", "Mostly met"),
        (7, "7"),
        (None, None),
        ("", None),
        ([], None),
        ({"a": 1}, None),
    ],
)
def test_a_score_is_one_of_four_words_or_kept_as_sent(value: object, result: str | None) -> None:
    """Any case and real booleans are understood; null, blank and structures make no row."""
    found = _event(analysis={"goal": value, "goal_feedback": "why"}).analysis
    assert found == ([] if result is None else [{"criterion": "goal", "result": result, "feedback": "why"}])


@pytest.mark.parametrize("where", ["analysis", "judge_results"])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("encoded", [True, False])
def test_the_analysis_is_found_under_both_names_and_in_both_places(where: str, inside: bool, encoded: bool) -> None:
    """At the top or in the call, as an object or as a string that holds one."""
    scores: Any = {"goal": "true", "all_feedback": "x", "judge_found_full_error": "true", "lost_feedback": "Too long."}
    section: dict[str, Any] = {where: json.dumps(scores) if encoded else scores}
    event = _event(call=section) if inside else _event(**section)
    assert event.analysis == [{"criterion": "goal", "result": "true", "feedback": None}]


def test_a_criterion_whose_own_name_ends_like_feedback_is_a_criterion() -> None:
    """It has a twin of its own, or a value that only a score has."""
    found = _event(
        analysis={"customer_feedback": "true", "asked_feedback": "x", "asked_feedback_feedback": "y"}
    ).analysis
    assert [(row["criterion"], row["result"]) for row in found] == [
        ("customer_feedback", "true"),
        ("asked_feedback", "x"),
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"value": "x", "collected": True}, [("a-1", "n", '"x"', True)]),
        ({"value": None, "collected": False}, [("a-1", "n", None, False)]),
        ({"value": "x", "collected": "false"}, [("a-1", "n", '"x"', False)]),
        ({"value": 0}, [("a-1", "n", "0", True)]),
        ({"collected": True}, [("a-1", "n", None, True)]),
        ({"value": {"a": 1}}, [("a-1", "n", '{"a":1}', True)]),
        ("x", [("a-1", "n", '"x"', True)]),
        (None, [("a-1", "n", None, False)]),
        ([1], [("a-1", "n", "[1]", True)]),
        ({}, []),
        ({"m": {"value": 1, "collected": True}}, [("n", "m", "1", True)]),
        ({"m": 1, "o": None}, [("n", "m", "1", True), ("n", "o", None, False)]),
        ({"value": {"value": 1, "collected": True}}, [("n", "value", "1", True)]),
        ({"collected": {"value": 1, "collected": True}}, [("n", "collected", "1", True)]),
    ],
)
def test_a_variable_is_read_flat_or_under_its_agent(entry: object, expected: list[tuple[object, ...]]) -> None:
    """Each entry decides for itself: what has a value or a collected mark is a variable, else an agent's group."""
    found = _event(call={"model_id": "a-1"}, collected_variables={"n": entry}).variables
    assert [(row["agent_id"], row["name"], row["value"], row["collected"]) for row in found] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": {"b": 1}}, '{"a":{"b":1}}'),
        ('{"a": 1}', '{"a": 1}'),
        ('{"a": NaN}', '{"a":null}'),
        ("[1, 2]", "[1, 2]"),
        ('"car"', '"car"'),
        ("42", "42"),
        ("true", "true"),
        ("null", None),
        ("", None),
        (None, None),
        ("sent", '"sent"'),
        ("+15550100", '"+15550100"'),
        ('{"a": ', '"{\\"a\\": "'),
        ("[" * 200, json.dumps("[" * 200)),
        (3.5, "3.5"),
    ],
)
def test_what_an_action_returned_becomes_json_once(value: object, expected: str | None) -> None:
    """Documented as an object, sent as a string that holds JSON: both give the same; other text stays a string."""
    assert _actions({"look_up": {"return_value": value}})[0]["return_value"] == expected


@pytest.mark.parametrize("section", [[{"name": "x"}, "y"], {"x": {}, "1": "y"}, json.dumps({"x": {}, "1": "y"})])
def test_actions_come_as_an_object_a_list_or_a_string(section: object) -> None:
    """An entry that is no object is an action whose result it is."""
    found = _actions(section)
    assert found[0]["name"] == "x"
    assert found[1]["return_value"] == '"y"'


def test_the_time_of_an_action_is_its_epoch_else_its_local_time() -> None:
    """`timestamp_datetime` names no zone, so it is read in the call's and only where no epoch is sent."""
    local = {"timestamp_datetime": "2026-06-01T11:00:00"}
    found = _event(
        call={"timezone": "Europe/Berlin"},
        executed_actions={"a": local, "b": {**local, "timestamp": str((START + HOUR) // 1_000_000)}, "c": {}},
    ).actions
    assert [action["happened_at"] for action in found] == [START, START + HOUR, None]


@pytest.mark.parametrize(
    ("detail", "value"),
    [
        ("return_value", {"phone_number": "+12125550166"}),
        ("return_value", '{"transfer_to": "+12125550166"}'),
        ("parameters_from_llm", '{"number": "+12125550166"}'),
        ("parameters_hard_coded", {"phone_number": "+12125550166"}),
    ],
)
def test_a_transfer_action_tells_where_the_call_went(detail: str, value: object) -> None:
    """Wherever the number stands, as an object or as a string that holds one."""
    action = {"action_type": "transfer_call_action_type", "error_message": "", detail: value}
    facts = _event(call={"status": "completed"}, executed_actions={"t": action}).facts
    assert (facts["transferred"], facts["transferred_to"], facts["ended_by"]) == (
        True,
        "+12125550166",
        EndedBy.TRANSFER,
    )


def test_a_transfer_with_an_error_is_none() -> None:
    """The call went on with the agent."""
    action = {"action_type": "transfer_call_action_type", "error_message": "busy", "return_value": None}
    facts = _event(
        call={"status": "completed", "end_call_reason": "human_goodbye"}, executed_actions={"t": action}
    ).facts
    assert "transferred" not in facts
    assert facts["ended_by"] is EndedBy.CALLER


def test_a_transcript_of_megabytes_is_read_whole() -> None:
    """The platform sets no limit to it."""
    transcript = "\nbot: Hello there." * 300_000
    assert _event(call={"transcript": transcript}).facts["transcript"] == transcript


def test_sample_numbers_and_names_are_made_up() -> None:
    """Numbers of the samples are of the range that is kept free for fiction."""
    for path in Path(provider.samples).glob("*.json"):
        text = path.read_text(encoding="utf-8")
        for found in text.split('"+')[1:]:
            assert found[4:9] == "55501", path.name


def _verify(headers: list[tuple[bytes, bytes]]) -> Any:
    assert provider.signed_id is not None
    return verify(provider.scheme, ["test-secret"], headers, BODY, now_s=0, signed_id=provider.signed_id(BODY))


def _signed_id_or_code(body: bytes) -> str:
    assert provider.signed_id is not None
    try:
        return provider.signed_id(body).decode()
    except PayloadMalformed as error:
        return error.code.replace("call_id_missing", "no_call_id")


def _event_id_or_code(body: bytes) -> str | None:
    try:
        return _normalise(body).call_id
    except PayloadMalformed as error:
        return error.code


def _event(call: dict[str, Any] | None = None, **body: Any) -> CallEvent:
    return _normalise(json.dumps({"call": {"call_id": CALL_ID, **(call or {})}, **body}).encode())


def _actions(section: object) -> list[Action]:
    return _event(executed_actions=section).actions


def _normalise(body: bytes) -> CallEvent:
    delivery = Delivery(
        source="synthflow", provider="synthflow", org="", body=body, headers={}, received_at=RECEIVED_AT,
        trust=Trust.C, journal_id="j", position=1,
    )  # fmt: skip
    (event,) = provider.normalise(delivery)
    return event
