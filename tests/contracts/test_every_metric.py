"""Every metric of the folder, measured on a real store: whoever adds one adds `NAME.sql` and `NAME.expected.csv`."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from analytics import guard
from analytics.metric import (
    BUCKETS,
    FILTERS,
    RELATIONS,
    SHIPPED,
    Filters,
    Kind,
    Metric,
    Partial,
    catalogue,
    difference,
    interval,
    sends,
    titles,
)
from analytics.query import Query
from analytics.store import Store
from analytics.together import Question, grouped, together
from calls.errors import SettingsError
from calls.model import Call, CallEvent, Connection, Stage, TimelineEvent, Trust
from calls.provider import discover
from streams.fold import fold
from tests.contracts.measures import LIMITS, Measured, everything, expected_path, measure, written
from tests.fixture_calls import ODD_AGENT, RULES, START, Truth, counted, filled_store, micros

METRICS = catalogue()
TRUTHS = counted()
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns")
UNITS = {"calls", "people", "events", "%", "s", "points", "USD"}
LIST_TABLES = {"call_analysis", "call_variables", "call_actions", "appointments", "leads"}


def _each(metrics: list[Metric]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("metric", metrics, ids=[metric.name for metric in metrics])


every_metric = _each(list(METRICS.values()))
every_rollup_metric = _each([metric for metric in METRICS.values() if RELATIONS[metric.relation].by_call])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The fixture's history in a store."""
    filled = filled_store(tmp_path_factory.mktemp("metrics") / "store.duckdb")
    yield filled
    filled.close()


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which nothing has arrived yet."""
    empty = Store.open(tmp_path_factory.mktemp("empty") / "store.duckdb", rules=RULES)
    yield empty
    empty.close()


@every_metric
def test_a_header_says_everything_in_known_words(metric: Metric) -> None:
    """Title, unit and definition are for people; needs names what providers declare to send."""
    columns = {column for provider in discover().values() for column in provider.sends} | {"cost_usd", "result"}
    columns |= {f"connection={connection}" for connection in Connection}
    assert metric.title[0].isupper()
    assert len(metric.title) <= 32
    assert metric.unit in UNITS
    assert (metric.unit == "%") == (metric.kind is Kind.SHARE)
    assert metric.about.endswith(".")
    assert metric.version >= 1
    assert all(one <= columns | LIST_TABLES for one in metric.needs)
    assert [other.name for other in METRICS.values() if other.title == metric.title] == [metric.name]


@every_metric
def test_a_metric_is_one_page(metric: Metric) -> None:
    """A definition that does not fit on a page cannot be checked by who reads the number."""
    lines = (SHIPPED / f"{metric.name}.sql").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 26
    assert max(len(line) for line in lines) <= 120


@every_metric
def test_an_empty_store_has_no_numbers(metric: Metric, empty_store: Store) -> None:
    """No calls give no row at all, not a 0 that looks measured."""
    assert measure(empty_store, metric) == []
    assert measure(empty_store, metric, bucket="day", slice_by="provider") == []


@every_metric
def test_a_metric_gives_what_is_expected(metric: Metric, store: Store) -> None:
    """Over the whole history, by week and by slice; `python -m tests.contracts.bless_metrics` writes the file anew."""
    assert written(store, metric) == expected_path(metric).read_text(encoding="utf-8")


def test_no_expected_result_is_left_without_its_metric() -> None:
    """A metric that was renamed takes its expected result along."""
    assert {path.name.removesuffix(".expected.csv") for path in SHIPPED.glob("*.csv")} == set(METRICS)


@pytest.mark.parametrize(
    ("zone", "only"), [("Europe/Berlin", {}), ("Asia/Kolkata", {"agent_id": (ODD_AGENT, "agent_nova")})], ids=str
)
def test_metrics_asked_together_are_those_asked_alone(
    store: Store, zone: str, only: dict[str, tuple[str, ...]]
) -> None:
    """One pass over rows that were summed up before gives what each gives by itself, in each cut."""
    filters = everything(zone, only)
    cuts = (("all", None), ("week", None), ("hour", None), ("week", "agent_id"), ("all", "connection"))
    of_rollups = [metric for metric in METRICS.values() if RELATIONS[metric.relation].sums]
    questions = [
        Question(metric, filters, bucket, slice_by, partial)
        for metric in of_rollups
        for bucket, slice_by in cuts
        for partial in ((Partial.HALF, Partial.LENIENT) if "$partial" in metric.text else (Partial.STRICT,))
        if slice_by is None or slice_by in metric.slices()
    ]
    groups = grouped(questions)
    assert sorted(map(repr, questions)) == sorted(repr(question) for group in groups for question in group)
    for group in groups:
        rows = Query(store.cursor, *together(group), LIMITS).run().table.to_pylist()
        for place, one in enumerate(group):
            sql, parameters = one.metric.sql(filters, bucket=one.bucket, slice_by=one.slice_by, partial=one.partial)
            alone = Query(store.cursor, f'{sql}\nORDER BY bucket, "slice"', parameters, LIMITS).run().table.to_pylist()
            assert [row for row in rows if row["question"] == place] == [
                {"question": place, **{name: _nearly(value) for name, value in row.items()}} for row in alone
            ]


def _nearly(value: object) -> object:
    """Sums of seconds depend on their order in the last digit."""
    return pytest.approx(value, nan_ok=True) if isinstance(value, float) else value


def test_numbers_of_the_same_rows_are_asked_together() -> None:
    """All metrics of a roll-up are one query; what is no sum of its rows is one of its own."""
    filters = everything()
    of_rollup = [metric for metric in METRICS.values() if RELATIONS[metric.relation].sums]
    groups = grouped(Question(metric, filters) for metric in METRICS.values())
    assert {len(group) for group in groups if not RELATIONS[group[0].metric.relation].sums} == {1}
    assert sum(len(group) > 1 for group in groups) == len({metric.relation for metric in of_rollup})


@pytest.mark.parametrize(
    "text",
    [
        'SELECT bucket, "slice", max(calls) AS value, 1 AS numerator, 1 AS n FROM selected GROUP BY ALL',
        'SELECT bucket, "slice", sum(calls * 2) AS value, 1 AS numerator, 1 AS n FROM selected GROUP BY ALL',
        'SELECT bucket, "slice", count(*) AS value, 1 AS numerator, 1 AS n FROM selected GROUP BY ALL',
        'SELECT bucket, "slice", sum(calls) OVER () AS value, 1 AS numerator, 1 AS n FROM selected',
        'SELECT bucket, "slice", sum(calls) AS value FROM selected WHERE bucket_start < $end GROUP BY ALL',
    ],
    ids=["largest", "product", "rows", "window", "time"],
)
def test_what_is_more_than_sums_is_asked_alone(text: str) -> None:
    """A metric of somebody's own may do anything with the rows of a roll-up, and gets them as they are."""
    own = replace(METRICS["attempts"], text=text)
    assert not Question(own, everything()).adds_up
    assert Question(METRICS["attempts"], everything()).adds_up


@every_metric
def test_every_bucket_of_every_zone_works(metric: Metric, store: Store) -> None:
    """Each bucket in one of the zones; which bucket a call is in is tested once for all, by attempts."""
    totals = measure(store, metric)
    for number, bucket in enumerate(BUCKETS):
        zone = ZONES[number % len(ZONES)]
        rows = measure(store, metric, everything(zone), bucket=bucket, slice_by="provider")
        assert len({(row.bucket, row.slice) for row in rows}) == len(rows)
        assert bool(rows) == bool(totals)
        _check_values(metric, rows)
        if metric.additive:
            _check_sums(totals, rows)


@every_metric
def test_slices_add_up_to_the_whole(metric: Metric, store: Store) -> None:
    """A text knows its slice only by that name, so the metrics of a relation share its columns out among them."""
    totals = measure(store, metric)
    sharing = [other for other in METRICS.values() if other.relation == metric.relation]
    for column in {"provider", *metric.slices()[sharing.index(metric) :: len(sharing)]}:
        rows = measure(store, metric, slice_by=column)
        _check_values(metric, rows)
        if metric.additive:
            _check_sums(totals, rows)


def _check_values(metric: Metric, rows: list[Measured]) -> None:
    for row in rows:
        assert row.n >= 0
        if metric.kind is Kind.COUNT:
            assert row.value == row.numerator
            assert row.denominator is None
        elif metric.kind is Kind.QUANTILE:
            assert row.numerator is None
            assert row.denominator is None
        else:
            assert row.numerator is not None
            assert row.denominator == row.n
            assert row.value == (pytest.approx(row.numerator / row.n) if row.n else None)
        if metric.kind is Kind.SHARE:
            assert row.value is None or 0 <= row.value <= 1


def _check_sums(totals: list[Measured], parts: list[Measured]) -> None:
    whole = totals[0] if totals else Measured("", None, 0, 0, 0, 0)
    assert sum(row.numerator or 0 for row in parts) == pytest.approx(whole.numerator or 0)
    assert sum(row.denominator or 0 for row in parts) == pytest.approx(whole.denominator or 0)
    assert sum(row.n for row in parts) == whole.n


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("bucket", [bucket for bucket in BUCKETS if bucket != "all"])
def test_a_call_is_counted_in_the_bucket_of_its_local_time(bucket: str, zone: str, store: Store) -> None:
    """Also where a day has 23 or 25 hours, an hour comes twice, and offsets are not whole hours."""
    found = {row.bucket: row.n for row in measure(store, METRICS["attempts"], everything(zone), bucket=bucket)}
    assert found == Counter(_bucket(truth.at, bucket, ZoneInfo(zone)) for truth in TRUTHS)


def test_the_hour_that_comes_twice_is_two_hours(store: Store) -> None:
    """At the end of summer time 02:30 comes twice; its calls are an hour apart and stay so."""
    night = Filters(
        start=micros(datetime(2025, 10, 26, 0, tzinfo=UTC)),
        end=micros(datetime(2025, 10, 26, 2, tzinfo=UTC)),
        zone="Europe/Berlin",
    )
    found = [(row.bucket, row.n) for row in measure(store, METRICS["attempts"], night, bucket="hour")]
    assert found == [("2025-10-26 02:00+0200", 1), ("2025-10-26 02:00+0100", 2)]


def _bucket(moment: datetime, bucket: str, zone: ZoneInfo) -> str:
    local = moment.astimezone(zone)
    if bucket in ("15 minutes", "hour"):
        # Only the wall clock is cut: the offset, and with it which of two equal hours it is, stays.
        minute = local.minute // 15 * 15 if bucket == "15 minutes" else 0
        return local.replace(minute=minute).strftime("%Y-%m-%d %H:%M%z")
    day = local.date()
    if bucket == "week":
        day -= timedelta(days=day.weekday())
    if bucket == "month":
        day = day.replace(day=1)
    return datetime(day.year, day.month, day.day, tzinfo=zone).strftime("%Y-%m-%d %H:%M%z")


Truths = Callable[[list[Truth]], list[Truth]]


def _where(condition: Callable[[Truth], bool]) -> Truths:
    return lambda truths: [truth for truth in truths if condition(truth)]


def _reached(connection: str) -> Truths:
    return _where(lambda truth: truth.connection == connection)


done = _where(lambda truth: truth.connection != "in_progress")
judged = _where(lambda truth: truth.connection == "person" and truth.result in ("met", "partly", "not_met"))
met = _where(lambda truth: truth.result == "met")
partly = _where(lambda truth: truth.result == "partly")

SHARES: dict[str, tuple[Truths, Truths]] = {
    "connected": (_reached("person"), done),
    "answered": (_where(lambda truth: truth.connection in ("person", "machine")), done),
    "voicemail": (_reached("machine"), done),
    "no_answer": (_reached("no_answer"), done),
    "busy": (_reached("busy"), done),
    "canceled": (_reached("canceled"), done),
    "failed": (_reached("failed"), done),
    "unknown": (_reached("unknown"), done),
    "transferred": (_where(lambda truth: truth.connection == "person" and truth.transferred), _reached("person")),
    "booking_rate": (_where(lambda truth: truth.connection == "person" and truth.booked), _reached("person")),
    "lead_rate": (_where(lambda truth: truth.connection == "person" and truth.lead), _reached("person")),
    "goal_on_attempts": (lambda truths: met(done(truths)), done),
    "judged": (judged, _reached("person")),
}
"""Numerator and denominator, counted over the truth."""
COUNTS: dict[str, Truths] = {
    "attempts": lambda truths: truths,
    "open_calls": _reached("in_progress"),
    "booked": _where(lambda truth: truth.booked),
    "leads": _where(lambda truth: truth.lead),
}


@pytest.mark.parametrize("name", SHARES)
def test_a_share_is_what_counting_the_calls_gives(name: str, store: Store) -> None:
    """Of the platforms that send what it needs, counted independently of all SQL."""
    (row,) = measure(store, METRICS[name])
    of, base = SHARES[name]
    truths = _told_by(METRICS[name])
    assert (row.numerator, row.denominator) == (len(of(truths)), len(base(truths)))
    assert row.numerator


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_what_counting_the_calls_gives(name: str, store: Store) -> None:
    """Spam and test calls are not in it."""
    (row,) = measure(store, METRICS[name])
    assert row.value == len(COUNTS[name](_told_by(METRICS[name])))
    assert row.value


@pytest.mark.parametrize(("partial", "weight"), [(Partial.STRICT, 0), (Partial.HALF, 0.5), (Partial.LENIENT, 1)])
def test_a_partly_met_goal_counts_as_the_policy_says(partial: Partial, weight: float, store: Store) -> None:
    """Strict: not, half: half, lenient: wholly; it is always in the denominator."""
    (row,) = measure(store, METRICS["goal_met"], partial=partial)
    truths = judged(_told_by(METRICS["goal_met"]))
    assert row.numerator == len(met(truths)) + weight * len(partly(truths))
    assert row.denominator == len(truths)
    assert len(partly(truths)) > 1


@pytest.mark.parametrize(("partial", "weight"), [(Partial.STRICT, 0), (Partial.HALF, 0.5), (Partial.LENIENT, 1)])
def test_a_criterion_counts_partial_as_the_policy_says(partial: Partial, weight: float, store: Store) -> None:
    """Not applicable is in neither count."""
    found = {row.slice: row for row in measure(store, METRICS["criterion_met"], slice_by="criterion", partial=partial)}
    results = _results_by_criterion()
    assert found.keys() == results.keys()
    for criterion, row in found.items():
        counts = results[str(criterion)]
        assert row.numerator == counts["true"] + weight * counts["partial"]
        assert row.denominator == counts["true"] + counts["partial"] + counts["false"]
    assert results["goal"]["not_applicable"]


def test_a_failed_criterion_leaves_partly_met_ones_out(store: Store) -> None:
    """Only a clear no is a failure."""
    found = {row.slice: row.numerator for row in measure(store, METRICS["criterion_failed"], slice_by="criterion")}
    assert found == {name: counts["false"] for name, counts in _results_by_criterion().items()}


def test_a_fill_rate_counts_the_calls_that_ask(store: Store) -> None:
    """A variable that was asked for and came empty is in the denominator."""
    asked, filled = Counter[str](), Counter[str]()
    for truth in _told_by(METRICS["fill_rate"]):
        asked.update(list(truth.variables))
        filled.update(name for name, is_filled in truth.variables.items() if is_filled)
    found = {
        row.slice: (row.numerator, row.denominator) for row in measure(store, METRICS["fill_rate"], slice_by="name")
    }
    assert found == {name: (filled[name], asked[name]) for name in asked}


def test_talk_time_is_the_length_of_connected_calls(store: Store) -> None:
    """Sum, mean, median and 90th percentile, over the calls whose length is known."""
    lengths = sorted(truth.duration for truth in TRUTHS if truth.connection == "person" and truth.duration is not None)
    (total,), (mean,) = measure(store, METRICS["talk_time"]), measure(store, METRICS["talk_time_mean"])
    (median,), (p90,) = measure(store, METRICS["talk_time_median"]), measure(store, METRICS["talk_time_p90"])
    assert total.value == sum(lengths)
    assert mean.value == pytest.approx(sum(lengths) / len(lengths))
    assert median.value == pytest.approx(_quantile(lengths, 0.5))
    assert p90.value == pytest.approx(_quantile(lengths, 0.9))


def test_contacts_are_the_people_outside(store: Store) -> None:
    """Of an outbound call it is the number that was dialled, not ours."""
    contacts = {truth.contact for truth in _told_by(METRICS["unique_contacts"])}
    reached = {truth.contact for truth in _told_by(METRICS["contacts_reached"]) if truth.connection == "person"}
    (row,) = measure(store, METRICS["unique_contacts"])
    (share,) = measure(store, METRICS["contacts_reached"])
    assert row.value == len(contacts)
    assert share.numerator == len(reached)


def test_attempts_per_reach_count_up_to_the_first_person(store: Store) -> None:
    """Later calls to somebody who was reached already are no attempts to reach them."""
    attempts, reached = Counter[tuple[str, str | None]](), dict[tuple[str, str | None], int]()
    told = done(_told_by(METRICS["attempts_per_reach"]))
    for truth in sorted(told, key=lambda truth: (truth.at, truth.call_id)):
        who = truth.org, truth.contact
        attempts[who] += 1
        if truth.connection == "person" and who not in reached:
            reached[who] = attempts[who]
    (row,) = measure(store, METRICS["attempts_per_reach"])
    assert (row.numerator, row.denominator) == (sum(reached.values()), len(reached))
    assert max(reached.values()) > 1


def test_a_success_is_doubtful_or_final_by_what_follows(store: Store) -> None:
    """The same number in another call, within a day or a week, whichever platform told of it."""
    met_calls = [truth for truth in _told_by(METRICS["false_success"]) if truth.result == "met"]
    connected = [truth for truth in met_calls if truth.connection == "person"]
    doubtful = [t for t in connected if t.transferred or t.sentiment == "negative" or _again(t, timedelta(hours=24))]
    (row,) = measure(store, METRICS["false_success"])
    assert (row.numerator, row.denominator) == (len(doubtful), len(connected))
    assert any(_again(truth, timedelta(hours=24)) for truth in doubtful)
    old = [truth for truth in met_calls if truth.at < max(t.at for t in TRUTHS) - timedelta(days=7)]
    (row,) = measure(store, METRICS["resolved_first_time"])
    assert (row.numerator, row.denominator) == (sum(not _again(t, timedelta(days=7)) for t in old), len(old))
    assert 0 < len(old) < len(met_calls)


def _again(truth: Truth, within: timedelta) -> bool:
    return any(
        other.org == truth.org and other.contact == truth.contact and truth.at < other.at <= truth.at + within
        for other in TRUTHS
    )


def test_what_must_not_happen_is_found(store: Store) -> None:
    """A forged version, calls after an opt-out, calls that never end, two calls at once."""
    found = {name: measure(store, METRICS[name])[0].value for name in ("conflicts", "called_after_opt_out")}
    (stuck,), (most,) = measure(store, METRICS["stuck_calls"]), measure(store, METRICS["most_at_once"])
    wishes = [truth.at for truth in TRUTHS if truth.call_id in ("ais-61", "ais-74")]
    after = [t for t in TRUTHS if t.contact == "+14155550177" and t.direction == "outbound" and t.at > min(wishes)]
    assert found == {"conflicts": 1, "called_after_opt_out": len(after)}
    assert len(after) > 1
    assert stuck.value == len(_reached("in_progress")(TRUTHS))
    assert most.value == 2


def test_every_finished_call_is_in_exactly_one_connection(store: Store) -> None:
    """D = K + V + N + F + U."""
    parts = ("connected", "voicemail", "no_answer", "busy", "canceled", "failed", "unknown")
    rows = [measure(store, METRICS[name])[0] for name in parts]
    assert sum(row.numerator or 0 for row in rows) == rows[0].denominator


@every_rollup_metric
def test_a_rollup_says_the_same_as_the_calls(metric: Metric, store: Store) -> None:
    """A filter that only calls can answer, and that leaves all of them, changes nothing."""
    all_trust = everything(only={"trust": tuple(Trust)})
    for slice_by in ("provider", "agent_id", "direction"):
        for partial in Partial:
            assert measure(store, metric, all_trust, slice_by=slice_by, partial=partial) == measure(
                store, metric, slice_by=slice_by, partial=partial
            )


def test_a_rollup_is_answered_from_the_calls_where_it_lacks_the_column(store: Store) -> None:
    """Bookings by disposition: no roll-up holds it, yet it can be asked."""
    rows = {row.slice: row.value for row in measure(store, METRICS["booked"], slice_by="disposition")}
    assert rows["interested"] == 2
    found = measure(store, METRICS["attempts"], everything(only={"trust": ("A",)}))
    assert found[0].value == sum(truth.provider == "inboundflow" for truth in TRUTHS)


@pytest.mark.parametrize("value", ["'", '"', "$start", "'; SELECT 1 --", "\N{ROBOT FACE}", "\\", "%", "{x}", ""])
def test_filters_are_parameters(value: str, store: Store) -> None:
    """Whatever somebody types or an agent is called, it is compared and never read as SQL."""
    for column in FILTERS:
        rows = measure(store, METRICS["attempts"], everything(only={column: (value, "nobody")}))
        known = {"org": ["synthflow", "aisync"], "agent_id": [None], "direction": [None], "campaign": [""]}
        assert bool(rows) == (value == "" and column in known)


def test_an_agent_with_an_odd_name_is_found(store: Store) -> None:
    """Quotes, spaces and signs of other scripts in an id are kept and compared exactly."""
    (row,) = measure(store, METRICS["attempts"], everything(only={"agent_id": (ODD_AGENT, "model-1")}))
    assert row.value == sum(truth.agent in (ODD_AGENT, "model-1") for truth in TRUTHS)


def test_what_cannot_be_filtered_so_has_no_number(store: Store) -> None:
    """Webhooks have no agent: with an agent chosen their share is not available, rather than that of all webhooks."""
    assert measure(store, METRICS["refused"], everything(only={"agent_id": ("agent_nova",)})) == []
    assert measure(store, METRICS["attempts"], everything(only={"source": ("synthflow",)})) == []
    assert measure(store, METRICS["refused"], everything(only={"agent_id": ()})) != []


def test_a_platform_that_does_not_tell_is_not_in_the_share(store: Store) -> None:
    """Calls of a platform that never tells of transfers would only dilute the share of those that do."""
    metric = METRICS["transferred"]
    assert metric.not_available_from() == {"callsync"}
    assert "callsync" not in {row.slice for row in measure(store, metric, slice_by="provider")}
    assert measure(store, metric, everything(only={"provider": ("callsync",)})) == []


def test_a_platform_is_only_in_shares_of_what_it_can_say(store: Store) -> None:
    """InboundFlow reports calls that were answered and no others; CallSync does not tell why nobody was reached."""
    for name in ("connected", "answered", "unknown"):
        assert METRICS[name].not_available_from() == {"inboundflow"}
        assert measure(store, METRICS[name], everything(only={"provider": ("inboundflow",)})) == []
    for name in ("voicemail", "no_answer", "busy", "failed", "canceled"):
        assert METRICS[name].not_available_from() == {"inboundflow", "callsync"}
        assert measure(store, METRICS[name], everything(only={"provider": ("callsync",)})) == []


def test_a_result_can_come_only_from_who_is_said_to_send_it() -> None:
    """`sends` and the fold agree about which platforms' calls can reach their aim."""
    for name, provider in discover().items():
        can = name in {n for n in discover() if _fold_of(n)["result"] != "unknown"}
        can |= not provider.sends.isdisjoint(("appointments", "disposition"))
        assert sends(name, "result") == can


def test_the_guard_lets_every_metric_pass(store: Store) -> None:
    """Metrics take the same door as anybody's SQL."""
    with contextlib.closing(store.cursor()) as cursor:
        parse = guard.parser(cursor)
        for metric in METRICS.values():
            for slice_by in (None, "provider"):
                guard.check(metric.sql(everything(), bucket="week", slice_by=slice_by)[0], parse)


def test_a_metric_of_ones_own_needs_only_its_file(tmp_path: Path, store: Store) -> None:
    """One file in a folder is in the catalogue, sliced, filtered and cut like the shipped ones."""
    (tmp_path / "long_calls.sql").write_text(
        "-- title: Long calls\n-- kind: share\n-- unit: %\n-- better: neutral\n-- about: Calls of more than a\n"
        "--   minute.\n-- needs: duration_s\n-- from: calls\n-- version: 3\n\n"
        "WITH counted AS (\n"
        '    SELECT bucket, "slice", count(*) FILTER (WHERE duration_s > 60) AS long, count(*) AS n\n'
        '    FROM selected GROUP BY bucket, "slice" -- a remark\n'
        ")\n"
        'SELECT bucket, "slice", long / n AS value, long AS numerator, n AS denominator, n FROM counted;\n',
        encoding="utf-8",
    )
    own = catalogue(tmp_path)
    assert own.keys() == {*METRICS, "long_calls"}
    metric = own["long_calls"]
    assert (metric.about, metric.version) == ("Calls of more than a minute.", 3)
    (row,) = measure(store, metric)
    assert row.numerator == sum((truth.duration or 0) > 60 for truth in TRUTHS)
    rows = measure(store, metric, everything(only={"provider": ("aisync",)}), bucket="day", slice_by="agent_id")
    assert sum(row.n for row in rows) == sum(truth.provider == "aisync" for truth in TRUTHS)


def test_a_metric_of_ones_own_replaces_the_shipped_one(tmp_path: Path) -> None:
    """Who counts attempts otherwise says so in a file of that name."""
    text = (SHIPPED / "attempts.sql").read_text(encoding="utf-8").replace("title: Attempts", "title: Dials")
    (tmp_path / "attempts.sql").write_text(text, encoding="utf-8")
    assert catalogue(tmp_path)["attempts"].title == "Dials"
    assert catalogue(tmp_path / "missing") == METRICS


@pytest.mark.parametrize(
    ("wrong", "instead", "says"),
    [
        ("-- unit: calls\n", "", "lacks '-- unit: ...'"),
        ("-- kind: count", "-- kind: ratio", "'ratio' is not a valid Kind"),
        ("-- better: neutral", "-- better: up", "'up' is not a valid Better"),
        ("-- from: rollup_calls", "-- from: kept.calls", "reads 'kept.calls'; it can read calls, "),
        ("-- version: 1", "-- version: one", "wrong header"),
        ("-- title: Attempts", "-- title:  ", "lacks '-- title: ...'"),
        ("-- version: 1", "-- version: 1\n-- needed: status", "has 'needed' in its header"),
    ],
)
def test_a_bad_metric_file_is_named(wrong: str, instead: str, says: str, tmp_path: Path) -> None:
    """The message says which file and what in it is wrong."""
    text = (SHIPPED / "attempts.sql").read_text(encoding="utf-8")
    assert wrong in text
    (tmp_path / "mine.sql").write_text(text.replace(wrong, instead), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"mine\.sql") as caught:
        catalogue(tmp_path)
    assert says in caught.value.message


def test_a_metric_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """A file saved in another encoding is not read as something else."""
    (tmp_path / "mine.sql").write_bytes("-- title: Größe\n".encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        catalogue(tmp_path)


def test_unknown_buckets_slices_filters_and_zones_are_refused() -> None:
    """Each with the words that are known."""
    metric = METRICS["attempts"]
    with pytest.raises(SettingsError, match="no bucket 'fortnight'"):
        metric.sql(everything(), bucket="fortnight")
    with pytest.raises(SettingsError, match="'transcript' cannot slice this number; agent_id, "):
        metric.sql(everything(), slice_by="transcript")
    with pytest.raises(SettingsError, match="cannot be filtered by 'caller_phone'"):
        everything(only={"caller_phone": ("+1",)})
    for zone in ("Mars/Olympus", "../../etc/passwd", "", "/", "Europe"):
        with pytest.raises(SettingsError, match="no time zone"):
            everything(zone)


def test_a_range_is_widened_to_whole_quarters_of_an_hour() -> None:
    """So that roll-ups and calls answer for the same calls."""
    filters = Filters(start=micros(START) + 1, end=micros(START) + 60_000_000)
    assert filters.end - filters.start == 15 * 60 * 1_000_000
    assert filters.before().end == filters.start
    assert filters.before().end - filters.before().start == filters.end - filters.start


def test_only_parameters_that_a_query_mentions_are_sent() -> None:
    """The SQL endpoint refuses the others."""
    for metric in METRICS.values():
        sql, parameters = metric.sql(everything(only={"provider": ("a", "b")}), bucket="day", slice_by="provider")
        assert all(f"${name}" in sql for name in parameters)


def test_the_interval_is_wilsons() -> None:
    """Published values (Newcombe 1998, table I, method 3), and the ends of the scale."""
    assert interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert interval(20, 20)[1] == pytest.approx(1.0)
    assert interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 7, 37, 1000])
def test_the_interval_of_none_begins_at_nothing(n: int) -> None:
    """And that of all ends at one: what rounding leaves of it would stand in a table as 6.9e-18."""
    assert interval(0, n)[0] == 0
    assert interval(n, n)[1] == 1


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """Published values (Newcombe 1998, method 10): 56 of 70 against 48 of 80."""
    assert difference((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference((0, 0), (48, 80)) == (-1.0, 1.0)


def test_every_provider_has_a_title() -> None:
    """People read names, not module names."""
    assert titles()["inboundflow"] == "InboundFlow"
    assert titles().keys() == discover().keys()


def _told_by(metric: Metric) -> list[Truth]:
    return [truth for truth in TRUTHS if truth.provider not in metric.not_available_from()]


def _results_by_criterion() -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for truth in TRUTHS:
        for criterion, result in truth.criteria.items():
            found[criterion][result] += 1
    return found


def _quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _fold_of(provider: str) -> Call:
    """A call of that provider of which nothing is known but that its criterion is met."""
    event = CallEvent(
        event="x", call_id="1", org="", happened_at=0, stage=Stage.FINISHED,
        analysis=[{"criterion": RULES.success_criterion, "result": "true", "feedback": None}],
    )  # fmt: skip
    timed = TimelineEvent(
        event_id="1", provider=provider, source=provider, trust=Trust.B, received_at=0, journal_id="", position=1,
        event=event, data="{}", raw=None, source_org="", headers={},
    )  # fmt: skip
    return fold([timed], RULES)


def test_the_whole_catalogue_is_asked_through_the_query_door(store: Store) -> None:
    """Values are plain 64-bit numbers there, whatever a metric's arithmetic made of them."""
    for metric in METRICS.values():
        sql, parameters = metric.sql(everything(), bucket="day", slice_by="provider")
        table = Query(store.cursor, sql, parameters, LIMITS).run().table
        assert [str(field.type) for field in table.schema][2:] == ["double", "double", "double", "int64"]
