"""Every page is drawn, over a store with nothing in it and over one with a little of everything."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from structlog.testing import capture_logs

from analytics.query import Limits, Query
from analytics.store import Batch, DeliveryRow, Position, Store
from calls.errors import BrokerUnavailable
from calls.model import DeadLetter, Delivery, Rules, Trust, Verdict
from dashboard import part, words
from dashboard.pages import call_detail
from dashboard.pages.call_detail import turns
from dashboard.pages.sql import EXAMPLES
from ingest import relay_state
from ingest.relay_state import RelayState
from streams.kafka_state import KafkaState
from tests.dashboards import drawn, served, told
from tests.fixture_calls import counted, filled_store
from tests.serving import Serving, serving
from tests.storing import put_call
from tests.waiting import until

HOUR = 3_600_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An open, empty store."""
    opened = Store.open(tmp_path / "store.duckdb", rules=Rules())
    yield opened
    opened.close()


@pytest.fixture
def endpoint(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """What a dashboard asks."""
    with served(store, tmp_path, monkeypatch) as running:
        yield running


def ago(length: int = 0) -> int:
    """So long before now: the pages know the time, and other tests may have taken an hour since this file was read."""
    return time.time_ns() // 1000 - length


def put(store: Store, number: int, **fields: object) -> str:
    """One call in the store, of an hour ago; all that is not named is absent."""
    return put_call(store, number, received_at=ago(HOUR) + number, **fields)["call_id"]


def full(store: Store) -> None:
    """Thirty calls that have everything, and one that has nothing."""
    for number in range(1, 31):
        put(
            store, number, agent_id="a1", agent_name="Nova", direction="inbound", status="completed",
            end_call_reason="human_goodbye", result="met" if number % 3 else "not_met", duration_s=60.0 + number,
            caller_phone="+14155550123", caller_name="Ada", transcript="bot: Hello\nhuman: Hi there", transferred=True,
            tags=["a", "b"], cost_usd=0.25, started_at=ago(HOUR), ended_at=ago(HOUR) + 60_000_000,
            analysis=[{"criterion": "goal", "result": "true", "feedback": "because"}],
            variables=[
                {
                    "agent_id": "a1", "name": "city", "value": '"Bonn"', "value_text": "Bonn", "value_number": None,
                    "collected": True,
                }
            ],
            actions=[
                {
                    "name": "look_up", "action_type": "tool", "return_value": "{}", "error_message": None,
                    "happened_at": ago(HOUR),
                }
            ],
        )  # fmt: skip
    put(store, 31, connection="unknown")


PAGES = [
    ("overview", {}),
    ("overview", {"range": "24h", "zone": "Asia/Kathmandu", "provider": "aisync"}),
    ("overview", {"range": "custom", "from": "2026-01-01", "to": "2025-01-01"}),
    ("calls", {}),
    ("calls", {"find": "call-3", "sort": "changed"}),
    ("calls", {"call": "nobody"}),
    *(("calls", {"call": "aisync/acme/call-1", "show": show}) for show in (
        "transcript", "timeline", "analysis", "variables", "actions", "bookings", "raw")),
    ("calls", {"call": "aisync/acme/call-31"}),
    ("sql", {}),
    ("sql", {"sql": "SELECT * FROM calls"}),
    ("sql", {"sql": "nonsense"}),
]  # fmt: skip


@pytest.mark.parametrize(("page", "address"), PAGES)
def test_a_page_over_an_empty_store_is_drawn(page: str, address: dict[str, str], endpoint: Serving) -> None:
    """Nothing there is no error."""
    test = drawn(page, address)

    assert not test.exception
    assert "This page failed" not in told(test)


@pytest.mark.parametrize(("page", "address"), PAGES)
def test_a_page_over_a_small_store_is_drawn(
    page: str, address: dict[str, str], store: Store, endpoint: Serving
) -> None:
    """With calls that have everything and one that has nothing."""
    full(store)
    test = drawn(page, address)

    assert not test.exception
    assert not [error for error in test.error if "nonsense" not in str(address)]


@pytest.mark.parametrize(
    ("typed", "finds"),
    [
        ("100%", "%"), ("a_b", "_"), ("%", "%"), ("_", "_"), ("back\\slash", "%"), ("ÄRGER", "%"), ("rger 100", "%"),
        ("nova slash", "%"), ("axb", ""), ("100x", ""), ("+49 (0)30 5550-1234", "number"), ("30 5550", "number"),
        ("3055501", "number"), ("305559", ""), ("5550 x", ""), ("0165", "zero"), ("01 65", "zero"), ("0166", ""),
    ],
)  # fmt: skip
def test_words_are_found_as_they_are(typed: str, finds: str, store: Store, endpoint: Serving) -> None:
    """Signs that mean something in a pattern mean themselves; digits in a row are a number, however it is written."""
    put(store, 1, transcript="Ärger über 100% back\\slash", agent_name="Nova")
    put(store, 2, summary="a_b")
    put(store, 3, caller_phone="+49 30 5550 1234")
    put(store, 4, caller_phone="+14155550165")
    expected = {"%": {"call-1"}, "_": {"call-2"}, "number": {"call-3"}, "zero": {"call-4"}}.get(finds, set())

    found = told(drawn("calls", {"find": typed}))

    assert {f"call-{number}" for number in (1, 2, 3, 4) if f'/call-{number}"' in found} == expected


def test_the_person_of_a_call_is_not_the_number_that_dialled(store: Store, endpoint: Serving) -> None:
    """Of an outbound call whose platform names both, the one that was dialled; in the list and in the call."""
    numbers = {"caller_phone": "+12125550101", "callee_phone": "+16175550140"}
    put(store, 1, direction="outbound", **numbers)
    put(store, 2, direction="inbound", **numbers)

    listed = told(drawn("calls"))
    assert json.dumps(words.phone("+16175550140")) in listed
    assert json.dumps(words.phone("+12125550101")) in listed
    assert "+1 617-555-0140" in told(drawn("calls", {"call": "aisync/acme/call-1"}))
    assert "+1 212-555-0101" in told(drawn("calls", {"call": "aisync/acme/call-2"}))


def test_a_call_names_its_year_and_its_agent(store: Store, endpoint: Serving) -> None:
    """An agent without a name by its id, as in the list."""
    put(store, 1, agent_id="agent-of-no-name", counted_at=1_700_000_000_000_000)
    said = told(drawn("calls", {"call": "aisync/acme/call-1", "zone": "UTC"}))

    assert "Tue 14 Nov 2023 22:13:20 UTC" in said
    assert "agent-of-no-name" in said
    listed = drawn("calls", {"range": "custom", "from": "2023-11-14", "to": "2023-11-14", "zone": "UTC"})
    assert "Tue 14 Nov 2023 22:13:20" in told(listed)


def test_a_passport_names_the_platforms_that_are_not_in_its_number(store: Store, endpoint: Serving) -> None:
    """Of those that have calls in the range."""
    put(store, 1, provider="callsync")
    put(store, 2)
    notes = {name: one["note"] for name, one in _tiles(drawn()).items()}

    assert notes["transferred"].startswith("Not available from CallSync, whose calls are not in it. The change")
    assert "Not available" not in notes["attempts"]


def test_a_sparkline_ends_where_its_range_ends(store: Store, endpoint: Serving) -> None:
    """One busy day of seven is a peak between quiet days, and a share has no point on a day without calls."""
    fourth_of_january = 1_767_528_000_000_000
    for number in range(3):
        put(store, number, counted_at=fourth_of_january)
    week = {"zone": "UTC", "range": "custom", "from": "2026-01-01", "to": "2026-01-07"}
    points = {name: one["points"] for name, one in _tiles(drawn(address=week)).items()}

    assert points["attempts"] == [0, 0, 0, 3, 0, 0, 0]
    assert [value is None for value in points["connected"]] == [True, True, True, False, True, True, True]


def test_a_sparkline_of_a_count_leaves_out_the_day_that_is_not_over(store: Store, endpoint: Serving) -> None:
    """It would only look like a fall; a share is one already."""
    put(store, 1, counted_at=ago(3 * 24 * HOUR))
    points = {name: one["points"] for name, one in _tiles(drawn(address={"zone": "UTC"})).items()}

    assert (len(points["attempts"]), len(points["connected"])) == (6, 7)


def test_an_overview_without_calls_says_so_once(store: Store, endpoint: Serving) -> None:
    """With a way on, instead of seven empty charts of which each says the same."""
    full(store)
    test = drawn(address={"range": "custom", "from": "2020-01-01", "to": "2020-01-02"})

    assert [box.value.split(" (")[0] for box in test.info] == ["No calls in the range"]
    assert [button.label for button in test.button] == ["Show the last 90 days"]
    assert not test.get("vega_lite_chart")


@pytest.mark.parametrize("address", [{}, {"provider": "aisync"}, {"agent": "a1"}])
def test_what_no_platform_with_calls_sends_is_named(address: dict[str, str], store: Store, endpoint: Serving) -> None:
    """Whichever filter leads to its calls: no other range and no other filter would bring what is never sent."""
    put(store, 1, agent_id="a1")
    if address:
        put(store, 2, provider="synthflow", agent_id="b1", result="met", end_call_reason="voicemail")
    test = drawn(address=address)

    for what in ("end-call reasons", "analysis"):
        assert f"Not available from AI Sync: it does not send {what}." in [box.value for box in test.info]
    # Variables AI Sync does send: of those there are none in the range.
    assert len([box for box in test.info if "No collected variables in the range" in box.value]) == 1
    assert len(test.button) == 1


def test_what_a_platform_with_calls_may_send_is_not_called_unavailable(store: Store, endpoint: Serving) -> None:
    """Where one of several sends it, another range may well have it."""
    put(store, 1)
    put(store, 2, provider="synthflow")
    test = drawn()

    assert not [box for box in test.info if "Not available" in box.value]


def test_a_tile_names_the_platform_that_does_not_send_it(store: Store, endpoint: Serving) -> None:
    """Where all calls are of such platforms, though no platform is chosen."""
    put(store, 1, provider="callsync")

    assert _tiles(drawn())["transferred"]["base"] == "not available from CallSync"


def test_no_sign_that_turns_text_around_reaches_the_page_of_a_call(store: Store, endpoint: Serving) -> None:
    """Whichever field a platform or a caller sends it in: what stands behind it would read as something else."""
    sign = "\u202egnp.exe"
    texts = (
        "agent_name", "status", "end_call_reason", "custom_end_call_reason", "campaign", "disposition", "sentiment",
        "intent", "urgency", "transferred_to", "transfer_reason", "caller_name", "caller_email", "caller_phone",
        "transcript", "recording_url",
    )  # fmt: skip
    put(
        store, 1, **dict.fromkeys(texts, sign), summary=f"first {sign}\nsecond {sign}", tags=[sign],
        analysis=[{"criterion": sign, "result": sign, "feedback": sign}],
        variables=[
            {
                "agent_id": sign, "name": sign, "value": None, "value_text": sign, "value_number": None,
                "collected": True,
            }
        ],
        actions=[
            {
                "name": sign, "action_type": sign, "return_value": f'"{sign}"', "error_message": sign,
                "happened_at": ago(HOUR),
            }
        ],
        appointments=[
            {
                "starts_at": ago(), "ends_at": ago(), "service": sign, "caller_name": sign, "caller_phone": sign,
                "calendar_event_id": sign, "link": sign,
            }
        ],
        leads=[
            {
                "name": sign, "phone": sign, "email": sign, "intent": sign, "urgency": sign, "interest": sign,
                "summary": sign,
            }
        ],
    )  # fmt: skip

    assert "first gnp.exe\\nsecond gnp.exe" in told(drawn("calls", {"call": "aisync/acme/call-1"}))
    for show in call_detail.SECTIONS:
        said = told(drawn("calls", {"call": "aisync/acme/call-1", "show": show}))
        assert "gnp.exe" in said, show
        assert not re.search("\u202e|\\\\u202e", said), show


def test_words_of_another_name_are_not_put_into_the_agents_mouth() -> None:
    """Who it is may not be known: then the line stands by itself, with its name."""
    said = "Agent: Hello, am I speaking to Hugo Ito?\nHugo Ito: Yes.\nAgent: We have two:\nnine and ten"

    assert turns(said) == [
        ("agent", "Hello, am I speaking to Hugo Ito?"),
        ("", "Hugo Ito: Yes."),
        ("agent", "We have two:\nnine and ten"),
    ]


def test_an_overview_asks_all_its_numbers_at_once(store: Store, endpoint: Serving) -> None:
    """What is not prepared is asked one by one, each with a scan of its own."""
    full(store)
    test = drawn()
    # Cut by day, by hour, the period before, variables, left out; criteria; agents; the first call; freshness; what
    # came to the door; two for the filters.
    assert len(test.session_state["drawing"].asked) == 12


def test_the_example_of_missed_goals_gives_the_calls_that_missed_theirs(tmp_path: Path) -> None:
    """One row a call that counts as not met, with each criterion that it missed; other calls miss criteria, too."""
    expected = {
        truth.call_id: "; ".join(
            name if judged == "false" else f"{name} (partly)"
            for name, judged in truth.criteria.items()
            if judged in ("false", "partial")
        )
        for truth in counted()
        if truth.result == "not_met"
    }
    history = filled_store(tmp_path / "history.duckdb")
    rows = asked(history, EXAMPLES / "3-not-met-and-why.sql")
    history.close()

    assert {row["call_id"]: row["criteria_not_met"] or "" for row in rows} == expected
    assert len(rows) == len(expected)


def test_the_example_of_missed_goals_says_why(store: Store) -> None:
    """The judge's words beside each criterion, or the disposition where a platform does not judge."""
    missed = [("tone", "partial", "Cold."), ("goal", "false", "No date."), ("greeting", "true", "Warm.")]
    analysis = [{"criterion": name, "result": result, "feedback": why} for name, result, why in missed]
    put(store, 1, result="not_met", analysis=analysis)
    put(store, 2, result="not_met", disposition="not interested")
    rows = asked(store, EXAMPLES / "3-not-met-and-why.sql")

    assert [(row["disposition"], row["criteria_not_met"]) for row in rows] == [
        ("not interested", None),
        (None, "goal: No date.; tone (partly): Cold."),
    ]


def asked(store: Store, query: Path) -> list[dict[str, object]]:
    """A query as the SQL endpoint asks it."""
    rows: list[dict[str, object]] = Query(store.cursor, query.read_text(), {}, Limits()).run().table.to_pylist()
    return rows


NAMED = 'it\'s "goal" -- ?'


@pytest.mark.parametrize(
    ("narrowed", "left"),
    [
        ({"criterion": NAMED}, "12"),
        ({"criterion": NAMED, "judged": "false"}, "2"),
        ({"criterion": "tone", "judged": "false"}, "1"),
        ({"judged": "false"}, "12"),
        ({"variable": "city"}, "12"),
        ({"variable": "city", "filled": "yes"}, "1"),
        ({"variable": "city", "filled": "no"}, "2"),
        ({"criterion": "tone", "variable": "city", "filled": "no"}, ""),
        ({"counted": "yes"}, "123"),
        ({"counted": "no"}, "4"),
        ({"criterion": "nobody's", "variable": "x", "filled": "maybe"}, "1234"),
    ],
)
def test_calls_are_narrowed_by_what_was_judged_and_collected(
    narrowed: dict[str, str], left: str, store: Store, endpoint: Serving
) -> None:
    """By a criterion and its result, a variable and whether it has a value; one row of the list must have both."""
    put(store, 1, analysis=[judged(NAMED, "true"), judged("tone", "false")], variables=[collected("city", "Bonn")])
    put(store, 2, analysis=[judged(NAMED, "false")], variables=[collected("city", " ")])
    put(store, 3)
    put(store, 4, excluded="test")
    test = drawn("calls", narrowed)

    assert not test.exception
    assert {f"call-{number}" for number in left} == set(re.findall(r'"aisync/acme/(call-\d)"', told(test)))


def judged(criterion: str, result: str) -> dict[str, str]:
    return {"criterion": criterion, "result": result, "feedback": ""}


def collected(name: str, text: str) -> dict[str, object]:
    return {
        "agent_id": None, "name": name, "value": json.dumps(text), "value_text": text, "value_number": None,
        "collected": True,
    }  # fmt: skip


def test_what_narrows_is_seen_and_can_be_taken_away(store: Store, endpoint: Serving) -> None:
    """Each in a list of its own, with its words; what would say nothing alone is offered with the other only."""
    full(store)
    test = drawn("calls", {"criterion": "goal", "judged": "true", "counted": "yes"})
    assert {"Criterion": "goal", "Judged": "met", "In the numbers": "counted"}.items() <= chosen(test).items()

    next(box for box in test.selectbox if box.label == "Judged").select("").run()
    assert address_of(test) == {"criterion": "goal", "counted": "yes"}
    assert {"Judged", "Filled", "In the numbers"}.isdisjoint(chosen(drawn("calls")))


def chosen(test: AppTest) -> dict[str, str]:
    """What the lists of a page say."""
    return {box.label: box.options[box.index or 0] for box in test.selectbox}


def test_no_choice_is_empty_or_not_a_number(store: Store, endpoint: Serving) -> None:
    """Calls without agent, name, direction or reason offer none to choose."""
    put(store, 1)
    put(store, 2, agent_id="a2")
    test = drawn("calls")

    for box in test.selectbox:
        assert not {"nan", "None", "NaN", ""} & set(box.options), box.label
    agent = next(box for box in test.selectbox if box.label == "Agent")
    assert agent.options == ["All", "a2"]


def test_one_client_can_be_looked_at(store: Store, endpoint: Serving) -> None:
    """An agency's clients share platforms, so neither platform nor agent tells them apart; the heading says which."""
    for number, org in enumerate(["acme", "beta", "beta"], 1):
        put(store, number, org=org)
    whole, part = drawn(), drawn(address={"org": "beta"})

    (client,) = [box for box in whole.selectbox if box.label == "Client"]
    assert client.options == ["All", "acme", "beta"]
    assert (_attempts(whole), _attempts(part)) == ("3", "2")
    assert "client: beta" in told(part)


@pytest.mark.parametrize("more", [{}, {"provider": "callsync", "org": "org_1"}])
def test_no_clients_are_offered_where_there_are_none(more: dict[str, str], store: Store, endpoint: Serving) -> None:
    """One org, or one a platform (its own id of the account), would be a list that narrows nothing."""
    put(store, 1)
    put(store, 2, **more)

    assert "Client" not in {box.label for box in drawn().selectbox}


def test_agents_of_one_name_are_told_apart(store: Store, endpoint: Serving) -> None:
    """By their ids; two equal lines in a list cannot be chosen between."""
    for number, agent in enumerate(["a1", "a2", "a3"], 1):
        put(store, number, agent_id=agent, agent_name="Reception" if number < 3 else "Sales")
    agent_box = next(box for box in drawn().selectbox if box.label == "Agent")

    assert agent_box.options == ["All", "Reception (a1)", "Reception (a2)", "Sales"]


def test_the_heading_names_what_is_chosen(store: Store, endpoint: Serving) -> None:
    """A list's field is too narrow for a long name."""
    name = "Harbour Dental reception, Bremerhaven branch"
    put(store, 1, agent_id="a1", agent_name=name)
    said = told(drawn("calls", {"agent": "a1", "provider": "aisync", "zone": "UTC"}))

    for words_of_it in ("Last 7 days, UTC", "platform: AI Sync", f"agent: {name}"):
        assert words_of_it in said


def test_an_empty_store_says_how_to_begin(endpoint: Serving) -> None:
    """Two lines to copy, and no chart."""
    test = drawn()

    assert "No call has been received yet" in told(test)
    assert {code.value for code in test.code} == {"calltally sources add", "calltally send synthflow --count 20"}


def test_a_wrong_address_is_mended(store: Store, endpoint: Serving) -> None:
    """Each wrong value gives way to the first choice; the right ones stay."""
    full(store)
    wrong = {"range": "1y", "zone": "x", "provider": "y", "agent": "a1", "direction": "", "page": "x", "sort": "'; --"}
    test = drawn("calls", wrong)

    assert not test.exception
    assert address_of(test) == {"agent": "a1"}


def test_a_new_version_is_drawn_with_new_numbers(store: Store, endpoint: Serving) -> None:
    """What was asked of the version before is asked again, and shown."""
    full(store)
    test = drawn()
    assert _attempts(test) == "31"

    put(store, 99)
    until(lambda: _attempts(test.run()) == "32")


def test_figures_stay_while_the_worker_is_away(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is drawn from what is known, says of when that is, and goes on when the worker is back."""
    full(store)
    with served(store, tmp_path, monkeypatch) as first:
        port = int(first.url.rpartition(":")[2])
        test = drawn()
        assert _attempts(test) == "31"
    # `served` has cleared what is kept: a page that knows nothing says so, without a traceback.
    test = drawn()
    assert not test.exception
    assert "No worker answers" in told(test)
    with serving(store, port=port):
        until(lambda: _attempts(test.run()) == "31")


def test_a_query_while_the_worker_is_away_says_what_brings_it_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks may not know what a connection is; the answer comes once the worker is back."""
    full(store)
    with served(store, tmp_path, monkeypatch):
        with serving(store) as first:
            monkeypatch.setenv("CALLTALLY_SQL_URL", first.url)
            test = drawn("sql")
            assert not test.error
        test.query_params["sql"] = "SELECT count(*) AS n FROM calls"
        (error,) = test.run().error
        assert error.value.startswith("The worker does not answer")
        assert "calltally up" in error.value
        assert "127.0.0.1" not in error.value
        with serving(store, port=int(first.url.rpartition(":")[2])):
            until(lambda: not test.run().error)


def test_a_worker_that_lags_is_told_of(store: Store, endpoint: Serving) -> None:
    """The number of webhooks that are not counted yet stands in the heading; a rebuild is explained."""
    full(store)
    endpoint.state.journal_position = endpoint.state.position + 12
    assert "12 behind" in told(drawn())

    endpoint.state.rebuilding = True
    until(lambda: "being made again" in told(drawn()))


@pytest.mark.parametrize(
    ("url", "opens"),
    [
        ("https://platform.example/1.mp3", True),
        ("http://169.254.169.254/latest/meta-data", False),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        (" https://platform.example/1.mp3", False),
    ],
)
def test_a_recording_is_a_link_only_over_https(store: Store, endpoint: Serving, url: str, opens: bool) -> None:
    """Anything else is shown as the text it is; neither is ever fetched from here."""
    put(store, 1, recording_url=url)
    test = drawn("calls", {"call": "aisync/acme/call-1"})

    assert not test.exception
    assert [link.proto.url for link in test.get("link_button")] == ([url] if opens else [])
    assert ("it is no https address" in told(test)) is not opens


def test_an_error_that_nobody_foresaw_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log gets the traceback, the page nothing of it."""

    def page() -> None:
        from dashboard.serve import _page_failed

        _page_failed(RuntimeError("a detail of the inside"))

    with capture_logs() as logged:
        test = AppTest.from_function(page).run()
    assert "This page failed" in test.error[0].value
    assert "a detail" not in told(test)
    assert [line["event"] for line in logged] == ["a page failed"]


def test_a_mistake_of_calltally_is_told_of_until_it_is_mended(store: Store, endpoint: Serving) -> None:
    """On every page that shows numbers; what senders do wrong is none."""
    full(store)
    dead(store, 1, "not_json")
    assert "mistake of Calltally" not in told(drawn())

    dead(store, 2, "normaliser_failed")
    for page in ("overview", "calls"):
        said = told(drawn(page))
        assert "1 received webhook could not be understood by a mistake of Calltally" in said
        assert "calltally dead retry" in said


def test_refused_webhooks_of_a_source_are_told_of(store: Store, endpoint: Serving) -> None:
    """A wrong secret shows on the page and not only in numbers that stand still; the step is a line to type."""
    full(store)
    refuse(store, 1, count=25)

    for page in ("overview", "calls"):
        said = "".join(box.value for box in drawn(page).warning)
        assert said.startswith("25 webhooks of aisync were refused since")
        assert "(signature wrong) and none accepted." in said
        assert "calltally doctor" in said


def test_a_refused_webhook_at_a_store_without_calls_is_told_of(store: Store, endpoint: Serving) -> None:
    """A secret that was wrong from the first webhook on, where the page only says how to begin."""
    refuse(store, 1, count=3)

    assert "3 webhooks of aisync were refused since" in told(drawn())


def test_a_few_strangers_are_no_warning(store: Store, endpoint: Serving) -> None:
    """One or two requests, a scanner's wrong method, and a few among many that were proved."""
    refuse(store, 1, count=2)
    refuse(store, 2, count=90, reason="method_not_allowed", source="callsync")
    for position in range(3, 31):
        accept(store, position, source="synthflow")
    refuse(store, 31, count=3, source="synthflow")

    assert not drawn().warning


def test_what_was_refused_before_the_last_proved_webhook_is_told_of_for_an_hour(
    store: Store, endpoint: Serving
) -> None:
    """With two senders of a source one may have the wrong secret; a secret that was put right is old news."""
    refuse(store, 1, count=25, received_at=ago(3 * HOUR), source="callsync")
    accept(store, 2, received_at=ago(2 * HOUR), source="callsync")
    assert not drawn().warning

    refuse(store, 3, count=4, received_at=ago(HOUR // 2))
    accept(store, 4)
    said = "".join(box.value for box in drawn().warning)
    assert said.startswith("4 webhooks of aisync were refused since")
    assert "none accepted" not in said


def test_a_secret_that_was_put_right_is_no_warning(store: Store, endpoint: Serving) -> None:
    """What was refused is accepted out of quarantine, with its own time."""
    moment = ago(HOUR // 2)
    refuse(store, 1, count=5, received_at=moment)
    assert drawn().warning

    for position in range(2, 7):
        accept(store, position, received_at=moment)
    assert not drawn().warning


def test_webhooks_that_could_not_be_read_stand_in_the_heading(store: Store, endpoint: Serving) -> None:
    """With the most frequent reason; those of older days do not."""
    full(store)
    dead(store, 1, "no_call_id", received_at=ago(25 * HOUR))
    assert "could not be read" not in told(drawn())

    for position in (2, 3):
        dead(store, position, "not_json")
    assert "2 webhooks of the last 24 h could not be read (not json)" in told(drawn())


def refuse(
    store: Store,
    position: int,
    *,
    count: int,
    reason: str = "signature_wrong",
    source: str = "aisync",
    received_at: int | None = None,
) -> None:
    received = ago(HOUR // 2) if received_at is None else received_at
    at_the_door(store, position, Verdict.REFUSED, reason, count, source, received)


def accept(store: Store, position: int, *, source: str = "aisync", received_at: int | None = None) -> None:
    received = ago() if received_at is None else received_at
    at_the_door(store, position, Verdict.ACCEPTED, None, 1, source, received)


def at_the_door(
    store: Store, position: int, verdict: Verdict, reason: str | None, count: int, source: str, received_at: int
) -> None:
    row = DeliveryRow(
        id=None, position=position, journal_id="j8", source=source, provider=source, verdict=verdict, reason=reason,
        trust=None, bytes=100, count=count, received_at=received_at,
    )  # fmt: skip
    store.apply(Batch(positions=[Position("journal", "j8", position)], deliveries=[row], applied_at=ago() + position))


def dead(store: Store, position: int, reason: str, *, received_at: int | None = None) -> None:
    received = ago() if received_at is None else received_at
    lost = Delivery(
        source="aisync", provider="aisync", org="", body=b"{}", headers={}, received_at=received, trust=Trust.B,
        journal_id="j9", position=position,
    )  # fmt: skip
    letter = DeadLetter(reason=reason, detail="Why.", delivery=lost)
    store.apply(Batch(positions=[Position("journal", "j9", position)], dead_letters=[letter], applied_at=ago()))


def test_what_is_on_its_way_through_kafka_is_told_of(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much is not published and why, how much waits for the worker and where; nothing while nothing waits."""
    full(store)
    state = KafkaState(running=True)
    state.partitions = {("calltally.deliveries", 0): 120, ("calltally.deliveries", 1): 3, ("calltally.notices", 0): 0}
    with served(store, tmp_path, monkeypatch, state=state), relay_state.only_one(tmp_path):
        relay = RelayState(position=5, journal_position=12, running=True)
        relay_state.write(relay.report(), tmp_path)
        said = told(drawn())
        assert "7 not in Kafka yet" in said
        assert "123 waiting in Kafka, 120 of them in calltally.deliveries 0" in said

        relay.failed(BrokerUnavailable("Kafka is away."))
        relay_state.write(relay.report(), tmp_path)
        until(lambda: "7 not in Kafka yet (Kafka takes nothing now)" in told(drawn()))

        state.fault = BrokerUnavailable("Kafka is away: 127.0.0.1:1 cannot be reached.")
        until(lambda: "cannot be reached" in (said := told(drawn())) and "numbers are not complete" in said)

        state.fault, state.partitions = None, dict.fromkeys(state.partitions, 0)
        relay_state.write(RelayState(position=12, journal_position=12, running=True).report(), tmp_path)
        until(lambda: "Kafka" not in told(drawn()))


def address_of(test: AppTest) -> dict[str, str]:
    """What the address holds; a test's own values are lists."""
    found = {name: value if isinstance(value, str) else value[0] for name, value in test.query_params.items()}
    return {name: value for name, value in found.items() if value}


def _attempts(test: AppTest) -> str:
    shown = _tiles(test)
    return shown["attempts"]["figure"] if shown else ""


def _tiles(test: AppTest) -> dict[str, part.TileData]:
    """What the tiles say, by metric."""
    shown = (json.loads(element.proto.json or "{}") for element in test.get("bidi_component"))
    return {tile["name"]: tile for told in shown for tile in told.get("tiles", ())}
