"""What a run tells the outside: log lines, events, an artifact. Of rows that are committed, only afterwards."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from tasks.counts import Counted
from tasks.declaration import Pipeline
from tasks.errors import redact
from tasks.extract.feed import Notice
from tasks.health import Health, error_rate, measure
from tasks.observe import causes
from tasks.observe.artifacts import show_report
from tasks.observe.context import flow_run_id, logger
from tasks.observe.events import emit
from tasks.report import RunReport, WindowReport
from tasks.state.attempts import Attempt
from tasks.state.awaited import awaited
from tasks.window import Window


def announce_window(done: WindowReport) -> None:
    """Log a finished window, with its counts as fields."""
    attempt, entry = done.attempt, done.entry
    fields = {
        "pipeline": attempt.pipeline,
        "window": str(attempt.window),
        "run_id": attempt.run_id,
        "counts": entry.counts.as_dict(),
        "warned": entry.warned,
    }
    logger().info("%s: %s: %s (%.2f s)", attempt, entry.status, entry.counts, entry.seconds, extra=fields)


def announce_landed(pipeline: Pipeline, engine: Engine, report: RunReport) -> None:
    """Tell that rows of the target have changed, and whether dead letters wait for such rows; nothing where none has.

    Outside of a flow run there is nobody to tell, and nothing is asked.
    """
    counts = report.counts
    if flow_run_id() is None or not (counts.inserted or counts.updated or counts.deleted):
        return
    labels = {causes.AWAITED: str(_awaited(pipeline, engine)).lower()}
    emit(causes.DATASET_LANDED, pipeline.name, _body(pipeline, report), labels)


def _awaited(pipeline: Pipeline, engine: Engine) -> bool:
    try:
        with engine.connect() as connection:
            return awaited(connection, pipeline.load.table)
    # Whatever it is: a run that has loaded its rows does not fail because of this, and a replay too many does no harm.
    except Exception as error:
        message = redact(f"{type(error).__name__}: {error}")
        logger().warning("%s: whether dead letters wait for its rows could not be told: %s", pipeline.name, message)
        return True


def _body(pipeline: Pipeline, report: RunReport) -> dict[str, Any]:
    return report.as_dict() | {
        "target": pipeline.load.table,
        "covered_until": report.covered_until and report.covered_until.isoformat(),
    }


def announce_run(pipeline: Pipeline, report: RunReport) -> None:
    """Emit the events of a committed run but the landing, and show its report."""
    body = _body(pipeline, report)
    if not report.replays:
        emit(causes.RUN_COMMITTED, pipeline.name, body)
        emit(causes.WINDOW_COVERED, pipeline.name, body)
        announce_error_rate(pipeline, report.run_id, report.counted, body)
    rows = [
        {"window": str(done.attempt.window), **done.entry.counts.as_dict(), "seconds": round(done.entry.seconds, 2)}
        for done in report.windows
    ]
    show_report(pipeline.name, rows, str(report))


def announce_skipped(pipeline: Pipeline, report: RunReport) -> None:
    """Tell that a run read nothing, or no more than its windows, and why."""
    body = {"run_id": report.run_id, "target": pipeline.load.table, "reason": report.skipped}
    emit(causes.RUN_SKIPPED, pipeline.name, body)
    logger().warning("%s", report.skipped, extra={"pipeline": pipeline.name, "run_id": report.run_id})
    if not report.windows:
        show_report(pipeline.name, [{"skipped": report.skipped}], str(report))


def announce_ddl(pipeline: Pipeline, statements: Sequence[str]) -> None:
    """Tell that the target was created, or changed, and how."""
    table = pipeline.load.table
    emit(causes.TARGET_CHANGED, pipeline.name, {"target": table, "statements": list(statements)})
    for statement in statements:
        logger().info("%s: %s", pipeline.name, statement, extra={"pipeline": pipeline.name, "target": table})


def announce_drift(pipeline: Pipeline, differences: Sequence[str]) -> None:
    """Raise the event that the target differs from the contract, and is left so."""
    table = pipeline.load.table
    emit(causes.TARGET_DRIFTED, pipeline.name, {"target": table, "differences": list(differences)})
    logger().warning(
        "%s: the table %r is not what the contract declares, and on_drift='ignore' leaves it so: %s. A column that is "
        "not there is not written.",
        pipeline.name,
        table,
        "; ".join(differences),
    )


def announce_error_rate(
    pipeline: Pipeline, run_id: str, counted: Counted, body: dict[str, Any], *, refused: bool = False
) -> None:
    """Tell whether the error rate is strictly above what the SLA allows; of a refused run only if it is."""
    found = error_rate(pipeline, run_id, counted)
    if found.breached or not refused:
        emit(found.event, pipeline.name, body | found.payload(run_id))
    if found.breached:
        logger().warning("%s: %s Look with `%s`.", pipeline.name, found.text, found.look)


def announce_health(pipeline: Pipeline, engine: Engine, run_id: str) -> None:
    """Measure what else is promised, and tell it. What is committed is committed, whatever becomes of this.

    Outside of a flow run there is nobody to tell, and nothing is asked.
    """
    if flow_run_id() is None:
        return
    try:
        announce_findings(measure(pipeline, engine, recorded=True), run_id)
    # Whatever it is: a run that has loaded its rows does not fail because nobody could say how fresh they are.
    except Exception as error:
        message = redact(f"{type(error).__name__}: {error}")
        logger().warning("%s: its health could not be measured: %s", pipeline.name, message)


def announce_findings(health: Health, run_id: str | None) -> None:
    """Tell every finding, and log those that are breached; `run_id` is that of the run at whose end it is, or None."""
    for found in health.findings:
        emit(found.event, health.pipeline, found.payload(run_id))
        if found.breached:
            logger().warning("%s: %s Look with `%s`.", health.pipeline, found.text, found.look)


def announce_notices(pipeline: Pipeline, notices: Iterable[Notice], run_id: str | None) -> None:
    """Tell what a feed has noticed of its source; `run_id` is that of the run that did, or None."""
    for notice in notices:
        text = notice.text[:1].upper() + notice.text[1:]
        emit(notice.event, pipeline.name, {**notice.payload, "run_id": run_id, "text": text})
        level = logging.WARNING if notice.alarming else logging.INFO
        logger().log(level, "%s: %s", pipeline.name, notice.text, extra={"pipeline": pipeline.name, **notice.payload})


def say_out_of_bounds(attempt: Attempt, message: str) -> None:
    """Raise the event that a window was loaded although its statistics are out of bounds."""
    emit(causes.BOUNDS_EXCEEDED, attempt.pipeline, {"run_id": attempt.run_id, "message": message})
    logger().warning("%s", message)


def say_null_cursors(pipeline: Pipeline, rows: int) -> None:
    """Raise the event that the source holds rows that no window will ever contain."""
    emit(causes.CURSOR_MISSING, pipeline.name, {"rows": rows, "cursor": pipeline.extract.cursor})
    logger().warning(
        "%s: %d rows of %s have no %s, so they are in no window and are not loaded. Fill it in the source, or read a "
        "query whose cursor is coalesce(%s, …).",
        pipeline.name,
        rows,
        pipeline.extract.dataset,
        pipeline.extract.cursor,
        pipeline.extract.cursor,
    )


def say_not_acknowledged(pipeline: Pipeline, error: Exception) -> None:
    """Log that the source still keeps what has been committed."""
    logger().warning(
        "%s: what was committed is in the target, but the source was not told: %s. The next run tells it.",
        pipeline.name,
        error,
    )


def say_clipped(pipeline: Pipeline, asked: Window, bound: datetime) -> None:
    """Log that an explicit window ends later than can be read safely."""
    logger().warning(
        "%s: %s is clipped to %s: what lies at or after it could still change.",
        pipeline.name,
        asked,
        bound.isoformat(),
    )


def say_unseen(pipeline: Pipeline, columns: Iterable[str]) -> None:
    """Log that masked columns are in no row: a name that is written wrong masks nothing."""
    logger().warning(
        "%s: masked names %s, which is neither in the contract nor in any row that came in. Mend the name, or take it "
        "out.",
        pipeline.name,
        ", ".join(map(repr, sorted(columns))),
    )


def say_shared(pipeline: Pipeline, others: Sequence[str]) -> None:
    """Log that a full refresh deletes nothing, since the target is not this pipeline's alone."""
    logger().warning(
        "%s: %s is also written to by %s, so this full refresh deletes nothing: what does not come in may be theirs.",
        pipeline.name,
        pipeline.load.table,
        ", ".join(others),
    )


def say_stalled(pipeline: Pipeline, bound: datetime) -> None:
    """Raise the event that the source's bound has not moved since the last run."""
    emit(causes.BOUND_STALLED, pipeline.name, {"bound": bound.isoformat()})
    logger().warning(
        "%s: the source is proven up to %s, no further than last time: a transaction is open there, or its clock "
        "stands still.",
        pipeline.name,
        bound.isoformat(),
    )
