"""The independent check: what was sent and answered, held against what is in the journal, the topic and the store.

Nothing of Calltally is imported. The journal is read as the file it is: `about(key, value)` names the journal; each
row of `rows(position, seal, head, body)` is one record, its head JSON with a `type` of `delivery` or `notice`, and its
seal the first 16 bytes of SHA-256 over the journal's id, the position as 8 bytes, the 32 bytes of the delivery's id
(nothing for a notice) and the head. The id is SHA-256 over source, NUL and body.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from tests.faults import ledger, topics
from tests.faults.journalled import Journalled
from tests.faults.platforms import Call
from tests.faults.report import Alarm, Report


@dataclass
class Sent:
    """What the ledger says."""

    acknowledged: dict[str, float] = field(default_factory=dict)
    """When it was first answered 200, by digest."""
    first: dict[Call, float] = field(default_factory=dict)
    """When something of a call was first sent."""
    calls: dict[str, Call | None] = field(default_factory=dict)
    """The call of each genuine digest, acknowledged or not."""
    forged: set[str] = field(default_factory=set)


def check(ledger_path: Path, journal: Path, snapshot: Path, alarms: Sequence[Alarm], *, kafka: str = "") -> Report:
    """Compare a ledger with a journal at rest and with a snapshot of the store that has applied all of it.

    `alarms` are what a person could have seen; `kafka` is where the topics are, in case the store was filled from them.
    """
    report = Report(alarms=alarms)
    with closing(duckdb.connect(str(snapshot), read_only=True)) as store:
        damaged = store.execute("SELECT position FROM dead_letters WHERE reason = 'journal_damaged'").fetchall()
        report.named = frozenset(position for (position,) in damaged)
        sent = _read_ledger(ledger_path, report)
        journalled = _read_journal(journal, report)
        _compare_journal(sent, journalled, report)
        _compare_deliveries(sent, journalled, store, report)
        _compare_calls(sent, journalled, store, report)
        _compare_rollups(store, report)
        if kafka:
            topics.compare(kafka, journalled, store, report)
        else:
            _compare_position(journalled, store, report)
    return report


def _read_ledger(path: Path, report: Report) -> Sent:
    sent = Sent()
    for attempt in ledger.read(path):
        report.attempts += 1
        if attempt.kind == "forged":
            sent.forged.add(attempt.digest)
            if attempt.status == 200:
                report.forged.append(f"{attempt.source} {attempt.digest} was answered 200")
        elif attempt.kind == "inbound":
            if attempt.status not in (200, None):
                report.lose(f"a waiting call was answered {attempt.status}", since=attempt.sent_at)
        else:
            sent.calls[attempt.digest] = attempt.call
            if attempt.call is not None:
                sent.first[attempt.call] = min(attempt.sent_at, sent.first.get(attempt.call, attempt.sent_at))
            if attempt.status == 200:
                sent.acknowledged.setdefault(attempt.digest, attempt.ended_at)
                if attempt.answer != attempt.digest:
                    report.phantom.append(f"{attempt.digest} was acknowledged as {attempt.answer}")
            elif attempt.status not in (503, None):
                report.lose(
                    f"{attempt.digest} is genuine and was answered {attempt.status} {attempt.answer}",
                    since=attempt.sent_at,
                )
    report.acknowledged = len(sent.acknowledged)
    return sent


def _read_journal(path: Path, report: Report) -> Journalled:
    found = Journalled()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        about = {key.decode(): value.decode() for key, value in connection.execute("SELECT key, value FROM about")}
        found.journal_id = about["journal_id"]
        for position, seal, head, body in connection.execute("SELECT * FROM rows ORDER BY position"):
            if position != found.last + 1:
                report.lose(f"the journal goes from position {found.last} to {position}", position=found.last + 1)
            found.last = position
            told = json.loads(head)
            identity = b""
            found.received_at[position] = told["received_at"] / 1_000_000
            if told["type"] == "delivery":
                identity = hashlib.sha256(told["source"].encode() + b"\0" + body).digest()
                found.deliveries[position] = identity.hex()
            sealed = hashlib.sha256(found.journal_id.encode() + position.to_bytes(8, "big") + identity + head).digest()
            if sealed[:16] != seal:
                report.lose(f"position {position} of the journal does not match its seal", position=position)
    report.records = found.last
    return found


def _compare_journal(sent: Sent, journalled: Journalled, report: Report) -> None:
    held = set(journalled.deliveries.values())
    for digest in sent.acknowledged.keys() - held:
        report.lose(f"{digest} was acknowledged and is not in the journal", since=sent.acknowledged[digest])
    for digest in held - sent.calls.keys():
        if digest in sent.forged:
            report.forged.append(f"{digest} is in the journal")
        else:
            report.phantom.append(f"{digest} is in the journal and was never sent")


def _compare_deliveries(sent: Sent, journalled: Journalled, store: duckdb.DuckDBPyConnection, report: Report) -> None:
    rows = store.execute("SELECT position, id, verdict FROM deliveries WHERE trust IS NOT NULL").fetchall()
    positions = Counter(position for position, _, _ in rows)
    report.double += [f"position {position} was applied {n} times" for position, n in positions.items() if n > 1]
    accepted = Counter(digest for _, digest, verdict in rows if verdict == "accepted")
    report.double += [f"{digest} counts {n} times" for digest, n in accepted.items() if n > 1]
    for position, digest, _ in rows:
        if journalled.deliveries.get(position) != digest:
            report.phantom.append(f"position {position} of the store, {digest}, is not so in the journal")
    for position in journalled.deliveries.keys() - positions.keys():
        report.lose(
            f"position {position} of the journal, {journalled.deliveries[position]}, is not in the store",
            since=journalled.received_at[position], position=position,
        )  # fmt: skip
    dead = Counter(position for (position,) in store.execute("SELECT position FROM dead_letters").fetchall())
    report.double += [f"the dead letter of {position} is there {n} times" for position, n in dead.items() if n > 1]
    unreadable = {digest for digest, call in sent.calls.items() if call is None}
    first = {digest: position for position, digest in sorted(journalled.deliveries.items(), reverse=True)}
    should = {first[digest] for digest in unreadable if digest in first}
    for position in should - dead.keys():
        report.lose(f"position {position} should be a dead letter", since=journalled.received_at[position])
    for position in dead.keys() - should:
        report.lose(f"position {position} became a dead letter", position=position)


def _compare_position(journalled: Journalled, store: duckdb.DuckDBPyConnection, report: Report) -> None:
    applied = _one(store, "SELECT max(position) FROM positions")
    if applied != journalled.last:
        report.lose(f"the store stands at {applied}, the journal ends at {journalled.last}")


def _compare_calls(sent: Sent, journalled: Journalled, store: duckdb.DuckDBPyConnection, report: Report) -> None:
    expected: Counter[Call] = Counter()
    for digest in set(journalled.deliveries.values()):
        call = sent.calls.get(digest)
        if call is not None:
            expected[call] += 1
    rows = store.execute("SELECT provider, org, call_id, event_count FROM calls").fetchall()
    report.calls = len(rows)
    found = Counter({(provider, org, call_id): 0 for provider, org, call_id, _ in rows})
    for provider, org, call_id, events in rows:
        call = (provider, org, call_id)
        if found[call]:
            report.double.append(f"call {call} is there more than once")
        found[call] += events
    _compare_counts("events of call", expected, found, sent, report)
    timeline = store.execute("SELECT provider, org, call_id, count(*) FROM call_events GROUP BY ALL").fetchall()
    _compare_counts("timeline of call", expected, {(a, b, c): n for a, b, c, n in timeline}, sent, report)
    repeated = store.execute("SELECT event_id FROM call_events GROUP BY ALL HAVING count(*) > 1").fetchall()
    report.double += [f"event {event} is there more than once" for (event,) in repeated]


def _compare_counts(
    what: str, expected: Counter[Call], found: dict[Call, int] | Counter[Call], sent: Sent, report: Report
) -> None:
    for call in expected.keys() | found.keys():
        should, is_so = expected.get(call, 0), found.get(call, 0)
        if not should:
            report.phantom.append(f"{what} {call}: {is_so}, and none was sent")
        elif is_so < should:
            report.lose(f"{what} {call}: {is_so} instead of {should}", since=sent.first.get(call, 0.0))
        elif is_so > should:
            report.double.append(f"{what} {call}: {is_so} instead of {should}")


def _compare_rollups(store: duckdb.DuckDBPyConnection, report: Report) -> None:
    for name, (about, kept, recomputed) in _ROLLUPS.items():
        keys = len(about.split(", "))
        stands = {row[:keys]: row[keys:] for row in store.execute(f"SELECT {about}, {kept}").fetchall()}
        should = {row[:keys]: row[keys:] for row in store.execute(f"SELECT {about}, {recomputed}").fetchall()}
        for key in stands.keys() | should.keys():
            has, needs = stands.get(key, (0,) * 3), should.get(key, (0,) * 3)
            if any(have > need for have, need in zip(has, needs, strict=False)):
                report.double.append(f"{name} {key}: {has} instead of {needs}")
            elif has != needs and (any(has) or any(needs)):
                report.lose(f"{name} {key}: {has} instead of {needs}")


_BUCKETED = (
    "(SELECT *, time_bucket(INTERVAL '15 minutes', counted_at) AS bucket_start FROM calls WHERE excluded IS NULL)"
)
_ROLLUPS = {
    "rollup_calls": (
        "bucket_start, provider, org, agent_id, campaign, direction, status, end_call_reason, connection, ended_by, "
        "result",
        "sum(calls)::BIGINT, sum(transferred)::BIGINT, sum(booked)::BIGINT FROM rollup_calls GROUP BY ALL",
        f"""count(*), count(*) FILTER (transferred), count(*) FILTER (booked.call_id IS NOT NULL)
        FROM {_BUCKETED} LEFT JOIN (SELECT DISTINCT provider, org, call_id FROM appointments) AS booked
            USING (provider, org, call_id) GROUP BY ALL""",
    ),
    "rollup_analysis": (
        "bucket_start, provider, org, agent_id, direction, criterion, judged",
        """sum(calls)::BIGINT FROM (SELECT *, result AS judged FROM rollup_analysis) GROUP BY ALL""",
        f"""count(*) FROM {_BUCKETED} JOIN (SELECT provider, org, call_id, criterion, result AS judged
            FROM call_analysis) USING (provider, org, call_id) GROUP BY ALL""",
    ),
    "rollup_variables": (
        "bucket_start, provider, org, asked_by, direction, name",
        """sum(calls)::BIGINT, sum(collected)::BIGINT
        FROM (SELECT *, agent_id AS asked_by FROM rollup_variables) GROUP BY ALL""",
        f"""count(*), count(*) FILTER (collected) FROM {_BUCKETED} JOIN (
            SELECT provider, org, call_id, agent_id AS asked_by, name, collected FROM call_variables)
            USING (provider, org, call_id) GROUP BY ALL""",
    ),
}
"""Each roll-up: what a row is about, its numbers, and the same numbers from the tables."""


def _one(store: duckdb.DuckDBPyConnection, query: str) -> int:
    (value,) = store.execute(query).fetchall()[0]
    return int(value or 0)
