"""`Backfill`: windows that somebody set out to do. Which of them are done, the ledger tells, and nobody else."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from tasks import settings
from tasks.declaration import Pipeline
from tasks.recovery.backfill.calendar import By
from tasks.recovery.backfill.plan import BackfillPlan, Only
from tasks.running.assembly import Assembly
from tasks.state.attempts import lock_target, new_token, note_target
from tasks.state.backfills import (
    Asked,
    BackfillStatus,
    KeptBackfill,
    insert_backfill,
    kept_backfill,
    outdated_backfills,
    resume_backfill,
    set_backfill_status,
    unfinished_backfill,
)
from tasks.state.coverage import read_coverage
from tasks.state.schema import ensure_schema
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that was begun; times by the target's clock, UTC.

    Attributes:
        backfill_id: its id.
        pipeline: whose windows.
        asked: the range as it was asked for.
        by: what a window is.
        only: which were chosen.
        contract: fingerprint of the schema and transform that they are done with.
        windows: what was to do when it was opened, or gone on with, in order.
        started_at: when that was; it stays when it is gone on with.
        resumed: it was begun before, and not ended.
    """

    backfill_id: str
    pipeline: str
    asked: Window
    by: By
    only: Only
    contract: str
    windows: tuple[Window, ...]
    started_at: datetime
    resumed: bool = False


def open_backfill(pipeline: Pipeline, plan: BackfillPlan, *, afresh: bool = False) -> Backfill:
    """Write down what is to do; or go on with the last one that asked the same and is not done.

    To that one is added what has come to do since: the source may be proven further, or more may have failed. One that
    asked the same of another contract is called off.

    Args:
        pipeline: whose.
        plan: from `plan_backfill`.
        afresh: begin a new one in any case.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    parts, load = Assembly(pipeline), pipeline.load
    asked = Asked(plan.pipeline, plan.asked, plan.by, plan.only, plan.contract)
    with parts.target_errors(pipeline.name):
        ensure_schema(parts.engine, parts.dialect)
        with parts.dialect.transaction(parts.engine) as connection:
            note_target(connection, load.table)
        with parts.dialect.transaction(parts.engine) as connection:
            # So that two at once find each other's.
            lock_target(connection, load.table)
            now = parts.dialect.clock(connection)
            begun = None if afresh else unfinished_backfill(connection, asked)
            windows = tuple(one.window for one in plan.chosen)
            if begun is not None:
                windows = _together(begun.windows, windows)
                resume_backfill(connection, begun.backfill_id, windows)
                return _backfill(replace(begun, windows=windows), resumed=True)
            for outdated in outdated_backfills(connection, asked):
                said = "Schema or transform have changed since it was begun; another took its place."
                set_backfill_status(connection, outdated, "cancelled", said, now)
            kept = KeptBackfill(new_token(), asked, windows, "running", None, now, None)
            insert_backfill(connection, kept, settings.code_version())
    return _backfill(kept, resumed=False)


def find_backfill(pipeline: Pipeline, backfill_id: str) -> Backfill | None:
    """The backfill of that id, or None.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    parts = Assembly(pipeline)
    with parts.target_errors(pipeline.name):
        ensure_schema(parts.engine, parts.dialect)
        with parts.engine.connect() as connection:
            kept = kept_backfill(connection, backfill_id)
    return None if kept is None or kept.asked.pipeline != pipeline.name else _backfill(kept, resumed=True)


def left(pipeline: Pipeline, backfill: Backfill) -> tuple[Window, ...]:
    """Its windows that are still to do: not every part is committed by attempts opened since, under its contract.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    if not backfill.windows:
        return ()
    parts = Assembly(pipeline)
    span = Window(backfill.windows[0].start, backfill.windows[-1].end)
    with parts.target_errors(pipeline.name), parts.engine.connect() as connection:
        coverage = read_coverage(connection, pipeline.name, span, since=backfill.started_at)
    return tuple(one for one in backfill.windows if not coverage.fills(one, backfill.contract))


def close_backfill(pipeline: Pipeline, backfill: Backfill, status: BackfillStatus, message: str | None = None) -> None:
    """Write down how it ended; one that is not `done` is gone on with by whoever asks the same.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    parts = Assembly(pipeline)
    with parts.target_errors(pipeline.name), parts.dialect.transaction(parts.engine) as connection:
        now = parts.dialect.clock(connection)
        set_backfill_status(connection, backfill.backfill_id, status, message, now)


def _together(begun: Sequence[Window], chosen: Sequence[Window]) -> tuple[Window, ...]:
    """Both in order; of a window that was cut short by the bound of then, that of now."""
    kept = []
    for window in begun:
        place = bisect_right(chosen, window.start, key=lambda one: one.end)
        if place == len(chosen) or not chosen[place].overlaps(window):
            kept.append(window)
    return tuple(sorted((*kept, *chosen), key=lambda one: one.start or datetime.min))


def _backfill(kept: KeptBackfill, *, resumed: bool) -> Backfill:
    asked = kept.asked
    return Backfill(
        kept.backfill_id,
        asked.pipeline,
        asked.range,
        cast(By, asked.by),
        cast(Only, asked.only),
        asked.contract,
        kept.windows,
        kept.started_at,
        resumed,
    )
