"""Five million rows on either side, and fifty differences among them."""

import resource
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Engine, delete, literal_column, text, update

from tasks.extract.table import TableExtract
from tasks.pipeline import run_pipeline
from tasks.recovery.reconcile.blocks import BLOCK_ROWS
from tasks.recovery.reconcile.reconcile import reconcile_pipeline
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, SOURCE, START, TARGET, order, put

ROWS = 5_000_000
A_DAY: ColumnElement[Any] = literal_column("interval '1 day'")
MARKED = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", deleted="gone"))

_PLANTED = {
    "missing": 12,
    "stale": 8,
    "ahead": 4,
    "differs": 10,
    "extra": 8,
    "rejected": 4,
    "pending": 4,
}


def fill(database: Engine, table: str) -> None:
    """Rows over 318 days, made where they lie; PostgreSQL alone can do that."""
    with database.begin() as connection:
        connection.execute(
            text(f"""
                INSERT INTO {table} (id, customer, amount, updated_at)
                SELECT n, 'customer ' || n % 1000, n % 777 + 0.1,
                       TIMESTAMPTZ '2026-01-01 00:00:00Z' + n * interval '5.5 s'
                FROM generate_series(1, :rows) AS n
            """),
            {"rows": ROWS},
        )


def plant(databases: Databases) -> None:
    """Spread the differences over the table."""
    numbers = iter(range(1, ROWS, ROWS // 50))
    with databases.target.begin() as target, databases.source.begin() as source:
        for kind, number in _PLANTED.items():
            for _ in range(number if kind != "rejected" else 0):
                key = next(numbers)
                row, at = TARGET.c.id == key, TARGET.c.updated_at
                if kind == "missing":
                    target.execute(delete(TARGET).where(row))
                elif kind == "stale":
                    target.execute(update(TARGET).where(row).values(amount=0, updated_at=at - A_DAY))
                elif kind == "ahead":
                    target.execute(update(TARGET).where(row).values(updated_at=at + A_DAY))
                elif kind == "differs":
                    target.execute(update(TARGET).where(row).values(customer="somebody else"))
                elif kind == "extra":
                    source.execute(delete(SOURCE).where(SOURCE.c.id == key))
                else:
                    late = START + 40_000 * DAY
                    source.execute(update(SOURCE).where(SOURCE.c.id == key).values(updated_at=late))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_differences_in_five_million_rows_are_found_explained_and_repaired(postgresql: Databases) -> None:
    put(postgresql.source, [order(ROWS + number, amount=-1, day=number) for number in range(1, 5)])
    with postgresql.source.begin() as source:
        source.execute(text("ALTER TABLE orders ADD COLUMN gone boolean"))
    run_pipeline(MARKED)
    fill(postgresql.source, "orders")
    fill(postgresql.target, "fct_orders")
    for database, table in ((postgresql.source, "orders"), (postgresql.target, "fct_orders")):
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE INDEX {table}_by_time ON {table} (updated_at)"))
            connection.execute(text(f"VACUUM ANALYZE {table}"))
    plant(postgresql)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = reconcile_pipeline(MARKED, repair=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(report, *report.levels, f"{len(report.repairs)} runs, {report.seconds:.1f} s, +{grown / 1024:.0f} MB")
    assert report.found == _PLANTED
    assert report.rows_read <= report.most_rows <= 2 * report.blocks * BLOCK_ROWS
    assert report.blocks <= 2 * sum(_PLANTED.values())
    assert report.counts == {kind: _PLANTED[kind] for kind in ("ahead", "rejected", "pending")}
    assert grown < 100 * 1024  # KiB; either table has over 300 MB
