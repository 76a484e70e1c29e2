"""Replay: the open dead letters of every pipeline, judged anew: what they waited for may have come."""

from datetime import datetime

from prefect import flow

from flows.nightly import GRAPH
from tasks.errors import ConfigError
from tasks.recovery.replay_run import ReplayReport, replay_pipelines, replay_waiting
from tasks.window import Window


@flow(name="replay")
def replay(
    pipeline: str | None = None,
    rule: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    landed: str | None = None,
) -> ReplayReport:
    """Load what passes today of all open letters, or of a pipeline, rule or range, or of what waited for `landed`."""
    if landed is not None:
        if (pipeline, rule, start, end) != (None, None, None, None):
            raise ConfigError(
                f"What has landed ({landed!r}) says which letters of which pipelines are replayed; give neither "
                "`pipeline`, `rule`, `start` nor `end` with it."
            )
        return replay_waiting("replay", GRAPH, landed)
    asked = [GRAPH.named(name) for name in ([pipeline] if pipeline else GRAPH.order)]
    return replay_pipelines("replay", asked, rule, Window.parse(start, end))
