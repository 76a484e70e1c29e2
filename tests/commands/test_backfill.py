"""`tidegate backfill`: the plan as people read it, and what is carried out here."""

import json

import pytest
from sqlalchemy import func, inspect, select

from tasks.state.tables import backfills, runs
from tests.commands.conftest import Declare, Tidegate, untouched
from tests.conftest import Databases
from tests.orders import loaded, order, put

RANGE = ("--start", "2026-01-01", "--end", "2026-01-05")


@pytest.fixture
def days(sqlite: Databases, orders: str) -> Databases:
    """Five days with an order each."""
    put(sqlite.source, [order(number, day=number) for number in range(5)])
    return sqlite


def test_a_dry_run_shows_every_window_and_the_sums_and_writes_nothing(days: Databases, tidegate: Tidegate) -> None:
    assert tidegate("run", "orders", "--start", "2026-01-01", "--end", "2026-01-02").exit_code == 0
    shown = tidegate("backfill", "orders", *RANGE, "--dry-run", "--jobs", "2")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "orders: 2026-01-01 → 01-05 UTC in 4 windows by day, 3 of them to do (missing)."
    assert [line.split()[3:5] for line in lines[2:6]] == [["covered", "no"], *[["missing", "yes"]] * 3]
    assert lines[6].startswith("3 windows are to do, about 3 rows, about ")
    with days.target.connect() as connection:
        assert connection.execute(select(func.count()).select_from(backfills)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(runs)).scalar_one() == 1


def test_many_windows_are_shown_by_month(days: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("backfill", "orders", "--start", "2026-01-30", "--end", "2026-03-15", "--dry-run")
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [
        ["month", "windows"], ["2026-01", "2"], ["2026-02", "28"], ["2026-03", "14"], ["44", "windows"],
    ]  # fmt: skip
    assert "how much that is, no earlier run tells" in shown.stdout


def test_it_loads_what_is_missing_and_does_nothing_the_second_time(days: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("backfill", "orders", *RANGE, "--here")
    assert shown.exit_code == 0
    assert "4/4  2026-01-0" in shown.stdout and "done: 4 of 4 windows by day committed, 4 attempts" in shown.stdout
    assert [row["id"] for row in loaded(days.target)] == [0, 1, 2, 3]
    again = json.loads(tidegate("backfill", "orders", *RANGE, "--here", "--json").stdout)
    assert (again["status"], again["attempts"], again["resumed"]) == ("done", 0, False)


BROKEN = """
from dataclasses import replace
from tests.orders import ORDERS

def transform(raw):
    if 2 in set(raw["id"]):
        raise SystemError("the third is not to be had")
    return raw

PIPELINE = replace(ORDERS, transform=transform, sla=replace(ORDERS.sla, abort_error_rate=0.5))
"""


def test_a_window_that_fails_ends_it_with_1_and_keeps_none_of_the_others(
    days: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    declare("orders", BROKEN)
    shown = tidegate("backfill", "orders", *RANGE, "--here")
    assert shown.exit_code == 1
    assert "failed: 3 of 4 windows by day committed, 1 failed, 4 attempts" in shown.stdout
    assert "2026-01-03 → 01-04  refused" in shown.stdout and "The same command goes on with these." in shown.stdout
    assert [row["id"] for row in loaded(days.target)] == [0, 1, 3]
    again = tidegate("backfill", "orders", *RANGE, "--here")
    assert "goes on with backfill" in again.stdout
    assert "3 of 4 windows by day committed, 1 failed, 5 attempts" in again.stdout


@untouched
def test_without_a_server_it_names_here(days: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("backfill", "orders", *RANGE)
    assert (shown.exit_code, "--here" in shown.stderr) == (1, True)
    assert loaded_nothing(days)


def loaded_nothing(databases: Databases) -> bool:
    with databases.target.connect() as connection:
        return not any(inspect(connection).has_table(name) for name in ("fct_orders", "etl_backfills"))


@untouched
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--end", "2026-01-05"], "nobody says where 'orders' begins. Give a start, or declare `initial`"),
        (["--start", "2026-01-05", "--end", "2026-01-01"], "ends before it starts"),
        ([*RANGE, "--by", "year"], "by is 'hour', 'day', 'week' or 'month', got 'year'"),
        ([*RANGE, "--only", "new"], "only is 'missing', 'failed', 'stale' or 'all', got 'new'"),
        ([*RANGE, "--here", "--jobs", "6"], "jobs is from 1 to 5, got 6"),
        (["--start", "1900-01-01", "--by", "hour"], "more than 50,000 windows by hour"),
    ],
)
def test_what_is_refused_says_why(days: Databases, tidegate: Tidegate, arguments: list[str], why: str) -> None:
    shown = tidegate("backfill", "orders", *arguments)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert why in shown.stderr
    assert loaded_nothing(days)


def test_a_range_beyond_what_is_proven_is_clipped_and_said(days: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("backfill", "orders", "--start", "2026-01-01", "--end", "2999-01-01", "--by", "month", "--dry-run")
    assert "what lies at or after that could still change." in shown.stdout
