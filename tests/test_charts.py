"""Charts, read as the specification that the browser gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import pytest
import vl_convert

from calls.model import Connection
from dashboard import charts
from dashboard.charts import DARK, LIGHT, Theme

Spec = dict[str, Any]
both_themes = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])

DAYS = [datetime(2026, 11, day) for day in range(1, 8)]
OUTCOMES = [
    {"bucket": datetime(2026, 11, 2), "slice": "machine", "value": 2},
    {"bucket": datetime(2026, 11, 2), "slice": "person", "value": 5},
    {"bucket": datetime(2026, 11, 5), "slice": "person", "value": 3},
    {"bucket": datetime(2026, 11, 5), "slice": "in_progress", "value": 1},
]
BARS = [
    {"label": "b", "value": 0.6, "text": "60 %", "hint": "x"},
    {"label": "a", "value": 0.4, "text": "40 %", "hint": "y"},
]
RESULTS = [
    {"criterion": "goal", "result": "true", "calls": 12, "n": 24, "text": "50 %"},
    {"criterion": "goal", "result": "partial", "calls": 4, "n": 24, "text": "50 %"},
    {"criterion": "goal", "result": "false", "calls": 8, "n": 24, "text": "50 %"},
    {"criterion": "tone", "result": "false", "calls": 6, "n": 6, "text": "0 of 6"},
]


def all_with(rows: charts.Rows, **values: object) -> list[dict[str, Any]]:
    """The same rows, each with these values instead of its own."""
    return [{**row, **values} for row in rows]


def spec(chart: charts.Picture) -> Spec:
    """The specification, with its rows in place."""
    return chart.to_dict()


def layers(chart: charts.Picture) -> list[Spec]:
    return cast(list[Spec], spec(chart)["layer"])


def rows_of(chart: charts.Picture) -> list[dict[str, Any]]:
    whole = spec(chart)
    return cast(list[dict[str, Any]], whole["datasets"][whole["data"]["name"]])


def outcomes(theme: Theme = LIGHT, *, open_from: datetime | None = None) -> charts.Picture:
    return charts.outcomes_over_time(
        OUTCOMES, theme, zone="Europe/Berlin", bucket="day", buckets=DAYS, open_from=open_from
    )


def test_outcomes_are_stacked_bars_from_zero() -> None:
    """Parts of a whole over time, in the order of the legend."""
    (layer,) = layers(outcomes())
    assert layer["mark"]["type"] == "bar"
    assert layer["encoding"]["y"]["stack"] == "zero"
    assert layer["encoding"]["order"]["field"] == "rank"
    ranks = {row["connection"]: row["rank"] for row in rows_of(outcomes())}
    assert ranks == {"person": 0, "machine": 1, "still open": 2}


@both_themes
def test_a_connection_keeps_its_colour(theme: Theme) -> None:
    """Whatever else is in the range; only those that are there stand in the legend."""
    scale = layers(outcomes(theme))[0]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["person", "machine", "still open"]
    assert scale["range"] == [theme.categories[0], theme.categories[1], theme.faint]
    colours = charts.connection_colours(theme)
    assert colours.keys() == set(Connection)
    assert len(set(colours.values())) == len(colours)


def test_buckets_without_calls_stay_as_gaps() -> None:
    """Before the first call, between calls and after the last one: silence is as wide as it is long."""
    domain = layers(outcomes())[0]["encoding"]["x"]["scale"]["domain"]
    assert domain == [f"2026-11-0{day}T00:00" for day in range(1, 8)]


def test_a_call_outside_the_buckets_is_drawn() -> None:
    """One of tomorrow, by a platform's wrong clock, is counted and must be seen."""
    rows = [*OUTCOMES, {"bucket": datetime(2026, 11, 9), "slice": "person", "value": 1}]
    chart = charts.outcomes_over_time(rows, LIGHT, zone="UTC", bucket="day", buckets=DAYS)
    assert layers(chart)[0]["encoding"]["x"]["scale"]["domain"][-1] == "2026-11-09T00:00"


def test_the_bucket_that_is_not_over_is_lighter() -> None:
    """From its start on."""
    chart = outcomes(open_from=datetime(2026, 11, 5))
    assert [row["open"] for row in rows_of(chart)] == [False, False, True, True]
    assert layers(chart)[0]["encoding"]["opacity"]["condition"]["value"] < 1


def test_a_connection_not_known_yet_is_shown() -> None:
    """A newer worker's word is drawn, not dropped."""
    rows = [{"bucket": datetime(2026, 1, 1), "slice": "teleported", "value": 1}]
    chart = charts.outcomes_over_time(rows, LIGHT, zone="UTC", bucket="month", buckets=[])
    assert layers(chart)[0]["encoding"]["color"]["scale"]["domain"] == ["teleported"]


def test_the_hour_that_comes_twice_is_one_bar() -> None:
    """On a wall clock both are half past two; their calls are added."""
    twice = [{"bucket": datetime(2025, 10, 26, 2), "slice": "person", "value": value} for value in (3, 4)]
    chart = charts.outcomes_over_time(twice, LIGHT, zone="Europe/Berlin", bucket="hour", buckets=[])
    assert [row["value"] for row in rows_of(chart)] == [7]


def test_the_tooltip_names_zone_and_unit() -> None:
    """Whose clock, and of what."""
    titles = [tip["title"] for tip in layers(outcomes())[0]["encoding"]["tooltip"]]
    assert titles == ["from (Europe/Berlin)", "reached", "calls"]


@pytest.mark.parametrize("bucket", ["15 minutes", "hour", "day", "week", "month"])
def test_every_bucket_draws(bucket: str) -> None:
    """Each with its own form of labels."""
    chart = charts.outcomes_over_time(OUTCOMES, LIGHT, zone="UTC", bucket=bucket, buckets=DAYS)
    assert "<svg" in drawn(chart)


@both_themes
def test_bars_start_at_zero_and_carry_their_numbers(theme: Theme) -> None:
    """In the order given, with room for the number at the end, and no axis."""
    chart = charts.bars(BARS, theme, unit="share")
    bar, text = layers(chart)
    assert bar["mark"]["type"] == "bar"
    assert bar["encoding"]["x"]["axis"] is None
    low, high = bar["encoding"]["x"]["scale"]["domain"]
    assert low == 0
    assert high >= 0.6
    assert bar["encoding"]["y"]["sort"] == ["b", "a"]
    assert text["mark"]["color"] == theme.text
    assert text["encoding"]["text"]["field"] == "text"


@pytest.mark.parametrize("picture", [charts.bars, charts.result_bars])
def test_the_text_at_the_longest_bar_has_its_room_on_a_phone(picture: Callable[..., charts.Picture]) -> None:
    """As many pixels as its letters take, whatever the width: a share of a narrow card would cut it off."""
    rows = all_with(BARS if picture is charts.bars else RESULTS, text="100.0 % (393)")
    drawn = picture(rows, LIGHT, **({"unit": "share"} if picture is charts.bars else {}))
    for layer in layers(drawn):
        low, high = layer["encoding"]["x"]["scale"]["range"]
        assert low == 0
        room = re.fullmatch(r"max\(width / 4, width - (\d+)\)", high["expr"])
        assert room is not None
        assert int(room[1]) >= 6.7 * len("100.0 % (393)") + 6


def test_bars_of_nothing_have_a_scale() -> None:
    """All zero, or none at all, is no division by zero."""
    for rows in (all_with(BARS, value=0.0), []):
        assert layers(charts.bars(rows, LIGHT, unit="share"))[0]["encoding"]["x"]["scale"]["domain"][1] > 0


@both_themes
def test_results_have_their_colours_and_their_text_beside(theme: Theme) -> None:
    """Green, yellow and red mean the same on every page; the share met is also told in words."""
    chart = charts.result_bars(RESULTS, theme)
    bar, text = layers(chart)
    assert bar["encoding"]["color"]["scale"] == {
        "domain": ["met", "partly", "not met"],
        "range": ["#1d9a8a", "#e8c468", "#c8553d"],
    }
    assert bar["encoding"]["x"]["scale"]["domain"][0] == 0
    assert bar["encoding"]["y"]["sort"] == text["encoding"]["y"]["sort"] == ["goal", "tone"]
    assert text["mark"]["color"] == theme.text
    assert [row["text"] for row in rows_of(chart) if row["first"]] == ["50 %", "0 of 6"]
    assert text["transform"] == [{"filter": "datum.first"}]
    assert [row["share"] for row in rows_of(chart)] == pytest.approx([0.5, 4 / 24, 8 / 24, 1])


def test_a_heat_map_has_every_hour_of_the_week() -> None:
    """Hours without a call are part of the picture."""
    rows = [{"weekday": 0, "hour": 9, "value": 4}, {"weekday": 6, "hour": 23, "value": 2}]
    chart = charts.heat_map(rows, LIGHT, unit="calls")
    found = rows_of(chart)
    assert len(found) == 7 * 24
    assert {(row["day"], row["hour"]): row["value"] for row in found if row["value"]} == {("Mon", 9): 4, ("Sun", 23): 2}
    encoding = layers(chart)[0]["encoding"]
    assert encoding["color"]["scale"]["domain"] == [0, 4]
    assert encoding["y"]["sort"] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def test_a_picture_has_the_font_of_what_is_around_it() -> None:
    """Of the page on a page, and on paper one whose letters are as wide wherever it is opened."""
    for chart in every_chart(LIGHT):
        assert chart.spec()["config"]["font"] == charts.SCREEN_FONT
        assert chart.to_dict()["config"]["font"] == charts.FONT


def test_bars_that_lead_to_their_calls_say_so_and_tell_which_was_clicked() -> None:
    """With a hand for a cursor and a word in the tooltip; on paper, and where nothing follows, without."""
    for picture, rows, more in (
        (charts.outcomes_over_time, OUTCOMES, {"zone": "UTC", "bucket": "day", "buckets": DAYS}),
        (charts.bars, BARS, {"unit": "x"}),
        (charts.result_bars, RESULTS, {}),
    ):
        draw = cast(Callable[..., charts.Picture], picture)
        leading = draw(all_with(rows, narrow="result=met", click="for its calls"), LIGHT, leads=True, **more)
        bar = layers(leading)[0]
        (selection,) = spec(leading)["params"]
        assert selection == {
            "name": charts.CLICKED, "views": [bar["name"]],
            "select": {"type": "point", "fields": ["narrow"], "toggle": False},
        }  # fmt: skip
        assert bar["mark"]["cursor"] == "pointer"
        assert bar["encoding"]["tooltip"][-1]["field"] == "click"
        assert {row["narrow"] for row in rows_of(leading)} == {"result=met"}
        plain = draw(rows, LIGHT, **more)
        assert "params" not in spec(plain)
        assert "cursor" not in layers(plain)[0]["mark"]


def test_a_look_is_one_for_all_rows_of_a_shape() -> None:
    """A call more changes the rows only: nothing is drawn anew that could flicker."""
    for before, after in (
        (
            outcomes(),
            charts.outcomes_over_time(
                all_with(OUTCOMES, value=4), LIGHT, zone="Europe/Berlin", bucket="day", buckets=DAYS
            ),
        ),
        (charts.bars(BARS, LIGHT, unit="x"), charts.bars(all_with(BARS, value=0.599), LIGHT, unit="x")),
        (charts.result_bars(RESULTS, LIGHT), charts.result_bars(all_with(RESULTS, n=25), LIGHT)),
    ):
        assert before.look is after.look


def test_the_rest_is_summed_up() -> None:
    """The largest ones stay, ties in the order of their names; a few need no "other"."""
    counts = {"a": 1.0, "b": 9.0, "c": 3.0, "d": 3.0, "e": 2.0}
    assert charts.topped(counts, 4) == [("b", 9), ("c", 3), ("d", 3), ("other (2)", 3)]
    assert [name for name, _ in charts.topped(counts, 5)] == list("bcdea")


@both_themes
def test_all_charts_take_the_colours_of_the_theme(theme: Theme) -> None:
    """No black letters on a dark page, no frame around the picture."""
    for chart in every_chart(theme):
        config = spec(chart)["config"]
        assert config["axis"]["labelColor"] == theme.quiet
        assert config["legend"]["labelColor"] == theme.text
        assert config["background"] == "transparent"
        assert config["view"]["strokeWidth"] == 0


@both_themes
def test_all_charts_draw_with_names_of_any_kind(theme: Theme) -> None:
    """Markup in a name is text in the picture."""
    pictures = [drawn(chart) for chart in every_chart(theme, name="<script>alert(1)</script>&\"'")]
    assert not any("<script" in picture for picture in pictures)
    assert ["&lt;script&gt;" in picture for picture in pictures] == [True, True, True, False]


def every_chart(theme: Theme, *, name: str = "b") -> list[charts.Picture]:
    return [
        charts.outcomes_over_time(all_with(OUTCOMES, slice=name), theme, zone="UTC", bucket="day", buckets=DAYS),
        charts.bars([{**BARS[0], "label": name, "text": name}, BARS[1]], theme, unit="share"),
        charts.result_bars(all_with(RESULTS[:3], criterion=name, text=name), theme),
        charts.heat_map([{"weekday": 0, "hour": 1, "value": 2}], theme, unit="calls"),
    ]


def drawn(chart: charts.Picture) -> str:
    return vl_convert.vegalite_to_svg({**chart.to_dict(), "width": 400})
