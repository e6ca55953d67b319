-- title: Repeated webhooks
-- kind: share
-- unit: %
-- better: neutral
-- about: Share of requests at the door that had been received before; they are counted once.
-- from: deliveries
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(count) FILTER (WHERE verdict = 'repeated'), 0) AS numerator,
        sum(count) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
