-- title: Busy
-- kind: share
-- unit: %
-- better: lower
-- about: Share of finished calls that met an engaged line.
-- needs: connection=busy
-- from: rollup_calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE connection = 'busy'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection <> 'in_progress'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
