"""What is written is what is read: every storable type, to the last digit, on every dialect."""

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.schema import CreateTable, DropTable

from tasks.column_types import sql_type, storable
from tasks.dialects import dialect_of
from tasks.errors import ConfigError
from tasks.load.target import staged_table
from tasks.state.staged import ROW
from tasks.transform.columns import as_frame, cast_column
from tests.conftest import Databases
from tests.properties.effort import Prove, effort

UTC_US, NAIVE_US = pa.timestamp("us", "UTC"), pa.timestamp("us")
DECIMAL = pa.decimal128(30, 10)
DAYS = (date(1, 1, 1), date(9999, 12, 31))

TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int16": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "int32": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float64": (pa.float64(), st.floats(allow_nan=False)),
    "decimal": (DECIMAL, st.decimals(-(10**19), 10**19, places=10, allow_nan=False)),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(st.characters(codec="utf-8", exclude_characters="\x00"))),
    "bytes": (pa.binary(), st.binary()),
    "date": (pa.date32(), st.dates(*DAYS)),
    "time": (pa.time64("us"), st.times()),
    "instant": (UTC_US, st.datetimes(datetime(1, 1, 1), timezones=st.just(UTC))),
    "naive": (NAIVE_US, st.datetimes(datetime(1, 1, 1))),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in TYPES.items()])
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | values for name, (_, values) in TYPES.items()}), max_size=5)

AWKWARD: dict[str, Any] = {
    "text": "O'Brien \"quoted\" \\ back, tab\t, line\r\nline, empty '', 🌊 \u200b NULL \\N",
    "bytes": bytes(range(256)),
    "float64": 5e-324,
    "decimal": Decimal("-99999999999999999999.9999999999"),
    "instant": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "naive": datetime(1, 1, 1),
    "time": time(23, 59, 59, 999_999),
}


def round_trip(databases: Databases, rows: pa.Table) -> dict[str, list[Any]]:
    """Write `rows` into a table of their types, read it as a source, and cast it to the types again."""
    dialect, engine = dialect_of(databases.target), databases.target
    table = staged_table("round_trip", rows.schema)
    numbered = rows.add_column(0, pa.field(ROW, pa.int64()), pa.array(range(len(rows)), pa.int64()))
    with dialect.transaction(engine) as connection:
        connection.execute(CreateTable(table))
    try:
        assert dialect.write(engine, table, numbered) == len(rows)
        relation = dialect.relation(engine, "round_trip")
        batches = list(dialect.read(engine, relation, None, None, None))
    finally:
        with dialect.transaction(engine) as connection:
            connection.execute(DropTable(table))
    read: dict[str, list[Any]] = {field.name: [] for field in rows.schema}
    for batch in batches:
        ordered = as_frame(batch.sort_by(ROW))
        for field in rows.schema:
            cast = cast_column(ordered[field.name], field.type, "round trip")
            assert cast.failed == {}
            read[field.name] += cast.values.to_pylist()
    return read


@effort(few=10, many=300)
def test_every_value_of_every_type_survives(databases: Databases, prove: Prove) -> None:
    def claim(rows: list[dict[str, Any]]) -> None:
        table = pa.Table.from_pylist(rows, SCHEMA)
        assert round_trip(databases, table) == table.to_pydict()

    prove(ROWS, claim)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_values_survive(databases: Databases, name: str) -> None:
    table = pa.table({name: pa.array([AWKWARD[name], None], TYPES[name][0])})
    assert round_trip(databases, table) == table.to_pydict()


def test_an_empty_text_is_not_null(databases: Databases) -> None:
    table = pa.table({"text": ["", None], "bytes": [b"", None]})
    assert round_trip(databases, table) == table.to_pydict()


@pytest.mark.parametrize("where", ["postgresql", "sqlite"])
def test_infinities_survive(request: pytest.FixtureRequest, where: str) -> None:
    table = pa.table({"float64": [math.inf, -math.inf]})
    assert round_trip(request.getfixturevalue(where), table) == table.to_pydict()


def test_not_a_number_survives_on_postgresql(postgresql: Databases) -> None:
    (value,) = round_trip(postgresql, pa.table({"float64": [math.nan]}))["float64"]
    assert math.isnan(value)


def test_more_rows_than_one_batch_survive(databases: Databases) -> None:
    table = pa.table({"int64": pa.array(range(45_000), pa.int64()),
                      "text": pa.array([f"row {number}" for number in range(45_000)])})  # fmt: skip
    read = round_trip(databases, table)
    assert sorted(zip(read["int64"], read["text"], strict=True)) == list(
        zip(range(45_000), table["text"].to_pylist(), strict=True)
    )


def test_reading_is_cut_into_bounded_batches(databases: Databases) -> None:
    """However many rows there are: a million bytes of text a batch, give or take."""
    with databases.source.begin() as connection:
        connection.execute(text("CREATE TABLE long (id integer, filler text)"))
        connection.execute(
            text("INSERT INTO long SELECT value, :filler FROM generate_series(1, 60000) AS value")
            if databases.kind == "postgresql"
            else text(
                "INSERT INTO long WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n "
                "WHERE value < 60000) SELECT value, :filler FROM n"
            ),
            {"filler": "x" * 200},
        )
    dialect = dialect_of(databases.source)
    batches = list(dialect.read(databases.source, dialect.relation(databases.source, "long"), None, None, None))
    assert sum(batch.num_rows for batch in batches) == 60_000
    assert len(batches) >= 3
    assert max(batch.num_rows for batch in batches) <= 30_000


def test_column_names_are_quoted(databases: Databases) -> None:
    table = pa.table({'semi;"colon"': [1], "select": [2], "Größe": [3]})
    assert round_trip(databases, table) == table.to_pydict()


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (pa.int8(), pa.int16()),
        (pa.uint8(), pa.int16()),
        (pa.uint16(), pa.int32()),
        (pa.uint32(), pa.int64()),
        (pa.uint64(), pa.decimal128(20, 0)),
        (pa.float16(), pa.float64()),
        (pa.float32(), pa.float64()),
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (pa.date64(), pa.date32()),
        (pa.time32("s"), pa.time64("us")),
        (pa.timestamp("ns", "Europe/Berlin"), UTC_US),
        (pa.timestamp("s"), NAIVE_US),
    ],
)
def test_a_type_that_no_target_holds_becomes_one_of_its_family_that_loses_nothing(
    kind: pa.DataType, kept: pa.DataType
) -> None:
    assert storable(kind) == kept
    assert sql_type(kept) is not None


@pytest.mark.parametrize(
    "kind",
    [pa.list_(UTC_US), pa.list_(pa.list_(pa.int64())), pa.struct([("a", pa.int64())]), pa.duration("us"), pa.null()],
)
def test_a_type_that_no_column_can_hold_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(ConfigError, match="No target column can hold the type"):
        storable(kind)
