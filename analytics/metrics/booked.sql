-- title: Booked
-- kind: count
-- unit: calls
-- better: higher
-- about: Calls in which at least one appointment was booked.
-- needs: appointments
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", sum(booked) AS value, sum(booked) AS numerator, NULL AS denominator, sum(calls) AS n
FROM selected
GROUP BY bucket, "slice"
