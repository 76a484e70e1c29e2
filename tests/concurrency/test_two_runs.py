"""Two processes at once: the target is right whichever commits first, and the loser ends with a clear message."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, inspect, select, text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from tasks.extract.feed import Feed
from tasks.extract.table import TableExtract
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.strategy import Load
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, run_pipeline
from tasks.state.tables import runs, watermarks, windows
from tests.conftest import Databases
from tests.crash.child import Child, Job, Outcome, Paused
from tests.crash.fault_points import COMMIT, Point
from tests.orders import DAY, ORDERS, SNAPSHOT, START, loaded, order, put, remove

pytestmark = pytest.mark.slow

INCREMENTAL = replace(
    ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", lookback=timedelta(days=99))
)

PARTITIONED = ReplacePartition(
    "target", "fct_orders", key=["id"], partition="updated_at", grain="day", allow_empty=True
)

first_or_second = pytest.mark.parametrize(
    "winner", [0, 1], ids=["the first to open commits", "the second to open does"]
)


@pytest.mark.parametrize(
    ("loaded_before", "winner"),
    [(False, 1), (True, 0)],
    ids=["into nothing, the second to open commits", "onto a watermark, the first to open does"],
)
def test_of_two_runs_from_one_watermark_one_commits_and_the_other_is_fenced(
    databases: Databases, loaded_before: bool, winner: int
) -> None:
    put(databases.source, [order(1), order(2, amount=-1)])
    if loaded_before:
        run_pipeline(INCREMENTAL)
    put(databases.source, [order(1, amount=5, day=1), order(3, day=1)])
    with _two_paused(databases, INCREMENTAL) as both:
        outcomes = [_release(both[place]) for place in (winner, 1 - winner)]
    _assert_one_won(*outcomes)
    assert [(row["id"], row["amount"]) for row in loaded(databases.target)] == [(1, 5), (3, 1)]
    assert _statuses(databases) == ["committed"] * loaded_before + [
        "fenced" if place != winner else "committed" for place in (0, 1)
    ]
    assert _staging(databases.target) == []


def test_of_two_runs_that_commit_at_the_same_moment_one_is_fenced(databases: Databases) -> None:
    put(databases.source, [order(number) for number in range(50)])
    with _two_paused(databases, INCREMENTAL) as both:
        for child in both:
            child.go_on()
        outcomes = [child.outcome() for child in both]
    _assert_one_won(*sorted(outcomes, key=lambda outcome: outcome.exit_code))
    assert len(loaded(databases.target)) == 50
    assert sorted(_statuses(databases)) == ["committed", "fenced"]
    assert _staging(databases.target) == []
    with databases.target.connect() as connection:
        assert connection.execute(select(watermarks.c.version)).scalar_one() == 1


def test_what_the_fenced_run_read_is_not_lost(databases: Databases) -> None:
    put(databases.source, [order(1)])
    with _paused(databases, INCREMENTAL) as early:
        put(databases.source, [order(2, day=1)])
        with _paused(databases, INCREMENTAL) as late:
            assert _release(early).exit_code == 0
            assert _release(late).error == "Fenced"
    assert [row["id"] for row in loaded(databases.target)] == [1]
    run_pipeline(INCREMENTAL)
    assert [row["id"] for row in loaded(databases.target)] == [1, 2]


@first_or_second
def test_two_overlapping_explicit_windows_both_commit_and_the_newer_version_stays(
    databases: Databases, winner: int
) -> None:
    put(databases.source, [order(number, day=number) for number in range(10)])
    with _paused(databases, ORDERS, 0, 6) as old:
        put(databases.source, [order(5, amount=55, day=7)])
        with _paused(databases, ORDERS, 3, 10) as new:
            both = (old, new)
            outcomes = [_release(both[place]) for place in (winner, 1 - winner)]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert [row["id"] for row in loaded(databases.target)] == list(range(10))
    assert loaded(databases.target)[5]["amount"] == 55
    assert _statuses(databases) == ["committed", "committed"]
    assert _staging(databases.target) == []


@first_or_second
def test_of_two_overlapping_windows_of_partitions_the_one_that_may_be_older_is_refused(
    databases: Databases, winner: int
) -> None:
    """Whichever commits first: what the other did not see, it would delete."""
    pipeline = replace(ORDERS, load=PARTITIONED)
    put(databases.source, [order(number, day=number) for number in range(10)])
    with _paused(databases, pipeline, 0, 6) as old:
        put(databases.source, [order(5, amount=55, day=5), order(11, day=4.5)])
        remove(databases.source, [3])
        with _paused(databases, pipeline, 3, 10) as new:
            both = (old, new)
            first, second = (_release(both[place]) for place in (winner, 1 - winner))
    assert first.exit_code == 0
    assert (second.exit_code, second.error) == (1, "Superseded")
    assert "or this window reaches beyond that one: then run it again" in second.message
    windows = [(0, 6), (3, 10)]
    start, end = (START + day * DAY for day in windows[1 - winner])
    run_pipeline(pipeline, start, end)
    assert [row["id"] for row in loaded(databases.target)] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 11]
    assert loaded(databases.target)[4]["amount"] == 55
    assert _statuses(databases) == ["superseded" if place != winner else "committed" for place in (0, 1)] + [
        "committed"
    ]
    assert _staging(databases.target) == []


def test_two_windows_of_other_partitions_both_commit(databases: Databases) -> None:
    pipeline = replace(ORDERS, load=PARTITIONED)
    put(databases.source, [order(number, day=number) for number in range(6)])
    with _paused(databases, pipeline, 0, 3) as one, _paused(databases, pipeline, 3, 6) as other:
        for child in (one, other):
            child.go_on()
        assert [child.outcome().exit_code for child in (one, other)] == [0, 0]
    assert [row["id"] for row in loaded(databases.target)] == list(range(6))


@pytest.mark.parametrize(
    "load",
    [Upsert("target", "fct_orders", key=["id"]), Replace("target", "fct_orders", key=["id"])],
    ids=["upsert", "replace"],
)
def test_a_snapshot_that_was_read_earlier_does_not_commit_over_a_later_one(databases: Databases, load: Load) -> None:
    pipeline = replace(SNAPSHOT, load=load)
    put(databases.source, [order(1, amount=1), order(2), order(3)])
    with _paused(databases, pipeline) as early:
        put(databases.source, [order(1, amount=2), order(4)])
        remove(databases.source, [3])
        run_pipeline(pipeline)
        after_late = loaded(databases.target)
        outcome = _release(early)
    assert (outcome.exit_code, outcome.error) == (1, "Superseded")
    assert "nothing was written" in outcome.message and "fct_orders" in outcome.message
    assert loaded(databases.target) == after_late
    assert [(row["id"], row["amount"]) for row in after_late] == [(1, 2), (2, 1), (4, 1)]
    assert _statuses(databases) == ["superseded", "committed"]
    assert _staging(databases.target) == []


def test_a_snapshot_that_commits_second_is_refused_when_it_may_have_been_read_first(databases: Databases) -> None:
    put(databases.source, [order(1, amount=1)])
    with _paused(databases, SNAPSHOT) as early:
        put(databases.source, [order(1, amount=2)])
        with _paused(databases, SNAPSHOT) as late:
            assert _release(early).exit_code == 0
            outcome = _release(late)
    assert (outcome.exit_code, outcome.error) == (1, "Superseded")
    assert loaded(databases.target)[0]["amount"] == 1
    run_pipeline(SNAPSHOT)
    assert loaded(databases.target)[0]["amount"] == 2


def test_commits_into_one_target_wait_for_each_other(postgresql: Databases) -> None:
    put(postgresql.source, [order(number, day=number) for number in range(10)])
    run_pipeline(ORDERS, START, START + DAY)
    before_commit = Point("before", COMMIT)
    with Child(replace(_job(postgresql, ORDERS, 0, 6), point=before_commit, strike="wait")) as holder:
        holder.wait_at_point()
        with Child(_job(postgresql, ORDERS, 3, 10)) as waiter:
            _wait_until_a_session_waits(postgresql.target)
            assert [row["id"] for row in loaded(postgresql.target)] == [0]
            assert [_release(holder).exit_code, waiter.outcome().exit_code] == [0, 0]
    assert [row["id"] for row in loaded(postgresql.target)] == list(range(10))


def test_commits_into_two_targets_do_not_wait_for_each_other(postgresql: Databases) -> None:
    put(postgresql.source, [order(1), order(2, amount=-1)])
    elsewhere = replace(ORDERS, name="elsewhere", load=Upsert("target", "fct_elsewhere", key=["id"]))
    run_pipeline(ORDERS, START, START + DAY)
    before_commit = Point("before", COMMIT)
    with Child(replace(_job(postgresql, INCREMENTAL), point=before_commit, strike="wait")) as holder:
        holder.wait_at_point()
        assert run_pipeline(elsewhere).counts.inserted == 1
        assert _release(holder).exit_code == 0


@contextlib.contextmanager
def _paused(databases: Databases, pipeline: Pipeline, *days: int) -> Iterator[Child]:
    """A process that has read everything and waits before its commit; with days, over that explicit window."""
    assert not isinstance(pipeline.extract, Feed)
    job = _job(databases, replace(pipeline, extract=Paused(pipeline.extract)), *days)
    with Child(job) as child:
        child.wait_at_point()
        yield child


@contextlib.contextmanager
def _two_paused(databases: Databases, pipeline: Pipeline) -> Iterator[list[Child]]:
    """Two processes that have read the same from the same watermark, in the order in which they opened."""
    with _paused(databases, pipeline) as one, _paused(databases, pipeline) as other:
        yield [one, other]


def _job(databases: Databases, pipeline: Pipeline, *days: int) -> Job:
    start, end = (START + day * DAY for day in days) if days else (None, None)
    return Job(pipeline, {"source": databases.source_url, "target": databases.target_url}, start=start, end=end)


def _release(child: Child) -> Outcome:
    child.go_on()
    return child.outcome()


def _assert_one_won(winner: Outcome, loser: Outcome) -> None:
    assert (winner.exit_code, winner.error) == (0, None)
    assert (loser.exit_code, loser.error) == (1, "Fenced")
    assert "another run moved the watermark" in loser.message
    assert "Run it again" in loser.message


def _statuses(databases: Databases) -> list[str]:
    """Of every attempt in the order in which they opened, as the ledger and the windows both have it."""
    joined = runs.join(windows, runs.c.attempt == windows.c.attempt)
    statement = select(runs.c.status, windows.c.status).select_from(joined).order_by(runs.c.started_at)
    with databases.target.connect() as connection:
        found = connection.execute(statement).all()
    assert all(entry == window for entry, window in found), found
    return [entry for entry, _ in found]


def _staging(target: Engine) -> list[str]:
    return [name for name in inspect(target).get_table_names() if name.startswith(("etl_staged", "etl_rejected"))]


def _wait_until_a_session_waits(target: Engine) -> None:
    """Return when a session of this database waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE NOT granted AND datname = current_database()"
    )
    with target.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        polling = Retrying(
            retry=retry_if_result(lambda found: not found), stop=stop_after_delay(60), wait=wait_fixed(0.02)
        )
        polling(lambda: connection.execute(waiting).scalar_one())
