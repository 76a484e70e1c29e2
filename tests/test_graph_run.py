"""A graph that is run: order, what runs at the same time, and what becomes of the rest when one fails."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import MetaData, select

from tasks.errors import ConfigError, Fenced, GraphFailed, SourceError
from tasks.extract.table import TableExtract
from tasks.graph import Graph
from tasks.graph_run import run_graph
from tasks.load.upsert import Upsert
from tasks.pipeline import DependsOn, Pipeline, run_pipeline
from tasks.report import RunReport
from tasks.state.tables import runs
from tests.conftest import Databases
from tests.orders import DAY, SOURCE, order, put
from tests.test_graph import DIAMOND, pipeline

LONG = 30 * 365 * DAY
"""As an age: it never matters how far an upstream has come, as long as it has run."""


def report(name: str) -> RunReport:
    return RunReport(name, "0" * 32, (), 0.0, None, None)


class Recorder:
    """Runs nothing, and keeps the order."""

    def __init__(self, fails: dict[str, BaseException] | None = None) -> None:
        self.fails = fails or {}
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.skipped: dict[str, str] = {}

    def run(self, pipeline: Pipeline) -> RunReport:
        self.begun.append(pipeline.name)
        if pipeline.name in self.fails:
            raise self.fails[pipeline.name]
        self.ended.append(pipeline.name)
        return report(pipeline.name)

    def skip(self, pipeline: Pipeline, reason: str) -> RunReport:
        self.skipped[pipeline.name] = reason
        return replace(report(pipeline.name), skipped=reason)


def test_nothing_begins_before_all_it_depends_on_has_ended() -> None:
    before: dict[str, set[str]] = {}
    recorder = Recorder()

    def run(pipeline: Pipeline) -> RunReport:
        before[pipeline.name] = set(recorder.ended)
        return recorder.run(pipeline)

    run_graph("night", DIAMOND, run)
    assert before["d"] >= {"a", "b", "c"} and before["b"] >= {"a"} and before["c"] >= {"a"}


def test_what_does_not_depend_on_each_other_runs_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)

    def run(pipeline: Pipeline) -> RunReport:
        if pipeline.name in ("b", "c"):
            both.wait()
        return report(pipeline.name)

    assert run_graph("night", DIAMOND, run).names("completed") == ["a", "b", "c", "d", "e"]


def test_no_more_than_at_once_run_at_the_same_time() -> None:
    second = threading.Barrier(2)

    def run(pipeline: Pipeline) -> RunReport:
        with pytest.raises(threading.BrokenBarrierError):
            second.wait(0.05)
        second.reset()
        return report(pipeline.name)

    assert len(run_graph("night", DIAMOND, run, at_once=1).names("completed")) == 5


def test_a_failure_skips_what_depends_on_it_and_stops_nothing_else() -> None:
    recorder = Recorder({"b": SourceError("no such table")})
    with pytest.raises(GraphFailed) as raised:
        run_graph("night", DIAMOND, recorder.run, skip=recorder.skip)
    assert sorted(recorder.ended) == ["a", "c", "e"]
    assert recorder.skipped == {
        "d": "d: skipped, nothing was read: it depends on b, and b failed in this run. Mend that; the next run catches "
        "up."
    }
    message = str(raised.value)
    assert message.startswith("night: b failed; everything that does not depend on it was carried out: ")
    assert "3 completed (a, c, e); 1 skipped (d); 1 failed (b)" in message and "SourceError: no such table" in message


def test_a_skip_tells_through_whom_it_depends_on_what_failed() -> None:
    recorder = Recorder({"a": SourceError("away")})
    with pytest.raises(GraphFailed):
        run_graph("night", DIAMOND, recorder.run, skip=recorder.skip)
    assert recorder.ended == ["e"]
    assert "it depends on a through b, c, and a failed in this run" in recorder.skipped["d"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(1), KeyboardInterrupt()])
def test_whatever_a_pipeline_raises_is_its_own_failure(error: BaseException) -> None:
    recorder = Recorder({"e": error})
    with pytest.raises(GraphFailed, match="night: e failed"):
        run_graph("night", DIAMOND, recorder.run)
    assert sorted(recorder.ended) == ["a", "b", "c", "d"]


def test_a_run_that_came_second_is_run_again_and_not_for_ever() -> None:
    recorder = Recorder({"e": Fenced("another run moved the watermark")})
    with pytest.raises(GraphFailed):
        run_graph("night", DIAMOND, recorder.run)
    assert recorder.begun.count("e") == 3

    fenced = iter([Fenced("once"), Fenced("twice")])

    def run(pipeline: Pipeline) -> RunReport:
        if error := next(fenced, None):
            raise error
        return report(pipeline.name)

    assert run_graph("night", Graph([pipeline("a")]), run).names("completed") == ["a"]


def test_a_ledger_that_cannot_be_told_of_a_skip_stops_nothing() -> None:
    def skip(pipeline: Pipeline, reason: str) -> RunReport:
        raise ValueError("no ledger")

    recorder = Recorder({"a": SourceError("away")})
    with pytest.raises(GraphFailed, match="3 skipped"):
        run_graph("night", DIAMOND, recorder.run, skip=skip)
    assert recorder.ended == ["e"]


def test_at_least_one_pipeline_runs_at_a_time() -> None:
    with pytest.raises(ConfigError, match="at_once=0"):
        run_graph("night", DIAMOND, run_pipeline, at_once=0)


def loading(name: str, *upstreams: str, table: str = "orders") -> Pipeline:
    return replace(
        pipeline(name, [DependsOn(upstream, max_age=LONG) for upstream in upstreams]),
        extract=TableExtract("source", table, cursor="updated_at"),
        load=Upsert("target", f"fct_{name}", key=["id"]),
    )


def test_with_real_databases_all_but_the_failed_branch_is_loaded_and_the_ledger_says_so(databases: Databases) -> None:
    put(databases.source, [order(number) for number in range(10)])
    graph = Graph(
        [
            loading("last", "broken"),
            loading("broken", "first", table="gone"),
            loading("first"),
            loading("apart", "first"),
        ]
    )
    with pytest.raises(GraphFailed, match="night: broken failed"):
        run_graph("night", graph, run_pipeline)
    assert ledger(databases) == {
        ("first", "committed", 10),
        ("apart", "committed", 10),
        ("broken", "failed", None),
        ("last", "skipped", None),
    }
    SOURCE.to_metadata(MetaData(), name="gone").create(databases.source)
    mended = run_graph("night", graph, run_pipeline)
    assert mended.names("completed") == ["apart", "broken", "first", "last"]


def test_what_its_own_upstream_check_skips_is_no_failure(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    behind = replace(loading("b"), depends_on=[DependsOn("a")], extract=clocked("'2026-01-05 00:00:00+00:00'"))
    first = replace(loading("a"), extract=clocked("'2026-01-03 00:00:00+00:00'"))
    graph = Graph([first, behind])
    assert run_graph("night", graph, run_pipeline).names("completed") == ["a", "b"]
    again = run_graph("night", graph, run_pipeline)
    assert (again.names("completed"), again.names("skipped")) == (["a"], ["b"])
    assert "a is covered until 2026-01-03" in str(again["b"].message)


def clocked(clock: str) -> TableExtract:
    return TableExtract("source", "orders", cursor="updated_at", clock=clock)


def ledger(databases: Databases) -> set[tuple[str, str, int | None]]:
    with databases.target.connect() as connection:
        rows = connection.execute(select(runs.c.pipeline, runs.c.status, runs.c.inserted)).all()
    return {(row.pipeline, row.status, row.inserted) for row in rows}
