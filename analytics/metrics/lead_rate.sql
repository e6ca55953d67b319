-- title: Lead rate
-- kind: share
-- unit: %
-- better: higher
-- about: Share of connected calls that brought a lead.
-- needs: leads
-- from: calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE has_lead) AS numerator,
        count(*) AS denominator
    FROM (
        SELECT *, EXISTS (
            SELECT 1 FROM leads AS found
            WHERE found.provider = reached.provider AND found.org = reached.org AND found.call_id = reached.call_id
        ) AS has_lead
        FROM selected AS reached
        WHERE connection = 'person'
    )
    GROUP BY bucket, "slice"
)
