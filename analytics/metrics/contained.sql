-- title: Contained
-- kind: share
-- unit: %
-- better: higher
-- about: Share of connected calls that the agent handled to the end: not transferred, not ended by an error, not
--   hung up by the caller within 10 seconds. Outbound calls are left out where the platform tells the direction.
-- needs: transferred
-- from: calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE contained) AS numerator,
        count(*) AS denominator
    FROM selected
    WHERE connection = 'person' AND direction IS DISTINCT FROM 'outbound'
    GROUP BY bucket, "slice"
)
