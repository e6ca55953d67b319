-- title: Weakly proved
-- kind: share
-- unit: %
-- better: lower
-- about: Share of calls told by webhooks whose signature covers only an id (Synthflow) or that are not signed at
--   all.
-- from: calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE trust IN ('C', 'D')) AS numerator,
        count(*) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
