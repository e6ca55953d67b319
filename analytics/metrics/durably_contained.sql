-- title: Contained for good
-- kind: share
-- unit: %
-- better: higher
-- about: Share of contained calls whose caller did not call again within 72 hours. Calls younger than that, and
--   those whose number is withheld, are left out.
-- needs: transferred caller_phone
-- from: calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (coalesce(again.counted_at > given.counted_at + INTERVAL 72 HOURS, true)) AS numerator,
        count(*) AS denominator
    FROM (
        SELECT * FROM selected
        WHERE connection = 'person' AND direction IS DISTINCT FROM 'outbound' AND contained AND contact IS NOT NULL
            AND counted_at < (SELECT max(received_at) FROM deliveries) - INTERVAL 72 HOURS
    ) AS given
    ASOF LEFT JOIN (
        FROM every_call WHERE counted_at >= CAST($start AS TIMESTAMP) AND direction IS DISTINCT FROM 'outbound'
    ) AS again
    ON again.org = given.org AND again.contact = given.contact AND again.counted_at > given.counted_at
    GROUP BY bucket, "slice"
)
