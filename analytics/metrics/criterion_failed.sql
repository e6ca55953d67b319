-- title: Criterion not met
-- kind: share
-- unit: %
-- better: lower
-- about: Share of judged calls that did not meet the criterion; partly met ones are not among them, not applicable
--   ones are left out. Slice by criterion.
-- needs: call_analysis
-- from: rollup_analysis
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE result = 'false'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE result IN ('true', 'partial', 'false')), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
