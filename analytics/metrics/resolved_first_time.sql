-- title: Resolved at first contact
-- kind: share
-- unit: %
-- better: higher
-- about: A proxy: share of the calls that met their aim after which the same number was in no other call for 7
--   days. Calls younger than that, and those whose number is withheld, are left out.
-- needs: result caller_phone
-- from: calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE again.counted_at IS NULL OR again.counted_at > given.counted_at + INTERVAL 7 DAYS)
            AS numerator,
        count(*) AS denominator
    FROM (
        SELECT * FROM selected
        WHERE result = 'met' AND contact IS NOT NULL
            AND counted_at < (SELECT max(received_at) FROM deliveries) - INTERVAL 7 DAYS
    ) AS given
    ASOF LEFT JOIN (FROM every_call WHERE counted_at >= CAST($start AS TIMESTAMP)) AS again
    ON again.org = given.org AND again.contact = given.contact AND again.counted_at > given.counted_at
    GROUP BY bucket, "slice"
)
