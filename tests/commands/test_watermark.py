"""`tidegate watermark`: shown, and moved by hand under the locks of a commit."""

import getpass
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text

from tasks.dialects import dialect_of
from tasks.errors import Fenced
from tasks.extract.table import TableExtract
from tasks.pipeline import run_pipeline
from tasks.recovery.watermark_change import change_watermark
from tasks.state.attempts import Attempt, lock_target, open_attempt
from tasks.state.tables import runs
from tasks.state.watermarks import Watermark, move_watermark, read_watermark
from tasks.window import Window
from tests.commands.conftest import Declare, Tidegate
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, SNAPSHOT, START, order, put

FOLLOWED = """
from dataclasses import replace
from tasks.extract.snapshot import SnapshotDiff
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, name="followed", extract=SnapshotDiff("source", "orders", key=["id"]))
"""
WHOLE = """
from tests.orders import SNAPSHOT as PIPELINE
"""
DAY_1, DAY_2 = (START + DAY).isoformat(), (START + 2 * DAY).isoformat()


def mark(databases: Databases) -> Watermark:
    with databases.target.connect() as connection:
        return read_watermark(connection, "orders")


@contextmanager
def open_run(databases: Databases) -> Iterator[str]:
    """A run of the pipeline that is under way, in a process that lives."""
    dialect = dialect_of(databases.target)
    attempt = Attempt("orders", "fct_orders", "a" * 32, "incremental", Window())
    with dialect.hold(databases.target, attempt.token) as owner:
        with dialect.transaction(databases.target) as connection:
            open_attempt(connection, attempt, owner, dialect.clock(connection), {})
        yield attempt.run_id


def test_back_the_next_run_reads_again_what_lies_above(targets: Databases, orders: str, tidegate: Tidegate) -> None:
    put(targets.source, [order(number, day=number) for number in range(4)])
    run_pipeline(ORDERS)
    told = json.loads(tidegate("watermark", "set", orders, "2026-01-02", "--yes", "--json").stdout)
    assert told["after"] == {"watermark": DAY_1, "covered_until": DAY_1}
    assert told["before"]["watermark"] == (START + 3 * DAY).isoformat()
    shown = json.loads(tidegate("watermark", "get", orders, "--json").stdout)
    assert (shown["watermark"], shown["covered_until"], shown["version"]) == (DAY_1, DAY_1, 2)
    report = run_pipeline(ORDERS)
    assert (report.counts.extracted, report.counts.unchanged) == (3, 3)
    assert report.watermark == START + 3 * DAY


def test_the_ledger_says_who_moved_it_from_where_to_where(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1, day=2)])
    run_pipeline(ORDERS)
    run_id = json.loads(tidegate("watermark", "set", orders, "2026-01-02", "--yes", "--json").stdout)["run_id"]
    with sqlite.target.connect() as connection:
        row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one()
    assert (row.kind, row.status, row.error_rate) == ("watermark", "moved", None)
    assert f"set by {getpass.getuser()} on " in row.message
    assert f"from {DAY_2} (covered until" in row.message and f"to {DAY_1} (covered until {DAY_1})" in row.message
    assert json.loads(tidegate("status", "--json").stdout)[0]["last_run"]["status"] == "committed"


def test_before_the_first_run_it_may_be_set_too(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(4)])
    assert tidegate("watermark", "set", orders, "2026-01-03", "--yes").exit_code == 0
    assert run_pipeline(ORDERS).counts.extracted == 2


def test_forward_what_lies_between_is_left_out_and_covered_until_stays(
    sqlite: Databases, orders: str, tidegate: Tidegate
) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    before = mark(sqlite)
    put(sqlite.source, [order(2, day=1)])
    assert tidegate("watermark", "set", orders, "2026-01-03", "--yes").exit_code == 0
    assert mark(sqlite) == Watermark(START + 2 * DAY, before.covered_until, before.version + 1)
    assert run_pipeline(ORDERS).counts.extracted == 0


def test_above_what_the_source_proves_it_is_refused(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    before = mark(sqlite)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    shown = tidegate("watermark", "set", orders, tomorrow, "--yes")
    assert shown.exit_code == 1
    assert "would never be read" in shown.stderr
    assert mark(sqlite) == before


def test_while_a_run_is_open_it_is_refused(targets: Databases, orders: str, tidegate: Tidegate) -> None:
    put(targets.source, [order(1)])
    run_pipeline(ORDERS)
    before = mark(targets)
    with open_run(targets) as run_id:
        shown = tidegate("watermark", "set", orders, "2025-12-01", "--yes")
    assert shown.exit_code == 1
    assert f"the run {run_id} is open" in shown.stderr
    assert mark(targets) == before
    with targets.target.connect() as connection:
        assert connection.execute(select(runs.c.kind).where(runs.c.kind == "watermark")).all() == []


def test_a_run_that_died_is_none_that_is_open(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    dialect = dialect_of(sqlite.target)
    with dialect.hold(sqlite.target, "x") as owner, dialect.transaction(sqlite.target) as connection:
        host, pid, _ = owner.rsplit("/", 2)
        attempt = Attempt("orders", "fct_orders", "a" * 32, "incremental", Window())
        open_attempt(connection, attempt, f"{host}/{pid}/0.00", dialect.clock(connection), {})
    assert tidegate("watermark", "set", orders, "2025-12-01", "--yes").exit_code == 0


def test_it_waits_for_a_commit_that_is_under_way(postgresql: Databases) -> None:
    put(postgresql.source, [order(1)])
    run_pipeline(ORDERS)
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with ThreadPoolExecutor(1) as thread:
        with postgresql.target.begin() as connection:
            lock_target(connection, "fct_orders")
            moving = thread.submit(change_watermark, ORDERS, START - DAY, "a test")
            deadline = time.monotonic() + 30
            while not connection.execute(waits).scalar_one():
                assert not moving.done() and time.monotonic() < deadline
            seen = read_watermark(connection, "orders")
            further = seen.advanced(START + DAY, None)
            move_watermark(connection, "orders", seen, further, seen.covered_until or START, "a commit")
        change = moving.result(timeout=30)
    assert change.before == further
    assert mark(postgresql) == change.after


def test_a_run_that_began_before_does_not_commit_its_watermark_over_it(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    seen = mark(sqlite)
    change_watermark(ORDERS, START - DAY, "a test")
    with pytest.raises(Fenced), sqlite.target.begin() as connection:
        move_watermark(connection, "orders", seen, seen.advanced(START, None), START, "a commit")


@pytest.mark.parametrize(
    ("name", "file", "why"),
    [("followed", FOLLOWED, "is followed from a position"), ("snapshot", WHOLE, "is read whole at every run")],
)
def test_what_has_no_watermark_is_shown_and_refused(
    sqlite: Databases, declare: Declare, tidegate: Tidegate, name: str, file: str, why: str
) -> None:
    declare(name, file)
    put(sqlite.source, [order(1)])
    assert tidegate("run", name).exit_code == 0
    shown = json.loads(tidegate("watermark", "get", name, "--json").stdout)
    assert (shown["position"] is None) == (name == SNAPSHOT.name)
    refused = tidegate("watermark", "set", name, "2026-01-02", "--yes")
    assert refused.exit_code == 1
    assert why in refused.stderr


def test_without_yes_and_without_anybody_to_ask_nothing_is_set(
    sqlite: Databases, orders: str, tidegate: Tidegate
) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    before = mark(sqlite)
    shown = tidegate("watermark", "set", orders, "2025-12-01")
    assert shown.exit_code == 1
    assert "Say --yes" in shown.stderr
    assert mark(sqlite) == before


def test_a_lookback_is_subtracted_from_what_was_set(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(4)])
    nearby = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", lookback=DAY))
    run_pipeline(nearby)
    change_watermark(nearby, START + 2 * DAY, "a test")
    assert run_pipeline(nearby).counts.extracted == 3
