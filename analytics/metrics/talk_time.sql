-- title: Talk time
-- kind: count
-- unit: s
-- better: neutral
-- about: The length of all connected calls together; calls whose length is not known add nothing, n counts those
--   whose length is.
-- needs: duration_s
-- from: rollup_calls
-- version: 1
SELECT
    bucket, "slice",
    coalesce(sum(duration_s_sum) FILTER (WHERE connection = 'person'), 0) AS value,
    coalesce(sum(duration_s_sum) FILTER (WHERE connection = 'person'), 0) AS numerator,
    NULL AS denominator,
    coalesce(sum(duration_n) FILTER (WHERE connection = 'person'), 0) AS n
FROM selected
GROUP BY bucket, "slice"
