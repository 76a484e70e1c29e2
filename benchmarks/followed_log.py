"""How fast a log is decoded and staged: `python -m benchmarks.followed_log [CHANGES]`.

One transaction of inserts of six columns, then one of updates, on an embedded PostgreSQL of its own. Extracting (peek
and decode), validating and staging overlap; what they take together is the run's time without the commit's.
"""

import os
import sys
import tempfile
from pathlib import Path

import pandera.pandas as pa
import psycopg

from tasks import connections
from tasks.embedded import EmbeddedPostgres
from tasks.extract.log import LogExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, run_pipeline
from tasks.transform.contract import UtcTimestamp


class BookingSchema(pa.DataFrameModel):
    """A booking of six columns."""

    id: int
    seat: str
    fare: float = pa.Field(ge=0)
    passenger: str
    booked_at: UtcTimestamp
    changed_at: UtcTimestamp


PIPELINE = Pipeline(
    name="followed_log",
    extract=LogExtract("source", "bookings", chunk=1_000_000_000),
    schema=BookingSchema,
    load=Upsert("target", "bookings", key=["id"]),
)

_TABLE = """
    CREATE TABLE bookings (
        id bigint PRIMARY KEY, seat text, fare float8, passenger text, booked_at timestamptz, changed_at timestamptz
    )
"""


def main(changes: int) -> None:
    """Print a line for the inserts and one for the updates."""
    with tempfile.TemporaryDirectory(prefix="tidegate-benchmark-") as folder:
        cluster = EmbeddedPostgres(Path(folder) / "postgres").use()
        for name in ("source", "target"):
            cluster.ensure_database(f"bench_{name}")
            os.environ[f"TIDEGATE_{name.upper()}_URL"] = cluster.url(f"bench_{name}")
        with psycopg.connect(
            host=str(cluster.socket_folder), user="postgres", dbname="bench_source", autocommit=True
        ) as source:
            source.execute(_TABLE)
            run_pipeline(PIPELINE)
            for what, statement in (
                (
                    "inserts",
                    "INSERT INTO bookings SELECT g, 'S' || g % 300, g / 7.0, 'passenger ' || g, now(), now() "
                    f"FROM generate_series(1, {changes}) g",
                ),
                ("updates", "UPDATE bookings SET fare = fare + 1, changed_at = clock_timestamp()"),
            ):
                source.execute(statement.encode())
                entry = run_pipeline(PIPELINE).windows[-1].entry
                staged = entry.seconds - entry.phases["commit"]
                phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in entry.phases.items())
                print(
                    f"{entry.counts.extracted:,} {what}: {entry.counts.extracted / staged:,.0f} changes/s decoded and "
                    f"staged, {entry.counts.extracted / entry.seconds:,.0f} with the commit ({phases})"
                )
        connections.dispose()
        cluster.release()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
