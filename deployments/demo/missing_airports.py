"""The four airports that flights of the archive go to and its directory of airports lacks.

They are an addition of the demo's: three in Puerto Rico and one on Saint Thomas, with their published positions and
elevations. Nobody there changes the clocks.
"""

from sqlalchemy import Connection, text

MISSING_AIRPORTS = (
    ("BQN", "Rafael Hernandez", 18.494861, -67.129444, 237, "America/Puerto_Rico"),
    ("PSE", "Mercedita", 18.008306, -66.563028, 29, "America/Puerto_Rico"),
    ("SJU", "Luis Munoz Marin Intl", 18.439417, -66.001833, 9, "America/Puerto_Rico"),
    ("STT", "Cyril E King", 18.337306, -64.973361, 23, "America/St_Thomas"),
)
"""Code, name, degrees north and east, feet, IANA name of the time zone."""

_ADD = """
    INSERT INTO public.airports (faa, name, lat, lon, alt, tz, dst, tzone)
    VALUES (:faa, :name, :lat, :lon, :alt, -4, 'N', :tzone)
    ON CONFLICT (faa) DO NOTHING
"""


def add(connection: Connection) -> None:
    """Add them to the directory, where they stay until the sources are built anew."""
    names = ("faa", "name", "lat", "lon", "alt", "tzone")
    connection.execute(text(_ADD), [dict(zip(names, airport, strict=True)) for airport in MISSING_AIRPORTS])
