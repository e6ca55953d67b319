-- Why calls ended in the last 7 days
SELECT end_call_reason, count(*) AS calls, round(avg(duration_s)) AS mean_seconds
FROM calls
WHERE counted_at >= now()::TIMESTAMP - INTERVAL 7 DAY
GROUP BY ALL
ORDER BY calls DESC
