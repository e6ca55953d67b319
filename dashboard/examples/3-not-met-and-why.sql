-- The newest calls that missed their goal, and why
SELECT
    counted_at, provider, coalesce(agent_name, agent_id) AS agent, disposition,
    string_agg(
        if(missed.result = 'partial', criterion || ' (partly)', criterion) || coalesce(': ' || nullif(feedback, ''), ''),
        '; ' ORDER BY missed.result, criterion
    ) AS criteria_not_met,
    call_id
FROM calls
LEFT JOIN (SELECT * FROM call_analysis WHERE result IN ('false', 'partial')) AS missed USING (provider, org, call_id)
WHERE calls.result = 'not_met' AND excluded IS NULL
GROUP BY ALL
ORDER BY counted_at DESC
LIMIT 50
