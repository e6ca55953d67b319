"""Cards and reports, made of a real store."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from analytics.metric import RELATIONS, Filters, Parameter, catalogue, interval
from analytics.query import Limits, Query
from analytics.store import Position, Store
from calls.model import Delivery
from calls.provider import named
from dashboard import cards, narrowing, report, words
from dashboard.reader import StoreReader
from dashboard.view import View, of_days
from streams.apply import Applier
from tests.fixture_calls import ODD_AGENT, RULES, START, counted, filled_store, micros

ZONE = "Europe/Berlin"
MADE_AT = datetime(2025, 11, 3, 10, tzinfo=UTC)
METRICS = catalogue()
LIMITS = Limits()
TRUTHS = counted()
CANARIES = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://evil.example")',
    "[click](http://evil.example) **bold**",
    "\u202egnp.exe",
    "{{ 7 * 7 }}",
    "</svg><style>*{display:none}</style>",
)


def view(
    first: date = date(2025, 10, 20), last: date = date(2025, 11, 3), only: Mapping[str, tuple[str, ...]] | None = None
) -> View:
    return of_days(first, last, zone=ZONE, only=only or {}, now=MADE_AT)


def reader_of(store: Store) -> StoreReader:
    def query(sql: str, params: Mapping[str, Parameter]) -> pa.Table:
        return Query(store.cursor, sql, params, LIMITS).run().table

    return StoreReader(query, METRICS)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreReader]:
    """Reads the fixture's history."""
    store = filled_store(tmp_path_factory.mktemp("report") / "store.duckdb")
    yield reader_of(store)
    store.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreReader]:
    """Reads a store in which nothing has arrived."""
    store = Store.open(tmp_path_factory.mktemp("empty") / "store.duckdb", rules=RULES)
    yield reader_of(store)
    store.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreReader]:
    """Reads calls whose every name is one of the canaries."""
    store = Store.open(tmp_path_factory.mktemp("hostile") / "store.duckdb", rules=RULES)
    deliveries = [_hostile_delivery(number, canary) for number, canary in enumerate(CANARIES, 1)]
    Applier(store, RULES).apply(deliveries, [Position("journal", "j", len(deliveries))])
    yield reader_of(store)
    store.close()


def _hostile_delivery(number: int, canary: str) -> Delivery:
    body = {
        "status": "completed",
        "call": {
            "call_id": f"c{number}", "status": "completed", "end_call_reason": canary, "model_id": canary,
            "start_time": f"2025-10-2{number}T10:00:00+00:00", "duration": 60,
        },
        "analysis": {canary: "true", "goal": canary},
        "collected_variables": {canary: {"value": canary, "collected": True}},
    }  # fmt: skip
    return Delivery(
        source="synthflow", provider="synthflow", org="", body=json.dumps(body).encode(), headers={},
        received_at=micros(datetime(2025, 10, 28, tzinfo=UTC)) + number, trust=named("synthflow").scheme.trust,
        journal_id="j", position=number,
    )  # fmt: skip


def page(
    reader: StoreReader,
    shown: View | None = None,
    *,
    title: str = "Call outcomes",
    demo: bool = False,
    names: Mapping[str, str] | None = None,
) -> str:
    seen = shown or view()
    head = report.header(seen, title=title, names=names or {}, made_at=MADE_AT, demo=demo)
    return report.html(reader, seen, head, names or {})


class Outline(HTMLParser):
    """The tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_a_report_needs_nothing_from_outside(reader: StoreReader) -> None:
    """It opens on a plane: no script, no font, no picture, no style is loaded, and none could be."""
    text = page(reader)
    outline = Outline(text)
    tags = {tag for tag, _ in outline.tags}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base", "foreignobject"})
    for _, attributes in outline.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "xlink:href")}
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    (policy,) = [a["content"] for tag, a in outline.tags if tag == "meta" and a.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_a_report_says_what_it_is_of(reader: StoreReader) -> None:
    """Name, range, zone, filters for people and the time it was made."""
    shown = view(only={"provider": ("aisync",), "agent_id": ("agent_nova",)})
    text = Outline(page(reader, shown, title="Harbour Dental", names={"agent_nova": "Nova"})).text
    assert "Harbour Dental 20 Oct 2025 to 3 Nov 2025, Europe/Berlin · platform: AI Sync · agent: Nova" in text
    assert "made 3 Nov 2025, 11:00" in text
    assert "Demo data" not in text


def test_a_report_of_demo_data_says_so(reader: StoreReader) -> None:
    """Nobody takes made-up calls for theirs."""
    assert "Demo data: made-up calls." in Outline(page(reader, demo=True)).text


def test_a_report_has_a_picture_for_each_card(reader: StoreReader) -> None:
    """As SVG, with its words as text."""
    text = page(reader)
    assert text.count("<svg") == 6
    for word in ("voicemail_message_left", "user_name", "still open", "InboundFlow", "not met"):
        assert word in text


def test_a_report_shows_the_numbers_of_the_store(reader: StoreReader) -> None:
    """The same as counting the calls gives."""
    outline = Outline(page(reader)).text
    start, end = view().filters.start, view().filters.end
    truths = [truth for truth in TRUTHS if start <= micros(truth.at) < end]
    told = [truth for truth in truths if truth.provider not in METRICS["connected"].not_available_from()]
    done = [truth for truth in told if truth.connection != "in_progress"]
    reached = sum(truth.connection == "person" for truth in done)
    low, high = interval(reached, len(done))
    assert f"Attempts {len(truths)}" in outline
    assert f"{reached} of {len(done)} · {low * 100:.1f}–{high * 100:.1f}" in outline


def test_a_report_explains_its_numbers(reader: StoreReader) -> None:
    """Every tile's definition, what changes are against, and who is not in it."""
    text = Outline(page(reader)).text
    for name in ("attempts", "connected", "goal_met", "booked", "transferred", "talk_time"):
        assert METRICS[name].about in text
    assert "Against 29 Sep 2025 to 13 Oct 2025 (3 weeks before)" in text
    assert "Not available from CallSync and Synthflow, whose calls are not in it." in text
    assert "Wilson 95 % interval" in text
    assert "Left out of all numbers: 1 spam call and 2 test calls." in text


def test_a_report_explains_the_words_of_the_platforms(reader: StoreReader) -> None:
    """Paper has no tooltips."""
    assert "voicemail_message_left left a message on a voicemail" in Outline(page(reader)).text


def test_a_report_of_nothing_is_readable(empty: StoreReader) -> None:
    """No numbers, no empty frames, no 0 %."""
    text = Outline(page(empty)).text
    assert "nothing to measure" in text
    assert text.count("No calls in the range (20 Oct 2025 to 3 Nov 2025).") == 4
    assert "No analysis in the range (20 Oct 2025 to 3 Nov 2025)." in text
    assert "More numbers" not in text
    assert "nan" not in text.lower().replace("finance", "")
    assert "0 %" not in text


def test_a_report_of_a_platform_that_does_not_tell_says_so(reader: StoreReader) -> None:
    """CallSync knows neither goals nor bookings nor transfers."""
    text = Outline(page(reader, view(only={"provider": ("callsync",)}))).text
    assert text.count("not available from CallSync") >= 3
    assert "Not available from CallSync: it does not send end-call reasons." in text


def test_an_empty_card_names_the_platform_whichever_filter_led_to_it(reader: StoreReader) -> None:
    """A client or an agent of a platform that never sends it has no analysis in any range."""
    text = Outline(page(reader, view(only={"agent_id": ("emp-1",)}))).text
    assert "Not available from CallSync: it does not send collected variables." in text


def test_names_cannot_act(hostile: StoreReader) -> None:
    """Names that are markup, templates, links or turn the direction stand in the report as text."""
    shown = view(only={"agent_id": CANARIES})
    text = page(hostile, shown, title=CANARIES[0], names={CANARIES[2]: CANARIES[1]})
    outline = Outline(text)
    assert not {"script", "img", "a"} & {tag for tag, _ in outline.tags}
    assert [tag for tag, _ in outline.tags].count("style") == 1
    assert "\u202e" not in text
    assert "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", outline.text)
    assert "{{ 7 * 7 }}" in outline.text
    assert text.count("<svg") == text.count("</svg>") == 6


def test_the_rows_of_a_report_are_all_metrics_of_both_periods(reader: StoreReader) -> None:
    """With counts and intervals, and without numbers where there are none."""
    rows = report.rows(reader, view(), METRICS).to_pylist()
    assert [(row["metric"], row["period"]) for row in rows] == [(m, p) for m in METRICS for p in ("range", "before")]
    found = {(row["metric"], row["period"]): row for row in rows}
    connected = found["connected", "range"]
    assert connected["low"] < connected["value"] < connected["high"]
    assert connected["start"] == datetime(2025, 10, 19, 22, tzinfo=UTC)
    assert found["attempts", "range"]["low"] is None
    assert found["talk_time_median", "range"]["value"] > 0
    assert found["cost", "range"]["value"] is None
    assert found["attempts", "before"]["n"] == 0


def told(reader: StoreReader) -> tuple[pa.Table, report.Header]:
    shown = view(only={"agent_id": ("agent_nova",)})
    head = report.header(shown, title="Harbour *Dental*", names={"agent_nova": "Nova"}, made_at=MADE_AT, demo=True)
    return report.rows(reader, shown, METRICS), head


def test_the_rows_for_programs_are_fractions_in_utc(reader: StoreReader) -> None:
    """And say so: 0.863 with the unit % would be read as less than one per cent."""
    table, _ = told(reader)
    (connected,) = [row for row in table.to_pylist() if (row["metric"], row["period"]) == ("connected", "range")]
    assert connected["unit"] == report.FRACTION
    assert connected["value"] == connected["numerator"] / connected["denominator"]
    assert str(table.schema.field("start").type) == "timestamp[us, tz=UTC]"


def test_a_report_in_markdown_is_for_people(reader: StoreReader) -> None:
    """Its head says what it is of; shares are per cent with a decimal, days begin at midnight of the zone."""
    table, head = told(reader)
    text = report.markdown(table, ZONE, head).decode()
    (connected,) = [row for row in table.to_pylist() if (row["metric"], row["period"]) == ("connected", "range")]
    percent, low = (f"{round(connected[name] * 100, 1):g}" for name in ("value", "low"))

    assert text.startswith(
        "# Harbour \\*Dental\\*\n\n20 Oct 2025 to 3 Nov 2025, Europe/Berlin · agent: Nova · made 3 Nov 2025, 11:00\n\n"
        "Demo data: made-up calls.\n\n| metric |"
    )
    assert f"| connected | Connected | % | range | 2025-10-20 00:00:00 | 2025-11-04 00:00:00 | {percent} | " in text
    assert f" | {low} | " in text
    assert not re.search(r"\d\.\d{3}", text)


def test_a_report_as_a_workbook_says_what_it_is_of(reader: StoreReader) -> None:
    """On a first sheet: rows of numbers alone are taken for those of another month or client."""
    table, head = told(reader)
    with zipfile.ZipFile(io.BytesIO(report.workbook(table, ZONE, head))) as book:
        names = re.findall(r'<sheet name="([^"]*)"', book.read("xl/workbook.xml").decode())
        texts = re.findall(r"<t>([^<]*)</t>", book.read("xl/sharedStrings.xml").decode())

    assert names == ["About", "Harbour  Dental"]
    assert {"Harbour *Dental*", "20 Oct 2025 to 3 Nov 2025, Europe/Berlin", "Agent", "Nova", "3 Nov 2025, 11:00"} <= {
        *texts
    }
    assert "start (Europe/Berlin)" in texts


def test_the_rows_of_nothing_have_no_numbers(empty: StoreReader) -> None:
    """Null, not 0."""
    assert {row["value"] for row in report.rows(empty, view(), METRICS).to_pylist()} == {None}


def filters(**only: tuple[str, ...]) -> Filters:
    return Filters(start=view().filters.start, end=view().filters.end, zone=ZONE, only=only)


def test_reasons_are_shares_of_the_calls_with_a_reason(reader: StoreReader) -> None:
    """Most frequent first, in the platform's words, with their meaning."""
    card = cards.reasons(reader, filters())
    values = [row["value"] for row in card.rows]
    assert sum(values) == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    hints = {row["label"]: row["hint"] for row in card.rows}
    assert hints["voicemail"] == "reached a voicemail"
    assert card.base.startswith("share of ")


def test_few_reasons_are_counts(reader: StoreReader) -> None:
    """Under twenty calls there is no rate."""
    card = cards.reasons(reader, filters(agent_id=(ODD_AGENT,)))
    assert all(re.fullmatch(r"\d+ of \d+", row["text"]) for row in card.rows)


def test_analysis_leaves_not_applicable_out(reader: StoreReader) -> None:
    """The parts of a criterion add up to its judged calls."""
    card = cards.analysis(reader, filters())
    judged = {row["criterion"]: row["n"] for row in card.rows}
    for criterion, n in judged.items():
        assert sum(row["calls"] for row in card.rows if row["criterion"] == criterion) == n
    assert {row["result"] for row in card.rows} == {"true", "partial", "false"}


def test_a_new_word_of_the_judge_is_told(hostile: StoreReader) -> None:
    """It is in no share, and the note says so."""
    assert "words that the platform newly sends: " in cards.analysis(hostile, filters()).note


def test_agents_stand_side_by_side(reader: StoreReader) -> None:
    """By calls, with names where they are known; a number that a platform does not send is not 0."""
    card = cards.agents(reader, filters(), {"agent_nova": "Nova"})
    counts = [int(row["Calls"].replace(words.THIN, "")) for row in card.rows]
    assert counts == sorted(counts, reverse=True)
    rows = {row["Agent"]: row for row in card.rows}
    assert rows["emp-1"]["Booked"] == "not available"
    assert rows["emp-1"]["Transferred"] == "not available"
    assert {"Nova", ODD_AGENT, cards.WITHOUT_AGENT} <= set(rows)
    calls = sum(micros(START) <= micros(t.at) < filters().end and t.agent == "agent_nova" for t in TRUTHS)
    assert rows["Nova"]["Calls"] == words.count(calls)


def test_many_agents_are_cut_off_with_a_word(reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the first twenty for all."""
    monkeypatch.setattr(cards, "AGENTS_MOST", 2)
    card = cards.agents(reader, filters(), {})
    assert len(card.rows) == 2
    assert card.note == "5 more agents are not shown"


def test_a_chart_that_begins_before_the_first_call_says_so(reader: StoreReader) -> None:
    """Its empty beginning is no silence; a range that begins later needs no word."""
    first = min(truth.at for truth in TRUTHS)
    early, late = (view(first=(first + timedelta(days=days)).date()) for days in (-9, 2))
    said = cards.outcomes(reader, early.filters, early.bucket).note
    assert said == f"The first call ever is of {words.day(first, ZONE)}; nothing was received before it"
    assert cards.outcomes(reader, late.filters, late.bucket).note == ""


def test_hours_are_those_of_the_zone(reader: StoreReader) -> None:
    """The calls at half past two in the night of the change are all at two."""
    rows = {(row["weekday"], row["hour"]): row["value"] for row in cards.hours(reader, filters()).rows}
    assert sum(rows.values()) == sum(filters().start <= micros(t.at) < filters().end for t in TRUTHS)
    assert rows[6, 2] >= 3


def test_all_cards_of_nothing_are_empty(empty: StoreReader) -> None:
    """A page shows why instead."""
    made = [
        cards.outcomes(empty, filters(), "day"), cards.reasons(empty, filters()), cards.analysis(empty, filters()),
        cards.variables(empty, filters()), cards.hours(empty, filters()), cards.platforms(empty, filters()),
        cards.agents(empty, filters(), {}),
    ]  # fmt: skip
    assert not any(card.rows for card in made)
    assert cards.left_out(empty, filters()) == ""


def test_a_passport_runs_as_it_stands(reader: StoreReader) -> None:
    """With values written in, whatever they look like."""
    metric = METRICS["attempts"]
    asked = filters(agent_id=(ODD_AGENT, "$zone", "'", "$only_agent_id_0"))
    sql = cards.filled_in(*metric.sql(asked, bucket="day"))
    rows = reader.ask(f"SELECT coalesce(sum(value), 0) AS value FROM ({sql})")
    (whole,) = reader.measure("attempts", asked)
    assert rows == [{"value": whole.value}]
    assert whole.value


def test_a_reader_gives_local_times_without_a_zone(reader: StoreReader) -> None:
    """Charts show wall clocks."""
    rows = reader.measure("attempts", filters(), bucket="day")
    assert {(row.bucket.tzinfo, row.bucket.hour) for row in rows if row.bucket} == {(None, 0)}
    assert reader.measure("cost", filters(), bucket="day") == []


def test_a_report_is_written_whole(reader: StoreReader, tmp_path: Path) -> None:
    """It is UTF-8 that any browser reads, from its first line on."""
    path = tmp_path / "report.html"
    path.write_text(page(reader), encoding="utf-8")
    assert path.read_bytes().startswith(b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">')


@pytest.mark.parametrize("bucket", ["day", "week", "month"])
def test_a_bar_of_the_outcomes_leads_to_as_many_calls_as_it_shows(reader: StoreReader, bucket: str) -> None:
    """Also where a week or a month begins before the range, or ends after it."""
    bars = cards.outcomes(reader, view().filters, bucket).rows

    assert len(bars) > 5
    assert [led_to(reader, bar["narrow"]) for bar in bars] == [bar["value"] for bar in bars]


def test_a_bar_of_an_hour_leads_to_all_such_calls_of_the_range(reader: StoreReader) -> None:
    """The list knows whole days, and the tooltip says what a click gives."""
    bars = cards.outcomes(reader, view().filters, "hour").rows
    persons = [bar for bar in bars if bar["slice"] == "person"]

    assert {bar["click"] for bar in bars} == {"for all such calls in the range"}
    assert {led_to(reader, bar["narrow"]) for bar in persons} == {sum(bar["value"] for bar in persons)}


def test_every_other_bar_leads_to_as_many_calls_as_it_shows(reader: StoreReader) -> None:
    """A reason to end, a result of a criterion, a variable that was filled, a platform."""
    filters = view().filters
    reasons = {row.slice: row.value for row in reader.measure("attempts", filters, slice_by="end_call_reason")}
    filled = {row.slice: row.numerator for row in reader.measure("fill_rate", filters, slice_by="name")}
    known = [bar for bar in cards.reasons(reader, filters).rows if bar["narrow"]]
    judged, asked = cards.analysis(reader, filters).rows, cards.variables(reader, filters).rows
    platforms = cards.platforms(reader, filters).rows

    assert [led_to(reader, bar["narrow"]) for bar in known] == [reasons[bar["label"]] for bar in known]
    assert [led_to(reader, bar["narrow"]) for bar in judged] == [bar["calls"] for bar in judged]
    assert [led_to(reader, bar["narrow"]) for bar in asked] == [filled[bar["label"]] for bar in asked]
    assert [led_to(reader, bar["narrow"]) for bar in platforms] == [bar["value"] for bar in platforms]
    assert all(map(len, (known, judged, asked, platforms)))


def test_names_that_look_like_sql_lead_to_their_calls(hostile: StoreReader) -> None:
    """Whatever a platform calls a reason or a criterion is a value, in the address and in the query."""
    asked = view().filters
    bars = [row for card in (cards.reasons, cards.analysis, cards.variables) for row in card(hostile, asked).rows]

    assert len(bars) == 3 * len(CANARIES)
    assert {led_to(hostile, bar["narrow"]) for bar in bars} == {1}


def led_to(reader: StoreReader, narrow: str) -> int:
    """How many calls the list shows where a bar leads."""
    asked = narrowing.of_link(narrow)
    provider = asked.pop("provider", "")
    filters = view(only={"provider": (provider,)} if provider else {}).filters
    if asked.pop("range", ""):
        filters = view(date.fromisoformat(asked.pop("from")), date.fromisoformat(asked.pop("to"))).filters
    conditions, params = filters.conditions(RELATIONS["calls"])
    narrows, values = narrowing.conditions({**asked, **narrowing.COUNTED})
    where = " AND ".join([*conditions, *narrows])
    return len(reader.ask(f"SELECT call_id FROM calls WHERE {where}", params | values))
