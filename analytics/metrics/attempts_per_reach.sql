-- title: Attempts per person reached
-- kind: mean
-- unit: calls
-- better: lower
-- about: How many calls it took on average to reach a person for the first time in this range, over the numbers
--   that were reached.
-- needs: caller_phone connection=unknown
-- from: calls
-- adds: no
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT bucket, "slice", coalesce(sum(attempt), 0) AS numerator, count(*) AS denominator
    FROM (
        SELECT
            *,
            row_number() OVER (PARTITION BY org, contact, "slice" ORDER BY counted_at, call_id) AS attempt,
            row_number() OVER (PARTITION BY org, contact, "slice", connection ORDER BY counted_at, call_id) AS reach
        FROM selected
        WHERE contact IS NOT NULL AND connection <> 'in_progress'
    )
    WHERE connection = 'person' AND reach = 1
    GROUP BY bucket, "slice"
)
