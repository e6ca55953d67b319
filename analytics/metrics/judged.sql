-- title: Judged
-- kind: share
-- unit: %
-- better: higher
-- about: Share of connected calls whose result is known: met, partly met or not met.
-- needs: result
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE result IN ('met', 'partly', 'not_met')), 0) AS numerator,
        sum(calls) AS denominator
    FROM selected
    WHERE connection = 'person'
    GROUP BY bucket, "slice"
)
