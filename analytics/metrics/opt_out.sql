-- title: Opted out
-- kind: share
-- unit: %
-- better: lower
-- about: Share of connected calls whose disposition or tags say that the person wants no more calls (do not call,
--   opt out, DNC, unsubscribe).
-- needs: disposition|tags
-- from: calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE opted_out) AS numerator,
        count(*) AS denominator
    FROM selected
    WHERE connection = 'person'
    GROUP BY bucket, "slice"
)
