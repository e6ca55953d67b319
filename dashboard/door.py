"""What came to the door of late and is in no number: webhooks that were refused, and those that could not be read.

A source is told of only where a wrong secret or a clock is likely behind it, and not for every stranger who knocks: in
its last hour, or since its last proved delivery where that is longer ago, at least `FEW` requests were refused, they
are `SHARE` of all or more, and fewer were proved after them: with the secret put right, what was kept is accepted. A
delivery that was proved and could not be read is told of in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from analytics.metric import iso
from calls.dead_letters import MISTAKES
from dashboard import data, words
from dashboard.inert import literal

FEW = 3
SHARE = 0.1
SOURCES_MOST = 2
_STEP_S = 300
"""The edges of what is asked move on this often, so that pages of the same minutes ask the same."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What was refused of a source."""

    source: str
    requests: int
    proved: int
    """How many were proved in the last hour."""
    after: int
    """How many were proved after the last refusal."""
    since: datetime
    accepted: bool
    """Whether any was proved since then."""
    reason: str
    """Of the newest one, as a code."""

    @property
    def matters(self) -> bool:
        """Whether it is worth a word."""
        many = self.requests >= FEW and self.requests >= SHARE * (self.requests + self.proved)
        return many and self.after < self.requests


@dataclass(frozen=True, slots=True)
class Door:
    """What the last 24 hours brought that is in no number."""

    refused: Sequence[Refused]
    """By source, most first, as far as it is worth a word."""
    unread: int
    reason: str
    """Why most of them could not be read, as a code."""


def of_late(now: datetime) -> Door:
    """What there is to tell at that time. Raises QueryError."""
    at = datetime.fromtimestamp(now.timestamp() // _STEP_S * _STEP_S, UTC)
    edges = {name: iso(round((at - back).timestamp() * 1_000_000)) for name, back in _BACK.items()}
    refused, unread = [], []
    for row in data.ask(_OF_LATE, edges):
        reason, requests = str(row["reason"]), int(str(row["requests"]))
        if row["source"] is None:
            unread.append((requests, reason))
        else:
            since = cast(datetime, row["since"]).replace(tzinfo=UTC)
            proved, after = int(str(row["proved"])), int(str(row["after"]))
            refused.append(Refused(str(row["source"]), requests, proved, after, since, bool(row["accepted"]), reason))
    told = sorted((one for one in refused if one.matters), key=lambda one: (-one.requests, one.source))
    return Door(told, sum(number for number, _ in unread), max(unread, default=(0, ""))[1])


def warning(door: Door, zone: str) -> str:
    """A sentence on each source whose webhooks are refused, and the next step."""
    said = [_of_source(one, zone) for one in door.refused[:SOURCES_MOST]]
    if (rest := len(door.refused) - len(said)) > 0:
        said.append(f"{words.counted(rest, 'more source', 'more sources')} likewise.")
    checked = "its secret" if len(door.refused) == 1 else "their secrets"
    signed = all(one.reason.startswith("signature_") for one in door.refused)
    step = (
        f"Check {checked} with `calltally doctor`: what is kept of them counts once that is right."
        if signed
        else "`calltally doctor` says why, `calltally quarantine list` what is kept."
    )
    return f"{' '.join(said)} Their calls are in no number. {step}"


def unread(door: Door) -> str:
    """How many could not be read and mostly why, in a few words; empty where all could."""
    if not door.unread:
        return ""
    many = words.counted(door.unread, "webhook", "webhooks")
    return f"{many} of the last 24 h could not be read ({_plain(door.reason)})"


def _of_source(one: Refused, zone: str) -> str:
    none = "" if one.accepted else " and none accepted"
    return (
        f"{words.count(one.requests)} webhooks of {literal(one.source)} were refused since "
        f"{words.local(one.since, zone)} ({literal(_plain(one.reason))}){none}."
    )


def _plain(reason: str) -> str:
    return words.label(reason.replace("_", " "), 40)


_OF_STRANGERS = ("malformed_http", "method_not_allowed", "target_too_long", "upgrade_refused")
"""Reasons of requests that are no webhook."""
_BACK = {"day": timedelta(hours=24), "hour": timedelta(hours=1)}
# What was proved is counted only where something was refused, which is seldom: the day of a busy source is long. What
# is accepted out of quarantine keeps its time, so what came after what is told by when it was applied.
_OF_LATE = f"""
WITH refused AS (
    SELECT source, reason, "count", received_at, applied_at FROM deliveries
    WHERE received_at >= $day::TIMESTAMP AND verdict = 'refused' AND source <> ''
        AND reason NOT IN {_OF_STRANGERS}
), proved AS (
    SELECT source, max(applied_at) AS newest, count(*) FILTER (received_at >= $hour::TIMESTAMP) AS lately,
        count(*) FILTER (applied_at > last_refused) AS after
    FROM deliveries JOIN (SELECT source, max(applied_at) AS last_refused FROM refused GROUP BY source) USING (source)
    WHERE received_at >= $day::TIMESTAMP AND verdict IN ('accepted', 'repeated')
    GROUP BY source
)
SELECT source, sum("count")::BIGINT AS requests, any_value(coalesce(lately, 0)) AS proved,
    any_value(coalesce(after, 0)) AS after, min(received_at) AS since,
    coalesce(any_value(newest) > min(applied_at), false) AS accepted, arg_max(reason, received_at) AS reason
FROM refused LEFT JOIN proved USING (source)
WHERE received_at >= $hour::TIMESTAMP OR newest IS NULL OR applied_at > newest
GROUP BY source
UNION ALL
SELECT NULL, count(*), 0, 0, NULL, NULL, reason FROM dead_letters
WHERE received_at >= $day::TIMESTAMP AND reason NOT IN {tuple(sorted(MISTAKES))}
GROUP BY reason
"""
