-- title: Message left
-- kind: share
-- unit: %
-- better: neutral
-- about: Share of the calls that reached a voicemail in which the agent left a message.
-- needs: end_call_reason
-- from: rollup_calls
-- version: 2
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        coalesce(sum(calls) FILTER (
            WHERE translate(lower(status), '- ', '__') = 'left_voicemail'
            OR end_call_reason = 'voicemail_message_left'
        ), 0) AS numerator,
        sum(calls) AS denominator
    FROM selected
    WHERE connection = 'machine'
    GROUP BY bucket, "slice"
)
