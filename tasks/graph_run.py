"""`run_graph`: every pipeline of a graph, each after its upstreams, and none stopped by the failure of another."""

import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

from tasks.declaration import Pipeline
from tasks.errors import ConfigError, Fenced, GraphFailed, Superseded, redact
from tasks.graph import Graph
from tasks.observe.artifacts import show_report
from tasks.observe.context import logger
from tasks.pipeline import skip_pipeline
from tasks.report import RunReport

RunPipeline = Callable[[Pipeline], RunReport]

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pipeline.

    Attributes:
        pipeline: its name.
        status: `completed`, `skipped` (nothing was read, on purpose) or `failed`.
        seconds: how long it took.
        report: what it did; None where it failed.
        message: why it failed or was skipped.
    """

    pipeline: str
    status: Literal["completed", "skipped", "failed"]
    seconds: float
    report: RunReport | None = None
    message: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        """As a table shows it."""
        counts = self.report.counts if self.report else None
        return {
            "pipeline": self.pipeline,
            "status": self.status,
            **{
                name: getattr(counts, name) if counts else None
                for name in ("extracted", "inserted", "updated", "deleted", "unchanged", "rejected")
            },
            "covered until": self.report and self.report.covered_until and self.report.covered_until.isoformat(),
            "seconds": round(self.seconds, 2),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class GraphReport:
    """What became of every pipeline of a graph, in the order in which they ended."""

    outcomes: Sequence[Outcome]

    def __getitem__(self, pipeline: str) -> Outcome:
        return next(outcome for outcome in self.outcomes if outcome.pipeline == pipeline)

    def names(self, status: str) -> list[str]:
        """The pipelines that ended like this."""
        return sorted(outcome.pipeline for outcome in self.outcomes if outcome.status == status)

    def __str__(self) -> str:
        kinds = {status: self.names(status) for status in ("completed", "skipped", "failed")}
        return "; ".join(f"{len(names)} {status} ({', '.join(names)})" for status, names in kinds.items() if names)


def run_graph(
    name: str,
    graph: Graph,
    run: RunPipeline,
    *,
    skip: Callable[[Pipeline, str], RunReport] = skip_pipeline,
    at_once: int = 4,
) -> GraphReport:
    """Run every pipeline of `graph`, what does not depend on each other at the same time.

    Inside a flow run, the table of what became of each is an artifact `etl-<name>`.

    Args:
        name: of the whole.
        graph: what to run.
        run: runs one pipeline, in a thread that has a copy of this context.
        skip: tells the ledger that a pipeline reads nothing since one that it depends on failed.
        at_once: how many run at the same time, at most.

    Raises:
        ConfigError: `at_once` is below 1.
        GraphFailed: some failed, after everything that does not depend on them was carried out.
    """
    if at_once < 1:
        raise ConfigError(f"{name}: at least one pipeline runs at a time, got at_once={at_once}.")
    report = GraphReport(_GraphRun(graph, run, skip, at_once).outcomes())
    show_report(name, [outcome.row for outcome in report.outcomes], str(report))
    failed = report.names("failed")
    if failed:
        reasons = "; ".join(str(report[one].message) for one in failed)
        raise GraphFailed(
            f"{name}: {', '.join(failed)} failed; everything that does not depend on it was carried out: {report}. "
            f"{reasons}"
        )
    return report


class _GraphRun:
    def __init__(
        self, graph: Graph, run: RunPipeline, skip: Callable[[Pipeline, str], RunReport], at_once: int
    ) -> None:
        self.graph, self.run, self.skip = graph, run, skip
        self.at_once = at_once
        self.done: dict[str, Outcome] = {}
        self.blamed: dict[str, tuple[str, ...]] = {}
        """Of each pipeline that failed, or was skipped for it: which ones failed."""

    def outcomes(self) -> list[Outcome]:
        sorter = self.graph.sorter()
        sorter.prepare()
        ready: list[str] = []
        running: dict[Future[Outcome], str] = {}
        pool = ThreadPoolExecutor(self.at_once, thread_name_prefix="tidegate-graph")
        try:
            while sorter.is_active():
                ready += sorter.get_ready()
                while ready:
                    name = ready.pop(0)
                    if self._failed_upstreams(name):
                        self._end(self._skipped(name))
                        sorter.done(name)
                        ready += sorter.get_ready()
                    else:
                        attempt = contextvars.copy_context().run
                        running[pool.submit(attempt, self._outcome, name)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._end(future.result())
                    sorter.done(running.pop(future))
        except BaseException:
            # Somebody ends this process: what has not begun does not, and what runs goes on until it is done or killed.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        return list(self.done.values())

    def _end(self, outcome: Outcome) -> None:
        self.done[outcome.pipeline] = outcome
        if outcome.status == "failed":
            self.blamed[outcome.pipeline] = (outcome.pipeline,)

    def _outcome(self, name: str) -> Outcome:
        began = time.monotonic()
        try:
            report = self._persist(self.graph[name])
        # All there is: in a thread even SystemExit is no more than the end of this pipeline.
        except BaseException as error:
            message = redact(f"{type(error).__name__}: {error}")
            logger().error("%s failed; what depends on it is skipped, and all else goes on. %s", name, message)
            return Outcome(name, "failed", time.monotonic() - began, message=message)
        status: Literal["completed", "skipped"] = "skipped" if report.skipped and not report.windows else "completed"
        return Outcome(name, status, time.monotonic() - began, report, report.skipped)

    def _persist(self, pipeline: Pipeline) -> RunReport:
        """Run it; again where another run of it, by its own schedule, came first and this one wrote nothing."""
        for _ in range(_TRIES - 1):
            try:
                return self.run(pipeline)
            except (Fenced, Superseded) as refusal:
                logger().warning("%s: once more, since another run came first. %s", pipeline.name, refusal)
        return self.run(pipeline)

    def _failed_upstreams(self, name: str) -> tuple[str, ...]:
        blamed = (one for upstream in self.graph.upstreams(name) for one in self.blamed.get(upstream, ()))
        return tuple(dict.fromkeys(blamed))

    def _skipped(self, name: str) -> Outcome:
        began, failed = time.monotonic(), self._failed_upstreams(name)
        self.blamed[name] = failed
        through = [one for one in self.graph.upstreams(name) if one in self.blamed and one not in failed]
        chain = f" through {', '.join(through)}" if through else ""
        message = (
            f"{name}: skipped, nothing was read: it depends on {', '.join(failed)}{chain}, and {', '.join(failed)} "
            "failed in this run. Mend that; the next run catches up."
        )
        report = None
        try:
            report = self.skip(self.graph[name], message)
        except Exception as error:
            message += redact(f" The ledger could not be told: {error}")
        return Outcome(name, "skipped", time.monotonic() - began, report, message)
