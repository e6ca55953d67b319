-- title: Criterion met
-- kind: share
-- unit: %
-- better: higher
-- about: Share of judged calls that met the criterion; not applicable ones are left out, a partly met one counts as
--   the chosen policy says. Slice by criterion.
-- needs: call_analysis
-- from: rollup_analysis
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE result = 'true'), 0)
            + coalesce(sum(calls) FILTER (WHERE result = 'partial'), 0)
            * CASE $partial WHEN 'lenient' THEN 1.0 WHEN 'half' THEN 0.5 ELSE 0.0 END AS numerator,
        coalesce(sum(calls) FILTER (WHERE result IN ('true', 'partial', 'false')), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
