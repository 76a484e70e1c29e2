"""Backfill: windows of the past, each a flow run of `window/backfill`, until the ledger has them all."""

from datetime import datetime
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.nightly import GRAPH
from tasks.declaration import Pipeline
from tasks.errors import ConfigError
from tasks.recovery.backfill.calendar import By
from tasks.recovery.backfill.fan_out import fan_out
from tasks.recovery.backfill.ledger import Backfill
from tasks.recovery.backfill.plan import Only, plan_backfill
from tasks.recovery.backfill.report import BackfillReport
from tasks.recovery.backfill.run import all_carried_out, backfill_pipeline, recent_plans, rehearse_backfill
from tasks.recovery.backfill.submission import Submission

# Over about 200 runs that wait, a queue starves.
Jobs = Annotated[int, Field(ge=1, le=100)]


@flow(name="backfill")
def backfill(
    pipeline: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    by: By = "day",
    jobs: Jobs = 4,
    only: Only = "missing",
    dry_run: bool = False,
    afresh: bool = False,
) -> tuple[BackfillReport, ...]:
    """Load the windows of `[start, end)` that are `missing`, `failed` or `stale`, or all; or the last month of each."""

    def carry_out(its: Pipeline, opened: Backfill) -> BackfillReport:
        with Submission.connected(opened, jobs) as submission:
            return fan_out(its, opened, jobs, submission)

    if pipeline is None:
        if start is not None or end is not None:
            raise ConfigError("A range is of one pipeline. Name the pipeline, or leave start and end out.")
        plans = recent_plans([GRAPH[name] for name in GRAPH.order], by, only)
    else:
        asked = GRAPH.named(pipeline)
        plans = [(asked, plan_backfill(asked, start, end, by, only))]
    if dry_run:
        for _, plan in plans:
            rehearse_backfill(plan)
        return ()
    if pipeline is not None:
        return (backfill_pipeline(*plans[0], carry_out, afresh=afresh),)
    return all_carried_out(plans, carry_out)
