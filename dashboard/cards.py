"""The cards of the overview as data: what each says, with its base, ready to be drawn on a page or on paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from zoneinfo import ZoneInfo

from analytics.metric import Filters, Parameter, interval, selected, titles
from analytics.together import Question
from dashboard import charts, narrowing, words
from dashboard.reader import Asked, Measured, Reader
from dashboard.tiles import NONE
from dashboard.view import bucket_start, every_bucket

CRITERIA_MOST = 12
VARIABLES_MOST = 12
REASONS_MOST = 8
AGENTS_MOST = 20
NOT_AVAILABLE = "not available"
WITHOUT_AGENT = "without an agent"
AGENT_COLUMNS = ("Agent", "Calls", "Connected", "Goal met", "Transferred", "Booked", "Mean talk time")
AGENT_NUMBERS = ("Calls", "Booked")
"""The columns of the agents' table that are plain numbers."""


@dataclass(frozen=True, slots=True)
class Card:
    """A titled set of rows; `rows` is empty where there is nothing to show.

    A row may lead to its calls: `narrow` is what to narrow their list by (`narrowing.link`), `click` says so in words.
    """

    title: str
    base: str
    rows: charts.Rows
    note: str = ""


def questions(reader: Reader, filters: Filters, bucket: str) -> tuple[list[Question], list[Asked]]:
    """What all cards together ask, to be prepared in one go; a card that asks for more gets it, only later."""
    cuts: list[tuple[str, str, str | None]] = [
        ("attempts", bucket, "connection"),
        ("attempts", "all", "end_call_reason"),
        ("attempts", "hour", None),
        ("attempts", "all", "provider"),
        ("fill_rate", "all", "name"),
        ("left_out", "all", "excluded"),
        *((name, "all", "agent_id") for name in _AGENT_METRICS),
    ]
    measured = [Question(reader.metric(name), filters, by, slice_by) for name, by, slice_by in cuts]
    return measured, [_judgements(filters), _agents_by_calls(filters), _FIRST_CALL]


def outcomes(reader: Reader, filters: Filters, bucket: str) -> Card:
    """Calls a bucket by connection, and since when there are any, where the range begins long before."""
    rows = reader.measure("attempts", filters, bucket=bucket, slice_by="connection")
    shown = [{**row._asdict(), **_outcome_calls(row, filters, bucket)} for row in rows]
    note = _nothing_before(reader, filters, bucket)
    return Card("Outcomes over time", f"calls by {bucket} and whom they reached", shown, note)


def reasons(reader: Reader, filters: Filters) -> Card:
    """End-call reasons in the platforms' own words, most frequent first."""
    rows = reader.measure("attempts", filters, slice_by="end_call_reason")
    counts = {row.slice: row.value or 0.0 for row in rows if row.slice is not None}
    known = sum(counts.values())
    top = charts.topped(counts, REASONS_MOST)
    shown = [
        {
            "label": label, "value": value / (known or 1), "text": _part(value, known),
            "hint": words.PLAIN_REASONS.get(reason, "as the platform sends it"),
            **_its_calls(end_call_reason=reason if reason in counts else ""),
        }
        for label, (reason, value) in zip(_distinct([reason for reason, _ in top]), top, strict=True)
    ]  # fmt: skip
    return Card("Why calls ended", f"share of {words.counted(known, 'call', 'calls')} with a reason", shown)


def analysis(reader: Reader, filters: Filters) -> Card:
    """Criteria with their shares of met, partly and not met; rows: criterion, result, calls, n, text."""
    rows = reader.ask(*_judgements(filters))
    results = [value for value, _, _ in charts.RESULTS]
    judged: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["result"] in results:
            judged.setdefault(str(row["criterion"]), {})[str(row["result"])] = cast(int, row["calls"])
    order = sorted(judged, key=lambda criterion: -sum(judged[criterion].values()))
    shown = []
    for label, criterion in zip(_distinct(order[:CRITERIA_MOST]), order, strict=False):
        counts = judged[criterion]
        n = sum(counts.values())
        text = _with_n(counts.get("true", 0), n)
        shown += [
            {
                "criterion": label, "result": result, "calls": counts[result], "n": n, "text": text,
                **_its_calls(criterion=criterion, judged=result),
            }
            for result in sorted(counts)
        ]  # fmt: skip
    return Card(
        "Analysis", "judged calls that met, partly met or did not meet each criterion; n in brackets", shown,
        _analysis_note(len(order) - CRITERIA_MOST, {str(row["result"]) for row in rows}),
    )  # fmt: skip


def variables(reader: Reader, filters: Filters) -> Card:
    """How often each variable was filled, of the calls that ask for it."""
    rows = [row for row in reader.measure("fill_rate", filters, slice_by="name") if row.value is not None]
    most = sorted(rows, key=lambda row: (-(row.denominator or 0), row.slice or ""))[:VARIABLES_MOST]
    top = sorted(most, key=lambda row: (-(row.value or 0), row.slice or ""))
    shown = [
        {
            "label": label, "value": row.value, "text": _with_n(row.numerator or 0, row.denominator or 0),
            "hint": f"asked in {words.counted(row.denominator or 0, 'call', 'calls')}",
            **_its_calls(variable=row.slice or "", filled="yes"),
        }
        for label, row in zip(_distinct([row.slice or "" for row in top]), top, strict=True)
    ]  # fmt: skip
    rest = len(rows) - len(top)
    note = f"{rest} more variables are not shown; see call_variables on the SQL page" if rest else ""
    return Card("Collected variables", "filled with a value, of the calls that ask (n in brackets)", shown, note)


def hours(reader: Reader, filters: Filters) -> Card:
    """Calls by local hour and day of the week; rows: weekday (0 is Monday), hour, value."""
    counts: dict[tuple[int, int], float] = {}
    for row in reader.measure("attempts", filters, bucket="hour"):
        if row.bucket is not None:
            at = row.bucket.weekday(), row.bucket.hour
            counts[at] = counts.get(at, 0) + (row.value or 0)
    shown = [{"weekday": weekday, "hour": hour, "value": value} for (weekday, hour), value in sorted(counts.items())]
    return Card("When calls come", f"calls by hour and day of the week, {filters.zone}", shown)


def platforms(reader: Reader, filters: Filters) -> Card:
    """Calls by platform."""
    rows = reader.measure("attempts", filters, slice_by="provider")
    counts = sorted(((row.value or 0.0, row.slice or "") for row in rows), key=lambda row: (-row[0], row[1]))
    everything = sum(value for value, _ in counts)
    shown = [
        {
            "label": titles().get(name, name), "value": value, "text": words.count(value),
            "hint": words.share(value / everything, everything) + " of all", **_its_calls(provider=name),
        }
        for value, name in counts
    ]  # fmt: skip
    return Card("Where calls come from", "calls by platform", shown)


def agents(reader: Reader, filters: Filters, names: Mapping[str, str]) -> Card:
    """The busiest agents side by side; `id` beside what `AGENT_COLUMNS` names; shares with interval and n."""
    busiest: dict[str | None, list[str]] = {}
    for row in reader.ask(*_agents_by_calls(filters)):
        busiest[_id(row["agent_id"])] = cast(list[str], row["providers"])
    measured = {
        name: {row.slice: row for row in reader.measure(name, filters, slice_by="agent_id")} for name in _AGENT_METRICS
    }
    shown = []
    for agent, providers in list(busiest.items())[:AGENTS_MOST]:
        only = providers[0] if len(providers) == 1 else ""
        cells = {
            name: _Cell(only in reader.metric(name).not_available_from(), numbers.get(agent))
            for name, numbers in measured.items()
        }
        told = (
            words.label(names.get(agent, agent)) if agent else WITHOUT_AGENT,
            words.count(cells["attempts"].value or 0),
            cells["connected"].share(),
            cells["goal_met"].share(),
            cells["transferred"].share(),
            cells["booked"].count(),
            cells["talk_time_mean"].length(),
        )
        shown.append({"id": agent or "", **dict(zip(AGENT_COLUMNS, told, strict=True))})
    rest = len(busiest) - len(shown)
    note = f"{rest} more agents are not shown" if rest else ""
    return Card("Agents", "by number of calls", shown, note)


def left_out(reader: Reader, filters: Filters) -> str:
    """How many calls are excluded from the numbers, and why; empty where none are."""
    rows = reader.measure("left_out", filters, slice_by="excluded")
    parts = [words.counted(row.value or 0, f"{row.slice} call", f"{row.slice} calls") for row in rows]
    return f"Left out of all numbers: {' and '.join(parts)}." if parts else ""


def filled_in(query: str, params: Mapping[str, Parameter]) -> str:
    """A query with its parameters written in, to be run as it stands."""
    return re.sub(
        r"\$([a-z_0-9]+)", lambda found: _literal(params[found[1]]) if found[1] in params else found[0], query
    )


def _its_calls(**values: str) -> dict[str, str]:
    narrow = narrowing.link(**values)
    return {"narrow": narrow, "click": "for its calls" if narrow else NONE}


def _outcome_calls(row: Measured, filters: Filters, bucket: str) -> dict[str, str]:
    """The list of calls knows whole days: what is cut finer leads to all such calls of the range."""
    connection = row.slice or ""
    if row.bucket is None or bucket == "hour":
        return {**_its_calls(connection=connection), "click": "for all such calls in the range"}
    zone = ZoneInfo(filters.zone)
    start, end = (
        datetime.fromtimestamp(moment / 1_000_000, zone).date() for moment in (filters.start, filters.end - 1)
    )
    after = every_bucket(row.bucket, row.bucket + timedelta(days=31), bucket)[1]
    first, last = max(row.bucket.date(), start), min((after - timedelta(days=1)).date(), end)
    days = {"range": "custom", "from": first.isoformat(), "to": last.isoformat()}
    return _its_calls(connection=connection, **days)


def _part(part: float, whole: float) -> str:
    """A share, or the counts where they are few; its base stands elsewhere."""
    if whole < words.SMALL_N:
        return f"{words.count(part)} of {words.count(whole)}"
    return words.share(part / whole, whole)


def _with_n(part: float, whole: float) -> str:
    """A share with its base in brackets, or the counts where they are few."""
    return f"{_part(part, whole)} ({words.count(whole)})" if whole >= words.SMALL_N else _part(part, whole)


_FIRST_CALL: Asked = ("SELECT min(counted_at) AS first FROM calls", {})
_AGENT_METRICS = ("attempts", "connected", "goal_met", "booked", "transferred", "talk_time_mean")


def _nothing_before(reader: Reader, filters: Filters, bucket: str) -> str:
    """Where whole buckets of the range are older than the store's first call: their emptiness is no silence."""
    ((first,),) = (row.values() for row in reader.ask(*_FIRST_CALL))
    if not isinstance(first, datetime):
        return ""
    zone = ZoneInfo(filters.zone)
    start, began = datetime.fromtimestamp(filters.start / 1_000_000, zone), first.replace(tzinfo=UTC).astimezone(zone)
    if bucket_start(began, bucket) <= bucket_start(start, bucket):
        return ""
    when = words.local(first, filters.zone) if bucket == "hour" else words.day(first, filters.zone)
    return f"The first call ever is of {when}; nothing was received before it"


def _judgements(filters: Filters) -> Asked:
    """Criterion and result at once: a metric has one slice."""
    rows, params = selected("rollup_analysis", filters)
    return (
        f"SELECT criterion, result, CAST(sum(calls) AS BIGINT) AS calls FROM ({rows}) GROUP BY criterion, result "
        "ORDER BY criterion, result",
        params,
    )


def _agents_by_calls(filters: Filters) -> Asked:
    """Every agent with its platforms, the busiest first."""
    rows, params = selected("rollup_calls", filters)
    return (
        "SELECT agent_id, list(provider) AS providers FROM ("
        f"SELECT agent_id, provider, sum(calls) AS calls FROM ({rows}) GROUP BY agent_id, provider"
        ") GROUP BY agent_id ORDER BY sum(calls) DESC, agent_id NULLS LAST",
        params,
    )


@dataclass(frozen=True, slots=True)
class _Cell:
    """One agent's number, and whether the agent's platform does not send it."""

    silent: bool
    row: Measured | None

    @property
    def value(self) -> float | None:
        return self.row.value if self.row else None

    def share(self) -> str:
        if self.silent:
            return NOT_AVAILABLE
        if self.row is None or not self.row.denominator:
            return "none yet"
        numerator, denominator = self.row.numerator or 0, self.row.denominator
        if denominator < words.SMALL_N:
            return _part(numerator, denominator)
        low, high = interval(numerator, denominator)
        digits = 1 if denominator >= words.DECIMAL_N else 0
        # Where it takes several lines, neither the interval nor n is torn apart.
        sure = f"{low * 100:.{digits}f}{NONE}\N{WORD JOINER}{high * 100:.{digits}f}"
        return f"{_part(numerator, denominator)} ({sure}, n\N{NO-BREAK SPACE}{words.count(denominator)})"

    def count(self) -> str:
        return NOT_AVAILABLE if self.silent else words.count(self.value or 0)

    def length(self) -> str:
        if self.silent:
            return NOT_AVAILABLE
        return "none yet" if self.value is None else words.duration(self.value)


def _id(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _distinct(names: Sequence[str]) -> list[str]:
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


def _analysis_note(hidden: int, results: Set[str]) -> str:
    known = [*(value for value, _, _ in charts.RESULTS), "not_applicable"]
    unknown = sorted(results - set(known))
    notes = []
    if hidden > 0:
        notes.append(f"{hidden} more criteria are not shown; see call_analysis on the SQL page")
    if unknown:
        notes.append(f"words that the platform newly sends: {', '.join(words.label(word, 40) for word in unknown[:5])}")
    return "; ".join(notes)
