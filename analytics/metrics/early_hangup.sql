-- title: Early hang-up
-- kind: share
-- unit: %
-- better: lower
-- about: Share of connected calls that the caller ended within 10 seconds, of platforms that tell why calls end.
--   Outbound calls are left out where the direction is known. Not the abandonment of a queue: AI agents have none.
-- needs: end_call_reason duration_s
-- from: calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE hung_up_early) AS numerator,
        count(*) AS denominator
    FROM selected
    WHERE connection = 'person' AND direction IS DISTINCT FROM 'outbound' AND duration_s IS NOT NULL
    GROUP BY bucket, "slice"
)
