-- title: Refused webhooks
-- kind: share
-- unit: %
-- better: lower
-- about: Share of requests at the door that could not be proved genuine or broke a limit.
-- from: deliveries
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(count) FILTER (WHERE verdict = 'refused'), 0) AS numerator,
        sum(count) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
