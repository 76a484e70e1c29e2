"""`EnvelopeDecoder`, and the types of Debezium's JSON."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import SourceError
from tasks.extract.debezium_log.envelope import UNAVAILABLE, EnvelopeDecoder, Event, Reread, parsed
from tasks.extract.debezium_log.types import typed
from tests.extract.envelopes import COLUMNS, column, event, in_base_64, row, unscaled


def decoded(*events: Any, key: tuple[str, ...] = ("id",), full: bool = True, reread: Reread | None = None) -> pa.Table:
    """All changes of some events in one table."""
    decoder = EnvelopeDecoder(key, "The test", full, reread=reread)
    known = [one for one in (parsed(item, "The test") for item in events) if one is not None]
    return pa.concat_tables(list(decoder.decode(known)), promote_options="permissive")


def told(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


@pytest.mark.parametrize("columns", [None, COLUMNS], ids=["without schema", "with schema"])
@pytest.mark.parametrize(
    "form", [dict, json.dumps, lambda item: json.dumps(item).encode()], ids=["dict", "str", "bytes"]
)
def test_the_four_operations_come_as_changes(columns: Any, form: Any) -> None:
    table = decoded(
        form(event("r", row(1), columns=columns)),
        form(event("c", row(2), columns=columns)),
        form(event("u", row(2, "B"), row(2), columns=columns)),
        form(event("d", None, row(1), columns=columns)),
    )
    assert told(table, "etl_operation", "id", "seat", "price") == [
        ("insert", 1, "A", 1.0), ("insert", 2, "A", 1.0), ("update", 2, "B", 1.0), ("delete", 1, "A", 1.0),
    ]  # fmt: skip
    assert table.column("etl_before").to_pylist() == [None, None, row(2), row(1)]
    at = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert table.column("etl_committed_at").to_pylist() == [None, at, at, at]
    assert table.schema.field("id").type == pa.int64()


def test_a_truncate_is_a_marker() -> None:
    assert told(decoded(event("t", columns=COLUMNS)), "etl_operation", "id", "etl_before") == [("truncate", None, None)]


@pytest.mark.parametrize(
    "other",
    [
        None,
        "null",
        "",
        {"payload": None, "schema": None},
        {"ts_ms": 1},
        {"status": "BEGIN", "id": "1:2", "event_count": None, "ts_ms": 1},
        {"source": {}, "databaseName": "shop", "ddl": "CREATE TABLE t (i int)", "tableChanges": []},
        {"id": "x", "type": "STARTED", "aggregate_type": "Initial Snapshot"},
        {"op": "m", "source": {}, "message": {"prefix": "p", "content": ""}},
    ],
    ids=[
        "null",
        "null text",
        "empty line",
        "empty payload",
        "heartbeat",
        "transaction",
        "ddl",
        "notification",
        "message",
    ],
)
def test_what_is_no_change_is_passed_over(other: Any) -> None:
    assert parsed(other, "The test") is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row(1), "no envelope.*ExtractNewRecordState"),
        ("{", "no JSON"),
        ("[1]", "no change event"),
        ({"op": "x"}, "op is 'x'"),
    ],
)
def test_what_is_no_envelope_is_a_clear_error(wrong: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        parsed(wrong, "The test")


def test_a_consumer_that_wraps_the_value_as_text_is_understood() -> None:
    found = parsed(
        {"topic": "shop.public.bookings", "offset": 3, "payload": json.dumps(event("c", row(1)))}, "The test"
    )
    assert found is not None and found.payload["after"] == row(1)


def test_a_changed_key_is_a_delete_and_an_insert() -> None:
    table = decoded(event("u", row(7), row(1)))
    assert told(table, "etl_operation", "id") == [("delete", 1), ("insert", 7)]
    positions = table.column("etl_position").to_pylist()
    assert positions == sorted(set(positions))


def test_of_a_row_before_that_is_only_a_key_nothing_else_is_believed() -> None:
    # Debezium fills a column that cannot be NULL with something.
    table = decoded(event("d", None, {"id": 1, "seat": None, "price": 0.0}, columns=COLUMNS), full=False)
    assert told(table, "id", "seat", "price") == [(1, None, None)]
    assert table.column("etl_before").to_pylist() == [{"id": 1, "seat": None, "price": None}]


def test_a_delete_without_a_row_before_is_a_clear_error() -> None:
    with pytest.raises(SourceError, match=r"delete at .* without 'before'.*replica identity"):
        decoded(event("d"))


def test_positions_compare_as_the_log_goes() -> None:
    table = decoded(
        event("r", row(1), lsn=90, commit=90),
        event("r", row(2), lsn=90, commit=90),
        event("c", row(3), lsn=300, commit=100),
        event("c", row(4), lsn=120, commit=200),
        event("c", row(5), lsn=120, commit=200),
        event("c", row(6), lsn=4_000_000_000_000, commit=4_000_000_000_000),
    )
    positions = table.column("etl_position").to_pylist()
    assert positions == sorted(set(positions)) and len(positions) == 6


def test_positions_of_a_binlog_compare_as_it_goes() -> None:
    places = [
        ("binlog.000009", 900, 0), ("binlog.000009", 900, 1), ("binlog.000009", 1_000, 0), ("binlog.000010", 4, 0),
        ("binlog.999999", 4, 0), ("binlog.1000000", 4, 0),
    ]  # fmt: skip
    events = [event("c", row(1), connector="mysql", file=file, pos=pos, row=number) for file, pos, number in places]
    for one in events:
        one["source"] |= {"lsn": None}
    positions = decoded(*events).column("etl_position").to_pylist()
    assert positions == sorted(set(positions)) and len(positions) == 6


def test_a_table_that_changes_its_shape_comes_in_a_batch_for_each() -> None:
    decoder = EnvelopeDecoder(["id"], "The test", True)
    events = [parsed(event("c", row(1), columns=COLUMNS), ""), parsed(event("c", row(2), columns=COLUMNS[:2]), "")]
    tables = list(decoder.decode([one for one in events if one is not None]))
    assert [table.column_names[:-4] for table in tables] == [["id", "seat", "price"], ["id", "seat"]]


# -- values left out -------------------------------------------------------------------------------------------


def test_a_value_left_out_is_taken_from_the_row_before() -> None:
    table = decoded(event("u", row(1, UNAVAILABLE, 2.0), row(1, "long", 1.0)))
    assert told(table, "seat", "price") == [("long", 2.0)]


def test_a_value_left_out_when_the_key_changed_is_taken_from_the_row_before() -> None:
    assert told(decoded(event("u", row(2, UNAVAILABLE), row(1, "long"))), "etl_operation", "id", "seat") == [
        ("delete", 1, "long"), ("insert", 2, "long"),
    ]  # fmt: skip


def test_a_value_left_out_is_read_again_and_a_row_that_is_gone_is_passed_over() -> None:
    asked: list[Any] = []

    def reread(keys: list[dict[str, Any]], wanted: Mapping[str, Any]) -> list[dict[str, Any] | None]:
        asked.append((keys, list(wanted)))
        return [{"seat": "now"}, None]

    table = decoded(
        event("u", row(1, UNAVAILABLE, 2.0)), event("u", row(2, UNAVAILABLE, 2.0)), event("u", row(3, "C", 2.0)),
        full=False, reread=reread,
    )  # fmt: skip
    assert asked == [([{"id": 1}, {"id": 2}], ["seat"])]
    assert told(table, "id", "seat") == [(1, "now"), (3, "C")]


def test_a_value_left_out_with_nobody_to_ask_is_a_clear_error() -> None:
    with pytest.raises(SourceError, match=r"leaves out seat.*REPLICA IDENTITY FULL"):
        decoded(event("u", row(1, UNAVAILABLE)), full=False)


@pytest.mark.parametrize(
    ("kind", "stand_in"),
    [
        (column("v", "bytes"), in_base_64(UNAVAILABLE.encode())),
        (column("v", "array"), [UNAVAILABLE]),
        (column("v", "array"), list(UNAVAILABLE.encode())),
        (column("v", "string", "io.debezium.data.Json"), json.dumps({UNAVAILABLE: UNAVAILABLE})),
    ],
)
def test_a_value_left_out_is_known_in_every_form(kind: dict[str, Any], stand_in: Any) -> None:
    with pytest.raises(SourceError, match=r"leaves out v"):
        decoded(event("u", {"id": 1, "v": stand_in}, columns=[COLUMNS[0], kind]), full=False)


# -- types -----------------------------------------------------------------------------------------------------

DECIMAL = "org.apache.kafka.connect.data.Decimal"


@pytest.mark.parametrize(
    ("schema", "value", "expected", "kind"),
    [
        (column("v", "int64"), 2**63 - 1, 2**63 - 1, pa.int64()),
        (column("v", "int16"), -7, -7, pa.int16()),
        (column("v", "boolean"), True, True, pa.bool_()),
        (column("v", "double"), "NaN", None, pa.float64()),
        (column("v", "double"), "-Infinity", float("-inf"), pa.float64()),
        (column("v", "float"), 0.5, 0.5, pa.float32()),
        (column("v", "string"), "ß\"'\\", "ß\"'\\", pa.string()),
        (column("v", "bytes"), "AP8=", b"\x00\xff", pa.binary()),
        (column("v", "int32", "io.debezium.time.Date"), 19_782, date(2024, 2, 29), pa.date32()),
        (column("v", "int32", "io.debezium.time.Date"), -1, date(1969, 12, 31), pa.date32()),
        (column("v", "int32", "org.apache.kafka.connect.data.Date"), 0, date(1970, 1, 1), pa.date32()),
        (column("v", "int64", "io.debezium.time.Timestamp"), -1, datetime(1969, 12, 31, 23, 59, 59, 999000),
         pa.timestamp("us")),
        (column("v", "int64", "io.debezium.time.MicroTimestamp"), 1, datetime(1970, 1, 1, 0, 0, 0, 1),
         pa.timestamp("us")),
        (column("v", "int64", "org.apache.kafka.connect.data.Timestamp"), 1_000, datetime(1970, 1, 1, 0, 0, 1),
         pa.timestamp("us")),
        (column("v", "string", "io.debezium.time.ZonedTimestamp"), "2024-02-29T10:00:00.500000Z",
         datetime(2024, 2, 29, 10, 0, 0, 500_000, tzinfo=UTC), pa.timestamp("us", "UTC")),
        (column("v", "string", "io.debezium.time.ZonedTimestamp"), "2024-02-29T12:00:00+02:00",
         datetime(2024, 2, 29, 10, tzinfo=UTC), pa.timestamp("us", "UTC")),
        (column("v", "string", "io.debezium.time.ZonedTimestamp"), "infinity", "infinity", pa.string()),
        (column("v", "int32", "io.debezium.time.Time"), 1, time(0, 0, 0, 1_000), pa.time64("us")),
        (column("v", "int64", "io.debezium.time.MicroTime"), 86_399_999_999, time(23, 59, 59, 999_999),
         pa.time64("us")),
        (column("v", "int64", "io.debezium.time.MicroTime"), 86_400_000_000, "24:00:00", pa.string()),
        (column("v", "int64", "io.debezium.time.MicroTime"), -5_400_000_001, "-01:30:00.000001", pa.string()),
        (column("v", "int64", "io.debezium.time.MicroTime"), 3_020_399_000_000, "838:59:59", pa.string()),
        (column("v", "bytes", DECIMAL, scale="2", **{"connect.decimal.precision": "10"}), unscaled(-150),
         Decimal("-1.50"), pa.decimal128(10, 2)),
        (column("v", "bytes", DECIMAL, scale="9", **{"connect.decimal.precision": "38"}),
         unscaled(12345678901234567890123456789_123456789), Decimal("12345678901234567890123456789.123456789"),
         pa.decimal128(38, 9)),
        (column("v", "bytes", DECIMAL, scale="0", **{"connect.decimal.precision": "65"}), unscaled(10**64),
         Decimal(10**64), pa.decimal256(65, 0)),
        (column("v", "bytes", DECIMAL, scale="0"), unscaled(2**64 - 1), Decimal(2**64 - 1), pa.decimal128(38, 0)),
        (column("v", "bytes", DECIMAL, scale="1", **{"connect.decimal.precision": "100"}), unscaled(10**90 + 5),
         f"{10**89}.5", pa.string()),
        (column("v", "struct", "io.debezium.data.VariableScaleDecimal"), {"scale": 20, "value": unscaled(1)},
         "0.00000000000000000001", pa.string()),
        (column("v", "bytes", "io.debezium.data.Bits", length="5"), "BQ==", 5, pa.uint64()),
        (column("v", "string", "io.debezium.data.Uuid"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
         "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", pa.string()),
        (column("v", "string", "io.debezium.data.Json"), '{"a": 1}', '{"a": 1}', pa.string()),
        (column("v", "array"), [1, None, 3], "[1,null,3]", pa.string()),
        (column("v", "int32", "io.debezium.time.Year"), 2024, 2024, pa.int32()),
    ],
    ids=lambda value: str(value["name"] or value["type"]).rpartition(".")[2] if "parameters" in str(value) else None,
)  # fmt: skip
def test_a_type_is_decoded_exactly(schema: dict[str, Any], value: Any, expected: Any, kind: pa.DataType) -> None:
    found = typed([value, None], schema)
    assert found.type == kind
    if value == "NaN":
        assert str(found[0].as_py()) == "nan"
    else:
        assert found.to_pylist() == [expected, None]
    assert type(found[0].as_py()) is type(expected) or value == "NaN"


def test_nanoseconds_are_kept() -> None:
    schema = column("v", "int64", "io.debezium.time.NanoTimestamp")
    assert typed([1], schema).cast(pa.int64()).to_pylist() == [1]


def test_a_decimal_written_as_a_number_keeps_its_digits() -> None:
    columns = [COLUMNS[0], column("n", "bytes", DECIMAL, scale="3", **{"connect.decimal.precision": "38"})]
    text = json.dumps(event("c", {"id": 1, "n": 0}, columns=columns)).replace('"n": 0', '"n": 12345678901234567890.123')
    assert decoded(text).column("n").to_pylist() == [Decimal("12345678901234567890.123")]


def test_without_a_schema_the_values_own_types_count() -> None:
    after = {"id": 2**62, "b": True, "f": 1.5, "s": "x", "o": {"a": [1]}, "n": None}
    table = decoded(event("c", after))
    assert [str(table.schema.field(name).type) for name in after] == [
        "int64", "bool", "double", "string", "string", "null",
    ]  # fmt: skip
    assert told(table, "id", "o") == [(2**62, '{"a":[1]}')]


@given(st.integers(-(10**38) + 1, 10**38 - 1))
def test_every_decimal_comes_back(digits: int) -> None:
    schema = column("v", "bytes", DECIMAL, scale="9", **{"connect.decimal.precision": "38"})
    [found] = typed([unscaled(digits)], schema).to_pylist()
    assert int(format(found, "f").replace(".", "")) == digits and found.as_tuple().exponent == -9


@given(st.lists(st.sampled_from("crud"), max_size=30))
def test_every_event_is_one_change_and_keeps_its_place(operations: list[str]) -> None:
    events = [
        Event(event(kind, None if kind == "d" else row(number), row(number) if kind in "ud" else None), None)
        for number, kind in enumerate(operations)
    ]
    decoder = EnvelopeDecoder(["id"], "The test", True)
    tables = list(decoder.decode(events))
    assert sum(table.num_rows for table in tables) == len(operations)
    assert [number for table in tables for number in table.column("id").to_pylist()] == list(range(len(operations)))
