-- Delays by day, carrier and origin: flights, the weather in the hour of their scheduled departure, and airports.
-- A day is New York's, where all three origins lie; the pipeline asks for whole ones.

WITH airports AS (
    SELECT faa, name, tz FROM dim_airports WHERE is_current
),

observed AS (
    SELECT
        (flights.sched_dep_at AT TIME ZONE 'America/New_York')::date AS day,
        flights.carrier,
        flights.origin,
        flights.dest,
        flights.cancelled,
        flights.dep_delay,
        flights.arr_delay,
        -- Exact, so that the order in which the database adds them up makes no difference.
        weather.wind_speed::numeric AS wind_speed,
        weather.visib::numeric AS visib
    FROM fct_flights AS flights
    LEFT JOIN fct_weather AS weather
        ON weather.origin = flights.origin
        AND weather.time_hour = date_trunc('hour', flights.sched_dep_at)
    WHERE flights.sched_dep_at >= :start AND flights.sched_dep_at < :end
)

SELECT
    observed.day,
    observed.carrier,
    observed.origin,
    min(home.name) AS origin_name,
    count(*) AS flights,
    count(*) FILTER (WHERE observed.cancelled) AS cancelled,
    count(DISTINCT observed.dest) AS destinations,
    count(*) FILTER (WHERE away.tz <> home.tz) AS to_other_zones,
    avg(observed.dep_delay) AS mean_dep_delay,
    max(observed.dep_delay) AS max_dep_delay,
    avg(observed.arr_delay) AS mean_arr_delay,
    max(observed.arr_delay) AS max_arr_delay,
    count(*) FILTER (WHERE observed.dep_delay > 15)::double precision / nullif(count(observed.dep_delay), 0)
        AS delayed_share,
    round(avg(observed.wind_speed), 3)::double precision AS mean_wind_speed,
    round(avg(observed.visib), 3)::double precision AS mean_visib
FROM observed
LEFT JOIN airports AS home ON home.faa = observed.origin
LEFT JOIN airports AS away ON away.faa = observed.dest
GROUP BY observed.day, observed.carrier, observed.origin
