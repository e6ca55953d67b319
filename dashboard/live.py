"""Keeps a page current: watches the store, draws the page anew when it has changed, says so when it does not answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import streamlit as st

from dashboard import address, data, door, filters, part, words
from dashboard.data import Pulse
from dashboard.inert import literal

EVERY_S = 1.0
HEAVY_S = 0.7
REST = 3
"""A page that takes longer than `HEAVY_S` to draw is drawn less often: it rests so many times as long."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the page on the screen was made from."""

    pulse: Pulse
    ended_at: float
    took_s: float
    usual_s: float


@contextmanager
def following(page: str) -> Iterator[None]:
    """Draw a page that follows the store; while it is being drawn nothing interrupts it."""
    began = time.monotonic()
    st.session_state["drawn"] = None
    st.session_state["follows"] = True
    pulse = data.begin(page)
    _watch()
    try:
        yield
    finally:
        ended = time.monotonic()
        # The first drawing makes what later ones only use again.
        usual, st.session_state["took"] = st.session_state.get("took", 0.0), ended - began
        st.session_state["drawn"] = Drawn(pulse, ended, ended - began, min(usual, ended - began))


def stand_still() -> None:
    """Do not draw this page anew for new rows: what it shows was asked for by hand."""
    st.session_state["follows"] = False


def refused() -> None:
    """Say on top of the page whose webhooks are refused: its figures would only stand still."""
    late = door.of_late(datetime.now(UTC))
    if late.refused:
        st.warning(door.warning(late, filters.zone()), icon=":material/gpp_maybe:")


def heading(title: str, about: str) -> None:
    """Title and one grey line: what is shown, how fresh it is, and what is behind, if anything."""
    fresh = data.freshness()
    part.heading(
        title,
        about if fresh.newest else f"{about} · nothing received yet",
        newest_ms=round(fresh.newest.timestamp() * 1000) if fresh.newest else None,
        behind=" · ".join(filter(None, (_behind(data.pulse()), door.unread(door.of_late(datetime.now(UTC)))))),
        zone=filters.zone(),
        leads_to=address.leads_to(),
    )
    if fresh.mistakes:
        st.error(
            f"{words.counted(fresh.mistakes, 'received webhook', 'received webhooks')} could not be understood by a "
            "mistake of Calltally, so numbers are not complete. Nothing is lost: update Calltally, then run `calltally "
            "dead retry`.",
            icon=":material/report:",
        )


@st.fragment(run_every=EVERY_S)
def _watch() -> None:
    now = data.pulse()
    if now.trouble:
        st.warning(
            _what_is_wrong(now), icon=":material/cloud_off:" if not now.reachable else ":material/hourglass_top:"
        )
    drawn = st.session_state.get("drawn")
    if drawn is not None and _is_due(drawn, now):
        st.rerun(scope="app")


def _behind(now: Pulse) -> str:
    """What is received but not counted, and where on the way it is."""
    if now.way is None:
        return f"{words.count(now.lag)} behind" if now.lag else ""
    parts = []
    if now.way.unpublished or now.way.stopped:
        why = f" ({now.way.stopped})" if now.way.stopped else ""
        parts.append(f"{words.count(now.way.unpublished)} not in Kafka yet{why}")
    if now.lag:
        fullest = now.way.fullest
        where = f"{words.count(fullest.lag)} of them in {fullest.topic} {fullest.partition}"
        parts.append(f"{words.count(now.lag)} waiting in Kafka, {where}")
    return " · ".join(parts)


def _is_due(drawn: Drawn, now: Pulse) -> bool:
    if not now.reachable:
        # What is on the screen stays there until there is something newer.
        return False
    if not drawn.pulse.reachable:
        return True
    before = drawn.pulse
    changed = (now.version, now.lag, now.way) != (before.version, before.lag, before.way)
    rested = drawn.usual_s < HEAVY_S or time.monotonic() - drawn.ended_at >= REST * drawn.usual_s
    return bool(st.session_state.get("follows")) and changed and rested


def _what_is_wrong(now: Pulse) -> str:
    if now.reachable:
        return f"{literal(now.trouble)} Until then numbers are not complete."
    if now.seen_at is None:
        return (
            f"{literal(now.trouble)} Start it with `calltally up`, or see its log. Webhooks that were answered are in "
            "the journal; this page goes on by itself."
        )
    seen = words.local(now.seen_at, filters.viewer_zone())
    return (
        f"The worker does not answer since {literal(seen)}; figures are those of that moment. Webhooks that were "
        "answered are in the journal, so nothing is lost; this page goes on by itself."
    )
