-- title: Doubtful success
-- kind: share
-- unit: %
-- better: lower
-- about: Share of the calls judged as met that speak against it: transferred, of negative sentiment, or the same
--   number in another call within 24 hours. Finds errors of the judge.
-- needs: result
-- from: calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (
            WHERE given.transferred OR lower(given.sentiment) = 'negative'
            OR again.counted_at <= given.counted_at + INTERVAL 24 HOURS
        ) AS numerator,
        count(*) AS denominator
    FROM (SELECT * FROM selected WHERE connection = 'person' AND result = 'met') AS given
    ASOF LEFT JOIN (FROM every_call WHERE counted_at >= CAST($start AS TIMESTAMP)) AS again
    ON again.org = given.org AND again.contact = given.contact AND again.counted_at > given.counted_at
    GROUP BY bucket, "slice"
)
