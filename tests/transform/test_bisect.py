"""`run_transform`: a row that a transform cannot stand costs that row, and nothing else."""

from collections.abc import Callable, Collection

import pandas as pd
import pytest
from hypothesis import strategies as st

from tasks.errors import ContractError
from tasks.transform.bisect import run_transform
from tests.properties.effort import Prove, effort


def failing_on(guilty: Collection[int]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A transform that raises, with the value in its message, where a guilty one is in the batch; else doubles all."""

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        for value in raw["value"]:
            if value in guilty:
                raise ValueError(f"cannot stand {value}")
        return raw.assign(doubled=raw["value"] * 2)

    return transform


def batch(size: int) -> pd.DataFrame:
    """Rows whose value is their index."""
    return pd.DataFrame({"value": range(100, 100 + size)}, index=range(100, 100 + size))


@st.composite
def subsets(draw: st.DrawFn) -> tuple[int, set[int]]:
    """A batch's size, and fewer guilty rows than it has."""
    size = draw(st.integers(2, 15))
    return size, draw(st.sets(st.integers(100, 99 + size), max_size=size - 1))


@effort(few=40, many=2_000)
def test_exactly_the_guilty_rows_are_found(prove: Prove) -> None:
    def claim(example: tuple[int, set[int]]) -> None:
        size, guilty = example
        out, broken = run_transform(failing_on(guilty), batch(size), "orders")
        assert set(broken) == guilty
        assert all(str(error) == f"cannot stand {passport}" for passport, error in broken.items())
        innocent = batch(size).drop(index=list(guilty))
        pd.testing.assert_frame_equal(out, innocent.assign(doubled=innocent["value"] * 2))

    prove(subsets(), claim)


def test_a_few_guilty_rows_of_a_large_batch_are_found() -> None:
    guilty = {100, 4_321, 10_099}
    out, broken = run_transform(failing_on(guilty), batch(10_000), "orders")
    assert (set(broken), len(out)) == (guilty, 9_997)


def test_a_transform_that_fails_on_every_row_is_broken_itself() -> None:
    with pytest.raises(ContractError, match="orders: the transform fails on every row of a batch: ValueError: cannot"):
        run_transform(failing_on(range(100, 200)), batch(50), "orders")


def test_a_row_alone_in_its_batch_is_guilty_itself() -> None:
    out, broken = run_transform(failing_on([100]), batch(1), "orders")
    assert (list(broken), len(out)) == ([100], 0)


def test_a_transform_that_returns_no_frame_is_broken() -> None:
    with pytest.raises(ContractError, match="returned NoneType instead of a DataFrame"):
        run_transform(lambda raw: None, batch(3), "orders")  # type: ignore[arg-type,return-value]


def test_a_transform_cannot_change_the_raw_batch_between_its_tries() -> None:
    """It adds a column in place and then raises; the halves come to it without that column."""

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        assert "seen" not in raw.columns
        raw["seen"] = True
        return failing_on([102])(raw)

    raw = batch(4)
    _, broken = run_transform(transform, raw, "orders")
    assert set(broken) == {102}
    assert list(raw.columns) == ["value"]
