"""`Contract`: rows go through it or become dead letters, each exactly once; a broken column or check is an error."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pytest
from hypothesis import strategies as st
from pandera.typing import Series

from tasks.errors import ContractError
from tasks.transform.contract import Contract, Judged, UtcTimestamp
from tests.orders import OrderSchema, order
from tests.properties.effort import Prove, effort


class AmountSchema(pa.DataFrameModel):
    """A good amount is from 0 to 100."""

    id: int
    amount: float = pa.Field(nullable=True, ge=0, le=100)


def amounts(*values: float | None) -> arrow.Table:
    """Rows numbered from 0."""
    return arrow.table({"id": arrow.array(range(len(values)), arrow.int64()),
                        "amount": arrow.array(values, arrow.float64())})  # fmt: skip


def orders(*rows: dict[str, Any]) -> arrow.Table:
    """Raw orders."""
    return arrow.Table.from_pylist(list(rows))


def judge(raw: arrow.Table, model: type[pa.DataFrameModel] = AmountSchema, **options: Any) -> Judged:
    """`raw` through a contract whose key is `id` unless told otherwise."""
    return Contract("orders", model, **{"key": ["id"], **options}).judge(raw, 0)


def reasons(judged: Judged) -> list[list[tuple[str, str | None, Any]]]:
    """For each dead letter the rules it broke: rule, column, value."""
    return [
        [(reason["rule"], reason["column"], reason["value"]) for reason in json.loads(row)]
        for row in judged.rejected["reasons"].to_pylist()
    ]


def records(judged: Judged) -> list[dict[str, Any]]:
    """The raw records of the dead letters."""
    return [json.loads(record) for record in judged.rejected["record"].to_pylist()]


# Conservation.


class FateSchema(pa.DataFrameModel):
    """What becomes of a row is written in it."""

    id: int
    bad: int = pa.Field(lt=1)


def fate(raw: pd.DataFrame) -> pd.DataFrame:
    """Raise on a row that says so, and make of every other as many rows as it says."""
    if raw["raises"].any():
        raise ValueError("as it says")
    return raw.loc[raw.index.repeat(raw["copies"].astype(int))]


@st.composite
def fates(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to 15 rows, of which not all raise."""
    row = st.fixed_dictionaries(
        {"bad": st.integers(0, 1), "copies": st.integers(0, 3), "raises": st.sampled_from([False, False, True])}
    )
    rows = draw(st.lists(row, min_size=2, max_size=15).filter(lambda rows: not all(row["raises"] for row in rows)))
    return [{"id": number, **row} for number, row in enumerate(rows)]


@effort(few=30, many=2_000)
def test_every_row_of_a_batch_has_exactly_one_outcome(prove: Prove) -> None:
    def claim(rows: list[dict[str, Any]]) -> None:
        raw = arrow.Table.from_pylist(rows)
        judged = judge(raw, FateSchema, transform=fate, drops_rows=True, adds_rows=True)
        assert judged.valid.num_rows + judged.rejected.num_rows - judged.added + judged.filtered == len(rows)
        calm = [row for row in rows if not row["raises"]]
        assert judged.added == sum(max(row["copies"] - 1, 0) for row in calm)
        assert judged.filtered == sum(row["copies"] == 0 for row in calm)
        good = [row["id"] for row in calm for _ in range(row["copies"]) if not row["bad"]]
        assert sorted(judged.valid["id"].to_pylist()) == good
        lost = [row["id"] for row in rows for _ in range(1 if row["raises"] else row["copies"] * row["bad"])]
        assert sorted(record["id"] for record in records(judged)) == lost
        numbers = judged.valid["etl_row"].to_pylist() + judged.rejected["etl_row"].to_pylist()
        assert len(set(numbers)) == len(numbers), "no two rows of a window share a number"

    prove(fates(), claim)


def test_rows_exploded_of_one_share_its_raw_record_but_no_number() -> None:
    raw = arrow.Table.from_pylist([{"id": 1, "bad": 0, "copies": 1}, {"id": 2, "bad": 1, "copies": 3}])
    judged = judge(raw, FateSchema, transform=lambda raw: raw.loc[raw.index.repeat(raw["copies"].astype(int))],
                   adds_rows=True)  # fmt: skip
    assert records(judged) == [{"id": 2, "bad": 1, "copies": 3}] * 3
    assert len(set(judged.rejected["record_hash"].to_pylist())) == 1
    assert len(set(judged.rejected["etl_row"].to_pylist())) == 3


@pytest.mark.parametrize(
    ("transform", "told"),
    [(lambda raw: raw[raw["id"] > 0], "dropped 1 rows"), (lambda raw: pd.concat([raw, raw]), "made 2 more rows")],
    ids=["dropped", "added"],
)
def test_rows_may_vanish_and_appear_only_where_that_is_declared(transform: Any, told: str) -> None:
    with pytest.raises(ContractError, match=told):
        judge(amounts(1, 2), transform=transform)


def test_an_empty_batch_is_judged_too() -> None:
    judged = judge(amounts())
    assert (judged.valid.num_rows, judged.rejected.num_rows, judged.added, judged.filtered) == (0, 0, 0, 0)


# The index.


@pytest.mark.parametrize(
    "loses_it",
    [
        lambda raw: raw.reset_index(drop=True),
        lambda raw: raw.merge(pd.DataFrame({"id": [0, 1, 2], "name": ["a", "b", "c"]}), on="id"),
        lambda raw: pd.concat([raw], ignore_index=True),
        lambda raw: raw.set_index("id", drop=False),
        lambda raw: raw.groupby("id", as_index=False)["amount"].sum(),
    ],
    ids=["reset_index", "merge", "ignore_index", "set_index", "groupby"],
)
def test_a_transform_that_loses_the_index_is_told_so(loses_it: Any) -> None:
    with pytest.raises(ContractError, match=r"orders: the transform lost the frame's index.*Keep it"):
        judge(amounts(1, 2, 3), transform=loses_it)


def test_the_index_is_known_in_a_later_batch_too() -> None:
    contract = Contract("orders", AmountSchema, lambda raw: raw.reset_index(drop=True), key=["id"])
    with pytest.raises(ContractError, match="lost the frame's index"):
        contract.judge(amounts(1, 2, 3), 20_000)


def test_rows_may_change_their_order() -> None:
    judged = judge(amounts(1, -2, 3), transform=lambda raw: raw.sort_values("amount", ascending=False))
    assert judged.valid["id"].to_pylist() == [2, 0]
    assert records(judged) == [{"id": 1, "amount": -2.0}]


# Broken columns and checks.


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (arrow.table({"id": [1, 2]}), "column 'amount' is missing; the columns are id"),
        (arrow.table({"id": [1, 2], "amount": [[1.0], [2.0]]}), "column 'amount' arrives as list"),
        (arrow.table({"id": [1, 2], "amount": ["much", "more"]}), "not one of the 2 values of column 'amount'"),
    ],
    ids=["missing", "without conversion", "nothing castable"],
)
def test_a_broken_column_is_an_error_of_the_run(raw: arrow.Table, told: str) -> None:
    with pytest.raises(ContractError, match=f"orders: .*{told}"):
        judge(raw)


def test_one_value_that_cannot_be_cast_is_a_bad_row() -> None:
    judged = judge(arrow.table({"id": [1, 2], "amount": ["1.5", "much"]}))
    assert judged.valid["amount"].to_pylist() == [1.5]
    assert reasons(judged) == [[("is double", "amount", "much")]]


def test_a_check_that_raises_is_a_broken_contract() -> None:
    class Raises(AmountSchema):
        @pa.check("amount")
        @classmethod
        def sound(cls, amount: Series[float]) -> Series[bool]:
            raise ZeroDivisionError("as it happens")

    with pytest.raises(ContractError, match=r"orders: the check .* of column 'amount' does not judge rows but fails"):
        judge(amounts(1, 2), Raises)


def test_a_check_that_judges_the_whole_frame_at_once_is_a_broken_contract() -> None:
    class AllOrNothing(AmountSchema):
        @pa.dataframe_check
        @classmethod
        def sound(cls, frame: pd.DataFrame) -> bool:
            return False

    with pytest.raises(ContractError, match="the frame does not judge rows"):
        judge(amounts(1, 2), AllOrNothing)


@pytest.mark.parametrize(("key", "cursor", "lacking"), [(["number"], None, "number"), (["id"], "at", "at")])
def test_key_and_cursor_have_to_be_declared(key: list[str], cursor: str | None, lacking: str) -> None:
    with pytest.raises(ContractError, match=f"orders: AmountSchema lacks the column '{lacking}'"):
        Contract("orders", AmountSchema, key=key, cursor=cursor)


def test_a_type_that_no_database_column_has_is_refused_at_once() -> None:
    class Anything(pa.DataFrameModel):
        id: int
        thing: object

    with pytest.raises(ContractError, match="column 'thing' is declared as object"):
        Contract("orders", Anything, key=["id"])


# Rules.


def test_every_rule_that_a_row_broke_is_listed_with_its_value() -> None:
    class Strict(pa.DataFrameModel):
        id: int = pa.Field(lt=10)
        amount: float = pa.Field(ge=0, isin=[1.0, 2.0])
        code: str = pa.Field(str_length={"max_value": 3})

    judged = judge(arrow.table({"id": [1, 20], "amount": [1.0, -5.0], "code": ["abc", "abcd"]}), Strict)
    assert judged.valid["id"].to_pylist() == [1]
    (broken,) = reasons(judged)
    assert sorted(broken) == [
        ("greater_than_or_equal_to(0)", "amount", -5.0),
        ("isin([1.0, 2.0])", "amount", -5.0),
        ("less_than(10)", "id", 20),
        ("str_length(None, 3)", "code", "abcd"),
    ]


def test_a_null_in_the_key_or_cursor_rejects_the_row_by_name() -> None:
    raw = orders(order(1), order(2) | {"id": None}, order(3) | {"updated_at": None})
    judged = judge(raw, OrderSchema, cursor="updated_at")
    assert judged.valid["id"].to_pylist() == [1]
    by_record = dict(
        zip((record["customer"] and record["id"] for record in records(judged)), reasons(judged), strict=True)
    )
    assert ("key is not null", "id", None) in by_record[None]
    assert ("cursor is not null", "updated_at", None) in by_record[3]


def test_a_nullable_key_is_not_null_all_the_same() -> None:
    class Nullable(pa.DataFrameModel):
        id: int = pa.Field(nullable=True)

    judged = judge(arrow.table({"id": [1, None]}), Nullable)
    assert reasons(judged) == [[("key is not null", "id", None)]]


def test_a_null_where_none_may_be_is_a_bad_row() -> None:
    class Named(pa.DataFrameModel):
        id: int
        name: str

    judged = judge(arrow.table({"id": [1, 2], "name": ["a", None]}), Named)
    assert reasons(judged) == [[("not_nullable", "name", None)]]


class SpanSchema(pa.DataFrameModel):
    """What ends has begun before."""

    id: int
    begins: float = pa.Field(nullable=True)
    ends: float = pa.Field(nullable=True)

    @pa.dataframe_check
    @classmethod
    def begins_before_it_ends(cls, frame: pd.DataFrame) -> Series[bool]:
        return frame["begins"] <= frame["ends"]  # type: ignore[return-value]


def test_a_comparison_with_null_breaks_no_rule_of_the_frame() -> None:
    raw = arrow.table({"id": [1, 2, 3, 4], "begins": [1.0, None, 3.0, 9.0], "ends": [2.0, 2.0, None, 1.0]})
    judged = judge(raw, SpanSchema)
    assert judged.valid["id"].to_pylist() == [1, 2, 3]
    assert reasons(judged) == [[("begins_before_it_ends", None, {"id": 4, "begins": 9.0, "ends": 1.0})]]


def test_uniqueness_is_left_to_the_load() -> None:
    class Unique(pa.DataFrameModel):
        id: int = pa.Field(unique=True)

        class Config:
            unique = "id"

    assert judge(arrow.table({"id": [1, 1]}), Unique).valid.num_rows == 2


def test_columns_that_nobody_declared_are_left_out_and_optional_ones_filled() -> None:
    class Optional(pa.DataFrameModel):
        id: int
        note: str | None = pa.Field(nullable=True)

    judged = judge(arrow.table({"id": [1], "more": ["x"]}), Optional)
    assert judged.valid.to_pylist() == [{"etl_row": 0, "id": 1, "note": None}]


def test_a_row_that_the_transform_raises_on_keeps_its_key_and_cursor() -> None:
    def fails(raw: pd.DataFrame) -> pd.DataFrame:
        if (raw["id"] == 2).any():
            raise KeyError("two")
        return raw

    judged = judge(orders(order(1), order(2, day=3)), OrderSchema, transform=fails, cursor="updated_at")
    (letter,) = judged.rejected.to_pylist()
    assert (letter["key_0"], letter["cursor_value"]) == (2, order(2, day=3)["updated_at"])
    assert reasons(judged) == [[("transform", None, "KeyError: 'two'")]]


# Types.


def test_values_survive_to_the_last_digit() -> None:
    class Exact(pa.DataFrameModel):
        id: int
        big: int = pa.Field(nullable=True)
        price: Annotated[pd.ArrowDtype, arrow.decimal128(24, 4)] = pa.Field(nullable=True)
        day: Annotated[pd.ArrowDtype, arrow.date32()] = pa.Field(nullable=True)
        at: UtcTimestamp = pa.Field(nullable=True)
        local: Annotated[pd.ArrowDtype, arrow.timestamp("us")] = pa.Field(nullable=True)

    row = {
        "id": 1,
        "big": 2**62 + 1,
        "price": Decimal("12345678901234567890.0001"),
        "day": date(2026, 2, 28),
        "at": datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        "local": datetime(1899, 12, 31, 23, 59, 59, 999_999),
    }
    nothing = dict.fromkeys(row) | {"id": 2}
    types = {"price": arrow.decimal128(24, 4), "at": arrow.timestamp("us", "UTC")}
    raw = arrow.table({name: arrow.array([row[name], nothing[name]], types.get(name)) for name in row})
    assert judge(raw, Exact).valid.drop_columns("etl_row").to_pylist() == [row, nothing]


def test_the_fingerprint_changes_with_rules_and_transform_and_with_nothing_else() -> None:
    class Looser(pa.DataFrameModel):
        id: int
        amount: float = pa.Field(nullable=True, ge=0, le=1_000)

    plain = Contract("orders", AmountSchema, key=["id"]).fingerprint
    assert Contract("others", AmountSchema, key=["id"]).fingerprint == plain
    assert Contract("orders", Looser, key=["id"]).fingerprint != plain
    assert Contract("orders", AmountSchema, fate, key=["id"]).fingerprint != plain
