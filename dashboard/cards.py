"""The cards of the overview as data: what each says, with its base, ready to be drawn on a page or on paper."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analytics.metric import Filters, Parameter, interval, selected, titles
from dashboard import charts, words
from dashboard.reader import Reader
from dashboard.tiles import NONE, Total

CRITERIA_MOST = 12
VARIABLES_MOST = 12
REASONS_MOST = 8
AGENTS_MOST = 20
NOT_AVAILABLE = "not available"
WITHOUT_AGENT = "without an agent"
AGENT_NUMBERS = ("Calls", "Booked")
"""The columns of the agents' table that are plain numbers."""


@dataclass(frozen=True, slots=True)
class Card:
    """A titled set of rows; `rows` is empty where there is nothing to show."""

    title: str
    base: str
    rows: pd.DataFrame
    note: str = ""


def outcomes(reader: Reader, filters: Filters, bucket: str) -> Card:
    """Calls a bucket by connection."""
    rows = reader.measure("attempts", filters, bucket=bucket, slice_by="connection")
    return Card("Outcomes over time", f"calls by {bucket} and whom they reached", rows)


def reasons(reader: Reader, filters: Filters) -> Card:
    """End-call reasons in the platforms' own words, most frequent first."""
    rows = reader.measure("attempts", filters, slice_by="end_call_reason").dropna(subset=["slice"])
    known = float(rows["value"].sum())
    top = charts.topped(rows[["slice", "value"]], label="slice", value="value", most=REASONS_MOST)
    frame = pd.DataFrame(
        {
            "label": _distinct(top["slice"]),
            "value": top["value"] / (known or 1),
            "text": [_part(value, known) for value in top["value"]],
            "hint": [words.PLAIN_REASONS.get(reason, "as the platform sends it") for reason in top["slice"]],
        }
    )
    return Card("Why calls ended", f"share of {words.counted(known, 'call', 'calls')} with a reason", frame)


def analysis(reader: Reader, filters: Filters) -> Card:
    """Criteria with their shares of met, partly and not met; rows: criterion, result, calls, n, text."""
    # Criterion and result at once: a metric has one slice.
    rows_of, params = selected("rollup_analysis", filters)
    rows = reader.ask(
        f"SELECT criterion, result, CAST(sum(calls) AS BIGINT) AS calls FROM ({rows_of}) GROUP BY criterion, result "
        "ORDER BY criterion, result",
        params,
    )
    judged = rows[rows["result"].isin([value for value, _, _ in charts.RESULTS])]
    counts = judged.groupby("criterion")["calls"].sum().sort_values(ascending=False, kind="stable")
    shown = counts.head(CRITERIA_MOST)
    frame = judged[judged["criterion"].isin(shown.index)].copy()
    frame["n"] = frame["criterion"].map(counts)
    order = {criterion: rank for rank, criterion in enumerate(shown.index)}
    frame = frame.sort_values("criterion", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    met = frame[frame["result"] == "true"].set_index("criterion")["calls"]
    frame["text"] = list(map(_with_n, frame["criterion"].map(met).fillna(0), frame["n"]))
    named = dict(zip(order, _distinct(list(order)), strict=True))
    frame["criterion"] = frame["criterion"].map(named)
    return Card(
        "Analysis", "judged calls that met, partly met or did not meet each criterion; n in brackets", frame,
        _analysis_note(len(counts) - len(shown), rows),
    )  # fmt: skip


def variables(reader: Reader, filters: Filters) -> Card:
    """How often each variable was filled, of the calls that ask for it."""
    rows = reader.measure("fill_rate", filters, slice_by="name").dropna(subset=["value"])
    top = rows.sort_values(["denominator", "slice"], ascending=[False, True]).head(VARIABLES_MOST)
    top = top.sort_values(["value", "slice"], ascending=[False, True])
    labels = _distinct(top["slice"])
    frame = pd.DataFrame(
        {
            "label": labels,
            "value": top["value"].to_list(),
            "text": list(map(_with_n, top["numerator"], top["denominator"])),
            "hint": [f"asked in {words.counted(n, 'call', 'calls')}" for n in top["denominator"]],
        }
    )
    rest = len(rows) - len(top)
    note = f"{rest} more variables are not shown; see call_variables on the SQL page" if rest else ""
    return Card("Collected variables", "filled with a value, of the calls that ask (n in brackets)", frame, note)


def hours(reader: Reader, filters: Filters) -> Card:
    """Calls by local hour and day of the week; rows: weekday (0 is Monday), hour, value."""
    rows = reader.measure("attempts", filters, bucket="hour")
    at = rows["bucket"].dt
    frame = pd.DataFrame({"weekday": at.day_of_week, "hour": at.hour, "value": rows["value"]})
    summed: pd.DataFrame = frame.groupby(["weekday", "hour"])["value"].sum().reset_index()
    return Card("When calls come", f"calls by hour and day of the week, {filters.zone}", summed)


def platforms(reader: Reader, filters: Filters) -> Card:
    """Calls by platform."""
    rows = reader.measure("attempts", filters, slice_by="provider")
    rows = rows.sort_values(["value", "slice"], ascending=[False, True])
    everything = float(rows["value"].sum())
    frame = pd.DataFrame(
        {
            "label": [titles().get(name, name) for name in rows["slice"]],
            "value": rows["value"].to_list(),
            "text": [words.count(value) for value in rows["value"]],
            "hint": [words.share(value / everything, everything) + " of all" for value in rows["value"]],
        }
    )
    return Card("Where calls come from", "calls by platform", frame)


def agents(reader: Reader, filters: Filters, names: Mapping[str, str]) -> Card:
    """The busiest agents side by side, by their ids; shares with interval and n."""
    rows_of, params = selected("rollup_calls", filters)
    busiest = reader.ask(
        f"SELECT agent_id, max(provider) AS provider, count(DISTINCT provider) AS providers FROM ({rows_of}) "
        "GROUP BY agent_id ORDER BY sum(calls) DESC, agent_id NULLS LAST",
        params,
    )
    measured = {name: _by_agent(reader, name, filters) for name in _AGENT_METRICS}
    found, ids = [], []
    for row in busiest.head(AGENTS_MOST).itertuples():
        key = _id(row.agent_id)
        ids.append(key or "")
        only = str(row.provider) if row.providers == 1 else ""
        cells = {
            name: _Cell(only in reader.metric(name).not_available_from(), numbers.get(key))
            for name, numbers in measured.items()
        }
        found.append(
            {
                "Agent": words.label(names.get(key, key)) if key else WITHOUT_AGENT,
                "Calls": int(cells["attempts"].value or 0),
                "Connected": cells["connected"].share(),
                "Goal met": cells["goal_met"].share(),
                "Transferred": cells["transferred"].share(),
                "Booked": cells["booked"].count(),
                "Mean talk time": cells["talk_time_mean"].length(),
            }
        )
    rest = len(busiest) - len(found)
    note = f"{rest} more agents are not shown" if rest else ""
    return Card("Agents", "by number of calls", pd.DataFrame(found, index=ids), note)


def left_out(reader: Reader, filters: Filters) -> str:
    """How many calls are excluded from the numbers, and why; empty where none are."""
    rows = reader.measure("left_out", filters, slice_by="excluded")
    counted = zip(rows["value"], rows["slice"], strict=True)
    parts = [words.counted(value, f"{why} call", f"{why} calls") for value, why in counted]
    return f"Left out of all numbers: {' and '.join(parts)}." if parts else ""


def filled_in(query: str, params: Mapping[str, Parameter]) -> str:
    """A query with its parameters written in, to be run as it stands."""
    return re.sub(
        r"\$([a-z_0-9]+)", lambda found: _literal(params[found[1]]) if found[1] in params else found[0], query
    )


def _part(part: float, whole: float) -> str:
    """A share, or the counts where they are few; its base stands elsewhere."""
    if whole < words.SMALL_N:
        return f"{words.count(part)} of {words.count(whole)}"
    return words.share(part / whole, whole)


def _with_n(part: float, whole: float) -> str:
    """A share with its base in brackets, or the counts where they are few."""
    return f"{_part(part, whole)} ({words.count(whole)})" if whole >= words.SMALL_N else _part(part, whole)


_AGENT_METRICS = ("attempts", "connected", "goal_met", "booked", "transferred", "talk_time_mean")


def _by_agent(reader: Reader, name: str, filters: Filters) -> dict[str | None, Total]:
    rows = reader.measure(name, filters, slice_by="agent_id")
    columns = (rows[name] for name in ("slice", "value", "numerator", "denominator", "n"))
    return {
        _id(agent): Total(_known(value), _known(numerator), _known(denominator), float(n))
        for agent, value, numerator, denominator, n in zip(*columns, strict=True)
    }


def _known(number: object) -> float | None:
    return float(number) if isinstance(number, float) and not math.isnan(number) else None


@dataclass(frozen=True, slots=True)
class _Cell:
    """One agent's number, and whether the agent's platform does not send it."""

    silent: bool
    total: Total | None

    @property
    def value(self) -> float | None:
        return self.total.value if self.total else None

    def share(self) -> str:
        if self.silent:
            return NOT_AVAILABLE
        if self.total is None or not self.total.denominator:
            return "none yet"
        numerator, denominator = self.total.numerator or 0, self.total.denominator
        if denominator < words.SMALL_N:
            return _part(numerator, denominator)
        low, high = interval(numerator, denominator)
        return f"{_part(numerator, denominator)} ({low * 100:.0f}{NONE}{high * 100:.0f}, n {words.count(denominator)})"

    def count(self) -> str:
        return NOT_AVAILABLE if self.silent else words.count(self.value or 0)

    def length(self) -> str:
        if self.silent:
            return NOT_AVAILABLE
        return "none yet" if self.value is None else words.duration(self.value)


def _id(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _distinct(names: Sequence[str] | pd.Series[str]) -> list[str]:
    """Labels of these names, no two alike: rows of one label would be drawn over each other."""
    found: list[str] = []
    for name in names:
        label, number = words.label(name), 1
        while label in found:
            number += 1
            label = f"{words.label(name)} ({number})"
        found.append(label)
    return found


def _literal(value: Parameter) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _analysis_note(hidden: int, rows: pd.DataFrame) -> str:
    known = [*(value for value, _, _ in charts.RESULTS), "not_applicable"]
    unknown = sorted(set(rows["result"]) - set(known))
    notes = []
    if hidden > 0:
        notes.append(f"{hidden} more criteria are not shown; see call_analysis on the SQL page")
    if unknown:
        notes.append(f"words that the platform newly sends: {', '.join(words.label(word, 40) for word in unknown[:5])}")
    return "; ".join(notes)
