"""The line of filters on top of a page: drawn once, kept in the address bar, read back as a `View`.

Every value from the address bar is one of the offered choices or is dropped: the widgets themselves refuse others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import streamlit as st

from dashboard.view import RANGES, View, of_days, of_range

FIRST_RANGE = "7d"
ZONES = sorted(
    zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "posix", "right"))
)


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from, as the store has it."""

    providers: Sequence[str]
    agents: Mapping[str, str]
    """Agent id -> name."""
    directions: Sequence[str]


def pick(choices: Choices, titles: Mapping[str, str], now: datetime) -> View:
    """Draw the filters and give what they select; `titles` are the providers' names for people."""
    columns = st.columns([1.3, 1.5, 1.1, 1.2, 1.0])
    with columns[0]:
        name = st.selectbox(
            "Range", list(RANGES), index=list(RANGES).index(FIRST_RANGE), format_func=lambda key: RANGES[key][0],
            key="range", bind="query-params",
        ) or FIRST_RANGE  # fmt: skip
    with columns[1]:
        zone = _pick_zone()
    with columns[2]:
        provider = _pick_one("Platform", "provider", choices.providers, titles)
    with columns[3]:
        agent = _pick_one("Agent", "agent", list(choices.agents), choices.agents)
    with columns[4]:
        direction = _pick_one("Direction", "direction", choices.directions, {})
    chosen = {"provider": provider, "agent_id": agent, "direction": direction}
    only = {column: (value,) for column, value in chosen.items() if value}
    if name == "custom":
        first, last = _pick_days(now, zone)
        return of_days(first, last, zone=zone, only=only, now=now)
    return of_range(name, zone=zone, only=only, now=now)


def _pick_zone() -> str:
    viewer = st.context.timezone
    first = viewer if viewer in ZONES else "UTC"
    options = ["UTC", *ZONES]
    return st.selectbox("Time zone", options, index=options.index(first), key="zone", bind="query-params") or first


def _pick_one(label: str, key: str, options: Sequence[str], names: Mapping[str, str]) -> str:
    return (
        st.selectbox(
            label, ["", *options], key=key, bind="query-params",
            format_func=lambda value: names.get(value, value) or value if value else "All",
        )
        or ""
    )  # fmt: skip


def _pick_days(now: datetime, zone: str) -> tuple[date, date]:
    today = now.astimezone(ZoneInfo(zone)).date()
    left, right, _ = st.columns([1, 1, 4])
    with left:
        first = st.date_input("From", today - timedelta(days=6), key="from", bind="query-params") or today
    with right:
        last = st.date_input("To (included)", today, key="to", bind="query-params") or today
    return first, last
