-- Days of which more flights are about to be written than `fct_flights` holds: a join has made several of one. Fewer is
-- no mistake, since flights may have come in since the mart was read.

WITH days AS (
    SELECT
        min(day)::timestamp AT TIME ZONE 'America/New_York' AS first,
        (max(day) + 1)::timestamp AT TIME ZONE 'America/New_York' AS last
    FROM staged
),

held AS (
    SELECT (sched_dep_at AT TIME ZONE 'America/New_York')::date AS day, count(*) AS flights
    FROM fct_flights
    WHERE sched_dep_at >= (SELECT first FROM days) AND sched_dep_at < (SELECT last FROM days)
    GROUP BY 1
),

counted AS (
    SELECT day, sum(flights) AS flights FROM staged GROUP BY day
)

SELECT counted.day, counted.flights, held.flights AS held
FROM counted
LEFT JOIN held ON held.day = counted.day
WHERE counted.flights > coalesce(held.flights, 0)
