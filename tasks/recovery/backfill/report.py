"""`BackfillReport`: what became of every window of a backfill, by the ledger."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from tasks.counts import Counts
from tasks.declaration import Pipeline
from tasks.recovery.backfill.ledger import Backfill, left
from tasks.running.assembly import Assembly
from tasks.state.backfills import BackfillStatus, kept_backfill
from tasks.state.coverage import FAILURES
from tasks.state.tables import COUNTS, runs
from tasks.window import Window

_FETCHED = 1_000


@dataclass(frozen=True, slots=True)
class WindowOutcome:
    """What became of one window; times by the target's clock, UTC.

    Attributes:
        window: what was to be read.
        status: `committed`; else how the last attempt at it ended, or `running`; `waiting` where there was none.
        attempts: how often it was tried since the backfill began; of one that is split, the part tried most often.
        counts: the sum over all commits of the backfill's own runs; 0 where a run beside it covered the window.
        seconds: how long the attempts took together.
        error: why the last one failed, where the window is not committed; else None.
        run_id: the last run at it, or None.
    """

    window: Window
    status: str
    attempts: int = 0
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    error: str | None = None
    run_id: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        """As a table shows it."""
        return {
            "window": str(self.window),
            "status": self.status,
            "attempts": self.attempts,
            **self.counts.as_dict(),
            "seconds": round(self.seconds, 2),
            "error": self.error,
            "run": self.run_id,
        }


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What became of a backfill so far.

    Attributes:
        backfill: which.
        status: `running`, `done`, `failed` or `cancelled`.
        message: why it ended so, or None.
        windows: what became of each, in order.
        seconds: from its beginning to its end, or until now, by the target's clock.
    """

    backfill: Backfill
    status: BackfillStatus
    message: str | None
    windows: tuple[WindowOutcome, ...]
    seconds: float

    @property
    def done(self) -> tuple[WindowOutcome, ...]:
        """Those that are committed."""
        return tuple(one for one in self.windows if one.status == "committed")

    @property
    def failed(self) -> tuple[WindowOutcome, ...]:
        """Those whose last attempt failed."""
        return tuple(one for one in self.windows if one.status in FAILURES)

    @property
    def left(self) -> tuple[WindowOutcome, ...]:
        """Those that are not committed, for whatever reason."""
        return tuple(one for one in self.windows if one.status != "committed")

    @property
    def counts(self) -> Counts:
        """The sum over all windows."""
        return sum((one.counts for one in self.windows), Counts())

    @property
    def attempts(self) -> int:
        """The sum over all windows."""
        return sum(one.attempts for one in self.windows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A table of the windows."""
        return [one.row for one in self.windows]

    def as_dict(self) -> dict[str, Any]:
        """For programs; plain JSON."""
        backfill = self.backfill
        return {
            "backfill_id": backfill.backfill_id,
            "pipeline": backfill.pipeline,
            "asked": {"start": _text(backfill.asked.start), "end": _text(backfill.asked.end)},
            "by": backfill.by,
            "only": backfill.only,
            "contract": backfill.contract,
            "started_at": backfill.started_at.isoformat(),
            "resumed": backfill.resumed,
            "status": self.status,
            "message": self.message,
            "seconds": self.seconds,
            "done": len(self.done),
            "failed": len(self.failed),
            "left": len(self.left),
            "attempts": self.attempts,
            **self.counts.as_dict(),
            "windows": self.rows,
        }

    def __str__(self) -> str:
        backfill = self.backfill
        if not self.windows:
            return f"{backfill.pipeline} {backfill.asked}: no window is to do ({backfill.only}, by {backfill.by})"
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        return (
            f"{backfill.pipeline}: backfill {backfill.backfill_id[:8]} {self.status}: {len(self.done):,} of "
            f"{len(self.windows):,} windows by {backfill.by} committed{failed}, {self.attempts:,} attempts, "
            f"{self.counts}, {self.seconds:.1f} s"
        )


def report_backfill(pipeline: Pipeline, backfill: Backfill) -> BackfillReport:
    """What the ledger says of every window since the backfill began.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    to_do = set(left(pipeline, backfill))
    parts = Assembly(pipeline)
    with parts.target_errors(pipeline.name), parts.engine.connect() as connection:
        now = parts.dialect.clock(connection)
        kept = kept_backfill(connection, backfill.backfill_id)
        tries = _tries(connection, backfill)
    windows = tuple(
        tried.outcome(window, committed=window not in to_do)
        for window, tried in zip(backfill.windows, tries, strict=True)
    )
    ended = now if kept is None or kept.finished_at is None else kept.finished_at
    status = "running" if kept is None else kept.status
    message = None if kept is None else kept.message
    return BackfillReport(backfill, status, message, windows, (ended - backfill.started_at).total_seconds())


@dataclass(slots=True)
class _Tried:
    """The attempts at one window so far, the oldest first."""

    times: Counter[Window] = field(default_factory=Counter)
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    status: str = "waiting"
    error: str | None = None
    run_id: str | None = None

    def outcome(self, window: Window, *, committed: bool) -> WindowOutcome:
        # Committed in part, or by another contract than that of the backfill: there is something to do.
        status = "committed" if committed else "partial" if self.status == "committed" else self.status
        attempts = max(self.times.values(), default=0)
        error = None if committed else self.error
        return WindowOutcome(window, status, attempts, self.counts, self.seconds, error, self.run_id)


def _tries(connection: Connection, backfill: Backfill) -> Sequence[_Tried]:
    """What was tried of each window, by itself or in parts, since the backfill began."""
    tries = [_Tried() for _ in backfill.windows]
    if not tries:
        return tries
    told = (
        select(runs)
        .where(
            runs.c.pipeline == backfill.pipeline,
            runs.c.kind == "explicit",
            runs.c.started_at >= backfill.started_at,
            runs.c.window_start >= backfill.windows[0].start,
            runs.c.window_end <= backfill.windows[-1].end,
        )
        .order_by(runs.c.started_at, runs.c.attempt)
    )
    for row in connection.execute(told.execution_options(yield_per=_FETCHED)):
        place = bisect_right(backfill.windows, row.window_start, key=lambda one: one.start or row.window_start) - 1
        ends = backfill.windows[place].end if place >= 0 else None
        if ends is None or row.window_end > ends:
            continue
        tried = tries[place]
        if row.status != "partial":
            tried.times[Window(row.window_start, row.window_end)] += 1
        if row.status in ("committed", "partial"):
            tried.counts += Counts(**{name: getattr(row, name) for name in COUNTS})
        tried.seconds += 0.0 if row.finished_at is None else (row.finished_at - row.started_at).total_seconds()
        tried.status, tried.error, tried.run_id = row.status, row.message, row.run_id
    return tries


def _text(bound: datetime | None) -> str | None:
    return None if bound is None else bound.isoformat()
