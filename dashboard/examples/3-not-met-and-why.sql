-- The newest calls that missed their goal, and why
SELECT counted_at, coalesce(agent_name, calls.agent_id) AS agent, criterion, feedback, call_id
FROM call_analysis
JOIN calls USING (provider, org, call_id)
WHERE call_analysis.result = 'false'
ORDER BY counted_at DESC
LIMIT 50
