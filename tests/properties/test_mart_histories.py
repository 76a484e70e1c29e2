"""A mart after any history of its upstream is the SELECT over all of it, and nothing else."""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import inspect, text

from tasks.extract.sql import SqlTransform
from tasks.load.replace import Replace
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_sql import BY_DAY, DAILY, DAYS, QUERY, mart
from tests.orders import DAY, SNAPSHOT, START, order, put, remove
from tests.properties.effort import Prove, effort

ORDERS = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"], max_shrink=1, track=DAYS))
MART = replace(
    DAILY,
    extract=SqlTransform("target", query=QUERY, upstreams=[ORDERS.load], by=BY_DAY),
    load=replace(DAILY.load, allow_empty=True, max_shrink=1),  # type: ignore[type-var]
)


@dataclass(frozen=True)
class Put:
    """An order is new, or changes, or moves to another day."""

    number: int
    amount: int
    day: int

    def happen(self, databases: Databases) -> None:
        put(databases.source, [order(self.number, amount=self.amount, day=self.day / 2)])


@dataclass(frozen=True)
class Remove:
    """An order goes, if it is there; one always stays."""

    number: int

    def happen(self, databases: Databases) -> None:
        remove(databases.source, [self.number])


@dataclass(frozen=True)
class Load:
    """The upstream is loaded."""

    def happen(self, databases: Databases) -> None:
        run_pipeline(ORDERS)


@dataclass(frozen=True)
class Aggregate:
    """The mart reads what has changed."""

    def happen(self, databases: Databases) -> None:
        run_pipeline(MART)


@dataclass(frozen=True)
class Backfill:
    """The mart reads a range."""

    start: int
    days: int

    def happen(self, databases: Databases) -> None:
        run_pipeline(MART, START + self.start / 2 * DAY, START + (self.start + self.days) / 2 * DAY)


HALVES = st.integers(0, 7)
EVENTS = st.lists(
    st.builds(Put, st.integers(1, 6), st.integers(0, 3), HALVES)
    | st.builds(Remove, st.integers(1, 6))
    | st.just(Load())
    | st.just(Aggregate())
    | st.builds(Backfill, HALVES, st.integers(0, 4)),
    max_size=14,
)


@effort(few=5, many=250)
def test_a_mart_is_what_its_select_gives_over_everything_whatever_the_order_of_runs(
    sqlite: Databases, prove: Prove
) -> None:
    def claim(events: list[Any]) -> None:
        _forget(sqlite)
        for event in (Put(0, 1, 0), Load(), *events, Load(), Aggregate()):
            event.happen(sqlite)
        assert mart(sqlite.target) == _everything(sqlite)
        assert run_pipeline(MART).counts.incoming == 0

    prove(EVENTS, claim)


def _everything(databases: Databases) -> dict[tuple[date, str], tuple[int, float]]:
    whole = text(QUERY.partition("--")[0].replace(":start", "''").replace(":end", "'later'"))
    with databases.target.connect() as connection:
        found = connection.execute(whole).all()
    return {(date.fromisoformat(day), customer): (orders, amount) for day, customer, orders, amount in found}


def _forget(databases: Databases) -> None:
    """Empty both sides, for the next example."""
    put(databases.source, [])
    with databases.source.begin() as connection:
        connection.execute(text("DELETE FROM orders"))
    tables = inspect(databases.target).get_table_names()
    with databases.target.begin() as connection:
        for table in tables:
            if table != "etl_schema_version":
                connection.execute(text(f'DELETE FROM "{table}"'))
