"""Records of dead letters read back: the row is what it was."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from tasks.state.record import encode_records, record_types
from tasks.state.record_reading import read_records
from tests.properties.effort import Prove, effort


def again(raw: pa.Table) -> pa.Table:
    """`raw`, written down and read back."""
    records, _ = encode_records(raw, range(raw.num_rows))
    return read_records(records, record_types(raw))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None, 2**63 - 1]),
        pa.array([1, 255], pa.uint8()),
        pa.array([0.1 + 0.2, float("inf"), None]),
        pa.array([True, None]),
        pa.array(["", None, 'quote " 🌊 \n']),
        pa.array(["a", "b", "a"], pa.large_string()),
        pa.array([b"\x00\xff", b"", None]),
        pa.array([b"0123456789abcdef"], pa.binary(16)),
        pa.array([Decimal("12345678901234567890.0100"), None], pa.decimal128(38, 9)),
        pa.array([date(2026, 1, 1), None]),
        pa.array([time(23, 59, 59, 999_999), None], pa.time64("us")),
        pa.array([datetime(2026, 1, 1, 5, 0, 0, 1), None], pa.timestamp("us")),
        pa.array([datetime(2026, 1, 1, 5, tzinfo=UTC), None], pa.timestamp("us", "America/New_York")),
        pa.array([1_767_225_600_000_000_001, None], pa.int64()).cast(pa.timestamp("ns", "UTC")),
        pa.array([None, None]),
        pa.array([[1, 2], None, []], pa.list_(pa.int64())),
        pa.array([{"a": 1, "b": "x"}]),
    ],
    ids=lambda values: str(values.type),
)
def test_a_value_of_each_type_is_what_it_was(values: pa.Array) -> None:
    [column] = again(pa.table({"it": values})).columns
    assert column.type == values.type
    assert column.to_pylist() == values.to_pylist()


def test_a_dictionary_is_read_as_its_values() -> None:
    column = again(pa.table({"it": pa.array(["a", "b", None]).dictionary_encode()})).column("it")
    assert (column.type, column.to_pylist()) == (pa.string(), ["a", "b", None])


def test_nan_stays_apart_from_null() -> None:
    first, second = again(pa.table({"it": pa.array([float("nan"), None])})).column("it").to_pylist()
    assert first != first and second is None


def test_a_value_that_its_type_no_longer_holds_is_its_text() -> None:
    read = read_records(['{"n": 300, "at": "never"}'], '{"n": "uint8", "at": "timestamp[us]"}')
    assert read.to_pylist() == [{"n": "300", "at": "never"}]


def test_a_column_that_a_record_lacks_is_null() -> None:
    assert read_records(['{"a": 1}'], '{"a": "int64", "b": "string"}').to_pylist() == [{"a": 1, "b": None}]


@effort(few=40, many=2_000)
def test_whatever_is_written_is_read_back(prove: Prove) -> None:
    def claim(rows: list[dict[str, Any]]) -> None:
        kinds = {
            "i": pa.int64(),
            "f": pa.float64(),
            "s": pa.string(),
            "b": pa.binary(),
            "at": pa.timestamp("us", "UTC"),
        }
        raw = pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))
        assert again(raw).to_pylist() == raw.to_pylist()

    row = st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-(2**63), 2**63 - 1),
            "f": st.none() | st.floats(allow_nan=False),
            "s": st.none() | st.text(max_size=8),
            "b": st.none() | st.binary(max_size=8),
            "at": st.none() | st.datetimes(timezones=st.just(UTC)),
        }
    )
    prove(st.lists(row, min_size=1, max_size=6), claim)
