-- title: Events beside calls
-- kind: count
-- unit: events
-- better: neutral
-- about: What platforms tell of agents, campaigns and text messages. Slice by event.
-- from: other_events
-- version: 1
SELECT bucket, "slice", count(*) AS value, count(*) AS numerator, NULL AS denominator, count(*) AS n
FROM selected
GROUP BY bucket, "slice"
