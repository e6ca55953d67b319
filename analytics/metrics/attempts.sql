-- title: Attempts
-- kind: count
-- unit: calls
-- better: neutral
-- about: Every call that was made or received, those still open and those of no length included; spam and test calls
--   are left out.
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", sum(calls) AS value, sum(calls) AS numerator, NULL AS denominator, sum(calls) AS n
FROM selected
GROUP BY bucket, "slice"
