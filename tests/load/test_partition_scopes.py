"""`ReplacePartition` without a window of its cursor: partitions that came in, or that the extract says it brings."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import BigInteger, Column, Date, DateTime, MetaData, Table, Text, insert

from tasks.column_types import UtcDateTime
from tasks.errors import GuardRefused
from tasks.extract.feed import Opening
from tasks.extract.rows import RowsExtract
from tasks.extract.window_chunk import WindowChunk
from tasks.pipeline import Pipeline, run_pipeline
from tasks.window import Window, joined_windows
from tests.conftest import Databases, on_every_target, on_postgresql_too
from tests.load.sales import by_dates, sale, sales, sold
from tests.orders import DAY, START


@on_postgresql_too
@pytest.mark.parametrize(
    ("partition", "grain"), [("day", "day"), ("day", None), ("sold_at", "day"), ("written_at", "day")]
)
def test_without_a_window_the_partitions_that_came_in_are_replaced(
    databases: Databases, partition: str, grain: Any
) -> None:
    run_pipeline(sales(partition, sale(1), sale(2, 23), sale(3, 24), sale(4, 47), sale(5, 48), grain=grain))
    counts = run_pipeline(sales(partition, sale(3, 25), sale(9, 100), grain=grain)).counts
    assert (counts.updated, counts.inserted, counts.deleted) == (1, 1, 1)
    assert sold(databases) == [1, 2, 3, 5, 9]


def test_a_month_of_dates_is_replaced(databases: Databases) -> None:
    run_pipeline(sales("day", sale(1), sale(2, 24 * 30), sale(3, 24 * 31), grain="month"))
    run_pipeline(sales("day", sale(4, 24 * 3), grain="month"))
    assert sold(databases) == [3, 4]


def test_a_partition_may_be_any_value(databases: Databases) -> None:
    run_pipeline(sales("shop", sale(1), sale(2), sale(3, shop="south"), sale(4, shop="o'west")))
    run_pipeline(sales("shop", sale(2), sale(5, shop="o'west")))
    assert sold(databases) == [2, 3, 5]


@on_every_target
@pytest.mark.parametrize(
    ("zone", "kept"), [("UTC", [1, 4]), ("Asia/Kolkata", [1, 2, 4]), ("America/St_Johns", [1, 2, 4])]
)
def test_an_hour_is_that_of_the_zone(databases: Databases, zone: str, kept: list[int]) -> None:
    """Half an hour ahead, or behind, an hour begins at half past: 12:20 lies in another one than 12:40."""
    run_pipeline(sales("sold_at", sale(1, 11.99), sale(2, 12.3), sale(3, 12.7), sale(4, 13.6), grain="hour", zone=zone))
    run_pipeline(sales("sold_at", sale(4, 13.6), sale(5, 12.9), grain="hour", zone=zone))
    assert sold(databases) == [*kept, 5]


@on_postgresql_too
def test_as_many_ranges_as_came_in_are_replaced(databases: Databases) -> None:
    """Every other hour: nothing of them can be joined."""
    first = [sale(number, hours=number) for number in range(2_200)]
    run_pipeline(sales("sold_at", *first, grain="hour"))
    counts = run_pipeline(
        sales("sold_at", *(sale(5_000 + n, hours=n) for n in range(0, 2_200, 2)), grain="hour")
    ).counts
    assert (counts.inserted, counts.deleted) == (1_100, 1_100)
    assert sold(databases) == [*range(1, 2_200, 2), *range(5_000, 7_200, 2)]


def test_an_extract_of_nothing_without_a_window_deletes_nothing(sqlite: Databases) -> None:
    run_pipeline(sales("day", sale(1)))
    empty = replace(sales("day"), extract=RowsExtract(pa.Table.from_pylist([sale(1)]).slice(0, 0), "sales"))
    assert run_pipeline(empty).counts.deleted == 0
    assert sold(sqlite) == [1]


def test_rows_in_memory_lie_in_no_window_whatever_their_cursor(sqlite: Databases) -> None:
    run_pipeline(sales("sold_at", sale(1), sale(2, 30), cursor="sold_at", grain="day"))
    run_pipeline(sales("sold_at", sale(3, 1), cursor="sold_at", grain="day"))
    assert sold(sqlite) == [2, 3], "the day behind the watermark was not theirs"


@dataclass(frozen=True)
class Changed:
    """Rows, and the ranges they are all there is of."""

    rows: pa.Table
    ranges: tuple[Window, ...]

    connection = dataset = "memory"
    cursor = initial = None
    lookback = timedelta(0)
    tells_deletes = False

    def bound(self) -> None: ...

    def batches(self, window: Window) -> Iterator[pa.Table]:
        yield self.rows

    def null_cursors(self) -> int:
        return 0

    def unfinished(self, position: str | None) -> None: ...

    def open_window(self, asked: Opening) -> "ChangedChunk":
        return ChangedChunk(self, asked.window, scope=self.ranges)


@dataclass(frozen=True)
class ChangedChunk(WindowChunk):
    scope: tuple[Window, ...] = ()


def changed(partition: str, ranges: list[tuple[float, float]], *rows: dict[str, Any], **how: Any) -> Pipeline:
    """A pipeline that brings everything of these ranges, in hours."""
    windows = tuple(Window(*(START + timedelta(hours=bound) for bound in bounds)) for bounds in ranges)
    table = pa.Table.from_pylist([sale(0), *rows]).slice(1)
    return replace(sales(partition, sale(1), **how), extract=Changed(table, windows))


def test_the_ranges_that_the_extract_brings_are_replaced(databases: Databases) -> None:
    run_pipeline(sales("sold_at", *(sale(number, 24 * number) for number in range(6)), grain="day"))
    ranges = [(24.0, 48.0), (48.0, 72.0), (96.0, 120.0)]
    with pytest.raises(GuardRefused, match="nothing came in for 2026-01-02, 2026-01-05, of which"):
        run_pipeline(changed("sold_at", ranges, sale(2, 48), sale(5, 121), grain="day"))
    counts = run_pipeline(changed("sold_at", ranges, sale(2, 49), sale(5, 121), grain="day", allow_empty=True)).counts
    assert (counts.extracted, counts.updated, counts.deleted) == (2, 2, 2), "what lies outside comes in all the same"
    assert sold(databases) == [0, 2, 3, 5]


def test_an_extract_that_brings_no_range_deletes_nothing(sqlite: Databases) -> None:
    run_pipeline(sales("sold_at", sale(1), sale(2), grain="day"))
    run_pipeline(changed("sold_at", [], sale(1, 1), grain="day"))
    assert sold(sqlite) == [1, 2]


@pytest.mark.parametrize(("zone", "begins"), [("America/New_York", 29.0), ("Asia/Tokyo", 15.0), ("UTC", 0.5)])
def test_a_range_holds_the_dates_that_begin_in_it(databases: Databases, zone: str, begins: float) -> None:
    """The 2nd of January begins at 05:00 UTC in New York, in Tokyo at 15:00 of the day before."""
    how: dict[str, Any] = {"grain": "day", "zone": zone, "allow_empty": True}
    run_pipeline(sales("day", *(sale(number, 24 * number) for number in range(4)), **how))
    run_pipeline(changed("day", [(begins, begins + 24)], sale(9, 24), **how))
    assert sold(databases) == [0, 2, 3, 9]


@on_postgresql_too
def test_a_window_of_dates_replaces_those_it_reads(databases: Databases) -> None:
    """A bound within a day is that day's."""
    source = MetaData()
    columns = {"id": BigInteger, "day": Date, "shop": Text, "sold_at": UtcDateTime, "written_at": DateTime}
    table = Table("sales", source, *(Column(name, kind) for name, kind in columns.items()))
    source.create_all(databases.source)
    run_pipeline(sales("day", *(sale(number, 24 * number) for number in range(5)), grain="day"))
    with databases.source.begin() as connection:
        connection.execute(insert(table), [sale(6, 24), sale(7, 48), sale(8, 72)])
    counts = run_pipeline(by_dates(), START + 1.5 * DAY, START + 2.2 * DAY).counts
    assert (counts.extracted, counts.inserted, counts.deleted) == (2, 2, 2)
    assert sold(databases) == [0, 3, 4, 6, 7]


def test_windows_that_touch_are_one_range() -> None:
    one, two, three, four = (
        Window(START + first * DAY, START + end * DAY) for first, end in ((0, 1), (1, 2), (1, 3), (5, 6))
    )
    assert joined_windows([four, two, one, three]) == [Window(START, START + 3 * DAY), four]
    assert joined_windows([Window(None, START), Window(START, None)]) == [Window()]
    assert joined_windows([Window(START, START)]) == []
