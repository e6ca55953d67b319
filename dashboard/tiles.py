"""What a tile says about one metric: the figure, its change, its base and its interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from analytics.metric import Better, Kind, Metric, difference, interval, titles
from dashboard import words
from dashboard.reader import Measured

TILES = ("attempts", "connected", "goal_met", "booked", "transferred", "talk_time")
"""The metrics on top of overview and report, in their order."""
NONE = "\N{EN DASH}"


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
    """Whether the change is good news; None where it is neither, or may be chance."""
    base: str


def total(rows: Sequence[Measured]) -> Total:
    """A period's total from its one row, or from its buckets where their parts add up (`Metric.additive`)."""
    if not rows:
        return Total(None, None, None, 0)
    if len(rows) == 1:
        return Total(rows[0].value, rows[0].numerator, rows[0].denominator, rows[0].n)
    numerator = sum(row.numerator or 0.0 for row in rows)
    parts = [row.denominator for row in rows if row.denominator is not None]
    n = sum(row.n for row in rows)
    if not parts:
        return Total(numerator, numerator, None, n)
    denominator = sum(parts)
    return Total(numerator / denominator if denominator else None, numerator, denominator, n)


def tile(
    metric: Metric,
    now: Total,
    before: Total,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    back: str = "period before",
) -> Tile:
    """How the total is told, and how it compares with the period before, which `back` names.

    `only` names the platforms whose calls these are: where none of them sends what the metric needs, the tile says so.
    """
    reason = _not_available(metric, (only or {}).get("provider", ()))
    if now.value is None and metric.kind is Kind.COUNT and reason is None and metric.name in TILES:
        # These are told in any case, and that there are none may be the news.
        now = Total(0.0, 0.0, None, 0)
    if now.value is None:
        return Tile(NONE, None, None, reason or "nothing to measure")
    if metric.kind is Kind.SHARE:
        return _share(metric, now.value, now, before)
    figure = words.value(metric, now.value, now.n)
    if metric.name == "attempts":
        base = f"{back}: {words.count(before.value or 0)}"
    else:
        of = "of" if metric.kind is Kind.COUNT and metric.unit != "s" else "from"
        base = f"{of} {words.counted(now.n, *(('event', 'events') if metric.unit == 'events' else ('call', 'calls')))}"
    return Tile(figure, *_change_of_number(metric, now, before), base)


def without(metric: Metric, providers: Collection[str]) -> str:
    """Which of the platforms that have calls are not in the number, as they do not send it; empty where all are."""
    silent = sorted(titles()[name] for name in metric.not_available_from().intersection(providers))
    return f"Not available from {' and '.join(silent)}, whose calls are not in it." if silent else ""


def _not_available(metric: Metric, providers: Sequence[str]) -> str | None:
    silent = metric.not_available_from()
    if providers and silent.issuperset(providers):
        # More names than one do not fit; `without` tells all of them.
        one = titles()[providers[0]] if len(providers) == 1 else f"{len(providers)} platforms"
        return f"not available from {one}"
    return None


def _share(metric: Metric, value: float, now: Total, before: Total) -> Tile:
    numerator, denominator = now.numerator or 0.0, now.denominator or 0.0
    counts = f"{words.count(numerator)} of {words.count(denominator)}"
    if denominator < words.SMALL_N:
        return Tile(counts, None, None, "too few for a rate")
    low, high = interval(numerator, denominator)
    base = f"{counts} · {low * 100:.1f}{NONE}{high * 100:.1f}"
    return Tile(words.share(value, denominator), *_change_of_share(metric, now, before), base)


def _change_of_share(metric: Metric, now: Total, before: Total) -> tuple[str | None, bool | None]:
    """In points; good or bad only where the interval of the difference is all on one side of none."""
    if not before.n:
        return "new", None
    if before.value is None or now.value is None or (before.denominator or 0) < words.SMALL_N:
        return None, None
    points = (now.value - before.value) * 100
    low, high = difference((now.numerator or 0, now.denominator or 0), (before.numerator or 0, before.denominator or 0))
    # Minus nothing is nothing.
    return f"{round(points, 1) + 0.0:+.1f} pts", _good(metric, points) if low > 0 or high < 0 else None


def _change_of_number(metric: Metric, now: Total, before: Total) -> tuple[str | None, bool | None]:
    if now.value is None or (not before.n and not now.value):
        return None, None
    if not before.value:
        return ("new", None) if now.value else (None, None)
    # A count may well fall to few, and that is news; a mean of few is chance.
    if before.n < words.SMALL_N or (metric.kind is not Kind.COUNT and now.n < words.SMALL_N):
        return None, None
    if before.value < 0 or metric.unit == "points":
        return f"{now.value - before.value:+.2f}", _good(metric, now.value - before.value)
    change = (now.value - before.value) / before.value
    return f"{change * 100:+.1f}{words.THIN}%", _good(metric, change)


def _good(metric: Metric, change: float) -> bool | None:
    if metric.better is Better.NEUTRAL or math.isclose(change, 0, abs_tol=1e-9):
        return None
    return (change > 0) == (metric.better is Better.HIGHER)
