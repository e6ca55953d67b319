-- title: Median talk time
-- kind: quantile
-- unit: s
-- better: neutral
-- about: Half of the connected calls are shorter than this. Only calls whose length is known.
-- needs: duration_s
-- from: calls
-- version: 1
SELECT
    bucket, "slice",
    quantile_cont(duration_s, 0.5) AS value,
    NULL AS numerator,
    NULL AS denominator,
    count(duration_s) AS n
FROM selected
WHERE connection = 'person'
GROUP BY bucket, "slice"
