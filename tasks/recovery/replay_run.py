"""`replay_pipelines`: the dead letters of several pipelines replayed, one pipeline after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.counts import Counts
from tasks.declaration import Pipeline
from tasks.errors import ReplayFailed, TidegateError, redact
from tasks.graph import Graph
from tasks.masking import hiding, told
from tasks.observe.artifacts import show_report
from tasks.observe.context import logger
from tasks.recovery.replay import replay_letters
from tasks.recovery.waiting import waiting_for
from tasks.report import RunReport
from tasks.state.letters import Wanted
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of the letters of one pipeline.

    Attributes:
        pipeline: its name.
        runs: the runs that judged them anew; none where no letter was open.
        problem: why that failed, or None.
    """

    pipeline: str
    runs: Sequence[RunReport] = ()
    problem: str | None = None

    @property
    def counts(self) -> Counts:
        """The sum over its runs."""
        return sum((run.counts for run in self.runs), Counts())

    @property
    def row(self) -> dict[str, Any]:
        """As a table shows it."""
        return {"pipeline": self.pipeline, "runs": len(self.runs), **self.counts.as_dict(), "problem": self.problem}


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What became of the letters of each pipeline, in the order in which these were given.

    Attributes:
        replayed: for each pipeline.
        nothing: what there is to say where no letter was replayed.
    """

    replayed: tuple[Replayed, ...]
    nothing: str

    def __str__(self) -> str:
        told = [f"{one.pipeline}: {one.problem or one.counts}" for one in self.replayed if one.runs or one.problem]
        return "; ".join(told) or self.nothing


def replay_pipelines(
    name: str, pipelines: Sequence[Pipeline], rule: str | None = None, window: Window | None = None
) -> ReplayReport:
    """Replay the open dead letters of every pipeline; one that fails keeps none of the others.

    No feed is read anew for it. Inside a flow run the table of all is an artifact `etl-<name>`.

    Args:
        name: of the whole.
        pipelines: whose letters, those first that others refer to.
        rule: only those that broke it.
        window: only those that lie in it; see `Wanted`.

    Raises:
        ReplayFailed: some failed, after all others were replayed.
    """
    wanted = [(pipeline, Wanted(pipeline.name, rule=rule, window=window)) for pipeline in pipelines]
    return _all(name, wanted, "no dead letter is open")


def replay_waiting(name: str, graph: Graph, landed: str) -> ReplayReport:
    """Replay the open dead letters that waited for what a pipeline has landed; see `replay_pipelines`.

    Args:
        name: of the whole.
        graph: the pipelines; one that is not among them is of another project, and nothing here waits for it.
        landed: name of the pipeline.

    Raises:
        ReplayFailed: some failed, after all others were replayed.
    """
    wanted = waiting_for(graph, landed) if landed in graph.order else []
    return _all(name, wanted, f"no dead letter waits for {landed}")


def _all(name: str, wanted: Sequence[tuple[Pipeline, Wanted]], nothing: str) -> ReplayReport:
    report = ReplayReport(tuple(_replayed(pipeline, letters) for pipeline, letters in wanted), nothing)
    logger().info("%s", report)
    show_report(name, [one.row for one in report.replayed], str(report))
    problems = [f"{one.pipeline}: {one.problem}" for one in report.replayed if one.problem is not None]
    if problems:
        raise ReplayFailed(f"{name}: {len(problems)} of {len(wanted)} pipelines failed. {'; '.join(problems)}")
    return report


def _replayed(pipeline: Pipeline, wanted: Wanted) -> Replayed:
    with hiding(pipeline.masking):
        return _outcome(pipeline, wanted)


def _outcome(pipeline: Pipeline, wanted: Wanted) -> Replayed:
    try:
        return Replayed(pipeline.name, replay_letters(pipeline, wanted, snapshots=False))
    # Whatever it is, the letters of the other pipelines are to be replayed.
    except Exception as error:
        problem = redact(str(error) if isinstance(error, TidegateError) else told(error))
        logger().error("%s: its dead letters could not be replayed. %s", pipeline.name, problem)
        return Replayed(pipeline.name, problem=problem)
