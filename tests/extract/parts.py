"""Parts, a table without a timestamp, and the pipeline that follows it by snapshots."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandera.pandas as pa
from sqlalchemy import BigInteger, Column, Double, Engine, MetaData, Table, Text, delete, insert, inspect, select, text

from tasks.extract.snapshot import SnapshotDiff
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla

Part = tuple[int, str | None, float | None]


class PartSchema(pa.DataFrameModel):
    """A part; a weight below -1 is bad."""

    number: int
    name: str = pa.Field(nullable=True)
    weight: float = pa.Field(nullable=True, ge=-1)


PARTS = Pipeline(
    name="parts",
    extract=SnapshotDiff("source", "parts", key=["number"]),
    schema=PartSchema,
    load=Upsert("target", "dim_parts", key=["number"]),
    sla=Sla(abort_error_rate=1.0),
)

SOURCE = Table(
    "parts",
    MetaData(),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text),
    Column("weight", Double),
)


def part(number: int, weight: float | None = 1.0, name: str | None = "bolt") -> Part:
    """A part."""
    return number, name, weight


def put(source: Engine, parts: Iterable[Part]) -> None:
    """Create the source table where it is absent, and write `parts` over those with the same number."""
    SOURCE.metadata.create_all(source)
    with source.begin() as connection:
        for number, name, weight in parts:
            connection.execute(delete(SOURCE).where(SOURCE.c.number == number))
            connection.execute(insert(SOURCE).values(number=number, name=name, weight=weight))


def remove(source: Engine, numbers: Sequence[int]) -> None:
    """Delete parts from the source."""
    with source.begin() as connection:
        connection.execute(delete(SOURCE).where(SOURCE.c.number.in_(numbers)))


def execute(engine: Engine, *statements: str) -> None:
    """Run each, and commit."""
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def rows(engine: Engine, table: str = "dim_parts", columns: str = "number, name, weight") -> list[tuple[Any, ...]]:
    """The rows of a table, by their first column."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1"))]


def hash_table(target: Engine) -> str | None:
    """What the table of the last snapshot is called, if there is one."""
    found = [name for name in inspect(target).get_table_names() if name.endswith("_hash")]
    return found[0] if found else None


def hashes(target: Engine) -> dict[int, bytes]:
    """What the target knows of the last snapshot: the hash of each part."""
    known = hash_table(target)
    return {} if known is None else dict(rows(target, known, "number, etl_hash"))


def source_rows(source: Engine) -> list[Part]:
    """The rows of the source, by number."""
    with source.connect() as connection:
        return [(row.number, row.name, row.weight) for row in connection.execute(select(SOURCE).order_by("number"))]
