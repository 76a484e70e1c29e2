"""What waits for a table is judged anew once that has landed: which letters, of whom, and that it comes to an end."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text

from tasks.extract.table import TableExtract
from tasks.graph import Graph
from tasks.load.replace import Replace
from tasks.load.upsert import Upsert
from tasks.pipeline import Lookup, References, run_pipeline
from tasks.recovery.replay_run import replay_waiting
from tasks.recovery.waiting import waiting_for
from tasks.state.awaited import awaited
from tasks.state.tables import dead_letters
from tests.conftest import Databases, on_every_target
from tests.orders import ORDERS, START, loaded, order, put

CUSTOMERS = replace(ORDERS, name="customers", load=Upsert("target", "dim_customers", key=["id"]))
REFERRING = replace(ORDERS, references=[References("customer", "dim_customers.name")])
GRAPH = Graph([CUSTOMERS, REFERRING])


@pytest.fixture
def customers(sqlite: Databases) -> Engine:
    """The target, with a dimension in it that nobody is in."""
    with sqlite.target.begin() as connection:
        connection.execute(text("CREATE TABLE dim_customers (name TEXT PRIMARY KEY)"))
    return sqlite.target


def arrive(target: Engine, *names: str) -> None:
    with target.begin() as connection:
        for name in names:
            connection.execute(text("INSERT INTO dim_customers VALUES (:name)"), {"name": name})


def statuses(target: Engine) -> dict[str, str]:
    with target.connect() as connection:
        rows = connection.execute(select(dead_letters.c.row_key, dead_letters.c.status)).all()
    return {row.row_key: row.status for row in rows}


def test_only_the_letters_that_lacked_something_there_are_replayed(sqlite: Databases, customers: Engine) -> None:
    put(sqlite.source, [order(1, customer="bob"), order(2, customer="eve"), order(3, customer=None, amount=-1)])
    run_pipeline(REFERRING)
    arrive(customers, "bob")
    lenient = replace(REFERRING, transform=lambda raw: raw.assign(amount=raw["amount"].abs()))
    report = replay_waiting("replay", Graph([CUSTOMERS, lenient]), "customers")
    # The third would pass today, and waited for nobody.
    assert statuses(customers) == {"1": "closed", "2": "open", "3": "open"}
    assert str(report) == "orders: extracted 2, inserted 1, rejected 1"
    assert [row["id"] for row in loaded(customers)] == [1]


def test_where_none_waits_nothing_is_read_and_the_report_says_so(sqlite: Databases, customers: Engine) -> None:
    put(sqlite.source, [order(1, customer=None, amount=-1)])
    run_pipeline(REFERRING)
    report = replay_waiting("replay", GRAPH, "customers")
    assert str(report) == "no dead letter waits for customers"
    assert report.replayed[0].runs == []


def test_what_another_project_has_landed_is_waited_for_by_nobody_here() -> None:
    assert str(replay_waiting("replay", GRAPH, "elsewhere")) == "no dead letter waits for elsewhere"


def rules(graph: Graph, landed: str) -> dict[str, Any]:
    return {pipeline.name: wanted.rule for pipeline, wanted in waiting_for(graph, landed)}


def test_all_rules_to_that_table_are_asked_at_once_lookups_that_reject_included() -> None:
    pipeline = replace(
        ORDERS,
        references=[
            References("customer", "dim_customers.name"),
            References("customer", "public.dim_customers.code", on_missing="warn"),
            References("customer", "dim_shops.name"),
        ],
        lookups=[
            Lookup("dim_customers", on={"customer": "name"}, take={"code": "code"}, on_missing="reject"),
            Lookup("dim_customers", on={"customer": "name"}, take={"town": "town"}),
        ],
    )
    assert rules(Graph([CUSTOMERS, pipeline]), "customers") == {
        "orders": (
            "references dim_customers.name",
            "references public.dim_customers.code",
            "lookup dim_customers: customer = name",
        )
    }


def test_a_table_of_that_name_in_another_database_is_another() -> None:
    elsewhere = replace(CUSTOMERS, load=Upsert("archive", "dim_customers", key=["id"]))
    assert rules(Graph([elsewhere, REFERRING]), "customers") == {}


def circle(load: Any = None, extract: Any = None) -> Graph:
    """Two pipelines of which each refers to the other."""
    first = replace(CUSTOMERS, references=[References("customer", "fct_orders.customer")])
    second = replace(REFERRING, load=load or REFERRING.load, extract=extract or REFERRING.extract)
    return Graph([first, second])


def test_a_circle_of_references_is_replayed_by_records_and_what_has_to_be_read_again_is_left_to_the_night() -> None:
    assert set(rules(circle(), "customers")) == {"orders"}
    assert set(rules(circle(), "orders")) == {"customers"}
    whole = circle(Replace("target", "fct_orders", key=["id"]), TableExtract("source", "orders"))
    assert rules(whole, "customers") == {}
    assert set(rules(whole, "orders")) == {"customers"}
    straight = Graph([CUSTOMERS, whole["orders"]])
    assert set(rules(straight, "customers")) == {"orders"}


def test_rows_that_refer_to_each_other_come_in_level_by_level_and_then_it_is_over(sqlite: Databases) -> None:
    staff = replace(ORDERS, references=[References("customer", "fct_orders.name")])
    with sqlite.target.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE fct_orders (id BIGINT PRIMARY KEY, customer TEXT, amount DOUBLE, updated_at TIMESTAMP, "
                "_loaded_at TIMESTAMP, _run_id TEXT, name TEXT GENERATED ALWAYS AS ('o' || id) VIRTUAL)"
            )
        )
    put(sqlite.source, [order(1, customer=None), order(2, customer="o1"), order(3, customer="o2")])
    landed = [run_pipeline(staff).counts.inserted]
    while landed[-1]:
        report = replay_waiting("replay", Graph([staff]), "orders")
        landed.append(report.replayed[0].counts.inserted)
    assert landed == [1, 1, 1, 0]


@on_every_target
def test_whether_a_table_is_waited_for_is_told_by_the_rules_of_open_letters(databases: Databases) -> None:
    def letters(*rules: str, status: str = "open") -> None:
        with databases.target.begin() as connection:
            connection.execute(dead_letters.delete())
            for number, rule in enumerate(rules):
                connection.execute(insert(dead_letters).values(**letter(number, rule, status)))

    def waited(*tables: str) -> Sequence[bool]:
        with databases.target.connect() as connection:
            return [awaited(connection, table) for table in tables]

    run_pipeline(replace(ORDERS, extract=_none(databases)))
    letters("references dim_a.faa (current)", "references shop.dim_b.id", "greater_than(0)")
    assert waited("dim_a", "shop.dim_a", "dim_b", "shop.dim_b") == [True] * 4
    assert waited("dim", "a", "dimxa", "dim_%", "greater_than(0)") == [False] * 5
    letters("lookup dim_a: customer = name")
    assert waited("dim_a", "dim_") == [True, False]
    letters("references dim_a.faa", status="closed")
    assert waited("dim_a") == [False]
    letters('references dim_"ä".faa')
    assert waited('dim_"ä"') == [True]


def _none(databases: Databases) -> TableExtract:
    put(databases.source, [])
    return TableExtract("source", "orders", cursor="updated_at")


def letter(number: int, rule: str, status: str) -> dict[str, Any]:
    return {
        "pipeline": "orders",
        "row_key": str(number),
        "status": status,
        "run_id": "0",
        "record": "{}",
        "record_types": "{}",
        "reasons": json.dumps([{"rule": rule, "column": "dest", "value": "SJU"}], ensure_ascii=False),
        "contract": "0",
        "first_seen": START,
        "last_seen": START,
        "times_seen": 1,
    }
