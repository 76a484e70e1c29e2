"""`backfill_pipelines`: backfills of several pipelines by flow runs, one pipeline after another."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from tasks.declaration import Pipeline
from tasks.errors import BackfillFailed, ConfigError, TidegateError, redact
from tasks.extract.feed import Feed
from tasks.observe.artifacts import show_report
from tasks.observe.context import logger
from tasks.recovery.backfill.calendar import By
from tasks.recovery.backfill.ledger import Backfill, close_backfill, open_backfill
from tasks.recovery.backfill.plan import BackfillPlan, Only, plan_backfill
from tasks.recovery.backfill.report import BackfillReport, report_backfill
from tasks.running.plan import expect_past

RECENT: Final = timedelta(days=31)
"""How far back from a source's bound the backfill of all pipelines goes."""

_SHOWN: Final = 500
"""Rows of an artifact: those that failed come first."""

CarryOut = Callable[[Pipeline, Backfill], BackfillReport]


def backfill_pipeline(
    pipeline: Pipeline, plan: BackfillPlan, carry_out: CarryOut, *, afresh: bool = False
) -> BackfillReport:
    """Open or go on with the backfill of `plan`, and have it carried out.

    Inside a flow run the table of its windows is an artifact `etl-backfill-<name>`.

    Args:
        pipeline: whose.
        plan: from `plan_backfill`.
        carry_out: does what is left of it, and closes it.
        afresh: begin another in any case.

    Raises:
        BackfillFailed: some windows could not be loaded; the others were.
        TidegateError: see `tasks.errors`.
    """
    backfill = open_backfill(pipeline, plan, afresh=afresh)
    if backfill.resumed:
        logger().info("%s: going on with the backfill %s.", pipeline.name, backfill.backfill_id)
    if backfill.windows:
        report = carry_out(pipeline, backfill)
    else:
        close_backfill(pipeline, backfill, "done")
        report = report_backfill(pipeline, backfill)
    rows = sorted(report.rows, key=lambda row: row["status"] == "committed")
    cut = f"; the first {_SHOWN} of {len(rows):,} windows" if len(rows) > _SHOWN else ""
    show_report(f"backfill-{pipeline.name}", rows[:_SHOWN], f"{report}{cut}")
    logger().info("%s", report)
    if report.left:
        raise BackfillFailed(_told(pipeline, report))
    return report


def rehearse_backfill(plan: BackfillPlan) -> None:
    """Show what a backfill would do: a line in the log, and inside a flow run the table of its windows."""
    rows = [
        {
            "window": str(one.window),
            "standing": one.standing,
            "rows": one.rows,
            "requests": one.calls,
            "seconds": None if one.seconds is None else round(one.seconds, 1),
        }
        for one in plan.chosen
    ]
    said = f"{plan.pipeline}: {len(plan.chosen):,} of {len(plan.windows):,} windows by {plan.by} would be loaded"
    show_report(f"backfill-{plan.pipeline}", rows[:_SHOWN], said)
    logger().info("%s.", said)


def recent_plans(pipelines: Sequence[Pipeline], by: By, only: Only) -> list[tuple[Pipeline, BackfillPlan]]:
    """Plans of the last month that each source has, where something is to do; of those that have a past to read.

    A pipeline none of whose windows is covered is left to its first run.
    """
    plans = [(one, _recent_plan(one, by, only)) for one in pipelines if _has_past(one)]
    return [(one, plan) for one, plan in plans if plan is not None and plan.chosen and _has_begun(plan)]


def all_carried_out(plans: Sequence[tuple[Pipeline, BackfillPlan]], carry_out: CarryOut) -> tuple[BackfillReport, ...]:
    """Carry out every plan; one that fails keeps none of the others.

    Raises:
        BackfillFailed: some failed, after all others were carried out.
    """
    reports, problems = [], []
    for pipeline, plan in plans:
        try:
            reports.append(backfill_pipeline(pipeline, plan, carry_out))
        # Whatever it is, the other pipelines are to have theirs.
        except Exception as error:
            problems.append(redact(str(error) if isinstance(error, TidegateError) else repr(error)))
            logger().error("%s: its backfill failed. %s", pipeline.name, problems[-1])
    if problems:
        raise BackfillFailed(f"{len(problems)} of {len(plans)} backfills failed. {' '.join(problems)}")
    return tuple(reports)


def _has_past(pipeline: Pipeline) -> bool:
    try:
        expect_past(pipeline)
    except ConfigError:
        return False
    return not isinstance(pipeline.extract, Feed) and pipeline.extract.cursor is not None


def _recent_plan(pipeline: Pipeline, by: By, only: Only) -> BackfillPlan | None:
    assert not isinstance(pipeline.extract, Feed)
    bound = pipeline.extract.bound()
    return None if bound is None else plan_backfill(pipeline, bound - RECENT, bound, by, only)


def _has_begun(plan: BackfillPlan) -> bool:
    return any(one.covered_at is not None for one in plan.windows)


def _told(pipeline: Pipeline, report: BackfillReport) -> str:
    windows, backfill = report.left, report.backfill
    asked = backfill.asked
    bounds = "".join(f" --{name} {_text(at)}" for name, at in (("start", asked.start), ("end", asked.end)) if at)
    return (
        f"{pipeline.name}: {len(windows):,} of {len(report.windows):,} windows could not be loaded: "
        f"{', '.join(str(one.window) for one in windows[:3])}{' …' if len(windows) > 3 else ''}. "
        f"{report.message or ''} Mend that, and go on with what is left: tidegate backfill {pipeline.name}{bounds} "
        f"--by {backfill.by} --only {backfill.only}"
    )


def _text(at: datetime) -> str:
    return at.isoformat()
