-- The roll-ups: what they must equal, and how pending changes are brought into them.
-- Each statement is found by the name in the comment above it.

-- name: recount_calls
SELECT
    time_bucket(INTERVAL 15 MINUTES, counted_at, TIMESTAMP '1970-01-01') AS bucket_start, provider, org, agent_id,
    campaign, direction, status, end_call_reason, connection, ended_by, result,
    count(*) AS calls,
    count(*) FILTER (transferred) AS transferred,
    count(*) FILTER (len(appointments) > 0) AS booked,
    coalesce(sum(TRY_CAST(floor(duration_s * 1e6 + 0.5) AS BIGINT)) FILTER (abs(duration_s) < 1e7), 0)::BIGINT
        AS duration_us,
    count(*) FILTER (abs(duration_s) < 1e7) AS duration_n
FROM kept.calls
WHERE excluded IS NULL
GROUP BY ALL;

-- name: recount_analysis
SELECT
    time_bucket(INTERVAL 15 MINUTES, counted_at, TIMESTAMP '1970-01-01') AS bucket_start, provider, org, agent_id,
    direction, item.criterion AS criterion, item.result AS result,
    count(*) AS calls
FROM (
    SELECT
        counted_at, provider, org, agent_id, direction,
        unnest(list_distinct([{'criterion': x.criterion, 'result': x.result} FOR x IN analysis])) AS item
    FROM kept.calls
    WHERE excluded IS NULL
)
GROUP BY ALL;

-- name: recount_variables
SELECT
    bucket_start, provider, org, agent_id, direction, "name",
    count(*) AS calls,
    count(*) FILTER (collected) AS collected,
    count(*) FILTER (filled) AS filled
FROM (
    SELECT
        one_call, bucket_start, provider, org, item.agent_id AS agent_id, direction, item."name" AS "name",
        bool_or(item.collected) AS collected,
        bool_or(
            item."value" IS NOT NULL AND item."value" NOT IN ('null', '[]', '{}')
            AND trim(coalesce(item.value_text, item."value"), ' ') <> '') AS filled
    FROM (
        SELECT
            rowid AS one_call, time_bucket(INTERVAL 15 MINUTES, counted_at, TIMESTAMP '1970-01-01') AS bucket_start,
            provider, org, direction, unnest(variables) AS item
        FROM kept.calls
        WHERE excluded IS NULL
    )
    GROUP BY ALL
)
GROUP BY ALL;

-- name: settle_calls
MERGE INTO kept.rollup_calls AS kept_row
USING (
    SELECT
        bucket_start, provider, org, agent_id, campaign, direction, status, end_call_reason, connection, ended_by,
        result, sum(calls)::BIGINT AS calls, sum(transferred)::BIGINT AS transferred, sum(booked)::BIGINT AS booked,
        sum(duration_us)::BIGINT AS duration_us, sum(duration_n)::BIGINT AS duration_n
    FROM kept.rollup_changes
    WHERE rollup = 'calls'
    GROUP BY ALL
    HAVING sum(calls) <> 0 OR sum(transferred) <> 0 OR sum(booked) <> 0 OR sum(duration_us) <> 0
        OR sum(duration_n) <> 0
) AS change
ON kept_row.bucket_start = change.bucket_start
    AND kept_row.provider = change.provider
    AND kept_row.org = change.org
    AND kept_row.agent_id IS NOT DISTINCT FROM change.agent_id
    AND kept_row.campaign IS NOT DISTINCT FROM change.campaign
    AND kept_row.direction IS NOT DISTINCT FROM change.direction
    AND kept_row.status IS NOT DISTINCT FROM change.status
    AND kept_row.end_call_reason IS NOT DISTINCT FROM change.end_call_reason
    AND kept_row.connection = change.connection
    AND kept_row.ended_by = change.ended_by
    AND kept_row.result = change.result
WHEN MATCHED AND kept_row.calls + change.calls = 0 THEN DELETE
WHEN MATCHED THEN UPDATE SET
    calls = kept_row.calls + change.calls,
    transferred = kept_row.transferred + change.transferred,
    booked = kept_row.booked + change.booked,
    duration_us = kept_row.duration_us + change.duration_us,
    duration_n = kept_row.duration_n + change.duration_n
WHEN NOT MATCHED THEN INSERT;

-- name: settle_analysis
MERGE INTO kept.rollup_analysis AS kept_row
USING (
    SELECT
        bucket_start, provider, org, agent_id, direction, label AS criterion, result, sum(calls)::BIGINT AS calls
    FROM kept.rollup_changes
    WHERE rollup = 'analysis'
    GROUP BY ALL
    HAVING sum(calls) <> 0
) AS change
ON kept_row.bucket_start = change.bucket_start
    AND kept_row.provider = change.provider
    AND kept_row.org = change.org
    AND kept_row.agent_id IS NOT DISTINCT FROM change.agent_id
    AND kept_row.direction IS NOT DISTINCT FROM change.direction
    AND kept_row.criterion = change.criterion
    AND kept_row.result = change.result
WHEN MATCHED AND kept_row.calls + change.calls = 0 THEN DELETE
WHEN MATCHED THEN UPDATE SET calls = kept_row.calls + change.calls
WHEN NOT MATCHED THEN INSERT;

-- name: settle_variables
MERGE INTO kept.rollup_variables AS kept_row
USING (
    SELECT
        bucket_start, provider, org, agent_id, direction, label AS "name", sum(calls)::BIGINT AS calls,
        sum(collected)::BIGINT AS collected, sum(filled)::BIGINT AS filled
    FROM kept.rollup_changes
    WHERE rollup = 'variables'
    GROUP BY ALL
    HAVING sum(calls) <> 0 OR sum(collected) <> 0 OR sum(filled) <> 0
) AS change
ON kept_row.bucket_start = change.bucket_start
    AND kept_row.provider = change.provider
    AND kept_row.org = change.org
    AND kept_row.agent_id IS NOT DISTINCT FROM change.agent_id
    AND kept_row.direction IS NOT DISTINCT FROM change.direction
    AND kept_row."name" = change."name"
WHEN MATCHED AND kept_row.calls + change.calls = 0 THEN DELETE
WHEN MATCHED THEN UPDATE SET
    calls = kept_row.calls + change.calls,
    collected = kept_row.collected + change.collected,
    filled = kept_row.filled + change.filled
WHEN NOT MATCHED THEN INSERT;

-- name: settled
DELETE FROM kept.rollup_changes;
