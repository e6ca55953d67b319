-- title: Still open
-- kind: count
-- unit: calls
-- better: neutral
-- about: Calls whose start is known but whose end is not; they are in no rate.
-- from: rollup_calls
-- version: 1
SELECT
    bucket, "slice",
    coalesce(sum(calls) FILTER (WHERE connection = 'in_progress'), 0) AS value,
    coalesce(sum(calls) FILTER (WHERE connection = 'in_progress'), 0) AS numerator,
    NULL AS denominator,
    sum(calls) AS n
FROM selected
GROUP BY bucket, "slice"
