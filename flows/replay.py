"""Replay: the open dead letters of every pipeline, judged anew: what they waited for may have come."""

from datetime import datetime

from prefect import flow

from flows.nightly import GRAPH
from tasks.errors import ConfigError
from tasks.recovery.replay_run import ReplayReport, replay_pipelines
from tasks.window import Window


@flow(name="replay")
def replay(
    pipeline: str | None = None, rule: str | None = None, start: datetime | None = None, end: datetime | None = None
) -> ReplayReport:
    """Load what passes today of all open letters, or of those of one pipeline, of one rule, or of `[start, end)`."""
    if pipeline is not None and pipeline not in GRAPH.order:
        raise ConfigError(f"There is no pipeline {pipeline!r}; there are {', '.join(sorted(GRAPH.order))}.")
    names = [pipeline] if pipeline else GRAPH.order
    return replay_pipelines("replay", [GRAPH[name] for name in names], rule, Window.parse(start, end))
