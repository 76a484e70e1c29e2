"""`Run`: one run of one pipeline: plan the windows, and persist until each is committed."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import inspect
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from tasks.announce import announce_run
from tasks.assembly import Assembly
from tasks.declaration import Pipeline
from tasks.errors import ConfigError, RetriableError, TidegateError, redact
from tasks.extract.feed import Held
from tasks.load.target import ensure_target
from tasks.observe.context import logger
from tasks.overrides import Overrides
from tasks.plan import Plan, plan
from tasks.report import RunReport, WindowReport
from tasks.run_scope import run_scope
from tasks.state.attempts import Attempt, Kind, new_token, record_unplanned
from tasks.state.feeds import forget_feed
from tasks.state.schema import ensure_schema
from tasks.state.watermarks import Watermark, read_watermark
from tasks.window import Window
from tasks.window_run import WindowRun

Result = TypeVar("Result")


class Run:
    """One run of one pipeline."""

    def __init__(self, pipeline: Pipeline, overrides: Overrides | None = None) -> None:
        self.pipeline = pipeline
        self.run_id = new_token()
        self.log = logger()
        self.assembly = Assembly(pipeline, overrides)

    @run_scope()
    def run(self, start: datetime | None, end: datetime | None, *, full_refresh: bool = False) -> RunReport:
        """See `run_pipeline`."""
        began = time.monotonic()
        name = self.pipeline.name
        try:
            planned = self._persist(name, partial(self._prepare, start, end, full_refresh))
        except TidegateError as error:
            self._record_unplanned(start, end, error)
            raise
        done = tuple(self._windows(planned, full_refresh))
        if planned.rest:
            planned = self._persist(name, partial(self._prepare, start, end, full_refresh))
            done += tuple(self._windows(planned, full_refresh))
        seen = self._persist(name, self._watermark)
        report = RunReport(
            name, self.run_id, done, time.monotonic() - began, seen.value, seen.covered_until, seen.position
        )
        announce_run(self.pipeline, report)
        return report

    def remove_feed(self) -> None:
        """See `tasks.pipeline.remove_feed`."""
        name, parts = self.pipeline.name, self.assembly
        if parts.feed is None:
            raise ConfigError(
                f"{name}: {self.pipeline.extract.dataset!r} is read by windows; it has no feed to remove."
            )
        with parts.target_errors(name):
            ensure_schema(parts.engine, parts.dialect)
        parts.feed.remove(parts.home(new_token()))
        with parts.target_errors(name):
            forget_feed(parts.engine, parts.dialect, name)

    def _windows(self, planned: Plan, full_refresh: bool) -> Iterator[WindowReport]:
        """Carry out the planned windows; a feed's is repeated until what was there when the run began has been read.

        A source that is written to faster than it is read would otherwise keep a run for ever.
        """
        # Only the first: what it leaves is of this refresh, and the next window builds on it.
        afresh = full_refresh
        for window in planned.windows:
            what = f"{self.pipeline.name} {'changes' if self.assembly.feed else window}"
            more, goal = True, None
            with contextlib.closing(Held()) as held:
                while more:
                    done = self._persist(what, partial(self._attempt, planned.kind, window, held, afresh))
                    yield done
                    goal = goal or done.source_clock
                    reached = goal is not None and done.covered_until is not None and done.covered_until >= goal
                    afresh, more = False, done.more and not reached

    def _attempt(self, kind: Kind, window: Window, held: Held, afresh: bool) -> WindowReport:
        return WindowRun(self.assembly, self.run_id, kind, window, held).run(afresh=afresh)

    def _persist(self, what: str, step: Callable[[], Result]) -> Result:
        """Try `step` until it succeeds, cannot, or has been tried often enough."""
        for attempt in Retrying(
            retry=retry_if_exception_type(RetriableError),
            stop=stop_after_attempt(self.pipeline.max_attempts),
            wait=wait_exponential_jitter(multiplier=0.5, max=60, jitter=1),
            before_sleep=lambda state: self._say_retried(what, state),
            reraise=True,
        ):
            with attempt:
                return step()
        raise AssertionError("the last attempt raises")

    def _say_retried(self, what: str, state: RetryCallState) -> None:
        cause = state.outcome and state.outcome.exception()
        self.log.warning("%s: attempt %d failed: %s", what, state.attempt_number, cause)

    def _prepare(self, start: datetime | None, end: datetime | None, full_refresh: bool) -> Plan:
        """Bring state tables and target up to date, and plan the windows."""
        name = self.pipeline.name
        parts = self.assembly
        with parts.target_errors(name):
            ensure_schema(parts.engine, parts.dialect)
            ensure_target(parts.engine, parts.dialect, parts.target)
            if parts.tombstones is not None:
                ensure_target(parts.engine, parts.dialect, parts.tombstones)
            self._expect_references()
        return plan(self.pipeline, self._watermark(), start, end, full_refresh=full_refresh)

    def _record_unplanned(self, start: datetime | None, end: datetime | None, error: TidegateError) -> None:
        """Best effort: a source that is away is told of in the ledger too, although no window was opened."""
        parts, extract = self.assembly, self.pipeline.extract
        kind: Kind = "changes" if parts.feed else "full" if extract.cursor is None else "incremental"
        with (
            contextlib.suppress(TidegateError),
            parts.target_errors(self.pipeline.name),
            parts.dialect.transaction(parts.engine) as connection,
        ):
            asked = Window.parse(start, end)
            attempt = Attempt(
                self.pipeline.name, self.pipeline.load.table, self.run_id, "explicit" if start or end else kind, asked
            )
            message = redact(f"{type(error).__name__}: {error}")
            record_unplanned(connection, attempt, message, parts.dialect.clock(connection), parts.details())

    def _expect_references(self) -> None:
        inspector = inspect(self.assembly.engine)
        for reference in self.pipeline.references:
            schema, _, table = reference.table.rpartition(".")
            if not inspector.has_table(table, schema or None):
                raise ConfigError(
                    f"{self.pipeline.name}: References({reference.column!r}, {reference.target!r}) needs the table "
                    f"{reference.table!r} in {self.pipeline.load.connection!r}, and it is not there. Run the pipeline "
                    "that loads it first."
                )

    def _watermark(self) -> Watermark:
        parts = self.assembly
        with parts.target_errors(self.pipeline.name), parts.engine.connect() as connection:
            return read_watermark(connection, self.pipeline.name)
