-- title: Stuck
-- kind: count
-- unit: calls
-- better: lower
-- about: Calls that began more than 2 hours ago and of which no end was told; n counts all that are still open.
-- from: calls
-- version: 1
SELECT
    bucket, "slice",
    count(*) FILTER (WHERE counted_at < timezone('UTC', now()) - INTERVAL 2 HOURS) AS value,
    count(*) FILTER (WHERE counted_at < timezone('UTC', now()) - INTERVAL 2 HOURS) AS numerator,
    NULL AS denominator,
    count(*) AS n
FROM selected
WHERE connection = 'in_progress'
GROUP BY bucket, "slice"
