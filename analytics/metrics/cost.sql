-- title: Cost
-- kind: count
-- unit: USD
-- better: lower
-- about: The cost of all calls whose platform sends it; n counts those calls. A missing cost is missing, not 0.
-- needs: cost_usd
-- from: calls
-- version: 1
SELECT
    bucket, "slice",
    sum(cost_usd) AS value,
    sum(cost_usd) AS numerator,
    NULL AS denominator,
    count(cost_usd) AS n
FROM selected
GROUP BY bucket, "slice"
