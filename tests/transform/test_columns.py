"""`cast_column`: a value comes out as the same value in the declared type, or is reported as it came."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from tasks.errors import ContractError
from tasks.transform.columns import as_frame, cast_column
from tests.properties.effort import Prove, effort

INSTANTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
NAIVE = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60).map(float)
CENTS = st.decimals(-99_999, 99_999, places=2)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))

INT64, FLOAT64, STRING = pa.int64(), pa.float64(), pa.string()
UTC_US, NAIVE_US = pa.timestamp("us", "UTC"), pa.timestamp("us")

CONVERSIONS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any], pa.DataType]] = {
    "int64 stays": (INT64, st.integers(-(2**63), 2**63 - 1), INT64),
    "int64 to int16": (INT64, st.integers(-40_000, 40_000), pa.int16()),
    "int64 to int32": (INT64, st.integers(-(2**33), 2**33), pa.int32()),
    "int64 to float64": (INT64, st.integers(2**53 - 3, 2**53 + 3) | st.integers(-(2**63), 2**63 - 1), FLOAT64),
    "int64 to decimal": (INT64, st.integers(-(2**63), 2**63 - 1), pa.decimal128(20, 0)),
    "int64 to text": (INT64, st.integers(-(2**63), 2**63 - 1), STRING),
    "uint64 to decimal": (pa.uint64(), st.integers(0, 2**64 - 1), pa.decimal128(20, 0)),
    "uint64 to int64": (pa.uint64(), st.integers(0, 2**64 - 1), INT64),
    "float64 stays": (FLOAT64, FLOATS, FLOAT64),
    "float64 to int64": (FLOAT64, FLOATS, INT64),
    "float64 to text": (FLOAT64, FLOATS, STRING),
    "float32 to float64": (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False), FLOAT64),
    "decimal stays": (pa.decimal128(9, 2), CENTS, pa.decimal128(9, 2)),
    "decimal to more digits": (pa.decimal128(9, 2), CENTS, pa.decimal128(12, 5)),
    "decimal to fewer digits": (pa.decimal128(9, 2), CENTS, pa.decimal128(6, 1)),
    "decimal to int64": (pa.decimal128(9, 2), CENTS, INT64),
    "decimal to text": (pa.decimal128(9, 2), CENTS, STRING),
    "text stays": (STRING, TEXT, STRING),
    "text to bytes": (STRING, TEXT, pa.binary()),
    "bytes to text": (pa.binary(), st.binary(), STRING),
    "numbers as text to int64": (STRING, st.integers(-(2**70), 2**70).map(str), INT64),
    "numbers as text to float64": (STRING, FLOATS.map(repr), FLOAT64),
    "numbers as text to decimal": (STRING, CENTS.map(str), pa.decimal128(6, 1)),
    "bool stays": (pa.bool_(), st.booleans(), pa.bool_()),
    "bool to int64": (pa.bool_(), st.booleans(), INT64),
    "instant stays": (UTC_US, INSTANTS, UTC_US),
    "instant of another zone": (pa.timestamp("us", "America/New_York"), INSTANTS, UTC_US),
    "instant to naive": (UTC_US, INSTANTS, NAIVE_US),
    "naive to instant": (NAIVE_US, NAIVE, UTC_US),
    "seconds to microseconds": (pa.timestamp("s", "UTC"), INSTANTS.map(lambda at: at.replace(microsecond=0)), UTC_US),
    "instants as text": (STRING, INSTANTS.map(lambda at: at.isoformat()), UTC_US),
    "naive times as text": (STRING, NAIVE.map(lambda at: at.isoformat(" ")), UTC_US),
    "day stays": (pa.date32(), st.dates(), pa.date32()),
    "day to instant": (pa.date32(), st.dates(date(1700, 1, 1), date(2200, 1, 1)), UTC_US),
    "days as text": (STRING, st.dates(date(1000, 1, 1)).map(lambda day: day.isoformat()), pa.date32()),
    "time stays": (pa.time64("us"), st.times(), pa.time64("us")),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
@effort(few=8, many=500)
def test_no_value_changes(conversion: str, prove: Prove) -> None:
    kind, values, target = CONVERSIONS[conversion]

    def claim(column: list[Any]) -> None:
        series = as_frame(pa.table({"x": pa.array(column, kind)}))["x"]
        try:
            cast = cast_column(series, target, "orders")
        except ContractError:
            assert sum(value is not None for value in column) > 1, "a single value is a bad row, not a bad column"
            return
        assert cast.values.type == target
        for position, (before, after) in enumerate(zip(column, cast.values.to_pylist(), strict=True)):
            if position in cast.failed:
                assert after is None
                assert _same(before, cast.failed[position])
            else:
                assert _same(before, after), f"{before!r} became {after!r}"

    prove(st.lists(st.none() | values, max_size=6), claim)


@pytest.mark.parametrize(
    ("values", "target", "cast", "failed"),
    [
        ([1.5, 2.0], INT64, [None, 2], {0: 1.5}),
        (["7", "seven"], INT64, [7, None], {1: "seven"}),
        ([2**53 + 1, 1], FLOAT64, [None, 1.0], {0: 2**53 + 1}),
        ([Decimal("0.123"), Decimal("1.000")], pa.decimal128(5, 2), [None, Decimal("1.00")], {0: Decimal("0.123")}),
        (["2013-01-08T05:00:00Z", "noon"], UTC_US, [datetime(2013, 1, 8, 5, tzinfo=UTC), None], {1: "noon"}),
    ],
    ids=["half an integer", "no number", "more digits than a float has", "more digits than declared", "no time"],
)
def test_a_value_that_cannot_be_cast_fails_alone(
    values: list[Any], target: pa.DataType, cast: list[Any], failed: dict[int, Any]
) -> None:
    column = cast_column(as_frame(pa.table({"x": values}))["x"], target, "orders")
    assert (column.values.to_pylist(), column.failed) == (cast, failed)


def test_a_column_of_several_python_types_is_cast_value_by_value() -> None:
    column = cast_column(pd.Series([1, "2", "x", None, pd.NaT], dtype=object), INT64, "orders")
    assert (column.values.to_pylist(), column.failed) == ([1, 2, None, None, None], {2: "x"})


def test_types_without_a_conversion_break_the_column() -> None:
    lists = pd.Series([[1], [2]], dtype=pd.ArrowDtype(pa.list_(INT64)), name="tags")
    with pytest.raises(ContractError, match=r"orders: column 'tags' arrives as list.* cannot become string"):
        cast_column(lists, STRING, "orders")


def test_a_column_of_which_no_value_can_be_cast_is_broken() -> None:
    with pytest.raises(ContractError, match=r"not one of the 2 values of column 'amount' can become int64; .* 'a'"):
        cast_column(pd.Series(["a", None, "b"], name="amount"), INT64, "orders")


def test_integers_with_null_stay_integers() -> None:
    """pandas' own frames would make floats of them."""
    frame = as_frame(pa.table({"x": pa.array([2**62 + 1, None])}))
    assert cast_column(frame["x"], INT64, "orders").values.to_pylist() == [2**62 + 1, None]


def _same(before: Any, after: Any) -> bool:
    """Whether two values mean the same, digit for digit; naive times count as UTC."""
    match before, after:
        case None, _:
            return after is None
        case str(), bytes():
            return before.encode() == after
        case bytes(), str():
            return before == after.encode()
        case (datetime(), datetime()):
            return _utc(before) == _utc(after)
        case (date(), datetime()):
            return datetime(before.year, before.month, before.day, tzinfo=UTC) == _utc(after)
        case str(), datetime():
            return _utc(datetime.fromisoformat(before)) == _utc(after)
        case str(), date():
            return date.fromisoformat(before) == after
        case (str(), int() | Decimal()) | (int() | Decimal(), str()):
            return Fraction(before) == Fraction(after)
        case (str(), float()) | (float(), str()):
            return float(before) == float(after)
        case (int() | float() | Decimal(), int() | float() | Decimal()):
            return Fraction(before) == Fraction(after)
        case time(), time():
            return before == after
    return bool(before == after)


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


@pytest.mark.parametrize("beside", [[], ["7"], ["0.125"], ["123456789.000000001"]])
@pytest.mark.parametrize(
    ("value", "text"), [("0.5", "0.5"), ("0.50", "0.5"), ("10", "10"), ("-0.0000001", "-0.0000001")]
)
def test_a_decimal_becomes_the_same_text_whatever_stands_beside_it(beside: list[str], value: str, text: str) -> None:
    column = pa.array([Decimal(one) for one in [value, *beside]])
    cast = cast_column(as_frame(pa.table({"x": column}))["x"], STRING, "orders")
    assert cast.values[0].as_py() == text
