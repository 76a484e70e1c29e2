"""`Run`: one run of one pipeline: plan the windows, and persist until each is committed."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import inspect
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from tasks.declaration import Pipeline
from tasks.errors import ConfigError, RetriableError, TidegateError, redact
from tasks.extract.feed import Held
from tasks.extract.gone import GoneExtract
from tasks.extract.letters import LettersExtract
from tasks.masking import hiding, speaking_plainly, told
from tasks.missing_right import remember_whose
from tasks.observe.context import as_task, logger
from tasks.overrides import Overrides
from tasks.report import RunReport, WindowReport
from tasks.run_scope import run_scope
from tasks.running.admission import Admission
from tasks.running.announce import (
    announce_ddl,
    announce_drift,
    announce_health,
    announce_landed,
    announce_run,
    announce_skipped,
    say_shared,
    say_unseen,
)
from tasks.running.assembly import Assembly
from tasks.running.plan import Plan, plan, rebuilds
from tasks.running.window_run import WindowRun
from tasks.state.attempts import Attempt, Kind, Status, new_token, other_writers, record_unplanned
from tasks.state.feeds import forget_feed
from tasks.state.schema import ensure_schema
from tasks.state.watermarks import Watermark, read_watermark
from tasks.version_columns import IS_CURRENT, VALID_FROM, VALID_TO
from tasks.window import Window

Result = TypeVar("Result")


class Run:
    """One run of one pipeline."""

    def __init__(self, pipeline: Pipeline, overrides: Overrides | None = None) -> None:
        self.pipeline = pipeline
        self.run_id = new_token()
        self.log = logger()
        self.assembly = Assembly(pipeline, overrides)
        self._overlooked = False

    @run_scope()
    def run(self, start: datetime | None, end: datetime | None, *, full_refresh: bool = False) -> RunReport:
        """See `run_pipeline`."""
        with hiding(self.pipeline.masking):
            return speaking_plainly(partial(self._run, start, end, full_refresh))()

    def _run(self, start: datetime | None, end: datetime | None, full_refresh: bool) -> RunReport:
        self._remember_whose()
        began = time.monotonic()
        try:
            planned = self._planned(start, end, full_refresh)
        except TidegateError as error:
            with contextlib.suppress(TidegateError):
                self._record_unplanned(start, end, told(error), "failed")
            raise
        done: list[WindowReport] = []
        try:
            skipped = self._all_windows(planned, done, start, end, full_refresh)
        except Exception:
            # What was committed before has landed all the same.
            self._tell_landed(began, done)
            raise
        return self._report(began, tuple(done), skipped)

    def _all_windows(
        self,
        planned: Plan | str,
        done: list[WindowReport],
        start: datetime | None,
        end: datetime | None,
        full_refresh: bool,
    ) -> str | None:
        """Carry out what is planned, each committed window into `done`; why the rest was not read, or None."""
        if isinstance(planned, Plan):
            done.extend(self._windows(planned, full_refresh))
            if not planned.rest:
                return None
            planned = self._planned(start, end, full_refresh)
        if isinstance(planned, Plan):
            done.extend(self._windows(planned, full_refresh))
            return None
        self._persist(self.pipeline.name, partial(self._record_unplanned, start, end, planned, "skipped"))
        return planned

    def _tell_landed(self, began: float, done: Sequence[WindowReport]) -> None:
        """Tell of the windows of a run that breaks off."""
        seconds = time.monotonic() - began
        report = RunReport(self.pipeline.name, self.run_id, tuple(done), seconds, None, None)
        announce_landed(self.pipeline, self.assembly.engine, report)

    def skip(self, reason: str) -> RunReport:
        """See `tasks.pipeline.skip_pipeline`."""
        began, parts = time.monotonic(), self.assembly
        with parts.target_errors(self.pipeline.name):
            ensure_schema(parts.engine, parts.dialect)
        self._persist(self.pipeline.name, partial(self._record_unplanned, None, None, reason, "skipped"))
        return self._report(began, (), reason)

    def _remember_whose(self) -> None:
        remember_whose(self.pipeline.name, self.pipeline.extract.connection, self.pipeline.load.connection)

    @run_scope()
    def remove_feed(self) -> None:
        """See `tasks.pipeline.remove_feed`."""
        self._remember_whose()
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
            what = str(Attempt(self.pipeline.name, self.pipeline.load.table, self.run_id, planned.kind, window))
            more, goal = True, None
            with contextlib.closing(Held()) as held:
                while more:
                    done = self._persist(what, partial(self._attempt, planned, window, held, afresh))
                    yield done
                    goal = goal or done.source_clock
                    reached = goal is not None and done.covered_until is not None and done.covered_until >= goal
                    afresh, more = False, done.more and not reached

    def _attempt(self, planned: Plan, window: Window, held: Held, afresh: bool) -> WindowReport:
        return WindowRun(self.assembly, self.run_id, planned, window, held).run(afresh=afresh)

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
            self._prepare_target()
            others = self._others() if full_refresh and rebuilds(self.pipeline) else []
        if others:
            say_shared(self.pipeline, others)
        return plan(self.pipeline, self._watermark(), start, end, full_refresh=full_refresh, shared=bool(others))

    def _others(self) -> list[str]:
        with self.assembly.engine.connect() as connection:
            return other_writers(connection, self.pipeline.name, self.pipeline.load.table)

    def _prepare_target(self) -> None:
        prepared = self.assembly.prepare_target()
        if prepared.statements:
            announce_ddl(self.pipeline, prepared.statements)
        # What was overlooked is the same at every attempt.
        if prepared.overlooked and not self._overlooked:
            announce_drift(self.pipeline, prepared.overlooked)
            self._overlooked = True

    def _planned(self, start: datetime | None, end: datetime | None, full_refresh: bool) -> Plan | str:
        """What to read, as far as the upstreams have come; why nothing, where they are behind."""
        name = self.pipeline.name
        again = partial(self._persist, name, partial(self._prepare, start, end, full_refresh))
        read = again()
        planned: Plan | str = read
        if self.pipeline.depends_on:
            admission, seen = Admission(self.assembly), Watermark() if full_refresh else self._watermark()
            # A task run of its own, so that a run that waits is seen to.
            admit = as_task("upstreams", partial(admission.admit, read, seen, again))
            planned = self._persist(name, admit)
        if isinstance(planned, Plan):
            self._persist(name, self._expect_other_tables)
        return planned

    def _record_unplanned(self, start: datetime | None, end: datetime | None, message: str, status: Status) -> None:
        """A source that is away, or an upstream, is told of in the ledger too, although no window was opened."""
        parts, extract = self.assembly, self.pipeline.extract
        kind: Kind = "changes" if parts.feed else "full" if extract.cursor is None else "incremental"
        kind = "replay" if isinstance(extract, LettersExtract | GoneExtract) else kind
        asked = Window.parse(start, end)
        attempt = Attempt(
            self.pipeline.name, self.pipeline.load.table, self.run_id, "explicit" if start or end else kind, asked
        )
        with (
            parts.target_errors(self.pipeline.name),
            parts.dialect.transaction(parts.engine) as connection,
        ):
            now = parts.dialect.clock(connection)
            record_unplanned(connection, attempt, redact(message), now, parts.details(), status)

    def _report(self, began: float, done: tuple[WindowReport, ...], skipped: str | None = None) -> RunReport:
        """The end of a run, told to the outside."""
        if self.assembly.contract.unseen:
            say_unseen(self.pipeline, self.assembly.contract.unseen)
        name = self.pipeline.name
        seen = self._persist(name, self._watermark)
        seconds = time.monotonic() - began
        report = RunReport(name, self.run_id, done, seconds, seen.value, seen.covered_until, seen.position, skipped)
        if skipped is not None:
            announce_skipped(self.pipeline, report)
        if done or skipped is None:
            announce_landed(self.pipeline, self.assembly.engine, report)
            announce_run(self.pipeline, report)
        # Letters have no clock by which freshness is told: whoever replays them knows the pipeline that has.
        if not report.replays:
            announce_health(self.pipeline, self.assembly.engine, self.run_id)
        return report

    def _expect_other_tables(self) -> None:
        needed = [(f"References({one.column!r}, {one.target!r})", one.table) for one in self.pipeline.references]
        needed += [(f"Lookup({one.table!r})", one.table) for one in self.pipeline.lookups if one.table is not None]
        if not needed:
            return
        with self.assembly.target_errors(self.pipeline.name):
            inspector = inspect(self.assembly.engine)
        for what, full_name in needed:
            schema, _, table = full_name.rpartition(".")
            if not inspector.has_table(table, schema or None):
                raise ConfigError(
                    f"{self.pipeline.name}: {what} needs the table {full_name!r} in "
                    f"{self.pipeline.load.connection!r}, and it is not there. Run the pipeline that loads it first."
                )
        for one in self.pipeline.references:
            schema, _, table = one.table.rpartition(".")
            if not one.of_versions:
                continue
            known = {column["name"] for column in inspector.get_columns(table, schema or None)}
            if not {VALID_FROM, VALID_TO, IS_CURRENT} <= known:
                raise ConfigError(
                    f"{self.pipeline.name}: {one.rule!r} is about versions, and {one.table!r} has none. Load it with "
                    "Scd2, or leave `current` and `as_of` out."
                )

    def _watermark(self) -> Watermark:
        parts = self.assembly
        with parts.target_errors(self.pipeline.name), parts.engine.connect() as connection:
            return read_watermark(connection, self.pipeline.name)
