"""`RowCount` and `NullShare`: a window is compared with those before it, and warned of or refused."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from tasks.errors import ConfigError, GuardRefused
from tasks.pipeline import NullShare, Overrides, Pipeline, RowCount, run_pipeline
from tasks.report import RunReport
from tasks.state.statistics import Measured, Statistics
from tasks.state.tables import runs
from tasks.transform.bounds import Bound
from tasks.window import Window
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, TABLE, execute
from tests.extract.shop import WHOLE, Serve, changed, ids, record
from tests.orders import DAY, ORDERS, SNAPSHOT, START, loaded, order, put
from tests.paged_api import PagedApi

ROWS = RowCount(action="abort", min_rows=4)
NULLS = NullShare("customer", max_increase=0.1, action="abort", min_rows=4)


def bounded(*bounds: Bound) -> Pipeline:
    return replace(ORDERS, bounds=list(bounds))


def days(databases: Databases, *rows: int, **what: Any) -> None:
    """As many orders on each day as it says, numbered on."""
    numbers = iter(range(sum(rows)))
    put(databases.source, [order(next(numbers), day=day, **what) for day, many in enumerate(rows) for _ in range(many)])


def run_days(pipeline: Pipeline, first: int, last: int, overrides: Overrides | None = None) -> RunReport:
    """A run over the days from `first` until before `last`, a window for each."""
    return run_pipeline(replace(pipeline, split=DAY), START + first * DAY, START + last * DAY, overrides=overrides)


def ledger(target: Engine) -> list[Any]:
    with target.connect() as connection:
        columns = (runs.c.status, runs.c.message, runs.c.statistics, runs.c.inserted, runs.c.rejected)
        return list(connection.execute(select(*columns).order_by(runs.c.started_at, runs.c.window_start)))


# -- in a run ---------------------------------------------------------------------------------------------------------


def test_the_ledger_keeps_what_the_rows_of_a_window_look_like(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2, customer=None), order(3, customer=None, amount=None), order(4, amount=-1)])
    run_pipeline(ORDERS)
    (row,) = ledger(sqlite.target)
    assert json.loads(row.statistics) == {"rows": 3, "nulls": {"id": 0, "customer": 2, "amount": 1, "updated_at": 0}}


def test_a_window_with_too_few_rows_is_refused_and_keeps_only_its_letters(databases: Databases) -> None:
    days(databases, 8, 9, 10, 3)
    put(databases.source, [order(99, amount=-1, day=3)])
    run_days(bounded(ROWS), 0, 3)
    told = r"out of bounds: it holds 3 rows where 9 are usual \(the median of 3 windows before it\), and min_share=0.5"
    with pytest.raises(GuardRefused, match=told):
        run_days(bounded(ROWS), 3, 4)
    last = ledger(databases.target)[-1]
    assert (last.status, last.inserted, last.rejected) == ("refused", 0, 1)
    assert len(loaded(databases.target)) == 27


def test_a_refused_window_does_not_change_what_is_usual(sqlite: Databases) -> None:
    days(sqlite, 8, 9, 10, 3)
    run_days(bounded(ROWS), 0, 3)
    for _ in range(3):
        with pytest.raises(GuardRefused, match=r"where 9 are usual \(the median of 3 windows"):
            run_days(bounded(ROWS), 3, 4)


def test_a_window_out_of_bounds_is_loaded_and_said_where_it_only_warns(
    sqlite: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    days(sqlite, 8, 9, 10, 19)
    run_days(bounded(replace(ROWS, action="warn")), 0, 3)
    with caplog.at_level(logging.WARNING):
        assert run_days(bounded(replace(ROWS, action="warn")), 3, 4).counts.inserted == 19
    said = "it holds 19 rows where 9 are usual (the median of 3 windows before it), and max_share=2"
    assert [said in message for message in caplog.messages] == [True]
    last = ledger(sqlite.target)[-1]
    assert last.status == "committed" and said in last.message
    assert [row.message for row in ledger(sqlite.target)[:3]] == [None] * 3


def test_a_window_with_more_nulls_than_usual_is_refused(sqlite: Databases) -> None:
    days(sqlite, 10, 10, 10, 10)
    put(sqlite.source, [order(number, customer=None, day=number // 10) for number in (0, 10, 20, 30, 31, 32)])
    run_days(bounded(NULLS), 0, 3)
    told = r"30.0% of its 10 rows have no 'customer', 10.0% in the 3 windows before it, and max_increase=0.1"
    with pytest.raises(GuardRefused, match=told):
        run_days(bounded(NULLS), 3, 4)


def test_an_override_lets_the_window_through_and_is_in_the_ledger(sqlite: Databases) -> None:
    days(sqlite, 8, 9, 10, 3)
    run_days(bounded(ROWS), 0, 3)
    overrides = Overrides("a holiday", ignore_bounds=True)
    assert run_days(bounded(ROWS), 3, 4, overrides).counts.inserted == 3
    with sqlite.target.connect() as connection:
        kept = connection.execute(select(runs.c.overrides).order_by(runs.c.started_at.desc())).scalars().first()
    assert json.loads(str(kept))["ignore_bounds"] is True


def test_a_window_of_another_kind_or_without_a_start_is_not_compared_with(sqlite: Databases) -> None:
    """The first incremental window holds all of the past, and the explicit ones are of another kind."""
    days(sqlite, 8, 9, 10, 3)
    run_days(bounded(ROWS), 0, 3)
    assert run_pipeline(bounded(ROWS)).counts.extracted == 30
    assert run_pipeline(bounded(ROWS)).counts.unchanged == 3, "those of the watermark's own time"
    assert run_pipeline(bounded(ROWS), None, START + 4 * DAY).counts.extracted == 30, "explicit, but without a start"


def test_each_bound_looks_as_far_back_as_it_says(sqlite: Databases) -> None:
    """The median of the last three days is 10, that of all six is 20."""
    days(sqlite, 30, 30, 30, 10, 10, 10, 12)
    three = RowCount(last=3, min_share=0.7, action="abort", min_rows=4)
    run_days(ORDERS, 0, 6)
    with pytest.raises(GuardRefused, match="where 20 are usual"):
        run_days(bounded(replace(three, last=6)), 6, 7)
    assert run_days(bounded(three, NullShare("customer", max=0.5)), 6, 7).counts.inserted == 12


def test_full_reads_are_compared_by_their_rows(sqlite: Databases) -> None:
    whole = replace(SNAPSHOT, bounds=[ROWS])
    days(sqlite, 10)
    for _ in range(3):
        run_pipeline(whole)
    put(sqlite.source, [order(number) for number in range(10, 25)])
    with pytest.raises(GuardRefused, match=r"it holds 25 rows where 10 are usual.*max_share=2"):
        run_pipeline(whole)


def test_an_api_that_is_judged_by_its_windows_is_not_read_in_parts(sqlite: Databases, serve: Serve) -> None:
    """Else a first part would be in the target when the last one is refused."""
    parts = changed(WHOLE, checkpoint=2)
    serve(PagedApi([record(number) for number in range(9)], size=2))
    assert len(run_pipeline(parts).windows) > 1
    whole = replace(parts, name="whole", bounds=[RowCount()])
    assert len(run_pipeline(whole).windows) == 1
    assert len(ids(sqlite.target)) == 9


def test_a_feed_has_no_usual_number_of_rows_but_a_share_of_nulls(sqlite: Databases) -> None:
    execute(sqlite.source, TABLE, "INSERT INTO bookings VALUES (1, NULL, 1), (2, 'B', 2)")
    with pytest.raises(ConfigError, match=r"bookings: 'bookings' brings what has changed.*Leave RowCount out"):
        run_pipeline(replace(BOOKINGS, bounds=[RowCount()]))
    strict = replace(BOOKINGS, bounds=[NullShare("seat", max=0.4, min_rows=2, action="abort")])
    with pytest.raises(GuardRefused, match=r"50.0% of its 2 rows have no 'seat', and max=0.4"):
        run_pipeline(strict)
    run_pipeline(BOOKINGS)
    execute(sqlite.source, "DELETE FROM bookings", "INSERT INTO bookings VALUES (3, 'C', 1), (4, 'D', 2)")
    assert run_pipeline(strict).counts.deleted == 2, "a delete has no seat, and is no row"


def test_a_bound_is_about_a_column_of_the_contract(sqlite: Databases) -> None:
    with pytest.raises(ConfigError, match=r"orders: NullShare\('name'\) is about a column that OrderSchema does not"):
        run_pipeline(bounded(NullShare("name", max=0.1)))


# -- what is usual ----------------------------------------------------------------------------------------------------


def measured(rows: int, nulls: int = 0, *, length: timedelta | None = DAY) -> Measured:
    window = Window() if length is None else Window(START, START + length)
    return Measured(window, Statistics(rows, {"customer": nulls}))


def usual(rows: int = 100, nulls: int = 0, times: int = 3) -> Sequence[Measured]:
    return [measured(rows, nulls)] * times


@pytest.mark.parametrize(
    ("now", "earlier", "exceeds"),
    [
        (measured(0), usual(times=2), False),
        (measured(49), usual(), True),
        (measured(50), usual(), False),
        (measured(200), usual(), False),
        (measured(201), usual(), True),
        (measured(50), [*usual(times=4), *usual(10_000, times=3)], False),
        (measured(300, length=3 * DAY), usual(), False),
        (measured(100, length=3 * DAY), usual(), True),
        (measured(1, length=timedelta(hours=1)), usual(), False),
        (measured(41, length=timedelta(hours=1)), usual(), True),
        (measured(5, length=timedelta(0)), usual(), False),
        (measured(0), [measured(100, length=timedelta(0))] * 5, False),
        (measured(100, length=None), [measured(300, length=None)] * 3, True),
    ],
    ids=[
        "two are not enough",
        "less than half",
        "half",
        "twice",
        "more than twice",
        "outliers count for little",
        "three days are thrice a day",
        "three days with the rows of one",
        "an hour of four rows is too short to be too empty",
        "an hour of four rows may be too full",
        "an empty window",
        "empty windows before it",
        "without bounds",
    ],
)
def test_rows_are_compared_by_the_length_of_the_window(
    now: Measured, earlier: Sequence[Measured], exceeds: bool
) -> None:
    assert (RowCount().exceeded(now, earlier) is not None) == exceeds


@pytest.mark.parametrize(
    ("now", "earlier", "exceeds"),
    [
        (measured(100, 21), usual(nulls=10), True),
        (measured(100, 20), usual(nulls=10), False),
        (measured(100, 90), usual(times=2), False),
        (measured(19, 19), usual(), False),
        (measured(100, 21), [measured(1_000, 0), measured(10, 10), measured(10, 10)], True),
        (measured(100, 90), [Measured(Window(), Statistics(100, {}))] * 7, False),
        (measured(100, 90), usual(rows=0), False),
    ],
    ids=["above", "at it", "two are not enough", "too few rows", "by rows", "a new column", "nothing before"],
)
def test_nulls_are_compared_with_those_of_all_rows_before(
    now: Measured, earlier: Sequence[Measured], exceeds: bool
) -> None:
    assert (NullShare("customer", max_increase=0.1).exceeded(now, earlier) is not None) == exceeds


def test_a_largest_share_needs_no_past() -> None:
    strict = NullShare("customer", max=0.3)
    assert strict.exceeded(measured(100, 30), []) is None
    assert strict.exceeded(measured(100, 31), []) == "31.0% of its 100 rows have no 'customer', and max=0.3"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RowCount(min_share=1.5), "min_share is from 0 to 1 and max_share at least 1, got 1.5 and 2.0"),
        (lambda: RowCount(last=2), "RowCount compares with the last 2; with fewer than 3"),
        (lambda: RowCount(action="stop"), "RowCount: action is 'warn' or 'abort', got 'stop'"),  # type: ignore[arg-type]
        (lambda: NullShare("a"), r"NullShare\('a'\) has no bound: give max_increase=0.1"),
        (lambda: NullShare("a", max=30), r"NullShare\('a'\): max is a share from 0 to 1, got 30"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused(make: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()
