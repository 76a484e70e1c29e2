"""`WatermarkChange`: somebody moves a watermark by hand, under the locks of a commit, and the ledger says so."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from tasks.declaration import Pipeline
from tasks.errors import ConfigError, Refusal
from tasks.extract.api_children import ApiChildren
from tasks.extract.feed import Derived, Feed
from tasks.running.assembly import Assembly
from tasks.state.attempts import Attempt, lock_target, new_token, note_target, record_unplanned, sweep
from tasks.state.schema import ensure_schema
from tasks.state.tables import windows
from tasks.state.watermarks import Watermark, move_watermark, read_watermark
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class WatermarkChange:
    """A watermark before and after.

    Attributes:
        pipeline: whose.
        run_id: what the ledger calls it.
        before: as it was.
        after: as it is.
    """

    pipeline: str
    run_id: str
    before: Watermark
    after: Watermark


def expect_watermark(pipeline: Pipeline) -> None:
    """Make sure that the pipeline goes on from a watermark that somebody can name.

    Raises:
        ConfigError: it goes on from a position, or reads everything.
    """
    extract, name = pipeline.extract, pipeline.name
    if isinstance(extract, Feed):
        raise ConfigError(
            f"{name}: {extract.dataset!r} is followed from a position of the source's own, which is shown and not set: "
            "another would lose changes, or bring them twice. `tidegate run --full-refresh` takes a new snapshot."
        )
    if isinstance(extract, Derived):
        raise ConfigError(
            f"{name}: it reads what has changed upstream, and has no watermark to set. `tidegate run` with --start and "
            "--end makes a range anew, and --full-refresh everything."
        )
    if isinstance(extract, ApiChildren):
        raise ConfigError(
            f"{name}: each parent goes on at a watermark of its own, and there are as many as parents. `tidegate run` "
            "with --start and --end reads a range of all of them, and --full-refresh everything."
        )
    if extract.cursor is None:
        raise ConfigError(f"{name}: {extract.dataset!r} is read whole at every run, so there is no watermark to set.")


def change_watermark(pipeline: Pipeline, value: datetime, who: str) -> WatermarkChange:
    """Have the next run go on at `value`, less the extract's lookback.

    Back, and what lies above is read again; `covered_until` goes back with it. Forward, and what lies between is left
    out for good; `covered_until` stays, until the next run. What an API left half read is forgotten.

    Args:
        pipeline: whose watermark.
        value: the new one, UTC.
        who: whoever asks for it, for the ledger.

    Raises:
        ConfigError: see `expect_watermark`; or `value` lies above what the source proves, so that rows would be lost
            that are still to come.
        Refusal: a run of the pipeline is open.
        Fenced: another run moved the watermark at the same time.
        TidegateError: see `tasks.errors`; nothing was changed.
    """
    expect_watermark(pipeline)
    parts, load = Assembly(pipeline), pipeline.load
    # With no window of its own: it is about none.
    attempt = Attempt(pipeline.name, load.table, new_token(), "watermark", Window())
    with parts.target_errors(pipeline.name):
        ensure_schema(parts.engine, parts.dialect)
        sweep(parts.engine, parts.dialect, pipeline.name)
        with parts.engine.connect() as connection:
            covered = read_watermark(connection, pipeline.name).covered_until
    if covered is None or value > covered:
        _expect_settled(pipeline, value)
    with parts.target_errors(pipeline.name):
        with parts.dialect.transaction(parts.engine) as connection:
            note_target(connection, load.table)
        # The error of the COMMIT itself has to be translated too, so the transaction is the inner one.
        with parts.dialect.transaction(parts.engine) as connection:
            lock_target(connection, load.table)
            now = parts.dialect.clock(connection)
            _expect_idle(connection, pipeline, now)
            seen = read_watermark(connection, pipeline.name)
            moved = Watermark(value, _covered(seen, value), seen.version + 1)
            move_watermark(connection, pipeline.name, seen, moved, now, "watermark")
            message = f"The watermark was set by {who}, from {_text(seen)} to {_text(moved)}."
            record_unplanned(connection, attempt, message, now, parts.details(), "moved")
    return WatermarkChange(pipeline.name, attempt.run_id, seen, moved)


def _covered(seen: Watermark, value: datetime) -> datetime | None:
    """What is read again is not in the target as it is in the source; what is left out was none of that before."""
    back = seen.value is not None and value < seen.value
    return min(seen.covered_until, value) if back and seen.covered_until is not None else seen.covered_until


def _expect_settled(pipeline: Pipeline, value: datetime) -> None:
    bound = None if isinstance(pipeline.extract, Feed) else pipeline.extract.bound()
    if bound is not None and value > bound:
        raise ConfigError(
            f"{pipeline.name}: the watermark {value.isoformat()} lies above {bound.isoformat()}, up to which the "
            "source is settled. What still comes below it would never be read. Set it to that time or an earlier one."
        )


def _expect_idle(connection: Connection, pipeline: Pipeline, now: datetime) -> None:
    running = select(windows.c.run_id, windows.c.opened_at).where(
        windows.c.pipeline == pipeline.name, windows.c.status == "running"
    )
    row = connection.execute(running.limit(1)).first()
    if row is not None:
        raise Refusal(
            f"{pipeline.name}: the run {row.run_id} is open for {(now - row.opened_at).total_seconds():.0f} s, and "
            "would commit by the watermark it began with. Wait for its end, or cancel it, and set the watermark then."
        )


def _text(mark: Watermark) -> str:
    value, covered = ("nothing" if time is None else time.isoformat() for time in (mark.value, mark.covered_until))
    return f"{value} (covered until {covered})"
