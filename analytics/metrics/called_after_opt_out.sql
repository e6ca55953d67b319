-- title: Called after opting out
-- kind: count
-- unit: calls
-- better: lower
-- about: Outbound calls to a number whose earlier call says that the person wants no more calls. Should be 0.
-- needs: disposition|tags
-- from: calls
-- version: 2
SELECT
    bucket, "slice",
    count(*) FILTER (WHERE given.counted_at > refused.since) AS value,
    count(*) FILTER (WHERE given.counted_at > refused.since) AS numerator,
    NULL AS denominator,
    count(*) AS n
FROM (SELECT * FROM selected WHERE direction = 'outbound') AS given
LEFT JOIN (
    SELECT org, contact, min(counted_at) AS since FROM every_call WHERE opted_out GROUP BY org, contact
) AS refused
ON refused.org = given.org AND refused.contact = given.contact
GROUP BY bucket, "slice"
