"""The line of filters on top of a page: drawn from the address, brought along to other pages, read as a `View`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import streamlit as st

from dashboard import address, words
from dashboard.view import FIRST_DAY, LAST_DAY, RANGES, View, of_days, of_range

FIRST_RANGE = "7d"
CHOSEN = {"org": "org", "provider": "provider", "agent": "agent_id", "direction": "direction"}
"""The columns that are filtered by, by their names in the address."""
NAMES = ("range", "from", "to", "zone", *CHOSEN)
"""All names in the address."""
ZONES = (
    "UTC",
    *sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "posix", "right"))),
)


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from, as the store has it."""

    orgs: Sequence[str]
    """Clients, where there are several and platforms do not tell them apart already: else the list would be useless."""
    providers: Sequence[str]
    agents: Mapping[str, str]
    """Agent id -> name."""
    directions: Sequence[str]


def bring_along(page: str) -> None:
    """Take the filters of the page before to this one, unless the address has some of its own.

    Every page that was drawn has its zone there, so one that Back leads to is as it was.
    """
    if address.arrive(page) and not any(name in st.query_params for name in NAMES):
        address.write(**{**st.session_state.get("filters", {}), **st.query_params.to_dict()})
    # The viewer's own zone comes by itself; written, it would be one more step to go back.
    own_zone = {"zone": ""} if address.read("zone") == viewer_zone() else {}
    st.session_state["filters"] = {**{name: address.read(name) for name in NAMES}, **own_zone}


def kept() -> dict[str, str]:
    """The filters as a link to another page takes them along."""
    return {**{name: address.read(name) for name in NAMES}, "zone": zone()}


def pick(choices: Choices, titles: Mapping[str, str], now: datetime) -> View:
    """Draw the filters and give what they select; `titles` are the providers' names for people."""
    with st.container(horizontal=True, key="filters", gap="small"):
        name = address.choose("Range", "range", list(RANGES), first=FIRST_RANGE, show=lambda key: RANGES[key][0])
        here = address.choose(
            "Time zone", "zone", ZONES, first=viewer_zone(), show=lambda key: key.replace("_", " "), own=True
        )
        chosen = {
            "org": _pick_one("Client", "org", choices.orgs, {}) if choices.orgs else "",
            "provider": _pick_one("Platform", "provider", choices.providers, titles),
            "agent": _pick_one("Agent", "agent", list(choices.agents), _told_apart(choices.agents)),
            "direction": _pick_one("Direction", "direction", choices.directions, {}),
        }
    only = {CHOSEN[key]: (value,) for key, value in chosen.items() if value}
    if name == "custom":
        first, last = _pick_days(now.astimezone(ZoneInfo(here)).date())
        return of_days(first, last, zone=here, only=only, now=now)
    return of_range(name, zone=here, only=only, now=now)


def viewer_zone() -> str:
    """The zone of the viewer's machine."""
    zone = st.context.timezone
    return zone if zone in ZONES else "UTC"


def zone() -> str:
    """The chosen zone, where its list is not on the page."""
    return address.one_of("zone", ZONES, viewer_zone(), own=True)


def _pick_one(label: str, name: str, options: Sequence[str], names: Mapping[str, str]) -> str:
    return address.choose(
        label, name, ["", *options], show=lambda value: words.label(names.get(value, value)) if value else "All"
    )


def _told_apart(agents: Mapping[str, str]) -> dict[str, str]:
    """Agents by name, with the id where a name is that of several."""
    often = Counter(agents.values())
    return {agent: f"{name} ({agent})" if often[name] > 1 else name for agent, name in agents.items()}


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
    key = address.key_of(name)
    if st.session_state.get(key, day) != day:
        st.session_state[key] = day
    st.date_input(
        label, day, key=key, min_value=FIRST_DAY, max_value=LAST_DAY, on_change=_day_chosen, args=(key, name), width=150
    )
    return day


def _day_chosen(key: str, name: str) -> None:
    day = st.session_state[key]
    address.write(**{name: day.isoformat() if day else "", address.PAGE: ""})
