"""Deletes: hard or marked, and never undone by what is older."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, MetaData, Table, inspect, text

from tasks.change_columns import OPERATION
from tasks.errors import ConfigError, SourceError
from tasks.extract.deleted import with_operations
from tasks.extract.rows import RowsExtract
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.tombstones import tombstones
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases, on_postgresql_too
from tests.orders import DAY, ORDERS, SOURCE, START, loaded, order, put
from tests.properties.effort import Prove, effort

MARKED = Upsert("target", "fct_orders", key=["id"], soft_delete="deleted_at")
FLAGGED = TableExtract("source", "orders", cursor="updated_at", deleted="gone")

Event = tuple[int, int, float | None]
"""A key, the day it is of, and the amount; None deletes."""


def events(*changes: Event) -> RowsExtract:
    """A batch of a source that tells of deletes."""
    rows = [
        order(number, amount=amount, day=day) | {OPERATION: "delete" if amount is None else "update"}
        for number, day, amount in changes
    ]
    return RowsExtract(pa.Table.from_pylist(rows), "orders", cursor="updated_at")


def load(*changes: Event, soft: bool = False) -> Any:
    """Run a pipeline over `changes`; its counts."""
    pipeline = replace(ORDERS, extract=events(*changes), load=MARKED if soft else ORDERS.load)
    return run_pipeline(pipeline).counts


def alive(databases: Databases, *, soft: bool) -> dict[int, float]:
    """What the target holds, but for what is marked as deleted."""
    condition = " WHERE deleted_at IS NULL" if soft else ""
    with databases.target.connect() as connection:
        found = connection.execute(text(f"SELECT id, amount FROM fct_orders{condition}"))
        return {row.id: row.amount for row in found}


both = pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])


@both
def test_an_older_version_of_a_deleted_row_that_comes_late_is_stale(databases: Databases, soft: bool) -> None:
    load((1, 1, 1.0), (2, 1, 1.0), soft=soft)
    assert load((1, 5, None), soft=soft).deleted == 1
    counts = load((1, 3, 3.0), (2, 3, 3.0), soft=soft)
    assert (counts.stale, counts.updated) == (1, 1)
    assert alive(databases, soft=soft) == {2: 3.0}


@both
def test_a_delete_that_comes_before_its_row_keeps_the_row_out(databases: Databases, soft: bool) -> None:
    assert load((1, 5, None), soft=soft).unchanged == 1
    assert load((1, 5, 1.0), soft=soft).stale == 1
    assert alive(databases, soft=soft) == {}


@both
def test_a_row_that_returns_after_its_delete_is_there_again(databases: Databases, soft: bool) -> None:
    load((1, 1, 1.0), soft=soft)
    load((1, 5, None), soft=soft)
    counts = load((1, 6, 6.0), soft=soft)
    assert (counts.inserted, counts.updated) == ((0, 1) if soft else (1, 0))
    assert alive(databases, soft=soft) == {1: 6.0}
    with databases.target.connect() as connection:
        left = connection.execute(text("SELECT count(*) FROM etl_tombstones_fct_orders")).scalar_one()
    assert left == 0


@both
def test_a_second_delete_moves_the_time_before_which_nothing_returns(databases: Databases, soft: bool) -> None:
    load((1, 1, 1.0), soft=soft)
    load((1, 5, None), soft=soft)
    assert load((1, 9, None), soft=soft).unchanged == 1
    assert load((1, 7, 7.0), soft=soft).stale == 1
    assert alive(databases, soft=soft) == {}


@both
def test_a_delete_older_than_the_row_buries_nothing(databases: Databases, soft: bool) -> None:
    load((1, 5, 1.0), soft=soft)
    assert load((1, 3, None), soft=soft).stale == 1
    assert load((1, 5, 2.0), soft=soft).updated == 1


def test_a_row_that_is_marked_keeps_its_last_values_and_says_when(databases: Databases) -> None:
    began = datetime.now(UTC)
    load((1, 1, 1.0), (2, 1, 1.0), soft=True)
    load((1, 5, None), soft=True)
    marked = text("SELECT amount, deleted_at FROM fct_orders WHERE id = 1")
    with databases.target.connect() as connection:
        row = connection.execute(marked).one()
    marked_at = row.deleted_at if isinstance(row.deleted_at, datetime) else datetime.fromisoformat(row.deleted_at)
    assert row.amount == 1.0
    assert marked_at.replace(tzinfo=UTC) >= began.replace(microsecond=0)
    assert load((1, 6, None), (2, 6, None), soft=True).deleted == 1
    with databases.target.connect() as connection:
        assert connection.execute(marked).one() == row


def test_a_mark_may_not_have_the_name_of_a_column_of_the_contract() -> None:
    pipeline = replace(ORDERS, load=replace(MARKED, soft_delete="amount"))
    with pytest.raises(ConfigError, match="the column 'amount' is written by the load"):
        run_pipeline(pipeline)


def test_without_deletes_no_tombstones_are_kept(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    assert not [name for name in inspect(sqlite.target).get_table_names() if "tombstones" in name]


def test_a_long_name_of_a_target_has_tombstones_of_its_own() -> None:
    long = [Table("t" * 58 + end, MetaData(), Column("id", Boolean), Column("at", Boolean)) for end in "ab"]
    names = {table.name for target in long for table in tombstones(target, ["id"], "at")}
    assert len(names) == 2
    assert max(map(len, names)) <= 63


@on_postgresql_too
@effort(few=5, many=300)
@both
def test_in_whatever_order_changes_are_loaded_the_newest_of_each_row_decides(
    databases: Databases, soft: bool, prove: Prove
) -> None:
    """Two changes of a row never have the same time here: what then is newer, nobody can tell."""

    def claim(example: tuple[list[Event], list[int]]) -> None:
        changes, cuts = example
        newest: dict[int, Event] = {}
        for change in changes:
            if change[0] not in newest or change[1] > newest[change[0]][1]:
                newest[change[0]] = change
        _forget(databases)
        places = sorted({0, len(changes), *(cut % (len(changes) + 1) for cut in cuts)})
        for start, end in itertools.pairwise(places):
            load(*changes[start:end], soft=soft)
        assert alive(databases, soft=soft) == {key: amount for key, _, amount in newest.values() if amount is not None}

    change = st.tuples(st.integers(0, 2), st.integers(0, 8), st.one_of(st.none(), st.sampled_from([1.0, 2.0])))
    changes = st.lists(change, min_size=1, max_size=10, unique_by=lambda one: one[:2])
    prove(st.tuples(changes, st.lists(st.integers(0, 10), max_size=3)), claim)


def test_of_an_event_and_an_earlier_delete_of_its_key_in_one_batch_the_event_is_appended(sqlite: Databases) -> None:
    append = replace(ORDERS, extract=events((1, 1, None), (1, 2, 2.0)), load=Append("target", "fct_orders", key=["id"]))
    assert run_pipeline(append).counts.inserted == 1


def test_a_delete_that_tells_no_time_is_newer_than_the_rows_beside_it(databases: Databases) -> None:
    load((1, 1, 1.0))
    rows = events((1, 2, 2.0), (1, 3, None)).rows.to_pylist()
    rows[1]["updated_at"] = None
    batch = RowsExtract(pa.Table.from_pylist(rows), "orders")
    counts = run_pipeline(replace(ORDERS, extract=replace(batch, cursor="updated_at"))).counts
    assert (counts.deduplicated, counts.deleted) == (1, 1)
    assert alive(databases, soft=False) == {}


def test_with_the_cursor_in_the_key_every_version_is_a_row_of_its_own(sqlite: Databases) -> None:
    pipeline = replace(ORDERS, load=Upsert("target", "fct_orders", key=["id", "updated_at"]))
    run_pipeline(replace(pipeline, extract=events((1, 1, 1.0), (1, 2, 2.0))))
    assert run_pipeline(replace(pipeline, extract=events((1, 2, None)))).counts.deleted == 1
    assert alive(sqlite, soft=False) == {1: 1.0}


# What is read whole.


@pytest.mark.parametrize("strategy", [ORDERS.load, MARKED], ids=["hard", "soft"])
def test_a_full_refresh_brings_back_what_the_source_no_longer_marks(databases: Databases, strategy: Upsert) -> None:
    """Without a new time an incremental run takes it for what was deleted."""
    pipeline = replace(ORDERS, extract=FLAGGED, load=strategy)
    show(databases, [order(1, day=5), order(2, day=5)], gone=[])
    run_pipeline(pipeline)
    show(databases, [order(1, day=5), order(2, day=5)], gone=[1])
    run_pipeline(pipeline, START, START + 9 * DAY)
    show(databases, [order(1, day=5), order(2, day=5)], gone=[])
    assert run_pipeline(pipeline, START, START + 9 * DAY).counts.stale == 1
    run_pipeline(pipeline, full_refresh=True)
    assert sorted(alive(databases, soft=strategy is MARKED)) == [1, 2]
    assert run_pipeline(pipeline, START, START + 9 * DAY).counts.unchanged == 2


def test_a_full_refresh_of_a_source_that_was_set_back_sets_the_target_back(databases: Databases) -> None:
    put(databases.source, [order(1, amount=9, day=9), order(2)])
    run_pipeline(ORDERS)
    put(databases.source, [order(1, amount=5, day=5)])
    assert run_pipeline(ORDERS, START, START + 9 * DAY).counts.stale == 1
    assert run_pipeline(ORDERS, full_refresh=True).counts.updated == 1
    assert [row["amount"] for row in loaded(databases.target)] == [5, 1]


def test_a_replayed_day_brings_back_what_the_source_no_longer_marks(databases: Databases) -> None:
    day = ReplacePartition("target", "fct_orders", key=["id"], partition="updated_at", grain="day", max_shrink=1.0)
    pipeline = replace(ORDERS, extract=FLAGGED, load=day)
    show(databases, [order(1, day=5), order(2, day=5)], gone=[])
    run_pipeline(pipeline)
    show(databases, [order(1, day=5), order(2, day=5)], gone=[1])
    assert run_pipeline(pipeline, START + 5 * DAY, START + 6 * DAY).counts.deleted == 1
    show(databases, [order(1, day=5), order(2, day=5)], gone=[])
    assert run_pipeline(pipeline, START + 5 * DAY, START + 6 * DAY).counts.inserted == 1
    assert sorted(alive(databases, soft=False)) == [1, 2]


# What a table marks itself.


@on_postgresql_too
@pytest.mark.parametrize("strategy", [ORDERS.load, MARKED], ids=["hard", "soft"])
def test_a_row_that_the_source_marks_as_gone_is_deleted_from_the_target(databases: Databases, strategy: Upsert) -> None:
    pipeline = replace(ORDERS, extract=FLAGGED, load=strategy)
    show(databases, [order(number) for number in range(3)], gone=[])
    assert run_pipeline(pipeline).counts.inserted == 3
    show(databases, [order(number, day=2) for number in range(3)], gone=[1])
    counts = run_pipeline(pipeline).counts
    assert (counts.deleted, counts.updated) == (1, 2)
    assert sorted(alive(databases, soft=strategy is MARKED)) == [0, 2]
    again = run_pipeline(pipeline, START, START + 9 * DAY).counts
    assert (again.unchanged, again.extracted) == (3, 3)


def test_a_mark_that_the_source_lacks_is_an_error(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    with pytest.raises(SourceError, match="there is no column 'gone' to be the mark of what is deleted"):
        run_pipeline(replace(ORDERS, extract=FLAGGED))


@pytest.mark.parametrize(
    ("marks", "deleted"),
    [
        ([True, False, None], [True, False, False]),
        ([2, 0, None], [True, False, False]),
        ([0.5, 0.0, None], [True, False, False]),
        ([START, None], [True, False]),
        (["2026-01-01", "true", "", "0", "false", "False", None], [True, True, *[False] * 5]),
    ],
    ids=["truths", "integers", "floats", "times", "texts"],
)
def test_a_mark_is_true_or_a_number_but_zero_or_a_time(marks: Sequence[Any], deleted: Sequence[bool]) -> None:
    rows = with_operations(pa.table({"gone": marks}), "gone")
    assert [operation == "delete" for operation in rows.column(OPERATION).to_pylist()] == deleted


def show(databases: Databases, orders: Sequence[Mapping[str, Any]], gone: Sequence[int]) -> None:
    """Make the source's table `orders`, with a column that marks those that are `gone`."""
    marked = Table("orders", MetaData(), *(column._copy() for column in SOURCE.columns), Column("gone", Boolean))
    marked.drop(databases.source, checkfirst=True)
    marked.create(databases.source)
    with databases.source.begin() as connection:
        connection.execute(marked.insert(), [{**row, "gone": row["id"] in gone} for row in orders])


def _forget(databases: Databases) -> None:
    with databases.target.begin() as connection:
        for table in ("fct_orders", "etl_tombstones_fct_orders"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
