-- title: Transfers that worked
-- kind: share
-- unit: %
-- better: higher
-- about: Of the calls in which the agent tried to hand over, the share that were handed over.
-- needs: transferred call_actions
-- from: calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE transferred) AS numerator,
        count(*) AS denominator
    FROM (
        SELECT *, EXISTS (
            SELECT 1 FROM call_actions AS done
            WHERE done.provider = given.provider AND done.org = given.org AND done.call_id = given.call_id
                AND contains(lower(done.action_type), 'transfer')
        ) AS tried
        FROM selected AS given
    )
    WHERE transferred OR tried
    GROUP BY bucket, "slice"
)
