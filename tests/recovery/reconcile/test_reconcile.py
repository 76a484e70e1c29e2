"""`reconcile_pipeline`: what differs is found, explained and repaired."""

from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pytest
from sqlalchemy import delete, insert, update

from tasks.errors import NotComparable
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.replace import Replace
from tasks.load.scd2 import Scd2
from tasks.pipeline import Pipeline, run_pipeline
from tasks.recovery.reconcile.difference import Explained
from tasks.recovery.reconcile.reconcile import reconcile_pipeline
from tests.conftest import SQLITE_FIRST, Databases, on_every_target
from tests.orders import DAY, ORDERS, SNAPSHOT, START, TARGET, loaded, order, put, remove


def kinds(pipeline: Pipeline, **asked: bool) -> dict[int, str]:
    """The kind of each difference, by id."""
    report = reconcile_pipeline(pipeline, **asked)  # type: ignore[arg-type]
    return {int(str(one.key["id"])): one.kind for one in report.differences}


def planted(databases: Databases, pipeline: Pipeline = ORDERS) -> None:
    """One difference of each kind, behind the pipeline's back."""
    put(databases.source, [order(number, day=number % 7, customer="anné 🚢") for number in range(1, 31)])
    put(databases.source, [order(31, amount=-1, day=2)])
    run_pipeline(pipeline)
    with databases.target.begin() as target:
        target.execute(delete(TARGET).where(TARGET.c.id == 1))
        target.execute(update(TARGET).where(TARGET.c.id == 2).values(updated_at=START, amount=7))
        target.execute(update(TARGET).where(TARGET.c.id == 3).values(updated_at=START + 9 * DAY))
        target.execute(update(TARGET).where(TARGET.c.id == 4).values(customer=None))
        target.execute(insert(TARGET).values(**order(99, day=3)))
    # Changed after the run, whose proof ends before the present.
    put(databases.source, [order(5, amount=2, day=40_000)])


PLANTED = {1: "missing", 2: "stale", 3: "ahead", 4: "differs", 5: "pending", 31: "rejected", 99: "extra"}


@on_every_target
def test_every_kind_of_difference_is_found_and_explained(databases: Databases) -> None:
    planted(databases)
    report = reconcile_pipeline(ORDERS)
    assert {int(str(one.key["id"])): one.kind for one in report.differences} == PLANTED
    assert report.differing == 5
    assert next(one for one in report.differences if one.kind == "differs").columns == ["customer"]
    assert next(one for one in report.differences if one.kind == "rejected").rule == "greater_than_or_equal_to(0)"


@pytest.mark.mariadb
def test_a_mariadb_source_and_a_postgresql_target_have_the_same_checksums(mariadb: Databases) -> None:
    planted(mariadb, replace(ORDERS, extract=replace_lag(ORDERS)))
    assert kinds(replace(ORDERS, extract=replace_lag(ORDERS))) == PLANTED


def replace_lag(pipeline: Pipeline) -> TableExtract:
    assert isinstance(pipeline.extract, TableExtract)
    return replace(pipeline.extract, lag=timedelta(seconds=1))


def test_what_was_loaded_well_is_clean_and_no_row_is_read(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(50)])
    run_pipeline(ORDERS)
    report = reconcile_pipeline(ORDERS)
    assert (report.clean(), report.rows_read, report.source_rows, report.target_rows) == (True, 0, 50, 50)


def test_only_the_blocks_that_differ_are_read(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number // 10) for number in range(100)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as target:
        target.execute(update(TARGET).where(TARGET.c.id == 55).values(amount=9))
    report = reconcile_pipeline(ORDERS)
    assert (report.blocks, report.rows_read, len(report.differences)) == (1, 20, 1)


def test_rows_that_moved_to_another_window_are_matched_by_their_key(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as target:
        target.execute(update(TARGET).where(TARGET.c.id == 1).values(updated_at=START - 100 * DAY))
    [one] = reconcile_pipeline(ORDERS).differences
    assert (one.kind, one.source_cursor, one.target_cursor) == (
        "stale",
        "2026-01-01 00:00:00.000000",
        "2025-09-23 00:00:00.000000",
    )


def test_more_rows_than_may_be_read_are_said_to_be_unread(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number // 10) for number in range(40)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as target:
        target.execute(update(TARGET).values(amount=9))
    report = reconcile_pipeline(ORDERS, most_rows=25)
    assert (report.unread, report.blocks, report.clean()) == (2, 2, False)


@pytest.mark.parametrize("databases", SQLITE_FIRST, indirect=True)
def test_a_repair_puts_right_what_the_source_can_tell(databases: Databases) -> None:
    planted(databases)
    report = reconcile_pipeline(ORDERS, repair=True)
    assert report.found is not None and sum(report.found.values()) == len(PLANTED)
    left = {int(str(one.key["id"])): one.kind for one in report.differences}
    assert left == {3: "ahead", 5: "pending", 31: "rejected", 99: "extra"}
    assert any("--full-refresh" in note for note in report.notes)


MARKED = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", deleted="gone"), name="marked")


def test_a_repair_deletes_what_is_gone_where_the_pipeline_takes_deletes(sqlite: Databases) -> None:
    put(sqlite.source, [order(number) for number in range(5)])
    with sqlite.source.begin() as source:
        source.exec_driver_sql("ALTER TABLE orders ADD COLUMN gone INTEGER")
    run_pipeline(MARKED)
    remove(sqlite.source, [3])
    assert kinds(MARKED) == {3: "extra"}
    report = reconcile_pipeline(MARKED, repair=True)
    assert report.clean() and not report.differences
    assert [row["id"] for row in loaded(sqlite.target)] == [0, 1, 2, 4]


def test_a_row_that_is_marked_as_gone_is_not_missing(sqlite: Databases) -> None:
    put(sqlite.source, [order(number) for number in range(5)])
    with sqlite.source.begin() as source:
        source.exec_driver_sql("ALTER TABLE orders ADD COLUMN gone INTEGER")
        source.exec_driver_sql("UPDATE orders SET gone = 1 WHERE id = 2")
    run_pipeline(MARKED)
    assert kinds(MARKED) == {}


def doubled(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(amount=raw["amount"] * 2)


def test_with_a_transform_the_rows_of_blocks_that_differ_are_compared_as_it_makes_them(sqlite: Databases) -> None:
    pipeline = replace(ORDERS, transform=doubled)
    planted(sqlite, pipeline)
    with sqlite.target.begin() as target:
        target.execute(update(TARGET).where(TARGET.c.id == 8).values(amount=3))
    report = reconcile_pipeline(pipeline)
    # Of the two that differ in a value alone, 8 lies in a block whose keys differ too. And the contract, which is asked
    # here, rejects 31, as it did in the run.
    expected = {key: kind for key, kind in PLANTED.items() if key not in (4, 31)} | {8: "differs"}
    assert {int(str(one.key["id"])): one.kind for one in report.differences} == expected
    assert not report.clean(strict=True) and report.open_letters == 1
    assert any("--deep" in note for note in report.notes)


def test_a_deep_comparison_sees_values_that_only_the_transform_makes(sqlite: Databases) -> None:
    pipeline = replace(ORDERS, transform=doubled)
    put(sqlite.source, [order(number) for number in range(5)])
    run_pipeline(pipeline)
    with sqlite.target.begin() as target:
        target.execute(update(TARGET).where(TARGET.c.id == 1).values(amount=9))
    assert kinds(pipeline) == {}
    assert kinds(pipeline, deep=True) == {1: "differs"}


def even(raw: pd.DataFrame) -> pd.DataFrame:
    return raw[raw["id"].isin([0, 2, 4])]


def test_a_transform_that_drops_rows_is_compared_deeply_or_not_at_all(sqlite: Databases) -> None:
    pipeline = replace(ORDERS, transform=even, drops_rows=True)
    put(sqlite.source, [order(number) for number in range(6)])
    run_pipeline(pipeline)
    with pytest.raises(NotComparable, match=r"leaves rows out.+--deep"):
        reconcile_pipeline(pipeline)
    assert kinds(pipeline, deep=True) == {}
    with sqlite.target.begin() as target:
        target.execute(insert(TARGET).values(**order(3)))
        target.execute(insert(TARGET).values(**order(7)))
    assert kinds(pipeline, deep=True) == {3: "filtered", 7: "extra"}


def test_a_table_read_whole_is_compared_and_repaired_by_a_run_of_its_own(sqlite: Databases) -> None:
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"]))
    put(sqlite.source, [order(number) for number in range(9)])
    run_pipeline(pipeline)
    with sqlite.target.begin() as target:
        target.execute(delete(TARGET).where(TARGET.c.id == 1))
        target.execute(insert(TARGET).values(**order(77)))
        target.execute(update(TARGET).where(TARGET.c.id == 4).values(amount=None))
    assert kinds(pipeline) == {1: "missing", 77: "extra", 4: "differs"}
    assert reconcile_pipeline(pipeline, repair=True).clean()


def test_a_feed_is_repaired_by_a_new_snapshot(sqlite: Databases) -> None:
    pipeline = replace(SNAPSHOT, extract=SnapshotDiff("source", "orders", key=["id"]))
    put(sqlite.source, [order(number) for number in range(9)])
    run_pipeline(pipeline)
    with sqlite.target.begin() as target:
        target.execute(delete(TARGET).where(TARGET.c.id == 1))
        target.execute(insert(TARGET).values(**order(77)))
    report = reconcile_pipeline(pipeline, repair=True)
    assert (report.found, report.clean()) == ({"missing": 1, "extra": 1}, True)


def test_a_key_that_the_target_has_twice_is_a_duplicate() -> None:
    explained = Explained(["id", "amount"], 1, None, None, once=False)
    found = explained.explain(("1",), [("1", "2")], [("1", "2"), ("1", "2")], None, filtered=False)
    assert found is not None and found.kind == "duplicate" and not found.accounted


def test_a_history_is_compared_by_its_current_versions(sqlite: Databases) -> None:
    pipeline = replace(
        SNAPSHOT,
        extract=SnapshotDiff("source", "orders", key=["id"]),
        load=Scd2("target", "dim_orders", key=["id"]),
    )
    put(sqlite.source, [order(1), order(2), order(3)])
    run_pipeline(pipeline)
    put(sqlite.source, [order(2, amount=5)])
    assert kinds(pipeline) == {2: "differs"}
    run_pipeline(pipeline)
    assert kinds(pipeline) == {}


def test_of_what_is_appended_only_missing_rows_are_differences(sqlite: Databases) -> None:
    pipeline = replace(ORDERS, load=Append("target", "fct_orders", key=["id"]))
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(pipeline)
    put(sqlite.source, [order(1, amount=6)])
    with sqlite.target.begin() as target:
        target.execute(delete(TARGET).where(TARGET.c.id == 2))
    assert kinds(pipeline) == {2: "missing"}


def test_a_pipeline_that_has_not_run_cannot_be_compared(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    with pytest.raises(NotComparable, match="has not been loaded yet"):
        reconcile_pipeline(ORDERS)


def test_a_table_that_others_write_to_cannot_be_compared(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    run_pipeline(replace(ORDERS, name="others"))
    with pytest.raises(NotComparable, match="also written to by others"):
        reconcile_pipeline(ORDERS)


def test_a_range_is_compared_alone(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(10)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as target:
        target.execute(delete(TARGET).where(TARGET.c.id.in_([2, 7])))
    report = reconcile_pipeline(ORDERS, START + 5 * DAY, START + 9 * DAY)
    assert ([one.key["id"] for one in report.differences], report.source_rows) == (["7"], 4)


def test_values_of_masked_columns_that_differ_are_not_shown(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, customer="Ada Lovelace")])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as target:
        target.execute(update(TARGET).values(customer="Mallory", amount=7))
    [difference] = reconcile_pipeline(replace(ORDERS, masked=["customer"])).as_dict(values=True)["differences"]
    assert difference["values"]["customer"] == ["***", "***"] and "***" not in difference["values"]["amount"]
