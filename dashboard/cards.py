"""The cards of the overview as data: what each says, with its base, ready to be drawn on a page or on paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analytics.metric import RELATIONS, Filters, Parameter, interval
from dashboard import charts, words
from dashboard.reader import Reader

CRITERIA_MOST = 12
VARIABLES_MOST = 12
REASONS_MOST = 8
AGENTS_MOST = 20
NONE = "\N{EN DASH}"


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
    return Card("Outcomes over time", f"calls a {bucket}, by whom they reached", rows)


def reasons(reader: Reader, filters: Filters) -> Card:
    """End-call reasons in the platforms' own words, most frequent first."""
    rows = reader.measure("attempts", filters, slice_by="end_call_reason").dropna(subset=["slice"])
    known = float(rows["value"].sum())
    top = charts.topped(rows[["slice", "value"]], label="slice", value="value", most=REASONS_MOST)
    frame = pd.DataFrame(
        {
            "label": top["slice"],
            "value": top["value"] / (known or 1),
            "text": [share_with_n(value, known) for value in top["value"]],
            "hint": [words.PLAIN_REASONS.get(reason, "as the platform sends it") for reason in top["slice"]],
        }
    )
    return Card("Why calls ended", f"share of {words.count(known)} calls with a reason", frame)


def analysis(reader: Reader, filters: Filters) -> Card:
    """Criteria with their shares of met, partly and not met; rows: criterion, result, calls, n."""
    query, params = reader.metric("criterion_results").sql(filters, slice_by="criterion")
    # The catalogue's metric has one slice; the picture needs criterion and result at once, from the same rows.
    selected = query.split("\n", 1)[0]
    rows = reader.ask(
        f'{selected}\nSELECT "slice" AS criterion, result, sum(calls)::BIGINT AS calls FROM selected GROUP BY ALL',
        params,
    )
    judged = rows[rows["result"].isin([value for value, _, _ in charts.RESULTS])]
    counts = judged.groupby("criterion")["calls"].sum().sort_values(ascending=False, kind="stable")
    shown = counts.head(CRITERIA_MOST)
    frame = judged[judged["criterion"].isin(shown.index)].copy()
    frame["n"] = frame["criterion"].map(counts)
    order = {criterion: rank for rank, criterion in enumerate(shown.index)}
    frame = frame.sort_values("criterion", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    return Card(
        "Analysis", "judged calls that met, partly met or did not meet each criterion; n in brackets", frame,
        _analysis_note(len(counts) - len(shown), rows),
    )  # fmt: skip


def variables(reader: Reader, filters: Filters) -> Card:
    """How often each variable was filled, of the calls that ask for it."""
    rows = reader.measure("fill_rate", filters, slice_by="name").dropna(subset=["value"])
    top = rows.sort_values(["denominator", "slice"], ascending=[False, True]).head(VARIABLES_MOST)
    top = top.sort_values(["value", "slice"], ascending=[False, True])
    frame = pd.DataFrame(
        {
            "label": top["slice"],
            "value": top["value"],
            "text": [share_with_n(row.numerator, row.denominator) for row in top.itertuples()],
            "hint": [f"asked in {words.count(n)} calls" for n in top["denominator"]],
        }
    )
    rest = len(rows) - len(top)
    note = f"{rest} more variables are not shown; see call_variables on the SQL page" if rest else ""
    return Card("Collected variables", "filled with a value, of the calls that ask", frame, note)


def agents(reader: Reader, filters: Filters, names: Mapping[str, str]) -> Card:
    """The busiest agents side by side; shares with interval and n."""
    measured = {
        name: reader.measure(name, filters, slice_by="agent_id").set_index("slice")
        for name in ("attempts", "connected", "goal_met", "booked", "transferred", "talk_time_mean")
    }
    attempts = measured["attempts"].sort_values("value", ascending=False, kind="stable").head(AGENTS_MOST)
    order = list(attempts.index)
    table = pd.DataFrame({"Agent": [names.get(agent, agent) if agent else "without an agent" for agent in order]})
    table["Calls"] = [int(value) for value in attempts["value"]]
    for name, title in (("connected", "Connected"), ("goal_met", "Goal met"), ("transferred", "Transferred")):
        table[title] = [_share(_of(measured[name], agent)) for agent in order]
    table["Booked"] = [_count(_of(measured["booked"], agent)) for agent in order]
    table["Mean talk time"] = [_mean(_of(measured["talk_time_mean"], agent)) for agent in order]
    rest = len(measured["attempts"]) - len(order)
    return Card("Agents", "by number of calls", table, f"{rest} more agents are not shown" if rest else "")


def left_out(reader: Reader, filters: Filters) -> str:
    """How many calls are excluded from the numbers, and why; empty where none are."""
    conditions, params = filters.conditions(RELATIONS["calls"])
    rows = reader.ask(
        f"SELECT excluded, count(*) AS calls FROM calls WHERE excluded IS NOT NULL AND {' AND '.join(conditions)} "
        "GROUP BY excluded ORDER BY excluded",
        params,
    )
    parts = [f"{words.count(row.calls)} {row.excluded} calls" for row in rows.itertuples()]
    return f"Left out of all numbers: {' and '.join(parts)}." if parts else ""


def filled_in(query: str, params: Mapping[str, Parameter]) -> str:
    """A query with its parameters written in, to be run as it stands."""
    for name in sorted(params, key=len, reverse=True):
        query = query.replace(f"${name}", _literal(params[name]))
    return query


def share_with_n(part: float, whole: float) -> str:
    """A share with its base, or the counts alone where they are few."""
    if whole < words.SMALL_N:
        return f"{words.count(part)} of {words.count(whole)}"
    return f"{words.share(part / whole, whole)} of {words.count(whole)}"


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
        notes.append(f"words that the platform newly sends: {', '.join(unknown)}")
    return "; ".join(notes)


def _of(rows: pd.DataFrame, agent: str | None) -> pd.DataFrame:
    return rows[rows.index == agent] if agent is not None else rows[rows.index.isna()]


def _share(part: pd.DataFrame) -> str:
    if part.empty or not part["denominator"].iloc[0]:
        return NONE
    numerator, denominator = float(part["numerator"].iloc[0]), float(part["denominator"].iloc[0])
    if denominator < words.SMALL_N:
        return f"{words.count(numerator)} of {words.count(denominator)}"
    low, high = interval(numerator, denominator)
    share = words.share(numerator / denominator, denominator)
    return f"{share} ({low * 100:.0f}{NONE}{high * 100:.0f}, n {words.count(denominator)})"


def _count(part: pd.DataFrame) -> int:
    return 0 if part.empty or pd.isna(part["value"].iloc[0]) else int(part["value"].iloc[0])


def _mean(part: pd.DataFrame) -> str:
    value = part["value"].iloc[0] if len(part) else None
    return words.duration(float(value)) if value is not None and pd.notna(value) else "not available"
