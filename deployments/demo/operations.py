"""The `operations` database of the demo: what an airline's own system held at any instant of 2013.

Schema `public` is what the pipelines read: `flights`, `airports`, `planes`, `airlines`, `bookings` (see `bookings.py`),
and `replay_now()`, the source's own clock. Schema `replay` is the stage machinery: the whole year, and the clock.

| event | instant | what the row then holds |
|---|---|---|
| departed | scheduled departure + delay | the departure; `updated_at` is this instant |
| final | departure + minutes in the air + 20 min; without those (a diversion) departure + 6 h | the arrival too |
| cancelled | scheduled departure | neither; there is no later event |
| plane enters service | first event of a flight it makes | the plane |

An event has happened when it lies strictly before the clock, so a half-open window that ends at the clock holds
exactly what has happened. Airlines and airports never change. All instants are UTC; `dep_time` and `arr_time` stay
local `HHMM` numbers, 2400 included.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, text

from deployments.demo import archive, bookings
from tasks.errors import ConfigError

START = datetime(2013, 1, 1, tzinfo=UTC)
"""Where the clock stands after `build`: nothing has flown."""

END = datetime(2014, 1, 2, tzinfo=UTC)
"""The last instant of the replay: everything has landed."""

_BEFORE_EVERYTHING = datetime(1970, 1, 1, tzinfo=UTC)

_DROP = """
    DROP SCHEMA IF EXISTS replay CASCADE;
    DROP TABLE IF EXISTS public.flights, public.planes, public.airports, public.airlines CASCADE
"""

_TABLES = """
    CREATE TABLE public.airlines (
        carrier text PRIMARY KEY,
        name text NOT NULL
    );
    CREATE TABLE public.airports (
        faa text PRIMARY KEY,
        name text NOT NULL,
        lat double precision NOT NULL,
        lon double precision NOT NULL,
        alt integer NOT NULL,           -- feet
        tz integer NOT NULL,            -- hours from UTC in winter
        dst text NOT NULL,
        tzone text                      -- IANA name
    );
    CREATE TABLE public.planes (
        tailnum text PRIMARY KEY,
        year integer,                   -- of manufacture
        type text NOT NULL,
        manufacturer text NOT NULL,
        model text NOT NULL,
        engines integer NOT NULL,
        seats integer NOT NULL,
        speed integer,                  -- cruising, mph
        engine text NOT NULL
    );
    CREATE TABLE public.flights (
        flight_id text PRIMARY KEY,     -- 2013-01-01-UA1545-EWR: local day, carrier and flight, origin
        carrier text NOT NULL,
        flight integer NOT NULL,
        tailnum text,
        origin text NOT NULL,
        dest text NOT NULL,
        sched_dep_at timestamptz NOT NULL,
        dep_time integer,               -- local HHMM; null when cancelled
        arr_time integer,               -- local HHMM at the destination
        dep_delay double precision,     -- minutes
        arr_delay double precision,     -- minutes
        air_time double precision,      -- minutes
        distance integer NOT NULL,      -- miles
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX ON public.flights (updated_at);

    CREATE SCHEMA replay;
    CREATE TABLE replay.clock (now timestamptz NOT NULL);
    CREATE UNIQUE INDEX ON replay.clock ((true));  -- one row
    CREATE FUNCTION public.replay_now() RETURNS timestamptz LANGUAGE sql STABLE SECURITY DEFINER
        RETURN (SELECT now FROM replay.clock);

    CREATE TEMPORARY TABLE raw_planes (LIKE public.planes) ON COMMIT DROP;
    CREATE TEMPORARY TABLE raw_flights (
        year integer, month integer, day integer,
        dep_time integer, sched_dep_time integer, dep_delay double precision,
        arr_time integer, sched_arr_time integer, arr_delay double precision,
        carrier text, flight integer, tailnum text, origin text, dest text,
        air_time double precision, distance integer, hour integer, minute integer, time_hour timestamptz
    ) ON COMMIT DROP
"""

_ARCHIVE_FLIGHTS = """
    CREATE TABLE replay.flights AS
    WITH scheduled AS (
        SELECT *, time_hour + minute * interval '1 minute' AS sched_dep_at FROM raw_flights
    ), departed AS (
        SELECT *, sched_dep_at + coalesce(dep_delay, 0) * interval '1 minute' AS first_at FROM scheduled
    )
    SELECT
        make_date(year, month, day) || '-' || carrier || flight || '-' || origin AS flight_id,
        carrier, flight, tailnum, origin, dest, sched_dep_at,
        dep_time, arr_time, dep_delay, arr_delay, air_time, distance,
        first_at,
        CASE
            WHEN dep_time IS NULL THEN first_at
            WHEN air_time IS NULL THEN first_at + interval '6 hours'
            ELSE first_at + air_time * interval '1 minute' + interval '20 minutes'
        END AS final_at
    FROM departed
    ORDER BY first_at
"""

# A plane that never flies in the archive is there from the start.
_ARCHIVE_PLANES = """
    CREATE TABLE replay.planes AS
    SELECT raw_planes.*, coalesce(first_flight.at, :before_everything) AS first_at
    FROM raw_planes
    LEFT JOIN (SELECT tailnum, min(first_at) AS at FROM replay.flights GROUP BY tailnum) AS first_flight USING (tailnum)
"""

_INDEXES = """
    CREATE INDEX ON replay.flights (first_at);
    CREATE INDEX ON replay.flights (final_at);
    ANALYZE replay.flights
"""

_FINISH_FLIGHTS = """
    UPDATE public.flights
    SET arr_time = finished.arr_time, arr_delay = finished.arr_delay, air_time = finished.air_time,
        updated_at = finished.final_at
    FROM replay.flights AS finished
    WHERE flights.flight_id = finished.flight_id
        AND finished.first_at < :then AND finished.final_at >= :then AND finished.final_at < :now
"""

_BEGIN_FLIGHTS = """
    INSERT INTO public.flights
    SELECT
        flight_id, carrier, flight, tailnum, origin, dest, sched_dep_at, dep_time,
        CASE WHEN final_at < :now THEN arr_time END,
        dep_delay,
        CASE WHEN final_at < :now THEN arr_delay END,
        CASE WHEN final_at < :now THEN air_time END,
        distance,
        CASE WHEN final_at < :now THEN final_at ELSE first_at END
    FROM replay.flights
    WHERE first_at >= :then AND first_at < :now
    ORDER BY first_at
"""

_BEGIN_PLANES = """
    INSERT INTO public.planes
    SELECT tailnum, year, type, manufacturer, model, engines, seats, speed, engine
    FROM replay.planes
    WHERE first_at >= :then AND first_at < :now
"""


def build(engine: Engine) -> None:
    """Create tables, archive and clock at `START`; where they are already, create them anew.

    One transaction: another process sees all of it or nothing.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('tidegate demo'))"))
        connection.exec_driver_sql(_DROP)
        connection.exec_driver_sql(bookings.DROP)
        connection.exec_driver_sql(_TABLES)
        _copy(connection, "airlines", "public.airlines")
        _copy(connection, "airports", "public.airports")
        _copy(connection, "planes", "raw_planes")
        _copy(connection, "flights", "raw_flights")
        connection.execute(text(_ARCHIVE_FLIGHTS))
        connection.execute(text(_ARCHIVE_PLANES), {"before_everything": _BEFORE_EVERYTHING})
        bookings.build(connection)
        connection.exec_driver_sql(_INDEXES)
        connection.execute(text("INSERT INTO replay.clock VALUES (:now)"), {"now": _BEFORE_EVERYTHING})
        replay_to(connection, START)


def replay_to(connection: Connection, when: datetime) -> None:
    """Bring tables and clock to `when`, in the transaction `connection` is in.

    Forward, only what happens in between is written, as the inserts and updates of a live system. Backward, history
    starts over.

    Args:
        connection: in a transaction on the `operations` database.
        when: an aware datetime from `START` to `END`.

    Raises:
        ConfigError: `when` is naive or outside the year, or the database has not been built.
    """
    if when.tzinfo is None or not START <= when <= END:
        raise ConfigError(f"The demo replays from {START} to {END}, got {when}. Choose an aware time in between.")
    if connection.execute(text("SELECT to_regclass('replay.clock')")).scalar_one() is None:
        raise ConfigError("The demo's operations database has not been built. Run `tidegate demo` first.")
    # The lock on the clock's row makes two replays take turns.
    then = connection.execute(text("SELECT now FROM replay.clock FOR UPDATE")).scalar_one()
    if when < then:
        connection.execute(text("DELETE FROM public.flights"))
        connection.execute(text("DELETE FROM public.planes"))
        connection.execute(text("DELETE FROM public.bookings"))
        then = _BEFORE_EVERYTHING
    for statement in (_FINISH_FLIGHTS, _BEGIN_FLIGHTS, _BEGIN_PLANES):
        connection.execute(text(statement), {"then": then, "now": when})
    bookings.replay(connection, then, when)
    connection.execute(text("UPDATE replay.clock SET now = :now"), {"now": when})


def clock(connection: Connection) -> datetime:
    """The instant (UTC) at which the database stands."""
    now: datetime = connection.execute(text("SELECT public.replay_now()")).scalar_one()
    return now


def _copy(connection: Connection, name: archive.Name, table: str) -> None:
    """Copy a file of the archive into `table`, which has the file's columns in the file's order."""
    psycopg_connection = connection.connection.driver_connection
    assert psycopg_connection is not None
    command = f"COPY {table} FROM STDIN (FORMAT csv, HEADER match, NULL '{archive.MISSING}')"
    with archive.csv_file(name) as file, psycopg_connection.cursor().copy(command) as copy:
        while block := file.read(1 << 20):
            copy.write(block)
