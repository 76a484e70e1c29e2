"""The pipelines of `flows/` as a graph: complete, without a cycle, and with every read declared."""

from importlib import import_module
from pathlib import Path

import pytest
from prefect.exceptions import ParameterTypeError

from flows import nightly
from tasks.graph import Graph
from tasks.pipeline import Pipeline

FOLDER = Path(nightly.__file__).parent


def pipelines() -> dict[str, Pipeline]:
    """Every pipeline that a file in `flows/` declares."""
    modules = [import_module(f"flows.{file.stem}") for file in sorted(FOLDER.glob("[!_]*.py"))]
    declared = [value for module in modules for value in vars(module).values() if isinstance(value, Pipeline)]
    return {pipeline.name: pipeline for pipeline in declared}


def test_no_pipeline_reads_what_another_loads_without_depending_on_it() -> None:
    graph = Graph(list(pipelines().values()))
    assert [str(read) for read in graph.undeclared_reads()] == []


def test_the_rule_sees_what_these_pipelines_read() -> None:
    # Without this, the test above would hold too if it saw nothing at all.
    known = pipelines()
    alone = [Pipeline(one.name, one.extract, one.schema, one.load, references=one.references) for one in known.values()]
    found = {(read.reader, read.loader) for read in Graph(alone).undeclared_reads()}
    assert {("flights", "airports"), ("flights", "planes")} <= found
    assert {("daily_delays", name) for name in ("airports", "flights", "weather")} <= found


def test_the_night_runs_every_pipeline() -> None:
    assert {pipeline.name: pipeline for pipeline in nightly.GRAPH.pipelines} == pipelines()


def test_every_pipeline_of_the_night_is_run_by_its_own_flow() -> None:
    assert {name: its_flow.name for name, its_flow in nightly.FLOWS.items()} == {name: name for name in pipelines()}


@pytest.mark.parametrize("at_once", [0, 6])
def test_the_night_refuses_more_at_once_than_a_database_has_connections_for(at_once: int) -> None:
    with pytest.raises(ParameterTypeError):
        nightly.nightly.validate_parameters({"at_once": at_once})
