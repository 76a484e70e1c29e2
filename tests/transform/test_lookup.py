"""`Lookup`: columns of another table beside each row, exact, by a key that finds one row at most."""

import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pytest
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text

from tasks.column_types import UUID
from tasks.errors import ConfigError, ContractError, SourceUnavailable
from tasks.extract.log import LogExtract
from tasks.extract.rows import RowsExtract
from tasks.extract.table import TableExtract
from tasks.load.scd2 import Scd2
from tasks.load.upsert import Upsert
from tasks.pipeline import Lookup, Pipeline, Sla, WholeWindow, run_pipeline
from tasks.transform.contract import Contract, Judged, UtcTimestamp, Uuid
from tasks.transform.lookup_join import Join
from tasks.transform.lookup_keys import Versions
from tasks.window import Window
from tests.conftest import Databases, on_postgresql_too
from tests.extract.followed import BOOKINGS, TABLE, execute
from tests.orders import DAY, ORDERS, START, order, put
from tests.properties.effort import Prove, effort
from tests.transform.test_references import letters


class NamedSchema(pa.DataFrameModel):
    """An order and where its customer lives."""

    id: int
    customer: str = pa.Field(nullable=True)
    city: str = pa.Field(nullable=True)
    updated_at: UtcTimestamp


CITY = Lookup("dim_customers", on={"customer": "name"}, take={"city": "city"})
NAMED = replace(ORDERS, schema=NamedSchema, lookups=[CITY])


def named(*lookups: Lookup, **what: Any) -> Pipeline:
    return replace(NAMED, lookups=list(lookups), **what)


def land(target: Engine, *rows: str) -> None:
    """Make the table that is looked up in, with rows as SQL values."""
    execute(target, "CREATE TABLE dim_customers (name varchar(20), city varchar(20))")
    for row in rows:
        execute(target, f"INSERT INTO dim_customers VALUES ({row})")


def cities(target: Engine) -> dict[int, str | None]:
    with target.connect() as connection:
        return {number: city for number, city in connection.execute(text("SELECT id, city FROM fct_orders"))}


def broken(target: Engine) -> dict[str, list[tuple[str, Any]]]:
    """Rules and values of every dead letter, by key."""
    return {key: [(each["rule"], each["value"]) for each in reasons] for key, _, reasons in letters(target)}


# -- in the target ----------------------------------------------------------------------------------------------------


@on_postgresql_too
def test_a_row_gets_what_its_key_finds_and_nothing_where_that_is_missing(databases: Databases) -> None:
    land(databases.target, "'ann', 'Oslo'", "'ben', NULL", "'eve', 'Rome'")
    customers = ["ann", "ben", "zoe", None, "ann"]
    put(databases.source, [order(number, customer=name) for number, name in enumerate(customers)])
    counts = run_pipeline(NAMED).counts
    assert (counts.inserted, counts.rejected) == (5, 0)
    assert cities(databases.target) == {0: "Oslo", 1: None, 2: None, 3: None, 4: "Oslo"}


def test_a_missing_key_is_a_letter_that_names_the_lookup_where_that_is_declared(sqlite: Databases) -> None:
    """A key that is NULL finds nothing, and is not missing."""
    land(sqlite.target, "'ann', 'Oslo'")
    put(sqlite.source, [order(1), order(2, customer="zoe"), order(3, customer=None)])
    counts = run_pipeline(named(replace(CITY, on_missing="reject"))).counts
    assert (counts.inserted, counts.rejected) == (2, 1)
    assert broken(sqlite.target) == {"2": [("lookup dim_customers: customer = name", "zoe")]}


def test_the_contract_judges_what_was_taken(sqlite: Databases) -> None:
    class Known(NamedSchema):
        city: str = pa.Field(nullable=False, isin=["Oslo"])

    land(sqlite.target, "'ann', 'Oslo'", "'eve', 'Rome'")
    put(sqlite.source, [order(1), order(2, customer="eve"), order(3, customer="zoe")])
    run_pipeline(named(CITY, schema=Known))
    assert broken(sqlite.target) == {"2": [("isin(['Oslo'])", "Rome")], "3": [("not_nullable", None)]}


def test_two_rows_for_one_key_are_an_error_that_names_the_lookup(sqlite: Databases) -> None:
    """Only where they are asked for."""
    land(sqlite.target, "'ann', 'Oslo'", "'eve', 'Rome'", "'eve', 'Bari'")
    put(sqlite.source, [order(1)])
    run_pipeline(NAMED)
    put(sqlite.source, [order(2, customer="eve", day=1)])
    told = r"orders: the lookup 'dim_customers' finds 2 rows for name='eve', and rows must not multiply.*current=True"
    with pytest.raises(ContractError, match=told):
        run_pipeline(NAMED)
    assert cities(sqlite.target) == {1: "Oslo"}


def test_columns_that_are_no_key_do_not_bring_the_whole_table(sqlite: Databases) -> None:
    execute(sqlite.target, "CREATE TABLE dim_customers (name text, city text)")
    rows = "SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 5000"
    execute(
        sqlite.target,
        f"WITH RECURSIVE many(n) AS ({rows}) INSERT INTO dim_customers SELECT 'ann', 'c' || n FROM many",
    )
    put(sqlite.source, [order(1), order(2, customer="ben")])
    with pytest.raises(ContractError, match=r"the lookup 'dim_customers' finds over 4 rows for 2 keys"):
        run_pipeline(NAMED)


@on_postgresql_too
def test_the_table_is_asked_for_the_keys_of_a_batch_and_never_read_whole(databases: Databases) -> None:
    """2,500 keys, of a table of twice as many, in statements of a thousand."""
    frame = pd.DataFrame({"name": [f"n{number}" for number in range(5_000)], "city": "Oslo"})
    frame.to_sql("dim_customers", databases.target, index=False)
    rows = [order(number, customer=f"n{2 * (number % 2_500)}") for number in range(6_000)]
    pd.DataFrame(rows).to_sql("orders", databases.source, index=False)
    found: list[int] = []

    def count(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM dim_customers" in statement and " IN " in statement:
            found.append(len(parameters))

    event.listen(databases.target, "before_cursor_execute", count)
    assert run_pipeline(NAMED).counts.inserted == 6_000
    asked = [parameters - (parameters % 100) for parameters in found]
    assert asked == [1_000, 1_000, 500]
    assert set(cities(databases.target).values()) == {"Oslo"}


@on_postgresql_too
def test_a_key_of_two_columns_is_one_key(databases: Databases) -> None:
    execute(
        databases.target,
        "CREATE TABLE dim_prices (customer varchar(20), number bigint, price double precision)",
        "INSERT INTO dim_prices VALUES ('ann', 1, 10), ('ann', 2, 20), ('ben', 1, 30)",
    )

    class Priced(pa.DataFrameModel):
        id: int
        price: float = pa.Field(nullable=True)
        updated_at: UtcTimestamp

    prices = Lookup(
        "dim_prices", on={"customer": "customer", "id": "number"}, take={"price": "price"}, on_missing="reject"
    )
    put(databases.source, [order(1), order(2), order(3, customer="ben"), order(4, customer=None)])
    run_pipeline(named(prices, schema=Priced))
    with databases.target.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text("SELECT id, price FROM fct_orders ORDER BY id"))]
    assert rows == [(1, 10), (2, 20), (4, None)]
    told = ("lookup dim_prices: customer = customer, id = number", {"customer": "ben", "id": 3})
    assert broken(databases.target) == {"3": [told]}


def test_a_rerun_changes_nothing_until_the_table_does(sqlite: Databases) -> None:
    land(sqlite.target, "'ann', 'Oslo'")
    again = replace(NAMED, extract=replace(TableExtract("source", "orders", cursor="updated_at"), lookback=99 * DAY))
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(again)
    assert run_pipeline(again).counts.unchanged == 2
    execute(sqlite.target, "UPDATE dim_customers SET city = 'Rome'")
    assert run_pipeline(again).counts.updated == 2


# -- a table that keeps a history -------------------------------------------------------------------------------------

HISTORY = (
    "CREATE TABLE dim_customers "
    "(name varchar(20), city varchar(20), valid_from {at}, valid_to {at}, is_current boolean)"
)
VERSIONS = (
    "INSERT INTO dim_customers VALUES "
    "('ann', 'Oslo', '2026-01-01 00:00:00.000000', '2026-01-03 00:00:00.000000', {no}), "
    "('ann', 'Rome', '2026-01-03 00:00:00.000000', NULL, {yes}), "
    "('ben', 'Bari', '2026-01-02 00:00:00.000000', '2026-01-04 00:00:00.000000', {no})"
)


def keep_history(databases: Databases) -> None:
    postgresql = databases.kind == "postgresql"
    execute(
        databases.target,
        HISTORY.format(at="timestamptz" if postgresql else "datetime"),
        VERSIONS.format(no="false" if postgresql else 0, yes="true" if postgresql else 1),
    )


@on_postgresql_too
def test_the_current_version_is_found_and_no_other(databases: Databases) -> None:
    keep_history(databases)
    put(databases.source, [order(1), order(2, customer="ben")])
    run_pipeline(named(replace(CITY, current=True)))
    assert cities(databases.target) == {1: "Rome", 2: None}


@on_postgresql_too
def test_the_version_that_was_valid_at_a_time_of_the_row_is_found(databases: Databases) -> None:
    """Half-open: from the first instant, until before the last."""
    keep_history(databases)
    days = {1: -1, 2: 0, 3: 1, 4: 2, 5: 99}
    put(databases.source, [order(number, day=day) for number, day in days.items()])
    put(databases.source, [order(6, day=2, customer="ben"), order(7, day=3, customer="ben")])
    run_pipeline(named(replace(CITY, as_of="updated_at", on_missing="reject")))
    assert cities(databases.target) == {2: "Oslo", 3: "Oslo", 4: "Rome", 5: "Rome", 6: "Bari"}
    rule = "lookup dim_customers: customer = name as of updated_at"
    assert broken(databases.target) == {"1": [(rule, "ann")], "7": [(rule, "ben")]}


def test_a_version_is_found_at_its_first_instant_by_a_batch_of_one_row_too(sqlite: Databases) -> None:
    keep_history(sqlite)
    put(sqlite.source, [order(1, day=2)])
    run_pipeline(named(replace(CITY, as_of="updated_at")))
    assert cities(sqlite.target) == {1: "Rome"}


def test_what_scd2_keeps_is_looked_up_in(targets: Databases) -> None:
    """The dimension's amount changes on the third day; an order of each day finds that of its day."""
    dimension = replace(ORDERS, name="amounts", load=Scd2("target", "dim_amounts", key=["id"]))
    for day, amount in ((0, 10.0), (2, 20.0)):
        put(targets.source, [order(1, amount=amount, day=day)])
        run_pipeline(dimension)

    class Amounts(pa.DataFrameModel):
        id: int
        amount_then: float = pa.Field(nullable=True)
        amount_now: float = pa.Field(nullable=True)

    raw = arrow.table({"id": [1, 2, 3], "of": [1, 1, 1], "at": [START + day * DAY for day in (-1, 1, 2)]})
    looked = Pipeline(
        "looked",
        RowsExtract(raw, "raw"),
        Amounts,
        Upsert("target", "fct_amounts", ["id"]),
        lookups=[
            Lookup("dim_amounts", on={"of": "id"}, take={"amount": "amount_then"}, as_of="at"),
            Lookup("dim_amounts", on={"of": "id"}, take={"amount": "amount_now"}, current=True),
        ],
    )
    run_pipeline(looked)
    with targets.target.connect() as connection:
        rows = connection.execute(text("SELECT id, amount_then, amount_now FROM fct_amounts ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(1, None, 20.0), (2, 10.0, 20.0), (3, 20.0, 20.0)]


def test_versions_that_overlap_are_an_error(sqlite: Databases) -> None:
    keep_history(sqlite)
    execute(sqlite.target, "UPDATE dim_customers SET valid_to = NULL")
    put(sqlite.source, [order(1, day=5)])
    with pytest.raises(ContractError, match=r"finds 2 rows for name='ann'.*Its versions overlap"):
        run_pipeline(named(replace(CITY, as_of="updated_at")))


def test_a_text_is_no_time_to_look_up_by(sqlite: Databases) -> None:
    keep_history(sqlite)
    put(sqlite.source, [order(1)])
    with pytest.raises(ContractError, match=r"the lookup 'dim_customers': 'customer' is of type string, and no time"):
        run_pipeline(named(replace(CITY, as_of="customer")))


@effort(few=60, many=3_000)
def test_as_of_finds_that_version_whose_time_it_is(prove: Prove) -> None:
    """Cut at some days, of which some versions were deleted; against a look at every one of them."""

    def at(day: int | None) -> datetime | None:
        return None if day is None else START + timedelta(days=day)

    lookup = Lookup("dim", on={"k": "k"}, take={"v": "v"}, as_of="at")

    def claim(example: tuple[set[int], set[int], int]) -> None:
        cuts, gone, asked = example
        edges: list[Any] = [*sorted(cuts), None]
        spans = [span for number, span in enumerate(itertools.pairwise(edges)) if number not in gone]
        rows = arrow.table(
            {
                "k": arrow.array(["a"] * len(spans), arrow.string()),
                "v": arrow.array(range(len(spans)), arrow.int64()),
                "valid_from": arrow.array([at(start) for start, _ in spans], arrow.timestamp("us", "UTC")),
                "valid_to": arrow.array([at(end) for _, end in spans], arrow.timestamp("us", "UTC")),
            }
        )
        valid = [place for place, (start, end) in enumerate(spans) if start <= asked and (end is None or asked < end)]
        found = Versions("here", lookup, rows).place(("a",), START + timedelta(days=asked))
        assert found == (valid[0] if valid else None)

    days = st.integers(0, 9)
    prove(st.tuples(st.sets(days, max_size=5), st.sets(st.integers(0, 4), max_size=2), days), claim)


# -- of another source ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """Rows that count how often they are read, and are not there at first."""

    rows: arrow.Table
    failures: int = 0
    dataset: str = "customers"
    connection: str = "other"
    reads: list[int] = field(default_factory=list)

    def batches(self, window: Window) -> Iterator[arrow.Table]:
        self.reads.append(self.rows.num_rows)
        if len(self.reads) <= self.failures:
            raise SourceUnavailable("away for a moment")
        yield from (self.rows.slice(start, 1) for start in range(self.rows.num_rows))


PEOPLE = arrow.table({"name": ["ann", "ben"], "city": ["Oslo", None], "age": [30, 40]})


def of(people: Any, **what: Any) -> Lookup:
    return Lookup(extract=people, on={"customer": "name"}, take={"city": "city"}, **what)


def test_a_table_of_another_database_is_joined(sqlite: Databases) -> None:
    execute(
        sqlite.source,
        "CREATE TABLE people (name varchar(20), city varchar(20))",
        "INSERT INTO people VALUES ('ann', 'Oslo'), ('ben', 'Rome')",
    )
    put(sqlite.source, [order(1), order(2, customer="ben"), order(3, customer="zoe")])
    run_pipeline(named(of(TableExtract("source", "people"), on_missing="reject")))
    assert cities(sqlite.target) == {1: "Oslo", 2: "Rome"}
    assert broken(sqlite.target) == {"3": [("lookup people: customer = name", "zoe")]}


def test_an_extract_is_read_once_for_a_run_however_many_windows_it_has(sqlite: Databases) -> None:
    people = Counted(PEOPLE)
    daily = named(of(people), split=DAY)
    put(sqlite.source, [order(number, day=number) for number in range(4)])
    assert len(run_pipeline(daily, START, START + 4 * DAY).windows) == 4
    assert people.reads == [2]
    run_pipeline(daily, START, START + 4 * DAY)
    assert people.reads == [2, 2], "the next run reads it anew"


def test_a_source_that_is_away_is_asked_again_by_the_next_attempt(sqlite: Databases) -> None:
    people = Counted(PEOPLE, failures=1)
    put(sqlite.source, [order(1)])
    assert run_pipeline(named(of(people))).counts.inserted == 1
    assert people.reads == [2, 2]


def test_an_extract_with_more_rows_than_declared_is_refused_with_the_remedy(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    told = r"orders: the lookup 'customers' has more than max_rows=1 rows, and is read whole.*look up in that table"
    with pytest.raises(ConfigError, match=told):
        run_pipeline(named(of(Counted(PEOPLE), max_rows=1)))


def test_a_feed_cannot_be_read_whole() -> None:
    with pytest.raises(ConfigError, match=r"Lookup: LogExtract cannot be read whole. Give it a TableExtract"):
        Lookup(extract=LogExtract("source", "orders"), on={"a": "a"}, take={"b": "c"})  # type: ignore[arg-type]


# -- before and after the transform -----------------------------------------------------------------------------------


def rows(*found: dict[str, Any]) -> arrow.Table:
    return arrow.Table.from_pylist(list(found))


def judge(raw: arrow.Table, model: type[pa.DataFrameModel], *lookups: Lookup, **what: Any) -> Judged:
    joins = [Join("orders", lookup, "target") for lookup in lookups]
    return Contract("orders", model, key=["id"], joins=joins, **what).judge(raw, 0)


def found_reasons(judged: Judged) -> list[list[str]]:
    return [[each["rule"] for each in json.loads(found)] for found in judged.rejected["reasons"].to_pylist()]


class Greeting(pa.DataFrameModel):
    id: int
    greeting: str = pa.Field(nullable=True)


def greet(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(greeting="hello " + raw["city"])


def test_the_transform_sees_what_is_taken_before_it() -> None:
    judged = judge(rows({"id": 1, "customer": "ann"}), Greeting, of(Counted(PEOPLE)), transform=greet)
    assert judged.valid["greeting"].to_pylist() == ["hello Oslo"]


def test_a_key_that_the_transform_makes_is_looked_up_after_it() -> None:
    class City(pa.DataFrameModel):
        id: int
        city: str

    def clean(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.assign(customer=raw["customer"].str.strip())

    judged = judge(
        rows({"id": 1, "customer": " ann "}, {"id": 2, "customer": "zoe"}),
        City,
        of(Counted(PEOPLE), after_transform=True, on_missing="reject"),
        transform=clean,
    )
    assert judged.valid["city"].to_pylist() == ["Oslo"]
    assert found_reasons(judged) == [["lookup customers: customer = name", "not_nullable"]]


def test_all_that_is_exploded_of_a_row_whose_key_is_missing_is_rejected() -> None:
    raw = rows({"id": 1, "customer": "zoe"}, {"id": 2, "customer": "ann"})
    judged = judge(
        raw,
        Greeting,
        of(Counted(PEOPLE), on_missing="reject"),
        transform=lambda raw: greet(raw.loc[raw.index.repeat(2)]).sort_values("id", ascending=False),
        adds_rows=True,
    )
    assert judged.valid["id"].to_pylist() == [2, 2]
    assert judged.rejected["key_0"].to_pylist() == [1, 1]
    assert found_reasons(judged) == [["lookup customers: customer = name"]] * 2


def test_a_row_that_the_transform_raises_on_tells_both() -> None:
    def strict(raw: pd.DataFrame) -> pd.DataFrame:
        if raw["city"].isna().any():
            raise ValueError("no city")
        return greet(raw)

    raw = rows({"id": 1, "customer": "ann"}, {"id": 2, "customer": "zoe"}, {"id": 3, "customer": None})
    judged = judge(raw, Greeting, of(Counted(PEOPLE), on_missing="reject"), transform=strict)
    assert sorted(found_reasons(judged)) == [["lookup customers: customer = name", "transform"], ["transform"]]


def test_a_row_that_two_lookups_miss_tells_both() -> None:
    nobody = arrow.table({"name": ["x"], "greeting": ["y"]})
    after = Lookup(
        extract=Counted(nobody, dataset="greetings"),
        on={"customer": "name"},
        take={"greeting": "greeting"},
        after_transform=True,
        on_missing="reject",
    )
    judged = judge(rows({"id": 1, "customer": "zoe"}), Greeting, of(Counted(PEOPLE), on_missing="reject"), after)
    assert found_reasons(judged) == [["lookup customers: customer = name", "lookup greetings: customer = name"]]


def test_a_row_that_the_transform_leaves_out_is_filtered_whatever_it_lacks() -> None:
    raw = rows({"id": 1, "customer": "ann"}, {"id": 2, "customer": "zoe"})
    judged = judge(
        raw,
        Greeting,
        of(Counted(PEOPLE), on_missing="reject"),
        transform=lambda raw: greet(raw[raw["city"].notna()]),
        drops_rows=True,
    )
    assert (judged.valid.num_rows, judged.rejected.num_rows, judged.filtered) == (1, 0, 1)


def test_a_lookup_may_go_by_what_another_has_taken() -> None:
    countries = Lookup(
        extract=Counted(arrow.table({"city": ["Oslo"], "country": ["Norway"]}), dataset="cities"),
        on={"city": "city"},
        take={"country": "greeting"},
    )
    judged = judge(rows({"id": 1, "customer": "ann"}), Greeting, of(Counted(PEOPLE)), countries)
    assert judged.valid["greeting"].to_pylist() == ["Norway"]


def test_a_transform_of_the_whole_window_sees_what_is_taken(sqlite: Databases) -> None:
    land(sqlite.target, "'ann', 'Oslo'")
    put(sqlite.source, [order(number) for number in range(3)])
    assert run_pipeline(replace(NAMED, transform=WholeWindow(lambda raw: raw))).counts.inserted == 3
    assert set(cities(sqlite.target).values()) == {"Oslo"}


def test_a_feeds_delete_finds_its_key_by_the_lookup_that_made_it(sqlite: Databases) -> None:
    """The target's key is the number that the lookup takes; of a deleted row only the source's own key is told."""
    execute(sqlite.target, "CREATE TABLE dim_ids (code bigint, number bigint)", "INSERT INTO dim_ids VALUES (7, 70)")
    execute(sqlite.source, TABLE, "INSERT INTO bookings VALUES (7, 'A', 1)")

    class Numbered(pa.DataFrameModel):
        number: int
        seat: str = pa.Field(nullable=True)

    numbered = replace(
        BOOKINGS,
        schema=Numbered,
        load=Upsert("target", "fct_bookings", key=["number"]),
        lookups=[Lookup("dim_ids", on={"id": "code"}, take={"number": "number"})],
    )
    assert run_pipeline(numbered).counts.inserted == 1
    execute(sqlite.source, "DELETE FROM bookings")
    assert run_pipeline(numbered).counts.deleted == 1


# -- exactness --------------------------------------------------------------------------------------------------------


def test_values_come_out_in_the_types_of_the_table_to_the_last_digit(postgresql: Databases) -> None:
    execute(
        postgresql.target,
        "CREATE TABLE dim_all (id bigint, big bigint, price numeric(38, 9), day date, at timestamptz, local timestamp, "
        "good boolean, share float8, word text)",
        "INSERT INTO dim_all VALUES (1, 4611686018427387905, 12345678901234567890.000000001, '2026-02-28', "
        "'2026-01-01 00:00:00.000001+00', '1899-12-31 23:59:59.999999', true, 0.1, 'łódź')",
    )
    taken = {name: f"its_{name}" for name in ("big", "price", "day", "at", "local", "good", "share", "word")}
    lookup = Lookup("dim_all", on={"id": "id"}, take=taken)
    known, _ = Join("orders", lookup, "target").join(pd.DataFrame({"id": pd.array([1, 2], "int64[pyarrow]")}))
    nothing, _ = Join("orders", lookup, "target").join(pd.DataFrame({"id": pd.array([3], "int64[pyarrow]")}))
    assert dict(nothing.dtypes) == dict(known.dtypes), "also where nothing is found"
    told = arrow.Table.from_pandas(known, preserve_index=False)
    assert [str(told.schema.field(name).type) for name in taken.values()] == [
        "int64",
        "decimal128(38, 9)",
        "date32[day]",
        "timestamp[us, tz=UTC]",
        "timestamp[us]",
        "bool",
        "double",
        "string",
    ]
    found, missing = told.to_pylist()
    assert found == {
        "id": 1,
        "its_big": 2**62 + 1,
        "its_price": Decimal("12345678901234567890.000000001"),
        "its_day": date(2026, 2, 28),
        "its_at": datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        "its_local": datetime(1899, 12, 31, 23, 59, 59, 999_999),
        "its_good": True,
        "its_share": 0.1,
        "its_word": "łódź",
    }
    assert set(missing.values()) == {2, None}


@pytest.mark.parametrize(
    ("key", "there"),
    [
        (arrow.array([1], arrow.int32()), arrow.array([1], arrow.int64())),
        (arrow.array([1], arrow.int64()), arrow.array([Decimal("1.00")])),
        (arrow.array(["a"]).dictionary_encode(), arrow.array(["a"], arrow.large_string())),
        (
            arrow.array([datetime(2026, 1, 1, tzinfo=UTC)], arrow.timestamp("ns", "Europe/Oslo")),
            arrow.array([datetime(2026, 1, 1)], arrow.timestamp("us")),
        ),
    ],
    ids=["integers", "a decimal", "texts", "instants"],
)
def test_keys_of_one_family_are_equal_whatever_their_type(key: arrow.Array, there: arrow.Array) -> None:
    lookup = Lookup(extract=Counted(arrow.table({"k": there, "v": ["x"]})), on={"a": "k"}, take={"v": "v"})
    frame = arrow.table({"a": key}).to_pandas(types_mapper=pd.ArrowDtype)
    assert Join("orders", lookup, "target").join(frame)[0]["v"].tolist() == ["x"]


class CodedSchema(pa.DataFrameModel):
    code: Uuid
    city: str


class FoundSchema(pa.DataFrameModel):
    id: Uuid
    city: str = pa.Field(nullable=True)


def test_a_uuid_finds_itself_however_the_target_keeps_it(targets: Databases) -> None:
    codes = [uuid.UUID(int=number) for number in range(3)]
    coded = arrow.table({"code": [str(code) for code in codes[:2]], "city": ["Oslo", "Rome"]})
    run_pipeline(Pipeline("coded", RowsExtract(coded, "coded"), CodedSchema, Upsert("target", "dim_codes", ["code"])))
    raw = arrow.table(
        {"id": arrow.ExtensionArray.from_storage(UUID, arrow.array([code.bytes for code in codes], arrow.binary(16)))}
    )
    lookup = Lookup("dim_codes", on={"id": "code"}, take={"city": "city"}, on_missing="reject")
    found = Pipeline(
        "found", RowsExtract(raw, "raw"), FoundSchema, Upsert("target", "fct_found", ["id"]), lookups=[lookup]
    )
    counts = run_pipeline(found).counts
    assert (counts.inserted, counts.rejected) == (2, 1)
    ((_, _, reasons),) = letters(targets.target)
    assert reasons == [{"rule": "lookup dim_codes: id = code", "column": "id", "value": str(codes[2])}]


def test_a_nan_is_no_key() -> None:
    lookup = Lookup(
        extract=Counted(arrow.table({"k": [float("nan")], "v": ["x"]})),
        on={"a": "k"},
        take={"v": "v"},
        on_missing="reject",
    )
    joined, missing = Join("orders", lookup, "target").join(pd.DataFrame({"a": [float("nan")]}))
    assert (joined["v"].isna().tolist(), missing) == ([True], {})


@on_postgresql_too
def test_keys_that_can_never_be_equal_are_an_error_on_every_database(databases: Databases) -> None:
    land(databases.target, "'1', 'Oslo'")
    put(databases.source, [order(1)])
    told = r"the lookup 'dim_customers' compares 'id', a number, with its column 'name', text: they are never equal"
    with pytest.raises(ContractError, match=told):
        run_pipeline(named(replace(CITY, on={"id": "name"})))


# -- what is wrong with it --------------------------------------------------------------------------------------------


def test_the_table_has_to_be_there_before_anything_is_read(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    with pytest.raises(ConfigError, match=r"orders: Lookup\('dim_customers'\) needs the table 'dim_customers' in 'tar"):
        run_pipeline(NAMED)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"on": {"nobody": "name"}}, ContractError, "needs the column 'nobody'; the columns are id, customer"),
        ({"take": {"city": "amount"}}, ContractError, "takes 'amount', and the row has a column of that name"),
        ({"on": {"customer": "nick"}}, ConfigError, "has no column 'nick'; its columns are name, city"),
        ({"current": True}, ConfigError, "has no column 'is_current'"),
    ],
)
def test_a_lookup_that_does_not_fit_says_what_is_there(
    sqlite: Databases, change: dict[str, Any], error: type[Exception], told: str
) -> None:
    land(sqlite.target)
    put(sqlite.source, [order(1)])
    with pytest.raises(error, match=f"orders: the lookup 'dim_customers'.*{told}"):
        run_pipeline(named(replace(CITY, **change)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"table": None}, "asks a table of the target, or reads an extract"),
        ({"extract": Counted(PEOPLE)}, "asks a table of the target, or reads an extract"),
        ({"on": {}}, "needs columns to look up by, and to take"),
        ({"take": {"a": "x", "b": "x"}}, "takes two columns under one name"),
        ({"on_missing": "warn"}, "on_missing is 'null' or 'reject', got 'warn'"),
        ({"current": True, "as_of": "at"}, "give one of the two"),
        ({"max_rows": 0}, "max_rows is how many rows fit in memory, got 0"),
    ],
)
def test_a_lookup_that_makes_no_sense_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        replace(CITY, **change)


def test_the_fingerprint_changes_with_a_lookup() -> None:
    def fingerprint(*lookups: Lookup) -> str:
        return Contract("x", Greeting, joins=[Join("x", lookup, "target") for lookup in lookups]).fingerprint

    marks = [fingerprint(), fingerprint(CITY), fingerprint(replace(CITY, on_missing="reject"))]
    assert len(set(marks)) == 3
    assert fingerprint(CITY) == marks[1]


def test_rows_in_memory_are_looked_up_in_too(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(named(of(RowsExtract(PEOPLE, "people")), sla=Sla()))
    assert cities(sqlite.target) == {1: "Oslo"}


@pytest.mark.mariadb
def test_mariadb_is_asked_for_the_keys_of_a_batch_too(mariadb: Databases) -> None:
    execute(
        mariadb.source,
        "CREATE TABLE dim_all (a varchar(20), b bigint, price numeric(38, 9), day date, at datetime(6), share double, "
        "is_current boolean)",
        "INSERT INTO dim_all VALUES ('x', 1, 12345678901234567890.000000001, '2026-02-28', "
        "'2026-01-01 00:00:00.000001', 0.1, true), ('x', 1, 1, NULL, NULL, NULL, false)",
    )
    taken = ("price", "day", "at", "share")
    lookup = Lookup("dim_all", on={"a": "a", "b": "b"}, take={name: name for name in taken}, current=True)
    frame = pd.DataFrame({"a": ["x", "x"], "b": [1, 2]})
    found, missing = arrow.Table.from_pandas(Join("orders", lookup, "source").join(frame)[0]).to_pylist()
    assert [found[name] for name in taken] == [
        Decimal("12345678901234567890.000000001"),
        date(2026, 2, 28),
        datetime(2026, 1, 1, 0, 0, 0, 1),
        0.1,
    ]
    assert [missing[name] for name in taken] == [None] * 4


def test_an_extract_that_tells_which_rows_are_gone_is_refused() -> None:
    marked = TableExtract("source", "airports", deleted="gone")
    with pytest.raises(ConfigError, match="its extract tells which rows are gone"):
        Lookup(extract=marked, on={"dest": "faa"}, take={"name": "dest_name"})
