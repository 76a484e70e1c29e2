"""`load_window`: one window of a backfill, carried out in this process."""

from tasks.declaration import Pipeline
from tasks.errors import Fenced, Superseded
from tasks.observe.context import logger
from tasks.pipeline import run_pipeline
from tasks.recovery.backfill.pace import paced
from tasks.report import RunReport
from tasks.window import Window

_TRIES = 3


def load_window(pipeline: Pipeline, window: Window, jobs: int = 1) -> RunReport:
    """Run an explicit window; again where a run beside it came first, so that what is read now is newer than that.

    Args:
        pipeline: whose.
        window: with both ends.
        jobs: how many such runs there are at once, which share what an API allows one of them.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    its = paced(pipeline, jobs)
    for _ in range(_TRIES - 1):
        try:
            return run_pipeline(its, window.start, window.end)
        except (Fenced, Superseded) as refusal:
            logger().warning("%s: once more, since another run came first. %s", pipeline.name, refusal)
    return run_pipeline(its, window.start, window.end)
