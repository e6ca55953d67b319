"""The range of time that a command is asked about: days, moments, or so and so long back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

if TYPE_CHECKING:
    from dashboard.view import View

From = Annotated[
    str, typer.Option("--from", help="Start: 2026-11-01, 2026-11-01T09:30, today, yesterday, or 7d, 24h back.")
]
To = Annotated[str, typer.Option("--to", help="End: a day, which is included, or a moment.")]
Zone = Annotated[str, typer.Option(help="Time zone of days and hours, such as Europe/Berlin.")]

YEARS = range(1970, 2200)

_BACK = re.compile(r"([1-9][0-9]{0,3})([dh])")


def view(start: str, end: str, *, zone: str, only: Mapping[str, tuple[str, ...]], now: datetime) -> View:
    """What is shown, what it is compared with, and how time is cut. Raises typer.BadParameter."""
    from dashboard.view import of_days

    here = _zone(zone)
    local = now.astimezone(here)
    begin = _begin(start, here, local)
    finish = _finish(end, here, local)
    if finish <= begin:
        raise typer.BadParameter(f"The range ends at {finish:%Y-%m-%d %H:%M}, before it starts.", param_hint="--to")
    days = of_days(begin.date(), (finish - timedelta(microseconds=1)).date(), zone=zone, only=only, now=now)
    if (micros(begin), micros(finish)) == (days.filters.start, days.filters.end):
        return days
    length = _length(start, begin, finish)
    # Days are set back on the clock on the wall, so that midnight stays midnight; hours are counted.
    clock = UTC if (back := _BACK.fullmatch(start)) is not None and back[2] == "h" else here
    return replace(
        days,
        filters=replace(days.filters, start=micros(begin), end=micros(finish)),
        before=replace(
            days.filters, start=micros(begin.astimezone(clock) - length), end=micros(finish.astimezone(clock) - length)
        ),
        label=_label(start, end) or f"{begin:%d %b %Y %H:%M} to {finish:%d %b %Y %H:%M}",
    )


def within(start: str | None, end: str | None, *, zone: str, now: datetime) -> tuple[int, int] | None:
    """The range in microseconds of UTC; None where neither end is named. Raises typer.BadParameter."""
    if start is None and end is None:
        return None
    here = _zone(zone)
    local = now.astimezone(here)
    begin = micros(_begin(start, here, local)) if start is not None else 0
    finish = micros(_finish(end or "now", here, local))
    if finish <= begin:
        raise typer.BadParameter("The range ends before it starts.", param_hint="--to")
    return begin, finish


def micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC."""
    return round(moment.timestamp() * 1_000_000)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise typer.BadParameter(
            f"There is no time zone '{name}'; write it like Europe/Berlin.", param_hint="--zone"
        ) from None


def _begin(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    if (back := _BACK.fullmatch(text)) is not None:
        if back[2] == "h":
            # Hours of the clock on the wall may be more or fewer.
            return (now.astimezone(UTC) - timedelta(hours=int(back[1]))).astimezone(zone)
        # Whole days, today among them, so that a week holds each weekday once.
        return _midnight(now.date() - timedelta(days=int(back[1]) - 1), zone)
    day = _day(text, now)
    return _midnight(day, zone) if day is not None else _moment(text, zone, now, "--from")


def _finish(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    day = _day(text, now)
    return _midnight(day + timedelta(days=1), zone) if day is not None else _moment(text, zone, now, "--to")


def _day(text: str, now: datetime) -> date | None:
    named = {"today": now.date(), "yesterday": now.date() - timedelta(days=1)}
    if text in named:
        return named[text]
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if found.year in YEARS else None


def _moment(text: str, zone: ZoneInfo, now: datetime, hint: str) -> datetime:
    if text == "now":
        return now
    try:
        found = datetime.fromisoformat(text)
        if found.year in YEARS:
            return found.astimezone(zone) if found.tzinfo else found.replace(tzinfo=zone)
    except ValueError:
        pass
    raise typer.BadParameter(
        f"'{text}' is no time. Write 2026-11-01, 2026-11-01T09:30, today, yesterday, 7d or 24h.", param_hint=hint
    )


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _length(start: str, begin: datetime, finish: datetime) -> timedelta:
    """How far back the period before lies: whole weeks for so and so long back, so that the same weekdays compare."""
    back = _BACK.fullmatch(start)
    if back is None:
        return finish - begin
    days = int(back[1]) if back[2] == "d" else -(-int(back[1]) // 24)
    return timedelta(weeks=-(-days // 7))


def _label(start: str, end: str) -> str | None:
    back = _BACK.fullmatch(start)
    if back is None or end != "now":
        return None
    unit = {"d": "day", "h": "hour"}[back[2]]
    return f"Last {back[1]} {unit}s" if back[1] != "1" else f"Last {unit}"
