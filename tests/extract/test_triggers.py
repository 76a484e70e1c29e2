"""`TriggerExtract` on real databases: each test makes a table, lets others write to it, and runs."""

from typing import Any

import pandera.pandas as pa
import pytest
from sqlalchemy import Engine, text

from tasks.extract.triggers import TriggerExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tasks.report import RunReport
from tests.conftest import Databases


class BookingSchema(pa.DataFrameModel):
    id: int
    seat: str = pa.Field(nullable=True)
    price: float = pa.Field(nullable=True, ge=0)


BOOKINGS = Pipeline(
    name="bookings",
    extract=TriggerExtract("source", "bookings", key=["id"]),
    schema=BookingSchema,
    load=Upsert("target", "fct_bookings", key=["id"]),
    sla=Sla(abort_error_rate=1.0),
)
TABLE = "CREATE TABLE bookings (id bigint NOT NULL PRIMARY KEY, seat varchar(20), price double precision)"


@pytest.fixture
def source(sources: Databases) -> Engine:
    execute(sources.source, TABLE)
    return sources.source


@pytest.fixture
def target(sources: Databases) -> Engine:
    return sources.target


def execute(engine: Engine, *statements: str) -> None:
    """All statements in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows(engine: Engine, query: str = "SELECT id, seat, price FROM bookings ORDER BY id") -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def loaded(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT id, seat, price FROM fct_bookings ORDER BY id")


def terms(report: RunReport) -> dict[str, int]:
    return {name: value for name, value in report.counts.as_dict().items() if value}


def test_the_first_run_takes_a_snapshot_and_the_next_only_what_changed(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings VALUES (1, '1A', 100), (2, '2B', NULL), (3, '3C', 50)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 3, "inserted": 3}
    execute(
        source,
        "INSERT INTO bookings VALUES (4, '4D', 70)",
        "UPDATE bookings SET seat = '9F' WHERE id = 1",
        "DELETE FROM bookings WHERE id = 2",
    )
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert loaded(target) == rows(source)
    assert terms(run_pipeline(BOOKINGS)) == {}
