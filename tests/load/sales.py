"""Sales, handed over or read from a table, of which partitions are replaced."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from sqlalchemy import text

from tasks.extract.rows import RowsExtract
from tasks.extract.table import TableExtract
from tasks.load.partition import ReplacePartition
from tasks.pipeline import Pipeline
from tasks.transform.contract import UtcTimestamp
from tests.conftest import Databases
from tests.orders import START


class SaleSchema(pandera.DataFrameModel):
    id: int
    day: date
    shop: str
    sold_at: UtcTimestamp
    written_at: pd.Timestamp


def sale(number: int, hours: float = 0, shop: str = "north") -> dict[str, Any]:
    sold_at = START + timedelta(hours=hours)
    return {"id": number, "day": sold_at.date(), "shop": shop, "sold_at": sold_at,
            "written_at": sold_at.replace(tzinfo=None)}  # fmt: skip


def sales(partition: str, *rows: dict[str, Any], cursor: str | None = None, **how: Any) -> Pipeline:
    """A pipeline that brings these rows."""
    load = ReplacePartition("target", "fct_sales", key=["id"], partition=partition, max_shrink=1, **how)
    return Pipeline("sales", RowsExtract(pa.Table.from_pylist(list(rows)), "sales", cursor), SaleSchema, load)


def sold(databases: Databases) -> list[int]:
    with databases.target.connect() as connection:
        return list(connection.execute(text("SELECT id FROM fct_sales ORDER BY id")).scalars())


def by_dates(zone: str = "UTC", read_in: str | None = None) -> Pipeline:
    """A table is read by windows of a date."""
    extract = TableExtract("source", "sales", cursor="day", zone=read_in)
    return replace(sales("day", sale(1), grain="day", zone=zone), extract=extract)
