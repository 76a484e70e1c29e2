"""`traces_of`: what the ledger has of the flow runs that carry out windows: whether a live process is at work."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from tasks.declaration import Pipeline
from tasks.recovery.backfill.dispatch import Trace
from tasks.running.assembly import Assembly
from tasks.state.attempts import sweep
from tasks.state.tables import runs

_TRACES: dict[str, Trace] = {"running": "open", "crashed": "dead"}


def traces_of(pipeline: Pipeline, flow_runs: Sequence[UUID]) -> dict[UUID, Trace]:
    """What the last attempt of each of these flow runs is; those that have none are left out.

    Attempts whose process is gone, by the lock that it held at the target, are recorded as crashed before.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    if not flow_runs:
        return {}
    parts = Assembly(pipeline)
    told = select(runs.c.flow_run_id, runs.c.status).where(
        runs.c.pipeline == pipeline.name, runs.c.flow_run_id.in_([str(one) for one in flow_runs])
    )
    with parts.target_errors(pipeline.name):
        sweep(parts.engine, parts.dialect, pipeline.name)
        with parts.engine.connect() as connection:
            found = connection.execute(told.order_by(runs.c.started_at)).all()
    return {UUID(row.flow_run_id): _TRACES.get(row.status, "none") for row in found}
