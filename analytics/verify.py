"""Whether a store agrees with itself: everything that is kept twice is counted again from the rows."""

from __future__ import annotations

from typing import Final

import duckdb

from analytics import database

_RECOUNTS: Final = database.statements("rollups.sql")

_CHECKS: Final = {
    "{n} calls are stored more than once, for example {example}": """
        SELECT provider, org, call_id FROM kept.calls GROUP BY ALL HAVING count(*) > 1""",
    "{n} events are stored more than once, for example {example}": """
        SELECT event_id FROM kept.events GROUP BY ALL HAVING count(*) > 1""",
    "{n} calls disagree with their events in number, times or key (provider, org, call_id, event_count), "
    "for example {example}": """
        SELECT c.provider, c.org, c.call_id, c.event_count
        FROM kept.calls AS c LEFT JOIN (
            SELECT provider, org, call_id, count(*) AS n, min(received_at) AS first, max(received_at) AS last,
                min(call_hash) AS low, max(call_hash) AS high
            FROM kept.events WHERE call_id IS NOT NULL GROUP BY ALL
        ) AS e USING (provider, org, call_id)
        WHERE c.event_count IS DISTINCT FROM e.n OR c.first_received_at IS DISTINCT FROM e.first
            OR c.last_received_at IS DISTINCT FROM e.last OR c.call_hash IS DISTINCT FROM e.low
            OR c.call_hash IS DISTINCT FROM e.high""",
    "{n} calls have events but no row, for example {example}": """
        SELECT DISTINCT provider, org, call_id FROM kept.events AS e WHERE call_id IS NOT NULL
        AND NOT EXISTS (FROM kept.calls AS c
            WHERE c.provider = e.provider AND c.org = e.org AND c.call_id = e.call_id)""",
    "{n} journal positions are applied more than once (journal, position), for example {example}": """
        SELECT journal_id, position FROM kept.deliveries GROUP BY ALL HAVING count(*) > 1""",
    "{n} rows come from beyond the position of their journal (journal, position), for example {example}": """
        SELECT d.journal_id, d.position FROM kept.deliveries AS d
        JOIN kept.positions AS p ON p.stream = 'journal' AND p.stream_id = d.journal_id
        WHERE d.position > p.position""",
    "{n} accepted deliveries are neither an event nor a dead letter (journal, position), for example {example}": """
        SELECT journal_id, position FROM kept.deliveries AS d
        WHERE verdict = 'accepted' AND trust IS NOT NULL
        AND NOT EXISTS (FROM kept.events AS e WHERE e.event_id = d.id)
        AND NOT EXISTS (FROM kept.dead_letters AS l WHERE l.journal_id = d.journal_id AND l.position = d.position)""",
    "{n} events or dead letters belong to no delivery (journal, position), for example {example}": """
        SELECT journal_id, position FROM kept.events
        UNION SELECT journal_id, position FROM kept.dead_letters
        EXCEPT SELECT journal_id, position FROM kept.deliveries""",
}

_SHOWN: Final = {
    "calls": "SELECT * REPLACE (floor(duration_s_sum * 1e6 + 0.5)::BIGINT AS duration_s_sum) FROM rollup_calls",
    "analysis": "FROM rollup_analysis",
    "variables": "FROM rollup_variables",
}


def findings(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """What is wrong, a sentence each. Reads one consistent state; rows may go on arriving meanwhile."""
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        found = [_said(cursor, sentence, query) for sentence, query in _CHECKS.items()]
        for rollup, shown in _SHOWN.items():
            sentence = f"{{n}} rows of rollup_{rollup} differ from what the calls give, for example {{example}}"
            # One pass instead of EXCEPT both ways: what is equal on both sides adds up to nought.
            both = (
                f"SELECT *, 1 AS surplus FROM ({shown}) UNION ALL SELECT *, -1 FROM ({_RECOUNTS[f'recount_{rollup}']})"
            )
            found.append(
                _said(cursor, sentence, f"SELECT * EXCLUDE surplus FROM ({both}) GROUP BY ALL HAVING sum(surplus) <> 0")
            )
    finally:
        cursor.execute("ROLLBACK")
    return [sentence for sentence in found if sentence is not None]


def _said(cursor: duckdb.DuckDBPyConnection, sentence: str, query: str) -> str | None:
    ((count, wrong),) = cursor.execute(f"SELECT count(*), first(wrong) FROM ({query}) AS wrong").fetchall()
    if count == 0:
        return None
    return sentence.format(n=count, example=", ".join(str(value) for value in wrong.values())) + "."
