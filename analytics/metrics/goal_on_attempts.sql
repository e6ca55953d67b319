-- title: Goal met, of all attempts
-- kind: share
-- unit: %
-- better: higher
-- about: Share of all finished calls that reached their aim, those included that reached nobody: the business view of
--   the goal. Partly met ones do not count.
-- needs: result
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE result = 'met' AND connection <> 'in_progress'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection <> 'in_progress'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
