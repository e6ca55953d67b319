-- title: Left out
-- kind: count
-- unit: calls
-- better: neutral
-- about: Spam and test calls: in no other number. Slice by excluded.
-- from: excluded_calls
-- version: 1
SELECT bucket, "slice", count(*) AS value, count(*) AS numerator, NULL AS denominator, count(*) AS n
FROM selected
GROUP BY bucket, "slice"
