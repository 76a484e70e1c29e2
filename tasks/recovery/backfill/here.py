"""`run_backfill_here`: the windows of a backfill, carried out in this process, without any server."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

from tasks.declaration import Pipeline
from tasks.errors import ConfigError, TidegateError, redact
from tasks.observe.context import logger
from tasks.recovery.backfill.ledger import Backfill, close_backfill, left
from tasks.recovery.backfill.one_window import load_window
from tasks.recovery.backfill.report import BackfillReport, report_backfill
from tasks.window import Window

MOST_JOBS = 5
"""Each takes up to three connections to the target, and this process has fifteen."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A window that has just ended.

    Attributes:
        window: which.
        error: why it was not loaded, or None.
        ended: how many have ended, this one included.
        of: how many there were to do.
    """

    window: Window
    error: str | None
    ended: int
    of: int


def expect_jobs(pipeline: Pipeline, jobs: int) -> None:
    """Make sure that this process can carry so many windows at once.

    Raises:
        ConfigError: it cannot.
    """
    if not 1 <= jobs <= MOST_JOBS:
        raise ConfigError(f"{pipeline.name}: in one process jobs is from 1 to {MOST_JOBS}, got {jobs}.")


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
        jobs: how many windows are under way at once, 1 to 5.
        on_progress: called in this thread whenever a window has ended.

    Returns:
        The report; its status is `done`, `failed`, or `cancelled` by Ctrl-C.

    Raises:
        ConfigError: `jobs` is another number.
        TidegateError: the ledger could not be read or written; see `tasks.errors`.
    """
    expect_jobs(pipeline, jobs)
    windows = left(pipeline, backfill)
    errors: dict[Window, str] = {}

    def ended(window: Window, error: str | None, count: int) -> None:
        if error is not None:
            errors[window] = error
        if on_progress is not None:
            on_progress(Progress(window, error, count, len(windows)))

    try:
        _carry_out(partial(_run, pipeline, jobs), windows, jobs, ended)
    except KeyboardInterrupt:
        close_backfill(pipeline, backfill, "cancelled", "It was stopped by hand.")
        return report_backfill(pipeline, backfill)
    except BaseException as error:
        close_backfill(pipeline, backfill, "cancelled", f"It was stopped by {type(error).__name__}.")
        raise
    to_do = left(pipeline, backfill)
    close_backfill(pipeline, backfill, "failed" if to_do else "done", _message(to_do, errors))
    return report_backfill(pipeline, backfill)


def _carry_out(
    run: Callable[[Window], str | None],
    windows: tuple[Window, ...],
    jobs: int,
    ended: Callable[[Window, str | None, int], None],
) -> None:
    """Call `run` with every window; whatever is raised here leaves only once those under way have ended."""
    waiting, under_way, count = list(reversed(windows)), dict[Future[str | None], Window](), 0
    with ThreadPoolExecutor(jobs, thread_name_prefix="backfill") as threads:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < jobs:
                    window = waiting.pop()
                    under_way[threads.submit(run, window)] = window
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    window, count = under_way.pop(future), count + 1
                    ended(window, future.result(), count)
        except BaseException:
            logger().warning("The backfill is stopped; it ends with the windows under way.")
            raise


def _run(pipeline: Pipeline, jobs: int, window: Window) -> str | None:
    """Run one window; why it was not loaded, or None."""
    try:
        return load_window(pipeline, window, jobs).skipped
    # Whatever it is, the other windows are to be loaded.
    except Exception as error:
        message = redact(str(error) if isinstance(error, TidegateError) else f"{type(error).__name__}: {error}")
        logger().error("%s: %s was not loaded. %s", pipeline.name, window, message)
        return message


def _message(to_do: tuple[Window, ...], errors: dict[Window, str]) -> str | None:
    if not to_do:
        return None
    first = next((window for window in to_do if window in errors), to_do[0])
    why = errors.get(first, "it was read, but not all of it.")
    return f"{len(to_do):,} of its windows are left. {first}: {why}"
