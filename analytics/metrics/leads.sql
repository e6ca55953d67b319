-- title: Leads
-- kind: count
-- unit: calls
-- better: higher
-- about: Calls that brought a lead.
-- needs: leads
-- from: calls
-- version: 1
SELECT
    bucket, "slice",
    count(*) FILTER (WHERE has_lead) AS value,
    count(*) FILTER (WHERE has_lead) AS numerator,
    NULL AS denominator,
    count(*) AS n
FROM (
    SELECT *, EXISTS (
        SELECT 1 FROM leads AS found
        WHERE found.provider = given.provider AND found.org = given.org AND found.call_id = given.call_id
    ) AS has_lead
    FROM selected AS given
)
GROUP BY bucket, "slice"
