-- title: Mean talk time
-- kind: mean
-- unit: s
-- better: neutral
-- about: The mean length of connected calls whose length is known.
-- needs: duration_s
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(duration_s_sum) FILTER (WHERE connection = 'person'), 0) AS numerator,
        coalesce(sum(duration_n) FILTER (WHERE connection = 'person'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
