-- title: In conflict
-- kind: count
-- unit: calls
-- better: lower
-- about: Calls for which two finished versions with different meaning arrived under a signature that covers only the
--   call's id; the first one counts.
-- from: calls
-- version: 1
SELECT
    bucket, "slice",
    count(*) FILTER (WHERE conflict) AS value,
    count(*) FILTER (WHERE conflict) AS numerator,
    NULL AS denominator,
    count(*) AS n
FROM selected
GROUP BY bucket, "slice"
