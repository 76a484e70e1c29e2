"""`run_backfill_here`: the windows of a backfill, carried out in this process, without any server."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tasks.declaration import Pipeline
from tasks.errors import ConfigError, Refusal, TidegateError, redact
from tasks.observe.context import logger
from tasks.pipeline import run_pipeline
from tasks.recovery.backfill.ledger import Backfill, close_backfill, left
from tasks.recovery.backfill.report import BackfillReport, report_backfill
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class Progress:
    """A window that has just ended.

    Attributes:
        window: which.
        error: why it failed, or None.
        ended: how many have ended, this one included.
        of: how many there were to do.
    """

    window: Window
    error: str | None
    ended: int
    of: int


def run_backfill_here(
    pipeline: Pipeline,
    backfill: Backfill,
    jobs: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
) -> BackfillReport:
    """Carry out what is left of a backfill, each window once, and close it; one that fails keeps none of the others.

    Ctrl-C ends it after the windows under way; who asks the same goes on with what is left then.

    Args:
        pipeline: whose.
        backfill: from `open_backfill`.
        jobs: how many windows are under way at once.
        on_progress: called in this thread whenever a window has ended.

    Returns:
        The report; its status is `done`, `failed`, or `cancelled` by Ctrl-C.

    Raises:
        ConfigError: `jobs` is less than one.
        TidegateError: the ledger could not be read or written; see `tasks.errors`.
    """
    if jobs < 1:
        raise ConfigError(f"{pipeline.name}: jobs is 1 or more, got {jobs}.")
    windows = left(pipeline, backfill)
    failures: dict[Window, str] = {}
    waiting, under_way, ended = list(reversed(windows)), dict[Future[None], Window](), 0
    stopped: BaseException | None = None
    with ThreadPoolExecutor(jobs, thread_name_prefix="backfill") as threads:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < jobs:
                    window = waiting.pop()
                    under_way[threads.submit(_run, pipeline, window)] = window
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    window, ended = under_way.pop(future), ended + 1
                    error = _error(future)
                    if error is not None:
                        failures[window] = error
                    if on_progress is not None:
                        on_progress(Progress(window, error, ended, len(windows)))
        except BaseException as error:
            stopped = error
    if stopped is not None:
        close_backfill(pipeline, backfill, "cancelled", "It was stopped by hand.")
        if not isinstance(stopped, KeyboardInterrupt):
            raise stopped
        return report_backfill(pipeline, backfill)
    to_do = left(pipeline, backfill)
    close_backfill(pipeline, backfill, "failed" if to_do else "done", _message(to_do, failures))
    return report_backfill(pipeline, backfill)


_TRIES = 3


def _run(pipeline: Pipeline, window: Window) -> None:
    for last in (False,) * (_TRIES - 1) + (True,):
        try:
            run_pipeline(pipeline, window.start, window.end)
            return
        except Refusal:
            if last:
                raise


def _error(future: Future[None]) -> str | None:
    error = future.exception()
    if error is None:
        return None
    message = redact(str(error) if isinstance(error, TidegateError) else f"{type(error).__name__}: {error}")
    logger().error("%s", message)
    return message


def _message(to_do: tuple[Window, ...], failures: dict[Window, str]) -> str | None:
    if not to_do:
        return None
    first = next((failures[window] for window in to_do if window in failures), "it was read, but not all of it")
    return f"{len(to_do):,} windows are left, the first of them {to_do[0]}: {first}"
