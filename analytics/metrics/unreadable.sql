-- title: Could not be read
-- kind: share
-- unit: %
-- better: lower
-- about: Share of accepted webhooks that are genuine but could not be understood; they are kept and can be read
--   again.
-- from: deliveries
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE dead) AS numerator,
        count(*) AS denominator
    FROM (
        SELECT *, EXISTS (
            SELECT 1 FROM dead_letters AS dead
            WHERE dead.source = given.source AND dead.position = given.position AND dead.received_at = given.received_at
        ) AS dead
        FROM selected AS given
        WHERE verdict = 'accepted'
    )
    GROUP BY bucket, "slice"
)
