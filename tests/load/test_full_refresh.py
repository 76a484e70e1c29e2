"""A full refresh: in one run the target is what the source is, under the same guards as any other deletion."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from sqlalchemy import insert, select, text

from tasks.errors import GuardRefused, Superseded
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.pipeline import Overrides, Pipeline, run_pipeline
from tasks.report import RunReport
from tasks.state.tables import runs
from tasks.window import Window
from tests.conftest import Databases, on_postgresql_too
from tests.orders import DAY, ORDERS, SNAPSHOT, SOURCE, START, loaded, order, put, remove

LATER = (datetime(2100, 1, 1, tzinfo=UTC) - START) / DAY


def refresh(pipeline: Pipeline = ORDERS, overrides: Overrides | None = None) -> RunReport:
    return run_pipeline(pipeline, full_refresh=True, overrides=overrides)


def ids(databases: Databases) -> list[int]:
    return [row["id"] for row in loaded(databases.target)]


@on_postgresql_too
def test_the_target_is_what_the_source_is(databases: Databases) -> None:
    """What is gone goes, what was changed behind the cursor's back is mended, and the rest is not written."""
    put(databases.source, [order(number) for number in range(6)])
    run_pipeline(ORDERS)
    remove(databases.source, [0, 1])
    put(databases.source, [order(2, amount=9), order(6)])
    assert run_pipeline(ORDERS).counts.deleted == 0
    with databases.target.begin() as connection:
        connection.execute(text("UPDATE fct_orders SET amount = 7 WHERE id = 3"))
    counts = refresh().counts
    assert (counts.inserted, counts.updated, counts.deleted, counts.unchanged) == (0, 1, 2, 4)
    assert counts.added == 2, "a deletion that is derived is a change that was added"
    assert ids(databases) == [2, 3, 4, 5, 6]
    assert refresh().counts.unchanged == 5


def test_a_source_without_a_cursor_is_rebuilt_too(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2), order(3)])
    run_pipeline(SNAPSHOT)
    remove(sqlite.source, [1])
    assert run_pipeline(SNAPSHOT).counts.deleted == 0
    assert refresh(SNAPSHOT).counts.deleted == 1


def test_rows_beyond_the_bound_are_in_the_source_and_stay(databases: Databases) -> None:
    """They are read, but may still change: the watermark stays before them, and the next run reads them again."""
    put(databases.source, [order(1), order(2, day=LATER)])
    first, second = refresh(), refresh()
    assert (first.counts.inserted, second.counts.unchanged, second.counts.deleted) == (2, 2, 0)
    assert first.watermark is not None and first.covered_until is not None
    assert first.watermark <= first.covered_until < START + LATER * DAY
    assert first.windows[0].attempt.window.end is None


def test_the_next_run_goes_on_from_the_bound(databases: Databases) -> None:
    """Not from the highest cursor that was read: what came in between was still to be committed then."""
    pipeline = replace(
        ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", clock="(SELECT time FROM clock)")
    )
    put(databases.source, [order(1), order(2, day=9)])
    with databases.source.begin() as connection:
        connection.execute(text("CREATE TABLE clock (time timestamp)"))
        connection.execute(text("INSERT INTO clock VALUES ('2026-01-05 00:00:00')"))
    assert refresh(pipeline).watermark == START + 4 * DAY
    put(databases.source, [order(3, day=4)])
    with databases.source.begin() as connection:
        connection.execute(text("UPDATE clock SET time = '2026-01-06 00:00:00'"))
    report = run_pipeline(pipeline)
    assert (report.counts.inserted, report.window) == (1, Window(START + 4 * DAY, START + 5 * DAY))


def test_the_ledger_tells_a_full_refresh(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(ORDERS)
    remove(sqlite.source, [1, 2])
    refresh(overrides=Overrides("closed", max_shrink=1, allow_empty=True))
    with sqlite.target.connect() as connection:
        kinds = connection.execute(select(runs.c.kind, runs.c.deleted).order_by(runs.c.started_at)).all()
    assert [tuple(row) for row in kinds] == [("incremental", 0), ("full", 2)]


def test_a_row_without_a_cursor_is_in_the_source_so_it_is_not_gone(databases: Databases) -> None:
    """It cannot be loaded, and is a dead letter; the target keeps its last good version."""
    put(databases.source, [order(1), order(2)])
    run_pipeline(ORDERS)
    with databases.source.begin() as connection:
        connection.execute(text("UPDATE orders SET updated_at = NULL WHERE id = 1"))
    counts = refresh().counts
    assert (counts.rejected, counts.deleted, counts.unchanged) == (1, 0, 1)
    assert ids(databases) == [1, 2]


def test_a_dead_letter_without_a_key_may_be_any_row_so_nothing_goes(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(ORDERS)
    remove(sqlite.source, [1])
    nameless = "SELECT * FROM orders UNION ALL SELECT NULL, 'bob', 3, '2026-01-01 00:00:00'"
    counts = refresh(replace(ORDERS, extract=TableExtract("source", query=nameless, cursor="updated_at"))).counts
    assert (counts.rejected, counts.deleted) == (1, 0)
    assert ids(sqlite) == [1, 2]


@pytest.mark.parametrize("pipeline", [ORDERS, SNAPSHOT], ids=["by cursor", "whole"])
def test_a_source_that_shrank_is_refused(sqlite: Databases, pipeline: Pipeline) -> None:
    put(sqlite.source, [order(number) for number in range(5)])
    run_pipeline(pipeline)
    remove(sqlite.source, [0, 1, 2])
    with pytest.raises(GuardRefused, match=r"3 of the 5 rows of 'fct_orders' are not in the extract"):
        refresh(pipeline)
    remove(sqlite.source, [3, 4])
    with pytest.raises(GuardRefused, match="Empty is not deleted"):
        refresh(pipeline)
    assert ids(sqlite) == [0, 1, 2, 3, 4]
    assert refresh(pipeline, Overrides("all sold", max_shrink=1, allow_empty=True)).counts.deleted == 5


def test_a_refused_refresh_leaves_the_watermark(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2)])
    before = run_pipeline(ORDERS)
    remove(sqlite.source, [1, 2])
    with pytest.raises(GuardRefused):
        refresh()
    put(sqlite.source, [order(3, day=1)])
    after = run_pipeline(ORDERS)
    assert after.windows[0].attempt.window.start == before.watermark
    assert ids(sqlite) == [1, 2, 3]


KEEPERS: dict[str, Pipeline] = {
    "append": replace(ORDERS, load=Append("target", "fct_orders", key=["id"])),
    "begins later": replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", initial=START)),
}


@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_does_not_come_in_stays_where_nobody_can_tell_or_nothing_is_deleted(
    sqlite: Databases, keeper: str
) -> None:
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(KEEPERS[keeper])
    remove(sqlite.source, [1])
    counts = refresh(KEEPERS[keeper]).counts
    assert (counts.extracted, counts.deleted) == (1, 0)


def test_rows_of_another_pipeline_are_not_taken_for_gone(sqlite: Databases, caplog: pytest.LogCaptureFixture) -> None:
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(SNAPSHOT)
    remove(sqlite.source, [1])
    assert refresh().counts.deleted == 0
    assert "orders: fct_orders is also written to by snapshot, so this full refresh deletes nothing" in caplog.text
    assert ids(sqlite) == [1, 2]


def test_it_is_one_commit_whatever_the_split(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(4)])
    run_pipeline(ORDERS)
    remove(sqlite.source, [0])
    report = refresh(replace(ORDERS, split=timedelta(days=1)))
    assert (len(report.windows), report.counts.deleted) == (1, 1)


def during(pipeline: Pipeline, meanwhile: Callable[[], object]) -> Pipeline:
    """`pipeline`, with something else happening between its snapshot and its commit."""
    left = [meanwhile]

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        if left:
            left.pop()()
        return raw

    return replace(pipeline, transform=transform)


@on_postgresql_too
def test_it_deletes_nothing_that_came_after_its_snapshot(databases: Databases) -> None:
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)

    def backfill() -> None:
        put(databases.source, [order(2)])
        run_pipeline(ORDERS, START, START + DAY)

    with pytest.raises(Superseded):
        refresh(during(ORDERS, backfill))
    assert ids(databases) == [1, 2]


def test_what_it_has_deleted_does_not_come_back_with_a_window_that_was_read_before(databases: Databases) -> None:
    put(databases.source, [order(1), order(2), order(3)])
    run_pipeline(ORDERS)

    def rebuild() -> None:
        remove(databases.source, [1])
        assert refresh().counts.deleted == 1

    with pytest.raises(Superseded):
        run_pipeline(during(ORDERS, rebuild), START, START + DAY)
    assert ids(databases) == [2, 3]


def test_backfills_of_one_range_that_overlap_are_left_to_the_cursor(databases: Databases) -> None:
    """Only a full refresh keeps an older window out."""
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)

    def newer() -> None:
        put(databases.source, [order(1, amount=5, day=0.5)])
        run_pipeline(ORDERS, START, START + DAY)

    report = run_pipeline(during(ORDERS, newer), START, START + DAY)
    assert report.counts.stale == 1
    assert [row["amount"] for row in loaded(databases.target)] == [5]


def test_it_brings_back_what_somebody_deleted_from_the_target(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as connection:
        connection.execute(text("DELETE FROM fct_orders WHERE id = 1"))
    assert refresh().counts.inserted == 1


def test_duplicates_of_a_key_are_one_row(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    with sqlite.source.begin() as connection:
        connection.execute(text("ALTER TABLE orders RENAME TO once"))
        connection.execute(text("CREATE TABLE orders (id bigint, customer text, amount double, updated_at datetime)"))
        connection.execute(insert(SOURCE), [order(1, amount=2, day=1), order(1, amount=1)])
    counts = refresh().counts
    assert (counts.updated, counts.deduplicated, counts.deleted) == (1, 1, 0)
