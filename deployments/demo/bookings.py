"""Bookings of the demo: seats of one airline that are booked, changed and cancelled as its flights fill.

They are made up, by arithmetic on the flights of Virgin America, twenty for each. Nothing in the table tells when a row
was deleted, and nothing is left of it: only the log of the database knows.

| event | instant | what happens |
|---|---|---|
| booked | 12 to 240 hours before the scheduled departure | the row is inserted |
| moved, one in five | half way to the departure | it gets another seat |
| cancelled, one in eight | 6 hours before the departure | it is deleted |
"""

from datetime import datetime

from sqlalchemy import Connection, text

DROP = "DROP TABLE IF EXISTS public.bookings"

_TABLE = """
    CREATE TABLE public.bookings (
        booking_id bigint PRIMARY KEY,
        flight_id text NOT NULL,
        seat text NOT NULL,
        fare_cents integer NOT NULL,
        booked_at timestamptz NOT NULL,
        changed_at timestamptz NOT NULL
    );
    CREATE FUNCTION replay.seat(number bigint) RETURNS text LANGUAGE sql IMMUTABLE
        RETURN (1 + mod(number, 30))::text || substr('ABCDEF', (1 + mod(number * 7, 6))::integer, 1);
"""

_ARCHIVE = """
    CREATE TABLE replay.bookings AS
    WITH numbered AS (
        SELECT *, place * 31 + flight * 7 + (extract(epoch FROM sched_dep_at) / 60)::bigint AS number
        FROM replay.flights CROSS JOIN generate_series(1, 20) AS place
        WHERE carrier = 'VX'
    ), booked AS (
        SELECT *, sched_dep_at - (12 + number * 37 % 229) * interval '1 hour' AS booked_at FROM numbered
    )
    SELECT
        row_number() OVER (ORDER BY sched_dep_at, flight_id, place) AS booking_id,
        flight_id,
        replay.seat(number) AS seat,
        replay.seat(number + 11) AS other_seat,
        (9900 + number * 997 % 40000)::integer AS fare_cents,
        booked_at,
        CASE WHEN number % 5 = 0 THEN booked_at + (sched_dep_at - booked_at) / 2 END AS moved_at,
        CASE WHEN number % 8 = 3 THEN sched_dep_at - interval '6 hours' END AS cancelled_at
    FROM booked
"""

_BOOK = """
    INSERT INTO public.bookings
    SELECT booking_id, flight_id, seat, fare_cents, booked_at, booked_at
    FROM replay.bookings
    WHERE booked_at >= :then AND booked_at < :now
    ORDER BY booked_at, booking_id
"""

_MOVE = """
    UPDATE public.bookings
    SET seat = moved.other_seat, changed_at = moved.moved_at
    FROM replay.bookings AS moved
    WHERE bookings.booking_id = moved.booking_id AND moved.moved_at >= :then AND moved.moved_at < :now
"""

_CANCEL = """
    DELETE FROM public.bookings
    USING replay.bookings AS cancelled
    WHERE bookings.booking_id = cancelled.booking_id
        AND cancelled.cancelled_at >= :then AND cancelled.cancelled_at < :now
"""


def build(connection: Connection) -> None:
    """Create the table and its archive; the archive of the flights has to be there."""
    connection.exec_driver_sql(_TABLE)
    connection.execute(text(_ARCHIVE))


def replay(connection: Connection, then: datetime, now: datetime) -> None:
    """Let everything happen that lies in `[then, now)`."""
    for statement in (_BOOK, _MOVE, _CANCEL):
        connection.execute(text(statement), {"then": then, "now": now})
