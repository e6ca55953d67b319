-- Webhooks that were refused, and why
SELECT source, reason, sum(count) AS requests, max(received_at) AS newest
FROM deliveries
WHERE verdict = 'refused'
GROUP BY ALL
ORDER BY newest DESC
