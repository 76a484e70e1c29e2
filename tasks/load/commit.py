"""The commit: one transaction for rows, dead letters, watermark, window and ledger."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, Engine, Table, func, select, update
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from tasks.counts import Counts
from tasks.dialects.dialect import Dialect
from tasks.errors import ConservationError, RetriableError, TargetError, TargetUnavailable
from tasks.load.arrivals import Arrivals
from tasks.load.strategy import Load
from tasks.load.writer import ByPartition, Classes, Incoming
from tasks.shrink import ShrinkLimit
from tasks.state.attempts import Attempt, Status, attempt_status, complete_attempt, lock_target, refuse_if_superseded
from tasks.state.dead_letters import close_letters, count_reread, file_letters
from tasks.state.ledger import Entry, earlier_parts, read_entry, write_entry
from tasks.state.tables import windows
from tasks.state.watermarks import Watermark, move_watermark

_OUTCOME_ATTEMPTS = 6


@dataclass(frozen=True)
class Commit:
    """Everything a commit needs to know; `run` does it.

    Attributes:
        engine: the target database.
        dialect: its dialect.
        attempt: what is committed.
        load: the strategy.
        cursor: the target's cursor column, or None.
        target: the target table.
        companions: the tables that the strategy keeps beside it.
        staged: good rows on their way in.
        rejected: dead letters on their way in.
        arrivals: what was staged.
        seen: the watermark when the window was opened, or None for a window that does not move it.
        contract: fingerprint of the contract.
        abort_error_rate: share of rejected rows, 0 to 1, above which nothing but the dead letters is written.
        limit: how much of the target may be deleted for not having come in.
        remember: writes what a feed keeps in the target.
        reject: moves staged rows that break a rule over the window to the dead letters; how many.
        warn: counts staged rows with missing references that are only warned of.
        bounds: why the statistics of the window forbid to load it, and what of them is only warned of.
        audit: says why what is staged must not be written, or None.
        began: `time.monotonic()` when the attempt was opened.
    """

    engine: Engine
    dialect: Dialect
    attempt: Attempt
    load: Load
    cursor: str | None
    target: Table
    companions: Sequence[Table]
    staged: Table
    rejected: Table
    arrivals: Arrivals
    seen: Watermark | None
    contract: str
    abort_error_rate: float
    limit: ShrinkLimit
    remember: Callable[[Connection], None]
    reject: Callable[[Connection], int]
    warn: Callable[[Connection], int]
    bounds: Callable[[Connection], tuple[str | None, str | None]]
    audit: Callable[[Connection], str | None]
    began: float

    def run(self) -> Entry:
        """Commit, once; a lost reply is settled by reading the window's row.

        Raises:
            Fenced: another attempt has the window, or another run moved the watermark.
            Superseded: data read later is committed.
            ConservationError: the counts do not add up.
            TargetUnavailable: the transaction was rolled back; another attempt may succeed.
            TargetError: the database refused a statement.
        """
        where = f"{self.attempt}: the target {self.load.connection!r}"
        try:
            # The error of the COMMIT itself has to be translated too, so the transaction is the inner one.
            with (
                self.dialect.translated(where, TargetUnavailable, TargetError),
                self.dialect.transaction(self.engine) as connection,
            ):
                entry = self._commit(connection)
            return entry
        except RetriableError:
            if settled := self._settle(where):
                return settled
            raise

    def _commit(self, connection: Connection) -> Entry:
        started = time.monotonic()
        attempt, arrivals = self.attempt, self.arrivals
        lock_target(connection, attempt.target)
        now = self.dialect.clock(connection)
        whole: Status = "partial" if arrivals.partial else "committed"
        # A mart that had nothing to read says nothing of what others read, nor do letters that are read again.
        idle = attempt.kind == "replay" or (arrivals.unchanged and attempt.kind == "changes")
        complete_attempt(connection, attempt, whole, None if idle else arrivals.read_at, now)
        self._check_staging(connection)
        # Of what did not come in no cursor tells when it went.
        if self.load.updates:
            by_cursor = self.cursor is not None and not (self.load.deletes_absent or arrivals.complete)
            refuse_if_superseded(connection, attempt, arrivals.opened_at, by_refresh=by_cursor)

        broken = self.reject(connection)
        incoming = Incoming(
            target=self.target,
            staged=self.staged,
            rejected=self.rejected,
            cursor=self.cursor,
            now=now,
            companions=self.companions,
            cleared_at=arrivals.cleared_at,
            passed=arrivals.passed,
            scope=arrivals.scope,
            complete=arrivals.complete,
            clearings=arrivals.clearings,
        )
        writer = self.load.writer(incoming)
        deduplicated = writer.deduplicate(connection)
        gone, total = (0, 0) if arrivals.unchanged else writer.absent(connection)
        counts = Counts(
            extracted=arrivals.extracted,
            added=arrivals.added,
            filtered=arrivals.filtered,
            rejected=arrivals.rejected + broken,
            deduplicated=deduplicated,
        )
        emptied = writer.emptied(connection) if gone and isinstance(writer, ByPartition) else ()
        message, warning = self._guard(connection, counts, gone, total, emptied), None
        if message is None:
            message, warning = self.bounds(connection)
        if message is None and not arrivals.unchanged:
            message = self.audit(connection)
        warned = late = written = reread = reread_rejected = 0
        if message is None:
            if counts.rejected and self._rereads:
                reread_rejected = self._reread_rejected(connection)
            warned = self.warn(connection)
            if self.seen is not None:
                times = (None, None) if arrivals.partial else (arrivals.watermark, arrivals.covered_until)
                moved = self.seen.advanced(*times, arrivals.position)
                move_watermark(connection, attempt.pipeline, self.seen, moved, now, str(attempt.window))
            classes = writer.classify(connection)
            written = writer.write(connection, classes, gone)
            self.remember(connection)
            counts, late = self._balance(counts, classes, gone), classes.late
            reread = reread_rejected + classes.reread + arrivals.refiltered if self._rereads else 0
        else:
            done = update(windows).where(windows.c.attempt == attempt.token)
            connection.execute(done.values(status="refused"))
        if counts.rejected:
            file_letters(connection, self.dialect, attempt, self.rejected, self.contract, now)
        if message is None:
            close_letters(
                connection, self.dialect, attempt, self.staged, self.rejected, self.load.key, self.cursor, now
            )
        finished = time.monotonic()
        entry = Entry(
            status=whole if message is None else "refused",
            counts=counts,
            warned=warned,
            seconds=finished - self.began,
            phases={**arrivals.phases, "commit": finished - started},
            watermark=arrivals.watermark,
            message=message or warning,
            position=arrivals.position,
            late=late,
            null_cursors=arrivals.null_cursors,
            written=written,
            reread=reread,
            reread_rejected=reread_rejected,
            statistics=None if arrivals.unchanged else arrivals.statistics,
            requests=arrivals.requests,
        )
        write_entry(connection, attempt, entry, self.dialect.clock(connection))
        return entry

    @property
    def _rereads(self) -> bool:
        """Whether what an earlier run has counted may come again, since a lookback reaches back to it.

        What is read whole, or because somebody asks for it, counts whatever it is.
        """
        if self.seen is None or not self.seen.version:
            return False
        numbered = self.attempt.kind == "changes" and self.cursor is not None and self.arrivals.passed is not None
        return self.attempt.kind == "incremental" or numbered

    def _reread_rejected(self, connection: Connection) -> int:
        passed = self.arrivals.passed
        known = passed if isinstance(passed, datetime) else None
        return count_reread(connection, self.dialect, self.attempt.pipeline, self.rejected, known)

    def _check_staging(self, connection: Connection) -> None:
        for table, expected in ((self.staged, self.arrivals.staged), (self.rejected, self.arrivals.rejected)):
            found = connection.execute(select(func.count()).select_from(table)).scalar_one()
            if found != expected:
                raise TargetUnavailable(
                    f"{self.attempt}: staging holds {found:,} rows where {expected:,} were written; the server lost "
                    "some. Nothing was committed; the window is read again."
                )

    def _guard(
        self, connection: Connection, counts: Counts, gone: int, total: int, emptied: Sequence[str]
    ) -> str | None:
        """Why this window must not be written, or None."""
        unreadable = self.arrivals.unreadable
        judged = replace(counts, extracted=counts.extracted - unreadable, rejected=counts.rejected - unreadable)
        if judged.error_rate > self.abort_error_rate and self._whole_rate(connection, judged) > self.abort_error_rate:
            return (
                f"{self.attempt}: {judged.rejected:,} of {judged.incoming:,} rows were rejected, more than the "
                f"{self.abort_error_rate:.0%} at which a window is refused. Nothing but the dead letters was written. "
                "Look at their reasons in etl_dead_letters; mend the source or the contract, then run again."
            )
        if self.arrivals.cleared_by == "truncate":
            return None
        shrink = self.arrivals.shrink
        if shrink is not None and shrink.exceeds(self.limit):
            return (
                f"{self.attempt}: {shrink.gone:,} of the {shrink.known:,} rows of the last snapshot are not in the "
                f"source, which holds {shrink.left:,}; max_shrink={self.limit.share:.0%} allows less, and no source "
                "may be empty. Nothing was written. Check that the source is whole; if it is, run it with "
                "Overrides(max_shrink=...), and with allow_empty=True where it really is empty."
            )
        held = repr(self.load.table) + (", as far as it was read," if self.arrivals.scope is not None else "")
        if total and not counts.extracted and not self.limit.allow_empty:
            return (
                f"{self.attempt}: the extract is empty, and {held} holds {total:,} rows. Empty is not "
                "deleted: nothing was written. Check the source; if it really is empty, run it with "
                "Overrides(allow_empty=True, max_shrink=1)."
            )
        if emptied and not self.limit.allow_empty:
            named = ", ".join(emptied[:3]) + (f" and {len(emptied) - 3:,} more" if len(emptied) > 3 else "")
            return (
                f"{self.attempt}: nothing came in for {named}, of which {self.load.table!r} holds rows. Empty is not "
                "deleted: nothing was written. Check the source; if there really is nothing, declare allow_empty=True, "
                "or run it with Overrides(allow_empty=True, max_shrink=...)."
            )
        if total and gone / total > self.limit.share:
            return (
                f"{self.attempt}: {gone:,} of the {total:,} rows of {held} are not in the extract, more "
                f"than max_shrink={self.limit.share:.0%} allows. Nothing was written. Check that the source is "
                "whole; if it is, run it with Overrides(max_shrink=...)."
            )
        return None

    def _whole_rate(self, connection: Connection, counts: Counts) -> float:
        """The error rate of the window so far: its last part may be a single row, and that a bad one."""
        if self.arrivals.began is None:
            return counts.error_rate
        return (counts + earlier_parts(connection, self.attempt, self.arrivals.began)).error_rate

    def _balance(self, counts: Counts, classes: Classes, gone: int) -> Counts:
        """The whole sum. A deletion that is derived from what did not come in is a change that was added.

        Raises:
            ConservationError: it does not add up.
        """
        whole = replace(
            counts,
            added=counts.added + gone,
            inserted=classes.new,
            updated=classes.changed,
            deleted=classes.deleted + gone,
            unchanged=classes.unchanged,
            deduplicated=counts.deduplicated + classes.repeated,
            stale=classes.stale,
        )
        if not whole.balanced:
            raise ConservationError(
                f"{self.attempt}: {whole.incoming:,} changes came in and {whole.outcomes:,} have an outcome ({whole}). "
                "Everything was rolled back. This is a bug in tidegate: please report it with this line."
            )
        return whole

    def _settle(self, where: str) -> Entry | None:
        """What the database says of a commit whose reply was lost; None when it was rolled back."""
        for attempt in Retrying(
            retry=retry_if_exception_type(TargetUnavailable),
            stop=stop_after_attempt(_OUTCOME_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            reraise=True,
        ):
            with (
                attempt,
                self.dialect.translated(where, TargetUnavailable, TargetError),
                self.dialect.transaction(self.engine) as connection,
            ):
                status = attempt_status(connection, self.attempt)
                return read_entry(connection, self.attempt) if status in ("committed", "partial", "refused") else None
        return None
