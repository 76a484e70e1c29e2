"""`stream`: read, judge and stage, all three at once, in bounded memory."""

import contextvars
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.change_columns import Clearing, Marker
from tasks.channel import Channel, ChannelClosed
from tasks.extract.changes import CURSOR_TYPE
from tasks.spool import Spool
from tasks.state.staged import ROW
from tasks.state.statistics import Statistics
from tasks.transform.contract import SIBLINGS, Judged
from tasks.window import later

_WAITING_BATCHES = 2

Step = Callable[[], None]


@dataclass
class Streamed:
    """What went through; seconds are those spent working, not waiting for each other.

    Attributes:
        extracted: rows read.
        added: rows the transform made of others.
        filtered: rows it left out.
        refiltered: those of them that an earlier run has left out already.
        staged: good rows.
        rejected: dead letters.
        unreadable: those of them that the source did not hand out.
        watermark: highest cursor read, UTC.
        cleared_at: `etl_row` of the last marker, or None; see `tasks.change_columns`.
        cleared_by: what it is.
        clearings: every marker, in order, where the rows are dated.
        phases: seconds of extract, validate and stage.
        statistics: of the good rows.
    """

    extracted: int = 0
    added: int = 0
    filtered: int = 0
    refiltered: int = 0
    staged: int = 0
    rejected: int = 0
    unreadable: int = 0
    watermark: datetime | None = None
    cleared_at: int | None = None
    cleared_by: Marker | None = None
    clearings: list[Clearing] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=lambda: {"extract": 0.0, "validate": 0.0, "stage": 0.0})
    statistics: Statistics = field(default_factory=Statistics)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the block's time to `phase`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] += time.monotonic() - started


def stream(
    batches: Iterator[pa.Table],
    judge: Callable[[pa.Table, int], Judged],
    cursor_of: Callable[[pa.Table], pa.ChunkedArray] | None,
    stage: Callable[[Judged], None],
    spool: Spool | None,
    as_step: Callable[[str, Step], Step],
    passed: datetime | None = None,
) -> Streamed:
    """Read every batch, judge it and stage what comes of it.

    Args:
        batches: raw rows.
        judge: makes good rows and dead letters of a batch; the number of its first row comes with it.
        cursor_of: the times of a batch whose highest becomes the watermark; None where there is no watermark.
        stage: writes a judged batch.
        spool: keeps the raw rows, or None where nobody will ask for them.
        as_step: wraps each of the three steps, by name; see `tasks.observe.context.as_task`.
        passed: earlier runs have read what lies before it (UTC), by `cursor_of`; None: nobody can tell.

    Raises:
        TidegateError: the first error of any step, after all three have stopped.
    """
    done = Streamed()
    raw: Channel[tuple[int, pa.Table]] = Channel(_WAITING_BATCHES)
    judged: Channel[Judged] = Channel(_WAITING_BATCHES)

    def read() -> None:
        number = 0
        while True:
            with done.timed("extract"):
                batch = next(batches, None)
            if batch is None:
                break
            if cursor_of is not None:
                done.watermark = later(done.watermark, pc.max(cursor_of(batch)).as_py())
            if spool is not None:
                spool.append(batch, number)
            raw.put((number, batch))
            number += batch.num_rows
        raw.finish()

    def validate() -> None:
        for first, batch in raw:
            with done.timed("validate"):
                verdict = judge(batch, first)
            done.extracted += batch.num_rows - verdict.markers
            if verdict.cleared_at is not None:
                done.cleared_at, done.cleared_by = verdict.cleared_at, verdict.cleared_by
            done.clearings += verdict.clearings
            done.added += verdict.added
            done.filtered += verdict.filtered
            if verdict.filtered and cursor_of is not None and passed is not None:
                done.refiltered += _before(passed, cursor_of(batch), verdict, first)
            judged.put(verdict)
        judged.finish()

    def write() -> None:
        for verdict in judged:
            with done.timed("stage"):
                stage(verdict)
            done.staged += verdict.valid.num_rows
            done.rejected += verdict.rejected.num_rows
            done.unreadable += verdict.unreadable
            done.statistics += Statistics.of(verdict.valid)

    _together([as_step("extract", read), as_step("validate", validate), as_step("stage", write)], raw, judged)
    return done


def _before(passed: datetime, cursors: pa.ChunkedArray, verdict: Judged, first: int) -> int:
    """How many rows of a batch, numbered from `first`, the transform left out that lie before `passed`."""
    made = [rows.column(ROW).to_numpy() >> SIBLINGS for rows in (verdict.valid, verdict.rejected)]
    left = np.setdiff1d(np.arange(len(cursors)), np.concatenate(made) - first)
    return int(pc.sum(pc.less(cursors.take(pa.array(left)), pa.scalar(passed, CURSOR_TYPE))).as_py() or 0)


def _together(steps: list[Step], *channels: Channel[Any]) -> None:
    """Run the steps in threads until all have ended; one that fails stops the others."""
    with ThreadPoolExecutor(len(steps), thread_name_prefix="tidegate") as threads:
        futures = [threads.submit(contextvars.copy_context().run, step) for step in steps]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Also when this thread is interrupted: the pool's exit waits for the others.
            if not all(future.done() and future.exception() is None for future in futures):
                for channel in channels:
                    channel.fail()
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, ChannelClosed)):
        raise error
