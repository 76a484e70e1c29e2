"""`tidegate reconcile`."""

import json

import pytest
from sqlalchemy import delete, insert, update

from tasks.pipeline import run_pipeline
from tests.commands.conftest import Tidegate
from tests.conftest import Databases
from tests.orders import ORDERS, TARGET, order, put


@pytest.fixture
def loaded_orders(sqlite: Databases, orders: str) -> Databases:
    put(sqlite.source, [order(number, day=number) for number in range(5)])
    run_pipeline(ORDERS)
    return sqlite


def spoil(databases: Databases) -> None:
    with databases.target.begin() as target:
        target.execute(delete(TARGET).where(TARGET.c.id == 1))
        target.execute(update(TARGET).where(TARGET.c.id == 2).values(customer="bob"))


def test_it_ends_with_0_where_the_two_are_the_same(loaded_orders: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("reconcile", "orders")
    assert (shown.exit_code, "orders: no difference" in shown.stdout) == (0, True)


def test_it_ends_with_1_and_names_the_rows_that_differ(loaded_orders: Databases, tidegate: Tidegate) -> None:
    spoil(loaded_orders)
    shown = tidegate("reconcile", "orders")
    assert shown.exit_code == 1
    assert "missing  id=1" in shown.stdout and "differs  id=2" in shown.stdout
    told = json.loads(tidegate("reconcile", "orders", "--json").stdout)
    assert (told["counts"], told["clean"]) == ({"missing": 1, "differs": 1}, False)


def test_values_are_shown_only_where_they_are_asked_for(loaded_orders: Databases, tidegate: Tidegate) -> None:
    spoil(loaded_orders)
    for options in ((), ("--json",)):
        assert "bob" not in tidegate("reconcile", "orders", *options).stdout
        assert "bob" in tidegate("reconcile", "orders", "--values", *options).stdout


def test_a_repair_leaves_nothing_to_find(loaded_orders: Databases, tidegate: Tidegate) -> None:
    spoil(loaded_orders)
    shown = tidegate("reconcile", "orders", "--repair")
    assert (shown.exit_code, "no difference; 2 before the repair" in shown.stdout) == (0, True)
    assert "repaired: orders" in shown.stdout


def test_it_ends_with_2_where_they_could_not_be_compared(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    shown = tidegate("reconcile", "orders")
    assert (shown.exit_code, "has not been loaded yet" in shown.stderr) == (2, True)


def test_an_open_dead_letter_is_a_difference_only_where_that_is_asked_for(
    loaded_orders: Databases, tidegate: Tidegate
) -> None:
    put(loaded_orders.source, [order(9, amount=-1)])
    run_pipeline(ORDERS, order(9)["updated_at"])
    assert tidegate("reconcile", "orders").exit_code == 0
    assert tidegate("reconcile", "orders", "--strict").exit_code == 1


def test_of_many_rows_the_first_are_listed_and_it_says_how_many_more_there_are(
    loaded_orders: Databases, tidegate: Tidegate
) -> None:
    with loaded_orders.target.begin() as target:
        for number in range(100, 150):
            target.execute(insert(TARGET).values(**order(number, day=1)))
    shown = tidegate("reconcile", "orders").stdout
    assert shown.count("extra ") == 40 + 1 and "… and 10 more" in shown
    assert len(json.loads(tidegate("reconcile", "orders", "--json").stdout)["differences"]) == 50
