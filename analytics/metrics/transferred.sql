-- title: Transferred
-- kind: share
-- unit: %
-- better: neutral
-- about: Share of connected calls that were handed to a person.
-- needs: transferred
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(transferred) FILTER (WHERE connection = 'person'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection = 'person'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
