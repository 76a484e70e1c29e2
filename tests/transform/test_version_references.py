"""References to a table that keeps versions: to the one that is current, to the one of the row's own time, to any."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import text

from tasks.errors import ConfigError
from tasks.load.scd2 import Scd2
from tasks.pipeline import References, run_pipeline
from tasks.transform.contract import UtcTimestamp
from tests.conftest import Databases, on_postgresql_too
from tests.load.test_scd2 import READ
from tests.orders import ORDERS, OrderSchema, loaded, order, put
from tests.transform.test_references import letters

# Customer 1 was ann from day 1 to day 3, and eve since.
HISTORY = replace(
    ORDERS, name="customers", extract=READ, load=Scd2("target", "dim_customers", key=["id"], untracked=["amount"])
)


class DeliveredSchema(OrderSchema):
    """An order with a time of its own besides the cursor."""

    delivered_at: UtcTimestamp


def delivered(raw: pd.DataFrame) -> pd.DataFrame:
    """Every order is delivered two days after it was changed."""
    return raw.assign(delivered_at=raw["updated_at"] + timedelta(days=2))


@pytest.fixture
def customers(databases: Databases) -> Databases:
    for day, customer in ((1, "ann"), (3, "eve")):
        put(databases.source, [order(1, day=day, customer=customer)])
        run_pipeline(HISTORY)
    return databases


def referring(**how: Any) -> Any:
    return replace(ORDERS, references=[References("customer", "dim_customers.customer", **how)], transform=delivered,
                   schema=DeliveredSchema)  # fmt: skip


@on_postgresql_too
@pytest.mark.parametrize(
    ("how", "accepted"),
    [
        ({}, [(11, "ann"), (12, "ann"), (13, "ann"), (14, "eve")]),
        ({"current": True}, [(14, "eve")]),
        ({"as_of": "updated_at"}, [(12, "ann"), (14, "eve")]),
        ({"as_of": "delivered_at"}, [(11, "ann"), (14, "eve")]),
    ],
    ids=["any", "current", "as of the cursor", "as of another time"],
)
def test_a_row_is_accepted_by_the_versions_that_count(
    customers: Databases, how: dict[str, Any], accepted: list[tuple[int, str]]
) -> None:
    """A version is valid from its first instant until just before the next."""
    days = {11: ("ann", 0), 12: ("ann", 1), 13: ("ann", 3), 14: ("eve", 3), 15: ("bob", 2)}
    with customers.source.begin() as connection:
        connection.execute(text("DELETE FROM orders"))
    put(customers.source, [order(number, day=day, customer=name) for number, (name, day) in days.items()])
    counts = run_pipeline(referring(**how)).counts
    assert [(row["id"], row["customer"]) for row in loaded(customers.target)] == accepted
    assert counts.rejected == len(days) - len(accepted)


@on_postgresql_too
def test_a_letter_says_which_version_was_asked_for(customers: Databases) -> None:
    put(customers.source, [order(1, day=1, customer="ann")])
    run_pipeline(referring(current=True))
    [(_, _, [reason])] = letters(customers.target)
    assert reason == {"rule": "references dim_customers.customer (current)", "column": "customer", "value": "ann"}


def test_a_table_without_versions_is_refused(sqlite: Databases) -> None:
    with sqlite.target.begin() as connection:
        connection.execute(text("CREATE TABLE dim_customers (customer text PRIMARY KEY)"))
    put(sqlite.source, [order(1)])
    with pytest.raises(ConfigError, match=r"is about versions, and 'dim_customers' has none. Load it with Scd2"):
        run_pipeline(referring(current=True))


def test_as_of_needs_a_time(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    for column in ("amount", "nothing"):
        reference = References("customer", "dim_customers.customer", as_of=column)
        with pytest.raises(ConfigError, match=f"needs the time of each row, and '{column}' is no instant"):
            run_pipeline(replace(ORDERS, references=[reference]))


def test_a_reference_is_to_the_current_version_or_to_that_of_a_time() -> None:
    with pytest.raises(ConfigError, match="to the current version, or to the one as of 'amount': give one"):
        References("customer", "dim_customers.customer", current=True, as_of="amount")
