-- title: Connected
-- kind: share
-- unit: %
-- better: higher
-- about: Share of finished calls that reached a person; voicemail, no answer, busy, cancelled, failed and unknown
--   ones are the rest.
-- needs: connection=unknown
-- from: rollup_calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE connection = 'person'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection <> 'in_progress'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
