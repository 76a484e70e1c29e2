"""`ReplacePartition`: which rows of the target it replaces, which it leaves alone, and what it refuses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tasks.errors import ConfigError, GuardRefused
from tasks.extract.api import ApiExtract
from tasks.extract.api_children import ApiChildren
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.load.partition import ReplacePartition
from tasks.partitioned import Partitioned
from tasks.pipeline import Overrides, Pipeline, run_pipeline
from tasks.window import Window
from tests.conftest import Databases, on_every_target, on_postgresql_too
from tests.load.sales import by_dates, sale, sales
from tests.orders import DAY, ORDERS, START, loaded, order, put, remove

BY_DAY = ReplacePartition("target", "fct_orders", key=["id"], partition="updated_at", grain="day", max_shrink=1)
DAILY = replace(ORDERS, load=BY_DAY)


def days(first: int, end: int) -> tuple[datetime, datetime]:
    return START + first * DAY, START + end * DAY


def amounts(databases: Databases) -> dict[int, float]:
    return {row["id"]: row["amount"] for row in loaded(databases.target)}


def three_days(databases: Databases) -> None:
    """Orders 0 and 1 on day 0, 10 and 11 on day 1, 20 and 21 on day 2, all loaded."""
    put(databases.source, [order(10 * day + place, day=day + place / 3) for day in range(3) for place in (0, 1)])
    assert run_pipeline(DAILY).counts.inserted == 6


@on_every_target
def test_replaying_a_day_replaces_exactly_that_day(databases: Databases) -> None:
    three_days(databases)
    before = written(databases)
    put(
        databases.source,
        [order(number, amount=9, day=day) for number, day in ((1, 0.3), (10, 1), (15, 1.5), (21, 2.3))],
    )
    remove(databases.source, [0, 11, 20])
    counts = run_pipeline(DAILY, *days(1, 2)).counts
    assert (counts.extracted, counts.added, counts.updated, counts.inserted, counts.deleted) == (2, 1, 1, 1, 1)
    assert amounts(databases) == {0: 1, 1: 1, 10: 9, 15: 9, 20: 1, 21: 1}
    after = written(databases)
    assert {key: after[key] for key in (0, 1, 20, 21)} == {key: before[key] for key in (0, 1, 20, 21)}


def written(databases: Databases) -> dict[int, Any]:
    """Of each row what changes when it is written again, where the database can tell."""
    mark = {"postgresql": "xmin::text", "sqlite": "rowid"}.get(databases.kind, "id")
    with databases.target.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text(f"SELECT id, {mark} FROM fct_orders"))}


def test_a_second_run_over_the_same_source_writes_nothing(databases: Databases) -> None:
    three_days(databases)
    before = written(databases)
    counts = run_pipeline(DAILY, *days(0, 3)).counts
    assert (counts.extracted, counts.unchanged, counts.added) == (6, 6, 0)
    assert written(databases) == before


def test_an_incremental_run_replaces_what_has_begun_and_leaves_what_is_older(sqlite: Databases) -> None:
    three_days(sqlite)
    put(sqlite.source, [order(22, day=2.1), order(30, day=3)])
    remove(sqlite.source, [0, 20])
    counts = run_pipeline(DAILY).counts
    assert (counts.inserted, counts.deleted, counts.unchanged) == (2, 1, 1)
    assert set(amounts(sqlite)) == {0, 1, 10, 11, 21, 22, 30}


def test_of_an_unfinished_day_only_what_was_read_is_replaced(sqlite: Databases) -> None:
    """The rows at and behind the bound are not proven, so they are neither read nor deleted."""
    three_days(sqlite)
    remove(sqlite.source, [10, 11])
    put(sqlite.source, [order(12, day=1.1), order(13, day=1.4)])
    early = replace(DAILY, name="early", extract=replace_clock("2026-01-02 06:00:00"))
    counts = run_pipeline(early, *days(1, 2)).counts
    assert (counts.extracted, counts.inserted, counts.deleted) == (1, 1, 1)
    assert set(amounts(sqlite)) == {0, 1, 11, 12, 20, 21}


def replace_clock(now: str) -> TableExtract:
    return TableExtract("source", "orders", cursor="updated_at", clock=f"'{now}'")


@pytest.mark.parametrize("part", [(0.4, 0.6), (0.0, 0.5), (0.5, 1.0)])
def test_a_window_is_widened_to_whole_days(sqlite: Databases, part: tuple[float, float]) -> None:
    three_days(sqlite)
    remove(sqlite.source, [10])
    put(sqlite.source, [order(19, day=1.9)])
    start, end = (START + (1 + share) * DAY for share in part)
    report = run_pipeline(DAILY, start, end)
    assert [str(done.attempt.window) for done in report.windows] == [str(Window(*days(1, 2)))]
    assert set(amounts(sqlite)) == {0, 1, 11, 19, 20, 21}


def test_a_day_is_that_of_the_declared_zone_whatever_its_length(sqlite: Databases) -> None:
    """In New York the 1st of November 2026 has 25 hours: from 04:00 UTC until 05:00 of the next day."""
    pipeline = replace(DAILY, load=replace(BY_DAY, zone="America/New_York"))
    first = datetime(2026, 11, 1, 3, 59, tzinfo=UTC)
    times = [first, first + timedelta(minutes=1), first + timedelta(hours=25), first + timedelta(hours=25, minutes=1)]
    put(sqlite.source, [order(place) | {"updated_at": time} for place, time in enumerate(times)])
    run_pipeline(pipeline)
    put(sqlite.source, [order(place, amount=2) | {"updated_at": time} for place, time in enumerate(times)])
    report = run_pipeline(pipeline, datetime(2026, 11, 1, 12, tzinfo=UTC), datetime(2026, 11, 1, 13, tzinfo=UTC))
    assert report.windows[0].attempt.window == Window(times[1], times[3])
    assert amounts(sqlite) == {0: 1, 1: 2, 2: 2, 3: 1}


def test_a_long_range_is_split_between_days(sqlite: Databases) -> None:
    three_days(sqlite)
    split = replace(DAILY, split=timedelta(hours=30))
    windows = [done.attempt.window for done in run_pipeline(split, *days(0, 3)).windows]
    assert windows == [Window(*days(0, 2)), Window(*days(2, 3))]


def test_an_empty_day_is_refused(sqlite: Databases) -> None:
    three_days(sqlite)
    remove(sqlite.source, [10, 11])
    with pytest.raises(
        GuardRefused, match="the extract is empty, and 'fct_orders', as far as it was read, holds 2 rows"
    ):
        run_pipeline(DAILY, *days(1, 2))
    assert len(amounts(sqlite)) == 6


def test_an_empty_day_among_others_is_refused_by_its_name(databases: Databases) -> None:
    three_days(databases)
    remove(databases.source, [10, 11])
    with pytest.raises(GuardRefused, match="nothing came in for 2026-01-02, of which 'fct_orders' holds rows"):
        run_pipeline(DAILY, *days(0, 3))
    assert len(amounts(databases)) == 6


def test_a_day_of_which_only_a_bad_row_came_in_is_not_empty(sqlite: Databases) -> None:
    three_days(sqlite)
    remove(sqlite.source, [10])
    put(sqlite.source, [order(11, amount=-1, day=1.3)])
    counts = run_pipeline(DAILY, *days(0, 3)).counts
    assert (counts.rejected, counts.deleted, counts.unchanged) == (1, 1, 4)
    assert set(amounts(sqlite)) == {0, 1, 11, 20, 21}, "the bad row keeps its last good version"


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "for one run"])
def test_an_empty_day_is_emptied_where_that_is_allowed(databases: Databases, declared: bool) -> None:
    three_days(databases)
    remove(databases.source, [10, 11])
    pipeline = replace(DAILY, load=replace(BY_DAY, allow_empty=declared))
    override = None if declared else Overrides("the shop was closed", allow_empty=True)
    assert run_pipeline(pipeline, *days(1, 2), overrides=override).counts.deleted == 2
    assert set(amounts(databases)) == {0, 1, 20, 21}


@pytest.mark.parametrize(("gone", "refused"), [([10], False), ([10, 11], True)])
def test_the_shrink_is_that_of_the_replaced_partitions(sqlite: Databases, gone: list[int], refused: bool) -> None:
    """One of the two rows of a day is the half that is allowed, two are not, although the table has six."""
    three_days(sqlite)
    put(sqlite.source, [order(12, day=1.1)])
    remove(sqlite.source, gone)
    careful = replace(DAILY, load=replace(BY_DAY, max_shrink=0.5))
    if refused:
        with pytest.raises(
            GuardRefused, match="2 of the 2 rows of 'fct_orders', as far as it was read, are not in the extract"
        ):
            run_pipeline(careful, *days(1, 2))
    else:
        assert run_pipeline(careful, *days(1, 2)).counts.deleted == 1


def test_a_bad_row_without_a_key_may_be_any_row_so_nothing_is_deleted(sqlite: Databases) -> None:
    three_days(sqlite)
    remove(sqlite.source, [10])
    query = "SELECT id, customer, amount, updated_at FROM orders UNION ALL SELECT NULL, 'x', 1, '2026-01-02 12:00:00'"
    nameless = replace(DAILY, extract=TableExtract("source", query=query, cursor="updated_at"))
    counts = run_pipeline(nameless, *days(1, 2)).counts
    assert (counts.rejected, counts.deleted) == (1, 0)
    assert len(amounts(sqlite)) == 6


@on_postgresql_too
def test_a_row_that_moved_to_a_later_day_is_there_once(databases: Databases) -> None:
    three_days(databases)
    put(databases.source, [order(1, amount=5, day=1.5)])
    counts = run_pipeline(DAILY, *days(1, 2)).counts
    assert (counts.updated, counts.unchanged) == (1, 2)
    assert amounts(databases)[1] == 5
    assert run_pipeline(DAILY, *days(0, 1)).counts.unchanged == 1
    assert amounts(databases) == {0: 1, 1: 5, 10: 1, 11: 1, 20: 1, 21: 1}


def test_a_row_never_moves_from_a_newer_day_that_was_not_read(sqlite: Databases) -> None:
    three_days(sqlite)
    put(sqlite.source, [order(20, amount=5, day=1.5)])
    counts = run_pipeline(DAILY, *days(1, 2)).counts
    assert (counts.stale, counts.unchanged) == (1, 2)
    assert amounts(sqlite)[20] == 1


def test_in_a_window_that_reads_both_days_a_row_moves_to_the_earlier_one(databases: Databases) -> None:
    three_days(databases)
    put(databases.source, [order(20, amount=5, day=1.5)])
    counts = run_pipeline(DAILY, *days(1, 3)).counts
    assert (counts.stale, counts.updated, counts.unchanged) == (0, 1, 3)
    assert amounts(databases)[20] == 5


def test_a_row_does_not_move_back_to_an_older_version_because_its_newer_one_is_bad(sqlite: Databases) -> None:
    """As it would not either if the two days were read one after the other."""
    three_days(sqlite)
    put(sqlite.source, [order(20, amount=5, day=1.5)])
    query = "SELECT id, customer, amount, updated_at FROM orders UNION ALL SELECT 20, 'ann', -1, '2026-01-03 06:00:00'"
    versions = replace(DAILY, extract=TableExtract("source", query=query, cursor="updated_at"))
    counts = run_pipeline(versions, *days(1, 3)).counts
    assert (counts.rejected, counts.stale, counts.unchanged) == (1, 1, 3)
    assert amounts(sqlite)[20] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_shrink": 2}, "max_shrink is a share from 0 to 1, got 2"),
        ({"grain": "week"}, "there is no grain 'week'"),
        ({"zone": "Mars/Olympus"}, "There is no time zone 'Mars/Olympus'"),
        ({"key": []}, "needs a key of one or more different columns"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BY_DAY, **wrong)


OF_PARENTS = ApiChildren(
    parents=ApiExtract("shop", "/customers"), children=ApiExtract("shop", "/customers/{id}/orders", cursor="updated_at")
)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (sales("sold", sale(1)), "the contract has no such column"),
        (sales("shop", sale(1), grain="day"), "is of type string, which has no days"),
        (sales("day", sale(1), grain="hour"), "holds dates, which have no hours"),
        (sales("written_at", sale(1), grain="day", zone="Asia/Tokyo"), "the times of 'written_at' name no zone"),
        (replace(DAILY, load=replace(BY_DAY, partition="customer", grain=None)), "Declare the column not nullable"),
        (replace(DAILY, load=replace(BY_DAY, partition="id", grain=None)), "only some rows of a partition come in"),
        (replace(DAILY, load=replace(BY_DAY, grain=None)), "a window of the cursor is a range"),
        (replace(DAILY, extract=SnapshotDiff("source", "orders", key=["id"])), "a feed brings only what changed"),
        (replace(DAILY, extract=OF_PARENTS), "each parent goes on at its own watermark"),
        (by_dates(zone="Asia/Tokyo"), "Leave the zones out, or declare `day: UtcTimestamp`"),
        (by_dates(read_in="Asia/Tokyo"), "Leave the zones out, or declare `day: UtcTimestamp`"),
    ],
)
def test_a_pipeline_whose_partitions_make_no_sense_is_refused(
    sqlite: Databases, pipeline: Pipeline, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_pipeline(pipeline)


def test_a_track_is_held_against_the_contract(sqlite: Databases) -> None:
    with pytest.raises(ConfigError, match="the contract has no such column"):
        run_pipeline(replace(DAILY, load=replace(BY_DAY, track=Partitioned("sold_at", "day"))))
