-- title: Booking rate
-- kind: share
-- unit: %
-- better: higher
-- about: Share of connected calls in which at least one appointment was booked.
-- needs: appointments
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(booked) FILTER (WHERE connection = 'person'), 0) AS numerator,
        coalesce(sum(calls) FILTER (WHERE connection = 'person'), 0) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
