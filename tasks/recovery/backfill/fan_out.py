"""`fan_out`: a backfill's windows as flow runs of their own, seen to until the ledger has each, or says why not."""

import contextlib
import time
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

from tasks.declaration import Pipeline
from tasks.errors import RetriableError
from tasks.observe.artifacts import Progress
from tasks.observe.context import flow_run_id, logger
from tasks.recovery.backfill.dispatch import Dispatch, Trace
from tasks.recovery.backfill.ledger import Backfill, close_backfill, left
from tasks.recovery.backfill.report import BackfillReport, report_backfill
from tasks.recovery.backfill.submission import Submission
from tasks.recovery.backfill.traces import traces_of
from tasks.window import Window

POLL_SECONDS: Final = 1.0
_TRACE_SECONDS: Final = 10.0
_LEDGER_SECONDS: Final = 30.0
"""The ledger is read whenever a flow run has ended, and so often in any case: runs beside it cover windows, too."""
_AWAY_SECONDS: Final = 900.0
_UNTAKEN_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 5.0
"""After half a minute a worker kills what it has told to end, this flow run too; no sooner does it say that it has."""

Answer = TypeVar("Answer")


def fan_out(pipeline: Pipeline, backfill: Backfill, jobs: int, submission: Submission) -> BackfillReport:
    """Have every window that is left loaded by a flow run, at most `jobs` at once, and close the backfill.

    It may be killed at any instant, and called again: what is under way is found by its tag, and nothing is submitted
    twice. Where the flow run it is in is cancelled, so are those of the windows, and the rest is left.

    Args:
        pipeline: whose.
        backfill: from `open_backfill`.
        jobs: how many flow runs there are at once.
        submission: of that backfill.

    Returns:
        The report; its status is `done` or `failed`.

    Raises:
        TidegateError: the server or the target did not answer for a quarter of an hour; see `tasks.errors`.
    """
    under_way = _FanOut(pipeline, backfill, jobs, submission)
    try:
        under_way.run()
    # The end of this process: a person's doing, or a worker's.
    except BaseException:
        cancelled = False
        if (this := flow_run_id()) is not None:
            with contextlib.suppress(Exception):
                cancelled = submission.is_cancelling(this)
        if cancelled:
            under_way.stop()
        raise
    to_do = left(pipeline, backfill)
    close_backfill(pipeline, backfill, "failed" if to_do else "done", under_way.message(to_do))
    return report_backfill(pipeline, backfill)


class _FanOut:
    def __init__(self, pipeline: Pipeline, backfill: Backfill, jobs: int, submission: Submission) -> None:
        self._pipeline, self._backfill, self._submission = pipeline, backfill, submission
        waits = [one.timeout.total_seconds() for one in pipeline.upstreams if one.when_behind == "wait"]
        self._dispatch = Dispatch(jobs, max(waits, default=0.0))
        self._progress = Progress(f"backfill-{pipeline.name}")
        self._to_do: tuple[Window, ...] = ()
        self._read_at = self._traced_at = self._taken_at = time.monotonic()
        self._traces: dict[UUID, Trace] = {}

    def run(self) -> None:
        dispatch = self._dispatch
        dispatch.seen(self._submission.under_way(), ())
        if dispatch.under_way:
            logger().info("%d of its flow runs are under way already.", len(dispatch.under_way))
        self._read_ledger()
        while not dispatch.over(self._to_do):
            for window in dispatch.next(self._to_do):
                dispatch.sent(self._submission.submit(window))
            time.sleep(POLL_SECONDS)
            self._look()
        self._show()

    def _look(self) -> None:
        """What has become of the flow runs, and of the windows."""
        dispatch, now = self._dispatch, time.monotonic()
        children = self._submission.of_ids(dispatch.under_way)
        gone = dispatch.under_way.keys() - {child.id for child in children}
        for deleted in gone:
            logger().warning("Flow run %s was deleted; its window is submitted again.", deleted)
            del dispatch.under_way[deleted]
        ended = gone or any(child.phase not in ("scheduled", "pending", "running") for child in children)
        if ended or now - self._read_at >= _LEDGER_SECONDS:
            self._read_ledger()
        dispatch.seen(children, self._to_do)
        for child in dispatch.needless(self._to_do):
            self._submission.cancel(child, "Another run has loaded its window.")
        self._see_to_lost(now)
        self._warn_of_untaken(now)

    def _read_ledger(self) -> None:
        self._to_do = self._asked(lambda: left(self._pipeline, self._backfill))
        self._read_at = time.monotonic()
        self._show()

    def _see_to_lost(self, now: float) -> None:
        dispatch = self._dispatch
        if now - self._traced_at >= _TRACE_SECONDS:
            running = [child.id for child in dispatch.under_way.values() if child.phase == "running"]
            self._traces = self._asked(lambda: traces_of(self._pipeline, running))
            self._traced_at = now
        for child, why in dispatch.lost(self._traces, self._to_do, now):
            logger().warning("%s: its flow run %s is given up. %s", child.window, child.id, why)
            self._submission.crash(child, why)

    def _warn_of_untaken(self, now: float) -> None:
        under_way = self._dispatch.under_way.values()
        if not under_way or any(child.phase != "scheduled" for child in under_way):
            self._taken_at = now
        elif now - self._taken_at >= _UNTAKEN_SECONDS:
            logger().warning(
                "No worker has taken up a window for %.0f s. Is one alive that serves the work queue of the windows, "
                "and may it run more at once than this flow alone?",
                now - self._taken_at,
            )
            self._taken_at = now

    def _show(self) -> None:
        of = len(self._backfill.windows)
        done, given_up = of - len(self._to_do), len(self._dispatch.given_up)
        failed = f", {given_up:,} given up" if given_up else ""
        self._progress.show(done, of, f"{self._pipeline.name}: {done:,} of {of:,} windows loaded{failed}")

    def stop(self) -> None:
        """Cancel what is under way, and write down that the backfill was cancelled."""
        # Also what was submitted in the very moment.
        for child in self._submission.under_way():
            self._submission.cancel(child, "Its backfill was cancelled.")
        deadline = time.monotonic() + _STOP_SECONDS
        while (running := self._submission.under_way()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for child in running:
            logger().info("%s: its worker ends its flow run %s.", child.window, child.id)
        close_backfill(self._pipeline, self._backfill, "cancelled", "Its flow run was cancelled.")
        self._to_do = left(self._pipeline, self._backfill)
        self._show()

    def message(self, to_do: tuple[Window, ...]) -> str | None:
        """Why it has not come to its end, where it has not."""
        if not to_do:
            return None
        given_up = self._dispatch.given_up
        first = next((window for window in to_do if window in given_up), to_do[0])
        return f"{len(to_do):,} of its windows are left. {first}: {given_up.get(first, 'it was not loaded')}"

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """What the target answers, once it does."""
        began = time.monotonic()
        while True:
            try:
                return ask()
            except RetriableError as error:
                if time.monotonic() - began > _AWAY_SECONDS:
                    raise
                logger().warning("The ledger is asked again: %s", error)
            time.sleep(5 * POLL_SECONDS)
