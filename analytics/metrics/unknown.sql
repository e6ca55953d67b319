-- title: Unknown
-- kind: share
-- unit: %
-- better: lower
-- about: Share of finished calls of which the platform does not say whom they reached, or says it in words not
--   known yet.
-- needs: connection=unknown
-- from: rollup_calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE connection = 'unknown'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection <> 'in_progress'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
