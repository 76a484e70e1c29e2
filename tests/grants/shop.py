"""A shop: one pipeline for every extract, load and check, and what there is before the first run."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pa
from sqlalchemy import Engine, text

from tasks.extract.log import LogExtract
from tasks.extract.sequence import SequenceExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.sql import SqlTransform
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.scd2 import Scd2
from tasks.load.upsert import Upsert
from tasks.partitioned import Partitioned
from tasks.pipeline import Audit, Lookup, Pipeline, References, Sla, run_pipeline
from tasks.transform.contract import UtcTimestamp
from tests.extract.followed import execute

LAG = timedelta(minutes=1)
_TYPES = {
    "postgresql": ("bigint", "double precision", "timestamptz"),
    "mariadb": ("bigint", "double", "datetime(6)"),
    "sqlite": ("bigint", "double", "datetime"),
}
"""Of a number, an amount and an instant."""

_ANY = Sla(abort_error_rate=1.0)


class Line(pa.DataFrameModel):
    """A row of any table here; a negative amount is bad."""

    id: int
    region: str = pa.Field(str_length={"max_value": 20})
    amount: float = pa.Field(ge=0)
    at: UtcTimestamp


class Named(Line):
    """With what a lookup finds."""

    region_name: str = pa.Field(nullable=True)


class Total(pa.DataFrameModel):
    """A day of the mart."""

    day: UtcTimestamp
    amount: float


def pipelines(kind: str) -> dict[str, Pipeline]:
    """By name, in the order in which they run.

    Args:
        kind: of the source: `postgresql`, `mariadb` or `sqlite`.
    """
    lag = timedelta(0) if kind == "postgresql" else LAG
    schema = "shop." if kind == "postgresql" else ""

    def of(name: str, extract: Any, load: Any, schema: Any = Line, **more: Any) -> Pipeline:
        return Pipeline(name=name, extract=extract, load=load, schema=schema, sla=_ANY, max_attempts=1, **more)

    made = [
        of(
            "cursor",
            TableExtract("source", "by_cursor", cursor="at", lag=lag),
            Upsert("target", "fct_cursor", ["id"], track=Partitioned("at", "day")),
            schema=Named,
            lookups=[Lookup("dim_names", on={"region": "code"}, take={"name": "region_name"})],
            references=[References("region", "dim_regions.code")],
        ),
        of("query", TableExtract("source", query=_query(kind)), Replace("target", "fct_query", ["id"])),
        of(
            "number",
            SequenceExtract("source", "by_number", cursor="id", lag=lag),
            Append("target", "fct_number", ["id"]),
        ),
        of("snapshot", SnapshotDiff("source", f"{schema}by_snapshot", ["id"]), Scd2("target", "dim_snapshot", ["id"])),
        of("triggers", TriggerExtract("source", "by_triggers", ["id"]), Upsert("target", "fct_triggers", ["id"])),
        of(
            "frozen",
            TableExtract("source", "by_cursor", cursor="at", lag=lag),
            Upsert("target", "fct_frozen", ["id"]),
            on_drift="freeze",
        ),
        of(
            "mart",
            SqlTransform(
                "target",
                query="SELECT at AS day, sum(amount) AS amount FROM fct_cursor "
                "WHERE at >= :start AND at < :end GROUP BY at",
                upstreams=["fct_cursor"],
                by=Partitioned("day", "day"),
            ),
            ReplacePartition("target", "mart_days", ["day"], partition="day", grain="day"),
            schema=Total,
            audits=[Audit("a day is known", query="SELECT day FROM staged WHERE day IN (SELECT day FROM holidays)")],
            depends_on=["cursor"],
        ),
    ]
    if kind == "postgresql":
        made += [
            of("log", LogExtract("source", "by_log"), Upsert("target", "fct_log", ["id"])),
            of("published", LogExtract("source", f"{schema}published", publication="Shop's"),
               Upsert("target", "marts.Lines", ["id"], soft_delete="gone_at")),
        ]  # fmt: skip
    return {pipeline.name: pipeline for pipeline in made}


def _query(kind: str) -> str:
    price = 'shop."Prices"' if kind == "postgresql" else "prices"
    return f"SELECT l.id, l.region, p.amount, l.at FROM by_query AS l JOIN {price} AS p ON p.id = l.id"


def build(source: Engine, target: Engine) -> None:
    """What is there before the first run: the source's tables, and those of the target that no pipeline loads."""
    line = "(id {0} NOT NULL PRIMARY KEY, region varchar(20) NOT NULL, amount {1} NOT NULL, at {2} NOT NULL)"
    made = line.format(*_TYPES[source.dialect.name])
    names = ["by_cursor", "by_query", "by_number", "by_triggers"]
    if source.dialect.name == "postgresql":
        execute(source, "CREATE SCHEMA shop")
        names += ["by_log", "shop.by_snapshot", "shop.published", 'shop."Prices"']
    else:
        names += ["by_snapshot", "prices"]
    for name in names:
        execute(source, f"CREATE TABLE {name} {made}")
    for number in (1, 2, 3, 4):
        add(source, number)
    kept = line.format(*_TYPES[target.dialect.name])
    if target.dialect.name == "mariadb":
        kept = kept.replace("varchar(20)", "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin")
    execute(
        target,
        "CREATE TABLE dim_regions (code varchar(20) PRIMARY KEY)",
        "CREATE TABLE dim_names (code varchar(20) PRIMARY KEY, name varchar(20))",
        f"CREATE TABLE holidays (day {_TYPES[target.dialect.name][2]})",
        f"CREATE TABLE fct_frozen {kept}",
        "INSERT INTO dim_regions VALUES ('north')",
        "INSERT INTO dim_names VALUES ('north', 'The North')",
    )
    if target.dialect.name == "postgresql":
        execute(target, "CREATE SCHEMA marts")


def tables(source: Engine) -> Sequence[str]:
    """Every table of the source, quoted."""
    more = ["by_log", "shop.by_snapshot", "shop.published", 'shop."Prices"']
    return ["by_cursor", "by_query", "by_number", "by_triggers",
            *(more if source.dialect.name == "postgresql" else ["by_snapshot", "prices"])]  # fmt: skip


def add(source: Engine, number: int, amount: float = 1.0) -> None:
    """A row more in every table of the source."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + number * timedelta(hours=1)
    with source.begin() as connection:
        for table in tables(source):
            connection.execute(
                text(f"INSERT INTO {table} VALUES (:id, 'north', :amount, :at)"),
                {
                    "id": number,
                    "amount": amount,
                    "at": at if source.dialect.name == "postgresql" else at.replace(tzinfo=None),
                },
            )


def run_all(made: dict[str, Pipeline], source: Engine) -> None:
    """Every pipeline, twice: rows are new, bad and gone in between; then anew, over a range, and with a column more."""
    for pipeline in made.values():
        run_pipeline(pipeline)
    change(source)
    for pipeline in made.values():
        run_pipeline(pipeline)
    run_pipeline(made["cursor"], full_refresh=True)
    run_pipeline(made["cursor"], datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    run_pipeline(wider(made["query"]))


def change(source: Engine) -> None:
    """New rows, one of them bad, and one that is gone."""
    add(source, 5)
    add(source, 6, amount=-1)
    for table in tables(source):
        execute(source, f"DELETE FROM {table} WHERE id = 1")


def wider(pipeline: Pipeline) -> Pipeline:
    """`pipeline` after somebody has added a column to its contract."""
    return replace(pipeline, schema=Named, transform=lambda raw: raw.assign(region_name="south"))
