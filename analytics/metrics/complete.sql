-- title: Complete
-- kind: share
-- unit: %
-- better: higher
-- about: How much of what a platform can send about a connected call really came: fields filled, of all fields that
--   it sends. Slice by field.
-- from: call_fields
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE filled) AS numerator,
        count(*) AS denominator
    FROM selected
    WHERE connection = 'person'
    GROUP BY bucket, "slice"
)
