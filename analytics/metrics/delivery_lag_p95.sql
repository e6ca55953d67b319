-- title: Delivery lag, 95th percentile
-- kind: quantile
-- unit: s
-- better: lower
-- about: From the end of a call to the arrival of its first webhook: nineteen of twenty are faster than this.
-- needs: ended_at
-- from: calls
-- version: 1
SELECT
    bucket, "slice",
    quantile_cont(epoch(first_received_at) - epoch(ended_at), 0.95) AS value,
    NULL AS numerator,
    NULL AS denominator,
    count(ended_at) AS n
FROM selected
GROUP BY bucket, "slice"
