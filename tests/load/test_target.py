"""The target: made from the contract, and only ever added to."""

from dataclasses import replace

import pandera.pandas as pa
import pytest
from sqlalchemy import inspect, text

from tasks.errors import ConservationError
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tasks.transform.contract import UtcTimestamp
from tests.conftest import Databases, on_every_target, on_postgresql_too
from tests.orders import ORDERS, SNAPSHOT, OrderSchema, loaded, order, put, remove
from tests.variants import slow_but


@on_every_target
def test_its_key_is_the_primary_key_and_what_may_not_be_null_is_not_null(databases: Databases) -> None:
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)
    inspector = inspect(databases.target)
    assert inspector.get_pk_constraint("fct_orders")["constrained_columns"] == ["id"]
    nullable = {column["name"]: column["nullable"] for column in inspector.get_columns("fct_orders")}
    assert nullable == {"id": False, "customer": True, "amount": True, "updated_at": False}


@on_postgresql_too
def test_columns_that_nobody_declared_keep_their_values(databases: Databases) -> None:
    """Somebody added one by hand; an update leaves it, an insert takes its default."""
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)
    with databases.target.begin() as connection:
        connection.execute(text("ALTER TABLE fct_orders ADD COLUMN note text DEFAULT 'new'"))
        connection.execute(text("UPDATE fct_orders SET note = 'mine'"))
    put(databases.source, [order(1, amount=2, day=1), order(2, day=1)])
    run_pipeline(ORDERS)
    with databases.target.connect() as connection:
        rows = connection.execute(text("SELECT id, amount, note FROM fct_orders ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(1, 2, "mine"), (2, 1, "new")]


@on_postgresql_too
def test_a_required_column_that_is_new_is_nullable_in_a_table_that_has_rows(databases: Databases) -> None:
    class Wider(OrderSchema):
        region: str

    put(databases.source, [order(1), order(2, day=1)])
    run_pipeline(ORDERS)
    put(databases.source, [order(3, day=2)])
    run_pipeline(replace(ORDERS, schema=Wider, transform=lambda raw: raw.assign(region="north")))
    with databases.target.connect() as connection:
        rows = connection.execute(text("SELECT id, region FROM fct_orders ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(1, None), (2, "north"), (3, "north")]


@on_postgresql_too
def test_a_column_that_the_contract_drops_stays(databases: Databases) -> None:
    class Narrower(pa.DataFrameModel):
        id: int
        updated_at: UtcTimestamp

    put(databases.source, [order(1, amount=7)])
    run_pipeline(ORDERS)
    run_pipeline(replace(ORDERS, schema=Narrower))
    assert loaded(databases.target)[0]["amount"] == 7


def test_it_may_bear_a_schema(postgresql: Databases) -> None:
    with postgresql.target.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Mart"'))
    put(postgresql.source, [order(1)])
    pipeline = replace(ORDERS, load=Upsert("target", "Mart.fct_orders", key=["id"]))
    for inserted in (1, 0):
        assert run_pipeline(replace(pipeline, extract=SNAPSHOT.extract)).counts.inserted == inserted
    with postgresql.target.connect() as connection:
        assert connection.execute(text('SELECT count(*) FROM "Mart".fct_orders')).scalar_one() == 1


@on_every_target
@pytest.mark.parametrize(
    "key", slow_but([["updated_at", "id"]], [["customer"], ["customer", "id"], ["updated_at", "id"]]), ids="-".join
)
def test_a_key_may_be_of_any_type_and_of_several_columns(databases: Databases, key: list[str]) -> None:
    put(databases.source, [order(1, customer="ann"), order(2, customer="bob", day=1), order(3, customer=None)])
    pipeline = replace(SNAPSHOT, load=Upsert("target", "fct_orders", key=key))
    first, second = (run_pipeline(pipeline).counts for _ in range(2))
    rejected = int("customer" in key)
    assert (first.inserted, first.rejected) == (3 - rejected, rejected)
    assert (second.unchanged, second.rejected) == (3 - rejected, rejected)


@on_postgresql_too
def test_a_table_of_nothing_but_its_key_is_loaded(databases: Databases) -> None:
    class Numbers(pa.DataFrameModel):
        id: int

    put(databases.source, [order(1), order(2)])
    pipeline = replace(SNAPSHOT, schema=Numbers)
    assert [run_pipeline(pipeline).counts.inserted for _ in range(2)] == [2, 0]


def test_a_target_that_does_not_write_what_it_is_told_to_is_noticed(postgresql: Databases) -> None:
    """A trigger swallows the update."""
    put(postgresql.source, [order(1)])
    run_pipeline(ORDERS)
    with postgresql.target.begin() as connection:
        connection.execute(
            text("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        connection.execute(
            text("CREATE TRIGGER swallow BEFORE UPDATE ON fct_orders FOR EACH ROW EXECUTE FUNCTION swallow()")
        )
    put(postgresql.source, [order(1, amount=9, day=1), order(2, day=1)])
    with pytest.raises(ConservationError, match="0 rows were updated where 1 were classified so"):
        run_pipeline(ORDERS)
    assert [row["amount"] for row in loaded(postgresql.target)] == [1]


@on_every_target
def test_null_is_a_value_like_any_other_when_rows_are_compared(databases: Databases) -> None:
    """NULL to NULL is unchanged; NULL to a value, and back, is an update."""
    outcomes = []
    for amount in (None, None, 1.0, None):
        put(databases.source, [order(1, amount=amount)])
        counts = run_pipeline(SNAPSHOT).counts
        outcomes.append((counts.inserted, counts.updated, counts.unchanged))
    assert outcomes == [(1, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 0)]


@on_postgresql_too
def test_upsert_keeps_what_leaves_the_source(databases: Databases) -> None:
    put(databases.source, [order(1), order(2)])
    run_pipeline(SNAPSHOT)
    remove(databases.source, [1])
    run_pipeline(SNAPSHOT)
    assert [row["id"] for row in loaded(databases.target)] == [1, 2]
