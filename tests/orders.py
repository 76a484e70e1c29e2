"""A small pipeline that many tests use: orders by id, with a cursor, from `source` to `target`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pa
from sqlalchemy import BigInteger, Column, Double, Engine, MetaData, Table, Text, delete, insert, select

from tasks.column_types import UtcDateTime
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla
from tasks.transform.contract import UtcTimestamp

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


class OrderSchema(pa.DataFrameModel):
    """An order; a negative amount is bad."""

    id: int
    customer: str = pa.Field(nullable=True)
    amount: float = pa.Field(nullable=True, ge=0)
    updated_at: UtcTimestamp


ORDERS = Pipeline(
    name="orders",
    extract=TableExtract("source", "orders", cursor="updated_at"),
    schema=OrderSchema,
    load=Upsert("target", "fct_orders", key=["id"]),
    sla=Sla(abort_error_rate=1.0),
)

SNAPSHOT = replace(ORDERS, name="snapshot", extract=TableExtract("source", "orders"))

_metadata = MetaData()
SOURCE = Table(
    "orders",
    _metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("customer", Text),
    Column("amount", Double),
    Column("updated_at", UtcDateTime),
)
TARGET = Table(
    "fct_orders",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("customer", Text),
    Column("amount", Double),
    Column("updated_at", UtcDateTime),
)


def order(number: int, amount: float | None = 1.0, day: float = 0, customer: str | None = "ann") -> dict[str, Any]:
    """An order changed `day` days after `START`."""
    return {"id": number, "customer": customer, "amount": amount, "updated_at": START + day * DAY}


def put(source: Engine, orders: Iterable[dict[str, Any]]) -> None:
    """Create the source table where it is absent, and write `orders` over those with the same id."""
    _metadata.create_all(source)
    with source.begin() as connection:
        for row in orders:
            connection.execute(delete(SOURCE).where(SOURCE.c.id == row["id"]))
            connection.execute(insert(SOURCE).values(**row))


def remove(source: Engine, numbers: Sequence[int]) -> None:
    """Delete orders from the source."""
    with source.begin() as connection:
        connection.execute(delete(SOURCE).where(SOURCE.c.id.in_(numbers)))


def loaded(target: Engine) -> list[dict[str, Any]]:
    """The rows of the target, by id."""
    with target.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(select(TARGET).order_by(TARGET.c.id))]
