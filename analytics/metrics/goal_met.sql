-- title: Goal met
-- kind: share
-- unit: %
-- better: higher
-- about: Share of connected, judged calls that reached their aim. Synthflow: the criterion named by the setting
--   success_criterion. AI Sync: an appointment was booked, or the disposition counts as met by the setting [success].
--   A partly met aim counts as the chosen policy says (strict: not). InboundFlow tells only what was booked, never what
--   was not reached: see its booking rate and its goal of all attempts.
-- needs: result call_analysis|disposition
-- from: rollup_calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (WHERE result = 'met'), 0)
            + coalesce(sum(calls) FILTER (WHERE result = 'partly'), 0)
            * CASE $partial WHEN 'lenient' THEN 1.0 WHEN 'half' THEN 0.5 ELSE 0.0 END AS numerator,
        coalesce(sum(calls) FILTER (WHERE result IN ('met', 'partly', 'not_met')), 0) AS denominator
    FROM selected
    WHERE connection = 'person'
    GROUP BY bucket, "slice"
)
