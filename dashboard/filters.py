"""The line of filters on top of a page: drawn from the address, brought along to other pages, read as a `View`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import streamlit as st

from dashboard import address, words
from dashboard.view import FIRST_DAY, LAST_DAY, RANGES, View, of_days, of_range

FIRST_RANGE = "7d"
NAMES = ("range", "from", "to", "zone", "provider", "agent", "direction")
"""Their names in the address."""
ZONES = (
    "UTC",
    *sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "posix", "right"))),
)


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from, as the store has it."""

    providers: Sequence[str]
    agents: Mapping[str, str]
    """Agent id -> name."""
    directions: Sequence[str]


def bring_along(page: str) -> None:
    """Take the filters of the page before to this one, unless the address has some of its own."""
    if st.session_state.get("filters-page", page) != page and not any(name in st.query_params for name in NAMES):
        address.write(**st.session_state.get("filters", {}))
    st.session_state["filters-page"] = page
    st.session_state["filters"] = {name: address.read(name) for name in NAMES}


def pick(choices: Choices, titles: Mapping[str, str], now: datetime) -> View:
    """Draw the filters and give what they select; `titles` are the providers' names for people."""
    with st.container(horizontal=True, key="filters", gap="small"):
        name = address.choose("Range", "range", list(RANGES), first=FIRST_RANGE, show=lambda key: RANGES[key][0])
        zone = address.choose("Time zone", "zone", ZONES, first=viewer_zone(), show=lambda key: key.replace("_", " "))
        chosen = {
            "provider": _pick_one("Platform", "provider", choices.providers, titles),
            "agent_id": _pick_one("Agent", "agent", list(choices.agents), choices.agents),
            "direction": _pick_one("Direction", "direction", choices.directions, {}),
        }
    only = {column: (value,) for column, value in chosen.items() if value}
    if name == "custom":
        first, last = _pick_days(now.astimezone(ZoneInfo(zone)).date())
        return of_days(first, last, zone=zone, only=only, now=now)
    return of_range(name, zone=zone, only=only, now=now)


def viewer_zone() -> str:
    """The zone of the viewer's machine."""
    zone = st.context.timezone
    return zone if zone in ZONES else "UTC"


def zone() -> str:
    """The chosen zone, where its list is not on the page."""
    return address.one_of("zone", ZONES, viewer_zone())


def _pick_one(label: str, name: str, options: Sequence[str], names: Mapping[str, str]) -> str:
    return address.choose(
        label, name, ["", *options], show=lambda value: words.label(names.get(value, value), 40) if value else "All"
    )


def _pick_days(today: date) -> tuple[date, date]:
    with st.container(horizontal=True, key="days", gap="small"):
        return _pick_day("From", "from", today - timedelta(days=6)), _pick_day("To (included)", "to", today)


def _pick_day(label: str, name: str, first: date) -> date:
    try:
        day = date.fromisoformat(address.read(name) or first.isoformat())
    except ValueError:
        day = first
    day = min(max(day, FIRST_DAY), LAST_DAY)
    if address.read(name) and day.isoformat() != address.read(name):
        address.write(**{name: ""})
    key = f"in-{name}"
    if st.session_state.get(key, day) != day:
        st.session_state[key] = day
    st.date_input(
        label, day, key=key, min_value=FIRST_DAY, max_value=LAST_DAY, on_change=_day_chosen, args=(name,), width=150
    )
    return day


def _day_chosen(name: str) -> None:
    day = st.session_state[f"in-{name}"]
    address.write(**{name: day.isoformat() if day else "", address.PAGE: ""})
