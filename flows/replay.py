"""Replay: the open dead letters of every pipeline, judged anew: what they waited for may have come."""

from prefect import flow

from flows.nightly import GRAPH
from tasks.errors import ConfigError
from tasks.recovery.replay_run import ReplayReport, replay_pipelines


@flow(name="replay")
def replay(pipeline: str | None = None, rule: str | None = None) -> ReplayReport:
    """Load what passes today of all open letters, or of those of one pipeline, or that broke one rule."""
    if pipeline is not None and pipeline not in GRAPH.order:
        raise ConfigError(f"There is no pipeline {pipeline!r}; there are {', '.join(sorted(GRAPH.order))}.")
    return replay_pipelines("replay", [GRAPH[name] for name in ([pipeline] if pipeline else GRAPH.order)], rule)
