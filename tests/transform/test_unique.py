"""`Unique`: rows of one window that agree where they must not become dead letters inside the commit."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Column, Engine, Integer, MetaData, Table, create_engine, insert, select

from tasks.errors import ConfigError
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.pipeline import Pipeline, References, Unique, run_pipeline
from tasks.state.staged import DELETED, ROW
from tasks.transform.window_rules import StagedRows
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, TABLE, execute
from tests.extract.followed import loaded as loaded_bookings
from tests.orders import DAY, ORDERS, START, loaded, order, put
from tests.properties.effort import Prove, effort
from tests.transform.test_references import land, letters

BY_CUSTOMER = replace(ORDERS, rules=[Unique("customer")])
OF_ITS_DAY = replace(ORDERS, rules=[Unique("customer", "amount", keep="none")])


def broken(target: Engine) -> list[tuple[str, str | None, Any]]:
    """Rule, column and value of every reason of every dead letter, by key."""
    return [
        (reason["rule"], reason["column"], reason["value"]) for _, _, reasons in letters(target) for reason in reasons
    ]


def test_all_rows_but_the_first_are_letters_that_name_the_rule_and_the_value(databases: Databases) -> None:
    put(databases.source, [order(1, day=3), order(2, day=1), order(3, day=2), order(4, customer="ben")])
    counts = run_pipeline(BY_CUSTOMER).counts
    assert (counts.inserted, counts.rejected) == (2, 2)
    assert [row["id"] for row in loaded(databases.target)] == [2, 4], "the first by the cursor"
    assert [record["id"] for _, record, _ in letters(databases.target)] == [1, 3]
    assert broken(databases.target) == [("unique over the window: customer", "customer", "ann")] * 2


def test_all_of_them_are_letters_where_none_is_kept(databases: Databases) -> None:
    put(databases.source, [order(1, amount=5), order(2, amount=5), order(3, amount=6)])
    run_pipeline(OF_ITS_DAY)
    assert [row["id"] for row in loaded(databases.target)] == [3]
    told = ("unique over the window: customer, amount", None, {"customer": "ann", "amount": 5.0})
    assert broken(databases.target) == [told] * 2


def test_a_null_equals_nothing(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, customer=None) for number in range(3)])
    assert run_pipeline(BY_CUSTOMER).counts.inserted == 3


def test_it_holds_for_the_window_and_not_only_for_a_batch(sqlite: Databases) -> None:
    """20,000 rows are a batch: the two that agree come in the first and in the last."""
    rows = [order(number, customer=f"c{number}") for number in range(20_001)]
    rows[20_000]["customer"] = "c0"
    pd.DataFrame(rows).to_sql("orders", sqlite.source, index=False, chunksize=10_000)
    assert run_pipeline(BY_CUSTOMER).counts.rejected == 1
    assert [key for key, _, _ in letters(sqlite.target)] == ["20000"]


def test_another_window_is_not_looked_at(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2, day=1)])
    assert run_pipeline(replace(BY_CUSTOMER, split=DAY), START, START + 2 * DAY).counts.inserted == 2


def test_which_row_is_first_does_not_depend_on_the_order_they_were_read_in(sqlite: Databases) -> None:
    """Equal by the cursor, so the key decides: a second run over the rows in another order changes nothing."""
    shuffled = [
        replace(BY_CUSTOMER, extract=TableExtract("source", cursor="updated_at", query=f"SELECT * FROM orders {by}"))
        for by in ("ORDER BY id", "ORDER BY id DESC")
    ]
    put(sqlite.source, [order(number) for number in range(5)])
    run_pipeline(shuffled[0], None, None)
    again = run_pipeline(shuffled[1], None, None, full_refresh=True).counts
    assert (again.unchanged, again.rejected) == (1, 4)
    assert [row["id"] for row in loaded(sqlite.target)] == [0]


def test_a_letter_lists_what_a_row_broke_of_every_rule(sqlite: Databases) -> None:
    land(sqlite.target, "ann")
    both = replace(BY_CUSTOMER, references=[References("customer", "dim_customers.name")])
    put(sqlite.source, [order(1, customer="eve"), order(2, customer="eve", day=1)])
    run_pipeline(both)
    reasons = [[reason["rule"] for reason in reasons] for _, _, reasons in letters(sqlite.target)]
    missing, twice = "references dim_customers.name", "unique over the window: customer"
    assert reasons == [[missing], [missing, twice]]


def test_a_repeated_key_is_a_duplicate_only_where_the_rule_is_about_the_key(sqlite: Databases) -> None:
    """The same order twice, in two versions; else the load would take the newest without a word."""
    rows = pd.DataFrame([order(1), order(1, amount=2, day=1)])
    rows.to_sql("orders", sqlite.source, index=False)
    counts = run_pipeline(BY_CUSTOMER).counts
    assert (counts.inserted, counts.deduplicated, counts.rejected) == (1, 1, 0)
    strict: Pipeline = replace(ORDERS, name="strict", rules=[Unique("id", keep="none")])
    assert run_pipeline(strict).counts.rejected == 2


def test_of_two_versions_that_one_is_judged_that_append_would_keep(sqlite: Databases) -> None:
    """The oldest of order 1 agrees with order 2, its newest does not."""
    rows = pd.DataFrame([order(1), order(1, customer="ben", day=1), order(2, day=2)])
    rows.to_sql("orders", sqlite.source, index=False)
    assert run_pipeline(BY_CUSTOMER).counts.rejected == 0
    events = replace(BY_CUSTOMER, name="events", load=Append("target", "fct_events", key=["id"]))
    assert run_pipeline(events).counts.rejected == 1


def test_a_feed_that_changes_a_row_twice_brings_no_duplicate(sqlite: Databases) -> None:
    seats = replace(BOOKINGS, rules=[Unique("seat")])
    execute(sqlite.source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2), (3, 'A', 3)")
    assert run_pipeline(seats).counts.rejected == 1
    execute(
        sqlite.source,
        "UPDATE bookings SET price = 5 WHERE id = 1",
        "UPDATE bookings SET price = 6 WHERE id = 1",
        "UPDATE bookings SET seat = 'C' WHERE id = 2",
        "INSERT INTO bookings VALUES (4, 'C', 4)",
        "DELETE FROM bookings WHERE id = 4",
    )
    counts = run_pipeline(seats).counts
    assert (counts.rejected, counts.updated) == (0, 2)
    assert loaded_bookings(sqlite.target) == [(1, "A", 6.0), (2, "C", 2.0)]


def test_what_a_truncate_has_cleared_away_is_no_duplicate_of_what_follows(postgresql: Databases) -> None:
    seats = replace(BOOKINGS, rules=[Unique("seat", keep="none")])
    execute(postgresql.source, TABLE)
    run_pipeline(seats)
    execute(
        postgresql.source,
        "INSERT INTO bookings VALUES (1, 'A', 1)",
        "TRUNCATE bookings",
        "INSERT INTO bookings VALUES (2, 'A', 2)",
    )
    assert run_pipeline(seats).counts.rejected == 0
    assert loaded_bookings(postgresql.target) == [(2, "A", 2.0)]


def test_a_feed_is_not_asked_for_unique_keys(sqlite: Databases) -> None:
    execute(sqlite.source, TABLE)
    with pytest.raises(ConfigError, match=r"bookings: the rule 'unique over the window: id' holds the key.*Leave"):
        run_pipeline(replace(BOOKINGS, rules=[Unique("id")]))


def test_it_is_about_columns_of_the_contract(sqlite: Databases) -> None:
    with pytest.raises(
        ConfigError, match=r"orders: the rule .* is about the column 'name', which OrderSchema does not"
    ):
        run_pipeline(replace(ORDERS, rules=[Unique("name")]))
    with pytest.raises(ConfigError, match="is about the column 'name'"):
        run_pipeline(replace(ORDERS, references=[References("name", "dim_customers.name")]))


@pytest.mark.parametrize("columns", [(), ("a", "a")])
def test_it_names_columns_once_each(columns: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="needs one or more different columns"):
        Unique(*columns)


def test_it_keeps_the_first_or_none() -> None:
    with pytest.raises(ConfigError, match="keep is 'first' or 'none', got 'last'"):
        Unique("a", keep="last")  # type: ignore[arg-type]


# -- against every pair of rows ---------------------------------------------------------------------------------------

STAGED = Table(
    "staged",
    MetaData(),
    Column(ROW, BigInteger, primary_key=True),
    *(Column(name, Integer) for name in ("id", "at", "a", "b")),
    Column(DELETED, Boolean),
)


def expected(rows: Sequence[dict[str, Any]], columns: tuple[str, ...], keep: str, cleared_at: int) -> set[int]:
    """What breaks the rule, by looking at each group of rows that were not cleared away."""
    newest: dict[Any, dict[str, Any]] = {}
    left = [row for row in rows if row[ROW] >= cleared_at]
    for row in sorted(left, key=lambda row: (row["at"], row[ROW])):
        newest[row[ROW] if "id" in columns else row["id"]] = row
    groups = defaultdict(list)
    for row in newest.values():
        values = tuple(row[name] for name in columns)
        if not row[DELETED] and None not in values:
            groups[values].append(row)
    return {
        row[ROW]
        for group in groups.values()
        if len(group) > 1
        for row in sorted(group, key=lambda row: (row["at"], row["id"], row[ROW]))[keep == "first" :]
    }


@effort(few=60, many=3_000)
def test_exactly_those_rows_break_it_that_agree_with_another(prove: Prove) -> None:
    memory = create_engine("sqlite://")
    STAGED.metadata.create_all(memory)
    value = st.one_of(st.none(), st.integers(0, 2))
    row = st.fixed_dictionaries(
        {"id": st.integers(0, 4), "at": st.integers(0, 2), "a": value, "b": value, DELETED: st.booleans()}
    )
    columns = st.sampled_from([("a",), ("a", "b"), ("id",), ("b", "id")])
    keeps: st.SearchStrategy[Literal["first", "none"]] = st.sampled_from(["first", "none"])

    def claim(example: tuple[list[dict[str, Any]], tuple[str, ...], Literal["first", "none"], int | None]) -> None:
        found, names, keep, cleared_at = example
        rows = [{ROW: number, **each} for number, each in enumerate(found)]
        rule = Unique(*names, keep=keep)
        with memory.connect() as connection:
            if rows:
                connection.execute(insert(STAGED), random.Random(0).sample(rows, len(rows)))
            breaks = select(STAGED.c[ROW]).where(rule.broken(StagedRows(STAGED, ("id",), "at", cleared_at=cleared_at)))
            assert set(connection.execute(breaks).scalars()) == expected(rows, names, keep, cleared_at or 0)
            connection.rollback()

    prove(st.tuples(st.lists(row, max_size=8), columns, keeps, st.none() | st.integers(0, 5)), claim)
    memory.dispose()
