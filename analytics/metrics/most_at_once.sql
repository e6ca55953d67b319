-- title: Most calls at once
-- kind: quantile
-- unit: calls
-- better: neutral
-- about: The largest number of calls under way at the same moment; only calls whose start and end are known. Calls
--   that began before the range are not among them.
-- needs: started_at ended_at
-- from: calls
-- version: 2
SELECT
    bucket, "slice",
    max(lines) FILTER (WHERE step = 1) AS value,
    NULL AS numerator,
    NULL AS denominator,
    count(*) FILTER (WHERE step = 1) AS n
FROM (
    SELECT
        bucket, "slice", step,
        sum(step) OVER (PARTITION BY "slice" ORDER BY moment, step ROWS UNBOUNDED PRECEDING) AS lines
    FROM (
        SELECT bucket, "slice", started_at AS moment, 1 AS step FROM selected WHERE ended_at > started_at
        UNION ALL
        SELECT bucket, "slice", ended_at AS moment, -1 AS step FROM selected WHERE ended_at > started_at
    )
)
GROUP BY bucket, "slice"
