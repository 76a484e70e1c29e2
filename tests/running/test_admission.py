"""Upstreams: how far a run may read, when it waits, and what it says when it skips."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert, select, update

from tasks.dialects import dialect_of
from tasks.errors import ConfigError
from tasks.extract.table import TableExtract
from tasks.pipeline import DependsOn, Pipeline, References, run_pipeline, skip_pipeline
from tasks.running.admission import Admission, Reach, judge
from tasks.running.assembly import Assembly
from tasks.running.plan import Plan
from tasks.state.schema import ensure_schema
from tasks.state.tables import runs, watermarks, windows
from tasks.state.watermarks import Watermark
from tasks.window import Window
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, SNAPSHOT, START, loaded, order, put, remove
from tests.virtual_time import VirtualTime

HOUR = timedelta(hours=1)
CLOCKED = TableExtract("source", "orders", cursor="updated_at", clock="'2026-01-10 00:00:00+00:00'")
BOUND = START + 9 * DAY
DEPENDENT = replace(ORDERS, extract=CLOCKED, depends_on=["customers"])


def cover(target: Engine, until: datetime | None, pipeline: str = "customers") -> None:
    """Let `pipeline` have come to `until`."""
    ensure_schema(target, dialect_of(target))
    with target.begin() as connection:
        moved = connection.execute(
            update(watermarks).where(watermarks.c.pipeline == pipeline).values(covered_until=until)
        )
        if moved.rowcount == 0:
            row = {"pipeline": pipeline, "covered_until": until, "version": 1, "updated_at": START}
            connection.execute(insert(watermarks).values(**row))


def ledger(target: Engine, pipeline: str = "orders") -> list[tuple[str, str | None]]:
    """Status and message of every attempt, in order."""
    wanted = select(runs.c.status, runs.c.message).where(runs.c.pipeline == pipeline).order_by(runs.c.started_at)
    with target.connect() as connection:
        return [(row.status, row.message) for row in connection.execute(wanted)]


def ids(target: Engine) -> list[int]:
    return [row["id"] for row in loaded(target)]


def test_an_incremental_run_reads_no_further_than_its_upstream_has_come(databases: Databases) -> None:
    put(databases.source, [order(number, day=number) for number in range(9)])
    cover(databases.target, START + 3 * DAY)
    report = run_pipeline(DEPENDENT)
    assert (report.window.end, report.covered_until, report.skipped) == (START + 3 * DAY, START + 3 * DAY, None)
    assert ids(databases.target) == [0, 1, 2]


def test_what_a_cut_left_is_read_once_the_upstream_has_come(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(9)])
    cover(sqlite.target, START + 3 * DAY)
    run_pipeline(DEPENDENT)
    cover(sqlite.target, BOUND + DAY)
    assert run_pipeline(DEPENDENT).covered_until == BOUND
    assert ids(sqlite.target) == list(range(9))


def test_a_cut_window_is_split_like_any_other(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(9)])
    cover(sqlite.target, START + 3 * DAY)
    split = replace(DEPENDENT, split=2 * DAY, extract=replace(CLOCKED, initial=START))
    ends = [done.attempt.window.end for done in run_pipeline(split).windows]
    assert ends == [START + 2 * DAY, START + 3 * DAY]


def test_a_run_whose_upstream_has_not_moved_is_skipped_and_reads_nothing(databases: Databases) -> None:
    put(databases.source, [order(1)])
    cover(databases.target, START + 3 * DAY)
    first = run_pipeline(DEPENDENT)
    put(databases.source, [order(2, day=1)])
    report = run_pipeline(DEPENDENT)
    assert report.skipped is not None and report.windows == () and str(report) == report.skipped
    assert ids(databases.target) == [1]
    assert (report.watermark, report.covered_until) == (first.watermark, first.covered_until)
    assert ledger(databases.target) == [("committed", None), ("skipped", report.skipped)]
    with databases.target.connect() as connection:
        assert len(connection.execute(select(windows)).all()) == 1


def test_a_skip_names_the_upstream_how_far_it_has_come_how_far_it_has_to_and_the_remedy(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    cover(sqlite.target, START + 3 * DAY)
    run_pipeline(DEPENDENT)
    message = run_pipeline(DEPENDENT).skipped
    covered = (START + 3 * DAY).isoformat()
    assert message == (
        f"orders: skipped, nothing was read: customers is covered until {covered}, and has to be covered after "
        f"{covered}. Run customers first, or allow it to be further behind with DependsOn('customers', max_age=…)."
    )


def test_an_upstream_that_never_ran_is_behind(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    report = run_pipeline(DEPENDENT)
    assert report.skipped is not None and "customers has not been loaded yet" in report.skipped
    assert ledger(sqlite.target) == [("skipped", report.skipped)]


def test_a_table_that_its_upstream_has_not_made_yet_is_waited_for_and_no_error(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    referring = replace(DEPENDENT, references=[References("customer", "dim_customers.name")])
    assert run_pipeline(referring).skipped is not None


@pytest.mark.parametrize(("max_age", "end"), [(DAY, START + 4 * DAY), (30 * DAY, BOUND)])
def test_an_upstream_may_be_as_far_behind_as_declared(sqlite: Databases, max_age: timedelta, end: datetime) -> None:
    put(sqlite.source, [order(1)])
    cover(sqlite.target, START + 3 * DAY)
    report = run_pipeline(replace(DEPENDENT, depends_on=[DependsOn("customers", max_age=max_age)]))
    assert report.window.end == end


@pytest.mark.parametrize(("customers", "shops"), [(5 * DAY, 2 * DAY), (2 * DAY, 5 * DAY), (2 * DAY, 99 * DAY)])
def test_the_upstream_that_is_furthest_behind_decides(
    sqlite: Databases, customers: timedelta, shops: timedelta
) -> None:
    put(sqlite.source, [order(1)])
    cover(sqlite.target, START + customers)
    cover(sqlite.target, START + shops, "shops")
    report = run_pipeline(replace(DEPENDENT, depends_on=["customers", "shops"]))
    assert report.window.end == START + 2 * DAY


@pytest.mark.parametrize(("covered", "skipped"), [(2 * DAY, False), (2 * DAY - HOUR, True)])
def test_an_explicit_window_has_to_be_covered_to_its_end(sqlite: Databases, covered: timedelta, skipped: bool) -> None:
    put(sqlite.source, [order(1, day=1.5)])
    cover(sqlite.target, START + covered)
    report = run_pipeline(DEPENDENT, START, START + 2 * DAY)
    assert (report.skipped is not None, len(report.windows)) == (skipped, 0 if skipped else 1)
    assert [status for status, _ in ledger(sqlite.target)] == ["skipped" if skipped else "committed"]


@pytest.mark.parametrize(("behind", "skipped"), [(HOUR, False), (3 * HOUR, True)])
def test_a_run_without_a_cursor_needs_an_upstream_that_is_recent_enough(
    sqlite: Databases, behind: timedelta, skipped: bool
) -> None:
    put(sqlite.source, [order(1)])
    cover(sqlite.target, datetime.now(UTC) - behind)
    report = run_pipeline(replace(SNAPSHOT, depends_on=[DependsOn("customers", max_age=2 * HOUR)]))
    assert (report.skipped is not None) == skipped


@pytest.mark.parametrize("covered", [START - 99 * DAY, None])
def test_an_upstream_may_only_have_to_have_been_loaded_once(sqlite: Databases, covered: datetime | None) -> None:
    put(sqlite.source, [order(1)])
    once = replace(SNAPSHOT, depends_on=[DependsOn("customers", max_age=None)])
    assert "customers has not been loaded yet" in str(run_pipeline(once).skipped)
    cover(sqlite.target, covered)
    assert run_pipeline(once).skipped is None


def test_an_upstream_whose_feed_tells_no_time_is_said_so(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    cover(sqlite.target, None)
    assert "customers tells no covered_until" in str(run_pipeline(DEPENDENT).skipped)


class Mart(TableExtract):
    """Reads a table of the target, whole."""

    reads = frozenset({"dim_customers"})


def test_a_mart_reads_what_its_upstreams_have_loaded_as_far_as_that_is(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    mart = replace(SNAPSHOT, extract=Mart("source", "orders"), depends_on=["customers"])
    assert "customers has not been loaded yet" in str(run_pipeline(mart).skipped)
    cover(sqlite.target, START - 99 * DAY)
    assert run_pipeline(mart).skipped is None
    aged = replace(mart, depends_on=[DependsOn("customers", max_age=DAY)])
    assert "and has to be covered until" in str(run_pipeline(aged).skipped)


def test_an_explicit_window_of_a_mart_has_to_be_covered_like_any(sqlite: Databases) -> None:
    mart = replace(SNAPSHOT, extract=Mart("source", "orders"), depends_on=["customers"])
    [upstream] = mart.upstreams
    asked = Plan("explicit", (Window(START, START + 2 * DAY),))
    covered = Reach({upstream: Watermark(None, START + 2 * DAY, 1)}, BOUND)
    behind = Reach({upstream: Watermark(None, START + DAY, 1)}, BOUND)
    assert judge(asked, Watermark(), covered, mart) == asked
    assert isinstance(judge(asked, Watermark(), behind, mart), tuple)


def test_a_full_refresh_ends_where_the_upstream_does_and_then_deletes_nothing(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(9)])
    cover(sqlite.target, START + 3 * DAY)
    run_pipeline(DEPENDENT)
    remove(sqlite.source, [1])
    report = run_pipeline(DEPENDENT, full_refresh=True)
    assert (report.window, report.counts.unchanged) == (Window(None, START + 3 * DAY), 2)
    assert report.counts.deleted == 0


def test_an_upstream_may_load_into_another_database(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    elsewhere = replace(DEPENDENT, depends_on=[DependsOn("customers", connection="source")])
    cover(sqlite.target, BOUND)
    assert run_pipeline(elsewhere).skipped is not None
    cover(sqlite.source, START + 3 * DAY)
    assert run_pipeline(elsewhere).window.end == START + 3 * DAY


def test_what_an_earlier_run_left_of_its_window_was_admitted_then() -> None:
    left = Plan("incremental", (Window(START, BOUND),), rest=True)
    [upstream] = DEPENDENT.upstreams
    assert judge(left, Watermark(), Reach({upstream: Watermark()}, START), DEPENDENT) == left


def waiting(pipeline: Pipeline, planned: Plan, again: Callable[[], Plan], time: VirtualTime) -> Plan | str:
    admission = Admission(Assembly(pipeline), sleep=time.sleep, moment=time.moment)
    return admission.admit(planned, Watermark(), again)


WAITS = DependsOn("customers", when_behind="wait", timeout=timedelta(minutes=5))
PLANNED = Plan("incremental", (Window(START, BOUND),))


def test_a_run_that_waits_asks_less_and_less_often_until_its_timeout(sqlite: Databases) -> None:
    time = VirtualTime()
    message = waiting(replace(DEPENDENT, depends_on=[WAITS]), PLANNED, lambda: PLANNED, time)
    assert time.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60, 57]
    assert isinstance(message, str) and "also after 300 s" in message


def test_a_run_that_waits_goes_on_once_its_upstream_has_come_and_plans_anew(sqlite: Databases) -> None:
    class UpstreamRunsMeanwhile(VirtualTime):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.moment() > 5:
                cover(sqlite.target, START + 4 * DAY)

    time = UpstreamRunsMeanwhile()
    anew = Plan("incremental", (Window(START + HOUR, BOUND + HOUR),))
    admitted = waiting(replace(DEPENDENT, depends_on=[WAITS]), PLANNED, lambda: anew, time)
    assert time.slept == [1, 2, 4]
    assert admitted == Plan("incremental", (Window(START + HOUR, START + 4 * DAY),))


def test_nobody_waits_for_one_upstream_while_another_is_behind_that_is_not_waited_for(sqlite: Databases) -> None:
    time = VirtualTime()
    both = replace(DEPENDENT, depends_on=[WAITS, "shops"])
    message = waiting(both, PLANNED, lambda: PLANNED, time)
    assert time.slept == []
    assert isinstance(message, str) and "Run customers and shops first" in message


def test_a_pipeline_can_be_skipped_by_whoever_runs_it(sqlite: Databases) -> None:
    report = skip_pipeline(ORDERS, "orders: skipped, since customers failed.")
    assert report.skipped == "orders: skipped, since customers failed."
    assert ledger(sqlite.target) == [("skipped", report.skipped)]


@pytest.mark.parametrize(
    ("pipeline", "depends_on", "message"),
    [
        (ORDERS, "customers", r"Write \['customers'\]"),
        (ORDERS, ["orders"], "names itself"),
        (ORDERS, ["customers", DependsOn("customers", max_age=DAY)], "twice"),
        (SNAPSHOT, ["customers"], "how far it may be behind"),
    ],
)
def test_a_dependency_that_makes_no_sense_is_refused(
    pipeline: Pipeline, depends_on: list[str | DependsOn], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(pipeline, depends_on=depends_on)


@pytest.mark.parametrize("wrong", [{"pipeline": ""}, {"max_age": -DAY}, {"timeout": -DAY}, {"when_behind": "perhaps"}])
def test_an_upstream_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="DependsOn"):
        DependsOn(**{"pipeline": "customers", **wrong})  # type: ignore[arg-type]
