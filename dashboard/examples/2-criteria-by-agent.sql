-- How often each agent met each criterion
SELECT
    coalesce(agent_name, calls.agent_id) AS agent, criterion,
    count(*) FILTER (call_analysis.result = 'true') AS met,
    count(*) FILTER (call_analysis.result = 'partial') AS partly,
    count(*) FILTER (call_analysis.result = 'false') AS not_met
FROM call_analysis
JOIN calls USING (provider, org, call_id)
GROUP BY ALL
ORDER BY agent, criterion
