-- title: Filled
-- kind: share
-- unit: %
-- better: higher
-- about: Share of the calls that ask for a variable in which it was filled with a value. Slice by name.
-- needs: call_variables
-- from: rollup_variables
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        sum(filled) AS numerator,
        sum(calls) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
