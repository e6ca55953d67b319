"""What a tile says about one metric: the figure, its change, its base and its interval. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from analytics.metric import Better, Kind, Metric, interval
from dashboard import words

TILES = ("attempts", "connected", "goal_met", "booked", "transferred", "talk_time")
"""The metrics on top of overview and report, in their order."""


@dataclass(frozen=True, slots=True)
class Total:
    """A metric over a whole period."""

    value: float | None
    numerator: float | None
    denominator: float | None
    n: float


@dataclass(frozen=True, slots=True)
class Tile:
    """The words of a tile."""

    figure: str
    change: str | None
    good: bool | None
    """Whether the change is good news; None where it is neither."""
    base: str


def total(rows: pd.DataFrame) -> Total:
    """A period's total from its buckets; for kinds whose parts add up (count, share, mean)."""
    if rows.empty:
        return Total(None, None, None, 0)
    numerator = float(rows["numerator"].fillna(0).sum())
    parts = rows["denominator"].dropna()
    denominator = float(parts.sum()) if len(parts) else None
    if denominator is None:
        return Total(numerator, numerator, None, float(rows["n"].sum()))
    return Total(numerator / denominator if denominator else None, numerator, denominator, float(rows["n"].sum()))


def tile(metric: Metric, now: Total, before: Total) -> Tile:
    """How the total is told, and how it compares with the period before."""
    if now.value is None:
        return Tile("\N{EN DASH}", None, None, "nothing to measure yet")
    if metric.kind is Kind.SHARE:
        return _share(metric, now, before)
    figure = words.value(metric, now.value, now.n)
    base = f"from {words.count(now.n)} calls" if metric.unit == "s" else f"of {words.count(now.n)} calls"
    if metric.name == "attempts":
        base = f"{words.count(before.value or 0)} in the period before"
    return Tile(figure, *_change_of_count(metric, now, before), base)


def _share(metric: Metric, now: Total, before: Total) -> Tile:
    if now.value is None or now.numerator is None or now.denominator is None:
        return Tile("\N{EN DASH}", None, None, "nothing to measure yet")
    counts = f"{words.count(now.numerator)} of {words.count(now.denominator)}"
    if now.denominator < words.SMALL_N:
        return Tile(counts, None, None, "too few for a rate")
    low, high = interval(now.numerator, now.denominator)
    base = f"{counts} · {low * 100:.1f}\N{EN DASH}{high * 100:.1f}"
    return Tile(words.share(now.value, now.denominator), *_change_of_share(metric, now, before), base)


def _change_of_share(metric: Metric, now: Total, before: Total) -> tuple[str | None, bool | None]:
    if before.value is None or now.value is None or (before.denominator or 0) < words.SMALL_N:
        return ("new" if not before.n else None), None
    points = (now.value - before.value) * 100
    return f"{points:+.1f} pts", _good(metric, points)


def _change_of_count(metric: Metric, now: Total, before: Total) -> tuple[str | None, bool | None]:
    if not before.value or now.value is None:
        return ("new" if now.value else None), None
    change = (now.value - before.value) / before.value
    if max(now.n, before.n) < words.SMALL_N:
        return None, None
    return f"{change * 100:+.1f}{words.THIN}%", _good(metric, change)


def _good(metric: Metric, change: float) -> bool | None:
    if metric.better is Better.NEUTRAL or math.isclose(change, 0, abs_tol=1e-9):
        return None
    return (change > 0) == (metric.better is Better.HIGHER)
