"""Random sessions write to a table that is read by a cursor at random: in the end every row is in the target."""

import random
from dataclasses import dataclass, replace
from functools import partial

import pandera.pandas as pa
import psycopg
import pytest

from tasks.extract.changes import Extract
from tasks.extract.feed import Feed
from tasks.extract.sequence import SequenceExtract
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tasks.transform.contract import UtcTimestamp
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS, BookingSchema, rows
from tests.properties.interleaving import interleave, seeds
from tests.properties.writers import Writers
from tests.variants import slow_but

MANY = seeds(500)


class Timed(BookingSchema):
    version: UtcTimestamp


class Numbered(BookingSchema):
    version: int


@dataclass(frozen=True)
class Ordered:
    """How a row gets a higher version, and how it is read by it."""

    kind: str
    next_version: str
    extract: Extract | Feed
    schema: type[pa.DataFrameModel]


BY_TIME = Ordered(
    "timestamptz", "clock_timestamp()", TableExtract("source", "bookings", cursor="version"), Timed
)  # fmt: skip
BY_NUMBER = Ordered(
    "bigint", "nextval('versions')", SequenceExtract("source", "bookings", cursor="version", chunk=5), Numbered
)
each_cursor = pytest.mark.parametrize("ordered", [BY_TIME, BY_NUMBER], ids=["time", "number"])


@each_cursor
@pytest.mark.parametrize("seed", slow_but([0], range(3)))
def test_after_a_quiet_last_run_every_row_is_in_the_target(postgresql: Databases, ordered: Ordered, seed: int) -> None:
    history(postgresql, ordered, seed)


@each_cursor
@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_after_a_quiet_last_run_every_row_is_in_the_target_whatever_happened(
    postgresql: Databases, ordered: Ordered
) -> None:
    for seed in MANY:
        history(postgresql, ordered, seed)


def history(databases: Databases, ordered: Ordered, seed: int) -> None:
    """One random history; `TIDEGATE_TEST_SEED=<seed>` runs a single one again. Deletes are beyond a cursor."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    conninfo = databases.source.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as admin:
        for statement in (
            "DROP TABLE IF EXISTS bookings CASCADE",
            "CREATE SEQUENCE IF NOT EXISTS versions",
            f"CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8, version {ordered.kind})",
            f"""CREATE OR REPLACE FUNCTION next_version() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN NEW.version := {ordered.next_version}; RETURN NEW; END $$""",
            "CREATE TRIGGER versions BEFORE INSERT OR UPDATE ON bookings FOR EACH ROW EXECUTE FUNCTION next_version()",
        ):
            admin.execute(statement.encode())
    table = f"ordered_{seed}"
    load = Upsert("target", table, key=["id"])
    pipeline = replace(BOOKINGS, name=table, extract=ordered.extract, schema=ordered.schema, load=load)
    with Writers(databases.source, "bookings", dice, truncates=False) as writers:
        interleave(partial(run_pipeline, pipeline), writers, dice)
    run_pipeline(pipeline)
    found = set(rows(databases.target, f"SELECT id, seat, price FROM {table}"))
    assert set(rows(databases.source, "SELECT id, seat, price FROM bookings")) <= found, f"seed {seed}"
