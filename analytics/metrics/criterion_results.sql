-- title: Criterion results
-- kind: count
-- unit: calls
-- better: neutral
-- about: Judged calls by the result of a criterion: true, partial, false, not applicable, or a word that the platform
--   newly sends. Slice by result.
-- needs: call_analysis
-- from: rollup_analysis
-- version: 1
SELECT bucket, "slice", sum(calls) AS value, sum(calls) AS numerator, NULL AS denominator, sum(calls) AS n
FROM selected
GROUP BY bucket, "slice"
