"""Attempts: who owns one, and what becomes of those whose process died."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from sqlalchemy import inspect, select, text

from tasks.dialects import dialect_of
from tasks.errors import Fenced, Superseded
from tasks.pipeline import run_pipeline
from tasks.state.attempts import (
    Attempt,
    Status,
    attempt_status,
    close_attempt,
    complete_attempt,
    new_token,
    open_attempt,
    refuse_if_superseded,
    sweep,
)
from tasks.state.schema import ensure_schema
from tasks.state.tables import runs, windows
from tasks.window import Window
from tests.conftest import Databases, on_every_target
from tests.orders import DAY, ORDERS, START, loaded, order, put

HOLD = """
import sys
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.state.attempts import Attempt, open_attempt
from tasks.window import Window

target = engine("target")
dialect = dialect_of(target)
attempt = Attempt("orders", "fct_orders", "run", "explicit", Window(), token=sys.argv[1])
with dialect.hold(target, attempt.token) as owner:
    with dialect.transaction(target) as connection:
        open_attempt(connection, attempt, owner, dialect.clock(connection), {})
        for table in (attempt.staged_table, attempt.rejected_table):
            connection.exec_driver_sql(f"CREATE TABLE {table} (id integer)")
    print("held", flush=True)
    sys.stdin.readline()
"""

WINDOW = Window(START, START + DAY)


@pytest.fixture
def migrated(databases: Databases) -> Databases:
    """Databases whose target has the state tables."""
    ensure_schema(databases.target, dialect_of(databases.target))
    return databases


@contextmanager
def another_process(databases: Databases, token: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the attempt `token`, with its staging."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HOLD, token], env=databases.environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def open_one(databases: Databases, window: Window = WINDOW, target: str = "fct_orders") -> Attempt:
    """An attempt of a process that is dead by now: ours has its number, and was born later."""
    attempt = Attempt("orders", target, "run", "explicit", window)
    dialect = dialect_of(databases.target)
    with dialect.transaction(databases.target) as connection:
        open_attempt(connection, attempt, f"{socket.gethostname()}/{os.getpid()}/0.00", dialect.clock(connection), {})
    return attempt


def status(databases: Databases, token: str) -> tuple[str, str]:
    """What window and ledger say of an attempt."""
    with databases.target.connect() as connection:
        window = connection.execute(select(windows.c.status).where(windows.c.attempt == token)).scalar_one()
        return window, connection.execute(select(runs.c.status).where(runs.c.attempt == token)).scalar_one()


def staging(databases: Databases) -> set[str]:
    """The names of all staging tables."""
    names = inspect(databases.target).get_table_names()
    return {name for name in names if name.startswith(("etl_staged_", "etl_rejected_"))}


def swept(databases: Databases) -> list[str]:
    """Sweep what dead attempts of `orders` left; their tokens."""
    return sweep(databases.target, dialect_of(databases.target), "orders")


@on_every_target
def test_a_living_attempt_is_left_alone_and_a_dead_one_is_recorded_and_cleared_away(migrated: Databases) -> None:
    token = "a" * 32
    with another_process(migrated, token) as process:
        assert swept(migrated) == []
        assert status(migrated, token) == ("running", "running")
        assert staging(migrated) == {f"etl_staged_{token}", f"etl_rejected_{token}"}
        process.kill()
        process.wait(60)
        _until_released(migrated, token)
        assert swept(migrated) == [token]
    assert status(migrated, token) == ("crashed", "crashed")
    assert staging(migrated) == set()
    with migrated.target.connect() as connection:
        assert "died before it could commit" in connection.execute(select(runs.c.message)).scalar_one()
    assert swept(migrated) == []


def test_an_attempt_that_this_process_holds_is_living(migrated: Databases) -> None:
    dialect = dialect_of(migrated.target)
    attempt = Attempt("orders", "fct_orders", "run", "explicit", WINDOW)
    with dialect.hold(migrated.target, attempt.token) as owner:
        with dialect.transaction(migrated.target) as connection:
            open_attempt(connection, attempt, owner, dialect.clock(connection), {})
        assert swept(migrated) == []
    assert status(migrated, attempt.token) == ("running", "running")


def test_another_pipelines_attempts_are_not_ours_to_sweep(migrated: Databases) -> None:
    token = open_one(migrated).token
    assert sweep(migrated.target, dialect_of(migrated.target), "others") == []
    assert status(migrated, token) == ("running", "running")


def test_staging_of_an_unknown_attempt_is_left(migrated: Databases) -> None:
    with migrated.target.begin() as connection:
        connection.execute(text("CREATE TABLE etl_staged_mine (id integer)"))
    swept(migrated)
    assert staging(migrated) == {"etl_staged_mine"}


def test_staging_that_outlived_its_attempt_is_swept_by_the_next_run(databases: Databases) -> None:
    """As when the connection was gone at the moment it should have been dropped."""
    put(databases.source, [order(1)])
    token = run_pipeline(ORDERS).windows[0].attempt.token
    with databases.target.begin() as connection:
        connection.execute(text(f"CREATE TABLE etl_staged_{token} (id integer)"))
    run_pipeline(ORDERS)
    assert staging(databases) == set()


def test_a_run_records_what_died_before_it_and_loads_its_window(databases: Databases) -> None:
    put(databases.source, [order(1)])
    ensure_schema(databases.target, dialect_of(databases.target))
    token = open_one(databases).token
    assert run_pipeline(ORDERS).counts.inserted == 1
    assert status(databases, token) == ("crashed", "crashed")
    assert len(loaded(databases.target)) == 1


def test_an_attempt_is_completed_once(migrated: Databases) -> None:
    attempt = open_one(migrated)
    dialect = dialect_of(migrated.target)
    with dialect.transaction(migrated.target) as connection:
        complete_attempt(connection, attempt, "committed", START, START)
    with (
        pytest.raises(Fenced, match="declared dead while it was reading, so nothing was written"),
        dialect.transaction(migrated.target) as connection,
    ):
        complete_attempt(connection, attempt, "committed", START, START)


def test_an_attempt_that_has_ended_is_not_ended_again(migrated: Databases) -> None:
    attempt = open_one(migrated)
    with dialect_of(migrated.target).transaction(migrated.target) as connection:
        close_attempt(connection, attempt, "failed", "first", START)
        close_attempt(connection, attempt, "fenced", "second", START)
        assert attempt_status(connection, attempt) == "failed"
    assert status(migrated, attempt.token) == ("failed", "failed")


def test_only_what_overlaps_was_read_later_and_is_committed_in_the_same_target_supersedes(migrated: Databases) -> None:
    later, before = START + 5 * DAY, START + 3 * DAY
    touching, overlapping = Window(START + DAY, START + 2 * DAY), Window(None, START + DAY / 2)
    assert _superseded(migrated, WINDOW, later, "committed")
    assert _superseded(migrated, overlapping, later, "committed")
    assert not _superseded(migrated, touching, later, "committed")
    assert not _superseded(migrated, WINDOW, before, "committed")
    assert not _superseded(migrated, WINDOW, later, "committed", target="fct_others")
    endings: list[Status] = ["failed", "refused", "crashed"]
    for ending in endings:
        assert not _superseded(migrated, WINDOW, later, ending)


def _superseded(
    databases: Databases, window: Window, read_at: datetime, ending: Status, target: str | None = None
) -> bool:
    """Whether an attempt at `WINDOW` that began on day 4 is refused because of another that ended so."""
    table = f"fct_{new_token()}"
    ours, theirs = open_one(databases, target=table), open_one(databases, window, target or table)
    with dialect_of(databases.target).transaction(databases.target) as connection:
        complete_attempt(connection, theirs, ending, read_at, START)
        try:
            refuse_if_superseded(connection, ours, START + 4 * DAY)
        except Superseded as error:
            assert "nothing was written" in str(error)
            return True
    return False


def _until_released(databases: Databases, token: str) -> None:
    """Wait until the server has noticed that the holder is gone, by waiting for its lock."""
    dialect = dialect_of(databases.target)
    with dialect.hold(databases.target, token):
        pass
