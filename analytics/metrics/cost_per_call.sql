-- title: Cost per call
-- kind: mean
-- unit: USD
-- better: lower
-- about: The mean cost of finished calls whose platform sends it.
-- needs: cost_usd
-- from: calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(cost_usd), 0) AS numerator,
        count(cost_usd) AS denominator
    FROM selected
    WHERE connection <> 'in_progress'
    GROUP BY bucket, "slice"
)
