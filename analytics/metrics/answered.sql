-- title: Answered by anyone or anything
-- kind: share
-- unit: %
-- better: neutral
-- about: Share of finished calls that were picked up, by a person or by a machine.
-- needs: connection=unknown
-- from: rollup_calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE connection IN ('person', 'machine')), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection <> 'in_progress'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
