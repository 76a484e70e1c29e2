"""A pipeline with personal data in it: people with a name, an e-mail address, and an age that may be bad."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandera.pandas as pa
from sqlalchemy import BigInteger, Column, Engine, MetaData, Table, Text, delete, insert, select

from tasks.column_types import UtcDateTime
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla
from tasks.state.tables import dead_letters, runs
from tasks.transform.contract import UtcTimestamp
from tests.orders import DAY, START

CANARY = "ann.miller@canary.example"


class PersonSchema(pa.DataFrameModel):
    """A negative age is bad, and so is an address without an @."""

    id: int
    name: str = pa.Field(nullable=True)
    email: str = pa.Field(nullable=True, str_contains="@")
    age: int = pa.Field(nullable=True, ge=0)
    updated_at: UtcTimestamp


PEOPLE = Pipeline(
    name="people",
    extract=TableExtract("source", "people", cursor="updated_at"),
    schema=PersonSchema,
    load=Upsert("target", "dim_people", key=["id"]),
    sla=Sla(abort_error_rate=1.0),
)
MASKED = replace(PEOPLE, masked=["name", "email"])

_metadata = MetaData()
SOURCE = Table(
    "people",
    _metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("id", BigInteger),
    Column("name", Text),
    Column("email", Text),
    Column("age", BigInteger),
    Column("updated_at", UtcDateTime),
)


def person(number: int, *, age: int | None = -1, day: float = 0, **other: Any) -> dict[str, Any]:
    """Ann, who is bad unless her age is given."""
    row = {"number": number, "id": number, "name": "Ann Miller", "email": CANARY, "age": age}
    return row | {"updated_at": START + day * DAY} | other


def put(source: Engine, people: Iterable[dict[str, Any]]) -> None:
    """Create the source table where it is absent, and write `people` over those with the same number."""
    _metadata.create_all(source)
    with source.begin() as connection:
        for row in people:
            connection.execute(delete(SOURCE).where(SOURCE.c.number == row["number"]))
            connection.execute(insert(SOURCE).values(**row))


def kept(target: Engine) -> list[dict[str, Any]]:
    """Every dead letter, by the number of its person, its documents read."""
    with target.connect() as connection:
        rows = connection.execute(select(dead_letters).order_by(dead_letters.c.letter)).mappings().all()
    read = {"record", "record_types", "reasons"}
    letters = [{name: json.loads(value) if name in read else value for name, value in row.items()} for row in rows]
    return sorted(letters, key=lambda letter: (letter["record"].get("number", 0), letter["row_key"]))


def messages(target: Engine) -> list[str]:
    """What the ledger says, the oldest first."""
    with target.connect() as connection:
        found = connection.execute(select(runs.c.message).order_by(runs.c.started_at, runs.c.attempt)).scalars()
        return [message for message in found if message is not None]


def everything(target: Engine) -> str:
    """All that tidegate's own tables hold, as one text."""
    from tasks.state.tables import metadata

    with target.connect() as connection:
        return "\n".join(str(row) for table in metadata.sorted_tables for row in connection.execute(select(table)))
