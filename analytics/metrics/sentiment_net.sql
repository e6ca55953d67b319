-- title: Net sentiment
-- kind: mean
-- unit: points
-- better: higher
-- about: Positive minus negative calls, over those with a sentiment, from -1 to 1; scales of different platforms are
--   taken by their words.
-- needs: sentiment
-- from: calls
-- version: 1
SELECT bucket, "slice", numerator / nullif(denominator, 0) AS value, numerator, denominator, denominator AS n
FROM (
    SELECT
        bucket, "slice",
        count(*) FILTER (WHERE lower(sentiment) = 'positive')
            - count(*) FILTER (WHERE lower(sentiment) = 'negative') AS numerator,
        count(*) FILTER (WHERE lower(sentiment) IN ('positive', 'neutral', 'negative')) AS denominator
    FROM selected
    GROUP BY bucket, "slice"
)
