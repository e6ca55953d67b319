-- title: Actions that failed
-- kind: share
-- unit: %
-- better: lower
-- about: Share of what agents did during calls (transfers, look-ups, messages) that ended in an error. Slice by
--   action.
-- needs: call_actions
-- from: call_actions
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE error_message IS NOT NULL) AS numerator,
        count(*) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
