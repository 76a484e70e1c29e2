"""`References`: rows whose reference is missing become dead letters inside the commit, with their raw record."""

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, select, text

from tasks.errors import ConfigError, GuardRefused
from tasks.pipeline import Overrides, Pipeline, References, run_pipeline
from tasks.state.tables import dead_letters
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, START, loaded, order, put

REFERRING = replace(ORDERS, references=[References("customer", "dim_customers.name")])


def land(target: Engine, *customers: str) -> None:
    """Write customers into the referenced table."""
    with target.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS dim_customers (name varchar(255) PRIMARY KEY)"))
        for name in customers:
            connection.execute(text("INSERT INTO dim_customers VALUES (:name)"), {"name": name})


def letters(target: Engine) -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Key, record and reasons of every dead letter, by key."""
    columns = dead_letters.c
    with target.connect() as connection:
        rows = connection.execute(select(columns.row_key, columns.record, columns.reasons)).all()
    return sorted((key, json.loads(record), json.loads(reasons)) for key, record, reasons in rows)


@pytest.mark.parametrize("target", ["faa", ".faa", "dim_airports.", "a.b.c.d"])
def test_a_reference_names_a_table_and_a_column(target: str) -> None:
    with pytest.raises(ConfigError, match=r"is not `table\.column` or `schema\.table\.column`"):
        References("dest", target)


def test_a_missing_reference_is_rejected_or_warned_of_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="on_missing is 'reject' or 'warn', got 'ignore'"):
        References("dest", "dim_airports.faa", on_missing="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "table", "key"), [("airports.faa", "airports", "faa"), ("dim.airports.faa", "dim.airports", "faa")]
)
def test_the_table_may_bear_a_schema(target: str, table: str, key: str) -> None:
    reference = References("dest", target)
    assert (reference.table, reference.key, reference.rule) == (table, key, f"references {target}")


def test_more_letters_than_one_chunk_keep_their_own_records(databases: Databases) -> None:
    """5,100 of 5,200 rows refer to nothing."""
    land(databases.target, "known")
    rows = [order(number, customer="unknown" if number % 52 else "known") for number in range(5_200)]
    pd.DataFrame(rows).to_sql("orders", databases.source, index=False, chunksize=2_000)
    counts = run_pipeline(REFERRING).counts
    assert (counts.inserted, counts.rejected) == (100, 5_100)
    found = letters(databases.target)
    assert [record["id"] for _, record, _ in found] == [int(key) for key, _, _ in found]
    assert {int(key) for key, _, _ in found} == {number for number in range(5_200) if number % 52}


def test_a_letter_lists_each_reference_that_is_missing_and_no_other(databases: Databases) -> None:
    land(databases.target, "ann")
    with databases.target.begin() as connection:
        connection.execute(text("CREATE TABLE dim_ids (id bigint PRIMARY KEY)"))
        connection.execute(text("INSERT INTO dim_ids VALUES (1), (3)"))
    both = [References("customer", "dim_customers.name"), References("id", "dim_ids.id")]
    put(databases.source, [order(1), order(2), order(3, customer="bob"), order(4, customer="eve")])
    run_pipeline(replace(ORDERS, references=both))
    assert [row["id"] for row in loaded(databases.target)] == [1]
    broken = [[(reason["rule"], reason["value"]) for reason in reasons] for _, _, reasons in letters(databases.target)]
    customers, ids = (reference.rule for reference in both)
    assert broken == [[(ids, 2)], [(customers, "bob")], [(customers, "eve"), (ids, 4)]]


def test_rows_exploded_of_one_are_judged_apart_and_keep_its_record(databases: Databases) -> None:
    def by_customer(raw: pd.DataFrame) -> pd.DataFrame:
        exploded = raw.assign(customer=raw["customer"].str.split("+")).explode("customer")
        place = exploded.groupby(level=0).cumcount()
        return exploded.assign(id=exploded["id"] * 10 + place, customer=exploded["customer"].astype("string[pyarrow]"))

    land(databases.target, "ann")
    put(databases.source, [order(1, customer="ann+bob+eve"), order(2, customer="bob")])
    counts = run_pipeline(replace(REFERRING, transform=by_customer, adds_rows=True)).counts
    assert (counts.extracted, counts.added, counts.inserted, counts.rejected) == (2, 2, 1, 3)
    found = [(key, record["id"], record["customer"]) for key, record, _ in letters(databases.target)]
    assert found == [("11", 1, "ann+bob+eve"), ("12", 1, "ann+bob+eve"), ("20", 2, "bob")]


def test_a_rejected_reference_is_not_warned_of_as_well(sqlite: Databases) -> None:
    land(sqlite.target, "ann")
    pipeline: Pipeline = replace(
        ORDERS,
        references=[
            References("customer", "dim_customers.name"),
            References("customer", "dim_customers.name", on_missing="warn"),
        ],
    )
    put(sqlite.source, [order(1), order(2, customer="bob")])
    report = run_pipeline(pipeline)
    assert (report.counts.rejected, report.warned) == (1, 0)


def test_a_refused_window_keeps_the_letters_of_its_missing_references(sqlite: Databases) -> None:
    """They are found inside the commit that is refused."""
    land(sqlite.target)
    put(sqlite.source, [order(1, customer="bob"), order(2, customer="bob")])
    with pytest.raises(GuardRefused, match="2 of 2 rows were rejected"):
        run_pipeline(replace(REFERRING, sla=replace(ORDERS.sla, abort_error_rate=0.5)))
    assert [key for key, _, _ in letters(sqlite.target)] == ["1", "2"]


def test_a_run_may_be_told_to_reject_what_is_only_warned_of_and_the_next_one_warns_again(sqlite: Databases) -> None:
    warned = replace(REFERRING, references=[References("customer", "dim_customers.name", on_missing="warn")])
    land(sqlite.target, "ann")
    put(sqlite.source, [order(1), order(2, customer="bob")])
    strict = run_pipeline(warned, overrides=Overrides("a rehearsal", on_missing={"customer": "reject"}))
    assert (strict.counts.inserted, strict.counts.rejected, strict.warned) == (1, 1, 0)
    window = (START, START + DAY)
    assert (run_pipeline(warned, *window).warned, len(loaded(sqlite.target))) == (1, 2)


def test_a_run_may_be_told_to_load_what_would_be_rejected(sqlite: Databases) -> None:
    land(sqlite.target, "ann")
    put(sqlite.source, [order(1), order(2, customer="bob")])
    report = run_pipeline(REFERRING, overrides=Overrides("bob comes tomorrow", on_missing={"customer": "warn"}))
    assert (report.counts.inserted, report.counts.rejected, report.warned) == (2, 0, 1)


def test_an_override_of_a_reference_that_is_not_declared_is_refused(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    with pytest.raises(ConfigError, match="names 'amount', and the columns with a reference are 'customer'"):
        run_pipeline(REFERRING, overrides=Overrides("typo", on_missing={"amount": "warn"}))


def test_an_override_of_a_reference_rejects_or_warns_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="on_missing of 'customer' is 'reject' or 'warn', got 'skip'"):
        Overrides("why", on_missing={"customer": "skip"})  # type: ignore[dict-item]
