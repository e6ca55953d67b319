-- title: Collected
-- kind: share
-- unit: %
-- better: higher
-- about: Share of the calls that ask for a variable in which the platform marked it as collected, empty values
--   included. Slice by name.
-- needs: call_variables
-- from: rollup_variables
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        sum(collected) AS numerator,
        sum(calls) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
