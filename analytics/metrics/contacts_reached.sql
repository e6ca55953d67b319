-- title: People reached
-- kind: share
-- unit: %
-- better: higher
-- about: Share of the different outside numbers of which at least one call reached a person. Of a longer range it
--   is not the mean of its days.
-- needs: caller_phone connection=unknown
-- from: calls
-- adds: no
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(DISTINCT contact) FILTER (WHERE connection = 'person') AS numerator,
        count(DISTINCT contact) AS denominator
    FROM selected
    WHERE connection <> 'in_progress'
    GROUP BY bucket, "slice"
)
