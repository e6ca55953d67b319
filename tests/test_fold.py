"""The fold: the same call for any order and any repetition of its events, and every rule by which fields win."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls.model import (
    Action,
    Analysis,
    Appointment,
    Call,
    CallEvent,
    Connection,
    DeadLetter,
    EndedBy,
    Excluded,
    Facts,
    Lead,
    Micros,
    Rules,
    Stage,
    TimelineEvent,
    Trust,
    Variable,
)
from calls.provider import Provider, discover
from streams.fold import DAY, fold
from streams.steps import interpret
from tests.contracts.samples import samples_of

NOON: Micros = 1_780_315_200_000_000
SECOND = 1_000_000
RULES = Rules(success={"Interested": "met", "callback": "partly"}, test_numbers=("+4930123456",))


def happening(
    number: int = 1,
    *,
    at: Micros = NOON,
    stage: Stage = Stage.FINISHED,
    facts: Facts | None = None,
    trust: Trust = Trust.B,
    position: int | None = None,
    provider: str = "aisync",
    **lists: object,
) -> TimelineEvent:
    """An event of the one call that these tests are about; the number makes its id and, if not given, its position."""
    said = CallEvent(event="told", call_id="c1", org="acme", happened_at=at, stage=stage, facts=facts or {})
    position = number if position is None else position
    return TimelineEvent(
        event_id=f"{number:064x}",
        provider=provider,
        source=provider,
        trust=trust,
        received_at=NOON + position * SECOND,
        journal_id="journal",
        position=position,
        event=msgspec.structs.replace(said, **lists),
        data="{}",
        raw=None,
        source_org="acme",
        headers={},
    )


def again(timed: TimelineEvent, position: int) -> TimelineEvent:
    """The same event as another row of the journal holds it."""
    return msgspec.structs.replace(timed, position=position, received_at=NOON + position * SECOND)


def folded(*events: TimelineEvent, rules: Rules = RULES) -> Call:
    """The call, after making sure that all orders and a repetition give the same."""
    call = fold(events, rules)
    for order in permutations(events) if len(events) < 5 else ():
        assert fold(order, rules) == call
        assert fold([*order, *order], rules) == call
    return call


def appointment(**known: object) -> Appointment:
    """An appointment of which only this is known."""
    return cast(Appointment, dict.fromkeys(Appointment.__annotations__) | known)


def lead(**known: object) -> Lead:
    """A lead of which only this is known."""
    return cast(Lead, dict.fromkeys(Lead.__annotations__) | known)


def variable(name: str, value: str | None, agent_id: str | None = None, *, collected: bool = True) -> Variable:
    """A variable whose value is that JSON text."""
    return {
        "agent_id": agent_id,
        "name": name,
        "value": value,
        "value_text": value,
        "value_number": None,
        "collected": collected,
    }


def judged(criterion: str, result: str, feedback: str | None = None) -> Analysis:
    return {"criterion": criterion, "result": result, "feedback": feedback}


def done(name: str, happened_at: Micros | None = None, **known: str) -> Action:
    """An action of which only this is known."""
    return cast(Action, dict.fromkeys(Action.__annotations__) | {"name": name, "happened_at": happened_at} | known)


# Order and repetition

words = st.sampled_from(["a", "b", "c"])
maybe_word = st.none() | words
times = st.integers(0, 3).map(lambda days: NOON + days * DAY // 2)
facts_of_any_kind: st.SearchStrategy[Facts] = st.fixed_dictionaries(
    {},
    optional={
        "agent_id": words,
        "status": words,
        "summary": words,
        "disposition": st.sampled_from(["interested", "callback", "other"]),
        "caller_phone": st.sampled_from(["+49 30 123456", "+1 213 555 0100"]),
        "connection": st.sampled_from(Connection),
        "ended_by": st.sampled_from(EndedBy),
        "excluded": st.just(Excluded.SPAM),
        "transferred": st.booleans(),
        "started_at": times,
        "ended_at": times,
        "duration_s": st.sampled_from([0.0, 1.5, 90.0]),
        "tags": st.lists(words, max_size=2),
    },
)  # type: ignore[assignment]
texts_of_json = st.none() | st.sampled_from(['"x"', "1", '{"a":1,"b":2}', '{"b":2,"a":1}', "not json"])
what_is_said = st.builds(
    CallEvent,
    event=words,
    call_id=st.just("c1"),
    org=st.just(""),
    happened_at=times,
    stage=st.sampled_from(Stage),
    facts=facts_of_any_kind,
    analysis=st.lists(st.builds(judged, st.sampled_from(["goal", "style"]), words, maybe_word), max_size=3),
    variables=st.lists(st.builds(variable, words, texts_of_json, maybe_word, collected=st.booleans()), max_size=3),
    actions=st.lists(st.builds(done, words, st.none() | times, return_value=texts_of_json), max_size=3),
    appointments=st.lists(
        st.builds(appointment, starts_at=st.none() | times, calendar_event_id=maybe_word, service=maybe_word),
        max_size=2,
    ),
    leads=st.lists(st.builds(lead, name=maybe_word, email=maybe_word), max_size=2),
)


@st.composite
def arrivals(draw: st.DrawFn, said: st.SearchStrategy[CallEvent], provider: str) -> list[TimelineEvent]:
    """One to six arrivals of one to four events, at different places of two journals, with whatever trust."""
    told = draw(st.lists(said, min_size=1, max_size=4))
    trusts = st.sampled_from(Trust)
    places = draw(st.lists(st.tuples(st.integers(0, 5), words), min_size=len(told), max_size=6, unique=True))
    return [
        TimelineEvent(
            event_id=f"{number % len(told):064x}",
            provider=provider,
            source=provider,
            trust=draw(trusts),
            received_at=NOON + place * SECOND,
            journal_id=journal,
            position=place,
            event=told[number % len(told)],
            data="{}",
            raw=None,
            source_org="",
            headers={},
        )
        for number, (place, journal) in enumerate(places)
    ]


def check_any_order_and_repetition(events: Sequence[TimelineEvent], data: st.DataObject) -> None:
    call = fold(events, RULES)
    shuffled = data.draw(st.permutations(events))
    repeated = data.draw(st.lists(st.sampled_from(events), max_size=4))
    assert fold(shuffled, RULES) == call
    assert fold([*shuffled, *repeated], RULES) == call
    assert set(call) == set(Call.__annotations__)


@given(arrivals(what_is_said, "aisync") | arrivals(what_is_said, "synthflow"), st.data())
@settings(max_examples=300, deadline=None)
def test_any_events_fold_to_the_same_call_in_any_order_and_repetition(
    events: list[TimelineEvent], data: st.DataObject
) -> None:
    """No order of arrival, no repetition and no mixture of trust changes the call."""
    check_any_order_and_repetition(events, data)


@pytest.mark.parametrize("provider", discover().values(), ids=discover())
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_providers_events_fold_to_the_same_call_in_any_order_and_repetition(
    provider: Provider, data: st.DataObject
) -> None:
    """Whatever a provider's samples mean, taken as events of one call, adds up to one and the same call."""
    told = [timed.event for sample in samples_of(provider) for timed in events_of(interpret(sample.delivery))]
    of_calls = [msgspec.structs.replace(said, call_id="c1", org="") for said in told if said.call_id is not None]
    assert of_calls
    events = data.draw(arrivals(st.sampled_from(of_calls), provider.name))
    check_any_order_and_repetition(events, data)


def events_of(meaning: list[TimelineEvent] | DeadLetter) -> list[TimelineEvent]:
    return [] if isinstance(meaning, DeadLetter) else meaning


@given(arrivals(what_is_said, "aisync") | arrivals(what_is_said, "synthflow"))
@settings(max_examples=300, deadline=None)
def test_the_short_way_for_a_single_event_gives_what_the_long_way_gives(events: list[TimelineEvent]) -> None:
    """An event alone takes the short way, the same event twice the long one; both give the same, of the same types."""
    short, long = fold(events[:1], RULES), fold([events[0], events[0]], RULES)
    assert short == long
    assert {name: type(value) for name, value in short.items()} == {name: type(value) for name, value in long.items()}


@given(arrivals(what_is_said, "synthflow"))
@settings(max_examples=200, deadline=None)
def test_folding_changes_no_event(events: list[TimelineEvent]) -> None:
    """Events are kept and folded again later, so a fold must leave them as they are."""
    before = msgspec.json.encode(events)
    fold(events, RULES)
    assert msgspec.json.encode(events) == before


# Which field wins


def test_the_event_with_the_later_time_wins_field_by_field() -> None:
    """A later event overwrites what it names and leaves the rest."""
    call = folded(
        happening(1, at=NOON + SECOND, facts={"status": "new"}),
        happening(2, at=NOON, facts={"status": "old", "summary": "kept"}),
    )
    assert (call["status"], call["summary"]) == ("new", "kept")


def test_null_never_overwrites() -> None:
    """Not even where a normaliser names a field that was not sent."""
    absent = cast(Facts, {"summary": None, "transferred": None, "ended_by": EndedBy.UNKNOWN})
    call = folded(
        happening(1, facts={"summary": "kept", "transferred": True, "ended_by": EndedBy.AGENT}),
        happening(2, at=NOON + SECOND, facts=absent),
    )
    assert (call["summary"], call["transferred"], call["ended_by"]) == ("kept", True, "agent")


def test_equal_times_are_decided_by_content_and_not_by_position() -> None:
    """Two updates of one instant give the same call whichever arrived first."""
    first = folded(happening(1, facts={"status": "one"}, position=1), happening(2, facts={"status": "two"}, position=2))
    second = folded(
        happening(1, facts={"status": "one"}, position=2), happening(2, facts={"status": "two"}, position=1)
    )
    assert first["status"] == second["status"] == "two"


def test_at_equal_times_a_finished_event_outweighs_an_unfinished_one() -> None:
    """A call that began and ended within one instant has ended."""
    call = folded(
        happening(1, stage=Stage.FINISHED, facts={"status": "completed"}),
        happening(2, stage=Stage.PROGRESS, facts={"status": "in-progress"}),
    )
    assert call["status"] == "completed"


def test_of_equal_ids_the_lowest_position_counts() -> None:
    """A repetition in another journal row moves nothing, not even the time of the last receipt."""
    event = happening(1, facts={"status": "completed"})
    call = folded(event, again(event, 7), again(event, 9))
    assert call == fold([event], RULES)
    assert (call["event_count"], call["last_received_at"]) == (1, event.received_at)


def test_first_and_last_receipt_and_the_count_come_from_distinct_events() -> None:
    """They span every event that was received."""
    call = folded(happening(1, position=5), happening(2, position=3), happening(3, position=8))
    assert call["first_received_at"] == NOON + 3 * SECOND
    assert call["last_received_at"] == NOON + 8 * SECOND
    assert call["event_count"] == 3


def test_the_weakest_trust_of_the_events_is_the_calls() -> None:
    """One unsigned event makes an unsigned call."""
    assert folded(happening(1, trust=Trust.B), happening(2, trust=Trust.D))["trust"] == "D"


def test_an_empty_org_stays_empty() -> None:
    """`org` is never null."""
    event = happening(1)
    assert (
        fold([msgspec.structs.replace(event, event=msgspec.structs.replace(event.event, org=""))], RULES)["org"] == ""
    )


# Lists


def test_criteria_merge_by_name_and_keep_the_feedback_of_their_result() -> None:
    """A new result without feedback does not keep the feedback of the old one; the same result does."""
    call = folded(
        happening(1, analysis=[judged("goal", "false", "no offer"), judged("style", "true", "warm")]),
        happening(2, at=NOON + 1, analysis=[judged("goal", "true"), judged("style", "true"), judged("tone", "true")]),
    )
    assert call["analysis"] == [judged("goal", "true"), judged("style", "true", "warm"), judged("tone", "true")]


def test_flat_variables_belong_to_the_calls_agent_and_merge_with_that_agents() -> None:
    """A variable that names no agent is the same as one under the call's agent; another agent's is another one."""
    call = folded(
        happening(1, facts={"agent_id": "a1"}, variables=[variable("name", '"Ada"'), variable("age", "1", "a2")]),
        happening(2, at=NOON + 1, variables=[variable("name", '"Bela"', "a1"), variable("age", "2")]),
    )
    assert call["variables"] == [
        variable("name", '"Bela"', "a1"),
        variable("age", "1", "a2"),
        variable("age", "2", "a1"),
    ]


def test_a_variable_without_a_value_does_not_overwrite_one_with_a_value() -> None:
    """Neither its value nor its `collected`."""
    call = folded(
        happening(1, variables=[variable("name", '"Ada"')]),
        happening(2, at=NOON + 1, variables=[variable("name", None, collected=False)]),
    )
    assert call["variables"] == [variable("name", '"Ada"')]


def test_actions_merge_by_name_and_time() -> None:
    """The same action at another time is another one; what a later event leaves out of one stays."""
    call = folded(
        happening(1, actions=[done("sms", NOON, return_value="1"), done("sms", NOON + 1)]),
        happening(2, at=NOON + 1, actions=[done("sms", NOON, error_message="late")]),
    )
    assert call["actions"] == [done("sms", NOON, return_value="1", error_message="late"), done("sms", NOON + 1)]


def test_appointments_merge_by_calendar_event_else_by_start() -> None:
    """A moved appointment keeps its calendar event; without one, another start is another appointment."""
    call = folded(
        happening(
            1,
            appointments=[
                appointment(calendar_event_id="e1", starts_at=NOON, service="brakes"),
                appointment(starts_at=NOON, service="oil"),
            ],
        ),
        happening(
            2,
            at=NOON + 1,
            appointments=[
                appointment(calendar_event_id="e1", starts_at=NOON + DAY),
                appointment(starts_at=NOON, caller_name="Ada"),
                appointment(starts_at=NOON + DAY),
            ],
        ),
    )
    assert call["appointments"] == [
        appointment(calendar_event_id="e1", starts_at=NOON + DAY, service="brakes"),
        appointment(starts_at=NOON, service="oil", caller_name="Ada"),
        appointment(starts_at=NOON + DAY),
    ]


def test_a_call_has_one_lead_at_most() -> None:
    """Later events complete it."""
    call = folded(
        happening(1, leads=[lead(name="Ada", email="ada@example.com")]),
        happening(2, at=NOON + 1, leads=[lead(name="Ada Abel")]),
    )
    assert call["leads"] == [lead(name="Ada Abel", email="ada@example.com")]


def test_tags_are_replaced() -> None:
    """The later list stands as it is."""
    call = folded(happening(1, facts={"tags": ["a", "b"]}), happening(2, at=NOON + 1, facts={"tags": ["c"]}))
    assert call["tags"] == ["c"]


# Trust C: versions of a call


def version(number: int, *, at: Micros = NOON, stage: Stage = Stage.FINISHED, **facts: object) -> TimelineEvent:
    """A Synthflow post-call body: proved by the call's id only."""
    return happening(number, at=at, stage=stage, facts=cast(Facts, facts), trust=Trust.C, provider="synthflow")


def test_on_trust_c_the_first_finished_version_replaces_everything() -> None:
    """Not even a field that only a later version names comes in, however late that says it happened."""
    call = folded(version(1, status="completed"), version(2, at=NOON + DAY, status="failed", summary="forged"))
    assert (call["status"], call["summary"], call["conflict"]) == ("completed", None, True)
    assert (call["counted_at"], call["event_count"]) == (NOON, 2)


def test_on_trust_c_an_unfinished_version_gives_way_to_a_finished_one() -> None:
    """Even where the finished one has the higher position and the earlier time; that is no conflict."""
    call = folded(
        version(1, at=NOON + SECOND, stage=Stage.PROGRESS, status="in-progress", summary="so far"),
        version(2, status="completed"),
    )
    assert (call["status"], call["summary"], call["conflict"]) == ("completed", None, False)


def test_on_trust_c_the_latest_of_unfinished_versions_stands_alone() -> None:
    """As long as none is finished."""
    call = folded(
        version(1, stage=Stage.PROGRESS, at=NOON + SECOND, status="in-progress"),
        version(2, stage=Stage.PROGRESS, status="ringing", summary="old"),
    )
    assert (call["status"], call["summary"]) == ("in-progress", None)


def test_versions_that_differ_only_in_bytes_do_not_conflict() -> None:
    """Neither the order of lists nor that of keys inside values nor the time of an event is a contradiction."""
    one, two = variable("a", '{"x":1,"y":2}'), variable("b", "1")
    other = variable("a", '{"y":2,"x":1}')
    call = folded(
        msgspec.structs.replace(
            version(1, status="completed"), event=happening(1, facts={"status": "x"}, variables=[one, two]).event
        ),
        msgspec.structs.replace(
            version(2, status="completed"),
            event=happening(2, at=NOON + 1, facts={"status": "x"}, variables=[two, other]).event,
        ),
    )
    assert call["conflict"] is False


@pytest.mark.parametrize(
    ("trust", "conflict"), [(Trust.D, True), (Trust.C, True), (Trust.B, False)], ids=["unsigned", "id", "signed"]
)
def test_a_conflict_needs_a_finished_version_of_trust_c_or_weaker(trust: Trust, conflict: bool) -> None:
    """An unsigned body that says otherwise is shown as a conflict; a signed one is believed."""
    rival = msgspec.structs.replace(version(2, at=NOON + SECOND, status="failed"), trust=trust)
    assert folded(version(1, status="completed"), rival)["conflict"] is conflict


def test_the_standing_version_folds_with_events_of_other_trust() -> None:
    """Where a secret was added or removed, both count, and the call shows the weaker trust."""
    unsigned = msgspec.structs.replace(version(2, at=NOON + SECOND, summary="later"), trust=Trust.D)
    call = folded(version(1, status="completed", summary="first"), unsigned, version(3, status="forged"))
    assert (call["status"], call["summary"], call["trust"]) == ("completed", "later", "D")


def test_signed_bodies_never_conflict() -> None:
    """Where the whole body is signed, a correction is a correction."""
    call = folded(happening(1, facts={"status": "a"}), happening(2, at=NOON + 1, facts={"status": "b"}))
    assert (call["status"], call["conflict"]) == ("b", False)


def test_bodies_that_differ_under_one_delivery_id_all_count() -> None:
    """What a platform calls a delivery's id may be the same each time; it is never a reason to drop a body."""
    first, second = (
        happening(number, at=NOON + number, delivery_id="wh_live_call_logged", facts=facts)
        for number, facts in ((1, Facts(status="a")), (2, Facts(summary="s")))
    )
    call = folded(first, second)
    assert (call["status"], call["summary"], call["event_count"]) == ("a", "s", 2)


# What follows from the rest


@pytest.mark.parametrize(
    ("told", "connection"),
    [
        ([(Stage.OTHER, None)], "unknown"),
        ([(Stage.PROGRESS, None)], "in_progress"),
        ([(Stage.PROGRESS, None), (Stage.OTHER, Connection.PERSON)], "in_progress"),
        ([(Stage.FINISHED, Connection.PERSON), (Stage.PROGRESS, Connection.IN_PROGRESS)], "person"),
        ([(Stage.FINISHED, Connection.BUSY), (Stage.FINISHED, Connection.MACHINE)], "machine"),
        ([(Stage.FINISHED, Connection.BUSY), (Stage.FINISHED, None)], "busy"),
        ([(Stage.PROGRESS, None), (Stage.FINISHED, None)], "unknown"),
    ],
)
def test_the_connection_is_the_latest_finished_events(
    told: list[tuple[Stage, Connection | None]], connection: str
) -> None:
    """Else a call that began is in progress, and other events alone tell nothing."""
    events = [
        happening(number, at=NOON + number, stage=stage, facts={} if said is None else {"connection": said})
        for number, (stage, said) in enumerate(told, 1)
    ]
    assert folded(*events)["connection"] == connection


@pytest.mark.parametrize(
    ("started_at", "happened_at", "counted_at"),
    [
        (None, [NOON, NOON + 5], NOON),
        (NOON, [NOON + 90 * SECOND], NOON),
        (NOON, [NOON + DAY], NOON),
        (NOON, [NOON + DAY + 1], NOON + DAY + 1),
        (NOON, [NOON - DAY - 1, NOON], NOON - DAY - 1),
    ],
    ids=["no start", "usual", "a day away", "over a day later", "over a day earlier"],
)
def test_a_call_counts_when_it_started_unless_that_is_far_from_its_earliest_event(
    started_at: Micros | None, happened_at: list[Micros], counted_at: Micros
) -> None:
    """Some platforms send start times that are years off."""
    facts: Facts = {} if started_at is None else {"started_at": started_at}
    assert (
        folded(*[happening(n, at=at, facts=facts) for n, at in enumerate(happened_at, 1)])["counted_at"] == counted_at
    )


def test_start_and_end_complete_each_other_through_the_duration() -> None:
    """Also where they come with different events."""
    duration = happening(1, facts={"duration_s": 90.5})
    assert folded(duration, happening(2, facts={"started_at": NOON}))["ended_at"] == NOON + 90_500_000
    assert folded(duration, happening(2, facts={"ended_at": NOON}))["started_at"] == NOON - 90_500_000


def test_what_was_sent_is_never_recomputed() -> None:
    """A platform's own duration may differ from end minus start."""
    call = folded(happening(1, facts={"started_at": NOON, "ended_at": NOON + 60 * SECOND, "duration_s": 55.0}))
    assert (call["started_at"], call["ended_at"], call["duration_s"]) == (NOON, NOON + 60 * SECOND, 55.0)


@pytest.mark.parametrize("phone", ["+49 30 123456", "004930123456", "4930123456"])
@pytest.mark.parametrize("field", ["caller_phone", "callee_phone"])
def test_calls_of_test_numbers_are_excluded(field: str, phone: str) -> None:
    """However the number is written, on whichever side it stands, and also where the platform says spam."""
    assert folded(happening(1, facts=cast(Facts, {field: phone, "excluded": Excluded.SPAM})))["excluded"] == "test"
    assert folded(happening(1, facts=cast(Facts, {field: phone + "7"})))["excluded"] is None


def test_spam_stays_excluded() -> None:
    """A later event that does not say so does not bring it back."""
    call = folded(happening(1, facts={"excluded": Excluded.SPAM}), happening(2, at=NOON + 1))
    assert call["excluded"] == "spam"


@pytest.mark.parametrize(
    ("judgement", "result"),
    [
        ("true", "met"),
        ("partial", "partly"),
        ("false", "not_met"),
        ("not_applicable", "not_applicable"),
        ("perhaps", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_synthflow_result_is_the_success_criterions(judgement: str | None, result: str) -> None:
    """Criteria of other names do not matter, nor does anything else of the call."""
    analysis = [judged("style", "false")] + ([] if judgement is None else [judged("won", judgement)])
    event = happening(1, facts={"disposition": "interested"}, analysis=analysis, provider="synthflow")
    assert folded(event, rules=msgspec.structs.replace(RULES, success_criterion="won"))["result"] == result


@pytest.mark.parametrize(
    ("disposition", "booked", "result"),
    [
        (None, False, "unknown"),
        (None, True, "met"),
        ("interested", False, "met"),
        ("Callback ", False, "partly"),
        ("callback", True, "met"),
        ("other", False, "unknown"),
    ],
)
def test_elsewhere_the_result_is_a_booking_then_the_mapped_disposition(
    disposition: str | None, booked: bool, result: str
) -> None:
    """A booking wins; dispositions are compared without case."""
    facts: Facts = {} if disposition is None else {"disposition": disposition}
    event = happening(1, facts=facts, appointments=[appointment(starts_at=NOON)] if booked else [])
    assert folded(event)["result"] == result


def test_nothing_known_gives_the_words_for_it() -> None:
    """Enums are `unknown`, all else is null, and nothing is 0."""
    call = folded(happening(1, stage=Stage.OTHER))
    assert (call["connection"], call["ended_by"], call["result"]) == ("unknown", "unknown", "unknown")
    assert (call["duration_s"], call["started_at"], call["cost_usd"], call["tags"]) == (None, None, None, None)
    assert (call["transferred"], call["conflict"]) == (False, False)


def test_all_orders_of_callsyncs_four_events_give_one_row() -> None:
    """The analysis may come before the call it judges."""
    names = ("call_logged", "recording_updated", "ai_analysis", "caller_updated")
    samples = {sample.name: sample.delivery for sample in samples_of(discover()["callsync"])}
    told = [(name, events_of(interpret(samples[name]))[0].event) for name in names]
    assert [name for name, _ in told] == [said.event for _, said in told]
    one_call = [msgspec.structs.replace(said, call_id="c1", org="acme") for _, said in told]
    calls = [
        folded(
            *(
                msgspec.structs.replace(happening(number, position=position), event=said)
                for position, (number, said) in enumerate(order, 1)
            )
        )
        for order in permutations(enumerate(one_call, 1))
    ]
    call = calls[0]
    assert all(other == call for other in calls)
    assert call["event_count"] == 4
    assert call["connection"] == "person"
