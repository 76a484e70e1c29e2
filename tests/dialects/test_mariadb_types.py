"""What MariaDB keeps is what is read: to the last digit, in the column's own type, whatever SQLAlchemy makes of it."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import text

from tasks.extract.table import TableExtract
from tasks.window import Window
from tests.conftest import Databases

pytestmark = pytest.mark.mariadb

NAIVE, INSTANT = pa.timestamp("us"), pa.timestamp("us", "UTC")

COLUMNS: dict[str, tuple[list[str], pa.DataType, list[Any]]] = {
    "decimal(38,10)": (
        ["-9999999999999999999999999999.9999999999", "0.0000000001"],
        pa.decimal128(38, 10),
        [Decimal("-9999999999999999999999999999.9999999999"), Decimal("0.0000000001")],
    ),
    "decimal(65,30)": (
        ["12345678901234567890123456789012345.123456789012345678901234567890"],
        pa.decimal256(65, 30),
        [Decimal("12345678901234567890123456789012345.123456789012345678901234567890")],
    ),
    "decimal(5) unsigned": (["99999"], pa.decimal128(5, 0), [Decimal(99_999)]),
    "bigint unsigned": (["18446744073709551615", "0"], pa.uint64(), [2**64 - 1, 0]),
    "bigint": (["-9223372036854775808"], pa.int64(), [-(2**63)]),
    "int unsigned": (["4294967295"], pa.uint32(), [2**32 - 1]),
    "tinyint(1)": (["0", "1", "-128", "127"], pa.int8(), [0, 1, -128, 127]),
    "year": (["2026"], pa.int16(), [2026]),
    "float": (["16777215", "0.1"], pa.float64(), [16777215.0, 0.10000000149011612]),
    "double": (["1.7976931348623157e308", "0.1"], pa.float64(), [1.7976931348623157e308, 0.1]),
    "datetime(6)": (
        ["'2026-01-01 12:00:00.000001'", "'9999-12-31 23:59:59.999999'", "'1000-01-01'"],
        NAIVE,
        [datetime(2026, 1, 1, 12, 0, 0, 1), datetime.max, datetime(1000, 1, 1)],
    ),
    "datetime": (["'2026-01-01 12:00:01'"], NAIVE, [datetime(2026, 1, 1, 12, 0, 1)]),
    "timestamp(6) null": (
        ["'2026-01-01 12:00:00.000001'"],
        INSTANT,
        [datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)],
    ),
    "date": (["'2026-02-28'"], pa.date32(), [date(2026, 2, 28)]),
    "time(6)": (["'23:59:59.999999'", "'00:00:00'"], pa.time64("us"), [time.max, time.min]),
    "blob": (["0x00ff27225c"], pa.binary(), [b"\x00\xff'\"\\"]),
    "binary(4)": (["0x00010203"], pa.binary(), [b"\x00\x01\x02\x03"]),
    "longtext": (["'O''Brien 🌊 \\\\ %s :x'"], pa.string(), ["O'Brien 🌊 \\ %s :x"]),
    "varchar(20)": (["''", "'é'"], pa.string(), ["", "é"]),
    "json": (['\'{"a": [1, null, "ü"]}\''], pa.string(), ['{"a": [1, null, "ü"]}']),
    "bit(1)": (["b'1'", "b'0'"], pa.bool_(), [True, False]),
    "bit(64)": (["b'1'", "0xffffffffffffffff"], pa.uint64(), [1, 2**64 - 1]),
    "enum('a','b')": (["'b'"], pa.string(), ["b"]),
    "set('a','b')": (["'a,b'", "''"], pa.string(), ["a,b", ""]),
    "uuid": (
        ["'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'"],
        pa.string(),
        ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"],
    ),
}


def fill(databases: Databases, kind: str, literals: list[str]) -> None:
    """A table of one column."""
    with databases.source.begin() as connection:
        # Zero dates are what old applications leave behind; today's mode refuses them.
        connection.execute(text("SET sql_mode = 'NO_BACKSLASH_ESCAPES'" if kind == "none" else "SET sql_mode = ''"))
        connection.execute(text(f"CREATE TABLE kept (n integer, v {kind})"))
        for number, literal in enumerate(literals):
            connection.exec_driver_sql(
                f"INSERT INTO kept VALUES ({number}, {literal})", execution_options={"no_parameters": True}
            )


def read(*, query: bool = False) -> pa.ChunkedArray:
    """The column, in the order it was written."""
    extract = TableExtract("source", query="SELECT n, v FROM kept") if query else TableExtract("source", "kept")
    return pa.concat_tables(extract.batches(Window())).sort_by("n").column("v")


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_value_is_read_as_it_is_kept(mariadb: Databases, kind: str) -> None:
    literals, arrow, values = COLUMNS[kind]
    fill(mariadb, kind, [*literals, "NULL"])
    column = read()
    assert (column.type, column.to_pylist()) == (arrow, [*values, None])
    # A query's expression has no column whose digits could be asked for.
    if kind != "float":
        assert read(query=True) == column


@pytest.mark.parametrize(
    ("kind", "literals", "texts"),
    [
        ("date", ["'0000-00-00'", "'2026-01-02'"], ["0000-00-00", "2026-01-02"]),
        ("date", ["'2026-00-10'"], ["2026-00-10"]),
        ("datetime", ["'0000-00-00'", "'2026-01-02'"], ["0000-00-00 00:00:00", "2026-01-02 00:00:00"]),
        ("timestamp null", ["'0000-00-00'", "'2026-01-02'"], ["0000-00-00 00:00:00", "2026-01-02 00:00:00+00:00"]),
        ("time", ["'838:59:59'", "'-01:02:03'", "'08:00:00'"], ["838:59:59", "-01:02:03", "08:00:00"]),
        ("time(6)", ["'24:00:00.000001'"], ["24:00:00.000001"]),
    ],
)
def test_a_value_that_arrow_has_no_place_for_stays_what_it_is(
    mariadb: Databases, kind: str, literals: list[str], texts: list[str]
) -> None:
    """As text, in a batch with others; neither NULL nor another time."""
    fill(mariadb, kind, literals)
    assert read().to_pylist() == texts


def test_an_empty_table_has_the_types_of_its_columns(mariadb: Databases) -> None:
    fill(mariadb, "decimal(10,2)", [])
    assert [batch.num_rows for batch in TableExtract("source", "kept").batches(Window())] in ([], [0])


def test_a_timestamp_is_an_instant_whatever_zone_the_server_is_in(mariadb: Databases) -> None:
    """The suite's server is five and a half hours ahead, and whoever writes keeps that."""
    with mariadb.source.begin() as connection:
        assert connection.execute(text("SELECT @@global.time_zone")).scalar_one() == "+05:30"
        connection.execute(text("CREATE TABLE kept (n integer, v timestamp NULL)"))
        connection.execute(text("SET time_zone = '+05:30'"))
        connection.execute(text("INSERT INTO kept VALUES (0, '2026-01-01 05:30:00')"))
        connection.execute(text("SET time_zone = '+00:00'"))
    assert read().to_pylist() == [datetime(2026, 1, 1, tzinfo=UTC)]


def test_a_query_keeps_its_percent_signs_and_colons(sources: Databases) -> None:
    query = "SELECT 17 % 5 AS rest, ':no :parameter 12:30 100%' AS label"
    (batch,) = TableExtract("source", query=query).batches(Window())
    assert batch.to_pylist() == [{"rest": 2, "label": ":no :parameter 12:30 100%"}]
