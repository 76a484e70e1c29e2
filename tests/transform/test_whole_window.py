"""`WholeWindow`: a transform that is called once for all rows of a window, as far as they are declared to fit."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pytest

from tasks.errors import ConfigError, ContractError
from tasks.extract.rows import RowsExtract
from tasks.load.scd2 import Scd2
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, WholeWindow, run_pipeline
from tasks.transform.contract import Contract
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS
from tests.extract.shop import WHOLE, RecordSchema, Serve, changed, record
from tests.orders import DAY, ORDERS, SNAPSHOT, START, order, put
from tests.paged_api import PagedApi
from tests.transform.test_references import letters


class RankSchema(pa.DataFrameModel):
    id: int
    place: int = pa.Field(lt=50_000)


def ranked(raw: pd.DataFrame) -> pd.DataFrame:
    """The place of each row among all of them, the highest amount first."""
    return raw.assign(place=raw["amount"].rank(ascending=False).astype("int64[pyarrow]"))


def rising(rows: int) -> RowsExtract:
    """Amounts that rise with the number; a batch holds 50,000."""
    return RowsExtract(arrow.table({"id": range(rows), "amount": [float(number) for number in range(rows)]}), "rising")


RANKED = Pipeline(
    "ranks", rising(50_001), RankSchema, Upsert("target", "fct_ranks", ["id"]), transform=WholeWindow(ranked)
)


def test_the_function_sees_all_rows_and_each_keeps_its_passport(sqlite: Databases) -> None:
    """Two batches: the last row of all is the first, and the two that are too far behind have their own records."""
    counts = run_pipeline(RANKED).counts
    assert (counts.inserted, counts.rejected) == (49_999, 2)
    assert [(key, record["id"]) for key, record, _ in letters(sqlite.target)] == [("0", 0), ("1", 1)]
    with sqlite.target.connect() as connection:
        last = connection.exec_driver_sql("SELECT id FROM fct_ranks WHERE place = 1").scalar_one()
    assert last == 50_000


def test_a_window_that_is_larger_than_declared_is_refused_with_the_remedy(sqlite: Databases) -> None:
    small = replace(RANKED, transform=WholeWindow(ranked, max_rows=50_000))
    told = r"ranks .*: the window has more than max_rows=50,000 rows.*Pipeline\(split=.*WholeWindow\(max_rows="
    with pytest.raises(ConfigError, match=told):
        run_pipeline(small)


def test_the_bound_holds_before_the_rows_are_in_memory() -> None:
    read = []

    def batches() -> Iterator[arrow.Table]:
        for number in range(100):
            read.append(number)
            yield arrow.table({"id": [number] * 10})

    with pytest.raises(ConfigError, match="max_rows=25"):
        list(WholeWindow(ranked, max_rows=25).gathered(batches(), "ranks"))
    assert read == [0, 1, 2]


def test_shorter_windows_are_whole_each_for_itself(sqlite: Databases) -> None:
    seen: list[int] = []

    def count(raw: pd.DataFrame) -> pd.DataFrame:
        seen.append(len(raw))
        return raw

    put(sqlite.source, [order(number, day=number // 3) for number in range(6)])
    daily = replace(ORDERS, transform=WholeWindow(count, max_rows=3), split=DAY)
    run_pipeline(daily, START, START + 2 * DAY)
    assert seen == [3, 3]


def test_a_window_without_rows_is_nothing_to_the_function(sqlite: Databases) -> None:
    put(sqlite.source, [])
    assert run_pipeline(replace(SNAPSHOT, transform=WholeWindow(ranked))).counts.extracted == 0


def test_a_function_that_raises_fails_the_run_and_is_not_tried_on_a_half() -> None:
    calls = []

    def fails(raw: pd.DataFrame) -> pd.DataFrame:
        calls.append(len(raw))
        raise ValueError("as it happens")

    contract = Contract("ranks", RankSchema, WholeWindow(fails), key=["id"])
    with pytest.raises(
        ContractError, match="ranks: the transform of the whole window fails: ValueError: as it happens"
    ):
        contract.judge(rising(10).rows, 0)
    assert calls == [10]


def test_it_has_to_keep_the_index_like_any_other() -> None:
    contract = Contract("ranks", RankSchema, WholeWindow(lambda raw: ranked(raw).reset_index(drop=True)), key=["id"])
    with pytest.raises(ContractError, match="the transform lost the frame's index"):
        contract.judge(rising(10).rows, 0)


def test_batches_that_differ_in_a_type_become_one_or_are_refused() -> None:
    whole = WholeWindow(ranked)
    (one,) = whole.gathered(iter([arrow.table({"a": [1]}), arrow.table({"a": [None]}), arrow.table({"b": [1.5]})]), "x")
    assert one.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": None}, {"a": None, "b": 1.5}]
    with pytest.raises(ContractError, match="x: the batches of the window cannot be put together"):
        list(whole.gathered(iter([arrow.table({"a": [1]}), arrow.table({"a": ["one"]})]), "x"))
    with pytest.raises(ContractError, match="cannot be put together"):
        list(whole.gathered(iter([arrow.table({"a": [2**60 + 1]}), arrow.table({"a": [0.5]})]), "x"))


def test_a_feed_has_no_window_that_could_be_whole(sqlite: Databases) -> None:
    with pytest.raises(ConfigError, match=r"bookings: WholeWindow sees all rows.*'bookings' tells changes"):
        run_pipeline(replace(BOOKINGS, transform=WholeWindow(ranked)))


def test_a_history_of_what_tells_no_deletes_may_be_made_of_whole_windows(sqlite: Databases) -> None:
    put(sqlite.source, [order(number) for number in range(3)])
    history = Scd2("target", "dim_orders", key=["id"])
    assert run_pipeline(replace(ORDERS, load=history, transform=WholeWindow(lambda raw: raw))).counts.inserted == 3


def test_an_api_is_read_whole_for_it_and_not_in_parts(sqlite: Databases, serve: Serve) -> None:
    seen: list[int] = []

    def count(raw: pd.DataFrame) -> pd.DataFrame:
        seen.append(len(raw))
        return raw

    serve(PagedApi([record(number) for number in range(9)], size=2))
    whole = replace(changed(WHOLE, checkpoint=2), transform=WholeWindow(count), schema=RecordSchema)
    assert len(run_pipeline(whole).windows) == 1
    assert seen == [9]


def test_its_fingerprint_is_that_of_the_function_and_not_that_of_a_batch() -> None:
    batch, whole, again = (
        Contract("ranks", RankSchema, transform).fingerprint
        for transform in (ranked, WholeWindow(ranked), WholeWindow(ranked, max_rows=5))
    )
    assert batch != whole == again


def test_a_bound_is_a_number_of_rows() -> None:
    with pytest.raises(ConfigError, match="max_rows is how many rows fit in memory, got 0"):
        WholeWindow(ranked, max_rows=0)
