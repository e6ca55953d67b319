-- title: People reached or tried
-- kind: count
-- unit: people
-- better: neutral
-- about: Different outside numbers; calls whose number is not told or withheld are not in it, n counts the others. Of
--   a longer range it is less than the sum of its days.
-- needs: caller_phone
-- from: calls
-- adds: no
-- version: 2
SELECT
    bucket, "slice",
    count(DISTINCT contact) AS value,
    count(DISTINCT contact) AS numerator,
    NULL AS denominator,
    count(contact) AS n
FROM selected
GROUP BY bucket, "slice"
