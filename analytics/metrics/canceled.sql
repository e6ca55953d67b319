-- title: Cancelled
-- kind: share
-- unit: %
-- better: lower
-- about: Share of finished calls that were given up before anybody picked up.
-- needs: connection=canceled
-- from: rollup_calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE connection = 'canceled'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection <> 'in_progress'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
