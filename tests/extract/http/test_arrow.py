"""Records as Arrow tables: every value exactly as it came."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import SourceError
from tasks.extract.http.shapes.arrow import Record, arrow_table
from tasks.extract.http.shapes.bodies import Body
from tasks.extract.http.shapes.shape import Shape
from tasks.transform.contract import Contract, UtcTimestamp
from tests.extract.http.documents import SCALARS, dumped

D = Decimal


@pytest.mark.parametrize(
    ("values", "kind", "read_as"),
    [
        ([1, None, 2**63 - 1], pa.int64(), [1, None, 2**63 - 1]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, None], pa.bool_(), [True, None]),
        (
            [{"a": 1}, {"b": "x"}, None],
            pa.struct({"a": pa.int64(), "b": pa.string()}),
            [{"a": 1, "b": None}, {"a": None, "b": "x"}, None],
        ),
        ([[1, 2], None, [], [None]], pa.list_(pa.int64()), [[1, 2], None, [], [None]]),
        ([None, None], pa.null(), [None, None]),
        ([{}, None], pa.struct([]), [{}, None]),
        (["a", 1, None, D("2.50"), True, {"k": [1]}], pa.string(), ["a", "1", None, "2.50", "true", '{"k": [1]}']),
        ([2**63, 1], pa.string(), ["9223372036854775808", "1"]),
        (["a\ud83d"], pa.string(), ["a\\ud83d"]),
    ],
)
def test_a_column_takes_the_narrowest_type_that_keeps_every_value(
    values: list[object], kind: pa.DataType, read_as: list[object]
) -> None:
    column = arrow_table([{"x": value} for value in values]).column("x")
    assert column.type == kind
    assert column.to_pylist() == read_as


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([D("0.5"), None, D("-12.25")], pa.decimal128(4, 2)),
        ([1, D("2.5")], pa.decimal128(2, 1)),
        ([2**53 + 1, D("0.5")], pa.decimal128(17, 1)),
        ([2**64, D("0.5")], pa.decimal128(21, 1)),
        ([D("1E+3"), D("0.00")], pa.decimal128(6, 2)),
        ([D("1E-7")], pa.decimal128(7, 7)),
        ([D("0")], pa.decimal128(1, 0)),
        ([D("9" * 37 + ".5")], pa.decimal128(38, 1)),
        ([D("9" * 38 + ".5")], pa.decimal256(39, 1)),
        ([D("-" + "9" * 38 + "." + "9" * 38)], pa.decimal256(76, 38)),
    ],
)
def test_decimals_and_integers_among_them_have_just_the_digits_they_need(
    values: list[object], kind: pa.DataType
) -> None:
    table = arrow_table([{"x": value, "struct": {"y": value}, "list": [value]} for value in values])
    columns = [table.column("x"), table.column("struct").combine_chunks().field("y")]
    for column in (*columns, table.column("list").combine_chunks().values):
        assert column.type == kind
        assert column.to_pylist() == values


@pytest.mark.parametrize(
    ("values", "read_as"),
    [
        ([D("9" * 39 + "." + "9" * 38), 1], ["9" * 39 + "." + "9" * 38, "1"]),
        ([D("1E+400")], ["1E+400"]),
        ([D("1E-77")], ["1E-77"]),
        ([D("1E+40"), D("1E-40")], ["1E+40", "1E-40"]),
        ([D("0E-80"), D("5")], ["0E-80", "5"]),
        ([D("0.5"), True], ["0.5", "true"]),
        ([D("0.5"), "x"], ["0.5", "x"]),
        ([D("0.5"), "NaN"], ["0.5", "NaN"]),
        ([{"a": D("0.50")}, {"a": True}], ['{"a": 0.50}', '{"a": true}']),
        ([[D("0.5")], [True]], ["[0.5]", "[true]"]),
        ([1, True], ["1", "true"]),
        ([0.5, True], ["0.5", "true"]),
        ([2**53 + 1, 0.5], ["9007199254740993", "0.5"]),
        ([{"a": 1}, [1]], ['{"a": 1}', "[1]"]),
    ],
)
def test_what_has_no_type_in_common_or_too_many_digits_becomes_text(values: list[object], read_as: list[str]) -> None:
    column = arrow_table([{"x": value} for value in values]).column("x")
    assert column.type == pa.string()
    assert column.to_pylist() == read_as


def test_columns_are_the_union_of_keys_in_order_of_appearance() -> None:
    table = arrow_table([{"b": 1}, {"a": 2, "b": 3}, {"c": 4}])
    assert table.column_names == ["b", "a", "c"]
    assert table.to_pylist() == [
        {"b": 1, "a": None, "c": None},
        {"b": 3, "a": 2, "c": None},
        {"b": None, "a": None, "c": 4},
    ]


def test_records_without_any_field_are_refused_and_not_lost() -> None:
    assert arrow_table([]).num_rows == 0
    with pytest.raises(SourceError, match="All 2 records"):
        arrow_table([{}, {}])


def test_a_record_that_is_nested_without_end_is_refused() -> None:
    value: object = 1
    for _ in range(5_000):
        value = {"a": value}
    with pytest.raises(SourceError, match="nested too deep"):
        arrow_table([{"x": value}])


# Any records, there and back.

VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2)
)
FIELDS = st.sampled_from(["a", "b", "c"]) | st.text(max_size=3)


def same(found: object, given: object) -> bool:
    """Whether a value has come back: numbers as equal ones, truth values as such, absent fields as NULL."""
    if isinstance(given, dict):
        if not isinstance(found, dict) or not given.keys() <= found.keys():
            return False
        return all(same(member, given.get(name)) for name, member in found.items())
    if isinstance(given, list):
        return isinstance(found, list) and len(found) == len(given) and all(map(same, found, given))
    return isinstance(found, bool) == isinstance(given, bool) and found == given


@settings(deadline=None)
@given(st.lists(st.dictionaries(FIELDS, VALUES, min_size=1, max_size=4), min_size=1, max_size=6))
@example([{"a": D("0.5")}, {"a": 9007199254740993}])
@example([{"a": [D("0.5"), 9007199254740993]}, {"a": [1]}])
def test_any_json_goes_through_arrow_and_back_exactly(records: list[Record]) -> None:
    """The model is `json.loads(parse_float=Decimal)` of the same text."""
    text = dumped(records)
    model = json.loads(text, parse_float=Decimal)
    shape = Shape()
    table = pa.concat_tables(shape.page(shape.read(Body.of(text.encode()))).tables())
    assert table.num_rows == len(records)
    assert table.column_names == list(dict.fromkeys(name for record in model for name in record))
    for name in table.column_names:
        is_text = table.column(name).type == pa.string()
        for record, value in zip(model, table.column(name).to_pylist(), strict=True):
            given_value = record.get(name)
            if is_text and given_value is not None and not isinstance(given_value, str):
                value = json.loads(value, parse_float=Decimal)
            assert same(value, given_value), (value, given_value)


# What a transform and a contract see.


def rows(text: str, **shape_args: object) -> pa.Table:
    shape = Shape(**shape_args)  # type: ignore[arg-type]
    return pa.concat_tables(shape.page(shape.read(Body.of(text.encode()))).tables())


TEMPS = '[{"temp": 32.5}, {"temp": null}, {"temp": 50}]'


def frame(table: pa.Table) -> pd.DataFrame:
    found: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return found


def test_a_transform_computes_with_decimals_as_the_docstring_says() -> None:
    temp = frame(rows(TEMPS))["temp"]
    assert temp.dtype == pd.ArrowDtype(pa.decimal128(3, 1))
    assert (temp * 2).tolist() == [65, pd.NA, 100]
    assert (temp * 1.8).tolist() == [58.5, pd.NA, 90.0]
    assert (temp > 40).tolist() == (temp > 40.5).tolist() == [False, pd.NA, True]
    assert (temp == 32.5).tolist() == [True, pd.NA, False]
    assert temp.mean() == Decimal("41.3")
    refusals: list[Callable[[], object]] = [
        lambda: (temp - 32) * 5 / 9,
        lambda: temp.fillna(0.0),
        lambda: temp % 2,
        lambda: temp.cumsum(),
        lambda: pd.to_numeric(temp),
    ]
    for refused in refusals:
        with pytest.raises((pa.ArrowInvalid, NotImplementedError, TypeError, ValueError)):
            refused()
    celsius = (temp.astype("float64[pyarrow]") - 32) * 5 / 9
    assert celsius.dropna().tolist() == pytest.approx([0.2777778, 10])


def test_numbers_may_be_declared_to_be_floats() -> None:
    temp = frame(rows(TEMPS, numbers="float"))["temp"]
    assert temp.dtype == pd.ArrowDtype(pa.float64())
    assert ((temp - 32) * 5 / 9).dropna().tolist() == pytest.approx([0.2777778, 10])


def test_nan_and_infinity_which_are_no_json_are_texts_and_in_float_mode_floats() -> None:
    text = '[{"x": NaN}, {"x": -Infinity}, {"x": 0.5}]'
    assert rows(text).column("x").to_pylist() == ["NaN", "-Infinity", "0.5"]
    assert rows('[{"x": NaN}, {"x": 1}]').column("x").to_pylist() == ["NaN", "1"]
    found = rows(text, numbers="float").column("x").to_pylist()
    assert math.isnan(found[0]) and found[1:] == [-math.inf, 0.5]


class Reading(pandera.DataFrameModel):
    at: UtcTimestamp
    temp: float = pandera.Field(nullable=True)
    count: int
    price: pd.ArrowDtype = pandera.Field(dtype_kwargs={"pyarrow_dtype": pa.decimal128(38, 2)})


def judged(text: str, **shape_args: object) -> list[Record]:
    found: list[Record] = (
        Contract("readings", Reading).judge(rows(text, **shape_args), 0).valid.drop(["etl_row"]).to_pylist()
    )
    return found


@pytest.mark.parametrize("numbers", ["exact", "float"])
def test_a_contract_makes_of_exact_numbers_what_the_schema_says(numbers: str) -> None:
    text = '[{"at": "2013-01-08T06:00:00Z", "temp": 0.1, "count": 3.0, "price": 12.30}]'
    [row] = judged(text, numbers=numbers)
    assert (row["temp"], row["count"], row["price"]) == (0.1, 3, Decimal("12.30"))
    assert isinstance(row["temp"], float) and isinstance(row["count"], int)


def test_digits_that_no_float_holds_arrive_in_a_decimal_column() -> None:
    [row] = judged('[{"at": "2013-01-08", "temp": 1, "count": 9007199254740993, "price": 90071992547409931234567.89}]')
    assert row["count"] == 9007199254740993
    assert row["price"] == Decimal("90071992547409931234567.89")


def test_a_time_keeps_its_zone_and_becomes_the_instant_it_names() -> None:
    text = '[{"at": "2013-07-08T06:00:00%s", "temp": null, "count": 1, "price": 1}]'
    for zone, hour in (("+02:00", 4), ("-05:30", 11), ("Z", 6), ("", 6)):
        assert rows(text % zone).column("at").to_pylist() == [f"2013-07-08T06:00:00{zone}"]
        minute = 30 if zone == "-05:30" else 0
        assert judged(text % zone)[0]["at"] == datetime(2013, 7, 8, hour, minute, tzinfo=UTC)
