"""`WindowRun`: one attempt at one window: open, read and stage, commit, and clear away."""

import contextlib
import time
from dataclasses import replace
from datetime import datetime
from functools import partial

from tasks.errors import Fenced, GuardRefused, Superseded, TidegateError, redact
from tasks.extract.changes import cursor_values
from tasks.extract.feed import (
    Chunk,
    Dated,
    Difference,
    Feed,
    Held,
    Opening,
    Ordered,
    Part,
    Requesting,
    Resumable,
    Scoped,
)
from tasks.extract.window_chunk import WindowChunk
from tasks.load.arrivals import Arrivals
from tasks.load.commit import Commit
from tasks.load.target import staged_table
from tasks.masking import told
from tasks.observe.context import as_task, logger
from tasks.report import WindowReport
from tasks.running.announce import (
    announce_error_rate,
    announce_notices,
    announce_window,
    say_not_acknowledged,
    say_null_cursors,
    say_out_of_bounds,
)
from tasks.running.assembly import Assembly
from tasks.running.plan import Plan
from tasks.running.streaming import stream
from tasks.spool import Spool
from tasks.state.attempts import Attempt, Status, close_attempt, drop_staging, open_attempt, sweep
from tasks.state.dead_letters import rejected_table
from tasks.state.ledger import last_position
from tasks.state.watermarks import Watermark, read_watermark
from tasks.transform.audits import AuditCheck
from tasks.transform.bounds import BoundsCheck
from tasks.transform.changes import judge_changes
from tasks.transform.contract import Judged
from tasks.transform.dating import Dating
from tasks.transform.whole_window import WholeWindow
from tasks.transform.window_rules import StagedRows, WindowCheck
from tasks.window import Window


class WindowRun:
    """One attempt at one window, or at one chunk of a feed.

    Args:
        assembly: the pipeline and its parts.
        run_id: the run it belongs to.
        planned: what the run is: how it is recorded, whether it moves the watermark, and what it tells of the source.
        window: what to read; unbounded for a feed.
        held: what the extract keeps open between the commits of this window.
    """

    def __init__(self, assembly: Assembly, run_id: str, planned: Plan, window: Window, held: Held) -> None:
        self.parts = assembly
        self.planned = planned
        self.held = held
        self.pipeline = assembly.pipeline
        self.attempt = Attempt(self.pipeline.name, self.pipeline.load.table, run_id, planned.kind, window)
        contract = assembly.contract
        self.staged = staged_table(
            self.attempt.staged_table,
            contract.columns,
            key=contract.key,
            changes=assembly.tells_deletes,
            dated=self.pipeline.load.dated,
        )
        self.rejected = rejected_table(
            self.attempt.rejected_table, contract.key_schema, masked=bool(self.pipeline.masked)
        )

    def run(self, *, afresh: bool = False) -> WindowReport:
        """Read, stage and commit.

        Args:
            afresh: a feed forgets its position, and begins with a snapshot.

        Raises:
            RetriableError: another attempt may succeed.
            GuardRefused: only the dead letters were committed.
            TidegateError: see `tasks.errors`; nothing was committed.
        """
        began = time.monotonic()
        self._sweep()
        with contextlib.ExitStack() as stack:
            opened_at, seen = self._open(stack)
            stack.callback(self._drop_staging)
            try:
                self._create_staging()
                chunk = stack.enter_context(self._chunk(seen, opened_at, afresh=afresh))
                spool = stack.enter_context(Spool()) if self.parts.rejecting else None
                arrivals = self._receive(chunk, spool, opened_at)
                entry = as_task("commit", self._commit(chunk, spool, arrivals, seen, began).run)()
            except BaseException as error:
                self._record_failure(error)
                raise
            if entry.status in ("committed", "partial"):
                self._acknowledge(chunk)
        done = WindowReport(self.attempt, entry, chunk.more, chunk.source_clock, arrivals.covered_until)
        announce_window(done)
        if entry.status != "refused" and entry.message:
            say_out_of_bounds(self.attempt, entry.message)
        if entry.status == "refused":
            body = {"window": str(self.attempt.window), **entry.counts.as_dict()}
            announce_error_rate(self.pipeline, self.attempt.run_id, entry.counted, body, refused=True)
            raise GuardRefused(entry.message or "refused")
        return done

    def _sweep(self) -> None:
        """Clear away what dead attempts left, this run's own included."""
        name = self.pipeline.name
        with self.parts.target_errors(name):
            for token in sweep(self.parts.engine, self.parts.dialect, name):
                logger().warning("%s: attempt %s died before it could commit.", name, token)

    def _open(self, stack: contextlib.ExitStack) -> tuple[datetime, Watermark]:
        """Hold the attempt and write its `running` rows; the target's clock and the watermark at that moment."""
        with self.parts.target_errors(str(self.attempt)):
            owner = stack.enter_context(self.parts.dialect.hold(self.parts.engine, self.attempt.token))
            with self.parts.dialect.transaction(self.parts.engine) as connection:
                now = self.parts.dialect.clock(connection)
                seen = read_watermark(connection, self.attempt.pipeline)
                if self.parts.resumable and self.attempt.kind == "explicit":
                    left = last_position(connection, self.attempt, self.parts.contract.fingerprint)
                    seen = replace(seen, position=left)
                open_attempt(connection, self.attempt, owner, now, self.parts.details())
        return now, seen

    def _create_staging(self) -> None:
        parts = self.parts
        with parts.target_errors(str(self.attempt)), parts.dialect.transaction(parts.engine) as connection:
            self.staged.create(connection, checkfirst=False)
            self.rejected.create(connection, checkfirst=False)

    def _chunk(self, seen: Watermark, opened_at: datetime, *, afresh: bool) -> contextlib.AbstractContextManager[Chunk]:
        """What this attempt reads."""
        extract = self.pipeline.extract
        position = None if afresh else seen.position
        home = self.parts.home(self.attempt.token, opened_at)
        if isinstance(extract, Feed):
            return extract.open(home, position)
        passed = seen.covered_until if self.attempt.moves_watermark else None
        if isinstance(extract, Resumable):
            asked = Opening(
                window=self.attempt.window,
                position=position,
                home=home,
                held=self.held,
                whole=self.parts.whole,
                passed=passed,
                explicit=self.attempt.kind == "explicit",
            )
            return contextlib.nullcontext(extract.open_window(asked))
        counts_nulls = self.attempt.kind == "incremental"
        return contextlib.nullcontext(WindowChunk(extract, self.attempt.window, passed, counts_nulls))

    def _receive(self, chunk: Chunk, spool: Spool | None, opened_at: datetime) -> Arrivals:
        """Read and stage everything the chunk has."""

        def stage(judged: Judged) -> None:
            with self.parts.target_errors(str(self.attempt)):
                for table, rows in ((self.staged, judged.valid), (self.rejected, judged.rejected)):
                    if rows.num_rows:
                        self.parts.dialect.write(self.parts.engine, table, rows)

        extract = self.pipeline.extract
        judge, cursor_of = self.parts.contract.judge, None
        if self.pipeline.load.dated:
            judge = Dating(self.parts.contract, lambda: chunk.dated_at if isinstance(chunk, Dated) else None).judge
        elif self.parts.tells_deletes:
            judge = partial(judge_changes, self.parts.contract)
        # What is read in parts tells the highest cursor itself, and may hold rows that have none.
        if not isinstance(extract, Feed | Resumable) and extract.cursor is not None:
            cursor_of = partial(cursor_values, cursor=extract.cursor, source=f"{extract.connection} {extract.dataset}")
        batches, transform = chunk.batches(), self.pipeline.transform
        if isinstance(transform, WholeWindow):
            batches = transform.gathered(batches, str(self.attempt))
        ordered = chunk if isinstance(chunk, Ordered) else None
        passed = ordered.passed if ordered else None
        covered = passed if isinstance(passed, datetime) else None
        streamed = stream(batches, judge, cursor_of, stage, spool, as_task, covered)
        part = chunk if isinstance(chunk, Part) else None
        null_cursors = ordered.null_cursors() if ordered else 0
        if null_cursors:
            say_null_cursors(self.pipeline, null_cursors)
        highest, bound = part.highest if part else streamed.watermark, self.planned.bound
        # What lies beyond the bound may still change.
        clipped = min(highest, bound) if highest is not None and bound is not None else highest
        return Arrivals(
            **{**vars(streamed), "watermark": clipped},
            opened_at=opened_at,
            read_at=self._clock(),
            position=chunk.position,
            covered_until=bound or opened_at if self.attempt.kind == "full" and part is None else chunk.covered_until,
            passed=passed,
            null_cursors=null_cursors,
            shrink=chunk.shrink if isinstance(chunk, Difference) else None,
            began=part.began if part else None,
            partial=part is not None and chunk.more,
            unchanged=part is not None and part.unchanged,
            scope=self._scope(chunk),
            complete=self.planned.complete,
            requests=chunk.count_requests() if isinstance(chunk, Requesting) else None,
        )

    def _scope(self, chunk: Chunk) -> tuple[Window, ...] | None:
        """The ranges of the partition column of which the chunk brings everything; None where nobody says so."""
        if isinstance(chunk, Scoped):
            return chunk.scope
        return (self.attempt.window,) if self.parts.by_window else None

    def _commit(self, chunk: Chunk, spool: Spool | None, arrivals: Arrivals, seen: Watermark, began: float) -> Commit:
        pipeline, parts = self.pipeline, self.parts
        rows = StagedRows(
            self.staged,
            pipeline.load.key,
            pipeline.extract.cursor,
            newest=pipeline.load.updates,
            cleared_at=arrivals.cleared_at if pipeline.load.deletes else None,
        )
        cursor, masking = parts.contract.time_cursor, pipeline.masking
        check = WindowCheck(parts.rejecting, parts.warning, rows, cursor, self.rejected, spool, masking)
        return Commit(
            engine=parts.engine,
            dialect=parts.dialect,
            attempt=self.attempt,
            load=pipeline.load,
            cursor=pipeline.extract.cursor,
            target=parts.target,
            companions=parts.companions,
            staged=self.staged,
            rejected=self.rejected,
            arrivals=arrivals,
            seen=seen if self.attempt.moves_watermark else None,
            contract=parts.contract.fingerprint,
            abort_error_rate=parts.abort_error_rate,
            limit=parts.shrink_limit,
            remember=chunk.remember,
            reject=check.reject,
            warn=check.warn,
            bounds=BoundsCheck(parts.bounds, self.attempt, None if arrivals.unchanged else arrivals.statistics).judge,
            audit=AuditCheck(pipeline.audits, parts.dialect, self.staged, str(self.attempt), masking).refusal,
            began=began,
        )

    def _acknowledge(self, chunk: Chunk) -> None:
        """Best effort: the rows are committed, whatever the source says to it."""
        try:
            chunk.acknowledge()
            announce_notices(self.pipeline, chunk.notices(), self.attempt.run_id)
        except TidegateError as error:
            say_not_acknowledged(self.pipeline, error)

    def _clock(self) -> datetime:
        with self.parts.target_errors(str(self.attempt)), self.parts.engine.connect() as connection:
            return self.parts.dialect.clock(connection)

    def _drop_staging(self) -> None:
        """Best effort: what stays behind is swept by the pipeline's next run."""
        with contextlib.suppress(TidegateError), self.parts.target_errors(str(self.attempt)):
            drop_staging(self.parts.engine, self.parts.dialect, self.attempt.token)

    def _record_failure(self, error: BaseException) -> None:
        """Best effort: where the target does not answer, the next run finds the attempt dead and says so."""
        endings: dict[type[BaseException], Status] = {Fenced: "fenced", Superseded: "superseded"}
        status = endings.get(type(error), "failed")
        message = redact(told(error))
        with (
            contextlib.suppress(TidegateError),
            self.parts.target_errors(str(self.attempt)),
            self.parts.dialect.transaction(self.parts.engine) as connection,
        ):
            close_attempt(connection, self.attempt, status, message, self.parts.dialect.clock(connection))
