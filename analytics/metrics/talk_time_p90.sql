-- title: Talk time, 90th percentile
-- kind: quantile
-- unit: s
-- better: neutral
-- about: Nine of ten connected calls are shorter than this. Only calls whose length is known.
-- needs: duration_s
-- from: calls
-- version: 1
SELECT
    bucket, "slice",
    quantile_cont(duration_s, 0.9) AS value,
    NULL AS numerator,
    NULL AS denominator,
    count(duration_s) AS n
FROM selected
WHERE connection = 'person'
GROUP BY bucket, "slice"
