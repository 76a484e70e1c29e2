"""The weather service of the demo: a SQLite file that datasette serves as a JSON API.

Table `weather` holds the hourly observations before the clock, table `clock` one row with the clock itself, as ISO 8601
text in UTC. The columns are the package's: degrees Fahrenheit, per cent, mph, inches, millibars, miles; `year` to
`hour` are local, `time_hour` is UTC.
"""

import csv
import io
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from deployments.demo import archive

# SQLite keeps what Python hands it; text into REAL would be rounded by SQLite's own reading of decimals.
_COLUMNS: dict[str, type[str] | type[int] | type[float]] = {
    "origin": str,
    "year": int,
    "month": int,
    "day": int,
    "hour": int,
    "temp": float,
    "dewp": float,
    "humid": float,
    "wind_dir": int,
    "wind_speed": float,
    "wind_gust": float,
    "precip": float,
    "pressure": float,
    "visib": float,
    "time_hour": str,
}
_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL"}


def build(file: Path, when: datetime) -> None:
    """Create the file's tables, or create them anew, and bring them to `when`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = ", ".join(f'"{name}" {_SQL_TYPES[kind]}' for name, kind in _COLUMNS.items())
    with closing(_connect(file)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DROP TABLE IF EXISTS weather")
        connection.execute("DROP TABLE IF EXISTS clock")
        connection.execute(f"CREATE TABLE weather ({columns}, PRIMARY KEY (origin, time_hour))")
        connection.execute("CREATE TABLE clock (now TEXT NOT NULL)")
        _write(connection, when)


def replay_to(file: Path, when: datetime) -> None:
    """Bring the file to `when` (aware), in one transaction; datasette may have it open."""
    with closing(_connect(file)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        _write(connection, when)


def clock(file: Path) -> datetime:
    """The instant (UTC) at which the file stands."""
    with closing(_connect(file)) as connection:
        return datetime.fromisoformat(connection.execute("SELECT now FROM clock").fetchone()[0])


def _write(connection: sqlite3.Connection, when: datetime) -> None:
    # Observations are of whole hours, so what lies before `when` lies before the next whole hour; as texts of one
    # form these compare like the instants they stand for.
    hour = when.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    end = _iso(hour if hour == when else hour + timedelta(hours=1))
    connection.execute("DELETE FROM weather WHERE time_hour >= ?", (end,))
    connection.executemany(
        f"INSERT OR IGNORE INTO weather VALUES ({', '.join('?' * len(_COLUMNS))})",
        [row for row in _observations() if str(row[-1]) < end],
    )
    connection.execute("DELETE FROM clock")
    connection.execute("INSERT INTO clock VALUES (?)", (_iso(when),))


@cache
def _observations() -> list[tuple[str | int | float | None, ...]]:
    with archive.csv_file("weather") as file:
        lines = csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))
        return [
            tuple(None if line[name] == archive.MISSING else kind(line[name]) for name, kind in _COLUMNS.items())
            for line in lines
        ]


def _connect(file: Path) -> sqlite3.Connection:
    # Without an isolation level the driver begins nothing by itself.
    return sqlite3.connect(file, timeout=60, isolation_level=None)


def _iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
